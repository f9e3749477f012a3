"""Answers for the records of a file, batch by batch, from this process or from a service."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from geolookup.answer.claims import Policy, Reason, Status, Verdict
from geolookup.answer.dataset import Dataset
from geolookup.errors import RosterTooLargeError

if TYPE_CHECKING:
    from geolookup._arrow import Array
    from geolookup.answer.results import RosterResult
    from geolookup.cli.records import Batch
    from geolookup.client import Client

_STATUS_NAMES: Final = {status.number: status.name for status in Status}
_REASON_NAMES: Final = {reason.number: reason.name for reason in Reason}


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch of records with its answers.

    Attributes:
        batch: the records.
        results: in order; together they have the batch's size.
    """

    batch: Batch
    results: tuple[RosterResult, ...]

    def invalid(self) -> list[int]:
        """Return the positions of what is no address."""
        found: list[int] = []
        before = 0
        for result in self.results:
            found += [before + at for at in result.positions(Status.INVALID)]
            before += result.size
        return found

    def column(self, name: str) -> list[str]:
        """Return a column by its name: country, status, verdict, reason or region."""
        columns = {
            "country": self.countries,
            "status": self.statuses,
            "verdict": self.verdicts,
            "reason": self.reasons,
            "region": self.regions,
        }
        return columns[name]()

    def arrays(self, name: str) -> list[Array]:
        """Return the same as arrays of Arrow, whose regions are null where none is known.

        What is missing is answered like what is no address, as in other kinds of files.
        """
        columns = [result.text_column(name) for result in self.results]
        if name != "region":
            columns = [replace(column, validity=(None, 0)) for column in columns]
        return [column.array() for column in columns]

    def countries(self) -> list[str]:
        """Return the code of each."""
        return [code for result in self.results for code in result.countries.tolist()]

    def regions(self) -> list[str]:
        """Return the subdivision of each, or an empty text."""
        return [code for result in self.results for code in result.regions]

    def statuses(self) -> list[str]:
        """Return the name of the status of each."""
        return [_STATUS_NAMES[n] for result in self.results for n in result.statuses.tobytes()]

    def verdicts(self) -> list[str]:
        """Return the name of the verdict of each, seen from the region set asked for."""
        names: list[str] = []
        for result in self.results:
            some = [Verdict.OUTSIDE.name] * result.size
            for verdict, positions in (
                (Verdict.INSIDE.name, result.inside),
                (Verdict.UNDETERMINED.name, result.undetermined),
            ):
                for at in positions:
                    some[at] = verdict
            names += some
        return names

    def reasons(self) -> list[str]:
        """Return the name of the reason of each: why it has no verdict, or DECIDED."""
        return [_REASON_NAMES[n] for result in self.results for n in result.reasons.tobytes()]


def answered(
    source: Dataset | Client,
    batches: Iterator[Batch],
    region_set: str | None,
    policy: Policy,
    networks: str | None,
) -> Iterator[Answered]:
    """Yield each batch with its answers, all of them from one dataset."""
    classify = partial(source.classify, region_set=region_set, policy=policy, networks=networks)
    waiting: deque[Batch] = deque()

    def rosters() -> Iterator[Sequence[str]]:
        for batch in batches:
            waiting.append(batch)
            yield batch.roster

    results: Iterator[RosterResult]
    if isinstance(source, Dataset):
        results = map(classify, rosters())
    else:
        many = partial(
            source.classify_many, region_set=region_set, policy=policy, networks=networks
        )
        results = _requests(classify, many, rosters())
    parts: list[RosterResult] = []
    size = 0
    for result in results:
        parts.append(result)
        size += result.size
        if size == waiting[0].size:
            yield Answered(waiting.popleft(), tuple(parts))
            parts, size = [], 0


def _requests(
    classify: Callable[[Sequence[str]], RosterResult],
    classify_many: Callable[[Iterable[Sequence[str]]], Iterator[RosterResult]],
    rosters: Iterator[Sequence[str]],
) -> Iterator[RosterResult]:
    """Ask a service for each roster, so that all are answered from one dataset."""
    first = next(rosters, None)
    if first is None:
        return
    second = next(rosters, None)
    size = len(first)
    while True:
        try:
            result = classify(first[:size])
            break
        except RosterTooLargeError:  # this service allows less
            if size < 2:
                raise
            size //= 2
    if second is None and size == len(first):
        yield result
        return
    # A stream is answered from one dataset, but ends at a roster that is too large:
    # hence the size was tried first, at the price of one answer.
    rest = rosters if second is None else chain([second], rosters)
    smaller = (
        piece[start : start + size]
        for piece in chain([first], rest)
        for start in range(0, len(piece), size)
    )
    yield from classify_many(smaller)
