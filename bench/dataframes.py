"""Columns in and out against their targets: ``python -m bench.dataframes``.

Measured in one run on one core, what is compared taking turns, medians over the rounds: columns of
pyarrow, polars and pandas against a list of str; packed and integer columns against packed bytes;
dictionaries against plain columns; polars' expression and DuckDB's function against what these
engines do with the Parquet export; and a Parquet file annotated, against pyarrow's own reading
and writing of the same columns. A service on the first core answers the same addresses over gRPC.

Exit code 1: a target is missed. ``--plot`` draws the addresses a second by each door. Takes about
three minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet as pq

import geolookup
import geolookup.duckdb
import geolookup.polars
from bench import timing
from bench.addresses import SEED, draw
from bench.client_transports import service
from bench.peers import markdown
from geolookup.answer.dataset import Dataset
from geolookup.client import Client
from geolookup.export import export

ROOT = Path(__file__).resolve().parent.parent
REGION_SET = "CN"
DICTIONARY = 10_000
"""Different values in the dictionary-encoded columns."""
GROUP = 1_000_000
"""Rows in a row group of the Parquet file."""

IPV4_IN_POLARS = pl.sum_horizontal(
    pl.col("ip").str.split_exact(".", 3).struct.field(f"field_{at}").cast(pl.Int64)
    * 256 ** (3 - at)
    for at in range(4)
)
IPV4_IN_DUCKDB = " + ".join(
    f"split_part(ip, '.', {at + 1})::BIGINT * {256 ** (3 - at)}" for at in range(4)
)

BASELINE = """
import sys, time
import pyarrow as pa, pyarrow.parquet as pq
source, answered, out = sys.argv[1:]
file, more = pq.ParquetFile(source), pq.ParquetFile(answered)
names = more.schema_arrow.names[len(file.schema_arrow.names):]
schema = more.schema_arrow
answers = [more.read_row_group(at, columns=names) for at in range(more.num_row_groups)]
began = time.process_time()
with pq.ParquetWriter(out, schema, compression="snappy") as writer:
    for at in range(file.num_row_groups):
        batches = file.iter_batches(batch_size=65_536, row_groups=[at])
        rows = pa.concat_tables([pa.Table.from_batches([one]) for one in batches])
        for name in names:
            rows = rows.append_column(name, answers[at][name].cast(schema.field(name).type))
        writer.write_table(rows, row_group_size=rows.num_rows)
