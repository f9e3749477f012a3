"""What a picture shows: categories of addresses, their colours, and the category of each address.

The colours can be distinguished with each of the common forms of colour blindness, and no
two differ as red and green alone; a test measures that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from geolookup.answer.claims import (
    NO_COUNTRY,
    Claim,
    Policy,
    Reason,
    Status,
    Verdict,
    network_bits,
)
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import Dataset
from geolookup.answer.region_sets import RegionSet
from geolookup.answer.subdivisions import subdivisions
from geolookup.pictures.cells import Intervals, claim_intervals
from geolookup.review.impact import Basis, Countries, FamilyImpact, Outcome, Transition

LARGEST_CODES: Final = 10
"""Countries with a colour of their own. More colours could not be distinguished."""

LISTED_PAIRS: Final = 15

UNASSIGNED: Final = "#ffffff"
SPECIAL: Final = "#e6e2d8"
ELSEWHERE: Final = "#b9bec4"
UNCERTAIN: Final = "#1d1f22"
OTHER_PARTS: Final = "#7b8794"
PALE: Final = "#d9dde1"
"""What a picture is not about."""

CODE_COLOURS: Final = (
    "#6f9fd0", "#ae4713", "#0b6556", "#ec9e51", "#783f83",
    "#0f248a", "#9af49a", "#8a75f0", "#b38a61", "#651a0b",
)  # fmt: skip
"""By number of addresses: the calmest for the largest country, which covers a third of the map."""


@dataclass(frozen=True, slots=True)
class Category:
    """A category of addresses.

    Attributes:
        label: its text in the legend.
        colour: "#rrggbb".
        focus: what the picture is about. Such a category shows in a cell however small
            its part is, the stronger the larger; of the others the largest shows.
        striped: drawn with stripes, so that it can't be taken for a light colour.
    """

    label: str
    colour: str
    focus: bool = False
    striped: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """What a picture shows.

    Attributes:
        title: in a few words.
        categories: in the order of the legend.
        intervals: the IPv4 space, the position of its category in `categories` for each piece.
        pairs: title and rows (text, addresses) of a second table.
        datasets: what it is made from, a line each.
        attributions: what the sources' licences ask to be shown.
    """

    title: str
    categories: tuple[Category, ...]
    intervals: Intervals
    pairs: tuple[str, tuple[tuple[str, int], ...]]
    datasets: tuple[str, ...]
    attributions: tuple[str, ...]

    def totals(self) -> list[int]:
        """Return the number of addresses of each category."""
        return _totals(self.intervals, len(self.categories))


def codes(dataset: Dataset) -> Subject:
    """Return the picture of all countries, the largest in colours."""
    intervals, claims = claim_intervals(dataset), tuple(dataset.claims)
    weights = Counter[str]()
    for claim, size in zip(claims, _totals(intervals, len(claims)), strict=True):
        if _agreed(claim):
            weights[claim.country] += size
    del weights[NO_COUNTRY]
    largest = sorted(weights, key=lambda code: (-weights[code], code))[:LARGEST_CODES]
    categories = (
        *(Category(_named(code), CODE_COLOURS[i]) for i, code in enumerate(largest)),
        Category(f"{max(0, len(weights) - len(largest))} other countries", ELSEWHERE),
        Category("disputed or unconfirmed", UNCERTAIN),
        Category("no source speaks", UNASSIGNED),
        Category("special-purpose", SPECIAL, striped=True),
    )
    other = len(largest)

    def category(claim: Claim) -> int:
        if _agreed(claim) and claim.country != NO_COUNTRY:
            return largest.index(claim.country) if claim.country in largest else other
        if claim.status in (Status.DISPUTED, Status.UNCONFIRMED):
            return other + 1
        return other + 2 + (claim.status is Status.SPECIAL_PURPOSE)

    def row(claim: Claim) -> str | None:
        return _named(claim.country) if category(claim) == other else None

    table = "Largest of the other countries"
    return _of_dataset(dataset, "Countries", categories, category, table, row)


def one_region_set(dataset: Dataset, region_set: RegionSet) -> Subject:
    """Return the picture of a region set: where all sources see it, and where only some.

    Where a network hides its users there is no verdict. That has a colour of its own, if the
    dataset knows of such networks.
    """
    name, codes, partly = region_set.name, region_set.codes, region_set.partly
    covering = network_bits(dataset.covering) if dataset.network_lists else 0
    categories: tuple[Category, ...] = (
        Category(f"{name}: all sources agree", "#00489e", focus=True),
        Category(f"{name} or another: sources disagree", "#e8601c", focus=True),
        Category(
            f"{name}: unconfirmed, or the part is not known" if partly else f"{name}: unconfirmed",
            "#44aa99",
            focus=True,
        ),
        Category("elsewhere", PALE),
        Category("no source speaks", UNASSIGNED),
        Category("special-purpose", SPECIAL, striped=True),
    )
    if covering:
        categories += (Category(f"{name}: hidden by a VPN, relay, ...", "#882255", focus=True),)

    def category(claim: Claim) -> int:
        position = by_parts if partly else by_countries
        if not claim.covered(covering) or claim.status is Status.OVERRIDE:
            return position(claim)
        seen = position(replace(claim, networks=0))
        return len(categories) - 1 if categories[seen].focus else seen

    def by_countries(claim: Claim) -> int:
        claimed = codes.intersection(claim.claimed)
        if claim.status is Status.DISPUTED and claimed and not codes.issuperset(claim.claimed):
            return 1
        if claim.country in codes:
            return 2 if claim.status is Status.UNCONFIRMED else 0
        if claim.status is Status.SPECIAL_PURPOSE:
            return 5
        return 4 if claim.country == NO_COUNTRY else 3

    def by_parts(claim: Claim) -> int:
        verdict, reason = claim.judge(
            codes, Policy.UNANIMOUS, partly, dataset.subdivision_sources, covering
        )
        if verdict is not Verdict.UNDETERMINED:
            return 0 if verdict is Verdict.INSIDE else 3
        places = [vote.place for vote in claim.places] or claim.claimed
        if reason is Reason.SPECIAL_PURPOSE:
            return 5
        if claim.country == NO_COUNTRY:
            return 4
        if not any(place in codes or place[:2] in codes or place in partly for place in places):
            return 3
        return 1 if reason is Reason.DISPUTED else 2

    def row(claim: Claim) -> str | None:
        if category(claim) != 1:
            return None
        if partly:
            return " or ".join(dict.fromkeys(vote.place for vote in claim.places)) or None
        inside = sorted(codes.intersection(claim.claimed))
        return " or ".join(dict.fromkeys([*inside, *claim.claimed]))

    title = f"{name}, {COUNTRIES[name]}" if name in COUNTRIES else name
    return _of_dataset(dataset, title, categories, category, "Disagreements", row)


def country_subdivisions(dataset: Dataset, country: str) -> Subject:
    """Return the picture of a country's subdivisions, the largest in colours.

    An address is in a subdivision where `Policy.UNANIMOUS` says so.

    Args:
        dataset: with subdivisions.
        country: the code of one that has some.
    """
    places = subdivisions().children[country]
    covering = network_bits(dataset.covering) if dataset.network_lists else 0
    intervals, claims = claim_intervals(dataset), tuple(dataset.claims)
    place_of = np.full(len(claims), -1, dtype=np.int64)
    for number, place in enumerate(places):
        seen = dataset.region_sets.resolve(place.replace("-", "/"))
        outcomes = dataset.claims.outcomes(
            seen.codes, Policy.UNANIMOUS, seen.partly, dataset.subdivision_sources, covering
        )
        verdicts = np.frombuffer(outcomes, dtype=np.uint8) & 3
        place_of[verdicts == Verdict.INSIDE.number] = number
    sizes = Counter[str]()
    for number, size in zip(place_of.tolist(), _totals(intervals, len(claims)), strict=True):
        if number >= 0 and size:
            sizes[places[number]] += size
    largest = sorted(sizes, key=lambda place: (-sizes[place], place))[:LARGEST_CODES]
    others = len(largest)
    categories = (
        *(Category(place, CODE_COLOURS[i], focus=True) for i, place in enumerate(largest)),
        Category(f"{len(sizes) - others} other subdivisions", OTHER_PARTS, focus=True),
        Category(f"{country}: the part is unknown or disputed", UNCERTAIN, focus=True),
        Category("elsewhere", PALE),
        Category("no source speaks", UNASSIGNED),
        Category("special-purpose", SPECIAL, striped=True),
    )
    position = {place: i for i, place in enumerate(largest)}

    def category(claim: Claim, number: int) -> int:
        if number >= 0:
            return position.get(places[number], others)
        if country in {claim.country, *claim.claimed}:
            return others + 1
        if claim.status is Status.SPECIAL_PURPOSE:
            return others + 4
        return others + (3 if claim.country == NO_COUNTRY else 2)

    numbers = np.array(list(map(category, claims, place_of.tolist())), np.uint32)
    rest = Counter({place: n for place, n in sizes.items() if place not in position})
    return Subject(
        title=f"Subdivisions of {COUNTRIES[country]}",
        categories=categories,
        intervals=Intervals(intervals.first, numbers[intervals.value]),
        pairs=("Largest of the other subdivisions", _most(rest)),
        datasets=(_described(dataset),),
        attributions=dataset.attributions,
    )


def agreement(dataset: Dataset) -> Subject:
    """Return the picture of what the sources agree about, and what they dispute."""
    categories = (
        Category("disputed: sources name different countries", "#d1480f", focus=True),
        Category("unconfirmed: a source is silent", "#0f7ba8", focus=True),
        Category("assigned: all sources agree", PALE),
        Category("override: an operator decided", "#882255", focus=True),
        Category("no source speaks", UNASSIGNED),
        Category("special-purpose", SPECIAL, striped=True),
    )
    numbers = {
        Status.DISPUTED: 0,
        Status.UNCONFIRMED: 1,
        Status.ASSIGNED: 2,
        Status.OVERRIDE: 3,
        Status.UNASSIGNED: 4,
        Status.INVALID: 4,
        Status.SPECIAL_PURPOSE: 5,
    }
    return _of_dataset(
        dataset,
        "Agreement of the sources",
        categories,
        lambda claim: numbers[claim.status],
        "Largest disagreements",
        lambda claim: " or ".join(claim.claimed) if claim.status is Status.DISPUTED else None,
    )


def difference(old: Dataset, new: Dataset) -> Subject:
    """Return the picture of what is different in *new*."""
    categories = (
        Category("moved: another country", "#d1480f", focus=True),
        Category("newly disputed", "#882255", focus=True),
        Category("no longer disputed", "#117733", focus=True),
        Category("gained a country", "#0f7ba8", focus=True),
        Category("lost its country", "#ddaa00", focus=True),
        Category("same country or none, other status", "#88ccee", focus=True),
        Category("unchanged", PALE),
        Category("no source speaks, unchanged", UNASSIGNED),
        Category("special-purpose, unchanged", SPECIAL, striped=True),
    )
    old_intervals, new_intervals = claim_intervals(old), claim_intervals(new)
    first = np.union1d(old_intervals.first, new_intervals.first)
    pairs = old_intervals.at(first).astype(np.uint64) << np.uint64(32) | new_intervals.at(first)
    different, number = np.unique(pairs, return_inverse=True)
    before, after = tuple(old.claims), tuple(new.claims)
    claims = [(before[pair >> 32], after[pair & 0xFFFF_FFFF]) for pair in map(int, different)]
    intervals = Intervals(first, number.astype(np.uint32))
    category_of = [_change(*pair) for pair in claims]
    moves = Counter[str]()
    for (was, is_), category, size in zip(
        claims, category_of, _totals(intervals, len(claims)), strict=True
    ):
        if category in _MOVES:
            moves[f"{_claim_text(was)} → {_claim_text(is_)}"] += size
    return Subject(
        title="What changed",
        categories=categories,
        intervals=Intervals(first, np.array(category_of, dtype=np.uint32)[intervals.value]),
        pairs=("Largest changes", _most(moves)),
        datasets=(f"old: {_described(old)}", f"new: {_described(new)}"),
        attributions=tuple(dict.fromkeys(old.attributions + new.attributions)),
    )


_MOVES = range(5)


def _change(old: Claim, new: Claim) -> int:
    """Return the position of a change among the categories of `difference`."""
    was, is_ = (claim.status is Status.DISPUTED for claim in (old, new))
    if (old.status, old.country, old.claimed) == (new.status, new.country, new.claimed):
        if old.country != NO_COUNTRY:
            return 6
        return 8 if old.status is Status.SPECIAL_PURPOSE else 7
    if was != is_ and NO_COUNTRY not in (old.country, new.country):
        return 1 if is_ else 2
    if NO_COUNTRY == old.country != new.country:
        return 3
    if NO_COUNTRY == new.country != old.country:
        return 4
    return 0 if old.country != new.country else 5


def _claim_text(claim: Claim) -> str:
    if claim.status is Status.DISPUTED:
        return "/".join(_first(claim.country, claim.claimed)) + "?"
    return "none" if claim.country == NO_COUNTRY else claim.country


def _first(code: str, claimed: Sequence[str]) -> list[str]:
    return [code, *(other for other in claimed if other != code)]


def impact(before: Basis, after: Basis, found: FamilyImpact) -> Subject:
    """Return the picture of who would change sides.

    Args:
        before: what verdicts rest on.
        after: what they are to rest on.
        found: what `review.impact.assess` found in IPv4.
    """
    changes = {
        (Verdict.OUTSIDE, Verdict.INSIDE): "#d1480f",
        (Verdict.UNDETERMINED, Verdict.INSIDE): "#ddaa00",
        (Verdict.INSIDE, Verdict.OUTSIDE): "#0f7ba8",
        (Verdict.INSIDE, Verdict.UNDETERMINED): "#88ccee",
        (Verdict.UNDETERMINED, Verdict.OUTSIDE): "#117733",
        (Verdict.OUTSIDE, Verdict.UNDETERMINED): "#882255",
    }
    categories = (
        *(
            Category(f"{a.name} → {b.name}", colour, focus=True)
            for (a, b), colour in changes.items()
        ),
        Category("INSIDE, unchanged", "#30407a"),
        Category("OUTSIDE, unchanged", PALE),
        Category("UNDETERMINED, unchanged", "#9aa0a6"),
        Category("no source speaks, unchanged", UNASSIGNED),
        Category("special-purpose, unchanged", SPECIAL, striped=True),
    )
    unchanged = len(changes)
    positions = {pair: at for at, pair in enumerate(changes)}

    def category(was: int, is_: int) -> int:
        pair = Outcome.decoded(was), Outcome.decoded(is_)
        verdicts = pair[0].verdict, pair[1].verdict
        if verdicts in positions:
            return positions[verdicts]
        if verdicts[0] is not Verdict.UNDETERMINED:
            return unchanged + (verdicts[0] is Verdict.OUTSIDE)
        reasons = {one.reason for one in pair}
        if reasons == {Reason.SPECIAL_PURPOSE}:
            return unchanged + 4
        return unchanged + (3 if reasons == {Reason.UNASSIGNED} else 2)

    old, new = claim_intervals(before.dataset), claim_intervals(after.dataset)
    first = np.union1d(old.first, new.first)
    outcomes = [
        np.frombuffer(basis.dataset.outcome_column(basis.region_set, basis.policy), dtype=np.uint8)[
            intervals.at(first)
        ]
        for basis, intervals in ((before, old), (after, new))
    ]
    pairs, number = np.unique(outcomes[0].astype(np.uint32) << 8 | outcomes[1], return_inverse=True)
    categories_of = np.array([category(*divmod(int(pair), 256)) for pair in pairs], dtype=np.uint32)
    moves = Counter[str]()
    for pair, countries in found.countries.items():
        for named, weight in countries.items() if pair.changes_sides else ():
            moves[_move(pair, named)] += weight.addresses
    return Subject(
        title=f"Who would change sides: {_before_after(before, after)}",
        categories=categories,
        intervals=Intervals(first, categories_of[number.reshape(-1)]),
        pairs=("Largest changes", _most(moves)),
        datasets=(f"before: {_described(before.dataset)}", f"after: {_described(after.dataset)}"),
        attributions=tuple(dict.fromkeys(before.dataset.attributions + after.dataset.attributions)),
    )


def _move(pair: Transition, named: Countries) -> str:
    sides = zip(pair, named, strict=True)
    return " → ".join(
        f"{outcome.verdict.name} {'none' if code == NO_COUNTRY else code}"
        for outcome, code in sides
    )


def _before_after(before: Basis, after: Basis) -> str:
    """Return region set and policy, and what follows them if they change."""
    names = [
        one.region_set if isinstance(one.region_set, str) else one.region_set.name
        for one in (before, after)
    ]
    policies = [one.policy.name for one in (before, after)]
    return ", ".join(" → ".join(dict.fromkeys(part)) for part in (names, policies))


def _agreed(claim: Claim) -> bool:
    return claim.status in (Status.ASSIGNED, Status.OVERRIDE)


def _named(code: str) -> str:
    return f"{code}  {COUNTRIES[code]}"


def _most(weights: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:LISTED_PAIRS])


def _described(dataset: Dataset) -> str:
    return f"{dataset.id[:16]}…, built {dataset.built:%Y-%m-%d}"


def _totals(intervals: Intervals, values: int) -> list[int]:
    # float64 holds these numbers exactly.
    weights = np.bincount(intervals.value, weights=intervals.sizes(), minlength=values)
    return [int(weight) for weight in weights]


def _of_dataset(
    dataset: Dataset,
    title: str,
    categories: tuple[Category, ...],
    category: Callable[[Claim], int],
    table: str,
    row: Callable[[Claim], str | None],
) -> Subject:
    """Return the picture of one dataset.

    Args:
        dataset: the dataset.
        title: its title.
        categories: in the order of the legend.
        category: the position of a claim's category.
        table: title of the second table.
        row: a claim's row in that table; None: it has none.
    """
    intervals, claims = claim_intervals(dataset), tuple(dataset.claims)
    rows = Counter[str]()
    for claim, size in zip(claims, _totals(intervals, len(claims)), strict=True):
        name = row(claim)
        if name is not None:
            rows[name] += size
    numbers = np.array([category(claim) for claim in claims], np.uint32)
    return Subject(
        title=title,
        categories=categories,
        intervals=Intervals(intervals.first, numbers[intervals.value]),
        pairs=(table, _most(rows)),
        datasets=(_described(dataset),),
        attributions=dataset.attributions,
    )
