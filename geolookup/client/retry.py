"""When calls are made again; no networking in here.

Not by gRPC's own retry: it gives up on requests over its buffer of 256 KiB, makes five
attempts at most, can't tell a call that was shed from one that can never be answered, and
asks again for names that don't exist.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geolookup.client.failures import Failure


@dataclass(frozen=True, slots=True)
class Retry:
    """How calls that the service does not answer are made again, within their time limit.

    They change nothing in the service. A stream is made again with the rosters that have no
    result, which it sends anew. The service's own hint
    when to come back, or not to (``grpc-retry-pushback-ms``), goes before the waits here. A
    call that the service shed for its load is made again until its time is over, first after
    the time that the hint names; its attempts are not counted.

    Attributes:
        attempts: calls in all, 2 to 5.
        first_wait: seconds before the second attempt, 0.002 at least; doubled each time, and
            varied by 20 %.
        longest_wait: bound on these seconds.
        budget: tokens that a client starts with, 1 to 1000; a failure takes one, and no
            call is made again while half of them or fewer are left. So a service that is
            down is not asked several times as often. All calls under way on a connection
            fail at once when it is lost: half of the tokens should be more than these.
        refill: tokens that a success gives back.

    Raises:
        ValueError: a value out of these bounds.
    """

    # Together they outlast gRPC's own wait before it connects again, twice.
    attempts: int = 4
    first_wait: float = 0.05
    longest_wait: float = 1.0
    budget: int = 1_000
    refill: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= 5:
            raise ValueError("attempts: expected 2 to 5")
        if not 0.002 <= self.first_wait <= self.longest_wait < float("inf"):
            raise ValueError(
                "first_wait, longest_wait: expected seconds from 0.002 on, the first no longer"
            )
        if not 1 <= self.budget <= 1_000:
            raise ValueError("budget: expected 1 to 1000")
        if not 0.001 <= self.refill <= self.budget:
            raise ValueError("refill: expected 0.001 to the budget")


DEFAULT_RETRY = Retry()


class Budget:
    """A client's tokens; see `Retry`. Threads that race may lose one, which does no harm."""

    def __init__(self, retry: Retry | None) -> None:
        self.retry = retry
        self._full = float(retry.budget) if retry else 0.0
        self._tokens = self._full

    def refill(self) -> None:
        """Note a success."""
        if self._tokens < self._full and self.retry is not None:
            self._tokens = min(self._tokens + self.retry.refill, self._full)

    def take(self) -> bool:
        """Note a failure, and return whether the call may be made again."""
        self._tokens = max(self._tokens - 1, 0.0)
        return self._tokens > self._full / 2


class Attempts:
    """The attempts of one call. Times are `time.monotonic`.

    Attributes:
        deadline: when the last of them ends.
        failure: the one of those so far that says most of the reason; None: there was none.
    """

    __slots__ = ("_budget", "_failed", "_shed", "deadline", "failure")

    def __init__(self, budget: Budget, deadline: float) -> None:
        self.deadline = deadline
        self._budget = budget
        self._failed = 0
        self._shed = 0
        self.failure: Failure | None = None

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - monotonic()

    def wait_after(self, failure: Failure, now: float) -> float | None:
        """Return the seconds until the next attempt; None: there is none."""
        self.failure = failure.more_telling(self.failure)
        retry = self._budget.retry
        if retry is None or not failure.is_retryable:
            return None
        if failure.is_shed:
            # Longer each time, as the load may last: a refusal costs the service nearly as
            # much as an answer. Never shorter than the hint.
            hint = failure.hint or retry.first_wait
            wait = max(hint, min(hint * 2**self._shed, retry.longest_wait))
            self._shed += 1
        else:
            self._failed += 1
            if not self._budget.take() or self._failed >= retry.attempts:
                return None
            wait = min(retry.first_wait * 2 ** (self._failed - 1), retry.longest_wait)
            wait *= random.uniform(0.8, 1.2)  # noqa: S311  # spreads calls, keeps no secret
            if failure.hint is not None:
                wait = failure.hint
        return wait if now + wait < self.deadline else None
