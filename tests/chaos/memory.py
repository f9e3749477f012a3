"""The fault of large rosters in little memory: a service in a control group of 512 MB.

Where this process may not make a control group with a limit on memory, the fault is not done.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servers import COMMAND, SPARE, serving

from chaos.outcome import LASTING, Fault, Outcome
from chaos.overload import beside, done
from chaos.subject import Honest, Subject

_LIMIT: Final = 512 << 20
_ROSTERS: Final = 256
_JOINS: Final = 200
"""A second."""
_SETTLING: Final = 10.0
"""Seconds after the load within which memory is what it was, ..."""
_GROWTH: Final = 0.1
"""... but for this share."""
_LATE: Final = 0.010
"""Seconds in which 99 of 100 joins are answered, where the machine has two cores free."""

_ROOTS: Final = (
    # Where the controller of memory is, its limit, what is used, and who was ended.
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
    ("", "memory.max", "memory.current", "memory.events"),
)


class _Group:
    """A control group with a limit on memory, of version 1 or 2."""

    def __init__(self, folder: Path, usage: str, events: str) -> None:
        self.folder, self._usage, self._events = folder, usage, events

    def used(self) -> int:
        return int((self.folder / self._usage).read_text())

    def kills(self) -> int:
        words = (self.folder / self._events).read_text().split()
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

    def command(self) -> tuple[str, ...]:
        """Return the command that serves as a member of the group."""
        enter = f'echo $$ > {self.folder}/cgroup.procs && exec "$@"'
        return ("sh", "-c", enter, "sh", *COMMAND)


@contextlib.contextmanager
def _group() -> Iterator[_Group | None]:
    """Make a group; None: this process may not."""
    for controller, limit, usage, events in _ROOTS:
        folder = Path("/sys/fs/cgroup", controller, f"geolookup-{os.getpid()}")
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir()
                stack.callback(_remove, folder)
                (folder / limit).write_text(str(_LIMIT))
            except OSError:  # the controller is not there, or not ours to use
                continue
            yield _Group(folder, usage, events)
            return
    yield None


def _remove(folder: Path) -> None:
    # Its processes have ended, and may not be gone.
    for _ in range(100):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


def _rosters_in_little_memory(seconds: float) -> Outcome:
    outcome = Outcome()
    if importlib.util.find_spec("geolookup._http2_client") is None:
        outcome.measured["not done"] = "geolookup was built without libnghttp2"
        return outcome
    with _group() as group:
        if group is None:
            outcome.measured["not done"] = "no control group with a limit on memory can be made"
            return outcome
        options = ("--workers", "2", SPARE, "--metrics", "127.0.0.1:0")
        with serving(*options, command=group.command()) as running:
            _load(outcome, Subject(running, Honest(running.target)), group, seconds)
    return outcome


def _load(outcome: Outcome, service: Subject, group: _Group, seconds: float) -> None:
    while len(service.pids()) < 4:  # the standby comes last
        time.sleep(0.05)
    time.sleep(min(2.0, seconds / 4))
    pids, idle = service.pids(), group.used()
    rosters = beside(service, seconds, "rosters", _ROSTERS)
    joins = beside(service, seconds, "joins", _JOINS)
    most = 0
    while rosters.poll() is None and joins.poll() is None:
        most = max(most, group.used())
        time.sleep(0.02)
    joined, loaded = done(joins), done(rosters)
    # A short run is one beside other tests, which may keep the workers from getting on.
    growth = _GROWTH if seconds >= LASTING else 0.5
    end = time.monotonic() + _SETTLING
    while (after := group.used()) > idle * (1 + growth) and time.monotonic() < end:
        time.sleep(0.1)
    outcome.measured["memory"] = (
        f"{idle >> 20} MB idle, {most >> 20} at most, {after >> 20} after {_SETTLING:g} s or sooner"
    )
    outcome.measure("joins", joined["took"])
    outcome.measured["rosters"] = f"{loaded['ended']}"
    outcome.require(service.pids() == pids and not group.kills(), "no process ends")
    outcome.require(set(joined["ended"]) == {"0"}, "every join is answered")
    outcome.require(set(loaded["ended"]) <= {"0", "8"}, "rosters are answered or refused")
    outcome.require(loaded["hinted"] == loaded["ended"].get("8", 0), "with a hint")
    outcome.require(after <= idle * (1 + growth), f"memory is given back within {_SETTLING:g} s")
    if seconds >= LASTING:
        late = sorted(joined["took"])[len(joined["took"]) * 99 // 100]
        outcome.require(late <= _LATE, f"p99 of joins: {_LATE:g} s")


FAULTS: Final = (
    Fault(
        "rosters in little memory",
        f"{_ROSTERS} rosters of a million at once from one client, and {_JOINS} lookups a second,"
        f" to a service with two workers in a control group of {_LIMIT >> 20} MB",
        "no process ends, every lookup is answered, memory is given back",
        _rosters_in_little_memory,
    ),
)
