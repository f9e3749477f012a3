"""The compile-time sweeps, against sweeps that look at every address."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
import struct
from collections.abc import Sequence

import pytest
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import given
from hypothesis import strategies as st

from geolookup._sweep import RangeLines, Ranges, merge_ipv4, merge_ipv6, renumber

SIZE = 48  # addresses of the part of the line that the small examples use
TOP = {32: 2**32 - 1, 128: 2**128 - 1}
# Where that part begins: at both ends of the line, and across the middle of 128 bits.
STARTS = {
    32: (0, 0x0A000000, TOP[32] - SIZE + 1),
    128: (0, 5 << 64 | (2**64 - SIZE // 2), TOP[128] - SIZE + 1),
}

Row = tuple[int, int, int]


@st.composite
def rows(draw: st.DrawFn, most: int = 12) -> list[Row]:
    """Return ranges within 0..SIZE-1 that overlap, nest and repeat each other."""
    found = []
    for _ in range(draw(st.integers(0, most))):
        first = draw(st.integers(0, SIZE - 1))
        last = draw(st.one_of(st.integers(first, SIZE - 1), st.just(min(first + 7, SIZE - 1))))
        found.append((first, last, draw(st.integers(0, 3))))
    return found


places = st.sampled_from([(bits, start) for bits, starts in STARTS.items() for start in starts])


def made(given_rows: Sequence[Row], bits: int, start: int) -> Ranges:
    ranges = Ranges(bits)
    for line, (first, last, code) in enumerate(given_rows, start=1):
        ranges.append(start + first, start + last, code, 3, line)
    return ranges


def deciding(given_rows: Sequence[Row], at: int) -> list[Row]:
    """Return the rows that hold an address and are the smallest of those that do."""
    holding = [row for row in given_rows if row[0] <= at <= row[1]]
    least = min((row[1] - row[0] for row in holding), default=0)
    return [row for row in holding if row[1] - row[0] == least]


def said(given_rows: Sequence[Row], at: int) -> int | None:
    codes = {code for _, _, code in deciding(given_rows, at)}
    if not codes:
        return None
    return codes.pop() if len(codes) == 1 else 0


@given(rows(), places)
def test_flattening_lets_the_smallest_range_decide_each_address(
    given_rows: list[Row], place: tuple[int, int]
) -> None:
    bits, start = place
    flat, _ = made(given_rows, bits, start).flattened()
    found: dict[int, int] = {}
    before = -1
    for first, last, code in flat:
        assert before < first <= last, "disjoint and ascending"
        before = last
        found.update(dict.fromkeys(range(first - start, last - start + 1), code))
    expected = {at: said(given_rows, at) for at in range(SIZE)}
    assert found == {at: code for at, code in expected.items() if code is not None}


def beginning_last(given_rows: Sequence[Row], at: int) -> int | None:
    """Return the code of what begins last and of these is smallest; 0 where they differ."""
    holding = [row for row in given_rows if row[0] <= at <= row[1]]
    latest = [row for row in holding if row[0] == max(other[0] for other in holding)]
    codes = {row[2] for row in latest if row[1] == min(other[1] for other in latest)}
    if not codes:
        return None
    return codes.pop() if len(codes) == 1 else 0


@given(rows(), places)
def test_flattening_lets_the_range_that_begins_last_decide_if_asked_to(
    given_rows: list[Row], place: tuple[int, int]
) -> None:
    bits, start = place
    flat, clashes = made(given_rows, bits, start).flattened(last_begins=True)
    found = {at - start: code for at, code in code_by_address(flat).items()}
    expected = {at: beginning_last(given_rows, at) for at in range(SIZE)}
    assert found == {at: code for at, code in expected.items() if code is not None}
    for index, other in clashes:
        assert given_rows[index][:2] == given_rows[other][:2]
        assert given_rows[index][2] != given_rows[other][2]


@given(rows(), places)
def test_ranges_that_overlap_in_part_are_listed(
    given_rows: list[Row], place: tuple[int, int]
) -> None:
    bits, start = place

    def cross(one: Row, other: Row) -> bool:
        return one[0] < other[0] <= one[1] < other[1]

    found = made(given_rows, bits, start).partial_overlaps()
    assert all(cross(given_rows[other], given_rows[index]) for other, index in found)
    assert len({index for _, index in found}) == len(found)
    crossing = any(cross(one, other) for one in given_rows for other in given_rows)
    assert bool(found) == crossing


@given(rows(), places)
def test_flattened_range_keeps_the_position_of_the_deciding_range(
    given_rows: list[Row], place: tuple[int, int]
) -> None:
    bits, start = place
    flat, _ = made(given_rows, bits, start).flattened()
    for index, (first, last, _) in enumerate(flat):
        file, line = flat.place(index)
        assert file == 3
        for at in (first - start, last - start):
            assert given_rows[line - 1] in deciding(given_rows, at)


@given(rows())
def test_clashes_are_the_equal_ranked_pairs_with_different_claims(
    given_rows: list[Row],
) -> None:
    _, clashes = made(given_rows, 32, 0).flattened()
    for index, other in clashes:
        (first, last, code), (first2, last2, code2) = given_rows[index], given_rows[other]
        assert code != code2
        assert last - first == last2 - first2
        assert max(first, first2) <= min(last, last2)
    contradicted = {
        at for at in range(SIZE) if len({row[2] for row in deciding(given_rows, at)}) > 1
    }
    reported = {
        at
        for index, other in clashes
        for at in range(
            max(given_rows[index][0], given_rows[other][0]),
            min(given_rows[index][1], given_rows[other][1]) + 1,
        )
    }
    assert contradicted <= reported


@given(rows(), st.randoms(use_true_random=False))
def test_order_of_ranges_does_not_change_the_result(
    given_rows: list[Row], order: random.Random
) -> None:
    shuffled = given_rows.copy()
    order.shuffle(shuffled)
    flat, _ = made(given_rows, 32, 0).flattened()
    other, _ = made(shuffled, 32, 0).flattened()
    assert code_by_address(flat) == code_by_address(other)


def code_by_address(ranges: Ranges) -> dict[int, int]:
    return {at: code for first, last, code in ranges for at in range(first, last + 1)}


def test_flat_ranges_are_returned_unchanged() -> None:
    ranges = made([(0, 3, 1), (4, 5, 1), (9, 9, 0)], 128, 0)
    assert ranges.flattened() == (ranges, [])
    assert list(ranges) == [(0, 3, 1), (4, 5, 1), (9, 9, 0)]


def test_ranges_of_the_whole_address_space_are_flattened() -> None:
    for bits, top in TOP.items():
        ranges = Ranges(bits)
        ranges.append(0, top, 1)
        ranges.append(top, top, 2)
        ranges.append(0, 0, 3)
        flat, clashes = ranges.flattened()
        assert list(flat) == [(0, 0, 3), (1, top - 1, 1), (top, top, 2)]
        assert not clashes


def test_many_overlapping_ranges_take_less_than_quadratic_time() -> None:
    # A sweep that looks at every pair would look at ten thousand million of them.
    count = 100_000
    ranges = Ranges(32)
    for first in range(count):
        ranges.append(first, first + count, 1 + first % 2)
    for inner in range(count):
        ranges.append(2**31 + inner, 2**32 - 1 - inner, 1 + inner % 2)
    flat, clashes = ranges.flattened()
    assert len(clashes) == count - 1
    codes = [(first, code) for first, _, code in flat]
    changes = [codes[0], *(two for one, two in itertools.pairwise(codes) if one[1] != two[1])]
    assert changes[:4] == [(0, 1), (1, 0), (2 * count - 1, 2), (2**31, 1)]
    assert len(changes) == 3 + 2 * count - 1
    assert [code for _, code in changes[3:]] == [1, 2] * (count - 1) + [1]


# --- layers --------------------------------------------------------------------------


class Numbers:
    """Numbers combinations of codes as they come, and remembers them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, codes: bytes) -> int:
        self.seen.append(struct.unpack(f"={len(codes) // 2}H", codes))
        return len(self.seen) - 1


