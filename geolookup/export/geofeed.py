"""Geofeed (RFC 8805): one line per prefix that has a country, and none for all others.

A line with a blank country would be an instruction not to geolocate the prefix, which is
not what an unknown or disputed country means. IPv6 prefixes that carry IPv4 addresses are
left out too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from geolookup.answer.intervals import FAMILIES
from geolookup.export.rows import Rows, prefixes, text

_LINE_END = "\r\n"  # RFC 8805 section 2.1, after RFC 4180


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the spans as a geofeed, IPv4 before IPv6."""
    file.writelines(f"{line}{_LINE_END}".encode() for line in _lines(rows))


def _lines(rows: Rows) -> Iterator[str]:
    yield from rows.comments()
    for family in FAMILIES:
        for span in rows.spans(family):
            for first, length in prefixes(family, span.first, span.last):
                # Prefix, country, region, city, postal code.
                region = span.code if "-" in span.code else ""
                yield f"{text(family, first)}/{length},{span.code[:2]},{region},,"
