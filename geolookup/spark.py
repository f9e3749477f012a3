"""Spark: `geolookup.spark.classify(frame, "ip", "CN")` puts what is known beside the addresses.

Works on columns of text, packed addresses (binary) and integers (bigint). Only the addresses pass
through Python, in Arrow batches. A null stays null. Needs Spark 4.1 or newer, and geolookup on
each node.
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyspark
from pyspark import SparkFiles
from pyspark.sql import functions
from pyspark.sql.types import (
    BinaryType,
    CharType,
    LongType,
    StringType,
    StructField,
    StructType,
    VarcharType,
)

from geolookup.answer.claims import Policy
from geolookup.answer.default_dataset import dataset_of
from geolookup.answer.pyarrow_columns import struct_array, text_array
from geolookup.atomic import temporary_name
from geolookup.errors import DatasetError

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.region_sets import RegionSet
    from geolookup.answer.results import RosterResult

    _Path = str | os.PathLike[str] | None

if not hasattr(functions, "arrow_udf"):
    raise ImportError(f"geolookup.spark needs pyspark 4.1 or newer; this is {pyspark.__version__}")

_WITHOUT_REGION_SET = ("country", "status", "region", "networks")
_FIELDS = ("country", "status", "verdict", "reason", "region", "networks")
_HOLD_ADDRESSES = (StringType, VarcharType, CharType, BinaryType, LongType)


def country(
    frame: Any,
    column: Any,
    *,
    dataset: _Path = None,
    on_every_node: bool = False,
    into: str = "country",
) -> Any:
    """Return a frame with the country's code of each address; "ZZ": none.

    Args and errors are those of `classify`.
    """
    return _annotated(frame, column, _Question("country"), dataset, on_every_node, into)


def verdict(
    frame: Any,
    column: Any,
    region_set: str | RegionSet,
    policy: Policy | str = Policy.UNANIMOUS,
    networks: str | None = None,
    *,
    dataset: _Path = None,
    on_every_node: bool = False,
    into: str = "verdict",
) -> Any:
    """Return a frame with INSIDE, OUTSIDE or UNDETERMINED of each address.

    Args and errors are those of `classify`.
    """
    question = _Question("verdict", region_set, policy, networks)
    return _annotated(frame, column, question, dataset, on_every_node, into)


def classify(
    frame: Any,
    column: Any,
    region_set: str | RegionSet | None = None,
    policy: Policy | str = Policy.UNANIMOUS,
    networks: str | None = None,
    *,
    dataset: _Path = None,
    on_every_node: bool = False,
    into: str = "geo",
) -> Any:
    """Return a frame with all that is known of each address, as a struct of strings.

    Its fields are those of `RosterResult.to_arrow`. The column's metadata have the dataset's id,
    when it was built, and its attributions, by the names that Parquet exports use.

    Args:
        frame: a `pyspark.sql.DataFrame`.
        column: the column of addresses: its name, or a `pyspark.sql.Column`.
        region_set: as `Dataset.classify`.
        policy: as `Dataset.classify`.
        networks: as `Dataset.classify`.
        dataset: the path of a file, which is sent to the nodes; None: the embedded dataset.
        on_every_node: the file has the same path on each node, so nothing is sent.
        into: the name of the new column.

    Raises:
        pyspark.errors.AnalysisException: there is no such column.
        RegionSetError, ValueError, TypeError: as `Dataset.classify`.
        DatasetError, OSError: as `geolookup.open`.
        TypeError: the column holds no addresses, or *dataset* is no path.
        ValueError: the frame has a column *into*, or a client of Spark Connect was to send a file.
        pyspark.errors.PythonException: when the frame is read, a node's file or embedded dataset
            is missing, damaged or another one. No error's text has an address.
    """
    question = _Question(None, region_set, policy, networks)
    return _annotated(frame, column, question, dataset, on_every_node, into)


@dataclass(frozen=True)
class _Place:
    """Where a worker finds the dataset.

    Attributes:
        name: a path, or the name of a file that was sent; None: the embedded dataset.
        is_sent: it was sent.
        dataset_id: what the file must be.
    """

    name: str | None
    is_sent: bool
    dataset_id: str

    def opened(self) -> Dataset:
        """Return the dataset, which is opened once a worker.

        Raises:
            DatasetError: it is missing or another one.
        """
        path = _received(self.name) if self.is_sent and self.name else self.name
        node = socket.gethostname()
        try:
            dataset = dataset_of(path)
        except FileNotFoundError:
            raise DatasetError(f"dataset: no file {path} on node {node}") from None
        if dataset.id != self.dataset_id:
            raise DatasetError(
                f"dataset: {path or 'the embedded one'} on node {node} is {dataset.id[:12]},"
                f" not {self.dataset_id[:12]}, for which the frame was made"
            )
        return dataset


@dataclass(frozen=True)
class _Question:
    """What is asked of each address.

    Attributes:
        field: the one that is wanted; None: all.
    """

    field: str | None
    region_set: str | RegionSet | None = None
    policy: Policy | str = Policy.UNANIMOUS
    networks: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        return _WITHOUT_REGION_SET if self.region_set is None else _FIELDS

    @property
    def type(self) -> Any:
        """Spark's type of an answer."""
        if self.field is not None:
            return StringType()
        return StructType([StructField(name, StringType()) for name in self.fields])

    def ask(self, dataset: Dataset, addresses: Any) -> RosterResult:
        return dataset.classify(
            addresses, region_set=self.region_set, policy=self.policy, networks=self.networks
        )


