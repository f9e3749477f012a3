"""The command: who is asked, what is run in which order, and how it ends."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc

import geolookup
from bench import timing
from bench.addresses import SEED
from bench.load import ceiling, comparison, knee, metrics, native, options, report
from bench.load.ceiling import CeilingError
from bench.load.client_processes import ClientProcessError, ClientProcesses
from bench.load.metrics import MetricsError
from bench.load.options import Options
from bench.load.plan import Plan
from bench.load.report import Study
from bench.load.session import Run, Session
from bench.load.targets import Target
from bench.load.work import Blend, is_native
from geolookup.client.channel import channel_options
from geolookup.client.wire import EMPTY, GET_DATASET
from geolookup.errors import GeoLookupError
from geolookup.v1 import geolookup_pb2 as v1

DONE, NOTHING, FAILED, INTERRUPTED = 0, 1, 3, 130
"""Exit codes; 2 is argparse's."""

_FAILURES = 0.01
"""Share of a run's calls that may fail before the exit code says so."""
_PATIENCE = 10.0
"""Seconds that a service may take to say that it is there."""
_SILENT = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)
"""Statuses of a service that is there and doesn't say which dataset it has."""


class UnreachableError(Exception):
    """A target does not answer. The text says which, and how."""


def main(arguments: Sequence[str] | None = None) -> int:
    # As Ctrl-C: what was measured is reported.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = options.read(arguments)
    study = Study(
        machine=timing.machine(),
        targets=[],
        blend=_described(chosen.plans[0].blend),
        processes=chosen.processes,
    )
    broken = False
    lacking = native.missing() if any(is_native(plan.scenario) for plan in chosen.plans) else None
    if lacking is not None:
        print(lacking, file=sys.stderr)
        return NOTHING
    try:
        _run_all(chosen, study)
    except KeyboardInterrupt:
        study.interrupted = True
    except (UnreachableError, ClientProcessError, CeilingError, GeoLookupError) as error:
        timing.progress("")
        print(error, file=sys.stderr)
        if not study.runs:
            return NOTHING
        study.notes.append(f"it broke off: {error}")
        broken = True
    timing.progress("")
    # A second Ctrl-C shall not lose what the first one kept.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        _report(chosen, study)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return NOTHING
    return NOTHING if broken else _code(study)


def _code(study: Study) -> int:
    if study.interrupted:
        return INTERRUPTED
    searched = {id(run) for run in study.knee.runs} if study.knee else set()
    failed = any(run.result.failed > _FAILURES for run in study.runs if id(run) not in searched)
    return FAILED if failed else DONE


def _run_all(chosen: Options, study: Study) -> None:
    """Run what was asked for; what was measured is in the study even when this raises."""
    with geolookup.open(chosen.dataset):  # what is wrong with it is better said here
        pass
    for target in chosen.targets:
        study.targets.append((target.address, _dataset_of(target)))
    with ClientProcesses(chosen.processes, chosen.dataset, chosen.cores) as processes:
        session = Session(processes, _urls(chosen, study), timing.progress, notes=study.notes)
        if chosen.ceiling:
            _measure_ceilings(chosen, session)
        if chosen.knee:
            _search(chosen, session, study)
        else:
            _measure(chosen, session, study)


def _measure_ceilings(chosen: Options, session: Session) -> None:
    timing.progress("starting services of its own ...")
    with ceiling.own_services(chosen.processes) as server:
        for plan in chosen.plans:
            if plan.scenario not in session.ceilings:
                timing.progress(f"{plan.scenario}: the generator's own ceiling ...")
                found = ceiling.measure(session.processes, plan, server, chosen.processes)
                session.ceilings[plan.scenario] = found


def _measure(chosen: Options, session: Session, study: Study) -> None:
    """Run the plans in turns, each against each target."""
    sides = ("A", "B") if len(chosen.targets) == 2 else ("",)
    turns: dict[tuple[int, str], list[Run]] = {}
    rng = random.Random(SEED)
    order = list(range(len(chosen.plans)))
    try:
        for repeat in range(chosen.rounds):
            if repeat:
                rng.shuffle(order)
            # The two sides of a turn follow each other, so that the machine has little time
            # to change; which comes first changes.
            both = range(len(sides))
            turn = [(number, side) for number in order for side in rng.sample(both, len(both))]
            for number, side in turn:
                plan = replace(chosen.plans[number], target=chosen.targets[side], repeat=repeat)
                run = session.run(plan, sides[side])
                turns.setdefault((number, sides[side]), []).append(run)
                if run.result.interrupted:
                    raise KeyboardInterrupt
    finally:
        _add_up(chosen.plans, sides, turns, study)


