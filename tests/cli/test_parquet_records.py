"""Parquet files of records: what is kept, what a column of addresses may be, and failures."""

from __future__ import annotations

import datetime
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, runner_for_bytes
from servers import serving

pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")

CHINA, AMERICA, HONG_KONG = "1.0.1.1", "8.8.8.8", "43.102.0.1"
ADDRESSES = [CHINA, AMERICA, None, HONG_KONG]
NUMBERS = [0x01000101, 0x08080808, None, 0x2B660001]
PACKED = [None if n is None else n.to_bytes(4) for n in NUMBERS]
COUNTRIES = ["CN", "US", "ZZ", "HK"]
ADDED = ["country", "status", "verdict", "reason"]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    return runner_for_bytes(capfdbinary)


def various(rows: int = 40) -> Any:
    """Return a table with a column of most kinds."""
    at = list(range(rows))
    noon = datetime.datetime(2026, 10, 10, 12, tzinfo=datetime.UTC)
    columns = {
        "n": pa.array(at, pa.int32()),
        "ip": pa.array(ADDRESSES * (rows // 4)),
        "kind": pa.array(["call", "chat"] * (rows // 2)).dictionary_encode(),
        "at": pa.array([noon] * rows, pa.timestamp("us", "Europe/Berlin")),
        "price": pa.array([Decimal("1.50")] * rows, pa.decimal128(9, 2)),
        "seen": pa.array([[{"ip": CHINA, "n": 1}], []] * (rows // 2)),
        "by": pa.array([[("a", 1)], None] * (rows // 2), pa.map_(pa.string(), pa.int8())),
        "who": pa.array([{"name": {"first": "a", "last": None}}] * rows),
        "raw": pa.array([b"\0\xff"] * rows),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    fields[0] = fields[0].with_nullable(False).with_metadata({"unit": "rows"})
    schema = pa.schema(fields, {"owner": "the team of meetings"})
    return pa.table(list(columns.values()), schema=schema)


def annotated(run: Run, path: Path, *options: object) -> Path:
    out = path.with_name("out.parquet")
    ended = run("annotate", path, "-o", out, *options)
    assert (ended.code, ended.out, ended.err) == (0, b"", "")
    return out


def of_columns(path: Path, count: int, *names: str) -> list[list[object]]:
    """Return what the metadata says of each column, group by group."""
    metadata = pq.ParquetFile(path).metadata
    return [
        [getattr(metadata.row_group(g).column(at), name) for name in names]
        for g in range(metadata.num_row_groups)
        for at in range(count)
    ]


def test_annotated_file_keeps_schema_metadata_and_row_groups(run: Run, tmp_path: Path) -> None:
    path, table = tmp_path / "in.parquet", various()
    codecs = {"n": "gzip", "ip": "snappy", "kind": "zstd", "at": "none"}
    options: dict[str, Any] = {"use_dictionary": ["ip", "kind"], "compression": codecs}
    options |= {"column_encoding": {"n": "DELTA_BINARY_PACKED"}}
    options |= {"sorting_columns": [pq.SortingColumn(0)], "write_page_index": True}
    pq.write_table(table, path, row_group_size=16, **options)
    out = annotated(run, path, "-r", "CN")
    before, after = pq.ParquetFile(path), pq.ParquetFile(out)
    assert after.read(table.schema.names).equals(before.read(), check_metadata=True)
    assert after.schema_arrow.metadata == before.schema_arrow.metadata
    rows = [after.metadata.row_group(at).num_rows for at in range(after.num_row_groups)]
    assert rows == [16, 16, 8]
    assert after.metadata.row_group(2).sorting_columns == (pq.SortingColumn(0),)
    leaves = len(before.schema)
    for at in range(leaves):
        assert after.schema.column(at) == before.schema.column(at)
    same = ("path_in_schema", "physical_type", "compression", "encodings", "has_column_index")
    assert of_columns(out, leaves, *same) == of_columns(path, leaves, *same)
    added = after.metadata.row_group(0)
    assert {added.column(leaves + at).compression for at in range(4)} == {"SNAPPY"}


def test_annotated_file_has_the_answers(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(various(), path, row_group_size=16)
    found = pq.read_table(annotated(run, path, "-r", "CN", "--regions"))
    assert found["country"].to_pylist() == COUNTRIES * 10
    assert found["status"].to_pylist() == ["ASSIGNED", "ASSIGNED", "INVALID", "DISPUTED"] * 10
    assert found["verdict"].to_pylist() == ["INSIDE", "OUTSIDE", "UNDETERMINED", "OUTSIDE"] * 10
    assert found["reason"].to_pylist() == ["DECIDED", "DECIDED", "INVALID", "DECIDED"] * 10
    assert found["region"].to_pylist() == [None] * 40


def test_file_of_others_keeps_their_types(run: Run, tmp_path: Path) -> None:
    """Times as INT96 and decimals as integers, as Spark writes them."""
    table = pa.table({"ip": [CHINA], "at": pa.array([datetime.datetime(2026, 1, 1)])})
    table = table.append_column("price", pa.array([Decimal("1.5")], pa.decimal128(9, 1)))
    path = tmp_path / "in.parquet"
    schema = {"type": "struct", "fields": [{"name": name} for name in table.schema.names]}
    key = b"org.apache.spark.sql.parquet.row.metadata"
    options = {"use_deprecated_int96_timestamps": True, "store_decimal_as_integer": True}
    with pq.ParquetWriter(path, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key: json.dumps(schema)})
    out = annotated(run, path)
    assert of_columns(out, 3, "physical_type") == of_columns(path, 3, "physical_type")
    fields = json.loads(pq.ParquetFile(out).schema_arrow.metadata[key])["fields"]
    assert [field["name"] for field in fields] == ["ip", "at", "price", "country", "status"]


def test_index_of_pandas_stays_one(run: Run, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="needs the extra dataframes")
    frame = pd.DataFrame({"ip": ADDRESSES}, index=pd.Index(["a", "b", "c", "d"], name="who"))
    path = tmp_path / "in.parquet"
    frame.to_parquet(path)
    found = pd.read_parquet(annotated(run, path))
    assert found.index.equals(frame.index)
    assert found["country"].tolist() == COUNTRIES


def test_large_row_group_is_divided(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.annotate._ROWS", 8)
    monkeypatch.setattr("geolookup.cli.parquet_records._WRITTEN_AT_ONCE", 1)
    path, table = tmp_path / "in.parquet", various()
    pq.write_table(table, path)
    out = pq.ParquetFile(annotated(run, path))
    assert [out.metadata.row_group(at).num_rows for at in range(out.num_row_groups)] == [8] * 5
    assert out.read(table.schema.names).equals(table)


def test_file_without_rows_gets_its_columns(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(various().slice(0, 0), path)
    found = pq.read_table(annotated(run, path, "-r", "CN"))
    assert found.schema.names == [*various().schema.names, *ADDED]
    assert found.num_rows == 0


DECODED = pa.array(ADDRESSES)
COLUMNS = {
    "string": DECODED,
    "large_string": DECODED.cast(pa.large_string()),
    "string_view": pa.array(ADDRESSES, pa.string_view()),
    "dictionary": DECODED.dictionary_encode(),
    "with spaces": pa.array([f" {CHINA}", f"{AMERICA} ", " ", f"\t{HONG_KONG}\r"]),
    "dictionary with spaces": pa.array([f" {CHINA}", f"{AMERICA} ", None, HONG_KONG])
    .dictionary_encode(),
    "binary": pa.array(PACKED),
    "fixed_size_binary": pa.array(PACKED, pa.binary(4)),
    "uint32": pa.array(NUMBERS, pa.uint32()),
    "uint64": pa.array(NUMBERS, pa.uint64()),
    "int64": pa.array(NUMBERS, pa.int64()),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS)
def test_column_of_each_kind_is_read(run: Run, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"ip": COLUMNS[kind], "user": ["a", "b", "c", "a"]})
    try:
        pq.write_table(table, path)
    except NotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} writes no {kind}")
    found = pq.read_table(annotated(run, path))
    assert found["country"].to_pylist() == COUNTRIES
    assert found.select(["ip", "user"]).equals(table)
    # The addresses are read one by one where they belong to participants.
    found = pq.read_table(annotated(run, path, "-r", "CN", "--participant", "user"))
    assert found["country"].to_pylist() == COUNTRIES
    assert found["verdict"].to_pylist() == [
        "UNDETERMINED",
        "OUTSIDE",
        "UNDETERMINED",
        "UNDETERMINED",
    ]


def test_field_of_a_struct_is_read(run: Run, tmp_path: Path) -> None:
    rows = [{"net": {"ip": CHINA}}, {"net": None}, None, {"net": {"ip": HONG_KONG}}]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"client": rows}), path)
    found = pq.read_table(annotated(run, path, "--column", "client.net.ip"))
    assert found["country"].to_pylist() == ["CN", "ZZ", "ZZ", "HK"]
    for column in ("client.net.x", "client.net.ip.x", "x.net"):
        assert run("annotate", path, "--column", column).code == 2


def test_values_of_another_form_are_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"ip": [f"{CHINA}:443", None, f"{HONG_KONG}:1"]}), path)
    found = pq.read_table(annotated(run, path, "--form", "ip:port"))
    assert found["country"].to_pylist() == ["CN", "ZZ", "HK"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (pa.array([1], pa.int32()), "the type int32"),
        (pa.array([1.5]), "the type double"),
        (pa.array([[CHINA]]), "a nested type"),
        (pa.array([{CHINA: CHINA}]), "a nested type"),
        (pa.array([[[CHINA]]]), "a nested type"),
    ],
    ids=["int32", "double", "list", "struct", "lists"],
)
def test_column_without_addresses_is_refused_by_its_type(
    run: Run, tmp_path: Path, values: Any, name: str
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"ip": values}), path)
    ended = run("annotate", path, "-o", tmp_path / "out")
    assert ended.code == 5
    assert f"the column of addresses has {name}, which holds none" in ended.err
    assert CHINA not in ended.err
    assert not (tmp_path / "out").exists()


