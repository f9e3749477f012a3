"""The HTTP/1.1 listener of a worker: an event loop in a thread of its own, and a few more threads.

Lookups and small rosters are answered in the loop's thread, all else in the others. All of them
share the interpreter lock, which the native transport does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from geolookup.service import log, tls
from geolookup.service.methods import Method
from geolookup.service.monitoring.counters import HANDSHAKE_FAILURES
from geolookup.service.rpc.admission import ShedError
from geolookup.service.rpc.http_json import connect, json_request
from geolookup.service.rpc.http_json.connection import (
    Connection,
    Reply,
    Request,
    refusal,
    retry_headers,
)
from geolookup.service.rpc.request import INTERNAL_ERROR, RequestError
from geolookup.service.rpc.transports.sockets import listening_sockets

if TYPE_CHECKING:
    from geolookup.service.certificate_files import Certificate
    from geolookup.service.rpc.calls import Calls
    from geolookup.service.settings import ListenAddress, Settings

_THREADS: Final = 4
"""Most threads for what takes long: more would only wait for the interpreter lock."""
_AT_ONCE: Final = 16_384
"""Bytes of the largest roster that is answered in the loop's thread, in less than 1 ms."""
_SHORT: Final = frozenset({Method.LOOKUP, Method.CLASSIFY_ROSTER})
_ACCEPTED: Final = 64
"""Connections that are accepted before others are served."""
_CHECK: Final = 1.0
"""Seconds between checks of all connections, at most."""
_PAUSE: Final = 0.1
"""Seconds after which a connection is accepted again, when none could be."""
_CERTIFICATE_FAILURES: Final = {
    9: "expired",  # not valid yet
    10: "expired",
    2: "unknown_authority",
    7: "unknown_authority",  # of another authority of the same name
    18: "unknown_authority",
    19: "unknown_authority",
    20: "unknown_authority",
    21: "unknown_authority",
}
"""OpenSSL's codes (X509_V_ERR_*) of clients' certificates, as ext/tls.h has them."""
_SHUTDOWN: Final = 1.0
"""Seconds that a client has to end TLS."""


