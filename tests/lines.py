"""Datasets by their lines: which claim each address has, from which address on."""

from __future__ import annotations

import ipaddress
from array import array
from collections.abc import Iterable
from typing import Final

import small_dataset
from hypothesis import strategies as st
from small_dataset import CLAIMS, Content

from geolookup import Dataset
from geolookup.answer.claims import UNASSIGNED, Claim
from geolookup.answer.dataset import encode
from geolookup.answer.embedded_ipv4 import EMBEDDED_6TO4
from geolookup.answer.intervals import Family

TOP: Final[dict[Family, int]] = {4: 1 << 32, 6: 1 << 128}
Line = dict[int, int]
"""First address → claim number, without gaps from 0."""


def prefix(text: str) -> tuple[int, int]:
    network = ipaddress.ip_network(text)
    return int(network[0]), int(network[-1]) + 1


def line(*prefixes: tuple[str, int], family: Family = 4) -> Line:
    """Return the line on which each prefix has its claim, and the rest none; later ones win."""
    found: Line = {0: UNASSIGNED}
    for text, claim in prefixes:
        first, end = prefix(text)
        after = found[max(start for start in found if start <= end)] if end < TOP[family] else 0
        for start in [start for start in found if first <= start < end]:
            del found[start]
        found[first] = claim
        if end < TOP[family]:
            found[end] = after
    return dict(sorted(found.items()))


def merged(found: Line) -> Line:
    kept: Line = {}
    for start, claim in sorted(found.items()):
        if not kept or claim != kept[max(kept)]:
            kept[start] = claim
    return kept


def made(
    ipv4: Line | None = None, ipv6: Line | None = None, claims: Iterable[Claim] = CLAIMS
) -> Dataset:
    """Return a dataset with these lines."""
    ipv4, ipv6 = merged(ipv4 or {0: UNASSIGNED}), merged(ipv6 or {0: UNASSIGNED})
    return Dataset.from_buffer(
        encode(
            Content(
                ipv4_first=array("I", ipv4).tobytes(),
                ipv4_claims=array("H", ipv4.values()).tobytes(),
                ipv6_first_high=array("Q", (start >> 64 for start in ipv6)).tobytes(),
                ipv6_first_low=array("Q", (start % 2**64 for start in ipv6)).tobytes(),
                ipv6_claims=array("H", ipv6.values()).tobytes(),
                claims=tuple(claims),
                metadata=small_dataset.metadata(),
            )
        )
    )


def lines(family: Family) -> st.SearchStrategy[Line]:
    """Draw lines with edges near each other, at round numbers and at the ends."""
    top = TOP[family]
    edges = st.one_of(
        st.integers(0, 64),
        st.integers(top - 64, top - 1),
        st.integers(0, top - 1),
        st.builds(
            lambda bit, low: (1 << bit) + low,
            st.integers(7, top.bit_length() - 2),
            st.integers(-2, 2),
        ),
    )
    claims = st.sampled_from([*range(1, len(CLAIMS)), *([EMBEDDED_6TO4] if family == 6 else [])])
    return st.builds(
        lambda cuts, first: {0: first, **cuts},
        st.dictionaries(edges.filter(bool), claims, max_size=12),
        claims,
    )
