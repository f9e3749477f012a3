"""The API in process: every kind of address and roster, region sets, policies, closing, threads."""

from __future__ import annotations

import copy
import ctypes
import doctest
import io
import ipaddress
import mmap
import pickle
import random
import subprocess
import sys
import threading
import tomllib
from array import array
from collections import UserList, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import small_dataset
import strategies
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from small_dataset import CLAIMS, ONE_OF_EACH

import geolookup
from geolookup import (
    Answer,
    Dataset,
    DatasetClosedError,
    GeoLookupError,
    Policy,
    Reason,
    RegionSet,
    RegionSetError,
    RosterError,
    RosterResult,
    Status,
    Verdict,
)
from geolookup.answer.claims import outcome_column
from geolookup.answer.dataset import encode
from geolookup.answer.region_sets import RegionSets

ROOT = Path(__file__).resolve().parents[2]
I, O, U = Verdict.INSIDE, Verdict.OUTSIDE, Verdict.UNDETERMINED  # noqa: E741 - as in a table


@cache
def image() -> bytes:
    return encode(small_dataset.content())


@pytest.fixture
def small() -> Iterator[Dataset]:
    with Dataset.from_buffer(image()) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def embedded() -> Iterator[Dataset]:
    with geolookup.open() as dataset:
        yield dataset


# --- one address ---------------------------------------------------------------------


@pytest.mark.parametrize(("address", "claim"), ONE_OF_EACH.items())
def test_answer_has_country_and_status_of_its_claim(
    small: Dataset, address: str, claim: int
) -> None:
    known = CLAIMS[claim]
    assert small.country(address) == known.country
    assert small.lookup(address) == Answer(
        country=known.country,
        status=known.status,
        claimed=known.claimed if known.status is Status.DISPUTED else (),
        verdict=None,
        dataset=small.id,
    )


# The verdicts of the design's table, for claims that sources made.
COLUMNS = ["1.0.1.1", "2.0.0.1", "3.0.0.1", "4.0.0.1", "5.0.0.1", "8.8.8.8", "9.9.9.9"]
TRUTH = {
    #                      ASSIGNED  DISPUTED                  UNCONFIRMED
    #                      CN    DE  CN,HK  AT,DE  CN,CN,US    US,-  CN,CN,-
    ("CN", "UNANIMOUS"): [I, O, U, O, U, U, U],
    ("CN", "MAJORITY"): [I, O, U, O, I, U, I],
    ("CN", "PRIMARY"): [I, O, O, O, I, O, I],
    ("CN+HK", "UNANIMOUS"): [I, O, I, O, U, U, U],
    ("CN+HK", "MAJORITY"): [I, O, I, O, I, U, I],
    ("CN+HK", "PRIMARY"): [I, O, I, O, I, O, I],
    ("EU", "UNANIMOUS"): [O, I, O, I, O, U, U],
    ("EU", "MAJORITY"): [O, I, O, I, O, U, O],
    ("EU", "PRIMARY"): [O, I, O, I, O, O, O],
}


@pytest.mark.parametrize(("region_set", "policy"), TRUTH)
def test_verdicts_follow_the_policy(small: Dataset, region_set: str, policy: str) -> None:
    expected = TRUTH[region_set, policy]
    got = [small.lookup(address, region_set, Policy[policy]).verdict for address in COLUMNS]
    assert got == expected
    result = small.classify(COLUMNS, region_set=region_set, policy=policy)
    for verdict, positions in ((I, result.inside), (O, result.outside), (U, result.undetermined)):
        assert list(positions) == [at for at, one in enumerate(expected) if one is verdict]


@pytest.mark.parametrize("policy", Policy)
def test_override_decides_and_unknown_is_undetermined(small: Dataset, policy: Policy) -> None:
    for address, inside_fr in (
        ("10.1.0.1", I),
        ("10.2.0.1", U),
        ("10.0.0.1", U),
        ("200.0.0.1", U),
        ("1.2.3", U),
        ("::1", U),
        ("4000::", U),
        ("", U),
    ):
        assert small.lookup(address, "FR", policy).verdict is inside_fr
        assert small.lookup(address, "DE", policy).verdict is (O if inside_fr is I else U)


@pytest.mark.parametrize("text", ["1.0.1.1", "2001:200::1", "::ffff:1.0.1.1"])
def test_each_form_of_an_address_gets_the_same_answer(small: Dataset, text: str) -> None:
    address = ipaddress.ip_address(text)
    for form in (text, address, address.packed):
        assert small.country(form) == "CN"
        assert small.lookup(form, "CN") == small.lookup(text, "CN")
        assert small.classify([form], region_set="CN").counts() == {"CN": 1}


