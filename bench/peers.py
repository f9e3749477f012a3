"""How many times faster than what else one could use: ``python -m bench.peers``.

All contenders hold the same data: the countries of one dataset. All are asked for the
same addresses, take turns in one run on one core, and their answers are compared before
their times are. A figure is a median over the rounds; a ratio is a ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geolookup
from bench import timing
from bench.addresses import DRAWS, Addresses, draw
from bench.contenders import CONTENDERS, Call, Contender, GeoLookup
from bench.kernels import UnavailableError
from geolookup.answer.dataset import Dataset


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    kind: str
    """packed, text or single."""
    version: int
    size: int
    """Addresses a call; for single: different addresses, one call each."""

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.kind} IPv{self.version}"


WORKS = (
    Work("packed", 4, 1_000),
    Work("packed", 4, 100_000),
    Work("packed", 6, 1_000),
    Work("packed", 6, 100_000),
    Work("text", 4, 1_000),
    Work("text", 4, 100_000),
    Work("text", 6, 1_000),
    Work("text", 6, 100_000),
    Work("single", 4, 1_000),
    Work("single", 6, 1_000),
)


class Field:
    """The contenders that can take part here, made when they are first asked for."""

    def __init__(self, dataset: Dataset, kinds: Sequence[type[Contender]] = CONTENDERS) -> None:
        self.dataset = dataset
        self.kinds = kinds
        self.missing: dict[str, str] = {}
        """Why the others can't, by name."""

    @cached_property
    def contenders(self) -> list[Contender]:
        """Those that can, geolookup first."""
        here = []
        for kind in self.kinds:
            timing.progress(f"preparing {kind.name} ...")
            try:
                here.append(kind(self.dataset))
            except ImportError:
                self.missing[kind.name] = "not installed"
            except UnavailableError as error:
                self.missing[kind.name] = str(error)
        timing.progress("")
        return here

    def calls(self, work: Work, addresses: Addresses) -> dict[str, Call]:
        """Return what to time, by contender, after holding their answers against geolookup's.

        Raises:
            AssertionError: one answers otherwise; then its time means nothing.
        """
        calls = {}
        expected = [self.dataset.country(text) for text in addresses.texts]
        for contender in self.contenders:
            call: Call | None = getattr(contender, work.kind)(addresses)
            if call is None:
                continue
            calls[contender.name] = call
            if contender.answers:
                codes = contender.codes(call())
                wrong = sum(a != b for a, b in zip(codes, expected, strict=True))
                if wrong:
                    raise AssertionError(f"{contender.name}: {wrong} answers of {work} differ")
        return calls


def run(field: Field, *, rounds: int, least_seconds: float, only: str) -> list[dict[str, Any]]:
    """Time all works over both draws; one row each."""
    rows = []
    todo = [(work, kind) for work in WORKS if only in work.name for kind in DRAWS]
    for number, (work, kind) in enumerate(todo, 1):
        timing.progress(f"{number}/{len(todo)} {work.name}, {work.size:,} {kind} ...")
        addresses = draw(field.dataset, work.version, kind, work.size)
        times = timing.alternate(
            field.calls(work, addresses), rounds=rounds, least_seconds=least_seconds
        )
        rows.append(
            {
                "work": work.name,
                "draw": kind,
                "size": work.size,
                "nanoseconds_per_address": {
                    name: {
                        "median": one.median / work.size,
                        "lowest": one.lowest / work.size,
                        "highest": one.highest / work.size,
                    }
                    for name, one in times.items()
                },
                "ratio": {
                    name: one.median / times[GeoLookup.name].median for name, one in times.items()
                },
            }
        )
    timing.progress("")
    return rows


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return rows as a Markdown table: geolookup's time, and how often it fits into the others'."""
    head = ["work", "addresses", "a call", "geolookup", *names]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for row in rows:
        times = row["nanoseconds_per_address"]
        lines.append(
            [
                row["work"],
                row["draw"],
                f"{row['size']:,}" if not row["work"].startswith("single") else "1",
                f"{times[GeoLookup.name]['median']:.1f} ns",
                *(
                    f"{row['ratio'][name]:.1f}x ({times[name]['median']:,.1f} ns)"
                    if name in times
                    else ""
                    for name in names
                ),
            ]
        )
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells, one of them the rule below the head, as a Markdown table."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--dataset", type=Path, help="dataset file (default: the embedded one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw bars: .svg or .png")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each contender")
    parser.add_argument("--seconds", type=float, default=0.02, help="least time of one timing")
    parser.add_argument("--core", type=int, help="core to run on (default: the last)")
    parser.add_argument("--only", default="", metavar="TEXT", help="works with TEXT in their name")
    parser.add_argument("--quick", action="store_true", help="see that it works: times mean little")
    chosen = parser.parse_args(arguments)
    if chosen.plot is not None and chosen.plot.suffix.lower() not in (".svg", ".png"):
        parser.error("--plot: the file's name ends in .svg or .png")
    rounds, seconds = (1, 0.0) if chosen.quick else (chosen.rounds, chosen.seconds)
    core = timing.pin(chosen.core)
    with geolookup.open(chosen.dataset) as dataset:
        field = Field(dataset)
        names = [contender.name for contender in field.contenders]
        rows = run(field, rounds=rounds, least_seconds=seconds, only=chosen.only)
        report: dict[str, Any] = {
            "machine": timing.machine(),
            "core": core,
            "dataset": dataset.id,
            "rounds": rounds,
            "seconds": seconds,
            "versions": {one.name: one.version() for one in field.contenders},
            "missing": field.missing,
            "rows": rows,
        }
    if chosen.plot is not None:
        from bench.plot import plot  # noqa: PLC0415 - needs matplotlib

        plot(report, chosen.plot)
    if chosen.json:
        print(json.dumps(report))
        return 0
    described = ", ".join(f"{key} {value}" for key, value in timing.machine().items())
    print(f"Machine: {described}; core {core}. Dataset {report['dataset'][:16]}.")
    print(f"Medians of {rounds} rounds; Nx means geolookup is N times as fast.\n")
    print(table(rows, names[1:]))
    print()
    for one in field.contenders:
        print(f"- {one.name} {one.version()}".rstrip())
    for name, reason in field.missing.items():
        print(f"- {name}: left out, {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
