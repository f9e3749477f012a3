"""Differences between two datasets: the addresses that each code gained and lost, and to which.

Everything is counted twice: in addresses, where large ranges dominate, and in prefixes,
where a large range counts as little as a small one. Prefixes are the fewest that make up
a piece. A piece is a range whose country, status and claimed codes are the same throughout
in the old dataset, and the same throughout in the new one.

IPv6 addresses that carry an IPv4 address are not counted where both datasets answer by
that IPv4 address.

Kinds of networks are compared by themselves: there a piece is a range whose kinds are the same
throughout in either dataset.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple

from geolookup.answer.claims import NO_COUNTRY, Network, Status
from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import Family
from geolookup.change_limits import DISPUTED, EVERY_CODE
from geolookup.review.pieces import UNIT, Progress, Weight, families, pieces, weight_of

LARGEST: Final = 20
"""Moved ranges that are listed for each family."""

SMALL: Final = 1 << 16
"""A code with fewer units (an IPv4 /16, an IPv6 /32) counts as if it had this many where
`EVERY_CODE` limits it. One new office may be half of a small country's addresses."""

_EMBEDDED = 0
"""Number of the state of addresses that carry an IPv4 address."""


@dataclass(frozen=True, slots=True)
class State:
    """A dataset's answer for a piece.

    Attributes:
        country: the code, or ``ZZ``.
        status: its status; None: the addresses carry an IPv4 address.
        claimed: all codes that sources claim, sorted.
        region: the subdivision, or nothing.
    """

    country: str
    status: Status | None
    claimed: tuple[str, ...] = ()
    region: str = ""


@dataclass(frozen=True, slots=True)
class CodeChange:
    """The changes of a code's addresses: those whose country it is, disputed or not.

    Attributes:
        code: the code.
        before: what it had.
        gained: what it has now and did not have.
        lost: what it had and no longer has.
        gained_from: the codes that had `gained` before (``ZZ``: no country).
        lost_to: the codes that have `lost` now.
        newly_disputed: what is disputed now and was not, with this code among the claimed.
    """

    code: str
    before: Weight
    gained: Weight
    lost: Weight
    gained_from: Mapping[str, Weight]
    lost_to: Mapping[str, Weight]
    newly_disputed: Weight

    @property
    def after(self) -> Weight:
        """What it has now."""
        return Weight(
            self.before.addresses + self.gained.addresses - self.lost.addresses,
            self.before.prefixes + self.gained.prefixes - self.lost.prefixes,
        )

    @property
    def change(self) -> Fraction | None:
        """Addresses gained and lost, as a share of those before; None: there were none."""
        return _share(self.gained.addresses + self.lost.addresses, self.before.addresses)

    @property
    def prefix_change(self) -> Fraction | None:
        """Prefixes gained and lost, as a share of those before; None: there were none."""
        return _share(self.gained.prefixes + self.lost.prefixes, self.before.prefixes)


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """The changes of a kind of networks.

    Attributes:
        kind: the kind.
        before: what was of this kind.
        gained: what is of this kind now and was not.
        lost: what was and is no longer.
    """

    kind: Network
    before: Weight
    gained: Weight
    lost: Weight

    @property
    def change(self) -> Fraction | None:
        """Addresses gained and lost, as a share of those before; None: there were none."""
        return _share(self.gained.addresses + self.lost.addresses, self.before.addresses)


@dataclass(frozen=True, slots=True)
class ListChange:
    """A list of networks in either dataset.

    Attributes:
        name: its name.
        before: number of its ranges in the old dataset; None: it is not there.
        after: the same of the new one.
    """

    name: str
    before: int | None
    after: int | None


class MovedRange(NamedTuple):
    """A range whose addresses all changed from one country to the same other one.

    Attributes:
        first: the first address, as a number.
        last: the last address.
        before: its code, or ``ZZ``.
        after: its code now.
    """

    first: int
    last: int
    before: str
    after: str