@pytest.mark.parametrize(
    ("zoned", "status"),
    [
        ("fe80::1%eth0", Status.SPECIAL_PURPOSE),
        ("febf::1%1", Status.SPECIAL_PURPOSE),
        ("2001:200::1%eth0", Status.INVALID),
        ("::1%lo", Status.INVALID),
    ],
)
def test_a_zone_is_allowed_on_link_local_addresses_only(
    small: Dataset, zoned: str, status: Status
) -> None:
    for form in (zoned, ipaddress.ip_address(zoned)):
        assert small.lookup(form).status is status
        assert small.classify([form, "1.0.1.1"]).statuses[0] is status
    assert small.country(ipaddress.ip_address(zoned)) == "ZZ"


@pytest.mark.parametrize("packed", [b"", b"\1", b"\1\0\1", b"\1\0\1\1\0", bytes(15), bytes(17)])
def test_bytes_of_another_length_are_invalid(small: Dataset, packed: bytes) -> None:
    assert small.country(packed) == "ZZ"
    assert small.lookup(packed, "CN").status is Status.INVALID
    result = small.classify([packed, b"\1\0\1\1"])
    assert result.statuses == [Status.INVALID, Status.ASSIGNED]


NO_ADDRESSES = (16_777_473, 1.5, None, True, bytearray(4), memoryview(b"\1\0\1\1"), ("1.0.1.1",))


@pytest.mark.parametrize("wrong", NO_ADDRESSES, ids=lambda wrong: type(wrong).__name__)
def test_address_of_another_type_is_a_type_error(small: Dataset, wrong: Any) -> None:
    kind = type(wrong).__name__
    for ask in (small.country, small.lookup):
        with pytest.raises(TypeError, match=f"^address: expected str, an ipad.*, not {kind}$"):
            ask(wrong)
    if wrong is None:  # in a roster a missing value, as its own test shows
        return
    for roster in (["1.0.1.1", b"1234", wrong], (ipaddress.ip_address("::1"), "x", wrong)):
        with pytest.raises(TypeError, match=f"^roster: position 2: expected .*, not {kind}$"):
            small.classify(roster)


def test_network_is_a_type_error(small: Dataset) -> None:
    with pytest.raises(TypeError, match="not IPv4Network"):
        small.lookup(ipaddress.ip_network("1.0.1.0/24"))


def test_an_answer_can_not_be_changed(small: Dataset) -> None:
    answer = small.lookup("1.0.1.1", "CN")
    with pytest.raises(AttributeError):
        answer.country = "DE"  # type: ignore[misc]
    assert hash(answer) == hash(small.lookup(b"\1\0\1\2", "CN"))


def test_answers_are_made_once_for_each_claim_and_verdict(small: Dataset) -> None:
    assert small.lookup("1.0.1.1") is small.lookup("2001:200::1")
    assert small.lookup("1.0.1.1", "CN") is small.lookup("1.0.1.1", "CN+HK", "primary")
    assert small.lookup("1.0.1.1", "CN") is not small.lookup("1.0.1.1", "DE")


# --- region sets and policies --------------------------------------------------------


def test_a_region_set_may_be_an_object(small: Dataset) -> None:
    mine = RegionSet("MINE", frozenset({"DE", "AT"}), "1", "me")
    assert small.lookup("4.0.0.1", mine).verdict is I
    result = small.classify(["4.0.0.1"], region_set=mine)
    assert result.region_set == "MINE"
    assert list(result.inside) == [0]


def test_region_sets_of_one_name_are_distinguished_by_their_codes(small: Dataset) -> None:
    for code, verdict in (("CN", I), ("DE", O)):
        same_name = RegionSet("MINE", frozenset({code}), "1", "me")
        assert small.lookup("1.0.1.1", same_name).verdict is verdict


def test_an_unknown_region_set_is_an_error_for_every_question(small: Dataset) -> None:
    for ask in (
        lambda: small.lookup("1.0.1.1", "EEAA"),
        lambda: small.classify([], region_set="EEAA"),
        lambda: small.outcome_column("EEAA"),
    ):
        with pytest.raises(RegionSetError, match="did you mean"):
            ask()


