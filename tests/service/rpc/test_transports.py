"""What every transport guarantees: who is admitted, that slots come back, how calls end, and stops.

The tests of the service itself (test_service.py, test_client.py) run over each transport too.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import random
import socket
import ssl
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import http2
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http2 import frame
from servers import PATIENCE, needs_native, no_thread_starts, serving_here, stub_of, within_patience

import geolookup
from geolookup import Dataset
from geolookup.errors import ServiceError
from geolookup.service import RosterLimits, Server, Settings
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc import handlers, transports
from geolookup.service.rpc.admission import RETRY_HINT
from geolookup.service.rpc.calls import Calls
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import Call, RequestError
from geolookup.service.rpc.transports.threads import ThreadTransport
from geolookup.v1 import geolookup_pb2 as v1

pytestmark = pytest.mark.usefixtures("transport")

SERVICE = "geolookup.v1.GeoLookupService"
CHINA = "1.0.1.1"
LOOKUP = v1.LookupRequest(text=CHINA).SerializeToString()
EXPLAIN = v1.ExplainRequest(text=CHINA).SerializeToString()
LARGE = v1.ClassifyRosterRequest(ipv4=bytes(400_000)).SerializeToString()
CANCELLED, DEADLINE = 1, 4
LIMITS = RosterLimits(roster=100_000)


@contextlib.contextmanager
def channel_to(server: Server) -> Iterator[Any]:
    """Connect, and share the connection with no other channel."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(str(server.address), options) as channel:
        yield channel


def headers(path: str, stream: int) -> bytes:
    """Return the HTTP/2 frame that begins a call, and does not end it."""
    return frame(1, 4, stream, http2.block(http2.request(path)))


BEGIN = http2.PREFACE + frame(4, 0, 0, b"")


@contextlib.contextmanager
def half_sent(server: Server, path: str, calls: int, rest: bytes = b"") -> Iterator[None]:
    """Keep calls open that have sent their headers and, of their message, *rest*."""
    begun = b"".join(
        headers(path, 2 * number + 1) + (rest and frame(0, 0, 2 * number + 1, rest))
        for number in range(calls)
    )
    address = (server.address.host, server.address.port)
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(BEGIN + begun)
        yield


class Held:
    """A unary call that has sent its headers; it sends its message, and ends, when told to."""

    def __init__(self, channel: Any, method: str = "Lookup", timeout: float = 2 * PATIENCE) -> None:
        self._go_on = threading.Event()
        ask = channel.stream_unary(f"/{SERVICE}/{method}")
        self.call = ask.future(self._requests(), timeout=timeout)

    def _requests(self) -> Iterator[bytes]:
        self._go_on.wait(PATIENCE)
        yield LOOKUP

    def go_on(self) -> None:
        self._go_on.set()


def admitted(server: Server, limit: int) -> int:
    """Return how many calls are admitted at once, of which *limit* and a few more are made.

    Each is held until all have been made. A refusal comes at once, so the calls that are
    not refused when the last of them is are those that were admitted.
    """
    with channel_to(server) as channel:
        calls = [Held(channel) for _ in range(limit + 5)]
        try:
            assert within_patience(lambda: sum(one.call.done() for one in calls) >= 5)
            time.sleep(0.1)  # for more than there should be
            refused = [one.call.exception() for one in calls if one.call.done()]
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            return len(calls) - len(refused)
        finally:
            for one in calls:
                one.go_on()
            for one in calls:
                one.call.exception()


def taken(server: Server) -> tuple[int, int]:
    """Return how many slots of calls and of streams are taken."""
    calls: Calls = server._calls
    most = server_settings(server).max_calls
    return (
        2 * most - calls.unary_slots.free - calls.join_slots.free,
        server_settings(server).max_streams - calls.stream_slots.free,
    )


def server_settings(server: Server) -> Settings:
    return server._calls._settings


def counted(server: Server, method: int) -> dict[str, int]:
    """Return how many calls of a method have ended with each code."""
    row = counters.total([server.counters]).calls[method]
    return {name: number for name, number in zip(counters.CODES, row, strict=True) if number}


def hint_of(error: grpc.RpcError) -> int:
    """Return the milliseconds after which a call may come again."""
    metadata: Any = error.trailing_metadata()
    return int(dict(metadata)[RETRY_HINT])


# who is admitted


