"""Spark: a real one with two workers, where pyspark and Java are installed.

`pip install 'geolookup[spark]'` and Java 17 or newer; `.ci/spark VERSION` takes another pyspark.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import small_dataset
from page import run_examples, sections
from small_dataset import ONE_OF_EACH

import geolookup
from geolookup import Dataset, RegionSet, RegionSetError
from geolookup.answer.dataset import encode
from geolookup.export import parquet as export
from geolookup.export.rows import Rows

pytest.importorskip("pyspark", reason="needs the extra spark")
if not ("JAVA_HOME" in os.environ or shutil.which("java")):
    pytest.skip("needs Java 17 or newer", allow_module_level=True)

from pyspark.errors import AnalysisException, PythonException
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

import geolookup.spark

# It says of each new pandas that it is not supported yet; and its sockets are closed by Java.
pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ADDRESSES = [*ONE_OF_EACH, None, "x"]
FIELDS = ["country", "status", "verdict", "reason", "region", "networks"]
LOG = """
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %p %c: %m%n%ex
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def spark(folder: Path) -> Iterator[SparkSession]:
    (folder / "log4j2.properties").write_text(LOG.format(folder / "log"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        options = f"-Dlog4j2.configurationFile={folder}/log4j2.properties"
        settings = {
            "spark.driver.extraJavaOptions": options,
            "spark.sql.execution.arrow.maxRecordsPerBatch": "10",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        yield session
        session.stop()


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    file = folder / "small.geolookup"
    file.write_bytes(encode(small_dataset.content()))
    return file


@pytest.fixture(scope="module")
def dataset(path: Path) -> Iterator[Dataset]:
    with geolookup.open(path) as dataset:
        yield dataset


def other_dataset() -> bytes:
    """Return a file in which China's addresses are Germany's."""
    content = small_dataset.content()
    claims = list(content.claims)
    claims[small_dataset.CN] = claims[small_dataset.DE]
    content.claims = claims
    return encode(content)


def one_row(spark: SparkSession) -> Any:
    return spark.createDataFrame([("1.0.1.1",)], "ip string")


@pytest.mark.usefixtures("spark")
def test_examples_of_the_page_run() -> None:
    failed, tried = run_examples([sections()["Arrow"], sections()["Spark"]])
    assert (failed, tried > 10) == (0, True)


def test_each_row_is_answered_as_by_a_lookup(
    spark: SparkSession, path: Path, dataset: Dataset
) -> None:
    rows = list(enumerate(ADDRESSES * 20))
    frame = spark.createDataFrame(rows, "n int, ip string").repartition(4)
    frame = geolookup.spark.country(frame, "ip", dataset=path)
    ours = RegionSet("OURS", frozenset({"CN"}))
    frame = geolookup.spark.verdict(frame, frame["ip"], ours, "MAJORITY", dataset=path)
    frame = geolookup.spark.classify(frame, "ip", "CN", dataset=path)
    assert frame.columns == ["n", "ip", "country", "verdict", "geo"]
    # The names of the fields are those of the arrays that workers return; see the next test.
    assert frame.schema["geo"].dataType.names == FIELDS
    found = frame.orderBy("n").collect()
    for (_, address), row in zip(rows, found, strict=True):
        assert row.ip == address
        if address is None:
            assert (row.country, row.verdict, row.geo) == (None, None, None)
            continue
        expected = dataset.lookup(address, "CN").to_dict()
        assert row.country == expected["country"]
        assert row.verdict == dataset.lookup(address, "CN", "MAJORITY").to_dict()["verdict"]
        for field in ("country", "status", "verdict", "reason"):
            assert row.geo[field] == expected[field]


def test_spark_takes_a_field_of_another_name_for_null(spark: SparkSession) -> None:
    """What the fields' names are held to, so that a change of Spark shows."""

    def answer(addresses: pa.Array) -> pa.Array:
        return pa.StructArray.from_arrays([addresses, addresses], names=["right", "wrong"])

    kind = "struct<right:string,other:string>"
    answers = f.arrow_udf(answer, kind)("ip")
    (row,) = one_row(spark).select(answers.alias("geo")).collect()
    assert (row.geo.right, row.geo.other) == ("1.0.1.1", None)


def test_packed_addresses_and_integers_are_read(spark: SparkSession, path: Path) -> None:
    texts = ["1.0.1.1", "3.0.0.1", "2001:200::1", "2001:300:0:0:8000::", None]
    read = [None if text is None else ipaddress.ip_address(text) for text in texts]
    rows = [
        (
            None if ip is None else ip.packed,
            int(ip) if isinstance(ip, ipaddress.IPv4Address) else None,
        )
        for ip in read
    ]
    frame = spark.createDataFrame([*rows, (b"123", -1), (b"", 2**32)], "b binary, i bigint")
    frame = geolookup.spark.country(frame, "b", dataset=path)
    frame = geolookup.spark.classify(frame, "i", dataset=path)
    found = frame.select("country", "geo.country", "geo.status").collect()
    packed = ["CN", "HK", "CN", "DE", None, "ZZ", "ZZ"]
    integers = ["CN", "HK", None, None, None, "ZZ", "ZZ"]
    assert [row[0] for row in found] == packed
    assert [row[1] for row in found] == integers
    assert [row[2] for row in found[-2:]] == ["INVALID", "INVALID"]


def test_dataset_is_opened_once_a_worker(spark: SparkSession, path: Path, folder: Path) -> None:
    file = folder / "opened.geolookup"
    shutil.copy(path, file)

    def report(batches: Any) -> Any:
        from geolookup.answer import default_dataset  # noqa: PLC0415

        list(batches)
        found = default_dataset._opened.cache_info()
        row = {"pid": os.getpid(), "misses": found.misses, "hits": found.hits}
        yield pa.RecordBatch.from_pylist([row])

    def opened() -> dict[int, tuple[int, int]]:
        frame = spark.range(0, 8, 1, 8).mapInArrow(report, "pid bigint, misses bigint, hits bigint")
        return {row.pid: (row.misses, row.hits) for row in frame.collect()}

    before = opened()
    rows = [(address,) for address in ADDRESSES * 40]
    frame = spark.createDataFrame(rows, "ip string").repartition(8)
    for _ in range(3):
        asked = geolookup.spark.country(frame, "ip", dataset=file, on_every_node=True)
        assert asked.filter("country = 'CN'").count() > 0
    after = opened()
    assert len(after) >= 2, "two workers at a time"
    for pid, (misses, hits) in after.items():
        missed, hit = before.get(pid, (0, 0))
        assert misses - missed <= 1
        assert hits - hit > 10


def test_filter_on_another_column_comes_before_the_lookup(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "1.0.1.1")], "n int, ip string")
    frame = geolookup.spark.classify(frame, "ip", "CN").filter("n > 1")
    plan = frame._jdf.queryExecution().executedPlan().toString()
    assert 0 <= plan.index("ArrowEvalPython") < plan.index("Filter")


def test_metadata_name_the_dataset(
    spark: SparkSession, path: Path, dataset: Dataset, folder: Path
) -> None:
    frame = geolookup.spark.classify(one_row(spark), "ip", "CN", dataset=path)
    frame.write.option("compression", "zstd").parquet(str(folder / "out"))
    kept = spark.read.parquet(str(folder / "out"))
    assert kept.schema["geo"].metadata == frame.schema["geo"].metadata
    assert kept.schema["geo"].metadata["geolookup.dataset"] == dataset.id
    assert kept.select("geo.country").collect() == [("CN",)]


def test_frames_keep_their_dataset_when_another_takes_the_files_place(
    spark: SparkSession, path: Path, folder: Path
) -> None:
    file = folder / "replaced.geolookup"
    shutil.copy(path, file)
    old = geolookup.spark.country(one_row(spark), "ip", dataset=file)
    (folder / "new").write_bytes(other_dataset())
    (folder / "new").replace(file)
    new = geolookup.spark.country(one_row(spark), "ip", dataset=file)
    assert [frame.collect()[0].country for frame in (old, new, old)] == ["CN", "DE", "CN"]


def test_session_with_artifacts_finds_the_dataset(
    spark: SparkSession, path: Path, folder: Path
) -> None:
    session = spark.newSession()
    (folder / "artifact.txt").write_text("text")
    session.addArtifacts(str(folder / "artifact.txt"), file=True)
    frame = geolookup.spark.country(one_row(session), "ip", dataset=path)
    assert frame.collect()[0].country == "CN"


def test_join_of_the_page_answers_as_lookups(
    spark: SparkSession, dataset: Dataset, folder: Path
) -> None:
    with (folder / "countries.parquet").open("wb") as file:
        export.write(Rows(dataset, disputed="primary"), file)
    (recipe,) = re.findall(r"```python\n(from .*?)```", sections()["Spark"], re.DOTALL)
    recipe = recipe.replace("countries.parquet", str(folder / "countries.parquet"))
    texts = [text for text in ONE_OF_EACH if ":" not in text]
    names = {"spark": spark, "joins": spark.createDataFrame([(x,) for x in texts], "ip string")}
    exec(recipe, names)  # noqa: S102 - the page's own example
    found: Any = names["countries"]
    rows = {row.ip: (row.code, row.status) for row in found.collect()}
    assert rows.pop("1.2.3") == (None, None)
    for text, row in rows.items():
        answer = dataset.lookup(text)
        assert row == (answer.country, answer.status.name)


def test_wrong_use_is_refused_at_once(spark: SparkSession, dataset: Dataset, folder: Path) -> None:
    frame = one_row(spark)
    with pytest.raises(AnalysisException, match=r"`pi` cannot be resolved.*`ip`"):
        geolookup.spark.country(frame, "pi")
    with pytest.raises(TypeError, match=r"'n' holds no addresses: its type is int; .* bigint"):
        geolookup.spark.country(frame.withColumn("n", f.lit(1)), "n")
    with pytest.raises(TypeError, match="expected one, not 2"):
        geolookup.spark.country(frame.withColumn("n", f.lit(1)), "*")
    with pytest.raises(ValueError, match="a column 'IP' already"):
        geolookup.spark.country(frame, "ip", into="IP")
    with pytest.raises(RegionSetError, match="did you mean 'CN'"):
        geolookup.spark.verdict(frame, "ip", "cn")
    with pytest.raises(ValueError, match="policy"):
        geolookup.spark.classify(frame, "ip", "CN", "MOST")
    with pytest.raises(TypeError, match="a path, not Dataset"):
        geolookup.spark.classify(frame, "ip", dataset=dataset)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.geolookup"):
        geolookup.spark.classify(frame, "ip", dataset=folder / "nowhere.geolookup")


def test_errors_of_workers_name_the_file_and_no_address(
    spark: SparkSession, path: Path, folder: Path
) -> None:
    file = folder / "here.geolookup"
    shutil.copy(path, file)
    frame = spark.createDataFrame([("192.0.2.77",), ("2001:db8::77",)], "ip string")
    asked = geolookup.spark.classify(frame, "ip", "CN", dataset=file, on_every_node=True)
    file.unlink()
    with pytest.raises(PythonException, match=rf"no file {file} on node") as missing:
        asked.collect()
    file.write_bytes(other_dataset())
    with pytest.raises(PythonException, match=rf"{file} on node .* for which") as another:
        asked.collect()
    file.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PythonException, match=str(file)) as damaged:
        asked.collect()
    log = (folder / "log").read_text()
    assert log.count("geolookup/spark.py") > 3, "tracebacks of workers"
    for text in (log, str(missing.value), str(another.value), str(damaged.value)):
        assert "192.0.2" not in text
        assert "2001:db8" not in text