@pytest.mark.parametrize("wrong", [5, b"CN", ["CN"], {"CN"}, frozenset({"CN"})])
def test_a_region_set_of_another_type_is_a_type_error(small: Dataset, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^region_set: expected str or RegionSet, not"):
        small.lookup("1.0.1.1", wrong)
    with pytest.raises(TypeError, match=r"^region_set: expected str or RegionSet, not"):
        small.classify(["1.0.1.1"], region_set=wrong)


def test_an_empty_region_set_is_no_region_set(small: Dataset) -> None:
    with pytest.raises(RegionSetError):
        small.lookup("1.0.1.1", "")


@pytest.mark.parametrize("policy", Policy)
def test_a_policy_may_be_named_in_any_letter_case(small: Dataset, policy: Policy) -> None:
    for name in (policy.name, policy.name.lower(), policy.name.title()):
        assert small.classify(["1.0.1.1"], region_set="CN", policy=name).policy is policy


@pytest.mark.parametrize("region_set", [None, "CN"])
def test_an_unknown_policy_is_an_error_with_and_without_a_region_set(
    small: Dataset, region_set: str | None
) -> None:
    for ask in (
        lambda policy: small.lookup("1.0.1.1", region_set, policy),
        lambda policy: small.classify([], region_set=region_set, policy=policy),
    ):
        with pytest.raises(ValueError, match=r"^policy: unknown; expected one of UNANIMOUS, "):
            ask("most")
        for wrong in (1, None, True, b"MAJORITY"):
            with pytest.raises(TypeError, match=r"^policy: expected Policy or its name, not"):
                ask(wrong)


def test_cached_verdicts_distinguish_policies(small: Dataset) -> None:
    verdicts = [small.lookup("5.0.0.1", "CN", policy).verdict for policy in Policy]
    assert verdicts == [U, I, I]
    assert [small.lookup("5.0.0.1", "CN", policy).verdict for policy in Policy] == verdicts


@given(strategies.region_codes(["CN", "DE", "HK", "AT", "US", "FR", "JP"]), st.sampled_from(Policy))
def test_outcome_column_agrees_with_the_claims(codes: frozenset[str], policy: Policy) -> None:
    dataset = Dataset.from_buffer(image())
    column = dataset.outcome_column(RegionSet("ANY", codes, "1", "me"), policy)
    assert column == outcome_column(CLAIMS, codes, policy)


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("expression", ["CN", "HK+TW", "EU", "ASIA", "AFRICA+EUROPE-DE", "XK"])
def test_outcome_column_of_the_embedded_dataset_agrees_with_its_claims(
    embedded: Dataset, expression: str, policy: Policy
) -> None:
    codes = RegionSets.builtin().resolve(expression).codes
    column = embedded.outcome_column(expression, policy)
    assert column == outcome_column(embedded.claims, codes, policy)


def test_an_outcome_column_needs_a_region_set(small: Dataset) -> None:
    with pytest.raises(TypeError, match="region_set"):
        small.outcome_column(None)


def test_cached_verdicts_are_bounded(small: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = type(small.claims).outcomes

    def verdicts(claims: Any, codes: frozenset[str], *rest: Any) -> bytes:
        made.append(codes)
        return real(claims, codes, *rest)

    monkeypatch.setattr(type(small.claims), "outcomes", verdicts)
    sets = [RegionSet("MINE", frozenset({"DE", f"A{chr(65 + i % 26)}", f"B{chr(65 + i // 26)}"}))
            for i in range(300)]  # fmt: skip
    for region_set in [*sets, *sets[-200:]]:
        small.lookup("1.0.1.1", region_set)
    assert len(made) == len(sets)
    small.lookup("1.0.1.1", sets[0])
    assert len(made) == len(sets) + 1


def test_expressions_of_the_same_codes_share_cached_verdicts(small: Dataset) -> None:
    column = small.outcome_column("DE+AT")
    assert small.outcome_column("AT+DE") is column
    assert small.outcome_column("AT+CH+DE-CH") is column


def test_an_operators_region_sets_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sets.toml"
    path.write_text(
        '[region_sets.DACH]\ncodes = ["DE", "AT", "CH"]\nversion = "1"\nsource = "Öffentlich"\n',
        encoding="utf-8",
    )
    with geolookup.open(region_sets=path) as dataset:
        assert "DACH" in [region_set.name for region_set in dataset.region_sets]
        assert len(dataset.outcome_column("DACH")) == len(dataset.claims)
    with geolookup.open() as dataset, pytest.raises(RegionSetError):
        dataset.outcome_column("DACH")


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ": No such file"), (b"\xff", ": not UTF-8"), (b"[", ": Invalid")],
)
def test_unreadable_region_sets_are_an_error(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    path = tmp_path / "sets.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegionSetError) as caught:
        geolookup.open(region_sets=path)
    assert str(caught.value).startswith(f"{path}{text}")


# --- rosters -------------------------------------------------------------------------

MIXED: list[str | bytes | ipaddress.IPv4Address | ipaddress.IPv6Address] = [
    "1.0.1.1",
    ipaddress.IPv4Address("3.0.0.1"),
    b"\1\0\1\1",
    ipaddress.IPv6Address("2001:200::1"),
    "1.2.3",
    ipaddress.IPv6Address("2001:200::1").packed,
    "1.0.1.1",
]
MIXED_COUNTRIES = ["CN", "HK", "CN", "CN", "ZZ", "CN", "CN"]


@pytest.mark.parametrize("of", [list, tuple, deque, UserList, iter, dict.values])
def test_a_roster_may_be_any_ordered_iterable_of_any_forms(
    small: Dataset, of: Callable[[Any], Any]
) -> None:
    source = dict(enumerate(MIXED)) if of is dict.values else MIXED
    assert small.classify(of(source)).countries == MIXED_COUNTRIES
    assert small.classify(address for address in MIXED).countries == MIXED_COUNTRIES


def test_order_and_duplicates_are_kept(small: Dataset) -> None:
    rng = random.Random(5)
    roster = [rng.choice(list(ONE_OF_EACH)) for _ in range(2_000)]
    result = small.classify(roster, region_set="CN")
    assert len(result) == len(roster)
    assert result.countries == [CLAIMS[ONE_OF_EACH[address]].country for address in roster]
    assert result.statuses == [CLAIMS[ONE_OF_EACH[address]].status for address in roster]
    inside = [at for at, address in enumerate(roster) if small.lookup(address, "CN").verdict is I]
    assert list(result.inside) == inside


@pytest.mark.parametrize(
    "empty", [{"roster": []}, {"roster": ()}, {"roster": iter([])}, {"ipv4": b""}, {"ipv6": b""}]
)
def test_an_empty_roster_is_answered(small: Dataset, empty: dict[str, Any]) -> None:
    result = small.classify(**empty, region_set="CN")
    assert (len(result), result.size, bool(result)) == (0, 0, False)
    assert result.countries == []
    assert result.statuses == []
    assert result.counts() == {}
    assert result.status_counts() == {}
    assert result.positions("CN") == BitMap()
    assert result.inside == result.outside == result.undetermined == BitMap()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"roster": None},
        {"roster": [], "ipv4": b""},
        {"ipv4": b"", "ipv6": b""},
        {"roster": [], "ipv4": b"", "ipv6": b""},
    ],
)
def test_exactly_one_roster_is_expected(small: Dataset, given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="exactly one of roster, ipv4 and ipv6"):
        small.classify(**given)


