"""Calls that last are cancelled when the server stops, whenever they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from geolookup.service.grpc_threads import LongLivedCalls

PATIENCE = 30


class Context:
    """A call that ends when it is told to."""

    def __init__(self, *, ended: bool = False) -> None:
        self.cancelled = 0
        self._ended = ended
        self._callbacks: list[Callable[[], None]] = []

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if not self._ended:
            self._callbacks.append(callback)
        return not self._ended

    def cancel(self) -> None:
        self.cancelled += 1

    def end(self) -> None:
        self._ended = True
        while self._callbacks:
            self._callbacks.pop()()


@pytest.fixture
def calls() -> LongLivedCalls:
    return LongLivedCalls()


def begin(calls: LongLivedCalls, context: Context) -> object:
    return calls.tracked(lambda *arguments: arguments)("request", context)


def test_tracked_behaviour_gets_all_arguments(calls: LongLivedCalls) -> None:
    context = Context()
    behaviour = calls.tracked(lambda *arguments: arguments)
    assert behaviour("request", context, "more") == ("request", context, "more")
    assert context.cancelled == 0


def test_cancel_reaches_calls_under_way(calls: LongLivedCalls) -> None:
    contexts = [Context() for _ in range(3)]
    for context in contexts:
        begin(calls, context)
    calls.cancel()
    assert [context.cancelled for context in contexts] == [1, 1, 1]


def test_cancel_reaches_later_calls(calls: LongLivedCalls) -> None:
    calls.cancel()
    context = Context()
    begin(calls, context)
    assert context.cancelled == 1


def test_ended_calls_are_dropped(calls: LongLivedCalls) -> None:
    ended, before = Context(), Context(ended=True)
    begin(calls, ended)
    begin(calls, before)
    ended.end()
    assert not calls._contexts
    calls.cancel()
    assert (ended.cancelled, before.cancelled) == (0, 0)


def test_call_that_ends_inside_its_cancellation_does_not_block(calls: LongLivedCalls) -> None:
    class EndsAtOnce(Context):
        def cancel(self) -> None:
            super().cancel()
            self.end()  # in the same thread, in the middle of it

    contexts = [EndsAtOnce() for _ in range(3)]
    for context in contexts:
        begin(calls, context)
    calls.cancel()
    assert not calls._contexts


@pytest.fixture
def server() -> Iterator[tuple[Any, LongLivedCalls, str]]:
    """A server whose one method never ends by itself."""
    calls = LongLivedCalls()
    begun = threading.Semaphore(0)

    def wait(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield b"begun"
        begun.release()
        ended.wait(PATIENCE)

    running = grpc.server(ThreadPoolExecutor(8))
    handler = grpc.unary_stream_rpc_method_handler(calls.tracked(wait))
    running.add_registered_method_handlers("test", {"Wait": handler})
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield running, calls, f"127.0.0.1:{port}"
    finally:
        running.stop(0).wait(PATIENCE)


def test_stop_with_a_long_grace_does_not_wait_for_long_lived_calls(
    server: tuple[Any, LongLivedCalls, str],
) -> None:
    running, calls, target = server
    with grpc.insecure_channel(target) as channel:
        streams = [channel.unary_stream("/test/Wait")(b"") for _ in range(3)]
        for stream in streams:
            assert next(stream) == b"begun"
        stopped = running.stop(10 * PATIENCE)
        calls.cancel()
        assert stopped.wait(PATIENCE)
        for stream in streams:
            # Its status, or the end of the connection, whichever was quicker.
            assert stream.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    assert not calls._contexts
