"""Columns over claims: maps, counts, positions and Roaring bitmaps, on every path."""

from __future__ import annotations

import random
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from geolookup import _core

ISAS = _core.isa_paths()
SIZES = [*range(70), 127, 128, 129, 1000, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000]

every_isa = pytest.mark.parametrize("isa", ISAS)


def claims_of(numbers: list[int]) -> bytes:
    return array("H", numbers).tobytes()


def positions_of(raw: bytes) -> list[int]:
    return list(array("I", raw))


def pieces(size: int, share: float, seed: int = 1) -> list[int]:
    """Return 0, 1, 2 and 3 in stretches, about the share of them 1."""
    draw = random.Random(seed)
    values: list[int] = []
    while len(values) < size:
        value = 1 if draw.random() < share else draw.choice([0, 2, 3])
        values += [value] * draw.choice([1, 1, 1, 2, 5, 70])
    return values[:size]


def test_maps_look_up_each_claim() -> None:
    draw = random.Random(4)
    for size in (0, 1, 2, 7, 64, 1000):
        numbers = [draw.randrange(700) for _ in range(size)]
        bytes8 = draw.randbytes(700)
        bytes16 = draw.randbytes(1400)
        assert _core.map8(claims_of(numbers), bytes8) == bytes(bytes8[n] for n in numbers)
        assert _core.map16(claims_of(numbers), bytes16) == b"".join(
            bytes16[2 * n : 2 * n + 2] for n in numbers
        )


