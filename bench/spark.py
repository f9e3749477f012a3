"""What geolookup costs in Spark: ``python -m bench.spark --rows 20000000``.

Needs the extras `spark` and `parquet`, Java, and 20 bytes of disk per row. Reads a history of IPv4
texts (assigned addresses, a million different ones) from zstd Parquet with `local[2]`, adds a
column and throws the rows away. Contenders take turns; medians. The one to compare with passes
the texts through Python and returns them as they are:

- `read`: no column, and no Python
- `identity`: the texts through Python and back
- `verdict`, `classify`: `geolookup.spark`'s
- `constants`: a struct like that of `classify`, in which all rows are the same
- `join`: a broadcast join with our Parquet export, which needs no Python; docs/dataframes.md

Seconds are those on the clock and those of the processors, of Java and its Python workers, which
bear a busy machine better. Memory is the largest resident set of Java and of any worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

import geolookup
import geolookup.spark
from bench import addresses, timing
from geolookup.answer.dataset import Dataset
from geolookup.export import parquet
from geolookup.export.rows import Rows

REGION_SET = "CN"
FIELDS = ["country", "status", "verdict", "reason", "region", "networks"]
DIFFERENT = 1_000_000
CHECKED = 100_000
ROWS_IN_GROUP = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
IPV4_OF_TEXT = " + ".join(
    f"try_cast(get(split(ip, '[.]'), {at}) AS bigint) * {256 ** (3 - at)}" for at in range(4)
)

Contender = Callable[[Any], Any]


def write_history(path: Path, dataset: Dataset, rows: int) -> None:
    """Write rows of an id and an address."""
    texts = pa.array(addresses.draw(dataset, 4, "assigned", min(rows, DIFFERENT)).texts)
    rng = np.random.default_rng(addresses.SEED)
    schema = pa.schema([("id", pa.int64()), ("ip", pa.string())])
    # Without a dictionary, as of a column that hardly repeats a value.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, rows, ROWS_IN_GROUP):
            ids = np.arange(first, min(first + ROWS_IN_GROUP, rows))
            chosen = texts.take(pa.array(rng.integers(0, len(texts), len(ids))))
            writer.write_table(pa.table([pa.array(ids), chosen], schema=schema))


def export(path: Path, dataset: Dataset) -> None:
    with path.open("wb") as file:
        parquet.write(Rows(dataset, disputed="primary"), file)


def same(texts: pa.Array) -> pa.Array:
    return texts


def constants(texts: pa.Array) -> pa.Array:
    values = ("CN", "ASSIGNED", "INSIDE", "DECIDED", None, "")
    columns = [pa.repeat(pa.scalar(value, pa.string()), len(texts)) for value in values]
    return pa.StructArray.from_arrays(columns, names=FIELDS)


def contenders(spark: SparkSession, ranges: Path) -> dict[str, Contender]:
    by_block = (
        spark.read.parquet(str(ranges))
        .where("family = 4")
        .selectExpr(
            *("first_ipv4", "last_ipv4", "code", "status"),
            "explode(sequence(first_ipv4 >> 16, last_ipv4 >> 16)) AS block",
        )
    )
    identity = f.arrow_udf(same, "string")
    struct = f.arrow_udf(constants, ", ".join(f"{name} string" for name in FIELDS))

    def join(frame: Any) -> Any:
        numbered = frame.withColumn("ipv4", f.expr(IPV4_OF_TEXT))
        within = "block = ipv4 >> 16 AND ipv4 BETWEEN first_ipv4 AND last_ipv4"
        joined = numbered.join(f.broadcast(by_block), f.expr(within), "left")
        return joined.select("id", "ip", "code", "status")

    return {
        "read": lambda frame: frame,
        "identity": lambda frame: frame.withColumn("same", identity("ip")),
        "constants": lambda frame: frame.withColumn("geo", struct("ip")),
        "verdict": lambda frame: geolookup.spark.verdict(frame, "ip", REGION_SET),
        "classify": lambda frame: geolookup.spark.classify(frame, "ip", REGION_SET),
        "join": join,
    }


def check(spark: SparkSession, history: Path, join: Contender) -> None:
    """Hold the join's answers against geolookup's."""
    frame = spark.read.parquet(str(history)).limit(CHECKED)
    both = join(frame).alias("a").join(geolookup.spark.classify(frame, "ip").alias("b"), "id")
    wrong = both.where("NOT (code <=> geo.country AND status <=> geo.status)").count()
    assert not wrong, f"the join answers {wrong} of {CHECKED} rows otherwise"


# --- processes


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float
    processor: float
    java_mb: float
    worker_mb: float


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def processor_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # its own and those of its ended children
    return ticks / TICKS


def peak_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def forget_peaks(pids: list[int]) -> None:
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def measure(java: int, job: Callable[[], object]) -> Cost:
    forget_peaks(descendants(java))
    before = processor_seconds(descendants(java))
    begin = time.perf_counter()
    job()
    seconds = time.perf_counter() - begin
    after = descendants(java)
    workers = [peak_mb(pid) for pid in after[1:]]
    used = processor_seconds(after) - before
    return Cost(seconds, used, peak_mb(java), max(workers, default=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.spark", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--batch", type=int, action="append", help="rows in an Arrow batch, repeatable (10000)"
    )
    parser.add_argument("--memory", default="1g", help="of Java's heap")
    parser.add_argument("--only", action="append", help="a contender, repeatable (all)")
    parser.add_argument("--folder", type=Path, help="for the history, which is kept")
    chosen = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as temporary, geolookup.open() as dataset:
        folder = chosen.folder or Path(temporary)
        history, ranges = folder / f"history-{chosen.rows}.parquet", folder / "countries.parquet"
        if not history.exists():
            timing.progress("writing the history")
            write_history(history, dataset, chosen.rows)
        if not ranges.exists():
            timing.progress("writing the export")
            export(ranges, dataset)
        settings = {
            "spark.driver.memory": chosen.memory,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        run(spark, history, ranges, chosen.rounds, chosen.only, chosen.batch or [10_000])
        spark.stop()


def run(
    spark: SparkSession,
    history: Path,
    ranges: Path,
    rounds: int,
    only: list[str] | None,
    batches: list[int],
) -> None:
    java = int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())
    all_of_them = contenders(spark, ranges)
    if only is None or "join" in only:
        timing.progress("checking the join")
        check(spark, history, all_of_them["join"])
    costs: dict[tuple[str, int], list[Cost]] = {
        (name, batch): [] for name in only or all_of_them for batch in batches
    }
    for number in range(rounds + 1):
        for (name, batch), found in costs.items():
            spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", batch)
            frame = spark.read.parquet(str(history))
            if not number:  # warms up
                frame = frame.limit(CHECKED)
            writer = all_of_them[name](frame).write.format("noop").mode("overwrite")
            cost = measure(java, writer.save)
            timing.progress(f"round {number}, {name}, {batch}: {cost}")
            if number:
                found.append(cost)
    print("| | batch | seconds | of processors | beside identity | Java, MB | a worker, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    medians = {
        which: Cost(
            statistics.median(cost.seconds for cost in found),
            statistics.median(cost.processor for cost in found),
            max(cost.java_mb for cost in found),
            max(cost.worker_mb for cost in found),
        )
        for which, found in costs.items()
    }
    for (name, batch), cost in medians.items():
        ratio = ""
        if identity := medians.get(("identity", batch)):
            ratio = f"{cost.processor / identity.processor:.2f}"
        print(
            f"| {name} | {batch:,} | {cost.seconds:.1f} | {cost.processor:.1f} | {ratio} "
            f"| {cost.java_mb:,.0f} | {cost.worker_mb:,.0f} |"
        )


if __name__ == "__main__":
    main()
