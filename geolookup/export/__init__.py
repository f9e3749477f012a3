"""A dataset in the formats of other programs.

All formats have the same content, as far as they can express it; see `rows`. A file depends
on nothing but the dataset, the options and the version of the library that writes it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from functools import partial
from types import MappingProxyType
from typing import BinaryIO, Final

from geolookup.answer.claims import Network
from geolookup.answer.dataset import Dataset
from geolookup.errors import MissingExtraError
from geolookup.export.names import check_database_type, check_table
from geolookup.export.rows import Disputed, Progress, Rows

# Imported when the format is asked for, as some need a library of their own.
_MODULES: Final = MappingProxyType(
    {
        "mmdb": "mmdb",
        "csv": "range_csv",
        "prefixes": "prefix_csv",
        "parquet": "parquet",
        "geofeed": "geofeed",
        "nftables": "nftables",
        "ipset": "ipset",
        "haproxy": "haproxy",
        "nginx": "nginx",
    }
)

FORMATS: Final = tuple(_MODULES)
"""The names of the formats."""

_SETS: Final = ("nftables", "ipset")
"""Formats with a set for each country or kind."""

_EXTRAS: Final = MappingProxyType({"mmdb_writer": "mmdb", "pyarrow": "parquet"})
"""The extra of geolookup that installs a library."""

_WORK_AFTER_ROWS: Final = MappingProxyType({"mmdb": 2.0})
"""Time that a format takes after the last row, relative to that of the rows (measured)."""


def export(
    dataset: Dataset,
    file: BinaryIO,
    format_name: str,
    *,
    disputed: Disputed = "omit",
    codes: Collection[str] | None = None,
    regions: bool = False,
    networks: Collection[Network] = (),
    table: str | None = None,
    database_type: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a dataset to an open file in another format.

    Args:
        dataset: what to write.
        file: open for writing bytes; for "mmdb" it has a file descriptor.
        format_name: one of `FORMATS`.
        disputed: what the country is where not all sources name the same: "omit",
            none; "primary", what the first source that speaks says.
        codes: write only what has one of these codes of countries or subdivisions. Not for
            "mmdb", where the others would read as if nothing were known of them.
        regions: write subdivisions in place of their countries, where enough sources name
            them; see `geolookup.open`.
        networks: write only what is of one of these kinds, and the kinds with it. "mmdb" is in the
            form of GeoIP2's Anonymous-IP then; "nftables", "ipset", "haproxy" and "nginx" have
            kinds instead of countries. Not for "geofeed", which has no place for kinds.
        table: for "nftables" only: the table that holds the sets; None: "geolookup".
        database_type: for "mmdb" only: the name by which readers recognise the kind of database;
            None: "geolookup-Country", or "GeoIP2-Anonymous-IP" with *networks*.
        progress: called now and then with (how much is done, how much there is).

    Raises:
        ValueError: an unknown format, an argument that it has no use for, or *networks* of a
            dataset that has no lists of networks.
        MissingExtraError: the format's library is not installed; the text says how to.
        DatasetClosedError: the dataset was closed.
        OSError: as the operating system has it, such as a full disk.
    """
    if format_name not in _MODULES:
        raise ValueError(f"format_name: unknown; expected one of {', '.join(FORMATS)}")
    if codes is not None and format_name == "mmdb":
        raise ValueError("codes: an MMDB file holds all codes")
    if networks:
        _check_networks(dataset, format_name, by_code=codes is not None or regions)
    if table is not None:
        _check("table", format_name, "nftables")
        _check_name("table", check_table, table)
    if database_type is not None:
        _check("database_type", format_name, "mmdb")
        check_type = partial(check_database_type, only_networks=bool(networks))
        _check_name("database_type", check_type, database_type)
    try:
        module = importlib.import_module(f"geolookup.export.{_MODULES[format_name]}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        if extra is None:
            raise
        raise MissingExtraError(f"the format {format_name}", str(error.name), extra) from None
    options = {} if table is None else {"table": table}
    if database_type is not None:
        options["database_type"] = database_type
    more = 1 + _WORK_AFTER_ROWS.get(format_name, 0)

    def on_row(done: int, total: int) -> None:
        if progress is not None:
            progress(done, round(total * more))

    # A database of countries has room for them, and its readers look for them.
    told = networks or (Network if format_name == "mmdb" else ())
    rows = Rows(
        dataset,
        disputed=disputed,
        codes=codes,
        regions=regions,
        networks=tuple(told),
        only_networks=bool(networks),
        progress=on_row,
    )
    module.write(rows, file, **options)
    if progress is not None:
        progress(1, 1)


def _check_networks(dataset: Dataset, format_name: str, *, by_code: bool) -> None:
    if not dataset.network_lists:
        raise ValueError("networks: the dataset has no lists of networks")
    if format_name == "geofeed":
        raise ValueError("networks: a geofeed has no place for what a network is used for")
    if format_name in _SETS and by_code:
        raise ValueError(
            f"networks: {format_name} has sets of kinds or of countries; ask for one of them"
        )


def _check(argument: str, format_name: str, only: str) -> None:
    if format_name != only:
        raise ValueError(f"{argument}: {format_name} has none")


def _check_name(argument: str, check: Callable[[str], None], name: str) -> None:
    try:
        check(name)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None
