"""What this machine is and has: byte order, and memory by control groups of both versions."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geolookup import machine

ROOT = Path(__file__).resolve().parent.parent
Tree = dict[str, str]
Made = Callable[[str, Tree], None]
MEMINFO = "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   6000 kB\n"
KIB = 1024


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a machine of 8,000 KiB with these groups' files."""

    def made(membership: str, files: Tree) -> None:
        (tmp_path / "membership").write_text(membership)
        (tmp_path / "meminfo").write_text(MEMINFO)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_total_memory", lambda: 8000 * KIB)
    return made


def group(version: int, folder: str, limit: int | str, used: int, files: int) -> Tree:
    """Return the files of a group, in bytes; *files* are those of *used* that files take."""
    if version == 2:
        stat = f"anon 5\nfile {files}\ninactive_file {files // 2}\nactive_file {files // 2}\n"
        content = {"memory.max": limit, "memory.current": used, "memory.stat": stat}
    else:
        stat = (
            f"cache {files}\ninactive_file 1\nactive_file 1\n"
            f"total_inactive_file {files // 2}\ntotal_active_file {files // 2}\n"
        )
        folder = f"memory/{folder}"
        content = {
            "memory.limit_in_bytes": limit,
            "memory.usage_in_bytes": used,
            "memory.stat": stat,
        }
    return {f"{folder}/{name}": f"{text}\n" for name, text in content.items()}


MEMBERSHIP = {2: "0::/pods/one\n", 1: "3:cpu:/\n4:memory:/pods/one\n0::/\n"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit", "used", "files", "most", "left"),
    [
        (1000 * KIB, 300 * KIB, 0, 1000, 700),
        (1000 * KIB, 300 * KIB, 200 * KIB, 1000, 900),  # the kernel gives up files' pages
        (1000 * KIB, 1000 * KIB, 0, 1000, 0),
        (9000 * KIB, 0, 0, 8000, 6000),
        ("max", 300 * KIB, 0, 8000, 6000),
        (2**63 - 4096, 300 * KIB, 0, 8000, 6000),  # none, in version 1
        ("x", 0, 0, 8000, 6000),
    ],
)
def test_memory_is_that_of_the_group_or_the_machine(
    made: Made, version: int, limit: int | str, used: int, files: int, most: int, left: int
) -> None:
    made(MEMBERSHIP[version], group(version, "pods/one", limit, used, files))
    assert machine.memory_limit() == most * KIB
    assert machine.memory_left() == left * KIB


@pytest.mark.parametrize("version", [1, 2])
def test_memory_left_is_that_of_the_group_that_has_least(made: Made, version: int) -> None:
    outer = group(version, "pods", 2000 * KIB, 1900 * KIB, 0)
    made(MEMBERSHIP[version], outer | group(version, "pods/one", 1000 * KIB, 300 * KIB, 0))
    assert machine.memory_limit() == 1000 * KIB
    assert machine.memory_left() == 100 * KIB


def test_memory_is_unlimited_where_nothing_is_known(made: Made, tmp_path: Path) -> None:
    made("", {})
    (tmp_path / "meminfo").unlink()
    (tmp_path / "membership").unlink()
    assert machine.memory_limit() == 8000 * KIB
    assert machine.memory_left() == math.inf


def test_memory_of_this_machine_is_known() -> None:
    assert 0 < machine.memory_left() <= machine.memory_limit() < math.inf


def test_install_on_a_big_endian_machine_says_why_not() -> None:
    program = "import runpy, sys; sys.byteorder = 'big'; runpy.run_path('setup.py')"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "geolookup: can't be installed here: it needs a little-endian machine\n"
