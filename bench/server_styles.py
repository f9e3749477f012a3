"""Threads or asyncio? ``python -m bench.server_styles [--json]``.

Each style of gRPC server serves our handlers, and beside it a bare one whose
handler returns a constant of as many bytes. One server at a time is saturated by
h2load; they take turns. Servers run on the first core and the load on the last.
The server that geolookup ships (threads) is the real one, `geolookup.service.Server`;
that of asyncio is here and does as little as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

import geolookup
from bench import h2load, timing
from bench.addresses import draw
from geolookup.dataset import Dataset
from geolookup.service import Limits, Server, Settings
from geolookup.service.handlers import RequestError, Snapshot
from geolookup.service.server import SERVICE, UNARY
from geolookup.v1 import geolookup_pb2 as v1

STYLES = ("threads", "asyncio", "asyncio + uvloop")
HANDLERS = ("empty", "geolookup")
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", Limits().message_bytes)]


def works(dataset: Dataset) -> dict[str, tuple[str, bytes]]:
    """Return method and request of each kind of work."""
    drawn = draw(dataset, 4, "assigned", 1_000)
    text = v1.TextAddresses(addresses=drawn.texts)
    requests = {
        "Lookup": ("Lookup", v1.LookupRequest(text="1.0.1.1", region_set="EU")),
        "roster of 1,000, packed": (
            "ClassifyRoster",
            v1.ClassifyRosterRequest(ipv4=drawn.packed, region_set="EU"),
        ),
        "roster of 1,000, text": (
            "ClassifyRoster",
            v1.ClassifyRosterRequest(text=text, region_set="EU"),
        ),
    }
    return {
        name: (method, request.SerializeToString()) for name, (method, request) in requests.items()
    }


# servers, each in a process of its own


def serve(style: str, handlers: str, threads: int, core: int) -> None:
    """Serve until killed; prints the address."""
    timing.pin(core)
    with geolookup.open() as dataset:
        if style == "threads":
            serve_threads(dataset, handlers, threads)
        elif style == "asyncio":
            asyncio.run(serve_asyncio(dataset, handlers))
        else:
            import uvloop  # noqa: PLC0415 - optional

            uvloop.run(serve_asyncio(dataset, handlers))


def serve_threads(dataset: Dataset, handlers: str, threads: int) -> None:
    if handlers == "geolookup":
        shipped = Server(dataset, Settings(listen="127.0.0.1:0", threads=threads))
        print(shipped.address, flush=True)
        sys.stdin.read()
        return

    def behaviour(response: bytes) -> Any:
        return lambda _body, _context: response

    bare = grpc.server(ThreadPoolExecutor(threads), options=OPTIONS)
    add_methods(bare, {name: behaviour(response) for name, response in responses(dataset).items()})
    print(f"127.0.0.1:{bare.add_insecure_port('127.0.0.1:0')}", flush=True)
    bare.start()
    bare.wait_for_termination()


async def serve_asyncio(dataset: Dataset, handlers: str) -> None:
    snapshot, limits = Snapshot(dataset), Limits()

    def constant(response: bytes) -> Any:
        async def answer(_body: bytes, _context: Any) -> bytes:
            return response

        return answer

    def ours(handler: Callable[[Snapshot, bytes, Limits], bytes]) -> Any:
        async def answer(body: bytes, context: Any) -> bytes:
            try:
                return handler(snapshot, body, limits)
            except RequestError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.text)
                raise

        return answer

    running = grpc.aio.server(options=OPTIONS)
    if handlers == "geolookup":
        add_methods(running, {name: ours(handler) for name, handler in UNARY.items()})
    else:
        empty = responses(dataset)
        add_methods(running, {name: constant(response) for name, response in empty.items()})
    print(f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}", flush=True)
    await running.start()
    await running.wait_for_termination()


def responses(dataset: Dataset) -> dict[str, bytes]:
    """Return what an empty handler returns: an answer of the usual size."""
    snapshot, limits = Snapshot(dataset), Limits()
    return {
        method: UNARY[method](snapshot, request, limits)
        for method, request in works(dataset).values()
    }


def add_methods(running: Any, behaviours: Mapping[str, Any]) -> None:
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(one) for name, one in behaviours.items()
    }
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    running.add_registered_method_handlers(SERVICE, methods)


class Started:
    """A server's process and address."""

    def __init__(self, style: str, handlers: str, threads: int, core: int) -> None:
        told = (style, handlers, str(threads), str(core))
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
    styles: list[str], threads: int, core: int
) -> Iterator[Mapping[tuple[str, str], Started]]:
    """Run a server for each style and kind of handler while the block lasts."""
    running: dict[tuple[str, str], Started] = {}
    try:
        for style in styles:
            for handlers in HANDLERS:
                running[style, handlers] = Started(style, handlers, threads, core)
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
            ask: Any = channel.unary_unary(f"/{SERVICE}/{method}")
            answers.add(ask(request, timeout=60))
    # A map's entries may stand in any order, so the bytes may differ.
    assert len(set(map(len, answers))) == 1, f"the servers answer {method} differently"


