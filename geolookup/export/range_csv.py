"""CSV: one line per range, for all addresses of both families.

``first,last,code,status,claimed`` under a header with these names; claimed codes are
separated by spaces. With networks there is a sixth column, ``networks``, with the kinds in the
same form. Nothing is quoted, all is ASCII, lines end with LF.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import FAMILIES
from geolookup.export.rows import Rows, text

HEADER = b"first,last,code,status,claimed\n"


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the rows as CSV, IPv4 before IPv6."""
    file.write(HEADER if not rows.networks else HEADER.replace(b"\n", b",networks\n"))
    file.writelines(line.encode() for line in _lines(rows))


def _lines(rows: Rows) -> Iterator[str]:
    for family in FAMILIES:
        for first, last, value in rows.of(family):
            range_ = f"{text(family, first)},{text(family, last)}"
            kinds = f",{' '.join(value.networks)}" if rows.networks else ""
            yield f"{range_},{value.code},{value.status},{' '.join(value.claimed)}{kinds}\n"
