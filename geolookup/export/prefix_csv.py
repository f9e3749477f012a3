"""CSV with a line per prefix, for engines with a type for prefixes; no comment lines.

The rows are those of `range_csv`, each as the fewest prefixes that make it up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import FAMILIES
from geolookup.export.rows import Rows, prefixes, text

HEADER = b"prefix,code,status,claimed\n"


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the rows' prefixes as CSV, IPv4 before IPv6."""
    file.write(HEADER if not rows.networks else HEADER.replace(b"\n", b",networks\n"))
    file.writelines(line.encode() for line in _lines(rows))


def _lines(rows: Rows) -> Iterator[str]:
    for family in FAMILIES:
        for first, last, value in rows.of(family):
            kinds = f",{' '.join(value.networks)}" if rows.networks else ""
            said = f"{value.code},{value.status},{' '.join(value.claimed)}{kinds}\n"
            for address, length in prefixes(family, first, last):
                yield f"{text(family, address)}/{length},{said}"
