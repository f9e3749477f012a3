"""Joins on the Parquet export, as the page has them, held against geolookup's own answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_dataset

from geolookup import Dataset, Status
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import encode
from geolookup.answer.intervals import FAMILIES, Family
from geolookup.export import export

EITHER = pytest.mark.parametrize("family", FAMILIES)
DUCKDB = {
    4: "SELECT ip, code FROM joins ASOF JOIN countries ON ip >= first_ipv4",
    6: "SELECT ip, code FROM joins ASOF JOIN countries ON ip >= first_ipv6",
}
COLUMN = {4: "first_ipv4", 6: "first_ipv6"}


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


@pytest.fixture(scope="module")
def countries(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow", reason="an extra")
    path = tmp_path_factory.mktemp("export") / "countries.parquet"
    with path.open("wb") as file:
        export(dataset, file, "parquet")
    return path


def questions(dataset: Dataset, family: Family) -> dict[int | bytes, str]:
    """Return what is to be joined, and its country, at the edges of every interval."""
    top = 2**32 - 1 if family == 4 else 2**128 - 1
    asked: dict[int | bytes, str] = {}
    for first, last, number in dataset.intervals(family):
        if number >= MAX_CLAIMS:
            continue  # the row says EMBEDDED_IPV4
        for value in {first, min(first + 1, last), (first + last) // 2, max(last - 1, first), last}:
            packed = value.to_bytes(4 if family == 4 else 16)
            answer = dataset.lookup(packed)
            agreed = answer.status in (Status.ASSIGNED, Status.OVERRIDE)
            asked[value if family == 4 else packed] = answer.country if agreed else "ZZ"
    assert len(asked) > 30
    assert {0, top} <= asked.keys() or {bytes(16), b"\xff" * 16} <= asked.keys()
    return asked


@EITHER
def test_duckdb_joins_on_the_bounds(dataset: Dataset, countries: Path, family: Family) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the extra dataframes brings it")
    asked = questions(dataset, family)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE joins (ip {'BIGINT' if family == 4 else 'BLOB'})")
        connection.executemany("INSERT INTO joins VALUES (?)", [[value] for value in asked])
        lines = connection.read_parquet(str(countries)).filter(f"family = {family}")
        lines.to_view("countries")
        rows = connection.sql(DUCKDB[family]).fetchall()
    assert dict(rows) == asked


@EITHER
def test_polars_joins_on_the_bounds(dataset: Dataset, countries: Path, family: Family) -> None:
    polars = pytest.importorskip("polars", reason="the extra dataframes brings it")
    asked = questions(dataset, family)
    line = polars.scan_parquet(countries).filter(polars.col("family") == family)
    joined = (
        polars.LazyFrame({"ip": sorted(asked)})
        .join_asof(line, left_on="ip", right_on=COLUMN[family])
        .select("ip", polars.col("code").cast(polars.String))
        .collect()
    )
    assert dict(joined.rows()) == asked


def test_prefixes_make_up_the_rows(dataset: Dataset, countries: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the extra dataframes brings it")
    with duckdb.connect() as connection:
        connection.read_parquet(str(countries)).to_view("countries")
        rows = connection.sql("SELECT unnest(prefixes), code FROM countries").fetchall()
    networks = [(ipaddress.ip_network(prefix), code) for prefix, code in rows]
    for family in FAMILIES:
        of_family = [(network, code) for network, code in networks if network.version == family]
        assert sum(network.num_addresses for network, _ in of_family) == 2 ** (
            32 if family == 4 else 128
        )
        for value, code in questions(dataset, family).items():
            address = ipaddress.ip_address(value)
            assert next(found for network, found in of_family if address in network) == code
