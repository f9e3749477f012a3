"""The intervals of a dataset as plain lists, for those who make other things of the same data."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from geolookup.answer.claims import MAX_CLAIMS, Status
from geolookup.answer.dataset import Dataset


@dataclass(frozen=True)
class Intervals:
    """The address line of one family, without gaps; an interval ends where the next begins."""

    bits: int
    first: list[int]
    countries: list[str]
    """``ZZ``: none, also where an IPv4 address inside answers."""
    statuses: list[Status | None]
    """None where an IPv4 address inside answers."""


@functools.lru_cache(maxsize=4)
def read_intervals(dataset: Dataset, version: int) -> Intervals:
    """Return the intervals of one family, as they stand in the dataset's file."""
    if version == 4:
        first = _section(dataset, "ipv4.first", "I")
        numbers = _section(dataset, "ipv4.claims", "H")
    else:
        high, low = _section(dataset, "ipv6.high", "Q"), _section(dataset, "ipv6.low", "Q")
        first = [upper << 64 | lower for upper, lower in zip(high, low, strict=True)]
        numbers = _section(dataset, "ipv6.claims", "H")
    countries = [claim.country for claim in dataset.claims]
    statuses = [claim.status for claim in dataset.claims]
    return Intervals(
        32 if version == 4 else 128,
        first,
        [countries[number] if number < MAX_CLAIMS else "ZZ" for number in numbers],
        [statuses[number] if number < MAX_CLAIMS else None for number in numbers],
    )


def merged(intervals: Intervals) -> tuple[list[int], list[str]]:
    """Return first addresses and countries, neighbours of one country merged."""
    first: list[int] = []
    countries: list[str] = []
    for start, country in zip(intervals.first, intervals.countries, strict=True):
        if not countries or countries[-1] != country:
            first.append(start)
            countries.append(country)
    return first, countries


def prefixes(dataset: Dataset, version: int) -> Iterator[tuple[int, int, str]]:
    """Yield the prefixes of a dataset that have a country: first address, length, country."""
    intervals = read_intervals(dataset, version)
    bits = intervals.bits
    ends = [*intervals.first[1:], 1 << bits]
    for start, end, country in zip(intervals.first, ends, intervals.countries, strict=True):
        first = start
        while country != "ZZ" and first < end:
            # The largest block that begins here and does not reach beyond the end.
            below = min((first & -first).bit_length() - 1 if first else bits, bits)
            below = min(below, (end - first).bit_length() - 1)
            yield first, bits - below, country
            first += 1 << below


def _section(dataset: Dataset, name: str, item: str) -> list[int]:
    content = dataset.optional_section(name)
    if content is None:
        raise LookupError(f"the dataset has no section {name}")
    return memoryview(content.tobytes()).cast("B").cast(item).tolist()  # type: ignore[call-overload]  # a format of struct
