"""A client that makes calls on one connection by the clock, or keeps a number of them under way.

Alone: ``python -m chaos.beside PORT SECONDS joins RATE`` or ``... rosters NUMBER`` in tests/;
prints an object of JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from typing import Any, Final

from chaos.crowd import CALLS
from geolookup._http2_client import Connection

_PREFIX: Final = 5
"""Bytes before a message in `CALLS`, which the connection writes itself."""
_DEADLINE: Final = 60.0
_LARGEST: Final = 1 << 24
_SETTLING: Final = 10.0


class Beside:
    """One connection and the calls that are under way on it.

    Attributes:
        took: seconds of each call that was answered.
        ended: calls by gRPC's code, 0 for those that were answered.
        hinted: how many of the others got a hint when to come again.
    """

    def __init__(self, port: int, name: str) -> None:
        connected = socket.create_connection(("127.0.0.1", port))
        connected.setblocking(False)
        self._connection = Connection(
            connected.detach(),
            context=None,
            name="127.0.0.1",
            authority=f"127.0.0.1:{port}",
            agent="chaos",
            keepalive=0.0,
            keepalive_answer=0.0,
        )
        method, message = CALLS[name]
        self._path, self._body = method.encode(), message[_PREFIX:]
        self.took: list[float] = []
        self.ended: Counter[int] = Counter()
        self.hinted = 0
        self.under_way = 0
        if not self._connection.settle(_SETTLING):
            raise OSError("the service does not speak HTTP/2")

    def begin(self, now: float) -> None:
        """Begin a call, which counts from *now*."""
        future: Any = now
        if self._connection.begin(self._path, self._body, now, _DEADLINE, _LARGEST, future) is None:
            raise OSError("the connection takes no call")
        self.under_way += 1

    def progress(self, until: float) -> list[int]:
        """Wait for something to happen, and return the hints of calls that were refused."""
        self._connection.flush()
        with selectors.DefaultSelector() as waiting:
            events = selectors.EVENT_READ
            if self._connection.wants_write:
                events |= selectors.EVENT_WRITE
            waiting.register(self._connection.descriptor, events)
            waiting.select(max(0.0, until - time.monotonic()))
        self._connection.progress()
        now = time.monotonic()
        hints = []
        for call, outcome in self._connection.finished():
            began: Any = call.future
            self.under_way -= 1
            if isinstance(outcome, bytes):
                self.ended[0] += 1
                self.took.append(now - began)
            else:
                self.ended[outcome[0]] += 1
                self.hinted += outcome[2] is not None
                hints.append(outcome[2] or 100)
        if self._connection.problem is not None:
            raise OSError(self._connection.problem)
        return hints


def joins(client: Beside, seconds: float, rate: float) -> None:
    """Make so many calls a second, by the clock: one that is late does not make the next late."""
    begun, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds or client.under_way:
        while now < began + seconds and now >= began + begun / rate:
            client.begin(began + begun / rate)
            begun += 1
        client.progress(began + begun / rate if now < began + seconds else now + 1.0)


def rosters(client: Beside, seconds: float, number: int) -> None:
    """Have so many under way at once, and repeat those that are refused after the hint's time."""
    end = time.monotonic() + seconds
    due = [0.0] * number
    while (now := time.monotonic()) < end or client.under_way:
        while now < end and due and due[0] <= now:
            due.pop(0)
            client.begin(now)
        before = client.ended[0]
        soonest = min(due[0] if due and now < end else now + 0.1, now + 0.1)
        hints = client.progress(soonest)
        after = time.monotonic()
        due += [after] * (client.ended[0] - before) + [after + hint / 1_000 for hint in hints]
        due.sort()


def main(arguments: list[str]) -> None:
    """Make the calls, and print what came of them."""
    port, seconds, what, number = arguments
    client = Beside(int(port), "lookup" if what == "joins" else "roster")
    if what == "joins":
        joins(client, float(seconds), float(number))
    else:
        rosters(client, float(seconds), int(number))
    found = {"took": client.took, "ended": client.ended, "hinted": client.hinted}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
