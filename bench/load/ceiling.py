"""What the generator itself bears: its calls, made to services of its own.

They answer from the embedded dataset, so that the generator sends and receives as much as with
another service. They may be slower than the generator, so the ceiling is counted from the
processor time that a call costs it. Where a service's figure comes near, it is the client that
was measured.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import geolookup
from bench.load.client_processes import ClientProcesses
from bench.load.plan import Plan
from bench.load.targets import Target
from geolookup.service.server import Server
from geolookup.service.settings import Settings

NEAR = 0.7
"""Share of the ceiling from which on a result tells of the generator, too."""
BUSY = 0.85
"""The same for the share of its core that a client process used."""

KNOWN_SET = "EU"
_SECONDS = 2.0
_WARM_UP = 0.5
_UNDER_WAY = 32
"""Calls under way at once to each client process when its ceiling is measured, at least."""
_PATIENCE = 30.0
"""Seconds that a server may take to start."""


class CeilingError(Exception):
    """A service for the ceiling did not start."""


@dataclass(frozen=True)
class Ceiling:
    """What the generator bears in one scenario.

    Attributes:
        measured: calls in a second that it made to services of its own.
        busiest: share of a core that the busiest client process used: where it is well
            below 1, the services or the machine were the limit.
    """

    measured: float
    busiest: float

    @property
    def rate(self) -> float:
        """Calls in a second that it makes when each client process has a core to itself."""
        return self.measured / min(1.0, max(self.busiest, 0.01))


def measure(clients: ClientProcesses, plan: Plan, server: Target, processes: int) -> Ceiling:
    """Measure the ceiling for a plan, in a closed loop."""
    under_way = max(_UNDER_WAY * processes, plan.under_way if plan.rate is None else 0)
    result = clients.run(
        replace(
            plan,
            target=server,
            # Whatever set is asked about, these services know this one.
            blend=replace(plan.blend, region_set=plan.blend.region_set and KNOWN_SET),
            rate=None,
            under_way=under_way,
            seconds=min(_SECONDS, plan.seconds),
            warm_up=min(_WARM_UP, plan.warm_up),
        )
    )
    if result.interrupted:
        raise KeyboardInterrupt
    return Ceiling(result.throughput, result.busiest)


@contextlib.contextmanager
def own_services(count: int, cores: Iterable[int] = ()) -> Iterator[Target]:
    """Run services, each a process on a free port of the loopback.

    Args:
        count: how many; calls are spread over them.
        cores: processor cores that they keep to; empty: any.

    Raises:
        CeilingError: one did not start.
    """
    context = multiprocessing.get_context("spawn")
    own = os.sched_getaffinity(0)
    started, connections = [], []
    try:
        if chosen := set(cores):
            os.sched_setaffinity(0, chosen)
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            started.append(process)
            connections.append(ours)
        os.sched_setaffinity(0, own)
        ports = []
        for connection in connections:
            if not connection.poll(_PATIENCE):
                raise CeilingError("the service for the ceiling did not start")
            ports.append(connection.recv())
        yield Target("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports))
    except EOFError:
        raise CeilingError("the service for the ceiling ended") from None
    finally:
        os.sched_setaffinity(0, own)
        for connection in connections:
            connection.close()
        for process in started:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(connection: Connection) -> None:
    """Answer until the connection ends. The body of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with geolookup.open() as dataset:
        server = Server(dataset, Settings(listen="127.0.0.1:0"))
        with contextlib.suppress(EOFError, OSError):
            connection.send(server.address.port)
            connection.recv()
        server.stop(0).wait()