def test_calls_within_the_limit_are_admitted_and_others_get_a_retry_hint(dataset: Dataset) -> None:
    with serving_here(dataset, max_calls=3) as server, channel_to(server) as channel:
        held = [Held(channel) for _ in range(3)]
        others = [Held(channel, "Explain") for _ in range(3)]
        assert within_patience(lambda: taken(server) == (6, 0))
        for method in ("Lookup", "ClassifyRoster", "Explain"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=PATIENCE)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.value.details() == "calls: over the limit of 3"
            assert 50 <= hint_of(refused.value) <= 150
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        for one in others:
            one.go_on()
        for one in held:
            one.go_on()
            assert v1.LookupResponse.FromString(one.call.result()).country == "CN"
        assert within_patience(lambda: taken(server) == (0, 0))
        assert counters.total([server.counters]).shed[:4] == [1, 1, 0, 1]
        assert admitted(server, 3) == 3


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize("method", ["Lookup", "GetDataset"])
def test_a_burst_over_the_limit_is_answered_as_far_as_there_is_time(
    dataset: Dataset, method: str
) -> None:
    """What is answered in place takes no slot; what a thread has to answer does."""
    streams = range(1, 1_201, 2)
    body = LOOKUP if method == "Lookup" else b""
    burst = b"".join(
        headers(f"/{SERVICE}/{method}", stream) + frame(0, 1, stream, http2.message(body))
        for stream in streams
    )
    with (
        # Of its streams a connection may have as many at a time as there are calls here.
        serving_here(dataset, transport="native", max_calls=2, max_streams=200) as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.raw(burst)
        answered, left = set(), set(streams)
        while left:
            one = connection.receive()
            assert one is not None
            if one.type == http2.DATA:
                answered.add(one.stream_id)
            if http2.ends(one, one.stream_id):
                left.discard(one.stream_id)  # a refusal may be followed by RST_STREAM
        refused = len(streams) - len(answered)
        assert bool(refused) is (method == "GetDataset")
        assert answered
        number = next(one for one in Method if one.label == method)
        assert within_patience(lambda: taken(server) == (0, 0))
        assert counters.total([server.counters]).shed[number] == refused
        assert counted(server, number) == {"OK": len(answered)}


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize("at_once", [True, False], ids=["one packet", "two packets"])
def test_answers_that_are_not_taken_hold_slots(dataset: Dataset, at_once: bool) -> None:
    """A client whose window is closed, so that its answers wait here."""
    with (
        serving_here(dataset, transport="native", max_calls=5) as server,
        http2.Connection(server.address.port, values={http2.INITIAL_WINDOW_SIZE: 0}) as connection,
    ):
        for stream in range(1, 11, 2):
            connection.call(stream, f"/{SERVICE}/Lookup", LOOKUP)
        assert within_patience(lambda: taken(server) == (5, 0))
        if at_once:
            headers = http2.block(http2.request(f"/{SERVICE}/Lookup"))
            connection.raw(
                http2.frame(http2.HEADERS, http2.END_HEADERS, 11, headers)
                + http2.frame(http2.DATA, http2.END_STREAM, 11, http2.message(LOOKUP))
            )
        else:
            connection.call(11, f"/{SERVICE}/Lookup", LOOKUP)
        assert [one.type for one in connection.rest(11)] == [http2.HEADERS]
        assert counters.total([server.counters]).shed[Method.LOOKUP] == 1
        for stream in range(1, 11, 2):
            connection.send(http2.WINDOW_UPDATE, 0, stream, (1_000).to_bytes(4))
            assert http2.ends(connection.rest(stream)[-1], stream)
        assert within_patience(lambda: taken(server) == (0, 0))


def test_calls_are_answered_where_no_thread_can_be_started(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory is short: what is needed is there, and it goes on when there is enough."""
    paths = {
        f"/{SERVICE}/Lookup": LOOKUP,
        f"/{SERVICE}/Explain": EXPLAIN,
        f"/{SERVICE}/ClassifyRoster": LARGE,
        f"/{SERVICE}/StreamRosters": b"",
        "/grpc.health.v1.Health/Check": b"",
        "/grpc.health.v1.Health/Watch": b"",
    }
    with (
        serving_here(dataset) as server,
        http2.Connection(server.address.port) as connection,
        no_thread_starts(monkeypatch),
    ):
        for number, (path, body) in enumerate(3 * list(paths.items())):
            stream = 2 * number + 1
            connection.call(stream, path, body)
            assert connection.expect(http2.HEADERS, stream).data
    assert counted(server, Method.LOOKUP) == {"OK": 3}


def test_system_that_starts_no_thread_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    with (
        no_thread_starts(monkeypatch),
        pytest.raises(ServiceError, match=r"the system starts no more threads: .*ulimit -u"),
        serving_here(dataset),
    ):
        raise AssertionError


@pytest.mark.transports("native")
@needs_native
def test_connections_that_made_no_call_make_room_for_others(dataset: Dataset) -> None:
    with (
        serving_here(dataset, transport="native", max_connections=3) as server,
        contextlib.ExitStack() as stack,
    ):

        def connect() -> http2.Connection:
            return stack.enter_context(http2.Connection(server.address.port))

        def closed() -> list[int]:
            return counters.total([server.counters]).connections_closed

        def call(connection: http2.Connection, stream: int) -> None:
            connection.call(stream, f"/{SERVICE}/Lookup", LOOKUP)
            assert connection.rest(stream)

        first, second, third = connect(), connect(), connect()
        assert counters.total([server.counters]).connections == 3
        call(second, 1)
        fourth = connect()
        list(first.frames())  # until it is closed: it has waited longest
        assert closed() == [0, 1]
        call(third, 1)
        call(fourth, 1)
        with pytest.raises(ConnectionError):
            connect()
        assert closed() == [1, 1]
        for connection in (second, third, fourth):
            call(connection, 3)
        third.close()
        assert within_patience(lambda: counters.total([server.counters]).connections == 2)
        call(connect(), 1)
        assert counters.total([server.counters]).connections_made == 5


def test_what_is_too_large_is_not_to_come_again(dataset: Dataset, transport: str) -> None:
    """Clients ask again upon this code. Of a message gRPC's own server gives no hint."""
    with serving_here(dataset, limits=LIMITS) as server, channel_to(server) as channel:
        message = bytes(LIMITS.message_bytes + 1)
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(message, timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert transport == "threads" or hint_of(refused.value) == -1
        over = v1.ClassifyRosterRequest(ipv4=bytes(4 * (LIMITS.roster + 1))).SerializeToString()
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(over, timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_refusal_comes_before_the_message(dataset: Dataset) -> None:
    with serving_here(dataset, max_calls=1) as server, channel_to(server) as channel:
        first = Held(channel)
        assert within_patience(lambda: taken(server) == (1, 0))
        second = Held(channel)
        assert second.call.exception().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.go_on()
        assert first.call.result()
        second.go_on()


def test_rosters_that_take_all_slots_keep_no_lookup_out(dataset: Dataset) -> None:
    with serving_here(dataset, max_calls=2, threads=2) as server, channel_to(server) as channel:
        rosters = [Held(channel, "ClassifyRoster") for _ in range(2)]
        assert within_patience(lambda: taken(server) == (2, 0))
        third = Held(channel, "Explain")
        assert third.call.exception().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Nor is any kept waiting: the threads of calls are all taken.
        for _ in range(20):
            assert channel.unary_unary(f"/{SERVICE}/Lookup")(LOOKUP, timeout=PATIENCE)
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        for one in (*rosters, third):
            one.go_on()


@pytest.mark.transports("native")
@needs_native
def test_lookups_whose_headers_come_before_all_messages_are_answered(dataset: Dataset) -> None:
    """As libnghttp2 sends calls that were begun together."""
    path, body = f"/{SERVICE}/Lookup", http2.message(LOOKUP)
    streams = range(1, 101, 2)
    with (
        serving_here(dataset, transport="native", max_calls=2) as server,
        http2.Connection(server.address.port) as connection,
    ):
        headers = http2.block(http2.request(path))
        connection.raw(
            b"".join(
                http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers) for stream in streams
            )
            + b"".join(
                http2.frame(http2.DATA, http2.END_STREAM, stream, body) for stream in streams
            )
        )
        for stream in streams:
            connection.rest(stream)
        assert {connection.fields[stream]["grpc-status"] for stream in streams} == {"0"}
        assert within_patience(lambda: taken(server) == (0, 0))
        # Without their messages they take slots, and no more than there are.
        connection.raw(
            b"".join(
                http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers)
                for stream in range(101, 201, 2)
            )
        )
        ended: set[int] = set()
        while len(ended) < 48:
            found = connection.receive()
            assert found is not None
            if http2.ends(found, found.stream_id):
                ended.add(found.stream_id)
        assert {connection.fields[stream]["grpc-status"] for stream in ended} == {"8"}
        assert within_patience(lambda: taken(server) == (2, 0))


def test_health_watches_take_the_slots_of_streams_and_give_back_no_other(dataset: Dataset) -> None:
    with (
        serving_here(dataset, max_calls=4, max_streams=2) as server,
        channel_to(server) as channel,
    ):
        watching = health_pb2_grpc.HealthStub(channel).Watch
        for _ in range(8):
            watch = watching(health_pb2.HealthCheckRequest())
            next(watch)
            watch.cancel()
            assert within_patience(lambda: taken(server) == (0, 0))
        watches = [watching(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as refused:
            next(watching(health_pb2.HealthCheckRequest()))
        assert refused.value.details() == "streams: over the limit of 2"
        assert 50 <= hint_of(refused.value) <= 150
        for watch in watches:
            watch.cancel()
        assert admitted(server, 4) == 4


# Each of these ends a call in another way. All take the channel and a number to vary by.


def cancelled(channel: Any, number: int) -> None:
    call = channel.unary_unary(f"/{SERVICE}/Lookup").future(LOOKUP)
    time.sleep(number % 4 * 0.0005)
    call.cancel()


def cancelled_in_the_pool(channel: Any, number: int) -> None:
    call = channel.unary_unary(f"/{SERVICE}/ClassifyRoster").future(LARGE)
    time.sleep(number % 4 * 0.001)
    call.cancel()


def cancelled_before_its_message(channel: Any, number: int) -> None:
    held = Held(channel, ("Lookup", "ClassifyRoster", "Explain")[number % 3])
    time.sleep(number % 3 * 0.001)
    held.call.cancel()
    held.go_on()


def out_of_time(channel: Any, number: int) -> None:
    with contextlib.suppress(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(LARGE, timeout=0.0005 * (number % 8))


def out_of_time_before_its_message(channel: Any, number: int) -> None:
    held = Held(channel, timeout=0.001 * (1 + number % 8))
    held.call.exception()
    held.go_on()


def without_a_message(channel: Any, number: int) -> None:  # noqa: ARG001
    with contextlib.suppress(grpc.RpcError):
        channel.stream_unary(f"/{SERVICE}/Lookup")(iter(()), timeout=PATIENCE)


def refused(channel: Any, number: int) -> None:  # noqa: ARG001
    with contextlib.suppress(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/Lookup")(b"\xff", timeout=PATIENCE)


def too_large(channel: Any, number: int) -> None:
    if number % 8:
        return  # so many megabytes take their time
    with contextlib.suppress(grpc.RpcError):
        message = bytes(LIMITS.message_bytes + 1)
        channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(message, timeout=PATIENCE)


def answered(channel: Any, number: int) -> None:
    method, request = (("Lookup", LOOKUP), ("Explain", EXPLAIN), ("ClassifyRoster", LARGE))[
        number % 3
    ]
    with contextlib.suppress(grpc.RpcError):  # shed
        channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=PATIENCE)


def streamed(channel: Any, number: int) -> None:
    """Of a stream: read none, some or all of the answers, then cancel, or let it end."""
    roster = v1.ClassifyRosterRequest(ipv4=bytes((400_000, 400)[number % 2]))
    requests = [v1.StreamRostersRequest(roster=roster)] * 4
    if number % 5 == 0:
        requests[2] = v1.StreamRostersRequest()
    call = stub_of(channel).StreamRosters(iter(requests), timeout=PATIENCE)
    with contextlib.suppress(grpc.RpcError, StopIteration):
        for _ in range(number % 6):
            next(call)
    call.cancel()


def watched(channel: Any, number: int) -> None:
    name = ("", "unknown")[number % 2]
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
    with contextlib.suppress(grpc.RpcError):
        for _ in range(number % 3 > 0):
            next(watch)
    watch.cancel()


ENDS = (
    cancelled,
    cancelled_in_the_pool,
    cancelled_before_its_message,
    out_of_time,
    out_of_time_before_its_message,
    without_a_message,
    refused,
    too_large,
    answered,
    streamed,
    watched,
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_slots_come_back_however_a_call_ends(
    dataset: Dataset, end: Callable[[Any, int], None]
) -> None:
    with serving_here(dataset, max_calls=4, max_streams=3, limits=LIMITS) as server:
        with channel_to(server) as channel:
            for number in range(40):
                end(channel, number)
        assert within_patience(lambda: taken(server) == (0, 0))
        assert within_patience(lambda: not any(counters.total([server.counters]).in_flight))
        assert admitted(server, 4) == 4
        assert within_patience(lambda: taken(server) == (0, 0))


def test_slots_come_back_after_all_of_these_at_once(dataset: Dataset) -> None:
    """Many clients, of which some vanish, with more calls than are admitted."""
    settings = {"max_calls": 8, "max_streams": 4, "threads": 3, "limits": LIMITS}
    with serving_here(dataset, **settings) as server:

        def client(seed: int) -> None:
            drawn = random.Random(seed)
            for _ in range(3):
                with channel_to(server) as channel:  # closed with calls under way
                    for _ in range(15):
                        drawn.choice(ENDS)(channel, drawn.randrange(60))
                path = f"/{SERVICE}/{drawn.choice(('Lookup', 'StreamRosters', 'Explain'))}"
                with half_sent(server, path, 5, drawn.choice((b"", b"\0\0\0\0\x09\x0a"))):
                    time.sleep(0.002)

        with ThreadPoolExecutor(6) as clients:
            list(clients.map(client, range(6)))
        assert within_patience(lambda: taken(server) == (0, 0))
        assert within_patience(lambda: not any(counters.total([server.counters]).in_flight))
        assert admitted(server, 8) == 8
        assert within_patience(lambda: taken(server) == (0, 0))
        assert server.stop(PATIENCE).wait(PATIENCE)


@pytest.mark.parametrize("rest", [b"", b"\0\0\0", b"\0\0\0\0\x09\x0a\x07"])
@pytest.mark.parametrize("method", ["Lookup", "ClassifyRoster", "StreamRosters"])
def test_slots_of_clients_that_vanish_come_back(dataset: Dataset, method: str, rest: bytes) -> None:
    with serving_here(dataset, max_calls=10, max_streams=10) as server:
        with half_sent(server, f"/{SERVICE}/{method}", 7, rest):
            full = (0, 7) if method == "StreamRosters" else (7, 0)
            assert within_patience(lambda: taken(server) == full)
        assert within_patience(lambda: taken(server) == (0, 0))


@pytest.mark.transports("native")
@needs_native
def test_calls_without_a_message_hold_no_thread(dataset: Dataset) -> None:
    """Whatever is held up in its clients, the only thread for work stays free."""
    with serving_here(dataset, transport="native", threads=1, max_calls=200) as server:
        before = threading.active_count()
        with half_sent(server, f"/{SERVICE}/ClassifyRoster", 150, b"\0"):
            assert within_patience(lambda: taken(server) == (150, 0))
            assert threading.active_count() <= before  # those of other tests may end
            with channel_to(server) as channel:
                for method, request in (("Lookup", LOOKUP), ("Explain", EXPLAIN)):
                    assert channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=PATIENCE)


# how calls end


def test_an_unknown_method_is_not_repeated(dataset: Dataset) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        for path in (f"/{SERVICE}/100.99.98.97", "/100.99.98.97/Lookup", "/x"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(path)(LOOKUP, timeout=PATIENCE)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert error.value.details() == "Method not found!"


def test_a_call_without_a_message_is_refused(dataset: Dataset) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        for path in (f"/{SERVICE}/Lookup", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.RpcError) as error:
                channel.stream_unary(path)(iter(()), timeout=PATIENCE)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "exactly one request message" in str(error.value.details())


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize(
    ("path", "size"),
    [
        (f"/{SERVICE}/Lookup", 0),
        (f"/{SERVICE}/ClassifyRoster", 0),
        (f"/{SERVICE}/ClassifyRoster", 70_000),
        (f"/{SERVICE}/Explain", 10),
        ("/grpc.health.v1.Health/Check", 0),
        ("/grpc.health.v1.Health/Watch", 0),
    ],
)
def test_client_that_sends_a_second_message_gets_no_answer_to_the_first(
    dataset: Dataset, path: str, size: int
) -> None:
    """The first is whole before the second is sent."""
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.open(1, path)
        connection.data(1, http2.message(bytes(size)), end=False)
        connection.send(http2.PING, 0, 0, bytes(8))
        connection.expect(http2.PING)
        connection.data(1, http2.message(b""))
        connection.rest(1)
        assert connection.fields[1]["grpc-status"] == "12"


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize("ended_by", ["END_STREAM", "RST_STREAM"])
@pytest.mark.parametrize("split", [1, 9, 10])
def test_data_after_the_end_closes_the_connection(
    dataset: Dataset, ended_by: str, split: int
) -> None:
    """Also where libnghttp2 has forgotten the stream; *split*: bytes that come before the rest."""
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.open(1, f"/{SERVICE}/Lookup")
        if ended_by == "END_STREAM":
            connection.data(1, http2.message(LOOKUP))
            connection.rest(1)
        else:
            connection.send(http2.RST_STREAM, 0, 1, struct.pack(">I", http2.CANCEL))
        assert connection.is_alive()
        late = http2.frame(http2.DATA, 0, 1, b"late")
        connection.raw(late[:split])
        connection.raw(late[split:])
        assert connection.expect(http2.GOAWAY).error_code == http2.STREAM_CLOSED


@pytest.mark.transports("native")
@needs_native
def test_data_with_the_end_before_it_closes_the_connection(dataset: Dataset) -> None:
    """Both come in one read, so libnghttp2 has not closed the stream when the second is seen."""
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.open(1, f"/{SERVICE}/Lookup")
        reset = http2.frame(http2.RST_STREAM, 0, 1, struct.pack(">I", http2.CANCEL))
        connection.raw(reset + http2.frame(http2.DATA, 0, 1, b"late"))
        assert connection.expect(http2.GOAWAY).error_code == http2.STREAM_CLOSED


@needs_native
def test_data_of_a_call_that_the_server_has_ended_is_ignored_and_counted(dataset: Dataset) -> None:
    """It may have been on its way; a flood of it closes the connection."""
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.open(1, f"/{SERVICE}/Unknown")
        assert http2.ends(connection.rest(1)[-1], 1)
        connection.send(http2.DATA, 0, 1, b"on its way")
        assert connection.is_alive()
        connection.raw(http2.frame(http2.DATA, 0, 1, b"") * 60_000)
        assert connection.expect(http2.GOAWAY).error_code == http2.ENHANCE_YOUR_CALM


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize("separate_end", [False, True])
@pytest.mark.parametrize("size", [8, 4_000, 80_000])
def test_roster_is_answered_however_its_client_ends(
    dataset: Dataset, separate_end: bool, size: int
) -> None:
    roster = v1.ClassifyRosterRequest(ipv4=bytes(size)).SerializeToString()
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.open(1, f"/{SERVICE}/ClassifyRoster")
        connection.data(1, http2.message(roster), end=not separate_end)
        if separate_end:
            connection.send(http2.DATA, http2.END_STREAM, 1)
        answer = connection.body(1)
        assert connection.fields[1]["grpc-status"] == "0"
        assert v1.ClassifyRosterResponse.FromString(answer[5:]).size == size // 4


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/grpc", "0"),
        ("application/grpc+proto", "0"),
        ("application/grpc;charset=utf-8", "0"),
        ("application/grpc+proto;charset=utf-8", "0"),
        ("application/grpc+json", "12"),
        ("application/grpc+prot", "12"),
        ("application/grpc+protojson", "12"),
        ("application/grpc+", "12"),
        ("application/grpc-web", None),
        ("application/grp", None),
    ],
)
def test_messages_in_another_format_are_not_read(
    dataset: Dataset, content_type: str, status: str | None
) -> None:
    fields = dict(http2.request(f"/{SERVICE}/Lookup")) | {"content-type": content_type}
    with (
        serving_here(dataset, transport="native") as server,
        http2.Connection(server.address.port) as connection,
    ):
        connection.send(http2.HEADERS, http2.END_HEADERS, 1, http2.block(fields.items()))
        connection.data(1, http2.message(LOOKUP))
        connection.rest(1)
        found = connection.fields[1]
        assert found.get("grpc-status") == status
        assert found[":status"] == ("415" if status is None else "200")


@pytest.mark.parametrize(
    "path",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_what_a_standard_service_can_t_read_is_refused(dataset: Dataset, path: str) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        with pytest.raises(grpc.RpcError) as error:
            list(channel.stream_stream(f"/{path}")(iter([b"\xff"]), timeout=PATIENCE))
        assert error.value.code() is grpc.StatusCode.INTERNAL
        assert error.value.details() == "Exception deserializing request!"
        assert within_patience(lambda: taken(server) == (0, 0))


def test_calls_are_counted_by_how_they_end(dataset: Dataset) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        stub = stub_of(channel)
        for _ in range(3):
            stub.Lookup(v1.LookupRequest(text=CHINA, region_set="EU"))
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stub.Lookup(v1.LookupRequest())
        channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(LARGE)
        stub.Explain(v1.ExplainRequest(text=CHINA))
        rosters = [v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=bytes(8)))] * 2
        assert len(list(stub.StreamRosters(iter(rosters)))) == 2
        with pytest.raises(grpc.RpcError):
            list(stub.StreamRosters(iter([*rosters, v1.StreamRostersRequest()])))
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.RpcError):
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        watch = health.Watch(health_pb2.HealthCheckRequest())
        next(watch)
        assert counters.total([server.counters]).in_flight[Method.WATCH] == 1
        watch.cancel()
        # A client has its answer before the call is over.
        assert within_patience(lambda: not any(counters.total([server.counters]).in_flight))
        assert counted(server, Method.LOOKUP) == {"OK": 3, "INVALID_ARGUMENT": 2}
        assert counted(server, Method.CLASSIFY_ROSTER) == {"OK": 1}
        assert counted(server, Method.EXPLAIN) == {"OK": 1}
        assert counted(server, Method.STREAM_ROSTERS) == {"OK": 1, "INVALID_ARGUMENT": 1}
        assert counted(server, Method.CHECK) == {"OK": 1, "NOT_FOUND": 1}
        assert counted(server, Method.WATCH) == {"OK": 1}
        totals = counters.total([server.counters])
        assert sum(totals.addresses) == 3 + 100_000 + 1 + 8
        assert totals.verdicts["EU"] == [0, 3, 0]


def test_a_cancelled_stream_is_counted_as_such(dataset: Dataset, transport: str) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        never = threading.Event()

        def rosters() -> Iterator[v1.StreamRostersRequest]:
            yield v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=bytes(8)))
            never.wait(PATIENCE)

        call = stub_of(channel).StreamRosters(rosters())
        next(call)
        call.cancel()
        never.set()
        # gRPC's public server may hear of the requests' end before it hears why they ended.
        codes = {"CANCELLED"} if transport == "native" else {"CANCELLED", "OK"}
        assert within_patience(
            lambda: any(counted(server, Method.STREAM_ROSTERS) == {code: 1} for code in codes)
        )


