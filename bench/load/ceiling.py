"""What the generator itself bears: its calls, made to a server that does nothing.

The server is geolookup's own, with handlers that answer each method with what is right in form and
always the same, so that the generator sends and receives as much as with a real one, as quickly.
It is no faster than the generator, so the ceiling is counted from the processor time that a call
costs the generator. Where a service's figure comes near it, it is the client that was measured.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from pyroaring import BitMap

import geolookup
from bench.load.client_processes import ClientProcesses
from bench.load.plan import Plan
from bench.load.targets import Target
from geolookup.service.rpc import handlers
from geolookup.service.server import Server
from geolookup.service.settings import Settings
from geolookup.v1 import geolookup_pb2 as v1

NEAR = 0.7
"""Share of the ceiling from which on a result tells of the generator, too."""
BUSY = 0.85
"""The same for the share of its core that a client process used."""

_SECONDS = 2.0
_WARM_UP = 0.5
_UNDER_WAY = 32
"""Calls under way at once to each client process when its ceiling is measured, at least."""
_PATIENCE = 30.0
"""Seconds that a server may take to start."""


class CeilingError(Exception):
    """The empty server did not start."""


@dataclass(frozen=True)
class Ceiling:
    """What the generator bears in one scenario.

    Attributes:
        measured: calls in a second that it made to the empty server.
        busiest: share of a core that the busiest client process used: where it is well
            below 1, the empty server or the machine was the limit.
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
def empty_servers(count: int, cores: Iterable[int] = ()) -> Iterator[Target]:
    """Run servers that do nothing, each a process on a free port of the loopback.

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
                raise CeilingError("the empty server did not start")
            ports.append(connection.recv())
        yield Target("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports))
    except EOFError:
        raise CeilingError("the empty server ended") from None
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
    # They are found when a server is made.
    empty: Any = handlers
    empty.lookup, empty.classify_roster, empty.stream_rosters = _lookup, _classify, _stream
    with geolookup.open() as dataset:  # which is not asked
        server = Server(dataset, Settings(listen="127.0.0.1:0"))
        with contextlib.suppress(EOFError, OSError):
            connection.send(server.address.port)
            connection.recv()
        server.stop(0).wait()


def _lookup(*_: object) -> bytes:
    return _JOIN


def _classify(_snapshot: object, body: bytes, *_: object) -> bytes:
    return roster_answer(_size(v1.ClassifyRosterRequest.FromString(body)))


def _stream(_snapshot: object, body: bytes, *_: object) -> bytes:
    return streamed_answer(_size(v1.StreamRostersRequest.FromString(body).roster))


_JOIN = v1.LookupResponse(
    country="ZZ", status=v1.STATUS_UNASSIGNED, verdict=v1.VERDICT_UNDETERMINED, dataset="0" * 64
).SerializeToString()


def _size(request: v1.ClassifyRosterRequest) -> int:
    column = request.WhichOneof("addresses")
    if column == "text":
        return len(request.text.addresses)
    return len(request.ipv4) // 4 if column == "ipv4" else len(request.ipv6) // 16


@lru_cache(4096)
def roster_answer(size: int) -> bytes:
    """Return a serialised answer that knows nothing of so many addresses."""
    return _answer(size).SerializeToString()


@lru_cache(4096)
def streamed_answer(size: int) -> bytes:
    """Return the same as a message of a stream."""
    return v1.StreamRostersResponse(roster=_answer(size)).SerializeToString()


def _answer(size: int) -> v1.ClassifyRosterResponse:
    nobody = BitMap().serialize()
    return v1.ClassifyRosterResponse(
        size=size,
        countries=b"ZZ" * size,
        statuses=bytes([v1.STATUS_UNASSIGNED]) * size,
        counts={"ZZ": size},
        inside=nobody,
        outside=nobody,
        undetermined=BitMap(range(size)).serialize(),
        dataset="0" * 64,
    )
