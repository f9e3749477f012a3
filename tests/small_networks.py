"""A dataset with lists of networks, small enough to know by heart."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import date

from geolookup import Dataset, Network
from geolookup.answer.claims import network_bits
from geolookup.answer.dataset import encode
from geolookup.answer.overrides import Override, read_prefix
from geolookup.build import compiler
from geolookup.build.readers import SILENCE, SourceRanges, code_number
from geolookup.build.sources import NetworkList, Source

DAY = date(2026, 11, 1)

SOURCES = (
    (("1.0.0.0/16", "CN"), ("2.0.0.0/16", "US-CA"), ("3.0.0.0/16", "DE"), ("2600::/16", "US-CA")),
    (("1.0.0.0/16", "CN"), ("2.0.0.0/16", "US-CA"), ("3.0.0.0/16", "AT"), ("2600::/16", "US-CA")),
)
"""What two full sources say: 3.0.0.0/16 is disputed."""

LISTS = {
    "vpns": ((Network.VPN,), ("1.0.1.0/24", "3.0.1.0/24", "1.0.9.0/24", "2600:1::/32")),
    "exits": ((Network.TOR,), ("1.0.1.7/32", "2.0.1.0/24")),
    "clouds": ((Network.HOSTING,), ("1.0.1.0/25", "2.0.0.0/20", "9.0.0.0/24")),
}
"""The lists of one kind each."""

EGRESS = (("1.0.2.0/24", "CN"), ("1.0.3.0/24", ""), ("2.0.2.0/24", "US"), ("2.0.3.0/24", "CA"))
"""What a relay's operator says of its users' countries."""

OVERRIDE = ("1.0.9.0/24", "CN")


def ranges(rows: Iterable[tuple[str, str]]) -> SourceRanges:
    """Return rows of prefixes and codes as a reader has them."""
    into = SourceRanges()
    for prefix, code in rows:
        _append(into, prefix, code_number(code) if code else SILENCE)
    return into


def _append(into: SourceRanges, prefix: str, number: int) -> None:
    first, last = read_prefix(prefix)
    family = into.ipv4 if len(first) == 4 else into.ipv6
    family.append(int.from_bytes(first), int.from_bytes(last), number)


def listed(kinds: Sequence[Network], prefixes: Iterable[str]) -> SourceRanges:
    """Return prefixes of some kinds as a reader has them."""
    into = SourceRanges()
    for prefix in prefixes:
        _append(into, prefix, network_bits(kinds))
    return into


def compiled(
    *, deep: bool = True, lists: bool = True, more: Sequence[Override] = ()
) -> compiler.CompiledDataset:
    """Return the dataset.

    Args:
        deep: whether the sources name subdivisions.
        lists: whether it has the lists of networks.
        more: overrides besides.
    """
    sources = [
        (
            Source(f"source {at}", "x", DAY, depth="subdivision" if deep else "country"),
            ranges((prefix, code if deep else code[:2]) for prefix, code in rows),
        )
        for at, rows in enumerate(SOURCES)
    ]
    networks = [
        (NetworkList(name, "x", DAY, kinds), listed(kinds, prefixes))
        for name, (kinds, prefixes) in LISTS.items()
    ]
    networks.append(
        (NetworkList("egress", "x", DAY, (Network.RELAY,), vouches=True), ranges(EGRESS))
    )
    first, last = read_prefix(OVERRIDE[0])
    return compiler.compile(
        sources,
        networks=networks if lists else (),
        overrides=[Override(first, last, OVERRIDE[1]), *more],
    )


def dataset(*, covering: Sequence[str] | None = None, **how: bool) -> Dataset:
    """Return the dataset, opened."""
    content = compiled(**how)
    return Dataset.from_buffer(encode(content, optional=content.optional), covering=covering)


def kinds(address: str) -> set[str]:
    """Return the kinds of an address, from the tables above."""
    at = ipaddress.ip_address(address)

    def is_in(prefixes: Iterable[str]) -> bool:
        return any(at in ipaddress.ip_network(prefix) for prefix in prefixes)

    found = {kind.name for some, prefixes in LISTS.values() if is_in(prefixes) for kind in some}
    if is_in(prefix for prefix, code in EGRESS if code):
        return found - {"TOR", "VPN", "PROXY"} | {"RELAY"}
    return found | {"RELAY"} if is_in(prefix for prefix, _ in EGRESS) else found
