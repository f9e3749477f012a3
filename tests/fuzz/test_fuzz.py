"""The committed inputs of the fuzz targets, and the faults that fuzzing found, once each."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"
IN_C = {"connection", "parse", "table", "wire"}


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    folders = {folder.name for folder in CORPUS.iterdir()}
    assert folders == {*TARGETS, *IN_C}
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == folders
    assert sum(path.stat().st_size for path in files) < 200_000


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_triggers_no_fault(name: str) -> None:
    for path in sorted((CORPUS / name).iterdir()):
        TARGETS[name].run(path.read_bytes())
