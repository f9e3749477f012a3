"""The clients: like a `Dataset`, and what becomes of failures on the way."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import inspect
import ipaddress
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
import strategies
from blocking_client import Blocking
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import PATIENCE, Service, serving, serving_here

from geolookup import (
    Answer,
    Dataset,
    Policy,
    RegionSet,
    RegionSetError,
    RosterError,
    RosterTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    Status,
    Verdict,
)
from geolookup.client import AsyncClient, Client, wire
from geolookup.client.stream_timeout import StreamTimeout
from geolookup.service import RosterLimits
from geolookup.v1 import geolookup_pb2 as v1

pytestmark = pytest.mark.usefixtures("transport")

CHINA, AMERICA, DISPUTED, PRIVATE = "1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1"
GERMANY6 = "2a02:2e0:3fe:1001:302::"


CLIENTS: tuple[type[Any], ...] = (Client, Blocking)


@pytest.fixture(params=CLIENTS, ids=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Either client's class, used in the same way."""
    return request.param


@pytest.fixture(params=["Dataset", "Client", "AsyncClient"])
def source(request: pytest.FixtureRequest, service: Service, dataset: Dataset) -> Iterator[Any]:
    """Who answers: this process, or the service through either client."""
    makers: dict[str, Callable[[], Any]] = {
        "Dataset": lambda: contextlib.nullcontext(dataset),
        "Client": lambda: Client(service.target, timeout=PATIENCE),
        "AsyncClient": lambda: Blocking(service.target, timeout=PATIENCE),
    }
    with makers[request.param]() as opened:
        yield opened


# the same, in process and remote


@pytest.mark.parametrize(
    "address",
    [
        CHINA,
        ipaddress.ip_address(CHINA),
        ipaddress.ip_address(CHINA).packed,
        f"::ffff:{CHINA}",
        ipaddress.ip_address(f"::ffff:{CHINA}"),
        ipaddress.ip_address(f"::ffff:{CHINA}").packed,
        "2002:0100:0101::",
    ],
)
def test_an_address_of_any_form_is_answered(source: Any, address: Any) -> None:
    assert source.country(address) == "CN"
    answer = source.lookup(address, region_set="CN")
    assert type(answer) is Answer
    assert (answer.country, answer.status, answer.verdict) == (
        "CN",
        Status.ASSIGNED,
        Verdict.INSIDE,
    )


def test_a_disputed_address_has_all_its_codes(source: Any) -> None:
    answer = source.lookup(DISPUTED)
    assert answer.status is Status.DISPUTED
    assert answer.country in answer.claimed
    assert list(answer.claimed) == sorted(answer.claimed)
    assert answer.verdict is None
    everywhere = "+".join(answer.claimed)
    assert source.lookup(DISPUTED, everywhere).verdict is Verdict.INSIDE
    assert source.lookup(DISPUTED, answer.country).verdict is Verdict.UNDETERMINED
    assert source.lookup(DISPUTED, answer.country, "primary").verdict is Verdict.INSIDE
    assert source.lookup(DISPUTED, answer.country, Policy.PRIMARY).verdict is Verdict.INSIDE


@pytest.mark.parametrize("address", ["", "1.2.3", " 1.0.1.1", "\ud800", "x" * 10_000, b"", b"123"])
def test_malformed_address_is_invalid(source: Any, address: Any) -> None:
    assert source.country(address) == "ZZ"
    assert source.lookup(address, "CN").status is Status.INVALID
    assert source.lookup(address, "CN").verdict is Verdict.UNDETERMINED
    result = source.classify([CHINA, address, CHINA], region_set="CN")
    assert result.statuses == [Status.ASSIGNED, Status.INVALID, Status.ASSIGNED]
    assert list(result.inside) == [0, 2]
    assert list(result.undetermined) == [1]


