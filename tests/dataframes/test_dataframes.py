"""Polars, pandas and DuckDB: the examples of docs/dataframes.md, and what they do not show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_dataset
from page import run_examples, sections
from small_dataset import ONE_OF_EACH

import geolookup
from geolookup import Dataset, RegionSetError
from geolookup.answer.dataset import encode

WHY = "needs the extra dataframes"
pl = pytest.importorskip("polars", reason=WHY)
pd = pytest.importorskip("pandas", reason=WHY)
duckdb = pytest.importorskip("duckdb", reason=WHY)

import geolookup.duckdb  # noqa: E402
import geolookup.pandas  # noqa: E402
import geolookup.polars  # noqa: E402

ADDRESSES = [*ONE_OF_EACH, None, "x"]
FIELDS = ("country", "status", "verdict", "reason")
RECIPES = {"DataFusion": "datafusion", "Ibis": "ibis"}
"""Sections of the page by what they need."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dataframes") / "small.geolookup"
    file.write_bytes(encode(small_dataset.content()))
    return file


@pytest.fixture(scope="module")
def dataset(path: Path) -> Iterator[Dataset]:
    with geolookup.open(path) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def expected(dataset: Dataset) -> list[tuple[str, ...] | None]:
    """Return what lookups say one by one; None for a null."""
    found: list[tuple[str, ...] | None] = []
    for address in ADDRESSES:
        answer = {} if address is None else dataset.lookup(address, "CN").to_dict()
        found.append(tuple(answer[name] for name in FIELDS) if answer else None)
    return found


def by_field(rows: list[tuple[str, ...] | None], field: str) -> list[str | None]:
    return [None if row is None else row[FIELDS.index(field)] for row in rows]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_examples_of_the_page_run() -> None:
    # Those of Spark run in test_spark.py.
    texts = [text for heading, text in sections().items() if heading not in {"Spark", *RECIPES}]
    failed, tried = run_examples(texts)
    assert (failed, tried > 15) == (0, True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("heading", RECIPES)
def test_recipes_of_the_page_run(heading: str) -> None:
    """No extra has them, since nothing of geolookup's is about them."""
    pytest.importorskip(RECIPES[heading], reason=f"pip install {RECIPES[heading]}")
    failed, tried = run_examples([sections()["Arrow"], sections()[heading]])
    assert (failed, tried > 8) == (0, True)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical], ids=str)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_polars_answers_each_row(dtype: Any, engine: Any, path: Path, expected: Any) -> None:
    ip = pl.col("ip")
    frame = pl.LazyFrame({"ip": pl.Series(ADDRESSES * 100).cast(dtype)}).with_columns(
        country=ip.geo.country(dataset=path),
        verdict=ip.geo.verdict("CN", dataset=path),
        geo=ip.geo.classify("CN", dataset=path),
    )
    schema = frame.collect_schema()
    found = collected(frame, engine)
    assert found.schema == schema
    assert found["country"].to_list() == by_field(expected, "country") * 100
    assert found["verdict"].to_list() == by_field(expected, "verdict") * 100
    for field in FIELDS:
        assert found["geo"].struct.field(field).to_list() == by_field(expected, field) * 100


def collected(frame: Any, engine: str) -> Any:
    """Return a lazy frame's rows. Before version 1.25 the engines had other names."""
    if tuple(map(int, pl.__version__.split(".")[:2])) < (1, 25):
        return frame.collect(streaming=engine == "streaming")
    return frame.collect(engine=engine)


def test_polars_answers_no_rows() -> None:
    found = pl.DataFrame({"ip": []}, schema={"ip": pl.String}).select(pl.col("ip").geo.classify())
    assert found["ip"].struct.unnest().columns == ["country", "status", "region", "networks"]


def test_polars_refuses_wrong_use() -> None:
    with pytest.raises(RegionSetError, match="did you mean 'CN'"):
        pl.col("ip").geo.verdict("cn")
    with pytest.raises(ValueError, match="policy"):
        pl.col("ip").geo.classify("CN", "MOST")
    # Polars raises our error, or its own with the text of ours.
    with pytest.raises((TypeError, pl.exceptions.ComputeError), match="holds no addresses"):
        pl.DataFrame({"ip": [1.5]}).select(pl.col("ip").geo.country())


