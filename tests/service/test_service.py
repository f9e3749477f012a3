"""The service over real sockets: answers, refusals, privacy, health, reflection, stopping."""

from __future__ import annotations

import base64
import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import grpc
import pytest
import small_dataset
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pyroaring import BitMap
from servers import PATIENCE, ROOT, Service, serving, serving_here, stub_of

from geolookup import Dataset
from geolookup.answer.dataset import encode
from geolookup.service import ListenError, RosterLimits, Server, Settings, SettingsError, log
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.settings import ListenAddress
from geolookup.v1 import geolookup_pb2 as v1

pytestmark = pytest.mark.usefixtures("transport")

SERVICE = "geolookup.v1.GeoLookupService"
CHINA, AMERICA, DISPUTED, PRIVATE = "1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1"


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return stub_of(channel)


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """A service that allows 5 addresses in a roster."""
    with serving("--max-roster", "5") as running:
        yield running


def text_roster(*addresses: str, **fields: Any) -> v1.ClassifyRosterRequest:
    return v1.ClassifyRosterRequest(text=v1.TextAddresses(addresses=addresses), **fields)


def packed_ipv4(*addresses: str) -> bytes:
    return b"".join(ipaddress.IPv4Address(address).packed for address in addresses)


def streamed(*rosters: v1.ClassifyRosterRequest) -> Iterator[v1.StreamRostersRequest]:
    for roster in rosters:
        yield v1.StreamRostersRequest(roster=roster)


# answers


@pytest.mark.parametrize(
    "address", [CHINA, AMERICA, DISPUTED, PRIVATE, "2a00:1450::1", "1.2.3", ""]
)
@pytest.mark.parametrize("region_set", ["", "CN", "DACH+CN"])
def test_lookup_answers_like_the_dataset(
    stub: Any, dataset: Dataset, address: str, region_set: str
) -> None:
    response = stub.Lookup(v1.LookupRequest(text=address, region_set=region_set))
    known = dataset.lookup(address, region_set.replace("DACH", "DE+AT+CH") or None)
    assert response.country == known.country
    assert response.status == known.status.number
    assert tuple(response.claimed) == known.claimed
    assert response.verdict == (
        v1.VERDICT_UNSPECIFIED if known.verdict is None else known.verdict.number
    )
    assert response.dataset == dataset.id


def test_lookup_takes_packed_addresses(stub: Any) -> None:
    for packed in (packed_ipv4(CHINA), ipaddress.ip_address(f"::ffff:{CHINA}").packed):
        response = stub.Lookup(v1.LookupRequest(packed=packed, region_set="CN"))
        assert (response.country, response.verdict) == ("CN", v1.VERDICT_INSIDE)


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (v1.POLICY_UNSPECIFIED, v1.VERDICT_UNDETERMINED),
        (v1.POLICY_UNANIMOUS, v1.VERDICT_UNDETERMINED),
        (v1.POLICY_MAJORITY, v1.VERDICT_UNDETERMINED),
        (v1.POLICY_PRIMARY, v1.VERDICT_INSIDE),
    ],
)
def test_the_policy_decides_about_disputed_addresses(
    stub: Any, dataset: Dataset, policy: int, verdict: int
) -> None:
    first = dataset.lookup(DISPUTED).country
    request: dict[str, Any] = {"region_set": first, "policy": policy}
    assert stub.Lookup(v1.LookupRequest(text=DISPUTED, **request)).verdict == verdict
    roster = stub.ClassifyRoster(text_roster(DISPUTED, **request))
    assert list(BitMap.deserialize(roster.inside)) == [0] * (verdict == v1.VERDICT_INSIDE)


MIXED = [CHINA, AMERICA, DISPUTED, PRIVATE, "2a00:1450::1", CHINA, "no address", "2002:0100:0101::"]


@pytest.mark.parametrize("size", [0, 1, len(MIXED), 5000])
@pytest.mark.parametrize("region_set", ["", "CN", "EEA-NO"])
def test_rosters_are_classified_like_by_the_dataset(
    stub: Any, dataset: Dataset, size: int, region_set: str
) -> None:
    roster = (MIXED * size)[:size]
    response = stub.ClassifyRoster(text_roster(*roster, region_set=region_set))
    known = dataset.classify(roster, region_set=region_set or None)
    assert response.size == size
    assert response.countries == known.countries.tobytes()
    assert response.statuses == known.statuses.tobytes()
    assert dict(response.counts) == known.counts()
    assert response.dataset == dataset.id
    columns = [response.inside, response.outside, response.undetermined]
    if region_set:
        sets = [known.inside, known.outside, known.undetermined]
        assert [BitMap.deserialize(column) for column in columns] == sets
    else:
        assert columns == [b"", b"", b""]