ROSTERS: dict[str, Any] = {
    "empty": [],
    "IPv4 text": [CHINA, AMERICA, DISPUTED, PRIVATE, CHINA],
    "IPv6 text": [GERMANY6, "2001:db8::1", "2002:0100:0101::"],
    "both, as text": [CHINA, GERMANY6, AMERICA, f"::ffff:{CHINA}", "fe80::1%eth0"],
    "with what is no address": [CHINA, "no", GERMANY6, "\ud800", ""],
    "packed": [ipaddress.ip_address(text).packed for text in (CHINA, AMERICA)],
    "packed, both": [ipaddress.ip_address(text).packed for text in (CHINA, GERMANY6)],
    "objects": [ipaddress.ip_address(text) for text in (CHINA, GERMANY6, "fe80::1%eth0")],
    "any mixture": (CHINA, ipaddress.ip_address(GERMANY6), ipaddress.ip_address(AMERICA).packed),
    "any mixture, some wrong": [b"12", CHINA, ipaddress.ip_address(GERMANY6), b"abcd", b""],
}


@pytest.mark.parametrize("name", ROSTERS)
@pytest.mark.parametrize("region_set", [None, "CN", "EU-DE"])
def test_a_roster_of_any_form_is_classified(
    source: Any, dataset: Dataset, name: str, region_set: str | None
) -> None:
    roster = ROSTERS[name]
    result = source.classify(roster, region_set=region_set)
    expected = dataset.classify(roster, region_set=region_set)
    assert result == expected
    assert result.region_set == region_set
    assert result.policy == expected.policy
    assert result.counts() == expected.counts()
    assert result.status_counts() == expected.status_counts()
    assert result.positions("CN") == expected.positions("CN")
    if region_set is None:
        with pytest.raises(ValueError, match="region set"):
            _ = result.inside


def test_a_roster_may_come_from_an_iterator(source: Any) -> None:
    assert source.classify(iter([CHINA, AMERICA])).countries == ["CN", "US"]


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, lambda packed: array.array("B", packed)],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
def test_packed_rosters_may_be_any_buffer(source: Any, make: Callable[[bytes], Any]) -> None:
    packed = b"".join(ipaddress.ip_address(text).packed for text in (CHINA, AMERICA, CHINA))
    assert source.classify(ipv4=make(packed)).countries == ["CN", "US", "CN"]
    mapped = b"".join(bytes(10) + b"\xff\xff" + packed[i : i + 4] for i in (0, 4, 8))
    assert source.classify(ipv6=make(mapped)).countries == ["CN", "US", "CN"]


def test_integers_in_host_order_are_addresses(source: Any) -> None:
    numbers = array.array("I", [int(ipaddress.ip_address(text)) for text in (CHINA, AMERICA)])
    assert source.classify(ipv4=numbers).countries == ["CN", "US"]
    with pytest.raises(RosterError, match=r"^ipv6: the buffer's items are of type 'I'"):
        source.classify(ipv6=numbers)


def test_iterable_of_other_things_than_addresses_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match=r"^roster: expected a sequence of addresses, not set"):
        source.classify({CHINA})


