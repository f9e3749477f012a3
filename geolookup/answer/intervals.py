"""An address line as columns: first addresses in ascending order from 0, without gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def covering_ipv4(firsts: Sequence[int], address: int) -> tuple[int, int, int]:
    """Return the interval that holds an IPv4 address: its number, first and last address."""
    at = bisect_right(firsts, address) - 1
    end = firsts[at + 1] if at + 1 < len(firsts) else 1 << 32
    return at, firsts[at], end - 1


def covering_ipv6(highs: Sequence[int], lows: Sequence[int], address: int) -> tuple[int, int, int]:
    """Return the same for an IPv6 address; firsts stand there as upper and lower halves."""
    at = bisect_right(highs, address >> 64) - 1
    while highs[at] << 64 | lows[at] > address:
        at -= 1
    end = highs[at + 1] << 64 | lows[at + 1] if at + 1 < len(highs) else 1 << 128
    return at, highs[at] << 64 | lows[at], end - 1