class Slow:
    """A handler that works in pieces until it is told to end, or that nobody waits any more."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()
        self.code: int | None = None

    def __call__(self, _snapshot: object, _body: bytes, _limits: object, call: Call) -> bytes:
        self.begun.set()
        try:
            while not self.end.wait(0.001):
                call.check_active()
        except RequestError as error:
            self.code = int(error.code)
            raise
        return v1.ExplainResponse(country="CN").SerializeToString()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """What answers `Explain`."""
    handler = Slow()
    monkeypatch.setattr(handlers, "explain", handler)
    return handler


def test_work_ends_when_the_deadline_has_passed(dataset: Dataset, slow: Slow) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        with pytest.raises(grpc.RpcError) as error:
            # On a busy machine a shorter one may pass before the call arrives.
            stub_of(channel).Explain(v1.ExplainRequest(), timeout=1)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert within_patience(lambda: counted(server, Method.EXPLAIN) == {"DEADLINE_EXCEEDED": 1})
        assert slow.code == DEADLINE


@pytest.mark.transports("native")
@needs_native
def test_a_new_dataset_is_asked_about_known_region_sets_without_python(
    dataset: Dataset,
    transport: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bytes] = []

    def noticed(snapshot: Snapshot, body: bytes, limits: RosterLimits, call: Call) -> bytes:
        seen.append(body)
        return handlers_lookup(snapshot, body, limits, call)

    handlers_lookup = handlers.lookup
    monkeypatch.setattr(handlers, "lookup", noticed)
    with serving_here(dataset, transport="native") as server, channel_to(server) as channel:
        ask = stub_of(channel).Lookup
        for _ in range(2):
            for region_set in ("CN", "EU"):
                ask(v1.LookupRequest(text=CHINA, region_set=region_set), timeout=PATIENCE)
            assert len(seen) == 2
            server.snapshot = Snapshot(dataset)


@needs_native
def test_announced_messages_take_memory_only_as_they_come(
    dataset: Dataset,
    transport: str,  # noqa: ARG001
) -> None:
    """All large messages of a worker may take its budget, with their answers."""
    announced = struct.pack(">BI", 0, 4_000_000)
    with (
        serving_here(
            dataset, transport="native", transfer_timeout=0, memory_budget=52 << 20
        ) as server,
        channel_to(server) as channel,
        half_sent(server, f"/{SERVICE}/ClassifyRoster", 20, announced),
    ):
        assert within_patience(lambda: taken(server) == (20, 0))
        ask = channel.unary_unary(f"/{SERVICE}/ClassifyRoster")
        assert v1.ClassifyRosterResponse.FromString(ask(LARGE, timeout=PATIENCE)).size == 100_000
        with http2.Connection(server.address.port, patience=2 * PATIENCE) as connection:
            for stream in range(1, 15, 2):  # each but the last one is charged 7.8 MB
                connection.open(stream, f"/{SERVICE}/ClassifyRoster")
                connection.data(stream, announced + bytes(3_900_000), end=False)
            connection.rest(13)
            assert connection.fields[13]["grpc-status"] == "8"
            assert "memory_budget" in connection.fields[13]["grpc-message"]
            assert counters.total([server.counters]).memory == 6 * 2 * 3_900_000
            assert int(connection.fields[13]["grpc-retry-pushback-ms"]) > 0
            assert within_patience(lambda: taken(server) == (26, 0))
        assert within_patience(lambda: taken(server) == (20, 0))
        assert within_patience(lambda: counters.total([server.counters]).memory == 0)
        assert server.counters.memory_freed(6 * 2 * 3_900_000)
        assert not server.counters.memory_freed(1), "true once"


@pytest.mark.transports("threads")
def test_requests_over_the_memory_budget_are_refused_with_a_hint(dataset: Dataset) -> None:
    budget = 1 << 20
    roster = v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest.FromString(LARGE))
    body = roster.SerializeToString()
    with (
        serving_here(dataset, transport="threads", memory_budget=budget) as server,
        channel_to(server) as channel,
    ):
        ask = channel.unary_unary(f"/{SERVICE}/ClassifyRoster")
        stream = channel.stream_stream(f"/{SERVICE}/StreamRosters")
        assert ask(LARGE, timeout=PATIENCE)
        assert len(list(stream(iter([body, body]), timeout=PATIENCE))) == 2
        assert within_patience(lambda: counters.total([server.counters]).memory == 0)
        assert server.counters.take_memory(budget // 2, budget)
        for call in (
            lambda: ask(LARGE, timeout=PATIENCE),
            lambda: list(stream(iter([body]), timeout=PATIENCE)),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "memory_budget" in str(refused.value.details())
            assert hint_of(refused.value) > 0
        # A request that is not large takes none.
        assert channel.unary_unary(f"/{SERVICE}/Lookup")(LOOKUP, timeout=PATIENCE)
        server.counters.give_back_memory(budget // 2)
        assert ask(LARGE, timeout=PATIENCE)
        assert within_patience(lambda: counters.total([server.counters]).memory == 0)
        assert sum(counters.total([server.counters]).shed) == 2


@pytest.mark.transports("native")
@needs_native
def test_clients_that_stop_in_the_middle_lose_their_slots(
    dataset: Dataset,
    transport: str,  # noqa: ARG001
) -> None:
    """A request that does not come whole ends, and an answer of which nothing is taken."""
    lookup, stream = f"/{SERVICE}/Lookup", f"/{SERVICE}/StreamRosters"
    roster = v1.ClassifyRosterRequest(ipv4=bytes(20_000))
    rosters = http2.message(v1.StreamRostersRequest(roster=roster).SerializeToString())
    with (
        serving_here(dataset, transport="native", transfer_timeout=1, keepalive=0) as server,
        half_sent(server, lookup, 3),
        half_sent(server, lookup, 2, b"\0\0\0\0\x09\x0a"),
        half_sent(server, stream, 2, b"\0\0\0\0\x09\x0a"),
        http2.Connection(server.address.port) as idle,
        http2.Connection(server.address.port, values={http2.INITIAL_WINDOW_SIZE: 0}) as unread,
        http2.Connection(server.address.port) as headless,
    ):
        idle.open(1, stream)
        idle.data(1, rosters, end=False)
        unread.open(1, stream)
        unread.data(1, rosters, end=False)
        unread.call(3, f"/{SERVICE}/ClassifyRoster", roster.SerializeToString())
        headless.open(1, lookup, flags=0)
        ended = 3 + 2 + 2 + 2 + 1
        assert within_patience(lambda: counters.total([server.counters]).transfer_timeouts == ended)
        # A stream may be silent between two rosters.
        assert within_patience(lambda: taken(server) == (0, 1))
        idle.data(1, rosters)
        answers = idle.body(1)
        assert len(answers) == 2 * (5 + int.from_bytes(answers[1:5]))
        assert unread.expect(http2.RST_STREAM).error_code == http2.CANCEL
        assert headless.expect(http2.GOAWAY).error_code == http2.ENHANCE_YOUR_CALM
        assert counted(server, Method.LOOKUP) == {"DEADLINE_EXCEEDED": 5}
        totals = counters.total([server.counters])
        assert totals.calls[Method.STREAM_ROSTERS][DEADLINE] == 2
        assert totals.transfer_timeouts == ended


@pytest.mark.transports("native")
@needs_native
def test_cancelled_streams_keep_nothing_of_their_connections_window(
    dataset: Dataset,
    transport: str,  # noqa: ARG001
) -> None:
    """Rosters that wait behind one whose answer is not taken were never read."""
    roster = v1.ClassifyRosterRequest(ipv4=bytes(4 * 20_000))
    pipelined = http2.message(v1.StreamRostersRequest(roster=roster).SerializeToString()) * 5
    cancel = struct.pack(">I", http2.CANCEL)
    with (
        serving_here(dataset) as server,
        http2.Connection(server.address.port, values={http2.INITIAL_WINDOW_SIZE: 0}) as connection,
    ):
        for stream in range(1, 61, 2):  # 12 MB in all, three times a connection's window
            connection.open(stream, f"/{SERVICE}/StreamRosters")
            connection.data(stream, pipelined, end=False)
            connection.send(http2.RST_STREAM, 0, stream, cancel)
        body = v1.LookupRequest(text=CHINA).SerializeToString()
        connection.call(61, f"/{SERVICE}/Lookup", body)
        connection.send(http2.WINDOW_UPDATE, 0, 61, struct.pack(">I", 10_000))
        answer = v1.LookupResponse.FromString(connection.body(61)[5:])
        assert answer.country == "CN"


@pytest.mark.transports("native")
def test_work_ends_when_its_client_cancels(dataset: Dataset, slow: Slow) -> None:
    with (
        serving_here(dataset, transport="native") as server,
        channel_to(server) as channel,
    ):
        call = stub_of(channel).Explain.future(v1.ExplainRequest())
        assert slow.begun.wait(PATIENCE)
        call.cancel()
        assert within_patience(lambda: counted(server, Method.EXPLAIN) == {"CANCELLED": 1})
        assert slow.code == CANCELLED
        assert within_patience(lambda: taken(server) == (0, 0))


def test_small_calls_do_not_wait_for_large_ones(dataset: Dataset, slow: Slow) -> None:
    with serving_here(dataset, threads=2) as server, channel_to(server) as channel:
        call = stub_of(channel).Explain.future(v1.ExplainRequest())
        assert slow.begun.wait(PATIENCE)
        for _ in range(20):
            assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
        assert not call.done()
        slow.end.set()
        assert call.result().country == "CN"


def test_an_error_that_comes_often_keeps_nothing_of_the_calls(dataset: Dataset) -> None:
    """One exception raised again and again would keep each frame, and the requests in them."""
    calls = Calls(Settings(), Counters(), Snapshot(dataset))

    def fails(*_: object) -> bytes:
        raise ValueError

    def depth(deadline: float | None) -> int:
        with pytest.raises(RequestError) as caught:
            calls.begin(Method.LOOKUP, accepted=0, deadline=deadline).answer(LOOKUP)
        return len(list(caught.traceback))

    assert len({depth(0.0) for _ in range(5)}) == 1
    calls._handlers[Method.LOOKUP] = fails
    assert len({depth(None) for _ in range(5)}) == 1


def fail(*_: object) -> None:
    raise ValueError


ENDED: dict[str, tuple[str, Any]] = {
    "Lookup": (f"{SERVICE}/Lookup", LOOKUP),
    "Lookup, refused": (f"{SERVICE}/Lookup", b"\xff"),
    "Explain": (f"{SERVICE}/Explain", EXPLAIN),
    "Explain, refused": (f"{SERVICE}/Explain", b"\xff"),
    "ListRegionSets, failed": (f"{SERVICE}/ListRegionSets", b""),
    "StreamRosters": (
        f"{SERVICE}/StreamRosters",
        v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=b"")),
    ),
    "StreamRosters, refused": (f"{SERVICE}/StreamRosters", b"\xff"),
    "Check": ("grpc.health.v1.Health/Check", b""),
    "Check, refused": ("grpc.health.v1.Health/Check", b"\x0a\x01x"),
    "Reflection": ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\x3a\x00"),
    "Reflection, refused": (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        b"\xff",
    ),
    "unknown": ("x/y", b""),
}


@pytest.mark.parametrize("name", ENDED)
def test_a_call_that_is_over_is_let_go_of_at_once(
    dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC counts a call as open, and refuses others, as long as there is an object of it."""
    path, request = ENDED[name]
    body = request if isinstance(request, bytes) else request.SerializeToString()
    monkeypatch.setattr(handlers, "list_region_sets", fail)
    with (
        serving_here(dataset, max_calls=2, max_streams=2) as server,
        channel_to(server) as channel,
    ):
        gc.disable()
        try:
            for _ in range(60):  # of 16 that gRPC lets be open
                call = channel.stream_stream(f"/{path}")(iter([body]), timeout=PATIENCE)
                with contextlib.suppress(grpc.RpcError):
                    list(call)
                assert call.code() is not grpc.StatusCode.UNAVAILABLE
                assert within_patience(lambda: taken(server) == (0, 0))
        finally:
            gc.enable()