print(time.process_time() - began)
"""
"""Prints the processor time in which pyarrow reads a file and writes it with columns that are
there already."""

ANNOTATED = """
import sys, time
import pyarrow.parquet, geolookup.cli.annotate
from geolookup.cli import command
source, few, out, *options = sys.argv[1:]
command.main(["annotate", few, "-o", out, *options], standalone_mode=False)
began = time.process_time()
command.main(["annotate", source, "-o", out, *options], standalone_mode=False)
spent = time.process_time() - began
# Not ru_maxrss, which begins with what the parent had.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(spent, int(peak) // 1024)
"""
"""Prints the processor time of the command, which has annotated a file of few rows before, and the
most memory that its process had, in MiB. To start takes a quarter of a second, once."""


@dataclass(frozen=True)
class Row:
    """One target, measured."""

    work: str
    target: str
    measured: str
    value: float
    met: bool


def most(work: str, limit: float, against: str, value: float) -> Row:
    """Return the row of a ratio of times that may not be more."""
    return Row(work, f"<= {limit:g}x {against}", f"{value:.2f}x", value, value <= limit)


def least(work: str, limit: float, against: str, value: float) -> Row:
    """Return the row of a ratio of speeds that may not be less."""
    return Row(work, f">= {limit:g}x {against}", f"{value:.1f}x", value, value >= limit)


class Measuring:
    """Makes the rows, and the addresses a second by each door."""

    def __init__(self, dataset: Dataset, size: int, rounds: int, seconds: float) -> None:
        self.dataset = dataset
        self.size = size
        self.rounds = rounds
        self.seconds = seconds
        self.doors: dict[str, float] = {}
        drawn = draw(dataset, 4, "assigned", size)
        self.packed = drawn.packed
        self.texts = drawn.texts
        self.arrow = pa.array(self.texts)

    def times(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Return medians, in nanoseconds an address, of calls that take turns."""
        gc.collect()
        found = timing.alternate(calls, rounds=self.rounds, least_seconds=self.seconds)
        return {name: one.median / self.size for name, one in found.items()}

    def classified(self, column: Any) -> Callable[[], object]:
        """Return what looks up a column of any library."""
        classify = self.dataset.classify
        return lambda: classify(column).countries.tobytes()  # noqa: PLW0108 - it is timed

    def rows(self) -> Iterator[Row]:
        """Yield all rows but that of whole files."""
        yield from self.text()
        yield from self.numbers()
        yield from self.dictionaries()
        yield self.polars()
        yield self.duckdb()

    def text(self) -> Iterator[Row]:
        """Measure columns of text."""
        columns = {
            "a list": self.texts,
            "pyarrow": self.arrow,
            "polars": pl.Series(self.texts),
            "pandas": pd.Series(self.texts, dtype="str"),
        }
        times = self.times({name: self.classified(one) for name, one in columns.items()})
        for name in list(columns)[1:]:
            ratio = times[name] / times["a list"]
            yield most(f"{name} column of text", 1.0, "a list of str", ratio)
        self.doors["list of str"] = times["a list"]
        self.doors["Arrow, text"] = times["pyarrow"]
        self.doors["pandas, text"] = times["pandas"]

    def numbers(self) -> Iterator[Row]:
        """Measure columns of packed addresses and integers."""
        network = np.frombuffer(self.packed, ">u4")
        fixed = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(4), self.size, [None, pa.py_buffer(self.packed)]
        )
        classify, packed = self.dataset.classify, self.packed
        times = self.times(
            {
                "bytes": lambda: classify(ipv4=packed).countries.tobytes(),  # noqa: PLW0108
                "fixed_size_binary(4)": self.classified(fixed),
                "uint32": self.classified(pa.array(network.astype("uint32"))),
            }
        )
        for name in ("fixed_size_binary(4)", "uint32"):
            yield most(f"{name} column", 1.2, "classify(ipv4=bytes)", times[name] / times["bytes"])
        self.doors["packed bytes"] = times["bytes"]
        self.doors["Arrow, uint32"] = times["uint32"]

    def dictionaries(self) -> Iterator[Row]:
        """Measure columns whose values repeat."""
        some = random.Random(SEED).choices(self.texts[:DICTIONARY], k=self.size)
        plain = pa.array(some)
        frame = pl.Series(some)
        times = self.times(
            {
                "plain": self.classified(plain),
                "dictionary": self.classified(plain.dictionary_encode()),
                "polars": self.classified(frame),
                "Categorical": self.classified(frame.cast(pl.Categorical)),
            }
        )
        against = "the plain column"
        ratio = times["dictionary"] / times["plain"]
        yield most(f"dictionary column, {DICTIONARY:,} values", 0.2, against, ratio)
        ratio = times["Categorical"] / times["polars"]
        yield most(f"polars Categorical, {DICTIONARY:,} values", 0.7, against, ratio)

    @cached_property
    def exported(self) -> Any:
        """Return the IPv4 ranges of the Parquet export."""
        with tempfile.TemporaryFile() as file:
            export(self.dataset, file, "parquet", disputed="primary")
            file.seek(0)
            table = pq.read_table(file, columns=["family", "first_ipv4", "code"])
        return table.filter(pc.equal(table["family"], 4)).drop_columns(["family"])

    def polars(self) -> Row:
        """Measure polars from text to country."""
        frame = pl.DataFrame({"ip": self.texts}).with_row_index("at")
        exported = pl.DataFrame(self.exported).set_sorted("first_ipv4")
        ip: Any = pl.col("ip")
        ours = ip.geo.country(dataset=self.dataset).alias("code")

        def joined() -> Any:
            integers = frame.with_columns(ip4=IPV4_IN_POLARS).sort("ip4")
            found = integers.join_asof(exported, left_on="ip4", right_on="first_ipv4")
            return found.sort("at")["code"]

        calls = {"expression": lambda: frame.with_columns(ours)["code"], "join_asof": joined}
        same(calls["expression"]().cast(pl.String).to_list(), joined().cast(pl.String).to_list())
        times = self.times(calls)
        self.doors["polars expression"] = times["expression"]
        ratio = times["join_asof"] / times["expression"]
        return least("polars expression, text to country", 10, "the speed of join_asof", ratio)

    def duckdb(self) -> Row:
        """Measure DuckDB from text to country."""
        integer = IPV4_IN_DUCKDB
        queries = {
            "function": "SELECT n, geo_country(ip) AS code FROM joins",
            "ASOF JOIN": f"SELECT n, code FROM (SELECT n, {integer} AS ip FROM joins)"  # noqa: S608
            " ASOF JOIN ranges ON ip >= first_ipv4",
        }
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            geolookup.duckdb.register(connection, dataset=self.dataset)
            connection.register("given", pa.table({"n": range(self.size), "ip": self.arrow}))
            connection.register("exported", self.exported)
            connection.execute("CREATE TABLE joins AS FROM given")
            connection.execute(
                "CREATE TABLE ranges AS SELECT first_ipv4, code::VARCHAR AS code FROM exported"
            )
            answers = [
                connection.execute(f"{query} ORDER BY n").fetchall() for query in queries.values()
            ]
            same(*answers)

            def made(query: str) -> Callable[[], object]:
                counted = f"SELECT code, count(*) FROM ({query}) GROUP BY code"  # noqa: S608
                return lambda: connection.execute(counted).fetchall()

            times = self.times({name: made(query) for name, query in queries.items()})
        self.doors["DuckDB function"] = times["function"]
        ratio = times["ASOF JOIN"] / times["function"]
        return least("DuckDB function, text to country", 6, "the speed of ASOF JOIN", ratio)

    def services(self, core: int) -> None:
        """Measure a service on another core."""
        with service(core) as target, Client(target) as client:

            def packed() -> bytes:
                return client.classify(ipv4=self.packed).countries.tobytes()

            def text() -> bytes:
                return client.classify(self.texts).countries.tobytes()

            times = self.times({"packed": packed, "text": text})
        self.doors["gRPC, packed"] = times["packed"]
        self.doors["gRPC, list of str"] = times["text"]

    def file(self, rows: int) -> Iterator[Row]:
        """Measure a Parquet file of so many rows."""
        with tempfile.TemporaryDirectory() as folder:
            source, few, out, copy = (
                str(Path(folder, name)) for name in ("in", "few", "out", "copy")
            )
            self.write(source, rows)
            self.write(few, 1)
            arguments = (source, few, out, "--region-set", REGION_SET)
            own, peak, pyarrow = [], [], []
            for number in range(max(1, 3 * self.rounds // 4)):
                timing.progress(f"Parquet, {rows:,} rows, {number + 1} ...")
                seconds, memory = ran(ANNOTATED, *arguments)
                own.append(seconds)
                peak.append(memory)
                pyarrow += ran(BASELINE, source, out, copy)
        spent, least_spent = statistics.median(own), statistics.median(pyarrow)
        self.doors["Parquet file, read and written"] = spent / rows * 1e9
        beyond = (spent - least_spent) / rows * 1e9
        work = f"Parquet annotated, {rows:,} rows"
        text = f"{beyond:.0f} ns ({spent:.2f} s, pyarrow alone {least_spent:.2f})"
        target = "<= 50 ns a row beyond pyarrow's read and write (20 M rows a second)"
        yield Row(work, target, text, beyond, beyond <= 50)
        memory = max(peak)
        yield Row(f"{work}, memory", "<= 400 MiB", f"{memory:.0f} MiB", memory, memory <= 400)

    def write(self, path: str, rows: int) -> None:
        """Write a file of joins: address, user, time and kind."""
        rng = np.random.default_rng(1)
        writer = None
        for begin in range(0, rows, GROUP):
            n = min(GROUP, rows - begin)
            table = pa.table(
                {
                    "ip": self.arrow.take(pa.array(rng.integers(0, self.size, n))),
                    "user": rng.integers(0, 1_000_000, n),
                    "time": pa.array(np.arange(begin, begin + n)).cast(pa.timestamp("ms")),
                    "kind": pa.array(rng.integers(0, 3, n)).cast(pa.string()),
                }
            )
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=n)
        assert writer is not None
        writer.close()


def same(ours: list[Any], theirs: list[Any]) -> None:
    """Check that another way gives our answers, so that its time may be compared."""
    wrong = sum(a != b for a, b in zip(ours, theirs, strict=True))
    if wrong:
        raise RuntimeError(f"{wrong:,} of {len(ours):,} answers differ")


def ran(code: str, *arguments: str) -> list[float]:
    """Run code in a process of its own and return the numbers that it prints."""
    done = subprocess.run(  # noqa: S603 - this interpreter, the code above
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def plot(doors: dict[str, float], caption: str, path: Path) -> None:
    """Draw addresses a second by door, as PNG or SVG by the path's ending."""
    from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415

    from geolookup.pictures import charts  # noqa: PLC0415

    names = sorted(doors, key=doors.__getitem__)
    inches = (8, 0.9 + 0.26 * len(names))
    with charts.saved(path, path.suffix.lower().removeprefix("."), inches) as figure:
        charts.add_title(figure, "Addresses a second, by door", 10)
        axis = figure.subplots()
        colours = [charts.YELLOW if name.startswith("gRPC") else charts.BLUE for name in names]
        axis.barh(names, [doors[name] for name in names], height=0.7, color=colours)
        for place, name in enumerate(names):
            axis.annotate(
                f"{doors[name] / 1e6:,.1f} M",
                (doors[name], place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=charts.INK,
            )
        charts.frame(
            axis, "One core; gRPC: the client's core, and another one for the service", grid="x"
        )
        axis.set_xscale("log")
        axis.set_xlim(1e6, 2 * max(doors.values()))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:,.0f} M"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(labelsize=7, colors=charts.INK)
        figure.supxlabel(caption, x=0.99, ha="right", fontsize=6, color=charts.FAINT)


def door(text: str) -> tuple[str, float]:
    """Return name and addresses a second of an argument."""
    name, _, rate = text.rpartition("=")
    return name, float(rate.replace(",", ""))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.dataframes", description="Holds columns against their targets."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", type=int, default=1_000_000, help="addresses in a column")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the Parquet file; 0: none")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each contender")
    parser.add_argument("--seconds", type=float, default=0.02, help="least time of one timing")
    parser.add_argument("--core", type=int, help="core to run on (default: the last)")
    parser.add_argument("--plot", type=Path, help="draw the addresses a second by door")
    parser.add_argument(
        "--door",
        type=door,
        action="append",
        default=[],
        metavar="NAME=RATE",
        help="put into the picture what was measured elsewhere, in addresses a second",
    )
    parser.add_argument("--quick", action="store_true", help="see that it works: times mean little")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.size, chosen.rows, chosen.rounds, chosen.seconds = 20_000, 20_000, 1, 0.0
    cores = sorted(os.sched_getaffinity(0))
    core = timing.pin(chosen.core)
    pa.set_cpu_count(1)
    with geolookup.open() as dataset:
        timing.progress("addresses ...")
        measuring = Measuring(dataset, chosen.size, chosen.rounds, chosen.seconds)
        rows = list(measuring.rows())
        if chosen.rows:
            rows += measuring.file(chosen.rows)
        measuring.services(cores[0])
    timing.progress("")
    machine = timing.machine()
    libraries = {one.__name__: one.__version__ for one in (pa, pl, pd, duckdb, np)}
    doors = {name: 1e9 / time for name, time in measuring.doors.items()} | dict(chosen.door)
    if chosen.plot:
        caption = f"{machine['processor']}, {machine['system']}, {machine['date']}; " + ", ".join(
            f"{name} {version}" for name, version in libraries.items() if name != "numpy"
        )
        plot(doors, caption, chosen.plot)
    if chosen.json:
        report = {
            "machine": machine,
            "core": core,
            "libraries": libraries,
            "dataset": dataset.id,
            "rounds": chosen.rounds,
            "size": chosen.size,
            "rows": [asdict(row) for row in rows],
            "doors": doors,
        }
        print(json.dumps(report))
    else:
        described = ", ".join(f"{key} {value}" for key, value in (machine | libraries).items())
        print(f"Machine: {described}; core {core}. Dataset {dataset.id[:16]}.")
        print(f"Medians of {chosen.rounds} rounds, {chosen.size:,} IPv4 addresses.\n")
        cells = [[row.work, row.target, row.measured, "yes" if row.met else "NO"] for row in rows]
        print(markdown([["work", "target", "measured", "met"], ["---"] * 4, *cells]))
        print()
        rates = [[name, f"{doors[name] / 1e6:,.1f} M"] for name in sorted(doors, key=doors.get)]
        print(markdown([["door", "addresses a second"], ["---", "---:"], *rates[::-1]]))
        print(f"\n{sum(row.met for row in rows)} of {len(rows)} met.")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
