"""The client for asyncio."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from geolookup.answer.claims import Policy
from geolookup.client import wire
from geolookup.client.channel import (
    DEFAULT_AHEAD,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    Retry,
    channel_count,
    channel_options,
    time_limit,
)
from geolookup.client.coalescing import Coalescing
from geolookup.client.coalescing_aio import AsyncCoalescer
from geolookup.client.failures import closed, failure, late
from geolookup.client.stream_timeout import Pace

if TYPE_CHECKING:
    from typing import Self, TypeAlias

    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.explanation import Explanation
    from geolookup.answer.region_sets import RegionSet
    from geolookup.answer.results import Answer, RosterResult

    _Unary: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    _Stream: TypeAlias = grpc.aio.StreamStreamMultiCallable[bytes, bytes]

_Item = TypeVar("_Item")


class AsyncClient:
    """`Client` for asyncio: the same verbs, each to be awaited.

    Belongs to the event loop in which it is first used. An asynchronous context
    manager that closes it at the end. Arguments and errors are those of `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        channels: int = 1,
        retry: Retry | None = DEFAULT_RETRY,
        coalesce: bool | Coalescing = False,
    ) -> None:
        self._target = target
        self._timeout = time_limit(timeout)
        self._credentials = credentials
        self._options = channel_options(options, retry, wire.UNARY)
        self._count = channel_count(channels)
        self._channels: list[_Methods] = []
        self._turns: Iterator[_Methods] = iter(())
        self._closed = False
        self._coalescer = (
            AsyncCoalescer(
                Coalescing() if coalesce is True else coalesce,
                channels,
                target,
                lambda request, limit: self._call(self._connected().lookup, request, limit),
                self._connected,
            )
            if coalesce
            else None
        )

    async def country(self, address: Address, *, timeout: float | None = None) -> str:
        """Return the code of an address, "ZZ" for no country; see `Dataset.country`."""
        return (await self.lookup(address, timeout=timeout)).country

    async def lookup(
        self,
        address: Address,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Return what is known of an address; see `Dataset.lookup`."""
        question = wire.Question.of(region_set, policy)
        if self._coalescer is not None:
            limit = self._limit(timeout)
            return await self._coalescer.lookup(wire.packed_address(address), question, limit)
        request = wire.lookup_request(address, question)
        return wire.answer(await self._call(self._connected().lookup, request, timeout))

    async def classify(
        self,
        roster: Roster | None = None,
        *,
        ipv4: Buffer | None = None,
        ipv6: Buffer | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        record: bool = False,
        timeout: float | None = None,
    ) -> RosterResult:
        """Return what is known of each address of a roster; see `Client.classify`."""
        question = wire.Question.of(region_set, policy, record)
        request = wire.roster_request(roster, ipv4, ipv6, question)
        body = await self._call(self._connected().classify_roster, request, timeout)
        return wire.roster_result(body, question)

    def classify_many(
        self,
        rosters: Iterable[Roster] | AsyncIterable[Roster] | None = None,
        *,
        ipv4: Iterable[Buffer] | AsyncIterable[Buffer] | None = None,
        ipv6: Iterable[Buffer] | AsyncIterable[Buffer] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        record: bool = False,
        timeout: float | None = None,
        ahead: int = DEFAULT_AHEAD,
    ) -> AsyncIterator[RosterResult]:
        """Yield the result of each roster, in order; see `Client.classify_many`.

        The rosters may come from an ordinary or an asynchronous iterator.
        """
        question = wire.Question.of(region_set, policy, record)
        column, given = wire.one_of(rosters=rosters, ipv4=ipv4, ipv6=ipv6)
        if ahead < 1:
            raise ValueError("ahead: expected at least 1")
        items = given if isinstance(given, AsyncIterable) else _each(given)
        requests = (wire.stream_request(column, item, question) async for item in items)
        limit = self._limit(timeout)
        return self._stream(requests, question, limit, ahead)

    async def explain(self, address: Address, *, timeout: float | None = None) -> Explanation:
        """Return why an address has the answer it has; see `Dataset.explain`."""
        request = wire.explain_request(address)
        return wire.explanation(await self._call(self._connected().explain, request, timeout))

    async def region_sets(self, *, timeout: float | None = None) -> tuple[RegionSet, ...]:
        """Return the service's named region sets, sorted by name."""
        body = await self._call(self._connected().list_region_sets, wire.EMPTY, timeout)
        return wire.region_sets(body)

    async def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a description of the dataset in service; see `Client.info`."""
        return wire.info(await self._call(self._connected().get_dataset, wire.EMPTY, timeout))

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled. May be called again."""
        self._closed = True
        if self._coalescer is not None:
            self._coalescer.close()
        for methods in self._channels:
            await methods.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._target}{', closed' if self._closed else ''}>"

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else time_limit(timeout)

    def _connected(self) -> _Methods:
        if self._closed:
            raise closed()
        if not self._channels:
            # Not before: gRPC ties a channel to the event loop that it finds.
            self._channels = [
                _Methods(
                    grpc.aio.insecure_channel(self._target, self._options)
                    if self._credentials is None
                    else grpc.aio.secure_channel(self._target, self._credentials, self._options)
                )
                for _ in range(self._count)
            ]
            self._turns = itertools.cycle(self._channels)
        return next(self._turns)

    async def _call(
        self, method: Callable[..., Any], request: bytes, timeout: float | None
    ) -> bytes:
        limit = self._limit(timeout)
        try:
            body: bytes = await method(request, timeout=limit)
            return body
        except grpc.aio.AioRpcError as error:
            problem = closed() if self._closed else failure(error, self._target, limit)
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # gRPC cancels the calls of a channel that is closed.
            if not self._closed or _task_is_cancelled():
                raise
            problem = closed()
        # Here and not above, so that gRPC's texts are no part of the traceback.
        raise problem

    async def _stream(
        self, requests: AsyncIterator[bytes], question: wire.Question, limit: float, ahead: int
    ) -> AsyncIterator[RosterResult]:
        slots = asyncio.Semaphore(ahead)
        failed: list[Exception] = []
        pace = Pace(limit)
        too_late = False

        async def bodies() -> AsyncIterator[bytes]:
            # gRPC runs this in a task, and would log an error raised in it.
            try:
                while await slots.acquire():
                    body = await anext(requests, None)
                    if body is None:
                        return
                    pace.sending()
                    yield body
            except Exception as error:
                failed.append(error)
            finally:
                pace.sending()

        async def watch() -> None:
            nonlocal too_late
            while remaining := pace.remaining():
                await asyncio.sleep(remaining)
            too_late = True
            call.cancel()

        problem: Exception | None = None
        call = self._connected().stream_rosters(bodies())
        watching = asyncio.create_task(watch())
        try:
            pace.waiting()
            while isinstance(body := await call.read(), bytes):  # and not grpc.aio.EOF
                pace.received()
                slots.release()
                yield wire.streamed_result(body, question)
                pace.waiting()
        except grpc.aio.AioRpcError as error:
            problem = closed() if self._closed else failure(error, self._target, limit)
        except asyncio.CancelledError:
            if not (too_late or self._closed) or _task_is_cancelled():
                raise
            problem = late(self._target, limit) if too_late else closed()
        finally:
            watching.cancel()
            call.cancel()
        if failed:
            raise failed[0]
        if problem:
            raise problem


class _Methods:
    """A channel's methods. Without serialisers, as in `Client`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.lookup: _Unary = channel.unary_unary(wire.LOOKUP)
        self.classify_roster: _Unary = channel.unary_unary(wire.CLASSIFY_ROSTER)
        self.stream_rosters: _Stream = channel.stream_stream(wire.STREAM_ROSTERS)
        self.explain: _Unary = channel.unary_unary(wire.EXPLAIN)
        self.list_region_sets: _Unary = channel.unary_unary(wire.LIST_REGION_SETS)
        self.get_dataset: _Unary = channel.unary_unary(wire.GET_DATASET)


def _task_is_cancelled() -> bool:
    """Say whether somebody cancelled the caller's task, and not just its call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _each(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    for item in items:
        yield item
