"""Range CSV: ``first,last,code`` a line, inclusive.

As DB-IP publishes its Lite datasets, and as the ip-location-db packages hold them.
Addresses are text or integers, fields may be quoted, and there may be a header, which
then names the columns. All lines have the dialect of the first one.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines

NAME = "range-csv"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    begin = detection.beginning(head)
    if begin.commented or not begin.lines:
        return False
    row = begin.row()
    if detection.is_range(row):
        return len(row) == 3 and begin.lines[0].count(" ") == 0
    return _columns(begin.header()) is not None


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    begin = detection.beginning(file.head)
    columns = _columns(begin.header())
    if columns is None:
        row = begin.row()
        integers = len(row) == 3 and detection.is_range(row) and detection.is_number(row[0])
        quoted = bool(begin.lines) and begin.lines[0].startswith('"')
        # Nearly all such files have the plain dialect, which has a faster path.
        plain = (
            None
            if not (integers or quoted)
            else Dialect(
                "ranges", quotes=quoted, integers=integers, least=3, most=3, last=1, code=2
            )
        )
        return read_lines(file, state, plain)
    first, last, code = columns
    row = begin.row(at=1)
    count = len(begin.header())
    integers = len(row) == count and all(detection.is_number(row[at]) for at in (first, last))
    dialect = Dialect(
        "ranges",
        quotes=True,
        integers=integers,
        least=count,
        most=count,
        first=first,
        last=last,
        code=code,
    )
    return read_lines(file, state, dialect, skip=1)


def _columns(header: list[str]) -> tuple[int, int, int] | None:
    first = detection.column(header, detection.FIRST)
    last = detection.column(header, detection.LAST)
    code = detection.column(header, detection.CODE)
    if first is None or last is None or code is None or len(header) > 32:
        return None
    return first, last, code
