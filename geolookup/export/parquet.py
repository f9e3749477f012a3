"""Parquet: one row per range, for all addresses of both families.

Each engine finds a type among the columns that it can join on: text, integers for IPv4
(``first_ipv4``), 16 bytes for IPv6 (``first_ipv6``), 4 or 16 bytes for both (``first_packed``),
and the prefixes that make up the range. Packed addresses are in network order, so within a family
they sort like the addresses. The file's own metadata names the dataset and its attributions.
"""

from __future__ import annotations

from itertools import islice
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet as pq

from geolookup.answer.intervals import BITS, FAMILIES, Family
from geolookup.export.rows import Row, Rows, prefixes, text

_ROWS_IN_GROUP = 1 << 16

# The others hardly repeat a value: without a dictionary they take two thirds of the room.
_WITH_DICTIONARY = ["code", "status", "claimed.list.element", "networks.list.element"]

_CATEGORY = pa.dictionary(pa.int16(), pa.string())
_TEXTS = pa.list_(pa.field("element", pa.string(), nullable=False))
# Not uint32: Spark, PostgreSQL and Java have no unsigned type, and all engines join int64.
_IPV4 = pa.int64()
# No integer: 2**128 has 39 digits, and the decimals of most engines end at 38.
_IPV6 = pa.binary(16)
SCHEMA = pa.schema(
    [
        pa.field("family", pa.uint8(), nullable=False),
        pa.field("first", pa.string(), nullable=False),
        pa.field("last", pa.string(), nullable=False),
        pa.field("first_packed", pa.binary(), nullable=False),
        pa.field("last_packed", pa.binary(), nullable=False),
        pa.field("first_ipv4", _IPV4),
        pa.field("last_ipv4", _IPV4),
        pa.field("first_ipv6", _IPV6),
        pa.field("last_ipv6", _IPV6),
        pa.field("prefixes", _TEXTS, nullable=False),
        pa.field("code", _CATEGORY, nullable=False),
        pa.field("status", _CATEGORY, nullable=False),
        pa.field("claimed", _TEXTS),
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
        schema = schema.append(pa.field("networks", _TEXTS))
    schema = schema.with_metadata(described)
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=_WITH_DICTIONARY
    ) as writer:
        for family in FAMILIES:
            following = rows.of(family)
            while some := list(islice(following, _ROWS_IN_GROUP)):
                writer.write_batch(_batch(family, some, schema))


def _batch(family: Family, some: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    size = BITS[family] // 8
    first = [row.first for row in some]
    last = [row.last for row in some]
    first_packed = [address.to_bytes(size) for address in first]
    last_packed = [address.to_bytes(size) for address in last]
    none = [None] * len(some)
    columns = [
        [family] * len(some),
        [text(family, address) for address in first],
        [text(family, address) for address in last],
        first_packed,
        last_packed,
        first if family == 4 else none,
        last if family == 4 else none,
        first_packed if family == 6 else none,
        last_packed if family == 6 else none,
        [_prefixes(family, row) for row in some],
        [row.value.code for row in some],
        [row.value.status for row in some],
        [row.value.claimed for row in some],
        [[kind.name for kind in row.value.networks] for row in some],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
    return pa.record_batch(arrays, schema=schema)


def _prefixes(family: Family, row: Row) -> list[str]:
    found = prefixes(family, row.first, row.last)
    return [f"{text(family, first)}/{length}" for first, length in found]
