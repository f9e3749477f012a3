"""Tor's ``geoip`` and ``geoip6`` (Debian: tor-geoipdb): comments, then ``first,last,code``.

IPv4 addresses are integers, IPv6 addresses text. Silence is ``??``. The data is IPFire's,
which copies codes from operators' geofeeds unchecked: one that is no country's is silence.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import (
    ReadState,
    SourceFile,
    read_lines,
    read_unchecked_code,
)

NAME = "tor"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format: comments, then ranges."""
    begin = detection.beginning(head)
    row = begin.row()
    return begin.commented and len(row) == 3 and detection.is_range(row)


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    row = detection.beginning(file.head).row()
    dialect = Dialect(
        "ranges",
        quotes=True,
        comments=True,
        integers=bool(row) and detection.is_number(row[0]),
        least=3,
        most=3,
        last=1,
        code=2,
    )
    read_lines(file, state, dialect, read_code=lambda raw: read_unchecked_code(raw, file, state))
