"""One client, one call at a time, over a real socket: the time a caller waits.

How many calls a second a service bears, and its slowest ones, are service_load.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.addresses import draw, mixed_packed
from geolookup import Dataset
from geolookup.client import Client

TRANSPORTS = ("tcp", "unix")
SIZES = (1, 100, 1_000, 100_000)


@pytest.fixture(params=TRANSPORTS)
def client(request: pytest.FixtureRequest, server: dict[str, str]) -> Iterator[Client]:
    with Client(server[request.param]) as opened:
        opened.info()  # connects
        yield opened


@pytest.mark.benchmark(group="rpc: Lookup")
def test_unary(benchmark: BenchmarkFixture, client: Client) -> None:
    """A join: one address in text, a verdict for it."""
    assert benchmark(lambda: client.lookup("1.0.1.1", "CN")).country == "CN"


@pytest.mark.parametrize("size", SIZES)
def test_packed_ipv4_roster(
    benchmark: BenchmarkFixture, client: Client, dataset: Dataset, size: int
) -> None:
    benchmark.group = f"rpc: ClassifyRoster, packed IPv4 x {size:,}"
    packed = draw(dataset, 4, "assigned", size).packed
    assert len(benchmark(lambda: client.classify(ipv4=packed, region_set="EU"))) == size


@pytest.mark.parametrize("size", SIZES)
def test_packed_mixed_roster(
    benchmark: BenchmarkFixture, client: Client, dataset: Dataset, size: int
) -> None:
    benchmark.group = f"rpc: ClassifyRoster, packed mixed x {size:,}"
    packed = mixed_packed(dataset, "assigned", size)
    assert len(benchmark(lambda: client.classify(ipv6=packed, region_set="EU"))) == size


@pytest.mark.parametrize("size", SIZES)
def test_text_roster(
    benchmark: BenchmarkFixture, client: Client, dataset: Dataset, size: int
) -> None:
    benchmark.group = f"rpc: ClassifyRoster, text IPv4 x {size:,}"
    texts = draw(dataset, 4, "assigned", size).texts
    assert len(benchmark(lambda: client.classify(texts, region_set="EU"))) == size


@pytest.mark.benchmark(group="rpc: StreamRosters, 100 rosters of 1,000 packed IPv4")
def test_stream(benchmark: BenchmarkFixture, client: Client, dataset: Dataset) -> None:
    """One hundred rosters through one stream."""
    packed = draw(dataset, 4, "assigned", 1_000).packed
    rosters = [packed] * 100
    results = benchmark(lambda: list(client.classify_many(ipv4=rosters, region_set="EU")))
    assert len(results) == 100
