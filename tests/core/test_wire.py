"""Rosters from the bytes of a request to those of a response: held to protobuf and the oracle."""

from __future__ import annotations

import functools
import gc
import ipaddress
import itertools
import random
import sys
import threading
from array import array
from collections import Counter
from typing import Any

import core_tables
import pytest
import reference
import small_dataset
import strategies
from core_tables import SHAPES, Shape
from fuzz.requests import (
    LIMITS,
    Noted,
    compare,
    compare_both,
    compare_lookup,
    compare_reader,
    fields,
    snapshot,
)
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from roster_requests import MALFORMED, PLAIN, STREAMED, UNUSUAL, field, sized, varint, wrapped

from geolookup import Dataset, DatasetClosedError, _core
from geolookup.answer.claims import Network, Reason, Status, Verdict
from geolookup.answer.dataset import encode
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import Code, RequestError
from geolookup.v1 import geolookup_pb2 as v1

ISAS = _core.isa_paths()
every_isa = pytest.mark.parametrize("isa", ISAS)
every_form = pytest.mark.parametrize("form", ["ipv4", "ipv6", "text"])

SIZES = [
    0,
    1,
    2,
    3,
    255,
    256,
    257,
    511,
    512,
    513,
    1023,
    1024,
    1025,
    65_535,
    65_536,
    65_537,
    140_000,
]
"""Around what is read, classified, and stepped through at a time."""


def text_of(*addresses: str) -> v1.TextAddresses:
    return v1.TextAddresses(addresses=addresses)


def request_of(form: str, addresses: Any, **fields: Any) -> bytes:
    """Return a serialised request; *addresses* are texts or packed bytes."""
    if form == "text":
        return v1.ClassifyRosterRequest(text=text_of(*addresses), **fields).SerializeToString()
    packed: Any = {form: b"".join(addresses)}
    return v1.ClassifyRosterRequest(**packed, **fields).SerializeToString()


def read(body: bytes) -> _core.WireRoster:
    roster = _core.read_roster(body)
    assert roster is not None
    return roster


# the answer, against the oracle on every path


COUNTRIES = [first + second for first in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for second in "ANZ"]
COLUMN = [(COUNTRIES[n * 7 % 78], 1 + n * 5 % 7) for n in range(core_tables.CLAIMS)]
"""The country and the status of each claim of a shape."""

