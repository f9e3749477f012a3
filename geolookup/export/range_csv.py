"""CSV: one line per range, for all addresses of both families.

``first,last,code,status,claimed`` under a header with these names; claimed codes are
separated by spaces. With networks there is a sixth column, ``networks``, with the kinds in the
same form. Nothing is quoted, all is ASCII, lines end with LF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from geolookup.answer.intervals import FAMILIES, Family
from geolookup.export.rows import Rows, text


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the rows as CSV, IPv4 before IPv6."""
    write_rows(rows, file, "first,last", _range)


def write_rows(
    rows: Rows, file: BinaryIO, columns: str, places: Callable[[Family, int, int], Iterator[str]]
) -> None:
    """Write the rows as CSV, each once for every place that its first and last address make.

    Args:
        rows: to be written.
        file: open for writing bytes.
        columns: the header's names of what a place holds.
        places: yields the places of a family, first and last address.
    """
    file.write(f"{columns},code,status,claimed{',networks' if rows.networks else ''}\n".encode())
    for family in FAMILIES:
        for first, last, value in rows.of(family):
            kinds = f",{' '.join(value.networks)}" if rows.networks else ""
            said = f"{value.code},{value.status},{' '.join(value.claimed)}{kinds}\n"
            file.writelines(f"{place},{said}".encode() for place in places(family, first, last))


def _range(family: Family, first: int, last: int) -> Iterator[str]:
    yield f"{text(family, first)},{text(family, last)}"