def test_missing_values_are_invalid_at_their_positions(source: Any) -> None:
    result = source.classify([CHINA, None, float("nan")], region_set="CN")
    assert list(result.statuses) == ["ASSIGNED", "INVALID", "INVALID"]
    assert (list(result.inside), list(result.undetermined)) == ([0], [1, 2])


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda s: s.lookup(CHINA, "OCENIA"), RegionSetError, "did you mean 'OCEANIA'"),
        (lambda s: s.lookup(CHINA, "cn"), RegionSetError, "did you mean 'CN'"),
        (lambda s: s.lookup(CHINA, ""), RegionSetError, "empty"),
        (lambda s: s.lookup(CHINA, "\ud800"), RegionSetError, "position 1"),
        (lambda s: s.lookup(CHINA, "CN-CN"), RegionSetError, "leaves no code"),
        (lambda s: s.classify([], region_set="OCENIA"), RegionSetError, "OCEANIA"),
        (lambda s: s.classify(ipv4=bytes(7)), RosterError, "^ipv4: 7 bytes"),
        (lambda s: s.classify(ipv6=bytes(20)), RosterError, "^ipv6: 20 bytes"),
        (lambda s: s.classify(ipv4=memoryview(bytes(16))[::2]), RosterError, "contiguous"),
        (lambda s: s.classify(), TypeError, "exactly one"),
        (lambda s: s.classify([], ipv4=b""), TypeError, "exactly one"),
        (lambda s: s.classify(CHINA), TypeError, "sequence"),
        (lambda s: s.classify([CHINA, 5]), TypeError, "position 1"),
        (lambda s: s.lookup(5), TypeError, "int"),
        (lambda s: s.country(None), TypeError, "NoneType"),
        (lambda s: s.lookup(CHINA, 5), TypeError, "region_set"),
        (lambda s: s.lookup(CHINA, "CN", "loudest"), ValueError, "UNANIMOUS, MAJORITY, PRIMARY"),
        (lambda s: s.lookup(CHINA, "CN", 1), TypeError, "policy"),
    ],
)
def test_wrong_arguments_raise_the_errors_of_a_dataset(
    source: Any, dataset: Dataset, ask: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        ask(source)
    assert isinstance(raised.value, error)
    assert not isinstance(raised.value, ServiceError)
    with pytest.raises(error) as expected:
        ask(dataset)
    assert str(raised.value) == str(expected.value)


def test_a_region_set_object_means_its_codes_and_not_its_name(source: Any) -> None:
    """The service may know another set by this name."""
    own = RegionSet("EU", frozenset({"CN", "TW"}))
    assert source.lookup(CHINA, own).verdict is Verdict.INSIDE
    result = source.classify([CHINA, GERMANY6], region_set=own)
    assert list(result.inside) == [0]
    assert result.region_set == "EU"


def test_info_agrees_with_the_dataset(source: Any, dataset: Dataset) -> None:
    assert source.info() == dataset.info()


@pytest.mark.parametrize("name", ["id", "built", "sources", "attributions", "closed"])
def test_properties_agree_with_the_dataset(source: Any, dataset: Dataset, name: str) -> None:
    assert getattr(source, name) == getattr(dataset, name)


def test_datasets_and_clients_have_the_same_verbs_and_properties() -> None:
    """Each with the same arguments; the clients' calls may have a time limit."""
    # Of what lies in this process alone.
    own = {"age", "expired_overrides", "from_buffer", "kept_too_long", "runtime_overrides"}
    names = {name for name in dir(Dataset) if not name.startswith("_")} - own
    for kind in (Client, AsyncClient):
        assert names == {name for name in dir(kind) if not name.startswith("_")}
        for name in names:
            here, there = getattr(Dataset, name), getattr(kind, name)
            assert isinstance(here, property) == isinstance(there, property)
            if isinstance(here, property):
                continue
            extra = {"timeout"} | ({"ahead"} if name == "classify_many" else set())
            taken = inspect.signature(there).parameters
            expected = list(inspect.signature(here).parameters)
            assert [one for one in taken if one not in extra] == expected


def test_classify_many_agrees_with_the_dataset(source: Any, dataset: Dataset) -> None:
    rosters = [[CHINA, AMERICA], [], ["no"]]
    results = list(source.classify_many(rosters, region_set="CN"))
    assert results == [dataset.classify(roster, region_set="CN") for roster in rosters]
    packed = ipaddress.ip_address(CHINA).packed
    assert [one.size for one in source.classify_many(ipv4=[packed, packed * 2])] == [1, 2]
    failing = source.classify_many([[CHINA], [5]])
    assert next(failing).size == 1
    with pytest.raises(TypeError, match="position 0"):
        next(failing)


mixed_rosters = st.lists(
    st.one_of(
        st.sampled_from(strategies.MALFORMED),
        st.ip_addresses(),
        st.ip_addresses().map(str),
        st.ip_addresses().map(lambda address: address.packed),
        st.binary(max_size=20),
        st.text(max_size=20),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(roster=mixed_rosters, region_set=st.sampled_from([None, "CN", "EUROPE"]))
def test_random_roster_agrees_with_the_dataset(
    service: Service, dataset: Dataset, roster: list[Any], region_set: str | None
) -> None:
    client = shared_client(service)
    assert client.classify(roster, region_set=region_set) == dataset.classify(
        roster, region_set=region_set
    )


_shared: dict[str, Client] = {}


def shared_client(service: Service) -> Client:
    """Return a client that is kept: examples of hypothesis are many."""
    return _shared.setdefault(service.target, Client(service.target, timeout=PATIENCE))


@pytest.fixture(scope="module", autouse=True)
def _close_shared_clients() -> Iterator[None]:
    yield
    while _shared:
        _shared.popitem()[1].close()


# what travels


def form_of(roster: Any) -> str:
    question = wire.Question.of(None, Policy.UNANIMOUS)
    body = wire.classify(roster, None, None, question).body
    return str(v1.ClassifyRosterRequest.FromString(body).WhichOneof("addresses"))


@pytest.mark.parametrize(
    ("roster", "form"),
    [
        ([], "ipv4"),
        ([CHINA], "ipv4"),
        ([ipaddress.ip_address(CHINA), b"abcd"], "ipv4"),
        ([GERMANY6], "ipv6"),
        ([CHINA, GERMANY6], "ipv6"),
        ([CHINA, bytes(16)], "ipv6"),
        ([CHINA, "no"], "text"),
        ([CHINA, b"no"], "text"),
    ],
)
def test_roster_is_sent_packed_unless_an_address_is_malformed(roster: Any, form: str) -> None:
    assert form_of(roster) == form


@pytest.mark.parametrize("networks", [None, "IGNORE"])
@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("region_set", [None, "EU-DE", RegionSet("X", frozenset(["CN", "HK"]))])
@pytest.mark.parametrize("address", [CHINA, GERMANY6, bytes(4), bytes(16), "no"])
def test_lookup_is_sent_as_protobuf_would_write_it(
    address: Any, region_set: Any, policy: Policy, networks: Any
) -> None:
    question = wire.Question.of(region_set, policy, networks=networks)
    packed = wire.packed_address(address)
    expected = v1.LookupRequest(
        region_set=question.expression,
        policy=v1.Policy.Value(f"POLICY_{policy.name}"),
        networks=v1.COVERING_NETWORKS_UNSPECIFIED
        if networks is None
        else v1.COVERING_NETWORKS_IGNORE,
    )
    if packed is None:
        expected.text = ""
    else:
        expected.packed = packed
    assert wire.lookup(packed, question).body == expected.SerializeToString()


def test_text_that_is_no_address_is_not_sent() -> None:
    question = wire.Question.of("CN", Policy.UNANIMOUS)
    typed = "my name is nobody"
    for body in (
        wire.lookup(wire.packed_address(typed), question).body,
        wire.lookup(wire.packed_address(typed.encode()), question).body,
        wire.classify([CHINA, typed], None, None, question).body,
        wire.classify([b"abcd", typed, typed.encode()], None, None, question).body,
    ):
        assert typed.encode() not in body


def test_region_sets_are_listed(kind: Any, service: Service, dataset: Dataset) -> None:
    with kind(service.target) as client:
        listed = client.region_sets
    assert [known for known in listed if known.name != "DACH"] == list(dataset.region_sets)
    (own,) = (known for known in listed if known.name == "DACH")
    assert own.codes == {"DE", "AT", "CH"}


# streams


def test_many_rosters_are_answered_in_order(kind: Any, service: Service, dataset: Dataset) -> None:
    some = random.Random(5)
    rosters = [
        some.choices([CHINA, AMERICA, GERMANY6, "no"], k=some.randrange(9)) for _ in range(300)
    ]
    with kind(service.target) as client:
        results = list(client.classify_many(iter(rosters), region_set="CN"))
    assert results == [dataset.classify(roster, region_set="CN") for roster in rosters]


@pytest.mark.parametrize("width", [4, 16])
def test_many_packed_rosters_are_answered(kind: Any, service: Service, width: int) -> None:
    one = ipaddress.ip_address(CHINA if width == 4 else f"::ffff:{CHINA}").packed
    with kind(service.target) as client:
        results = client.classify_many(
            **{f"ipv{4 if width == 4 else 6}": [one * n for n in range(9)]}
        )
        assert [result.counts().get("CN", 0) for result in results] == list(range(9))


@pytest.mark.parametrize("ahead", [1, 3])
def test_rosters_of_a_stream_are_read_on_demand(kind: Any, service: Service, ahead: int) -> None:
    taken = 0

    def rosters() -> Iterator[list[str]]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield [CHINA]

    with kind(service.target) as client:
        for given_out, _ in enumerate(client.classify_many(rosters(), ahead=ahead), start=1):
            assert given_out <= taken <= given_out + ahead
    assert taken == 50


def test_error_of_the_callers_iterator_is_raised_unchanged(
    kind: Any, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def rosters() -> Iterator[list[str]]:
        yield [CHINA]
        yield [CHINA, CHINA]
        raise LookupError("100.99.98.97")

    with kind(service.target) as client, caplog.at_level(logging.DEBUG):
        results = client.classify_many(rosters())
        assert [next(results).size, next(results).size] == [1, 2]
        with pytest.raises(LookupError, match=r"100\.99\.98\.97"):
            next(results)
    assert "100.99.98.97" not in caplog.text


def test_bad_roster_in_a_stream_is_an_error_after_earlier_results(
    kind: Any, service: Service
) -> None:
    with kind(service.target) as client:
        results = client.classify_many([[CHINA], [CHINA, 5], [CHINA]])
        assert next(results).size == 1
        with pytest.raises(TypeError, match="position 1"):
            next(results)
        results = client.classify_many([[CHINA]], region_set="OCENIA")
        with pytest.raises(RegionSetError, match=r"roster 0: .*OCEANIA"):
            next(results)


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ({}, TypeError),
        ({"ipv4": [b""], "ipv6": [b""]}, TypeError),
        ({"ipv4": 5}, TypeError),
        ({"ipv4": [b""], "ahead": 0}, ValueError),
        ({"ipv4": [b""], "timeout": 0}, ValueError),
    ],
)
def test_wrong_arguments_of_a_stream_are_errors_at_once(named: Any, error: type[Exception]) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(error):
        client.classify_many(**named)


def test_abandoned_stream_is_cancelled(dataset: Dataset) -> None:
    """On the server, too: its only place for streams is free again."""
    with serving_here(dataset, max_streams=1) as server, Client(str(server.address)) as client:
        for _ in range(5):
            results = client.classify_many([CHINA] for _ in range(1000))
            while True:
                try:
                    assert next(results).size == 1
                    break
                except ServiceError:  # the place of the stream before is not free yet
                    results = client.classify_many([CHINA] for _ in range(1000))
            del results
            gc.collect()


def test_an_asynchronous_iterator_of_rosters_is_taken(service: Service) -> None:
    async def rosters() -> AsyncIterator[list[str]]:
        for size in range(5):
            await asyncio.sleep(0)
            yield [CHINA] * size

    async def sizes() -> list[int]:
        async with AsyncClient(service.target) as client:
            return [result.size async for result in client.classify_many(rosters())]

    assert asyncio.run(sizes()) == list(range(5))


def test_tasks_sharing_a_client_get_their_own_answers(service: Service, dataset: Dataset) -> None:
    addresses = [CHINA, AMERICA, DISPUTED, PRIVATE] * 50

    async def ask() -> list[Answer]:
        async with AsyncClient(service.target, timeout=PATIENCE) as client:
            return await asyncio.gather(*(client.lookup(address, "CN") for address in addresses))

    assert asyncio.run(ask()) == [dataset.lookup(address, "CN") for address in addresses]


def test_threads_sharing_a_client_get_their_own_answers(service: Service, dataset: Dataset) -> None:
    addresses = [CHINA, AMERICA, DISPUTED, PRIVATE] * 50
    with Client(service.target, timeout=PATIENCE) as client, futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda address: client.lookup(address, "CN"), addresses))
    assert answers == [dataset.lookup(address, "CN") for address in addresses]


