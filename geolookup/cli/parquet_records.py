"""Parquet files of records: read and written by columns of Arrow, some rows at a time."""

from __future__ import annotations

import io
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet as pq

from geolookup.answer.arrow import column_addresses
from geolookup.errors import NoRosterError, RosterError

if TYPE_CHECKING:
    from geolookup._arrow import Array
    from geolookup.cli.records import RecordFile, Selection

_WRITTEN_AT_ONCE: Final = 64 << 20
"""Bytes of rows, as Arrow has them, that are held until they are written: a row group at most."""

_ANSWER: Final = pa.dictionary(pa.int16(), pa.string())

_CODECS: Final = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4", "LZ4_HADOOP": "LZ4"}
"""Names of pyarrow's for what metadata calls otherwise."""
_NEW_CODEC: Final = "ZSTD"
"""Of files without rows, and of codecs that pyarrow does not write."""

_ENCODINGS: Final = (
    "DELTA_BINARY_PACKED",
    "DELTA_BYTE_ARRAY",
    "DELTA_LENGTH_BYTE_ARRAY",
    "BYTE_STREAM_SPLIT",
)
"""Those that a column without a dictionary keeps."""

_SPARK: Final = b"org.apache.spark.sql.parquet.row.metadata"
"""Where Spark writes its own schema, which it reads before that of the file."""


@dataclass(frozen=True, slots=True)
class ParquetBatch:
    """Some rows of a row group.

    Attributes:
        file: where they are from.
        table: a record batch of all columns.
        column_of_addresses: an array.
        selection: how a value is read.
        ends_group: whether the next rows are those of another row group.
    """

    file: RecordFile
    table: Any
    column_of_addresses: Any
    selection: Selection
    ends_group: bool

    @property
    def roster(self) -> Any:
        """The column, or a list of addresses where the values have another form."""
        if self.selection.form != "address":
            return self.addresses
        return _trimmed(self.column_of_addresses)

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @property
    def addresses(self) -> list[str]:
        """The address of each."""
        return [self._address(value) for value in self.column_of_addresses.to_pylist()]

    def text(self, at: int) -> str:
        """Return one of `addresses`."""
        return self._address(self.column_of_addresses[at].as_py())

    def _address(self, value: object) -> str:
        if isinstance(value, bytes) and len(value) in {4, 16}:
            family = socket.AF_INET if len(value) == 4 else socket.AF_INET6
            return socket.inet_ntop(family, value)
        if isinstance(value, int) and 0 <= value < 1 << 32:
            return str(ipaddress.IPv4Address(value))
        return self.selection.address(value)

    def column(self, name: str, option: str) -> list[str]:
        """Return the text of another column."""
        index = self.file.position(self.table.schema.names, name, option)
        return [
            "" if value is None else str(value) for value in self.table.column(index).to_pylist()
        ]


