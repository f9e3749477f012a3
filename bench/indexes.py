"""How else an interval could be found, and an address read: ``python -m bench.indexes``.

Times what geolookup does not use, and its own index with parts left out, in C, on the same
arrays and addresses: nanoseconds an address, and how many times geolookup's own that is. All
contenders take turns in one run; their answers are compared first. docs/performance.md says
what was decided by it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geolookup
from bench import timing
from bench.addresses import DRAWS, draw
from bench.kernels import load
from bench.larger import larger_file
from geolookup.dataset import Dataset

SIZES = {"1,000": 1_000, "100,000": 100_000}
OTHERS = {
    4: {
        "binary search": "binary_search",
        "table of /16s, then search": "table_of_16_and_search",
        "direct table of /24s, 32 MiB": "direct_table",
        "the same, prefetched in batches": "direct_table_prefetched",
        "poptrie, 14 bits direct": "small_poptrie",
        "poptrie, 20 bits direct": "large_poptrie",
    },
    6: {
        "binary search": "binary_search",
        "interpolation": "interpolation",
        "table of /24s, then search": "table_of_24_and_search",
    },
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One way, measured.

    Attributes:
        work: what is done.
        draw: which addresses.
        size: how many a call.
        way: how.
        nanoseconds: an address, the median.
        ratio: to geolookup's own way on this machine.
    """

    work: str
    draw: str
    size: int
    way: str
    nanoseconds: float
    ratio: float


class Ways:
    """The kernels, built over a dataset's arrays."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._arrays = [
            np.frombuffer(_section(dataset, name), kind)
            for name, kind in (
                *(("ipv4.first", "<u4"), ("ipv4.claims", "<u2")),
                *(("ipv6.high", "<u8"), ("ipv6.low", "<u8"), ("ipv6.claims", "<u2")),
            )
        ]
        first, claims, high, low, claims6 = (array.ctypes.data for array in self._arrays)
        counts = [ctypes.c_size_t(len(self._arrays[at])) for at in (0, 2)]
        self.kernels = load("indexes", core=True)
        self.plain = load("indexes", core=True, define="PLAIN_PAGES")
        pointer = ctypes.c_void_p
        for kernels in (self.kernels, self.plain):
            if not kernels.build(
                *map(pointer, (first, claims)), counts[0],
                *map(pointer, (high, low, claims6)), counts[1],
            ):  # fmt: skip
                raise MemoryError
            kernels.path_name.restype = ctypes.c_char_p
            for name in ("core", "small_poptrie", "large_poptrie"):
                getattr(kernels, f"bytes_of_{name}").restype = ctypes.c_size_t
        self.paths: list[str] = []
        while (name := self.kernels.path_name(len(self.paths))) is not None:
            self.paths.append(name.decode())

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the indexes, by name."""
        return {
            "arrays": sum(array.nbytes for array in self._arrays),
            "geolookup's, both families": self.kernels.bytes_of_core(),
            "poptrie, 14 bits direct": self.kernels.bytes_of_small_poptrie(),
            "poptrie, 20 bits direct": self.kernels.bytes_of_large_poptrie(),
        }

    def finding(self, version: int, packed: bytes) -> dict[str, Callable[[], object]]:
        """Return calls that find the claims of a packed roster, by name; the last is ours.

        Those of one roster are done with before another's are asked for.

        Raises:
            AssertionError: one of them finds others than the rest.
        """
        size = ctypes.c_size_t(len(packed) // (4 if version == 4 else 16))
        out = np.zeros(size.value, np.uint16)
        there = out.ctypes.data_as(ctypes.c_void_p)  # which keeps the array
        best = len(self.paths) - 1

        def whole(kernel: Any, *first: int) -> Callable[[], object]:
            return lambda: kernel(*first, packed, size, there)

        calls = {
            name: whole(getattr(self.kernels, f"run_{kernel}{version}"))
            for name, kernel in OTHERS[version].items()
        }
        one_by_one = self.kernels.run_core_one_by_one
        calls["geolookup, one address after the other"] = whole(one_by_one, best, version)
        if version == 4:
            if not self.kernels.find_known(packed, size):
                raise MemoryError
            calls["reading each claim where it is known to be"] = whole(self.kernels.run_known)
        calls["geolookup, pages of 4 KiB"] = whole(self.plain.run_core, best, version)
        for path, name in enumerate(self.paths):
            calls[f"geolookup, {name}"] = whole(self.kernels.run_core, path, version)
        right: Array | None = None
        for name, call in calls.items():
            out[:] = 0xFFFF
            call()
            right = out.copy() if right is None else right
            assert (out == right).all(), f"{name} finds other claims"
        return calls

    def reading(self, version: int, texts: list[str]) -> dict[str, Callable[[], object]]:
        """Return calls that read texts, by name; the last is ours.

        Raises:
            AssertionError: one of them reads other addresses than the rest.
        """
        joined = "".join(f"{text}\0" for text in texts).encode()
        at = np.cumsum([0, *(len(text) + 1 for text in texts)], dtype=np.uint32)
        out = np.zeros((len(texts), 16), np.uint8)
        rest = (
            joined, at.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(texts)),
            out.ctypes.data_as(ctypes.c_void_p),
        )  # fmt: skip
        calls: dict[str, Callable[[], object]] = {
            "inet_pton": lambda: self.kernels.run_inet_pton(version, *rest)
        }
        for path, name in enumerate(self.paths):
            calls[f"geolookup, {name}"] = lambda path=path: self.kernels.run_parse(path, *rest)
        right: Array | None = None
        for name, call in calls.items():
            out[:] = 0
            call()
            right = out.copy() if right is None else right
            assert (out == right).all(), f"{name} reads other addresses"
        return calls


