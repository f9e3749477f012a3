"""Lookups that wait at the same moment become one call: which ones, when, and who gets what.

Knows no threads, no event loop and no channel; `sync` and `aio` make the calls. Lookups that
have the same question may share a call. As many calls go out at once as are allowed, each by its
own caller. Lookups that arrive beyond these wait, and go together when one of them ends. So an
idle client adds no wait, a busy one needs no timer, and batches grow with the load.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeAlias, TypeVar

from geolookup.answer.results import Answer
from geolookup.client import wire
from geolookup.client.failures import EXPIRED, Failure, Remedy, closed
from geolookup.client.retry import Attempts, Budget
from geolookup.errors import GeoLookupError, ServiceUnavailableError

K = TypeVar("K")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How a client gathers lookups.

    Attributes:
        batch: most lookups in one call, at least 2; also kept to the service's own limit,
            which is learnt from its refusals.
        waiting: most lookups that wait to be sent; one more fails at once.
        calls: calls under way at once for one question, beyond which lookups wait and are
            gathered; None: for each channel one over grpcio, where a call costs the client much
            more than a lookup in it, and 64 over the native transport.

    Raises:
        ValueError: a bound makes no sense.
    """

    batch: int = 1_000
    waiting: int = 10_000
    calls: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError("batch: expected at least 2")
        if self.waiting < 1:
            raise ValueError("waiting: expected at least 1")
        if self.calls is not None and self.calls < 1:
            raise ValueError("calls: expected at least 1, or None")


CALLS_OVER_GRPCIO = 1
CALLS_OVER_NATIVE = 64
"""Calls under way at once for one question and channel, unless the settings say otherwise."""


_IDLE = 64
"""Questions that are kept track of, although no call for them is under way."""


class _Queue(Generic[W]):
    __slots__ = ("under_way", "waiters")

    def __init__(self) -> None:
        self.under_way = 1
        # Ordered, and a waiter that gives up leaves it at once: a service that hangs must
        # not make it grow.
        self.waiters: OrderedDict[W, None] = OrderedDict()


class Queues(Generic[K, W]):
    """The lookups that wait, by key. Not safe for threads.

    Keys say which lookups may share a call; waiters are any hashable objects.

    Attributes:
        batch: most waiters that `next_batch` returns; may be lowered at any time.
    """

    def __init__(self, calls: int, batch: int, waiting: int) -> None:
        self.batch = batch
        self._calls = calls
        self._most_waiting = waiting
        self._waiting = 0
        self._queues: dict[K, _Queue[W]] = {}

    def begin(self, key: K, *, always: bool = False) -> bool:
        """Say whether a lookup goes out now; then `next_batch` is due after its call.

        Args:
            key: its own.
            always: whether it does however many calls are under way.
        """
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = _Queue()
            return True
        if queue.under_way < self._calls or always:
            queue.under_way += 1
            return True
        return False

    def add(self, key: K, waiter: W) -> None:
        """Add a lookup that does not go out now.

        Raises:
            ServiceUnavailableError: too many wait already.
        """
        if self._waiting >= self._most_waiting:
            raise ServiceUnavailableError(
                f"the client has {self._most_waiting:,} lookups waiting for the service"
            )
        self._queues[key].waiters[waiter] = None
        self._waiting += 1

    def remove(self, key: K, waiter: W) -> None:
        """Remove a lookup whose caller waits no more; nothing where it was sent already."""
        queue = self._queues.get(key)
        if queue is not None and waiter in queue.waiters:
            del queue.waiters[waiter]
            self._waiting -= 1

    def next_batch(self, key: K) -> list[W]:
        """Note that a call ended. Return what to send now, the longest waiting first.

        The call that sends it takes the place of the one that ended, so this is due
        again after it. Empty: there is nothing to send.
        """
        queue = self._queues[key]
        if not queue.waiters:
            queue.under_way -= 1
            # Not at once: making it again takes longer than what a lookup needs of it.
            if not queue.under_way and len(self._queues) > _IDLE:
                del self._queues[key]
            return []
        return self.more(key, self.batch)

    def more(self, key: K, number: int) -> list[W]:
        """Return up to so many that wait, for a call that is under way already."""
        queue = self._queues[key]
        number = min(number, len(queue.waiters))
        self._waiting -= number
        return [queue.waiters.popitem(last=False)[0] for _ in range(number)]

    def put_back(self, key: K, waiters: Iterable[W]) -> None:
        """Have lookups that were sent in vain wait again, before all others of their key.

        Before `next_batch` is called for the call that they were sent with. The bound on
        those that wait does not turn them away.
        """
        queue = self._queues[key]
        for waiter in reversed(list(waiters)):
            queue.waiters[waiter] = None
            queue.waiters.move_to_end(waiter, last=False)
            self._waiting += 1

    def drain(self) -> list[W]:
        """Return all that wait, and remove them."""
        drained = [waiter for queue in self._queues.values() for waiter in queue.waiters]
        for queue in self._queues.values():
            queue.waiters.clear()
        self._waiting = 0
        return drained

    def __len__(self) -> int:
        return self._waiting


