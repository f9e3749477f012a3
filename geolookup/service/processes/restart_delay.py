"""How long to wait before something that ended is started again."""

from __future__ import annotations

from typing import Final

_HEALTHY: Final = 10.0
"""Seconds that a worker has served after which its earlier failures are forgotten."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 30.0


class Backoff:
    """How long the place of a worker that ended stays empty.

    The first time not at all, as clients wait for it. One that ends again and again
    takes the processor from the others each time, so the wait doubles.
    """

    def __init__(self) -> None:
        self._failures = 0

    def wait(self, served: float) -> float:
        """Return the seconds to wait, after a worker that had served for *served* seconds."""
        if served >= _HEALTHY:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(_FIRST_WAIT * 2.0 ** min(self._failures - 2, 16), _LONGEST_WAIT)
