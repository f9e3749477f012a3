"""The service that harm is done to, what it uses of the system, and its honest clients."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import grpc
import trustme
from servers import Service, serving, stub_of

from geolookup.client import Client
from geolookup.client.retry import DEFAULT_RETRY, Retry
from geolookup.errors import GeoLookupError
from geolookup.service.admin.client import RemoteControl
from geolookup.v1 import geolookup_pb2 as v1

ADDRESS: Final = "1.0.1.1"
"""What is asked about. It is in China, unless a fault says otherwise."""
PACKED: Final = ipaddress.ip_address(ADDRESS).packed

TESTS: Final = Path(__file__).resolve().parent.parent
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DEADLINE: Final = 10.0
"""Seconds that an honest call may take: far more than it should, on a machine under attack."""
_SETTLING: Final = 30.0
"""Seconds for which a service is waited for to have put away what an attack left."""
_SPARE: Final = 8
"""Descriptors that may be open for reasons of the system's own, such as gRPC's event engine."""


def _is_china(answer: Any) -> bool:
    return bool(answer.country == "CN")


@dataclass
class Honest:
    """Clients that make one `Lookup` after another, and now and then on a new connection.

    Attributes:
        target: whom they ask.
        right: says whether an answer for `ADDRESS` is right.
        threads: how many there are.
        pause: seconds between a client's calls.
        calls: that it makes on a connection.
        credentials: for TLS; None: they speak plaintext.
        outcomes: how the calls ended, by the name of their code.
        slowest: seconds of the slowest one that ended well.
    """

    target: str
    right: Callable[[Any], bool] = _is_china
    threads: int = 1
    pause: float = 0.005
    calls: int = 20
    credentials: grpc.ChannelCredentials | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._running = [threading.Thread(target=self._run) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """How the calls ended that did not end well."""
        return {code: count for code, count in self.outcomes.items() if code != "OK"}

    def told(self) -> str:
        """Return how the calls ended, in words."""
        others = ", ".join(f"{count:,} {code}" for code, count in sorted(self.failed.items()))
        return (
            f"{self.outcomes['OK']:,} answered, the slowest in {self.slowest * 1_000:,.0f} ms"
            + (f"; {others}" if others else "")
        )

    def ask(self, times: int = 1, pause: Callable[[], bool] = lambda: False) -> None:
        """Make calls on a new connection, until *pause*, called after each, says to stop."""
        with self._connected() as call:
            for _ in range(times):
                self._ask(call)
                if pause():
                    return

    @contextlib.contextmanager
    def _connected(self, wait: bool = False) -> Iterator[Callable[[], Any]]:
        # Channels of the same options share a connection, unless told.
        options = [("grpc.use_local_subchannel_pool", 1)]
        request = v1.LookupRequest(text=ADDRESS, region_set="CN")
        made = (
            grpc.insecure_channel(self.target, options)
            if self.credentials is None
            else grpc.secure_channel(self.target, self.credentials, options)
        )
        with made as channel:
            stub = stub_of(channel)
            yield lambda: stub.Lookup(request, timeout=_DEADLINE, wait_for_ready=wait)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ask(self.calls, lambda: self._stop.wait(self.pause))

    def _ask(self, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            ended = "OK" if self.right(call()) else "wrong answer"
        except grpc.RpcError as error:
            ended = error.code().name
        except GeoLookupError as error:
            ended = str(error).replace(self.target, "TARGET")
            # What stood in the way is one of several, by the moment of the call.
            ended = re.sub(r"(?<=can't be reached): .*", "", ended, flags=re.DOTALL)
        with self._lock:
            self.outcomes[ended] += 1
            if ended == "OK":
                self.slowest = max(self.slowest, time.monotonic() - began)


@dataclass
class Waiting(Honest):
    """One that keeps its connection, makes no call twice, and none without a connection.

    A connection that is lost just when the listener goes, too, is often lost twice: the system
    still accepts the next one. Until the third (gRPC waits 0.1 s) calls would fail that nobody
    has seen.
    """

    threads: int = 4
    pause: float = 0.002
    calls: int = 1_000_000

    def _connected(self, wait: bool = True) -> Any:
        return super()._connected(wait)


@dataclass
class Caller(Honest):
    """The same through geolookup's own client, which keeps its connection.

    Attributes:
        retry: how it makes calls again that were not answered.
    """

    threads: int = 2
    pause: float = 0.002
    calls: int = 1_000_000
    retry: Retry | None = DEFAULT_RETRY

    @contextlib.contextmanager
    def _connected(self, wait: bool = False) -> Iterator[Callable[[], Any]]:  # noqa: ARG002
        with Client(
            self.target, timeout=_DEADLINE, credentials=self.credentials, retry=self.retry
        ) as client:
            yield lambda: client.lookup(ADDRESS, "CN")


class OpenStream:
    """A stream of rosters of which the first was answered.

    Attributes:
        first: id of the dataset that answered it.

    Raises:
        grpc.RpcError: from each call, it has failed.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._rosters: queue.SimpleQueue[v1.StreamRostersRequest | None] = queue.SimpleQueue()
        self._answers = stub_of(channel).StreamRosters(
            iter(self._rosters.get, None), timeout=_SETTLING
        )
        self.first = self.ask()

    def ask(self) -> str:
        """Have one more roster answered; return the id of the dataset that did."""
        self._rosters.put(v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=PACKED)))
        return str(next(self._answers).roster.dataset)

    def end(self) -> bool:
        """End it as one should; say whether the service has nothing more to say."""
        self._rosters.put(None)
        return not list(self._answers)

    def close(self) -> None:
        """End it, whatever became of it."""
        self._rosters.put(None)
        self._answers.cancel()


