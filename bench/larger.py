"""Datasets with many times the intervals: ``python -m bench.larger --times 10 -o FILE``.

The embedded dataset's intervals are cut at more places, as more detailed data would cut them.
A cut is made in three draws, all of them the same for the same seed and dataset:

1. An interval that sources speak of, each weighted by the logarithm of its size: twice the
   addresses are cut once more often, not twice as often.
2. A prefix length, as often as the dataset's own boundaries have it, of those that are longer
   than the interval's. So cuts lie at /22 and /24, or at /32 and /48, as boundaries do, and
   below /24 where the data is that fine already.
3. A place inside the interval with that alignment.

A piece gets the claim of one of the intervals near its own, so that pieces differ from what is
beside them and the claims are those of the region. The claims, special-purpose ranges, what
nobody knows of and the embedded IPv4 forms stay as they are. IPv6 is cut at /64 and above.

The file is a dataset like any other, without evidence. Its metadata says what it was made of.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geolookup
from bench.mmdb import cache_folder
from geolookup.answer.claims import MAX_CLAIMS, Claim, Status
from geolookup.answer.dataset import Dataset, write

SEED = 20260617
NEAR = 8
"""A piece's claim is that of an interval at most so many places away."""
ENOUGH = 0.99
"""Cuts that fall together or between equal claims are no boundaries: of the intervals asked
for, at least this share is made."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Larger:
    """What `geolookup.answer.dataset.write` needs."""

    ipv4_first: bytes
    ipv4_claims: bytes
    ipv6_first_high: bytes
    ipv6_first_low: bytes
    ipv6_claims: bytes
    claims: Sequence[Claim]
    metadata: dict[str, Any]


def larger(dataset: Dataset, times: int, seed: int = SEED) -> Larger:
    """Return a dataset with *times* the intervals of another, ready to be written."""
    rng = np.random.default_rng([seed, times])
    may_cut = np.zeros(0x10000, bool)
    for number, claim in enumerate(dataset.claims):
        may_cut[number] = claim.status in (Status.ASSIGNED, Status.DISPUTED, Status.UNCONFIRMED)
    assert not may_cut[MAX_CLAIMS:].any()
    ipv4 = _column(dataset, "ipv4.first", np.uint32).astype(np.uint64)
    ipv4_claims = _column(dataset, "ipv4.claims", np.uint16)
    ipv4, ipv4_claims = _cut(rng, ipv4, ipv4_claims, may_cut, bits=32, times=times)
    high = _column(dataset, "ipv6.high", np.uint64)
    low = _column(dataset, "ipv6.low", np.uint64)
    ipv6_claims = _column(dataset, "ipv6.claims", np.uint16)
    # Where intervals share an upper half, only the last of them reaches beyond it. The others
    # stay whole, and so does that one's upper half itself: no cut can fall on what begins there.
    whole = np.append(high[1:] != high[:-1], True)
    upper, upper_claims = _cut(rng, high[whole], ipv6_claims[whole], may_cut, bits=64, times=times)
    new = ~np.isin(upper, high)
    at = np.argsort(np.concatenate([high, upper[new]]), kind="stable")
    known = dataset.info()
    return Larger(
        ipv4.astype("<u4").tobytes(),
        ipv4_claims.astype("<u2").tobytes(),
        np.concatenate([high, upper[new]])[at].astype("<u8").tobytes(),
        np.concatenate([low, np.zeros(new.sum(), np.uint64)])[at].astype("<u8").tobytes(),
        np.concatenate([ipv6_claims, upper_claims[new]])[at].astype("<u2").tobytes(),
        tuple(dataset.claims),
        {
            **{name: known[name] for name in ("built", "sources", "special_purpose")},
            **{name: known[name] for name in ("nat64_prefixes", "overrides")},
            "made_by": {"tool": "bench.larger", "of": known["id"], "times": times, "seed": seed},
        },
    )


def larger_file(dataset: Dataset, times: int) -> Path:
    """Return the path of the file with *times* the intervals; writes it if it isn't there yet."""
    path = cache_folder() / f"{dataset.id[:16]}-{times}x.geolookup"
    if not path.exists():
        write(larger(dataset, times), path)
    return path


