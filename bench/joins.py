"""A million IPv4 addresses joined with the exports by engines, beside `classify`.

Usage: python -m bench.joins [--addresses N]

Each engine has the addresses and the export in tables of its own beforehand, as docs/export.md
loads them, and counts addresses by code; the counts are held against geolookup's. Engines that are
not installed are left out. PostgreSQL is the server that psql finds (PGHOST and so on): tables are
made in its schema geolookup_bench, which is dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import geolookup
from bench.peers import markdown
from geolookup import Dataset, Status
from geolookup.export import export

ROUNDS = 3
SEED = 20261130

Counts = dict[str, int]
Join = tuple[str, Callable[[], Counts]]
"""What joins, and the call that does."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--addresses", type=int, default=1_000_000)
    count = parser.parse_args().addresses
    drawn = random.Random(SEED)
    values = [drawn.getrandbits(32) for _ in range(count)]
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.chdir(name),  # outside of it, ClickHouse in a process reads no dictionary
        geolookup.open() as dataset,
    ):
        folder = Path(name)
        folder.chmod(0o755)  # a database's server reads the files
        for format_name in ("parquet", "prefixes", "csv"):
            with (folder / format_name).open("wb") as file:
                export(dataset, file, format_name)
        (folder / "addresses").write_text("".join(f"{value}\n" for value in values))
        expected = counted(dataset, values)
        lines = [["join", "seconds, median of three", "million addresses a second"], ["---"] * 3]
        for engine in (own, duckdb, polars, clickhouse, postgresql):
            for what, call in engine(dataset, folder, values):
                seconds = [timed(call, expected, what) for _ in range(ROUNDS)]
                middle = statistics.median(seconds)
                lines.append([what, f"{middle:.2f}", f"{count / middle / 1e6:.2f}"])
    print(markdown(lines))


def timed(call: Callable[[], Counts], expected: Counts, what: str) -> float:
    begun = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - begun
    assert found == expected, f"{what}: other counts than geolookup's"
    return seconds


def counted(dataset: Dataset, values: list[int]) -> Counts:
    result = dataset.classify(ipv4=b"".join(value.to_bytes(4) for value in values))
    agreed = {Status.ASSIGNED, Status.OVERRIDE}
    pairs = zip(result.countries.tolist(), result.statuses, strict=True)
    return Counter(country if status in agreed else "ZZ" for country, status in pairs)


def own(dataset: Dataset, _: Path, values: list[int]) -> Iterator[Join]:
    arrow = import_module("pyarrow")
    column = arrow.array(values, arrow.int64())

    def call() -> Counts:
        counts: Counter[str] = Counter()
        pairs = dataset.classify(column).to_polars().group_by("country", "status").len()
        for country, status, count in pairs.rows():
            counts[country if status in ("ASSIGNED", "OVERRIDE") else "ZZ"] += count
        return counts

    yield "no join: `dataset.classify` of the column", call


def duckdb(_: Dataset, folder: Path, values: list[int]) -> Iterator[Join]:
    module, arrow = import_module("duckdb"), import_module("pyarrow")
    connection = module.connect()
    column = arrow.table({"ip": arrow.array(values, arrow.int64())})
    connection.register("drawn", column)
    connection.execute("CREATE TABLE joins AS FROM drawn")
    connection.read_parquet(str(folder / "parquet")).filter("family = 4").create("countries")
    query = "SELECT code, count(*) FROM joins ASOF JOIN countries ON ip >= first_ipv4 GROUP BY code"
    yield f"DuckDB {module.__version__} `ASOF JOIN`", lambda: dict(connection.sql(query).fetchall())


def polars(_: Dataset, folder: Path, values: list[int]) -> Iterator[Join]:
    module = import_module("polars")
    frame = module.DataFrame({"ip": values}, schema={"ip": module.Int64})
    rows = module.read_parquet(folder / "parquet", columns=["family", "first_ipv4", "code"])
    rows = rows.filter(module.col("family") == 4).with_columns(
        module.col("code").cast(module.String)
    )

    def call() -> Counts:
        joined = frame.sort("ip").join_asof(rows, left_on="ip", right_on="first_ipv4")
        return dict(joined["code"].value_counts().rows())

    yield f"polars {module.__version__} `join_asof`, sort included", call


