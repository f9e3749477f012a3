"""MaxMind's GeoLite2 and GeoIP2 CSV: blocks of networks, and tables of locations.

A source names the archive as downloaded, the folder that it unpacks to, or the files,
including one table of locations (in any language). A network's country is that
of its ``geoname_id``; the manifest may ask for ``country_from = "registered_country"``.
Networks without a country, and those with a continent only, are silence. City data have
subdivisions in their tables of locations.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.decompression import text
from geolookup.build.readers.ranges import SILENCE
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines
from geolookup.errors import SourceError

NAME = "geolite2"

_SUBDIVISIONS = ("subdivision_1_iso_code", "subdivision_2_iso_code")
_COLUMNS = {"country": "geoname_id", "registered_country": "registered_country_geoname_id"}


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its header."""
    return is_table(head) or {"network", "geoname_id"} <= _header(head)


def is_table(head: bytes) -> bool:
    """Return whether a file is a table of locations, which blocks refer to."""
    return {"geoname_id", "country_iso_code"} <= _header(head) and "network" not in _header(head)


def read(file: SourceFile, state: ReadState) -> None:
    """Add a table's locations, or the ranges of a file of blocks, to a source.

    Raises:
        SourceError: as `read_lines`; or there are blocks and no table of locations.
    """
    header = detection.beginning(file.head).header()
    if is_table(file.head):
        return _read_locations(file, state, header)
    if not state.geonames:
        raise SourceError(
            f"{file.name}: needs the publisher's table of locations, such as"
            " GeoLite2-Country-Locations-en.csv: name it in files, or the archive with both"
        )
    wanted = _COLUMNS[state.options.country_from]
    code = detection.column(header, (wanted,))
    network = detection.column(header, ("network",))
    if code is None or network is None or len(header) > 32:
        raise SourceError(f"{file.name}:1: has no column {wanted}")
    dialect = Dialect(
        "networks", quotes=True, least=len(header), most=len(header), first=network, code=code
    )

    def read_location(raw: str) -> int:
        number = state.geonames.get(raw)
        if number is None:
            raise ValueError("not in the table of locations")
        return number

    return read_lines(file, state, dialect, skip=1, read_code=read_location)


def _header(head: bytes) -> set[str]:
    return set(detection.beginning(head).header())


def _read_locations(file: SourceFile, state: ReadState, header: list[str]) -> None:
    key, code = header.index("geoname_id"), header.index("country_iso_code")
    deep = state.options.depth == "subdivision"
    regions = [header.index(name) for name in _SUBDIVISIONS if deep and name in header]
    if deep and not regions:
        raise SourceError(f"{file.name}:1: depth: no column names a subdivision")
    state.geonames[""] = SILENCE
    rows = csv.reader(_lines(file))
    try:
        for row in rows:
            location = f"{file.name}:{rows.line_num}"
            if rows.line_num == 1:
                continue
            if len(row) != len(header):
                state.faults.add(f"{location}:1", f"expected {len(header)} fields")
                continue
            try:
                places = (row[at] for at in regions)
                state.geonames[row[key]] = state.places.read(row[code], *places)
            except ValueError as error:
                state.faults.add(f"{location}:{_column(row, code)}", str(error))
    except csv.Error as error:
        raise SourceError(f"{file.name}:{rows.line_num}:1: {error}") from error


def _column(row: list[str], position: int) -> int:
    """Return the column at which a field begins, quoting as few fields as MaxMind does."""
    quotes = sum(2 for field in row[:position] if " " in field or "," in field)
    return sum(len(field.encode()) + 1 for field in row[:position]) + quotes + 1


def _lines(file: SourceFile) -> Iterator[str]:
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
