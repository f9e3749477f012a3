"""The same data as an MMDB file, for the readers of that format.

`mmdb_writer` writes the file, but it is not asked to insert a million prefixes one
by one, which takes it minutes: its search tree is built here straight from the sorted
intervals, split at the middle until a half holds one country. The file is kept in a
folder for temporary files under the dataset's id, so that it is made once a dataset.
"""

from __future__ import annotations

import bisect
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mmdb_writer import MMDBWriter, SearchTreeLeaf, SearchTreeNode

from bench.intervals import merged, read_intervals
from bench.timing import progress
from geolookup.answer.dataset import Dataset

Tree = SearchTreeNode | SearchTreeLeaf | None

PATH = ("country", "iso_code")
"""Where a record holds the country."""


def cache_folder() -> Path:
    """Return the folder for files that are costly to make, readable by this user only."""
    folder = Path(tempfile.gettempdir()) / f"geolookup-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def cached(dataset: Dataset, ending: str, write: Callable[[Dataset, Path], object]) -> Path:
    """Return the path of a file made of a dataset; has it written if it isn't there yet."""
    path = cache_folder() / f"{dataset.id[:16]}{ending}"
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        write(dataset, partial)
        partial.rename(path)
    return path


def mmdb_of(dataset: Dataset) -> Path:
    """Return the path of the dataset's MMDB file; writes it if it isn't there yet."""
    return cached(dataset, ".mmdb", write_mmdb)


def write_mmdb(dataset: Dataset, path: Path) -> None:
    """Write the countries of a dataset as MMDB; where it says ``ZZ``, there is no record."""
    writer = MMDBWriter(ip_version=6, database_type="geolookup-bench", ipv4_compatible=True)
    progress("MMDB: building the search tree ...")
    leaves: dict[str, SearchTreeLeaf | None] = {"ZZ": None}
    ipv4 = build(merged(read_intervals(dataset, 4)), 32, leaves)
    tree = build(merged(read_intervals(dataset, 6)), 128, leaves, {32: ipv4})
    if not isinstance(tree, SearchTreeNode):
        raise TypeError("a dataset without any country makes no search tree")
    writer.tree = tree
    progress("MMDB: writing ...")
    writer.to_db_file(str(path))
    progress("")


def build(
    line: tuple[list[int], list[str]],
    bits: int,
    leaves: dict[str, SearchTreeLeaf | None],
    at_zero: Mapping[int, Tree] | None = None,
) -> Tree:
    """Return the search tree of an address line of *bits* bits.

    Args:
        line: first address of each interval, from 0, and its country.
        bits: 32 or 128.
        leaves: one leaf a country; missing ones are added.
        at_zero: trees to hang in at address 0, by the number of bits below them.
    """
    first, countries = line
    hang = at_zero or {}

    def subtree(start: int, below: int, low: int, high: int) -> Tree:
        # Intervals low to high lie in the 2**below addresses from start.
        if start == 0 and below in hang:
            return hang[below]
        if low == high and (start > 0 or not any(other < below for other in hang)):
            country = countries[low]
            if country not in leaves:
                leaves[country] = SearchTreeLeaf({PATH[0]: {PATH[1]: country}})
            return leaves[country]
        middle = start + (1 << below - 1)
        after = bisect.bisect_right(first, middle, low, high + 1) - 1
        before = after - 1 if first[after] == middle else after
        return SearchTreeNode(
            subtree(start, below - 1, low, before), subtree(middle, below - 1, after, high)
        )

    return subtree(0, bits, 0, len(first) - 1)
