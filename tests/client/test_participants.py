"""Participants with several addresses: in process and through either client, alike."""

from __future__ import annotations

import ipaddress
import itertools
import pickle
import random
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import grpc
import pytest
import reference
import small_dataset
import strategies
from blocking_client import Blocking
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from roster_requests import field, sized, varint
from servers import PATIENCE, Service, serving_here

import geolookup
from geolookup import Dataset, Reason, RosterError, ServiceError, Verdict
from geolookup.answer import decision_record
from geolookup.answer.dataset import encode
from geolookup.client import Client
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.service.rpc.transports import build
from geolookup.v1 import geolookup_pb2 as v1

CHINA, AMERICA, PRIVATE, GERMANY6 = "1.0.1.1", "8.8.8.8", "10.0.0.1", "2a02:2e0:3fe:1001:302::"
INSIDE, OUTSIDE, UNDETERMINED = Verdict

PEOPLE: dict[Any, Any] = {
    "ann": [CHINA, PRIVATE],
    "bob": (AMERICA, CHINA),
    7: [ipaddress.ip_address(GERMANY6), ipaddress.ip_address(AMERICA).packed],
    ("d", 4): ["no address", PRIVATE],
    "eve": [PRIVATE],
    None: [None, CHINA],
}
VERDICTS = {
    "ann": INSIDE,
    "bob": UNDETERMINED,
    7: OUTSIDE,
    ("d", 4): UNDETERMINED,
    "eve": UNDETERMINED,
    None: INSIDE,
}
REASONS = ["DECIDED", "DISPUTED", "DECIDED", "INVALID", "SPECIAL_PURPOSE", "DECIDED"]


@pytest.fixture(params=["Dataset", "Client", "AsyncClient"])
def source(request: pytest.FixtureRequest, service: Service) -> Iterator[Any]:
    """Who answers: this process, or the service through either client."""
    makers: dict[str, Callable[[], Any]] = {
        "Dataset": geolookup.open,
        "Client": lambda: Client(service.target, timeout=PATIENCE),
        "AsyncClient": lambda: Blocking(service.target, timeout=PATIENCE),
    }
    with makers[request.param]() as opened:
        yield opened


def test_mapping_is_answered_by_id(source: Any) -> None:
    result = source.classify(PEOPLE, region_set="CN")
    assert result.by_id() == VERDICTS
    assert list(result.by_id()) == list(result.ids) == list(PEOPLE)
    assert result.ids_inside == ["ann", None]
    assert result.ids_outside == [7]
    assert result.ids_undetermined == ["bob", ("d", 4), "eve"]
    assert list(result.inside) == [0, 5]
    assert list(result.outside) == [2]
    assert list(result.undetermined) == [1, 3, 4]
    assert list(result.reasons) == REASONS
    assert list(result.positions(Reason.INVALID)) == [3]
    assert result.reason_counts() == {
        Reason.DISPUTED: 1,
        Reason.SPECIAL_PURPOSE: 1,
        Reason.INVALID: 1,
    }
    assert list(result.verdict_counts().values()) == [2, 1, 3]
    # Addresses keep columns of their own.
    assert (result.size, result.participants) == (11, 6)
    assert result.countries[:4] == ["CN", "ZZ", "US", "CN"]
    assert sum(result.counts().values()) == sum(result.status_counts().values()) == 11
    assert "of 11 addresses of 6 participants: " in repr(result)
    assert "ann" not in repr(result)


def test_groups_are_answered_by_position(source: Any) -> None:
    addresses = [CHINA, PRIVATE, AMERICA, CHINA, GERMANY6]
    packed = b"".join(ipaddress.ip_address(text).packed for text in addresses[:4])
    for roster in (addresses, iter(addresses)):
        result = source.classify(roster, groups=[2, 2, 1], region_set="CN")
        assert [list(one) for one in (result.inside, result.outside)] == [[0], [2]]
        assert (result.participants, result.ids) == (3, None)
    mapped = b"".join(bytes(10) + b"\xff\xff" + packed[at : at + 4] for at in range(0, 16, 4))
    for named in ({"ipv4": packed}, {"ipv6": mapped}):
        for groups in ([2, 1, 1], (2, 1, 1), array("I", [2, 1, 1]), iter([2, 1, 1])):
            result = source.classify(**named, groups=groups, region_set="CN")
            assert [list(one) for one in (result.inside, result.outside)] == [[0, 2], [1]]


