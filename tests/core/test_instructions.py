"""The count of instructions: that it can fail, and what it does where it can't be made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import instructions
from bench.instructions import KEPT, LOOKUPS, UnavailableError, count_kernels, main, report
from geolookup import Dataset

MADE_BY = {
    "compiler": "cc 1",
    "machine": "x86_64",
    "instruction sets": "portable, avx2",
    "C library": "glibc 2",
    "python": "3.11 (cc 1)",
    "transport": "native",
    "dataset": "0123",
}
LOOKUP = next(iter(LOOKUPS))
LOOP = "packed IPv4, avx2"
COUNTS = {LOOP: 30.0, LOOKUP: 400.0}


def kept(*, by: dict[str, str] | None = None, **counts: float) -> dict[str, object]:
    return {"made_by": MADE_BY | (by or {}), "counts": COUNTS | counts}


def test_count_within_the_allowance_passes() -> None:
    assert report(MADE_BY, COUNTS, kept()) == 0
    assert report(MADE_BY, COUNTS | {LOOP: 31.4, LOOKUP: 499.0}, kept()) == 0
    assert report(MADE_BY, COUNTS | {LOOP: 31.6}, kept()) == 1


def test_loop_with_more_instructions_fails_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(MADE_BY, COUNTS, kept(**{LOOKUP: 310.0})) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "ABOVE" in last
    assert LOOKUP in last
    assert "packed" not in last
    assert report(MADE_BY, COUNTS, kept(**{LOOKUP: 310.0}), as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["above"] == [LOOKUP]


def test_loop_with_far_fewer_instructions_passes_and_asks_for_update(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(MADE_BY, COUNTS, kept(**{LOOKUP: 501.0})) == 0
    assert f"--update: {LOOKUP}" in capsys.readouterr().out


def test_new_and_missing_loops_pass_and_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MADE_BY, COUNTS | {"new": 1.0}, kept(gone=1.0)) == 0
    assert "not counted here: gone" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["compiler", "machine", "instruction sets", "C library"])
def test_counts_made_by_another_compiler_are_not_compared(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few = kept(by={what: "another"}, **dict.fromkeys(COUNTS, 1.0))
    assert report(MADE_BY, COUNTS, few) == 0
    assert f"NOT COMPARED: {what} is {MADE_BY[what]}" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["python", "transport"])
def test_counts_under_another_python_or_transport_are_compared_for_loops_in_c(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {what: "another"}
    assert report(MADE_BY, COUNTS, kept(by=other, **{LOOKUP: 1.0})) == 0
    assert "lookups from Python and calls NOT COMPARED" in capsys.readouterr().out
    assert report(MADE_BY, COUNTS, kept(by=other, **{"packed IPv4, avx2": 1.0})) == 1


def test_counts_over_another_dataset_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MADE_BY, COUNTS, kept(by={"dataset": "f"}, **{LOOKUP: 1.0})) == 1
    assert "compared all the same: dataset is 0123" in capsys.readouterr().out


def test_missing_valgrind_is_reported_and_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main([]) == 0
    assert capsys.readouterr().out == "skipped: no valgrind (Debian: valgrind)\n"


def test_wrong_usage_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--no-such-option"])
    assert error.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_kept_counts_cover_each_path_and_both_families() -> None:
    counts = json.loads(KEPT.read_text(encoding="utf-8"))["counts"]
    for part in (*LOOKUPS, "packed IPv6, avx2", "one text IPv4, portable", "request of text IPv6"):
        assert counts[part] > 0


def test_worse_code_has_a_higher_count(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        instructions.find_tools()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    instructions.write_inputs(dataset, tmp_path)
    loop = "packed IPv4, portable"
    monkeypatch.setattr(instructions, "FLAGS", ("-O1", "-std=c11"))
    good = count_kernels(tmp_path, loop)
    assert good.keys() == {loop}
    monkeypatch.setattr(instructions, "FLAGS", ("-O0", "-std=c11"))
    worse = count_kernels(tmp_path, loop)
    assert report(MADE_BY, worse, {"made_by": MADE_BY, "counts": good}) == 1
