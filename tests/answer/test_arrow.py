"""Columns in and out by Arrow's C data interface, held to lookups one by one."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import address_texts
import numpy as np
import pyarrow as pa
import pytest
import small_dataset
import strategies
from core_tables import SHAPES
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import ONE_OF_EACH

import geolookup
from geolookup import Dataset, Network, Reason, RosterError, RosterResult, Verdict, _arrow, _core
from geolookup.answer.dataset import encode

SEED = 25
TEXTS = (*ONE_OF_EACH, *(text for text, _ in address_texts.VALID), *strategies.MALFORMED)
# What Arrow can't hold: it has no lone surrogates.
TEXTS = tuple(
    text for text in TEXTS if text.isascii() or text.encode(errors="ignore").decode() == text
)
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())
INDEX_TYPES = (
    *(pa.int8(), pa.uint8(), pa.int16(), pa.uint16()),
    *(pa.int32(), pa.uint32(), pa.int64(), pa.uint64()),
)


@cache
def small() -> Dataset:
    return Dataset.from_buffer(encode(small_dataset.content()))


@pytest.fixture
def dataset() -> Dataset:
    return small()


def answers(dataset: Dataset, addresses: Sequence[Any]) -> list[dict[str, Any] | None]:
    """Return what lookups say one by one; None for a null."""
    return [
        None if address is None else dataset.lookup(address, "CN").to_dict()
        for address in addresses
    ]


def rows(result: RosterResult) -> list[dict[str, Any] | None]:
    """Return a result's rows by its Arrow form, as `answers`."""
    table = pa.record_batch(result.to_arrow())
    table.validate(full=True)
    found: list[dict[str, Any] | None] = []
    for row in table.to_pylist():
        if row["status"] is None:
            assert set(row.values()) == {None}
            found.append(None)
            continue
        found.append(row | {"region": row["region"] or ""})
    return found


COLUMNS = ("country", "status", "verdict", "reason", "region")


def assert_answers(dataset: Dataset, column: Any, addresses: Sequence[Any]) -> None:
    result = dataset.classify(column, region_set="CN")
    assert len(result) == len(addresses)
    expected = answers(dataset, addresses)
    for position, (row, answer) in enumerate(zip(rows(result), expected, strict=True)):
        if answer is None:
            assert row is None
            assert position in result.undetermined
            assert result.reasons[position] is Reason.INVALID
        else:
            assert row is not None
            assert [row[name] for name in COLUMNS] == [answer[name] for name in COLUMNS], position
    sets = (result.inside, result.outside, result.undetermined)
    assert sum(map(len, sets)) == len(addresses)


texts_or_nulls = st.lists(st.one_of(st.none(), st.sampled_from(TEXTS)), max_size=40)


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
@settings(max_examples=60)
@given(texts_or_nulls, texts_or_nulls, st.integers(0, 9))
def test_text_is_answered_as_one_by_one(
    kind: pa.DataType, first: list[str | None], second: list[str | None], offset: int
) -> None:
    chunks = [pa.array(part, kind)[offset:] for part in (first, second)]
    assert_answers(small(), chunks[0], first[offset:])
    column = pa.chunked_array(chunks, kind)
    assert_answers(small(), column, [*first[offset:], *second[offset:]])


@pytest.mark.parametrize("isa", _core.isa_paths())
@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_claims_are_those_of_a_list_beyond_a_stage(
    kind: pa.DataType, nulls: bool, isa: str
) -> None:
    # A stage has 8,192 addresses, and a batch 256.
    rnd = random.Random(SEED)
    table = SHAPES["8 intervals"].table(isa)
    items = [rnd.choice(TEXTS) for _ in range(2 * 8192 + 257)]
    column = [None if nulls and rnd.random() < 0.1 else item for item in items]
    expected = table.classify_text([item or "" for item in column])
    claims, _, present = _arrow.read(table.handle(), pa.array(column, kind))
    assert claims == expected
    if nulls:
        assert present == bytes(item is not None for item in column)
    else:
        assert present is None


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_binary_is_packed_addresses(kind: pa.DataType, dataset: Dataset) -> None:
    packed = [_core.parse(text) for text in ONE_OF_EACH]
    items = [*packed, None, b"", b"abc", bytes(5), b"1.0.1.1", bytes(15), bytes(17)]
    assert_answers(dataset, pa.array(items, kind), items)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("nulls", [False, True])
def test_fixed_size_binary_is_packed_addresses(width: int, nulls: bool, dataset: Dataset) -> None:
    packed = [_core.parse(text) for text in ONE_OF_EACH] * 1000
    items = [one for one in packed if one is not None and len(one) == width]
    column = [None if nulls and at % 3 == 1 else one for at, one in enumerate(items)]
    assert_answers(dataset, pa.array(column, pa.binary(width)), column)
    assert_answers(dataset, pa.array(column, pa.binary(width))[5:77], column[5:77])


