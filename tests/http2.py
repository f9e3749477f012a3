"""A client that speaks as much HTTP/2 as it takes to misuse it, in single frames.

Real clients keep to the rules. What a server does about those who don't is seen through
this one: it sends what it is told to, in the order it is told.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE: Final = 30.0
"""Seconds for which a connection is waited for, unless one asks for others."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4

CANCEL, REFUSED_STREAM, ENHANCE_YOUR_CALM = 8, 7, 11
"""Error codes of RST_STREAM and GOAWAY."""

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

_FRAME: Final = 16_384
"""Bytes of the largest frame that every peer must take."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    body: bytes

    @property
    def error(self) -> int:
        """The error code of a RST_STREAM or a GOAWAY."""
        return int.from_bytes(self.body[0:4] if self.kind == RST_STREAM else self.body[4:8])

    def ends(self, stream: int) -> bool:
        """Say whether the server ends a stream by it."""
        ending = self.kind == RST_STREAM or (
            self.kind in {DATA, HEADERS} and bool(self.flags & END_STREAM)
        )
        return ending and self.stream == stream


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame's bytes."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def settings(values: dict[int, int]) -> bytes:
    """Return the body of a SETTINGS frame."""
    return b"".join(struct.pack(">HI", *pair) for pair in values.items())


def read_settings(body: bytes) -> dict[int, int]:
    """Return what the body of a SETTINGS frame says."""
    return dict(struct.iter_unpack(">HI", body))


def block(fields: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Return a header block in HPACK: literals alone, none of which goes into a table."""
    encoded = bytearray()
    for name, value in fields:
        encoded.append(0)
        for text in (name, value):
            some = text.encode() if isinstance(text, str) else text
            encoded += _length(len(some)) + some
    return bytes(encoded)