@pytest.mark.parametrize(
    "wrong", ["1.0.1.1", b"\1\0\1\1", bytearray(4), memoryview(bytes(4)), array("I", [1]), 5]
)
def test_single_address_or_buffer_in_place_of_a_roster_is_a_type_error(
    small: Dataset, wrong: Any
) -> None:
    with pytest.raises(TypeError, match=r"^roster: .*ipv4= "):
        small.classify(wrong)


@pytest.mark.parametrize("wrong", [{"1.0.1.1"}, frozenset({"1.0.1.1"})])
def test_set_in_place_of_a_roster_is_a_type_error(small: Dataset, wrong: Any) -> None:
    with pytest.raises(TypeError, match="no order"):
        small.classify(wrong)


def buffers(packed: bytes, width: int) -> Iterator[Any]:
    yield packed
    yield bytearray(packed)
    yield memoryview(packed)
    yield memoryview(packed).cast("B", (len(packed) // width, width))
    yield memoryview(packed).cast("c")
    yield memoryview(b"x" + packed)[1:]
    yield array("B", packed)
    yield (ctypes.c_ubyte * len(packed)).from_buffer_copy(packed)
    mapping = mmap.mmap(-1, len(packed))
    mapping[:] = packed
    yield mapping


def test_packed_rosters_may_be_any_buffer_of_bytes(small: Dataset) -> None:
    ipv4 = b"\1\0\1\1" + b"\3\0\0\1" + b"\xc8\0\0\1"
    ipv6 = b"".join(ipaddress.ip_address(a).packed for a in ("2001:200::1", "::ffff:2.0.0.1"))
    for buffer in buffers(ipv4, 4):
        assert small.classify(ipv4=buffer).countries == ["CN", "HK", "ZZ"]
    for buffer in buffers(ipv6, 16):
        assert small.classify(ipv6=buffer).countries == ["CN", "DE"]


def test_integers_in_a_buffer_are_ipv4_addresses_in_the_order_of_their_type(
    small: Dataset,
) -> None:
    numbers = [0x01000101, 0x03000001, 0xC8000001]
    in_host_order = array("I", numbers)
    foreign = array("I", numbers)
    foreign.byteswap()
    opposite = ctypes.c_uint32.__ctype_be__ if sys.byteorder == "little" else ctypes.c_uint32
    for buffer in (
        in_host_order,
        memoryview(in_host_order),
        (ctypes.c_uint32 * 3)(*numbers),
        (opposite * 3)(*numbers),
        memoryview(foreign.tobytes()),
    ):
        assert small.classify(ipv4=buffer).countries == ["CN", "HK", "ZZ"]
    assert list(in_host_order) == numbers  # the caller's own is as it was


@pytest.mark.parametrize(("field", "width"), [("ipv4", 4), ("ipv6", 16)])
def test_a_buffer_of_another_length_is_refused_as_a_whole(
    small: Dataset, field: str, width: int
) -> None:
    for size in (1, width - 1, width + 1, 10 * width + 1):
        for buffer in (bytes(size), bytearray(size), memoryview(bytes(size))):
            with pytest.raises(RosterError, match=f"^{field}: {size} bytes are no multiple of"):
                small.classify(**{field: buffer})


@pytest.mark.parametrize("field", ["ipv4", "ipv6"])
def test_packed_roster_of_another_type_is_refused(small: Dataset, field: str) -> None:
    for wrong in ("1.0.1.1", ["1.0.1.1"], 4, object()):
        with pytest.raises(TypeError, match=f"^{field}: expected a buffer such as bytes, not"):
            small.classify(**{field: wrong})
    with pytest.raises(RosterError, match=f"^{field}: the buffer is not C-contiguous"):
        small.classify(**{field: memoryview(bytes(64))[::2]})
    text = array("w" if sys.version_info >= (3, 13) else "u", "1.0.1.1 2.0.0.1 ")
    with pytest.raises(RosterError, match=f"^{field}: the buffer holds text"):
        small.classify(**{field: text})


def test_numpy_array_is_read_by_its_dtype(small: Dataset) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    packed = b"\1\0\1\1" + b"\3\0\0\1" + b"\xc8\0\0\1"
    for kind in ("u1", ">u4", "V4"):
        items = numpy.frombuffer(packed, dtype=kind)
        assert small.classify(ipv4=items).countries == ["CN", "HK", "ZZ"]
        if items.itemsize == 4:
            native = items.view(">u4").astype("u4")
            assert small.classify(ipv4=native).countries == ["CN", "HK", "ZZ"]
            assert small.classify(ipv4=native.astype("<u4")).countries == ["CN", "HK", "ZZ"]
    table = numpy.frombuffer(packed, dtype="u1").reshape(3, 4)
    assert small.classify(ipv4=table).countries == ["CN", "HK", "ZZ"]
    assert small.classify(ipv4=table[1:]).countries == ["HK", "ZZ"]
    assert small.classify(ipv4=numpy.empty(0, dtype="u4")).countries == []
    for strided in (table[::2], table[:, ::-1], table.T, numpy.asfortranarray(table)):
        with pytest.raises(RosterError, match=r"^ipv4: .*contiguous"):
            small.classify(ipv4=strided)
    with pytest.raises(RosterError, match=r"^ipv4: not a usable buffer"):
        small.classify(ipv4=numpy.array(["2026-06-17"], dtype="M8[D]"))
    for numbers in (numpy.frombuffer(packed, dtype=">u4"), numpy.frombuffer(packed, dtype="u4")):
        with pytest.raises(TypeError, match="packed and integer addresses go to ipv4= or ipv6="):
            small.classify(numbers)


@pytest.mark.parametrize("kind", ["U15", "S13", "S7", "O"])
def test_numpy_array_of_text_is_a_text_roster(small: Dataset, kind: str) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    text = numpy.array(
        ["1.0.1.1", "3.0.0.1", "1::2", "200.0.0.1"][: 4 if kind != "S7" else 3], kind
    )
    assert small.classify(text).countries == small.classify(text.astype("U15").tolist()).countries
    assert small.classify(list(text)).countries == small.classify(text).countries
    assert small.country(text[0]) == "CN"
    with pytest.raises(RosterError, match=r"^ipv4: the buffer holds text or objects"):
        small.classify(ipv4=text)


@pytest.mark.parametrize(
    ("field", "kinds"),
    [
        ("ipv4", ["i1", "i4", "i8", ">i4", "u2", "u8", ">u8", "f4", "f8", "V8", "?", "c8"]),
        ("ipv6", ["i1", "i4", "u4", ">u4", "u8", ">u8", "f4", "f8", "V4", "V8", "?", "c16"]),
    ],
)
def test_items_of_another_type_are_refused(small: Dataset, field: str, kinds: list[str]) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    for kind in [*kinds, [("a", "u4")]]:
        with pytest.raises(RosterError, match=rf"^{field}: the buffer's items are of type "):
            small.classify(**{field: numpy.zeros(16, kind)})
    wide = numpy.zeros((4, 8), "u1")
    with pytest.raises(RosterError, match=rf"^{field}: rows of 8 bytes, expected"):
        small.classify(**{field: wide})


class Frame:
    """As pandas' and polars' data frames: it iterates over the names of its columns."""

    columns = ("ip", "id")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        (Frame(), r"a Frame has several columns; pass one of them, such as frame\['ip'\]"),
        (io.StringIO("1.0.1.1\n"), "a StringIO yields lines with their ends"),
        ({"1.0.1.1": 1}.keys(), "dict_keys, which has no order"),
    ],
)
def test_iterable_of_other_things_than_addresses_is_a_type_error(
    small: Dataset, wrong: Any, way_out: str
) -> None:
    with pytest.raises(TypeError, match=f"^roster: .*{way_out}"):
        small.classify(wrong)


