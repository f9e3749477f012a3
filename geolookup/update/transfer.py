"""Downloads one file over HTTP, within limits of size and time, or fails.

This module knows HTTP and nothing of sources: bytes in a file are all that comes
out of it. Certificates are always verified, against the system's authorities.
A server can't make a download last longer, or take more space, than was allowed:
it may trickle, lie about the length, redirect for ever or never answer.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Final, Self
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import connection, connectionpool
from urllib3 import exceptions as http_errors

from geolookup import __version__
from geolookup.update.problems import MissingError, UpdateError

USER_AGENT: Final = f"geolookup/{__version__}"
"""So that a publisher knows who asks, and can tell the version that misbehaves."""

_BLOCK: Final = 1 << 16
_REDIRECTS: Final = 5
"""Publishers need one or two: to a mirror, to a content network."""
_LONGEST_VALIDATOR: Final = 500
"""Characters of an ETag that are worth keeping."""
_LONGEST_PAUSE: Final = 60.0
"""Seconds. A server that asks for more (Retry-After) is asked again by the next update."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and, where the server says so, the bytes in all."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        stall: seconds without a single byte, from connecting on.
        total: seconds for a file, with all attempts and pauses.
        attempts: how often a file is asked for, when the server or the
            network fails in a way that may pass.
        pause: seconds before the second attempt; doubled before each further one.
    """

    stall: float = 30.0
    total: float = 900.0
    attempts: int = 4
    pause: float = 2.0


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of a file from another, as the server worded it."""

    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request.

    Attributes:
        unchanged: the server has the version that was asked about (304); nothing
            was written.
        validators: of the version the server has.
    """

    unchanged: bool
    validators: Validators


def why_unsafe(url: str, *, insecure: bool = False) -> str:
    """Return why a URL is not to be asked, or an empty text.

    Safe are ``https:``, and ``http:`` to this machine, where nobody sits between.

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
    patience: Patience | None = None,
    wait: Callable[[float], None] = time.sleep,
    on_progress: Progress | None = None,
) -> Reply:
    """Write what a URL has into an empty file.

    Args:
        url: see `why_unsafe`. Redirects are followed to ``https:`` alone.
        into: written from its beginning; after an error it holds anything.
        largest: bytes that are accepted.
        known: the version at hand, which need not be sent again. None: send it.
        insecure: whether `url` may be ``http:``.
        patience: how long to wait; the default is `Patience`'s.
        wait: waits for some seconds between two attempts.
        on_progress: told as the bytes come in.

    Raises:
        MissingError: the server has no such file.
        UpdateError: any other failure. The text is a phrase without the URL,
            such as "HTTP status 503".
    """
    patience = patience or Patience()
    until = time.monotonic() + patience.total
    pause = patience.pause
    for number in range(1, patience.attempts + 1):
        into.seek(0)
        into.truncate()
        try:
            with _Watch(until - time.monotonic()) as watch:
                attempt = _Attempt(
                    into=into,
                    largest=largest,
                    insecure=insecure,
                    stall=patience.stall,
                    watch=watch,
                    on_progress=on_progress,
                )
                reply = attempt.run(url, known)
            # Where no length was said, a connection shut down looks like one that is done.
            if not watch.expired:
                return reply
            raise UpdateError(f"not complete within {patience.total:g} s")
        except _PassingError as failure:
            if watch.expired:
                raise UpdateError(f"not complete within {patience.total:g} s") from failure
            seconds = max(pause, failure.asked_for)
            last = number == patience.attempts or seconds > _LONGEST_PAUSE
            if last or time.monotonic() + seconds >= until:
                attempts = f" in {number} attempts" if number > 1 else ""
                raise UpdateError(f"{failure}{attempts}") from failure
        wait(seconds)
        pause *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


class _PassingError(Exception):
    """A failure that another attempt may not meet."""

    def __init__(self, what: str, asked_for: float = 0.0) -> None:
        super().__init__(what)
        self.asked_for = asked_for


