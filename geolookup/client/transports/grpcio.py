"""Calls over channels of grpcio, for threads and for event loops."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from geolookup.client import wire
from geolookup.client.failures import Failure, closed


class _Channel:
    """A channel and its methods, by name.

    Without serialisers: bytes are made and read by `wire`, where an error becomes
    one of our own and is not logged by gRPC.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.unary: dict[str, Any] = {name: channel.unary_unary(name) for name in wire.UNARY}
        self.stream_rosters: Any = channel.stream_stream(wire.STREAM_ROSTERS)


class _Calls:
    """The channels of a client, which take turns.

    Args:
        target: whom to ask.
        credentials: for TLS; None: no TLS.
        options: channel options.
        count: channels.
    """

    _package: Any

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, object]],
        count: int,
    ) -> None:
        make = self._package
        self._channels = [
            _Channel(
                make.insecure_channel(target, options)
                if credentials is None
                else make.secure_channel(target, credentials, options)
            )
            for _ in range(count)
        ]
        # Of an endless iterator, one step is one indivisible act among threads.
        self._turns = itertools.cycle(self._channels)
        self._closed = False


class ThreadCalls(_Calls):
    """Makes calls, each waited for in its caller's thread. Thread-safe."""

    _package = grpc

    def call(self, method: str, body: bytes, timeout: float) -> bytes | Failure:
        """Make a call, and return the answer or how it failed.

        Raises:
            ServiceError: the client was closed.
        """
        try:
            answer: bytes = next(self._turns).unary[method](body, timeout=timeout)
            return answer
        except grpc.RpcError as error:
            failure = Failure.of(error)
        except ValueError:  # gRPC's for a closed channel
            if not self._closed:
                raise
            failure = None
        # Here and not above, so that gRPC's texts are no part of the traceback.
        if failure is None or self._closed:
            raise closed()
        return failure

    def stream_rosters(self, bodies: Iterator[bytes]) -> Any:
        """Begin a stream, and return gRPC's call.

        Raises:
            ServiceError: the client was closed.
        """
        try:
            return next(self._turns).stream_rosters(bodies)
        except ValueError:
            if not self._closed:
                raise
        raise closed()

    def close(self) -> None:
        """End all calls and connections."""
        self._closed = True
        for one in self._channels:
            one.channel.close()


class LoopCalls(_Calls):
    """Makes calls in the event loop in which it is made."""

    _package = grpc.aio

    async def call(self, method: str, body: bytes, timeout: float) -> bytes | Failure:
        """Make a call, and return the answer or how it failed.

        Raises:
            ServiceError: the client was closed.
        """
        if self._closed:
            raise closed()
        try:
            answer: bytes = await next(self._turns).unary[method](body, timeout=timeout)
            return answer
        except grpc.aio.AioRpcError as error:
            failure = Failure.of(error)
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # gRPC cancels the calls of a channel that is closed.
            if not self._closed or is_cancelled():
                raise
            failure = None
        if failure is None or self._closed:
            raise closed()
        return failure

    def stream_rosters(self, bodies: AsyncIterator[bytes]) -> Any:
        """Begin a stream, and return gRPC's call.

        Raises:
            ServiceError: the client was closed.
        """
        if self._closed:
            raise closed()
        return next(self._turns).stream_rosters(bodies)

    async def close(self) -> None:
        """End all calls and connections."""
        self._closed = True
        for one in self._channels:
            await one.channel.close()


def is_cancelled() -> bool:
    """Say whether the caller's task was cancelled, and not just its call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
