"""A pandas accessor: `import geolookup.pandas`, then `frame["ip"].geo.country()`.

Works on columns of text and of Python's addresses, whatever pandas keeps them in, and on those of
integers. A missing value stays missing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from geolookup.answer.arrow import categories
from geolookup.answer.claims import Policy
from geolookup.answer.default_dataset import dataset_of

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.region_sets import RegionSet
    from geolookup.answer.results import RosterResult

    _Source = Dataset | str | os.PathLike[str] | None


@pd.api.extensions.register_series_accessor("geo")
class Geo:
    """What geolookup knows of a column of addresses: `frame["ip"].geo`.

    The results have the column's index. Each method takes `dataset`: a `Dataset` or the path of
    a file; None: the embedded dataset. The other arguments, and the errors, are those of
    `Dataset.classify`.
    """

    def __init__(self, column: Any) -> None:
        self._column = column

    def country(self, *, dataset: _Source = None) -> Any:
        """Return the country's code of each address, as a Series of categories; "ZZ": none."""
        return self._series(self._asked(dataset), "country")

    def verdict(
        self,
        region_set: str | RegionSet,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        dataset: _Source = None,
    ) -> Any:
        """Return INSIDE, OUTSIDE or UNDETERMINED of each address, as a Series of categories."""
        return self._series(self._asked(dataset, region_set, policy, networks), "verdict")

    def classify(
        self,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
        *,
        dataset: _Source = None,
    ) -> Any:
        """Return all that is known of each address, as a DataFrame: see `RosterResult.to_pandas`.

        `frame.join(frame["ip"].geo.classify("CN"))` puts it beside the addresses.
        """
        result = self._asked(dataset, region_set, policy, networks)
        return result.to_pandas(index=self._column.index)

    def _asked(
        self,
        dataset: _Source,
        region_set: str | RegionSet | None = None,
        policy: Policy | str = Policy.UNANIMOUS,
        networks: str | None = None,
    ) -> RosterResult:
        return dataset_of(dataset).classify(
            self._column, region_set=region_set, policy=policy, networks=networks
        )

    def _series(self, result: RosterResult, name: str) -> Any:
        answers = categories(result.text_column(name))
        return pd.Series(answers, index=self._column.index, name=self._column.name)