@dataclass(frozen=True)
class FamilyDifference:
    """What is different in one family.

    Attributes:
        family: 4 or 6.
        pieces: by old and new state, how much changed from one to the other.
        largest: the largest ranges that moved, the largest first.
        networks: the changes by kind of network, of the kinds that either dataset has.
    """

    family: Family
    pieces: Mapping[tuple[State, State], Weight]
    largest: tuple[MovedRange, ...]
    networks: Mapping[Network, NetworkChange] = field(default_factory=dict)

    @cached_property
    def answered_before(self) -> Weight:
        """What had a country."""
        return self._sum(lambda old, _: old.country != NO_COUNTRY)

    @cached_property
    def answered_after(self) -> Weight:
        """What has a country now."""
        return self._sum(lambda _, new: new.country != NO_COUNTRY)

    @cached_property
    def moved(self) -> Weight:
        """What has another country now, or gained or lost one."""
        return self._sum(lambda old, new: old.country != new.country)

    @cached_property
    def moved_within(self) -> Weight:
        """What has the country that it had, and another subdivision, or gained or lost one."""
        return self._sum(lambda old, new: old.country == new.country and old.region != new.region)

    @cached_property
    def newly_disputed(self) -> Weight:
        """What is disputed now and was not."""
        return self._sum(_newly_disputed)

    @cached_property
    def no_longer_disputed(self) -> Weight:
        """What was disputed and is no longer."""
        return self._sum(lambda old, new: _newly_disputed(new, old))

    @cached_property
    def codes(self) -> Mapping[str, CodeChange]:
        """The changes by code, of all codes that either dataset has, sorted."""
        before = defaultdict[str, Weight](Weight)
        flows: dict[str, dict[str, Weight]] = defaultdict(lambda: defaultdict(Weight))
        sources: dict[str, dict[str, Weight]] = defaultdict(lambda: defaultdict(Weight))
        disputed = defaultdict[str, Weight](Weight)
        for (old, new), weight in self.pieces.items():
            before[old.country] += weight
            if old.country != new.country:
                flows[old.country][new.country] += weight
                sources[new.country][old.country] += weight
            if _newly_disputed(old, new):
                for code in new.claimed:
                    disputed[code] += weight
        known = {*before, *sources, *disputed} - {NO_COUNTRY}
        return {
            code: CodeChange(
                code=code,
                before=before[code],
                gained=sum(sources[code].values(), Weight()),
                lost=sum(flows[code].values(), Weight()),
                gained_from=_largest_first(sources[code]),
                lost_to=_largest_first(flows[code]),
                newly_disputed=disputed[code],
            )
            for code in sorted(known)
        }

    @property
    def disputed_change(self) -> Fraction | None:
        """Addresses that became or ceased to be disputed, as a share of those with a country."""
        changed = self.newly_disputed.addresses + self.no_longer_disputed.addresses
        return _share(changed, self.answered_before.addresses)

    def _sum(self, counts: Callable[[State, State], bool]) -> Weight:
        return sum((weight for pair, weight in self.pieces.items() if counts(*pair)), Weight())