def test_a_watch_that_is_over_is_let_go_of_at_once(dataset: Dataset) -> None:
    with (
        serving_here(dataset, max_calls=2, max_streams=2) as server,
        channel_to(server) as channel,
    ):
        gc.disable()
        try:
            for _ in range(60):
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                assert states(watch, 1) == ["SERVING"]
                watch.cancel()
                assert within_patience(lambda: taken(server) == (0, 0))
        finally:
            gc.enable()


@pytest.mark.parametrize("ended", ["cancelled", "refused", "ended"])
def test_dataset_of_streams_that_are_over_is_let_go_of_at_once(
    small_file: Path, ended: str
) -> None:
    """An idle worker collects no cycles, and would keep a dataset mapped that is replaced."""
    body = ENDED["StreamRosters"][1].SerializeToString()
    with geolookup.open(small_file) as first, geolookup.open(small_file) as second:
        kept = weakref.ref(replaced := Snapshot(first))
        with serving_here(second) as server, channel_to(server) as channel:
            server.snapshot = replaced
            del replaced
            gc.disable()
            try:
                for _ in range(20):
                    rosters: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
                    rosters.put(body)
                    call = channel.stream_stream(f"/{SERVICE}/StreamRosters")(
                        iter(rosters.get, None), timeout=PATIENCE
                    )
                    next(call)  # it is under way
                    if ended == "cancelled":
                        call.cancel()
                    rosters.put(b"\xff" if ended == "refused" else None)
                    with contextlib.suppress(grpc.RpcError):
                        list(call)
                server.snapshot = Snapshot(second)
                assert within_patience(lambda: kept() is None)
            finally:
                gc.enable()