class Subject:
    """A running service."""

    def __init__(self, service: Service, honest: Honest, *, tls: bool = False) -> None:
        self.service = service
        self._tls = ["tls"] if tls else []
        self.target = service.target
        self.port = int(service.target.rpartition(":")[2])
        self.honest = honest

    def pids(self) -> list[int]:
        """Return its processes: the supervisor, and the workers that there are."""
        supervisor = self.service.process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            return [supervisor, *map(int, children)]
        return [supervisor]

    def memory(self) -> int:
        """Return the resident bytes of all processes."""
        return sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in self.pids()
        )

    def descriptors(self) -> int | None:
        """Return how many files all processes have open; None: we may not know.

        Processes that can't be dumped show theirs to root alone.
        """
        try:
            return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())
        except PermissionError:
            return None

    def attack(self, name: str, seconds: float) -> tuple[Counter[str], int]:
        """Make an attack, in a process of its own; return its counts and the most memory used."""
        with subprocess.Popen(
            [sys.executable, "-m", "chaos.attacks", name, str(self.port), str(seconds), *self._tls],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            text=True,
        ) as attacker:
            assert attacker.stdout is not None
            most = self.memory()
            while attacker.poll() is None:
                most = max(most, self.memory())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    attacker.wait(0.05)
            counts: dict[str, int] = json.loads(attacker.stdout.read())
        return Counter(counts), most

    def recovery(self) -> float | None:
        """Return the seconds until a client that comes now is answered; None: it never is."""

        def answered() -> bool:
            later = Honest(self.target, credentials=self.honest.credentials)
            later.ask()
            return not later.failed

        return seconds_until(answered, pause=0)

    def settle(self, descriptors: int | None) -> None:
        """Wait until no more descriptors are open than before, or that takes too long."""
        seconds_until(lambda: not self.left_open(descriptors), pause=0.05)

    def left_open(self, descriptors: int | None) -> int:
        """Return how many descriptors more are open than before, beyond what may be."""
        now = self.descriptors()
        if descriptors is None or now is None:
            return 0
        return max(0, now - descriptors - _SPARE)


class Controlled(Subject):
    """A running service of two workers, whose operator is asked as well."""

    def __init__(self, service: Service, honest: Honest, control: RemoteControl) -> None:
        super().__init__(service, honest)
        self.control = control

    def metrics(self) -> dict[str, float]:
        """Return what its page of metrics says, by name and labels."""
        page = self.service.announced["metrics"][0]
        with urllib.request.urlopen(page, timeout=_SETTLING) as response:  # noqa: S310 - our own
            lines = response.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def mappings(self) -> list[int] | None:
        """Return how many datasets each process maps; None: we may not know."""
        try:
            maps = [Path(f"/proc/{pid}/maps").read_text() for pid in self.pids()]
        except PermissionError:
            return None
        return [text.count("memfd:geolookup") for text in maps]


def seconds_until(reached: Callable[[], bool], pause: float = 0.005) -> float | None:
    """Wait for something that nobody is told of; return how long it took, or None: too long."""
    began = time.monotonic()
    while time.monotonic() - began < _SETTLING:
        if reached():
            return time.monotonic() - began
        time.sleep(pause)
    return None


@contextlib.contextmanager
def subject(*options: str) -> Iterator[Subject]:
    """Run the service with these options, and ask it while the block runs."""
    with serving(*options) as service:
        made = Subject(service, Honest(service.target))
        with made.honest:
            yield made


@contextlib.contextmanager
def encrypted(*options: str, anybody: bool = False) -> Iterator[Subject]:
    """Do as `subject` does with TLS, for clients that show a certificate: only honest ones can.

    With *anybody* clients need none, and attackers finish their handshakes.

    They come back often and try again: with TLS, a busy machine may not be done with a
    connection when the handshake's time is up.
    """
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = (authority.issue_cert(who) for who in ("127.0.0.1", "meet.example"))
        folder = Path(name)
        authority.cert_pem.write_to_path(folder / "client-ca")
        ours.private_key_pem.write_to_path(folder / "key")
        ours.cert_chain_pems[0].write_to_path(folder / "certificate")
        kinds = ("certificate", "key") if anybody else ("certificate", "key", "client-ca")
        tls = (f"--tls-{what}={folder / what}" for what in kinds)
        credentials = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            theirs.private_key_pem.bytes(),
            theirs.cert_chain_pems[0].bytes(),
        )
        with serving(*options, *tls) as service:
            honest = Caller(
                service.target, threads=1, pause=0.005, calls=20, credentials=credentials
            )
            with honest:
                yield Subject(service, honest, tls=anybody)


@contextlib.contextmanager
def controlled(
    *options: str, honest: Callable[[str], Honest] = Caller, **environment: str
) -> Iterator[Controlled]:
    """Run the service with two workers, and its listeners for operators, as `subject` does."""
    usual = ("--workers", "2", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with (
        serving(*usual, *options, **environment) as service,
        RemoteControl(service.announced["admin"][0]) as control,
        honest(service.target) as asking,
    ):
        yield Controlled(service, asking, control)
