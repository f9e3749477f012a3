"""DuckDB functions: `geolookup.duckdb.register(connection)`, then `SELECT geo_country(ip)`.

`geo_country(ip)` is the country's code ("ZZ": none), `geo_verdict(ip, 'CN')` INSIDE, OUTSIDE or
UNDETERMINED, `geo_classify(ip, 'CN')` a struct of all that is known. NULL stays NULL. They need
pyarrow, by which DuckDB hands columns to Python.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from geolookup.answer.claims import Policy
from geolookup.answer.default_dataset import dataset_of
from geolookup.answer.pyarrow_columns import struct_array, text_array

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.results import RosterResult

_FIELDS = ("country", "status", "verdict", "reason", "region", "networks")


def register(
    connection: Any,
    *,
    dataset: Dataset | str | os.PathLike[str] | None = None,
    policy: Policy | str = Policy.UNANIMOUS,
    networks: str | None = None,
) -> None:
    """Make the functions known to a connection; again, to make them answer from another dataset.

    Args:
        connection: a `duckdb.DuckDBPyConnection`, of DuckDB 1.1 or newer.
        dataset: a `Dataset`, or the path of a file; None: the embedded dataset.
        policy: as `Dataset.classify`.
        networks: as `Dataset.classify`.

    Raises:
        ValueError: an unknown policy, or another value of *networks*.
        DatasetError, OSError: as `geolookup.open`.
    """
    opened = dataset_of(dataset)
    opened.classify((), region_set="CN", policy=policy, networks=networks)

    def classify(addresses: Any, region_set: str) -> RosterResult:
        return opened.classify(addresses, region_set=region_set, policy=policy, networks=networks)

    def country(addresses: Any) -> Any:
        return text_array(opened.classify(addresses), "country")

    def verdict(addresses: Any, region_sets: Any) -> Any:
        return _by_region_set(
            addresses, region_sets, lambda *asked: text_array(classify(*asked), "verdict")
        )

    def everything(addresses: Any, region_sets: Any) -> Any:
        return _by_region_set(
            addresses, region_sets, lambda *asked: struct_array(classify(*asked), _FIELDS)
        )

    text = "VARCHAR"
    struct = dict.fromkeys(_FIELDS, text)
    for name, function, arguments, kind in (
        ("geo_country", country, [text], text),
        ("geo_verdict", verdict, [text, text], text),
        ("geo_classify", everything, [text, text], connection.struct_type(struct)),
    ):
        if name in _registered(connection):
            connection.remove_function(name)
        connection.create_function(
            name, function, arguments, kind, type="arrow", null_handling="special"
        )


def _registered(connection: Any) -> set[str]:
    rows = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name LIKE 'geo\\_%'"
        " ESCAPE '\\'"
    ).fetchall()
    return {name for (name,) in rows}


def _by_region_set(addresses: Any, region_sets: Any, answer: Any) -> Any:
    """Return the answers where the region set is a column, as DuckDB passes each argument."""
    named = pc.unique(region_sets).to_pylist()
    if len(named) == 1 and named[0] is not None:
        return answer(addresses, named[0])
    parts, rows = [], []
    for name in named:
        here = region_sets.is_null() if name is None else pc.equal(region_sets, name)
        at = pc.indices_nonzero(here)
        # Without a region set there is no answer, as in SQL: those of nulls are null.
        chosen = pa.nulls(len(at), pa.string()) if name is None else addresses.take(at)
        parts.append(answer(chosen, name or "CN"))
        rows.append(at)
    order = pc.sort_indices(pa.concat_arrays(rows))
    return pa.concat_arrays(parts).take(order)