class _Watch:
    """Ends connections when the time is up, in whatever phase they are.

    Timeouts of sockets begin anew with each byte, so that a server which trickles
    its headers is never late. Shutting the connection down ends any wait for it.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(max(seconds, 0), self._expire)
        self._timer.daemon = True

    def guard(self, sock: socket.socket) -> None:
        """Watch a connection too. The duplicate stays valid when TLS takes the socket over."""
        with self._lock:
            self._watched.append(sock.dup())
            late = self.expired
        if late:
            self._expire()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for sock in self._watched:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it had ended by itself

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for sock in self._watched:
                sock.close()
            self._watched.clear()


class _WatchedHTTP(connection.HTTPConnection):
    watch: _Watch

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self.watch.guard(sock)
        return sock


class _WatchedHTTPS(connection.HTTPSConnection):
    watch: _Watch

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self.watch.guard(sock)
        return sock


class _Attempt:
    """One attempt to get a file, with its redirects."""

    def __init__(
        self,
        *,
        into: BinaryIO,
        largest: int,
        insecure: bool,
        stall: float,
        watch: _Watch,
        on_progress: Progress | None,
    ) -> None:
        self._into = into
        self._largest = largest
        self._insecure = insecure
        self._stall = stall
        self._watch = watch
        self._on_progress = on_progress

    def run(self, url: str, known: Validators | None) -> Reply:
        headers = _headers(known)
        for _ in range(_REDIRECTS + 1):
            refusal = why_unsafe(url, insecure=self._insecure)
            if refusal:
                raise UpdateError(f"the URL {refusal}")
            try:
                with self._pool(url) as pool:
                    target = self._ask(pool, url, headers)
            except http_errors.HTTPError as error:
                raise _failure(error) from error
            if isinstance(target, Reply):
                if target.unchanged and known is None:
                    raise UpdateError("HTTP status 304, to a request without a condition")
                return target
            url = _redirected(url, target)
        raise UpdateError(f"redirected more than {_REDIRECTS} times")

    def _pool(self, url: str) -> connectionpool.HTTPConnectionPool:
        """Return a pool of one connection, made for this request and watched."""
        parts = urlsplit(url)
        timeout = urllib3.Timeout(connect=self._stall, read=self._stall)
        watched = {"watch": self._watch}
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        if parts.scheme == "http":
            plain = connectionpool.HTTPConnectionPool(host, parts.port, timeout=timeout)
            plain.ConnectionCls = type("_HTTP", (_WatchedHTTP,), watched)
            return plain
        context = ssl.create_default_context()
        secure = connectionpool.HTTPSConnectionPool(
            host, parts.port, timeout=timeout, ssl_context=context
        )
        secure.ConnectionCls = type("_HTTPS", (_WatchedHTTPS,), watched)
        return secure

    def _ask(
        self, pool: connectionpool.HTTPConnectionPool, url: str, headers: Mapping[str, str]
    ) -> Reply | str:
        """Return what came of a request; for a redirect, where to."""
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
        if total is not None and total > self._largest:
            raise UpdateError(f"larger than the limit: {total:,} of {self._largest:,} bytes")
        received = 0
        # read1, not read: what trickles is counted as it comes.
        while block := response.read1(_BLOCK):
            received += len(block)
            if received > self._largest:
                raise UpdateError(f"larger than the limit of {self._largest:,} bytes")
            self._into.write(block)
            if self._on_progress is not None:
                self._on_progress(received, total)


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
        raise _PassingError(what, _seconds(response.headers.get("Retry-After", "")))
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
    for kind, what in _FAILURES:
        if isinstance(error, kind):
            return _PassingError(what)
    return _PassingError("the connection failed")


_FAILURES: Final[tuple[tuple[type[http_errors.HTTPError], str], ...]] = (
    (http_errors.NameResolutionError, "the server's name is not known"),
    (http_errors.NewConnectionError, "the server can't be reached"),
    (http_errors.TimeoutError, "the server stalled"),
    (http_errors.SSLError, "the encryption failed"),
    (http_errors.ProtocolError, "the connection broke before the end"),
)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
