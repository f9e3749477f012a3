"""Two targets in one run: they take turns, and what is compared is each turn's ratio.

A machine that gets slower for a minute makes both sides of a turn slower, and not the ratio.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.load.session import Run

# Of Student's distribution: 97.5 % lie below, by degrees of freedom, from 1.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

FIGURES = ("calls a second", "p50", "p90", "p99", "p99.9", "server CPU a call")


@dataclass(frozen=True)
class Ratio:
    """How many times the first target's figure the second one's is.

    Attributes:
        value: geometric mean of the turns' ratios.
        low: below it lies the true ratio with a chance of 2.5 %; None: one turn tells nothing.
        high: above it, the same.
        turns: how many.
    """

    value: float
    low: float | None
    high: float | None
    turns: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class Comparison:
    """Two targets under one load.

    Attributes:
        scenario: what for.
        load: in words.
        ratios: by figure, of `FIGURES`; those that neither has are left out.
    """

    scenario: str
    load: str
    ratios: Mapping[str, Ratio]


def quantile(freedom: int) -> float:
    """Return what 97.5 % of Student's distribution lie below; beyond 30, the next above."""
    return _T[min(freedom, len(_T)) - 1]


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return the ratio of the second to the first, with its 95 % confidence interval.

    Args:
        pairs: figures above 0 of each turn, at least one.
    """
    logs = [math.log(second / first) for first, second in pairs]
    middle = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(middle), None, None, 1)
    reach = quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(middle - reach), math.exp(middle + reach)
    return Ratio(math.exp(middle), low, high, len(logs))


def figures(run: Run) -> dict[str, float]:
    """Return those of `FIGURES` that a run has, above 0."""
    found: dict[str, float | None] = {
        "calls a second": run.result.throughput,
        **run.result.latencies.percentiles((50.0, 90.0, 99.0, 99.9)),
        "server CPU a call": run.cpu_per_call,
    }
    return {name: value for name, value in found.items() if value is not None and value > 0}


def compare(first: Sequence[Run], second: Sequence[Run]) -> Comparison:
    """Compare runs that took turns, each with its fellow; at least one each."""
    ratios = {}
    turns = [(figures(one), figures(other)) for one, other in zip(first, second, strict=False)]
    for name in FIGURES:
        pairs = [(one[name], other[name]) for one, other in turns if name in one and name in other]
        if pairs:
            ratios[name] = ratio(pairs)
    return Comparison(first[0].plan.scenario, first[0].load, ratios)
