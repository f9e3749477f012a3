"""``geolookup annotate``: records with the answers for their addresses as further columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from geolookup.answer.claims import Verdict
from geolookup.cli.answering import answered
from geolookup.cli.options import (
    dataset_options,
    json_option,
    networks_of,
    open_answerer,
    policy_of,
    region_set_options,
    server_options,
)
from geolookup.cli.output import Progress
from geolookup.cli.output_file import STANDARD_OUTPUT, check_output, open_output
from geolookup.cli.participants import answers_of_records, classify_people, read_participants
from geolookup.cli.record_options import record_options
from geolookup.cli.records import InvalidCheck, RecordFile, Selection

if TYPE_CHECKING:
    from geolookup.answer.results import RosterResult

_TIMEOUT = 60.0
_BATCH = 20_000
"""Records at a time: what is held of a file of any size."""
_ROWS = 65_536
"""The same of a file of columns."""


@click.command(name="annotate", short_help="Add country, status and verdict to each record.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    default="-",
    metavar="OUT",
    help="The file to write. It is replaced as a whole or not at all.  [default: standard output]",
)
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    help="Begin the names of the new columns with this text.",
)
@click.option(
    "--participant",
    "participant_column",
    metavar="COLUMN",
    help="FILE has several records of some participants, whom this column names: verdict and "
    "reason are those of the participant.",
)
@click.option("--regions", is_flag=True, help="Add the column region: the subdivision, if known.")
@record_options
@region_set_options
@json_option
@dataset_options
@server_options
def annotate_records(
    *,
    file: str,
    output: str,
    prefix: str,
    participant_column: str | None,
    regions: bool,
    as_json: bool,
    selection: Selection,
    max_invalid: Fraction,
    region_set: str | None,
    policy: str | None,
    networks: str | None,
    **answerer: Any,
) -> None:
    """Write the records of FILE with the answers for their addresses as further columns.

    FILE is CSV with a header, JSON lines, Parquet, a list of addresses, or with --pattern
    lines of any form, such as a log; it may be compressed. The output is of the same kind,
    and not compressed, but Parquet is as it was. The columns are country (ZZ: none) and status;
    with --region-set also verdict and reason (DECIDED, or why there is no verdict); with
    --regions at the end region. A line of a list or a log gets them behind it, each after a tab.

    With --participant, verdict and reason are those of the participant, and so the same in all
    their records, wherever they stand; country, status and region are those of the record's own
    address. The file is held in memory then; else it is read as a stream and may have any size.

    \b
    Examples:
      geolookup annotate joins.csv --region-set CN -o annotated.csv
      geolookup annotate joins.csv --region-set CN --participant user -o annotated.csv
      geolookup annotate access.log.gz --pattern '^(\\S+)' --region-set EEA-NO
      geolookup annotate events.parquet --column client_ip -o annotated.parquet

    With --json, when all is written: size, counts (by country), statuses, dataset; with
    --region-set also region_set, verdicts and reasons, all of them numbers of addresses, and with
    --participant participants, whom verdicts and reasons count then.
    """
    chosen = policy_of(policy, region_set)
    networks = networks_of(networks, region_set)
    fields = ["country", "status"]
    if region_set is not None:
        fields += ["verdict", "reason"]
    if regions:
        fields.append("region")
    names = [prefix + field for field in fields]
    if participant_column is not None and region_set is None:
        raise click.UsageError("--participant is about a region set; add --region-set")
    if as_json and output == STANDARD_OUTPUT:
        raise click.UsageError("--json prints a summary to standard output; add -o FILE")
    with (
        open_answerer(**answerer, default_timeout=_TIMEOUT) as source,
        RecordFile(file, selection) as records,
        Progress("annotating", records.size) as progress,
    ):
        check_output(output, [None if file == "-" else file], binary=records.is_binary)
        check = InvalidCheck(records.name, max_invalid)
        # Before a byte is written.
        nothing = source.classify([], region_set=region_set, policy=chosen, networks=networks)
        summary = _Summary(nothing) if as_json else None
        if participant_column is not None:
            found = read_participants(records, participant_column, check)
            results = classify_people(source, found.people, _BATCH, region_set, chosen, networks)
            if summary is not None:
                results = summary.counting(results)
            with open_output(output) as out:
                writer = records.writer(out, names)
                for batch, columns in answers_of_records(found, results):
                    # Of each batch all columns, the region last.
                    added = dict(zip(names, columns, strict=False))
                    writer.write(batch, added, range(batch.size))
                writer.close()
        else:
            size = _ROWS if records.is_binary else _BATCH
            answers = answered(source, records.batches(size), region_set, chosen, networks)
            with open_output(output) as out:
                writer = records.writer(out, names)
                for one in answers:
                    # Already of the first batch, so that nothing is written of what is no roster.
                    check.add(one.batch, one.invalid())
                    check.check()
                    column: Callable[[str], Any] = one.arrays if records.is_binary else one.column
                    added = {name: column(field) for name, field in zip(names, fields, strict=True)}
                    writer.write(one.batch, added, range(one.batch.size))
                    if summary is not None:
                        summary.add(one.results)
                    progress.update(records.consumed)
                writer.close()
    if summary is not None:
        click.echo(json.dumps(summary.record()))


class _Summary:
    """What was annotated, in numbers."""

    def __init__(self, result: RosterResult) -> None:
        self._result = result
        self._size = 0
        self._participants: int | None = None
        self._counts: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def add(self, results: Iterable[RosterResult]) -> None:
        """Count answers."""
        for result in results:
            self._size += result.size
            if result.participants is not None:
                self._participants = (self._participants or 0) + result.participants
            self._counts.update(result.counts())
            self._statuses.update({one.name: n for one, n in result.status_counts().items()})
            if result.region_set is not None:
                self._verdicts.update({one.name: n for one, n in result.verdict_counts().items()})
            if result.has_reasons:
                self._reasons.update({one.name: n for one, n in result.reason_counts().items()})

    def counting(self, results: Iterable[RosterResult]) -> Iterator[RosterResult]:
        """Count answers while they pass."""
        for result in results:
            self.add([result])
            yield result

    def record(self) -> dict[str, object]:
        """Return what is printed."""
        people = {} if self._participants is None else {"participants": self._participants}
        record = {
            "size": self._size,
            **people,
            "counts": dict(sorted(self._counts.items())),
            "statuses": dict(self._statuses),
        }
        if self._result.region_set is not None:
            record |= {"region_set": self._result.region_set}
            record |= {"verdicts": {one.name: self._verdicts[one.name] for one in Verdict}}
            record |= {"reasons": dict(self._reasons)}
        return record | {"dataset": self._result.dataset}
