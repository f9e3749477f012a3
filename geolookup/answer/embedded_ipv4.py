"""The IPv6 forms that carry an IPv4 address, which is what answers for them.

An interval of such addresses has a claim number of its own, which says where the
IPv4 address lies. The core reads it there (`ext/address.h` has the same numbers).
"""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

from geolookup.errors import SourceError

EMBEDDED_LOW32 = 0xFFFF
"""IPv4-mapped ``::ffff:0:0/96`` and NAT64 prefixes of 96 bits (RFC 4291, RFC 6052)."""
EMBEDDED_6TO4 = 0xFFFE
"""``2002::/16``: bits 16 to 47 (RFC 3056)."""
EMBEDDED_TEREDO = 0xFFFD
"""``2001::/32``: the client's address, the last 32 bits inverted (RFC 4380)."""
EMBEDDED_NAT64_32 = 0xFFFC
"""NAT64 prefix of 32 bits: bits 32 to 63 (RFC 6052 section 2.2)."""
EMBEDDED_NAT64_40 = 0xFFFB
"""NAT64 prefix of 40 bits: bits 40 to 63 and 72 to 79."""
EMBEDDED_NAT64_48 = 0xFFFA
"""NAT64 prefix of 48 bits: bits 48 to 63 and 72 to 87."""
EMBEDDED_NAT64_56 = 0xFFF9
"""NAT64 prefix of 56 bits: bits 56 to 63 and 72 to 95."""
EMBEDDED_NAT64_64 = 0xFFF8
"""NAT64 prefix of 64 bits: bits 72 to 103."""

_MAPPED_PREFIX: Final = 0xFFFF
"""The upper 96 bits of an IPv4-mapped address."""
MAPPED_BYTES: Final = _MAPPED_PREFIX.to_bytes(12)
"""The same in network order."""


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


def nat64_prefix(text: str) -> Embedded:
    """Return an operator's own NAT64 prefix (RFC 6052) as an embedded form.

    Raises:
        SourceError: not an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, or one
            that RFC 6052 does not allow.
    """
    # Only here: what answers does not need it.
    import ipaddress  # noqa: PLC0415

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


# For NAT64 prefixes below 96 bits the IPv4 address goes around bits 64 to 71, which are
# zero: its number of bits before them, by claim number (RFC 6052 section 2.2).
_BITS_BEFORE: Final = {
    EMBEDDED_NAT64_32: 32,
    EMBEDDED_NAT64_40: 24,
    EMBEDDED_NAT64_48: 16,
    EMBEDDED_NAT64_56: 8,
    EMBEDDED_NAT64_64: 0,
}


def embedded_ipv4(form: int, value: int) -> tuple[str, int]:
    """Return the name of a form that carries an IPv4 address, and that address.

    Args:
        form: the `EMBEDDED_*` number of the interval.
        value: the IPv6 address.
    """
    if form == EMBEDDED_LOW32:
        return ("IPv4-mapped" if value >> 32 == _MAPPED_PREFIX else "NAT64"), value & 0xFFFFFFFF
    if form == EMBEDDED_6TO4:
        return "6to4", value >> 80 & 0xFFFFFFFF
    if form == EMBEDDED_TEREDO:
        return "Teredo", ~value & 0xFFFFFFFF
    before = _BITS_BEFORE[form]
    after = 32 - before
    upper = value >> 64 & ((1 << before) - 1)
    lower = value >> (56 - after) & ((1 << after) - 1)
    return "NAT64", upper << after | lower
