"""Load from h2load, nghttp2's generator (Debian package nghttp2-client).

It is written in C and costs a fraction of what a gRPC server in Python does, so
that a server on one core is measured and not its client on the other. A gRPC
call is an HTTP/2 request whose body holds each message behind 5 bytes: 0 (not
compressed) and the length.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CLIENTS = 4
"""Connections when a server is saturated; with the next, 32 calls are under way at once."""
CALLS = 8
"""Calls under way on each of them."""


@dataclass(frozen=True)
class Figures:
    """What a server bore for a while.

    Attributes:
        rate: calls answered in a second.
        p50: microseconds that half of the calls took at most.
        p99: microseconds that 99 % of the calls took at most.
        cpu: microseconds of the server's processor time for a call.
    """

    rate: float
    p50: float
    p99: float
    cpu: float

    @classmethod
    def median(cls, several: list[Figures]) -> Figures:
        """Return the median of each figure."""
        return cls(
            *(statistics.median(column) for column in zip(*map(_values, several), strict=True))
        )


def _values(figures: Figures) -> tuple[float, ...]:
    return (figures.rate, figures.p50, figures.p99, figures.cpu)


def missing() -> str | None:
    """Return why no load can be made here; None: it can."""
    if shutil.which("h2load") is None:
        return "h2load is not installed (Debian: apt install nghttp2-client)"
    if len(os.sched_getaffinity(0)) < 2:
        return "server and load need a core each, and this process may use one only"
    return None


def framed(*messages: bytes) -> bytes:
    """Return the body of a call that sends these messages."""
    return b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)


def load(
    address: str,
    method: str,
    body: bytes,
    *,
    server: int,
    seconds: int,
    clients: int = CLIENTS,
    calls: int = CALLS,
) -> Figures:
    """Load one method of a server and return what it bore.

    Args:
        address: HOST:PORT.
        method: full name, such as geolookup.v1.GeoLookupService/Lookup.
        body: see `framed`.
        server: its process id.
        seconds: how long to measure, after a warm-up of a second.
        clients: connections.
        calls: under way at once on each connection.

    Raises:
        RuntimeError: a call failed as HTTP. (gRPC's own errors are not seen
            here: try the call with a client before.)
    """
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        command = ["h2load", f"--duration={seconds}", "--warm-up-time=1", f"--data={data}"]
        command += [f"--clients={clients}", f"--max-concurrent-streams={calls}"]
        command += ["--header=content-type: application/grpc", "--header=te: trailers"]
        # Windows of 16 MiB: the server shall never wait for the client.
        command += ["--window-bits=24", "--connection-window-bits=24", f"--log-file={log}"]
        before = _processor_seconds(server)
        done = subprocess.run(  # noqa: S603 - the tool this is about
            [*command, f"http://{address}/{method}"], capture_output=True, text=True, check=True
        )
        spent = _processor_seconds(server) - before
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
    if counts is None or any(map(int, counts.groups()[1:])) or not rows:
        raise RuntimeError(f"h2load {method}: {done.stdout}")
    begun, durations = _column(rows, 0), sorted(_column(rows, 2))
    first, last = (
        min(begun),
        max(start + took for start, took in zip(begun, _column(rows, 2), strict=True)),
    )
    rate = len(rows) / (last - first) * 1e6
    return Figures(
        rate=rate,
        p50=durations[len(durations) // 2],
        p99=durations[len(durations) * 99 // 100],
        # Warm-up and measurement alike load the server.
        cpu=spent / ((seconds + 1) * rate) * 1e6,
    )


def _column(rows: list[list[str]], number: int) -> list[int]:
    return [int(row[number]) for row in rows]


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
