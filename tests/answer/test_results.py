"""Roster results: the same from claims and from columns, and careful with columns from outside."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from geolookup import (
    Dataset,
    Policy,
    Reason,
    RegionSetError,
    RosterError,
    RosterResult,
    RosterTooLargeError,
    Status,
)
from geolookup.answer import results as roster_module
from geolookup.answer.results import Countries, Perspective, Reasons, Statuses

ID = "0123456789abcdef" * 4

# Claims 0 to 4, one byte or two letters each.
COUNTRIES = b"ZZZZZZCNDE"
STATUSES = bytes([Status.INVALID, Status.UNASSIGNED, Status.SPECIAL_PURPOSE, 1, 1])
OUTCOMES = bytes([3 | 5 << 2, 3 | 3 << 2, 3 | 4 << 2, 1, 2])

PLAIN = Perspective(ID, COUNTRIES, STATUSES)
SEEN = Perspective(
    ID,
    COUNTRIES,
    STATUSES,
    region_set="CN",
    policy=Policy.UNANIMOUS,
    outcomes=OUTCOMES,
)


def claims(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "little") for number in numbers)


def from_columns(**changes: Any) -> RosterResult:
    """Return the result of the roster CN, DE, none, CN from columns, or from changed ones."""
    columns: dict[str, Any] = {
        "size": 4,
        "countries": b"CNDEZZCN",
        "statuses": bytes([1, 1, 7, 1]),
        "counts": {"CN": 2, "DE": 1, "ZZ": 1},
        "inside": BitMap([0, 3]).serialize(),
        "outside": BitMap([1]).serialize(),
        "undetermined": BitMap([2]).serialize(),
        "reasons": bytes([0, 0, 5, 0]),
        "dataset": ID,
        "region_set": "CN",
        "policy": Policy.UNANIMOUS,
    }
    return RosterResult.from_columns(**columns | changes)


NOBODY_ASKED = dict.fromkeys(
    ("inside", "outside", "undetermined", "reasons", "region_set", "policy")
)


@pytest.fixture(params=["claims", "columns"])
def result(request: pytest.FixtureRequest) -> RosterResult:
    """The roster CN, DE, none, CN, made in both ways."""
    if request.param == "claims":
        return RosterResult(claims(3, 4, 0, 3), SEEN)
    return from_columns()


@pytest.fixture(params=["claims", "columns"])
def plain(request: pytest.FixtureRequest) -> RosterResult:
    """The same without a region set."""
    if request.param == "claims":
        return RosterResult(claims(3, 4, 0, 3), PLAIN)
    return from_columns(**NOBODY_ASKED)


# --- what a result says --------------------------------------------------------------


def test_result_has_the_counts_and_positions_of_its_columns(result: RosterResult) -> None:
    assert (result.size, len(result), result.dataset) == (4, 4, ID)
    assert (result.region_set, result.policy) == ("CN", Policy.UNANIMOUS)
    assert result.countries == ["CN", "DE", "ZZ", "CN"]
    assert result.countries.tolist() == ["CN", "DE", "ZZ", "CN"]
    assert result.statuses == [Status.ASSIGNED, Status.ASSIGNED, Status.INVALID, Status.ASSIGNED]
    assert list(result.counts().items()) == [("CN", 2), ("DE", 1), ("ZZ", 1)]
    assert list(result.status_counts().items()) == [(Status.ASSIGNED, 3), (Status.INVALID, 1)]
    assert result.positions("CN") == result.inside == BitMap([0, 3])
    assert result.positions("DE") == result.outside == BitMap([1])
    assert result.positions("ZZ") == result.undetermined == BitMap([2])
    assert result.positions("FR") == BitMap()
    assert result.has_reasons
    assert result.reasons == [Reason.DECIDED, Reason.DECIDED, Reason.INVALID, Reason.DECIDED]
    assert result.reason_counts() == {Reason.INVALID: 1}
    assert result.positions(Reason.INVALID) == BitMap([2])
    assert result.positions(Reason.DISPUTED) == BitMap()
    assert result.positions(Status.INVALID) == BitMap([2])
    assert result.positions(Status.OVERRIDE) == BitMap()
    assert type(result.inside) is type(result.positions("CN")) is BitMap


def test_serialised_sets_are_portable(result: RosterResult) -> None:
    sets = [BitMap.deserialize(serialised) for serialised in result.serialised()]
    assert sets == [BitMap([0, 3]), BitMap([1]), BitMap([2])]


def test_a_result_without_region_set_has_no_verdicts(plain: RosterResult) -> None:
    assert plain.region_set is None
    assert plain.policy is None
    assert not plain.has_reasons
    for ask in ("inside", "outside", "undetermined", "reasons"):
        with pytest.raises(ValueError, match=r"without a region set; name one with region_set="):
            getattr(plain, ask)
    with pytest.raises(ValueError, match="without a region set"):
        plain.serialised()
    assert plain.countries == ["CN", "DE", "ZZ", "CN"]


def test_results_are_equal_however_they_were_made(
    result: RosterResult, plain: RosterResult
) -> None:
    assert result == RosterResult(claims(3, 4, 0, 3), SEEN)
    assert plain == from_columns(**NOBODY_ASKED)
    assert result != plain
    assert result != RosterResult(claims(3, 4, 3, 0), SEEN)
    assert result != from_columns(policy=Policy.PRIMARY)
    assert result != from_columns(dataset="f" * 64)
    assert result != [0, 3]
    other = from_columns(
        inside=BitMap([0]).serialize(),
        undetermined=BitMap([2, 3]).serialize(),
        reasons=bytes([0, 0, 5, 5]),
    )
    assert result != other
    assert result != from_columns(reasons=bytes([0, 0, 3, 0]))
    assert result != from_columns(reasons=None)
    with pytest.raises(TypeError):
        hash(result)


def test_a_repr_is_short_and_counts(result: RosterResult, plain: RosterResult) -> None:
    assert repr(result) == (
        "<RosterResult of 4: CN 2, DE 1, ZZ 1; CN: 2 inside, 1 outside, 1 undetermined>"
    )
    assert repr(plain) == "<RosterResult of 4: CN 2, DE 1, ZZ 1>"
    assert repr(RosterResult(b"", PLAIN)) == "<RosterResult of 0>"
    codes = [f"A{chr(65 + i)}" for i in range(26)]
    many = RosterResult(
        claims(*range(26)), Perspective(ID, "".join(codes).encode(), bytes([1]) * 26)
    )
    assert repr(many) == "<RosterResult of 26: AA 1, AB 1, AC 1, AD 1, AE 1, 21 more codes>"


def test_result_of_a_service_without_reasons_says_so() -> None:
    old = from_columns(reasons=None)
    assert not old.has_reasons
    for ask in (lambda: old.reasons, old.reason_counts, lambda: old.positions(Reason.INVALID)):
        with pytest.raises(ValueError, match=r"the service has a version without them"):
            ask()
    assert pickle.loads(pickle.dumps(old)) == old  # noqa: S301 - our own


def test_changing_a_set_changes_no_result(result: RosterResult) -> None:
    inside = result.inside
    inside.clear()
    outside = result.outside
    outside |= BitMap(range(100))
    counts = result.counts()
    counts.clear()
    assert result.inside == BitMap([0, 3])
    assert result.outside == BitMap([1])
    assert result.counts()["CN"] == 2


@pytest.mark.parametrize("name", ["size", "countries", "inside", "dataset", "anything"])
def test_a_result_can_not_be_changed(result: RosterResult, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(result, name, None)


def test_pickled_result_of_one_address_is_small(dataset: Dataset) -> None:
    for region_set in (None, "CN"):
        result = dataset.classify(["1.0.1.1"], region_set=region_set)
        pickled = pickle.dumps(result)
        assert len(pickled) < 1_000
        assert pickle.loads(pickled) == result == copy.copy(result)  # noqa: S301 - our own


def test_a_result_can_be_pickled(result: RosterResult) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(result, protocol)) == result  # noqa: S301 - our own
    assert copy.deepcopy(result) == result


@pytest.mark.parametrize("wrong", ["cn", "UK", "CHN", "", "XX", "EU", "ZZZ", "1.2.3.4"])
def test_positions_of_an_invalid_code_are_an_error(result: RosterResult, wrong: str) -> None:
    with pytest.raises(RegionSetError, match="not a country code") as caught:
        result.positions(wrong)
    assert "1.2.3.4" not in str(caught.value)


# --- columns as sequences ------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "items"),
    [
        (Countries(b"CNDEZZCN"), ["CN", "DE", "ZZ", "CN"]),
        (
            Statuses(bytes([1, 2, 7, 1])),
            [Status.ASSIGNED, Status.DISPUTED, Status.INVALID, Status.ASSIGNED],
        ),
        (Reasons(bytes([0, 9])), [Reason.DECIDED, Reason.STALE]),
        (Countries(b""), []),
        (Statuses(b""), []),
    ],
)
def test_columns_are_sequences(column: Any, items: list[Any]) -> None:
    assert isinstance(column, Sequence)
    assert len(column) == len(items)
    assert list(column) == list(iter(column)) == items
    assert list(reversed(column)) == items[::-1]
    assert [type(item) for item in column] == [type(item) for item in items]
    for at in range(-len(items), len(items)):
        assert column[at] == items[at]
    for wrong in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            column[wrong]
    for start in (None, -3, 0, 1, 9):
        for step in (None, 1, 2, -1):
            part = column[start::step]
            assert type(part) is type(column)
            assert part == items[start::step]
    equal: list[Any] = [items, tuple(items), column[:]]
    assert all(column == other for other in equal)
    different: list[Any] = [[*items, "CN"], set(items), "CN", None]
    assert all(column != other for other in different)
    for item in items:
        assert item in column
        assert column.count(item) == items.count(item)
        assert column.index(item) == items.index(item)
    assert "FR" not in column
    with pytest.raises(TypeError):
        hash(column)
    with pytest.raises(TypeError):
        column[0] = items  # type: ignore[index]


def test_columns_give_their_bytes() -> None:
    assert Countries(b"CNDEZZ")[::-1].tobytes() == b"ZZDECN"
    assert Statuses(bytes([1, 2, 7]))[1:].tobytes() == bytes([2, 7])


def test_columns_have_a_short_repr() -> None:
    assert repr(Countries(b"CNDE")) == "<Countries of 2: CN, DE>"
    assert repr(Countries(b"CN" * 9)) == f"<Countries of 9: {'CN, ' * 8}...>"
    assert repr(Statuses(bytes([1, 7]))) == "<Statuses of 2: ASSIGNED, INVALID>"
    assert repr(Statuses(b"")) == "<Statuses of 0>"


def test_statuses_and_countries_are_different_columns() -> None:
    assert Countries(b"") != Statuses(b"")


# --- sets of positions ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999, 1.0])
def test_sets_of_each_roster_size_agree_with_pyroaring(size: int, share: float) -> None:
    """Each container of the serialisation has its own form: by number, and by position."""
    rng = random.Random(size)
    numbers = [3 if rng.random() < share else rng.choice([0, 4]) for _ in range(size)]
    result = RosterResult(claims(*numbers), SEEN)
    expected = [BitMap([at for at, n in enumerate(numbers) if n == wanted]) for wanted in (3, 4, 0)]
    assert [result.inside, result.outside, result.undetermined] == expected
    assert result.positions("CN") == expected[0]
    inside, outside, undetermined = result.serialised()
    assert [BitMap.deserialize(one) for one in result.serialised()] == expected
    again = RosterResult.from_columns(
        size=size,
        countries=result.countries.tobytes(),
        statuses=result.statuses.tobytes(),
        inside=inside,
        outside=outside,
        undetermined=undetermined,
        reasons=result.reasons.tobytes(),
        dataset=ID,
        region_set="CN",
        policy=Policy.UNANIMOUS,
    )
    assert again == result
    assert again.serialised() == result.serialised()


@pytest.mark.parametrize("many", [4095, 4096, 4097])
@pytest.mark.parametrize("before", [0, 65_536])
def test_sets_around_the_largest_array_container_agree_with_pyroaring(
    many: int, before: int
) -> None:
    """4,096 positions of which no two are neighbours are still an array, one more is a bitset."""
    result = RosterResult(claims(*[4] * before, *[3, 0] * many), SEEN)
    inside = BitMap(range(before, before + 2 * many, 2))
    assert result.inside == result.positions("CN") == inside
    assert BitMap.deserialize(result.serialised()[0]) == inside


def test_roster_larger_than_32_bit_positions_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster_module, "MAX_SIZE", 3)
    with pytest.raises(RosterTooLargeError):
        RosterResult(claims(3, 3, 3, 3), PLAIN)
    assert len(RosterResult(claims(3, 3, 3), PLAIN)) == 3


# --- columns from outside ------------------------------------------------------------

SETS_DISAGREE = "do not hold each position exactly once"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "size below 0": ({"size": -1}, "size: not in"),
    "size too big": ({"size": 2**32}, "size: not in"),
    "size of others": ({"size": 5}, "countries: 8 bytes, expected 10"),
    "countries too short": ({"countries": b"CNDEZZC"}, "countries: 7 bytes, expected 8"),
    "countries too long": ({"countries": b"CNDEZZCNCN"}, "countries: 10 bytes, expected 8"),
    "countries no letters": ({"countries": b"CNDE??CN"}, "countries: unknown values"),
    "countries lower case": ({"countries": b"cndezzcn"}, "countries: unknown values"),
    "countries not ASCII": ({"countries": b"CNDEZ\xc3CN"}, "countries: unknown values"),
    "statuses too short": ({"statuses": b"\1\1\1"}, "statuses: 3 bytes, expected 4"),
    "status 0": ({"statuses": b"\1\1\1\0"}, "statuses: unknown values"),
    "status 8": ({"statuses": b"\1\1\1\x08"}, "statuses: unknown values"),
    "counts of others": ({"counts": {"CN": 5}}, "counts: their sum is not 4"),
    "id too short": ({"dataset": "abc"}, "dataset: not 64 hexadecimal digits"),
    "id no hex": ({"dataset": "\x1b" * 64}, "dataset: not 64 hexadecimal digits"),
    "id upper case": ({"dataset": "A" * 64}, "dataset: not 64 hexadecimal digits"),
    "no inside": ({"inside": None}, "belong together"),
    "no region set": ({"region_set": None}, "belong together"),
    "no policy": ({"policy": None}, "belong together"),
    "no verdicts": (
        {"inside": None, "outside": None, "undetermined": None},
        "belong together",
    ),
    "empty set": ({"inside": b""}, "inside: 0 bytes are no portable"),
    "half a cookie": ({"inside": b":0"}, "inside: 2 bytes are no portable"),
    "unknown cookie": ({"outside": b"\1\2\3\4" * 4}, "outside: 16 bytes are no portable"),
    "too long": (
        {"outside": BitMap([1]).serialize() + b"\0"},
        "outside: 19 bytes are no portable",
    ),
    "too short": (
        {"undetermined": BitMap([2]).serialize()[:-1]},
        "undetermined: 17 bytes are no portable",
    ),
    "a position in the next container": (
        {"inside": BitMap([0, 70_000]).serialize()},
        SETS_DISAGREE,
    ),
    "millions of containers": ({"inside": b":0\0\0\xff\xff\xff\xff"}, "inside: 8 bytes are no"),
    "65,536 run containers": ({"inside": b";0\xff\xff" + bytes(100)}, "inside: 104 bytes are no"),
    "a position twice": ({"inside": BitMap([0, 1, 3]).serialize()}, SETS_DISAGREE),
    "a position missing": ({"inside": BitMap([0]).serialize()}, SETS_DISAGREE),
    "beyond the roster": ({"inside": BitMap([0, 4]).serialize()}, SETS_DISAGREE),
    "twice and missing": (
        {"inside": BitMap([0, 1]).serialize(), "outside": BitMap([1]).serialize()},
        SETS_DISAGREE,
    ),
    "undetermined twice": (
        {"outside": BitMap([2]).serialize(), "inside": BitMap([0, 1]).serialize()},
        SETS_DISAGREE,
    ),
    "not ascending": (
        {"inside": BitMap([0, 3]).serialize()[:-4] + b"\3\0\0\0"},
        "bytes are no portable Roaring bitmap",
    ),
    "the same again": (
        {"inside": BitMap([0, 3]).serialize()[:-4] + b"\3\0\3\0"},
        "bytes are no portable Roaring bitmap",
    ),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED)
def test_inconsistent_columns_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RosterError) as caught:
        from_columns(**changes)
    assert text in str(caught.value)


def test_columns_may_be_any_bytes_and_are_kept() -> None:
    countries = bytearray(b"CNDEZZCN")
    result = from_columns(
        countries=countries, inside=memoryview(BitMap([0, 3]).serialize()), counts=None
    )
    countries[:] = b"FRFRFRFR"
    assert result.countries == ["CN", "DE", "ZZ", "CN"]
    assert result.inside == BitMap([0, 3])


def test_counts_agree_with_the_countries() -> None:
    lie = from_columns(counts={"FR": 4})
    assert lie.counts() == {"CN": 2, "DE": 1, "ZZ": 1}


ROSTER = 300_000


@cache
def shape(which: int, optimize: bool) -> BitMap:
    """Return a set with one kind of container, or several."""
    size = ROSTER
    rng = random.Random(11)
    sets = [
        BitMap([0]),
        BitMap(range(0, size, 2)),
        BitMap(range(size)),
        BitMap(range(5_000)),
        BitMap(rng.sample(range(size), 9_000)),
        BitMap([*range(10), *range(70_000, 140_000), *rng.sample(range(140_000, size), 5_000)]),
        BitMap([1, 65_536, 131_072, 196_608]),
    ]
    return BitMap(sets[which], optimize=optimize)


@cache
def serialised(which: int, optimize: bool) -> bytes:
    return bytes(shape(which, optimize).serialize())


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("which", range(7))
def test_each_kind_of_container_is_read(which: int, optimize: bool) -> None:
    inside = shape(which, optimize)
    outside = BitMap(range(ROSTER)) - inside
    result = RosterResult.from_columns(
        size=ROSTER,
        countries=b"CN" * ROSTER,
        statuses=b"\1" * ROSTER,
        inside=inside.serialize(),
        outside=outside.serialize(),
        undetermined=BitMap().serialize(),
        dataset=ID,
        region_set="CN",
        policy=Policy.PRIMARY,
    )
    assert result.inside == inside
    assert result.outside == outside


@settings(max_examples=500)
@given(
    which=st.integers(0, 6),
    optimize=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 60),
    near=st.integers(1, 400),
)
@example(which=0, optimize=True, changes=[], cut=0, near=1)
def test_serialised_set_with_changed_bytes_is_read_or_refused(
    which: int, optimize: bool, changes: list[tuple[int, int]], cut: int, near: int
) -> None:
    """Mostly in the headers, where lengths and offsets are."""
    damaged = bytearray(serialised(which, optimize))
    for at, value in changes:
        damaged[at % min(near, len(damaged))] = value
    if cut > 50:
        del damaged[-(cut - 50) :]
    full = serialised(2, True)
    with pytest.raises(RosterError):  # "outside" alone has all positions already
        RosterResult.from_columns(
            size=ROSTER,
            countries=b"CN" * ROSTER,
            statuses=b"\1" * ROSTER,
            inside=bytes(damaged),
            outside=full,
            undetermined=full,
            dataset=ID,
            region_set="CN",
            policy=Policy.PRIMARY,
        )


@settings(max_examples=500)
@given(st.binary(max_size=200), st.sampled_from([b"", b":0\0\0", b":0\0\0\1\0\0\0", b";0\0\0"]))
def test_serialised_set_of_random_bytes_is_read_or_refused(noise: bytes, start: bytes) -> None:
    try:
        result = from_columns(inside=start + noise)
    except RosterError:
        return
    assert result.inside == BitMap([0, 3])
