"""One HTTP/1.1 connection: reads requests, has them answered, and writes answers in order.

The framing is llhttp's, by httptools: its strict mode, which refuses what two servers might
read in two ways. Beyond that, a request has a Content-Length, and no Transfer-Encoding.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from geolookup.service import log
from geolookup.service.methods import Method
from geolookup.service.rpc.admission import RETRY_HINT, ShedError, Slots
from geolookup.service.rpc.http_json import connect
from geolookup.service.rpc.http_json.json_request import METHODS
from geolookup.service.rpc.request import INTERNAL_ERROR, Code, RequestError

if TYPE_CHECKING:
    from geolookup.service.rpc.calls import Calls

_LINGER: Final = 1.0
"""Seconds in which a client that still sends may read why it was refused; and in which the first
request of a connection that is to end has to come."""
_DISCARDED: Final = 65_536
"""Bytes of the largest body that is read although its request is refused. The connection of a
larger one is closed."""

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONSTANT: Final = (
    b"Content-Type: application/json\r\n"
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)

_PATHS: Final = {method.path.encode(): method for method in METHODS}
_READ: Final = frozenset(
    {
        b"connect-protocol-version",
        b"connect-timeout-ms",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"transfer-encoding",
    }
)
"""Headers that mean something here. One that comes twice is refused: which one counts?"""
_NAME_KINDS: Final = {
    "DNS": "peer_dns",
    "URI": "peer_uri",
    "email": "peer_email",
    "IP Address": "peer_ip",
}
"""gRPC's names for what `ssl` calls the kinds of a certificate's alternative names."""
_TYPES: Final = frozenset({b"application/json", b"application/json; charset=utf-8"})


class Reply:
    """What a request is answered with.

    Attributes:
        status: HTTP's status code.
        body: in JSON.
        headers: whole lines beside those that each answer has.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self.status, self.body, self.headers = status, body, headers


def refusal(error: RequestError, status: int = 0, headers: bytes = b"") -> Reply:
    """Return the reply to a request that is refused.

    Args:
        error: what the client gets.
        status: HTTP's status code; 0: the one that follows from the error's code.
        headers: as of `Reply`.
    """
    return Reply(
        status or connect.status_of(error.code), connect.error(error.code, error.text), headers
    )


class Request:
    """A request whose headers have come, until it is answered.

    Attributes:
        method: the rpc.
        accepted: `time.monotonic_ns` of its arrival.
        deadline: `time.monotonic` after which the client no longer waits; None: it does.
        metadata: its headers, if calls are traced.
        size: bytes of its body.
        chunks: its body.
        reply: why it is refused; None: it is not.
        slots: of which it has taken one; None: it has none.
        memory: bytes of the budget that it has taken.
        keeps_alive: whether the connection may stay open after it.
        is_gone: whether the client has disconnected.
        is_head: whether its method is HEAD, whose answer has no body.
    """

    __slots__ = (
        "accepted",
        "chunks",
        "deadline",
        "is_gone",
        "is_head",
        "keeps_alive",
        "memory",
        "metadata",
        "method",
        "reply",
        "size",
        "slots",
    )

    def __init__(self) -> None:
        self.method = Method.LOOKUP
        self.accepted = time.monotonic_ns()
        self.deadline: float | None = None
        self.metadata: list[tuple[str, str]] = []
        self.size = 0
        self.chunks: list[bytes] = []
        self.reply: Reply | None = None
        self.slots: Slots | None = None
        self.memory = 0
        self.keeps_alive = False
        self.is_gone = False
        self.is_head = False

    def gone(self) -> int:
        """Return CANCELLED if the client has disconnected, else 0."""
        return int(Code.CANCELLED) if self.is_gone else 0

    def give_back_slot(self) -> None:
        """Give back its slot, if it has one."""
        slots, self.slots = self.slots, None
        if slots is not None:
            slots.give_back()


