"""Whether the core is as fast and as small as it set out to be: ``python -m bench.targets``.

Prints each target with what was measured and whether it is met; exits with 1 where one is not.
Addresses are drawn as `bench.addresses` says, (a) assigned and (b) boundary. A ratio is one of
medians of what took turns in one run; what stands in different processes takes turns as well.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geolookup
from bench import timing
from bench.addresses import DRAWS, draw
from bench.contenders import (
    Contender,
    GeoLookup,
    LibMaxMindDB,
    MaxMindDB,
    MaxMindDBRust,
    MemoryLoop,
)
from bench.larger import larger_file
from bench.peers import Field, Work, markdown
from bench.timing import Timing
from geolookup import _core
from geolookup.answer.dataset import Dataset

ROOT = Path(__file__).resolve().parent.parent
PEERS: tuple[type[Contender], ...] = (GeoLookup, MaxMindDB, MaxMindDBRust, LibMaxMindDB, MemoryLoop)
LETTERS = dict(zip(DRAWS, "ab", strict=True))
REGION_SET = "EU"
MIB = 2**20

OPEN = """
import gc, time, geolookup, geolookup.answer.dataset
begin = time.perf_counter()
opened = geolookup.open()
print((time.perf_counter() - begin) * 1e3)
"""
"""Imports are not in it: a service has done them long before it opens a dataset."""

SHARE = """
import os, sys, geolookup, geolookup.answer.dataset
def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]
before = private()
opened = geolookup.open()
for roster in (bytes(range(256)) * 16, bytes(range(255, -1, -1)) * 16):
    opened.classify(ipv4=roster).counts()
    opened.classify(ipv6=roster, region_set="EU").serialised()