def test_packed_rosters_answer_like_text(stub: Any) -> None:
    roster = [CHINA, AMERICA, DISPUTED, PRIVATE]
    text = stub.ClassifyRoster(text_roster(*roster, region_set="CN"))
    ipv4 = packed_ipv4(*roster)
    ipv6 = b"".join(ipaddress.ip_address(f"::ffff:{address}").packed for address in roster)
    for request in (
        v1.ClassifyRosterRequest(ipv4=ipv4, region_set="CN"),
        v1.ClassifyRosterRequest(ipv6=ipv6, region_set="CN"),
    ):
        assert stub.ClassifyRoster(request) == text


@pytest.mark.parametrize("field", ["ipv4", "ipv6", "text"])
def test_a_roster_may_be_empty(stub: Any, field: str) -> None:
    empty: Any = v1.TextAddresses() if field == "text" else b""
    response = stub.ClassifyRoster(v1.ClassifyRosterRequest(**{field: empty}, region_set="CN"))
    assert response.size == 0
    assert not response.counts
    assert not BitMap.deserialize(response.inside)


def test_a_roster_of_a_million_addresses_is_answered(stub: Any) -> None:
    """In the largest form: text. 1,000,000 is what the server allows by default."""
    longest = "2a00:1450:4001:0830:ffff:ffff:255.255.255.255"
    response = stub.ClassifyRoster(text_roster(*[longest] * 1_000_000), timeout=PATIENCE)
    assert response.size == 1_000_000
    assert len(response.counts) == 1


def test_the_dataset_is_described(stub: Any, dataset: Dataset) -> None:
    response = stub.GetDataset(v1.GetDatasetRequest())
    assert response.id == dataset.id
    assert response.build_time.ToDatetime(UTC) == dataset.built
    assert list(response.attributions) == list(dataset.attributions)
    info = dataset.info()
    for count in ("ipv4_intervals", "ipv6_intervals", "claims"):
        assert getattr(response, count) == info[count] > 0
    assert [
        (s.name, s.licence, s.date, v1.Coverage.Name(s.coverage), s.origin, s.ranges)
        for s in response.sources
    ] == [
        (s.name, s.licence, s.date, f"COVERAGE_{s.coverage.upper()}", s.origin, s.ranges)
        for s in dataset.sources
    ]


def test_region_sets_are_listed_with_the_operator_s_own(stub: Any, dataset: Dataset) -> None:
    listed = {s.name: s for s in stub.ListRegionSets(v1.ListRegionSetsRequest()).region_sets}
    assert list(listed) == sorted({"DACH"} | {s.name for s in dataset.region_sets})
    assert listed["DACH"] == v1.RegionSet(
        name="DACH",
        codes=["AT", "CH", "DE"],
        version="2026-01-01",
        source="our legal department",
    )


def test_calls_at_the_same_time_get_their_own_answers(stub: Any, dataset: Dataset) -> None:
    def asked(number: int) -> bool:
        roster = [MIXED[(number + i) % len(MIXED)] for i in range(number)]
        single = stub.Lookup(v1.LookupRequest(text=MIXED[number % len(MIXED)]))
        many = stub.ClassifyRoster(text_roster(*roster))
        return bool(
            single.country == dataset.country(MIXED[number % len(MIXED)])
            and many.countries == dataset.classify(roster).countries.tobytes()
        )

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(asked, range(300)))


# streams


def test_a_stream_answers_each_roster_in_order(stub: Any, dataset: Dataset) -> None:
    rosters = [text_roster(*MIXED[: i % 9], region_set="CN") for i in range(500)]
    responses = list(stub.StreamRosters(streamed(*rosters)))
    assert len(responses) == len(rosters)
    for request, response in zip(rosters, responses, strict=True):
        known = dataset.classify(list(request.text.addresses), region_set="CN")
        assert response.roster.countries == known.countries.tobytes()
        assert BitMap.deserialize(response.roster.inside) == known.inside


def test_a_stream_is_answered_while_it_is_being_sent(stub: Any) -> None:
    """Each roster is sent only after the one before it was answered."""
    answered = threading.Semaphore(1)

    def rosters() -> Iterator[v1.StreamRostersRequest]:
        for _ in range(3):
            assert answered.acquire(timeout=PATIENCE)
            yield from streamed(text_roster(CHINA))

    for response in stub.StreamRosters(rosters(), timeout=PATIENCE):
        assert response.roster.countries == b"CN"
        answered.release()


