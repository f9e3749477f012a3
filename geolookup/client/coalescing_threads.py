"""Coalesced lookups of threads: each waits for its own answer, whoever sent the call.

The first lookup of a lane is an ordinary call of its caller's thread. What waits when it
ends is sent from that thread but not waited for there: gRPC's own thread hands out what
comes back and sends the next. So no thread works longer for others than it takes to send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from geolookup.client import wire
from geolookup.client.coalescing import Coalescing, Lanes
from geolookup.client.failures import Remedy, closed, failure, late, remedy
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.answer.results import Answer

_Key: TypeAlias = tuple[wire.Question, bool]
"""What lookups that share a call have in common, and whether they are addresses at all."""


class _Waiter:
    """A thread that waits: for a lock that is released once its outcome is there."""

    __slots__ = ("deadline", "done", "limit", "outcome", "packed")

    def __init__(self, packed: bytes | None, limit: float) -> None:
        self.packed = packed
        self.limit = limit
        self.deadline = monotonic() + limit
        self.outcome: Answer | GeoLookupError | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def get(self, outcome: Answer | GeoLookupError) -> None:
        self.outcome = outcome
        self.done.release()


class ThreadCoalescer:
    """Gathers the lookups of a client's threads.

    Args:
        settings: how.
        channels: how many the client has.
        target: of the client, for errors.
        ask: calls Lookup with a request and a limit, and waits; raises our own errors.
        methods: returns the methods of the channel whose turn it is.
    """

    def __init__(
        self,
        settings: Coalescing,
        channels: int,
        target: str,
        ask: Callable[[bytes, float], bytes],
        methods: Callable[[], Any],
    ) -> None:
        self._target = target
        self._ask = ask
        self._methods = methods
        # Guards what follows. No call to gRPC while it is held.
        self._lock = threading.Lock()
        self._lanes: Lanes[_Key, _Waiter] = Lanes(
            settings.calls or channels, settings.batch, settings.waiting
        )
        self._alone = False
        self._closed = False

    def lookup(self, packed: bytes | None, question: wire.Question, limit: float) -> Answer:
        """Return what is known of one address, as if it were asked for alone."""
        key = (question, packed is not None)
        waiter = _Waiter(packed, limit)
        with self._lock:
            alone = self._alone
            first = alone or self._lanes.arrive(key, waiter)
        if first:
            try:
                return wire.answer(self._ask(wire.packed_request(packed, question), limit))
            finally:
                if not alone:
                    self._send_next(key)
        try:
            waiter.done.acquire(timeout=limit)
        finally:
            if waiter.outcome is None:
                with self._lock:
                    self._lanes.leave(key, waiter)
        outcome = waiter.outcome
        if outcome is None or isinstance(outcome, GeoLookupError):
            raise outcome or late(self._target, limit)
        return outcome

    def close(self) -> None:
        """Let all who wait know; calls under way end with their channel."""
        with self._lock:
            self._closed = True
            waiters = self._lanes.drain()
        for waiter in waiters:
            waiter.get(closed())

    def _send_next(self, key: _Key) -> None:
        while True:
            with self._lock:
                batch = self._lanes.ended(key)
            if not batch or self._sent(key, batch):
                return

    def _sent(self, key: _Key, batch: list[_Waiter]) -> bool:
        """Send a batch; False: it came to nothing, and its callers know."""
        question, _ = key
        methods = self._methods()
        if len(batch) == 1:
            request = wire.packed_request(batch[0].packed, question)
            return self._start(methods.lookup, request, batch, partial(self._ended, key, batch))
        request = wire.batch_request([waiter.packed for waiter in batch], question)
        method = methods.classify_roster
        return self._start(method, request, batch, partial(self._ended, key, batch))

    def _start(
        self,
        method: Any,
        request: bytes,
        batch: Sequence[_Waiter],
        ended: Callable[[Any], None],
    ) -> bool:
        limit = max(waiter.deadline for waiter in batch) - monotonic()
        if limit > 0:
            try:
                call = method.future(request, timeout=limit)
            except ValueError:  # gRPC's for a closed channel
                for waiter in batch:
                    waiter.get(closed())
                return False
            call.add_done_callback(ended)
            return True
        for waiter in batch:
            waiter.get(late(self._target, waiter.limit))
        return False

    def _ended(self, key: _Key, batch: list[_Waiter], call: Any) -> None:
        """Hand out what came back. In gRPC's thread."""
        code = call.code()
        if code is grpc.StatusCode.OK:
            self._send_next(key)
            self._hand_out(key[0], batch, call.result())
            return
        what = remedy(call) if len(batch) > 1 else Remedy.NONE
        with self._lock:
            if what is Remedy.SMALLER and not self._closed:
                self._lanes.batch = max(1, len(batch) // 2)
                self._alone = self._lanes.batch == 1
                self._lanes.put_back(key, batch)
            self._alone = self._alone or what is Remedy.ALONE
        self._send_next(key)
        if what is Remedy.ALONE:
            self._ask_each(key[0], batch)
        elif what is Remedy.NONE or self._closed:
            for waiter in batch:
                waiter.get(self._problem(call, waiter))

    def _hand_out(self, question: wire.Question, batch: list[_Waiter], body: bytes) -> None:
        try:
            if len(batch) == 1:
                batch[0].get(wire.answer(body))
                return
            answers = wire.batch_answers(body, question, len(batch))
        except GeoLookupError as error:
            for waiter in batch:
                waiter.get(type(error)(*error.args))
            return
        incomplete = []
        for waiter, answer in zip(batch, answers, strict=True):
            if wire.is_complete(answer):
                waiter.get(answer)
            else:
                incomplete.append(waiter)
        self._ask_each(question, incomplete)

    def _ask_each(self, question: wire.Question, batch: list[_Waiter]) -> None:
        """Ask for each address alone, and once for those who wait for the same one."""
        by_address: dict[bytes | None, list[_Waiter]] = {}
        for waiter in batch:
            by_address.setdefault(waiter.packed, []).append(waiter)
        for packed, waiters in by_address.items():
            request = wire.packed_request(packed, question)
            ended = partial(self._ended_alone, waiters)
            self._start(self._methods().lookup, request, waiters, ended)

    def _ended_alone(self, waiters: list[_Waiter], call: Any) -> None:
        if call.code() is not grpc.StatusCode.OK:
            for waiter in waiters:
                waiter.get(self._problem(call, waiter))
            return
        body = call.result()
        for waiter in waiters:
            try:
                waiter.get(wire.answer(body))
            except GeoLookupError as error:
                waiter.get(error)

    def _problem(self, call: Any, waiter: _Waiter) -> GeoLookupError:
        return closed() if self._closed else failure(call, self._target, waiter.limit)
