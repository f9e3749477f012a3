"""What a pod bears: ``python -m bench.capacity``, the table of docs/deploy.md.

Starts a service with one worker on the first core and searches, with clients on the last, for the
highest load of each kind that it holds (`python -m bench.load --knee`): 99 % of the calls answered
within the limit, as many as are due. Memory is that of all processes of the service together, each
page counted once (PSS), at the end of the search. Takes a minute or two a kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import timing

KINDS: Final = {"joins": 5.0, "mix": 10.0, "roster-1000": 10.0, "roster-100000": 50.0}
"""Scenarios of bench.load, and the milliseconds that 99 % of their calls may take."""


@dataclass(frozen=True)
class Row:
    """One kind of call.

    Attributes:
        kind: the scenario.
        limit: milliseconds that 99 % of the calls may take.
        held: calls a second; None: not even the lightest load was held.
        p99: milliseconds at that load.
        memory: of the whole service, in MiB.
        warnings: of bench.load about the run at that load.
    """

    kind: str
    limit: float
    held: float | None
    p99: float | None
    memory: float
    warnings: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kind", action="append", choices=KINDS, help="(default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    rows = [measure(kind, KINDS[kind], given.seconds) for kind in given.kind or KINDS]
    if given.json:
        print(json.dumps({"machine": timing.machine(), "rows": [vars(row) for row in rows]}))
        return
    print(", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    print()
    print("| calls | calls/s held by one worker | p99 | may be | memory |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        held = "none" if row.held is None else f"{row.held:,.0f}"
        p99 = "-" if row.p99 is None else f"{row.p99:.1f} ms"
        print(f"| `{row.kind}` | {held} | {p99} | {row.limit:g} ms | {row.memory:,.0f} MiB |")
    for row in rows:
        for warning in row.warnings:
            print(f"WARNING: {row.kind}: {warning}")


def measure(kind: str, limit: float, seconds: float) -> Row:
    """Search for the highest load of one kind that a service of its own holds."""
    cores = sorted(os.sched_getaffinity(0))
    options = (
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "none",
        "--metrics",
        "127.0.0.1:0",
        "--workers",
        "1",
    )
    with (
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "geolookup", "serve", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]),  # noqa: PLW1509 - no thread is running
        ) as service
    ):
        try:
            assert service.stdout is not None
            announced: dict[str, str] = {}
            while not {"address", "metrics"} <= announced.keys():
                name, found, value = service.stdout.readline().strip().partition(": ")
                assert found, "the service did not start"
                announced[name] = value
            command = [sys.executable, "-m", "bench.load", announced["address"], "--json", "--knee"]
            command += ["--scenario", kind, "--limit", str(limit), "--seconds", str(seconds)]
            command += ["--cores", str(cores[-1]), "--metrics", announced["metrics"]]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
            if done.returncode not in {0, 3}:
                sys.exit(f"bench.load: exit code {done.returncode}")
            memory = sum(map(_proportional_bytes, _with_children(service.pid))) / 2**20
        finally:
            service.terminate()
    found_all = json.loads(done.stdout)
    knee = found_all["knee"]
    if knee["held"] is None:
        return Row(kind, limit, None, None, memory, tuple(found_all["warnings"]))
    p99 = knee["held_latency"]["p99"] / 1e3
    return Row(kind, limit, knee["held"], p99, memory, tuple(knee["held_warnings"]))


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            yield from _with_children(int(child))


def _proportional_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(
        int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")
    )


if __name__ == "__main__":
    main()
