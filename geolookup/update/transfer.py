"""Downloads one file over HTTP, within limits of size and time, or fails.

This module handles HTTP alone, whatever the file is. Certificates are always verified,
against the system's authorities. A server can't make a download last longer, or take
more space, than the limits allow: by slow bytes, a wrong length, endless redirects or
no answer at all.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, Self
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import connection, connectionpool
from urllib3 import exceptions as http_errors

from geolookup import __version__
from geolookup.update.problems import MissingError, UpdateError

USER_AGENT: Final = f"geolookup/{__version__}"
"""Names the client, so that a publisher can contact the project about a version."""

_BLOCK: Final = 1 << 16
_REDIRECTS: Final = 5
"""Publishers need one or two: to a mirror, to a content network."""
_LONGEST_VALIDATOR: Final = 500
"""Characters of an ETag that are worth keeping."""
_LONGEST_PAUSE: Final = 60.0
"""Seconds. If a server asks for more (Retry-After), the next update tries again."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and, where the server says so, the bytes in all."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """The longest waits for a server, and the number of attempts.

    Attributes:
        stall: seconds without a single byte, from connecting on.
        total: seconds for a file, with all attempts and pauses.
        attempts: requests for a file, when the server or the network fails in a
            way that may be transient.
        pause: seconds before the second attempt; doubled before each further one.
    """

    stall: float = 30.0
    total: float = 900.0
    attempts: int = 4
    pause: float = 2.0


@dataclass(frozen=True, slots=True)
class Validators:
    """What distinguishes versions of a file, in the server's own words."""

    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a request.

    Attributes:
        unchanged: the server still has the known version (304); nothing was written.
        validators: of the version the server has.
    """

    unchanged: bool
    validators: Validators


def unsafe_reason(url: str, *, insecure: bool = False) -> str:
    """Return why a URL is not safe to request, or an empty text.

    Safe are ``https:``, and ``http:`` to this machine.

    Args:
        url: the URL.
        insecure: whether ``http:`` is accepted to anywhere.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "can't be read as a URL"
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        return "can't be read as a URL"
    if parts.username is not None or parts.password is not None:
        return "names a user; credentials have no place in a URL"
    if parts.scheme == "https":
        return ""
    if parts.scheme != "http":
        return "neither https: nor http:"
    return "" if insecure or _is_loopback(host) else "http: is not encrypted; use https:"


def fetch(
    url: str,
    into: BinaryIO,
    *,
    largest: int,
    known: Validators | None = None,
    insecure: bool = False,
    limits: TransferLimits | None = None,
    wait: Callable[[float], None] = time.sleep,
    on_progress: Progress | None = None,
) -> Reply:
    """Write what a URL has into an empty file.

    Args:
        url: see `unsafe_reason`. Redirects are followed to ``https:`` alone.
        into: written from its beginning; after an error it holds anything.
        largest: bytes that are accepted.
        known: the version at hand, which need not be sent again. None: send it.
        insecure: whether `url` may be ``http:``.
        limits: how long to wait and how often to try.
        wait: waits for some seconds between two attempts.
        on_progress: called as bytes arrive.

    Raises:
        MissingError: the server has no such file.
        UpdateError: any other failure. The text is a phrase without the URL,
            such as "HTTP status 503".
    """
    limits = limits or TransferLimits()
    until = time.monotonic() + limits.total
    pause = limits.pause
    for number in range(1, limits.attempts + 1):
        into.seek(0)
        into.truncate()
        try:
            with _Deadline(until - time.monotonic()) as deadline:
                attempt = _Attempt(
                    into=into,
                    largest=largest,
                    insecure=insecure,
                    stall=limits.stall,
                    deadline=deadline,
                    on_progress=on_progress,
                )
                reply = attempt.run(url, known)
            # Without a length, a connection that was shut down looks like a complete one.
            if not deadline.expired:
                return reply
            raise UpdateError(f"not complete within {limits.total:g} s")
        except _TransientError as failure:
            if deadline.expired:
                raise UpdateError(f"not complete within {limits.total:g} s") from failure
            seconds = max(pause, failure.retry_after)
            last = number == limits.attempts or seconds > _LONGEST_PAUSE
            if last or time.monotonic() + seconds >= until:
                attempts = f" in {number} attempts" if number > 1 else ""
                raise UpdateError(f"{failure}{attempts}") from failure
        wait(seconds)
        pause *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


