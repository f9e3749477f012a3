"""What a picture shows: kinds of addresses, their colours, and which kind each address is.

The colours are told apart with each of the common forms of colour blindness, and none
rests on red against green alone; a test measures that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from geolookup.answer.claims import NO_COUNTRY, Claim, Status
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import Dataset
from geolookup.answer.region_sets import RegionSet
from geolookup.pictures.cells import Line, claim_line

LARGEST_CODES: Final = 10
"""Countries with a colour of their own. More colours could not be told apart."""

LISTED_PAIRS: Final = 15

NOBODYS: Final = "#ffffff"
SPECIAL: Final = "#e6e2d8"
ELSEWHERE: Final = "#b9bec4"
UNCERTAIN: Final = "#1d1f22"
PALE: Final = "#d9dde1"
"""What a picture is not about."""

CODE_COLOURS: Final = (
    *("#6f9fd0", "#ae4713", "#0b6556", "#ec9e51", "#783f83"),
    *("#0f248a", "#9af49a", "#8a75f0", "#b38a61", "#651a0b"),
)
"""By number of addresses: the calmest for the largest country, which covers a third of the map."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of addresses.

    Attributes:
        label: what the legend says.
        colour: "#rrggbb".
        focus: what the picture is about. Such a kind shows in a cell however small its
            part is, the stronger the larger; of the others the largest shows.
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
        kinds: in the order of the legend.
        line: the IPv4 space, the position of its kind in `kinds` for each piece.
        pairs: title and rows (text, addresses) of a second table.
        datasets: what it is made from, a line each.
        attributions: what the sources' licences ask to be shown.
    """

    title: str
    kinds: tuple[Kind, ...]
    line: Line
    pairs: tuple[str, tuple[tuple[str, int], ...]]
    datasets: tuple[str, ...]
    attributions: tuple[str, ...]

    def totals(self) -> list[int]:
        """Return the number of addresses of each kind."""
        return _totals(self.line, len(self.kinds))


def codes(dataset: Dataset) -> Subject:
    """Return the picture of all countries, the largest in colours."""
    line, claims = claim_line(dataset), tuple(dataset.claims)
    weights = Counter[str]()
    for claim, size in zip(claims, _totals(line, len(claims)), strict=True):
        if _agreed(claim):
            weights[claim.country] += size
    del weights[NO_COUNTRY]
    largest = sorted(weights, key=lambda code: (-weights[code], code))[:LARGEST_CODES]
    kinds = (
        *(Kind(_named(code), CODE_COLOURS[i]) for i, code in enumerate(largest)),
        Kind(f"{max(0, len(weights) - len(largest))} other countries", ELSEWHERE),
        Kind("disputed or unconfirmed", UNCERTAIN),
        Kind("no source speaks", NOBODYS),
        Kind("special-purpose", SPECIAL, striped=True),
    )
    other = len(largest)
    others = Counter({_named(code): n for code, n in weights.items() if code not in largest})

    def kind(claim: Claim) -> int:
        if _agreed(claim) and claim.country != NO_COUNTRY:
            return largest.index(claim.country) if claim.country in largest else other
        if claim.status in (Status.DISPUTED, Status.UNCONFIRMED):
            return other + 1
        return other + 2 + (claim.status is Status.SPECIAL_PURPOSE)

    return Subject(
        title="Countries",
        kinds=kinds,
        line=_of_claims(line, claims, kind),
        pairs=("Largest of the other countries", _most(others)),
        datasets=(_described(dataset),),
        attributions=dataset.attributions,
    )


def one_region_set(dataset: Dataset, region_set: RegionSet) -> Subject:
    """Return the picture of a region set: where all sources see it, and where only some."""
    name, codes = region_set.name, region_set.codes
    kinds = (
        Kind(f"{name}: all sources agree", "#00489e", focus=True),
        Kind(f"{name} or another: sources disagree", "#e8601c", focus=True),
        Kind(f"{name}: unconfirmed", "#44aa99", focus=True),
        Kind("elsewhere", PALE),
        Kind("no source speaks", NOBODYS),
        Kind("special-purpose", SPECIAL, striped=True),
    )

    def kind(claim: Claim) -> int:
        claimed = codes.intersection(claim.claimed)
        if claim.status is Status.DISPUTED and claimed and not codes.issuperset(claim.claimed):
            return 1
        if claim.country in codes:
            return 2 if claim.status is Status.UNCONFIRMED else 0
        if claim.status is Status.SPECIAL_PURPOSE:
            return 5
        return 4 if claim.country == NO_COUNTRY else 3

    line, claims = claim_line(dataset), tuple(dataset.claims)
    others = Counter[str]()
    for claim, size in zip(claims, _totals(line, len(claims)), strict=True):
        if kind(claim) == 1:
            inside = sorted(codes.intersection(claim.claimed))
            others[" or ".join(dict.fromkeys([*inside, *claim.claimed]))] += size
    return Subject(
        title=f"{name}, {COUNTRIES[name]}" if name in COUNTRIES else name,
        kinds=kinds,
        line=_of_claims(line, claims, kind),
        pairs=("Disagreements", _most(others)),
        datasets=(_described(dataset),),
        attributions=dataset.attributions,
    )


def agreement(dataset: Dataset) -> Subject:
    """Return the picture of what the sources agree about, and what they dispute."""
    kinds = (
        Kind("disputed: sources name different countries", "#d1480f", focus=True),
        Kind("unconfirmed: a source is silent", "#0f7ba8", focus=True),
        Kind("assigned: all sources agree", PALE),
        Kind("override: an operator decided", "#882255", focus=True),
        Kind("no source speaks", NOBODYS),
        Kind("special-purpose", SPECIAL, striped=True),
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
    line, claims = claim_line(dataset), tuple(dataset.claims)
    disputes = Counter[str]()
    for claim, size in zip(claims, _totals(line, len(claims)), strict=True):
        if claim.status is Status.DISPUTED:
            disputes[" or ".join(claim.claimed)] += size
    return Subject(
        title="Agreement of the sources",
        kinds=kinds,
        line=_of_claims(line, claims, lambda claim: numbers[claim.status]),
        pairs=("Largest disagreements", _most(disputes)),
        datasets=(_described(dataset),),
        attributions=dataset.attributions,
    )


def difference(old: Dataset, new: Dataset) -> Subject:
    """Return the picture of what is different in *new*."""
    kinds = (
        Kind("moved: another country", "#d1480f", focus=True),
        Kind("newly disputed", "#882255", focus=True),
        Kind("no longer disputed", "#117733", focus=True),
        Kind("gained a country", "#0f7ba8", focus=True),
        Kind("lost its country", "#ddaa00", focus=True),
        Kind("same country or none, other status", "#88ccee", focus=True),
        Kind("unchanged", PALE),
        Kind("no source speaks, unchanged", NOBODYS),
        Kind("special-purpose, unchanged", SPECIAL, striped=True),
    )
    old_line, new_line = claim_line(old), claim_line(new)
    first = np.union1d(old_line.first, new_line.first)
    pairs = old_line.at(first).astype(np.uint64) << np.uint64(32) | new_line.at(first)
    different, number = np.unique(pairs, return_inverse=True)
    before, after = tuple(old.claims), tuple(new.claims)
    claims = [(before[pair >> 32], after[pair & 0xFFFF_FFFF]) for pair in map(int, different)]
    line = Line(first, number.astype(np.uint32))
    kind_of = [_change(*pair) for pair in claims]
    moves = Counter[str]()
    for (was, is_), kind, size in zip(claims, kind_of, _totals(line, len(claims)), strict=True):
        if kind in _MOVES:
            moves[f"{_said(was)} → {_said(is_)}"] += size
    return Subject(
        title="What changed",
        kinds=kinds,
        line=Line(first, np.array(kind_of, dtype=np.uint32)[line.value]),
        pairs=("Largest changes", _most(moves)),
        datasets=(f"old: {_described(old)}", f"new: {_described(new)}"),
        attributions=tuple(dict.fromkeys(old.attributions + new.attributions)),
    )


_MOVES = range(5)


def _change(old: Claim, new: Claim) -> int:
    """Return the position of a change among the kinds of `difference`."""
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


def _said(claim: Claim) -> str:
    if claim.status is Status.DISPUTED:
        return "/".join(_first(claim.country, claim.claimed)) + "?"
    return "none" if claim.country == NO_COUNTRY else claim.country


def _first(code: str, claimed: Sequence[str]) -> list[str]:
    return [code, *(other for other in claimed if other != code)]


def _agreed(claim: Claim) -> bool:
    return claim.status in (Status.ASSIGNED, Status.OVERRIDE)


def _named(code: str) -> str:
    return f"{code}  {COUNTRIES[code]}"


def _most(weights: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:LISTED_PAIRS])


def _described(dataset: Dataset) -> str:
    return f"{dataset.id[:16]}…, built {dataset.built:%Y-%m-%d}"


def _totals(line: Line, values: int) -> list[int]:
    # float64 holds these numbers exactly.
    weights = np.bincount(line.value, weights=line.sizes(), minlength=values)
    return [int(weight) for weight in weights]


def _of_claims(line: Line, claims: Sequence[Claim], kind: Callable[[Claim], int]) -> Line:
    return Line(line.first, np.array([kind(claim) for claim in claims], np.uint32)[line.value])