def test_one_address_each_is_answered_as_without_groups(source: Any) -> None:
    addresses = [CHINA, PRIVATE, AMERICA, "no", GERMANY6]
    alone = source.classify(addresses, region_set="CN", record=True)
    grouped = source.classify(addresses, region_set="CN", groups=[1] * 5, record=True)
    assert grouped.inside == alone.inside
    assert grouped.undetermined == alone.undetermined
    assert grouped.reasons == alone.reasons
    assert grouped.record.statuses == alone.record.statuses
    assert (grouped.record.size, grouped.record.addresses) == (5, 5)


def test_nobody_is_no_participant(source: Any) -> None:
    result = source.classify({}, region_set="CN")
    assert (result.size, result.participants, result.ids, result.by_id()) == (0, 0, (), {})
    assert not result.inside
    assert source.classify([], groups=[], region_set="CN").participants == 0


def test_record_counts_participants_and_its_digest_covers_that(source: Any) -> None:
    record = source.classify(PEOPLE, region_set="CN", record=True).record
    assert (record.size, record.addresses, record.format) == (6, 11, 2)
    assert (record.inside, record.outside, record.undetermined) == (2, 1, 3)
    assert sum(record.statuses.values()) == 11
    assert sum(record.reasons.values()) == 3
    text = decision_record.to_json(record)
    assert decision_record.from_json(text) == record
    for one in ('"addresses":11', '"size":6'):
        with pytest.raises(decision_record.RecordError):
            decision_record.from_json(text.replace(one, one[:-1] + "7"))
    assert not any(str(one) in text for one in ("ann", "bob", CHINA, AMERICA))


def test_rosters_of_a_stream_have_their_own_participants(source: Any, dataset: Dataset) -> None:
    rosters: list[Any] = [PEOPLE, {"a": [CHINA]}, {}, {"b": [AMERICA, AMERICA], "a": [CHINA]}]
    results = list(source.classify_many(rosters, region_set="CN", record=True))
    assert [result.by_id() for result in results] == [
        VERDICTS,
        {"a": INSIDE},
        {},
        {"b": OUTSIDE, "a": INSIDE},
    ]
    assert results == [dataset.classify(roster, region_set="CN") for roster in rosters]
    packed = ipaddress.ip_address(CHINA).packed
    pairs = source.classify_many(
        ipv4=[packed * 3, packed, packed * 2], groups=iter([[1, 2], [1], [2]]), region_set="CN"
    )
    assert [result.participants for result in pairs] == [2, 1, 1]
    mixed = source.classify_many([[CHINA], [CHINA]], groups=[None, [1]], region_set="CN")
    assert [result.participants for result in mixed] == [None, 1]


@pytest.mark.parametrize("groups", [[], [[1]], [[1], [1], [1]]])
def test_stream_with_another_number_of_groups_is_an_error(source: Any, groups: Any) -> None:
    packed = ipaddress.ip_address(CHINA).packed
    results = source.classify_many(ipv4=[packed, packed], groups=groups, region_set="CN")
    with pytest.raises(RosterError, match=rf"^groups: .* ends after {min(2, len(groups))}$"):
        list(results)


