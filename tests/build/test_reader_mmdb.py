"""MMDB files of any shape, against the package's own lookups of single addresses."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import given
from hypothesis import strategies as st
from source_samples import search_tree

from geolookup.build import readers
from geolookup.build.readers import SourceRanges
from geolookup.build.readers.ranges import code_text

CODES = ("AU", "DE", "JP")
RECORDS = [b"\xe1\x4ccountry_code\x42" + code.encode() for code in CODES]
ALIASES = {(0xFFFF, 96), (0x2002, 16), (0x64FF9B << 64, 96)}
"""Prefixes, by their bits and length, that lead to where IPv4 lies."""

Tree = list[Any]
"""Two children: trees, places in CODES, or None."""


def grow(tree: Tree, prefix: int, length: int, leaf: Tree | int | None) -> None:
    """Put a leaf at a prefix; what is shorter than that is divided."""
    for depth in range(length - 1, 0, -1):
        bit = prefix >> depth & 1
        if not isinstance(tree[bit], list):
            tree[bit] = [tree[bit], tree[bit]]
        tree = tree[bit]
    tree[prefix & 1] = leaf


def under(tree: Tree, length: int) -> Tree | None:
    """Return the tree below so many zeros, if there is one."""
    at: Tree | int | None = tree
    for _ in range(length):
        at = at[0] if isinstance(at, list) else None
    return at if isinstance(at, list) else None


def packed(tree: Tree, size: int, version: int) -> bytes:
    numbers: dict[int, int] = {}
    order: list[Tree] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) not in numbers:
            numbers[id(node)] = len(order)
            order.append(node)
            waiting.extend(child for child in node if isinstance(child, list))

    def record(child: Tree | int | None) -> int:
        if child is None:
            return len(order)
        if isinstance(child, list):
            return numbers[id(child)]
        return len(order) + 16 + child * len(RECORDS[0])

    nodes = [(record(left), record(right)) for left, right in order]
    return search_tree(nodes, size, b"".join(RECORDS), ip_version=b"\xa1" + bytes([version]))


@st.composite
def trees(draw: st.DrawFn, bits: int) -> tuple[Tree, set[tuple[int, int]]]:
    """A tree, and the prefixes in it that are aliases of IPv4."""
    tree: Tree = [None, None]
    lengths = st.integers(1, bits) | st.sampled_from([bits - 32 or 1, bits - 8, bits])
    for _ in range(draw(st.integers(1, 12))):
        length = draw(lengths)
        prefix = draw(st.just(0) | st.just(0xFFFF) | st.integers(0, 2**length - 1)) % 2**length
        grow(tree, prefix, length, draw(st.sampled_from([0, 1, 2, None])))
    aliases: set[tuple[int, int]] = set()
    ipv4 = under(tree, 96) if bits == 128 else None
    if ipv4 is not None:
        aliases = draw(st.sets(st.sampled_from(sorted(ALIASES))))
        for prefix, length in sorted(aliases):
            grow(tree, prefix, length, ipv4)
    return tree, aliases


def answers(ranges: SourceRanges, version: int) -> tuple[list[int], list[tuple[int, str]]]:
    family = ranges.ipv4 if version == 4 else ranges.ipv6
    found = sorted((first, last, code_text(code)) for first, last, code in family)
    return [first for first, _, _ in found], [(last, code) for _, last, code in found]


@given(st.data(), st.sampled_from([4, 6]), st.sampled_from([24, 28, 32]))
def test_mmdb_answers_at_each_boundary_agree_with_the_package(
    data: st.DataObject, version: int, size: int
) -> None:
    maxminddb = pytest.importorskip("maxminddb")
    bits = 32 if version == 4 else 128
    tree, aliases = data.draw(trees(bits))
    if not any_leaf(tree):
        grow(tree, 1, 1, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mmdb")
        path.write_bytes(packed(tree, size, version))
        ranges = readers.read([path], format_name="mmdb")
        with maxminddb.open_database(path, maxminddb.MODE_MMAP) as database:
            for family in (4,) if version == 4 else (4, 6):
                firsts, found = answers(ranges, family)
                end = 1 << (32 if family == 4 else 128)
                edges = {*firsts, *(last for last, _ in found), 0, 1 << 32, end - 1}
                for value in {edge + step for edge in edges for step in (-1, 0, 1)}:
                    if not 0 <= value < end or (family == 6 and value < 1 << 32):
                        continue
                    if family == 6 and any(
                        value >> 128 - length == prefix for prefix, length in aliases
                    ):
                        continue
                    at = bisect_right(firsts, value) - 1
                    ours = found[at][1] if at >= 0 and value <= found[at][0] else None
                    address = IPv4Address(value) if family == 4 else IPv6Address(value)
                    record = database.get(address)
                    assert ours == (record and record["country_code"]), (family, value)


def any_leaf(tree: Tree) -> bool:
    waiting: list[Any] = [tree]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, int):
            return True
        if isinstance(node, list) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node)
    return False
