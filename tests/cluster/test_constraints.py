"""The pinned libraries of the image, held to what the package asks for."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.render import ROOT

EXTRAS = ("envoy", "http", "mmdb", "otel", "sign", "subdivisions", "update", "zstd")
"""Those in the image: what a service can be asked to do, and to keep its dataset up to date."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [
    *PROJECT["dependencies"],
    *(one for extra in EXTRAS for one in PROJECT["optional-dependencies"][extra]),
]
PIN = re.compile(
    r"^([a-z0-9-]+)==([^ ]+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)$", re.M
)


@pytest.mark.parametrize("text", NEEDED)
def test_constraints_pin_each_library_with_hashes(text: str) -> None:
    pins = (ROOT / "deploy/constraints.txt").read_text(encoding="utf-8")
    found = {name: (version, hashes) for name, version, hashes in PIN.findall(pins)}
    assert len(found) == len(re.findall("^[a-z]", pins, re.M)), "a library without a hash"
    requirement = Requirement(text)
    version, _ = found[canonicalize_name(requirement.name)]
    assert version in requirement.specifier