@given(st.lists(rows(5), max_size=4), places)
def test_merging_gives_every_address_the_codes_of_all_layers(
    layers: list[list[Row]], place: tuple[int, int]
) -> None:
    bits, start = place
    flat = [made(layer, bits, start).flattened()[0] for layer in layers]
    numbers = Numbers()
    firsts, claims = merged(flat, numbers, bits)
    assert firsts[0] == 0
    assert all(one < two for one, two in itertools.pairwise(firsts))
    assert all(one != two for one, two in itertools.pairwise(claims))
    assert len(set(numbers.seen)) == len(numbers.seen), "each combination is asked for once"
    for at in range(max(start - 1, 0), min(start + SIZE, TOP[bits]) + 1):
        index = max(index for index, first in enumerate(firsts) if first <= at)
        expected = tuple(code_by_address(layer).get(at, 0) for layer in flat)
        assert numbers.seen[claims[index]] == expected


def merged(layers: list[Ranges], numbers: Numbers, bits: int) -> tuple[list[int], list[int]]:
    if bits == 32:
        first, claims = merge_ipv4(layers, numbers)
        firsts = list(struct.unpack(f"<{len(first) // 4}I", first))
    else:
        high, low, claims = merge_ipv6(layers, numbers)
        firsts = [
            upper << 64 | lower
            for upper, lower in zip(
                struct.unpack(f"<{len(high) // 8}Q", high),
                struct.unpack(f"<{len(low) // 8}Q", low),
                strict=True,
            )
        ]
    numbered = list(struct.unpack(f"<{len(claims) // 2}H", claims))
    assert len(firsts) == len(numbered)
    return firsts, numbered


