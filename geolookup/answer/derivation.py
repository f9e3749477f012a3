"""Derivations: from what each source says to the verdict, step by step.

For people who check a verdict on paper. Nothing here decides: the steps follow the
documentation, and `derive` holds their outcome against the answer's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from geolookup.answer.claims import (
    COVERING,
    NO_COUNTRY,
    SUBDIVISION_SOURCES,
    Network,
    PlaceVote,
    Policy,
    Reason,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from geolookup.answer.explanation import Explanation, SourceView
    from geolookup.answer.results import Answer

Side = Literal["IN", "OUT", "OPEN", "silent"]
"""Where a statement lies, seen from a region set; OPEN: it names a country or a subdivision of
which a part is in the set; silent: the source says nothing."""


@dataclass(frozen=True, slots=True)
class SeenStatement:
    """What one source says of an address, seen from a region set.

    Attributes:
        source: its name.
        country: the code, which may be a subdivision's; None: the source is silent.
        side: where the statement lies.
        counted: whether it, or the source's silence, counts.
        why: why it does not count; empty: it counts.
    """

    source: str
    country: str | None
    side: Side
    counted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """One question on the way to a verdict.

    Attributes:
        question: such as "is it a special-purpose address?".
        finding: its answer in words.
        verdict: what follows from that; None: the next step is taken.
        reason: of the verdict.
    """

    question: str
    finding: str
    verdict: Verdict | None = None
    reason: Reason = Reason.DECIDED


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a verdict follows from what the sources say.

    Attributes:
        region_set: its name or expression.
        codes: the codes in it, sorted.
        policy: how claims become verdicts.
        statements: what each source says, in order of precedence; empty without evidence.
        steps: the questions in order; the last one decides.
        verdict: of the answer.
        reason: of the answer.
    """

    region_set: str
    codes: tuple[str, ...]
    policy: Policy
    statements: tuple[SeenStatement, ...]
    steps: tuple[Step, ...]
    verdict: Verdict
    reason: Reason


def derive(
    why: Explanation,
    answer: Answer,
    region_set: str,
    codes: Set[str],
    policy: Policy,
    partly: Set[str] = frozenset(),
    *,
    covering: Collection[Network] = COVERING,
) -> Derivation:
    """Return how an answer's verdict follows.

    Args:
        why: the explanation of the address.
        answer: the answer about the same address from the same dataset, seen from the
            region set under the policy.
        region_set: its name or expression.
        codes: the codes in it.
        policy: how claims become verdicts.
        partly: the countries and subdivisions of which a part is in it.
        covering: the kinds of networks that hide where their users are; none where the
            answer has them ignored.

    Raises:
        ValueError: the two are of different datasets, or the answer has no verdict.
    """
    if why.dataset != answer.dataset:
        raise ValueError("explanation and answer are of different datasets")
    if answer.verdict is None or answer.reason is None:
        raise ValueError("the answer has no verdict and no reason")
    questions = _steps(why, answer.reason, codes, policy, partly, covering)
    steps = list(_until_decided(questions))
    if (steps[-1].verdict, steps[-1].reason) != (answer.verdict, answer.reason):
        steps[-1] = Step(steps[-1].question, steps[-1].finding)
        steps.append(
            Step(
                "does the dataset keep all votes?",
                "no: what its claim keeps decides",
                answer.verdict,
                answer.reason,
            )
        )
    return Derivation(
        region_set=region_set,
        codes=tuple(sorted(codes)),
        policy=policy,
        statements=tuple(_seen(view, why, codes, partly) for view in why.sources),
        steps=tuple(steps),
        verdict=answer.verdict,
        reason=answer.reason,
    )


