"""How long calls took: a histogram whose percentiles are right to three digits at any scale.

Kept by the package hdrhistogram. A note costs 2 µs; the sender in C keeps counts of the same
precision, and numpy, which has no such histogram, would have to keep every time.
And `encoded` is read by all its ports, for who wants to draw from a report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SHOWN = (50.0, 90.0, 99.0, 99.9, 99.99)
"""The percentiles that reports show."""

_LONGEST = 600_000_000
"""Microseconds: ten minutes. A longer time counts as this one."""


def _empty() -> Any:
    # Here, so that --help needs no package of an extra.
    from hdrh.histogram import HdrHistogram  # noqa: PLC0415

    return HdrHistogram(1, _LONGEST, 3)


class Latencies:
    """Times in microseconds, in an HdrHistogram (https://hdrhistogram.org)."""

    __slots__ = ("_histogram",)

    def __init__(self) -> None:
        self._histogram = _empty()

    def record(self, seconds: float) -> None:
        """Note one time; what is below a microsecond counts as one."""
        self._histogram.record_value(min(max(round(seconds * 1e6), 1), _LONGEST))

    def record_several(self, microseconds: int, count: int) -> None:
        """Note so many times that are alike."""
        self._histogram.record_value(min(max(microseconds, 1), _LONGEST), count)

    def add(self, other: Latencies) -> None:
        """Note all times of another one."""
        self._histogram.add(other._histogram)

    @property
    def count(self) -> int:
        """How many times were noted."""
        return int(self._histogram.total_count)

    @property
    def mean(self) -> float:
        """Their mean, in microseconds; 0: there are none."""
        return float(self._histogram.get_mean_value()) if self.count else 0.0

    @property
    def longest(self) -> float:
        """The longest, in microseconds; 0: there are none."""
        return float(self._histogram.get_max_value()) if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the microseconds that this share of the calls took at most; 0: no calls."""
        return float(self._histogram.get_value_at_percentile(percent)) if self.count else 0.0

    def percentiles(self, shown: Iterable[float] = SHOWN) -> dict[str, float | None]:
        """Return percentiles by name ("p99.9"), in microseconds; None: no call lies beyond."""
        return {
            f"p{percent:g}": self.percentile(percent) if self._beyond(percent) >= 1 else None
            for percent in shown
        }

    def curve(self) -> list[tuple[float, float]]:
        """Return (percent, microseconds) where the percentiles are worth a point of a plot."""
        if not self.count:
            return []
        points, percent = [], 0.0
        # Half of what is left each four steps, down to the last single call.
        while self._beyond(percent) >= 1:
            points.append((percent, self.percentile(percent)))
            percent += (100 - percent) * (1 - 0.5**0.25)
        return [*points, (100.0, self.longest)]

    def _beyond(self, percent: float) -> float:
        # Rounded: of 10,000 calls one lies beyond p99.99, which floats make 0.99999.
        return round((100 - percent) / 100 * self.count, 6)

    def encoded(self) -> str:
        """Return all of it in the format that every HdrHistogram reads."""
        return bytes(self._histogram.encode()).decode()

    def __getstate__(self) -> str:
        return self.encoded()

    def __setstate__(self, text: str) -> None:
        self._histogram = _empty()
        self._histogram.decode_and_add(text.encode())
