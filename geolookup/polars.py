"""Polars expressions: `import geolookup.polars`, then `pl.col("ip").geo.country()`.

Works on columns of text, packed addresses (binary) and integers; eagerly, lazily and in
streaming. A null stays null. Countries, statuses, verdicts and reasons are Enums.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import polars as pl

from geolookup.answer.arrow import COUNTRY_CODES
from geolookup.answer.claims import Policy, Reason, Status, Verdict
from geolookup.answer.default_dataset import dataset_of
from geolookup.answer.region_sets import RegionSet

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.results import RosterResult

    _Source = Dataset | str | os.PathLike[str] | None

_TYPES: dict[str, Any] = {
    "country": pl.Enum(COUNTRY_CODES),
    "status": pl.Enum([one.name for one in Status]),
    "verdict": pl.Enum([one.name for one in Verdict]),
    "reason": pl.Enum([one.name for one in Reason]),
    "region": pl.String(),
    "networks": pl.String(),
}
_WITHOUT_REGION_SET = ("country", "status", "region", "networks")


@pl.api.register_expr_namespace("geo")
class Geo:
    """What geolookup knows of a column of addresses: `pl.col("ip").geo`.

    Each method takes `dataset`: a `Dataset`, or the path of a file, which is opened where the
    expression runs; None: the embedded dataset. The other arguments are those of
    `Dataset.classify`; what is wrong with them is said at once, and what is wrong with the
    column (`TypeError`, `RosterError`) when the expression runs.
    """

    def __init__(self, expression: pl.Expr) -> None:
        self._expression = expression

    def country(self, *, dataset: _Source = None) -> pl.Expr:
        """Return the country's code of each address, as an Enum; "ZZ": none."""
        return self._mapped(_Question(dataset), "country")

    def verdict(
        self,
        region_set: str | RegionSet,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        dataset: _Source = None,
    ) -> pl.Expr:
        """Return INSIDE, OUTSIDE or UNDETERMINED of each address, as an Enum.

        Raises:
            RegionSetError, ValueError, TypeError: as `Dataset.classify`.
        """
        return self._mapped(_Question(dataset, region_set, policy, networks), "verdict")

    def classify(
        self,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        dataset: _Source = None,
    ) -> pl.Expr:
        """Return all that is known of each address, as a struct.

        Its fields are those of `RosterResult.to_arrow`.

        Raises:
            RegionSetError, ValueError, TypeError: as `Dataset.classify`.
        """
        return self._mapped(_Question(dataset, region_set, policy, networks), None)

    def _mapped(self, question: _Question, field: str | None) -> pl.Expr:
        fields = _WITHOUT_REGION_SET if question.region_set is None else tuple(_TYPES)
        kind: Any = pl.Struct({name: _TYPES[name] for name in fields})

        def answer(addresses: pl.Series) -> pl.Series:
            return _answer(question.ask(addresses), addresses.name, fields, field)

        # Polars asks for the type before there are rows.
        return self._expression.map_batches(
            answer, return_dtype=kind if field is None else _TYPES[field], is_elementwise=True
        )


class _Question:
    """What is asked of each address, checked when it is made."""

    def __init__(
        self,
        dataset: _Source,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
    ) -> None:
        self.dataset = dataset
        self.region_set = region_set
        self.policy = policy
        self.networks = networks
        self.ask(())

    def ask(self, addresses: Any) -> RosterResult:
        return dataset_of(self.dataset).classify(
            addresses, region_set=self.region_set, policy=self.policy, networks=self.networks
        )


def _answer(
    result: RosterResult, name: str, fields: tuple[str, ...], field: str | None
) -> pl.Series:
    if field is not None:
        return _column(result, field).alias(name)
    return pl.DataFrame([_column(result, each) for each in fields]).to_struct(name)


def _column(result: RosterResult, field: str) -> pl.Series:
    kind, column = _TYPES[field], result.text_column(field)
    if not isinstance(kind, pl.Enum):
        return pl.Series(field, column.array()).cast(kind)
    # Its numbers are those of the Enum. Polars 2 has a way of its own to say so.
    numbers: Any = pl.Series(field, column.array(numbers=True))
    series: pl.Series = numbers.cat.to(kind) if hasattr(numbers.cat, "to") else numbers.cast(kind)
    return series
