"""Geofeeds (RFC 8805): ``prefix,code,region,city,postal code`` a line.

With comments, spaces around fields, and in any encoding that begins with a byte order
mark. An empty code says that the network wants no location: a range of silence, also
inside a larger prefix that has one.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import File, Reading, read_lines

NAME = "geofeed"

# Only two fields count, and what follows them is read by nobody, however it is quoted.
_DIALECT = Dialect("networks", quotes=True, comments=True, spaces=True, least=2, code=1)


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file that begins so is in this format, going by its first line."""
    row = detection.beginning(head).row()
    return len(row) >= 2 and detection.is_network(row[0]) and detection.is_code(row[1])


def read(file: File, reading: Reading) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    read_lines(file, reading, _DIALECT)
