"""What a stream was given and has not answered, so that another one can go on in its place.

No networking in here. A stream that breaks off is made again as a call is: results come in order,
so what has no result yet is sent again, and nothing is answered twice. All results of a stream
are of one dataset, so only a stream of the same one goes on after the first result.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from geolookup.client.stream_timeout import StreamTimeout
from geolookup.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from geolookup.answer.results import RosterResult
    from geolookup.client.retry import Attempts
    from geolookup.client.wire import Request


class Unanswered:
    """The rosters of a stream without a result, by number; the first of all has number 0.

    One thread may add while another one takes.

    Attributes:
        answered: how many have a result: the number of the first that has none.
        is_whole: whether there are no more than these.
        failed: what the caller's iterator, or a roster, raised at their end; None: nothing.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.is_whole = False
        self.failed: Exception | None = None
        self._lock = threading.Lock()
        self._requests: deque[Request[RosterResult]] = deque()
        self._dataset: str | None = None

    def get(self, number: int) -> Request[RosterResult] | None:
        """Return the roster with a number; None: it was not added yet."""
        with self._lock:
            at = number - self.answered
            return self._requests[at] if at < len(self._requests) else None

    def add(self, request: Request[RosterResult]) -> None:
        """Add the next roster."""
        with self._lock:
            self._requests.append(request)

    def end(self, failed: Exception | None = None) -> None:
        """Note that there are no more."""
        self.failed = failed
        self.is_whole = True

    def take(self) -> Request[RosterResult] | None:
        """Return the first one, and forget it: its answer has come. None: there is none."""
        with self._lock:
            if not self._requests:
                return None
            self.answered += 1
            return self._requests.popleft()

    def check(self, result: RosterResult) -> RosterResult:
        """Return a result, unless those before it are of another dataset.

        Raises:
            ServiceUnavailableError: they are.
        """
        self._dataset = self._dataset or result.dataset
        if result.dataset != self._dataset:
            raise ServiceUnavailableError(
                "the stream broke off, and the service has another dataset since; the rosters"
                " without a result are to be asked for again",
                code="UNAVAILABLE",
                retryable=True,
            )
        return result


class Attempt:
    """One attempt at a stream: it begins with the first roster that has no result.

    Args:
        rosters: of all attempts.
        limit: seconds that its reader may wait for an answer that is due.
        attempts: those at the answer that it begins with; None: it is the first.

    Attributes:
        timeout: how long its reader waits.
        first: the number of the roster that it begins with.
    """

    def __init__(self, rosters: Unanswered, limit: float, attempts: Attempts | None) -> None:
        self.timeout = StreamTimeout(limit)
        self.first = rosters.answered
        self._answers = rosters
        self._attempts = attempts

    def remaining(self) -> float:
        """Return the seconds that must pass before an answer can be too late; 0: it is."""
        remaining = self.timeout.remaining()
        is_first = self._answers.answered == self.first
        if self._attempts is not None and is_first and self.timeout.is_running:
            return min(remaining, max(self._attempts.remaining(), 0.0))
        return remaining