def _column(dataset: Dataset, name: str, item: type[np.generic]) -> Array:
    content = dataset.optional_section(name)
    assert content is not None
    return np.frombuffer(content, item).copy()


def _cut(
    rng: np.random.Generator, first: Array, claims: Array, may_cut: Array, *, bits: int, times: int
) -> tuple[Array, Array]:
    """Return (first addresses, claims) of a line of *bits* bits that was cut."""
    own_claims = claims
    sizes = np.diff(first, append=np.uint64((1 << bits) - 1))
    lengths = bits - np.floor(np.log2(np.maximum(sizes, 1).astype(float))).astype(int)
    weights = np.where(may_cut[claims], bits - lengths, 0).astype(float)
    weights /= weights.sum()
    # How often boundaries have each alignment; summed from the longest, for drawing those
    # that are longer than a given one.
    aligned = bits - np.log2((first[1:] & (~first[1:] + np.uint64(1))).astype(float)).astype(int)
    longer = np.cumsum(np.bincount(aligned, minlength=bits + 1)[::-1])
    cut, owners = np.array(first), np.arange(len(first))
    target = times * len(first)
    result = first, claims
    while len(result[0]) < ENOUGH * target:
        count = int(1.1 * (target - len(result[0]))) + 1000
        owner = rng.choice(len(first), count, p=weights)
        reach = longer[bits - 1 - lengths[owner]]
        length = bits - np.searchsorted(longer, rng.random(count) * reach, side="right")
        place = first[owner] + (rng.random(count) * sizes[owner]).astype(np.uint64)
        place &= ~((np.uint64(1) << (bits - length).astype(np.uint64)) - np.uint64(1))
        inside = (place > first[owner]) & (place - first[owner] < sizes[owner])
        cut, index = np.unique(np.concatenate([cut, place[inside]]), return_index=True)
        owners = np.concatenate([owners, owner[inside]])[index]
        result = _claim(rng, cut, owners, first, own_claims, may_cut)
    return result


def _claim(
    rng: np.random.Generator, cut: Array, owners: Array, first: Array, claims: Array, may_cut: Array
) -> tuple[Array, Array]:
    """Give each piece that is new a claim; return those that differ from what is before them."""
    given = claims[owners]
    new = cut != first[owners]
    for _ in range(4):  # a few tries to differ from the neighbours
        same = np.zeros(len(cut), bool)
        same[1:] = given[1:] == given[:-1]
        again = np.flatnonzero(same & new)
        near = owners[again] + rng.integers(-NEAR, NEAR + 1, len(again))
        other = claims[np.clip(near, 0, len(claims) - 1)]
        given[again] = np.where(may_cut[other], other, given[again])
    boundary = np.append(True, given[1:] != given[:-1])
    return cut[boundary], given[boundary]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.larger", description="Makes a dataset with many times the intervals."
    )
    parser.add_argument("--times", type=int, default=10, help="how many times (10, 100)")
    parser.add_argument("--dataset", type=Path, help="what to cut (default: the embedded dataset)")
    parser.add_argument("--seed", type=int, default=SEED, help="another one cuts otherwise")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    chosen = parser.parse_args(arguments)
    if chosen.times < 1:
        parser.error("--times: expected 1 or more")
    with geolookup.open(chosen.dataset) as dataset:
        write(larger(dataset, chosen.times, chosen.seed), chosen.output)
    with geolookup.open(chosen.output) as made:
        info = made.info()
    print(f"{chosen.output}: {chosen.output.stat().st_size:,} bytes, dataset {made.id}")
    print(f"{info['ipv4_intervals']:,} IPv4 and {info['ipv6_intervals']:,} IPv6 intervals")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
