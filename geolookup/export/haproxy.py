"""HAProxy: a map file of prefixes, for ``map_ip``.

A line has a prefix and its country or subdivision, or with networks the kinds, with commas
between them. Addresses that have none are in no line, and neither are IPv6 prefixes that carry IPv4
addresses: HAProxy looks up the IPv4 address in most of these itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.export.rows import Rows


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the prefixes as a map, IPv4 before IPv6."""
    file.writelines(f"{line}\n".encode() for line in _lines(rows))


def _lines(rows: Rows) -> Iterator[str]:
    for line in rows.heading():
        yield f"# {line}"
    for prefix, value in rows.prefix_values():
        yield f"{prefix} {value}"
