"""Opening a dataset, in a process that has imported geolookup; see coldstart.py for fresh ones."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

import geolookup


def test_open_verified(benchmark: BenchmarkFixture) -> None:
    """Map the embedded file, hold every section against its checksum, build the indexes."""

    def call() -> None:
        geolookup.open().close()

    benchmark(call)


def test_open_and_first_lookup(benchmark: BenchmarkFixture) -> None:
    """The same with one answer, which is when a process begins to be of use."""

    def call() -> str:
        with geolookup.open() as dataset:
            return dataset.country("1.0.1.1")

    assert benchmark(call) == "CN"
