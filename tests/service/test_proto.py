"""The proto, the code generated from it, and the bounds on runtimes that follow."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from enum import IntEnum
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

import geolookup.admin.v1.admin_pb2  # noqa: F401 - puts its file into the pool
from geolookup.answer.claims import Network, Policy, Reason, Status, Verdict
from geolookup.v1 import geolookup_pb2 as v1

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "geolookup" / "v1"
CANNOT_FETCH = 75


def test_the_generated_code_is_that_of_the_proto() -> None:
    done = subprocess.run(
        [sys.executable, "proto/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == CANNOT_FETCH:
        pytest.skip(f"the pinned generator is not to be had: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def lower_bounds() -> dict[str, tuple[int, ...]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for requirement in project["dependencies"]:
        match = re.fullmatch(r"([a-z-]+)>=([\d.]+)", requirement)
        assert match, requirement
        found[match[1]] = tuple(map(int, match[2].split(".")))
    return found


def version_in(file: str, pattern: str) -> tuple[int, ...]:
    match = re.search(pattern, (GENERATED / file).read_text())
    assert match
    return tuple(map(int, match[1].split(".")))


def test_the_generated_code_runs_on_the_oldest_runtimes_that_we_accept() -> None:
    protobuf = version_in("geolookup_pb2.py", r"Protobuf Python Version: ([\d.]+)")
    grpcio = version_in("geolookup_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'")
    bounds = lower_bounds()
    padded = (*bounds["protobuf"], 0, 0, 0)[:3]
    assert padded >= protobuf
    for package in ("grpcio", "grpcio-health-checking", "grpcio-reflection"):
        assert bounds[package] >= grpcio


# As the design lists them: numbers never change, so a later field comes last.
FIELDS: dict[str, list[str]] = {
    "LookupRequest": ["text", "packed", "region_set", "policy", "networks"],
    "LookupResponse": [
        "country",
        "status",
        "claimed",
        "verdict",
        "dataset",
        "reason",
        "region",
        "networks",
    ],
    "ClassifyRosterRequest": [
        "ipv4",
        "ipv6",
        "text",
        "region_set",
        "policy",
        "record",
        "reasons",
        "group_sizes",
        "regions",
        "networks",
    ],
    "ClassifyRosterResponse": [
        "size",
        "countries",
        "statuses",
        "counts",
        "inside",
        "outside",
        "undetermined",
        "dataset",
        "record",
        "reasons",
        "reason_counts",
        "participants",
        "regions",
        "networks",
        "network_counts",
    ],
    "NetworkCount": ["network", "count"],
    "ReasonCount": ["reason", "count"],
    "DecisionRecord": [
        "format",
        "time",
        "dataset",
        "dataset_built",
        "region_set",
        "region_set_version",
        "codes",
        "policy",
        "size",
        "inside",
        "outside",
        "undetermined",
        "statuses",
        "digest",
        "reasons",
        "subdivision_sources",
        "addresses",
        "networks",
        "overrides",
        "base_dataset",
    ],
    "StreamRostersRequest": ["roster"],
    "StreamRostersResponse": ["roster"],
}


@pytest.mark.parametrize("message", FIELDS)
def test_fields_keep_their_numbers(message: str) -> None:
    descriptor = v1.DESCRIPTOR.message_types_by_name[message]
    numbered = {field.number: field.name for field in descriptor.fields}
    assert [numbered.get(number) for number in range(1, max(numbered) + 1)] == FIELDS[message]


@pytest.mark.parametrize("enum", [Status, Verdict, Policy, Reason, Network])
def test_enums_have_the_numbers_of_python_s(enum: type[IntEnum]) -> None:
    prefix = enum.__name__.upper()
    values = v1.DESCRIPTOR.enum_types_by_name[enum.__name__].values
    assert {value.name: value.number for value in values} == {
        f"{prefix}_UNSPECIFIED": 0,
        # DECIDED is 0: there is no reason.
        **{f"{prefix}_{member.name}": int(member) for member in enum if int(member)},
    }


@pytest.mark.parametrize("name", ["geolookup/v1/geolookup.proto", "geolookup/admin/v1/admin.proto"])
def test_proto_names_a_package_for_go_and_java(name: str) -> None:
    options = descriptor_pool.Default().FindFileByName(name).GetOptions()
    assert options.go_package.startswith(f"{name.rpartition('/')[0]};")
    assert options.java_package == name.rpartition("/")[0].replace("/", ".")
    assert options.java_multiple_files