class Waiter:
    """A lookup whose caller waits for its outcome.

    Attributes:
        packed: the address, as `wire.packed_address` returns it.
        limit: seconds that the caller waits.
        deadline: `time.monotonic` until which it waits.
    """

    __slots__ = ("deadline", "limit", "packed")

    def __init__(self, packed: bytes | None, limit: float) -> None:
        self.packed = packed
        self.limit = limit
        self.deadline = monotonic() + limit

    def resolve(self, outcome: Answer | GeoLookupError) -> None:
        """Wake the caller, who may have given up."""
        raise NotImplementedError


W_ = TypeVar("W_", bound=Waiter)
Key: TypeAlias = tuple[wire.Question, bool]
"""What lookups that share a call have in common, and whether they are addresses at all."""


class Batch:
    """Lookups that go out in one call.

    Attributes:
        waiters: who waits for it.
        attempts: when it is sent again if it fails; its deadline is that of the last waiter.
    """

    __slots__ = ("_request", "attempts", "key", "question", "waiters")

    def __init__(
        self, question: wire.Question, key: Key | None, waiters: list[Waiter], budget: Budget
    ) -> None:
        self.question = question
        self.key = key
        self.waiters = waiters
        self.attempts = Attempts(budget, max(waiter.deadline for waiter in waiters))
        self._request: wire.Request[Any] | None = None

    @property
    def request(self) -> wire.Request[Any]:
        """What is sent."""
        if self._request is None:
            rows = [waiter.packed for waiter in self.waiters]
            # All wait for one address where it is requested alone.
            self._request = (
                wire.lookups(rows, self.question)
                if self.key is not None and len(rows) > 1
                else wire.lookup(rows[0], self.question)
            )
        return self._request

    def add(self, waiters: list[Waiter]) -> None:
        """Add lookups, before it is sent."""
        self.waiters += waiters
        latest = max(waiter.deadline for waiter in waiters)
        self.attempts.deadline = max(self.attempts.deadline, latest)
        self._request = None

    def remaining(self) -> float:
        """Return the seconds until its deadline."""
        return self.attempts.remaining()

    def fail(self, problem: Callable[[Waiter], GeoLookupError]) -> None:
        """Give each waiter an error of its own."""
        for waiter in self.waiters:
            waiter.resolve(problem(waiter))


