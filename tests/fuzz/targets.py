"""The fuzz targets, as one table.

A target is a function that takes bytes and raises when something is wrong; what the code
under test documents as its answer to nonsense is caught by the target. The same functions
run over the committed corpora in the ordinary tests (test_fuzz.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import addresses, datasets, requests, settings, sources


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    Attributes:
        run: raises if the bytes bring out a fault.
        longest: bytes of the longest input that is tried.
        words: what inputs are likely to hold, which saves the fuzzer from guessing it.
    """

    run: Callable[[bytes], None]
    longest: int
    words: tuple[bytes, ...] = ()


TARGETS = {
    "text": Target(addresses.text, 400, addresses.WORDS),
    "packed": Target(addresses.packed, 4200),
    "requests": Target(requests.requests, 600, requests.WORDS),
    "dataset": Target(datasets.sections, 4096, datasets.WORDS),
    "dataset-file": Target(datasets.file, 12_000),
    "bitmaps": Target(datasets.bitmaps, 1024, datasets.BITMAP_WORDS),
    "manifest": Target(settings.manifest, 2048, settings.MANIFEST_WORDS),
    "region-sets": Target(settings.region_sets, 1024, settings.REGION_SET_WORDS),
    "source-files": Target(sources.files, 4096),
    **{f"reader-{name}": Target(run, 4000, sources.WORDS) for name, run in sources.READERS.items()},
}
"""Targets in Python by name. Those in C, parse.c, table.c and wire.c, are programs of their own."""
