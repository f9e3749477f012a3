"""How far the sources of a dataset agree.

Everything is counted twice: in addresses, and in intervals, where a large one counts no
more than a small one. Only routable space counts: not what is special-purpose, not
IPv6 addresses that carry an IPv4 address, and of IPv6 only ``2000::/3``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple, Protocol, Self

from geolookup.answer.claims import (
    MAX_CLAIMS,
    Claim,
    Policy,
    Reason,
    Status,
    Verdict,
    network_bits,
)
from geolookup.answer.dataset import Dataset
from geolookup.answer.intervals import ROUTABLE, Family
from geolookup.answer.region_sets import RegionSet

Progress = Callable[[int], None]
"""Called with the number of intervals done."""

_PROGRESS_EVERY: Final = 1 << 12  # intervals between two calls of the progress function


class Amount(NamedTuple):
    """An amount of address space.

    Attributes:
        addresses: how many.
        intervals: in how many intervals.
    """

    addresses: int = 0
    intervals: int = 0

    def __add__(self, other: object) -> Self:
        """Return both together."""
        if not isinstance(other, Amount):
            return NotImplemented
        return self._replace(
            addresses=self.addresses + other.addresses, intervals=self.intervals + other.intervals
        )


class SourceIntervals(Protocol):
    """What one source says of all addresses."""

    @property
    def name(self) -> str:
        """The source's name."""

    def intervals(self, family: Family) -> Iterator[tuple[int, int, str | None]]:
        """Yield first, last and code (None: silent), ascending and without gaps."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sources side by side.

    Attributes:
        sources: their names.
        both: addresses for which both name a country.
        same: addresses for which they name the same one.
    """

    sources: tuple[str, str]
    both: Amount
    same: Amount


