"""How often recipes of sources are right, held against places that are known.

A recipe is one source or several. For each recipe and policy, each known prefix is asked
about as a region set of one code would be: seen from the code that it really has, a verdict
of INSIDE is right, OUTSIDE is wrong, and anything else is undetermined. A prefix weighs one
and is divided among its parts by their addresses, or weighs as many addresses as it has.
Special-purpose ranges and overrides play no part here.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from operator import mul
from typing import Final, Literal, NamedTuple, Self

from geolookup.answer.claims import (
    Claim,
    Coverage,
    Depth,
    Mute,
    Policy,
    Status,
    Verdict,
    combine,
)
from geolookup.answer.intervals import FAMILIES, Family

Outcome = Literal["right", "wrong", "undetermined"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("right", "wrong", "undetermined")

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

MAX_SOURCES: Final = 8
"""Sources whose combinations are scored: there are 255 of eight."""

_DRAWS: Final = 1000
"""Of the bootstrap: its interval's ends are the 25th from either side."""
_SEED: Final = 8805
_PACE: Final = 1 << 12
_OUTCOME: Final[dict[Verdict, Outcome]] = {
    Verdict.INSIDE: "right",
    Verdict.OUTSIDE: "wrong",
    Verdict.UNDETERMINED: "undetermined",
}


class Amount(NamedTuple):
    """How much of what is known.

    Attributes:
        prefixes: how many, parts of prefixes included.
        addresses: how many.
    """

    prefixes: float = 0.0
    addresses: int = 0

    def __add__(self, other: object) -> Self:
        """Return both together."""
        if not isinstance(other, Amount):
            return NotImplemented
        return self._replace(
            prefixes=self.prefixes + other.prefixes, addresses=self.addresses + other.addresses
        )


class Place(NamedTuple):
    """A part of a prefix whose country is known.

    Attributes:
        first: its first address.
        last: its last address.
        code: its country.
        prefix: number of the prefix in its group; a prefix with more specific ones inside
            has several parts.
    """

    first: int
    last: int
    code: str
    prefix: int


@dataclass(frozen=True, slots=True)
class Group:
    """What one operator publishes of its own network.

    Attributes:
        name: the operator's.
        places: by family, disjoint and ascending.
    """

    name: str
    places: Mapping[Family, Sequence[Place]]


Intervals = Iterable[tuple[int, int, str | None]]
"""First address, last address and code (None: silent) of each interval, without gaps."""


class Statements:
    """What one source says of the whole address line.

    Args:
        name: what it is called.
        date: of its data, YYYY-MM-DD.
        coverage: how its statements count.
        origin: who says so.
        mute: what it cannot know.
        intervals: by family, ascending and without gaps.
        own: for operators whose own publication is a part of this source, what the source
            says without that part; None: nothing.
    """

    depth: Depth = "country"

    def __init__(
        self,
        name: str,
        date: str,
        coverage: Coverage,
        origin: str,
        mute: Mute,
        intervals: Callable[[Family], Intervals],
        own: Mapping[str, Callable[[Family], Intervals] | None] | None = None,
    ) -> None:
        self.name = name
        self.date = date
        self.coverage = coverage
        self.origin = origin
        self.mute = mute
        self._lines: dict[Family, _Line] = {family: _line(intervals(family)) for family in FAMILIES}
        self._own: dict[str, dict[Family, _Line] | None] = {
            group: None if without is None else {f: _line(without(f)) for f in FAMILIES}
            for group, without in (own or {}).items()
        }

    @property
    def own(self) -> Collection[str]:
        """The operators whose own publication is a part of it."""
        return self._own.keys()

    def without(self, group: str) -> dict[Family, _Line] | None:
        """Return what it says but for what it has of this operator; None: nothing."""
        return self._own.get(group, self._lines)


_Line = tuple[list[int], list[str | None]]


def _line(intervals: Intervals) -> _Line:
    firsts: list[int] = []
    codes: list[str | None] = []
    for first, _, code in intervals:
        if not codes or code != codes[-1]:
            firsts.append(first)
            codes.append(code)
    return firsts, codes