# failures


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


SOON = 0.2
"""Seconds of a call that is to run out of time."""

VERBS: dict[str, Callable[[Any, float], object]] = {
    "country": lambda client, timeout: client.country(CHINA, timeout=timeout),
    "lookup": lambda client, timeout: client.lookup(CHINA, timeout=timeout),
    "classify": lambda client, timeout: client.classify([CHINA], timeout=timeout),
    "classify_many": lambda client, timeout: list(client.classify_many([[CHINA]], timeout=timeout)),
    "region_sets": lambda client, _: client.region_sets,  # with the client's own limit
    "info": lambda client, timeout: client.info(timeout=timeout),
    "explain": lambda client, timeout: client.explain(CHINA, timeout=timeout),
}


@pytest.mark.parametrize("verb", VERBS)
def test_call_beyond_its_time_limit_is_an_error(kind: Any, silent: str, verb: str) -> None:
    with (
        kind(silent, timeout=SOON) as client,
        pytest.raises(ServiceUnavailableError, match=r"in 0\.2 s"),
    ):
        VERBS[verb](client, SOON)


def test_time_limit_of_the_client_is_for_each_call(kind: Any, silent: str) -> None:
    with (
        kind(silent, timeout=0.1) as client,
        pytest.raises(ServiceUnavailableError, match=r"in 0\.1 s"),
    ):
        client.lookup(CHINA)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_invalid_time_limit_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client("127.0.0.1:1", timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient("127.0.0.1:1", timeout=timeout)
    with Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="timeout"):
        client.lookup(CHINA, timeout=timeout)


