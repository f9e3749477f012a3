"""Derivations: the steps lead to the verdict that the answer has, and the oracle's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
import reference

import geolookup
from geolookup import Answer, Dataset, Policy, Reason, Status, Verdict
from geolookup.answer.claims import combine, counted
from geolookup.answer.derivation import Derivation, derive
from geolookup.answer.explanation import Explanation, SourceView

ID = "ab" * 32
SETS = {"CN": frozenset(["CN"]), "CN+HK": frozenset(["CN", "HK"]), "JP": frozenset(["JP"])}


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with geolookup.open() as opened:
        yield opened


def explained(coverages: tuple[str, ...], said: tuple[str | None, ...]) -> Explanation:
    """Return the explanation of an address about which sources say this."""
    sources: Any = [
        SimpleNamespace(coverage=coverage, origin=f"o{at}", mute=(), depth="country")
        for at, coverage in enumerate(coverages)
    ]
    claim = combine(sources, said)
    views = tuple(
        SourceView(f"s{at}", code, "1.0.0.0", "1.0.0.255", cast("Any", coverage), counts)
        for at, (code, coverage, counts) in enumerate(
            zip(said, coverages, counted(sources, said), strict=True)
        )
    )
    return Explanation(
        claim.country, claim.status, claim.claimed, tuple(count for _, count in claim.votes),
        claim.abstentions, "IPv4", "1.0.0.1", "1.0.0.0", "1.0.0.255", views, None, None, True, ID,
    )  # fmt: skip


def answered(
    why: Explanation, verdict: str, reason: str, *, status: Status | None = None
) -> Answer:
    return Answer(why.country, status or why.status, (), Verdict[verdict], ID, Reason[reason])


def ends(found: Derivation) -> tuple[Verdict | None, Reason]:
    """Return what the last step says; the others decide nothing."""
    assert all(step.verdict is None for step in found.steps[:-1])
    return found.steps[-1].verdict, found.steps[-1].reason


@pytest.mark.parametrize(
    "coverages",
    [
        *product(("full", "partial", "advisory"), repeat=2),
        ("full", "full", "partial"),
        ("full", "authoritative"),
    ],
)
def test_steps_lead_to_the_oracles_verdict(coverages: tuple[str, ...]) -> None:
    sources = [
        reference.Source(f"s{at}", coverage=one, origin=f"o{at}")
        for at, one in enumerate(coverages)
    ]
    oracle = reference.Oracle(sources)
    for said in product(("CN", "HK", "JP", None), repeat=len(sources)):
        why = explained(coverages, said)
        for (name, codes), policy in product(SETS.items(), Policy):
            verdict = oracle.verdict(said, codes, policy.name)
            reason = oracle.reason(said, codes, policy.name)
            found = derive(why, answered(why, verdict, reason), name, codes, policy)
            assert ends(found) == (verdict, reason)
            assert found.steps[-1].question != "does the dataset keep all votes?"
            voices = {source.name: code for source, code in oracle.voices(said)}
            assert {one.source for one in found.statements if one.counted} == voices.keys()
            for one in found.statements:
                assert (one.why == "") is one.counted
                side = "silent" if one.country is None else "IN" if one.country in codes else "OUT"
                assert one.side == side


def test_steps_of_each_claim_lead_to_the_answer(dataset: Dataset) -> None:
    """One address for each claim of the embedded dataset."""
    seen: set[int] = set()
    for first, _, claim in dataset.intervals(4):
        if claim in seen:
            continue
        seen.add(claim)
        address = first.to_bytes(4)
        why = dataset.explain(address)
        for region_set, policy in (("CN", Policy.UNANIMOUS), ("EU", Policy.MAJORITY)):
            answer = dataset.lookup(address, region_set, policy)
            codes = dataset.region_sets.resolve(region_set).codes
            found = derive(why, answer, region_set, codes, policy)
            assert ends(found) == (answer.verdict, answer.reason)
            assert (found.verdict, found.reason) == (answer.verdict, answer.reason)
    assert len(seen) > 500


@pytest.mark.parametrize(
    ("status", "country", "verdict", "reason", "question"),
    [
        (Status.INVALID, "ZZ", "UNDETERMINED", "INVALID", "is it an address?"),
        (
            Status.SPECIAL_PURPOSE,
            *("ZZ", "UNDETERMINED", "SPECIAL_PURPOSE", "is it no special-purpose address?"),
        ),
        (Status.ASSIGNED, "CN", "UNDETERMINED", "STALE", "is the dataset young enough?"),
        (Status.OVERRIDE, "CN", "INSIDE", "DECIDED", "does an operator's override apply?"),
        (Status.OVERRIDE, "HK", "OUTSIDE", "DECIDED", "does an operator's override apply?"),
        (Status.OVERRIDE, "ZZ", "UNDETERMINED", "NO_COUNTRY", "does an operator's override apply?"),
        (Status.UNASSIGNED, "ZZ", "UNDETERMINED", "UNASSIGNED", "does a source speak?"),
    ],
)
def test_what_rules_before_the_sources_is_the_last_step(
    status: Status, country: str, verdict: str, reason: str, question: str
) -> None:
    why = replace(explained(("full",), ("CN",)), status=status, country=country)
    for policy in Policy:
        found = derive(why, answered(why, verdict, reason), "CN", SETS["CN"], policy)
        assert found.steps[-1].question == question
        assert ends(found) == (verdict, reason)


def test_answer_that_the_explanation_does_not_lead_to_is_the_claims() -> None:
    """The compiler may keep fewer votes than were cast."""
    why = explained(("full", "full", "full"), ("CN", "CN", "HK"))
    answer = answered(why, "UNDETERMINED", "DISPUTED")
    found = derive(why, answer, "CN", SETS["CN"], Policy.MAJORITY)
    assert [step.verdict for step in found.steps[-2:]] == [None, Verdict.UNDETERMINED]
    assert found.steps[-1].question == "does the dataset keep all votes?"


def test_answer_of_another_dataset_is_refused() -> None:
    why = explained(("full",), ("CN",))
    answer = replace(answered(why, "INSIDE", "DECIDED"), dataset="cd" * 32)
    with pytest.raises(ValueError, match="different datasets"):
        derive(why, answer, "CN", SETS["CN"], Policy.UNANIMOUS)
    with pytest.raises(ValueError, match="no verdict"):
        derive(why, replace(answer, dataset=ID, verdict=None), "CN", SETS["CN"], Policy.UNANIMOUS)
