"""The fault of a clock that jumps: the wall's, which is set, and not the one that timers use.

The system's clock can't be set for one service. A library that is preloaded into its processes
stands between them and that clock instead; see clock.c.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import http2

from chaos.outcome import Fault, Outcome
from chaos.subject import Controlled, controlled, seconds_until
from geolookup.service.admin.control import Outcome as Ended

_SOURCE: Final = Path(__file__).with_name("clock.c")
_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR
_JUMPS: Final = (_DAY, -365 * _DAY, -_HOUR, 0)
"""Seconds by which the clock is ahead, one after the other."""
_DEADLINE: Final = 0.5
_LATE: Final = 5.0
"""Seconds after which a call ends at the latest, whose deadline is `_DEADLINE`."""
_LOOKUP: Final = "/geolookup.v1.GeoLookupService/Lookup"


class _Clock:
    """The clock of the processes that have `environment`."""

    def __init__(self, folder: Path, compiler: str) -> None:
        library, self._file = folder / "clock.so", folder / "ahead"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True
        )
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}

    def set(self, ahead: int) -> None:
        """Put it ahead by so many seconds, of what it is without us."""
        # In place, and all at once: the processes have it mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(ahead.to_bytes(8, "little", signed=True))


@contextlib.contextmanager
def _clock(compiler: str) -> Iterator[_Clock]:
    with tempfile.TemporaryDirectory() as folder:
        yield _Clock(Path(folder), compiler)


def _jump(seconds: float) -> Outcome:
    outcome = Outcome()
    compiler = shutil.which("cc")
    if compiler is None:
        outcome.measured["not done"] = "there is no C compiler here"
        return outcome
    deadlines: list[float] = []
    reloads: list[float] = []
    end = time.monotonic() + seconds
    with _clock(compiler) as clock, controlled(**clock.environment) as service:
        pids = service.pids()
        while not deadlines or time.monotonic() < end:
            for ahead in _JUMPS:
                with http2.Connection(service.port) as connection:
                    connection.open(1, _LOOKUP, ("grpc-timeout", f"{_DEADLINE * 1_000:.0f}m"))
                    began = time.monotonic()
                    time.sleep(_DEADLINE / 5)
                    clock.set(ahead)
                    _require_reload(outcome, service, ahead, reloads)
                    connection.rest(1)
                    deadlines.append(time.monotonic() - began)
                _require_metrics(outcome, service)
                answered = service.honest.outcomes["OK"]
                outcome.require(
                    seconds_until(lambda: service.honest.outcomes["OK"] > answered + 20)  # noqa: B023 - of this turn
                    is not None,
                    "answers go on",
                )
        outcome.require(service.pids() == pids, "no process ends")
    outcome.measured["jumps"] = f"{len(deadlines):,}"
    outcome.measure(f"deadline of {_DEADLINE * 1_000:g} ms", deadlines)
    outcome.require(
        min(deadlines) > _DEADLINE * 0.8 and max(deadlines) < _LATE, "deadlines are kept"
    )
    outcome.measure("reload", reloads)
    outcome.require_answers(service.honest)
    return outcome


def _require_reload(
    outcome: Outcome, service: Controlled, ahead: int, reloads: list[float]
) -> None:
    began = time.monotonic()
    reload = service.control.reload()
    reloads.append(time.monotonic() - began)
    outcome.require(reload.outcome is Ended.UNCHANGED, "reloads work")
    at = service.control.status().last_reload_time
    outcome.require(
        at is not None and abs(at.timestamp() - ahead - time.time()) < _HOUR / 2,
        "the service's clock jumps",
    )


def _require_metrics(outcome: Outcome, service: Controlled) -> None:
    metrics = service.metrics()
    values = metrics.values()
    outcome.require(
        all(value >= 0 and not math.isnan(value) for value in values), "no metric is negative"
    )
    spent = (value for name, value in metrics.items() if "_duration_seconds_sum" in name)
    outcome.require(max(spent) < _HOUR, "a jump is no call's duration")


FAULTS: Final = (
    Fault(
        "clock jumps",
        "the wall's clock, as the service sees it, jumps ahead a day, back a year, and back to"
        " where it was, with calls under way",
        "every call of honest clients is answered, deadlines are kept, also of calls under way,"
        " reloads work, no metric is negative and no jump a call's duration, no process ends",
        _jump,
    ),
)