def clickhouse(_: Dataset, folder: Path, __: list[int]) -> Iterator[Join]:
    try:
        session: Any = import_module("chdb.session").Session()
    except ImportError:
        return
    session.query("CREATE DATABASE bench")
    session.query(
        "CREATE DICTIONARY bench.countries (prefix String, code String DEFAULT 'ZZ') "
        f"PRIMARY KEY prefix SOURCE(FILE(path '{folder}/prefixes' format 'CSVWithNames')) "
        "LAYOUT(IP_TRIE) LIFETIME(0)"
    )
    session.query("SELECT dictGet('bench.countries', 'code', tuple(toIPv4('1.0.1.1')))")  # loads it
    session.query(
        "CREATE TABLE bench.ranges ENGINE = Memory AS SELECT family, "  # noqa: S608 - our own path
        "assumeNotNull(first_ipv4) AS first_ipv4, code "
        f"FROM file('{folder}/parquet', Parquet) WHERE family = 4"
    )
    session.query(
        "CREATE TABLE bench.joins ENGINE = Memory AS SELECT 4::UInt8 AS family, ip "  # noqa: S608 - our own path
        f"FROM file('{folder}/addresses', TSV, 'ip Int64')"
    )

    def counts(query: str) -> Counts:
        rows = str(session.query(query, "TSV")).split("\n")
        return {code: int(count) for code, count in (row.split("\t") for row in rows if row)}

    version = str(session.query("SELECT version()", "TSV")).strip()
    trie = (
        "SELECT dictGet('bench.countries', 'code', tuple(toIPv4(toUInt32(ip)))) AS found, count() "
        "FROM bench.joins GROUP BY found"
    )
    asof = (
        "SELECT code, count() FROM bench.joins AS j ASOF JOIN bench.ranges AS r "
        "ON j.family = r.family AND j.ip >= r.first_ipv4 GROUP BY code"
    )
    yield f"ClickHouse {version} dictionary `ip_trie`", lambda: counts(trie)
    yield f"ClickHouse {version} `ASOF JOIN`", lambda: counts(asof)
    session.close()


def postgresql(_: Dataset, folder: Path, __: list[int]) -> Iterator[Join]:
    psql = shutil.which("psql")
    if psql is None or psql_output(psql, "SELECT 1") != "1\n":
        return
    version = psql_output(psql, "SHOW server_version").split()[0]
    for statement in (
        "CREATE SCHEMA geolookup_bench",
        "CREATE TABLE geolookup_bench.ranges"
        " (first inet, last inet, code text, status text, claimed text)",
        f"\\copy geolookup_bench.ranges FROM '{folder}/csv' WITH (FORMAT csv, HEADER)",
        "CREATE UNIQUE INDEX ON geolookup_bench.ranges (first) INCLUDE (code)",
        "CREATE TABLE geolookup_bench.drawn (number bigint)",
        f"\\copy geolookup_bench.drawn FROM '{folder}/addresses'",
        "CREATE TABLE geolookup_bench.joins AS"
        " SELECT inet '0.0.0.0' + number AS ip FROM geolookup_bench.drawn",
        "VACUUM ANALYZE",
    ):
        psql_output(psql, statement)

    def counts(query: str) -> Counts:
        rows = psql_output(psql, query).splitlines()
        return {code: int(count) for code, count in (row.split("|") for row in rows)}

    ranges = (
        "SELECT code, count(*) FROM geolookup_bench.joins CROSS JOIN LATERAL (SELECT code FROM "
        "geolookup_bench.ranges WHERE first <= ip ORDER BY first DESC LIMIT 1) AS r GROUP BY code"
    )
    try:
        yield f"PostgreSQL {version} B-tree of `first`", lambda: counts(ranges)
    finally:
        psql_output(psql, "DROP SCHEMA geolookup_bench CASCADE")


def psql_output(psql: str, statement: str) -> str:
    command = [psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
    return subprocess.run(  # noqa: S603 - a fixed program
        command, capture_output=True, text=True, check=False
    ).stdout


if __name__ == "__main__":
    main()
