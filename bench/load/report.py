"""What was found, as tables in Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.load.ceiling import Ceiling
from bench.load.comparison import Comparison
from bench.load.knee import Knee
from bench.load.latencies import SHOWN
from bench.load.plan import OK
from bench.load.session import Run

PERCENTILES = tuple(f"p{percent:g}" for percent in SHOWN)


@dataclass
class Study:
    """All that was found.

    Attributes:
        machine: that the clients ran on.
        targets: each target's address, and its dataset; "": it doesn't say.
        blend: how addresses were drawn, in words.
        processes: client processes.
        runs: those made, alike ones added up; of a search for the knee all.
        knee: what a search found; None: there was none.
        comparisons: of two targets, a load each.
        notes: what went wrong beside the runs.
        interrupted: whether it ended early.
    """

    machine: Mapping[str, str]
    targets: list[tuple[str, str]]
    blend: str
    processes: int
    runs: list[Run] = field(default_factory=list)
    knee: Knee | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def warnings(self) -> Iterator[tuple[Run, str]]:
        """Yield what to know before believing the figures."""
        # A search for the knee makes loads that are too much on purpose.
        searched = {id(run) for run in self.knee.runs} if self.knee else set()
        for run in self.runs:
            for warning in run.warnings():
                if id(run) not in searched or "did not keep up" not in warning:
                    yield run, warning


@dataclass(frozen=True)
class Table:
    """Rows of texts. All columns but the first hold figures."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(study: Study) -> list[Table]:
    """Return what was found, without what there is nothing to say of."""
    found = [_runs(study)]
    if study.knee is not None:
        found.append(_knee(study.knee))
    found += map(_comparison, study.comparisons)
    statuses = _statuses(study)
    if statuses.rows:
        found.append(statuses)
    return found


def sentences(study: Study) -> list[str]:
    """Return what stands around the tables: what was asked, and what to know."""
    said = [
        f"{address}: dataset {dataset[:12]}" if dataset else f"{address}: dataset not known"
        for address, dataset in study.targets
    ]
    said.append(f"{study.blend}; {study.processes} client process(es)")
    said.append(", ".join(f"{key} {value}" for key, value in study.machine.items()))
    by_scenario: dict[str, Run] = {}
    for run in study.runs:
        if run.ceiling is not None:
            best = by_scenario.setdefault(run.plan.scenario, run)
            if best.margin is None or (run.margin is not None and run.margin < best.margin):
                by_scenario[run.plan.scenario] = run
    said += [_ceiling(run, run.ceiling) for run in by_scenario.values() if run.ceiling]
    if (knee := study.knee) is not None:
        said.append(_found(knee))
    return said


def _ceiling(run: Run, ceiling: Ceiling) -> str:
    text = (
        f"the generator's own ceiling for {run.plan.scenario}: {ceiling.rate:,.0f} calls/s, "
        f"counted from {ceiling.measured:,.0f} to services of its own, "
        f"a process {ceiling.busiest:.0%} busy"
    )
    if run.margin is None:
        return text
    return f"{text}; {run.margin:.1f} times what a core of the service answers"


def cautions(study: Study) -> list[str]:
    """Return what a reader must know before believing the figures."""
    warned = [f"{name(run)}, {run.load}: {text}" for run, text in study.warnings()]
    ended = ["ended early: this is what was measured until then"] if study.interrupted else []
    return ended + study.notes + warned


def text(study: Study) -> str:
    """Return all of it in Markdown."""
    parts = ["\n".join(f"- {sentence}" for sentence in sentences(study))]
    for table in tables(study):
        lines = [f"**{table.title}**", "", _row(table.heads)]
        lines.append("| --- |" + " ---: |" * (len(table.heads) - 1))
        lines += map(_row, table.rows)
        parts.append("\n".join(lines))
    if warned := cautions(study):
        parts.append("\n".join(f"WARNING: {caution}" for caution in warned))
    return "\n\n".join(parts)


def as_json(study: Study) -> dict[str, Any]:
    """Return all of it for `json.dumps`. Times are in microseconds."""
    knee = study.knee
    return {
        "machine": dict(study.machine),
        "targets": [{"address": one, "dataset": other} for one, other in study.targets],
        "addresses": study.blend,
        "processes": study.processes,
        "interrupted": study.interrupted,
        "runs": [_run(run) for run in study.runs],
        "knee": None
        if knee is None
        else {
            "limit_p99": knee.limit,
            "held": knee.held,
            "held_latency": knee.best and knee.best.result.latencies.percentiles(),
            "held_warnings": knee.best and knee.best.warnings(),
            "broke": knee.broke,
            "loads": [{"rate": run.plan.rate, "held": knee.holds(run)} for run in knee.runs],
        },
        "comparisons": [asdict(one) for one in study.comparisons],
        "warnings": cautions(study),
    }


