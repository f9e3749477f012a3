"""The fault of too many calls: ten times what a service takes is asked of it.

h2load asks, and some more callers, whose calls are timed one by one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from chaos.crowd import CALLS, Timed
from chaos.outcome import LASTING, Fault, Outcome
from chaos.subject import TESTS, Caller, Controlled, Subject, controlled, seconds_until

_TIMES: Final = 10
"""How many times the calls that the service takes are offered to it."""
_CONNECTIONS: Final = 8
_UNDER_WAY: Final = 256
"""Calls of h2load at most: as many as a worker's limit is by default."""
_CALLERS: Final = 4
"""Callers whose calls are timed: for as long as one of them waits for a refusal, the others ask."""
_PAUSE: Final = 0.02
"""Seconds between the calls of each, with load and without. Less than who is refused is
told to wait, so as to be accepted often enough; and not none: of calls that follow each other
without a pause hardly one meets what happens to a machine now and then."""
_RECOVERY: Final = 1.0
"""Seconds after the end of the load within which calls are accepted again."""
_JOINS: Final = 1_000
"""Lookups a second beside rosters, ..."""
_ROSTERS: Final = 64
"""... rosters at once, ..."""
_JOIN_P99: Final = 0.005
"""... and seconds in which 99 of 100 lookups are answered, where the machine has two cores free."""
_ACCEPTED, _SHED = "0", "8"
"""gRPC's codes, as a response has them."""
_TOLD: Final = "the service at TARGET is overloaded"


def _cores() -> tuple[int, int]:
    """Return a core for the service and one for its clients; the same, if there is only one.

    Else what is measured is who gets a core, and not whether the service keeps to its calls.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def _keep_to(core: int, pids: Iterable[int]) -> None:
    """Have processes, and what threads they have, run on one core."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def _client(*command: str) -> list[str]:
    return ["taskset", "--cpu-list", str(_cores()[1]), *command]


def _timed(
    service: Controlled,
    seconds: float,
    name: str,
    *,
    callers: int = _CALLERS,
    pause: float = _PAUSE,
) -> Timed:
    """Make one call after another, in processes that do nothing else."""
    told = (str(service.port), str(seconds), name, str(pause))
    command = _client(sys.executable, "-m", "chaos.crowd", *told)
    timed = Timed()
    with contextlib.ExitStack() as stack:
        asking = [
            stack.enter_context(
                subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(callers)
        ]
        for process in asking:
            said, _ = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            timed.add(Timed(**json.loads(said)))
    return timed


@contextlib.contextmanager
def _offering(service: Controlled, name: str, rate: float) -> Iterator[None]:
    """Have h2load make so many calls a second while the block runs, whatever becomes of them."""
    method, message = CALLS[name]
    with tempfile.NamedTemporaryFile() as body:
        body.write(message)
        body.flush()
        command = ["h2load", "--duration=3600", f"--data={body.name}"]
        command += [
            f"--clients={_CONNECTIONS}",
            f"--max-concurrent-streams={_UNDER_WAY // _CONNECTIONS}",
        ]
        command += [f"--rps={rate / _CONNECTIONS:.1f}"]
        command += ["--header=content-type: application/grpc", "--header=te: trailers"]
        command = _client(*command, f"http://{service.target}{method}")
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as asking:
            try:
                # Of two on one core the timed caller comes first, at once: what it waits for
                # must not be the load's client.
                os.sched_setscheduler(asking.pid, os.SCHED_IDLE, os.sched_param(0))
                yield
            finally:
                asking.kill()


def _counts(service: Controlled, method: str) -> tuple[float, float]:
    """Return how many calls the service says it has answered, and refused because of the load."""
    metrics = service.metrics()
    name = method.rpartition("/")[2]
    return (
        metrics[f'geolookup_calls_total{{code="OK",method="{name}"}}'],
        metrics[f'geolookup_calls_shed_total{{method="{name}"}}'],
    )


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def _joining(target: str) -> Caller:
    """Return a client that asks now and then, as people join meanwhile."""
    return Caller(target, threads=1, pause=0.05)


def _overloaded(name: str, *options: str) -> Callable[[float], Outcome]:
    """Return what asks too much of a service with one worker.

    Args:
        name: which of `CALLS`.
        options: the limit.
    """

    def run(seconds: float) -> Outcome:
        outcome = Outcome()
        if shutil.which("h2load") is None:
            outcome.measured["not done"] = "there is no h2load here (Debian: nghttp2-client)"
            return outcome
        method, _ = CALLS[name]
        with controlled("--workers", "1", *options, honest=_joining) as service:
            pids = service.pids()
            _keep_to(_cores()[0], pids)
            one = _timed(service, max(0.5, seconds / 6), name, callers=1, pause=0)
            alone = _timed(service, max(0.5, seconds / 6), name)
            outcome.require(bool(one.accepted and alone.accepted), "calls are accepted")
            if outcome.broken:
                return outcome
            rate = _TIMES / statistics.mean(one.accepted)
            with _offering(service, name, rate):
                seconds_until(lambda: _counts(service, method)[1] > 0)
                before, began = _counts(service, method), time.monotonic()
                loaded = _timed(service, seconds * 2 / 3, name)
                after, took = _counts(service, method), time.monotonic() - began
            recovered = seconds_until(
                lambda: bool(_timed(service, 0.01, name, callers=1).accepted), pause=0
            )
            # One who joins now and then is answered, too, at the latest now.
            seconds_until(lambda: service.honest.outcomes["OK"] > 0)
            outcome.require(service.pids() == pids, "no process ends")
        answered, shed = (now - then for now, then in zip(after, before, strict=True))
        outcome.measured["offered"] = (
            f"{(answered + shed) / took:,.0f} calls a second, {answered / took:,.0f} accepted;"
            f" {rate / _TIMES:,.0f} when one asks after the other"
        )
        outcome.measure("without load", alone.accepted)
        outcome.measure("accepted", loaded.accepted)
        outcome.measure("refused", loaded.refused)
        ratio = _p99(loaded.accepted) / _p99(alone.accepted) if loaded.accepted else math.inf
        # Measured and not required: it is that of the core as well, which the kernel shares out.
        outcome.measured["ratio of p99"] = f"{ratio:.1f}"
        outcome.measured["recovery"] = (
            "never" if recovered is None else f"after {recovered * 1_000:,.0f} ms"
        )
        ends = loaded.ended.keys() | alone.ended.keys() | one.ended.keys()
        outcome.require(ends <= {_ACCEPTED, _SHED}, "the rest gets RESOURCE_EXHAUSTED")
        outcome.require(loaded.hinted == len(loaded.refused), "and a hint when to come again")
        outcome.require(recovered is not None, "calls are accepted afterwards")
        if seconds >= LASTING:
            outcome.require((recovered or 0) <= _RECOVERY, f"within {_RECOVERY:g} s")
        outcome.require_answers(service.honest, {_TOLD})
        return outcome

    return run


def beside(service: Subject, seconds: float, what: str, number: int) -> subprocess.Popen[str]:
    """Start a client of `chaos.beside`."""
    command = _client(sys.executable, "-m", "chaos.beside")
    arguments = (str(service.port), str(seconds), what, str(number))
    return subprocess.Popen([*command, *arguments], cwd=TESTS, stdout=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str]) -> Any:
    """Wait for it, and return what it printed."""
    output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return json.loads(output)