def _add_up(
    plans: Sequence[Plan],
    sides: Sequence[str],
    turns: dict[tuple[int, str], list[Run]],
    study: Study,
) -> None:
    for number in range(len(plans)):
        for side in sides:
            runs = turns.get((number, side), [])
            if runs:
                total = runs[0]
                for run in runs[1:]:
                    total = total.then(run)
                study.runs.append(total)
        if len(sides) == 2:
            whole = [
                [run for run in turns.get((number, side), []) if not run.result.interrupted]
                for side in sides
            ]
            if all(whole):
                study.comparisons.append(comparison.compare(*whole))


def _search(chosen: Options, session: Session, study: Study) -> None:
    plan = chosen.plans[0]
    closed = replace(plan, under_way=min(plan.under_way, options.CLOSED))
    capacity = session.run(closed)
    study.runs.append(capacity)
    if capacity.result.interrupted:
        raise KeyboardInterrupt
    if not capacity.result.completed:
        raise UnreachableError(f"{plan.target.address}: no call was answered")
    open_plan = replace(plan, under_way=max(plan.under_way, options.OPEN))

    def offer(rate: float) -> Run:
        run = session.run(replace(open_plan, rate=rate))
        study.runs.append(run)
        return run

    study.knee = knee.search(offer, capacity.result.throughput, chosen.limit)
    if any(run.result.interrupted for run in study.knee.runs):
        raise KeyboardInterrupt


def _dataset_of(target: Target) -> str:
    """Return the id of a target's dataset; "": it doesn't say.

    Raises:
        UnreachableError: it does not answer.
    """
    with _channel(target) as channel:
        try:
            method: Any = channel.unary_unary(GET_DATASET)
            body = method(EMPTY, timeout=_PATIENCE)
        except grpc.RpcError as error:
            if error.code() in _SILENT:
                return ""
            raise UnreachableError(f"{target.address}: {error.code().name}") from None
    return str(v1.GetDatasetResponse.FromString(body).id)


@contextmanager
def _channel(target: Target) -> Iterator[grpc.Channel]:
    arguments = channel_options(target.options)
    credentials = target.credentials
    with (
        grpc.insecure_channel(target.address, arguments)
        if credentials is None
        else grpc.secure_channel(target.address, credentials, arguments)
    ) as channel:
        yield channel


def _urls(chosen: Options, study: Study) -> dict[str, str]:
    """Return the URL of each target's metrics, where there are any."""
    found = {}
    for target, url in zip(chosen.targets, chosen.metrics, strict=True):
        usual = url == ""
        at = usual_metrics(target) if usual else url
        if at is None:
            continue
        try:
            metrics.read(at)
        except MetricsError as error:
            if not usual:
                study.notes.append(f"no processor time of the service: {error}")
        else:
            found[target.address] = at
    return found


def usual_metrics(target: Target) -> str | None:
    """Return where the metrics of a service with the default ports are; None: it has others."""
    host, _, port = target.address.rpartition(":")
    return f"http://{host}:9464/metrics" if port == "50051" else None


def _described(blend: Blend) -> str:
    form = "as text" if blend.text else "packed"
    parts = [f"addresses {form}", f"{blend.ipv6:.0%} IPv6", f"drawn: {blend.draw}"]
    parts += [f"{blend.bad:.0%} no addresses"] if blend.bad else []
    parts += [f"region set {blend.region_set}" if blend.region_set else "no region set"]
    return ", ".join(parts)


def _report(chosen: Options, study: Study) -> None:
    print(json.dumps(report.as_json(study)) if chosen.json else report.text(study), flush=True)
    if chosen.html is not None:
        from bench.load import page  # noqa: PLC0415 - as below

        chosen.html.write_text(page.page(study), encoding="utf-8")
    if chosen.plot is not None and any(run.result.answered for run in study.runs):
        from bench.load import plots  # noqa: PLC0415 - half a second

        plots.write(study, chosen.plot)