class ParquetRecords:
    """Reads a Parquet file of records.

    Args:
        file: the file, not read yet.
        selection: which column has the addresses: a dot leads to a field of a struct.

    Raises:
        click.UsageError: no such column, or a selection that is for lines.
        RosterError: no Parquet, or none that can be read.
        NoRosterError: the column's type holds no addresses.
    """

    is_binary = True

    def __init__(self, file: RecordFile, selection: Selection) -> None:
        if selection.pattern is not None:
            raise click.UsageError("--pattern is for lines of text; a Parquet file has columns")
        if not file.raw.seekable():
            raise RosterError(f"{file.name}: Parquet is read from its end; save it as a file")
        try:
            self._file = pq.ParquetFile(file.raw)
            self._schema = self._file.schema_arrow
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's are of these kinds
            raise RosterError(f"{file.name}: no Parquet that can be read") from error
        self._records = file
        self._selection = selection
        self._path = self._path_of_column()
        self._check_type()
        self._rows = 0
        whole, total = file.size or 0, max(self._file.metadata.num_rows, 1)
        file.on_read(lambda: whole * min(self._rows, total) // total)

    def _path_of_column(self) -> list[int]:
        """Return the position of the column of addresses, and below it those of fields."""
        column, names = self._selection.column, self._schema.names
        if column is None or column in names or "." not in column:
            return [self._records.index(names)]
        first, *fields = column.split(".")
        path = [self._records.position(names, first, "--column")]
        kind = self._schema.field(path[0]).type
        for field in fields:
            at = kind.get_field_index(field) if pa.types.is_struct(kind) else -1
            if at < 0:
                raise click.UsageError(
                    f"{self._records.name}: no column has the name given as --column, and none has"
                    " such a field"
                )
            path.append(at)
            kind = kind.field(at).type
        return path

    def _column(self, table: Any) -> Any:
        column = table.column(self._path[0])
        for field in self._path[1:]:
            column = pc.struct_field(column, [field])
        return column

    def _check_type(self) -> None:
        kind = self._column(self._schema.empty_table().combine_chunks()).type
        name = "a nested type"  # also a struct of one field, which would pass for a frame
        if not pa.types.is_nested(kind):
            try:
                column_addresses(pa.array([], kind))
            except (TypeError, NotImplementedError):
                name = f"the type {kind}"
            else:
                return
        raise NoRosterError(
            f"{self._records.name}: the column of addresses has {name}, which holds none; expected"
            " text, 4 or 16 packed bytes, or IPv4 addresses as uint32, uint64 or int64. A field of"
            " a struct is --column NAME.FIELD"
        )

    def batches(self, size: int) -> Iterator[ParquetBatch]:
        """Yield the rows in batches of *size*; the last one of a row group is shorter."""
        metadata = self._file.metadata
        try:
            for group in range(metadata.num_row_groups):
                left = metadata.row_group(group).num_rows
                for table in self._file.iter_batches(batch_size=size, row_groups=[group]):
                    self._rows += table.num_rows
                    left -= table.num_rows
                    yield ParquetBatch(
                        self._records, table, self._column(table), self._selection, left <= 0
                    )
        except (OSError, ValueError) as error:
            raise RosterError(f"{self._records.name}: damaged Parquet") from error

    def writer(self, out: BinaryIO, added: Sequence[str]) -> ParquetWriter:
        """Return what writes rows, with further columns, in a file of the same form."""
        self._records.check_added(self._schema.names, added)
        return ParquetWriter(self._file, self._path[0], out, added)


class ParquetWriter:
    """Writes rows as they were: schema, metadata, row groups, codecs and encodings are kept.

    A row group whose rows have more than 64 MiB in memory is divided.
    """

    def __init__(self, source: Any, like: int, out: BinaryIO, added: Sequence[str]) -> None:
        self._source = source
        self._like = like
        self._added = tuple(added)
        self._sink = _Sink(out)
        self._writer: Any = None
        self._pending: list[Any] = []
        self._bytes = 0

    def write(
        self,
        batch: ParquetBatch,
        added: Mapping[str, Sequence[str] | Sequence[Array]],
        chosen: Sequence[int],
    ) -> None:
        """Write the rows at the positions *chosen*, with columns of text or arrays of Arrow."""
        table = pa.Table.from_batches([batch.table])
        for name, values in added.items():
            table = table.append_column(name, _column_of(values))
        if len(chosen) < table.num_rows:
            table = table.take(pa.array(chosen, pa.int64()))
        self._pending.append(table)
        self._bytes += table.nbytes
        if self._bytes >= _WRITTEN_AT_ONCE or (batch.ends_group and added):
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        if self._writer is None:
            self._open([_ANSWER for _ in self._added])
        with self._sink:
            self._writer.close()

    def _flush(self) -> None:
        tables, self._pending, self._bytes = self._pending, [], 0
        rows = sum(table.num_rows for table in tables)
        if not rows:
            return
        if self._writer is None:
            self._open([tables[0].schema.field(name).type for name in self._added])
        with self._sink:
            self._writer.write_table(pa.concat_tables(tables), row_group_size=rows)

    def _open(self, types: Sequence[Any]) -> None:
        """Begin the file, when the types of the new columns are known: to change them takes time.

        pyarrow reads dictionaries of any type of numbers from Parquet alike.
        """
        schema = self._source.schema_arrow
        for name, kind in zip(self._added, types, strict=True):
            schema = schema.append(pa.field(name, kind))
        if schema.metadata is not None:
            schema = schema.with_metadata(_described(schema.metadata, self._added))
        options = _options(self._source, schema, self._like)
        with self._sink:
            self._writer = pq.ParquetWriter(self._sink, schema, **options)


class _Sink(io.RawIOBase):
    """Passes on what is written inside of a with statement, and drops the rest.

    A ParquetWriter that is destroyed after an error would write the end of a whole file.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._is_open = False

    def write(self, data: Any) -> int:
        if self._is_open:
            self._out.write(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def __enter__(self) -> _Sink:
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False


def _trimmed(column: Any) -> Any:
    """Return a column of text without the spaces around its values."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(column.indices, _trimmed(column.dictionary))
    if pa.types.is_string_view(kind):
        column, kind = column.cast(pa.large_string()), pa.large_string()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.ascii_trim_whitespace(column)
    return column


def _column_of(values: Sequence[str] | Sequence[Array]) -> Any:
    if not values or isinstance(values[0], str):
        return pa.array(values, pa.string()).dictionary_encode().cast(_ANSWER)
    return pa.chunked_array([pa.array(part) for part in values])


def _described(metadata: Mapping[bytes, bytes], added: Sequence[str]) -> dict[bytes, bytes]:
    """Return a file's own metadata, with further columns of text where Spark looks for them."""
    described = dict(metadata)
    if _SPARK in described:
        try:
            schema = json.loads(described[_SPARK])
            schema["fields"] += [
                {"name": name, "type": "string", "nullable": True, "metadata": {}} for name in added
            ]
            described[_SPARK] = json.dumps(schema).encode()
        except (ValueError, LookupError, TypeError):
            del described[_SPARK]  # then Spark reads the schema of the file
    return described


def _options(source: Any, schema: Any, like: int) -> dict[str, Any]:
    """Return how to write a file as another one was written.

    Args:
        source: that file.
        schema: of the new one: the columns of *source*, and others behind them.
        like: the column that those behind are compressed like.
    """
    metadata = source.metadata
    options: dict[str, Any] = {"use_compliant_nested_type": False, "compression": _NEW_CODEC}
    if not metadata.num_row_groups:
        return options
    group = metadata.row_group(0)
    leaves = [group.column(at) for at in range(metadata.num_columns)]
    paths = _paths(schema, options)
    root = schema.names[like]
    near = next(leaf for leaf in leaves if leaf.path_in_schema.split(".")[0] == root)
    behind = paths[len(leaves) :]
    options["compression"] = {
        **{path: _codec(leaf.compression) for path, leaf in zip(paths, leaves, strict=False)},
        **dict.fromkeys(behind, _codec(near.compression)),
    }
    options["use_dictionary"] = behind.copy()
    options["column_encoding"] = {}
    for path, leaf in zip(paths, leaves, strict=False):
        encoding = next((one for one in _ENCODINGS if one in leaf.encodings), None)
        if leaf.has_dictionary_page:
            options["use_dictionary"].append(path)
        elif encoding is not None:
            options["column_encoding"][path] = encoding
    options["use_deprecated_int96_timestamps"] = any(
        leaf.physical_type == "INT96" for leaf in leaves
    )
    options["write_page_index"] = any(leaf.has_column_index for leaf in leaves)
    options["store_decimal_as_integer"] = any(
        leaf.physical_type.startswith("INT") and kind.logical_type.type == "DECIMAL"
        for leaf, kind in zip(leaves, source.schema, strict=True)
    )
    if group.sorting_columns:
        options["sorting_columns"] = group.sorting_columns
    return options


def _paths(schema: Any, options: Mapping[str, Any]) -> list[str]:
    """Return how pyarrow names the columns without others below them, in their order."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty, **options)
    return [column.path for column in pq.ParquetFile(empty).schema]


def _codec(name: str) -> str:
    name = _CODECS.get(name, name)
    return name if name == "NONE" or pa.Codec.is_available(name.lower()) else _NEW_CODEC
