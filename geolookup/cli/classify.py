"""``geolookup classify``: one answer for a whole roster."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import Policy, Reason, Status, Verdict
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import Dataset
from geolookup.cli.answering import Answered, answered
from geolookup.cli.options import (
    dataset_options,
    json_option,
    networks_of,
    open_answerer,
    policy_of,
    region_set_options,
    server_options,
)
from geolookup.cli.output import Progress, printable, share, table
from geolookup.cli.output_file import STANDARD_OUTPUT, check_output
from geolookup.cli.participants import Records, classify_people, read_participants
from geolookup.cli.reasons import TEXTS
from geolookup.cli.record_options import record_options
from geolookup.cli.records import InvalidCheck, RecordFile, Selection
from geolookup.errors import RosterError

if TYPE_CHECKING:
    from pyroaring import BitMap

    from geolookup.answer.results import RosterResult

_TIMEOUT = 60.0
_PIECE = 100_000
"""Addresses at a time in this process: some megabytes, and a progress bar that moves."""
_REQUEST = 1_000_000
"""Addresses in a request: a service's default limit."""
_MAX_ADDRESSES = 1 << 32
"""Positions are 32 bits wide."""
_SHOWN_POSITIONS = 20


@click.command(name="classify", short_help="Answer for a whole roster.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-"
)
@record_options
@click.option(
    "--id",
    "id_column",
    metavar="COLUMN",
    help="Name records by this column in place of their positions.",
)
@click.option(
    "--participant",
    "participant_column",
    metavar="COLUMN",
    help="FILE has several records of some participants, whom this column names: say which "
    "participants are in the region set.",
)
@click.option(
    "--rows",
    "wanted",
    type=click.Choice([member.name.lower() for member in Verdict]),
    multiple=True,
    help="Write the records with this verdict, as they are in FILE, and nothing else; may be "
    "given again.",
)
@region_set_options
@json_option
@dataset_options
@server_options
def classify_roster(
    *,
    file: str,
    selection: Selection,
    max_invalid: Fraction,
    id_column: str | None,
    participant_column: str | None,
    wanted: tuple[str, ...],
    region_set: str | None,
    policy: str | None,
    networks: str | None,
    as_json: bool,
    **answerer: Any,
) -> None:
    """Count the countries of all addresses in FILE, and say which are in a region set.

    FILE is a list with an address a line (blank lines and lines that begin with # are
    left out), CSV with a header, JSON lines, or Parquet; with --pattern it has lines of any
    other form. It may be compressed, and of any size; "-" is standard input. Without
    --column the column is found by its name (ip, address, client_ip, ...). A text that is
    no address is counted as INVALID, and so is an empty or missing value.

    Positions count addresses from 0 in the order of FILE, or its rows after the header.

    With --participant, records with the same value belong to one participant, wherever they
    stand in FILE. A participant is inside if all their addresses are, outside if all are, and
    else undetermined; private addresses and texts that are none do not count where there is
    another one. FILE is held in memory as a whole.

    \b
    Examples:
      geolookup classify roster.txt --region-set CN
      geolookup classify roster.csv --column client_ip --region-set EEA-NO --json
      geolookup classify roster.csv --region-set CN --id user
      geolookup classify roster.csv --region-set CN --participant user
      geolookup classify roster.csv --region-set CN --rows inside
      geolookup classify - --server 127.0.0.1:50051 < roster.txt

    With --json: size, counts (by country), regions (by subdivision, where the dataset has
    some), statuses, dataset; with --region-set also
    inside and undetermined (positions, or ids with --id or --participant), outside (a number)
    and reasons (the undetermined, by why); with --participant participants (a number). Against a
    service, rosters over 1,000,000 addresses are sent in pieces.
    """
    chosen = policy_of(policy, region_set)
    networks = networks_of(networks, region_set)
    _check_options(region_set, id_column, participant_column, bool(wanted), as_json)
    with (
        open_answerer(**answerer, default_timeout=_TIMEOUT) as source,
        RecordFile(file, selection) as records,
        Progress("classifying", records.size) as progress,
    ):
        check = InvalidCheck(records.name, max_invalid)
        if participant_column is not None:
            found = read_participants(records, participant_column, check)
            most = _PIECE if isinstance(source, Dataset) else _REQUEST
            results = classify_people(source, found.people, most, region_set, chosen, networks)
            if wanted:
                _write_rows(records, found, results, {verdict.upper() for verdict in wanted})
                return
            totals = _Totals(participants=0)
            for result in results:
                totals.add(result)
            _print(totals, region_set, chosen, as_json)
            return
        local = isinstance(source, Dataset) or wanted or id_column is not None
        batches = records.batches(_PIECE if local else _REQUEST)
        answers = _checked(answered(source, batches, region_set, chosen, networks), check)
        if wanted:
            check_output(STANDARD_OUTPUT, binary=records.is_binary)
            writer = records.writer(sys.stdout.buffer)
            for one in answers:
                verdicts = one.verdicts()
                names = {verdict.upper() for verdict in wanted}
                writer.write(one.batch, {}, [at for at, v in enumerate(verdicts) if v in names])
                progress.update(records.consumed)
            writer.close()
            check.check()
            return
        totals = _Totals()
        for one in answers:
            if id_column is not None:
                totals.add_ids(one.verdicts(), one.batch.column(id_column, "--id"))
            for result in one.results:
                totals.add(result)
            progress.update(records.consumed)
        check.check()
        if not totals.size:  # still to be traced, and the region set checked
            totals.add(source.classify([], region_set=region_set, policy=chosen, networks=networks))
    _print(totals, region_set, chosen, as_json)


