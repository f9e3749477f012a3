"""The client for asyncio: makes the calls that `wire`, `retry` and `coalescing` decide on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from geolookup.answer.claims import Policy
from geolookup.answer.participants import unpaired
from geolookup.client import wire
from geolookup.client.base import BaseClient
from geolookup.client.channel import DEFAULT_AHEAD, rosters_ahead
from geolookup.client.coalescing import Batch, Waiter
from geolookup.client.failures import EXPIRED, Failure, closed
from geolookup.client.streams import Attempt, Unanswered
from geolookup.client.transports import grpcio
from geolookup.client.transports.grpcio import is_cancelled
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.explanation import Explanation
    from geolookup.answer.file_format import SourceInfo
    from geolookup.answer.participants import ById
    from geolookup.answer.region_sets import RegionSet, RegionSets
    from geolookup.answer.results import Answer, RosterResult
    from geolookup.client.retry import Attempts
    from geolookup.client.transports import native

_T = TypeVar("_T")

_WROTE_TOO_LATE = "Internal error from Core"
_FORGOTTEN = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "", 0.05)
_BROKEN_OFF = Failure(grpc.StatusCode.UNAVAILABLE, "")


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same verbs, each to be awaited.

    Belongs to the event loop in which it is first used: in another one, its calls
    are a RuntimeError. An asynchronous context manager that closes it at the end.
    Arguments and errors are otherwise those of `Client`.
    """

    def _begin(self) -> None:
        self._closing = asyncio.Event()
        self._lookups = self._coalescer(self._send, contextlib.nullcontext())
        # An event loop holds its tasks by weak references only.
        self._tasks: set[asyncio.Task[None]] = set()
        self._made_with = self._settings() if self._native else None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Not before its first call: they belong to the event loop that they are made in.
        self._opened: grpcio.LoopCalls | native.LoopCalls | None = None
        self._streams: grpcio.LoopCalls | None = None

    async def country(self, address: Address, *, timeout: float | None = None) -> str:
        """Return the code of an address, "ZZ" for no country; see `Dataset.country`."""
        return (await self.lookup(address, timeout=timeout)).country

    async def lookup(
        self,
        address: Address,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Return what is known of an address; see `Dataset.lookup`."""
        question = wire.Question.of(region_set, policy, networks=networks)
        packed = wire.packed_address(address)
        if self._lookups is not None:
            return await self._coalesced(packed, question, self._limit(timeout))
        return await self._call(wire.lookup(packed, question), timeout)

    async def classify(
        self,
        roster: Roster | ById | None = None,
        *,
        ipv4: Buffer | None = None,
        ipv6: Buffer | None = None,
        groups: Iterable[int] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
        timeout: float | None = None,
    ) -> RosterResult:
        """Return what is known of each address of a roster; see `Client.classify`."""
        question = wire.Question.of(region_set, policy, record, networks)
        return await self._call(wire.classify(roster, ipv4, ipv6, question, groups), timeout)

    def classify_many(
        self,
        rosters: Iterable[Roster | ById] | AsyncIterable[Roster | ById] | None = None,
        *,
        ipv4: Iterable[Buffer] | AsyncIterable[Buffer] | None = None,
        ipv6: Iterable[Buffer] | AsyncIterable[Buffer] | None = None,
        groups: Iterable[Iterable[int]] | AsyncIterable[Iterable[int]] | None = None,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        record: bool = False,
        timeout: float | None = None,
        ahead: int = DEFAULT_AHEAD,
    ) -> AsyncIterator[RosterResult]:
        """Yield the result of each roster, in order; see `Client.classify_many`.

        The rosters may come from an ordinary or an asynchronous iterator.
        """
        question = wire.Question.of(region_set, policy, record, networks)
        column, given = wire.one_of("classify_many", rosters=rosters, ipv4=ipv4, ipv6=ipv6)
        requests = (
            wire.stream_request(column, roster, some, question)
            async for roster, some in _paired(given, groups)
        )
        return self._stream(requests, column, self._limit(timeout), rosters_ahead(ahead))

    async def explain(self, address: Address, *, timeout: float | None = None) -> Explanation:
        """Return why an address has the answer it has; see `Dataset.explain`."""
        return await self._call(wire.explain(address), timeout)

    @property
    async def id(self) -> str:
        """The id of the dataset in service; see `Dataset.id`. Awaitable."""
        return await self._call(wire.ID, None)

    @property
    async def built(self) -> datetime:
        """When the dataset in service was built, in UTC. Awaitable."""
        return await self._call(wire.BUILT, None)

    @property
    async def sources(self) -> tuple[SourceInfo, ...]:
        """What the dataset in service was built from, in order of precedence. Awaitable."""
        return await self._call(wire.SOURCES, None)

    @property
    async def attributions(self) -> tuple[str, ...]:
        """The texts that the sources' licences ask to be shown, each once. Awaitable."""
        return await self._call(wire.ATTRIBUTIONS, None)

    @property
    async def region_sets(self) -> RegionSets:
        """The service's named region sets. Awaitable."""
        return await self._call(wire.REGION_SETS, None)

    async def info(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a description of the dataset in service; see `Client.info`."""
        return await self._call(wire.INFO, timeout)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled. May be called again."""
        self._closed = True
        self._closing.set()
        if self._lookups is not None:
            self._lookups.close()
        for calls in {self._opened, self._streams}:
            if calls is not None:
                await calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check(self) -> None:
        """Raise an error where no call can be made: closed, or in another event loop."""
        if self._closed:
            raise closed()
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise RuntimeError(
                    "an AsyncClient belongs to the event loop that first used it, and this is"
                    " another one: make a client in each"
                )
            self._loop = loop

    def _calls(self) -> grpcio.LoopCalls | native.LoopCalls:
        self._check()
        if self._opened is None:
            if self._made_with is not None:
                from geolookup.client.transports.native import LoopCalls  # noqa: PLC0415 - may lack

                self._opened = LoopCalls(self._made_with)
            else:
                self._opened = self._streaming()
        return self._opened

    def _streaming(self) -> grpcio.LoopCalls:
        self._check()
        if self._streams is None:
            self._streams = grpcio.LoopCalls(
                self._target, self._credentials, self._options, self._count
            )
        return self._streams

    async def _call(self, request: wire.Request[_T], timeout: float | None) -> _T:
        limit = self._limit(timeout)
        began = monotonic()
        body = await self._calls().call(request.method, request.body, limit)
        if isinstance(body, Failure):
            body = await self._call_again(body, request, limit, began)
        self._budget.refill()
        return request.read(body)

    async def _call_again(
        self, failure: Failure, request: wire.Request[Any], limit: float, began: float
    ) -> bytes:
        """Return what comes of a call that failed once."""
        attempts = self._attempts(began + limit)
        while True:
            outcome = self._outcome(failure, attempts, limit, request.field)
            if isinstance(outcome, GeoLookupError):
                raise outcome
            await self._pause(outcome)
            body = await self._calls().call(request.method, request.body, attempts.remaining())
            if isinstance(body, bytes):
                return body
            failure = body

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    # Coalesced lookups. Batches are tasks of their own, so that a caller who is cancelled
    # cancels no other caller's call.

    async def _coalesced(
        self, packed: bytes | None, question: wire.Question, limit: float
    ) -> Answer:
        lookups = self._lookups
        assert lookups is not None  # noqa: S101
        self._check()  # before it waits for what another event loop has under way
        key = (question, packed is not None)
        waiter = lookups.enter(key, lambda: _Waiter(packed, limit))
        if waiter is None:
            try:
                return await self._call(wire.lookup(packed, question), limit)
            finally:
                lookups.leave(key)
        expire = asyncio.get_running_loop().call_later(
            limit, waiter.resolve, self._problem(EXPIRED, limit)
        )
        try:
            return await waiter.future
        finally:
            expire.cancel()
            lookups.give_up(waiter, question)

    def _send(self, batch: Batch) -> bool:
        if self._closed:
            return False
        self._spawn(self._send_batch(batch))
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_batch(self, batch: Batch) -> None:
        lookups = self._lookups
        assert lookups is not None  # noqa: S101
        lookups.fill(batch)  # by now those ask again who were answered
        try:
            # All are late where nothing is left, and their timers are about to find out.
            body = await self._calls().call(
                batch.request.method, batch.request.body, max(batch.remaining(), 0.001)
            )
        except (asyncio.CancelledError, GeoLookupError):
            # The client was closed under a batch, or the event loop ends.
            lookups.on_closed(batch)
            return
        if isinstance(body, bytes):
            lookups.on_answer(batch, body)
            return
        wait = lookups.on_failure(batch, body)
        if wait is not None:
            await self._pause(wait)
            lookups.send_again(batch)

    async def _stream(
        self,
        requests: AsyncIterator[wire.Request[RosterResult]],
        column: str,
        limit: float,
        ahead: int,
    ) -> AsyncIterator[RosterResult]:
        rosters = _Rosters(requests)
        attempts: Attempts | None = None
        try:
            while True:
                stream = _Stream(rosters, limit, ahead, attempts)
                failure: Failure | None = None
                stream.begin(self._streaming())
                try:
                    while (body := await stream.read()) is not None:
                        result = wire.read_streamed(rosters.take(), body)
                        self._budget.refill()
                        yield rosters.check(result)
                        stream.timeout.on_wait()
                except grpc.aio.AioRpcError as error:
                    failure = EXPIRED if stream.expired else _failure(error)
                except asyncio.CancelledError:
                    if not (stream.expired or self._closed) or is_cancelled():
                        raise
                    failure = EXPIRED
                finally:
                    stream.end()
                if failure is None:
                    if rosters.failed:
                        raise rosters.failed
                    return
                if attempts is None or rosters.answered > stream.first:
                    # The wait for the next result began before: for as long as one was due.
                    attempts = self._attempts(monotonic() + stream.timeout.remaining())
                outcome = self._outcome(failure, attempts, limit, column)
                if isinstance(outcome, GeoLookupError):
                    if failure is _FORGOTTEN:
                        outcome = self._problem(_BROKEN_OFF, limit, column)
                    raise rosters.failed or outcome
                await self._pause(outcome)
        finally:
            await rosters.drop()


def _failure(error: grpc.aio.AioRpcError) -> Failure:
    """Return how a stream failed.

    A message that is sent at the moment in which a stream ends has gRPC forget why it ended. It may
    have been shed: it is asked for again until its time is over, or another attempt says more.
    """
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _WROTE_TOO_LATE:
        return _FORGOTTEN
    return Failure.of(error)


class _Rosters(Unanswered):
    """The rosters of a stream, from the caller's iterator: in a task of its own.

    gRPC cancels what it takes messages from when a stream ends, and the iterator is to outlive it.
    """

    def __init__(self, requests: AsyncIterator[wire.Request[RosterResult]]) -> None:
        super().__init__()
        self._given = requests
        self._taking: asyncio.Task[None] | None = None

    async def numbered(self, number: int) -> wire.Request[RosterResult] | None:
        """Return the roster with a number, which may be the next one; None: there is none."""
        while (request := self.get(number)) is None and not self.is_whole:
            if self._taking is None:
                self._taking = asyncio.create_task(self._next())
            await asyncio.wait({self._taking})
        return request

    async def drop(self) -> None:
        """Take no more."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait({self._taking})

    async def _next(self) -> None:
        try:
            request = await anext(self._given, None)
        except Exception as error:
            self.end(error)
        else:
            if request is None:
                self.end()
            else:
                self.add(request)
        self._taking = None


class _Stream(Attempt):
    """One attempt at a stream.

    Attributes:
        expired: whether that was too long.
    """

    def __init__(
        self, rosters: _Rosters, limit: float, ahead: int, attempts: Attempts | None
    ) -> None:
        super().__init__(rosters, limit, attempts)
        self.expired = False
        self._rosters = rosters
        self._slots = asyncio.Semaphore(ahead)
        self._call: Any = None
        self._watching: asyncio.Task[None] | None = None

    def begin(self, calls: grpcio.LoopCalls) -> None:
        """Begin it."""
        self._call = calls.stream_rosters(self._bodies())
        self._watching = asyncio.create_task(self._watch())
        self.timeout.on_wait()

    async def read(self) -> bytes | None:
        """Return the next answer; None: there are no more.

        Raises:
            grpc.aio.AioRpcError, asyncio.CancelledError: it failed.
        """
        body = await self._call.read()
        if not isinstance(body, bytes):  # grpc.aio.EOF
            return None
        self.timeout.on_receive()
        self._slots.release()
        return body

    def end(self) -> None:
        """Cancel it, if it has not ended."""
        if self._watching is not None:
            self._watching.cancel()
        if self._call is not None:
            self._call.cancel()

    async def _bodies(self) -> AsyncIterator[bytes]:
        # gRPC runs this in a task, and would log an error raised in it.
        number = self.first
        try:
            while await self._slots.acquire():
                request = await self._rosters.numbered(number)
                if request is None:
                    return
                number += 1
                self.timeout.on_send()
                yield request.body
        finally:
            self.timeout.on_send()

    async def _watch(self) -> None:
        while remaining := self.remaining():
            await asyncio.sleep(remaining)
        self.expired = True
        self._call.cancel()


class _Waiter(Waiter):
    """A task that waits for a future."""

    __slots__ = ("future",)

    def __init__(self, packed: bytes | None, limit: float) -> None:
        super().__init__(packed, limit)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def resolve(self, outcome: Answer | GeoLookupError) -> None:
        if self.future.done():  # it is late, or its task was cancelled
            return
        if isinstance(outcome, GeoLookupError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


_END: Any = object()


async def _paired(
    rosters: Iterable[Any] | AsyncIterable[Any], groups: Iterable[Any] | AsyncIterable[Any] | None
) -> AsyncIterator[tuple[Any, Any]]:
    """Yield each roster with its groups; see `paired`."""
    if groups is None:
        async for roster in _each(rosters):
            yield roster, None
        return
    others = _each(groups)
    number = 0
    async for roster in _each(rosters):
        some = await anext(others, _END)
        if some is _END:
            raise unpaired(number)
        yield roster, some
        number += 1
    if await anext(others, _END) is not _END:
        raise unpaired(number)


async def _each(items: Iterable[_T] | AsyncIterable[_T]) -> AsyncIterator[_T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
