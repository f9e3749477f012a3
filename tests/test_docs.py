"""The documents' links lead somewhere, and the tools that they name exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "bench", "tests", "deploy", "data", "proto", "ext", "geolookup")
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.md"),
        *(one for name in FOLDERS for one in (ROOT / name).rglob("*.md")),
    )
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOOL = re.compile(r"python -m ((?:bench|tests)(?:\.\w+)*)")


def anchors(text: str) -> set[str]:
    """Return the anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = (ROOT / document).read_text()
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / document.parent / name if name else ROOT / document
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_tools_that_are_named_exist(document: Path) -> None:
    for name in TOOL.findall((ROOT / document).read_text()):
        assert importlib.util.find_spec(name), name


def test_the_documents_are_found() -> None:
    assert {Path("README.md"), Path("docs/answers.md"), Path("bench/README.md")} <= set(DOCUMENTS)
