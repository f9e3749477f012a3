"""A dataset small enough to know by heart, with each status in both families.

Made by hand and not by the compiler, so that a fault of one does not show as a
fault of the other.
"""

from __future__ import annotations

import ipaddress
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from geolookup.answer.claims import FIXED_CLAIMS, SPECIAL_PURPOSE, UNASSIGNED, Claim, Status
from geolookup.answer.embedded_ipv4 import EMBEDDED_6TO4, EMBEDDED_LOW32, EMBEDDED_TEREDO

CLAIMS = (
    *FIXED_CLAIMS,
    Claim(Status.ASSIGNED, "CN", (("CN", 2),)),
    Claim(Status.ASSIGNED, "DE", (("DE", 2),)),
    Claim(Status.DISPUTED, "HK", (("CN", 1), ("HK", 1))),
    Claim(Status.DISPUTED, "AT", (("AT", 1), ("DE", 1))),
    Claim(Status.DISPUTED, "CN", (("CN", 2), ("US", 1))),
    Claim(Status.UNCONFIRMED, "US", (("US", 1),), abstentions=1, silent=True),
    Claim(Status.UNCONFIRMED, "CN", (("CN", 2),), abstentions=1, silent=True),
    Claim(Status.OVERRIDE, "FR"),
    Claim(Status.OVERRIDE, "ZZ"),
)
CN, DE, CN_HK, AT_DE, CN_CN_US, US_OR_SILENT, CN_CN_OR_SILENT, FR_OVERRIDE, ZZ_OVERRIDE = range(
    len(FIXED_CLAIMS), len(CLAIMS)
)

PREFIXES = (
    ("1.0.1.0/24", CN),
    ("2.0.0.0/8", DE),
    ("3.0.0.0/8", CN_HK),
    ("4.0.0.0/8", AT_DE),
    ("5.0.0.0/8", CN_CN_US),
    ("8.0.0.0/8", US_OR_SILENT),
    ("9.0.0.0/8", CN_CN_OR_SILENT),
    ("10.0.0.0/8", SPECIAL_PURPOSE),
    ("10.1.0.0/16", FR_OVERRIDE),
    ("10.2.0.0/16", ZZ_OVERRIDE),
    ("::1/128", SPECIAL_PURPOSE),
    ("::ffff:0:0/96", EMBEDDED_LOW32),
    ("2001::/32", EMBEDDED_TEREDO),
    ("2001:200::/32", CN),
    ("2001:300::/64", CN_HK),
    ("2001:300::8000:0:0:0/65", DE),
    ("2002::/16", EMBEDDED_6TO4),
    ("fe80::/10", SPECIAL_PURPOSE),
)
"""The wider ones first."""

ONE_OF_EACH = {
    "1.0.1.1": CN,
    "2.0.0.1": DE,
    "3.0.0.1": CN_HK,
    "4.0.0.1": AT_DE,
    "5.0.0.1": CN_CN_US,
    "8.8.8.8": US_OR_SILENT,
    "9.9.9.9": CN_CN_OR_SILENT,
    "10.0.0.1": SPECIAL_PURPOSE,
    "10.1.0.1": FR_OVERRIDE,
    "10.2.0.1": ZZ_OVERRIDE,
    "200.0.0.1": UNASSIGNED,
    "1.2.3": 0,
    "2001:200::1": CN,
    "2001:300::1": CN_HK,
    "2001:300:0:0:8000::": DE,
    "::1": SPECIAL_PURPOSE,
    "fe80::1%eth0": SPECIAL_PURPOSE,
    "4000::": UNASSIGNED,
    "::ffff:1.0.1.1": CN,
    "2002:200:1::": DE,
    "2001::fcff:fffe": CN_HK,  # Teredo: the client's 3.0.0.1, inverted
}
"""Addresses and the number of the claim that answers."""


@dataclass
class Content:
    """A compiled dataset, as `geolookup.answer.dataset.write` takes it."""

    ipv4_first: bytes
    ipv4_claims: bytes
    ipv6_first_high: bytes
    ipv6_first_low: bytes
    ipv6_claims: bytes
    claims: Sequence[Claim] = CLAIMS
    metadata: dict[str, object] = field(default_factory=dict)
    places: Sequence[str] = ()


def metadata() -> dict[str, object]:
    source = {
        "licence": "CC0-1.0",
        "date": "2026-06-17",
        "coverage": "full",
        "attribution": "",
        "url": "",
    }
    return {
        "built": "2026-06-17T00:00:00Z",
        "sources": [
            source | {"name": "one", "origin": "One", "ranges": 7, "attribution": "thanks to Öne"},
            source | {"name": "two", "origin": "Two", "ranges": 0, "coverage": "partial"},
        ],
        "special_purpose": {"date": "2026-06-01"},
        "nat64_prefixes": [],
        "overrides": 2,
    }


def _intervals(version: int) -> tuple[list[int], list[int]]:
    """Return the first addresses and claims of the gap-free intervals of one family."""
    networks = [
        (network, claim)
        for network, claim in ((ipaddress.ip_network(p), claim) for p, claim in PREFIXES)
        if network.version == version
    ]
    top = 2 ** (32 if version == 4 else 128)
    edges = {0} | {
        edge
        for network, _ in networks
        for edge in (int(network[0]), int(network[-1]) + 1)
        if edge < top
    }
    firsts: list[int] = []
    claims: list[int] = []
    for first in sorted(edges):
        inside = [c for n, c in networks if int(n[0]) <= first <= int(n[-1])]
        claim = inside[-1] if inside else UNASSIGNED
        if not claims or claim != claims[-1]:
            firsts.append(first)
            claims.append(claim)
    return firsts, claims


def content() -> Content:
    ipv4_first, ipv4_claims = _intervals(4)
    ipv6_first, ipv6_claims = _intervals(6)
    return Content(
        ipv4_first=array("I", ipv4_first).tobytes(),
        ipv4_claims=array("H", ipv4_claims).tobytes(),
        ipv6_first_high=array("Q", (first >> 64 for first in ipv6_first)).tobytes(),
        ipv6_first_low=array("Q", (first % 2**64 for first in ipv6_first)).tobytes(),
        ipv6_claims=array("H", ipv6_claims).tobytes(),
        metadata=metadata(),
    )