LIST = r"roster: participant 1: expected a list of addresses, not {}; for one address each pass "

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one text": ({"roster": {"a": [CHINA], "b": CHINA}}, TypeError, LIST.format("str")),
    "one packed": ({"roster": {"a": [CHINA], "b": b"1234"}}, TypeError, LIST.format("bytes")),
    "one object": (
        {"roster": {"a": [CHINA], "b": ipaddress.ip_address(CHINA)}},
        TypeError,
        LIST.format("IPv4Address"),
    ),
    "ids by address": ({"roster": {CHINA: "ann"}}, TypeError, "roster: participant 0: expected a"),
    "a set": ({"roster": {"a": {CHINA}}}, TypeError, "participant 0: .* not set, which has no or"),
    "a mapping": ({"roster": {"a": {"b": CHINA}}}, TypeError, "participant 0: a dict iterates"),
    "a number": ({"roster": {"a": 5}}, TypeError, "participant 0: expected a sequence .* not int"),
    "None": ({"roster": {"a": None}}, TypeError, "participant 0: .* not NoneType"),
    "an empty list": ({"roster": {"a": [CHINA], "b": []}}, RosterError, "participant 1 has no ad"),
    "an iterator that is used up": ({"roster": {"a": iter(())}}, RosterError, "participant 0 has"),
    "an int in a list": (
        {"roster": {"a": [CHINA], "b": [CHINA, 5]}},
        TypeError,
        "roster: participant 1, address 1: expected str, .* not int",
    ),
    "a mapping and groups": ({"roster": {"a": [CHINA]}, "groups": [1]}, TypeError, "groups: a map"),
    "too few": ({"roster": [CHINA] * 3, "groups": [2]}, RosterError, "groups: their sum is not 3"),
    "too many": ({"roster": [CHINA], "groups": [2]}, RosterError, "groups: their sum is not 1, "),
    "none of some": ({"roster": [CHINA], "groups": []}, RosterError, "groups: their sum is not 1"),
    "some of none": ({"roster": [], "groups": [1]}, RosterError, "groups: their sum is not 0"),
    "a group of 0": ({"roster": [CHINA], "groups": [1, 0]}, RosterError, "groups: position 1: 0, "),
    "a negative group": ({"roster": [CHINA], "groups": [-1]}, RosterError, "groups: not in 0"),
    "over 32 bits": ({"roster": [CHINA], "groups": [2**32 + 1]}, RosterError, "groups: not in 0"),
    "a float": ({"roster": [CHINA], "groups": [1.0]}, TypeError, "groups: position 0: .*not float"),
    "a bool": ({"roster": [CHINA], "groups": [True]}, TypeError, "groups: position 0: .* not bool"),
    "bytes": ({"roster": [CHINA], "groups": b"\1"}, TypeError, "groups: expected .* not bytes"),
    "text": ({"roster": [CHINA], "groups": "1"}, TypeError, "groups: expected .* not str"),
    "groups in a set": ({"roster": [CHINA], "groups": {1}}, TypeError, "groups: .* not set"),
    "groups by id": ({"roster": [CHINA], "groups": {"a": 1}}, TypeError, "groups: .* not dict"),
    "one number": ({"roster": [CHINA], "groups": 1}, TypeError, "groups: .* not int"),
    "addresses as groups": (
        {"roster": [CHINA], "groups": [int(ipaddress.ip_address(CHINA))]},
        RosterError,
        "^groups: their sum is not 1, the roster's addresses$",
    ),
    "packed in groups": ({"ipv4": bytes(8), "groups": [1]}, RosterError, "their sum is not 2"),
}


@pytest.mark.parametrize("named", WRONG)
def test_wrong_participants_are_refused_alike(source: Any, named: str) -> None:
    arguments, error, text = WRONG[named]
    if named == "an iterator that is used up":
        arguments = {"roster": {"a": iter(())}}
    with pytest.raises(error, match=text) as raised:
        source.classify(**arguments, region_set="CN")
    assert CHINA not in str(raised.value)
    assert str(int(ipaddress.ip_address(CHINA))) not in str(raised.value)


@pytest.mark.parametrize("named", [{"roster": {"a": [CHINA]}}, {"roster": [CHINA], "groups": [1]}])
def test_participants_without_a_region_set_are_refused(source: Any, named: Any) -> None:
    with pytest.raises(ValueError, match=r"needs a region set; name one with region_set=$"):
        source.classify(**named)


def test_results_without_ids_or_groups_say_so(source: Any) -> None:
    alone = source.classify([CHINA], region_set="CN")
    grouped = source.classify([CHINA], groups=[1], region_set="CN")
    assert (alone.participants, alone.ids) == (None, None)
    for call in (alone.by_id, grouped.by_id, lambda: grouped.ids_inside):
        with pytest.raises(ValueError, match="has no ids"):
            call()
    for wanted in ("CN", geolookup.Status.ASSIGNED):
        assert list(alone.positions(wanted)) == [0]
        with pytest.raises(ValueError, match=r"^positions: the roster came in groups"):
            grouped.positions(wanted)


def test_results_of_participants_are_copied_whole(source: Any) -> None:
    result = source.classify(PEOPLE, region_set="CN")
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - what we have made
    others = [
        source.classify(list(itertools.chain(*PEOPLE.values())), region_set="CN"),
        source.classify(
            list(itertools.chain(*PEOPLE.values())),
            groups=list(map(len, PEOPLE.values())),
            region_set="CN",
        ),
    ]
    assert all(result != other for other in others)


