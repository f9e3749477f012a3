"""Coalesced lookups of tasks: `coalescing_threads`, for an event loop.

Batches are tasks of their own, so that a caller who is cancelled cancels nobody else's call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from geolookup.client import wire
from geolookup.client.coalescing import Coalescing, Lanes
from geolookup.client.failures import Remedy, closed, failure, late, remedy
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.answer.results import Answer

_Key: TypeAlias = tuple[wire.Question, bool]


class _Waiter:
    """A task that waits for a future. Times are the event loop's."""

    __slots__ = ("deadline", "future", "limit", "packed")

    def __init__(self, packed: bytes | None, limit: float, loop: asyncio.AbstractEventLoop) -> None:
        self.packed = packed
        self.limit = limit
        self.deadline = loop.time() + limit
        self.future: asyncio.Future[Answer] = loop.create_future()

    def get(self, outcome: Answer | GeoLookupError) -> None:
        if self.future.done():  # late, or its task was cancelled
            return
        if isinstance(outcome, GeoLookupError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class AsyncCoalescer:
    """Gathers the lookups of a client's tasks; see `ThreadCoalescer` for its arguments."""

    def __init__(
        self,
        settings: Coalescing,
        channels: int,
        target: str,
        ask: Callable[[bytes, float], Awaitable[bytes]],
        methods: Callable[[], Any],
    ) -> None:
        self._target = target
        self._ask = ask
        self._methods = methods
        self._lanes: Lanes[_Key, _Waiter] = Lanes(
            settings.calls or channels, settings.batch, settings.waiting
        )
        self._alone = False
        self._closed = False
        # An event loop holds its tasks by weak references only.
        self._tasks: set[asyncio.Task[None]] = set()

    async def lookup(self, packed: bytes | None, question: wire.Question, limit: float) -> Answer:
        """Return what is known of one address, as if it were asked for alone."""
        loop = asyncio.get_running_loop()
        key = (question, packed is not None)
        alone = self._alone
        waiter = _Waiter(packed, limit, loop)
        if alone or self._lanes.arrive(key, waiter):
            try:
                return wire.answer(await self._ask(wire.packed_request(packed, question), limit))
            finally:
                if not alone:
                    self._send_next(key)
        timer = loop.call_later(limit, self._too_late, waiter)
        try:
            return await waiter.future
        finally:
            timer.cancel()
            self._lanes.leave(key, waiter)

    def close(self) -> None:
        """Let all who wait know; calls under way end with their channel."""
        self._closed = True
        for waiter in self._lanes.drain():
            waiter.get(closed())

    def _too_late(self, waiter: _Waiter) -> None:
        waiter.get(late(self._target, waiter.limit))

    def _send_next(self, key: _Key) -> None:
        if batch := self._lanes.ended(key):
            self._spawn(self._send(key, batch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, key: _Key, batch: list[_Waiter]) -> None:
        question, _ = key
        if len(batch) == 1:
            try:
                await self._send_alone(question, batch)
            finally:
                self._send_next(key)
            return
        incomplete: list[_Waiter] = []
        try:
            request = wire.batch_request([waiter.packed for waiter in batch], question)
            body = await self._call(self._methods().classify_roster, request, batch)
        except grpc.aio.AioRpcError as error:
            what = remedy(error)
            if what is Remedy.SMALLER and not self._closed:
                self._lanes.batch = max(1, len(batch) // 2)
                self._alone = self._alone or self._lanes.batch == 1
                self._lanes.put_back(key, batch)
            elif what is Remedy.ALONE:
                self._alone = True
                incomplete = batch
            else:
                self._fail(batch, error)
            self._send_next(key)
        except (asyncio.CancelledError, grpc.aio.UsageError):
            self._end(batch)
        else:
            self._send_next(key)
            incomplete = self._hand_out(question, batch, body)
        by_address: dict[bytes | None, list[_Waiter]] = {}
        for waiter in incomplete:
            by_address.setdefault(waiter.packed, []).append(waiter)
        for waiters in by_address.values():
            self._spawn(self._send_alone(question, waiters))

    def _hand_out(
        self, question: wire.Question, batch: list[_Waiter], body: bytes
    ) -> list[_Waiter]:
        """Hand out the complete answers of a batch; return who must be asked for alone."""
        try:
            answers = wire.batch_answers(body, question, len(batch))
        except GeoLookupError as error:
            for waiter in batch:
                waiter.get(type(error)(*error.args))
            return []
        incomplete = []
        for waiter, answer in zip(batch, answers, strict=True):
            if wire.is_complete(answer):
                waiter.get(answer)
            else:
                incomplete.append(waiter)
        return incomplete

    async def _send_alone(self, question: wire.Question, waiters: list[_Waiter]) -> None:
        """Ask for one address for all who wait for it."""
        request = wire.packed_request(waiters[0].packed, question)
        try:
            body = await self._call(self._methods().lookup, request, waiters)
            answer = wire.answer(body)
        except grpc.aio.AioRpcError as error:
            self._fail(waiters, error)
        except GeoLookupError as error:
            for waiter in waiters:
                waiter.get(type(error)(*error.args))
        except (asyncio.CancelledError, grpc.aio.UsageError):
            self._end(waiters)
        else:
            for waiter in waiters:
                waiter.get(answer)

    async def _call(self, method: Any, request: bytes, waiters: list[_Waiter]) -> bytes:
        now = asyncio.get_running_loop().time()
        limit = max(waiter.deadline for waiter in waiters) - now
        # All are late where nothing is left, and their timers are about to say so.
        body: bytes = await method(request, timeout=max(limit, 0.001))
        return body

    def _fail(self, waiters: list[_Waiter], error: grpc.RpcError) -> None:
        for waiter in waiters:
            waiter.get(closed() if self._closed else failure(error, self._target, waiter.limit))

    def _end(self, waiters: list[_Waiter]) -> None:
        """End everything: the channel was closed under a batch, or the event loop ends."""
        self.close()
        for waiter in waiters:
            waiter.get(closed())
