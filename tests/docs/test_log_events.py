"""Every event and field of the log is written somewhere, and nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pages import ROOT

from geolookup.service import log

SOURCES = sorted((ROOT / "geolookup").rglob("*.py"))
_WRITERS = {"event", "CountReport"}
"""Whose first argument is an event's name."""
_BY_THE_FORMATTER = {"worker", "error"}
"""Fields that each line of a worker, and each line with an exception, has."""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Yield what writes an event, with the function that it stands in."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if name in _WRITERS and node.args:
                        yield node, function


def texts(node: ast.AST) -> set[str]:
    """Return the names that an argument may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple):
        return texts(node.value.elts[0])
    return set()


def keys(function: ast.AST) -> set[str]:
    """Return the keys of dictionaries that a function makes or adds to."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            found |= {text for key in node.keys if key is not None for text in texts(key)}
        elif isinstance(node, ast.Subscript):
            found |= texts(node.slice)
    return found


def written(paths: list[Path]) -> tuple[set[str], set[str]]:
    """Return the events and the fields that the code writes."""
    events, fields = set(), set()
    for path in paths:
        for call, function in calls(ast.parse(path.read_text(encoding="utf-8"))):
            events |= texts(call.args[0])
            for keyword in call.keywords:
                if keyword.arg is None:
                    fields |= keys(function)
                else:
                    fields.add(keyword.arg)
            if getattr(call.func, "attr", "") == "CountReport":
                fields.add("calls")
    return events, fields


def test_log_events_are_exactly_the_documented() -> None:
    events, _ = written(SOURCES)
    assert events == set(get_args(log.Event))


def test_each_documented_field_is_written() -> None:
    _, fields = written(SOURCES)
    assert set(log.Fields.__annotations__) - _BY_THE_FORMATTER <= fields


@pytest.mark.parametrize(
    ("source", "events", "fields"),
    [
        ('event("ready", worker=1)', {"ready"}, {"worker"}),
        ('event("a" if x else "b")', {"a", "b"}, set()),
        ('log.event(*("a", "info"), pid=1)', {"a"}, {"pid"}),
        ('f = {"pid": 1}; f["reason"] = ""; event("a", **f)', {"a"}, {"pid", "reason"}),
        ("event(name)", set(), set()),
    ],
)
def test_search_finds_each_form(
    tmp_path: Path, source: str, events: set[str], fields: set[str]
) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"def function():\n    {source}\n")
    assert written([path]) == (events, fields)