def test_values_of_a_mapping_are_classified(small: Dataset) -> None:
    assert small.classify({"alice": "1.0.1.1"}.values()).countries == ["CN"]


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
def test_tables_of_several_columns_are_refused_and_their_columns_are_not(
    small: Dataset, package: str
) -> None:
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    columns = {"ip": ["1.0.1.1", "3.0.0.1"], "id": ["a", "b"]}
    frame = module.table(columns) if package == "pyarrow" else module.DataFrame(columns)
    with pytest.raises(TypeError, match="has several columns; pass one of them"):
        small.classify(frame)
    column = frame["ip"].to_pylist() if package == "pyarrow" else frame["ip"]
    assert small.classify(column).countries == ["CN", "HK"]


def test_missing_values_are_invalid_at_their_positions(small: Dataset) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    for missing in (None, float("nan"), pandas.NA, pandas.NaT):
        result = small.classify(["1.0.1.1", missing, "3.0.0.1"], region_set="CN")
        assert list(result.statuses) == ["ASSIGNED", "INVALID", "DISPUTED"]
        assert list(result.undetermined) == [1, 2]
    assert small.classify([None]).counts() == {"ZZ": 1}
    for wrong in (1.5, 5, float("inf"), object()):
        with pytest.raises(TypeError, match=r"^roster: position 1: expected str"):
            small.classify(["1.0.1.1", wrong])


