"""What a run is to do, and what came of it. Both travel between processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.load.latencies import Latencies
from bench.load.targets import Target
from bench.load.work import DEFAULT_MIX, Blend

OK = "OK"
"""The status of a call that was answered."""
UNSENT = "UNSENT"
"""The status of a call that was due and never sent: the bound on calls under way was reached,
or the run was ended early."""
ENDED = "ENDED"
"""The status of a message to a stream that had ended already, for a reason that the status of a
message before it tells; gRPC does not say it again."""
UNFINISHED = "UNFINISHED"
"""The status of a call that was under way when the run was ended early."""


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        target: whom to ask.
        scenario: what for.
        rate: calls that are due in a second, over all processes, at random times
            (Poisson): an open loop. None: a closed loop.
        under_way: closed loop: calls under way at once, over all processes. Open loop:
            the most that there may be; what is due beyond waits, and its time runs.
        seconds: how long to measure.
        warm_up: seconds before, which are not measured.
        timeout: seconds that a call may take.
        connections: of each process.
        blend: which addresses.
        mix: weights of the scenario "mix".
        repeat: number of the run among those alike; calls of each are due at other times.
    """

    target: Target
    scenario: str
    rate: float | None = None
    under_way: int = 32
    seconds: float = 5.0
    warm_up: float = 1.0
    timeout: float = 5.0
    connections: int = 1
    blend: Blend = field(default_factory=Blend)
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    repeat: int = 0


@dataclass
class Result:
    """What came of a run, in one process or in all of them.

    Attributes:
        latencies: of the calls that were answered; in an open loop from when each was
            due, in a closed one from when it was sent.
        statuses: calls that were due (open) or sent (closed) in the measured time, by
            how they ended: gRPC's names, `UNSENT`, `ENDED`, `UNFINISHED`.
        completed: calls that were answered within the measured time, whenever they were
            due. In an open loop that the service can't keep up with they are fewer than
            those of `latencies`, of which the last were answered afterwards.
        addresses: in the calls that were completed.
        seconds: how long was measured.
        behind: how late the calls of an open loop were sent; what is above some
            milliseconds is the generator's own doing, or the bound on calls under way.
        processor: seconds of processor time of the process, while it measured.
        busiest: largest share of a core that one of the processes used.
        starved: largest share of the time that one of the processes was ready to run and
            had no core (Linux; 0 elsewhere).
        interrupted: whether it ended early.
    """

    latencies: Latencies = field(default_factory=Latencies)
    statuses: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    addresses: int = 0
    seconds: float = 0.0
    behind: Latencies = field(default_factory=Latencies)
    processor: float = 0.0
    busiest: float = 0.0
    starved: float = 0.0
    interrupted: bool = False

    @property
    def answered(self) -> int:
        """Calls that were answered, then or later."""
        return self.statuses[OK]

    @property
    def asked(self) -> int:
        """All calls."""
        return self.statuses.total()

    @property
    def throughput(self) -> float:
        """Calls answered in a second; NaN: nothing was measured."""
        return self.completed / self.seconds if self.seconds else math.nan

    @property
    def failed(self) -> float:
        """Share of calls that were not answered, 0 to 1."""
        return 1 - self.answered / self.asked if self.asked else 0.0

    def add(self, other: Result, *, later: bool = False) -> None:
        """Add what another process measured at the same time, or another run *later*."""
        self.latencies.add(other.latencies)
        self.statuses.update(other.statuses)
        self.completed += other.completed
        self.addresses += other.addresses
        times = (self.seconds, other.seconds)
        self.seconds = sum(times) if later else max(times)
        self.behind.add(other.behind)
        self.processor += other.processor
        self.busiest = max(self.busiest, other.busiest)
        self.starved = max(self.starved, other.starved)
        self.interrupted = self.interrupted or other.interrupted
