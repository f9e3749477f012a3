"""MaxMind's GeoLite2 and GeoIP2 CSV: blocks of networks, and tables of locations.

A source names the archive as downloaded, the folder that it unpacks to, or the files,
of which one is a table of locations (in whatever language). A network's country is that
of its ``geoname_id``; the manifest may ask for ``country_from = "registered_country"``.
Networks without one, and those on a continent only, are silence.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.decompression import text
from geolookup.build.readers.ranges import SILENCE, read_code_number
from geolookup.build.readers.source_file import File, Reading, read_lines
from geolookup.errors import SourceError

NAME = "geolite2"

_COLUMNS = {"country": "geoname_id", "registered_country": "registered_country_geoname_id"}


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file that begins so is in this format, going by its header."""
    return is_table(head) or {"network", "geoname_id"} <= _header(head)


def is_table(head: bytes) -> bool:
    """Return whether a file that begins so is a table of locations, which blocks refer to."""
    return {"geoname_id", "country_iso_code"} <= _header(head) and "network" not in _header(head)


def read(file: File, reading: Reading) -> None:
    """Add a table's locations, or the ranges of a file of blocks, to a source.

    Raises:
        SourceError: as `read_lines`; or blocks come without locations.
    """
    header = detection.beginning(file.head).header()
    if is_table(file.head):
        return _read_locations(file, reading, header)
    if not reading.locations:
        raise SourceError(
            f"{file.name}: needs the publisher's table of locations, such as"
            " GeoLite2-Country-Locations-en.csv: name it in files, or the archive with both"
        )
    wanted = _COLUMNS[reading.options.country_from]
    code = detection.column(header, (wanted,))
    network = detection.column(header, ("network",))
    if code is None or network is None or len(header) > 32:
        raise SourceError(f"{file.name}:1: has no column {wanted}")
    dialect = Dialect(
        "networks", quotes=True, least=len(header), most=len(header), first=network, code=code
    )

    def read_location(raw: str) -> int:
        number = reading.locations.get(raw)
        if number is None:
            raise ValueError("not in the table of locations")
        return number

    return read_lines(file, reading, dialect, skip=1, read_code=read_location)


def _header(head: bytes) -> set[str]:
    return set(detection.beginning(head).header())


def _read_locations(file: File, reading: Reading, header: list[str]) -> None:
    key, code = header.index("geoname_id"), header.index("country_iso_code")
    reading.locations[""] = SILENCE
    rows = csv.reader(_lines(file))
    try:
        for row in rows:
            place = f"{file.name}:{rows.line_num}"
            if rows.line_num == 1:
                continue
            if len(row) != len(header):
                reading.faults.add(f"{place}:1", f"expected {len(header)} fields")
                continue
            try:
                reading.locations[row[key]] = read_code_number(row[code])
            except ValueError as error:
                reading.faults.add(f"{place}:{_column(row, code)}", str(error))
    except csv.Error as error:
        raise SourceError(f"{file.name}:{rows.line_num}:1: {error}") from error


def _column(row: list[str], position: int) -> int:
    """Return the column at which a field begins, quoting as few fields as MaxMind does."""
    quotes = sum(2 for field in row[:position] if " " in field or "," in field)
    return sum(len(field.encode()) + 1 for field in row[:position]) + quotes + 1


def _lines(file: File) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for block in text(file.blocks(), file.name):
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        for line in lines:
            yield line.removesuffix("\r").replace("\0", "\N{REPLACEMENT CHARACTER}") + "\n"
        if len(rest) > csv.field_size_limit():
            raise SourceError(f"{file.name}: a line is longer than a table's lines are")
    if rest:
        yield rest
