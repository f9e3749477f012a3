"""``geolookup impact``: who would change sides under another dataset, policy or region set."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from geolookup.answer.claims import NO_COUNTRY, SUBDIVISION_SOURCES, Network, Policy, Verdict
from geolookup.answer.dataset import open as open_dataset
from geolookup.cli.amounts import JSON_UNITS, UNIT_NAMES, amount, size
from geolookup.cli.answering import Answered
from geolookup.cli.options import (
    json_option,
    public_key_option,
    read_covering,
    read_part,
    region_set_option,
    region_sets_option,
)
from geolookup.cli.output import Progress, per_cent, printable, share, table
from geolookup.cli.participants import classify_people, read_participants
from geolookup.cli.picture import picture_format, written_picture
from geolookup.cli.reasons import TEXTS, verdict_text
from geolookup.cli.record_options import record_options
from geolookup.cli.records import InvalidCheck, RecordFile, Selection
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.intervals import Family
    from geolookup.answer.results import RosterResult
    from geolookup.review.impact import (
        Basis,
        Countries,
        FamilyImpact,
        Outcome,
        RosterImpact,
        Transition,
    )
    from geolookup.review.pieces import Weight

EMBEDDED: Final = "embedded"
"""The argument that means the dataset which comes with geolookup."""
_POLICIES: Final = click.Choice([one.name.lower() for one in Policy], case_sensitive=False)
_FILE: Final = click.Path(exists=True, dir_okay=False)
_PIECE: Final = 100_000
"""Addresses of a roster at a time: some megabytes."""
_FLOWS: Final = 3
"""Countries named of those whose addresses make a transition; --json has all."""


@click.command(name="impact", short_help="Say who would change sides, before anything acts.")
@click.argument("old", required=False, metavar="[OLD]")
@click.argument("new", required=False, metavar="[NEW]")
@region_set_option("The region set whose sides are asked about, such as EEA-NO.", required=True)
@click.option(
    "-p",
    "--policy",
    type=_POLICIES,
    default="unanimous",
    show_default=True,
    help="How the sources' claims decide.",
)
@region_sets_option
@click.option(
    "--overrides", type=_FILE, metavar="FILE", help="TOML file with overrides, which win."
)
@click.option(
    "--covering",
    metavar="KINDS",
    callback=read_covering,
    help="Kinds of networks that hide where their users are, by commas, or none; by default as "
    "each dataset's manifest says.",
)
@click.option(
    "--subdivision-sources",
    type=click.IntRange(1, 255),
    default=SUBDIVISION_SOURCES,
    show_default=True,
    metavar="N",
    help="Independent sources that must tell in which part of a country an address is.",
)
@region_set_option("This region set in place of --region-set.", "--new-region-set")
@click.option("--new-policy", type=_POLICIES, help="This policy in place of --policy.")
@click.option(
    "--new-region-sets", type=_FILE, metavar="FILE", help="This file in place of --region-sets."
)
@click.option(
    "--new-overrides", type=_FILE, metavar="FILE", help="This file in place of --overrides."
)
@click.option(
    "--new-covering",
    metavar="KINDS",
    callback=read_covering,
    help="These kinds of networks in place of --covering.",
)
@click.option(
    "--new-subdivision-sources",
    type=click.IntRange(1, 255),
    metavar="N",
    help="This number in place of --subdivision-sources.",
)
@click.option(
    "--roster",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE|-",
    help="Count who of this roster changes sides, too; as 'geolookup classify' reads it.",
)
@click.option(
    "--participant",
    "participant_column",
    metavar="COLUMN",
    help="The roster has several records of some participants, whom this column names: count "
    "participants.",
)
@record_options
@click.option(
    "--max-change",
    callback=read_part,
    metavar="SHARE",
    help="Exit with 1 if more than this share, such as 0.1%, of IPv4, IPv6 or the roster changes "
    "sides.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="OUT",
    help="Draw the IPv4 space with what changes sides, .png or .svg.",
)
@public_key_option
@json_option
def show_impact(
    *,
    old: str | None,
    new: str | None,
    roster: str | None,
    participant_column: str | None,
    selection: Selection,
    max_invalid: Fraction,
    max_change: Fraction | None,
    plot: Path | None,
    public_key: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say who would change sides, seen from a region set, if something were different.

    Different may be the dataset, NEW in place of OLD, and what the options --new-... name;
    all else stays. Without NEW the dataset stays, without OLD it is the embedded one. The word
    embedded means that one, too. Nothing acts, and no address is in the output.

    Counted are addresses (of IPv6: /48s), from which verdict to which, and why there was or is
    none; SHARE is of the addresses that are INSIDE or OUTSIDE before or after. In the columns
    PREFIXES a large range counts as little as a small one. With --roster also its addresses, or its
    participants.

    \b
    Examples:
      geolookup impact countries.geolookup new.geolookup --region-set CN
      geolookup impact --region-set CN --new-policy majority
      geolookup impact --region-set EEA --new-region-set EEA-NO --roster joins.csv
      geolookup impact --region-set CN --new-overrides overrides.toml
      geolookup impact new.geolookup --region-set CN --new-covering none --plot impact.png

    With --json: before, after, ipv4, ipv6, roster (null without), exceeded.
    """
    changes = {
        name.removeprefix("new_"): value
        for name, value in given.items()
        if name.startswith("new_") and value is not None
    }
    settings = {name: value for name, value in given.items() if not name.startswith("new_")}
    if new is None and not changes:
        raise click.UsageError("nothing is different: name NEW, or an option such as --new-policy")
    if roster is None and (participant_column is not None or selection != Selection()):
        raise click.UsageError(
            "--participant, --column, --pattern and --form are about a roster; add --roster"
        )
    image_format = None
    if plot is not None:
        files = [
            options.get(name)
            for name in ("region_sets", "overrides")
            for options in (settings, changes)
        ]
        image_format = picture_format(plot, "--plot", [old, new, roster, *files])
    # Only this command needs it.
    from geolookup.review.impact import assess  # noqa: PLC0415

    with ExitStack() as opened:
        bases = (
            _opened(opened, old, public_key, **settings),
            _opened(opened, old if new is None else new, public_key, **settings | changes),
        )
        _check_changes(bases[1].dataset, changes)
        people = None
        if roster is not None:
            people = _roster_impact(bases, roster, participant_column, selection, max_invalid)
        with Progress("comparing") as progress:
            families = assess(*bases, progress=progress.update)
        found = _Found(bases, families, people, participant_column is not None, max_change)
        if plot is not None and image_format is not None:
            with written_picture(plot) as file:
                from geolookup.pictures import drawing, subjects  # noqa: PLC0415

                drawing.draw(subjects.impact(*bases, families[0]), file, image_format)
    click.echo(json.dumps(_record(found)) if as_json else "\n\n".join(_blocks(found)))
    if found.exceeded:
        assert max_change is not None  # noqa: S101 - it is what was exceeded
        parts = [f"{per_cent(part, 3)} of {about}" for about, part in found.exceeded.items()]
        raise GeoLookupError(
            f"too many change sides: {', '.join(parts)}; allowed are {per_cent(max_change, 3)}"
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What is printed.

    Attributes:
        bases: before and after.
        families: what changes in the address space.
        roster: what changes in the roster, if there is one.
        participants: whether that counts participants.
        max_change: the largest share that may change sides; None: any.
    """

    bases: tuple[Basis, Basis]
    families: tuple[FamilyImpact, FamilyImpact]
    roster: RosterImpact | None
    participants: bool
    max_change: Fraction | None

    @property
    def exceeded(self) -> dict[str, Fraction]:
        """The shares that are over the limit."""
        shares = {f"IPv{one.family}": one.share for one in self.families}
        if self.roster is not None:
            shares["the roster"] = self.roster.share
        if self.max_change is None:
            return {}
        return {name: part for name, part in shares.items() if part > self.max_change}


def _opened(
    opened: ExitStack,
    path: str | None,
    public_key: str | None,
    *,
    region_set: str,
    policy: str,
    region_sets: str | None,
    overrides: str | None,
    covering: tuple[Network, ...] | None,
    subdivision_sources: int,
) -> Basis:
    from geolookup.review.impact import Basis  # noqa: PLC0415

    dataset = open_dataset(
        None if path == EMBEDDED else path,
        region_sets=region_sets,
        public_key=public_key,
        covering=covering,
        subdivision_sources=subdivision_sources,
    )
    opened.enter_context(dataset)
    if overrides is not None:
        from geolookup.answer.overrides import Overrides  # noqa: PLC0415

        # As of one moment: none expires in the middle.
        dataset = dataset.with_overrides(Overrides.load(overrides), time.time())
        opened.enter_context(dataset)
    return Basis(dataset, region_set, Policy[policy.upper()])


def _check_changes(dataset: Dataset, changes: Mapping[str, Any]) -> None:
    """Refuse options without any effect: "no one changes sides" would sound like an answer."""
    if "covering" in changes and not dataset.network_lists:
        raise click.UsageError("--new-covering: the dataset has no lists of networks")
    if "subdivision_sources" in changes and not dataset.has_subdivisions:
        raise click.UsageError("--new-subdivision-sources: the dataset has no subdivisions")


def _roster_impact(
    bases: tuple[Basis, Basis],
    roster: str,
    participant_column: str | None,
    selection: Selection,
    max_invalid: Fraction,
) -> RosterImpact:
    from geolookup.review.impact import RosterImpact, count  # noqa: PLC0415

    counts: Counter[Transition] = Counter()
    with (
        RecordFile(roster, selection) as records,
        Progress("classifying", records.size) as progress,
    ):
        check = InvalidCheck(records.name, max_invalid)
        if participant_column is None:
            results = _of_addresses(bases, records, check)
        else:
            results = _of_participants(bases, records, participant_column, check)
        for before, after in results:
            counts.update(count(before, after))
            progress.update(records.consumed)
        check.check()
    return RosterImpact(counts)


def _of_addresses(
    bases: tuple[Basis, Basis], records: RecordFile, check: InvalidCheck
) -> Iterator[tuple[RosterResult, RosterResult]]:
    for number, batch in enumerate(records.batches(_PIECE)):
        before, after = (
            one.dataset.classify(batch.addresses, region_set=one.region_set, policy=one.policy)
            for one in bases
        )
        check.add(batch, Answered(batch, (before,)).invalid())
        if not number:
            check.check()
        yield before, after


def _of_participants(
    bases: tuple[Basis, Basis], records: RecordFile, column: str, check: InvalidCheck
) -> Iterator[tuple[RosterResult, RosterResult]]:
    people = read_participants(records, column, check).people
    before, after = (
        classify_people(one.dataset, people, _PIECE, one.region_set, one.policy, None)
        for one in bases
    )
    return zip(before, after, strict=True)


def _blocks(found: _Found) -> Iterator[str]:
    for one in found.families:
        unit = UNIT_NAMES[one.family]

        def shown(addresses: int, family: Family = one.family) -> str:
            return amount(family, addresses)

        yield _sides(f"IPV{one.family}, {unit.upper()}", one.amounts(), shown)
        yield (
            f"change sides: {shown(one.changed.addresses)} {unit},"
            f" {per_cent(one.share, 3)} of those with a verdict"
        )
        yield from _space_changes(one)
        if one.apart:
            yield (
                f"not compared: {shown(one.apart)} {unit} carry an IPv4 address in one dataset only"
            )
    if found.roster is not None:
        yield from _roster_blocks(found.roster, found.participants)
    yield _basis_table(found.bases)


def _sides(title: str, amounts: Mapping[Transition, int], shown: Callable[[int], str]) -> str:
    """Return the table of verdicts before, a row each, and after."""
    sums = _by_verdicts(amounts)
    rows = [[title, *(f"{verdict.name} AFTER" for verdict in Verdict)]]
    rows += [
        [f"{before.name} before", *(shown(sums[before, after]) for after in Verdict)]
        for before in Verdict
    ]
    return table(rows, right=(1, 2, 3))


def _by_verdicts(amounts: Mapping[Transition, int]) -> Counter[tuple[Verdict, Verdict]]:
    sums = Counter[tuple[Verdict, Verdict]]()
    for pair, number in amounts.items():
        sums[pair.before.verdict, pair.after.verdict] += number
    return sums


def _space_changes(one: FamilyImpact) -> Iterator[str]:
    unit = UNIT_NAMES[one.family].upper()
    whole = one.decided.addresses
    sides, reasons = _changed(one.transitions)
    rows = [
        [
            *map(_outcome, pair),
            amount(one.family, weight.addresses),
            per_cent(Fraction(weight.addresses, whole), 3),
            f"{weight.prefixes:,}",
            _flows(one, one.countries[pair]),
        ]
        for pair, weight in ((pair, one.transitions[pair]) for pair in sides)
    ]
    if rows:
        heading = ["BEFORE", "AFTER", unit, "SHARE", "PREFIXES", "NAMED FIRST"]
        yield table([heading, *rows], right=(2, 3, 4))
    rows = [
        [
            *map(_reason, pair),
            amount(one.family, weight.addresses),
            f"{weight.prefixes:,}",
            _flows(one, one.countries[pair]),
        ]
        for pair, weight in ((pair, one.transitions[pair]) for pair in reasons)
    ]
    if rows:
        heading = ["UNDETERMINED BEFORE", "AND AFTER", unit, "PREFIXES", "NAMED FIRST"]
        yield table([heading, *rows], right=(2, 3))


def _changed(pairs: Iterable[Transition]) -> tuple[list[Transition], list[Transition]]:
    """Return those that change sides, and those whose reason alone is another."""
    pairs = [pair for pair in pairs if pair.before != pair.after]
    sides = [pair for pair in pairs if pair.changes_sides]
    return sides, [pair for pair in pairs if not pair.changes_sides]


def _outcome(outcome: Outcome) -> str:
    return verdict_text(outcome.verdict, outcome.reason, ())


def _reason(outcome: Outcome) -> str:
    return TEXTS[outcome.reason]


def _flows(one: FamilyImpact, flows: Mapping[Countries, Weight]) -> str:
    names = {
        pair: _code(pair.before)
        if pair.before == pair.after
        else f"{_code(pair.before)} → {_code(pair.after)}"
        for pair in list(flows)[:_FLOWS]
    }
    shown = [f"{name} {amount(one.family, flows[pair].addresses)}" for pair, name in names.items()]
    return ", ".join([*shown, "..."] if len(flows) > _FLOWS else shown)


def _code(code: str) -> str:
    return "none" if code == NO_COUNTRY else code


def _roster_blocks(roster: RosterImpact, participants: bool) -> Iterator[str]:
    noun = "participants" if participants else "addresses"
    yield _sides(f"ROSTER, {noun.upper()}", roster.counts, "{:,}".format)
    yield (
        f"change sides: {roster.changed:,} of {roster.size:,} {noun},"
        f" {share(roster.changed, roster.size)}"
    )
    sides, reasons = _changed(roster.counts)
    for pairs, text, heading in (
        (sides, _outcome, ("BEFORE", "AFTER")),
        (reasons, _reason, ("UNDETERMINED BEFORE", "AND AFTER")),
    ):
        counts = sorted(((pair, roster.counts[pair]) for pair in pairs), key=lambda one: -one[1])
        rows = [
            [*map(text, pair), f"{number:,}", share(number, roster.size)] for pair, number in counts
        ]
        if rows:
            yield table([[*heading, noun.upper(), "SHARE"], *rows], right=(2, 3))


def _basis_table(bases: tuple[Basis, Basis]) -> str:
    rows = [["", "DATASET", "BUILT", "REGION SET", "POLICY", "HIDDEN BY"]]
    for name, one in zip(("before", "after"), bases, strict=True):
        dataset = one.dataset
        rows.append(
            [
                name,
                dataset.id,
                f"{dataset.built:%Y-%m-%d}",
                printable(str(one.region_set)),
                one.policy.name,
                " ".join(kind.name for kind in dataset.covering) if dataset.network_lists else "-",
            ]
        )
    return table(rows)


def _record(found: _Found) -> dict[str, Any]:
    before, after = map(_basis_record, found.bases)
    return {
        "before": before,
        "after": after,
        **{f"ipv{one.family}": _family_record(one) for one in found.families},
        "roster": None
        if found.roster is None
        else _roster_record(found.roster, found.participants),
        "exceeded": [
            {"about": about, "share": float(part)} for about, part in found.exceeded.items()
        ],
    }


def _basis_record(one: Basis) -> dict[str, Any]:
    dataset = one.dataset
    return {
        "dataset": dataset.id,
        "built": dataset.built.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region_set": one.region_set,
        "policy": one.policy.name,
        "overrides": None if dataset.runtime_overrides is None else dataset.runtime_overrides.file,
        "covering": [kind.name for kind in dataset.covering] if dataset.network_lists else [],
        "subdivision_sources": dataset.subdivision_sources,
    }


def _family_record(one: FamilyImpact) -> dict[str, Any]:
    def weight(what: Weight) -> dict[str, float]:
        return {"size": size(one.family, what.addresses), "prefixes": what.prefixes}

    return {
        "unit": JSON_UNITS[one.family],
        "decided": weight(one.decided),
        "changed": weight(one.changed),
        "share": float(one.share),
        "verdicts": _verdicts_record(one.amounts(), lambda addresses: size(one.family, addresses)),
        "changes": [
            {
                **_transition_record(pair),
                **weight(one.transitions[pair]),
                "countries": [
                    {**countries._asdict(), **weight(part)}
                    for countries, part in one.countries[pair].items()
                ],
            }
            for pairs in _changed(one.transitions)
            for pair in pairs
        ],
        "not_compared": size(one.family, one.apart),
    }


def _roster_record(roster: RosterImpact, participants: bool) -> dict[str, Any]:
    return {
        "unit": "participant" if participants else "address",
        "size": roster.size,
        "changed": roster.changed,
        "share": float(roster.share),
        "verdicts": _verdicts_record(roster.counts, int),
        "changes": [
            {**_transition_record(pair), "size": roster.counts[pair]}
            for pairs in _changed(roster.counts)
            for pair in pairs
        ],
    }


def _verdicts_record(
    amounts: Mapping[Transition, int], sized: Callable[[int], float]
) -> dict[str, dict[str, float]]:
    """Return the amounts by the verdict before, and there by the verdict after."""
    sums = _by_verdicts(amounts)
    return {
        before.name: {after.name: sized(sums[before, after]) for after in Verdict}
        for before in Verdict
    }


def _transition_record(pair: Transition) -> dict[str, Any]:
    return {
        name: {"verdict": one.verdict.name, "reason": one.reason.name}
        for name, one in zip(("before", "after"), pair, strict=True)
    }