def test_large_and_small_rosters_of_a_stream_are_answered_in_order(dataset: Dataset) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        sizes = [1, 50_000, 2, 20_000, 0, 100_000, 3] * 3

        def rosters() -> Iterator[v1.StreamRostersRequest]:
            for size in sizes:
                roster = v1.ClassifyRosterRequest(ipv4=bytes(4 * size))
                yield v1.StreamRostersRequest(roster=roster)

        answers = stub_of(channel).StreamRosters(rosters(), timeout=PATIENCE)
        assert [answer.roster.size for answer in answers] == sizes


@pytest.mark.transports("native")
@needs_native
def test_a_failure_in_a_thread_ends_one_call_and_not_the_thread(
    dataset: Dataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving_here(dataset, transport="native", threads=1, max_calls=2) as server,
        channel_to(server) as channel,
    ):
        ask = channel.unary_unary(f"/{SERVICE}/Explain")
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            # What an answer is sent with takes bytes alone.
            patch.setattr(handlers, "explain", lambda *_: "100.99.98.97")
            server._calls._handlers[Method.EXPLAIN] = handlers.explain
            for _ in range(4):
                with pytest.raises(grpc.RpcError) as error:
                    ask(EXPLAIN, timeout=PATIENCE)
                assert error.value.code() is grpc.StatusCode.INTERNAL
        assert [record.getMessage() for record in caplog.records] == ["call_failed"] * 4
        assert "100.99" not in caplog.text
        assert within_patience(lambda: taken(server) == (0, 0))
        server._calls._handlers[Method.EXPLAIN] = handlers.explain
        assert ask(EXPLAIN, timeout=PATIENCE)
        assert server.stop(PATIENCE).wait(PATIENCE)