class Coalescer:
    """Gathers the lookups of a client, and hands out their answers.

    Args:
        settings: how.
        calls: calls under way at once for one question, where the settings do not say.
        budget: of the client.
        problem: returns the error of a caller, by how the call failed and its time limit.
        send: starts the call of a batch, whose end `on_answer`, `on_failure` or `on_closed`
            is due to hear of. False: it can't, since the client is closed.
        lock: guards the queues where threads share the client. Nothing is sent while it is held.
    """

    def __init__(
        self,
        settings: Coalescing,
        calls: int,
        budget: Budget,
        problem: Callable[[Failure, float], GeoLookupError],
        send: Callable[[Batch], bool],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._budget = budget
        self._problem = problem
        self._send = send
        self._lock = lock
        self._queues: Queues[Key, Waiter] = Queues(
            settings.calls or calls, settings.batch, settings.waiting
        )
        self._alone = False
        self._closed = False

    def __len__(self) -> int:
        """Return the number of lookups that wait to be sent."""
        return len(self._queues)

    def enter(self, key: Key, make: Callable[[], W_]) -> W_ | None:
        """Add a lookup. None: its caller makes a call for it now, and `leave` is due after it.

        Args:
            key: its own.
            make: returns what waits, a `Waiter`.

        Raises:
            ServiceUnavailableError: too many wait already.
        """
        with self._lock:
            if self._queues.begin(key, always=self._alone):
                return None
            waiter = make()
            self._queues.add(key, waiter)
        return waiter

    def leave(self, key: Key | None) -> None:
        """Note that a call ended, and send what waited for that.

        Args:
            key: of its lookups; None: it was one for an address that nothing waited behind.
        """
        while key is not None:
            with self._lock:
                waiters = self._queues.next_batch(key)
            if not waiters or self._sent(Batch(key[0], key, waiters, self._budget)):
                return

    def fill(self, batch: Batch) -> None:
        """Add to a batch that is about to be sent what waits by now."""
        if batch.key is None:
            return
        with self._lock:
            more = self._queues.more(batch.key, self._queues.batch - len(batch.waiters))
        if more:
            batch.add(more)

    def give_up(self, waiter: Waiter, question: wire.Question) -> None:
        """Note that a caller waits no more."""
        with self._lock:
            self._queues.remove((question, waiter.packed is not None), waiter)

    def on_answer(self, batch: Batch, body: bytes) -> None:
        """Give the waiters their answers, and send what waited for this call.

        In this order, since who is answered may ask again, and then goes with the rest.
        """
        self._budget.refill()
        try:
            self._hand_out(batch, body)
        finally:
            self.leave(batch.key)

    def _hand_out(self, batch: Batch, body: bytes) -> None:
        try:
            answers = batch.request.read(body)
        except GeoLookupError as error:
            problem = error
            batch.fail(lambda _: copy.copy(problem))
            return
        if isinstance(answers, Answer):
            for waiter in batch.waiters:
                waiter.resolve(answers)
            return
        incomplete = []
        for waiter, answer in zip(batch.waiters, answers, strict=True):
            if wire.is_complete(answer):
                waiter.resolve(answer)
            else:
                incomplete.append(waiter)
        self._send_each(batch.question, incomplete)

    def on_failure(self, batch: Batch, failure: Failure) -> float | None:
        """Return the seconds until the batch is sent again; None: its waiters have heard."""
        if not self._closed:
            wait = batch.attempts.wait_after(failure, monotonic())
            if wait is not None:
                return wait
        remedy = failure.remedy if batch.key and len(batch.waiters) > 1 else Remedy.NONE
        if self._closed:
            remedy = Remedy.NONE
        with self._lock:
            if remedy is Remedy.SMALLER and batch.key is not None:
                self._queues.batch = max(1, len(batch.waiters) // 2)
                self._alone = self._alone or self._queues.batch == 1
                self._queues.put_back(batch.key, batch.waiters)
            self._alone = self._alone or remedy is Remedy.ALONE
        self.leave(batch.key)
        if remedy is Remedy.ALONE:
            self._send_each(batch.question, batch.waiters)
        elif remedy is Remedy.NONE:
            batch.fail(lambda waiter: self._problem(failure, waiter.limit))
        return None

    def send_again(self, batch: Batch) -> None:
        """Send a batch whose wait is over."""
        if not self._sent(batch):
            self.leave(batch.key)

    def on_closed(self, batch: Batch) -> None:
        """Note that the channel was closed under a batch."""
        self.close()
        batch.fail(lambda _: closed())

    def close(self) -> None:
        """Wake all that wait; calls under way end with their channel."""
        with self._lock:
            self._closed = True
            waiters = self._queues.drain()
        for waiter in waiters:
            waiter.resolve(closed())

    def _send_each(self, question: wire.Question, waiters: list[Waiter]) -> None:
        """Request each address alone, and once for all who wait for the same one."""
        by_address: dict[bytes | None, list[Waiter]] = {}
        for waiter in waiters:
            by_address.setdefault(waiter.packed, []).append(waiter)
        for group in by_address.values():
            self._sent(Batch(question, None, group, self._budget))

    def _sent(self, batch: Batch) -> bool:
        """Send a batch; False: it came to nothing, and its waiters have heard."""
        if batch.remaining() <= 0:
            batch.fail(lambda waiter: self._problem(EXPIRED, waiter.limit))
        elif self._send(batch):
            return True
        else:
            batch.fail(lambda _: closed())
        return False
