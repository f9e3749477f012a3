"""Runs plans one after another, and keeps what each gave with what it cost the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bench.load import metrics
from bench.load.ceiling import BUSY, NEAR, Ceiling
from bench.load.client_processes import ClientProcesses
from bench.load.metrics import MetricsError, Reading, Spent
from bench.load.plan import Plan, Result

_KEEPS_UP = 0.95
"""Share of the offered calls that a service which keeps up answers in the measured time."""
_OTHERS = 1.1
"""How many times a run's own addresses a service may have answered before it is said."""
_STARVED = 0.1
"""Share of the time that a client process may wait for a core before it is said."""
_LATE = 0.2
"""Share of the p99 from which on the generator's own lateness (p99) is said."""


@dataclass
class Run:
    """A plan, and what came of it in one run or several alike.

    Attributes:
        plan: what was done.
        result: what the clients measured.
        spent: what it cost the service; None: its metrics are not known.
        ceiling: what the generator bears; None: that was not measured.
        side: "A" or "B" in a comparison; else "".
    """

    plan: Plan
    result: Result
    spent: Spent | None = None
    ceiling: Ceiling | None = None
    side: str = ""

    @property
    def load(self) -> str:
        """The load in words."""
        if self.plan.rate is not None:
            return f"open, {self.plan.rate:,.0f}/s"
        return f"closed, {self.plan.under_way:,} under way"

    @property
    def cpu_per_call(self) -> float | None:
        """Microseconds of the service's processor time for a call; None: not known."""
        return self._cpu_per(self.result.completed)

    @property
    def cpu_per_address(self) -> float | None:
        """Microseconds of the service's processor time for an address; None: not known."""
        return self._cpu_per(self.result.addresses)

    @property
    def margin(self) -> float | None:
        """The ceiling in cores of the service that answer as many calls; None: not known."""
        if self.ceiling is None or self.cpu_per_call is None:
            return None
        return self.ceiling.rate * self.cpu_per_call / 1e6

    def _cpu_per(self, count: int) -> float | None:
        return None if self.spent is None or not count else self.spent.cpu / count * 1e6

    @property
    def keeps_up(self) -> bool:
        """Whether as many calls were answered in the measured time as were due."""
        return self.result.completed >= _KEEPS_UP * self.result.asked

    def then(self, other: Run) -> Run:
        """Return both, of which the other was later, as one."""
        result = Result()
        result.add(self.result, later=True)
        result.add(other.result, later=True)
        known = self.spent is not None and other.spent is not None
        return replace(
            self,
            result=result,
            spent=self.spent + other.spent if known else None,  # type: ignore[operator]
            ceiling=self.ceiling or other.ceiling,
        )

    def warnings(self) -> list[str]:
        """Return what a reader must know before believing the figures."""
        found = []
        result, ceiling = self.result, self.ceiling
        if not result.asked:
            return ["nothing was asked in the measured time: measure for longer"]
        if ceiling is not None and result.throughput > NEAR * ceiling.rate:
            found.append(
                f"near the generator's own ceiling ({result.throughput:,.0f} of "
                f"{ceiling.rate:,.0f} calls/s): the client was measured, not the service alone"
            )
        if result.busiest > BUSY:
            found.append(
                f"a client process used {result.busiest:.0%} of a core: its own slowness is in "
                "the latencies; use more --processes, or a machine with more cores"
            )
        if result.starved > _STARVED:
            found.append(
                f"a client process waited {result.starved:.0%} of the time for a core: the machine "
                "is busy, and that is in the latencies"
            )
        if self.plan.rate is not None and not self.keeps_up:
            found.append(
                f"the service did not keep up ({result.throughput:,.0f} calls/s answered): "
                "latencies grow for as long as the run lasts"
            )
        late, p99 = result.behind.percentile(99), result.latencies.percentile(99)
        if self.plan.rate is not None and result.answered and late > _LATE * p99:
            found.append(
                f"calls were sent late (p99 {late / 1e3:,.2f} ms after they were due), because of "
                "the generator or of its bound on calls under way; that is in the latencies"
            )
        if self.spent is not None:
            # What was under way when the metrics were read counts for one side only.
            each = result.addresses / result.completed if result.completed else 1.0
            under_way = min(self.plan.under_way, result.asked)
            if self.spent.addresses > _OTHERS * result.addresses + 2 * each * under_way:
                found.append(
                    f"the service answered {self.spent.addresses:,.0f} addresses meanwhile, not "
                    f"only these {result.addresses:,}: its processor time is not this run's alone"
                )
        return found


@dataclass
class Session:
    """Makes runs with the same client processes.

    Attributes:
        processes: the client processes.
        urls: of the metrics of targets, by address.
        progress: shows a line of text; "": nothing.
        ceilings: what the generator bears, by scenario.
        notes: what went wrong beside the runs.
    """

    processes: ClientProcesses
    urls: Mapping[str, str]
    progress: Callable[[str], None]
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self, plan: Plan, side: str = "") -> Run:
        """Run a plan. The result may be of a run that ended early."""
        url = self.urls.get(plan.target.address)
        readings: list[Reading] = []

        def read() -> None:
            if url is None:
                return
            try:
                readings.append(metrics.read(url))
            except MetricsError as error:
                if str(error) not in self.notes:
                    self.notes.append(str(error))

        run = Run(plan, Result(), ceiling=self.ceilings.get(plan.scenario), side=side)
        title = f"{f'{side}: ' if side else ''}{plan.scenario}, {run.load}"
        length = plan.warm_up + plan.seconds

        def show(seconds: float, answered: int, failed: int) -> None:
            self.progress(
                f"{title}: {min(seconds, length):.1f} of {length:g} s, "
                f"{answered:,} answered, {failed:,} failed"
            )

        self.progress(f"{title}: preparing ...")
        run.result = self.processes.run(plan, progress=show, at_measured=read, at_end=read)
        self.progress("")
        if len(readings) == 2:
            run.spent = metrics.spent(*readings)
        return run