@pytest.mark.transports("native")
@needs_native
@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [(4, 1, 16, 4), (4, 2, 16, 2), (2, 4, 16, 1), (4, 1, 3, 3)],
)
def test_rosters_have_a_thread_for_each_core_of_a_worker(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    workers: int,
    threads: int,
    expected: int,
) -> None:
    from geolookup.service.rpc.transports import native  # noqa: PLC0415 - not there everywhere

    monkeypatch.setattr(native, "available_cores", lambda: cores)
    assert within_patience(lambda: not loops())
    with serving_here(dataset, transport="native", workers=workers, threads=threads):
        assert sum(name.startswith("geolookup-roster") for name in loops()) == expected


# health watches


def states(watch: Any, number: int) -> list[str]:
    names = health_pb2.HealthCheckResponse.ServingStatus
    return [names.Name(next(watch).status) for _ in range(number)]


def test_health_watch_receives_changes(dataset: Dataset) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch
        ours, unknown = (
            watching(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
            for name in (SERVICE, "unknown")
        )
        assert states(ours, 1) == ["SERVING"]
        assert states(unknown, 1) == ["SERVICE_UNKNOWN"]
        for serving, state in ((False, "NOT_SERVING"), (True, "SERVING")) * 3:
            server._transport.health(serving)
            assert states(ours, 1) == [state]
        server._transport.health(False)
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest()).status == 2  # NOT_SERVING
        assert states(ours, 1) == ["NOT_SERVING"]
        stopped = server.stop(PATIENCE)
        assert stopped.wait(PATIENCE)
        for watch in (ours, unknown):
            with pytest.raises(grpc.RpcError) as error:
                list(watch)
            # The second: its connection was closed before it had read the end of the call.
            codes = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            assert error.value.code() in codes


