"""What a call costs in each style of server: ``python -m bench.server_styles [--json]``.

The contenders: gRPC's public server with a pool of threads and an empty handler, which
returns a constant of as many bytes as we would; the same over asyncio; and the service as
it ships, over each of its transports, with all that is switched on by default (admission,
deadlines, metrics). One server at a time is saturated by h2load; they take turns. Servers
run on the first core and the load on the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

import geolookup
from bench import h2load, timing
from bench.addresses import draw
from geolookup.answer.dataset import Dataset
from geolookup.service import RosterLimits, Server, Settings
from geolookup.service.methods import GEOLOOKUP
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc.calls import Calls
from geolookup.service.rpc.handlers import Snapshot
from geolookup.v1 import geolookup_pb2 as v1

EMPTY = "empty, threads"
"""What all others are compared with."""
CONTENDERS = (
    EMPTY,
    "empty, asyncio",
    "geolookup, threads",
    "geolookup, native",
)
FIGURES = ("rate", "p50", "p99", "cpu")
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", RosterLimits().message_bytes),
]


def works(dataset: Dataset) -> dict[str, tuple[str, bytes]]:
    """Return method and request of each kind of work."""
    drawn, many = (draw(dataset, 4, "assigned", size) for size in (1_000, 100_000))
    text = v1.TextAddresses(addresses=drawn.texts)
    requests: dict[str, tuple[str, Any]] = {
        "Lookup": ("Lookup", v1.LookupRequest(text="1.0.1.1", region_set="EU")),
        "roster of 1,000, packed": (
            "ClassifyRoster",
            v1.ClassifyRosterRequest(ipv4=drawn.packed, region_set="EU"),
        ),
        "roster of 1,000, text": (
            "ClassifyRoster",
            v1.ClassifyRosterRequest(text=text, region_set="EU"),
        ),
        "roster of 100,000, packed": (
            "ClassifyRoster",
            v1.ClassifyRosterRequest(ipv4=many.packed, region_set="EU"),
        ),
    }
    return {
        name: (method, request.SerializeToString()) for name, (method, request) in requests.items()
    }


# servers, each in a process of its own


def serve(contender: str, work: str, threads: int, core: int) -> None:
    """Serve until killed; prints the address."""
    timing.pin(core)
    with geolookup.open() as dataset:
        kind, style = contender.split(", ")
        method, request = works(dataset)[work]
        calls = Calls(Settings(), Counters(), Snapshot(dataset))
        called = next(one for one in calls.unary if one.label == method)
        response = calls.begin(called, accepted=0).answer(request)
        if kind == "geolookup":
            settings = Settings(listen="127.0.0.1:0", threads=threads, transport=style)
            shipped = Server(dataset, settings)
            print(shipped.address, flush=True)
            sys.stdin.read()
        elif style == "threads":
            serve_empty(method, response, threads)
        else:
            asyncio.run(serve_empty_asyncio(method, response))


def serve_empty(method: str, response: bytes, threads: int) -> None:
    running = grpc.server(ThreadPoolExecutor(threads), options=OPTIONS)
    add_method(running, method, lambda _body, _context: response)
    print(f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}", flush=True)
    running.start()
    running.wait_for_termination()


async def serve_empty_asyncio(method: str, response: bytes) -> None:
    async def answer(_body: bytes, _context: Any) -> bytes:
        return response

    running = grpc.aio.server(options=OPTIONS)
    add_method(running, method, answer)
    print(f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}", flush=True)
    await running.start()
    await running.wait_for_termination()


def add_method(running: Any, name: str, behaviour: Any) -> None:
    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(behaviour)}
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GEOLOOKUP, methods),))
    running.add_registered_method_handlers(GEOLOOKUP, methods)


class Started:
    """A server's process and address."""

    def __init__(self, contender: str, work: str, threads: int, core: int) -> None:
        told = (contender, work, str(threads), str(core))
        self.process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", "bench.server_styles", "--serve", *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()


@contextlib.contextmanager
def started(
    contenders: list[str], work: str, threads: int, core: int
) -> Iterator[Mapping[str, Started]]:
    """Run all contenders while the block lasts."""
    running: dict[str, Started] = {}
    try:
        for contender in contenders:
            running[contender] = Started(contender, work, threads, core)
        yield running
    finally:
        for one in running.values():
            one.process.kill()
            one.process.communicate()