@dataclass(frozen=True, slots=True)
class Region:
    """What the sources say of a region set.

    Attributes:
        name: its name.
        agreed: all full sources speak, and all sources that speak put it inside.
        split: a source puts it inside and another outside.
        unconfirmed: all sources that speak put it inside, but a full source is silent.
        verdicts: by policy, the amounts of all routable space by verdict.
        open: by policy, what a source puts inside and has the verdict UNDETERMINED.
    """

    name: str
    agreed: Amount
    split: Amount
    unconfirmed: Amount
    verdicts: Mapping[Policy, Mapping[Verdict, Amount]]
    open: Mapping[Policy, Amount]

    @property
    def claimed(self) -> Amount:
        """What any source puts inside."""
        return self.agreed + self.split + self.unconfirmed


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of the sources in one family.

    Attributes:
        family: 4 or 6.
        routable: all that was measured; shares are shares of this.
        statuses: the amount of each status.
        pairs: each pair of sources; None: the dataset does not have what each source says.
        regions: the region sets of the request.
    """

    family: Family
    routable: Amount
    statuses: Mapping[Status, Amount]
    pairs: tuple[Pair, ...] | None
    regions: tuple[Region, ...]


def measure(
    dataset: Dataset,
    family: Family,
    region_sets: Iterable[str | RegionSet] = (),
    *,
    views: Sequence[SourceIntervals] = (),
    progress: Progress | None = None,
) -> Agreement:
    """Measure how far the sources agree in one family.

    Args:
        dataset: the dataset.
        family: 4 or 6.
        region_sets: names, expressions or region sets.
        views: what each source says, for the pairs. Without them the pairs follow from
            the claims if there are just two full sources, and are unknown otherwise.
        progress: called repeatedly, if there are views.

    Raises:
        RegionSetError: an unknown region set.
        DatasetClosedError: the dataset was closed.
    """
    asked = [
        one if isinstance(one, RegionSet) else dataset.region_sets.resolve(one)
        for one in region_sets
    ]
    claims = tuple(dataset.claims)
    amounts = _by_claim(dataset, family)
    statuses = _by_status(claims, amounts)
    return Agreement(
        family=family,
        routable=sum(amounts.values(), Amount()),
        statuses={status: statuses[status] for status in sorted(statuses)},
        pairs=_pairs_of_views(dataset, family, views, progress)
        if views
        else _pairs_of_claims(dataset, claims, amounts),
        regions=tuple(_region(one, claims, amounts, dataset) for one in asked),
    )


def _region(
    region_set: RegionSet,
    claims: Sequence[Claim],
    amounts: Mapping[int, Amount],
    dataset: Dataset,
) -> Region:
    codes, partly = region_set.codes, region_set.partly
    needed, covering = dataset.subdivision_sources, network_bits(dataset.covering)
    agreed = split = unconfirmed = Amount()
    verdicts = {policy: dict.fromkeys(Verdict, Amount()) for policy in Policy}
    open_ = dict.fromkeys(Policy, Amount())
    for number, amount in amounts.items():
        claim = claims[number]
        places = [vote.place for vote in claim.places] or claim.claimed or (claim.country,)
        inside = any(place in codes or place[:2] in codes or place in partly for place in places)
        # Here without the networks' kinds: this is about what the sources say.
        verdict, reason = claim.judge(codes, Policy.UNANIMOUS, partly, needed)
        if inside and reason is Reason.DISPUTED:
            split += amount
        elif inside and reason in (Reason.UNCONFIRMED, Reason.SUBDIVISION_UNKNOWN):
            unconfirmed += amount
        elif inside and verdict is not Verdict.OUTSIDE:
            agreed += amount
        for policy in Policy:
            verdict, _ = claim.judge(codes, policy, partly, needed, covering)
            verdicts[policy][verdict] += amount
            if inside and verdict is Verdict.UNDETERMINED:
                open_[policy] += amount
    return Region(region_set.name, agreed, split, unconfirmed, verdicts, open_)


def _by_status(claims: Sequence[Claim], amounts: Mapping[int, Amount]) -> dict[Status, Amount]:
    statuses: dict[Status, Amount] = defaultdict(Amount)
    for number, amount in amounts.items():
        statuses[claims[number].status] += amount
    return statuses


def _by_claim(dataset: Dataset, family: Family) -> dict[int, Amount]:
    """Return the amount of routable space of each claim that has some."""
    addresses: dict[int, int] = defaultdict(int)
    intervals: dict[int, int] = defaultdict(int)
    for first, last, number in _routable(dataset, family):
        addresses[number] += last - first + 1
        intervals[number] += 1
    return {number: Amount(addresses[number], intervals[number]) for number in sorted(addresses)}


def _routable(dataset: Dataset, family: Family) -> Iterator[tuple[int, int, int]]:
    start, end = ROUTABLE[family]
    special = [claim.status is Status.SPECIAL_PURPOSE for claim in dataset.claims]
    for first, last, number in dataset.intervals(family):
        if number < MAX_CLAIMS and not special[number] and first <= end and last >= start:
            yield max(first, start), min(last, end), number


def _pairs_of_claims(
    dataset: Dataset, claims: Sequence[Claim], amounts: Mapping[int, Amount]
) -> tuple[Pair, ...] | None:
    """Return the pair of the only two sources, if both are full: it follows from the status."""
    sources = dataset.sources
    if len(sources) < 2:
        return ()
    origins = {source.origin for source in sources}
    if len(sources) > 2 or len(origins) < 2 or any(s.coverage != "full" for s in sources):
        return None
    by_status = _by_status(claims, amounts)
    same = by_status[Status.ASSIGNED]
    both = same + by_status[Status.DISPUTED]
    return (Pair((sources[0].name, sources[1].name), both, same),)


def _pairs_of_views(
    dataset: Dataset, family: Family, views: Sequence[SourceIntervals], progress: Progress | None
) -> tuple[Pair, ...]:
    amounts: dict[tuple[str | None, ...], Amount] = defaultdict(Amount)
    for addresses, codes in _overlaid(dataset, family, views, progress):
        amounts[codes] += Amount(addresses, 1)
    pairs = []
    for left, right in combinations(range(len(views)), 2):
        both = {c: a for c, a in amounts.items() if c[left] is not None and c[right] is not None}
        pairs.append(
            Pair(
                (views[left].name, views[right].name),
                sum(both.values(), Amount()),
                sum((a for codes, a in both.items() if codes[left] == codes[right]), Amount()),
            )
        )
    return tuple(pairs)


def _overlaid(
    dataset: Dataset, family: Family, views: Sequence[SourceIntervals], progress: Progress | None
) -> Iterator[tuple[int, tuple[str | None, ...]]]:
    """Yield the size of each routable piece, and the code that each source has for it."""
    sources = [view.intervals(family) for view in views]
    current = [next(source) for source in sources]
    for done, (start, end, _) in enumerate(_routable(dataset, family)):
        if progress is not None and done % _PROGRESS_EVERY == 0:
            progress(done)
        at = start
        while at <= end:
            for index, source in enumerate(sources):
                while current[index][1] < at:
                    current[index] = next(source)
            last = min(end, *(interval[1] for interval in current))
            yield last - at + 1, tuple(code for _, _, code in current)
            at = last + 1
