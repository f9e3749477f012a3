"""Delegation statistics of the Regional Internet Registries, plain and extended.

``apnic|AU|ipv4|1.0.0.0|256|20110811|assigned|A91872ED``: an IPv4 value is a number of
addresses, which need not be a power of two, an IPv6 value a prefix length. Version line,
summaries, numbers of networks and what is available or reserved are left out.
"""

from __future__ import annotations

from geolookup._sweep import Dialect
from geolookup.build.readers import detection
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines

NAME = "rir"

_DIALECT = Dialect("delegations", separator="|", comments=True, least=2, most=32, code=1)
_TYPES = ("asn", "ipv4", "ipv6")


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its first line."""
    row = detection.beginning(head).row("|")
    if len(row) < 5:
        return False
    version = row[0].replace(".", "", 1).isdigit() and row[1].isalpha() and row[2].isdigit()
    return version or row[2] in _TYPES


def read(file: SourceFile, state: ReadState) -> None:
    """Add a file's ranges to a source. SourceError: as `read_lines`."""
    read_lines(file, state, _DIALECT)