def test_adjacent_equal_claims_are_one_interval() -> None:
    layer = made([(1, 3, 1), (4, 6, 2), (7, 9, 1)], 32, 0)
    first, claims = merge_ipv4([layer], lambda codes: int(codes != bytes(2)))
    assert struct.unpack("<3I", first) == (0, 1, 10)
    assert struct.unpack("<3H", claims) == (0, 1, 0)


def test_merging_refuses_layers_that_are_not_flat_or_of_the_other_family() -> None:
    overlapping = made([(0, 5, 1), (3, 9, 2)], 32, 0)
    with pytest.raises(ValueError, match="disjoint"):
        merge_ipv4([overlapping], Numbers())
    with pytest.raises(ValueError, match="one family"):
        merge_ipv6([Ranges(32)], Numbers())
    with pytest.raises(TypeError):
        merge_ipv4([[(0, 5, 1)]], Numbers())
    with pytest.raises(ValueError, match="one family"):
        merge_ipv4([None], Numbers())


def test_layers_can_not_grow_while_they_are_merged() -> None:
    layer = made([(0, 5, 1)], 32, 0)

    def growing(_codes: bytes) -> int:
        layer.append(10, 20, 1)
        return 0

    with pytest.raises(RuntimeError, match="may not grow"):
        merge_ipv4([layer], growing)
    layer.append(10, 20, 1)
    assert len(layer) == 2


@pytest.mark.parametrize("number", [-1, 0x10000])
def test_claim_beyond_uint16_is_refused(number: int) -> None:
    with pytest.raises(OverflowError, match="65,535"):
        merge_ipv4([], lambda _codes: number)


def test_error_in_the_callback_ends_the_merge() -> None:
    with pytest.raises(ZeroDivisionError):
        merge_ipv6([made([(0, 5, 1)], 128, 0)], lambda codes: 1 // codes[0])


def test_claims_are_renumbered() -> None:
    numbers = struct.pack("<3H", 7, 0x0102, 0xFFFF)
    assert renumber(struct.pack("<4H", 1, 0, 2, 1), numbers) == struct.pack(
        "<4H", 0x0102, 7, 0xFFFF, 0x0102
    )
    assert renumber(b"", numbers) == b""
    with pytest.raises(ValueError, match="no new number"):
        renumber(struct.pack("<H", 3), numbers)
    with pytest.raises(ValueError, match="2 bytes"):
        renumber(b"\0", numbers)


# --- single ranges -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((-1, 5, 0), "not a range"),
        ((6, 5, 0), "not a range"),
        ((0, 2**32, 0), "not a range"),
        ((2**32, 2**32, 0), "not a range"),
        ((2**200, 2**200, 0), "not a range"),
        ((0, 0, -1), "a code is"),
        ((0, 0, 0x10000), "a code is"),
        ((0, 0, 0, 0x10000, 0), "below"),
        ((0, 0, 0, -1, 0), "below"),
        ((0, 0, 0, 0, 2**32), "below"),
        ((0, 0, 0, 0, -1), "below"),
    ],
)
def test_malformed_range_is_refused(arguments: tuple[int, ...], what: str) -> None:
    ranges = Ranges(32)
    with pytest.raises(ValueError, match=what):
        ranges.append(*arguments)
    assert len(ranges) == 0


def test_added_ranges_are_read_back() -> None:
    ranges = Ranges(128)
    ranges.append(1, TOP[128], 0xFFFF, 0xFFFF, 2**32 - 1)
    assert ranges[0] == (1, TOP[128], 0xFFFF)
    assert ranges.place(0) == (0xFFFF, 2**32 - 1)
    assert ranges.bits == 128
    for index in (1, -1, 2**40):
        with pytest.raises(IndexError):
            ranges[index]
        with pytest.raises(IndexError):
            ranges.place(index)


def test_width_other_than_32_or_128_bits_is_refused() -> None:
    for bits in (0, 31, 64, -32):
        with pytest.raises(ValueError, match="32 or 128"):
            Ranges(bits)


def test_copying_and_pickling_ranges_are_refused() -> None:
    for ranges in (Ranges(32), RangeLines(Ranges(32), Ranges(128), int)):
        with pytest.raises(TypeError, match="can't be"):
            copy.copy(ranges)
        with pytest.raises(TypeError, match="can't be"):
            pickle.dumps(ranges)
