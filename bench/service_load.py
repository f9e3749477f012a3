"""What one service process on one core bears: ``python -m bench.service_load [--json]``.

Each kind of work is done in three ways. *In process*: a `Dataset` is asked. *One
client*: a `geolookup.client.Client` asks the running service, one call at a time;
what a caller waits. *Saturated*: h2load asks with as many calls under way as it
takes; what the service bears. The service (the ordinary command) has the first
core to itself, all else runs on the last. How the service's own share compares
with an empty handler is what server_styles.py tells.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geolookup
from bench import h2load, timing
from bench.addresses import draw, mixed_packed
from geolookup.answer.dataset import Dataset
from geolookup.client import Client
from geolookup.v1 import geolookup_pb2 as v1

ROOT = Path(__file__).resolve().parent.parent
SERVICE = "geolookup.v1.GeoLookupService"
REGION_SET = "EU"
STREAMED = 100
"""Rosters in a stream."""


@dataclass(frozen=True)
class Work:
    """One kind of work: how it is asked for, here and there."""

    method: str
    messages: tuple[bytes, ...]
    addresses: int
    ask: Callable[[Any], object]
    """Asks a `Dataset` or a `Client`."""


def works(dataset: Dataset) -> dict[str, Work]:
    """Return the kinds of work by name."""
    found = {
        "Lookup, text": Work(
            "Lookup",
            (v1.LookupRequest(text="1.0.1.1", region_set=REGION_SET).SerializeToString(),),
            1,
            lambda source: source.lookup("1.0.1.1", REGION_SET),
        )
    }
    for size in (1_000, 100_000):
        drawn = draw(dataset, 4, "assigned", size)
        mixed = mixed_packed(dataset, "assigned", size)
        columns: dict[str, dict[str, Any]] = {
            "packed IPv4": {"ipv4": drawn.packed},
            "packed mixed": {"ipv6": mixed},
            "text": {"text": v1.TextAddresses(addresses=drawn.texts)},
        }
        for name, column in columns.items():
            request = v1.ClassifyRosterRequest(**column, region_set=REGION_SET)
            found[f"roster of {size:,}, {name}"] = Work(
                "ClassifyRoster",
                (request.SerializeToString(),),
                size,
                asking({"roster": drawn.texts} if name == "text" else column),
            )
    drawn = draw(dataset, 4, "assigned", 1_000)
    streamed = v1.StreamRostersRequest(
        roster=v1.ClassifyRosterRequest(ipv4=drawn.packed, region_set=REGION_SET)
    )
    found[f"stream of {STREAMED} rosters of 1,000, packed IPv4"] = Work(
        "StreamRosters",
        (streamed.SerializeToString(),) * STREAMED,
        STREAMED * 1_000,
        lambda source: stream(source, [drawn.packed] * STREAMED),
    )
    return found


def asking(column: dict[str, Any]) -> Callable[[Any], object]:
    """Return what asks for a roster, down to the columns and the sets of positions."""

    def ask(source: Any) -> object:
        result = source.classify(**column, region_set=REGION_SET)
        return result.countries, result.statuses, result.counts(), result.serialised()

    return ask


def stream(source: Any, rosters: list[bytes]) -> None:
    if isinstance(source, Client):
        for _ in source.classify_many(ipv4=rosters, region_set=REGION_SET):
            pass
    else:
        for roster in rosters:
            source.classify(ipv4=roster, region_set=REGION_SET).serialised()


def waits(ask: Callable[[Any], object], source: Any, seconds: float) -> list[int]:
    """Ask again and again; return how long each call took, in nanoseconds, sorted."""
    took: list[int] = []
    end = time.perf_counter_ns() + seconds * 1e9
    while (begin := time.perf_counter_ns()) < end or len(took) < 3:
        ask(source)
        took.append(time.perf_counter_ns() - begin)
    return sorted(took)


@contextlib.contextmanager
def running(core: int) -> Iterator[tuple[str, int]]:
    """Run the service on a core; yield its address and its worker's process id."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    command = [sys.executable, "-m", "geolookup", "serve", "--listen", "127.0.0.1:0"]
    command += ["--admin", "none", "--metrics", "none", "--workers", "1", "--no-spare-worker"]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        os.sched_setaffinity(0, own)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip().partition(": ")[2]
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            yield address, int(children.read_text())
        finally:
            process.terminate()


def measure(rounds: int, seconds: int, core: int) -> dict[str, dict[str, float]]:
    """Return the figures of each kind of work: medians over the rounds, in microseconds."""
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (
        geolookup.open() as dataset,
        running(core) as (address, process),
        Client(address, timeout=60) as client,
    ):
        for number in range(rounds):
            for name, work in works(dataset).items():
                timing.progress(f"round {number + 1} of {rounds}: {name} ...")
                sample = samples[name]
                for way, source in (("in_process", dataset), ("client", client)):
                    took = waits(work.ask, source, seconds)
                    sample[f"{way}_p50"].append(took[len(took) // 2] / 1e3)
                    sample[f"{way}_p99"].append(took[len(took) * 99 // 100] / 1e3)
                borne = h2load.load(
                    address,
                    f"{SERVICE}/{work.method}",
                    h2load.framed(*work.messages),
                    server=process,
                    seconds=seconds,
                    # Large messages fill a core by fewer calls.
                    calls=h2load.CALLS if work.addresses <= 1_000 else 1,
                )
                sample["calls_per_second"].append(borne.rate)
                sample["addresses_per_second"].append(borne.rate * work.addresses)
                sample["server_cpu_per_call"].append(borne.cpu)
    timing.progress("")
    return {
        name: {figure: statistics.median(values) for figure, values in sample.items()}
        for name, sample in samples.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.service_load", description="Loads one service process."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    if reason := h2load.missing():
        print(reason, file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    machine = timing.machine()
    timing.pin(cores[-1])
    measured = measure(chosen.rounds, chosen.seconds, cores[0])
    if chosen.json:
        report = {"machine": machine, "rounds": chosen.rounds, "seconds": chosen.seconds}
        print(json.dumps({**report, "microseconds": measured}))
        return 0
    print("Machine:", ", ".join(f"{key} {value}" for key, value in machine.items()))
    print(
        f"Service on core {cores[0]}, all else on core {cores[-1]}. Medians of {chosen.rounds} "
        f"rounds of {chosen.seconds} s. p50 and p99 of one call, in µs.\n"
    )
    print(
        "| work | in process, p50 | p99 | one client, p50 | p99 | saturated, calls/s "
        "| addresses/s and core | server CPU, µs a call |"
    )
    print("| --- |" + " ---: |" * 7)
    for name, figures in measured.items():
        print(
            f"| {name} | {figures['in_process_p50']:,.1f} | {figures['in_process_p99']:,.1f} "
            f"| {figures['client_p50']:,.0f} | {figures['client_p99']:,.0f} "
            f"| {figures['calls_per_second']:,.0f} | {figures['addresses_per_second']:,.0f} "
            f"| {figures['server_cpu_per_call']:,.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
