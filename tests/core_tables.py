"""Interval tables of every awkward shape for the core, and what they must answer.

The oracle bisects plain lists of Python numbers and reads embedded addresses off
a string of bits; it shares nothing with the core but the numbers of the forms.
"""

from __future__ import annotations

import bisect
import functools
import random
from array import array
from dataclasses import dataclass

from geolookup import _core
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.embedded_ipv4 import (
    EMBEDDED_6TO4,
    EMBEDDED_LOW32,
    EMBEDDED_NAT64_32,
    EMBEDDED_NAT64_40,
    EMBEDDED_NAT64_48,
    EMBEDDED_NAT64_56,
    EMBEDDED_NAT64_64,
    EMBEDDED_TEREDO,
)

Arrays = tuple["array[int]", "array[int]", "array[int]", "array[int]", "array[int]"]

CLAIMS = 600
LABELS = tuple(f"label {number}" for number in range(CLAIMS))
END4, END6 = 1 << 32, 1 << 128

# Which bits of an IPv6 address hold the IPv4 address, and whether they are inverted.
INSIDE = {
    EMBEDDED_LOW32: (list(range(96, 128)), False),
    EMBEDDED_6TO4: (list(range(16, 48)), False),
    EMBEDDED_TEREDO: (list(range(96, 128)), True),
    EMBEDDED_NAT64_32: (list(range(32, 64)), False),
    EMBEDDED_NAT64_40: ([*range(40, 64), *range(72, 80)], False),
    EMBEDDED_NAT64_48: ([*range(48, 64), *range(72, 88)], False),
    EMBEDDED_NAT64_56: ([*range(56, 64), *range(72, 96)], False),
    EMBEDDED_NAT64_64: (list(range(72, 104)), False),
}


def inside(form: int, address: int) -> int:
    """Return the IPv4 address inside an IPv6 address."""
    places, inverted = INSIDE[form]
    bits = f"{address:0128b}"
    number = int("".join(bits[place] for place in places), 2)
    return number ^ 0xFFFFFFFF if inverted else number


@dataclass(frozen=True)
class Shape:
    """Intervals as (first address, claim), ascending from 0."""

    ipv4: tuple[tuple[int, int], ...] = ((0, 1),)
    ipv6: tuple[tuple[int, int], ...] = ((0, 1),)

    @functools.cached_property
    def first4(self) -> list[int]:
        return [first for first, _ in self.ipv4]

    @functools.cached_property
    def first6(self) -> list[int]:
        return [first for first, _ in self.ipv6]

    def arrays(self) -> Arrays:
        """Return the arrays that a Table is made of, in its order."""
        return (
            array("I", self.first4),
            array("H", [claim for _, claim in self.ipv4]),
            array("Q", [first >> 64 for first in self.first6]),
            array("Q", [first & (1 << 64) - 1 for first in self.first6]),
            array("H", [claim for _, claim in self.ipv6]),
        )

    def table(self, isa: str | None = None) -> _core.Table:
        return _core.Table(*self.arrays(), LABELS, isa=isa)

    def claim4(self, address: int) -> int:
        """Return the right answer."""
        return self.ipv4[bisect.bisect_right(self.first4, address) - 1][1]

    def claim6(self, address: int) -> int:
        """Return the right answer."""
        claim = self.ipv6[bisect.bisect_right(self.first6, address) - 1][1]
        return self.claim4(inside(claim, address)) if claim >= MAX_CLAIMS else claim

    def probes4(self) -> list[int]:
        """Return the addresses beside each boundary, and others."""
        return _probes(self.first4, END4)

    def probes6(self) -> list[int]:
        """Return the addresses beside each boundary, and others, IPv4-mapped ones among them."""
        mapped = [0xFFFF << 32 | address for address in self.probes4()[:500]]
        return [*_probes(self.first6, END6), *mapped]


def _probes(first: list[int], end: int) -> list[int]:
    draw = random.Random(len(first))
    beside = {(at + step) % end for at in first for step in (-1, 0, 1)}
    anywhere = {draw.randrange(end) for _ in range(300)}
    steps = [draw.getrandbits(draw.randrange(1, 100)) for _ in range(300)]
    near = {(draw.choice(first) + step) % end for step in steps}
    probes = sorted(beside | anywhere | near)
    draw.shuffle(probes)
    return probes


def packed4(addresses: list[int]) -> bytes:
    return b"".join(address.to_bytes(4, "big") for address in addresses)


