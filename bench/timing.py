"""Fair timing of several contenders in one run, and a description of the machine.

Contenders take turns: each round times every one of them once, in an order that
changes from round to round, so that a clock that speeds up or a neighbour that
wakes up meets all of them alike. Medians over the rounds are compared.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Times of one contender, in nanoseconds a call."""

    median: float
    lowest: float
    highest: float
    rounds: int
    calls: int
    """Calls in each round."""


def alternate(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, least_seconds: float
) -> dict[str, Timing]:
    """Time the contenders in turns.

    Args:
        contenders: what to call, by name.
        rounds: how often each is timed.
        least_seconds: how long one timing takes at least; calls are repeated
            until it does, so that the clock's own cost and grain vanish.
    """
    calls = {name: _calibrate(call, least_seconds) for name, call in contenders.items()}
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                samples[name].append(_time(contenders[name], calls[name]))
    finally:
        if collecting:
            gc.enable()
    return {
        name: Timing(statistics.median(times), min(times), max(times), rounds, calls[name])
        for name, times in samples.items()
    }


def _calibrate(call: Callable[[], object], least_seconds: float) -> int:
    """Return how many calls take about *least_seconds*; warms up caches on the way."""
    call()  # What is done once, such as a table for a region set, would pass for its usual time.
    calls = 1
    while True:
        seconds = _time(call, calls) * calls / 1e9
        if seconds >= least_seconds:
            return calls
        calls = max(
            calls + 1, min(calls * 10, int(calls * 1.2 * least_seconds / (seconds or 1e-9)))
        )


def _time(call: Callable[[], object], calls: int) -> float:
    again = range(calls)
    begin = time.perf_counter_ns()
    for _ in again:
        call()
    return (time.perf_counter_ns() - begin) / calls


def pin(core: int | None = None) -> int:
    """Keep this process on one core (by default the last that it may use); return which."""
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return chosen


def machine() -> dict[str, str]:
    """Return what a reader of figures must know of the machine."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.2f}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def progress(text: str) -> None:
    """Show what is going on, on a terminal only: one line that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
