"""CSV with a line per prefix, for engines with a type for prefixes; no comment lines.

The rows are those of `range_csv`, each as the fewest prefixes that make it up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import Family
from geolookup.export.range_csv import write_rows
from geolookup.export.rows import Rows, prefixes, text


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the rows' prefixes as CSV, IPv4 before IPv6."""
    write_rows(rows, file, "prefix", _prefixes)


def _prefixes(family: Family, first: int, last: int) -> Iterator[str]:
    for address, length in prefixes(family, first, last):
        yield f"{text(family, address)}/{length}"
