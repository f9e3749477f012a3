"""How calls are made from Python: a stream of grpcio, or geolookup's own clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from typing import Any, Protocol

import grpc
import grpc.aio

from bench.load.plan import ENDED, OK, Plan
from bench.load.work import Blend, Call, Drawing, address_of
from geolookup.client import AsyncClient, Client
from geolookup.client.channel import channel_options
from geolookup.errors import (
    GeoLookupError,
    RegionSetError,
    RosterError,
    RosterTooLargeError,
)

_CONNECTING = 5.0
"""Seconds to wait for connections before a run. One that is not there by then is left to
the calls, whose statuses tell."""


_WROTE_TOO_LATE = "Internal error from Core"


class Sender(Protocol):
    """Makes one call after the other."""

    async def connect(self) -> None:
        """Open the connections, so that no measured call waits for one."""

    async def send(self, call: Call) -> str:
        """Make a call and return its status: `OK` or gRPC's name of another."""

    async def close(self) -> None:
        """Close the connections."""


def sender_of(plan: Plan, drawing: Drawing) -> Sender:
    """Return what makes the calls of a plan."""
    if plan.scenario in {"client-joins", "coalesced"}:
        return _ClientLookups(plan, drawing)
    return _Streams(plan)


def _channels(plan: Plan) -> list[grpc.aio.Channel]:
    # Without retries: what fails is to be seen.
    options = channel_options(plan.target.options)
    credentials = plan.target.credentials
    return [
        grpc.aio.insecure_channel(plan.target.address, options)
        if credentials is None
        else grpc.aio.secure_channel(plan.target.address, credentials, options)
        for _ in range(plan.connections)
    ]


class _ClientLookups:
    """Lookups through `AsyncClient`, as an application makes them."""

    def __init__(self, plan: Plan, drawing: Drawing) -> None:
        self._client = AsyncClient(
            plan.target.address,
            timeout=plan.timeout,
            credentials=plan.target.credentials,
            options=plan.target.options,
            channels=plan.connections,
            retry=None,
            coalesce=plan.scenario == "coalesced",
        )
        self._region_set = plan.blend.region_set or None
        self._addresses = itertools.cycle(addresses(drawing, plan.blend))
        self._connections = plan.connections

    async def connect(self) -> None:
        for _ in range(self._connections):  # they take turns
            with contextlib.suppress(GeoLookupError):
                await self._client.lookup(next(self._addresses), self._region_set)

    async def send(self, _call: Call) -> str:
        try:
            await self._client.lookup(next(self._addresses), self._region_set)
        except GeoLookupError as error:
            return status_of(error)
        return OK

    async def close(self) -> None:
        await self._client.close()


def addresses(drawing: Drawing, blend: Blend) -> list[bytes | str]:
    """Return addresses for a client's `lookup`."""
    return [address_of(*row, blend) for row in drawing.several(4_096)]


def threaded_client(plan: Plan) -> Client:
    """Return the client whose lookups threads make; once asked, so that it is connected."""
    client = Client(
        plan.target.address,
        timeout=plan.timeout,
        credentials=plan.target.credentials,
        options=plan.target.options,
        channels=plan.connections,
        retry=None,
        coalesce=plan.scenario == "thread-coalesced",
    )
    for _ in range(plan.connections):
        with contextlib.suppress(GeoLookupError):
            client.country("0.0.0.0")  # noqa: S104 - of the special-purpose registry, nobody's
    return client


def status_of(error: GeoLookupError) -> str:
    """Return gRPC's status behind an error of geolookup's clients; "UNKNOWN": it doesn't say."""
    if isinstance(error, RosterTooLargeError):
        return "RESOURCE_EXHAUSTED"
    if isinstance(error, RegionSetError | RosterError):
        return "INVALID_ARGUMENT"
    return getattr(error, "code", None) or "UNKNOWN"


class _Streams:
    """Messages over streams, one a connection; answers come in order."""

    def __init__(self, plan: Plan) -> None:
        self._timeout = plan.timeout
        self._channels = _channels(plan)
        self._streams = [_Stream(channel) for channel in self._channels]

    async def connect(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECTING):
                for channel in self._channels:
                    await channel.channel_ready()

    async def send(self, call: Call) -> str:
        stream = min(self._streams, key=len)
        try:
            async with asyncio.timeout(self._timeout):
                return await stream.send(call)
        except TimeoutError:
            return "DEADLINE_EXCEEDED"

    async def close(self) -> None:
        for stream in self._streams:
            stream.cancel()
        for channel in self._channels:
            await channel.close()


class _Stream:
    """A stream that is begun again when it ended."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._due: deque[asyncio.Future[str]] = deque()
        # gRPC takes one message at a time, and answers come in the order of the messages.
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._due)

    async def send(self, call: Call) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self._writing:
            if self._reader is None or self._reader.done():
                self._call = self._channel.stream_stream(call.method)()
                self._reader = asyncio.create_task(self._read(self._call))
            self._due.append(answer)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.write(call.body)  # a failure is the reader's to tell
        return await asyncio.shield(answer)

    async def _read(self, call: Any) -> None:
        status = "CANCELLED"
        try:
            while await call.read() is not grpc.aio.EOF:
                self._due.popleft().set_result(OK)
            status = (await call.code()).name
        except grpc.aio.AioRpcError as error:
            # Writing to a call that has ended makes gRPC put this in the place of its status.
            status = ENDED if error.details() == _WROTE_TOO_LATE else error.code().name
        finally:
            while self._due:
                self._due.popleft().set_result(status)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._reader is not None:
            self._reader.cancel()
