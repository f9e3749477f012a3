"""``geolookup diff``: what is different in a new dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import NO_COUNTRY
from geolookup.answer.dataset import open as open_dataset
from geolookup.answer.intervals import address_text
from geolookup.cli.amounts import JSON_UNITS, UNIT_NAMES, amount, size
from geolookup.cli.options import json_option, public_key_option
from geolookup.cli.output import Progress, per_cent, printable, table
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.review.difference import (
        CodeChange,
        Difference,
        FamilyDifference,
        MovedRange,
    )
    from geolookup.review.pieces import Weight

_LISTED = 20
"""Codes in the table; --json has all."""
_FLOWS = 3
"""Codes named of those that a code lost its addresses to."""


@click.command(name="diff", short_help="Say what is different in a new dataset.")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@json_option
@click.option(
    "--max-change",
    "max_change",
    metavar="CODE=SHARE",
    multiple=True,
    help="Exit with 1 if the code changed by more, such as CN=0.5%; '*' is each code without a "
    "limit of its own, DISPUTED what became or ceased to be disputed, VPN networks of that kind. "
    "May be given again.",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Hold to the max_change of this manifest's [limits]; --max-change wins over them.",
)
@public_key_option
def show_difference(
    *,
    old: str,
    new: str,
    as_json: bool,
    max_change: tuple[str, ...],
    manifest: str | None,
    public_key: str | None,
) -> None:
    """Say what is different in the dataset file NEW, seen from OLD.

    A code's change is the addresses that it gained and lost, as a share of those that it
    had; IPv6 is counted in /48s. A limit holds for each of IPv4 and IPv6. In the columns
    PREFIXES a large range counts as little as a small one.

    \b
    Examples:
      geolookup diff countries.geolookup new.geolookup
      geolookup diff countries.geolookup new.geolookup --max-change CN=0.5% --max-change '*=5%'
      geolookup diff countries.geolookup new.geolookup --manifest geolookup.toml --json

    With --json: old, new, ipv4, ipv6, network_lists, exceeded (the limits that are).
    """
    limits = {**_limits_of(manifest), **read_limits(max_change)}
    # Only this command needs it.
    from geolookup.review.difference import compare  # noqa: PLC0415

    with (
        open_dataset(old, public_key=public_key) as before,
        open_dataset(new, public_key=public_key) as after,
        Progress("comparing") as progress,
    ):
        found = compare(before, after, progress=progress.update)
    exceeded = found.exceeded(limits)
    click.echo(json.dumps(_record(found, limits)) if as_json else "\n\n".join(_blocks(found)))
    if exceeded:
        raise GeoLookupError(f"{new}: changed too much: {'; '.join(map(str, exceeded))}")


def _limits_of(manifest: str | None) -> Mapping[str, Fraction]:
    if manifest is None:
        return {}
    from geolookup.build.manifest import load_limits  # noqa: PLC0415

    return load_limits(manifest).max_change


def read_limits(given: tuple[str, ...]) -> dict[str, Fraction]:
    """Return the limits that --max-change gives."""
    from geolookup.change_limits import LimitError, read_limited, read_share  # noqa: PLC0415

    limits = {}
    for position, text in enumerate(given, start=1):
        about, _, amount = text.partition("=")
        try:
            limits[read_limited(about)] = read_share(amount)
        except LimitError as error:
            raise click.UsageError(f"--max-change, number {position}: {error}") from None
    return limits


def _blocks(found: Difference) -> Iterator[str]:
    for one in found.families:
        yield _totals(one)
        codes = _changed(one)
        if codes:
            yield _codes(one, codes)
        if one.largest:
            yield _ranges(one)
        if one.networks:
            yield _networks(one)
    if found.lists:
        yield _lists(found)
    yield table([["old", found.old], ["new", found.new]])


def _changed(one: FamilyDifference) -> list[CodeChange]:
    """Return the codes that changed, the most changed first."""
    codes = [
        code
        for code in one.codes.values()
        if code.gained.addresses or code.lost.addresses or code.newly_disputed.addresses
    ]
    codes.sort(key=lambda code: (-code.gained.addresses - code.lost.addresses, code.code))
    return codes


def _totals(one: FamilyDifference) -> str:
    rows = [[f"IPV{one.family}", UNIT_NAMES[one.family].upper(), "SHARE", "PREFIXES", "SHARE"]]
    for name, weight in (
        ("with a country before", one.answered_before),
        ("with a country now", one.answered_after),
        ("moved", one.moved),
        *([("moved within a country", one.moved_within)] if one.moved_within.addresses else ()),
        ("newly disputed", one.newly_disputed),
        ("no longer disputed", one.no_longer_disputed),
    ):
        shares = [
            _percent(Fraction(part, whole)) if whole and weight is not one.answered_before else ""
            for part, whole in zip(weight, one.answered_before, strict=True)
        ]
        rows.append(
            [name, _shown(one, weight), shares[0], f"{weight.prefixes:,}", shares[1]],
        )
    return table(rows, right=range(1, 5))


def _codes(one: FamilyDifference, codes: list[CodeChange]) -> str:
    rows = [
        ["CODE", "BEFORE", "GAINED", "LOST", "CHANGE", "BY PREFIXES", "NEWLY DISPUTED", "LOST TO"]
    ]
    for code in codes[:_LISTED]:
        rows.append(
            [
                code.code,
                *(_shown(one, weight) for weight in (code.before, code.gained, code.lost)),
                _percent(code.change),
                _percent(code.prefix_change),
                _shown(one, code.newly_disputed),
                _flow(one, code.lost_to),
            ]
        )
    text = table(rows, right=range(1, 7))
    more = len(codes) - _LISTED
    return f"{text}\nand {more} more codes; --json has all" if more > 0 else text


def _flow(one: FamilyDifference, flows: Mapping[str, Weight]) -> str:
    shown = [f"{_code_or_none(code)} {_shown(one, flows[code])}" for code in list(flows)[:_FLOWS]]
    return ", ".join([*shown, "..."] if len(flows) > _FLOWS else shown)


def _ranges(one: FamilyDifference) -> str:
    rows = [["LARGEST MOVES", "BEFORE", "NOW", UNIT_NAMES[one.family].upper()]]
    for moved in one.largest:
        rows.append(
            [
                f"{address_text(one.family, moved.first)} - {address_text(one.family, moved.last)}",
                _code_or_none(moved.before),
                _code_or_none(moved.after),
                amount(one.family, moved.last - moved.first + 1),
            ]
        )
    return table(rows, right=(3,))


def _networks(one: FamilyDifference) -> str:
    rows = [["NETWORKS", "BEFORE", "GAINED", "LOST", "CHANGE"]]
    for kind, found in one.networks.items():
        amounts = (_shown(one, weight) for weight in (found.before, found.gained, found.lost))
        rows.append([kind.name, *amounts, _percent(found.change)])
    return table(rows, right=range(1, 5))


def _lists(found: Difference) -> str:
    rows = [["LIST OF NETWORKS", "RANGES BEFORE", "NOW"]]
    for one in found.lists:
        counts = ("none" if n is None else f"{n:,}" for n in (one.before, one.after))
        rows.append([printable(one.name), *counts])
    return table(rows, right=(1, 2))


def _percent(change: Fraction | None) -> str:
    if change is None:
        return "new"
    return per_cent(change, 3)


def _code_or_none(code: str) -> str:
    return "none" if code == NO_COUNTRY else code


def _shown(one: FamilyDifference, weight: Weight) -> str:
    return amount(one.family, weight.addresses)


def _record(found: Difference, limits: Mapping[str, Fraction]) -> dict[str, Any]:
    return {
        "old": found.old,
        "new": found.new,
        **{f"ipv{one.family}": _family_record(one) for one in found.families},
        "network_lists": [
            {"name": one.name, "before": one.before, "after": one.after} for one in found.lists
        ],
        "exceeded": [
            {
                "family": one.family,
                "about": one.about,
                "change": None if one.change is None else float(one.change),
                "limit": float(one.limit),
            }
            for one in found.exceeded(limits)
        ],
    }


def _family_record(one: FamilyDifference) -> dict[str, Any]:
    def weight(what: Weight) -> dict[str, float]:
        return {"size": size(one.family, what.addresses), "prefixes": what.prefixes}

    def moved(what: MovedRange) -> dict[str, Any]:
        return {
            "first": address_text(one.family, what.first),
            "last": address_text(one.family, what.last),
            "before": what.before,
            "after": what.after,
            "size": size(one.family, what.last - what.first + 1),
        }

    return {
        "unit": JSON_UNITS[one.family],
        "answered_before": weight(one.answered_before),
        "answered_after": weight(one.answered_after),
        "moved": weight(one.moved),
        "moved_within": weight(one.moved_within),
        "newly_disputed": weight(one.newly_disputed),
        "no_longer_disputed": weight(one.no_longer_disputed),
        "codes": {
            code.code: {
                "before": weight(code.before),
                "after": weight(code.after),
                "gained": weight(code.gained),
                "lost": weight(code.lost),
                "change": None if code.change is None else float(code.change),
                "prefix_change": None if code.prefix_change is None else float(code.prefix_change),
                "gained_from": {other: weight(w) for other, w in code.gained_from.items()},
                "lost_to": {other: weight(w) for other, w in code.lost_to.items()},
                "newly_disputed": weight(code.newly_disputed),
            }
            for code in _changed(one)
        },
        "largest": [moved(what) for what in one.largest],
        "networks": {
            kind.name: {
                "before": weight(what.before),
                "gained": weight(what.gained),
                "lost": weight(what.lost),
                "change": None if what.change is None else float(what.change),
            }
            for kind, what in one.networks.items()
        },
    }