print("open", flush=True)
sys.stdin.readline()  # until the other one is as far
after = private()
print(*(b - a for a, b in zip(before, after)), flush=True)
sys.stdin.readline()
"""
"""Prints by how many KiB opening and using a dataset made the process grow: what is its own
(USS), and that with its part of what it shares (PSS)."""


@dataclass(frozen=True)
class Row:
    """One target, measured."""

    work: str
    draw: str
    """a, b, or nothing where no addresses are drawn."""
    target: str
    measured: str
    value: float
    met: bool


def _least(work: str, kind: str, what: str, least: float, value: float, text: str = "") -> Row:
    """Return the row of a ratio that may not be less."""
    measured = text or f"{value:.1f}x"
    return Row(
        work, LETTERS.get(kind, ""), f">= {least:g}x {what}", measured, value, value >= least
    )


def _most(work: str, kind: str, target: str, most: float, value: float, text: str) -> Row:
    """Return the row of a figure that may not be more."""
    return Row(work, LETTERS.get(kind, ""), target, text, value, value <= most)


class Measuring:
    """Makes the rows, one method for each part of the table."""

    def __init__(self, dataset: Dataset, *, rounds: int, least_seconds: float, runs: int) -> None:
        self.dataset = dataset
        self.field = Field(dataset, PEERS)
        self.rounds = rounds
        self.least_seconds = least_seconds
        self.runs = runs

    def rows(self) -> Iterator[Row]:
        """Yield all rows, in the order of the table."""
        yield from self.packed()
        yield from self.text()
        yield from self.verdicts()
        yield from self.threads()
        yield from self.size()
        yield from self.opening()
        yield from self.memory()

    def times(self, calls: dict[str, Callable[[], object]]) -> dict[str, Timing]:
        """Time the calls in turns."""
        return timing.alternate(calls, rounds=self.rounds, least_seconds=self.least_seconds)

    def peers(self, kind: str, version: int, size: int, draw_kind: str) -> dict[str, float]:
        """Return nanoseconds an address of the contenders, by name."""
        work = Work(kind, version, size)
        timing.progress(f"{work.name} x {size:,} {draw_kind} ...")
        addresses = draw(self.dataset, version, draw_kind, size)
        times = self.times(self.field.calls(work, addresses))
        return {name: one.median / size for name, one in times.items()}

    def packed(self) -> Iterator[Row]:
        """Measure IPv4 and IPv6 in bulk, against libmaxminddb and the memory's own limit."""
        many = {
            (version, kind): self.peers("packed", version, 100_000, kind)
            for version in (4, 6)
            for kind in DRAWS
        }
        ours = GeoLookup.name
        for version, least in ((4, 40), (6, 15)):
            for kind in DRAWS:
                times = many[version, kind]
                if LibMaxMindDB.name in times:
                    ratio = times[LibMaxMindDB.name] / times[ours]
                    work = f"packed IPv{version}, 100,000 a call"
                    yield _least(work, kind, "libmaxminddb from C", least, ratio)
        for kind in DRAWS:
            times = many[4, kind]
            if MemoryLoop.name not in times:
                continue
            bare = times[MemoryLoop.name]
            yield _least(
                "packed IPv4, 100,000 a call",
                kind,
                "the bare memory loop",
                0.8,
                bare / times[ours],
                f"{bare / times[ours]:.2f}x ({times[ours]:.2f} ns, the loop {bare:.2f})",
            )
            few = self.peers("packed", 4, 1_000, kind)[ours]
            # The machine's measure is the loop where the memory shows, as in the row above.
            machine = many[4, "assigned"][MemoryLoop.name]
            yield _most(
                "packed IPv4, 1,000 a call from Python",
                kind,
                "<= 8 ns where the bare loop takes 4",
                2,
                few / machine,
                f"{few:.2f} ns where it takes {machine:.2f}",
            )
        for kind in DRAWS:
            four, six = many[4, kind][ours], many[6, kind][ours]
            yield _most(
                "packed IPv6, 100,000 a call",
                kind,
                "<= 3x the time of IPv4",
                3,
                six / four,
                f"{six / four:.2f}x ({six:.2f} ns)",
            )

    def text(self) -> Iterator[Row]:
        """Measure lists of str, and single str."""
        wanted = (
            ("text", 4, "text IPv4, 1,000 a call", ((MaxMindDBRust, 12), (MaxMindDB, 35))),
            ("text", 6, "text IPv6, 1,000 a call", ((MaxMindDBRust, 8),)),
            ("single", 4, "country(str), IPv4", ((MaxMindDB, 8), (MaxMindDBRust, 4))),
        )
        for kind, version, work, peers in wanted:
            for draw_kind in DRAWS:
                times = self.peers(kind, version, 1_000, draw_kind)
                for peer, least in peers:
                    if peer.name in times:
                        ratio = times[peer.name] / times[GeoLookup.name]
                        text = f"{ratio:.1f}x ({times[GeoLookup.name]:.1f} ns)"
                        yield _least(work, draw_kind, peer.name, least, ratio, text)

    def verdicts(self) -> Iterator[Row]:
        """Make Roaring bitmaps by verdict instead of the column of countries."""
        for kind in DRAWS:
            packed = draw(self.dataset, 4, kind, 1_000).packed
            times = self.times(
                {
                    "plain": _classifying(self.dataset, 4, packed),
                    "verdicts": _deciding(self.dataset, packed),
                }
            )
            plain, verdicts = times["plain"].median, times["verdicts"].median
            yield _most(
                f"verdicts for {REGION_SET} as Roaring bitmaps, 1,000 packed IPv4",
                kind,
                "<= 1.5x plain classification",
                1.5,
                verdicts / plain,
                f"{verdicts / plain:.2f}x ({verdicts / 1e3:.2f} us, plain {plain / 1e3:.2f})",
            )

    def threads(self) -> Iterator[Row]:
        """Let two threads on two cores work against one."""
        before = os.sched_getaffinity(0)
        everywhere = set(range(os.cpu_count() or 1))
        if len(everywhere) < 2:
            return
        os.sched_setaffinity(0, everywhere)  # the threads, which are new, inherit it
        try:
            with ThreadPoolExecutor(2) as pool:
                for kind in DRAWS:
                    times = self.times(_in_threads(pool, self.dataset, kind))
                    gain = 2 * times["one"].median / times["two"].median
                    work = "packed IPv4, 100,000 a call, two threads on two cores"
                    yield _least(work, kind, "one thread", 1.9, gain, f"{gain:.2f}x")
        finally:
            os.sched_setaffinity(0, before)

    def size(self) -> Iterator[Row]:
        """Measure with ten times the intervals."""
        timing.progress("making ten times the intervals ...")
        path = larger_file(self.dataset, 10)
        with geolookup.open(path) as larger:
            for version in (4, 6):
                for kind in DRAWS:
                    for size in (1_000, 100_000):
                        calls: dict[str, Callable[[], object]] = {}
                        for name, dataset in (("one", self.dataset), ("ten", larger)):
                            packed = draw(dataset, version, kind, size).packed
                            calls[name] = _classifying(dataset, version, packed)
                        times = self.times(calls)
                        one, ten = times["one"].median / size, times["ten"].median / size
                        yield _most(
                            f"10 times the intervals, packed IPv{version}, {size:,} a call",
                            kind,
                            "<= 1.3x the time",
                            1.3,
                            ten / one,
                            f"{ten / one:.2f}x ({ten:.2f} ns, before {one:.2f})",
                        )
            index = larger._table.index_size / MIB
            mapped = path.stat().st_size / MIB
            yield _most(
                "10 times the intervals, memory beside the mapped file",
                "",
                "<= 100 MiB",
                100,
                index,
                f"{index:.1f} MiB (the file: {mapped:.1f})",
            )

    def opening(self) -> Iterator[Row]:
        """Open the embedded dataset in fresh processes."""
        times = []
        for run in range(self.runs + 1):
            timing.progress(f"opening, {run} of {self.runs} ...")
            done = subprocess.run(  # noqa: S603 - this interpreter, the code above
                [sys.executable, "-c", OPEN], cwd=ROOT, capture_output=True, text=True, check=True
            )
            if run:  # the first one fills the page cache
                times.append(float(done.stdout))
        median = statistics.median(times)
        yield _most("open", "", "<= 30 ms", 30, median, f"{median:.1f} ms")

    def memory(self) -> Iterator[Row]:
        """Let two processes open and use the same dataset."""
        pair = [
            subprocess.Popen(  # noqa: S603 - this interpreter, the code above
                [sys.executable, "-c", SHARE],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        try:
            for process in pair:
                _answer(process)
            sizes = []
            for process in pair:
                _ask(process)
                sizes.append([int(word) / 1024 for word in _answer(process).split()])
        finally:
            for process in pair:
                process.communicate("\n")
        private = max(own for own, _ in sizes)
        share = max(part for _, part in sizes)
        yield _most(
            "memory private to each of two processes, for an open dataset",
            "",
            "<= 8 MiB (USS)",
            8,
            private,
            f"{private:.1f} MiB (with its half of what is shared, PSS: {share:.1f})",
        )


def _classifying(dataset: Dataset, version: int, packed: bytes) -> Callable[[], object]:
    classify, name = dataset.classify, f"ipv{version}"
    return lambda: classify(**{name: packed}).countries.tobytes()  # noqa: PLW0108 - it is timed


def _deciding(dataset: Dataset, packed: bytes) -> Callable[[], object]:
    classify = dataset.classify
    return lambda: classify(ipv4=packed, region_set=REGION_SET).serialised()


def _in_threads(
    pool: ThreadPoolExecutor, dataset: Dataset, kind: str
) -> dict[str, Callable[[], object]]:
    packed = draw(dataset, 4, kind, 100_000).packed
    classify = _classifying(dataset, 4, packed)

    def work() -> None:
        # Long enough that the time in which an idle core wakes up is none of it.
        for _ in range(200):
            classify()

    def two() -> None:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result()

    return {"one": lambda: pool.submit(work).result(), "two": two}


def _ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def table(rows: list[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [["work", "addresses", "target", "measured", "met"], ["---"] * 5]
    lines += [
        [row.work, row.draw, row.target, row.measured, "yes" if row.met else "NO"] for row in rows
    ]
    return markdown(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.targets", description="Holds the core against its targets."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=31, help="timings of each contender")
    parser.add_argument("--seconds", type=float, default=0.02, help="least time of one timing")
    parser.add_argument("--runs", type=int, default=21, help="processes that open a dataset")
    parser.add_argument(
        "--isa", choices=_core.isa_paths(), help="code path (default: the widest there is)"
    )
    parser.add_argument("--core", type=int, help="core to run on (default: the last)")
    parser.add_argument("--quick", action="store_true", help="see that it works: times mean little")
    chosen = parser.parse_args(arguments)
    rounds, seconds, runs = (
        (1, 0.0, 1) if chosen.quick else (chosen.rounds, chosen.seconds, chosen.runs)
    )
    core = timing.pin(chosen.core)
    if chosen.isa:  # which only tests and benchmarks choose, so `open` has no argument for it
        _core.Table = functools.partial(_core.Table, isa=chosen.isa)  # type: ignore[misc,assignment]
    with geolookup.open() as dataset:
        measuring = Measuring(dataset, rounds=rounds, least_seconds=seconds, runs=runs)
        rows = list(measuring.rows())
        missing = measuring.field.missing
        report: dict[str, Any] = {
            "machine": timing.machine(),
            "core": core,
            "isa": chosen.isa or _core.isa_paths()[-1],
            "dataset": dataset.id,
            "rounds": rounds,
            "missing": missing,
            "rows": [asdict(row) for row in rows],
        }
    timing.progress("")
    if chosen.json:
        print(json.dumps(report))
    else:
        described = ", ".join(f"{key} {value}" for key, value in timing.machine().items())
        print(
            f"Machine: {described}; core {core}, {report['isa']}. Dataset {report['dataset'][:16]}."
        )
        print(f"Medians of {rounds} rounds; (a) assigned and (b) boundary addresses.\n")
        print(table(rows))
        for name, reason in missing.items():
            print(f"- not measured against {name}: {reason}")
        print(f"\n{sum(row.met for row in rows)} of {len(rows)} met.")
    return 0 if all(row.met for row in rows) and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
