"""How long to wait before a process that ended is started again."""

from __future__ import annotations

from typing import Final

_HEALTHY: Final = 10.0
"""Seconds of service after which earlier failures no longer count."""
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 30.0


class RestartDelay:
    """Exponential back-off between restarts of one worker slot.

    The first restart is immediate, since clients wait for it. A worker that fails
    repeatedly takes processor time from the others at each start, so the delay doubles.
    """

    def __init__(self) -> None:
        self._failures = 0

    def next(self, served: float) -> float:
        """Return the seconds to wait after a worker that served for *served* seconds."""
        if served >= _HEALTHY:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(_FIRST_DELAY * 2.0 ** min(self._failures - 2, 16), _LONGEST_DELAY)