def _check_options(
    region_set: str | None,
    id_column: str | None,
    participant_column: str | None,
    wanted: bool,
    as_json: bool,
) -> None:
    if region_set is None and (id_column or participant_column or wanted):
        raise click.UsageError(
            "--id, --participant and --rows are about a region set; add --region-set"
        )
    if wanted and (as_json or id_column is not None):
        raise click.UsageError("--rows writes the records alone; leave out --json and --id")
    if id_column is not None and participant_column is not None:
        raise click.UsageError("--participant names those who are inside; leave out --id")


def _write_rows(
    records: RecordFile, found: Records, results: Iterator[RosterResult], names: set[str]
) -> None:
    """Write the records of the participants whose verdict is one of these."""
    check_output(STANDARD_OUTPUT, binary=records.is_binary)
    chosen = {
        participant
        for result in results
        for participant, verdict in result.by_id().items()
        if verdict.name in names
    }
    writer = records.writer(sys.stdout.buffer)
    for batch, owners in zip(found.batches, found.owners, strict=True):
        writer.write(batch, {}, [at for at, owner in enumerate(owners) if owner in chosen])
    writer.close()


def _print(totals: _Totals, region_set: str | None, policy: Policy, as_json: bool) -> None:
    if as_json:
        for text in _json(totals, region_set):
            click.echo(text, nl=False)
    else:
        _show(totals, region_set, policy)


def _checked(answers: Iterator[Answered], check: InvalidCheck) -> Iterator[Answered]:
    """Count what is no address. Nothing is answered of a first batch that is no roster."""
    for number, one in enumerate(answers):
        check.add(one.batch, one.invalid())
        if not number:
            check.check()
        yield one


@dataclass
class _Totals:
    """The merged results of a roster that was classified in pieces."""

    size: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    statuses: Counter[Status] = field(default_factory=Counter)
    inside: BitMap | None = None
    outside: int = 0
    reasons: Counter[Reason] | None = None
    undetermined: BitMap | None = None
    dataset: str = ""
    ids: dict[str, list[str]] | None = None
    participants: int | None = None
    """Whom the verdicts are about; None: about addresses."""

    def add_ids(self, verdicts: Sequence[str], ids: Sequence[str]) -> None:
        if self.ids is None:
            self.ids = {Verdict.INSIDE.name: [], Verdict.UNDETERMINED.name: []}
        for verdict, one in zip(verdicts, ids, strict=True):
            if verdict in self.ids:
                self.ids[verdict].append(one)

    def add(self, result: RosterResult) -> None:
        if self.size + result.size > _MAX_ADDRESSES:
            raise RosterError(f"the roster has over {_MAX_ADDRESSES:,} addresses")
        self.dataset = result.dataset
        self.counts.update(result.counts())
        self.regions.update(result.region_counts())
        self.statuses.update(result.status_counts())
        if result.region_set is not None:
            inside, undetermined = (
                positions.shift(self.positions)
                for positions in (result.inside, result.undetermined)
            )
            self.inside = inside if self.inside is None else self.inside | inside
            self.undetermined = (
                undetermined if self.undetermined is None else self.undetermined | undetermined
            )
            self.outside += len(result.outside)
            if result.has_reasons:
                self.reasons = (self.reasons or Counter()) + Counter(result.reason_counts())
        self.size += result.size
        if self.participants is not None and result.participants is not None:
            self.participants += result.participants
            self.ids = self.ids or {Verdict.INSIDE.name: [], Verdict.UNDETERMINED.name: []}
            self.ids[Verdict.INSIDE.name] += result.ids_inside
            self.ids[Verdict.UNDETERMINED.name] += result.ids_undetermined

    @property
    def positions(self) -> int:
        """Number of those whom the verdicts are about."""
        return self.size if self.participants is None else self.participants


