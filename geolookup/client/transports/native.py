"""Unary calls over native connections, for threads and for event loops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

import grpc

from geolookup._http2_client import Context, attend
from geolookup.client import wire
from geolookup.client.failures import EXPIRED, Failure, closed
from geolookup.client.tls import material
from geolookup.client.transports.connecting import Connections, Settings
from geolookup.client.transports.endpoint import Endpoint

if TYPE_CHECKING:
    from geolookup._http2_client import Call, Connection

Outcome = bytes | tuple[int, str, int | None, bool]
"""What came of a call; see _http2_client.pyi."""

_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_PATHS: Final = {method: method.encode() for method in wire.UNARY}
_CANCELLED: Final = grpc.StatusCode.CANCELLED.value[0]
_LONGEST: Final = 1e9
"""Seconds that a call may take: thirty years, of which nanoseconds can be counted."""
_UNSEEN: Final = 3
"""How often a call is made again that the service has not seen: a connection may end each time."""
_REFUSED: Final = (grpc.StatusCode.UNAVAILABLE.value[0], "", None, True)
_LATE: Final = (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "", None, False)
_PROBE: Final = 5.0
"""The most seconds between looks at whether a connection is to be probed, or was and is silent."""


def settings_of(
    endpoint: Endpoint,
    count: int,
    credentials: grpc.ChannelCredentials | None,
    options: Mapping[str, object],
) -> Settings:
    """Return how the connections of a client are made.

    Args:
        endpoint: where its target leads.
        count: connections to each address.
        credentials: those of `tls_credentials`; None: no TLS.
        options: those of `channel_options`.

    Raises:
        ValueError: OpenSSL does not take the credentials.
    """
    pem = None if credentials is None else material(credentials)
    context = None if pem is None else Context(pem.authorities, pem.chain, pem.key)
    return Settings.of(endpoint, count, context, options)


def _failure(outcome: Outcome) -> Failure:
    assert not isinstance(outcome, bytes)  # noqa: S101
    code, details, hint, _ = outcome
    return Failure(_CODES[code], details, None if hint is None else hint / 1_000)


class ThreadCalls:
    """Makes calls, each in its caller's thread. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._wake = _Wake()
        self._connections = Connections(settings, self._wake.set, self._wake.close)
        self._turns: Iterator[int] = itertools.count()
        self._largest = settings.largest
        self._closed = False

    def call(self, method: str, body: bytes, timeout: float) -> bytes | Failure:
        """Make a call, and return the answer or how it failed.

        Raises:
            ServiceError: the client was closed.
        """
        timeout = min(timeout, _LONGEST)
        deadline = monotonic() + timeout
        for _ in range(_UNSEEN):
            connection = self._usable()
            if connection is None:
                found = self._wait(deadline)
                if isinstance(found, Failure):
                    return found
                connection = found
                if (timeout := deadline - monotonic()) <= 0:
                    return EXPIRED
            outcome = connection.call(_PATHS[method], body, timeout, self._largest)
            if isinstance(outcome, bytes):
                return outcome
            if self._closed:
                raise closed()
            if not outcome[3] or (timeout := deadline - monotonic()) <= 0:
                break
        return _failure(outcome)

    def close(self) -> None:
        """End all calls and connections."""
        self._closed = True
        self._connections.close()

    def __del__(self) -> None:
        self._connections.closed = True
        self._wake.set()

    def _usable(self) -> Connection | None:
        """Return the connection whose turn it is; None: there is none now."""
        connections = self._connections
        if not connections.attended:
            self._attend()
        ready = connections.ready
        for _ in ready:
            connection = ready[next(self._turns) % len(ready)]
            if connection.usable:
                return connection
        return None

    def _wait(self, deadline: float) -> Connection | Failure:
        """Wait for a connection, or until none can be made."""
        connections = self._connections
        with connections.changed:
            while not self._closed:
                connections.missing()
                if usable := self._usable():
                    return usable
                wait = connections.next_attempt()
                if wait is not None and connections.problem is not None:
                    return Failure(grpc.StatusCode.UNAVAILABLE, connections.problem)
                remaining = deadline - monotonic()
                if remaining <= 0:
                    return EXPIRED
                connections.changed.wait(remaining if wait is None else min(wait, remaining))
        raise closed()

    def _attend(self) -> None:
        """Have a thread answer for connections without calls, unless there is one."""
        with self._connections.changed:
            if self._connections.attended:
                return
            # With too many files open or no thread left, one of the next calls tries again.
            with contextlib.suppress(OSError, RuntimeError):
                self._wake.make()
                ours = weakref.ref(self._connections)
                threading.Thread(
                    target=_attend,
                    args=(ours, self._wake),
                    name="geolookup-connections",
                    daemon=True,
                ).start()
                self._connections.attended = True


