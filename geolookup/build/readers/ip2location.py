"""IP2Location LITE DB1 CSV (and larger ones): quoted integers, code, name, no header.

``"16777216","16777471","US","United States of America"``. The IPv6 file holds all of
IPv4 too, as IPv4-mapped addresses, which are read as IPv4 addresses.
Silence is ``-``. The fifth field of DB3 and larger ones is the name of a subdivision.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

NAME = "ip2location"

_DIALECT = Dialect("ranges", quotes=True, integers=True, least=4, last=1, code=2)
_WITH_REGION = Dialect("ranges", quotes=True, integers=True, least=5, last=1, code=2, place=4)


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    begin = detection.beginning(head)
    row = begin.row()
    return (
        not begin.commented
        and len(row) >= 4
        and all(map(detection.is_number, row[:2]))
        and detection.is_code(row[2])
    )


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    if state.options.depth == "country":
        return read_lines(file, state, _DIALECT)
    if len(detection.beginning(file.head).row()) < 5:
        raise SourceError(f"{file.name}: depth: its lines have no subdivision")
    return read_lines(file, state, _WITH_REGION)
