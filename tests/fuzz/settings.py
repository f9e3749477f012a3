"""Targets: what operators write, manifests and region sets, both in TOML."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

from geolookup.answer.region_sets import RegionSets
from geolookup.build import manifest as manifests
from geolookup.errors import RegionSetError, SourceError

MANIFEST_WORDS = (
    b"[[source]]\n",
    b"[[override]]\n",
    b"[limits]\n",
    b"max_change",
    b"min_coverage",
    b'name = "',
    b'files = ["data.csv"]',
    b'format = "range-csv"',
    b'licence = "',
    b"date = ",
    b"2026-01-01",
    b'coverage = "full"',
    b'"partial"',
    b"origin",
    b"country_from",
    b'"DE"',
    b'prefix = "10.0.0.0/8"',
    b'range = "10.0.0.0-10.0.0.9"',
    b"code = ",
    b"expires = ",
    b"nat64_prefixes = [",
    b"special_purpose = false",
    b"canaries",
    b"true",
    b'"""',
    b"\\u",
)
REGION_SET_WORDS = (
    b"[region_sets.",
    b"codes = [",
    b'"DE"',
    b"expression = ",
    b'version = "1"',
    b'source = "',
    b"EU",
    b"EEA-NO",
    b"+",
    b"-",
    b"2026-01-01",
    b"]\n",
    b'"\n',
)


@functools.cache
def folder() -> Path:
    """Return a folder that has the one file that manifests may name."""
    made = tempfile.TemporaryDirectory(prefix="geolookup-fuzz-")
    atexit.register(made.cleanup)
    path = Path(made.name)
    (path / "data.csv").write_bytes(b"1.0.0.0,1.0.0.255,AU\n")
    return path


def manifest(data: bytes) -> None:
    """A manifest: it loads, or the error names it."""
    path = folder() / "geolookup.toml"
    path.write_bytes(data)
    for load in (manifests.load, manifests.load_limits, manifests.load_canaries):
        try:
            load(path)
        except SourceError as error:
            assert str(error).startswith(str(path))


def region_sets(data: bytes) -> None:
    """An expression in the first line, and an operator's sets in those that follow."""
    expression, _, text = data.decode("utf-8", "replace").partition("\n")
    known = RegionSets.builtin()
    try:
        known = known.extended(text, "sets.toml")
    except RegionSetError as error:
        assert str(error).startswith("sets.toml:")
    for name in (expression, *(one.name for one in known)):
        try:
            found = known.resolve(name)
        except RegionSetError:
            assert name == expression
        else:
            assert found.codes