@pytest.mark.parametrize("dtype", [object, "str", "string", "category"])
def test_pandas_answers_each_row(dtype: Any, path: Path, expected: Any) -> None:
    index = [f"row {n}" for n in range(len(ADDRESSES))]
    column = pd.Series(ADDRESSES, index=index, name="ip", dtype=dtype)
    country = column.geo.country(dataset=path)
    assert (list(country.index), country.name) == (index, "ip")
    assert plain(country) == by_field(expected, "country")
    assert plain(column.geo.verdict("CN", dataset=path)) == by_field(expected, "verdict")
    frame = column.geo.classify("CN", dataset=path)
    assert list(frame.index) == index
    for field in FIELDS:
        assert plain(frame[field]) == by_field(expected, field)


def plain(column: Any) -> list[str | None]:
    return [None if missing else item for item, missing in zip(column, column.isna(), strict=True)]


def test_pandas_refuses_wrong_use() -> None:
    with pytest.raises(TypeError, match="holds no addresses"):
        pd.Series([1.5]).geo.country()
    with pytest.raises(TypeError, match="position 1: expected str"):
        pd.Series(["1.0.1.1", 5], dtype=object).geo.country()


def test_duckdb_answers_each_row(path: Path, expected: Any) -> None:
    with duckdb.connect() as connection:
        geolookup.duckdb.register(connection, dataset=path)
        connection.execute("CREATE TABLE t (n INTEGER, ip VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(ADDRESSES)))
        rows = connection.execute(
            "SELECT geo_country(ip), geo_verdict(ip, 'CN'), geo_classify(ip, 'CN')"
            " FROM t ORDER BY n"
        ).fetchall()
    assert [row[0] for row in rows] == by_field(expected, "country")
    assert [row[1] for row in rows] == by_field(expected, "verdict")
    structs = [None if row[2] is None else tuple(row[2][field] for field in FIELDS) for row in rows]
    assert structs == expected


def test_duckdb_takes_a_column_of_region_sets(dataset: Dataset) -> None:
    with duckdb.connect() as connection:
        geolookup.duckdb.register(connection, dataset=dataset)
        asked = [(ip, name) for ip in ("1.0.1.1", "2.0.0.1", None) for name in ("CN", "DE", None)]
        connection.execute("CREATE TABLE t (n INTEGER, ip VARCHAR, name VARCHAR)")
        rows = [(n, *pair) for n, pair in enumerate(asked * 10)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        found = connection.execute("SELECT geo_verdict(ip, name) FROM t ORDER BY n").fetchall()
    for (_, ip, name), (verdict,) in zip(rows, found, strict=False):
        if ip is None or name is None:
            assert verdict is None
        else:
            answer = dataset.lookup(ip, name)
            assert answer.verdict is not None
            assert verdict == answer.verdict.name


def test_duckdb_registers_again_for_another_dataset(path: Path) -> None:
    with duckdb.connect() as connection:
        geolookup.duckdb.register(connection)
        query = "SELECT geo_country('3.0.0.1')"
        with geolookup.open() as dataset:
            embedded = dataset.country("3.0.0.1")
        assert embedded != "HK"
        assert connection.execute(query).fetchone() == (embedded,)
        geolookup.duckdb.register(connection, dataset=path)
        assert connection.execute(query).fetchone() == ("HK",)


def test_duckdb_names_an_unknown_region_set() -> None:
    with duckdb.connect() as connection:
        geolookup.duckdb.register(connection)
        with pytest.raises(duckdb.Error, match="did you mean 'CN'"):
            connection.execute("SELECT geo_verdict('1.0.1.1', 'cn')")


def test_file_is_opened_again_when_another_took_its_place(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "dataset.geolookup"
    shutil.copy(path, file)
    column = pd.Series(["1.0.1.1"])
    assert column.geo.country(dataset=file).tolist() == ["CN"]
    other = small_dataset.content()
    claims = list(other.claims)
    claims[small_dataset.CN] = claims[small_dataset.DE]
    other.claims = claims
    (tmp_path / "new").write_bytes(encode(other))
    (tmp_path / "new").replace(file)
    assert column.geo.country(dataset=file).tolist() == ["DE"]
