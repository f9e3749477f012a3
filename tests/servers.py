"""Real services for tests: the command in a process of its own, or a server in this one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

from geolookup import Dataset
from geolookup.service import Server, Settings
from geolookup.service.rpc.transports import build
from geolookup.v1.geolookup_pb2_grpc import GeoLookupServiceStub

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "geolookup", "serve")
TRANSPORT = "GEOLOOKUP_TRANSPORT"
"""The variable that the command reads, and `serving_here` with it; see the fixture `transport`."""
ON_FREE_PORTS = ("--listen", "127.0.0.1:0", "--admin", "none", "--metrics", "none")
"""Without these, two services at the same time would ask for the same ports."""
SPARE = "--spare-worker"
PATIENCE = 60
"""Seconds that a process may take on a busy machine before a test gives up."""

OWN_REGION_SETS = """
[region_sets.DACH]
codes = ["DE", "AT", "CH"]
version = "2026-01-01"
source = "our legal department"
"""


@dataclass(frozen=True)
class Service:
    """A running ``geolookup serve``.

    Attributes:
        process: its process.
        announced: the values it printed when it was ready, by name.
    """

    process: subprocess.Popen[bytes]
    announced: dict[str, list[str]]
    _log: IO[bytes]

    @property
    def target(self) -> str:
        """What a client connects to."""
        return self.announced["address"][0]

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers, and of the spare one if it was told to have one."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self) -> str:
        """Return what it has written to standard error up to now."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode()

    def stop(self) -> int:
        """Tell it to stop, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def serving(
    *options: str, command: Sequence[str] = COMMAND, **environment: str
) -> Iterator[Service]:
    """Run the command with these options, and variables, while the block runs.

    By default it has a free port, one worker and no other listeners, since those have fixed ports;
    and no spare worker, so that each process but its first answers.
    """
    usual = (*ON_FREE_PORTS, "--workers", "1")
    for name, value in zip(usual[::2], usual[1::2], strict=True):
        if name not in options:
            options = (name, value, *options)
    if SPARE not in options:
        options = ("--no-spare-worker", *options)
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            # One write, and short enough for the pipe to pass it on whole.
            text = os.read(process.stdout.fileno(), 65_536).decode()
            if not text:
                process.wait(PATIENCE)
                pytest.fail(f"the service did not start: {os.pread(log.fileno(), 10_000, 0)!r}")
            announced: dict[str, list[str]] = {}
            for line in text.splitlines():
                name, value = line.split(": ", 1)
                announced.setdefault(name, []).append(value)
            yield Service(process, announced, log)
        finally:
            process.kill()


@contextlib.contextmanager
def serving_here(dataset: Dataset, **settings: Any) -> Iterator[Server]:
    """Run a server in this process, for settings that the command has no option for."""
    here = {"listen": "127.0.0.1:0"}
    if TRANSPORT in os.environ:
        here["transport"] = os.environ[TRANSPORT]
    server = Server(dataset, Settings(**{**here, **settings}))
    try:
        yield server
    finally:
        server.stop(0).wait(PATIENCE)


needs_native = pytest.mark.skipif(
    build.missing(tls=True) is not None,
    reason="geolookup was built without the native transport, or without its TLS",
)


def within_patience(condition: Callable[[], bool]) -> bool:
    """Return whether a condition comes true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def stub_of(channel: grpc.Channel) -> Any:
    """Return the generated stub, which has no types."""
    return GeoLookupServiceStub(channel)


@contextlib.contextmanager
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process start no thread, as where memory is short."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as lacking:
        lacking.setattr(threading.Thread, "start", start)
        yield
