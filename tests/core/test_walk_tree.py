"""Walking a binary search tree of networks, held against a recursion."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

import pytest

from geolookup._sweep import Ranges, walk_tree

Tree = list[list[int]]
BAD = 7
"""A record that can't be read."""


def grown(chance: random.Random, depth: int, tree: Tree) -> int:
    """Add a random tree, and return its number; numbers from 1,000 on are records, 999 is none."""
    if depth == 0 or chance.random() < 0.2:
        return 999 if chance.random() < 0.3 else 1000 + chance.randrange(10)
    number = len(tree)
    tree.append([0, 0])
    tree[number] = [grown(chance, depth - 1, tree), grown(chance, depth - 1, tree)]
    return number


def networks(
    tree: Tree, bits: int, ipv4: int, node: int = 0, depth: int = 0, first: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield first, last and record of each network."""
    if node >= 1000:
        yield first, first | (1 << bits - depth) - 1, node - 1000
    elif node != 999 and not (node == ipv4 and first):
        left, right = tree[node]
        yield from networks(tree, bits, ipv4, left, depth + 1, first)
        yield from networks(tree, bits, ipv4, right, depth + 1, first | 1 << bits - depth - 1)


def walked(tree: Tree, bits: int, ipv4_node: int = -1) -> tuple[Ranges, Ranges, list[int]]:
    ipv4, ipv6, faults = Ranges(32), Ranges(128), list[int]()
    nodes = len(tree)
    children = [
        child if child < 999 else nodes if child == 999 else nodes + 16 + child - 1000
        for pair in tree
        for child in pair
    ]
    walk_tree(
        ipv4, ipv6, array("I", children), nodes=nodes, ipv4_node=ipv4_node, bits=bits, least=16,
        most=26, code_of=lambda record: -1 if record - 16 == BAD else record,
        on_fault=lambda _, position: faults.append(position),
    )  # fmt: skip
    return ipv4, ipv6, faults


@pytest.mark.parametrize("bits", [32, 128])
def test_networks_are_those_of_a_recursion(bits: int) -> None:
    chance = random.Random(bits)
    for _ in range(50):
        tree: Tree = []
        if grown(chance, 10, tree) != 0:
            continue  # a record at the root is no tree
        expected = list(networks(tree, bits, -1))
        ipv4, ipv6, faults = walked(tree, bits)
        found = [*ipv4, *ipv6] if bits == 32 else list(ipv6)
        assert found == [
            (first, last, record + 16) for first, last, record in expected if record != BAD
        ]
        assert faults == [at for at, row in enumerate(expected, start=1) if row[2] == BAD]
        if bits == 128 and expected and expected[0][0] == 0 and expected[0][2] != BAD:
            assert list(ipv4) == [(0, 2**32 - 1, expected[0][2] + 16)]


def test_other_ways_to_ipv4_are_not_followed() -> None:
    # A chain of zeros to the node of ::/96, to which 2002::/16 leads, too.
    tree: Tree = [[at + 1, 999] for at in range(96)] + [[1001, 1002]]
    tree[15] = [16, 96]
    ipv4, ipv6, _ = walked(tree, 128, ipv4_node=96)
    assert list(ipv4) == [(0, 2**31 - 1, 17), (2**31, 2**32 - 1, 18)]
    assert list(ipv6) == []


@pytest.mark.parametrize(
    ("children", "nodes", "what"),
    [
        ([0, 0], 1, "too deep"),
        ([1, 1 + 15], 1, "outside of the records"),
        ([1, 1 + 26], 1, "outside of the records"),
        ([1, 2**32 - 1], 1, "outside of the records"),
        ([1], 1, "two children"),
        ([1, 1], 2, "two children"),
        ([], -1, "two children"),
    ],
)
def test_tree_that_is_none_is_refused(children: list[int], nodes: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        walk_tree(
            Ranges(32), Ranges(128), array("I", children), nodes=nodes, ipv4_node=-1, bits=32,
            least=16, most=26, code_of=lambda record: record, on_fault=lambda *_: None,
        )  # fmt: skip


def test_tree_without_nodes_has_no_networks() -> None:
    ipv4, ipv6, _ = walked([], 128)
    assert len(ipv4) == len(ipv6) == 0
