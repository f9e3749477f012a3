"""The examples of docs/dataframes.md, by its sections."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dataframes.md"


def sections() -> dict[str, str]:
    """Return the texts of the page's sections by their headings."""
    first, *others = PAGE.read_text(encoding="utf-8").split("\n## ")
    return {"": first} | dict(section.split("\n", 1) for section in others)


def run_examples(texts: list[str]) -> doctest.TestResults:
    """Run the examples in texts, one after the other in one name space."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    return runner.run(parser.get_doctest("\n".join(texts), {}, PAGE.name, str(PAGE), 0))