def test_changes_from_many_threads_reach_watches_that_come_and_go(dataset: Dataset) -> None:
    with serving_here(dataset, max_streams=20) as server, channel_to(server) as channel:
        end = threading.Event()

        def change() -> None:
            while not end.is_set():
                for serving in (True, False):
                    server._transport.health(serving)

        with ThreadPoolExecutor(4) as pool:
            changing = [pool.submit(change) for _ in range(2)]
            for number in range(60):
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                states(watch, number % 4)
                watch.cancel()
            end.set()
            for one in changing:
                one.result(PATIENCE)
        server._transport.health(True)
        last = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert states(last, 1) == ["SERVING"]
        last.cancel()
        assert within_patience(lambda: taken(server) == (0, 0))


# stopping


def loops() -> list[str]:
    """Return the threads of native transports: their loops, and those that work for them."""
    names = (thread.name for thread in threading.enumerate())
    ours = ("geolookup-loop", "geolookup-work", "geolookup-roster")
    return [name for name in names if name.startswith(ours)]


def test_a_server_without_calls_stops_at_once(dataset: Dataset) -> None:
    with serving_here(dataset) as server:
        address = (server.address.host, server.address.port)
        assert server.stop(10 * PATIENCE).wait(PATIENCE)
        assert server.stop(0).wait(PATIENCE)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, timeout=PATIENCE)
    assert within_patience(lambda: not loops())


def test_calls_in_flight_finish_and_new_ones_are_refused(dataset: Dataset, slow: Slow) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        working = stub_of(channel).Explain.future(v1.ExplainRequest())
        held = Held(channel)
        assert slow.begun.wait(PATIENCE)
        assert within_patience(lambda: taken(server) == (2, 0))
        stopped = server.stop(PATIENCE)
        assert within_patience(lambda: unavailable(channel))
        assert not stopped.wait(0.1)
        slow.end.set()
        assert working.result().country == "CN"
        assert not stopped.wait(0.1)
        held.go_on()
        assert v1.LookupResponse.FromString(held.call.result()).country == "CN"
        assert stopped.wait(PATIENCE)
        assert taken(server) == (0, 0)


def unavailable(channel: Any) -> bool:
    call = channel.unary_unary(f"/{SERVICE}/Lookup").future(LOOKUP, timeout=PATIENCE)
    return call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("graces", [(0.05,), (10 * PATIENCE, 0.05), (10 * PATIENCE, 0)])
def test_calls_that_outlast_the_shortest_grace_are_cancelled(
    dataset: Dataset, slow: Slow, graces: tuple[float, ...]
) -> None:
    with serving_here(dataset) as server, channel_to(server) as channel:
        working = stub_of(channel).Explain.future(v1.ExplainRequest(), timeout=0.5)
        stream = channel.stream_stream(f"/{SERVICE}/StreamRosters")(iter(slow.end.wait, True))
        assert slow.begun.wait(PATIENCE)
        with half_sent(server, f"/{SERVICE}/Lookup", 3, b"\0\0"):
            assert within_patience(lambda: taken(server) == (4, 1))
            stopped = [server.stop(grace) for grace in graces]
            assert all(one.wait(PATIENCE) for one in stopped)
        slow.end.set()
        for call in (working, stream):
            assert call.exception(PATIENCE) is not None
        assert within_patience(lambda: taken(server) == (0, 0))
    assert within_patience(lambda: not loops())


def test_unread_health_watch_blocks_neither_health_nor_a_stop(dataset: Dataset) -> None:
    """gRPC's own health service, as its server runs it, waits for such a client."""
    with serving_here(dataset) as server, channel_to(server) as channel:
        connection = socket.create_connection((server.address.host, server.address.port))
        with connection:
            # Its window is 0, so what it is told can't be sent. It takes the server's settings.
            closed = frame(4, 0, 0, b"\x00\x04" + bytes(4)) + frame(4, 1, 0, b"")
            request = frame(0, 1, 1, bytes(5))
            begun = headers("/grpc.health.v1.Health/Watch", 1)
            connection.sendall(BEGIN[:24] + closed + begun + request)
            assert within_patience(lambda: taken(server) == (0, 1))
            for serving in (False, True):
                server._transport.health(serving)
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
            stopped = server.stop(10 * PATIENCE)
            assert within_patience(lambda: taken(server) == (0, 0))
            # The connection, whose other end answers nothing, has its grace.
            assert server.stop(0).wait(PATIENCE)
            assert stopped.wait(PATIENCE)


def test_a_stop_under_load_loses_no_call_that_was_begun(dataset: Dataset) -> None:
    """What was begun is answered; what comes later is refused, and not tried."""
    for _ in range(3):
        with serving_here(dataset) as server:
            codes: set[grpc.StatusCode] = set()
            first = threading.Barrier(5)

            def client(
                server: Server = server, first: threading.Barrier = first, codes: Any = codes
            ) -> None:
                with channel_to(server) as channel:
                    ask = channel.unary_unary(f"/{SERVICE}/ClassifyRoster")
                    ask(LARGE, timeout=PATIENCE)
                    first.wait(PATIENCE)
                    for _ in range(1_000):
                        try:
                            ask(LARGE, timeout=PATIENCE)
                        except grpc.RpcError as error:
                            codes.add(error.code())
                            return

            with ThreadPoolExecutor(4) as pool:
                clients = [pool.submit(client) for _ in range(4)]
                first.wait(PATIENCE)
                time.sleep(0.02)
                assert server.stop(PATIENCE).wait(PATIENCE)
                for one in clients:
                    one.result(PATIENCE)
            # gRPC itself cancels what arrives before its client has heard of the stop.
            assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert list(counted(server, Method.CLASSIFY_ROSTER)) == ["OK"]
            assert taken(server) == (0, 0)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_settings(tmp_path: Any, authority: trustme.CA) -> dict[str, Any]:
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "chain")
    return {"tls_certificate": tmp_path / "chain", "tls_key": tmp_path / "key"}