def _section(dataset: Dataset, name: str) -> bytes:
    content = dataset.optional_section(name)
    assert content is not None
    return content.tobytes()


def measure(ways: Ways, *, rounds: int, least_seconds: float) -> list[Row]:
    """Return all rows."""
    rows = []
    for version in (4, 6):
        for kind in DRAWS:
            for size in SIZES.values():
                timing.progress(f"IPv{version} {kind} x {size:,} ...")
                addresses = draw(ways.dataset, version, kind, size)
                works = {"packed": ways.finding(version, addresses.packed)}
                if size == SIZES["1,000"]:
                    works["text to packed"] = ways.reading(version, list(addresses.texts))
                for work, calls in works.items():
                    times = timing.alternate(calls, rounds=rounds, least_seconds=least_seconds)
                    own = list(times.values())[-1].median
                    rows += [
                        Row(
                            f"IPv{version} {work}", kind, size, way,
                            time.median / size, time.median / own,
                        )
                        for way, time in times.items()
                    ]  # fmt: skip
    timing.progress("")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.indexes", description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="of the embedded intervals (1)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.01, help="of each timing, at least")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    core = timing.pin()
    source = geolookup.open()
    times = arguments.times
    dataset = source if times == 1 else geolookup.open(larger_file(source, times))
    ways = Ways(dataset)
    rows = measure(ways, rounds=arguments.rounds, least_seconds=arguments.seconds)
    machine = timing.machine() | {"core": str(core), "times": str(times)}
    if arguments.json:
        shown = {
            "machine": machine,
            "dataset": dataset.id,
            "bytes": ways.sizes(),
            "rows": [asdict(row) for row in rows],
        }
        print(json.dumps(shown, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("; ".join(f"{name}: {size / 2**20:.1f} MiB" for name, size in ways.sizes().items()))
    print("\nNanoseconds an address, and how many times geolookup's own.")
    columns = [(kind, size) for kind in DRAWS for size in SIZES.values()]
    for work in dict.fromkeys(row.work for row in rows):
        print(f"\n| {work} | " + " | ".join(f"{kind}, {size:,}" for kind, size in columns) + " |")
        print("| --- |" + " ---: |" * len(columns))
        for way in dict.fromkeys(row.way for row in rows if row.work == work):
            cells = {
                (row.draw, row.size): f"{row.nanoseconds:.1f} ({row.ratio:.1f})"
                for row in rows
                if row.work == work and row.way == way
            }
            print(f"| {way} | " + " | ".join(cells.get(one, "") for one in columns) + " |")


if __name__ == "__main__":
    main()