def check(addresses: list[str], method: str, request: bytes) -> None:
    """Hold the servers' answers against each other: all do the same work."""
    answers: set[bytes] = set()
    for address in addresses:
        with grpc.insecure_channel(address) as channel:
            ask: Any = channel.unary_unary(f"/{GEOLOOKUP}/{method}")
            answers.add(ask(request, timeout=60))
    # A map's entries may stand in any order, so the bytes may differ.
    assert len(set(map(len, answers))) == 1, f"the servers answer {method} differently"


def measure(
    contenders: list[str],
    chosen: list[str],
    rounds: int,
    seconds: int,
    threads: int,
    core: int,
    *,
    clients: int,
    calls: int,
) -> dict[str, Any]:
    """Return the figures by work and contender; servers use *core*, the last are h2load's.

    To the medians are added those of the ratios to the empty handler of the same turn.
    """
    with geolookup.open() as dataset:
        all_works = works(dataset)
    measured: dict[str, Any] = {}
    shuffle = random.Random(0).shuffle
    for work in chosen:
        method, request = all_works[work]
        samples: dict[str, list[h2load.Figures]] = defaultdict(list)
        with started(contenders, work, threads, core) as running:
            check([one.address for one in running.values()], method, request)
            order = list(contenders)
            for number in range(rounds):
                shuffle(order)
                for contender in order:
                    timing.progress(f"{work}: round {number + 1} of {rounds}, {contender} ...")
                    figures = h2load.load(
                        running[contender].address,
                        f"{GEOLOOKUP}/{method}",
                        h2load.framed(request),
                        server=running[contender].process.pid,
                        seconds=seconds,
                        clients=clients,
                        calls=calls,
                    )
                    samples[contender].append(figures)
        measured[work] = {
            contender: vars(h2load.Figures.median(samples[contender]))
            | {
                f"{name}_of_empty": statistics.median(
                    getattr(ours, name) / getattr(empty, name)
                    for ours, empty in zip(samples[contender], samples[EMPTY], strict=True)
                )
                for name in FIGURES
            }
            for contender in contenders
        }
    timing.progress("")
    return measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.server_styles", description="Compares styles of gRPC servers."
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each server")
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    parser.add_argument("--threads", type=int, default=Settings().threads, help="of the pool")
    parser.add_argument("--work", action="append", help="part of a work's name; more than one")
    parser.add_argument("--alone", action="store_true", help="one call after the other")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        contender, work, threads, core = chosen.serve
        serve(contender, work, int(threads), int(core))
        return 0
    if reason := h2load.missing():
        print(reason, file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    with geolookup.open() as dataset:
        names = [
            name
            for name in works(dataset)
            if not chosen.work or any(part in name for part in chosen.work)
        ]
    # Alone, what is measured is how long a call takes.
    clients, calls = (1, 1) if chosen.alone else (h2load.CLIENTS, h2load.CALLS)
    report = {
        "machine": timing.machine(),
        "server_core": cores[0],
        "load_core": cores[-1],
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "threads": chosen.threads,
        "calls_under_way": clients * calls,
    }
    timing.pin(cores[-1])
    report["works"] = measured = measure(
        list(CONTENDERS),
        names,
        chosen.rounds,
        chosen.seconds,
        chosen.threads,
        cores[0],
        clients=clients,
        calls=calls,
    )
    if chosen.json:
        print(json.dumps(report))
        return 0
    print("Machine:", ", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    print(
        f"Servers on core {cores[0]}, h2load on core {cores[-1]} with "
        f"{report['calls_under_way']} under way at once. Medians of {chosen.rounds} turns of "
        f"{chosen.seconds} s; a pool of {chosen.threads} threads. Ratios, taken turn by turn, to "
        "an empty handler in gRPC's public server.\n"
    )
    print(
        "| work | server | calls/s | of empty | p50, µs | of empty | p99, µs | of empty "
        "| CPU, µs a call | of empty |"
    )
    print("| --- | --- |" + " ---: |" * 8)
    for work, by_contender in measured.items():
        for contender, row in by_contender.items():
            cells = [f"{row[name]:,.1f} | {row[f'{name}_of_empty']:.2f}" for name in FIGURES]
            print(f"| {work} | {contender} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
