"""The IPv4 space as cells along a Hilbert curve, and what lies in each.

The curve keeps neighbours together: a prefix is a square or half of one. It begins in the
upper left and ends in the upper right corner, like the maps of the IPv4 space that people
know (0.0.0.0/8 upper left, multicast upper right).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolookup.answer.dataset import Dataset

SPACE = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """The IPv4 address line in pieces, without gaps.

    Attributes:
        first: first address of each piece, uint64, ascending from 0.
        value: what each piece holds.
    """

    first: NDArray[np.uint64]
    value: NDArray[np.uint32]

    def sizes(self) -> NDArray[np.uint64]:
        """Return the number of addresses of each piece."""
        return np.diff(self.first, append=np.uint64(SPACE))

    def at(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the value at each of the addresses."""
        return self.value[np.searchsorted(self.first, addresses, side="right") - 1]


def claim_intervals(dataset: Dataset) -> Intervals:
    """Return the IPv4 intervals of a dataset with the claim number of each interval."""
    intervals = list(dataset.intervals(4))
    return Intervals(
        np.array([first for first, _, _ in intervals], dtype=np.uint64),
        np.array([number for _, _, number in intervals], dtype=np.uint32),
    )


def tally(intervals: Intervals, values: int, prefix_length: int) -> NDArray[np.uint32]:
    """Return how many addresses of each cell have each value.

    Args:
        intervals: values are below *values*.
        values: how many there are.
        prefix_length: a cell is a prefix of this length.

    Returns:
        An array of shape (values, 2**prefix_length), cells in the order of addresses.
    """
    cells = 1 << prefix_length
    shift = np.uint64(32 - prefix_length)
    edges = np.arange(cells, dtype=np.uint64) << shift
    first = np.union1d(intervals.first, edges)  # now each piece lies in one cell
    value = intervals.at(first)
    cell = (first >> shift).astype(np.int64)
    size = np.diff(first, append=np.uint64(SPACE))
    counts = np.zeros((values, cells), dtype=np.uint32)
    for number in range(values):
        here = value == number
        # bincount adds in float64, which holds these numbers exactly.
        counts[number] = np.bincount(cell[here], weights=size[here], minlength=cells)
    return counts


def curve(order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return column and row of each cell of a square of 2**order by 2**order cells.

    *order* is even: the curve's direction differs between even and odd ones, and
    pictures of any resolution are to have each prefix at the same place.
    """
    if order % 2:
        raise ValueError("order: expected an even number")
    rest = np.arange(1 << 2 * order, dtype=np.int64)
    column = np.zeros_like(rest)
    row = np.zeros_like(rest)
    side = 1
    while side < 1 << order:
        right = rest >> 1 & 1
        below = (rest ^ right) & 1
        # The quarter's own curve is turned so that it begins where the one before it ends.
        mirrored = (below == 0) & (right == 1)
        column[mirrored] = side - 1 - column[mirrored]
        row[mirrored] = side - 1 - row[mirrored]
        turned = below == 0
        column[turned], row[turned] = row[turned], column[turned]
        column += side * right
        row += side * below
        rest >>= 2
        side *= 2
    return column, row
