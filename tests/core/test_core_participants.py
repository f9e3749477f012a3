"""Participants with several addresses: the core's outcomes, held to the oracle's."""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import reference
from core_tables import SHAPES
from hypothesis import given
from hypothesis import strategies as st

from geolookup import _core
from geolookup.v1 import geolookup_pb2 as v1

VERDICTS = ("", "INSIDE", "OUTSIDE", "UNDETERMINED")
REASONS = (
    "DECIDED",
    "DISPUTED",
    "UNCONFIRMED",
    "UNASSIGNED",
    "SPECIAL_PURPOSE",
    "INVALID",
    "COVERED",
    "SUBDIVISION_UNKNOWN",
    "NO_COUNTRY",
    "STALE",
)
"""By number, as in the proto."""

OUTCOMES = (1, 2, *(3 | reason << 2 for reason in range(1, len(REASONS))))
"""Each that an address can have."""


def meaning(outcome: int) -> tuple[str, str]:
    return VERDICTS[outcome & 3], REASONS[outcome >> 2]


def combined(groups: Iterable[Sequence[int]]) -> list[int]:
    """Return what the core makes of participants whose addresses have these outcomes."""
    groups = list(groups)
    claims = array("H", itertools.chain.from_iterable(groups)).tobytes()
    sizes = array("I", map(len, groups)).tobytes()
    # Each outcome is the number of its own claim.
    return list(_core.participant_outcomes(claims, bytes(range(256)), sizes))


def expected(groups: Iterable[Sequence[int]]) -> list[tuple[str, str]]:
    return [reference.participant([meaning(outcome) for outcome in group]) for group in groups]


# --- the oracle ----------------------------------------------------------------------

INSIDE, OUTSIDE = ("INSIDE", "DECIDED"), ("OUTSIDE", "DECIDED")


def why(reason: str) -> tuple[str, str]:
    return "UNDETERMINED", reason


@pytest.mark.parametrize(
    ("addresses", "result"),
    [
        ([INSIDE], INSIDE),
        ([INSIDE, INSIDE], INSIDE),
        ([OUTSIDE, OUTSIDE], OUTSIDE),
        ([INSIDE, OUTSIDE], why("DISPUTED")),
        ([OUTSIDE, why("SPECIAL_PURPOSE")], OUTSIDE),
        ([why("INVALID"), INSIDE, why("SPECIAL_PURPOSE")], INSIDE),
        ([why("INVALID"), why("COVERED")], why("COVERED")),
        ([why("SPECIAL_PURPOSE"), why("INVALID")], why("INVALID")),
        ([INSIDE, why("UNCONFIRMED")], why("UNCONFIRMED")),
        ([INSIDE, OUTSIDE, why("UNCONFIRMED")], why("DISPUTED")),
        ([INSIDE, OUTSIDE, why("UNASSIGNED")], why("UNASSIGNED")),
        ([why("SUBDIVISION_UNKNOWN"), why("NO_COUNTRY")], why("NO_COUNTRY")),
    ],
)
def test_oracle_participant_as_documented(
    addresses: list[tuple[str, str]], result: tuple[str, str]
) -> None:
    assert reference.participant(addresses) == result


# --- outcomes ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
def test_participants_with_each_combination_of_outcomes_match_the_oracle(size: int) -> None:
    groups = list(itertools.product(OUTCOMES, repeat=size))
    assert list(map(meaning, combined(groups))) == expected(groups)


def test_participants_with_each_set_of_outcomes_match_the_oracle() -> None:
    """Up to 11 addresses, in each number: shorter and longer than what takes no branch."""
    draw = random.Random(3)
    groups = [
        draw.sample(chosen, len(chosen))
        for size in range(4, len(OUTCOMES) + 1)
        for chosen in itertools.combinations(OUTCOMES, size)
    ]
    assert len(groups) > 1_500
    draw.shuffle(groups)
    assert list(map(meaning, combined(groups))) == expected(groups)


