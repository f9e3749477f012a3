"""Processes of workers, as far as they are not seen in the tests of the whole service."""

from __future__ import annotations

import errno
import os

import pytest

from geolookup.service.monitoring.counters import Counters
from geolookup.service.processes import worker_process as module
from geolookup.service.processes.sealed_memory import seal
from geolookup.service.processes.worker_process import WorkerProcess


@pytest.mark.parametrize("what", ["_spawn", "Counters"])
def test_process_that_can_not_start_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "no place for another")

    if what == "_spawn":
        monkeypatch.setattr(module, "_spawn", refuse)
    else:
        monkeypatch.setattr(module, "Counters", refuse)
        monkeypatch.setattr(refuse, "SIZE", Counters.SIZE, raising=False)
    settings = seal(b"settings", "settings")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no place"):
        WorkerProcess(settings)
    assert set(os.listdir("/proc/self/fd")) == before
    settings.close()