def test_any_mapping_is_one_of_participants(source: Any) -> None:
    for mapping in (MappingProxyType(PEOPLE), {key: list(one) for key, one in PEOPLE.items()}):
        assert source.classify(mapping, region_set="CN").by_id() == VERDICTS
    generators = {key: iter(one) for key, one in PEOPLE.items()}
    assert source.classify(generators, region_set="CN").by_id() == VERDICTS
    twice = {"a": [CHINA, CHINA, CHINA], "b": [CHINA]}
    assert set(source.classify(twice, region_set="CN").by_id().values()) == {INSIDE}


def test_groups_of_numpy_are_numbers(source: Any) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    for kind in ("uint32", "int64", "uint8", ">u4"):
        groups = numpy.array([2, 1], kind)
        assert source.classify([CHINA] * 3, groups=groups, region_set="CN").participants == 2
        assert source.classify([CHINA] * 3, groups=list(groups), region_set="CN").participants == 2
    with pytest.raises(TypeError, match=r"^groups: position 0: expected a whole number"):
        source.classify([CHINA] * 3, groups=numpy.array([2.0, 1.0]), region_set="CN")


# --- the oracle ----------------------------------------------------------------------

ADDRESSES = st.one_of(
    st.sampled_from(list(small_dataset.ONE_OF_EACH)), strategies.malformed_texts()
)


@given(st.lists(st.lists(ADDRESSES, min_size=1, max_size=6), max_size=12))
def test_participants_have_the_outcomes_of_the_oracle(lists: list[list[str]]) -> None:
    dataset = Dataset.from_buffer(encode(small_dataset.content()))
    for region_set in ("CN+HK", "FR"):
        expected = []
        for addresses in lists:
            answers = [dataset.lookup(address, region_set) for address in addresses]
            known = [(answer.verdict.name, answer.reason.name) for answer in answers]  # type: ignore[union-attr]
            expected.append(reference.participant(known))
        people = dataset.classify(dict(enumerate(lists)), region_set=region_set, record=True)
        grouped = dataset.classify(
            list(itertools.chain(*lists)), groups=list(map(len, lists)), region_set=region_set
        )
        for result in (people, grouped):
            verdicts = [""] * len(lists)
            for verdict in Verdict:
                for position in getattr(result, verdict.name.lower()):
                    verdicts[position] = verdict.name
            why = [reason.name for reason in result.reasons]
            assert list(zip(verdicts, why, strict=True)) == expected


def test_many_participants_are_answered_alike(source: Any, dataset: Dataset) -> None:
    """More than a step, and groups of more than 127 addresses among them."""
    draw = random.Random(1)
    pool = [CHINA, AMERICA, PRIVATE, GERMANY6]
    people = {
        f"user {number}": draw.choices(pool, k=draw.choice([1, 2, 3, 3, 4, 9, 300]))
        for number in range(3_000)
    }
    result = source.classify(people, region_set="CN")
    assert result.size > 100_000
    assert result.by_id() == {
        name: dataset.classify({0: addresses}, region_set="CN").by_id()[0]
        for name, addresses in people.items()
    }


# --- the service ---------------------------------------------------------------------


class Older(grpc.GenericRpcHandler):
    """A service of a version before participants: the field is unknown to it."""

    def __init__(self, dataset: Dataset) -> None:
        self._snapshot = handlers.Snapshot(dataset)

    def service(self, _details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, body: bytes, _: grpc.ServicerContext) -> bytes:
        request = v1.ClassifyRosterRequest.FromString(body)
        request.ClearField("group_sizes")
        body = request.SerializeToString()
        return handlers.classify_roster(self._snapshot, body, RosterLimits())


