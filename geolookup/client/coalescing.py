"""Lookups that wait at the same moment become one call: which ones, and when.

Knows no gRPC, no threads and no event loop. A *lane* holds the lookups that may share a
call, which are those that ask the same question. The first of a lane goes out at once;
those that arrive while its calls are under way wait, and go together when one of them
ends. So an idle client adds no wait, a busy one needs no timer, and batches grow with the
load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from geolookup.errors import ServiceUnavailableError

K = TypeVar("K")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How a client gathers lookups.

    Attributes:
        batch: most lookups in one call, at least 2; also kept to the service's own limit,
            which is learnt from its refusals.
        waiting: most lookups that wait to be sent; one more fails at once.
        calls: calls of a lane under way at once; None: one for each channel.

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


class _Lane(Generic[W]):
    __slots__ = ("queue", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        # Ordered, and anyone who gives up leaves it at once: a service that hangs must
        # not make it grow with lookups nobody waits for.
        self.queue: OrderedDict[W, None] = OrderedDict()


class Lanes(Generic[K, W]):
    """The lookups that wait, by the question they ask. Not safe for threads: lock around it.

    Keys say which lookups may share a call; waiters are any hashable objects.

    Attributes:
        batch: most waiters that `ended` hands out; may be lowered at any time.
    """

    def __init__(self, calls: int, batch: int, waiting: int) -> None:
        self.batch = batch
        self._calls = calls
        self._most_waiting = waiting
        self._waiting = 0
        self._lanes: dict[K, _Lane[W]] = {}

    def arrive(self, key: K, waiter: W) -> bool:
        """Take in a lookup. True: it goes out now, and `ended` is due after its call.

        Raises:
            ServiceUnavailableError: too many wait already.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        if lane.under_way < self._calls:
            lane.under_way += 1
            return True
        if self._waiting >= self._most_waiting:
            raise ServiceUnavailableError(
                f"the client has {self._most_waiting:,} lookups waiting for the service"
            )
        lane.queue[waiter] = None
        self._waiting += 1
        return False

    def leave(self, key: K, waiter: W) -> None:
        """Forget a lookup whose caller waits no more; nothing where it was sent already."""
        lane = self._lanes.get(key)
        if lane is not None and waiter in lane.queue:
            del lane.queue[waiter]
            self._waiting -= 1

    def ended(self, key: K) -> list[W]:
        """Note that a call of a lane ended. Return what to send now, the longest waiting first.

        The call that sends it takes the place of the one that ended, so `ended` is due
        again after it. Empty: there is nothing to send.
        """
        lane = self._lanes[key]
        taken = [lane.queue.popitem(last=False)[0] for _ in range(min(self.batch, len(lane.queue)))]
        self._waiting -= len(taken)
        if not taken:
            lane.under_way -= 1
            if not lane.under_way:
                del self._lanes[key]
        return taken

    def put_back(self, key: K, waiters: Iterable[W]) -> None:
        """Let lookups that were sent in vain wait again, before all others of their lane.

        Before `ended` is called for the call that they were sent with. The bound on those
        that wait does not turn them away.
        """
        lane = self._lanes[key]
        for waiter in reversed(list(waiters)):
            lane.queue[waiter] = None
            lane.queue.move_to_end(waiter, last=False)
            self._waiting += 1

    def drain(self) -> list[W]:
        """Return all that wait, and forget them."""
        drained = [waiter for lane in self._lanes.values() for waiter in lane.queue]
        for lane in self._lanes.values():
            lane.queue.clear()
        self._waiting = 0
        return drained

    def __len__(self) -> int:
        return self._waiting
