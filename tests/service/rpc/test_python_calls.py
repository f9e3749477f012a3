"""Calls that the native transport leaves to Python: messages, headers, trailers, ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import http2
import pytest
from servers import PATIENCE

from geolookup import Dataset
from geolookup.service import Settings
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc.calls import Calls
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.settings import ListenAddress

pytest.importorskip("geolookup._http2", reason="geolookup was built without the native transport")

from conformance.echo import Call, Conversation, RefusalError, stream, unary

from geolookup.service.rpc.transports.native import NativeTransport

HEADERS = [("x-header", "some text"), ("x-header-bin", b"\0\xff,"), ("x-twice", "1")]
TRAILERS = [("x-trailer-bin", bytes(range(7))), ("x-twice", "2"), ("x-twice", "3")]


def add_fields(call: Call) -> None:
    call.headers += HEADERS
    call.trailers += TRAILERS


def double(call: Call, body: bytes) -> bytes:
    add_fields(call)
    if body == b"refuse":
        raise RefusalError(9, "not té%d\n", [])
    return body * 2


def shown(call: Call, _body: bytes) -> bytes:
    return repr([pair for pair in call.metadata if pair[0].startswith("x-")]).encode()


def count_down(call: Call) -> Conversation:
    """Answer a client's one number with all below it."""
    add_fields(call)
    body = yield None
    assert body is not None
    for number in range(int(body), 0, -1):
        yield b"%d" % number


def sum_up(call: Call) -> Conversation:
    total = 0
    while (body := (yield None)) is not None:
        total += int(body)
    add_fields(call)
    yield b"%d" % total


def twice_each(_call: Call) -> Conversation:
    while (body := (yield None)) is not None:
        if body == b"refuse":
            raise RefusalError(9, "no more")
        yield body
        yield body


METHODS = {
    "/test/Double": unary(double),
    "/test/Shown": unary(shown),
    "/test/CountDown": stream(count_down),
    "/test/SumUp": stream(sum_up),
    "/test/TwiceEach": stream(twice_each),
}


@pytest.fixture(scope="module")
def port(dataset: Dataset) -> Iterator[int]:
    settings = Settings(listen="127.0.0.1:0")
    transport = NativeTransport(
        settings,
        Calls(settings, Counters(), Snapshot(dataset)),
        ListenAddress("127.0.0.1", 0),
        share_port=False,
        more=METHODS,
    )
    yield transport.address.port
    assert transport.stop(0).wait(PATIENCE)


@pytest.fixture
def channel(port: int) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as connected:
        yield connected


def own(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(name, value) for name, value in metadata if name.startswith("x-")]


def test_unary_call_gets_headers_answer_and_trailers(channel: Any) -> None:
    answer, call = channel.unary_unary("/test/Double").with_call(b"ab", timeout=PATIENCE)
    assert answer == b"abab"
    assert sorted(own(call.initial_metadata())) == sorted(HEADERS)
    assert sorted(own(call.trailing_metadata())) == sorted(TRAILERS)


def test_refused_call_gets_headers_trailers_and_details(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test/Double")(b"refuse", timeout=PATIENCE)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not té%d\n")
    assert sorted(own(error.initial_metadata())) == sorted(HEADERS)
    assert sorted(own(error.trailing_metadata())) == sorted(TRAILERS)
    assert dict(error.trailing_metadata())["grpc-status-details-bin"].startswith(b"\x08\x09")


def test_metadata_is_decoded_where_its_name_says_binary(channel: Any) -> None:
    sent = (("x-one", "text"), ("x-two-bin", b""), ("x-two-bin", b"\0,\xff"), ("x-one", "again"))
    shown = channel.unary_unary("/test/Shown")(b"", metadata=sent, timeout=PATIENCE)
    assert sorted(eval(shown)) == sorted(sent)  # noqa: S307 - our own repr


@pytest.mark.parametrize(
    ("value", "expected"),
    [("AP8=", b"\0\xff"), ("AP8", b"\0\xff"), ("AP8,AQ", b"\0\xff|\1"), ("A", b""), ("%%", b"")],
)
def test_binary_metadata_of_any_client_is_read(port: int, value: str, expected: bytes) -> None:
    with http2.Connection(port) as connection:
        connection.call(1, "/test/Shown", http2.message(b""), ("x-two-bin", value))
        found = eval(connection.body(1)[5:])  # noqa: S307 - our own repr
    assert b"|".join(value for _, value in found) == expected


@pytest.mark.parametrize("number", [0, 1, 200])
def test_one_message_is_answered_with_any_number(channel: Any, number: int) -> None:
    call = channel.unary_stream("/test/CountDown")(b"%d" % number, timeout=PATIENCE)
    assert [int(one) for one in call] == [*range(number, 0, -1)]
    assert sorted(own(call.initial_metadata())) == sorted(HEADERS)
    assert sorted(own(call.trailing_metadata())) == sorted(TRAILERS)


@pytest.mark.parametrize("number", [0, 1, 200])
def test_any_number_of_messages_is_answered_with_one(channel: Any, number: int) -> None:
    numbers = (b"%d" % one for one in range(number))
    answer, call = channel.stream_unary("/test/SumUp").with_call(numbers, timeout=PATIENCE)
    assert int(answer) == sum(range(number))
    assert sorted(own(call.trailing_metadata())) == sorted(TRAILERS)


def test_each_message_is_answered_twice_before_the_next(channel: Any) -> None:
    call = channel.stream_stream("/test/TwiceEach")
    sent = [b"%d" % one for one in range(100)]
    assert [*call(iter(sent), timeout=PATIENCE)] == [one for one in sent for _ in range(2)]


def test_stream_that_is_refused_keeps_what_was_answered(channel: Any) -> None:
    call = channel.stream_stream("/test/TwiceEach")(iter([b"1", b"refuse", b"2"]), timeout=PATIENCE)
    assert [next(call), next(call)] == [b"1", b"1"]
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_cancelled_stream_gives_its_slot_back(channel: Any) -> None:
    """Of 64: more of them are begun, one after the other."""
    method = channel.stream_stream("/test/TwiceEach")
    for _ in range(100):
        call = method(iter([b"1"] * 3), timeout=PATIENCE, wait_for_ready=True)
        assert next(call) == b"1"
        call.cancel()


def test_too_many_fields_end_the_call_and_no_thread(dataset: Dataset) -> None:
    def flood(call: Call, body: bytes) -> bytes:
        call.headers += [("x-many", "1")] * (65 if body else 64)
        return body

    settings = Settings(listen="127.0.0.1:0", threads=1)
    transport = NativeTransport(
        settings,
        Calls(settings, Counters(), Snapshot(dataset)),
        ListenAddress("127.0.0.1", 0),
        share_port=False,
        more={"/test/Flood": unary(flood)},
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{transport.address.port}") as channel:
            method = channel.unary_unary("/test/Flood")
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as caught:
                    method(b"1", timeout=PATIENCE)
                assert caught.value.code() is grpc.StatusCode.INTERNAL
                assert method(b"", timeout=PATIENCE) == b""
    finally:
        assert transport.stop(0).wait(PATIENCE)