@pytest.mark.parametrize("verb", VERBS)
def test_absent_service_is_unavailable(kind: Any, verb: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        with kind(target) as client, pytest.raises(ServiceUnavailableError, match=target):
            VERBS[verb](client, PATIENCE)


def test_client_reconnects_after_a_restart_of_the_service(kind: Any, tmp_path: Any) -> None:
    listen = f"unix:{tmp_path}/socket"
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
    with kind(listen, options=options, timeout=PATIENCE) as client:
        with serving("--listen", listen) as running:
            assert client.country(CHINA) == "CN"
            running.stop()
        with pytest.raises(ServiceError):
            client.country(CHINA)
        with serving("--listen", listen):
            for _ in range(100_000):
                with contextlib.suppress(ServiceUnavailableError):
                    assert client.country(CHINA) == "CN"
                    break
            else:
                pytest.fail("never connected again")


def test_roster_over_the_limit_of_the_service_is_too_large(kind: Any, dataset: Dataset) -> None:
    with (
        serving_here(dataset, limits=RosterLimits(roster=5)) as server,
        kind(str(server.address)) as client,
    ):
        assert client.classify([CHINA] * 5).size == 5
        for roster in ([CHINA] * 6, [CHINA] * 100_000, ["no"] * 6):
            with pytest.raises(RosterTooLargeError):
                client.classify(roster)
        with pytest.raises(RosterTooLargeError, match=r"^roster 1: 6 addresses"):
            list(client.classify_many([[CHINA], [CHINA] * 6]))


def test_an_answer_may_be_larger_than_grpc_allows_by_default(kind: Any, dataset: Dataset) -> None:
    size = 1_500_000
    with (
        serving_here(dataset, limits=RosterLimits(roster=size)) as server,
        kind(str(server.address), timeout=PATIENCE) as client,
    ):
        assert client.classify(ipv4=bytes(4 * size)).size == size


def test_answer_over_the_limit_of_the_client_is_too_large(kind: Any, service: Service) -> None:
    options = [("grpc.max_receive_message_length", 1000)]
    with kind(service.target, options=options) as client, pytest.raises(RosterTooLargeError):
        client.classify([CHINA] * 1000)


@pytest.mark.parametrize("verb", VERBS)
def test_calls_after_close_are_errors(kind: Any, service: Service, verb: str) -> None:
    for used in (False, True):
        with kind(service.target) as client:
            if used:
                client.country(CHINA)
            client.close()
            client.close()
            with pytest.raises(ServiceError, match="the client was closed"):
                VERBS[verb](client, PATIENCE)


def test_closing_ends_a_call_under_way(silent: str) -> None:
    client = Client(silent, timeout=PATIENCE)
    with futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.lookup, CHINA)
        while not call.running():
            pass
        client.close()
        with pytest.raises(ServiceError, match="the client was closed"):
            call.result(PATIENCE)


