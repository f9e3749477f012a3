"""The example clients, built and run against a real service.

Those in Go and Node.js; where EXAMPLE_CLIENTS is set, those that it names ("go node java rust
python"), and what takes them long. `python -m tests.conformance clients` does so.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import http2
import pytest
import small_dataset
import trustme
from counting_service import counting
from servers import PATIENCE, ROOT, Service, serving, serving_here, within_patience

import geolookup
from geolookup import Dataset, Reason
from geolookup.answer.dataset import encode
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges, code_number
from geolookup.build.sources import Source
from geolookup.service import RosterLimits
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
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

CHOSEN = os.environ.get("EXAMPLE_CLIENTS", "")
LANGUAGES = CHOSEN.split() or ["go", "node"]
"""Maven and cargo fetch and compile for minutes."""
TARGETS = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
"""Where cargo puts what it has built."""
TOOLS = {
    "go": ("go", "npx"),
    "node": ("node", "npm"),
    "java": ("mvn", "java"),
    "rust": ("cargo",),
    "python": (),
}
COMMANDS = {
    "go": ("./client",),
    "node": ("node", "client.js"),
    "java": ("java", "-jar", "target/client.jar"),
    "rust": (str(TARGETS / "release" / "client"),),
    "python": (sys.executable, str(Path(__file__).with_name("client.py"))),
}

takes_long = pytest.mark.skipif(not CHOSEN, reason="takes long: EXAMPLE_CLIENTS is not set")

OURS = ("SECURITY ERROR", "missing go.sum", "updates to go.mod", "EUSAGE", "EINTEGRITY")
"""What go and npm say where not the registry is at fault but what is committed here."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def fetch(folder: Path, *command: str, patience: float = FETCH_PATIENCE) -> None:
    """Run what needs a registry; skip the test where that can't be reached."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)} took more than {patience} s")
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
    if language == "java":
        fetch(folder, "mvn", "--batch-mode", "--quiet", "package", patience=BUILD_PATIENCE)
    if language == "rust":
        fetch(folder, "cargo", "fetch", "--locked")
        build(folder, "cargo", "build", "--release", "--locked", "--jobs", "1")
    if language != "go":
        return
    fetch(folder, "go", "mod", "download")
    fetch(folder, "npx", "--yes", BUF, "--version")
    build(folder, "go", "generate")
    build(folder, "go", "vet")
    build(folder, "go", "build", "-o", "client")


@pytest.fixture(scope="module", params=LANGUAGES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a client is, which was built first: once for all processes of xdist."""
    language: str = request.param
    for tool in TOOLS[language]:
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
            if language == "python":
                folder.mkdir(parents=True)
            else:
                built = shutil.ignore_patterns("node_modules", "gen", "target")
                shutil.copytree(CLIENTS / language, folder, ignore=built)
            (tree / "proto").symlink_to(ROOT / "proto")
            prepare(language, folder)
            (tree / "prepared").touch()
    return folder


def environment(authorities: Path | None) -> dict[str, str]:
    return os.environ | ({"SERVICE_CA": str(authorities)} if authorities else {})


@pytest.fixture(scope="module")
def client(folder: Path) -> Run:
    """How to run a client to its end."""

    def run(
        *arguments: str, given: str, authorities: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMANDS[folder.name], *arguments],
            cwd=folder,
            env=environment(authorities),
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


