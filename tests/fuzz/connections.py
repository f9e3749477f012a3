"""First inputs of the fuzz target `connection`: what clients of its methods send, and misuse.

The methods are those of connection.c: /L a lookup, /C a roster, /S a stream of rosters, /A
Envoy's check, /E and /R calls that Python answers, /H and /W health.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import http2

from geolookup.v1 import geolookup_pb2 as v1

GREETED: Final = 1
"""After the preface and settings of a client."""
UNREAD: Final = 2
"""Answers are not read before the end."""
WHOLE: Final = 63 << 2
"""In pieces of 1,009 bytes, which is more than most inputs have."""
IN_HEADER: Final = 1 << 2
"""The address of Envoy's checks is in a header; a part of the pieces' size."""

_PRIORITY: Final = 2
"""The type of a frame that only HTTP/2's first edition has (RFC 7540)."""
_LOOKUP: Final = v1.LookupRequest(text="1.0.1.1", region_set="EU").SerializeToString()


def _call(stream: int, path: str, *bodies: bytes, more: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return the frames of a call with these messages, each in a frame of its own."""
    frames = [
        http2.frame(
            http2.HEADERS,
            http2.END_HEADERS | (0 if bodies else http2.END_STREAM),
            stream,
            http2.block(http2.request(path, *more)),
        )
    ]
    for number, body in enumerate(bodies, 1):
        end = http2.END_STREAM if number == len(bodies) else 0
        frames.append(http2.frame(http2.DATA, end, stream, http2.message(body)))
    return b"".join(frames)


def _roster(size: int, region_set: str = "") -> bytes:
    request = v1.ClassifyRosterRequest(ipv4=bytes(4 * size), region_set=region_set)
    return request.SerializeToString()


def _streamed(size: int, region_set: str = "") -> bytes:
    roster = v1.ClassifyRosterRequest(ipv4=bytes(4 * size), region_set=region_set)
    return v1.StreamRostersRequest(roster=roster).SerializeToString()


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _check(host: bytes, path: bytes, *extensions: bytes, addresses: Sequence[bytes] = ()) -> bytes:
    """Return a CheckRequest; Envoy's own messages are not needed for it."""
    headers = (_field(3, _field(1, b"x-a") + _field(2, address)) for address in addresses)
    peer = _field(1, _field(1, b"\x10\x01" + _field(2, b"1.0.1.1")))
    read = _field(2, b"GET") + b"".join(headers) + _field(4, path) + _field(5, host)
    http = _field(2, read)
    ours = (_field(10, _field(1, b"geolookup." + key) + _field(2, b"x")) for key in extensions)
    return _field(1, _field(1, peer) + _field(4, http) + b"".join(ours))


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield each input's name and content."""
    usual = bytes([GREETED | WHOLE])
    lookups = b"".join(_call(stream, "/L", _LOOKUP) for stream in range(1, 15, 2))
    reset = http2.frame(http2.RST_STREAM, 0, 5, http2.CANCEL.to_bytes(4, "big"))
    ping = http2.frame(http2.PING, 0, 0, bytes(8))
    yield "lookups", usual + _call(1, "/L", _LOOKUP, more=(("grpc-timeout", "5S"),))
    yield "unread", bytes([GREETED | UNREAD | WHOLE]) + lookups
    yield "pieces", bytes([GREETED]) + _call(1, "/L", _LOOKUP)
    yield "rosters", usual + _call(1, "/C", _roster(3)) + _call(3, "/C", _roster(100, "EU"))
    yield (
        "stream",
        bytes([GREETED | 3 << 2])
        + _call(1, "/S", _streamed(2), _streamed(40), _streamed(2, "EU"), _streamed(1)),
    )
    yield (
        "python",
        usual
        + _call(1, "/E", b"abcd")
        + _call(3, "/E", b"abc")
        + _call(5, "/E", b"abcd", more=(("grpc-timeout", "1n"),))
        + reset,
    )
    yield "python-stream", usual + _call(1, "/R", b"ab", b"abc") + _call(5, "/R", b"", b"") + reset
    yield "health", usual + _call(1, "/H", b"") + _call(3, "/H", b"\n\1x") + _call(5, "/W", b"")
    yield (
        "refused",
        usual
        + _call(1, "/x", b"")
        + _call(3, "/L", more=(("x", "y" * 1_100),))
        + _call(5, "/L", b"", more=(("grpc-encoding", "snappy"),))
        + _call(7, "/L", _LOOKUP, _LOOKUP),
    )
    yield (
        "check",
        bytes([GREETED | WHOLE & ~IN_HEADER])
        + _call(1, "/A", _check(b"a.b", b"/join"))
        + _call(3, "/A", _check(b"C.:1", b"/x?y"))
        + _call(5, "/A", _check(b"", b"", b"rule", b"mode"))
        + _call(7, "/A", _check(b"x", b"/%6A")),
    )
    yield (
        "check-header",
        bytes([GREETED | WHOLE | IN_HEADER])
        + _call(1, "/A", _check(b"a.b", b"/join", addresses=[b"1.0.1.1"]))
        + _call(3, "/A", _check(b"a.b", b"/join"))
        + _call(5, "/A", _check(b"a.b", b"/join", addresses=[b"1.0.1.1", b"::1"])),
    )
    yield "gzip", usual + _call(1, "/L", b"", _LOOKUP, more=(("grpc-encoding", "gzip"),))
    yield (
        "frames",
        usual
        + http2.frame(http2.SETTINGS, 0, 0, http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        + http2.frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\1\0")
        + http2.frame(_PRIORITY, 0, 3, bytes(5))
        + 5 * ping
        + http2.frame(http2.GOAWAY, 0, 0, bytes(8)),
    )
    yield "no-http2", bytes([WHOLE]) + b"GET / HTTP/1.1\r\n\r\n"