def test_cancelled_task_raises_cancelled_error(silent: str) -> None:
    async def cancel(stream: bool) -> None:
        async with AsyncClient(silent, timeout=PATIENCE) as client:

            async def ask() -> None:
                if stream:
                    async for _ in client.classify_many([[CHINA]]):
                        pass
                await client.lookup(CHINA)

            task = asyncio.create_task(ask())
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel(stream=False))
    asyncio.run(cancel(stream=True))


def test_task_cancelled_while_its_client_closes_is_cancelled(silent: str) -> None:
    async def cancel() -> None:
        client = AsyncClient(silent, timeout=PATIENCE)
        lookup = asyncio.create_task(client.lookup(CHINA))
        for _ in range(20):
            await asyncio.sleep(0)
        lookup.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await lookup

    asyncio.run(cancel())


class Impostor(grpc.GenericRpcHandler):
    """Answers every method in the same way, whatever it was sent."""

    def __init__(self, answer: bytes | tuple[grpc.StatusCode, str]) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method.endswith("StreamRosters"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    def _unary(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        if isinstance(self._answer, tuple):
            context.abort(*self._answer)
        return self._answer

    def _stream(self, bodies: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for body in bodies:
            yield self._unary(body, context)


@contextlib.contextmanager
def impostor(answer: bytes | tuple[grpc.StatusCode, str]) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Impostor(answer)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(PATIENCE)


LEAK = "100.99.98.97"
REFUSALS = [
    (grpc.StatusCode.INTERNAL, f"bad {LEAK}", ServiceError, "INTERNAL"),
    (grpc.StatusCode.UNKNOWN, f"Exception: {LEAK}", ServiceError, "UNKNOWN"),
    (grpc.StatusCode.UNIMPLEMENTED, f"{LEAK}", ServiceError, "UNIMPLEMENTED"),
    (grpc.StatusCode.UNAVAILABLE, f"{LEAK}", ServiceUnavailableError, "can't be reached"),
    (grpc.StatusCode.DEADLINE_EXCEEDED, f"{LEAK}", ServiceUnavailableError, "did not answer"),
    (grpc.StatusCode.INVALID_ARGUMENT, f"strange: {LEAK}", ServiceError, "INVALID_ARGUMENT"),
    (
        grpc.StatusCode.INVALID_ARGUMENT,
        "region_set: no such",
        RegionSetError,
        "^region set: no such$",
    ),
    (grpc.StatusCode.INVALID_ARGUMENT, "ipv4: odd", RosterError, "^(ipv4|rosters?): odd$"),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "text: many",
        RosterTooLargeError,
        "^(text|rosters?): many$",
    ),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, f"busy {LEAK}", ServiceError, "RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize(("code", "details", "error", "text"), REFUSALS)
def test_refusal_is_an_error_without_the_text_of_the_server(
    kind: Any, code: grpc.StatusCode, details: str, error: type[Exception], text: str
) -> None:
    with impostor((code, details)) as target, kind(target) as client:
        for verb in VERBS.values():
            with pytest.raises(error, match=text) as raised:
                verb(client, PATIENCE)  # a call may be made three times
            assert type(raised.value) is error
            assert LEAK not in str(raised.value)
            assert raised.value.__cause__ is None
            assert raised.value.__context__ is None


DATASET_ID = "0" * 64
NO_ANSWERS: dict[str, Any] = {
    "no protobuf": b"\xff\xff",
    "an unknown status": v1.LookupResponse(country="CN", status=77, dataset=DATASET_ID),
    "columns that are too short": v1.ClassifyRosterResponse(
        size=2, countries=b"CN", statuses=b"\1\1", dataset=DATASET_ID
    ),
    "positions beyond the roster": v1.ClassifyRosterResponse(
        size=1,
        countries=b"CN",
        statuses=b"\1",
        inside=b"\xff" * 50,
        dataset=DATASET_ID,
    ),
    "no dataset": v1.ClassifyRosterResponse(size=0),
}


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("lookup", "no protobuf"),
        ("lookup", "an unknown status"),
        ("classify", "no protobuf"),
        ("classify", "columns that are too short"),
        ("classify", "positions beyond the roster"),
        ("classify", "no dataset"),
        ("classify_many", "no protobuf"),
        ("classify_many", "columns that are too short"),
        ("region_sets", "no protobuf"),
        ("info", "no protobuf"),
        ("explain", "no protobuf"),
    ],
)
def test_malformed_answer_is_an_error(kind: Any, verb: str, answer: str) -> None:
    response = NO_ANSWERS[answer]
    if not isinstance(response, bytes):
        if verb == "classify_many":
            response = v1.StreamRostersResponse(roster=response)
        response = response.SerializeToString()
    asks: dict[str, Callable[[Any, float], object]] = {
        **VERBS,
        "classify": lambda client, _: client.classify([CHINA], region_set="CN"),
        "classify_many": lambda client, _: list(client.classify_many([[CHINA]], region_set="CN")),
    }
    with impostor(response) as target, kind(target) as client:
        with pytest.raises(ServiceError, match="the service's answer") as raised:
            asks[verb](client, PATIENCE)
        assert type(raised.value) is ServiceError


# a stream's clock


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stream_timeout_does_not_run_while_no_answer_is_due() -> None:
    clock = Clock()
    timeout = StreamTimeout(5.0, clock)
    timeout.on_wait()
    clock.now += 1000  # the caller's iterator takes its time
    assert timeout.remaining() == 5.0
    timeout.on_send()
    assert timeout.remaining() == 5.0
    clock.now += 4
    assert timeout.remaining() == 1.0
    clock.now += 1
    assert timeout.remaining() == 0.0


def test_stream_timeout_does_not_run_while_no_caller_waits() -> None:
    clock = Clock()
    timeout = StreamTimeout(5.0, clock)
    timeout.on_send()
    timeout.on_send()
    clock.now += 1000  # the caller is busy with the result before
    assert timeout.remaining() == 5.0
    timeout.on_wait()
    clock.now += 3
    assert timeout.remaining() == 2.0


def test_stream_timeout_starts_anew_for_each_answer() -> None:
    clock = Clock()
    timeout = StreamTimeout(5.0, clock)
    for _ in range(3):
        timeout.on_send()
    timeout.on_wait()
    for _ in range(3):
        clock.now += 4
        assert timeout.remaining() == 1.0
        timeout.on_receive()
        timeout.on_wait()
    clock.now += 10
    assert timeout.remaining() == 5.0  # all are answered