@dataclass(frozen=True)
class _Lookup:
    """What is done in workers, where it comes pickled."""

    question: _Question
    place: _Place

    def answers(self, addresses: pa.Array) -> pa.Array:
        """Return the answers for a batch."""
        result = self.question.ask(self.place.opened(), addresses)
        if self.question.field is not None:
            return text_array(result, self.question.field)
        # Spark matches fields by name, and takes one of another name for NULL without an error.
        return struct_array(result, self.question.fields)


def _annotated(
    frame: Any,
    column: Any,
    question: _Question,
    dataset: _Path,
    on_every_node: bool,
    into: str,
) -> Any:
    _check(frame, column, into)
    if not (dataset is None or isinstance(dataset, (str, os.PathLike))):
        raise TypeError(
            f"dataset: expected a path, not {type(dataset).__name__}: workers open its file"
        )
    opened = dataset_of(dataset)
    question.ask(opened, ())
    place = _Place(None, False, opened.id)
    if dataset is not None:
        path = os.path.abspath(dataset)
        if on_every_node:
            place = _Place(path, False, opened.id)
        else:
            place = _Place(_send(frame.sparkSession, path, opened.id), True, opened.id)
    described = {
        "geolookup.dataset": opened.id,
        "geolookup.built": opened.built.isoformat(),
        "geolookup.attributions": "\n".join(opened.attributions),
    }
    answers = functions.arrow_udf(_Lookup(question, place).answers, question.type)(column)
    return frame.select("*", answers.alias(into, metadata=described))


def _check(frame: Any, column: Any, into: str) -> None:
    # Spark reads names in any letter case.
    if into.lower() in (name.lower() for name in frame.columns):
        raise ValueError(f"into: the frame has a column {into!r} already; choose another name")
    chosen = frame.select(column).schema.fields
    if len(chosen) != 1:
        raise TypeError(f"column: expected one, not {len(chosen)}")
    kind = chosen[0].dataType
    if not isinstance(kind, _HOLD_ADDRESSES):
        raise TypeError(
            f"column {chosen[0].name!r} holds no addresses: its type is {kind.simpleString()};"
            " expected string, binary or bigint"
        )


def _send(session: Any, path: str, dataset_id: str) -> str:
    """Send a file to the nodes, once a session; return the name that it has there.

    Its name has its id, since Spark sends no second file of the same name.
    """
    context = getattr(session, "sparkContext", None)
    if context is None:
        raise ValueError(
            "dataset: a client of Spark Connect can't send it; put it on each node, under the same"
            " path as here, and pass on_every_node=True"
        )
    name = f"geolookup-{dataset_id}"
    # Spark deletes this folder when the session ends.
    target = os.path.join(SparkFiles.getRootDirectory(), name)
    if not os.path.exists(target):
        temporary = temporary_name(target)
        shutil.copyfile(path, temporary)
        os.replace(temporary, target)
        context.addFile(target)
    return name


def _received(name: str) -> str:
    """Return the path of a file that was sent, in a worker."""
    path: str = SparkFiles.get(name)
    if not os.path.exists(path):
        # Sessions that have artifacts of their own look in a folder of their own, in the one
        # where this is.
        above = os.path.join(os.path.dirname(os.path.dirname(path)), name)
        if os.path.exists(above):
            return above
    return path
