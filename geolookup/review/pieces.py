"""The address lines of two datasets, walked together, in pieces that both see as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Self

from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import BITS, FAMILIES, Family

UNIT: Final[Mapping[Family, int]] = {4: 1, 6: 1 << 80}
"""Addresses in a unit of the tables: one IPv4 address, or a /48, the usual size of a site."""

Progress = Callable[[int, int], None]
"""Called with (intervals done, intervals in all)."""

_PROGRESS_EVERY = 1 << 14  # intervals between two calls of the progress function


class Weight(NamedTuple):
    """An amount of address space.

    Attributes:
        addresses: how many.
        prefixes: the fewest prefixes that make them up, piece by piece.
    """

    addresses: int = 0
    prefixes: int = 0

    def __add__(self, other: object) -> Self:
        """Return both together."""
        if not isinstance(other, Weight):
            return NotImplemented
        return self._replace(
            addresses=self.addresses + other.addresses, prefixes=self.prefixes + other.prefixes
        )


def weight_of(first: int, end: int) -> Weight:
    """Return the weight of a piece from *first* up to *end*, the address after its last."""
    # The largest prefix begins or ends at the highest bit in which the ends differ;
    # below and above it, each bit that is set is one prefix.
    bit = (first ^ end).bit_length() - 1
    middle = end >> bit << bit
    return Weight(end - first, (middle - first).bit_count() + (end - middle).bit_count())


def families(
    old: Dataset, new: Dataset, progress: Progress | None
) -> Iterator[tuple[Family, Callable[[int], None]]]:
    """Yield each family, and what is called there with the number of intervals done.

    Args:
        old: the old dataset.
        new: the new one.
        progress: called with the intervals of both families.
    """
    totals = [
        sum(one.info()[f"ipv{family}_intervals"] for one in (old, new)) for family in FAMILIES
    ]
    for index, family in enumerate(FAMILIES):
        done = sum(totals[:index])

        def on_progress(count: int, done: int = done) -> None:
            if progress is not None:
                progress(done + count, sum(totals))

        yield family, on_progress


def pieces(
    old: Dataset,
    new: Dataset,
    family: Family,
    states: tuple[list[int], list[int], int],
    on_progress: Callable[[int], None],
) -> Iterator[tuple[int, int, int]]:
    """Yield the pieces in which neither dataset's state changes, in order and without gaps.

    Args:
        old: the old dataset.
        new: the new one.
        family: 4 or 6.
        states: by claim number the number of the old dataset's state, the same of the new one,
            and how many states there are. The columns are long enough for each uint16.
        on_progress: called with the number of intervals done.

    Returns:
        First address, end (the address after the last), and the number of the pair of states:
        the old state's number times how many states there are, plus that of the new one.
    """
    before, after, count = states
    old_line, new_line = old.intervals(family), new.intervals(family)
    _, old_last, number = next(old_line)
    was = before[number] * count
    _, new_last, number = next(new_line)
    is_ = after[number]
    top = (1 << BITS[family]) - 1
    start, pair, done = 0, was + is_, 2
    while True:
        last = old_last
        if old_last <= new_last:
            if old_last == new_last:
                if last == top:
                    break
                _, new_last, number = next(new_line)
                is_ = after[number]
                done += 1
            _, old_last, number = next(old_line)
            was = before[number] * count
        else:
            last = new_last
            _, new_last, number = next(new_line)
            is_ = after[number]
        done += 1
        if not done % _PROGRESS_EVERY:
            on_progress(done)
        if was + is_ != pair:
            yield start, last + 1, pair
            start, pair = last + 1, was + is_
    yield start, top + 1, pair
    on_progress(done)
