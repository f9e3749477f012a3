"""``geolookup annotate``: records with the answers for their addresses as further columns."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import click

from geolookup.cli.answering import answered
from geolookup.cli.options import (
    dataset_options,
    networks_of,
    open_answerer,
    policy_of,
    region_set_options,
    server_options,
)
from geolookup.cli.output import Progress
from geolookup.cli.output_file import check_output, open_output
from geolookup.cli.participants import answers_of_records, classify_people, read_participants
from geolookup.cli.record_options import record_options
from geolookup.cli.records import InvalidCheck, RecordFile, Selection

_TIMEOUT = 60.0
_BATCH = 20_000
"""Records at a time: what is held of a file of any size."""


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
@dataset_options
@server_options
def annotate_records(
    *,
    file: str,
    output: str,
    prefix: str,
    participant_column: str | None,
    regions: bool,
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
    and not compressed. The columns are country (ZZ: none) and status; with --region-set
    also verdict and reason (DECIDED, or why there is no verdict); with --regions at the end
    region. A line of a list or a log gets them behind it, each after a tab.

    With --participant, verdict and reason are those of the participant, and so the same in all
    their records, wherever they stand; country, status and region are those of the record's own
    address. The file is held in memory then; else it is read as a stream and may have any size.

    \b
    Examples:
      geolookup annotate joins.csv --region-set CN -o annotated.csv
      geolookup annotate joins.csv --region-set CN --participant user -o annotated.csv
      geolookup annotate access.log.gz --pattern '^(\\S+)' --region-set EEA-NO
      geolookup annotate events.parquet --column client_ip -o annotated.parquet
    """
    chosen = policy_of(policy, region_set)
    networks = networks_of(networks, region_set)
    names = [prefix + name for name in ("country", "status")]
    if region_set is not None:
        names += [prefix + name for name in ("verdict", "reason")]
    if regions:
        names.append(f"{prefix}region")
    if participant_column is not None and region_set is None:
        raise click.UsageError("--participant is about a region set; add --region-set")
    with (
        open_answerer(**answerer, default_timeout=_TIMEOUT) as source,
        RecordFile(file, selection) as records,
        Progress("annotating", records.size) as progress,
    ):
        check_output(output, [None if file == "-" else file], binary=records.is_binary)
        check = InvalidCheck(records.name, max_invalid)
        if region_set is not None:
            source.classify([], region_set=region_set, policy=chosen)  # before a byte is written
        if participant_column is not None:
            found = read_participants(records, participant_column, check)
            results = classify_people(source, found.people, _BATCH, region_set, chosen, networks)
            with open_output(output) as out:
                writer = records.writer(out, names)
                for batch, columns in answers_of_records(found, results):
                    added = _named(names, columns if regions else columns[:-1])
                    writer.write(batch, added, range(len(batch.addresses)))
                writer.close()
            return
        with open_output(output) as out:
            writer = records.writer(out, names)
            for one in answered(source, records.batches(_BATCH), region_set, chosen, networks):
                # Already of the first batch, so that nothing is written of what is no roster.
                check.add(one.batch, one.invalid())
                check.check()
                columns = [one.countries(), one.statuses()]
                if region_set is not None:
                    columns += [one.verdicts(), one.reasons()]
                if regions:
                    columns.append(one.regions())
                writer.write(one.batch, _named(names, columns), range(len(one.batch.addresses)))
                progress.update(records.consumed)
            writer.close()


def _named(names: Sequence[str], columns: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    return dict(zip(names, columns, strict=True))