def test_an_empty_stream_has_no_answers(stub: Any) -> None:
    assert list(stub.StreamRosters(iter(()))) == []


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (v1.StreamRostersRequest(), "roster 2: roster: required"),
        (
            v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest()),
            "roster 2: addresses: required",
        ),
        (
            v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=bytes(7))),
            "roster 2: ipv4: 7 bytes are no multiple of 4",
        ),
    ],
)
def test_a_bad_roster_ends_its_stream_after_the_answers_before_it(
    stub: Any, bad: v1.StreamRostersRequest, text: str
) -> None:
    good = v1.StreamRostersRequest(roster=text_roster(CHINA))
    call = stub.StreamRosters(iter([good, good, bad, good]))
    assert [next(call).roster.size for _ in range(2)] == [1, 1]
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == text


def test_a_stream_that_nobody_reads_is_not_read_to_its_end_either(stub: Any) -> None:
    """The server holds one roster of it; the rest waits in HTTP/2's flow control."""
    exhausted = threading.Event()

    def endless() -> Iterator[v1.StreamRostersRequest]:
        roster = v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=bytes(400_000)))
        for _ in range(500):
            yield roster
        exhausted.set()

    call = stub.StreamRosters(endless())
    assert next(call).roster.size == 100_000
    assert not exhausted.wait(1.5)
    call.cancel()


def test_streams_over_the_limit_are_refused_and_others_go_on(dataset: Dataset) -> None:
    with (
        serving_here(dataset, max_streams=2) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        stub = stub_of(channel)
        release = threading.Event()

        def held() -> Iterator[v1.StreamRostersRequest]:
            yield from streamed(text_roster(CHINA))
            release.wait(PATIENCE)

        open_streams = [stub.StreamRosters(held()) for _ in range(2)]
        assert [next(call).roster.size for call in open_streams] == [1, 1]
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.StreamRosters(streamed(text_roster(CHINA))))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.value.details() == "streams: over the limit of 2"
        assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
        release.set()
        assert [list(call) for call in open_streams] == [[], []]
        # Their places are free again, also that of a stream that was cancelled.
        cancelled = stub.StreamRosters(streamed(text_roster(CHINA)))
        next(cancelled)
        cancelled.cancel()
        for _ in range(5):
            assert len(list(stub.StreamRosters(streamed(text_roster(CHINA))))) == 1