def test_roster_changed_during_the_call_is_answered_as_it_was(small: Dataset) -> None:
    """Callers may go on with their list and buffer as soon as classify has returned."""
    roster: list[Any] = ["1.0.1.1", "2.0.0.1"]
    packed = bytearray(b"\1\0\1\1")
    results = small.classify(roster), small.classify(ipv4=packed)
    roster.clear()
    packed[:] = b"\2\0\0\1"
    packed += b"\0"
    assert [result.countries for result in results] == [["CN", "DE"], ["CN"]]


@given(
    strategies.rosters(st.one_of(st.sampled_from(list(ONE_OF_EACH)), strategies.malformed_texts()))
)
def test_roster_agrees_with_single_lookups(roster: list[str]) -> None:
    dataset = Dataset.from_buffer(image())
    result = dataset.classify(roster, region_set="CN+HK")
    answers = [dataset.lookup(address, "CN+HK") for address in roster]
    assert result.countries == [answer.country for answer in answers]
    assert result.statuses == [answer.status for answer in answers]
    sets = {I: result.inside, O: result.outside, U: result.undetermined}
    assert [next(v for v in sets if at in sets[v]) for at in range(len(roster))] == [
        answer.verdict for answer in answers
    ]


# --- closing, immutability, threads ---------------------------------------------------

