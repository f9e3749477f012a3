"""``geolookup report``: what decision records add up to."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geolookup.cli.options import json_option
from geolookup.cli.output import printable, table
from geolookup.cli.picture import picture_format, written_picture
from geolookup.errors import GeoLookupError

if TYPE_CHECKING:
    from geolookup.review.transparency_report import ReportRow

_HEADINGS = (
    "MONTH", "REGION SET", "DECISIONS", "DEMANDS", "DATASETS", "ADDRESSES", "INSIDE", "OUTSIDE",
    "UNDETERMINED",
)  # fmt: skip


@click.command(name="report", short_help="Add up decision records, by month and region set.")
@click.argument("records", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="OUT",
    help="Also draw it, as .png or .svg.",
)
@json_option
def report_records(*, records: tuple[str, ...], plot: Path | None, as_json: bool) -> None:
    """Add up the decision records of the files RECORDS, as for a transparency report.

    A file holds records one after another, such as a line each. Every record is
    checked as 'geolookup audit' does without a dataset; one that makes no sense fails
    the report, and is named by file and line. DEMANDS counts different references.
    An address that was classified twice counts twice: records know no people.

    \b
    Examples:
      geolookup report records.jsonl
      geolookup report 2026-*.jsonl --plot measures.svg
      geolookup report records.jsonl --json

    With --json: rows, each with month, region_set, decisions, references, datasets,
    addresses, inside, outside, undetermined.
    """
    from geolookup.answer import decision_record  # noqa: PLC0415
    from geolookup.review.transparency_report import tabulate  # noqa: PLC0415

    image_format = None if plot is None else picture_format(plot, "--plot", records)
    found = []
    for name in records:
        try:
            found += decision_record.read(name)
        except OSError as error:
            raise GeoLookupError(f"{name}: {error.strerror}") from None
    if not found:
        raise click.UsageError("there is no record in the files")
    rows = tabulate(found)
    if plot is not None and image_format is not None:
        with written_picture(plot) as file:
            from geolookup.pictures import bars  # noqa: PLC0415

            bars.draw(rows, file, image_format)
    click.echo(json.dumps({"rows": [asdict(row) for row in rows]}) if as_json else _table(rows))


def _table(rows: list[ReportRow]) -> str:
    cells = [list(_HEADINGS)]
    for row in rows:
        month, region_set, *counts = astuple(row)
        cells.append([month, printable(region_set), *(f"{count:,}" for count in counts)])
    return table(cells, right=range(2, len(_HEADINGS)))
