"""The worked examples of docs/answers.md: each reason comes about as its row says."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from geolookup import Dataset, Network, Reason
from geolookup.answer.claims import network_bits
from geolookup.answer.dataset import encode
from geolookup.answer.overrides import Override
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges, code_number
from geolookup.build.sources import NetworkList, Source

PAGE = Path(__file__).resolve().parents[2] / "docs" / "answers.md"
ADDRESS = "1.0.0.1"
FIRST, LAST = bytes([1, 0, 0, 0]), bytes([1, 0, 0, 255])


def rows() -> dict[str, list[str]]:
    """Return what the sources name, from where it is seen, and the rest, by reason."""
    text = PAGE.read_text().partition("### Reasons by example")[2].partition("\n## ")[0]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {name.strip("`"): rest for name, *rest in table[2:]}


def ranges(number: int) -> SourceRanges:
    into = SourceRanges()
    into.ipv4.append(int.from_bytes(FIRST), int.from_bytes(LAST), number)
    return into


def built(told: str) -> Dataset:
    """Return the dataset of a row: what two full sources say of an address, and what else."""
    sources = []
    for name in "AB":
        code = re.search(rf"\b{name}: (\w\w)\b", told)
        said = ranges(code_number(code[1])) if code else SourceRanges()
        sources.append((Source(name, "none", date(2026, 1, 1)), said))
    lists = []
    if kind := re.search(r"a list: (\w+)", told):
        network = Network[kind[1]]
        one = NetworkList("a list", "none", date(2026, 1, 1), (network,))
        lists.append((one, ranges(network_bits([network]))))
    overrides = [Override(FIRST, LAST, "ZZ")] if "an override: `ZZ`" in told else []
    content = compile_sources(sources, networks=lists, overrides=overrides)
    aged: dict[str, Any] = {"max_age": 1, "stale": "undetermined"} if "long ago" in told else {}
    return Dataset.from_buffer(encode(content), **aged)


def test_each_reason_has_an_example() -> None:
    assert set(rows()) == {reason.name for reason in Reason} - {"DECIDED"}


@pytest.mark.parametrize("reason", [*rows()])
def test_example_of_a_reason_has_it(reason: str) -> None:
    told, seen, by_hand = rows()[reason]
    address = re.search(r"the address is (\S+)|the text is `(\S+)`", told)
    asked = ADDRESS if address is None else address[1] or address[2]
    dataset = built(told)
    answer = dataset.lookup(asked, seen.strip("`"))
    assert answer.reason == reason
    other = re.search(r"Seen from `(\w+)`, .*: (INSIDE|OUTSIDE)$", by_hand)
    assert (other is None) == (reason != "DISPUTED")
    if other is not None:
        assert dataset.lookup(asked, other[1]).verdict == other[2]