QUESTIONS: dict[str, Callable[[Dataset], object]] = {
    "country": lambda dataset: dataset.country("1.0.1.1"),
    "country of an object": lambda dataset: dataset.country(ipaddress.ip_address("1.0.1.1")),
    "lookup": lambda dataset: dataset.lookup("1.0.1.1"),
    "lookup in a region": lambda dataset: dataset.lookup("1.0.1.1", "CN"),
    "lookup of an object": lambda dataset: dataset.lookup(ipaddress.ip_address("1.0.1.1")),
    "classify": lambda dataset: dataset.classify(["1.0.1.1"]),
    "classify nobody": lambda dataset: dataset.classify([]),
    "classify objects": lambda dataset: dataset.classify([ipaddress.ip_address("1.0.1.1")]),
    "classify ipv4": lambda dataset: dataset.classify(ipv4=bytes(4), region_set="CN"),
    "classify ipv6": lambda dataset: dataset.classify(ipv6=bytes(16)),
    "outcome_column": lambda dataset: dataset.outcome_column("CN"),
    "intervals": lambda dataset: dataset.intervals(4),
    "optional_section": lambda dataset: dataset.optional_section("evidence"),
    "views": lambda dataset: dataset.views(),
    "with": lambda dataset: dataset.__enter__(),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_closed_dataset_refuses_calls(small: Dataset, ask: Callable[[Dataset], object]) -> None:
    ask(small)
    assert not small.closed
    small.close()
    assert small.closed
    with pytest.raises(DatasetClosedError, match=r"^the dataset was closed$"):
        ask(small)


def test_closed_dataset_still_has_its_metadata(small: Dataset) -> None:
    described = (small.id, small.built, small.sources, small.attributions, small.info())
    small.close()
    small.close()
    assert (small.id, small.built, small.sources, small.attributions, small.info()) == described
    assert "closed" in repr(small)


def test_results_outlive_their_dataset() -> None:
    with Dataset.from_buffer(image()) as dataset:
        result = dataset.classify(["1.0.1.1", "2.0.0.1"], region_set="CN")
    del dataset
    assert result.countries == ["CN", "DE"]
    assert list(result.inside) == [0]


def test_closing_during_calls_gives_an_answer_or_the_error(tmp_path: Path) -> None:
    path = tmp_path / "small.geolookup"
    path.write_bytes(image())
    packed = b"\1\0\1\1" * 20_000
    faults: list[BaseException] = []
    for _ in range(20):
        dataset = geolookup.open(path)
        running = threading.Barrier(4)

        def work(dataset: Dataset = dataset, running: threading.Barrier = running) -> None:
            running.wait()
            try:
                while True:
                    assert dataset.classify(ipv4=packed, region_set="CN").counts() == {"CN": 20_000}
                    assert dataset.country("1.0.1.1") == "CN"
                    assert dataset.lookup("1.0.1.1", "CN").verdict is I
            except DatasetClosedError:
                pass
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        running.wait()
        dataset.classify(ipv4=packed)
        dataset.close()
        for thread in threads:
            thread.join()
    assert not faults


def test_threads_get_the_same_answers(embedded: Dataset) -> None:
    rng = random.Random(7)
    packed = rng.randbytes(4 * 20_000)
    expected = embedded.classify(ipv4=packed, region_set="EU-FR", policy="majority")
    faults: list[BaseException] = []
    start = threading.Barrier(4)

    def work() -> None:
        try:
            start.wait()
            for _ in range(5):
                got = embedded.classify(ipv4=packed, region_set="EU-FR", policy="majority")
                assert got == expected
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("name", ["id", "country", "lookup", "_table", "anything"])
def test_a_dataset_can_not_be_changed(small: Dataset, name: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(small, name, None)
    with pytest.raises(AttributeError, match="immutable"):
        delattr(small, name)
    assert small.country("1.0.1.1") == "CN"


def test_changing_the_returned_info_changes_no_dataset(small: Dataset) -> None:
    small.info()["sources"].clear()
    assert len(small.info()["sources"]) == len(small.sources) == 2


def test_dataset_cannot_be_pickled(small: Dataset) -> None:
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't be pickled or copied: open its file where"):
            send(small)


def test_dataset_constructor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"geolookup\.open"):
        Dataset()


def test_forked_process_gets_the_same_answers() -> None:
    code = (
        "import os, geolookup\n"
        "dataset = geolookup.open()\n"
        "child = os.fork()\n"
        "right = dataset.country('1.1.8.8') == 'CN'\n"
        "if child == 0:\n"
        "    os._exit(0 if right else 1)\n"
        "assert right and os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


# --- what a dataset says of itself ----------------------------------------------------


def test_dataset_has_its_metadata(small: Dataset) -> None:
    assert small.built == datetime(2026, 6, 17, tzinfo=UTC)
    assert [source.name for source in small.sources] == ["one", "two"]
    assert [source.coverage for source in small.sources] == ["full", "partial"]
    assert small.attributions == ("thanks to Öne",)
    info = small.info()
    assert info["id"] == small.id
    assert info["format"] == 1
    assert info["claims"] == len(CLAIMS)
    assert info["sources"][0]["ranges"] == 7
    assert info["special_purpose"] == {"date": "2026-06-01"}
    assert repr(small) == f"<Dataset {small.id[:12]}..., built 2026-06-17>"


def test_the_embedded_dataset_names_its_sources(embedded: Dataset) -> None:
    assert [source.licence for source in embedded.sources] == ["CC-BY-4.0"] * 4
    assert [source.coverage for source in embedded.sources] == [
        "full", "partial", "full", "advisory",
    ]  # fmt: skip
    assert len(embedded.attributions) == 3
    assert embedded.built == datetime(2026, 10, 1, tzinfo=UTC)
    assert "db-ip.com" in embedded.attributions[0]


@pytest.mark.parametrize(("family", "bits"), [(4, 32), (6, 128)])
def test_intervals_cover_the_address_space(
    small: Dataset, family: Literal[4, 6], bits: int
) -> None:
    intervals = list(small.intervals(family))
    assert intervals[0][0] == 0
    assert intervals[-1][1] == 2**bits - 1
    for (_, last, number), (first, _, following) in pairwise(intervals):
        assert first == last + 1
        assert number != following
    for first, last, number in intervals:
        if number < len(CLAIMS):
            for edge in (first, last):
                status = small.lookup(edge.to_bytes(bits // 8)).status
                assert status is CLAIMS[number].status
    assert len(intervals) == small.info()[f"ipv{family}_intervals"]


def test_intervals_are_of_one_family(small: Dataset) -> None:
    with pytest.raises(ValueError, match="expected 4 or 6"):
        small.intervals(5)


# --- the embedded dataset ------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "1.0.1.1",
        "::ffff:1.0.1.1",
        "2002:0100:0101::",
        "64:ff9b::1.0.1.1",
        "2001:0:4136:e378:8000:63bf:feff:fefe",  # Teredo: the client's 1.0.1.1, inverted
    ],
)
def test_address_in_china_is_answered_in_all_its_forms(embedded: Dataset, address: str) -> None:
    answer = embedded.lookup(address, "CN")
    assert answer == Answer("CN", Status.ASSIGNED, (), Verdict.INSIDE, embedded.id, Reason.DECIDED)
    assert embedded.country(address) == "CN"


def test_address_with_disagreeing_sources_is_disputed(embedded: Dataset) -> None:
    answer = embedded.lookup("43.102.0.1", "HK")
    assert answer.status is Status.DISPUTED
    assert answer.claimed == ("HK", "SG")
    assert answer.country in answer.claimed
    assert answer.verdict is Verdict.UNDETERMINED
    assert embedded.lookup("43.102.0.1", "HK+SG").verdict is Verdict.INSIDE
    assert embedded.lookup("43.102.0.1", "CN").verdict is Verdict.OUTSIDE


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "100.64.0.1",
        "192.0.2.1",
        "::ffff:10.0.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "2001:db8::1",
    ],
)
def test_address_without_a_country_has_its_status(embedded: Dataset, address: str) -> None:
    for policy in Policy:
        answer = embedded.lookup(address, "CN", policy)
        assert answer == Answer(
            *("ZZ", Status.SPECIAL_PURPOSE, (), Verdict.UNDETERMINED, embedded.id),
            Reason.SPECIAL_PURPOSE,
        )


