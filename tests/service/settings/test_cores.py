"""How many workers there are by default: what a container may keep busy, and never none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from geolookup import machine
from geolookup.service.settings.cores import available_cores

Limited = Callable[[str, dict[str, str]], int]


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Return the cores of a machine that has 16, in a tree of control groups."""

    def limited(membership: str, limits: dict[str, str]) -> int:
        root = tmp_path / "cgroup"
        for folder, text in limits.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "cpu.max").write_text(text)
        (tmp_path / "membership").write_bytes(membership.encode("latin-1"))
        return available_cores()

    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return limited


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("100000 100000\n", 1),
        # Of one and a half, a second worker has half.
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("9900000 100000\n", 16),
        ("25000 10000\n", 3),
        # What is not understood limits nothing.
        ("", 16),
        ("many\n", 16),
        ("1 2 3\n", 16),
        ("100000 0\n", 16),
        ("100000\n", 16),
    ],
)
def test_a_limit_on_time_limits_the_cores(limited: Limited, text: str, expected: int) -> None:
    assert limited("0::/app\n", {"app": text}) == expected


def test_the_smallest_limit_of_all_groups_counts(limited: Limited) -> None:
    limits = {"": "max 100000", "pods": "400000 100000", "pods/one": "800000 100000"}
    assert limited("0::/pods/one\n", limits) == 4


def test_in_a_container_ones_own_group_is_the_root(limited: Limited) -> None:
    assert limited("0::/\n", {"": "300000 100000"}) == 3


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000", 2), ("-1", 16), ("", 16), ("x", 16), ("100000", 1)]
)
@pytest.mark.parametrize("folder", ["app", ""], ids=["own path", "a container's root"])
def test_a_limit_of_version_1_limits_the_cores(
    limited: Limited, tmp_path: Path, quota: str, folder: str, expected: int
) -> None:
    group = tmp_path / "cgroup" / "cpu,cpuacct" / folder
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(quota)
    (group / "cpu.cfs_period_us").write_text("100000\n")
    membership = "4:cpu,cpuacct:/app\n1:name=systemd:/app\n0::/\n"
    assert limited(membership, {}) == expected


@pytest.mark.parametrize("membership", ["", "0::/nowhere\n", "0::/../../etc\n", "0::/\xff\n"])
def test_a_group_that_can_not_be_found_limits_nothing(limited: Limited, membership: str) -> None:
    assert limited(membership, {}) == 16


@pytest.mark.parametrize("membership", ["hello\n", "0:\n", "\n", "0::/app\nhello\n"])
def test_what_is_no_membership_limits_nothing(limited: Limited, membership: str) -> None:
    assert limited(membership, {"elsewhere": "100000 100000"}) == 16


def test_a_system_without_groups_limits_nothing(limited: Limited, tmp_path: Path) -> None:
    assert limited("0::/\n", {}) == 16
    (tmp_path / "membership").unlink()
    assert available_cores() == 16


def test_no_more_than_the_process_may_run_on(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert limited("0::/app\n", {"app": "800000 100000"}) == 2


def test_on_this_machine_there_is_one() -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))