NUMBERS = [0, 1, 0x01000101, 0x02000001, 0x0A000001, 2**31 - 1, 2**31, 2**32 - 1]


def dotted(number: int) -> str:
    return ".".join(map(str, number.to_bytes(4)))


@pytest.mark.parametrize("kind", [pa.uint32(), pa.int64(), pa.uint64()], ids=str)
@pytest.mark.parametrize("nulls", [False, True])
def test_integers_are_ipv4_addresses_in_host_order(
    kind: pa.DataType, nulls: bool, dataset: Dataset
) -> None:
    numbers: list[int | None] = [*NUMBERS, *([None] if nulls else [])] * 3
    expected = [None if one is None else dotted(one) for one in numbers]
    assert_answers(dataset, pa.array(numbers, kind), expected)


@pytest.mark.parametrize("isa", _core.isa_paths())
@pytest.mark.parametrize("name", SHAPES)
def test_columns_without_nulls_are_looked_up_where_they_lie(name: str, isa: str) -> None:
    shape = SHAPES[name]
    table = shape.table(isa)
    some = random.Random(SEED).choices(shape.probes4(), k=3 + 2 * 256 + 1)
    packed = [address.to_bytes(4) for address in some]
    for column in (pa.array(some, pa.uint32()), pa.array(packed, pa.binary(4))):
        for first, n in ((0, 0), (0, 1), (3, 255), (1, 256), (2, 257), (3, 512), (0, len(some))):
            claims, _, present = _arrow.read(table.handle(), column[first : first + n])
            expected = [shape.claim4(address) for address in some[first : first + n]]
            assert (memoryview(claims).cast("H").tolist(), present) == (expected, None)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (pa.int64(), -1),
        (pa.int64(), -(2**63)),
        (pa.int64(), 2**32),
        (pa.int64(), 2**32 + 0x01000101),
        (pa.int64(), 2**63 - 1),
        (pa.uint64(), 2**32),
        (pa.uint64(), 2**64 - 1),
    ],
)
def test_integer_beyond_ipv4_is_invalid(kind: pa.DataType, number: int, dataset: Dataset) -> None:
    column = pa.array([0x01000101, number, None, 0x01000101], kind)
    assert_answers(dataset, column, ["1.0.1.1", "", None, "1.0.1.1"])


@pytest.mark.parametrize("index", INDEX_TYPES, ids=str)
def test_dictionary_is_answered_by_its_values(index: pa.DataType, dataset: Dataset) -> None:
    values = pa.array(["1.0.1.1", None, "x", "2001:200::1", "3.0.0.1"])
    numbers = [0, 1, 2, None, 3, 4, 0, 3]
    column = pa.DictionaryArray.from_arrays(pa.array(numbers, index), values)
    texts = values.to_pylist()
    expected = [None if one is None else texts[one] for one in numbers]
    assert_answers(dataset, column, expected)
    assert_answers(dataset, column[3:], expected[3:])


def test_dictionaries_of_chunks_may_differ(dataset: Dataset) -> None:
    one, two = ["1.0.1.1", "2.0.0.1"], ["2.0.0.1", "x", "1.0.1.1"]
    column = pa.chunked_array(
        [pa.array(one).dictionary_encode(), pa.array(two).dictionary_encode()]
    )
    assert_answers(dataset, column, [*one, *two])


def test_only_nulls_have_no_answer(dataset: Dataset) -> None:
    assert_answers(dataset, pa.nulls(3), [None] * 3)
    assert_answers(dataset, pa.array([None, None], pa.string()), [None] * 2)


@pytest.mark.parametrize("kind", [*TEXT_TYPES, pa.binary(4), pa.uint32(), pa.null()], ids=str)
def test_column_may_be_empty(kind: pa.DataType, dataset: Dataset) -> None:
    assert_answers(dataset, pa.array([], kind), [])
    assert_answers(dataset, pa.chunked_array([], kind), [])


def test_frame_of_one_column_is_that_column(dataset: Dataset) -> None:
    texts = ["x", "1.0.1.1", None, "2.0.0.1"]
    table = pa.table({"ip": texts})
    assert_answers(dataset, table, texts)
    assert_answers(dataset, table.to_batches()[0][1:], texts[1:])


@pytest.mark.parametrize("dtype", ["U", "S"])
@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 45, 110, 111, 200])
def test_numpy_texts_are_answered_as_text(dtype: str, width: int, dataset: Dataset) -> None:
    kept = [text for text in TEXTS if text.isascii() and "\0" not in text]
    array = np.array(kept, dtype=f"{dtype}{width}")
    texts = [item.decode() if dtype == "S" else str(item) for item in array]
    assert_answers(dataset, array, texts)
    assert_answers(dataset, array[::3], texts[::3])
    assert_answers(dataset, array[::-1], texts[::-1])