@pytest.mark.parametrize("text", ["01.2.3.4", "1.2.3", "1.2.3.4:80", " 1.2.3.4", ""])
def test_malformed_text_is_invalid(embedded: Dataset, text: str) -> None:
    answer = embedded.lookup(text, "CN")
    assert answer == Answer(
        "ZZ", Status.INVALID, (), Verdict.UNDETERMINED, embedded.id, Reason.INVALID
    )


# --- the package ---------------------------------------------------------------------


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert geolookup.__version__ == project["version"]


def test_all_errors_have_one_base() -> None:
    names = [name for name in geolookup.__all__ if name.endswith("Error")]
    assert len(names) == 9
    for name in names:
        assert issubclass(getattr(geolookup, name), GeoLookupError)


def test_result_types_have_public_names() -> None:
    assert isinstance(Dataset.from_buffer(image()).classify([]), RosterResult)


def test_example_in_the_package_docstring_works() -> None:
    done = doctest.testmod(geolookup)
    assert done.attempted == 4
    assert done.failed == 0


def test_pyroaring_is_loaded_for_verdicts_only() -> None:
    code = (
        # What an editable installation loads at the interpreter's start does not count.
        "import sys; before = set(sys.modules); import geolookup\n"
        "dataset = geolookup.open()\n"
        "result = dataset.classify(['1.0.1.1', '8.8.8.8'], region_set='CN')\n"
        "result.countries, result.statuses, result.counts(), dataset.lookup('1.0.1.1', 'CN')\n"
        "loaded = {'grpc', 'google.protobuf', 'numpy', 'click', 'pyroaring', 'ipaddress'}\n"
        "loaded &= set(sys.modules) - before\n"
        "assert not loaded, loaded\n"
        "assert list(result.inside) == [0]\n"
        "assert 'pyroaring' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
