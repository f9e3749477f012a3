"""Whole rosters in process: packed and text, from 1 address to 100,000."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.addresses import DRAWS, draw, mixed_packed, mixed_texts
from geolookup import Dataset
from geolookup.answer.results import RosterResult

SIZES = (1, 100, 1_000, 100_000)
FORMS = ("ipv4", "ipv6", "mixed", "text IPv4", "text IPv6", "text mixed")


def asker(
    dataset: Dataset, form: str, kind: str, size: int, region_set: str | None = None
) -> Callable[[], RosterResult]:
    """Return a call that classifies a roster of one form."""
    classify = dataset.classify
    if form == "mixed":
        packed = mixed_packed(dataset, kind, size)
        return lambda: classify(ipv6=packed, region_set=region_set)
    if form == "text mixed":
        texts = mixed_texts(dataset, kind, size)
        return lambda: classify(texts, region_set=region_set)
    addresses = draw(dataset, 4 if form.endswith("4") else 6, kind, size)
    packed, texts = addresses.packed, addresses.texts
    if form == "ipv4":
        return lambda: classify(ipv4=packed, region_set=region_set)
    if form == "ipv6":
        return lambda: classify(ipv6=packed, region_set=region_set)
    return lambda: classify(texts, region_set=region_set)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_countries(
    benchmark: BenchmarkFixture, dataset: Dataset, form: str, size: int, kind: str
) -> None:
    """From addresses to the column of countries."""
    benchmark.group = f"countries of {form} x {size:,}"
    classify = asker(dataset, form, kind, size)

    def column() -> bytes:
        return classify().countries.tobytes()

    assert len(benchmark(column)) == 2 * size


@pytest.mark.parametrize("size", [1_000, 100_000])
@pytest.mark.parametrize("form", ["ipv4", "ipv6", "text mixed"])
def test_countries_as_a_list(
    benchmark: BenchmarkFixture, dataset: Dataset, form: str, size: int
) -> None:
    """From addresses to a list of str."""
    benchmark.group = f"list of countries of {form} x {size:,}"
    call = asker(dataset, form, "assigned", size)
    assert len(benchmark(lambda: list(call().countries))) == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["ipv4", "ipv6"])
def test_verdicts(benchmark: BenchmarkFixture, dataset: Dataset, form: str, size: int) -> None:
    """From addresses to the three sets of positions."""
    benchmark.group = f"verdicts on {form} x {size:,}"
    call = asker(dataset, form, "assigned", size, "EU")

    def sets() -> int:
        result = call()
        return len(result.inside) + len(result.outside) + len(result.undetermined)

    assert benchmark(sets) == size


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_counts(benchmark: BenchmarkFixture, dataset: Dataset, size: int) -> None:
    """From addresses to the number of each code."""
    benchmark.group = f"counts of ipv4 x {size:,}"
    call = asker(dataset, "ipv4", "assigned", size)
    assert sum(benchmark(lambda: call().counts()).values()) == size


@pytest.mark.parametrize("policy", ["UNANIMOUS", "MAJORITY", "PRIMARY"])
def test_a_region_set_seen_for_the_first_time(
    benchmark: BenchmarkFixture, dataset: Dataset, policy: str
) -> None:
    """The table of verdicts over all claims, which is then kept."""
    benchmark.group = "verdict table of a new region set"
    codes = sorted({claim.country for claim in dataset.claims} - {"ZZ"})
    # More pairs of codes than any cache keeps, so that each is new.
    pairs = iter([f"{one}+{other}" for one in codes for other in codes if one < other])
    benchmark.pedantic(
        lambda pair: dataset.outcome_column(pair, policy),
        setup=lambda: ((next(pairs),), {}),
        rounds=20,
    )
