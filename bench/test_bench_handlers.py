"""What the service does for a call, from the request's bytes to the response's: no server."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.addresses import draw
from geolookup import Dataset
from geolookup.service.rpc import handlers
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.settings import Settings
from geolookup.v1 import geolookup_pb2 as v1

REGION_SET = "EU"
LIMITS = Settings().limits


def test_lookup_handler(benchmark: BenchmarkFixture, dataset: Dataset) -> None:
    (text,) = draw(dataset, 4, "assigned", 1).texts
    body = v1.LookupRequest(text=text, region_set=REGION_SET).SerializeToString()
    assert benchmark(handlers.lookup, Snapshot(dataset), body, LIMITS)


@pytest.mark.parametrize("size", [1_000, 100_000])
@pytest.mark.parametrize("form", ["packed", "text"])
def test_roster_handler(
    benchmark: BenchmarkFixture, dataset: Dataset, form: str, size: int
) -> None:
    drawn = draw(dataset, 4, "assigned", size)
    request = v1.ClassifyRosterRequest(region_set=REGION_SET)
    if form == "packed":
        request.ipv4 = drawn.packed
    else:
        request.text.addresses.extend(drawn.texts)
    body = request.SerializeToString()
    answer = benchmark(handlers.classify_roster, Snapshot(dataset), body, LIMITS)
    assert v1.ClassifyRosterResponse.FromString(answer).size == size
