"""Participants of a file of records: their addresses, collected by the value of a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from geolookup._core import parse
from geolookup.answer.claims import Policy
from geolookup.cli.records import Batch, InvalidCheck, RecordFile
from geolookup.errors import RosterError, RosterTooLargeError

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.region_sets import RegionSet
    from geolookup.answer.results import RosterResult
    from geolookup.client import Client

_BATCH = 20_000
"""Records that are read at a time."""

People = dict[str, list[str]]
"""The addresses of each participant, by id, in the order in which they first appear."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a file, and whose they are.

    Attributes:
        people: the participants.
        batches: the records.
        owners: the id of each record, batch by batch.
    """

    people: People
    batches: list[Batch]
    owners: list[list[str]]


def read_participants(records: RecordFile, column: str, check: InvalidCheck) -> Records:
    """Read a whole file, since records of one participant need not be neighbours.

    Raises:
        RosterError: a record names no participant. The text has its number.
        NoRosterError: too little of the file are addresses.
        click.UsageError: no column of that name.
    """
    found = Records({}, [], [])
    number = 0
    for batch in records.batches(_BATCH):
        owners = [one.strip() for one in batch.column(column, "--participant")]
        if not all(owners):
            number += owners.index("") + 1
            raise RosterError(
                f"{records.name}: record {number} has no value in the column {column}"
            )
        number += len(owners)
        invalid = [at for at, text in enumerate(batch.addresses) if parse(text) is None]
        check.add(batch, invalid)
        if not found.batches:
            check.check()
        for owner, address in zip(owners, batch.addresses, strict=True):
            found.people.setdefault(owner, []).append(address)
        found.batches.append(batch)
        found.owners.append(owners)
    check.check()
    return found


def classify_people(
    source: Dataset | Client,
    people: People,
    most: int,
    region_set: str | RegionSet | None,
    policy: Policy,
    networks: str | None,
) -> Iterator[RosterResult]:
    """Yield results that together have each participant once, all from one dataset.

    Args:
        source: what answers.
        people: the participants.
        most: addresses in a request; a service that allows less gets less.
        region_set: from which they are seen.
        policy: how claims become verdicts.
        networks: as in `Dataset.lookup`.
    """
    classify = partial(source.classify, region_set=region_set, policy=policy, networks=networks)
    while True:
        pieces = list(_pieces(people, most))
        try:
            first = classify(pieces[0])
            break
        except RosterTooLargeError:
            if len(pieces[0]) == 1:
                raise
            most = sum(map(len, pieces[0].values())) // 2
    if len(pieces) == 1:
        yield first
        return
    # A stream is answered from one dataset, but ends at a roster that is too large: hence the
    # size was tried first, at the price of one answer.
    yield from source.classify_many(pieces, region_set=region_set, policy=policy, networks=networks)


def answers_of_records(
    records: Records, results: Iterator[RosterResult]
) -> Iterator[tuple[Batch, list[list[str]]]]:
    """Yield each batch with columns of its records' answers.

    Args:
        records: of the file.
        results: of its participants, in their order.

    Returns:
        Of each record country and status of its address, verdict and reason of its participant,
        and the subdivision of its address.
    """
    # The addresses of each participant are in the order of their records.
    answers = {
        owner: iter(rows)
        for result in results
        for owner, rows in _rows_of_participants(result, records.people)
    }
    for batch, owners in zip(records.batches, records.owners, strict=True):
        rows = [next(answers[owner]) for owner in owners]
        yield batch, [list(column) for column in zip(*rows, strict=True)]


def _rows_of_participants(
    result: RosterResult, people: People
) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield each participant of a result with the answers for their addresses."""
    statuses = (status.name for status in result.statuses)
    of_addresses = zip(result.countries.tolist(), statuses, result.regions, strict=True)
    for (owner, verdict), reason in zip(result.by_id().items(), result.reasons, strict=True):
        yield (
            owner,
            [
                (country, status, verdict.name, reason.name, region)
                for country, status, region in islice(of_addresses, len(people[owner]))
            ],
        )


def _pieces(people: People, most: int) -> Iterator[People]:
    """Yield the participants in pieces of so many addresses, but for one who has more."""
    piece: People = {}
    size = 0
    for owner, addresses in people.items():
        if piece and size + len(addresses) > most:
            yield piece
            piece, size = {}, 0
        piece[owner] = addresses
        size += len(addresses)
    yield piece
