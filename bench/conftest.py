"""What the benchmarks share: the embedded dataset, drawn addresses, and a running service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geolookup
from bench.peers import Field
from geolookup import Dataset

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def dataset() -> Iterator[Dataset]:
    with geolookup.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def field(dataset: Dataset) -> Field:
    """Return the peers that are installed here, each with the embedded dataset's data."""
    return Field(dataset)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a service in two processes of its own, as users do; yield targets by transport.

    They keep to the first core and this process, which holds the clients, to the
    others, so that the two sides don't push each other from core to core.
    """
    cores = os.sched_getaffinity(0)
    first = min(cores)
    listen = {
        "tcp": "127.0.0.1:0",
        "unix": f"unix:{tmp_path_factory.mktemp('service') / 'socket'}",
    }
    running: dict[str, subprocess.Popen[str]] = {}
    os.sched_setaffinity(0, {first})
    try:
        for transport, address in listen.items():
            running[transport] = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "geolookup", "serve", "--listen", address, *_ALONE],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        os.sched_setaffinity(0, cores - {first} or cores)
        yield {transport: _address(process) for transport, process in running.items()}
    finally:
        os.sched_setaffinity(0, cores)
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.communicate(timeout=30)


# One worker, and none of the listeners that have fixed ports.
_ALONE = ("--admin", "none", "--metrics", "none", "--workers", "1", "--no-spare-worker")


def _address(process: subprocess.Popen[str]) -> str:
    """Return what the service prints when it is ready; it ends its output otherwise."""
    assert process.stdout is not None
    for line in process.stdout:
        name, _, value = line.strip().partition(": ")
        if name == "address":
            return value
    raise RuntimeError("the service ended before it was ready")
