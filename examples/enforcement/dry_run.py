"""What measures would do, in counts alone: nobody leaves, and everybody may join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from enforcement import Enforcement
from measures import Measure
from meetings import Meeting, Participant

from geolookup import Dataset, RosterResult
from geolookup.client import Client


class Preview(NamedTuple):
    """What a measure would do, in counts alone.

    Attributes:
        reference: of the demand.
        meetings: how many were reviewed.
        affected: of them, those that somebody would have to leave. They would go on.
        people: how many take part in all of them.
        leave: of them, those who would have to leave.
        undetermined: of them, those whose place is not known. They would stay.
        refused: joins that it would have refused.
    """

    reference: str
    meetings: int
    affected: int
    people: int
    leave: int
    undetermined: int
    refused: int

    def __str__(self) -> str:
        return (
            f"{self.reference} would remove {self.leave} of {self.people} people, from"
            f" {self.affected} of {self.meetings} meetings, and end none.\n"
            f"Undetermined, and would stay: {self.undetermined}. Joins refused: {self.refused}."
        )


class DryRun(Enforcement):
    """Takes the place of `Enforcement`, counts what it would do, and acts on nothing.

    Who would have been refused takes part all the same, and does not count as somebody who would
    have to leave. No decision is recorded, since none is made.
    """

    def __init__(
        self,
        lookup: Client | Dataset,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(lookup, None, now)
        self._reviews: dict[tuple[Measure, str], tuple[int, int, int]] = {}
        self._refusals: Counter[Measure] = Counter()
        self._refused: set[tuple[str, str]] = set()  # meeting and id

    def previews(self) -> list[Preview]:
        """Return what each measure would do, as of the last review."""
        found = []
        for measure in self._measures:
            reviews = [counts for (of, _), counts in self._reviews.items() if of == measure]
            columns = zip((0, 0, 0), *reviews, strict=True)
            people, leave, undetermined = map(sum, columns)
            found.append(
                Preview(
                    measure.reference,
                    meetings=len(reviews),
                    affected=sum(1 for _, leave, _ in reviews if leave),
                    people=people,
                    leave=leave,
                    undetermined=undetermined,
                    refused=self._refusals[measure],
                )
            )
        return found

    def join(self, meeting: Meeting, person: Participant) -> Measure | None:
        """Let somebody in; count if a measure would have refused them."""
        refusing, dataset = self._check(person)
        if refusing is None:
            self._refused.discard((meeting.id, person.id))
        else:
            self._refusals[refusing] += 1
            self._refused.add((meeting.id, person.id))
        self._enter(meeting, person, dataset)
        return None

    def _act(
        self, measure: Measure, meeting: Meeting, people: list[Participant], result: RosterResult
    ) -> list[Participant]:
        there = {at for at, one in enumerate(people) if (meeting.id, one.id) not in self._refused}
        self._reviews[measure, meeting.id] = (
            len(there),
            len(there.intersection(measure.reached(result))),
            len(there.intersection(result.undetermined)),
        )
        return []