@contextlib.contextmanager
def secured(
    server: Server, authority: trustme.CA, name: str | None = None
) -> Iterator[grpc.Channel]:
    issued = authority.issue_cert(name) if name else None
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        issued and issued.private_key_pem.bytes(),
        issued and issued.cert_chain_pems[0].bytes(),
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{server.address.port}", credentials, options) as channel:
        yield channel


def test_tls_is_spoken(
    dataset: Dataset, authority: trustme.CA, tls_settings: dict[str, Any]
) -> None:
    with serving_here(dataset, **tls_settings) as server:
        with secured(server, authority) as channel:
            assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
        with secured(server, trustme.CA()) as channel, pytest.raises(grpc.RpcError):
            stub_of(channel).Lookup(v1.LookupRequest(text=CHINA))
        assert counters.total([server.counters]).handshakes >= 2


def looked_up(stream: int) -> bytes:
    """Return the frames of a whole `Lookup`."""
    return headers(f"/{SERVICE}/Lookup", stream) + frame(0, 1, stream, http2.message(LOOKUP))


def until_ended(connection: http2.Connection, streams: int) -> Iterator[Any]:
    """Yield the frames that end streams, up to as many."""
    for found in connection.frames():
        if http2.ends(found, found.stream_id):
            yield found
            streams -= 1
            if not streams:
                return


@pytest.mark.transports("native")
@needs_native
def test_calls_that_come_while_answers_wait_are_answered_over_tls(
    dataset: Dataset,
    authority: trustme.CA,
    tls_settings: dict[str, Any],
    transport: str,  # noqa: ARG001
) -> None:
    """What OpenSSL has read already is not forgotten: the system says nothing of it."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2"])
    dataset_of = f"/{SERVICE}/GetDataset"
    with serving_here(dataset, transport="native", max_calls=2_048, **tls_settings) as server:
        with http2.Connection(
            server.address.port, values={http2.INITIAL_WINDOW_SIZE: 1 << 28}, tls=trusting
        ) as connection:
            connection.send(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 28))
            for stream in range(1, 1_200, 2):  # more than the system takes unread
                connection.call(stream, dataset_of, b"")
            assert within_patience(lambda: counted(server, Method.GET_DATASET) == {"OK": 600})
            for first in range(1_201, 4_000, 400):  # records that end within a turn's bytes
                some = range(first, first + 400, 2)
                connection.raw(b"".join(looked_up(stream) for stream in some))
            ended = {found.stream_id for found in until_ended(connection, 1_400 + 600)}
            assert len(ended) == 1_400 + 600
        assert within_patience(lambda: taken(server) == (0, 0))


def test_client_without_permission_is_refused_before_any_handler(
    dataset: Dataset, authority: trustme.CA, tls_settings: dict[str, Any], tmp_path: Any
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "clients")
    one = frozenset({"one.test"})
    settings = {
        **tls_settings,
        "tls_client_ca": tmp_path / "clients",
        "allow": {"*": one, "Watch": one, "Lookup": frozenset({"one.test", "two.test"})},
    }
    with serving_here(dataset, **settings) as server:
        with secured(server, authority, "one.test") as channel:
            stub = stub_of(channel)
            assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
            assert stub.Explain(v1.ExplainRequest(text=CHINA)).country == "CN"
            roster = v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=bytes(4)))
            assert len(list(stub.StreamRosters(iter([roster])))) == 1
        with secured(server, authority, "two.test") as channel:
            stub = stub_of(channel)
            assert stub.Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == 1
            reflect = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )
            # Not even what is no request is looked at.
            for name, ask in {
                "Explain": lambda: stub.Explain(v1.ExplainRequest()),
                "ClassifyRoster": lambda: channel.unary_unary(f"/{SERVICE}/ClassifyRoster")(
                    b"\xff"
                ),
                "StreamRosters": lambda: list(stub.StreamRosters(iter([roster]))),
                "Watch": lambda: list(health.Watch(health_pb2.HealthCheckRequest())),
                "ServerReflectionInfo": lambda: list(reflect(iter([b"\x3a\x00"]))),
            }.items():
                with pytest.raises(grpc.RpcError) as error:
                    ask()
                assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert error.value.details() == f"{name}: this client may not call it"
        assert within_patience(lambda: taken(server) == (0, 0))
        assert counted(server, Method.EXPLAIN) == {"OK": 1, "PERMISSION_DENIED": 1}


@pytest.mark.transports("native")
@needs_native
def test_a_new_certificate_is_in_use_though_nobody_connected_since(
    dataset: Dataset, tls_settings: dict[str, Any]
) -> None:
    """Whoever only reads the metrics learns of it, and of one that is refused."""
    other = trustme.CA()
    issued = other.issue_cert("localhost")
    with serving_here(dataset, transport="native", watch=0.1, **tls_settings) as server:

        def reads() -> list[int]:
            return counters.total([server.counters]).certificate_reads

        assert reads() == [0, 1]
        issued.private_key_pem.write_to_path(tls_settings["tls_key"])
        issued.cert_chain_pems[0].write_to_path(tls_settings["tls_certificate"])
        assert within_patience(lambda: reads()[1] == 2)
        with secured(server, other) as channel:
            assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
        tls_settings["tls_certificate"].write_text("none")
        assert within_patience(lambda: reads() == [1, 2])
        with secured(server, other) as channel:
            assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).country == "CN"


# which transport there is


def test_the_setting_names_the_transport_that_carries_calls(
    dataset: Dataset, transport: str
) -> None:
    with serving_here(dataset) as server:
        assert isinstance(server._transport, ThreadTransport) is (transport == "threads")


@pytest.mark.parametrize("tls", [False, True])
def test_without_its_libraries_the_public_server_takes_the_place_of_the_native_transport(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tls_settings: dict[str, Any],
    authority: trustme.CA,
    tls: bool,
) -> None:
    reason = "geolookup was built without it"
    monkeypatch.setattr(transports.build, "missing", lambda **_: reason)
    settings = Settings(transport="native", **tls_settings if tls else {})
    assert transports.chosen(settings) == ("threads", reason)
    with (
        caplog.at_level(logging.WARNING),
        serving_here(dataset, transport="native", **tls_settings if tls else {}) as server,
        secured(server, authority) if tls else channel_to(server) as channel,
    ):
        assert isinstance(server._transport, ThreadTransport)
        assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).country == "CN"
    (record,) = caplog.records
    assert (record.getMessage(), record.fields) == (  # type: ignore[attr-defined]
        "transport",
        {"transport": "threads", "reason": reason},
    )


@pytest.mark.transports("native")
@needs_native
def test_tls_needs_openssl_and_plaintext_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from geolookup import _http2  # noqa: PLC0415 - not there everywhere

    assert transports.build.missing() is None
    monkeypatch.setattr(_http2, "HAS_TLS", False)
    assert transports.build.missing() is None
    assert "OpenSSL" in (transports.build.missing(tls=True) or "")


def test_without_libnghttp2_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geolookup._http2", None)
    monkeypatch.delattr(geolookup, "_http2", raising=False)
    assert "libnghttp2" in (transports.build.missing() or "")