class HttpListener:
    """Serves from its construction until `stop`.

    Args:
        settings: the limits, and the certificate.
        calls: answers the calls.
        address: to listen on.
        share_port: whether other processes (the other workers) listen on the same port.

    Attributes:
        address: the address that it listens on, with the actual port.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the certificate can't be used.
        RuntimeError: the system starts no more threads.
    """

    def __init__(
        self, settings: Settings, calls: Calls, address: ListenAddress, *, share_port: bool
    ) -> None:
        self.calls = calls
        self.max_head = settings.max_metadata
        self.max_body = settings.limits.message_bytes
        self.is_stopping = False
        self._settings = settings
        self._date = (0, b"")
        self._connections: set[Connection] = set()
        # Those that have made no call, oldest first: one of them makes room for a new one.
        self._unused: dict[Connection, None] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._ending: asyncio.TimerHandle | None = None
        self._context: ssl.SSLContext | None = None
        certificates = self._set_certificates()
        self._sockets, self.address = listening_sockets(
            address, share_port=share_port, setting="http"
        )
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_exception)
        limits = (settings.handshake_timeout, settings.transfer_timeout)
        self._interval = min(_CHECK, *(limit / 4 for limit in limits if limit))
        try:
            self._pool = _started_pool(min(_THREADS, settings.threads))
            if certificates is not None and settings.watch:
                self._start_thread("geolookup-certificates", partial(self._watch, certificates))
            self._start_thread("geolookup-http", self._run)
        except BaseException:
            self._over.set()
            for one in self._sockets:
                one.close()
            self._loop.close()
            raise

    def retire_connections(self) -> None:
        """Have clients make their further calls on new connections, which are still accepted."""
        self._call(self._retire)

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped; as `Transport.stop`.

        Connections without a request are closed, others when theirs is answered. Any thread may
        call it.
        """
        self._over.set()
        self._call(partial(self._stop, grace))
        return self._stopped

    # --- what connections need of it: see `Owner`

    def answers_at_once(self, request: Request) -> bool:
        """See `Owner`."""
        return request.method in _SHORT and request.size <= _AT_ONCE

    def answer(self, request: Request, auth_context: Callable[[], object]) -> Reply:
        """See `Owner`. Any thread may call it."""
        try:
            return self._answer(request, auth_context)
        except RequestError as error:
            headers = b""
            if isinstance(error, ShedError):
                self.calls.counters.shed(request.method)
                headers = retry_headers(self.calls.slots_of(request.method))
            return refusal(error, headers=headers)
        except Exception as error:
            name = request.method.label
            log.event("call_failed", "error", method=name, error=log.describe(error))
            return refusal(INTERNAL_ERROR)

    def answer_later(
        self,
        request: Request,
        auth_context: Callable[[], object],
        on_reply: Callable[[Reply], None],
    ) -> None:
        """See `Owner`."""
        names = auth_context()  # of the connection, so in its thread

        def work() -> None:
            reply = self.answer(request, lambda: names)
            self._call(partial(on_reply, reply))

        self._pool.submit(work)

    def on_used(self, connection: Connection) -> None:
        """See `Owner`."""
        self._unused.pop(connection, None)

    def on_lost(self, connection: Connection) -> None:
        """See `Owner`."""
        self._forget(connection)

    def date(self) -> bytes:
        """See `Owner`."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
        return self._date[1]

    # --- calls

    def _answer(self, request: Request, auth_context: Callable[[], object]) -> Reply:
        body = b"".join(request.chunks)
        request.chunks.clear()
        self._take_memory(request, body)
        method = request.method
        call = self.calls.begin(
            method,
            accepted=request.accepted,
            deadline=request.deadline,
            metadata=request.metadata,
            gone=request.gone,
        )
        response = call.answer(body, auth_context, decode=partial(json_request.read, method))
        return Reply(200, connect.answer(method, response))

    def _take_memory(self, request: Request, body: bytes) -> None:
        """Take the memory that a large request's parts take in Python.

        Raises:
            RequestError: it has more parts than any request can have, or others have too much.
        """
        if not request.memory:
            return
        memory = request.memory + json_request.memory(body, self._settings.limits.roster)
        # All at once, so that the largest request is admitted where there is no other.
        self.calls.counters.give_back_memory(request.memory)
        request.memory = 0
        if not self.calls.counters.take_memory(memory, self._settings.worker_memory):
            raise self.calls.no_memory()
        request.memory = memory

    # --- the loop's thread

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    def _call(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(action)

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            for one in self._sockets:
                self._loop.add_reader(one.fileno(), self._accept, one)
            self._loop.call_later(self._interval, self._check)
            self._loop.run_forever()
        except Exception as error:
            log.event("call_failed", "error", method="http", error=log.describe(error))
        finally:
            self._close_sockets()
            self._loop.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            if self.address.path:
                with contextlib.suppress(OSError):
                    os.unlink(self.address.path)
            self._stopped.set()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED):
            try:
                accepted, _peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError:  # no file descriptor is free, or no memory
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(_PAUSE, self._accept_again, listening)
                return
            if not self._make_room():
                accepted.close()
                continue
            self._open(accepted)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _make_room(self) -> bool:
        """Return whether there is room for one more connection; end one without a call for it."""
        if len(self._connections) < self._settings.max_connections:
            return True
        oldest = next(iter(self._unused), None)
        self.calls.counters.connection_closed(oldest is not None)
        if oldest is None:
            return False
        self._forget(oldest)
        oldest.abort()
        return True

    def _open(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX and self._settings.keepalive:
            seconds = max(1, round(self._settings.keepalive))
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        connection = Connection(self, time.monotonic())
        self._connections.add(connection)
        self.calls.counters.connection(True)
        self._unused[connection] = None
        task = self._loop.create_task(self._connect(connection, accepted))
        connection.task = task
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        context = self._context
        options: dict[str, Any] = {}
        if context is not None:
            self.calls.counters.handshake()
            options["ssl_handshake_timeout"] = self._settings.handshake_timeout
            options["ssl_shutdown_timeout"] = _SHUTDOWN
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=context, **options
            )
        except (OSError, asyncio.CancelledError) as error:  # no handshake, or no time for it
            accepted.close()
            if context is not None:
                reason = handshake_failure(error)
                self.calls.counters.handshake_failure(HANDSHAKE_FAILURES.index(reason))
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self.calls.counters.connection(False)
        self._unused.pop(connection, None)
        self._end_if_done()

    def _check(self) -> None:
        """Close connections that wait for too long, or are too old."""
        self._loop.call_later(self._interval, self._check)
        settings, now = self._settings, time.monotonic()
        limits = [
            limit or float("inf")
            for limit in (
                settings.handshake_timeout,
                settings.transfer_timeout,
                settings.max_connection_idle,
            )
        ]
        age = settings.max_connection_age or float("inf")
        for connection in list(self._connections):
            if connection.check(now, *limits):
                self.calls.counters.transfer_timeout()
            if now - connection.opened >= age:
                connection.retire()

    def _retire(self) -> None:
        for connection in list(self._connections):
            connection.retire()

    def _stop(self, grace: float) -> None:
        if not self.is_stopping:
            for one in self._sockets:  # what the system has made would be lost with them
                self._accept(one)
        self.is_stopping = True
        self._close_sockets()
        self._retire()
        if self._ending is None or self._ending.when() > self._loop.time() + grace:
            if self._ending is not None:
                self._ending.cancel()
            self._ending = self._loop.call_later(grace, self._end)
        self._end_if_done()

    def _close_sockets(self) -> None:
        for one in self._sockets:
            if one.fileno() >= 0 and not self._loop.is_closed():
                self._loop.remove_reader(one.fileno())
            one.close()

    def _end_if_done(self) -> None:
        if self.is_stopping and not self._connections:
            self._loop.call_soon(self._loop.stop)

    def _end(self) -> None:
        """End all connections, and the loop."""
        for connection in list(self._connections):
            connection.abort()
        self._loop.call_soon(self._loop.stop)

    # --- certificates

    def _set_certificates(self) -> tls.Certificates | None:
        if self._settings.tls_certificate is None:
            return None
        # Without counters: the transport counts the same files.
        certificates = tls.Certificates(self._settings)
        certificates.hand_to(self._set_certificate)
        return certificates

    def _set_certificate(self, certificate: Certificate) -> None:
        # Imported here, as in `tls`: it brings what only a service with TLS needs.
        from geolookup.service import certificate_files  # noqa: PLC0415

        self._context = certificate_files.server_context(certificate, "http/1.1")

    def _watch(self, certificates: tls.Certificates) -> None:
        """Look at the certificates' files now and then, also while nobody connects."""
        while not self._over.wait(self._settings.watch):
            certificates.reload()


def _started_pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads have started.

    Raises:
        RuntimeError: they can't.
    """
    # When one starts with the first work, it may be that none can.
    pool = ThreadPoolExecutor(threads, "geolookup-http-work")
    started = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(started.wait)
        started.wait()
    except BaseException:
        started.abort()
        pool.shutdown(wait=False)
        raise
    return pool


def handshake_failure(error: BaseException) -> str:
    """Return why a TLS handshake failed, as the native transport has it."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE_FAILURES.get(error.verify_code, "bad_certificate")
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return "closed"
    if isinstance(error, ConnectionAbortedError | asyncio.CancelledError):
        return "timed_out"  # asyncio's for that; or it made room, or the service stops
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    if reason in {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"}:
        return "no_tls"
    if "ALERT" in reason:
        return "refused_by_client"
    return "other"


def _log_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no code of ours caught, by its type: asyncio's text has more."""
    error = context.get("exception")
    if isinstance(error, Exception) and not isinstance(error, OSError):
        log.event("call_failed", "error", method="http", error=log.describe(error))
