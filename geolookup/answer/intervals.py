"""Families, and intervals as columns: first addresses, ascending from 0, without gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeVar

Family = Literal[4, 6]
FAMILIES: Final[tuple[Family, ...]] = (4, 6)

BITS: Final[Mapping[Family, int]] = {4: 32, 6: 128}
"""Bits of an address."""

ROUTABLE: Final[Mapping[Family, tuple[int, int]]] = {
    4: (0, (1 << 32) - 1),
    6: (0x2000 << 112, (0x4000 << 112) - 1),
}
"""First and last address that may be routed: all of IPv4, and ``2000::/3``."""

T = TypeVar("T")


def ranges_of(
    family: Family, firsts: Iterable[int], values: Iterable[T]
) -> Iterator[tuple[int, int, T]]:
    """Yield first address, last address and value of each interval."""
    pairs = zip(firsts, values, strict=True)
    first, value = next(pairs)
    for following, other in pairs:
        yield first, following - 1, value
        first, value = following, other
    yield first, (1 << BITS[family]) - 1, value


def joined(highs: Iterable[int], lows: Iterable[int]) -> Iterator[int]:
    """Yield IPv6 addresses from their upper and lower halves."""
    return (high << 64 | low for high, low in zip(highs, lows, strict=True))


def covering_ipv4(firsts: Sequence[int], address: int) -> tuple[int, int, int]:
    """Return the interval that holds an IPv4 address: its number, first and last address."""
    at = bisect_right(firsts, address) - 1
    end = firsts[at + 1] if at + 1 < len(firsts) else 1 << 32
    return at, firsts[at], end - 1


def covering_ipv6(highs: Sequence[int], lows: Sequence[int], address: int) -> tuple[int, int, int]:
    """Return the same for an IPv6 address; first addresses come as upper and lower halves."""
    at = bisect_right(highs, address >> 64) - 1
    while highs[at] << 64 | lows[at] > address:
        at -= 1
    end = highs[at + 1] << 64 | lows[at + 1] if at + 1 < len(highs) else 1 << 128
    return at, highs[at] << 64 | lows[at], end - 1


def address_text(family: Family, address: int) -> str:
    """Return an address as text."""
    import ipaddress  # noqa: PLC0415 - answers need no texts

    # Not ip_address(), which takes small numbers for IPv4.
    return str((ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address)(address))