@pytest.mark.parametrize("size", [*range(1, 20), 63, 64, 65, 1023, 1024, 1025, 3000])
def test_one_deciding_address_anywhere_in_a_group_is_found(size: int) -> None:
    places = range(size) if size < 100 else {0, 7, 8, size // 2, size - 9, size - 8, size - 1}
    groups = [[2 if at == place else 1 for at in range(size)] for place in places]
    assert set(combined(groups)) == ({2} if size == 1 else {3 | 1 << 2})
    neighbours = [group for place in places for group in ([2] * size, [1] * size, [2])]
    assert combined(neighbours) == [1 if group[0] == 1 else 2 for group in neighbours]


SIZES = st.one_of(st.integers(1, 9), st.sampled_from([16, 1000, 1015, 1016, 1017, 1024, 2049]))


@given(st.lists(SIZES, max_size=20), st.integers(0, 99))
def test_groups_of_any_sizes_match_the_oracle(sizes: list[int], seed: int) -> None:
    draw = random.Random(seed)
    groups = [
        draw.choices(draw.choice([OUTCOMES, (1,), (2,), (1, 2), (1, 19, 23)]), k=size)
        for size in sizes
    ]
    assert list(map(meaning, combined(groups))) == expected(groups)


def test_many_participants_match_the_oracle() -> None:
    draw = random.Random(8)
    groups = [draw.choices(OUTCOMES, k=draw.randrange(1, 12)) for _ in range(20_000)]
    assert list(map(meaning, combined(groups))) == expected(groups)


def test_bytes_that_are_no_outcome_are_undetermined() -> None:
    for byte in set(range(256)) - set(OUTCOMES):
        [alone] = combined([[byte]])
        beside = combined([[byte, 1], [byte, 2], [byte, 3 | 5 << 2]])
        if byte & 3 in (1, 2):
            assert alone == byte & 3
        else:
            assert (alone, beside) == (3, [3, 3, 3])


def test_no_participants_have_no_outcomes() -> None:
    assert combined([]) == []


# --- refusals ------------------------------------------------------------------------


def test_sizes_that_are_not_those_of_the_claims_are_refused() -> None:
    claims = array("H", [1] * 6).tobytes()
    column = bytes(range(256))
    for sizes in ([], [5], [7], [3, 4], [6, 0], [0, 6], [3, 0, 3], [2**32 - 1, 7]):
        with pytest.raises(ValueError, match=r"^sizes: not those of 6 claims in groups$"):
            _core.participant_outcomes(claims, column, array("I", sizes).tobytes())
    with pytest.raises(ValueError, match=r"^sizes: 6 bytes are no multiple of 4$"):
        _core.participant_outcomes(claims, column, bytes(6))
    with pytest.raises(ValueError, match=r"^claims: unknown claim at position 0$"):
        _core.participant_outcomes(claims, b"\1", array("I", [6]).tobytes())
    wrong: object
    for wrong in (None, "12", [1]):
        with pytest.raises(TypeError):
            _core.participant_outcomes(claims, column, wrong)


def test_group_total_names_the_first_zero() -> None:
    for sizes, zero in (([], -1), ([3, 1], -1), ([3, 0, 0], 1), ([0], 0), ([2**32 - 1] * 9, -1)):
        assert _core.group_total(array("I", sizes).tobytes()) == (sum(sizes), zero)
    with pytest.raises(ValueError, match=r"^sizes: 3 bytes are no multiple of 4$"):
        _core.group_total(bytes(3))


def test_group_sizes_are_ints_of_32_bits() -> None:
    for sizes in ([], [0], [1, 2**32 - 1, 7], [127, 128]):
        for given_as in (list, tuple):
            assert array("I", _core.group_sizes(given_as(sizes))).tolist() == sizes
    for wrong in (-1, 2**32, -(2**63), 2**64, 2**200):
        with pytest.raises(OverflowError, match=r"^groups: not in 0..4294967295 at position 2$"):
            _core.group_sizes([1, 2, wrong])
    for item in (True, 1.0, "1", None):
        name = type(item).__name__
        with pytest.raises(TypeError, match=rf"^groups: expected int at position 1, not {name}$"):
            _core.group_sizes([1, item])
    with pytest.raises(TypeError, match=r"^groups: expected list or tuple, not bytes$"):
        _core.group_sizes(b"\1\2")


def texts_in_lists() -> list[Any]:
    """Return lists and tuples of texts and packed addresses, none and many among them."""
    draw = random.Random(2)
    pool = ["1.0.1.1", "2001:200::1", "::ffff:9.9.9.9", "no address", "", "10.0.0.1"]
    return [
        draw.choice([list, tuple])(draw.choices(pool, k=draw.choice([0, 1, 2, 3, 300])))
        for _ in range(200)
    ]


@pytest.mark.parametrize("isa", _core.isa_paths())
def test_people_are_classified_and_parsed_like_their_addresses(isa: str) -> None:
    lists = texts_in_lists()
    flat = list(itertools.chain.from_iterable(lists))
    sizes = array("I", map(len, lists)).tobytes()
    table = SHAPES["embedded forms"].table(isa)
    mapping = dict(enumerate(lists))
    assert table.classify_people(mapping) == (tuple(mapping), table.classify_text(flat), sizes)
    assert _core.parse_people(lists, isa=isa) == (*_core.parse_many(flat, isa=isa), sizes)
    assert table.classify_people({}) == ((), b"", b"")
    assert _core.parse_people(([],)) == (b"", b"", bytes(4))


def test_people_who_are_no_lists_are_refused_with_their_position() -> None:
    table = SHAPES["one interval"].table()

    def classify_people(lists: Any) -> object:
        return table.classify_people(dict(enumerate(lists)) if isinstance(lists, list) else lists)

    call: Any
    for call in (classify_people, _core.parse_people):
        for wrong in ("1.0.1.1", b"1234", {"1.0.1.1"}, 5, None):
            name = type(wrong).__name__
            with pytest.raises(TypeError, match=rf"^lists: .* at position 1, not {name}$"):
                call([["1.0.1.1"], wrong])
        with pytest.raises(
            TypeError, match=r"list or tuple, not set$|incorrect type .*dict, got set"
        ):
            call({"1.0.1.1"})
        with pytest.raises(TypeError, match=r"^addresses: expected str.* at position 2, not int$"):
            call([["1.0.1.1", "x"], [], [5]])


def test_keys_and_values_are_those_of_the_dict() -> None:
    mapping = {f"user {number}": [number] for number in range(500)}
    for number in range(0, 500, 3):
        del mapping[f"user {number}"]
    assert _core.keys_and_values(mapping) == (list(mapping), list(mapping.values()))
    assert _core.keys_and_values({}) == ([], [])
    with pytest.raises(TypeError):
        _core.keys_and_values(None)


@pytest.mark.parametrize("isa", _core.isa_paths())
def test_split_column_is_that_of_single_bitmaps(isa: str) -> None:
    draw = random.Random(4)
    for size in (0, 1, 63, 64, 65, 65_537, 140_000):
        column = bytes(draw.choices(OUTCOMES, k=size))
        undecided = bytes(3 if byte not in (1, 2) else byte for byte in column)
        assert _core.roaring_split(column, isa=isa) == (
            _core.roaring8(column, 1),
            _core.roaring8(column, 2),
            _core.roaring8(undecided, 3),
        )


@pytest.mark.parametrize("sizes", [[], [1], [127, 128], [1, 2**32 - 1, 300], [3] * 5000])
def test_group_sizes_are_written_as_protobuf_writes_them(sizes: list[int]) -> None:
    expected = v1.ClassifyRosterRequest(group_sizes=sizes).SerializeToString()
    assert _core.wire_groups(array("I", sizes).tobytes()) == expected
