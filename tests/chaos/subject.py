"""The service that harm is done to, what it uses of the system, and its honest clients."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import grpc
from servers import Service, serving, stub_of

from geolookup.v1 import geolookup_pb2 as v1

_TESTS: Final = Path(__file__).resolve().parent.parent
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DEADLINE: Final = 10.0
"""Seconds that an honest call may take: far more than it should, on a machine under attack."""
_SETTLING: Final = 30.0
"""Seconds for which a service is waited for to have put away what an attack left."""
_SPARE: Final = 8
"""Descriptors that may be open for reasons of the system's own, such as gRPC's event engine."""


@dataclass
class Honest:
    """A client that makes one `Lookup` after another, and now and then on a new connection.

    Attributes:
        outcomes: how the calls ended, by the name of their code.
        slowest: seconds of the slowest one that ended well.
    """

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """How the calls ended that did not end well."""
        return {code: count for code, count in self.outcomes.items() if code != "OK"}

    def ask(self, times: int = 1, pause: Callable[[], bool] = lambda: False) -> None:
        """Make calls on a new connection, until *pause*, called after each, says to stop."""
        # Channels of the same options share a connection, unless told.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.target, options) as channel:
            stub = stub_of(channel)
            for _ in range(times):
                self._ask(stub)
                if pause():
                    return

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ask(20, lambda: self._stop.wait(0.005))

    def _ask(self, stub: object) -> None:
        request = v1.LookupRequest(text="1.0.1.1", region_set="CN")
        began = time.monotonic()
        try:
            response = stub.Lookup(request, timeout=_DEADLINE)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            self.outcomes[error.code().name] += 1
            return
        self.outcomes["OK" if response.country == "CN" else "wrong answer"] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


class Subject:
    """A running service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.target = service.target
        self.port = int(service.target.rpartition(":")[2])
        self.honest = Honest(self.target)

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
            [sys.executable, "-m", "chaos.attacks", name, str(self.port), str(seconds)],
            cwd=_TESTS,
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
        began = time.monotonic()
        while time.monotonic() - began < _SETTLING:
            later = Honest(self.target)
            later.ask()
            if not later.failed:
                return time.monotonic() - began
        return None

    def settle(self, descriptors: int | None) -> None:
        """Wait until no more descriptors are open than before, or that takes too long."""
        end = time.monotonic() + _SETTLING
        while descriptors is not None and time.monotonic() < end:
            now = self.descriptors()
            if now is None or now <= descriptors + _SPARE:
                return
            time.sleep(0.05)

    def left_open(self, descriptors: int | None) -> int:
        """Return how many descriptors more are open than before, beyond what may be."""
        now = self.descriptors()
        if descriptors is None or now is None:
            return 0
        return max(0, now - descriptors - _SPARE)


@contextlib.contextmanager
def subject(*options: str) -> Iterator[Subject]:
    """Run the service with these options, and ask it while the block runs."""
    with serving(*options) as service:
        made = Subject(service)
        with made.honest:
            yield made
