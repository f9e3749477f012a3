"""Addresses to look up: how they are drawn, always the same ones.

Two draws, because they load a lookup differently:

- ``assigned``: each address of the assigned space is equally likely. Assigned is what
  all sources know (status ASSIGNED or DISPUTED); space that only one of them claims to know
  is left out, since it would drown the rest: one such IPv6 range can be larger than all that
  is in use. Most of these addresses lie deep inside a large interval.
- ``boundary``: an interval is drawn, each equally likely, and then the address at its start
  or one of the two before and behind it. This is the worst a caller can ask: neighbours in
  the data are as fine as the data goes, and no two lookups share a cache line.

IPv6 addresses are drawn from 2000::/3 without the embedded IPv4 forms: there, geolookup
answers by the IPv4 address inside and other readers don't, so their work could not be compared.
"""

from __future__ import annotations

import bisect
import functools
import ipaddress
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from bench.intervals import Intervals, read_intervals
from geolookup.answer.claims import Status
from geolookup.answer.dataset import Dataset

SEED = 20260617
DRAWS = ("assigned", "boundary")

# 2000::/3 without Teredo (2001::/32) and 6to4 (2002::/16).
GLOBAL_UNICAST = range(0x2000 << 112, 0x4000 << 112)
WITHOUT = (range(0x2001_0000 << 96, 0x2001_0001 << 96), range(0x2002 << 112, 0x2003 << 112))


@dataclass(frozen=True)
class Addresses:
    """The same addresses in each form that a contender may like best."""

    version: int
    values: tuple[int, ...]

    @cached_property
    def packed(self) -> bytes:
        """Network byte order, 4 or 16 bytes each."""
        size = 4 if self.version == 4 else 16
        return b"".join(value.to_bytes(size) for value in self.values)

    @cached_property
    def texts(self) -> list[str]:
        """The usual text of each; no two are the same object."""
        kind = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return [str(kind(value)) for value in self.values]

    def __len__(self) -> int:
        return len(self.values)


@functools.lru_cache(maxsize=32)
def draw(dataset: Dataset, version: int, kind: str, size: int) -> Addresses:
    """Return *size* addresses of one of DRAWS; the same ones for the same dataset."""
    rng = random.Random(f"{SEED} {version} {kind}")
    intervals = read_intervals(dataset, version)
    pick = (_assigned if kind == "assigned" else _boundary)(intervals, rng)
    values = (value for value in iter(pick, None) if version == 4 or _comparable(value))
    return Addresses(version, tuple(itertools.islice(values, size)))


def mixed_texts(dataset: Dataset, kind: str, size: int) -> list[str]:
    """Return a roster in text, half IPv4 and half IPv6, shuffled."""
    texts = [
        *draw(dataset, 4, kind, size - size // 2).texts,
        *draw(dataset, 6, kind, size // 2).texts,
    ]
    random.Random(SEED).shuffle(texts)
    return texts


def mixed_packed(dataset: Dataset, kind: str, size: int) -> bytes:
    """Return a roster of 16 bytes an address, half of them IPv4-mapped, shuffled."""
    rows = [(0xFFFF << 32) | value for value in draw(dataset, 4, kind, size - size // 2).values]
    rows += draw(dataset, 6, kind, size // 2).values
    random.Random(SEED).shuffle(rows)
    return b"".join(value.to_bytes(16) for value in rows)


def _comparable(value: int) -> bool:
    return value in GLOBAL_UNICAST and not any(value in one for one in WITHOUT)


def _assigned(intervals: Intervals, rng: random.Random) -> Callable[[], int]:
    ends = [*intervals.first[1:], 1 << intervals.bits]
    known = [
        (first, end - first)
        for first, end, status in zip(intervals.first, ends, intervals.statuses, strict=True)
        if status in (Status.ASSIGNED, Status.DISPUTED)
    ]
    reach = list(itertools.accumulate(size for _, size in known))

    def pick() -> int:
        at = rng.randrange(reach[-1])
        row = bisect.bisect_right(reach, at)
        first, size = known[row]
        return first + size - (reach[row] - at)

    return pick


def _boundary(intervals: Intervals, rng: random.Random) -> Callable[[], int]:
    top = (1 << intervals.bits) - 1

    def pick() -> int:
        value = rng.choice(intervals.first) + rng.randint(-2, 2)
        return min(max(value, 0), top)

    return pick
