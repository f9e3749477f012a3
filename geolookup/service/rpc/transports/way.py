"""Giving way on a core: to other threads of this process, and hardly to anybody else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_LONG: Final = 1_000_000
"""Nanoseconds. Threads that only read what has come take a tenth of it; another program, or
one that computes, takes the core for as long as the kernel lets it: milliseconds."""

_SHARE: Final = 20
"""Of so much time one part may go to others, ..."""
_CREDIT: Final = 200_000_000
"""... and so much of it, in nanoseconds, may have been saved."""


class Way:
    """Gives the core to threads that want it, while that is soon over. Not thread-safe.

    Where the core is shared with a program that never waits, whoever gives way each time would
    hardly ever run, so what is lost in this way is bounded. Source: the generic cell rate
    algorithm, ITU-T I.371.

    Args:
        clock: nanoseconds that never go back.
        give: gives way once.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        give: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._clock = clock
        self._give = give
        self._again = 0
        self.lost = 0
        """Nanoseconds for which the core was somebody else's when it was given the last time."""

    def give(self) -> bool:
        """Let others have the core; False: they have had enough of it."""
        now = self._clock()
        if now < self._again:
            return False
        self._give()
        took = self._clock() - now
        self.lost = took if took > _LONG else 0
        if self.lost:
            self._again = max(self._again, now - _CREDIT) + _SHARE * self.lost
        return True