def grouped(path: Path) -> None:
    """Write a row group of addresses, and one of others."""
    values = [CHINA] * 4 + ["203.0.113.77:80"] * 8
    pq.write_table(pa.table({"ip": values}), path, row_group_size=4)


def test_failure_leaves_no_file_that_seems_whole(run: Run, tmp_path: Path) -> None:
    grouped(tmp_path / "in.parquet")
    ended = run("annotate", tmp_path / "in.parquet")
    assert ended.code == 5
    assert "8 of 12 are no addresses: they have a port" in ended.err
    assert "203.0.113.77" not in ended.err
    assert ended.out.startswith(b"PAR1")
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(ended.out))


@pytest.mark.filterwarnings("error")
def test_interrupt_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped(tmp_path / "in.parquet")
    folder = tmp_path / "out"
    folder.mkdir()
    calls = 0

    def interrupted(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("geolookup.cli.records.InvalidCheck.check", interrupted)
    ended = run("annotate", tmp_path / "in.parquet", "-o", folder / "out.parquet")
    assert (ended.code, ended.err, calls) == (130, "", 2)
    assert not list(folder.iterdir())


def test_summary_counts_what_was_written(run: Run, tmp_path: Path) -> None:
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(various(), path, row_group_size=16)
    found = json.loads(run("annotate", path, "-o", out, "-r", "CN", "--json").out)
    dataset = found.pop("dataset")
    assert len(dataset) == 64
    assert found == {
        "size": 40,
        "counts": {"CN": 10, "HK": 10, "US": 10, "ZZ": 10},
        "statuses": {"ASSIGNED": 20, "INVALID": 10, "DISPUTED": 10},
        "region_set": "CN",
        "verdicts": {"INSIDE": 10, "OUTSIDE": 20, "UNDETERMINED": 10},
        "reasons": {"INVALID": 10},
    }
    arguments = ("-r", "CN", "--participant", "kind", "--json")
    found = json.loads(run("annotate", path, "-o", out, *arguments).out)
    assert (found["participants"], found["size"], sum(found["verdicts"].values())) == (2, 40, 2)
    assert run("annotate", path, "--json").code == 2


def test_service_answers_as_this_process(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.annotate._ROWS", 8)
    path = tmp_path / "in.parquet"
    pq.write_table(various(), path, row_group_size=16)
    options = ("-r", "CN", "--regions")
    expected = pq.read_table(annotated(run, path, *options))
    with serving("--max-roster", "3") as service:
        found = pq.read_table(annotated(run, path, *options, "--server", service.target))
    assert found.equals(expected)
