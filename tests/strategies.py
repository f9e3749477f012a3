"""Addresses, rosters and region sets at random, weighted to where mistakes hide.

Importing this module loads the hypothesis profile of the test suite: the same
examples in every run, so that a failure is there for whoever looks next.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T")

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,  # a shared machine stalls now and then; time is what bench/ is for
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

MALFORMED = (
    # too few, too many, empty parts
    "", ".", "1", "1.2.3", "1.2.3.", ".1.2.3", "1.2.3.4.5", "1.2.3.4.", "1..2.3", "1.2..3.4",
    # numbers that readers disagree about
    "01.2.3.4", "1.2.3.04", "00.0.0.0", "1.2.3.00", "0x1.2.3.4", "1.2.3.0x4", "16909060",
    "256.1.1.1", "1.2.3.256", "1.2.3.1000", "1.2.3.4294967297", "-1.2.3.4", "+1.2.3.4",
    # something added
    "1.2.3.4:80", "1.2.3.4/32", "1.2.3.4%eth0", "[1.2.3.4]", "1.2.3.4,5", "1,2,3,4",
    " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "1.2.3.4\0", "1. 2.3.4", "\t1.2.3.4", "\ufeff1.2.3.4",
    # names and other scripts' digits
    "localhost", "a.b.c.d", "example.org", "1.2.3.\uff14", "\u0661.2.3.4", "1.2.3\u3002" + "4",
    "\ud800.2.3.4", "1.2.3.4\U0001f600",
    # IPv6: groups and gaps
    ":", ":::", "::1:", ":1::", "1:", ":1", "1::2::3", "::1::", "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8",
    "::g", "::12345", "::-1", "::+1", "::0x1", "::\uff11", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7",
    # IPv6: dotted tail
    "1.2.3.4::", "::1.2.3.4:5", "::1.2.3.4::", "::ffff:1.2.3", "::ffff:01.2.3.4", "::1.2.3.4.5",
    "::ffff:1.2.3.256", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::ffff:.2.3.4",
    # IPv6: something added
    "[::1]", "[::1]:80", "::1/128", " ::1", "::1 ", "::1\n", "\t::1", "::1\0", "::1,",
    # zones: on link-local only, visible, without % and /
    "::1%eth0", "2001:db8::1%eth0", "fec0::1%eth0", "fe7f::1%eth0", "::ffff:1.2.3.4%eth0",
    "fe80::1%", "fe80::1%a%b", "fe80::1%a/64", "fe80::1% ", "fe80::1%a b", "fe80::1%\u00e9",
    "fe80::%", "fe80%eth0", "%eth0", "%", "fe80::1%" + "x" * 65, "fe80::1%\n",
    # long
    "1" * 1000, "1.2.3.4" * 100, ":" * 1000, "0" * 40 + "::1", "::" + "0" * 100,
)  # fmt: skip
"""Texts that are no address. Each must be INVALID, and none may fail a roster."""

NOTABLE_PREFIXES = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "1.0.0.0/8",
    "::/128", "::1/128", "::/96", "::fffe:0:0/95", "64:ff9b::/96", "64:ff9b:1::/48",
    "100::/64", "2000::/3", "2001::/23", "2001::/32", "2001:db8::/32", "2002::/16",
    "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
"""Special-purpose ranges, embedded forms and their surroundings."""

Value = tuple[int, int]
"""(version, value) of an address."""


def embed(ipv4: int, form: int, rest: int) -> int:
    """Return an IPv6 address that carries *ipv4* in one of four forms.

    *rest* fills the bits that the form leaves free.
    """
    if form == 0:
        return 0xFFFF << 32 | ipv4
    if form == 1:
        return 0x2002 << 112 | ipv4 << 80 | rest % 2**80
    if form == 2:
        return 0x2001_0000 << 96 | rest % 2**64 << 32 | ipv4 ^ 0xFFFF_FFFF
    return 0x0064_FF9B << 96 | ipv4


def ipv4_values(boundaries: Sequence[int] = ()) -> st.SearchStrategy[int]:
    """Return IPv4 addresses: anywhere, near boundaries, near notable prefixes."""
    choices = [st.integers(0, 2**32 - 1), _near_prefixes(4)]
    if boundaries:
        choices += [st.sampled_from(boundaries)] * 2
    return st.one_of(choices)


def ipv6_values(
    boundaries: Sequence[int] = (), ipv4_boundaries: Sequence[int] = ()
) -> st.SearchStrategy[int]:
    """Return IPv6 addresses as `ipv4_values` does, and such that carry an IPv4 address."""
    choices = [
        st.integers(0, 2**128 - 1),
        st.integers(0x2000 << 112, (0x4000 << 112) - 1),
        _near_prefixes(6),
        st.builds(embed, ipv4_values(ipv4_boundaries), st.integers(0, 3), st.integers(0, 2**80)),
    ]
    if boundaries:
        choices += [st.sampled_from(boundaries)] * 2
    return st.one_of(choices)


def values(
    ipv4_boundaries: Sequence[int] = (), ipv6_boundaries: Sequence[int] = ()
) -> st.SearchStrategy[Value]:
    """Return (version, value) pairs of both families."""
    return st.one_of(
        st.tuples(st.just(4), ipv4_values(ipv4_boundaries)),
        st.tuples(st.just(6), ipv6_values(ipv6_boundaries, ipv4_boundaries)),
    )


@st.composite
def texts(draw: st.DrawFn, of: st.SearchStrategy[Value]) -> str:
    """Return an address in one of the texts that mean it."""
    version, value = draw(of)
    if version == 4:
        return str(ipaddress.IPv4Address(value))
    address = ipaddress.IPv6Address(value)
    tail = str(ipaddress.IPv4Address(value % 2**32))
    text = draw(
        st.sampled_from(
            [
                str(address),
                address.exploded,
                ":".join(f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)),
                address.exploded[:30] + tail,
            ]
        )
    )
    if value >> 118 == 0xFE80 >> 6 and draw(st.booleans()):
        text += "%" + draw(st.sampled_from(["0", "eth0", "wlan0.12", "x" * 64]))
    return text.upper() if draw(st.booleans()) and "%" not in text else text


def malformed_texts() -> st.SearchStrategy[str]:
    """Return texts most of which are no address: the table, mutations, and noise."""
    return st.one_of(st.sampled_from(MALFORMED), _mutations(), st.text(max_size=50))


@st.composite
def _mutations(draw: st.DrawFn) -> str:
    text = draw(texts(values()))
    at = draw(st.integers(0, len(text)))
    removed = draw(st.integers(0, 2))
    added = draw(st.text("0123456789abcdefF.:%/ x", max_size=2))
    return text[:at] + added + text[at + removed :]


def rosters(of: st.SearchStrategy[T], max_size: int = 60) -> st.SearchStrategy[list[T]]:
    """Return lists of the elements in any order, with duplicates, sometimes empty."""
    return st.one_of(
        st.lists(of, max_size=max_size),
        st.lists(of, min_size=1, max_size=5).flatmap(
            lambda pool: st.lists(st.sampled_from(pool), max_size=max_size)
        ),
    )


def region_codes(codes: Sequence[str]) -> st.SearchStrategy[frozenset[str]]:
    """Return sets of codes: a few, or half of them and more."""
    return st.one_of(
        st.frozensets(st.sampled_from(codes), min_size=1, max_size=4),
        st.frozensets(st.sampled_from(codes), min_size=len(codes) // 2),
    )


def _near_prefixes(version: int) -> st.SearchStrategy[int]:
    top = 2 ** (32 if version == 4 else 128) - 1
    networks = [ipaddress.ip_network(prefix) for prefix in NOTABLE_PREFIXES]
    edges = sorted(
        {
            min(max(int(edge) + step, 0), top)
            for network in networks
            if network.version == version
            for edge in (network[0], network[-1])
            for step in (-1, 0, 1)
        }
    )
    inside = [
        st.integers(int(network[0]), int(network[-1]))
        for network in networks
        if network.version == version
    ]
    return st.one_of(st.sampled_from(edges), st.one_of(inside))
