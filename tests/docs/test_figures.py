"""The tables of docs/data.md are what the generator makes of the committed figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from geolookup import Dataset

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", DATA / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_has_the_tables_that_the_generator_writes(generator: ModuleType) -> None:
    text = generator.PAGE.read_text(encoding="utf-8")
    figures = json.loads(generator.FIGURES.read_text())
    assert generator.page(text, figures) == text, "run: python data/figures.py"


def test_shares_of_the_figures_add_up_and_lie_in_their_intervals(generator: ModuleType) -> None:
    figures = json.loads(generator.FIGURES.read_text())
    assert figures.keys() == {"agreement", "before", "embedded", "older"}
    for name in ("before", "embedded", "older"):
        for score in figures[name]["scores"]:
            shares = [score[name]["share"] for name in ("wrong", "right", "undetermined")]
            assert sum(shares) == pytest.approx(1, abs=1e-5)
            known = sum(sum(parts.values()) for parts in score["operators"].values())
            assert known == pytest.approx(score["known"], abs=1)


def test_figures_of_agreement_are_the_embedded_datasets(
    generator: ModuleType, dataset: Dataset
) -> None:
    figures = json.loads(generator.FIGURES.read_text())
    assert figures["agreement"]["dataset"] == dataset.id


def test_changed_figure_changes_the_page(generator: ModuleType) -> None:
    text = generator.PAGE.read_text(encoding="utf-8")
    figures = json.loads(generator.FIGURES.read_text())
    for score in figures["embedded"]["scores"]:
        score["wrong"]["share"] = 0.4321
    assert "43.21" in generator.page(text, figures)
    assert "43.21" not in text


def test_page_without_marks_is_refused(generator: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no marks"):
        generator.page("# Data\n", {})