class Owner(Protocol):
    """What a connection needs of its listener."""

    calls: Calls
    max_head: int
    """Bytes of a request's headers."""
    max_body: int
    """Bytes of a request's body."""
    is_stopping: bool

    def answer(self, request: Request, auth_context: Callable[[], object]) -> Reply:
        """Answer a request in this thread."""
        ...

    def answer_later(
        self,
        request: Request,
        auth_context: Callable[[], object],
        on_reply: Callable[[Reply], None],
    ) -> None:
        """Answer a request in another thread, and call *on_reply* in this one."""
        ...

    def answers_at_once(self, request: Request) -> bool:
        """Return whether a request takes too short to be worth another thread."""
        ...

    def on_used(self, connection: Connection) -> None:
        """Note that a connection has made a call."""
        ...

    def on_lost(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        ...

    def date(self) -> bytes:
        """Return the line of a header with the time."""
        ...


class _HttpError(Exception):
    """A request is refused for what is HTTP's concern and not the method's."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _RefusedError(Exception):
    """Stops the parser: the connection ends with a reply, and what follows is not read."""


def _problem(
    text: str, status: int = 400, code: Code = Code.INVALID_ARGUMENT, headers: bytes = b""
) -> Reply:
    return Reply(status, connect.error(code, f"http: {text}"), headers)


def _too_large_head() -> Reply:
    return _problem("the headers are larger than max_metadata", 431, Code.RESOURCE_EXHAUSTED)


def retry_headers(slots: Slots) -> bytes:
    """Return the headers that say when a call that was shed may come again."""
    milliseconds = slots.shed(time.monotonic_ns())
    seconds = math.ceil(milliseconds / 1_000)
    return f"Retry-After: {seconds}\r\nTrailer-{RETRY_HINT}: {milliseconds}\r\n".encode()


class Connection(asyncio.Protocol):
    """See the module. All of it belongs to the event loop's thread.

    Args:
        owner: its listener.
        opened: `time.monotonic` when it was accepted.

    Attributes:
        used: whether it has made a call.
        task: what makes it; its end until there is a connection.
    """

    def __init__(self, owner: Owner, opened: float) -> None:
        self._owner = owner
        self.task: asyncio.Task[None] | None = None
        self.opened = opened
        self.used = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._auth_context: Mapping[str, list[bytes]] | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._metadata: list[tuple[str, str]] = []
        self._head_size = 0
        self._unread = 0  # bytes of a head that is not whole yet
        self._request: Request | None = None  # that is being read, with a whole head
        self._is_reading = False  # between a request's first byte and its last
        self._active: Request | None = None  # that another thread answers
        self._waiting: deque[Request] = deque()
        self._held = 0  # bytes of the memory budget that an unwritten answer has
        self._is_last = False  # the answer to what has begun is the last
        self._is_deaf = False  # what still comes is discarded
        self._is_closed = False
        self._unwritten = 0  # bytes of answers that had not been taken at the last check
        self._is_write_paused = False
        self._since = opened  # when it began to wait for what it waits for

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        if self._is_closed:  # meanwhile
            transport.close()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_deaf or self._is_closed:
            return
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, _RefusedError):
                describe = cause if isinstance(cause, Exception) else error
                log.event("call_failed", "error", method="http", error=log.describe(describe))
                self._refuse(refusal(INTERNAL_ERROR))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(_problem("not a request that this service reads"))
        else:
            if self._request is None and self._unread > self._owner.max_head:
                self._refuse(_too_large_head())
        self._control_reading()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads slowly."""
        self._is_write_paused = True
        self._control_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._is_write_paused = False
        self._give_back_held()
        self._go_on()
        self._control_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._is_closed = True
        self._give_back_held()
        if self._active is not None:
            self._active.is_gone = True  # the thread that answers it gives back what it has
        for request in (self._request, *self._waiting):
            if request is not None:
                self._release(request)
        self._request = None
        self._waiting.clear()
        self._owner.on_lost(self)

    # --- the listener's calls

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing of a request, and nothing of an answer."""
        return (
            not self._is_reading
            and self._active is None
            and not self._waiting
            and not self._is_write_paused
        )

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Return the names in the client's certificate, as gRPC's auth context has them."""
        if self._auth_context is None:
            names: dict[str, list[bytes]] = {}
            transport = self._transport
            certificate = None if transport is None else transport.get_extra_info("peercert")
            for kind, name in (certificate or {}).get("subjectAltName", ()):
                key = _NAME_KINDS.get(kind)
                if key is not None:
                    names.setdefault(key, []).append(name.encode("utf-8", "surrogateescape"))
            self._auth_context = names
        return self._auth_context

    def retire(self) -> None:
        """Close it when what it has begun is answered.

        A new connection's first request is on its way, and has a moment to come.
        """
        self._is_last = True
        if self.is_idle and (self.used or time.monotonic() - self.opened >= _LINGER):
            self._close()

    def check(self, now: float, handshake: float, transfer: float, idle: float) -> bool:
        """Close it if it has waited for too long; return whether a transfer took too long.

        Args:
            now: `time.monotonic`.
            handshake: seconds until the head of the first request has come.
            transfer: seconds until a request has come whole, or an answer was taken.
            idle: seconds between requests.
        """
        transport = self._transport
        unwritten = 0 if transport is None else transport.get_write_buffer_size()
        if unwritten:
            if unwritten != self._unwritten:  # the client takes some of it
                self._unwritten, self._since = unwritten, now
            elif now - self._since >= transfer:
                self.abort()
                return True
            return False
        self._unwritten = 0
        waited = now - self._since
        if self._is_closed:
            if waited >= _LINGER:
                self.abort()
        elif self._active is not None:
            pass
        elif not self.used and self._request is None:
            if now - self.opened >= (_LINGER if self._is_last else handshake):
                self._close()
        elif self._is_reading:
            if waited >= transfer:
                self._refuse(_problem("the request did not come whole in time", 408))
                return True
        elif waited >= idle:
            self._close()
        return False

    def abort(self) -> None:
        """Close it at once."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._url = b""
        self._headers = {}
        self._metadata = []
        self._head_size = 0
        self._is_reading = True
        self._since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """See `httptools.HttpRequestParser`: the target, or a part of it."""
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        self._count(len(name) + len(value) + 4)
        name = name.lower()
        if name in _READ:
            if name in self._headers:
                raise self._refused(_problem(f"the header {name.decode()} comes twice"))
            self._headers[name] = value.strip()
        if self._owner.calls.traced:
            self._metadata.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._unread = 0
        request = Request()
        request.is_head = self._parser.get_method() == b"HEAD"
        if self._parser.should_upgrade():
            raise self._refused(_problem("upgrade: no other protocol is spoken here"))
        request.size = self._read_size()
        try:
            self._read_head(request)
            self._admit(request)
        except RequestError as error:
            headers = b""
            if isinstance(error, ShedError):
                headers = retry_headers(self._owner.calls.slots_of(request.method))
            request.reply = refusal(error, headers=headers)
        except _HttpError as error:
            request.reply = error.reply
        waits = b"expect" in self._headers
        if request.reply is not None and (waits or request.size > _DISCARDED):
            self._release(request)
            raise self._refused(request.reply)
        self._request = request
        if waits and not self._waiting and self._active is None:
            self._write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        request = self._request
        if request is not None and request.reply is None:
            request.chunks.append(body)

    def on_message_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        request, self._request = self._request, None
        self._unread = 0
        self._is_reading = False
        if request is None:
            return
        request.keeps_alive = self._parser.should_keep_alive()
        if not self.used:
            self.used = True
            self._owner.on_used(self)
        self._waiting.append(request)
        self._go_on()

    # --- a request's head

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._owner.max_head:
            raise self._refused(_too_large_head())

    def _read_size(self) -> int:
        """Return the bytes of the body."""
        headers = self._headers
        if b"transfer-encoding" in headers:
            raise self._refused(_problem("transfer-encoding: send a content-length", 411))
        length = headers.get(b"content-length")
        if length is None:
            if self._parser.get_method() == b"POST":
                raise self._refused(_problem("content-length: required", 411))
            return 0
        return int(length)  # llhttp has read it: digits, of no more than 64 bits

    def _read_head(self, request: Request) -> None:
        headers = self._headers
        if b"host" not in headers and self._parser.get_http_version() != "1.0":
            raise _HttpError(_problem("the header host is missing"))
        method = _PATHS.get(self._url)
        if method is None:
            raise _HttpError(_problem("there is no such method", 404, Code.UNIMPLEMENTED))
        request.method = method
        if self._parser.get_method() != b"POST":
            raise _HttpError(_problem("only POST", 405, Code.UNIMPLEMENTED, b"Allow: POST\r\n"))
        if headers.get(b"content-type", b"").lower() not in _TYPES:
            raise _HttpError(
                _problem(
                    "content-type: expected application/json",
                    415,
                    Code.INVALID_ARGUMENT,
                    b"Accept-Post: application/json\r\n",
                )
            )
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(Code.UNIMPLEMENTED, "content-encoding: only identity")
        if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
            raise _HttpError(_problem("expect: only 100-continue", 417))
        if headers.get(b"connect-protocol-version", b"1") != b"1":
            raise RequestError(Code.INVALID_ARGUMENT, "connect-protocol-version: expected 1")
        timeout = headers.get(b"connect-timeout-ms")
        if timeout is not None:
            seconds = connect.timeout(timeout.decode("latin-1"))
            request.deadline = request.accepted / 1e9 + seconds
        request.metadata = self._metadata
        if request.size > self._owner.max_body:
            text = f"received a message larger than max ({self._owner.max_body})"
            raise _HttpError(_problem(text, 413, Code.RESOURCE_EXHAUSTED))

    def _admit(self, request: Request) -> None:
        """Take a slot, and memory for a large request.

        Raises:
            ShedError: there is too much to do.
        """
        calls, method = self._owner.calls, request.method
        slots = calls.slots_of(method)
        if not slots.take():
            raise calls.shed(slots, method).copy()
        request.slots = slots
        try:
            request.memory = calls.take_memory(request.size)
        except ShedError:
            request.give_back_slot()
            calls.counters.shed(method)
            raise

    # --- answers

    def _go_on(self) -> None:
        """Answer what waits, in order, while the client takes answers."""
        while (
            self._waiting
            and self._active is None
            and not self._is_write_paused
            and not self._is_closed
        ):
            request = self._waiting.popleft()
            if request.reply is not None:
                self._finish(request, request.reply)
            elif self._owner.answers_at_once(request):
                self._finish(request, self._owner.answer(request, self.auth_context))
            else:
                self._active = request
                self._owner.answer_later(request, self.auth_context, self._on_reply)

    def _on_reply(self, reply: Reply) -> None:
        request, self._active = self._active, None
        if request is None:
            return
        if self._is_closed:
            self._release(request)
            return
        self._finish(request, reply)
        self._go_on()
        self._control_reading()

    def _finish(self, request: Request, reply: Reply) -> None:
        is_last = self._is_last or self._owner.is_stopping
        closes = not request.keeps_alive or (is_last and not self._waiting)
        self._held += request.memory
        request.memory = 0
        self._release(request)
        self._since = time.monotonic()
        self._write(_message(reply, self._owner.date(), closes=closes, is_head=request.is_head))
        if not self._is_write_paused:
            self._give_back_held()
        if closes:
            self._close()

    def _refused(self, reply: Reply) -> _RefusedError:
        """End the connection with a reply; return what stops the parser."""
        self._refuse(reply)
        return _RefusedError()

    def _refuse(self, reply: Reply) -> None:
        """End the connection with a reply after those to earlier requests; read nothing more."""
        if self._is_deaf:
            return
        self._is_deaf = self._is_last = True
        request, self._request = self._request or Request(), None
        request.is_head = self._parser.get_method() == b"HEAD"
        request.reply = reply
        self._is_reading = False
        self._waiting.append(request)
        self._go_on()

    def _close(self) -> None:
        """Close it when all is written; at once, a client that still sends may get no answer."""
        self._is_closed = True
        transport = self._transport
        if transport is None:
            return
        if self._is_deaf and transport.can_write_eof():
            transport.write_eof()  # `check` does the rest
        elif not self._is_deaf:
            transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _release(self, request: Request) -> None:
        """Give back what a request has."""
        request.give_back_slot()
        request.chunks.clear()
        memory, request.memory = request.memory, 0
        if memory:
            self._owner.calls.counters.give_back_memory(memory)

    def _give_back_held(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._owner.calls.counters.give_back_memory(held)

    def _control_reading(self) -> None:
        """Read no further while requests wait: a client that is ahead waits in TCP."""
        transport = self._transport
        if transport is None or self._is_closed or transport.is_closing():
            return
        if self._waiting or self._is_write_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()


def _message(reply: Reply, date: bytes, *, closes: bool, is_head: bool) -> bytes:
    """Return an answer as it goes over the wire."""
    return b"".join(
        (
            _LINES[reply.status],
            _CONSTANT,
            date,
            reply.headers,
            b"Connection: close\r\n" if closes else b"",
            b"Content-Length: %d\r\n\r\n" % len(reply.body),
            b"" if is_head else reply.body,
        )
    )