def _until_decided(steps: Iterator[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if step.verdict is not None:
            return


def _steps(
    why: Explanation,
    reason: Reason,
    codes: Set[str],
    policy: Policy,
    partly: Set[str],
    covering: Collection[Network],
) -> Iterator[Step]:
    """Yield the questions in the order of precedence, also those after the one that decides."""
    status = why.status
    yield _step("is it an address?", status is not Status.INVALID, Reason.INVALID)
    yield _step(
        "is it no special-purpose address?",
        status is not Status.SPECIAL_PURPOSE,
        Reason.SPECIAL_PURPOSE,
    )
    yield _step("is the dataset young enough?", reason is not Reason.STALE, Reason.STALE)
    if status is Status.OVERRIDE:
        question = "does an operator's override apply?"
        if why.country == NO_COUNTRY:
            yield _undetermined(question, f"yes, to {NO_COUNTRY}", Reason.NO_COUNTRY)
        place = why.region or why.country
        side = _side(place, codes, partly)
        if side == "OPEN":
            yield _undetermined(question, f"yes, to {place}: OPEN", Reason.SUBDIVISION_UNKNOWN)
        yield Step(question, f"yes, to {place}", _side_verdict(side == "IN"))
        return
    yield Step("does an operator's override apply?", "no")
    yield _step("does a source speak?", status is not Status.UNASSIGNED, Reason.UNASSIGNED)
    if why.networks:
        kinds = ", ".join(kind.name for kind in why.networks)
        question = "does the network hide where its users are?"
        if reason is Reason.COVERED:
            yield _undetermined(question, f"yes: {kinds}", Reason.COVERED)
        vouching = [one.network_list for one in why.network_lists if one.vouches]
        if not covering:
            yield Step(question, f"that is ignored: {kinds}")
        elif vouching and not set(covering).isdisjoint(why.networks):
            yield Step(question, f"{', '.join(vouching)} says where they are: {kinds}")
            policy = Policy.UNANIMOUS
            why = replace(why, places=())  # subdivisions do not count
        else:
            yield Step(question, f"no: {kinds}")
    if partly:
        yield from _steps_of_parts(_Votes(why, codes, partly), why, policy)
        return
    if policy is Policy.PRIMARY:
        yield Step(
            "PRIMARY: what does the first source say that speaks?",
            f"{why.country}, which is {_side(why.country, codes)}",
            _side_verdict(why.country in codes),
        )
        return
    if policy is Policy.MAJORITY:
        yield _majority(why, codes)
    yield from _unanimous(why, codes)


def _majority(why: Explanation, codes: Set[str]) -> Step:
    votes = dict(zip(why.claimed, why.votes, strict=True))
    inside = sum(count for code, count in votes.items() if code in codes)
    outside = sum(votes.values()) - inside
    total = inside + outside + why.abstentions
    finding = f"{inside} IN, {outside} OUT, {why.abstentions} abstained, of {total}"
    verdict = None
    if 2 * max(inside, outside) > total:
        verdict = _side_verdict(inside > outside)
    else:
        finding += ": neither side"
    return Step("MAJORITY: has one side more than half of the votes?", finding, verdict)


def _unanimous(why: Explanation, codes: Set[str]) -> Iterator[Step]:
    inside = [code for code in why.claimed if code in codes]
    outside = [code for code in why.claimed if code not in codes]
    question = "do all statements that count lie on one side?"
    if inside and outside:
        finding = f"no: {', '.join(inside)} IN, {', '.join(outside)} OUT"
        yield _undetermined(question, finding, Reason.DISPUTED)
    side = "IN" if inside else "OUT"
    yield Step(question, f"yes: {', '.join(inside or outside)} {side}")
    question = "does every full source speak?"
    silent = [view.source for view in why.sources if view.counted and view.country is None]
    if silent or (not why.evidence and (why.abstentions or why.status is Status.UNCONFIRMED)):
        finding = f"no: {', '.join(silent) or 'one'} is silent"
        yield _undetermined(question, finding, Reason.UNCONFIRMED)
    yield Step(question, "yes", _side_verdict(bool(inside)))


class _Votes:
    """The votes for places, by the side on which they lie."""

    def __init__(self, why: Explanation, codes: Set[str], partly: Set[str]) -> None:
        self.all = why.places or tuple(map(PlaceVote, why.claimed, why.votes))
        self.partly = partly
        self.abstentions = why.abstentions
        self.by_side: dict[Side, list[PlaceVote]] = {"IN": [], "OUT": [], "OPEN": []}
        self.first: PlaceVote | None = None
        for vote in self.all:
            side = _side(vote.place, codes, partly)
            self.by_side[side].append(vote)
            if side != "OPEN" and self.first is None:
                self.first = vote

    @property
    def telling(self) -> list[PlaceVote]:
        return [*self.by_side["IN"], *self.by_side["OUT"]]

    def count(self, side: Side) -> int:
        return sum(vote.count for vote in self.by_side[side])

    def text(self, side: Side) -> str:
        return f"{', '.join(vote.place for vote in self.by_side[side])} {side}"

    def unsettled(self) -> list[str]:
        """Return the open places that leave the side open."""
        named = {vote.place[:2] for vote in self.telling if vote.full}
        return [
            vote.place
            for vote in self.by_side["OPEN"]
            if (vote.full or vote.is_cut if vote.is_deep else vote.place[:2] not in named)
        ]


def _steps_of_parts(votes: _Votes, why: Explanation, policy: Policy) -> Iterator[Step]:
    inside = votes.by_side["IN"]
    if policy is Policy.PRIMARY:
        question = "PRIMARY: what does the first source say that can tell?"
        if votes.first is None:
            yield _undetermined(question, "none can tell", Reason.SUBDIVISION_UNKNOWN)
        else:
            side: Side = "IN" if votes.first in inside else "OUT"
            yield Step(question, f"{votes.first.place}: {side}", _side_verdict(side == "IN"))
        return
    if policy is Policy.MAJORITY:
        one, other, open_ = votes.count("IN"), votes.count("OUT"), votes.count("OPEN")
        total = one + other + open_ + votes.abstentions
        finding = f"{one} IN, {other} OUT, {open_} OPEN, {votes.abstentions} abstained, of {total}"
        decides = 2 * max(one, other) > total
        yield Step(
            "MAJORITY: has one side more than half of the votes?",
            finding if decides else f"{finding}: neither side",
            _side_verdict(one > other) if decides else None,
        )
    yield from _unanimous_of_parts(votes, why)


def _unanimous_of_parts(votes: _Votes, why: Explanation) -> Iterator[Step]:
    question = "do all statements that can tell lie on one side?"
    inside, unsettled = bool(votes.by_side["IN"]), votes.unsettled()
    if inside and votes.by_side["OUT"]:
        finding = f"no: {votes.text('IN')}, {votes.text('OUT')}"
        yield _undetermined(question, finding, Reason.DISPUTED)
    if not votes.telling:
        yield Step(question, "none can tell")
    else:
        yield Step(question, f"yes: {votes.text('IN' if inside else 'OUT')}")
    unknown = bool(unsettled) or not votes.telling
    if unknown and len({vote.place[:2] for vote in votes.all}) > 1:
        question = "do the open statements name the country of the others?"
        yield _undetermined(question, f"no: {votes.text('OPEN')}", Reason.DISPUTED)
    question = "does every full source speak?"
    silent = [view.source for view in why.sources if view.counted and view.country is None]
    if silent or (not why.evidence and (why.abstentions or why.status is Status.UNCONFIRMED)):
        finding = f"no: {', '.join(silent) or 'one'} is silent"
        yield _undetermined(question, finding, Reason.UNCONFIRMED)
    yield Step(question, "yes")
    question = "is each open statement settled by a source that can tell?"
    if unknown:
        finding = f"no: {', '.join(unsettled) or 'none can tell'}"
        yield _undetermined(question, finding, Reason.SUBDIVISION_UNKNOWN)
    yield Step(question, "yes" if votes.by_side["OPEN"] else "there is none")
    telling = sum(vote.count for vote in votes.telling)
    needed = why.subdivision_sources or SUBDIVISION_SOURCES
    question = f"do {needed} independent sources tell, or an authoritative one?"
    divided = any(vote.place[:2] in votes.partly for vote in votes.telling)
    enough = telling >= needed or any(vote.authoritative for vote in votes.telling)
    if divided and not enough:
        yield _undetermined(question, f"no: {telling}", Reason.SUBDIVISION_UNKNOWN)
    finding = "yes" if divided else "it does not depend on subdivisions"
    yield Step(question, finding, _side_verdict(inside))


def _step(question: str, holds: bool, reason: Reason) -> Step:
    return Step(question, "yes") if holds else _undetermined(question, "no", reason)


def _undetermined(question: str, finding: str, reason: Reason) -> Step:
    return Step(question, finding, Verdict.UNDETERMINED, reason)


def _side_verdict(inside: bool) -> Verdict:
    return Verdict.INSIDE if inside else Verdict.OUTSIDE


def _side(place: str, codes: Set[str], partly: Set[str] = frozenset()) -> Side:
    if place in codes or place[:2] in codes:
        return "IN"
    return "OPEN" if place in partly else "OUT"


def _seen(view: SourceView, why: Explanation, codes: Set[str], partly: Set[str]) -> SeenStatement:
    place = view.region or view.country
    return SeenStatement(
        source=view.source,
        country=place,
        side="silent" if place is None else _side(place, codes, partly),
        counted=view.counted,
        why="" if view.counted else _why_not(view, why),
    )


def _why_not(view: SourceView, why: Explanation) -> str:
    if why.status is Status.OVERRIDE:
        return "an override decides"
    if why.status is Status.SPECIAL_PURPOSE:
        return "a registry decides"
    if view.coverage == "advisory":
        return "advisory"
    if any(other.counted and other.coverage == "authoritative" for other in why.sources):
        return "an authoritative source decides"
    if view.country is None and view.coverage != "full":
        return f"silence of a source of coverage {view.coverage}"
    return "mute: it cannot know what another source says"
