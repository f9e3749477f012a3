"""``geolookup audit``: whether decision records hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import SUBDIVISION_SOURCES, Policy, Reason, Status, Verdict
from geolookup.answer.dataset import open as open_dataset
from geolookup.answer.decision_record import RecordError, from_mapping, scan
from geolookup.answer.overrides import Overrides
from geolookup.answer.region_sets import RegionSet
from geolookup.cli.options import dataset_options, json_option, stale_of
from geolookup.cli.output import printable
from geolookup.cli.participants import classify_people, read_participants
from geolookup.cli.records import InvalidCheck, RecordFile, Selection
from geolookup.errors import RegionSetError

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.decision_record import DecisionRecord
    from geolookup.answer.results import RosterResult

_PIECE = 100_000
"""Addresses at a time: some megabytes."""
_SKEW = timedelta(minutes=5)
"""How far two clocks may be apart."""

_DOES_NOT_HOLD = 1
_NOT_CHECKED = 2

_EPILOG = """\b
Exit codes:
  0  everything that could be checked holds, and all that was asked for could be
  1  something does not hold
  2  nothing fails to hold, but something that was asked for can't be checked; or usage
  3  the dataset file is missing, damaged or of another format
"""


class _Outcome(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    NOT_CHECKED = "not checked"


_PLURALS = {
    _Outcome.HOLDS: "hold",
    _Outcome.FAILS: "do not hold",
    _Outcome.NOT_CHECKED: "not checked",
}


@dataclass(frozen=True, slots=True)
class _Check:
    """What came of one check.

    Attributes:
        name: what was checked.
        outcome: what came of it.
        why: what is wrong or missing; else empty.
        asked: whether it was asked for, so that not being able to is a failure.
    """

    name: str
    outcome: _Outcome
    why: str = ""
    asked: bool = True


@dataclass(frozen=True, slots=True)
class _AuditedRecord:
    """A record, by its place, and what came of its checks."""

    place: str
    checks: list[_Check]

    @property
    def outcome(self) -> _Outcome:
        outcomes = {check.outcome for check in self.checks if check.asked}
        if _Outcome.FAILS in outcomes:
            return _Outcome.FAILS
        return _Outcome.NOT_CHECKED if _Outcome.NOT_CHECKED in outcomes else _Outcome.HOLDS


@click.command(
    name="audit", epilog=_EPILOG, short_help="Check decision records, and replay a decision."
)
@click.argument(
    "records",
    type=click.Path(exists=True, dir_okay=False),
    metavar="RECORDS...",
    nargs=-1,
    required=True,
)
@click.option(
    "--roster",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE|-",
    help="Replay the decision on this roster, as 'geolookup classify' reads it.",
)
@click.option(
    "--column", metavar="NAME", help="The roster is CSV, and this column has the addresses."
)
@click.option(
    "--participant",
    metavar="NAME",
    help="The roster has several records of some participants, whom this column names.",
)
@json_option
@dataset_options
def audit_records(
    records: tuple[str, ...],
    roster: str | None,
    column: str | None,
    participant: str | None,
    as_json: bool,
    **answerer: Any,
) -> int:
    """Check each record in the files RECORDS.

    \b
    record      its form, its digest, and that its numbers add up
    time        after its dataset was built, and not in the future
    region set  stands for the codes that it says
    dataset     the one of --dataset made it; without, the embedded one if it did
    overrides   with --overrides: they acted, laid over that dataset
    roster      with --roster: the decision comes out the same again

    Operators' own region sets need --region-sets, and a dataset with overrides of a file laid
    over it needs that file as it was, with --overrides. Nothing is sent anywhere.

    \b
    Examples:
      geolookup audit records.jsonl
      geolookup audit record.json --dataset 2026-06.geolookup --roster roster.txt
    """
    if (column is not None or participant is not None) and roster is None:
        raise click.UsageError("--column and --participant are for --roster")
    try:
        found = [entry for path in records for entry in scan(path)]
    except RecordError as error:
        click.echo(f"geolookup: {error}", err=True)
        return _DOES_NOT_HOLD
    if not found:
        raise click.UsageError("there is no record in the files")
    if roster == "-" and len(found) > 1:
        raise click.UsageError("a roster from standard input is for one record")
    open_with = partial(
        open_dataset,
        answerer["dataset"],
        region_sets=answerer["region_sets"],
        public_key=answerer["public_key"],
        subdivision_sources=answerer["subdivision_sources"] or SUBDIVISION_SOURCES,
        covering=answerer["covering"],
    )
    max_age = answerer["max_age"]
    with open_with(max_age=max_age, stale=stale_of(max_age)) as limited:
        withholds_from = limited.withholds_from
    # How old it is today says nothing about the day of a decision.
    with open_with(stale="warn") as dataset:
        named = answerer["dataset"] is not None
        path = answerer["overrides"]
        overrides = None if path is None else Overrides.load(path)
        audit = _Audit(dataset, named, roster, column, participant, withholds_from, overrides)
        audited = [_AuditedRecord(place, list(audit.checks(values))) for place, values in found]
    if as_json:
        click.echo(json.dumps([_plain(one) for one in audited]))
    else:
        click.echo("\n\n".join([*map(_audit_text, audited), _summary(audited)]))
    outcomes = {one.outcome for one in audited}
    if _Outcome.FAILS in outcomes:
        return _DOES_NOT_HOLD
    return _NOT_CHECKED if _Outcome.NOT_CHECKED in outcomes else 0


@dataclass(frozen=True, slots=True)
class _Audit:
    """What records are held against.

    Attributes:
        dataset: answers the replay, and knows the region sets.
        chosen: whether it was named, so that a record of another does not hold.
        roster: file of addresses to replay; None: no replay.
        column: of a CSV roster.
        participant: column that names the roster's participants; None: it has addresses alone.
        withholds_from: see `Dataset.withholds_from`.
        overrides: of a file that may have acted; None: none was named.
    """

    dataset: Dataset
    chosen: bool
    roster: str | None
    column: str | None
    participant: str | None
    withholds_from: int | None
    overrides: Overrides | None = None

    def checks(self, values: object) -> Iterator[_Check]:
        try:
            record = from_mapping(values)
        except RecordError as error:
            yield _Check("record", _Outcome.FAILS, str(error))
            return
        yield _Check("record", _Outcome.HOLDS)
        yield _time_check(record)
        yield self._region_set_check(record)
        if record.overrides:
            yield self._base_check(record)
            found = self._laid_over(record)
            yield found if isinstance(found, _Check) else _Check("overrides", _Outcome.HOLDS)
            if self.roster is None:
                return
            if isinstance(found, _Check):
                why = "needs the record's dataset and overrides"
                yield _Check("roster", _Outcome.NOT_CHECKED, why)
            else:
                with found:
                    yield replace(self, dataset=found)._roster_check(record)
            return
        yield self._dataset_check(record)
        if self.roster is not None:
            yield self._roster_check(record)

    def _base_check(self, record: DecisionRecord) -> _Check:
        """Check the dataset under the overrides; `_laid_over` checks what they make of it."""
        return self._dataset_check(replace(record, dataset=record.base_dataset))

    def _laid_over(self, record: DecisionRecord) -> Dataset | _Check:
        """Return the dataset that made a record, with the overrides that acted, or why not."""
        name = "overrides"
        if self.overrides is None:
            why = f"those of file {record.overrides} acted; name it, as it was, with --overrides"
            return _Check(name, _Outcome.NOT_CHECKED, why, asked=self.roster is not None)
        if self.overrides.digest != record.overrides:
            why = f"those of another file acted: {record.overrides}"
            return _Check(name, _Outcome.FAILS, why)
        if self.dataset.id != record.base_dataset:
            return _Check(name, _Outcome.NOT_CHECKED, "needs the dataset that they were laid over")
        # A call is answered as of when it began, and its record is of when it ended: so what
        # acted may have expired just before.
        time = record.time.timestamp()
        moments = [time, time + 1]
        expired = self.overrides.since(time)
        if expired is not None and time - expired < _SKEW.total_seconds():
            moments.append(expired - 1)
        for moment in moments:
            dataset = self.dataset.with_overrides(self.overrides, moment)
            if dataset.id == record.dataset:
                return dataset
            dataset.close()
        why = "at the record's time they make another dataset of the one that they were laid over"
        return _Check(name, _Outcome.FAILS, why)

    def _region_set_check(self, record: DecisionRecord) -> _Check:
        name = "region set"
        if RegionSet("", frozenset(record.codes)).expression == record.region_set:
            return _Check(name, _Outcome.HOLDS)  # the codes themselves, perhaps very many
        try:
            resolved = self.dataset.region_sets.resolve(record.region_set)
        except RegionSetError:
            why = "it is not known here; name the file that defines it with --region-sets"
            return _Check(name, _Outcome.NOT_CHECKED, why)
        if tuple(sorted(resolved.codes)) == record.codes:
            return _Check(name, _Outcome.HOLDS)
        if resolved.version != record.region_set_version:
            why = f"it was of version {record.region_set_version}, here it is {resolved.version}"
            return _Check(name, _Outcome.NOT_CHECKED, why)
        return _Check(name, _Outcome.FAILS, "it stands for other codes")

    def _dataset_check(self, record: DecisionRecord) -> _Check:
        name = "dataset"
        if self.dataset.id != record.dataset:
            if self.chosen:
                return _Check(name, _Outcome.FAILS, "the record is of another dataset")
            why = "it is not the embedded one; name its file with --dataset"
            return _Check(name, _Outcome.NOT_CHECKED, why, asked=False)
        if self.dataset.built.replace(microsecond=0) != record.dataset_built:
            return _Check(name, _Outcome.FAILS, "dataset_built: it was built at another time")
        return _Check(name, _Outcome.HOLDS)

    def _roster_check(self, record: DecisionRecord) -> _Check:
        name = "roster"
        if self.dataset.id != record.dataset:
            return _Check(name, _Outcome.NOT_CHECKED, "needs the record's dataset")
        needed = record.subdivision_sources
        if needed not in (None, self.dataset.subdivision_sources):
            why = f"it was decided with --subdivision-sources {needed}; name that"
            return _Check(name, _Outcome.NOT_CHECKED, why)
        if record.networks not in ("IGNORE", self.dataset.covering_recorded):
            kinds = f"with --covering {record.networks}; name that" if record.networks else ""
            why = f"it was decided {kinds or 'without --covering; leave that out'}"
            return _Check(name, _Outcome.NOT_CHECKED, why)
        verdicts, statuses, reasons = self._replayed(record)
        inside, outside, undetermined = verdicts.values()
        compared = {
            "size": (record.size, sum(verdicts.values())),
            "inside": (record.inside, inside),
            "outside": (record.outside, outside),
            "undetermined": (record.undetermined, undetermined),
        }
        for status in sorted(record.statuses.keys() | statuses.keys()):
            pair = record.statuses.get(status, 0), statuses[status]
            compared[f"statuses.{status.name}"] = pair
        if record.reasons is not None:
            for reason in sorted(record.reasons.keys() | reasons.keys()):
                pair = record.reasons.get(reason, 0), reasons[reason]
                compared[f"reasons.{reason.name}"] = pair
        wrong = [
            f"{key}: {recorded:,} recorded, {counted:,} counted"
            for key, (recorded, counted) in compared.items()
            if recorded != counted
        ]
        return _Check(name, _Outcome.FAILS if wrong else _Outcome.HOLDS, "; ".join(wrong))

    def _replayed(
        self, record: DecisionRecord
    ) -> tuple[dict[Verdict, int], Counter[Status], Counter[Reason]]:
        # By the record's own codes: what its region set stands for is another check.
        region_set = RegionSet(record.region_set, frozenset(record.codes))
        totals = self.dataset.classify([], region_set=region_set).verdict_counts()
        statuses: Counter[Status] = Counter()
        reasons: Counter[Reason] = Counter()
        assert self.roster is not None  # noqa: S101 - asked by the caller
        with RecordFile(self.roster, Selection(self.column)) as records:
            networks = "IGNORE" if record.networks == "IGNORE" else None
            for result in self._results(records, region_set, record.policy, networks):
                for verdict, count in result.verdict_counts().items():
                    totals[verdict] += count
                statuses.update(result.status_counts())
                reasons.update(result.reason_counts())
        if self.withholds_from is not None and record.time.timestamp() >= self.withholds_from:
            size = sum(totals.values())
            totals = dict.fromkeys(totals, 0) | {Verdict.UNDETERMINED: size}
            reasons = Counter(
                {reason: reasons[reason] for reason in (Reason.INVALID, Reason.SPECIAL_PURPOSE)}
            )
            reasons[Reason.STALE] = size - reasons.total()
        return totals, statuses, +reasons

    def _results(
        self,
        records: RecordFile,
        region_set: RegionSet,
        policy: Policy,
        networks: str | None,
    ) -> Iterator[RosterResult]:
        if self.participant is None:
            for piece in records.pieces(_PIECE):
                yield self.dataset.classify(
                    piece, region_set=region_set, policy=policy, networks=networks
                )
        else:
            anything = InvalidCheck(records.name, 1)
            people = read_participants(records, self.participant, anything).people
            yield from classify_people(self.dataset, people, _PIECE, region_set, policy, networks)


def _time_check(record: DecisionRecord) -> _Check:
    if record.time < record.dataset_built:
        return _Check("time", _Outcome.FAILS, "before the dataset was built")
    if record.time > datetime.now(UTC) + _SKEW:
        return _Check("time", _Outcome.FAILS, "in the future")
    return _Check("time", _Outcome.HOLDS)


def _plain(audited: _AuditedRecord) -> dict[str, object]:
    return {
        "place": audited.place,
        "outcome": audited.outcome,
        "checks": [
            {"name": check.name, "outcome": check.outcome, "why": check.why}
            for check in audited.checks
        ],
    }


def _audit_text(audited: _AuditedRecord) -> str:
    lines = [printable(audited.place)]
    for check in audited.checks:
        why = f": {printable(check.why)}" if check.why else ""
        lines.append(f"  {check.name:<10}  {check.outcome}{why}")
    return "\n".join(lines)


def _summary(audited: list[_AuditedRecord]) -> str:
    counts = Counter(one.outcome for one in audited)
    number = f"{len(audited):,} record{'s' if len(audited) != 1 else ''}"
    found = (
        f"{counts[one]:,} {one if counts[one] == 1 else _PLURALS[one]}"
        for one in _Outcome
        if counts[one]
    )
    return f"{number}: {', '.join(found)}"
