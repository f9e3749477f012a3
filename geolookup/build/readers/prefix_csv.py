"""Prefix CSV: ``prefix,code`` a line, quoted or not.

With a header there may be more columns, in any order. A line may have an address in
place of a prefix.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

NAME = "prefix-csv"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    begin = detection.beginning(head)
    if begin.commented or not begin.lines:
        return False
    row = begin.row()
    if row and detection.is_network(row[0]):
        return len(row) == 2 and begin.lines[0].count(" ") == 0
    return _columns(begin.header()) is not None


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    header = detection.beginning(file.head).header()
    columns = _columns(header)
    deep = state.options.depth == "subdivision"
    place = detection.column(header, detection.SUBDIVISION) if columns and deep else None
    if deep and place is None:
        raise SourceError(f"{file.name}:1: depth: no column names a subdivision")
    if columns is None:
        dialect = Dialect("networks", quotes=True, least=2, most=2, code=1)
        return read_lines(file, state, dialect)
    network, code = columns
    count = len(header)
    dialect = Dialect(
        "networks", quotes=True, least=count, most=count, first=network, code=code, place=place
    )
    return read_lines(file, state, dialect, skip=1)


def _columns(header: list[str]) -> tuple[int, int] | None:
    network = detection.column(header, detection.NETWORK)
    code = detection.column(header, detection.CODE)
    return None if network is None or code is None or len(header) > 32 else (network, code)
