"""How long the other side of a stream has kept its reader waiting.

A stream lasts as long as there are rosters, so it has no deadline as a whole.
What is limited is the wait for the next answer while one is due.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class StreamTimeout:
    """A stream's time-out. Sender and reader may be different threads, one each.

    Each attribute is written by one of the two, so no lock is needed; a value
    read too early makes `remaining` too long once, never too short.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._sent = 0
        self._due_since = 0.0
        self._received = 0
        self._waiting_since: float | None = None

    def on_send(self) -> None:
        """Note that a roster, or the end of them, is about to be sent: an answer is due."""
        if self._sent == self._received:
            self._due_since = self._clock()
        self._sent += 1

    def on_wait(self) -> None:
        """Note that the reader begins to wait."""
        self._waiting_since = self._clock()

    def on_receive(self) -> None:
        """Note that what the reader waited for is there."""
        self._waiting_since = None
        self._received += 1

    @property
    def is_running(self) -> bool:
        """Whether the reader waits for an answer that is due."""
        return self._waiting_since is not None and self._sent != self._received

    def remaining(self) -> float:
        """Return the seconds that must pass before an answer can be too late; 0: it is."""
        waiting_since = self._waiting_since
        if waiting_since is None or self._sent == self._received:
            return self.limit
        since = max(waiting_since, self._due_since)
        return max(since + self.limit - self._clock(), 0.0)