def test_a_claim_beyond_the_column_is_refused_with_its_position() -> None:
    for size in (1, 2, 9, 40):
        for place in {0, size // 2, size - 1}:
            numbers = [3] * size
            numbers[place] = 5
            wrong = f"^claims: unknown claim at position {place}$"
            with pytest.raises(ValueError, match=wrong):
                _core.map8(claims_of(numbers), bytes(5))
            with pytest.raises(ValueError, match=wrong):
                _core.map16(claims_of(numbers), bytes(10))
            with pytest.raises(ValueError, match=wrong):
                _core.partition(claims_of(numbers), bytes(5))
            with pytest.raises(ValueError, match=wrong):
                _core.roaring_partition(claims_of(numbers), bytes(5))
    assert _core.map8(claims_of([0xFFFF]), bytes(65_535) + b"x") == b"x"
    assert _core.map8(b"", b"") == _core.map16(b"", b"") == b""


def test_column_with_half_a_value_is_refused() -> None:
    for call in (
        lambda: _core.map8(b"123", bytes(9)),
        lambda: _core.map16(b"123", bytes(9)),
        lambda: _core.map16(b"", bytes(9)),
        lambda: _core.count16(b"123"),
        lambda: _core.positions16(b"123", b"AB"),
        lambda: _core.roaring16(b"1", b"AB"),
    ):
        with pytest.raises(ValueError, match=r"bytes are no multiple of 2$"):
            call()


def test_value_of_other_size_than_one_or_two_bytes_is_refused() -> None:
    for wrong in (-1, 256, 2**40):
        with pytest.raises((ValueError, OverflowError)):
            _core.positions8(b"abc", wrong)
        with pytest.raises((ValueError, OverflowError)):
            _core.roaring8(b"abc", wrong)
    for pair in (b"", b"A", b"ABC"):
        with pytest.raises(ValueError, match=f"^value: {len(pair)} bytes, expected 2$"):
            _core.positions16(b"ABAB", pair)
        with pytest.raises(ValueError, match=f"^value: {len(pair)} bytes, expected 2$"):
            _core.roaring16(b"ABAB", pair)


def test_column_that_is_not_bytes_is_refused() -> None:
    for wrong in (None, bytearray(4), "abcd", memoryview(b"abcd")):
        for call in (
            lambda w: _core.map8(w, b"abc"),
            lambda w: _core.map16(b"", w),
            _core.count8,
            _core.count16,
            lambda w: _core.positions8(w, 1),
            lambda w: _core.positions16(b"", w),
            lambda w: _core.partition(w, b""),
            lambda w: _core.roaring_partition(b"", w),
        ):
            with pytest.raises(TypeError):
                call(wrong)


@given(st.binary(max_size=300))
def test_bytes_are_counted(column: bytes) -> None:
    assert _core.count8(column) == dict(Counter(column))


def test_pairs_are_counted() -> None:
    """Letters, as country codes are, and anything else, which is counted another way."""
    draw = random.Random(8)
    letters = [bytes(draw.choices(range(0x40, 0x60), k=2)) for _ in range(900)]
    others = [draw.randbytes(2) for _ in range(900)]
    for pool in (letters, others, [*letters, b"\x20A"], [*letters, b"A\x60"], [b"CN"], [b"\0\0"]):
        for size in (0, 1, 2, 3, 1000, 1001, 70_001):
            column = draw.choices(pool, k=size)
            assert _core.count16(b"".join(column)) == dict(Counter(column)), (size, len(pool))
        assert _core.count16(b"".join(pool)) == dict(Counter(pool))


@every_isa
@pytest.mark.parametrize("share", [0, 0.002, 0.1, 0.5, 0.95, 1])
def test_positions_and_bitmaps_of_each_size_agree_with_pyroaring(share: float, isa: str) -> None:
    """Bitmaps are exactly what pyroaring writes: the smallest form of each container."""
    for size in SIZES:
        values = pieces(size, share)
        column = bytes(values)
        pairs = b"".join(b"BA" if value == 1 else b"AB" for value in values)
        expected = [place for place, value in enumerate(values) if value == 1]
        bitmap = BitMap(array("I", expected)).serialize()
        assert positions_of(_core.positions8(column, 1, isa=isa)) == expected
        assert positions_of(_core.positions16(pairs, b"BA", isa=isa)) == expected
        assert _core.roaring8(column, 1, isa=isa) == bitmap, size
        assert _core.roaring16(pairs, b"BA", isa=isa) == bitmap, size


@every_isa
def test_bitmap_of_many_containers_agrees_with_pyroaring(isa: str) -> None:
    """Empty containers are left out; from four on, those with runs have offsets."""
    draw = random.Random(2)
    for filled in ([3], [0, 2], [1, 2, 4], [0, 1, 2, 3], [0, 1, 2, 3, 5, 6, 7, 8, 9]):
        column = bytearray(10 * 65_536 + 77)
        for container in filled:
            for _ in range(draw.choice([1, 30, 5000])):
                column[container * 65_536 + draw.randrange(65_536)] = 7
            if draw.random() < 0.5:
                column[container * 65_536 : container * 65_536 + 30_000] = b"\7" * 30_000
        expected = [place for place, value in enumerate(column) if value == 7]
        serialised = _core.roaring8(bytes(column), 7, isa=isa)
        assert serialised == BitMap(array("I", expected)).serialize()
        assert positions_of(_core.positions8(bytes(column), 7, isa=isa)) == expected


@every_isa
def test_container_at_the_array_bitset_boundary_agrees_with_pyroaring(isa: str) -> None:
    """4,096 positions are still an array; one more is a bitset; few runs are runs."""
    for count in (4094, 4095, 4096, 4097, 4098, 32_768):
        column = (b"\1\0" * count).ljust(65_536, b"\0")
        bitmap = BitMap(list(range(0, 2 * count, 2)))
        assert _core.roaring8(column, 1, isa=isa) == bitmap.serialize()
    for run in (1, 2, 3, 4, 31, 32, 33, 63, 64, 65, 65_535, 65_536):
        column = (b"\1" * run).rjust(65_536, b"\0")
        # Not BitMap(range(...)), which keeps a run where the positions take no more bytes.
        bitmap = BitMap(list(range(65_536 - run, 65_536)))
        assert _core.roaring8(column, 1, isa=isa) == bitmap.serialize()
        column = (b"\1" * run + b"\0") * (65_536 // (run + 1))
        expected = [place for place, value in enumerate(column) if value]
        assert _core.roaring8(column, 1, isa=isa) == BitMap(expected).serialize()


@every_isa
def test_partition_splits_every_position_by_its_verdict(isa: str) -> None:
    verdicts = bytes([0, 1, 2, 3, 255, 1, 2])
    for size in SIZES:
        draw = random.Random(size)
        numbers = [draw.randrange(7) for _ in range(size)]
        parts = _core.partition(claims_of(numbers), verdicts, isa=isa)
        inside, outside, undetermined = map(positions_of, parts)
        assert inside == [i for i, n in enumerate(numbers) if n in (1, 5)]
        assert outside == [i for i, n in enumerate(numbers) if n in (2, 6)]
        assert undetermined == [i for i, n in enumerate(numbers) if n in (0, 3, 4)]
        bitmaps = _core.roaring_partition(claims_of(numbers), verdicts, isa=isa)
        expected = [BitMap(part).serialize() for part in (inside, outside, undetermined)]
        assert list(bitmaps) == expected
