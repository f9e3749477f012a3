"""HAProxy: a map file of prefixes, for ``map_ip``.

A line has a prefix and its country or subdivision, or with networks the kinds, with commas
between them. Addresses that have none are in no line, and neither are IPv6 prefixes that carry IPv4
addresses: HAProxy looks up the IPv4 address in most of these itself.
"""

from __future__ import annotations

from typing import BinaryIO

from geolookup.export.rows import Rows


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the prefixes as a map, IPv4 before IPv6."""
    write_lines(rows, file, "")


def write_lines(rows: Rows, file: BinaryIO, end: str) -> None:
    """Write the heading as comments, and lines of a prefix, a blank, its value and *end*."""
    file.writelines(f"{line}\n".encode() for line in rows.comments())
    for prefix, value in rows.prefix_values():
        file.write(f"{prefix} {value}{end}\n".encode())