class Recipe(NamedTuple):
    """Sources that answer together.

    Attributes:
        sources: their names, in order of precedence.
        older: that one of them whose older edition is meant, or empty.
    """

    sources: tuple[str, ...]
    older: str = ""

    @property
    def label(self) -> str:
        """The names, as a person reads them."""
        return " + ".join(
            f"{name} (older)" if name == self.older else name for name in self.sources
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which shares 95 % of the resampled ones lie.

    Attributes:
        low: the lower end.
        high: the upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How often a recipe is right under one policy, in one family.

    Attributes:
        recipe: which sources.
        policy: how claims became verdicts.
        family: 4 or 6.
        groups: by operator, the amount of each outcome.
        falsely_inside: by code, what is INSIDE it and really elsewhere.
    """

    recipe: Recipe
    policy: Policy
    family: Family
    groups: Mapping[str, Mapping[Outcome, Amount]]
    falsely_inside: Mapping[str, Amount]

    @cached_property
    def totals(self) -> Mapping[Outcome, Amount]:
        """The amount of each outcome, of all operators together."""
        return {
            outcome: _sum(parts[outcome] for parts in self.groups.values()) for outcome in OUTCOMES
        }

    @property
    def known(self) -> Amount:
        """All that is known."""
        return _sum(self.totals.values())

    def share(self, outcome: Outcome, *, by_addresses: bool = False) -> float:
        """Return the share of an outcome, by prefixes or by addresses."""
        at = int(by_addresses)
        return self.totals[outcome][at] / self.known[at]

    def interval(self, outcome: Outcome, *, by_addresses: bool = False) -> Interval | None:
        """Return how sure a share is, by resampling the operators; None: there is only one.

        Operators and not prefixes, because the errors of one operator's prefixes go together.
        """
        if len(self.groups) < 2:
            return None
        at = int(by_addresses)
        parts = [group[outcome][at] for group in self.groups.values()]
        wholes = [_sum(group.values())[at] for group in self.groups.values()]
        shares = sorted(
            sum(map(mul, draw, parts)) / sum(map(mul, draw, wholes)) for draw in _draws(len(parts))
        )
        return Interval(shares[_DRAWS // 40], shares[-1 - _DRAWS // 40])


@dataclass(frozen=True, slots=True)
class StatusScore:
    """How much has one status under a recipe, and how often its country is right.

    Attributes:
        recipe: which sources.
        family: 4 or 6.
        status: the status.
        amount: what has it.
        right: of this, where the country named first is the real one.
    """

    recipe: Recipe
    family: Family
    status: Status
    amount: Amount
    right: Amount


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        scores: by recipe, policy and family; the single sources first, those with an older
            edition last.
        statuses: by recipe and family.
        left_out: by operator, the sources that are or hold its own publication, and were
            scored without it.
    """

    scores: tuple[Score, ...]
    statuses: tuple[StatusScore, ...]
    left_out: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class _Tally:
    """Sums of one recipe in one family."""

    outcomes: dict[tuple[Policy, str, Outcome], Amount] = field(
        default_factory=lambda: defaultdict(Amount)
    )
    falsely: dict[tuple[Policy, str], Amount] = field(default_factory=lambda: defaultdict(Amount))
    statuses: dict[tuple[Status, bool], Amount] = field(default_factory=lambda: defaultdict(Amount))


class _Judgement(NamedTuple):
    """What follows from a claim for a place whose country is known."""

    status: Status
    country_right: bool
    by_policy: tuple[tuple[Policy, Outcome, str], ...]  # with the code that it is falsely inside


@dataclass(slots=True)
class _Sum:
    """What of one operator's places has one judgement."""

    judged: _Judgement
    prefixes: float = 0.0
    addresses: int = 0


def evaluate(
    groups: Sequence[Group],
    sources: Sequence[Statements],
    *,
    older: Sequence[Statements] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Score each source alone, and each combination of those that vote.

    An advisory source is scored alone, as if it were full, and in no combination. With
    older editions, each of them is scored alone, and in the place of the newer one among
    all that vote.

    Args:
        groups: what is known, by operator. Their names are unique.
        sources: in order of precedence. Their names are unique.
        older: older editions of some of them, by the same names.
        progress: called now and then.

    Raises:
        ValueError: too many sources to combine, or an older edition of none of them.
    """
    names = [source.name for source in sources]
    voting = [at for at, source in enumerate(sources) if source.coverage != "advisory"]
    if len(voting) > MAX_SOURCES:
        raise ValueError(f"{len(voting)} sources; combinations of {MAX_SOURCES} are scored at most")
    unknown = [source.name for source in older if source.name not in names]
    if unknown:
        raise ValueError(f"an older edition of {unknown[0]}, which is no source here")
    everything = [*sources, *older]
    chosen: list[tuple[int, ...]] = [(at,) for at in range(len(sources))]
    chosen += [
        members for size in range(2, len(voting) + 1) for members in combinations(voting, size)
    ]
    for at, source in enumerate(older, start=len(sources)):
        newer = names.index(source.name)
        chosen.append((at,))
        if newer in voting and len(voting) > 1:
            chosen.append(tuple(at if member == newer else member for member in voting))
    scores: list[Score] = []
    statuses: list[StatusScore] = []
    asked = _Asked(groups, everything, 2 * len(chosen), progress)
    for members in chosen:
        recipe = Recipe(
            tuple(everything[at].name for at in members),
            "".join(everything[at].name for at in members if at >= len(sources)),
        )
        for family in FAMILIES:
            tally = asked.tally(family, members)
            scores += _scores(recipe, family, tally)
            statuses += _statuses(recipe, family, tally)
    return Evaluation(tuple(scores), tuple(statuses), asked.left_out)


def choose(scores: Iterable[Score], wrong_at_most: float) -> tuple[Recipe, Policy] | None:
    """Return the recipe and policy that decide most among those that are wrong seldom enough.

    Args:
        scores: of an evaluation; older editions don't count.
        wrong_at_most: the largest share of prefixes that may be wrong, in each family.

    Returns:
        None: each of them is wrong more often. Of two that decide as much, the one with
        fewer sources, and then the one that is wrong less.
    """
    by_choice: dict[tuple[Recipe, Policy], list[Score]] = defaultdict(list)
    for score in scores:
        if not score.recipe.older:
            by_choice[score.recipe, score.policy].append(score)
    allowed = {
        choice: found
        for choice, found in by_choice.items()
        if all(score.share("wrong") <= wrong_at_most for score in found)
    }

    def merit(choice: tuple[Recipe, Policy]) -> tuple[float, int, float]:
        found = allowed[choice]
        decided = sum(1 - score.share("undetermined") for score in found) / len(found)
        wrong = sum(score.share("wrong") for score in found) / len(found)
        return round(decided, 6), -len(choice[0].sources), -wrong

    return max(allowed, key=merit, default=None)


class _Asked:
    """What the sources say of all known places, asked once."""

    def __init__(
        self,
        groups: Sequence[Group],
        sources: Sequence[Statements],
        recipes: int,
        progress: Progress | None,
    ) -> None:
        self._sources = sources
        self.left_out: dict[str, tuple[str, ...]] = {}
        self._absent: dict[str, frozenset[int]] = {}
        self._said: dict[Family, dict[tuple[str, str, tuple[str | None, ...]], Amount]] = {}
        self._judged: dict[tuple[tuple[int, ...], str, tuple[str | None, ...]], _Judgement] = {}
        self._patterns: dict[tuple[tuple[int, ...], str, tuple[str | None, ...]], _Judgement] = {}
        self._judgements: dict[_Judgement, _Judgement] = {}
        self._muted = {
            code
            for source in sources
            for unknown, filed in source.mute
            for code in (unknown, *filed)
        }
        self._progress = progress
        self._done = 0
        places = sum(len(group.places[family]) for group in groups for family in FAMILIES)
        self._steps = places // _PACE + recipes
        for family in FAMILIES:
            said: dict[tuple[str, str, tuple[str | None, ...]], Amount] = defaultdict(Amount)
            for group in groups:
                self._ask(group, family, said)
            self._said[family] = dict(said)

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._steps), self._steps)

    def _ask(
        self,
        group: Group,
        family: Family,
        said: dict[tuple[str, str, tuple[str | None, ...]], Amount],
    ) -> None:
        lines: list[_Line] = []
        absent = set()
        for at, source in enumerate(self._sources):
            without = source.without(group.name)
            if without is None:
                absent.add(at)
            lines.append(_SILENT if without is None else without[family])
        self._absent[group.name] = frozenset(absent)
        own = dict.fromkeys(one.name for one in self._sources if group.name in one.own)
        if own:
            self.left_out[group.name] = tuple(own)
        sizes: dict[int, int] = defaultdict(int)
        for place in group.places[family]:
            sizes[place.prefix] += place.last - place.first + 1
        for number, place in enumerate(group.places[family]):
            if number % _PACE == _PACE - 1:
                self._step()
            for addresses, codes in _pieces(place.first, place.last, lines):
                amount = Amount(addresses / sizes[place.prefix], addresses)
                said[group.name, place.code, codes] += amount

    def tally(self, family: Family, members: tuple[int, ...]) -> _Tally:
        """Return the sums of one recipe."""
        present_of = {
            group: tuple(at for at in members if at not in absent)
            for group, absent in self._absent.items()
        }
        # First by operator and judgement: there are few of these, and many rows.
        sums: dict[tuple[str, int], _Sum] = {}
        for (group, truth, codes), amount in self._said[family].items():
            present = present_of[group]
            judged = self._judge(present, truth, tuple([codes[at] for at in present]))
            part = sums.get((group, id(judged)))
            if part is None:
                part = sums[group, id(judged)] = _Sum(judged)
            part.prefixes += amount.prefixes
            part.addresses += amount.addresses
        tally = _Tally()
        for (group, _), part in sums.items():
            judged, amount = part.judged, Amount(part.prefixes, part.addresses)
            tally.statuses[judged.status, judged.country_right] += amount
            for policy, outcome, falsely in judged.by_policy:
                tally.outcomes[policy, group, outcome] += amount
                if falsely:
                    tally.falsely[policy, falsely] += amount
        self._judged.clear()
        self._step()
        return tally

    def _judge(
        self, members: tuple[int, ...], truth: str, codes: tuple[str | None, ...]
    ) -> _Judgement:
        key = (members, truth, codes)
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judge_pattern(members, truth, codes)
            # The same object for the same judgement.
            judged = self._judged[key] = self._judgements.setdefault(judged, judged)
        return judged

    def _judge_pattern(
        self, members: tuple[int, ...], truth: str, codes: tuple[str | None, ...]
    ) -> _Judgement:
        """Judge by which codes are equal, since that decides, but for codes that are muted."""
        letters: dict[str, str] = {}

        def letter(code: str) -> str:
            return code if code in self._muted else letters.setdefault(code, str(len(letters)))

        alike = letter(truth)
        key = (members, alike, tuple([code and letter(code) for code in codes]))
        judged = self._patterns.get(key)
        if judged is None:
            voters = [self._sources[at] for at in members]
            if len(voters) == 1 and voters[0].coverage == "advisory":
                code = key[2][0]
                alone = Claim(Status.ASSIGNED, code, ((code, 1),)) if code else combine([], [])
                judged = judge(alone, alike)
            else:
                judged = judge(combine(voters, key[2]), alike)
            self._patterns[key] = judged
        named = {letter: code for code, letter in letters.items()}
        return judged._replace(
            by_policy=tuple(
                (policy, outcome, named.get(falsely, falsely))
                for policy, outcome, falsely in judged.by_policy
            )
        )


_SILENT: Final[_Line] = ([0], [None])


def judge(claim: Claim, truth: str) -> _Judgement:
    """Return what follows from a claim for a place in the country *truth*."""
    by_policy = []
    for policy in Policy:
        outcome = _OUTCOME[claim.verdict({truth}, policy)]
        falsely = ""
        if outcome != "right":
            falsely = next(
                (
                    code
                    for code in claim.claimed
                    if code != truth and claim.verdict({code}, policy) is Verdict.INSIDE
                ),
                "",
            )
        by_policy.append((policy, outcome, falsely))
    return _Judgement(claim.status, claim.country == truth, tuple(by_policy))


def _pieces(
    first: int, last: int, lines: Sequence[_Line]
) -> Iterator[tuple[int, tuple[str | None, ...]]]:
    """Yield the size of each piece of a range, and what each source says of it."""
    while first <= last:
        end = last
        codes = []
        for firsts, said in lines:
            at = bisect_right(firsts, first)
            codes.append(said[at - 1])
            if at < len(firsts) and firsts[at] <= end:
                end = firsts[at] - 1
        yield end - first + 1, tuple(codes)
        first = end + 1


def _scores(recipe: Recipe, family: Family, tally: _Tally) -> Iterator[Score]:
    groups = sorted({group for _, group, _ in tally.outcomes})
    if not groups:
        return
    for policy in Policy:
        yield Score(
            recipe,
            policy,
            family,
            {
                group: {outcome: tally.outcomes[policy, group, outcome] for outcome in OUTCOMES}
                for group in groups
            },
            {code: part for (one, code), part in sorted(tally.falsely.items()) if one is policy},
        )


def _statuses(recipe: Recipe, family: Family, tally: _Tally) -> Iterator[StatusScore]:
    for status in sorted({status for status, _ in tally.statuses}):
        right = tally.statuses[status, True]
        yield StatusScore(recipe, family, status, right + tally.statuses[status, False], right)


def _sum(amounts: Iterable[Amount]) -> Amount:
    listed = list(amounts)
    # The exact sum of floats, so that the order of the parts is of no account.
    return Amount(
        math.fsum(amount.prefixes for amount in listed), sum(amount.addresses for amount in listed)
    )


_DRAWN: Final[dict[int, list[list[int]]]] = {}


def _draws(groups: int) -> list[list[int]]:
    """Return how often each operator occurs in each resample, the same ones every time."""
    drawn = _DRAWN.get(groups)
    if drawn is None:
        dice = random.Random(_SEED)  # noqa: S311 - statistics, and the same in every run
        drawn = []
        for _ in range(_DRAWS):
            counts = [0] * groups
            for at in dice.choices(range(groups), k=groups):
                counts[at] += 1
            drawn.append(counts)
        _DRAWN[groups] = drawn
    return drawn