@dataclass(frozen=True, slots=True)
class ExceededLimit:
    """A limit that a change exceeds.

    Attributes:
        family: 4 or 6.
        about: the code, ``DISPUTED``, or the kind of networks.
        change: the change by addresses, as a share of what there was; None: there was
            nothing before.
        limit: the largest change that is allowed.
    """

    family: Family
    about: str
    change: Fraction | None
    limit: Fraction

    def __str__(self) -> str:
        change = "appeared" if self.change is None else f"changed by {percent(self.change)}"
        return f"{self.about} {change} in IPv{self.family}, allowed are {percent(self.limit)}"


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences between two datasets.

    Attributes:
        old: id of the old dataset.
        new: id of the new one.
        families: IPv4 and IPv6.
        lists: the lists of networks that either has, by name.
    """

    old: str
    new: str
    families: tuple[FamilyDifference, ...]
    lists: tuple[ListChange, ...] = ()

    def exceeded(self, max_change: Mapping[str, Fraction]) -> tuple[ExceededLimit, ...]:
        """Return the limits that a change in either family exceeds, by addresses.

        A code's change is what it gained and lost, as a share of what it had. A code
        that had nothing and has something exceeds any limit of its own; for
        `EVERY_CODE` see `SMALL`.

        Args:
            max_change: see `geolookup.change_limits.ChangeLimits`.
        """
        return tuple(found for one in self.families for found in _exceeded(one, max_change))


def compare(old: Dataset, new: Dataset, *, progress: Progress | None = None) -> Difference:
    """Compare two datasets.

    Takes about a second for a million intervals.

    Args:
        old: the old dataset.
        new: the new one.
        progress: called with the number of intervals of both families that were compared.

    Raises:
        DatasetError: the content was damaged since it was opened.
        DatasetClosedError: one was closed.
    """
    found = tuple(
        _compare_family(old, new, family, on_progress)
        for family, on_progress in families(old, new, progress)
    )
    return Difference(old.id, new.id, found, _lists(old, new))


def percent(share: Fraction) -> str:
    """Return a share in per cent, with the first four digits that count."""
    number = float(share) * 100
    decimals = max(0, 3 - math.floor(math.log10(number))) if number else 0
    text = f"{number:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if decimals else text) + " %"


def _compare_family(
    old: Dataset, new: Dataset, family: Family, on_progress: Callable[[int], None]
) -> FamilyDifference:
    states, before, after = _numbered_states(old, new)
    count = len(states)
    codes = [state.country for state in states]
    addresses = defaultdict[int, int](int)
    prefixes = defaultdict[int, int](int)
    moves: list[tuple[int, int, int, int]] = []  # (size, -first, old, new), a heap
    moving: list[int] = [0, 0, 0, 0]  # first, end, old state, new state
    for first, end, pair in pieces(old, new, family, (before, after, count), on_progress):
        weight = weight_of(first, end)
        addresses[pair] += weight.addresses
        prefixes[pair] += weight.prefixes
        was, is_ = divmod(pair, count)
        if was != is_ and codes[was] != codes[is_]:
            if moving[1] == first and (codes[moving[2]], codes[moving[3]]) == (
                codes[was],
                codes[is_],
            ):
                moving[1] = end
                continue
            _keep(moves, moving)
            moving = [first, end, was, is_]
    _keep(moves, moving)
    return FamilyDifference(
        family,
        {
            (states[pair // count], states[pair % count]): Weight(addresses[pair], prefixes[pair])
            for pair in sorted(addresses)
            if pair != _EMBEDDED * count + _EMBEDDED
        },
        tuple(
            MovedRange(-first, -first + size - 1, codes[was], codes[is_])
            for size, first, was, is_ in sorted(moves, reverse=True)
        ),
        _networks(old, new, family),
    )


def _networks(old: Dataset, new: Dataset, family: Family) -> dict[Network, NetworkChange]:
    """Return the changes by kind of network."""
    if not old.network_lists and not new.network_lists:
        return {}
    before, after = (
        [claim.networks & 0xFF for claim in one.claims] + [0] * (0x10000 - len(one.claims))
        for one in (old, new)
    )
    weights = defaultdict[int, Weight](Weight)
    for first, end, pair in pieces(old, new, family, (before, after, 256), lambda _: None):
        if pair:
            weights[pair] += weight_of(first, end)
    found = {}
    for kind in Network:
        was = {pair: weight for pair, weight in weights.items() if pair >> 8 & kind.bit}
        lost = [weight for pair, weight in was.items() if not pair & kind.bit]
        gained = [weight for pair, weight in weights.items() if pair & kind.bit and pair not in was]
        if was or gained:
            found[kind] = NetworkChange(
                kind,
                before=sum(was.values(), Weight()),
                gained=sum(gained, Weight()),
                lost=sum(lost, Weight()),
            )
    return found


def _lists(old: Dataset, new: Dataset) -> tuple[ListChange, ...]:
    before, after = ({one.name: one.ranges for one in each.network_lists} for each in (old, new))
    return tuple(
        ListChange(name, before.get(name), after.get(name)) for name in sorted({*before, *after})
    )


def _keep(moves: list[tuple[int, int, int, int]], moving: list[int]) -> None:
    first, end, was, is_ = moving
    if end > first:
        heapq.heappush(moves, (end - first, -first, was, is_))
        if len(moves) > LARGEST:
            heapq.heappop(moves)


def _numbered_states(old: Dataset, new: Dataset) -> tuple[list[State], list[int], list[int]]:
    """Return all states, and for each dataset the number of a claim's state by claim number.

    Thousands of claims differ in their votes alone; they have a few hundred states.
    """
    numbers = {State(NO_COUNTRY, None): _EMBEDDED}
    columns = []
    for dataset in (old, new):
        column = [_EMBEDDED] * 0x10000
        for number, claim in enumerate(dataset.claims):
            state = State(claim.country, claim.status, claim.claimed, claim.region)
            column[number] = numbers.setdefault(state, len(numbers))
        columns.append(column)
    return list(numbers), columns[0], columns[1]


def _newly_disputed(old: State, new: State) -> bool:
    return new.status is Status.DISPUTED is not old.status


def _exceeded(one: FamilyDifference, max_change: Mapping[str, Fraction]) -> Iterator[ExceededLimit]:
    floor = SMALL * UNIT[one.family]
    for code, found in one.codes.items():
        changed = found.gained.addresses + found.lost.addresses
        if code in max_change:
            change, limit = found.change, max_change[code]
        elif EVERY_CODE in max_change:
            limit = max_change[EVERY_CODE]
            change = Fraction(changed, max(found.before.addresses, floor))
        else:
            continue
        if changed and (change is None or change > limit):
            yield ExceededLimit(one.family, code, change, limit)
    for kind, moved in one.networks.items():
        if kind.name not in max_change:
            continue
        change, limit = moved.change, max_change[kind.name]
        if change is None or change > limit:
            yield ExceededLimit(one.family, kind.name, change, limit)
    if DISPUTED in max_change:
        change, limit = one.disputed_change, max_change[DISPUTED]
        if change is None or change > limit:
            yield ExceededLimit(one.family, DISPUTED, change, limit)


def _share(part: int, whole: int) -> Fraction | None:
    if whole:
        return Fraction(part, whole)
    return None if part else Fraction(0)


def _largest_first(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    return dict(sorted(weights.items(), key=lambda item: (-item[1].addresses, item[0])))
