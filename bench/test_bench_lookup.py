"""One address at a time: 1,000 different ones a round, a list of answers out.

Times are for 1,000 addresses; divide by 1,000 for one.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.addresses import DRAWS, draw
from geolookup import Dataset

SIZE = 1_000


@pytest.mark.benchmark(group="country(str), 1,000 times")
@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("version", [4, 6])
def test_country_of_text(
    benchmark: BenchmarkFixture, dataset: Dataset, version: int, kind: str
) -> None:
    texts, country = draw(dataset, version, kind, SIZE).texts, dataset.country
    benchmark(lambda: [country(text) for text in texts])


@pytest.mark.benchmark(group="country(str), 1,000 times")
@pytest.mark.parametrize(
    "text",
    ["10.1.2.3", "::ffff:1.0.1.1", "fe80::1%eth0", "1.2.3.4:80"],
    ids=["special-purpose", "IPv4-mapped", "zone", "malformed"],
)
def test_country_of_other_text(benchmark: BenchmarkFixture, dataset: Dataset, text: str) -> None:
    country, again = dataset.country, range(SIZE)
    benchmark(lambda: [country(text) for _ in again])


@pytest.mark.benchmark(group="country(packed bytes), 1,000 times")
@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("version", [4, 6])
def test_country_of_packed(
    benchmark: BenchmarkFixture, dataset: Dataset, version: int, kind: str
) -> None:
    size = 4 if version == 4 else 16
    packed = draw(dataset, version, kind, SIZE).packed
    addresses = [packed[at : at + size] for at in range(0, len(packed), size)]
    country = dataset.country
    benchmark(lambda: [country(address) for address in addresses])


@pytest.mark.benchmark(group="lookup(str), 1,000 times")
@pytest.mark.parametrize("region_set", [None, "CN", "EEA-NO"])
def test_lookup(benchmark: BenchmarkFixture, dataset: Dataset, region_set: str | None) -> None:
    """A whole answer, with and without a verdict."""
    texts, lookup = draw(dataset, 4, "assigned", SIZE).texts, dataset.lookup
    benchmark(lambda: [lookup(text, region_set) for text in texts])
