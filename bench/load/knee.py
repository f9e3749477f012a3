"""Looks for the knee: the most that a service bears before its callers notice.

The load is offered in open loops, more each time until the service no longer holds it;
then the gap between the last that it held and the first that it did not is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.load.session import Run

FAILURES = 0.001
"""Share of calls that may fail where a load is held."""
LEAST_LIMIT = 10_000.0
"""Microseconds: nobody who joins a meeting notices less."""
TIMES_LIGHT = 5.0
"""How many times the p99 under a light load it may become."""

_LADDER = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0)
"""Loads to begin with, as shares of what a closed loop brought through."""
_STEP = 1.2
_MOST = 1.05
"""How far apart the last load held and the first one not may be at the end."""
_HALVINGS = 4
_CLIMBS = 12


@dataclass
class Knee:
    """What was found.

    Attributes:
        runs: those made, by rising load.
        limit: microseconds that 99 % of the calls may take.
        best: the run in which the highest load was held; None: none was.
        broke: the lowest load above it that was not; None: all were held.
    """

    runs: list[Run] = field(default_factory=list)
    limit: float = 0.0
    best: Run | None = None
    broke: float | None = None

    @property
    def held(self) -> float | None:
        """The highest load held, in calls a second; None: none was."""
        return None if self.best is None else self.best.plan.rate

    def holds(self, run: Run) -> bool:
        """Say whether the service bore a run's load."""
        latencies = run.result.latencies
        return (
            run.result.answered > 0
            and run.result.failed <= FAILURES
            and run.keeps_up
            and latencies.percentile(99) <= self.limit
        )


def search(run: Callable[[float], Run], capacity: float, limit: float | None = None) -> Knee:
    """Look for the knee.

    Args:
        run: offers a load, in calls a second.
        capacity: what a closed loop brought through, in calls a second.
        limit: microseconds that 99 % of the calls may take; None: five times what they
            take under a light load, but no less than 10 ms.

    Returns what was found until a run was interrupted.
    """
    knee = Knee(limit=limit or 0.0)

    def offer(rate: float) -> bool | None:
        """Say whether it holds; None: it was interrupted.

        What is not held is offered once more: a neighbour on the machine may have woken up.
        """
        held = offer_once(rate) or offer_once(rate)
        if interrupted():
            return None
        if held:
            knee.best = held if rate > (knee.held or 0.0) else knee.best
        else:
            knee.broke = min(rate, knee.broke or rate)
        return held is not None

    def offer_once(rate: float) -> Run | None:
        if interrupted():
            return None
        made = run(rate)
        if not knee.limit:
            light = made.result.latencies.percentile(99)
            knee.limit = max(LEAST_LIMIT, TIMES_LIGHT * light)
        knee.runs = sorted([*knee.runs, made], key=lambda one: one.plan.rate or 0.0)
        return made if not made.result.interrupted and knee.holds(made) else None

    def interrupted() -> bool:
        return any(one.result.interrupted for one in knee.runs)

    rates = [share * capacity for share in _LADDER]
    rates += [capacity * _STEP ** (number + 1) for number in range(_CLIMBS)]
    for rate in rates:
        held = offer(rate)
        if held is None:
            return knee
        if not held:
            break
    for _ in range(_HALVINGS):
        if knee.broke is None or (knee.held and knee.broke / knee.held < _MOST):
            break
        if offer((knee.broke + (knee.held or 0.0)) / 2) is None:
            break
    return knee
