"""A supervisor's lookups: whether a worker answers, found out by asking it.

A worker that is stopped, or whose threads hang, is a process that runs like any other. So each
worker is asked on a clock for a lookup, over a socket of its own, since the clients' port is
shared. The lookup takes the way of clients' calls through the worker's transport. It is neither
refused nor counted, at any load.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from geolookup.service.methods import Method
from geolookup.service.rpc import transports

if TYPE_CHECKING:
    from geolookup.service.processes.event_loop import EventLoop
    from geolookup.service.settings import Settings

INTERVAL: Final = 1.0
"""Seconds between two lookups."""

_REQUEST: Final = bytes((0x12, 4, 192, 0, 2, 1))
"""A LookupRequest of field `packed`: an address for documentation, RFC 5737."""
_LARGEST_ANSWER: Final = 65_536
_FOREVER: Final = 86_400.0
"""Seconds. `Probe.missed` says when an answer is late."""


class Probe(ABC):
    """The lookups of one worker. For the event loop's thread.

    Args:
        loop: the supervisor's.
        connection: the supervisor's end of the worker's socket; the probe closes it.

    Attributes:
        missed: how many times in a row `ask` found that the lookup before was not answered.
        answered: when the newest answer came; None: there was none yet.
        seconds: how long that one took.
    """

    def __init__(self, loop: EventLoop, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection: socket.socket | None = connection
        self._asked: float | None = None
        self.missed = 0
        self.answered: datetime | None = None
        self.seconds = 0.0
        loop.add_reader(connection.fileno(), self._on_readable)

    def ask(self) -> None:
        """Ask, unless the answer to the lookup before is still awaited.

        By a count of calls, not by a clock: a supervisor that was stopped itself for a while
        learns nothing about its workers.
        """
        if self._asked is not None:
            self.missed += 1
            return
        now = self._loop.clock()
        if self._connection is not None and self._begin(now):
            self._asked = now
        else:
            self.missed += 1

    def close(self) -> None:
        """Ask no more."""
        if self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _on_answer(self, *, is_good: bool) -> None:
        if is_good:
            self.missed = 0
            self.answered = datetime.now(UTC)
            if self._asked is not None:
                self.seconds = self._loop.clock() - self._asked
        else:
            self.missed += 1
        self._asked = None

    @abstractmethod
    def _begin(self, now: float) -> bool:
        """Send a lookup; False: the connection takes none."""

    @abstractmethod
    def _on_readable(self) -> None: ...


class _NativeProbe(Probe):
    """Over HTTP/2: the worker's loop has the socket as a connection."""

    def __init__(self, loop: EventLoop, connection: socket.socket) -> None:
        from geolookup._http2_client import Connection  # noqa: PLC0415 - not built everywhere

        super().__init__(loop, connection)
        # It closes its descriptor, and `connection` closes its own.
        self._http2 = Connection(
            connection.dup().detach(),
            context=None,
            name="worker",
            authority="worker",
            agent="geolookup-supervisor",
            keepalive=0.0,
            keepalive_answer=0.0,
        )

    def _begin(self, now: float) -> bool:
        path = Method.LOOKUP.path.encode()
        call = self._http2.begin(path, _REQUEST, now, _FOREVER, _LARGEST_ANSWER, None)
        self._http2.flush()
        return call is not None

    def _on_readable(self) -> None:
        self._http2.progress()
        for _, outcome in self._http2.finished():
            self._on_answer(is_good=isinstance(outcome, bytes) and outcome != b"")
        if self._http2.problem is not None:
            self.close()

    def close(self) -> None:
        super().close()
        self._http2.close()


class _ThreadProbe(Probe):
    """By a thread of the worker, which makes the call: see `rpc.transports.private_port`."""

    def _begin(self, now: float) -> bool:  # noqa: ARG002
        assert self._connection is not None  # noqa: S101 - the caller has checked
        try:
            return self._connection.send(_REQUEST) == len(_REQUEST)
        except OSError:
            return False

    def _on_readable(self) -> None:
        assert self._connection is not None  # noqa: S101 - it is watched while it is open
        try:
            answers = self._connection.recv(64)
        except OSError:
            answers = b""
        if answers:
            self._on_answer(is_good=answers[-1:] == b"\x01")
        else:
            self.close()


def open_probe(settings: Settings, loop: EventLoop, connection: socket.socket) -> Probe:
    """Return the probe of a worker with these settings, which begins to serve."""
    native = transports.chosen(settings)[0] == "native"
    return (_NativeProbe if native else _ThreadProbe)(loop, connection)