class _Wake:
    """What ends a wait in `attend`: an eventfd, once it is made.

    Attributes:
        descriptor: of the eventfd; below 0: there is none.
    """

    def __init__(self) -> None:
        self.descriptor = -1

    def make(self) -> None:
        """Make it, unless it is made."""
        if self.descriptor < 0:
            self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def close(self) -> None:
        """Close it, where no thread uses it any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def set(self) -> None:
        """End the wait, or the next one."""
        if self.descriptor >= 0:
            os.eventfd_write(self.descriptor, 1)

    def __del__(self) -> None:
        self.close()


def _attend(ours: weakref.ref[Connections], wake: _Wake) -> None:
    """Answer for the connections that no call uses, until the client is gone."""
    while True:
        connections = ours()
        if connections is None or connections.closed:
            return
        wait = connections.mend()
        ready = list(connections.ready)
        del connections
        attend(ready, wake.descriptor, wait)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(wake.descriptor)


class _Watched:
    """A connection that an event loop watches, and the calls that are under way on it.

    The event loop has it, and it has no more than a weak reference to the client that made it: it
    ends with a client that is dropped without being closed.
    """

    def __init__(self, client: LoopCalls, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        periods = (settings.keepalive, settings.keepalive_answer)
        self._pause = min([_PROBE, *filter(None, periods)])
        self._client = weakref.ref(client)
        self._loop = loop = client.loop
        self._calls: set[Call] = set()
        self._writing = self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        loop.add_reader(connection.descriptor, self._on_ready)
        self._probing = loop.call_later(self._pause, self._on_probe)

    def begin(
        self, path: bytes, body: bytes, timeout: float, largest: int
    ) -> tuple[Call, asyncio.Future[Outcome]] | None:
        """Begin a call; None: the connection takes none."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        now = monotonic()
        call = self.connection.begin(path, body, now, timeout, largest, future)
        if call is None:
            return None
        self._calls.add(call)
        if not self._flushing:
            # Calls that begin in the same turn of the loop are sent together.
            self._flushing = True
            self._loop.call_soon(self._on_flush)
        if self._timer is None or call.deadline < self._timer_at:
            self._time(now, call.deadline)
        return call, future

    def cancel(self, call: Call) -> None:
        """End a call that is not waited for any more."""
        self._calls.discard(call)
        self.connection.cancel(call)
        self._on_flush()

    def stop(self) -> None:
        """Watch it no more."""
        self._loop.remove_reader(self.connection.descriptor)
        if self._writing:
            self._loop.remove_writer(self.connection.descriptor)
        self._probing.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.hand_out()

    def hand_out(self) -> None:
        """Give the calls that are over what came of them."""
        for call, outcome in self.connection.finished():
            self._calls.discard(call)
            future = call.future
            assert isinstance(future, asyncio.Future)  # noqa: S101
            if not future.done():
                future.set_result(outcome)

    def _time(self, now: float, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(deadline - now, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        """End the calls that are late. Most are over before: their timer is not moved each time."""
        self._timer = None
        now = monotonic()
        for call in [one for one in self._calls if one.deadline <= now]:
            future = call.future
            assert isinstance(future, asyncio.Future)  # noqa: S101
            self.cancel(call)
            if not future.done():
                future.set_result(_LATE)
        if self._calls:
            self._time(now, min(call.deadline for call in self._calls))

    def _on_flush(self) -> None:
        self._flushing = False
        self.connection.flush()
        self._after()

    def _on_ready(self) -> None:
        self.connection.progress()
        self._after()

    def _on_probe(self) -> None:
        client = self._client()
        if client is None:
            self.stop()
            return
        client.mend()
        self._probing = self._loop.call_later(self._pause, self._on_probe)
        self._on_ready()

    def _after(self) -> None:
        self.hand_out()
        if self.connection.problem is not None:
            self.stop()
            if client := self._client():
                client.mend()
        elif self.connection.wants_write != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self.connection.descriptor, self._on_ready)
            else:
                self._loop.remove_writer(self.connection.descriptor)


class LoopCalls:
    """Makes calls in the event loop in which it is made: its `loop`."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self._connections = Connections(settings, self._tell)
        self._largest = settings.largest
        self._watched: dict[Connection, _Watched] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._turns: Iterator[int] = itertools.count()
        self._closed = False

    async def call(self, method: str, body: bytes, timeout: float) -> bytes | Failure:
        """Make a call, and return the answer or how it failed.

        Raises:
            ServiceError: the client was closed.
        """
        deadline = monotonic() + min(timeout, _LONGEST)
        for _ in range(_UNSEEN):
            watched = self._usable() or await self._wait(deadline)
            if isinstance(watched, Failure):
                return watched
            if (remaining := deadline - monotonic()) <= 0:
                return EXPIRED
            outcome: Outcome = _REFUSED
            begun = watched.begin(_PATHS[method], body, remaining, self._largest)
            if begun is not None:
                try:
                    outcome = await begun[1]
                except asyncio.CancelledError:
                    watched.cancel(begun[0])
                    raise
            if isinstance(outcome, bytes):
                return outcome
            if self._closed:
                raise closed()
            if outcome[0] == _CANCELLED and monotonic() >= deadline:
                return EXPIRED  # the service's clock was ahead
            if not outcome[3] or monotonic() >= deadline:
                break
        return _failure(outcome)

    async def close(self) -> None:
        """End all calls and connections."""
        self._closed = True
        self._connections.close()
        for connection, watched in self._watched.items():
            connection.close()  # also those that a GOAWAY left with their last calls
            watched.stop()
        self._watched.clear()
        self._on_change()

    def mend(self) -> None:
        """Have connections made for those that ended while others remain."""
        if not self._closed:
            self._connections.mend()

    def _usable(self) -> _Watched | None:
        ready = self._connections.ready
        for _ in ready:
            connection = ready[next(self._turns) % len(ready)]
            if connection.usable and connection in self._watched:
                return self._watched[connection]
        return None

    async def _wait(self, deadline: float) -> _Watched | Failure:
        """Wait for a connection, or until none can be made."""
        connections = self._connections
        while not self._closed:
            with connections.changed:
                connections.missing()
                wait = None if connections.ready else connections.next_attempt()
                problem = connections.problem
            self._watch()
            if watched := self._usable():
                return watched
            if wait is not None and problem is not None:
                return Failure(grpc.StatusCode.UNAVAILABLE, problem)
            remaining = deadline - monotonic()
            if remaining <= 0:
                return EXPIRED
            changed: asyncio.Future[None] = self.loop.create_future()
            self._waiting.add(changed)
            try:
                await asyncio.wait({changed}, timeout=min(remaining, wait or remaining))
            finally:
                self._waiting.discard(changed)
        raise closed()

    def _watch(self) -> None:
        """Watch new connections, and no more those that have ended and have no calls."""
        for connection, watched in list(self._watched.items()):
            if connection.problem is not None:
                watched.stop()
                del self._watched[connection]
        for connection in self._connections.ready:
            if connection not in self._watched and not self._closed:
                self._watched[connection] = _Watched(self, connection, self._connections.settings)

    def _tell(self) -> None:
        """Have the loop look at the connections. In another thread."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self._on_change)

    def _on_change(self) -> None:
        self._watch()
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)