def test_numpy_texts_beyond_ascii_are_invalid(dataset: Dataset) -> None:
    texts = ["1.0.1.1", "1.0.1.\uff11", "\U0001f600", "1.0.1.1\u0131"]
    assert_answers(dataset, np.array(texts), texts)
    assert_answers(dataset, np.array(texts).astype(np.array(texts).dtype.newbyteorder()), texts)


REFUSED = {
    "floats": (lambda: pa.array([1.5]), "DoubleArray has Arrow's type 'g', which holds no"),
    "signed integers of 32 bits": (lambda: pa.array([1], pa.int32()), "has Arrow's type 'i'"),
    "bytes of another width": (lambda: pa.array([b"12345678"], pa.binary(8)), "type 'w:8'"),
    "lists": (lambda: pa.array([["1.0.1.1"]]), r"has Arrow's type '\+l'"),
    "times": (lambda: pa.array([1], pa.timestamp("s")), "has Arrow's type 'tss:'"),
    "a dictionary of floats": (lambda: pa.array([1.5]).dictionary_encode(), "has Arrow's type 'g'"),
    "several columns": (
        lambda: pa.table({"a": ["1.0.1.1"], "b": ["1.0.1.1"]}),
        r"Table has several columns; pass one of them, such as frame\['ip'\]",
    ),
    "no column": (lambda: pa.table({}), "has several columns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_column_of_something_else_is_refused(name: str, dataset: Dataset) -> None:
    make, text = REFUSED[name]
    with pytest.raises(TypeError, match=f"^roster: a .*{text}"):
        dataset.classify(make())


def dictionary_with(index: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array([0, index], pa.int8()), pa.array(["1.0.1.1"] * 2), safe=False
    )


def view_with(buffer: int, offset: int) -> pa.Array:
    view = (
        (20).to_bytes(4, "little")
        + b"1234"
        + b"".join(one.to_bytes(4, "little", signed=True) for one in (buffer, offset))
    )
    buffers = [None, pa.py_buffer(view), pa.py_buffer(b"2001:0200:0000:0000::1" + bytes(10))]
    try:
        return pa.Array.from_buffers(pa.string_view(), 1, buffers)
    except ValueError:
        pytest.skip(f"pyarrow {pa.__version__} makes no views of buffers")


MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "an index at the dictionary's end": (lambda: dictionary_with(2), "an index beyond its dict"),
    "a negative index": (lambda: dictionary_with(-1), "an index beyond its dictionary"),
    "a view of no buffer": (lambda: view_with(1, 0), "a view beyond its buffer"),
    "a view of a negative buffer": (lambda: view_with(-1, 0), "a view beyond its buffer"),
    "a view beyond its buffer": (lambda: view_with(0, 20), "a view beyond its buffer"),
    "a view before its buffer": (lambda: view_with(0, -1), "a view beyond its buffer"),
    "too few buffers": (lambda: Foreign(_arrow.Array("u", 1, (None, bytes(8)))), "the buffers of"),
    "no values": (lambda: Foreign(_arrow.Array("I", 1, (None, None))), "has not the buffers of"),
    "numbers without a dictionary": (
        lambda: Foreign(_arrow.Array("I", -1, (None, bytes(4)))),
        "lengths that contradict each other",
    ),
    "a frame longer than its column": (
        lambda: Foreign(
            _arrow.Array("+s", 2, (None,), children=[_arrow.Array("I", 1, (None, bytes(4)))])
        ),
        "lengths that contradict each other",
    ),
}


class Foreign:
    """A column of another library."""

    def __init__(self, array: _arrow.Array) -> None:
        self.array = array

    def __arrow_c_array__(self, requested_schema: object) -> tuple[object, object]:
        return self.array.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_column_is_refused(name: str, dataset: Dataset) -> None:
    make, text = MALFORMED[name]
    with pytest.raises(RosterError, match=f"^roster: a .* {text}"):
        dataset.classify(make())


class Failing:
    def __arrow_c_stream__(self, requested_schema: object) -> object:
        raise ValueError("1.0.1.1 is no number")


def test_text_of_a_librarys_error_is_not_repeated(dataset: Dataset) -> None:
    with pytest.raises(TypeError) as caught:
        dataset.classify(Failing())
    text = "roster: a Failing could not be exported by its library, which raised ValueError"
    assert str(caught.value) == text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_error_of_a_stream_names_no_value(dataset: Dataset) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"ip": ["1.0.1.1"]})
        raise ValueError("1.0.1.1 can't be read")

    schema = pa.schema({"ip": pa.string()})
    reader = pa.RecordBatchReader.from_batches(schema, batches())
    with pytest.raises(RosterError, match="failed to deliver its next values") as caught:
        dataset.classify(reader)
    assert "1.0.1.1" not in str(caught.value)


