"""Who would change sides: verdicts on one basis held against those on another.

A basis is a dataset with a region set, a policy, and the kinds of networks that hide their
users. What changes is counted in address space, and in a roster that a caller has.

Address space is counted twice, as in `geolookup.review.difference`: in addresses, and in the
fewest prefixes that make up a piece. A piece is a range whose verdict, reason and country are
the same throughout on the one basis, and the same throughout on the other.

IPv6 addresses that carry an IPv4 address have the verdict of that one. They are not counted
where both datasets find the same IPv4 address in them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple, Self, TypeVar

from geolookup.answer.claims import MAX_CLAIMS, NO_COUNTRY, Policy, Reason, Verdict
from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import Family
from geolookup.answer.region_sets import RegionSet
from geolookup.answer.results import RosterResult
from geolookup.errors import RosterError
from geolookup.review.pieces import Progress, Weight, families, pieces, weight_of


@dataclass(frozen=True, slots=True)
class Basis:
    """What verdicts rest on.

    Attributes:
        dataset: the dataset, with the kinds of networks that hide their users.
        region_set: a name or expression that the dataset's region sets know, or a region set.
        policy: how claims become verdicts.
    """

    dataset: Dataset
    region_set: str | RegionSet
    policy: Policy = Policy.UNANIMOUS


class Outcome(NamedTuple):
    """A verdict, and why there is none."""

    verdict: Verdict
    reason: Reason

    @classmethod
    def decoded(cls, byte: int) -> Self:
        """Return the outcome that `claims.encode_outcome` encoded."""
        return cls(Verdict.numbered(byte & 3), Reason.numbered(byte >> 2))


class Transition(NamedTuple):
    """An outcome on the one basis, and on the other."""

    before: Outcome
    after: Outcome

    @property
    def changes_sides(self) -> bool:
        """Whether the verdict is another one; else the reason may be."""
        return self.before.verdict is not self.after.verdict


class Countries(NamedTuple):
    """The country named first in the one dataset, and in the other; ``ZZ``: none."""

    before: str
    after: str


@dataclass(frozen=True)
class FamilyImpact:
    """What changes in one family.

    Attributes:
        family: 4 or 6.
        countries: all address space, by transition, and there by country, the largest first.
        apart: addresses in which the two datasets do not find the same IPv4 address, since
            one of them answers by the IPv6 address itself. They are compared with nothing.
    """

    family: Family
    countries: Mapping[Transition, Mapping[Countries, Weight]]
    apart: int

    @cached_property
    def transitions(self) -> Mapping[Transition, Weight]:
        """How much has each transition, the largest first."""
        return _largest_first(
            {pair: sum(some.values(), Weight()) for pair, some in self.countries.items()}
        )

    @cached_property
    def decided(self) -> Weight:
        """What has a verdict, INSIDE or OUTSIDE, on either basis."""
        return self._sum(lambda pair: any(one.verdict is not Verdict.UNDETERMINED for one in pair))

    @cached_property
    def changed(self) -> Weight:
        """What changes sides."""
        return self._sum(lambda pair: pair.changes_sides)

    @property
    def share(self) -> Fraction:
        """Addresses that change sides, as a share of those with a verdict on either basis."""
        return Fraction(self.changed.addresses, self.decided.addresses or 1)

    def amounts(self) -> dict[Transition, int]:
        """Return the addresses of each transition, the largest first."""
        return {pair: weight.addresses for pair, weight in self.transitions.items()}

    def _sum(self, counts: Callable[[Transition], bool]) -> Weight:
        return sum((weight for pair, weight in self.transitions.items() if counts(pair)), Weight())


@dataclass(frozen=True)
class RosterImpact:
    """What changes in a roster.

    Attributes:
        counts: how many of the addresses, or participants, have each transition.
    """

    counts: Mapping[Transition, int]

    @property
    def size(self) -> int:
        """Number of addresses, or participants."""
        return sum(self.counts.values())

    @property
    def changed(self) -> int:
        """How many change sides."""
        return sum(count for pair, count in self.counts.items() if pair.changes_sides)

    @property
    def share(self) -> Fraction:
        """Those who change sides, as a share of all."""
        return Fraction(self.changed, self.size or 1)


def assess(
    before: Basis, after: Basis, *, progress: Progress | None = None
) -> tuple[FamilyImpact, FamilyImpact]:
    """Return what changes in IPv4 and in IPv6.

    Takes a second or two for a million intervals.

    Args:
        before: what verdicts rest on now.
        after: what they are to rest on.
        progress: called with (intervals done, intervals in all) of both families.

    Raises:
        RegionSetError: an unknown region set.
        DatasetError: the content was damaged since it was opened.
        DatasetClosedError: a dataset was closed.
    """
    states, columns = _numbered_states(before, after)
    count = len(states)
    ipv4, ipv6 = (
        _assess_family(
            family,
            states,
            pieces(before.dataset, after.dataset, family, (*columns, count), on_progress),
        )
        for family, on_progress in families(before.dataset, after.dataset, progress)
    )
    return ipv4, ipv6


def count(before: RosterResult, after: RosterResult) -> Counter[Transition]:
    """Return how many addresses, or participants, of a roster have each transition.

    Args:
        before: the roster's result on the one basis.
        after: that of the same roster on the other.

    Raises:
        RosterError: the results are of different rosters.
        ValueError: one was made without a region set.
    """
    if (before.size, before.participants) != (after.size, after.participants):
        raise RosterError("the results are of different rosters")
    columns = (
        column.tobytes()
        for result in (before, after)
        for column in (result.verdicts, result.reasons)
    )
    counts = Counter[Transition]()
    for (was, why_before, is_, why_after), number in Counter(zip(*columns, strict=True)).items():
        counts[
            Transition(
                Outcome(Verdict.numbered(was), Reason.numbered(why_before)),
                Outcome(Verdict.numbered(is_), Reason.numbered(why_after)),
            )
        ] = number
    return counts


class _State(NamedTuple):
    """An answer for a piece: an outcome as one byte, and a country; or an embedded form."""

    outcome: int
    country: str
    form: int = 0


_FORMS: Final = range(MAX_CLAIMS, 0x10000)
"""Numbers of claims that are forms: see `geolookup.answer.embedded_ipv4`."""

_Key = TypeVar("_Key", Transition, Countries)


def _numbered_states(
    before: Basis, after: Basis
) -> tuple[list[_State], tuple[list[int], list[int]]]:
    """Return all states, and for each basis the number of a claim's state by claim number."""
    # First the forms that carry an IPv4 address, whose claim numbers are the same everywhere.
    numbers = {_State(0, NO_COUNTRY, form): at for at, form in enumerate(_FORMS)}
    columns = []
    for basis in (before, after):
        outcomes = basis.dataset.outcome_column(basis.region_set, basis.policy)
        column = [
            numbers.setdefault(_State(outcome, claim.country), len(numbers))
            for outcome, claim in zip(outcomes, basis.dataset.claims, strict=True)
        ]
        unused = [0] * (MAX_CLAIMS - len(column))
        columns.append([*column, *unused, *range(len(_FORMS))])
    return list(numbers), (columns[0], columns[1])


def _assess_family(
    family: Family, states: Sequence[_State], found: Iterable[tuple[int, int, int]]
) -> FamilyImpact:
    addresses, prefixes = defaultdict[int, int](int), defaultdict[int, int](int)
    for first, end, pair in found:
        weight = weight_of(first, end)
        addresses[pair] += weight.addresses
        prefixes[pair] += weight.prefixes
    countries: dict[Transition, dict[Countries, Weight]] = {}
    apart = 0
    for pair, size in addresses.items():
        was, is_ = (states[number] for number in divmod(pair, len(states)))
        weight = Weight(size, prefixes[pair])
        if was.form or is_.form:
            apart += size if was != is_ else 0
            continue
        transition = Transition(Outcome.decoded(was.outcome), Outcome.decoded(is_.outcome))
        countries.setdefault(transition, {})[Countries(was.country, is_.country)] = weight
    return FamilyImpact(
        family, {pair: _largest_first(some) for pair, some in countries.items()}, apart
    )


def _largest_first(weights: Mapping[_Key, Weight]) -> dict[_Key, Weight]:
    return dict(sorted(weights.items(), key=lambda item: (-item[1].addresses, item[0])))