def packed6(addresses: list[int]) -> bytes:
    return b"".join(address.to_bytes(16, "big") for address in addresses)


def column(claims: list[int]) -> bytes:
    """Return claims as the core returns them."""
    return array("H", claims).tobytes()


def _intervals(firsts: set[int], draw: random.Random) -> tuple[tuple[int, int], ...]:
    return tuple((first, draw.randrange(CLAIMS)) for first in sorted({0, *firsts}))


def _prefixes(draw: random.Random, count: int, bits: int, around: int = 0) -> set[int]:
    """Return both ends of random prefixes of all lengths, each begun by `around` bits at random."""
    ends = set()
    for _ in range(count):
        length = draw.randrange(around, bits + 1)
        first = draw.getrandbits(bits) >> (bits - length) << (bits - length)
        ends |= {first, first + (1 << (bits - length))}
    return {end for end in ends if end < 1 << bits}


def _random(seed: int) -> Shape:
    draw = random.Random(seed)
    return Shape(
        _intervals(_prefixes(draw, 400, 32), draw), _intervals(_prefixes(draw, 400, 128), draw)
    )


def _clustered(seed: int) -> Shape:
    """Boundaries that crowd in few places, at every depth."""
    draw = random.Random(seed)
    four, six = set(), set()
    for _ in range(12):
        low = draw.randrange(1, 25)
        base = draw.getrandbits(32)
        four |= {(base + draw.getrandbits(low)) % END4 for _ in range(40)}
    for depth in (20, 28, 36, 44, 52, 60, 68, 90, 124):
        base = draw.getrandbits(128)
        six |= {(base + draw.getrandbits(128 - depth)) % END6 for _ in range(40)}
        mask = (1 << max(0, 128 - depth - 8)) - 1
        six |= {(base + draw.getrandbits(128 - depth)) % END6 & ~mask for _ in range(40)}
    return Shape(_intervals(four, draw), _intervals(six, draw))


def _every(first: int, step: int, count: int, bits: int) -> tuple[tuple[int, int], ...]:
    """Intervals of one size side by side, neighbours with different claims."""
    firsts = [first + step * i for i in range(count) if first + step * i < 1 << bits]
    intervals = [(at, 1 + i % 7) for i, at in enumerate(firsts)]
    return tuple(intervals if first == 0 else [(0, 9), *intervals])


def _forms() -> Shape:
    """All embedded forms, in a table whose IPv4 part tells their bytes apart."""
    draw = random.Random(6)
    six = {0: 9, END6 - 1: 8}
    for number, form in enumerate(sorted(INSIDE)):
        first = (0x2001 + number) << 112
        six[first] = form
        six[first + (1 << 80)] = 7
    # The embedded prefix of 96 bits, and one that begins in the middle of a /64.
    six |= {0xFFFF << 32: EMBEDDED_LOW32, 0x10000 << 32: 5}
    six |= {0x64FF9B << 96: EMBEDDED_LOW32, (0x64FF9B << 96) + (1 << 32): 4}
    six |= {(0xFD << 120) + (3 << 62): EMBEDDED_6TO4, (0xFD << 120) + (5 << 62): 3}
    return Shape(_intervals(_prefixes(draw, 300, 32), draw), tuple(sorted(six.items())))


