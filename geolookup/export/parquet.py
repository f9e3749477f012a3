"""Parquet: one row per range, for all addresses of both families.

Columns: family (4 or 6), first and last (text), first_packed and last_packed (4 or 16
bytes in network order, which within a family sort like the addresses), code, status,
claimed (list), and with networks their kinds (list). The file's own metadata names the
dataset and its attributions.
"""

from __future__ import annotations

from itertools import islice
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet as pq

from geolookup.answer.intervals import BITS, FAMILIES, Family
from geolookup.export.rows import Row, Rows, text

_ROWS_IN_GROUP = 1 << 16

_CATEGORY = pa.dictionary(pa.int16(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("family", pa.uint8(), nullable=False),
        pa.field("first", pa.string(), nullable=False),
        pa.field("last", pa.string(), nullable=False),
        pa.field("first_packed", pa.binary(), nullable=False),
        pa.field("last_packed", pa.binary(), nullable=False),
        pa.field("code", _CATEGORY, nullable=False),
        pa.field("status", _CATEGORY, nullable=False),
        pa.field("claimed", pa.list_(pa.field("element", pa.string(), nullable=False))),
    ]
)


def write(rows: Rows, file: BinaryIO) -> None:
    """Write the rows as Parquet, IPv4 before IPv6."""
    described = {
        "geolookup.dataset": rows.dataset.id,
        "geolookup.built": rows.dataset.built.isoformat(),
        "geolookup.attributions": "\n".join(rows.dataset.attributions),
    }
    schema = SCHEMA
    if rows.networks:
        kinds = pa.list_(pa.field("element", pa.string(), nullable=False))
        schema = schema.append(pa.field("networks", kinds))
    schema = schema.with_metadata(described)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for family in FAMILIES:
            following = rows.of(family)
            while some := list(islice(following, _ROWS_IN_GROUP)):
                writer.write_batch(_batch(family, some, schema))


def _batch(family: Family, some: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    size = BITS[family] // 8
    first = [row.first for row in some]
    last = [row.last for row in some]
    columns = [
        [family] * len(some),
        [text(family, address) for address in first],
        [text(family, address) for address in last],
        [address.to_bytes(size) for address in first],
        [address.to_bytes(size) for address in last],
        [row.value.code for row in some],
        [row.value.status for row in some],
        [row.value.claimed for row in some],
        [[kind.name for kind in row.value.networks] for row in some],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
    return pa.record_batch(arrays, schema=schema)
