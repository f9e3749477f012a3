"""The IANA special-purpose registries, and the IPv6 forms that carry an IPv4 address.

The registries are dated copies in IANA's own CSV format. Every row counts as
special-purpose, those of anycast services that IANA calls globally reachable
too: what answers there is in no region.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.resources
import io
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

from geolookup.claims import (
    EMBEDDED_6TO4,
    EMBEDDED_LOW32,
    EMBEDDED_NAT64_32,
    EMBEDDED_NAT64_40,
    EMBEDDED_NAT64_48,
    EMBEDDED_NAT64_56,
    EMBEDDED_NAT64_64,
    EMBEDDED_TEREDO,
)
from geolookup.errors import SourceError

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


# These stand in IANA's address space registries instead, as blocks that are not unicast
# or not in use.
_MORE = (
    SpecialPurpose("224.0.0.0/4", "Multicast", "[RFC5771]", "1981-09"),
    SpecialPurpose("fec0::/10", "Site-Local Unicast, deprecated", "[RFC3879]", "2004-09"),
    SpecialPurpose("ff00::/8", "Multicast", "[RFC4291], Section 2.7", "2006-02"),
)


class Embedded(NamedTuple):
    """An IPv6 prefix whose addresses carry an IPv4 address, which answers for them.

    Attributes:
        prefix: in CIDR notation.
        claim: the `EMBEDDED_*` number that says where the IPv4 address lies.
        name: what the form is called.
    """

    prefix: str
    claim: int
    name: str


EMBEDDED = (
    Embedded("::ffff:0:0/96", EMBEDDED_LOW32, "IPv4-mapped"),
    Embedded("64:ff9b::/96", EMBEDDED_LOW32, "NAT64"),
    Embedded("2001::/32", EMBEDDED_TEREDO, "Teredo"),
    Embedded("2002::/16", EMBEDDED_6TO4, "6to4"),
)
"""The forms that every dataset knows. They win over rows of the registries."""

_NAT64_CLAIMS = {
    32: EMBEDDED_NAT64_32,
    40: EMBEDDED_NAT64_40,
    48: EMBEDDED_NAT64_48,
    56: EMBEDDED_NAT64_56,
    64: EMBEDDED_NAT64_64,
    96: EMBEDDED_LOW32,
}

# A block may hold several prefixes and footnote marks: "192.0.0.170/32, 192.0.0.171/32",
# "192.0.0.0/24 [2]".
_PREFIX = re.compile(r"[0-9a-fA-F:.]+/[0-9]+")


@functools.cache
def special_purpose() -> tuple[SpecialPurpose, ...]:
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


def nat64_prefix(text: str) -> Embedded:
    """Return an operator's own NAT64 prefix (RFC 6052) as an embedded form.

    Raises:
        SourceError: not an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, or one
            that RFC 6052 does not allow.
    """
    network = None
    with contextlib.suppress(ValueError):
        network = ipaddress.IPv6Network(text)
    if network is None:  # raised here, so that ipaddress's text, which quotes it, is no part
        raise SourceError("not an IPv6 prefix, or one with bits set beyond its length")
    if network.prefixlen not in _NAT64_CLAIMS:
        raise SourceError("a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits (RFC 6052)")
    if network.network_address.packed[8]:
        raise SourceError("bits 64 to 71 of a NAT64 prefix are 0 (RFC 6052)")
    return Embedded(str(network), _NAT64_CLAIMS[network.prefixlen], "NAT64, configured")
