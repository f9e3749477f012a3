"""nginx: lines for a ``geo`` block, to be included in it.

A line has a prefix and its country or subdivision, or with networks the kinds, with commas
between them. Addresses that have none are in no line and get the block's default.
"""

from __future__ import annotations

from typing import BinaryIO

from geolookup.export.haproxy import write_lines
from geolookup.export.rows import Rows


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the prefixes as parameters of a ``geo`` block, IPv4 before IPv6."""
    write_lines(rows, file, ";")