def _length(length: int) -> bytes:
    if length < 127:
        return bytes([length])
    rest, encoded = length - 127, bytearray([127])
    while rest > 127:
        encoded.append(128 | rest & 127)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def request(path: str, *more: tuple[str, str | bytes]) -> list[tuple[str, str | bytes]]:
    """Return the header fields of a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]


def message(body: bytes, compressed: bool = False) -> bytes:
    """Return a message as gRPC puts it into DATA frames."""
    return bytes([compressed]) + struct.pack(">I", len(body)) + body


class Connection:
    """One connection to a port of this machine. Errors of the socket are the caller's.

    Args:
        port: the server's.
        greet: whether to begin like a client that keeps to the rules: with the
            preface and settings, whose answer is waited for, and acknowledged.
        values: those settings.
        polite: whether to answer the server's pings and settings, as all clients do.
        patience: seconds for which each answer is waited for.
        tls: for TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        greet: bool = True,
        values: dict[int, int] | None = None,
        polite: bool = True,
        patience: float = PATIENCE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._polite = polite
        self._received = bytearray()
        self.their_settings: dict[int, int] = {}
        self._window, self._windows = 65_535, Counter[int]()
        if greet:
            try:
                self.raw(PREFACE + frame(SETTINGS, 0, 0, settings(values or {})))
                self.expect(SETTINGS)
            except BaseException:
                self.close()
                raise

    # sending

    def raw(self, some: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(some)

    def send(self, kind: int, flags: int = 0, stream: int = 0, body: bytes = b"") -> None:
        """Send a frame."""
        self.raw(frame(kind, flags, stream, body))

    def open(
        self,
        stream: int,
        path: str,
        *more: tuple[str, str | bytes],
        flags: int = END_HEADERS,
    ) -> None:
        """Begin a call; a block of headers that is too large for a frame is continued."""
        encoded = block(request(path, *more))
        pieces = [encoded[at : at + _FRAME] for at in range(0, len(encoded), _FRAME)]
        last = flags & END_HEADERS
        for number, piece in enumerate(pieces):
            end = last if number == len(pieces) - 1 else 0
            if number:
                self.send(CONTINUATION, end, stream, piece)
            else:
                self.send(HEADERS, (flags & ~END_HEADERS) | end, stream, piece)

    def data(self, stream: int, body: bytes, end: bool = True) -> Frame | None:
        """Send DATA as fast as the server's windows let it.

        Returns:
            The frame by which the server ended the stream before all was sent, if it did.

        Raises:
            ConnectionError: it hung up.
        """
        at = 0
        while True:
            first = self.their_settings.get(INITIAL_WINDOW_SIZE, 65_535)
            room = min(_FRAME, self._window, first + self._windows[stream])
            piece = body[at : at + max(0, room)]
            if piece or not body:
                at += len(piece)
                self._window -= len(piece)
                self._windows[stream] -= len(piece)
                self.send(DATA, END_STREAM if end and at == len(body) else 0, stream, piece)
            if at == len(body):
                return None
            if room <= 0:
                found = self._wait_for_window(stream)
                if found is not None:
                    return found

    def _wait_for_window(self, stream: int) -> Frame | None:
        for found in self.frames():
            if found.ends(stream):
                return found
            if found.kind == WINDOW_UPDATE:
                return None
        raise ConnectionError("the server hung up")

    def call(self, stream: int, path: str, body: bytes, *more: tuple[str, str | bytes]) -> None:
        """Make a unary call without waiting for its answer."""
        self.open(stream, path, *more)
        self.data(stream, message(body))

    # receiving

    def receive(self) -> Frame | None:
        """Wait for a frame and return it; None: the server has hung up."""
        while len(self._received) < 9 or len(self._received) < 9 + self._size():
            try:
                some = self.socket.recv(65_536)
            except ConnectionError:
                return None
            if not some:
                return None
            self._received += some
        size = self._size()
        found = Frame(
            self._received[3],
            self._received[4],
            int.from_bytes(self._received[5:9]),
            bytes(self._received[9 : 9 + size]),
        )
        del self._received[: 9 + size]
        self._account(found)
        return found

    def _size(self) -> int:
        return int.from_bytes(self._received[:3])

    def _account(self, found: Frame) -> None:
        if found.kind == WINDOW_UPDATE:
            if found.stream:
                self._windows[found.stream] += int.from_bytes(found.body)
            else:
                self._window += int.from_bytes(found.body)
        elif found.kind == SETTINGS and not found.flags & ACK:
            self.their_settings |= read_settings(found.body)
            if self._polite:
                self._answer(frame(SETTINGS, ACK, 0, b""))
        elif found.kind == PING and not found.flags & ACK and self._polite:
            self._answer(frame(PING, ACK, 0, found.body))

    def _answer(self, some: bytes) -> None:
        with contextlib.suppress(OSError):  # it has hung up since; the rest is still to be read
            self.raw(some)

    def ready(self) -> list[Frame]:
        """Return the frames that are there already.

        Raises:
            ConnectionError: the server has hung up, and these were all.
        """
        patience = self.socket.gettimeout()
        self.socket.settimeout(0)
        found = []
        try:
            while (one := self.receive()) is not None:
                found.append(one)
        except (BlockingIOError, ssl.SSLWantReadError):
            return found
        finally:
            self.socket.settimeout(patience)
        if not found:
            raise ConnectionError("the server hung up")
        return found

    def frames(self) -> Iterator[Frame]:
        """Yield what comes until the server hangs up."""
        while (found := self.receive()) is not None:
            yield found

    def expect(self, kind: int, stream: int | None = None) -> Frame:
        """Return the next frame of a kind, and of a stream; others before it are passed over.

        Raises:
            ConnectionError: the server hung up before that.
        """
        for found in self.frames():
            if found.kind == kind and stream in (None, found.stream):
                return found
        raise ConnectionError("the server hung up")

    def rest(self, stream: int) -> list[Frame]:
        """Return the frames of a stream until its end, or the server's hanging up."""
        found = []
        for one in self.frames():
            if one.stream == stream:
                found.append(one)
            if one.ends(stream):
                break
        return found

    def is_alive(self) -> bool:
        """Say whether the server answers a ping."""
        try:
            self.send(PING, 0, 0, b"is alive")
            while not self.expect(PING).flags & ACK:
                pass
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        """Hang up, whatever is under way."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
