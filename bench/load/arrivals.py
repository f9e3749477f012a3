"""When calls are due in an open loop: a Poisson process, as independent people make one."""

from __future__ import annotations

import random
from collections.abc import Iterator


def poisson(rate: float, seed: object, start: float, end: float) -> Iterator[float]:
    """Yield the times in [start, end) at which *rate* calls a second are due on average.

    The same times for the same seed. What is due does not depend on how the service
    fares: that is the difference from a loop that waits for its answers.
    """
    gaps = random.Random(f"arrivals {seed}")
    due = start + gaps.expovariate(rate)
    while due < end:
        yield due
        due += gaps.expovariate(rate)