def _run(run: Run) -> dict[str, Any]:
    plan, result = run.plan, run.result
    return {
        "target": plan.target.address,
        "side": run.side or None,
        "scenario": plan.scenario,
        "loop": "closed" if plan.rate is None else "open",
        "offered": plan.rate,
        "under_way": plan.under_way,
        "seconds": result.seconds,
        "interrupted": result.interrupted,
        "asked": result.asked,
        "answered": result.answered,
        "calls_per_second": result.throughput if result.seconds else None,
        "addresses_per_second": result.addresses / result.seconds if result.seconds else None,
        "latency": {
            **result.latencies.percentiles(),
            "mean": result.latencies.mean,
            "max": result.latencies.longest,
        },
        "hdr_histogram": result.latencies.encoded(),
        "statuses": dict(result.statuses),
        "sent_late": result.behind.percentiles() if plan.rate is not None else None,
        "server_cpu_per_call": run.cpu_per_call,
        "server_cpu_per_address": run.cpu_per_address,
        "client_busiest": result.busiest,
        "client_starved": result.starved,
        "ceiling": None
        if run.ceiling is None
        else {**asdict(run.ceiling), "calls_per_second": run.ceiling.rate},
    }


def _runs(study: Study) -> Table:
    costs = any(run.spent is not None for run in study.runs)
    heads = [
        "work",
        "load",
        "calls/s",
        "addresses/s",
        *(f"{percentile}, ms" for percentile in PERCENTILES),
    ]
    heads += ["failed", *(("server CPU, µs a call", "µs an address") if costs else ())]
    heads += ["client busy"]
    rows = []
    for run in study.runs:
        result = run.result
        row = [name(run), run.load]
        row += [_rate(result.throughput), _rate(result.addresses / (result.seconds or 1))]
        row += [_milliseconds(value) for value in result.latencies.percentiles().values()]
        row.append(f"{result.failed:.2%}" if result.failed else "0")
        if costs:
            row += [_cost(run.cpu_per_call), _cost(run.cpu_per_address)]
        rows.append((*row, f"{result.busiest:.0%}"))
    return Table("What the clients saw", tuple(heads), tuple(rows))


def _knee(knee: Knee) -> Table:
    rows = [
        (
            _rate(run.plan.rate or 0.0),
            _rate(run.result.throughput),
            _milliseconds(run.result.latencies.percentile(99)),
            f"{run.result.failed:.2%}",
            "yes" if knee.holds(run) else "no",
        )
        for run in knee.runs
    ]
    heads = ("offered, calls/s", "answered, calls/s", "p99, ms", "failed", "held")
    return Table("The search for the knee", heads, tuple(rows))


def _found(knee: Knee) -> str:
    limit = f"p99 within {knee.limit / 1e3:,.3g} ms, nearly no failures"
    if knee.held is None:
        return f"no knee: not even the lightest load was held ({limit})"
    if knee.broke is None:
        return f"the knee lies above {knee.held:,.0f} calls/s, which was held ({limit})"
    return f"the knee: {knee.held:,.0f} calls/s were held, {knee.broke:,.0f} not ({limit})"


def _comparison(comparison: Comparison) -> Table:
    rows = []
    for figure, ratio in comparison.ratios.items():
        interval = "-" if ratio.low is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
        verdict = "differs" if ratio.differs else "no difference seen"
        rows.append((figure, f"{ratio.value:.3f}", interval, f"{ratio.turns}", verdict))
    title = f"B compared with A: {comparison.scenario}, {comparison.load}"
    return Table(title, ("figure", "B / A", "95 % interval", "turns", ""), tuple(rows))


def _statuses(study: Study) -> Table:
    rows = [
        (name(run), run.load, status, f"{count:,}", f"{count / run.result.asked:.3%}")
        for run in study.runs
        for status, count in sorted(run.result.statuses.items())
        if status != OK
    ]
    heads = ("work", "load", "status", "calls", "share")
    return Table("Calls that were not answered", heads, tuple(rows))


def name(run: Run) -> str:
    """Return what a run is called in a table."""
    return f"{run.side}: {run.plan.scenario}" if run.side else run.plan.scenario


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _milliseconds(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:,.2f}"


def _cost(microseconds: float | None) -> str:
    if microseconds is None:
        return "-"
    return f"{microseconds:,.3g}" if microseconds < 100 else f"{microseconds:,.0f}"
