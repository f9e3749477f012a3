"""The example clients in Go and Node.js, built and run against a real service."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from servers import PATIENCE, ROOT, Service

from geolookup import Dataset, Reason
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers

CLIENTS = ROOT / "examples" / "clients"
BUF = "@bufbuild/buf@1.75.0"  # as in examples/clients/go/main.go
FETCH_PATIENCE = 180
BUILD_PATIENCE = 600

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("GEOLOOKUP_FETCH") != "1",
        reason="fetches packages from the registries of Go and npm; GEOLOOKUP_FETCH=1 allows it",
    ),
    pytest.mark.timeout(2 * BUILD_PATIENCE),  # grpc-go is fetched and compiled in the first test
]

OURS = ("SECURITY ERROR", "missing go.sum", "updates to go.mod", "EUSAGE", "EINTEGRITY")
"""What go and npm say where not the registry is at fault but what is committed here."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def fetch(folder: Path, *command: str) -> None:
    """Run what needs a registry; skip the test where that can't be reached."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)} took more than {FETCH_PATIENCE} s")
    if done.returncode:
        said = done.stdout + done.stderr
        assert not any(fault in said for fault in OURS), f"{command}:\n{said}"
        lines = said.splitlines()
        first = next((line for line in lines if "error" in line), "".join(lines[:1]))
        pytest.skip(f"{' '.join(command)} failed: {first}")


def build(folder: Path, *command: str) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=BUILD_PATIENCE, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


def prepare(language: str, folder: Path) -> None:
    if language == "node":
        fetch(folder, "npm", "ci", "--no-audit", "--no-fund", "--fetch-retries=1")
        return
    fetch(folder, "go", "mod", "download")
    fetch(folder, "npx", "--yes", BUF, "--version")
    build(folder, "go", "generate")
    build(folder, "go", "vet")
    build(folder, "go", "build", "-o", "client")


@pytest.fixture(scope="module", params=["go", "node"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """How to run a client, which was built first: once for all processes of xdist."""
    language = request.param
    for tool in {"go": ("go", "npx"), "node": ("node", "npm")}[language]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    # Copied, so that nothing is built in the tree, to where the proto is found as from there.
    tree = shared / f"client-{language}"
    folder = tree / "examples" / "clients" / language
    with (shared / f"client-{language}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (tree / "prepared").exists():
            shutil.rmtree(tree, ignore_errors=True)
            shutil.copytree(
                CLIENTS / language, folder, ignore=shutil.ignore_patterns("node_modules", "gen")
            )
            (tree / "proto").symlink_to(ROOT / "proto")
            prepare(language, folder)
            (tree / "prepared").touch()
    command = [str(folder / "client")] if language == "go" else ["node", str(folder / "client.js")]

    def run(*arguments: str, given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "address", ["1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1", "2a00:1450::1"]
)
def test_join_agrees_with_the_library(
    client: Run, service: Service, dataset: Dataset, address: str
) -> None:
    known = dataset.lookup(address, "CN")
    assert known.verdict is not None
    done = client(service.target, "join", "CN", given=f"{address}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [
        known.country,
        f"STATUS_{known.status.name}",
        f"VERDICT_{known.verdict.name}",
        "REASON_UNSPECIFIED" if known.reason is Reason.DECIDED else f"REASON_{known.reason}",
    ]


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_takedown_names_exactly_participants_inside(
    client: Run, service: Service, dataset: Dataset, size: int
) -> None:
    # More than 65,536: sets of positions that have more than one container.
    draw = random.Random(1)
    addresses = [
        str(ipaddress.IPv6Address(0x2A << 120 | draw.getrandbits(116)))
        if at % 3 == 0
        else str(ipaddress.IPv4Address(draw.getrandbits(32)))
        for at in range(size)
    ]
    roster = "".join(f"person-{at} {text}\n" for at, text in enumerate(addresses))
    done = client(service.target, "takedown", "EEA", given=roster)
    result = dataset.classify(addresses, region_set="EEA")
    inside = result.inside
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{count} undetermined: REASON_{reason}" for reason, count in result.reason_counts().items()
    ]
    assert done.stdout.split() == [f"person-{at}" for at in inside]
    assert size < 70_000 or len(inside) > 1000


def test_refusal_is_reported_without_an_address(client: Run, service: Service) -> None:
    done = client(service.target, "takedown", "NOWHERE", given="anna 8.8.8.8\n")
    assert done.returncode == 1
    assert "region_set" in done.stderr
    assert "8.8.8.8" not in done.stderr


class Losing(grpc.GenericRpcHandler):
    """The real answers, but for the first attempts: these are read, and end as they are told."""

    def __init__(self, dataset: Dataset, ends: list[tuple[grpc.StatusCode, str | None]]) -> None:
        self._snapshot = handlers.Snapshot(dataset)
        self._limits = RosterLimits(roster=2_000_000)
        self._ends = iter(ends)
        self.attempts = 0

    def service(self, _details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self.attempts += 1
        code, hint = next(self._ends, (None, None))
        if code is not None:
            if hint is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", hint),))
            context.abort(code, "")
        return handlers.classify_roster(self._snapshot, body, self._limits)


@contextmanager
def losing(
    dataset: Dataset, *ends: tuple[grpc.StatusCode, str | None]
) -> Iterator[tuple[str, Losing]]:
    handler = Losing(dataset, list(ends))
    options = [("grpc.max_receive_message_length", 1 << 30)]
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        server.stop(0).wait(PATIENCE)


@pytest.mark.parametrize("size", [20_000, 1_300_000])
def test_lost_or_shed_roster_of_each_size_is_requested_again(
    client: Run, dataset: Dataset, size: int
) -> None:
    """The larger one's answer has more than 4 MiB."""
    roster = "".join(f"{at} 1.0.1.1\n" for at in range(size))
    lost = (grpc.StatusCode.UNAVAILABLE, None)
    shed = (grpc.StatusCode.RESOURCE_EXHAUSTED, "30")
    with losing(dataset, lost, shed, lost) as (target, service):
        done = client(target, "takedown", "CN", given=roster)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [str(at) for at in range(size)]
        assert service.attempts == 4


def test_roster_that_can_never_be_answered_is_requested_once(client: Run, dataset: Dataset) -> None:
    with losing(dataset, (grpc.StatusCode.INVALID_ARGUMENT, None)) as (target, service):
        assert client(target, "takedown", "CN", given="anna 1.0.1.1\n").returncode == 1
        assert service.attempts == 1
