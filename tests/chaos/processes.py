"""Faults of the service's own processes: workers and the supervisor are killed under load."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
from servers import SPARE, serving

from chaos.outcome import Fault, Outcome
from chaos.subject import Caller, Controlled, OpenStream, Waiting, controlled, seconds_until
from geolookup.service.admin.control import WorkerStatus

_BETWEEN: Final = 6.0
"""Seconds before each kill of a worker, in turn: each has served for the 10 s by then after which
its supervisor no longer waits before it starts another, and a spare has loaded all it needs."""
_REPLACED: Final = 1.0
"""Seconds within which a worker's place is filled and serves."""
_ENDED: Final = 5.0
"""Seconds within which workers without a supervisor have ended after their last call."""
_HEARD: Final = 0.2
"""Seconds after which workers know that their supervisor is gone."""
_STREAMS: Final = 6
"""Streams that are open when a supervisor is killed: both workers have some."""
_CANCELLED: Final = "the service at TARGET answered CANCELLED"
_UNREACHABLE: Final = "the service at TARGET can't be reached"


def _kill_workers(seconds: float) -> Outcome:
    outcome = Outcome()
    took: list[float] = []
    end = time.monotonic() + seconds
    with controlled(SPARE) as service, Waiting(service.target) as single:
        number = 0
        while number < 2 or time.monotonic() < end:
            time.sleep(max(0.1, min(_BETWEEN, end - time.monotonic())))
            if not _replace_worker(service, number % 2, outcome, took):
                break
            number += 1
    outcome.require_time("place filled", took, _REPLACED, seconds)
    outcome.measured["without retry"] = single.told()
    outcome.require(
        single.failed.get("UNAVAILABLE", 0) <= number * single.threads
        and single.failed.keys() <= {"UNAVAILABLE"},
        "of a client without retry no more than the call in flight is lost",
    )
    outcome.require_answers(service.honest)
    return outcome


def _replace_worker(service: Controlled, place: int, outcome: Outcome, took: list[float]) -> bool:
    """Kill a worker, and wait until its place is filled again; False: it never is."""
    before = service.control.status().workers

    def filled() -> bool:
        now = service.control.status().workers[place]
        return now.pid not in {0, before[place].pid} and now.state == "serving"

    os.kill(before[place].pid, signal.SIGKILL)
    waited = seconds_until(filled)
    outcome.require(waited is not None, "the place is filled again")
    others = [_others(workers, place) for workers in (before, service.control.status().workers)]
    outcome.require(others[0] == others[1], "the others go on")
    took.extend([] if waited is None else [waited])
    return waited is not None


def _others(workers: Sequence[WorkerStatus], place: int) -> list[tuple[int, int]]:
    return [(one.pid, one.restarts) for one in workers if one.number != place]


def _kill_supervisors(seconds: float) -> Outcome:
    outcome = Outcome()
    ended: list[float] = []
    back: list[float] = []
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(SPARE, "--workers", "2"))
        honest = stack.enter_context(Caller(service.target))
        while not ended or time.monotonic() < end:
            workers, answered = service.workers, honest.outcomes["OK"]
            seconds_until(lambda: honest.outcomes["OK"] > answered + 100)  # noqa: B023 - of this turn
            with _open_streams(service.target) as streams:
                service.process.kill()
                service.process.wait()
                time.sleep(_HEARD)
                for stream in streams:
                    outcome.require(_goes_on(stream), "calls in flight are finished")
            waited = seconds_until(lambda: not any(map(_runs, workers)))  # noqa: B023 - of this turn
            outcome.require(waited is not None, "no process is left behind")
            if waited is None:
                break
            ended.append(waited)
            service = stack.enter_context(
                serving(SPARE, "--workers", "2", "--listen", service.target)
            )
            answered = honest.outcomes["OK"]
            waited = seconds_until(lambda: honest.outcomes["OK"] > answered)  # noqa: B023
            outcome.require(waited is not None, "clients come back to a new service on the port")
            back.append(waited or 0.0)
    outcome.require_time("last worker ended", ended, _ENDED, seconds)
    outcome.require_time("clients back", back, _ENDED, seconds)
    # Between the end of the old service and the start of the new one there is nobody to answer.
    outcome.require_answers(honest, {_UNREACHABLE, _CANCELLED})
    return outcome


def _runs(pid: int) -> bool:
    """Say whether a process is there; one that waits to be reaped has let go of all it had."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"X", "Z"}


def _goes_on(stream: OpenStream) -> bool:
    """Ask once more and end it; say whether all was answered."""
    try:
        return stream.ask() == stream.first and stream.end()
    except grpc.RpcError:
        return False


@contextlib.contextmanager
def _open_streams(target: str) -> Iterator[list[OpenStream]]:
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(_STREAMS):
            # Each has a connection of its own, and so a worker by chance.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(target, options))
            streams.append(stack.enter_context(contextlib.closing(OpenStream(channel))))
        yield streams


FAULTS: Final = (
    Fault(
        "killed workers",
        "a worker is killed (SIGKILL) under load, each in its turn",
        f"the others go on; the place is filled and serves within {_REPLACED:g} s (the median);"
        " a client without retry loses its call in flight and no other,"
        " one with geolookup's own retry loses none",
        _kill_workers,
    ),
    Fault(
        "killed supervisor",
        f"the supervisor is killed (SIGKILL) under load, with {_STREAMS} streams open",
        "calls in flight are finished, then all workers end within"
        f" {_ENDED:g} s; a new service starts on the port, and clients come back to it",
        _kill_supervisors,
    ),
)
