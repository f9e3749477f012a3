"""A caller whose calls are timed one by one, while others ask for far more than can be answered.

Alone: ``python -m chaos.crowd PORT SECONDS CALL PAUSE`` in tests/; prints an object of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import http2

_SERVICE: Final = "/geolookup.v1.GeoLookupService/"
_ADDRESS: Final = bytes([1, 0, 1, 1])
CALLS: Final = {
    "lookup": (_SERVICE + "Lookup", http2.message(b"\x12\x04" + _ADDRESS)),
    "roster": (
        _SERVICE + "ClassifyRoster",
        # The largest, 4 MB.
        http2.message(b"\x0a" + bytes([0x80, 0x92, 0xF4, 0x01]) + _ADDRESS * 1_000_000),
    ),
}
"""Method and body of what is asked."""

_PIECE: Final = 1 << 14
"""Bytes that are sent before it is looked whether the call was refused already."""
_WINDOW: Final = 1 << 30
"""Bytes that may be sent to the caller: it never holds up the service."""
_SETTINGS: Final = {http2.INITIAL_WINDOW_SIZE: _WINDOW}
_OF_CONNECTION: Final = 200
"""Calls of a connection."""
_HINT: Final = "grpc-retry-pushback-ms"


@dataclass
class Timed:
    """What came of a caller's calls.

    Attributes:
        accepted: seconds of each call that was answered.
        refused: seconds of each that was not.
        hinted: how many of these were told when to come again.
        ended: calls by gRPC's status, or by what ended them without one.
    """

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    hinted: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def add(self, other: Timed) -> None:
        """Count another caller's calls as well."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.hinted += other.hinted
        self.ended.update(other.ended)


def ask(port: int, seconds: float, name: str, pause: float) -> Timed:
    """Make one call after another for a time, with pauses of so many seconds between them.

    At least one: on a busy machine, to connect may take longer than a short time.
    """
    timed, end = Timed(), time.monotonic() + seconds
    while not timed.ended or time.monotonic() < end:
        with http2.Connection(port, values=_SETTINGS) as connection:
            connection.send(http2.WINDOW_UPDATE, 0, 0, _WINDOW.to_bytes(4, "big"))
            for stream in range(1, 2 * _OF_CONNECTION, 2):
                began = time.monotonic()
                if began >= end and timed.ended:
                    break
                _call(connection, stream, *CALLS[name])
                _note(timed, connection.fields[stream], time.monotonic() - began)
                time.sleep(pause)
    return timed


def _call(connection: http2.Connection, stream: int, method: str, message: bytes) -> None:
    """Make a call, until it has ended. Nothing more is sent when it has."""
    connection.open(stream, method)
    for at in range(0, len(message), _PIECE):
        last = at + _PIECE >= len(message)
        early = connection.data(stream, message[at : at + _PIECE], end=last)
        if last and not early:
            break
        if early or any(http2.ends(one, stream) for one in connection.ready()):
            connection.send(http2.RST_STREAM, 0, stream, http2.CANCEL.to_bytes(4, "big"))
            return
    connection.rest(stream)


def _note(timed: Timed, fields: dict[str, str], took: float) -> None:
    """Note how a call ended."""
    status = fields.get("grpc-status", "reset")
    timed.ended[status] += 1
    (timed.accepted if status == "0" else timed.refused).append(took)
    timed.hinted += _HINT in fields


def main(arguments: list[str]) -> None:
    """Ask, and print what came of it."""
    port, seconds, name, pause = arguments
    timed: Any = ask(int(port), float(seconds), name, float(pause))
    print(json.dumps(vars(timed)))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