def test_open_streams_do_not_take_the_threads_of_other_calls(dataset: Dataset) -> None:
    """Nor do health watches: the only thread for calls stays free."""
    with (
        serving_here(dataset, threads=1, max_streams=6) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        streams = [HeldStream(channel) for _ in range(2)]
        watches = [watch_health(channel) for _ in range(3)]
        reflection = HeldReflection(channel)
        for _ in range(5):
            answer = stub_of(channel).Lookup(v1.LookupRequest(text=CHINA), timeout=PATIENCE)
            assert answer.country == "CN"
        for stream in streams:
            stream.go_on()
        reflection.go_on()
        for watch in watches:
            watch.cancel()


def test_a_stream_keeps_the_dataset_that_it_began_with(dataset: Dataset) -> None:
    with (
        Dataset.from_buffer(encode(small_dataset.content())) as other,
        serving_here(dataset) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        stream = HeldStream(channel)
        server.snapshot = Snapshot(other)
        stub = stub_of(channel)
        assert stub.Lookup(v1.LookupRequest(text=CHINA)).dataset == other.id
        stream.go_on()
        assert [response.roster.dataset for response in stream.call] == [dataset.id]
        (response,) = stub.StreamRosters(streamed(text_roster(CHINA)))
        assert response.roster.dataset == other.id


# refusals


@dataclass(frozen=True)
class Refused:
    """A request that is refused, with what the client is told."""

    method: str
    request: Any
    text: str
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT


BAD_REQUESTS = {
    "lookup: nothing asked": Refused("Lookup", v1.LookupRequest(), "address: required"),
    "lookup: packed too long": Refused(
        "Lookup", v1.LookupRequest(packed=bytes(5)), "packed: 5 bytes; an address has 4 or 16"
    ),
    "lookup: packed empty": Refused(
        "Lookup", v1.LookupRequest(packed=b""), "packed: 0 bytes; an address has 4 or 16"
    ),
    "lookup: unknown region set": Refused(
        "Lookup",
        v1.LookupRequest(text=CHINA, region_set="OCENIA"),
        "region_set: unknown region set 'OCENIA'; did you mean 'OCEANIA'?",
    ),
    "lookup: an address as region set": Refused(
        "Lookup",
        v1.LookupRequest(text=CHINA, region_set="100.99.98.97"),
        "region_set: unknown name at position 1",
    ),
    "lookup: region set too long": Refused(
        "Lookup",
        v1.LookupRequest(text=CHINA, region_set="CN+" * 1000),
        "region_set: the expression has over 2,000 characters",
    ),
    "lookup: unknown policy": Refused(
        "Lookup",
        v1.LookupRequest(text=CHINA, policy=4),
        "policy: not the number of a policy",
    ),
    "lookup: an address as policy": Refused(
        "Lookup",
        v1.LookupRequest(text=CHINA, policy=0x64636261),
        "policy: not the number of a policy",
    ),
    "explain: nothing asked": Refused("Explain", v1.ExplainRequest(), "address: required"),
    "explain: packed too short": Refused(
        "Explain", v1.ExplainRequest(packed=bytes(3)), "packed: 3 bytes; an address has 4 or 16"
    ),
    "roster: nothing asked": Refused(
        "ClassifyRoster", v1.ClassifyRosterRequest(region_set="CN"), "addresses: required"
    ),
    "roster: ipv4 of a wrong length": Refused(
        "ClassifyRoster",
        v1.ClassifyRosterRequest(ipv4=bytes(6)),
        "ipv4: 6 bytes are no multiple of 4",
    ),
    "roster: ipv6 of a wrong length": Refused(
        "ClassifyRoster",
        v1.ClassifyRosterRequest(ipv6=bytes(20)),
        "ipv6: 20 bytes are no multiple of 16",
    ),
    "roster: unknown region set": Refused(
        "ClassifyRoster",
        text_roster(CHINA, region_set="cn"),
        "region_set: unknown region set 'cn'; did you mean 'CN'?",
    ),
    "roster: unknown policy": Refused(
        "ClassifyRoster",
        text_roster(policy=-1),
        "policy: not the number of a policy",
    ),
    "roster: over the limit, ipv4": Refused(
        "ClassifyRoster",
        v1.ClassifyRosterRequest(ipv4=bytes(24)),
        "ipv4: 6 addresses are over the limit of 5 a roster",
    ),
    "roster: over the limit, ipv6": Refused(
        "ClassifyRoster",
        v1.ClassifyRosterRequest(ipv6=bytes(96)),
        "ipv6: 6 addresses are over the limit of 5 a roster",
    ),
    "roster: over the limit, text": Refused(
        "ClassifyRoster",
        text_roster(*[CHINA] * 6),
        "text: 6 addresses are over the limit of 5 a roster",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_request_that_makes_no_sense_is_refused(small: Service, name: str) -> None:
    bad = BAD_REQUESTS[name]
    with grpc.insecure_channel(small.target) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub_of(channel), bad.method)(bad.request)
        assert refused.value.code() is bad.code
        assert refused.value.details() == bad.text


def test_a_roster_at_the_limit_is_answered(small: Service) -> None:
    with grpc.insecure_channel(small.target) as channel:
        stub = stub_of(channel)
        assert stub.ClassifyRoster(text_roster(*[CHINA] * 5)).size == 5


def test_a_message_over_what_the_limit_can_need_is_refused(small: Service) -> None:
    with grpc.insecure_channel(small.target) as channel:
        stub = stub_of(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ClassifyRoster(text_roster("1" * 100_000))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def ask(channel: Any, method: str, body: bytes, metadata: Any = None) -> None:
    """Send a request's bytes, whatever they are."""
    if method == "StreamRosters":
        list(channel.stream_stream(f"/{SERVICE}/{method}")(iter([body]), metadata=metadata))
    else:
        channel.unary_unary(f"/{SERVICE}/{method}")(body, metadata=metadata)


METHODS = (
    "Lookup",
    "ClassifyRoster",
    "StreamRosters",
    "Explain",
    "ListRegionSets",
    "GetDataset",
)
NO_UTF8 = b"\x22\x03\xff\xfe\xfd"  # as a roster's region set
GARBAGE = {
    "no protobuf": (METHODS, b"\xff\xff\xff"),
    "cut off": (METHODS, b"\x0a\x0c100.99.98.9"),
    "endless groups": (METHODS, b"\x0b" * 500),
    "an address that is no UTF-8": (["Lookup", "Explain"], b"\x0a\x03\xff\xfe\xfd"),
    "a region set that is no UTF-8": (["ClassifyRoster"], NO_UTF8),
    "a streamed region set that is no UTF-8": (["StreamRosters"], b"\x0a\x05" + NO_UTF8),
}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param(method, body, id=f"{method}: {name}")
        for name, (methods, body) in GARBAGE.items()
        for method in methods
    ],
)
def test_bytes_that_are_no_request_are_refused(
    channel: grpc.Channel, method: str, body: bytes
) -> None:
    text = f"request: not a geolookup.v1.{method}Request"
    if method == "StreamRosters":
        text = f"roster 0: {text}"
    with pytest.raises(grpc.RpcError) as refused:
        ask(channel, method, body)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == text


# privacy

CANARIES = ("100.99.98.97", "2a0b:ee80:4242::beef")


def traces(canary: str) -> set[str]:
    """Return the forms in which an address could turn up in a text."""
    address = ipaddress.ip_address(canary)
    packed = address.packed
    reverse = packed[::-1]
    return {
        canary,
        address.exploded,
        address.reverse_pointer,
        str(int(address)),
        packed.hex(),
        packed.hex(":"),
        packed.hex(" "),
        reverse.hex(),
        f"{int(address):x}",
        repr(packed)[2:-1],
        repr(reverse)[2:-1],
        base64.b64encode(packed).decode().rstrip("="),
        str(list(packed)),
        str(tuple(packed)),
        packed.decode("latin-1"),
        canary.replace(".", "-"),
        canary.replace(":", "-"),
        canary[:-1],
        canary[1:],
    }


def leaks(text: str) -> set[str]:
    return {trace for canary in CANARIES for trace in traces(canary) if trace in text}


def every_way_to_send(canary: str) -> Iterator[tuple[str, bytes]]:
    """Yield method and request: good ones, and bad ones of every kind we can think of."""
    packed = ipaddress.ip_address(canary).packed
    forms = [canary, f" {canary}", f"{canary}:443", f"[{canary}]", f"{canary}/32", canary[:-1]]
    for text in forms:
        yield "Lookup", v1.LookupRequest(text=text, region_set="CN").SerializeToString()
        yield "Explain", v1.ExplainRequest(text=text).SerializeToString()
        yield "ClassifyRoster", text_roster(text, region_set="CN").SerializeToString()
    for bad in (packed, packed + b"\0", packed[:-1], packed * 2):
        yield "Lookup", v1.LookupRequest(packed=bad).SerializeToString()
        yield "Explain", v1.ExplainRequest(packed=bad).SerializeToString()
        yield "ClassifyRoster", v1.ClassifyRosterRequest(ipv4=bad).SerializeToString()
        yield "ClassifyRoster", v1.ClassifyRosterRequest(ipv6=bad).SerializeToString()
    for region_set in (
        *forms,
        canary.replace(".", "-"),
        f"CN+{canary}",
        packed.hex(),
        "A" + canary,
    ):
        yield "Lookup", v1.LookupRequest(text=canary, region_set=region_set).SerializeToString()
        request = text_roster(canary, region_set=region_set)
        yield "ClassifyRoster", request.SerializeToString()
        yield "StreamRosters", v1.StreamRostersRequest(roster=request).SerializeToString()
    number = int.from_bytes(packed[:4]) & 0x7FFFFFFF
    yield "Lookup", v1.LookupRequest(text=canary, policy=number).SerializeToString()
    for method in METHODS:
        yield method, canary.encode()
        yield method, packed
        yield method, b"\x0a\xff" + packed
        yield method, b"\x0a" + bytes([len(packed)]) + packed  # as text: no UTF-8


def send(channel: grpc.Channel, method: str, body: bytes, metadata: Any = None) -> str:
    """Send a request and return what the status says."""
    try:
        ask(channel, method, body, metadata)
    except grpc.RpcError as failed:
        error: Any = failed
        return f"{error.details()} {error.trailing_metadata()} {error.initial_metadata()}"
    return ""


def no_calls(canary: str) -> Iterator[bytes]:
    """Yield what is no gRPC at all, or only begins like it."""
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    text = canary.encode()
    length = len(text).to_bytes(3)
    yield b"GET / HTTP/1.1\r\nHost: " + text + b"\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00" + text * 20  # like TLS
    yield begin + length + bytes.fromhex("0104 00000001") + text  # headers that can't be read
    yield begin + length + bytes.fromhex("0000 00000001") + text  # data of no call
    yield begin + length + bytes.fromhex("6300 00000000") + text  # a frame of an unknown type
    yield begin + length + bytes.fromhex("0400 00000000") + text  # settings of a wrong length


def test_the_scanner_sees_a_leak() -> None:
    assert leaks("ValueError: '100.99.98.97' does not appear to be an address")
    assert leaks("b'dcba'")
    assert not leaks("roster: 3 addresses")


def test_no_address_is_in_an_error_text_or_the_log() -> None:
    with serving("--max-roster", "5") as running, grpc.insecure_channel(running.target) as channel:
        told = []
        for canary in CANARIES:
            for method, body in every_way_to_send(canary):
                told.append(send(channel, method, body, metadata=[("x-address", canary)]))
            told.append(send(channel, canary, b""))  # an unknown method
            host, port = running.target.split(":")
            for noise in no_calls(canary):
                with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                    connection.sendall(noise)
        channel.close()
        assert running.stop() == 0
        assert sum(map(bool, told)) > 50
        assert not leaks("\n".join(told))
        assert not leaks(running.log())
        assert "ready" in running.log()


# A service in which every question fails with the address in the exception's text.
# Each interpreter that is started reads it, and so each worker.
FAILING = """
from geolookup.answer.dataset import Dataset

def fail(self, *arguments, **named):
    try:
        raise KeyError(repr((arguments, named)))
    except KeyError as error:
        error.add_note(repr(arguments))
        raise ValueError(f"can't answer {arguments} {named}") from error

Dataset.lookup = Dataset.answer = Dataset.explain = fail
"""


def test_an_unexpected_exception_reaches_nobody_but_its_type_and_place(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    with (
        serving(PYTHONPATH=f"{tmp_path}:{ROOT}") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = stub_of(channel)
        for canary in CANARIES:
            packed = ipaddress.ip_address(canary).packed
            # A region set that is new takes a call to Python over each transport.
            roster = v1.ClassifyRosterRequest(region_set="CN")
            setattr(roster, "ipv4" if len(packed) == 4 else "ipv6", packed)
            text = text_roster(canary, region_set="CN")
            one = v1.LookupRequest(text=canary, region_set="CN")
            other = v1.LookupRequest(packed=packed, region_set="CN")
            for ask in (
                lambda: stub.Lookup(one),  # noqa: B023 - used at once
                lambda: stub.Lookup(other),  # noqa: B023
                lambda: stub.Explain(v1.ExplainRequest(text=canary)),  # noqa: B023
                lambda: stub.ClassifyRoster(roster),  # noqa: B023
                lambda: stub.ClassifyRoster(text),  # noqa: B023
                lambda: list(stub.StreamRosters(streamed(text))),  # noqa: B023
            ):
                with pytest.raises(grpc.RpcError) as failed:
                    ask()
                assert failed.value.code() is grpc.StatusCode.INTERNAL
                assert failed.value.details() == "internal error"
        channel.close()
        assert running.stop() == 0
        lines = [line for line in running.log().splitlines() if " ERROR " in line]
        # Over gRPC's server the supervisor's own lookups fail, too.
        assert len(lines) == 12 if "transport=native" in running.log() else len(lines) >= 12
        assert not leaks(running.log())
        assert "call_failed worker=0 method=Lookup" in lines[0]
        assert "builtins.ValueError < sitecustomize:" in lines[0]
        assert "geolookup.service.rpc.handlers:" in lines[0]
        assert any("method=StreamRosters" in line for line in lines)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize("logger", ["grpc._server", "concurrent.futures", "geolookup_not"])
def test_what_other_libraries_log_is_not_repeated(logger: str) -> None:
    error = raised(ValueError("100.99.98.97"))
    record = logging.LogRecord(
        logger, logging.ERROR, "x.py", 7, "about %s", ("100.99.98.97",), None
    )
    record.exc_info = (type(error), error, error.__traceback__)
    record.exc_text = "ValueError: 100.99.98.97"
    record.stack_info = "100.99.98.97"
    line = log.Formatter().format(record)
    assert not leaks(line)
    assert logger in line
    assert "ValueError" in line
    assert "raised" in line
    assert "\n" not in line


def test_what_geolookup_logs_is_written_out() -> None:
    record = logging.LogRecord("geolookup.service", logging.INFO, "", 0, "n=%d", (5,), None)
    record.created, record.msecs = 0.0, 0.0
    line = log.Formatter().format(record)
    assert line == "1970-01-01T00:00:00.000Z INFO geolookup.service: n=5"


# health and reflection


@pytest.mark.parametrize("name", ["", SERVICE])
def test_a_running_service_is_healthy(channel: grpc.Channel, name: str) -> None:
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


def test_the_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def reflection_of(channel: grpc.Channel, service: str) -> Callable[..., Any]:
    """Return what asks a question of one of the two reflection services."""
    any_channel: Any = channel
    reflect = any_channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    def ask(**question: str) -> Any:
        (answer,) = reflect(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        return answer

    return ask


@pytest.mark.parametrize("name", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    [
        f"{SERVICE}.Lookup",
        f"{SERVICE}.StreamRosters",
        "geolookup.v1.LookupRequest.text",
        "geolookup.v1.Status.STATUS_ASSIGNED",
        "geolookup.v1.STATUS_ASSIGNED",
        f"{REFLECTION[0]}.ServerReflectionInfo",
        REFLECTION[0],
    ],
)
def test_reflection_finds_the_file_of_each_symbol(
    channel: grpc.Channel, name: str, symbol: str
) -> None:
    ask = reflection_of(channel, name)
    answer = ask(file_containing_symbol=symbol)
    files = answer.file_descriptor_response.file_descriptor_proto
    found = {descriptor_pb2.FileDescriptorProto.FromString(file).package for file in files}
    assert symbol.startswith("grpc." if "grpc.reflection.v1" in found else "geolookup.v1.")
    assert answer.original_request.file_containing_symbol == symbol


@pytest.mark.parametrize("name", REFLECTION)
@pytest.mark.parametrize("symbol", [f"{SERVICE}.Nothing", "geolookup.v1.Nothing", "", "."])
def test_reflection_has_no_file_of_an_unknown_symbol(
    channel: grpc.Channel, name: str, symbol: str
) -> None:
    answer = reflection_of(channel, name)(file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("name", REFLECTION)
def test_a_client_without_the_proto_can_ask_by_reflection(channel: grpc.Channel, name: str) -> None:
    """As grpcurl does it: find service, method and messages, build them, call."""
    ask = reflection_of(channel, name)
    listed = ask(list_services="*").list_services_response.service
    assert {service.name for service in listed} == {SERVICE, "grpc.health.v1.Health", *REFLECTION}
    pool = descriptor_pool.DescriptorPool()
    files = ask(file_containing_symbol=SERVICE).file_descriptor_response.file_descriptor_proto
    for file in sorted(
        map(descriptor_pb2.FileDescriptorProto.FromString, files),
        key=lambda file: len(file.dependency),
    ):
        pool.Add(file)
    method = pool.FindServiceByName(SERVICE).methods_by_name["Lookup"]
    request = message_factory.GetMessageClass(method.input_type)(text=CHINA, region_set="CN")
    any_channel: Any = channel
    body = any_channel.unary_unary(f"/{SERVICE}/Lookup")(request.SerializeToString())
    response: Any = message_factory.GetMessageClass(method.output_type).FromString(body)
    assert (response.country, response.verdict) == ("CN", 1)


# stopping


def watch_health(channel: grpc.Channel) -> Any:
    """Return a health watch that has said SERVING."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=PATIENCE
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    return watch


def wait_for_the_end(watch: Any) -> None:
    """Wait until a watch has said NOT_SERVING and has ended."""
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError):
        next(watch)


class HeldStream:
    """A stream that stays in flight until it is told to go on."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._go_on = threading.Event()
        stub = stub_of(channel)
        self.call = stub.StreamRosters(self._rosters(), timeout=PATIENCE)
        assert next(self.call).roster.countries == b"CN"

    def _rosters(self) -> Iterator[v1.StreamRostersRequest]:
        yield from streamed(text_roster(CHINA))
        self._go_on.wait(PATIENCE)
        yield from streamed(text_roster(AMERICA))

    def go_on(self) -> None:
        self._go_on.set()


class HeldReflection:
    """A reflection stream that stays open until it is told to go on."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._go_on = threading.Event()
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        self.call = reflect(self._questions(), timeout=PATIENCE)
        assert next(self.call).list_services_response.service

    def _questions(self) -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="*")
        self._go_on.wait(PATIENCE)

    def go_on(self) -> None:
        self._go_on.set()


def ask_for_as_long_as_it_answers(channel: grpc.Channel) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        stub_of(channel).Lookup(v1.LookupRequest(text=CHINA))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish_when_the_service_stops(number: signal.Signals) -> None:
    with serving() as running:
        with grpc.insecure_channel(running.target) as channel:
            stream = HeldStream(channel)
            watch = watch_health(channel)
            running.process.send_signal(number)
            wait_for_the_end(watch)
            # No new calls, on a new connection or an old one; the watch is told a moment before.
            with grpc.insecure_channel(running.target) as late, pytest.raises(grpc.RpcError) as e:
                ask_for_as_long_as_it_answers(late)
            # The second is gRPC's word to a call that crosses the news of the stop on its way.
            assert e.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert running.process.poll() is None
            stream.go_on()
            assert [response.roster.countries for response in stream.call] == [b"US"]
            assert stream.call.code() is grpc.StatusCode.OK
        assert running.process.wait(PATIENCE) == 0
        assert f" stop signal={number.name} " in running.log()
        assert running.log().rstrip().endswith(" exit")


def test_a_second_signal_stops_at_once() -> None:
    """Well within the 30 seconds that calls in flight have to finish."""
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        stream = HeldStream(channel)
        watch = watch_health(channel)
        running.process.send_signal(signal.SIGINT)
        wait_for_the_end(watch)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0
        with pytest.raises(grpc.RpcError):
            next(stream.call)
        stream.go_on()


def test_calls_that_outlast_the_grace_are_cancelled(dataset: Dataset) -> None:
    with (
        serving_here(dataset) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        stream = HeldStream(channel)
        assert server.stop(0.05).wait(PATIENCE)
        with pytest.raises(grpc.RpcError):
            next(stream.call)
        stream.go_on()


def test_open_reflection_streams_do_not_hold_up_a_stop() -> None:
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        reflection = HeldReflection(channel)
        running.process.terminate()
        assert running.process.wait(20) == 0
        reflection.go_on()


# listening


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:50051", ListenAddress("127.0.0.1", 50051)),
        ("localhost:0", ListenAddress("localhost", 0)),
        ("[::1]:65535", ListenAddress("[::1]", 65535)),
        ("[::]:1", ListenAddress("[::]", 1)),
        ("unix:/run/geolookup.sock", ListenAddress(path="/run/geolookup.sock")),
        ("unix:here", ListenAddress(path="here")),
    ],
)
def test_a_listen_address_is_read_and_written(text: str, parsed: ListenAddress) -> None:
    assert ListenAddress.parse(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":50051",
        "localhost:",
        "localhost:x",
        "localhost:65536",
        "::1:50051",
        "[::1]",
        "[::1:50051",
        "a b:1",
        "http://localhost:1",
        "unix:",
        "unix:\0",
        "1.2.3.4:1 ",
    ],
)
def test_other_listen_addresses_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^listen: expected"):
        Settings(listen=text)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"limits": RosterLimits(roster=0)}, "max_roster: "),
        ({"limits": RosterLimits(roster=2**31)}, "max_roster: expected "),
        ({"threads": 0}, "threads: "),
        ({"max_streams": -1}, "max_streams: "),
        ({"grace": -0.1}, "grace: "),
        ({"grace": float("inf")}, "grace: "),
        ({"grace": float("nan")}, "grace: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{text}"):
        Settings(**settings)


def test_the_largest_limit_fits_grpc_s_message_size() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(limits=RosterLimits(roster=2**31))
    largest = int(str(refused.value).split()[-1].replace(",", ""))
    assert Settings(limits=RosterLimits(roster=largest)).limits.message_bytes < 2**31
    with pytest.raises(SettingsError):
        Settings(limits=RosterLimits(roster=largest + 1))


def test_a_port_in_use_is_an_error_at_once(service: Service, dataset: Dataset) -> None:
    with pytest.raises(ListenError, match=r"^listen: .*Address already in use"):
        Server(dataset, Settings(listen=service.target))


def test_a_unix_socket_in_use_is_an_error_and_stays_in_use(
    dataset: Dataset, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path}/socket"
    with serving_here(dataset, listen=listen), grpc.insecure_channel(listen) as channel:
        with pytest.raises(ListenError, match="another server listens"):
            Server(dataset, Settings(listen=listen))
        stub = stub_of(channel)
        assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"


def test_a_unix_socket_that_a_dead_server_left_is_taken_over(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    with (
        serving_here(dataset, listen=f"unix:{path}") as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        stub = stub_of(channel)
        assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"


def test_a_file_is_not_replaced_by_a_socket(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        Server(dataset, Settings(listen=f"unix:{path}"))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "listen",
    ["192.0.2.1:0", "host.invalid:0", "unix:/nonexistent/folder/socket"],
)
def test_where_one_can_t_listen_is_an_error_with_the_reason(dataset: Dataset, listen: str) -> None:
    with pytest.raises(ListenError, match=r"^listen: .*: [A-Z]"):
        Server(dataset, Settings(listen=listen, insecure=("listen",)))


def test_ipv6_loopback_is_listened_on(dataset: Dataset) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        serving_here(dataset, listen="[::1]:0") as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        assert str(server.address).startswith("[::1]:")
        stub = stub_of(channel)
        assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"


def test_absent_sets_can_be_told_from_empty_ones(stub: Any) -> None:
    fields = ("inside", "outside", "undetermined")
    plain = stub.ClassifyRoster(v1.ClassifyRosterRequest(ipv4=b"\1\0\1\1"))
    assert [plain.HasField(field) for field in fields] == [False] * 3
    for ipv4 in (b"", b"\1\0\1\1"):
        request = v1.ClassifyRosterRequest(ipv4=ipv4, region_set="CN")
        asked = stub.ClassifyRoster(request)
        assert [asked.HasField(field) for field in fields] == [True] * 3
        assert not BitMap.deserialize(asked.outside)
