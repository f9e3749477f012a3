"""The peers on the same data and addresses, for comparing runs over time.

For ratios use ``python -m bench.peers``, where contenders take turns.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.addresses import draw
from bench.contenders import CONTENDERS, Call, Contender
from bench.peers import WORKS, Field, Work
from geolookup import Dataset

SIZE = 1_000
HERE = [work for work in WORKS if work.size == SIZE]


@pytest.fixture(scope="module")
def calls(dataset: Dataset, field: Field) -> dict[Work, dict[str, Call]]:
    """Return what to time, by work and contender."""
    return {work: field.calls(work, draw(dataset, work.version, "assigned", SIZE)) for work in HERE}


@pytest.mark.parametrize("kind", CONTENDERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("work", HERE, ids=lambda work: work.name)
def test_peer(
    benchmark: BenchmarkFixture,
    field: Field,
    calls: dict[Work, dict[str, Call]],
    work: Work,
    kind: type[Contender],
) -> None:
    """1,000 addresses of the assigned space; the answers were compared before."""
    benchmark.group = f"{work.name} x {SIZE:,}"
    if kind.name in field.missing:
        pytest.skip(field.missing[kind.name])
    if kind.name not in calls[work]:
        pytest.skip("has no such call")
    benchmark(calls[work][kind.name])
