"""Totals of decision records: the table of a transparency report, by month and region set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geolookup.answer.decision_record import DecisionRecord


@dataclass(frozen=True, slots=True)
class ReportRow:
    """The decisions of one month about one region set.

    Attributes:
        month: in UTC, such as "2026-11".
        region_set: as it was asked for.
        decisions: number of records.
        references: different references among them; a record without one counts for none.
        datasets: different datasets that answered.
        addresses: classified in all. One that was classified twice counts twice.
        inside: of these, inside the region set.
        outside: outside.
        undetermined: neither inside nor outside.
    """

    month: str
    region_set: str
    decisions: int
    references: int
    datasets: int
    addresses: int
    inside: int
    outside: int
    undetermined: int


def tabulate(records: Iterable[DecisionRecord]) -> list[ReportRow]:
    """Return a row for each month and region set that occur, sorted by both."""
    grouped: dict[tuple[str, str], list[DecisionRecord]] = {}
    for record in records:
        key = (record.time.strftime("%Y-%m"), record.region_set)
        grouped.setdefault(key, []).append(record)
    return [
        ReportRow(
            month=month,
            region_set=region_set,
            decisions=len(group),
            references=len({record.reference for record in group} - {""}),
            datasets=len({record.dataset for record in group}),
            addresses=sum(record.size for record in group),
            inside=sum(record.inside for record in group),
            outside=sum(record.outside for record in group),
            undetermined=sum(record.undetermined for record in group),
        )
        for (month, region_set), group in sorted(grouped.items())
    ]
