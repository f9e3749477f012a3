"""Calls that found no slot: who came last is let in first, and who came first is refused first.

Where more is asked for than can be answered, first come, first served has everybody wait
for all who came before, and is late for all. The other way round those who are answered
are answered nearly as soon as ever, and the others are told to come again. Source: B. Maurer,
"Fail at Scale", ACM Queue 13 (8), 2015 ("adaptive LIFO", "controlled delay").
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_IN_FOR_ONE_OUT = 2
"""So many are let in for each who is refused because of those who wait behind. A refusal takes
nearly as much as an answer, so that one for one only half of what is done would be answers."""


class Crowd(Generic[T]):
    """Calls in the order in which they came. Not thread-safe.

    Args:
        patience: nanoseconds after which a call is let in no more.
        room: so many are `full`.
    """

    def __init__(self, patience: int, room: int) -> None:
        self._patience = patience
        self.forgiven = 0
        """Nanoseconds that nobody is late for; none again when nobody waits any more."""
        self._room = room
        self._waiting: deque[tuple[int, T]] = deque()
        self._let_in = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether somebody should leave before the next one comes."""
        return len(self._waiting) >= self._room

    def add(self, call: T, came: int) -> None:
        """Add one.

        Args:
            call: what waits.
            came: `time.monotonic_ns` when it came; not before the last one.
        """
        if not self._waiting:
            self.forgiven = 0
        self._waiting.append((came, call))

    def leave(self, now: int, free: bool) -> tuple[T | None, T | None]:
        """Take out who is next to be let in, and who is next to be refused; one of them at least.

        Some for one, so that neither those who came last nor those who waited longest wait for
        all of the others.

        Args:
            now: `time.monotonic_ns`.
            free: whether anybody can be let in.

        Raises:
            IndexError: nobody waits.
        """
        waiting, late = self._waiting, now - self._patience - self.forgiven
        enters = waiting.pop()[1] if free and waiting[-1][0] > late else None
        if enters is not None:
            self._let_in += 1
            owed = self._let_in >= _IN_FOR_ONE_OUT
            if not (owed and waiting and waiting[0][0] <= late):
                return enters, None
        self._let_in = 0
        return enters, waiting.popleft()[1]