def _joins_beside_rosters(seconds: float) -> Outcome:
    outcome = Outcome()
    if importlib.util.find_spec("geolookup._http2_client") is None:
        outcome.measured["not done"] = "geolookup was built without libnghttp2"
        return outcome
    with controlled("--workers", "1", "--max-calls", "16", honest=_joining) as service:
        pids = service.pids()
        _keep_to(_cores()[0], pids)
        alone = done(beside(service, max(0.5, seconds / 4), "joins", _JOINS))
        rosters = beside(service, max(1.0, seconds * 3 / 4), "rosters", _ROSTERS)
        seconds_until(lambda: _counts(service, CALLS["roster"][0])[1] > 0)
        beside_them = done(beside(service, max(0.5, seconds / 2), "joins", _JOINS))
        loaded = done(rosters)
        outcome.require(service.pids() == pids, "no process ends")
    outcome.measure("joins alone", alone["took"])
    outcome.measure("joins beside rosters", beside_them["took"])
    outcome.measure("rosters", loaded["took"])
    outcome.measured["rosters refused"] = f"{loaded['ended'].get(_SHED, 0):,}"
    refused = {code: count for code, count in beside_them["ended"].items() if code != _ACCEPTED}
    outcome.require(bool(beside_them["took"]), "joins are answered")
    outcome.require(bool(loaded["took"]), "rosters are answered")
    # A shorter run shares a busy machine with other tests: its client makes up for a pause of
    # seconds at once.
    outcome.measured["joins refused"] = str(refused or "none")
    if seconds >= LASTING:
        outcome.require(not refused, "no join is refused")
        outcome.require(_p99(beside_them["took"]) <= _JOIN_P99, f"p99 of joins: {_JOIN_P99:g} s")
    outcome.require(loaded["hinted"] == loaded["ended"].get(_SHED, 0), "the rest gets a hint")
    return outcome


_REQUIRED: Final = (
    "the rest gets RESOURCE_EXHAUSTED with a hint when to come again; calls are accepted within"
    f" {_RECOVERY:g} s after the load, no process ends"
)

FAULTS: Final = (
    Fault(
        "overload",
        f"rosters of a million, {_TIMES} times what a worker takes that takes one call at a time",
        _REQUIRED,
        _overloaded("roster", "--max-calls", "1"),
    ),
    Fault(
        "overload by lookups",
        f"lookups, as fast as h2load makes them with {_UNDER_WAY} under way, to a"
        " worker with a limit of 16",
        _REQUIRED,
        _overloaded("lookup", "--max-calls", "16"),
    ),
    Fault(
        "joins beside rosters",
        f"{_JOINS:,} lookups a second beside {_ROSTERS} rosters of a million at once, to a worker"
        " with a limit of 16",
        "no lookup is refused, no process ends",
        _joins_beside_rosters,
    ),
)
