"""Range CSV: ``first,last,code`` a line, inclusive.

As DB-IP publishes its Lite datasets, and as the ip-location-db packages hold them.
Addresses are text or integers, fields may be quoted, and there may be a header, which
then names the columns. All lines have the dialect of the first one.

Without a header there may be further columns behind the code, such as a city's: the code
is then the third column, or the fourth behind DB-IP's code of a continent. A subdivision
is the column behind it, or the one that the header names.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.answer.country_codes import SILENT
from geolookup.answer.region_sets import RegionSets
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

NAME = "range-csv"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    begin = detection.beginning(head)
    if begin.commented or not begin.lines:
        return False
    row = begin.row()
    if detection.is_range(row):
        if len(row) == 3:
            return begin.lines[0].count(" ") == 0
        return _longer_code(begin) is not None
    return _columns(begin.header()) is not None


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    begin = detection.beginning(file.head)
    columns = _columns(begin.header())
    deep = state.options.depth == "subdivision"
    if columns is None:
        code = _longer_code(begin)
        if code is not None:
            place = code + 1 if deep else None
            least = code + 1 + deep
            longer = Dialect("ranges", quotes=True, least=least, last=1, code=code, place=place)
            return read_lines(file, state, longer)
        if deep:
            raise SourceError(f"{file.name}: depth: its lines have no subdivision")
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
    place = detection.column(begin.header(), detection.SUBDIVISION)
    if deep and place is None:
        raise SourceError(f"{file.name}:1: depth: no column names a subdivision")
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
        place=place if deep else None,
    )
    return read_lines(file, state, dialect, skip=1)


_CONTINENTS = {
    "AF": "AFRICA",
    "AN": "",
    "AS": "ASIA",
    "EU": "EUROPE",
    "NA": "NORTH_AMERICA",
    "OC": "OCEANIA",
    "SA": "SOUTH_AMERICA",
}
"""Region sets by codes of continents. Four of these are codes of countries, too."""


def _longer_code(begin: detection.Beginning) -> int | None:
    """Return the column of the code in text lines of more than three fields, without a header.

    None: they are no such lines, or it can't be known whether codes are of continents.
    """
    rows = [begin.row(at=at) for at in range(len(begin.lines))]
    if any(len(row) < 4 or not detection.is_range(row) for row in rows):
        return None
    if not all(detection.is_address(row[0]) and detection.is_code(row[2]) for row in rows):
        return None
    if any(row[2] not in _CONTINENTS and row[2] not in SILENT for row in rows):
        return 2
    # A fourth column might hold codes of a country's regions, of the same letters.
    fitting = sum(_lies_in(row[3], row[2]) for row in rows)
    return 3 if all(detection.is_code(row[3]) for row in rows) and 2 * fitting > len(rows) else None


def _lies_in(country: str, continent: str) -> bool:
    if country in SILENT and continent in SILENT:
        return True
    name = _CONTINENTS.get(continent, "")
    return bool(name) and country in RegionSets.builtin().resolve(name).codes


def _columns(header: list[str]) -> tuple[int, int, int] | None:
    first = detection.column(header, detection.FIRST)
    last = detection.column(header, detection.LAST)
    code = detection.column(header, detection.CODE)
    if first is None or last is None or code is None or len(header) > 32:
        return None
    return first, last, code
