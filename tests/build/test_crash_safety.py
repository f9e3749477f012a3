"""A compiler killed at any step leaves the old dataset or the new one, whole."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import crashing
import pytest

from geolookup.answer import dataset
from geolookup.build.compiler import compile_manifest
from geolookup.build.manifest import load

ROOT = Path(__file__).resolve().parents[2]

MANIFEST = """
[[source]]
name = "one"
files = ["one.csv"]
format = "range-csv"
licence = "CC0-1.0"
date = 2026-06-01
coverage = "full"
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = (f"{n}.0.0.0,{n}.1.255.255,{('CN', 'DE')[n % 2]}" for n in range(1, 9))
    (tmp_path / "one.csv").write_text("".join(f"{line}\n" for line in lines))
    path = tmp_path / "geolookup.toml"
    path.write_text(MANIFEST)
    return path


def killed(manifest: Path, target: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, crashing.__file__, str(manifest), str(target)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def image_of(manifest: Path) -> bytes:
    compiled = compile_manifest(load(manifest))
    return dataset.encode(compiled, optional=compiled.optional)


@pytest.mark.parametrize("replaced", [True, False], ids=["an old file", "no old file"])
def test_a_compiler_killed_at_any_step_leaves_a_whole_file(
    manifest: Path, tmp_path: Path, replaced: bool
) -> None:
    folder = tmp_path / "in service"
    folder.mkdir()
    target = folder / "countries.geolookup"
    new = digest(image_of(manifest))
    old = None
    if replaced:
        # What is there need not be small, or a dataset of this compiler.
        target.write_bytes(b"the old one" * 10_000)
        old = digest(target.read_bytes())
    runs = killed(manifest, target)
    *crashes, last = runs
    assert last["code"] == 0
    assert last["digest"] == new
    assert [run["code"] for run in crashes] == [-signal.SIGKILL] * len(crashes)
    for run in crashes:
        # The new one just when it was renamed.
        assert run["digest"] == (new if "replace" in run["steps"] else old), run
    assert {run["digest"] for run in crashes} == {old, new}
    # Killed before each step of the complete run: none was left out.
    assert [run["steps"] for run in crashes] == [
        last["steps"][:count] for count in range(len(last["steps"]))
    ]
    assert last["steps"].count("write") == crashing.PIECES


def test_content_is_synced_before_the_rename_and_the_folder_after(
    manifest: Path, tmp_path: Path
) -> None:
    """After a power cut too: a killed process loses nothing that was written, a machine does."""
    steps = killed(manifest, tmp_path / "countries.geolookup")[-1]["steps"]
    assert steps == [
        "open",
        *["write"] * crashing.PIECES,
        "fsync",
        "close",
        "replace",
        "open",
        "fsync",
        "close",
    ]


def test_file_left_by_a_killed_compiler_is_hidden_and_ignored(
    manifest: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in service"
    folder.mkdir()
    target = folder / "countries.geolookup"
    killed(manifest, target)
    assert len(list(folder.iterdir())) > 1
    left = {path.name[:11] for path in folder.iterdir() if path != target}
    assert left == {".geolookup-"}
    compiled = compile_manifest(load(manifest))
    dataset.write(compiled, target, optional=compiled.optional)
    with dataset.open(target) as opened:
        assert opened.country("2.0.0.1") == "CN"
