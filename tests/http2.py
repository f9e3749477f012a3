"""A client that speaks as much HTTP/2 as it takes to misuse it, in single frames.

Real clients keep to the rules. What a server does about those who don't is seen through
this one: it sends what it is told to, in the order it is told.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE: Final = 30.0
"""Seconds for which a connection is waited for, unless one asks for others."""

DATA, HEADERS, CONTINUATION = DataFrame.type, HeadersFrame.type, ContinuationFrame.type
SETTINGS, PING, WINDOW_UPDATE = SettingsFrame.type, PingFrame.type, WindowUpdateFrame.type
RST_STREAM, GOAWAY = RstStreamFrame.type, GoAwayFrame.type
END_STREAM, ACK, END_HEADERS = 1, 1, 4

STREAM_CLOSED, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 5, 7, 8, 11
"""Error codes of RST_STREAM and GOAWAY."""

MAX_CONCURRENT_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW_SIZE = SettingsFrame.INITIAL_WINDOW_SIZE
MAX_FRAME_SIZE = SettingsFrame.MAX_FRAME_SIZE
MAX_HEADER_LIST_SIZE = SettingsFrame.MAX_HEADER_LIST_SIZE

_FRAME: Final = 16_384
"""Bytes of the largest frame that every peer must take."""


def ends(found: Frame, stream: int) -> bool:
    """Say whether the server ends a stream by a frame."""
    ending = found.type == RST_STREAM or "END_STREAM" in found.flags
    return ending and found.stream_id == stream


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame's bytes, whether or not they make sense for its kind."""
    made = ExtensionFrame(kind, stream, flags)
    made.parse_body(memoryview(body))
    return made.serialize()


def settings(values: dict[int, int]) -> bytes:
    """Return the body of a SETTINGS frame."""
    return SettingsFrame(0, settings=values).serialize_body()


def block(fields: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Return a header block in HPACK, of which nothing goes into a table."""
    return Encoder().encode([(name, value, True) for name, value in fields], huffman=False)


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

    Attributes:
        fields: the header fields and trailers of each stream up to now.
        their_settings: the server's.
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
        self.fields: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self._decoder = Decoder()
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
            if ends(found, stream):
                return found
            if found.type == WINDOW_UPDATE:
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
        found, size = Frame.parse_frame_header(memoryview(bytes(self._received[:9])))
        found.parse_body(memoryview(bytes(self._received[9 : 9 + size])))
        del self._received[: 9 + size]
        self._account(found)
        return found

    def _size(self) -> int:
        return int.from_bytes(self._received[:3])

    def _account(self, found: Frame) -> None:
        if isinstance(found, WindowUpdateFrame):
            if found.stream_id:
                self._windows[found.stream_id] += found.window_increment
            else:
                self._window += found.window_increment
        elif isinstance(found, HeadersFrame):
            fields = self.fields[found.stream_id]
            fields |= {str(name): str(value) for name, value in self._decoder.decode(found.data)}
        elif isinstance(found, SettingsFrame) and "ACK" not in found.flags:
            self.their_settings |= found.settings
            if self._polite:
                self._answer(frame(SETTINGS, ACK, 0, b""))
        elif isinstance(found, PingFrame) and "ACK" not in found.flags and self._polite:
            self._answer(frame(PING, ACK, 0, found.opaque_data))

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

    def expect(self, kind: int, stream: int | None = None) -> Any:
        """Return the next frame of a kind, and of a stream; others before it are passed over.

        Raises:
            ConnectionError: the server hung up before that.
        """
        for found in self.frames():
            if found.type == kind and stream in (None, found.stream_id):
                return found
        raise ConnectionError("the server hung up")

    def rest(self, stream: int) -> list[Frame]:
        """Return the frames of a stream until its end, or the server's hanging up."""
        found = []
        for one in self.frames():
            if one.stream_id == stream:
                found.append(one)
            if ends(one, stream):
                break
        return found

    def body(self, stream: int) -> bytes:
        """Return the data of a stream until its end, or the server's hanging up."""
        return b"".join(one.data for one in self.rest(stream) if isinstance(one, DataFrame))

    def is_alive(self) -> bool:
        """Say whether the server answers a ping."""
        try:
            self.send(PING, 0, 0, b"is alive")
            while "ACK" not in self.expect(PING).flags:
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