def test_each_array_is_released(dataset: Dataset) -> None:
    column = pa.chunked_array(
        [pa.array(TEXTS), pa.array(TEXTS).dictionary_encode().dictionary_decode()]
    )
    dataset.classify(column)
    before = pa.total_allocated_bytes()
    for _ in range(20):
        reader = pa.RecordBatchReader.from_batches(
            pa.schema({"ip": pa.string()}), (pa.record_batch({"ip": TEXTS}) for _ in range(3))
        )
        dataset.classify(reader)
        dataset.classify(column)
        dataset.classify(column.chunk(0))
    del reader
    assert pa.total_allocated_bytes() == before


# --- out


def test_batch_lives_longer_than_the_result() -> None:
    with Dataset.from_buffer(encode(small_dataset.content())) as dataset:
        batch = dataset.classify(list(ONE_OF_EACH), region_set="CN").to_arrow()
        expected = [dataset.country(address) for address in ONE_OF_EACH]
    table = pa.record_batch(batch)
    del batch
    assert table["country"].to_pylist() == expected


def test_batch_is_handed_out_again_and_again(dataset: Dataset) -> None:
    batch = dataset.classify(list(ONE_OF_EACH), region_set="CN").to_arrow()
    assert len(batch) == len(ONE_OF_EACH)
    table = pa.table(batch)
    assert pa.table(batch) == table == pa.RecordBatchReader.from_stream(batch).read_all()
    assert pa.schema(batch) == table.schema
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write(table)
    assert pa.ipc.open_stream(stream.getvalue()).read_all() == table


def test_batch_without_a_region_set_has_no_verdicts(dataset: Dataset) -> None:
    batch = pa.record_batch(dataset.classify(["1.0.1.1"]).to_arrow())
    assert batch.schema.names == ["country", "status", "region", "networks"]


def test_batch_of_nothing_has_its_columns(dataset: Dataset) -> None:
    batch = pa.record_batch(dataset.classify([], region_set="CN").to_arrow())
    assert batch.num_rows == 0
    assert batch.schema.names == ["country", "status", "verdict", "reason", "region", "networks"]


def test_batch_of_groups_is_refused(dataset: Dataset) -> None:
    result = dataset.classify(["1.0.1.1", "2.0.0.1"], groups=[2], region_set="CN")
    with pytest.raises(ValueError, match="came in groups"):
        result.to_arrow()


def test_batch_tells_networks_and_regions() -> None:
    result = RosterResult.from_columns(
        size=3,
        countries=b"UADEZZ",
        statuses=bytes([1, 1, 7]),
        regions=b"UA-43\0" + bytes(12),
        networks=bytes([Network.VPN.bit | Network.TOR.bit, 0, Network.MOBILE.bit]),
        dataset="0" * 64,
    )
    batch = pa.record_batch(result.to_arrow())
    assert batch["region"].to_pylist() == ["UA-43", None, None]
    assert batch["networks"].to_pylist() == ["TOR,VPN", "", "MOBILE"]


def test_verdicts_have_each_position(dataset: Dataset) -> None:
    result = dataset.classify(list(ONE_OF_EACH), region_set="CN")
    expected = [dataset.lookup(address, "CN").verdict for address in ONE_OF_EACH]
    assert list(result.verdicts) == expected
    assert result.verdicts[0] is Verdict.INSIDE
    assert list(result.verdicts[1:3]) == expected[1:3]
    restored = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    assert restored.verdicts == result.verdicts
    with pytest.raises(ValueError, match="without a region set"):
        _ = dataset.classify(["1.0.1.1"]).verdicts


def test_nulls_are_kept_by_pickle(dataset: Dataset) -> None:
    result = dataset.classify(pa.array(["1.0.1.1", None]), region_set="CN")
    restored = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    assert rows(restored) == rows(result)
    assert rows(result)[1] is None


def test_notebook_shows_counts_and_escapes(dataset: Dataset) -> None:
    html = dataset.classify(["1.0.1.1", "x"], region_set="CN")._repr_html_()
    assert "<td>CN</td><td>1</td>" in html
    assert "1 INSIDE, 0 OUTSIDE, 1 UNDETERMINED" in html
    assert "1.0.1.1" not in html
    assert dataset.id[:12] in dataset._repr_html_()
    assert geolookup.open()._repr_html_().count("<tr>") == 1 + len(geolookup.open().sources)