class _TransientError(Exception):
    """A failure that another attempt may not have."""

    def __init__(self, what: str, retry_after: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class _Deadline:
    """Ends connections when the time is up, in whatever phase they are.

    A socket's timeout begins anew with each byte, so a server that sends its headers
    slowly never exceeds it. Shutting the connection down ends any wait for it.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(max(seconds, 0), self._expire)
        self._timer.daemon = True

    def guard(self, sock: socket.socket) -> None:
        """Add a connection. The duplicate stays valid when TLS takes the socket over."""
        with self._lock:
            self._sockets.append(sock.dup())
            expired = self.expired
        if expired:
            self._expire()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it had ended by itself

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()


class _Guarded:
    """Makes connections that end with the deadline; mixed into urllib3's two kinds."""

    deadline: _Deadline

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.deadline.guard(sock)
        return sock


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt to get a file, with its redirects. The attributes are as in `fetch`."""

    into: BinaryIO
    largest: int
    insecure: bool
    stall: float
    deadline: _Deadline
    on_progress: Progress | None

    def run(self, url: str, known: Validators | None) -> Reply:
        headers = _headers(known)
        for _ in range(_REDIRECTS + 1):
            refusal = unsafe_reason(url, insecure=self.insecure)
            if refusal:
                raise UpdateError(f"the URL {refusal}")
            try:
                with self._pool(url) as pool:
                    target = self._request(pool, url, headers)
            except http_errors.HTTPError as error:
                raise _failure(error) from error
            if isinstance(target, Reply):
                if target.unchanged and known is None:
                    raise UpdateError("HTTP status 304, to a request without a condition")
                return target
            url = _redirected(url, target)
        raise UpdateError(f"redirected more than {_REDIRECTS} times")

    def _pool(self, url: str) -> connectionpool.HTTPConnectionPool:
        """Return a pool of one connection, made for this request, which ends with the deadline."""
        parts = urlsplit(url)
        timeout = urllib3.Timeout(connect=self.stall, read=self.stall)
        guarded = {"deadline": self.deadline}
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        if parts.scheme == "http":
            plain = connectionpool.HTTPConnectionPool(host, parts.port, timeout=timeout)
            plain.ConnectionCls = type("_HTTP", (_Guarded, connection.HTTPConnection), guarded)
            return plain
        context = ssl.create_default_context()
        secure = connectionpool.HTTPSConnectionPool(
            host, parts.port, timeout=timeout, ssl_context=context
        )
        secure.ConnectionCls = type("_HTTPS", (_Guarded, connection.HTTPSConnection), guarded)
        return secure

    def _request(
        self, pool: connectionpool.HTTPConnectionPool, url: str, headers: Mapping[str, str]
    ) -> Reply | str:
        """Return the outcome of a request; for a redirect, its target."""
        response = pool.urlopen(
            "GET",
            urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl() or "/",
            headers=headers,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            location = response.headers.get("Location", "")
            if response.status in (301, 302, 303, 307, 308) and location:
                return location
            _check_status(response)
            reply = Reply(response.status == 304, _validators(response.headers))
            if not reply.unchanged:
                self._receive(response)
            return reply
        finally:
            response.close()

    def _receive(self, response: urllib3.BaseHTTPResponse) -> None:
        total = response.length_remaining if isinstance(response, urllib3.HTTPResponse) else None
        if total is not None and total > self.largest:
            raise UpdateError(f"larger than the limit: {total:,} of {self.largest:,} bytes")
        received = 0
        # read1, not read: bytes are counted as they arrive, however slowly.
        while block := response.read1(_BLOCK):
            received += len(block)
            if received > self.largest:
                raise UpdateError(f"larger than the limit of {self.largest:,} bytes")
            self.into.write(block)
            if self.on_progress is not None:
                self.on_progress(received, total)


def _redirected(url: str, target: str) -> str:
    try:
        url = urljoin(url, target)
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme != "https":
        raise UpdateError("redirected to what is not https:")
    return url


def _headers(known: Validators | None) -> dict[str, str]:
    headers = {
        "User-Agent": USER_AGENT,
        # The files are compressed already, or have a checksum as they are.
        "Accept-Encoding": "identity",
    }
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    if known is not None and known.modified:
        headers["If-Modified-Since"] = known.modified
    return headers


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status in (200, 304):
        return
    what = f"HTTP status {status}"
    if status in (404, 410):
        raise MissingError(what)
    if status in (408, 429) or status >= 500:
        raise _TransientError(what, _seconds(response.headers.get("Retry-After", "")))
    raise UpdateError(what)


def _seconds(text: str) -> float:
    """Return the seconds of a Retry-After header; its other form, a date, counts as none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _validators(headers: Mapping[str, str]) -> Validators:
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    return Validators(
        etag if len(etag) <= _LONGEST_VALIDATOR and etag.isascii() else "",
        modified if len(modified) <= _LONGEST_VALIDATOR and modified.isascii() else "",
    )


def _failure(error: http_errors.HTTPError) -> Exception:
    """Return what to raise for a failure of the network. The library's texts name hosts."""
    if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in error.args):
        return UpdateError("the server's certificate is not valid")
    reason = error.__cause__
    if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
        return UpdateError(f"the server's name does not exist{_unused_proxy()}")
    for kind, what in _FAILURES:
        if isinstance(error, kind):
            unreachable = issubclass(kind, http_errors.NewConnectionError)
            return _TransientError(what + (_unused_proxy() if unreachable else ""))
    return _TransientError("the connection failed")


_FAILURES: Final[tuple[tuple[type[http_errors.HTTPError], str], ...]] = (
    (http_errors.NameResolutionError, "the server's name is not known"),
    (http_errors.NewConnectionError, "the server can't be reached"),
    (http_errors.TimeoutError, "the server stalled"),
    (http_errors.SSLError, "the encryption failed"),
    (http_errors.ProtocolError, "the connection broke before the end"),
)


def _unused_proxy() -> str:
    """Return a hint at a proxy that the environment names: connections are direct."""
    named = [name for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
             if os.environ.get(name)]  # fmt: skip
    return f" (the proxy in {named[0]} is not used)" if named else ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