def test_service_that_knows_no_participants_is_not_believed(dataset: Dataset) -> None:
    """It answers about addresses, whose positions could be taken for those of participants."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Older(dataset)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with Client(target, timeout=PATIENCE) as client:
            assert list(client.classify([CHINA], region_set="CN").inside) == [0]
            with pytest.raises(ServiceError, match="the service has a version that knows no parti"):
                client.classify({"a": [CHINA]}, region_set="CN")
    finally:
        server.stop(0).wait(PATIENCE)


LIMIT = 50_000
FOUR = sized(1, ipaddress.ip_address(CHINA).packed * 4)
CN = sized(4, b"CN")
REFUSED = {
    "no region set": (FOUR + sized(8, b"\4"), "group_sizes: needs region_set"),
    "a group of 0": (
        FOUR + CN + sized(8, b"\4\0"),
        "group_sizes: 0 at position 1, but a participant has an address",
    ),
    "too few": (
        FOUR + CN + sized(8, b"\1\2"),
        "group_sizes: their sum is not 4, the number of addresses",
    ),
    "too many": (
        FOUR + CN + sized(8, b"\1\4"),
        "group_sizes: their sum is not 4, the number of addresses",
    ),
    "an address as a group": (
        FOUR + CN + sized(8, varint(int(ipaddress.ip_address(CHINA)))),
        "group_sizes: their sum is not 4, the number of addresses",
    ),
    "not packed, and too many": (
        FOUR + CN + field(8, 0, b"\1") + field(8, 0, b"\4"),
        "group_sizes: their sum is not 4, the number of addresses",
    ),
    "of no addresses": (CN + sized(8, b"\1"), "addresses: required"),
    "over the limit": (
        sized(1, bytes(4 * LIMIT + 4)) + CN + sized(8, b"\1" * (LIMIT + 1)),
        f"ipv4: {LIMIT + 1} addresses are over the limit of {LIMIT} a roster",
    ),
    "more groups than the limit": (
        FOUR + CN + sized(8, b"\1" * (LIMIT + 1)),
        "group_sizes: their sum is not 4, the number of addresses",
    ),
    "groups that don't end": (
        FOUR + CN + sized(8, b"\x84"),
        "request: not a geolookup.v1.ClassifyRosterRequest",
    ),
}
ANSWERED = {
    "one group": (sized(8, b"\4"), 1),
    "four groups": (sized(8, b"\1\1\1\1"), 4),
    "not packed": (field(8, 0, b"\1") + field(8, 0, b"\3"), 2),
    "in two parts": (sized(8, b"\1") + sized(8, b"\3"), 2),
    "none": (sized(8, b""), 0),
}


@pytest.fixture(scope="module", params=["native", "threads"])
def raw(request: pytest.FixtureRequest, dataset: Dataset) -> Iterator[Callable[[bytes], bytes]]:
    """Answers the bytes of a request over a real connection, on each transport."""
    if request.param == "native" and build.missing(tls=False) is not None:
        pytest.skip("geolookup was built without the native transport")
    with (
        serving_here(dataset, transport=request.param, limits=RosterLimits(roster=LIMIT)) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        method = channel.unary_unary("/geolookup.v1.GeoLookupService/ClassifyRoster")
        yield lambda body: method(body, timeout=PATIENCE)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_group_sizes_are_refused_over_each_transport(raw: Any, name: str) -> None:
    body, text = REFUSED[name]
    for _ in range(2):  # the second time the region set is known
        with pytest.raises(grpc.RpcError) as raised:
            raw(body)
        error: Any = raised.value
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


@pytest.mark.parametrize("name", ANSWERED)
def test_group_sizes_in_each_form_are_answered_over_each_transport(raw: Any, name: str) -> None:
    groups, participants = ANSWERED[name]
    for _ in range(2):
        response = v1.ClassifyRosterResponse.FromString(raw(FOUR + CN + groups))
        assert (response.size, response.participants) == (4, participants)
        assert len(BitMap.deserialize(response.inside)) == (participants or 4)


@pytest.mark.parametrize("size", [3_000, LIMIT])
def test_large_rosters_of_participants_are_answered_over_each_transport(
    raw: Any, dataset: Dataset, size: int
) -> None:
    draw = random.Random(size)
    packed = draw.randbytes(4 * size)
    sizes = [1] * size if size == LIMIT else [200] * 10 + [1] * 1_000
    request = v1.ClassifyRosterRequest(
        ipv4=packed, region_set="EU", group_sizes=sizes, record=True, reasons=True
    )
    for record in (True, False):
        request.record = record
        response = v1.ClassifyRosterResponse.FromString(raw(request.SerializeToString()))
        expected = dataset.classify(ipv4=packed, groups=sizes, region_set="EU")
        assert response.participants == expected.participants == len(sizes)
        sets = (response.inside, response.outside, response.undetermined)
        assert sets == expected.serialised()
        assert response.reasons == expected.reasons.tobytes()
        assert response.record.size == (len(sizes) if record else 0)
        assert response.record.addresses == (size if record else 0)