def _fine(seed: int, count: int, *, low: bool) -> Shape:
    """Boundaries below /56: a few in most /56s of a row, many in some, at their ends and halves."""
    draw = random.Random(seed)
    base = (0x2A0E << 48) + (seed << 24)
    six = set()
    for cell in range(count):
        some = draw.choice([0, 1, 2, 3, 30])
        octets = {draw.choice([0, 1, 127, 254, 255, draw.randrange(256)]) for _ in range(some)}
        six |= {(base + (cell << 8) + octet) << 64 for octet in octets}
    if low:
        six |= {at + draw.choice([1, 1 << 63]) for at in draw.sample(sorted(six), len(six) // 8)}
    return Shape(ipv6=_intervals(six, draw))


SHAPES = {
    "one interval": Shape(),
    "all embedded": Shape(((0, 4), (1 << 31, 5)), ((0, EMBEDDED_LOW32),)),
    "all 6to4": Shape(((0, 4), (1 << 31, 5)), ((0, EMBEDDED_6TO4),)),
    "two halves": Shape(((0, 1), (1 << 31, 2)), ((0, 1), (1 << 127, 2))),
    "the first address alone": Shape(((0, 1), (1, 2)), ((0, 1), (1, 2))),
    "the last address alone": Shape(((0, 1), (END4 - 1, 2)), ((0, 1), (END6 - 1, 2))),
    "last half of the last /64": Shape(ipv6=((0, 1), (END6 - (1 << 63), 2))),
    "neighbours alike": Shape(
        ((0, 3), (1 << 24, 3), ((1 << 24) + 5, 3)), ((0, 3), (1 << 100, 3), (1 << 64, 3))[:2]
    ),
    "mapped in two parts": Shape(
        ((0, 1), (1 << 20, 2), (1 << 31, 3)),
        ((0, 1), (0xFFFF << 32, EMBEDDED_LOW32), ((0xFFFF << 32) + (1 << 31), 2)),
    ),
    "8 intervals": Shape(_every(0, 1 << 29, 8, 32), _every(0, 1 << 125, 8, 128)),
    "9 intervals": Shape(_every(0, 1 << 28, 9, 32), _every(0, 1 << 124, 9, 128)),
    "10 intervals": Shape(_every(0, 1 << 28, 10, 32), _every(0, 1 << 124, 10, 128)),
    "each address of a /24": Shape(_every(0x0A0B0C00, 1, 256, 32), _every(7 << 120, 1, 256, 128)),
    "each address of 2 /24s": Shape(_every(0x0A0BFF00, 1, 512, 32)),
    "each address of a /19": Shape(_every(0xFFFFE000, 1, 8192, 32)),
    "each fourth of a /24 in a /16": Shape(_every(0x0A0B0000, 64, 1024, 32)),
    "each /24 of a /15": Shape(_every(0x0A0A0000, 256, 512, 32)),
    "odd pieces of a /16": Shape(_every(0x0A0B0003, 383, 171, 32)),
    "each address of a /18, by turns": Shape(_every(0x0A0B4000, 3, 5461, 32)),
    "each /16": Shape(_every(0, 1 << 16, 65536, 32), _every(0, 1 << 112, 3000, 128)),
    "each /24 of IPv6's first /16s": Shape(ipv6=_every(0, 1 << 104, 600, 128)),
    "15 and 16 boundaries in a /21 and a /19": Shape(
        (*_every(0x0A0B0800, 64, 17, 32), *((0x0A0C0000 + 99 * i, i) for i in range(15)))
    ),
    "10 and 11 boundaries in a /24": Shape(
        ipv6=(
            *_every(0x2A0E01 << 104, 1 << 84, 11, 128),
            *((0x2A0E02 << 104 | i << 90, i) for i in range(12)),
        )
    ),
    "three levels of branches": Shape(ipv6=_every(0x2A0E03 << 104, 1 << 77, 9000, 128)),
    "the last /56 of a /24": Shape(
        ipv6=((0, 1), ((0x2A0E05 << 104) - (1 << 66), 2), (0x2A0E05 << 104, 3))
    ),
    "a divided /56 and the next, in /24s of the same bits": Shape(
        ipv6=((0, 1), *((at << 104 | 5 << 64, at % 7) for at in range(0x2A0E10, 0x2A0E18)))
    ),
    **{f"below /56 {seed}": _fine(seed, 60, low=seed % 2 == 1) for seed in range(4)},
    "each /48 of a /32": Shape(ipv6=_every(0x20010DB8 << 96, 1 << 80, 2000, 128)),
    "each /64 of a /54": Shape(ipv6=_every(0x20010DB8 << 96, 1 << 64, 1024, 128)),
    "each half of the /64s of a /56": Shape(ipv6=_every(0x20010DB8 << 96, 1 << 63, 512, 128)),
    "deep in one /64": Shape(ipv6=_every((0x20010DB8 << 96) + 77, 1 << 40, 900, 128)),
    "the end of IPv6": Shape(ipv6=_every(END6 - 700, 1, 700, 128)),
    "8 boundaries in a unit": Shape(ipv6=_every(0x2A00 << 112, 1 << 81, 9, 128)),
    "9 boundaries in a unit": Shape(ipv6=_every(0x2A00 << 112, 1 << 81, 10, 128)),
    "embedded forms": _forms(),
    **{f"random {seed}": _random(seed) for seed in range(4)},
    **{f"clustered {seed}": _clustered(seed) for seed in range(6)},
}