def measure(
    styles: list[str], rounds: int, seconds: int, threads: int, core: int
) -> dict[str, Any]:
    """Return the median figures by work, style and kind of handler; servers use *core*."""
    with geolookup.open() as dataset:
        all_works = works(dataset)
    samples: dict[tuple[str, str, str], list[h2load.Figures]] = defaultdict(list)
    with started(styles, threads, core) as running:
        for method, request in all_works.values():
            check([one.address for one in running.values()], method, request)
        order = [(work, *which) for work in all_works for which in running]
        shuffle = random.Random(0).shuffle
        for number in range(rounds):
            shuffle(order)
            for position, (work, style, handlers) in enumerate(order):
                timing.progress(
                    f"round {number + 1} of {rounds}, {position + 1} of {len(order)} ..."
                )
                one = running[style, handlers]
                method, request = all_works[work]
                figures = h2load.load(
                    one.address,
                    f"{SERVICE}/{method}",
                    h2load.framed(request),
                    server=one.process.pid,
                    seconds=seconds,
                )
                samples[work, style, handlers].append(figures)
    timing.progress("")
    return {
        work: {
            style: {
                handlers: vars(h2load.Figures.median(samples[work, style, handlers]))
                for handlers in HANDLERS
            }
            for style in styles
        }
        for work in all_works
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.server_styles", description="Compares styles of gRPC servers."
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each server")
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    parser.add_argument("--threads", type=int, default=Settings().threads, help="of the pool")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        style, handlers, threads, core = chosen.serve
        serve(style, handlers, int(threads), int(core))
        return 0
    if reason := h2load.missing():
        print(reason, file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    styles = [
        style for style in STYLES if "uvloop" not in style or importlib.util.find_spec("uvloop")
    ]
    report = {
        "machine": timing.machine(),
        "server_core": cores[0],
        "load_core": cores[-1],
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "threads": chosen.threads,
        "calls_under_way": h2load.CLIENTS * h2load.CALLS,
    }
    timing.pin(cores[-1])
    report["works"] = works_measured = measure(
        styles, chosen.rounds, chosen.seconds, chosen.threads, cores[0]
    )
    if chosen.json:
        print(json.dumps(report))
        return 0
    print("Machine:", ", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    print(
        f"Servers on core {cores[0]}, h2load on core {cores[-1]} with "
        f"{report['calls_under_way']} calls under way. Medians of {chosen.rounds} turns of "
        f"{chosen.seconds} s; a pool of {chosen.threads} threads.\n"
    )
    print(
        "| work | style | calls/s | of empty | empty, calls/s | server CPU, µs a call | p99, ms |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for work, by_style in works_measured.items():
        for style, by_handlers in by_style.items():
            empty, ours = by_handlers["empty"], by_handlers["geolookup"]
            print(
                f"| {work} | {style} | {ours['rate']:,.0f} | {ours['rate'] / empty['rate']:.2f} "
                f"| {empty['rate']:,.0f} | {ours['cpu']:.0f} | {ours['p99'] / 1e3:.1f} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