def _json(totals: _Totals, region_set: str | None) -> Iterator[str]:
    """Return the object in pieces: the positions may be many millions."""
    record: dict[str, object] = {
        "size": totals.size,
        **({} if totals.participants is None else {"participants": totals.participants}),
        "counts": dict(sorted(totals.counts.items())),
        **({"regions": dict(sorted(totals.regions.items()))} if totals.regions else {}),
        "statuses": {status.name: n for status, n in sorted(totals.statuses.items())},
    }
    yield json.dumps(record)[:-1]
    if region_set is not None:
        assert totals.inside is not None  # noqa: S101  # as a region set was asked for
        assert totals.undetermined is not None  # noqa: S101
        yield ', "inside": ['
        yield from _listed(totals, Verdict.INSIDE)
        yield f'], "outside": {totals.outside}, "undetermined": ['
        yield from _listed(totals, Verdict.UNDETERMINED)
        yield "]"
    if totals.reasons is not None:
        reasons = {reason.name: n for reason, n in sorted(totals.reasons.items())}
        yield f', "reasons": {json.dumps(reasons)}'
    yield f', "dataset": {json.dumps(totals.dataset)}}}\n'


def _members(totals: _Totals, verdict: Verdict) -> tuple[int, Iterable[object]]:
    """Return how many have this verdict, and their ids or positions."""
    positions = totals.inside if verdict is Verdict.INSIDE else totals.undetermined
    if positions is None:
        return 0, ()
    return len(positions), positions if totals.ids is None else totals.ids[verdict.name]


def _listed(totals: _Totals, verdict: Verdict) -> Iterator[str]:
    numbers = map(json.dumps, _members(totals, verdict)[1])
    separator = ""
    while some := ", ".join(islice(numbers, 10_000)):
        yield separator + some
        separator = ", "


def _show(totals: _Totals, region_set: str | None, policy: Policy) -> None:
    size = totals.size
    blocks = []
    if totals.inside is not None and totals.undetermined is not None:
        verdicts = [
            ("INSIDE", len(totals.inside)),
            ("OUTSIDE", totals.outside),
            ("UNDETERMINED", len(totals.undetermined)),
        ]
        total, noun = totals.positions, "ADDRESSES"
        if totals.participants is not None:
            noun = "PARTICIPANTS"
        rows = [[region_set or "", noun, "SHARE"]]
        rows += [[name, f"{number:,}", share(number, total)] for name, number in verdicts]
        blocks.append(table(rows, right=(1, 2), verdicts=True) + f"\n(policy {policy.name})")
        if totals.reasons:
            rows = [["UNDETERMINED", "", noun, "SHARE"]]
            for reason, number in sorted(totals.reasons.items()):
                rows.append([reason.name, TEXTS[reason], f"{number:,}", share(number, total)])
            blocks.append(table(rows, right=(2, 3)))
        blocks.append(
            f"inside: {_some(totals, Verdict.INSIDE)}\n"
            f"undetermined: {_some(totals, Verdict.UNDETERMINED)}"
        )
    rows = [["COUNTRY", "", "ADDRESSES", "SHARE"]]
    for code, number in sorted(totals.counts.items(), key=lambda item: (-item[1], item[0])):
        rows.append([code, COUNTRIES.get(code, "no country"), f"{number:,}", share(number, size)])
    rows.append(["total", "", f"{size:,}", ""])
    blocks.append(table(rows, right=(2, 3)))
    if totals.regions:
        rows = [["REGION", "", "ADDRESSES", "SHARE"]]
        for code, number in sorted(totals.regions.items(), key=lambda item: (-item[1], item[0])):
            rows.append([code, COUNTRIES[code[:2]], f"{number:,}", share(number, size)])
        blocks.append(table(rows, right=(2, 3)))
    rows = [["STATUS", "ADDRESSES", "SHARE"]]
    for status, number in sorted(totals.statuses.items()):
        rows.append([status.name, f"{number:,}", share(number, size)])
    if len(rows) > 1:
        blocks.append(table(rows, right=(1, 2)))
    blocks.append(f"dataset {totals.dataset}")
    click.echo("\n\n".join(blocks))


def _some(totals: _Totals, verdict: Verdict) -> str:
    size, members = _members(totals, verdict)
    if not size:
        return "none"
    shown = ", ".join(printable(str(one)) for one in islice(members, _SHOWN_POSITIONS))
    more = size - _SHOWN_POSITIONS
    kind = "positions " if totals.ids is None else ""
    return f"{kind}{shown}" + (f", and {more:,} more (--json lists all)" if more > 0 else "")
