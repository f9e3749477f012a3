"""The IANA special-purpose registries.

They are dated copies in IANA's own CSV format. Every row counts as
special-purpose, those of anycast services that IANA calls globally reachable
too: what answers there is in no region.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
import re
from dataclasses import dataclass

DATE = "2025-10-09"
"""Last change of both registries, as IANA states it, when the copies were made."""

REGISTRIES = ("iana-ipv4-special-registry.csv", "iana-ipv6-special-registry.csv")
"""Files in geolookup/data/, byte for byte as IANA serves them."""


@dataclass(frozen=True, slots=True)
class SpecialPurpose:
    """A row of a registry: one prefix, as IANA writes it.

    Attributes:
        prefix: in CIDR notation.
        name: what the prefix is for.
        rfc: what defines it, such as ``[RFC6890], Section 2.1``.
        allocated: year and month, such as ``2010-01``.
    """

    prefix: str
    name: str
    rfc: str
    allocated: str


# These are in IANA's address space registries instead, as blocks that are not unicast or
# not in use.
_MORE = (
    SpecialPurpose("224.0.0.0/4", "Multicast", "[RFC5771]", "1981-09"),
    SpecialPurpose("fec0::/10", "Site-Local Unicast, deprecated", "[RFC3879]", "2004-09"),
    SpecialPurpose("ff00::/8", "Multicast", "[RFC4291], Section 2.7", "2006-02"),
)


# A block may hold several prefixes and footnote marks: "192.0.0.170/32, 192.0.0.171/32",
# "192.0.0.0/24 [2]".
_PREFIX = re.compile(r"[0-9a-fA-F:.]+/[0-9]+")


@functools.cache
def special_purpose_prefixes() -> tuple[SpecialPurpose, ...]:
    """Return all special-purpose prefixes, in the registries' order, IPv4 first.

    They may overlap: a row may be more specific than another.
    """
    rows = []
    for name in REGISTRIES:
        file = importlib.resources.files("geolookup").joinpath("data", name)
        rows += _read_registry(file.read_text(encoding="utf-8"))
    return (*rows, *_MORE)


def _read_registry(text: str) -> list[SpecialPurpose]:
    return [
        SpecialPurpose(
            prefix=prefix,
            name=row["Name"].strip('"'),
            rfc=" ".join(row["RFC"].split()),
            allocated=row["Allocation Date"],
        )
        for row in csv.DictReader(io.StringIO(text, newline=""))
        for prefix in _PREFIX.findall(row["Address Block"])
    ]
