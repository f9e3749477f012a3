"""The native connections of a client: made when they are needed, and again when they end.

Each is made by a thread of its own, since names are resolved and sockets connected by calls that
block, and an attempt goes on when the call that it was made for runs out of time.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

from geolookup import _http2_client
from geolookup._http2_client import Connection, Context
from geolookup.client.transports.endpoint import Address, Endpoint

_LONGEST: Final = 20.0
"""Seconds that an attempt may take: gRPC's own."""
_FIRST_LOOK: Final = 1.0
"""Seconds between the first looks at whether an address that lost its connection has one now;"""
_LOOK: Final = 30.0
"""they double up to these."""
_GROWTH: Final = 1.6
"""How many times longer the wait after each failed attempt is: gRPC's own."""
_AGENT: Final = f"geolookup-python nghttp2/{_http2_client.LIBRARY}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How connections are made.

    Attributes:
        endpoint: where they lead.
        count: connections to each address.
        context: for TLS; None: there is none.
        first_wait: seconds between an attempt and the next one, which grow;
        longest_wait: up to these.
        keepalive: seconds of silence after which a connection is probed.
        keepalive_answer: seconds that a probe, or anything sent, may remain unanswered.
        largest: bytes of the largest answer.
        agent: what the clients call themselves.
    """

    endpoint: Endpoint
    count: int
    context: Context | None
    first_wait: float
    longest_wait: float
    keepalive: float
    keepalive_answer: float
    largest: int
    agent: str = _AGENT

    @classmethod
    def of(
        cls,
        endpoint: Endpoint,
        count: int,
        context: Context | None,
        options: Mapping[str, object],
    ) -> Settings:
        """Return the settings of channel options, those of `channel_options`.

        Raises:
            TypeError, ValueError: an option has a value that it can't have.
        """

        def number(name: str, least: int = 0) -> int:
            value = options[name]
            if not isinstance(value, int):
                raise TypeError(f"options: {name}: expected int")
            if not least <= value < 2**31:
                raise ValueError(f"options: {name}: expected {least} to {2**31 - 1}")
            return value

        def text(name: str) -> str:
            value = options.get(name) or ""
            if not isinstance(value, str):
                raise TypeError(f"options: {name}: expected str")
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"options: {name}: expected printable ASCII")
            return value

        largest = number("grpc.max_receive_message_length", -1)
        name = text("grpc.ssl_target_name_override")
        authority = text("grpc.default_authority") or name or endpoint.authority
        given = text("grpc.primary_user_agent")
        return cls(
            Endpoint(endpoint.hosts, endpoint.path, authority, name or endpoint.name),
            count,
            context,
            number("grpc.initial_reconnect_backoff_ms") / 1_000,
            number("grpc.max_reconnect_backoff_ms") / 1_000,
            number("grpc.keepalive_time_ms") / 1_000,
            number("grpc.keepalive_timeout_ms") / 1_000,
            2**32 - 1 if largest < 0 else largest,
            f"{given} {_AGENT}" if given else _AGENT,
        )


class Connections:
    """The connections of a client. Thread-safe.

    Attributes:
        ready: those that calls can be made over, or could lately; replaced as a whole.
        problem: why the last attempt failed, in the words of `geolookup.client.failures`; None:
            it did not.
        closed: whether `close` was called.
        attended: whether a thread answers for those without calls; false in a process that was
            forked.
        changed: a condition that is notified when one of these changed, and when an attempt failed.

    Args:
        settings: how they are made.
        on_change: called at the same moments, in any thread.
        on_fork: called in a process that was forked, before it does anything else.
    """

    def __init__(
        self,
        settings: Settings,
        on_change: Callable[[], None],
        on_fork: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._on_change = on_change
        self._on_fork = on_fork
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self.ready: tuple[Connection, ...] = ()
        self.problem: str | None = None
        self.attended = False
        self.changed = threading.Condition()
        self._of: dict[Address, list[Connection]] = {}
        # Also those that settle, and those that a GOAWAY left with their last calls.
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._attempts = 0
        self._failed: str | None = None
        self._began = self._wait = self._look = 0.0
        self._pause = _FIRST_LOOK
        self.closed = False

    def forget(self) -> None:
        """Begin anew, in a process that was forked: the connections are the other one's."""
        self._on_fork()
        others = list(self._open)
        self._begin()
        for connection in others:
            connection.forget()

    def next_attempt(self) -> float | None:
        """Make connections where some are missing, and no attempt is being made.

        Returns:
            Seconds until one may be made; None: one is being made.
        """
        with self.changed:
            if self._attempts or self.closed:
                return None
            now = monotonic()
            if now < self._began + self._wait:
                return self._began + self._wait - now
            self._began = now
            self._attempts = 1
            self._failed = None
        return None if self._start(self._attempt) else self._wait

    def missing(self) -> bool:
        """Say whether a connection has ended, or one of a name's addresses has none."""
        with self.changed:
            return self._prune() or not self.ready

    def mend(self) -> float:
        """Make connections for those that ended while others remain.

        Returns:
            Seconds after which it is to be called again, if nothing changes before.
        """
        if not self.missing():
            self._look, self._pause = 0.0, _FIRST_LOOK
            return _LOOK
        now = monotonic()
        if now >= self._look:
            self.next_attempt()
            self._look = now + self._pause
            self._pause = min(2 * self._pause, _LOOK)
        return self._look - now

    def close(self) -> None:
        """Close all, and make none any more."""
        with self.changed:
            self.closed = True
            connections = list(self._open)
            self.ready = ()
        for connection in connections:
            connection.close()
        self._notify()

    def _start(self, work: Callable[..., None], *arguments: object) -> bool:
        """Have a thread make an attempt; False: it can't, and the attempt has failed."""
        try:
            threading.Thread(
                target=work, args=arguments, name="geolookup-connecting", daemon=True
            ).start()
        except RuntimeError:  # now, since memory is short; or ever, since the interpreter ends
            self._ended("failed to connect: can't start new thread")
            return False
        return True

    def _prune(self) -> bool:
        """Remove what has ended; say whether an address has fewer connections than it should."""
        for address, connections in self._of.items():
            self._of[address] = [one for one in connections if one.usable]
        self.ready = tuple(one for each in self._of.values() for one in each)
        return any(len(each) < self.settings.count for each in self._of.values())

    def _attempt(self) -> None:
        try:
            addresses = self.settings.endpoint.resolve()
        except OSError as error:
            self._ended(_unresolved(error))
            return
        except Exception:
            self._ended("DNS resolution failed")  # or no other attempt would ever be made
            raise
        with self.changed:
            self._of = {address: self._of.get(address, []) for address in addresses}
            self._prune()
            self._attempts = len(addresses)
        for address in addresses[1:]:
            self._start(self._connect_all, address)
        self._connect_all(addresses[0])

    def _connect_all(self, address: Address) -> None:
        while len(self._of.get(address, ())) < self.settings.count and not self.closed:
            try:
                connection = self._connect(address)
            except Exception:
                self._ended("failed to connect")  # or no other attempt would ever be made
                raise
            if isinstance(connection, str):
                self._ended(connection)
                return
            with self.changed:
                if self.closed:
                    connection.close()
                    break
                self._of.setdefault(address, []).append(connection)
                self._prune()
            self._notify()
        self._ended(None)

    def _connect(self, address: Address) -> Connection | str:
        """Return a connection; a text: it could not be made, and why."""
        settings, (family, where) = self.settings, address
        deadline = monotonic() + _LONGEST
        try:
            plain = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:  # no IPv6 here, or too many files are open
            return f"failed to connect: {error.strerror}"
        try:
            plain.settimeout(_LONGEST)
            plain.connect(where)
            plain.setblocking(False)
            if family != socket.AF_UNIX:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                patience = round(settings.keepalive_answer * 1_000)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        except OSError as error:
            plain.close()
            # The system's words, which name no address.
            return f"failed to connect: {error.strerror or 'timed out'}"
        connection = Connection(
            plain.detach(),
            context=settings.context,
            name=settings.endpoint.name,
            authority=settings.endpoint.authority,
            agent=settings.agent,
            keepalive=settings.keepalive,
            keepalive_answer=settings.keepalive_answer,
        )
        with self.changed:
            self._open.add(connection)
        if self.closed or not connection.settle(deadline - monotonic()):
            return "failed to connect: no answer in time"
        return connection if connection.usable else connection.problem or "Socket closed"

    def _ended(self, problem: str | None) -> None:
        """Note the end of an attempt at one address."""
        with self.changed:
            self._attempts -= 1
            # Of a name's addresses the one that listens says more than one where nothing does.
            if problem is not None and (self._failed is None or "refused" not in problem):
                self._failed = problem
            if self._attempts == 0:
                first, longest = self.settings.first_wait, self.settings.longest_wait
                # Also after a success: a listener that closes each connection is left alone.
                failing = self.problem is not None and not self.ready
                wait = min(self._wait * _GROWTH, longest) if failing else first
                self._wait = wait * random.uniform(0.8, 1.2)  # noqa: S311  # spreads attempts
                self.problem = None if self.ready else self._failed
        self._notify()

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()
        self._on_change()


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _forget_all() -> None:
    for connections in list(_all):
        connections.forget()


os.register_at_fork(after_in_child=_forget_all)


def _unresolved(error: OSError) -> str:
    names = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    if isinstance(error, socket.gaierror) and error.errno not in names:
        return "DNS resolution failed"
    return "name not found"
