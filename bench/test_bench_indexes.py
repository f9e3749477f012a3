"""The other ways to find and to read addresses give geolookup's own answers."""

from __future__ import annotations

import pytest

from bench.addresses import DRAWS, draw
from bench.indexes import OTHERS, Ways
from bench.kernels import UnavailableError
from geolookup.dataset import Dataset


@pytest.fixture(scope="module")
def ways(dataset: Dataset) -> Ways:
    try:
        return Ways(dataset)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("version", [4, 6])
def test_all_ways_agree(ways: Ways, version: int, kind: str) -> None:
    addresses = draw(ways.dataset, version, kind, 5_000)
    found = ways.finding(version, addresses.packed)  # which compares them
    assert found.keys() > OTHERS[version].keys()
    assert len(ways.reading(version, list(addresses.texts))) == 1 + len(ways.paths)
