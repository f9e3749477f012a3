"""The figures of accuracy on docs/data.md are those that were committed, by the generator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", DATA / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_has_the_tables_that_the_generator_writes(accuracy: ModuleType) -> None:
    text = accuracy.PAGE.read_text(encoding="utf-8")
    figures = json.loads(accuracy.FIGURES.read_text())
    assert accuracy.page(text, figures) == text, "run: python data/accuracy.py"


def test_shares_of_the_figures_add_up_and_lie_in_their_intervals(accuracy: ModuleType) -> None:
    figures = json.loads(accuracy.FIGURES.read_text())
    assert figures.keys() == {"before", "embedded", "older"}
    for run in figures.values():
        for score in run["scores"]:
            shares = [score[name]["share"] for name in ("wrong", "right", "undetermined")]
            assert sum(shares) == pytest.approx(1, abs=1e-5)
            known = sum(sum(parts.values()) for parts in score["operators"].values())
            assert known == pytest.approx(score["known"], abs=1)


def test_changed_figure_changes_the_page(accuracy: ModuleType) -> None:
    text = accuracy.PAGE.read_text(encoding="utf-8")
    figures = json.loads(accuracy.FIGURES.read_text())
    for score in figures["embedded"]["scores"]:
        score["wrong"]["share"] = 0.4321
    assert "43.21" in accuracy.page(text, figures)
    assert "43.21" not in text


def test_page_without_marks_is_refused(accuracy: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no marks"):
        accuracy.page("# Data\n", {})
