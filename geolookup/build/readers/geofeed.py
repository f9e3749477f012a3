"""Geofeeds (RFC 8805): ``prefix,code,region,city,postal code`` a line.

With comments, spaces around fields, and in any encoding that begins with a byte order
mark. An empty code asks for no location: a range of silence, also inside a larger
prefix that has a code. The region is a code of ISO 3166-2.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines

NAME = "geofeed"

# Only the first fields are read, so the quoting of the others does not matter.
_DIALECT = Dialect("networks", quotes=True, comments=True, spaces=True, least=2, code=1)
_WITH_REGION = Dialect(
    "networks", quotes=True, comments=True, spaces=True, least=2, read=3, code=1, place=2
)


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    row = detection.beginning(head).row()
    return len(row) >= 2 and detection.is_network(row[0]) and detection.is_code(row[1])


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    deep = state.options.depth == "subdivision"
    read_lines(file, state, _WITH_REGION if deep else _DIALECT)