RESULTS = _core.ClaimResults(
    "".join(country for country, _ in COLUMN).encode(), bytes(status for _, status in COLUMN)
)
OUTCOMES = bytes(
    [3 | 1 << 2, 1, 2, 1, 2, 2, 3 | 5 << 2, 3 | 9 << 2][n * 11 % 8]
    for n in range(core_tables.CLAIMS)
)
"""Verdicts in the two lowest bits, reasons above."""
FEW_REASONS = bytes(
    (3 | (1 + n // 8 % 9) << 2) if n % 8 == 0 else 1 + n % 2 for n in range(core_tables.CLAIMS)
)
"""Undetermined addresses are counted in another way where there are few of them."""


@functools.cache
def shape_and_pool(form: str) -> tuple[Shape, list[tuple[Any, int]]]:
    """Return a shape, and addresses in one form with the claims that answer them."""
    shape = SHAPES["embedded forms"]
    draw = random.Random(form)
    fours = [(address, shape.claim4(address)) for address in shape.probes4()]
    sixes = [(address, shape.claim6(address)) for address in shape.probes6()]
    if form == "ipv4":
        return shape, [(address.to_bytes(4, "big"), claim) for address, claim in fours]
    if form == "ipv6":
        return shape, [(address.to_bytes(16, "big"), claim) for address, claim in sixes]
    texts = [(str(ipaddress.IPv4Address(address)), claim) for address, claim in fours[:400]]
    texts += [(str(ipaddress.IPv6Address(address)), claim) for address, claim in sixes[:400]]
    bad = [(text, 0) for text in strategies.MALFORMED if not has_surrogates(text)]
    pool = [*texts, *bad]
    draw.shuffle(pool)
    return shape, pool


def has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def check_answer(
    response: v1.ClassifyRosterResponse, claims: list[int], outcomes: bytes | None
) -> None:
    """Hold a response to the claims of its roster, with columns that are made here."""
    looks = [COLUMN[claim] for claim in claims]
    assert response.size == len(claims)
    assert response.countries == "".join(country for country, _ in looks).encode()
    assert response.statuses == bytes(status for _, status in looks)
    counts: dict[str, int] = {}
    for country, _ in looks:
        counts[country] = counts.get(country, 0) + 1
    assert dict(response.counts) == counts
    bitmaps = [response.inside, response.outside, response.undetermined]
    if outcomes is None:
        assert bitmaps == [b"", b"", b""]
        return
    split: list[list[int]] = [[], [], []]
    for position, claim in enumerate(claims):
        split[{1: 0, 2: 1}.get(outcomes[claim] & 3, 2)].append(position)
    assert bitmaps == [BitMap(array("I", part)).serialize() for part in split]
    reasons = bytes(outcomes[claim] >> 2 for claim in claims)
    assert response.reasons in (b"", reasons)
    counted = sorted(Counter(reason for reason in reasons if reason).items())
    assert [(one.reason, one.count) for one in response.reason_counts] == counted


@every_isa
@every_form
@pytest.mark.parametrize(
    "outcomes", [None, OUTCOMES, FEW_REASONS], ids=["plain", "region set", "few reasons"]
)
def test_roster_of_each_size_agrees_with_protobuf(
    isa: str, form: str, outcomes: bytes | None
) -> None:
    shape, pool = shape_and_pool(form)
    table = shape.table(isa)
    draw = random.Random(5)
    for size in SIZES:
        chosen = draw.choices(pool, k=size)
        claims = [claim for _, claim in chosen]
        body = request_of(form, [address for address, _ in chosen], reasons=size % 2 == 1)
        answer = _core.RosterAnswer(table, RESULTS, outcomes, read(body))
        steps = 1
        while answer.step():
            steps += 1
        assert steps == max(1, -(-size // 65_536))
        statuses, split = answer.statuses, answer.verdicts
        response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
        check_answer(response, claims, outcomes)
        assert len(response.reasons) == (size if size % 2 and outcomes is not None else 0)
        reasons = [0] * 10
        for one in response.reason_counts:
            reasons[one.reason] = one.count
        assert statuses == tuple(response.statuses.count(number) for number in range(8))
        if outcomes is None:
            assert split is None
            assert answer.reasons is None
        else:
            assert answer.reasons == tuple(reasons)
            bitmaps = (response.inside, response.outside, response.undetermined)
            assert split == tuple(len(BitMap.deserialize(bitmap)) for bitmap in bitmaps)


def split_into_groups(size: int, draw: random.Random) -> list[int]:
    """Return random sizes whose sum is *size*, a few of them large."""
    sizes = []
    while size > 0:
        sizes.append(
            min(size, draw.choice([1, 1, 2, 3, 3, 4, 5, 8, 9, 17, draw.randrange(1, 400)]))
        )
        size -= sizes[-1]
    return sizes


def of_participants(claims: list[int], sizes: list[int], outcomes: bytes) -> list[tuple[str, str]]:
    """Return verdict and reason of each participant, as the oracle has them."""
    known = [
        (list(Verdict)[(outcomes[claim] & 3) - 1].name, list(Reason)[outcomes[claim] >> 2].name)
        for claim in claims
    ]
    addresses = iter(known)
    return [reference.participant(list(itertools.islice(addresses, size))) for size in sizes]


@every_isa
@every_form
def test_roster_in_groups_agrees_with_the_oracle(isa: str, form: str) -> None:
    shape, pool = shape_and_pool(form)
    table = shape.table(isa)
    draw = random.Random(6)
    for size in (1, 2, 9, 255, 257, 1023, 1024, 1025, 65_537):
        for outcomes in (OUTCOMES, FEW_REASONS):
            chosen = draw.choices(pool, k=size)
            claims = [claim for _, claim in chosen]
            sizes = split_into_groups(size, draw)
            body = request_of(
                form, [address for address, _ in chosen], reasons=True, group_sizes=sizes
            )
            answer = _core.RosterAnswer(table, RESULTS, outcomes, read(body))
            while answer.step():
                pass
            response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
            people = of_participants(claims, sizes, outcomes)
            assert response.participants == len(people)
            assert response.statuses == bytes(COLUMN[claim][1] for claim in claims)
            assert sum(response.counts.values()) == response.size == size
            split = [
                [at for at, (verdict, _) in enumerate(people) if verdict == name]
                for name in ("INSIDE", "OUTSIDE", "UNDETERMINED")
            ]
            bitmaps = [response.inside, response.outside, response.undetermined]
            assert bitmaps == [BitMap(array("I", part)).serialize() for part in split]
            assert answer.verdicts == tuple(map(len, split))
            why = [Reason[reason].number for _, reason in people]
            assert list(response.reasons) == why
            counted = tuple(why.count(number) if number else 0 for number in range(len(Reason)))
            assert answer.reasons == counted
            assert [(one.reason, one.count) for one in response.reason_counts] == [
                (number, count) for number, count in enumerate(counted) if count
            ]


@every_isa
def test_many_participants_have_bitmaps_of_many_containers(isa: str) -> None:
    shape = Shape(((0, 1), (1 << 31, 2)))
    draw = random.Random(7)
    sizes = draw.choices([1, 2, 3], k=150_000)
    inside = [draw.random() < 0.3 for _ in sizes]
    packed = [
        b"\0\0\0\0" if is_inside else b"\x80\0\0\0"
        for is_inside, size in zip(inside, sizes, strict=True)
        for _ in range(size)
    ]
    body = request_of("ipv4", packed, group_sizes=sizes)
    outcomes = bytes([3, 1, 2]).ljust(core_tables.CLAIMS, b"\3")
    answer = _core.RosterAnswer(shape.table(isa), RESULTS, outcomes, read(body))
    while answer.step():
        pass
    response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
    places = [at for at, is_inside in enumerate(inside) if is_inside]
    assert response.inside == BitMap(array("I", places)).serialize()
    assert answer.verdicts == (len(places), len(sizes) - len(places), 0)


def test_groups_mean_nothing_without_outcomes() -> None:
    body = request_of("ipv4", [bytes(4)] * 3, group_sizes=[1, 2])
    answer = _core.RosterAnswer(SHAPES["one interval"].table(), RESULTS, None, read(body))
    assert not answer.step()
    response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
    assert (response.size, response.participants) == (3, 0)


@pytest.mark.parametrize("sizes", [[2], [4], [3, 0], [1, 1], [2**32 - 1, 4]])
def test_groups_of_other_addresses_than_the_roster_s_are_refused(sizes: list[int]) -> None:
    roster = read(request_of("ipv4", [bytes(4)] * 3, group_sizes=sizes))
    assert (roster.participants, roster.grouped) == (len(sizes), sum(sizes))
    with pytest.raises(ValueError, match=r"^roster: its groups are not of its addresses$"):
        _core.RosterAnswer(SHAPES["one interval"].table(), RESULTS, OUTCOMES, roster)


@every_isa
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
def test_bitmaps_of_many_containers_agree_with_pyroaring(isa: str, share: float) -> None:
    """One address in a few, so that there are runs, arrays and bitsets over 4 containers."""
    shape = Shape(((0, 1), (1 << 31, 2)))
    draw = random.Random(share)
    places = [draw.random() < share for _ in range(4 * 65_536 + 77)]
    packed = [b"\x80\0\0\0" if high else b"\0\0\0\0" for high in places]
    answer = _core.RosterAnswer(
        shape.table(isa), RESULTS, OUTCOMES, read(request_of("ipv4", packed))
    )
    while answer.step():
        pass
    response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
    check_answer(response, [2 if high else 1 for high in places], OUTCOMES)


@every_isa
@pytest.mark.parametrize("name", ["one interval", "all embedded", "random 1", "clustered 2"])
def test_table_of_other_shape_agrees_with_protobuf(name: str, isa: str) -> None:
    shape = SHAPES[name]
    table = shape.table(isa)
    for form, probes, claim_of, width in (
        ("ipv4", shape.probes4(), shape.claim4, 4),
        ("ipv6", shape.probes6(), shape.claim6, 16),
    ):
        body = request_of(form, [address.to_bytes(width, "big") for address in probes])
        answer = _core.RosterAnswer(table, RESULTS, None, read(body))
        assert not answer.step()
        response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
        check_answer(response, [claim_of(address) for address in probes], None)


def test_suffix_of_the_response_is_appended() -> None:
    shape, pool = shape_and_pool("ipv4")
    named = v1.ClassifyRosterResponse(
        dataset="d" * 64, record=v1.DecisionRecord(size=7, codes=["CN"])
    )
    body = request_of("ipv4", [address for address, _ in pool[:50]])
    for rest in (v1.ClassifyRosterResponse(), named):
        whole = []
        for streamed in (False, True):
            answer = _core.RosterAnswer(shape.table(), RESULTS, OUTCOMES, read(body))
            answer.step()
            whole.append(answer.finish(rest.SerializeToString(), streamed))
        plain = v1.ClassifyRosterResponse.FromString(whole[0])
        assert plain.dataset == rest.dataset
        assert plain.record == rest.record
        assert v1.StreamRostersResponse.FromString(whole[1]).roster == plain
        # Not even a form that another serialiser would not have chosen.
        assert len(whole[0]) == plain.ByteSize()
        assert whole[1].endswith(whole[0])


def test_countries_are_sorted() -> None:
    """Maps have no order on the wire; one order makes equal answers equal bytes."""
    shape, pool = shape_and_pool("ipv6")
    body = request_of("ipv6", [address for address, _ in pool])
    answer = _core.RosterAnswer(shape.table(), RESULTS, None, read(body))
    answer.step()
    response = answer.finish(b"")
    counts = v1.ClassifyRosterResponse.FromString(response).counts
    assert len(counts) > 50
    one_by_one = [
        v1.ClassifyRosterResponse(counts={country: counts[country]}).SerializeToString()
        for country in sorted(counts)
    ]
    assert response.endswith(b"".join(one_by_one))


# what RosterAnswer and ClaimResults refuse


def test_answer_is_finished_once_after_all_steps() -> None:
    shape, pool = shape_and_pool("ipv4")
    body = request_of("ipv4", [address for address, _ in pool[:9]])
    answer = _core.RosterAnswer(shape.table(), RESULTS, OUTCOMES, read(body))
    for early in (
        lambda: answer.statuses,
        lambda: answer.verdicts,
        lambda: answer.reasons,
        lambda: answer.finish(b""),
    ):
        with pytest.raises(RuntimeError, match=r"^a step is missing$"):
            early()
    assert not answer.step()
    with pytest.raises(RuntimeError, match=r"^step: "):
        answer.step()
    assert answer.finish(b"")
    with pytest.raises(RuntimeError, match=r"^finish: was called before$"):
        answer.finish(b"")
    assert sum(answer.statuses) == 9


def test_columns_that_the_table_s_claims_exceed_are_refused() -> None:
    table = SHAPES["one interval"].table()
    roster = read(request_of("ipv4", [bytes(4)]))
    few = _core.ClaimResults(b"CN" * 599, bytes([1]) * 599)
    with pytest.raises(ValueError, match=r"^results: 599 claims, but the table has 600$"):
        _core.RosterAnswer(table, few, None, roster)
    with pytest.raises(ValueError, match=r"^outcomes: 599 claims, but the table has 600$"):
        _core.RosterAnswer(table, RESULTS, bytes(599), roster)
    for wrong in (None, b"", roster):
        with pytest.raises(TypeError):
            _core.RosterAnswer(wrong, RESULTS, None, roster)
        with pytest.raises(TypeError):
            _core.RosterAnswer(table, wrong, None, roster)
    with pytest.raises(TypeError):
        _core.RosterAnswer(table, RESULTS, None, None)
    with pytest.raises(TypeError):
        _core.RosterAnswer(table, RESULTS, "12", roster)


@pytest.mark.parametrize(("form", "length"), [("ipv4", 7), ("ipv4", 1), ("ipv6", 15), ("ipv6", 33)])
def test_packed_roster_with_half_an_address_is_refused(form: str, length: int) -> None:
    roster = read(request_of(form, [bytes(length)]))
    width = 4 if form == "ipv4" else 16
    assert (roster.size, roster.rest, roster.nbytes) == (length // width, length % width, length)
    with pytest.raises(ValueError, match=r"^roster: its last address is not whole$"):
        _core.RosterAnswer(SHAPES["one interval"].table(), RESULTS, None, roster)


def test_claim_results_of_other_bytes_are_refused() -> None:
    assert len(_core.ClaimResults(b"", b"")) == 0
    assert len(RESULTS) == core_tables.CLAIMS
    with pytest.raises(ValueError, match=r"^countries: 3 bytes are no multiple of 2$"):
        _core.ClaimResults(b"CNX", b"\1")
    with pytest.raises(ValueError, match=r"^statuses: 2 items, but countries has 1$"):
        _core.ClaimResults(b"CN", b"\1\1")
    for wrong in (b"cn", b"C1", b"\xffN", b"C "):
        with pytest.raises(ValueError, match=r"^countries: not all are capital letters$"):
            _core.ClaimResults(b"CN" + wrong, b"\1\1")
    with pytest.raises(ValueError, match=r"^statuses: unknown status at position 1$"):
        _core.ClaimResults(b"CNCN", b"\1\x08")


def test_an_empty_roster_needs_no_addresses() -> None:
    answer = _core.RosterAnswer(SHAPES["one interval"].table(), RESULTS, OUTCOMES, read(b""))
    assert not answer.step()
    assert answer.statuses == (0,) * 8
    assert answer.verdicts == (0, 0, 0)
    response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
    check_answer(response, [], OUTCOMES)


def test_threads_sharing_an_answer_are_safe() -> None:
    """One steps at a time: the others are refused, and no address is counted twice."""
    shape, pool = shape_and_pool("ipv6")
    chosen = random.Random(3).choices(pool, k=500_000)
    roster = read(request_of("ipv6", [address for address, _ in chosen]))
    answer = _core.RosterAnswer(shape.table(), RESULTS, OUTCOMES, roster)
    done: list[bool] = []

    def step_on() -> None:
        for _ in range(100_000):
            try:
                if not answer.step():
                    done.append(True)
                    return
            except RuntimeError:
                if done:
                    return

    threads = [threading.Thread(target=step_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not done and answer.step():
        pass
    response = v1.ClassifyRosterResponse.FromString(answer.finish(b""))
    check_answer(response, [claim for _, claim in chosen], OUTCOMES)


# the reader, against protobuf


@pytest.mark.parametrize("body", PLAIN.values(), ids=PLAIN)
def test_serialised_request_is_parsed_in_the_core(body: bytes) -> None:
    roster = read(body)
    again = _core.read_roster(wrapped(body), True)
    assert again is not None
    assert fields(roster) == fields(again)
    compare_reader(body)
    compare_reader(wrapped(body))
    compare(body, streamed=False)
    compare(wrapped(body), streamed=True)


@pytest.mark.parametrize("body", UNUSUAL.values(), ids=UNUSUAL)
def test_request_in_other_wire_form_gets_the_same_answer(body: bytes) -> None:
    assert _core.read_roster(body) is None
    assert _core.read_roster(wrapped(body), True) is None
    v1.ClassifyRosterRequest.FromString(body)
    compare_reader(body)
    compare(body, streamed=False)
    compare(wrapped(body), streamed=True)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused_as_protobuf_refuses_them(body: bytes) -> None:
    assert _core.read_roster(body) is None
    assert _core.read_roster(wrapped(body), True) is None
    compare_reader(body)
    for streamed, name in ((False, "ClassifyRosterRequest"), (True, "StreamRostersRequest")):
        said = f"request: not a geolookup.v1.{name}"
        outcome = compare(wrapped(body) if streamed else body, streamed=streamed)
        assert outcome == (Code.INVALID_ARGUMENT, f"roster 7: {said}" if streamed else said)


@pytest.mark.parametrize("body", STREAMED.values(), ids=STREAMED)
def test_streamed_roster_in_other_wire_form_gets_the_same_answer(body: bytes) -> None:
    assert _core.read_roster(body, True) is None
    compare_reader(body)
    compare(body, streamed=True)


def test_request_that_is_not_bytes_is_refused() -> None:
    for wrong in (None, "", bytearray(4), memoryview(b"")):
        for reader in (_core.read_roster, _core.read_lookup):
            with pytest.raises(TypeError):
                reader(wrong)


def test_a_roster_outlives_the_bytes_that_it_was_read_from() -> None:
    roster = read(bytes(bytearray(request_of("text", ["1.0.1.1"] * 1000, region_set="CN"))))
    junk = [bytes(8000) for _ in range(50)]
    assert roster.region_set == "CN"
    answer = _core.RosterAnswer(SHAPES["two halves"].table(), RESULTS, None, roster)
    del roster, junk
    answer.step()
    assert sum(answer.statuses) == 1000


# lookups


ADDRESS = sized(1, b"1.0.1.1")
LOOKUPS: dict[str, tuple[bytes, tuple[str | bytes, str, int, int] | None]] = {
    "text": (ADDRESS, ("1.0.1.1", "", 0, 0)),
    "an empty text": (sized(1, b""), ("", "", 0, 0)),
    "a text that is not ASCII": (sized(1, "\u00bd".encode()), ("\u00bd", "", 0, 0)),
    "4 bytes": (sized(2, b"\1\0\1\1"), (b"\1\0\1\1", "", 0, 0)),
    "16 bytes": (sized(2, bytes(16)), (bytes(16), "", 0, 0)),
    "all fields": (ADDRESS + sized(3, b"EU") + field(4, 0, b"\2"), ("1.0.1.1", "EU", 2, 0)),
    "another order": (sized(3, b"EU") + ADDRESS, ("1.0.1.1", "EU", 0, 0)),
    "a negative policy": (ADDRESS + field(4, 0, varint(2**64 - 1)), ("1.0.1.1", "", -1, 0)),
    "nothing": (b"", None),
    "no address": (sized(3, b"EU"), None),
    "5 bytes": (sized(2, bytes(5)), None),
    "text and packed": (ADDRESS + sized(2, bytes(4)), None),
    "packed and text": (sized(2, bytes(4)) + ADDRESS, None),
    "two texts": (ADDRESS + ADDRESS, None),
    "networks": (ADDRESS + field(5, 0, b"\1"), ("1.0.1.1", "", 0, 1)),
    "unknown networks": (ADDRESS + field(5, 0, b"\7"), ("1.0.1.1", "", 0, 7)),
    "an unknown field": (ADDRESS + field(6, 0, b"\1"), None),
    "field 0": (field(0, 0, b"\1") + ADDRESS, None),
    "a text as a number": (field(1, 0, b"\1"), None),
    "a policy as bytes": (ADDRESS + sized(4, b"1"), None),
    "a long number": (ADDRESS + field(4, 0, b"\x81\0"), None),
    "a number that doesn't end": (ADDRESS + field(4, 0, b"\x81"), None),
    "a size over the end": (ADDRESS[:-1], None),
    "a text in Latin-1": (sized(1, b"\xbd"), None),
    "a region set in Latin-1": (ADDRESS + sized(3, b"C\xd6"), None),
    "a tag alone": (ADDRESS + sized(3, b"")[:1], None),
}
"""Requests, and what the core reads of them; None: it is for a protobuf runtime."""


@pytest.mark.parametrize(("body", "expected"), LOOKUPS.values(), ids=LOOKUPS)
def test_lookup_request_is_parsed_in_the_core(
    body: bytes, expected: tuple[str | bytes, str, int, int] | None
) -> None:
    assert _core.read_lookup(body) == expected
    compare_lookup(body)


@given(
    st.one_of(
        st.fixed_dictionaries({"text": st.text(max_size=40)}),
        st.fixed_dictionaries({"packed": st.binary(max_size=17)}),
        st.just({}),
    ),
    st.text(max_size=9),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=3),
)
def test_random_lookup_is_parsed_as_by_protobuf(
    address: dict[str, Any], region_set: str, policy: int, more: bytes
) -> None:
    request = v1.LookupRequest(**address, region_set=region_set, policy=policy)
    body = request.SerializeToString()
    compare_lookup(body)
    compare_lookup(body + more)
    compare_lookup(body[: len(more) - 4])


def lookup_of(address: str | bytes, region_set: str = "", policy: int = 0) -> bytes:
    """Return a serialised request."""
    request = v1.LookupRequest(region_set=region_set, policy=policy)
    if isinstance(address, str):
        request.text = address
    else:
        request.packed = address
    return request.SerializeToString()


@every_isa
def test_equivalent_requests_share_a_kept_reply(isa: str) -> None:
    shape = SHAPES["embedded forms"]
    fours = [(one.to_bytes(4, "big"), shape.claim4(one)) for one in shape.probes4()]
    sixes = [(one.to_bytes(16, "big"), shape.claim6(one)) for one in shape.probes6()]
    texts: list[tuple[str, int]] = [
        ("no address", 0),
        ("", 0),
        ("1.0.1.1\0", 0),
        ("\u0661.0.0.1", 0),
        ("9" * 99, 0),
    ]
    texts += [(str(ipaddress.ip_address(packed)), claim) for packed, claim in fours + sixes]
    replies = _core.Replies(shape.table(isa), 10_000)
    expected: dict[tuple[object, ...], object] = {}
    draw = random.Random(17)
    for address, claim in [*fours, *sixes, *texts] * 3:
        asked = draw.choice(["", "EU", "CN", "EU+CN"]), draw.choice([0, 1, 2, -1])
        body = lookup_of(address, *asked)
        known = expected.get((claim, *asked))
        assert replies.find(body) is known
        if known is None:
            expected[claim, *asked] = reply = object()
            replies.keep(body, reply)
    assert len(replies) == len(expected)


def test_request_left_to_protobuf_keeps_no_reply() -> None:
    replies = _core.Replies(SHAPES["two halves"].table(), 10)
    for body, read in LOOKUPS.values():
        if read is None:
            replies.keep(body, "reply")
            assert replies.find(body) is None
    assert len(replies) == 0


def test_replies_beyond_the_limit_clear_the_cache() -> None:
    replies = _core.Replies(SHAPES["two halves"].table(), 3)
    bodies = [lookup_of("1.0.1.1", "EU", policy) for policy in range(5)]
    for number, body in enumerate(bodies):
        replies.keep(body, number)
    assert [replies.find(body) for body in bodies] == [None, None, None, 3, 4]
    with pytest.raises(ValueError, match=r"^limit: below 1$"):
        _core.Replies(SHAPES["two halves"].table(), 0)


def test_closed_replies_keep_no_reply() -> None:
    table = SHAPES["two halves"].table()
    before = sys.getrefcount(table)
    replies, body = _core.Replies(table, 3), lookup_of("1.0.1.1")
    assert sys.getrefcount(table) == before + 1
    replies.keep(body, "reply")
    replies.close()
    replies.keep(body, "reply")
    assert replies.find(body) is None
    assert len(replies) == 0
    assert sys.getrefcount(table) == before


def test_no_address_is_kept_with_a_reply() -> None:
    replies = _core.Replies(SHAPES["two halves"].table(), 10)
    for address in ("129.0.1.1", bytes([129, 0, 1, 1])):
        replies.keep(lookup_of(address, "EU"), "reply")
    (kept,) = [one for one in gc.get_referents(replies) if isinstance(one, dict)]
    # The claim, the policy and the region set.
    assert kept == {b"\2\0" + bytes(8) + b"EU": "reply"}


# random messages


def requests() -> st.SearchStrategy[bytes]:
    """Return serialised requests of all forms, few of them over the limit."""
    texts = st.one_of(
        strategies.texts(strategies.values()),
        strategies.malformed_texts().filter(lambda text: not has_surrogates(text)),
        st.text(max_size=200).filter(lambda text: not has_surrogates(text)),
    )
    addresses: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.fixed_dictionaries({"ipv4": st.binary(max_size=60)}),
        st.fixed_dictionaries({"ipv6": st.binary(max_size=230)}),
        st.fixed_dictionaries({"ipv4": st.lists(st.binary(min_size=4, max_size=4)).map(b"".join)}),
        st.fixed_dictionaries({"text": st.lists(texts, max_size=14).map(lambda t: text_of(*t))}),
        st.just({}),
    )
    others = st.fixed_dictionaries(
        {},
        optional={
            "region_set": st.sampled_from(["CN", "EU", "EEA-NO", "CN+HK", "OCENIA", "C\u00d6", ""]),
            "policy": st.sampled_from([0, 1, 2, 3, 4, -1, 2**31 - 1, -(2**31)]),
            "record": st.booleans(),
            "reasons": st.booleans(),
            "group_sizes": st.lists(
                st.sampled_from([1, 1, 2, 3, 3, 0, 130, 2**32 - 1]), max_size=6
            ),
        },
    )
    return st.builds(
        lambda a, o: v1.ClassifyRosterRequest(**a, **o).SerializeToString(), addresses, others
    )


@given(requests())
def test_random_request_is_answered_as_by_protobuf(body: bytes) -> None:
    assert _core.read_roster(body) is not None
    compare_reader(body)
    compare(body, streamed=False)
    compare(wrapped(body), streamed=True)


@given(st.lists(requests(), min_size=2, max_size=3))
def test_concatenated_requests_are_merged_as_by_protobuf(bodies: list[bytes]) -> None:
    """Protobuf takes what was concatenated for one message."""
    compare_reader(b"".join(bodies))
    compare_both(b"".join(bodies))
    compare(b"".join(map(wrapped, bodies)), streamed=True)


@given(requests(), st.data())
def test_mutated_request_is_answered_as_by_protobuf(body: bytes, data: st.DataObject) -> None:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        removed = data.draw(st.integers(0, 2))
        changed[at : at + removed] = data.draw(st.binary(max_size=2))
    compare_reader(bytes(changed))
    compare_both(bytes(changed))
    compare(wrapped(bytes(changed)), streamed=True)


@given(st.binary(max_size=40))
def test_random_bytes_are_answered_as_by_protobuf(body: bytes) -> None:
    compare_reader(body)
    compare_both(body)


SHORT = {name: body for name, body in (PLAIN | UNUSUAL).items() if len(body) < 1000}


@pytest.mark.parametrize("body", SHORT.values(), ids=SHORT)
def test_truncated_request_is_answered_as_by_protobuf(body: bytes) -> None:
    for length in range(len(body)):
        compare_reader(body[:length])
        compare(body[:length], streamed=False)
        compare(wrapped(body[:length]), streamed=True)
        compare(wrapped(body)[: length + 1], streamed=True)


# the handlers


@every_form
def test_deadline_is_checked_between_pieces(form: str) -> None:
    address = {"ipv4": bytes(4), "ipv6": bytes(16), "text": "::"}[form]
    for size, pauses in ((0, 0), (65_536, 0), (65_537, 1), (200_000, 3)):
        call = Noted()
        body = request_of(form, [address] * size, region_set="CN")
        handlers.classify_roster(snapshot(), body, RosterLimits(), call)
        assert call.asked == pauses
        statuses = [0] * 8
        statuses[Status.UNASSIGNED] = size
        reasons = [0] * len(Reason)
        reasons[Reason.UNASSIGNED] = size
        kinds = (0,) * len(Network)
        assert call.answers == [(tuple(statuses), "CN", (0, 0, size), tuple(reasons), kinds)]


def test_roster_of_a_cancelled_call_stops_at_the_next_piece() -> None:
    class Gone(Noted):
        def check_active(self) -> None:
            super().check_active()
            raise RequestError(Code.DEADLINE_EXCEEDED, "too late")

    call = Gone()
    body = request_of("ipv4", [bytes(4)] * 300_000)
    with pytest.raises(RequestError, match=r"^too late$"):
        handlers.classify_roster(snapshot(), body, RosterLimits(), call)
    assert call.asked == 1
    assert call.answers == []


@every_form
@pytest.mark.parametrize("fields", [{}, {"region_set": "EU", "policy": 2, "record": True}])
def test_large_roster_is_answered_as_by_protobuf(form: str, fields: Any) -> None:
    draw = random.Random(11)
    pool: list[Any] = [
        "1.0.1.1",
        "2001:300::1",
        "no address",
        "10.0.0.1",
        "3.0.0.1",
        "::ffff:9.9.9.9",
    ]
    if form != "text":
        pool = [draw.randbytes(4 if form == "ipv4" else 16) for _ in range(3000)]
    for size in (1, 255, 256, 257, 1000, 65_536, 65_537, 140_001):
        body = request_of(form, draw.choices(pool, k=size), **fields)
        response = compare(body, streamed=False, limits=RosterLimits())
        assert response.size == size
        assert compare(wrapped(body), streamed=True, limits=RosterLimits()) == response


def test_a_roster_over_the_limit_is_refused_before_it_is_classified() -> None:
    for form, address in (("ipv4", bytes(4)), ("ipv6", bytes(16)), ("text", "::")):
        at, over = LIMITS.roster, LIMITS.roster + 1
        assert compare(request_of(form, [address] * at), streamed=False).size == at
        outcome = compare(request_of(form, [address] * over), streamed=False)
        assert outcome == (
            Code.INVALID_ARGUMENT,
            f"{form}: 13 addresses are over the limit of 12 a roster",
        )


def test_closed_dataset_refuses_requests() -> None:
    dataset = Dataset.from_buffer(encode(small_dataset.content()))
    closed = Snapshot(dataset)
    handlers.lookup(closed, lookup_of("1.0.1.1"), RosterLimits())
    dataset.close()
    for region_set in ("", "CN"):
        with pytest.raises(DatasetClosedError):
            handlers.lookup(closed, lookup_of("1.0.1.1", region_set), RosterLimits())
        with pytest.raises(DatasetClosedError):
            handlers.classify_roster(
                closed, request_of("ipv4", [bytes(4)], region_set=region_set), RosterLimits()
            )