class Joining:
    """A client that asks for one address after the other over the same channel."""

    def __init__(self, folder: Path, target: str, authorities: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [*COMMANDS[folder.name], target, "join", "CN"],
            cwd=folder,
            env=environment(authorities),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def country(self, address: str) -> str:
        """Return the country of an address; empty where the client has given up."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{address}\n")
        # Of which nothing is buffered: an answer is one line, and comes when it is asked for.
        assert select.select([self._process.stdout], [], [], PATIENCE)[0], "no answer, and no end"
        return self._process.stdout.readline().partition(" ")[0]

    def __enter__(self) -> Joining:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


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


def test_takedown_reaches_participants_with_all_addresses_inside(
    client: Run, service: Service, dataset: Dataset
) -> None:
    draw = random.Random(2)
    pool = ["1.0.1.1", "8.8.8.8", "10.0.0.1", "43.102.0.1", "2a02:2e0:3fe:1001:302::"]
    people = {
        f"person-{at}": draw.choices(pool, k=draw.choice([1, 2, 3, 3, 200])) for at in range(200)
    }
    roster = "".join(f"{name} {' '.join(texts)}\n" for name, texts in people.items())
    done = client(service.target, "takedown", "CN", given=roster)
    assert done.returncode == 0
    inside = dataset.classify(people, region_set="CN").ids_inside
    assert done.stdout.split() == inside
    assert 10 < len(inside) < 190


def crimean() -> Dataset:
    """Return a dataset of two sources: 1.0.0.0/24 is UA-43, and 1.0.1.0/24 so for one alone."""
    sources = []
    for name, places in (("a", ("UA-43", "UA-43")), ("b", ("UA-43", "UA"))):
        ranges = SourceRanges()
        for at, place in enumerate(places):
            ranges.ipv4.append(0x01000000 + 256 * at, 0x010000FF + 256 * at, code_number(place))
        made = Source(name=name, licence="none", date=date(2026, 1, 1), depth="subdivision")
        sources.append((made, ranges))
    return Dataset.from_buffer(encode(compile_sources(sources)))


def test_answers_name_the_places_below_the_country(folder: Path, client: Run) -> None:
    if folder.name not in ("go", "node"):
        pytest.skip("the other examples show countries alone")
    with crimean() as places, serving_here(places) as server:
        target = str(server.address)
        done = client(target, "join", "UA/43", given="1.0.0.1\n1.0.1.1\n8.8.8.8\n")
        assert done.returncode == 0, done.stderr
        assert [line.split()[2:] for line in done.stdout.splitlines()] == [
            ["VERDICT_INSIDE", "REASON_UNSPECIFIED", "UA-43"],
            ["VERDICT_UNDETERMINED", "REASON_SUBDIVISION_UNKNOWN", "UA-43"],
            ["VERDICT_UNDETERMINED", "REASON_UNASSIGNED"],
        ]
        roster = "anna 1.0.0.1 1.0.0.2\nbob 1.0.1.1\ncyd 8.8.8.8\n"
        done = client(target, "takedown", "UA/43", given=roster)
    assert (done.returncode, done.stdout) == (0, "anna\n")
    assert "3 addresses in: UA-43" in done.stderr.splitlines()


def test_refusal_is_reported_without_an_address(client: Run, service: Service) -> None:
    done = client(service.target, "takedown", "NOWHERE", given="anna 8.8.8.8\n")
    assert done.returncode == 1
    assert "NOWHERE" in done.stderr
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


@dataclass(frozen=True)
class Certificate:
    """What a service shows, and who has signed it."""

    options: list[str]
    authorities: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    chain, key, authorities = (folder / name for name in ("chain", "key", "authorities"))
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    authority.cert_pem.write_to_path(authorities)
    return Certificate(["--tls-certificate", str(chain), "--tls-key", str(key)], authorities)


def at_localhost(service: Service) -> str:
    return service.target.replace("127.0.0.1", "localhost")


MOVES = "200.0.0.1"
"""In Colombia in the embedded dataset, and unassigned in the small one."""


@pytest.mark.parametrize("over_tls", [False, pytest.param(True, marks=takes_long)])
def test_joins_go_on_while_dataset_and_connections_change(
    folder: Path, tmp_path: Path, certificate: Certificate, over_tls: bool
) -> None:
    """Connections end by age (GOAWAY) and with their worker, which stops or is killed."""
    served, small = tmp_path / "served.geolookup", tmp_path / "small.geolookup"
    shutil.copy(ROOT / "geolookup" / "data" / "embedded.geolookup", served)
    small.write_bytes(geolookup.answer.dataset.encode(small_dataset.content()))
    options = ["--dataset", str(served), "--workers", "2", "--max-connection-age", "1"]
    authorities = None
    if over_tls:
        options += certificate.options
        authorities = certificate.authorities
    with (
        serving(*options) as service,
        Joining(folder, at_localhost(service), authorities) as client,
    ):
        begin = time.monotonic()
        assert client.country(MOVES) == "CO"
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(service.workers[0], number)
            for _ in range(50):
                assert client.country(MOVES) == "CO"
        small.replace(served)
        service.process.send_signal(signal.SIGHUP)
        # The workers change one after the other, and a connection leads to one of them.
        asked_of_new = 0
        while asked_of_new < 100 or time.monotonic() < begin + 2.2:
            assert time.monotonic() < begin + PATIENCE
            answer = client.country(MOVES)
            assert answer in {"CO", "ZZ"}
            asked_of_new = asked_of_new + 1 if answer == "ZZ" else 0


def test_shed_join_is_made_again_when_the_service_says_so(folder: Path, dataset: Dataset) -> None:
    """The first about its region set, for which the service needs a thread and so a slot."""
    with (
        serving_here(dataset, max_calls=1) as server,
        http2.Connection(server.address.port) as holding,
        Joining(folder, str(server.address)) as client,
    ):
        holding.open(1, "/geolookup.v1.GeoLookupService/Lookup")
        assert holding.is_alive()

        def is_shed() -> bool:
            return counters.total([server.counters]).shed[Method.LOOKUP] > 0

        def release() -> None:
            within_patience(is_shed)
            holding.close()

        releasing = threading.Thread(target=release)
        releasing.start()
        assert client.country("8.8.8.8") == "US"
        assert is_shed()
        releasing.join()


def test_join_and_takedown_over_tls(client: Run, certificate: Certificate) -> None:
    trusted = certificate.authorities
    with serving(*certificate.options) as service:
        target = at_localhost(service)
        done = client(target, "join", "CN", given="1.0.1.1\n", authorities=trusted)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("CN ")
        roster = "".join(f"{at} 1.0.1.1\n" for at in range(100_000))
        done = client(target, "takedown", "CN", given=roster, authorities=trusted)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [str(at) for at in range(100_000)]
        # Without the authority there is no connection, and no answer.
        assert client(target, "join", "CN", given="1.0.1.1\n").returncode != 0


@takes_long
def test_takedown_of_a_million_addresses(client: Run, service: Service, dataset: Dataset) -> None:
    draw = random.Random(2)
    addresses = [str(ipaddress.IPv4Address(draw.getrandbits(32))) for _ in range(1_000_000)]
    roster = "".join(f"{at} {text}\n" for at, text in enumerate(addresses))
    done = client(service.target, "takedown", "EEA", given=roster)
    assert done.returncode == 0, done.stderr
    inside = dataset.classify(addresses, region_set="EEA").inside
    assert [*map(int, done.stdout.split())] == [*inside]


@takes_long
def test_call_that_is_never_answered_ends_at_its_deadline(client: Run) -> None:
    # A real service replaces a worker that does not answer, before the deadline.
    over = threading.Event()

    def wait(_number: int, _context: grpc.ServicerContext) -> None:
        over.wait(PATIENCE)

    with counting(wait) as (target, service):
        begin = time.monotonic()
        done = client(target, "join", "CN", given="1.0.1.1\n")
        over.set()
    assert done.returncode != 0
    assert service.attempts
    assert time.monotonic() > begin + 9
