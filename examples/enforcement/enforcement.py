"""Measures, and who they reach: exactly the people inside, and nobody else.

This is a component that a meeting service could begin with. What it shows:

- A meeting is never ended. Those whom a measure reaches leave it.
- geolookup is sent addresses in an order and answers with positions. The
  participants' ids stay here.
- UNDETERMINED people stay: nobody loses a meeting over what is not known.
- What is kept of a decision is a record of counts, without people.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from measures import Measure
from meetings import Meeting, Participant

from geolookup import Dataset, RosterResult
from geolookup.answer import decision_record
from geolookup.client import Client
from geolookup.errors import ServiceUnavailableError

logger = logging.getLogger("enforcement")


class Enforcement:
    """Holds meetings to the measures in force. `DryRun` counts what it would do.

    Args:
        lookup: a geolookup service, or a dataset in this process.
        records: the file that decision records are added to; None: none are kept.
        now: the clock.
    """

    def __init__(
        self,
        lookup: Client | Dataset,
        records: Path | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lookup = lookup
        self._records = records
        self._now = now
        self._measures: list[Measure] = []
        self._meetings: dict[str, Meeting] = {}
        self._dataset = ""
        self._recorded: set[tuple[Measure, str, str]] = set()

    def open(self, meeting: Meeting) -> None:
        """Begin to watch over a meeting."""
        self._meetings[meeting.id] = meeting

    def impose(self, measure: Measure) -> list[Participant]:
        """Put a measure into force; return who left."""
        self._measures.append(measure)
        return self.review()

    def join(self, meeting: Meeting, person: Participant) -> Measure | None:
        """Let somebody in, or return the measure that refuses them."""
        refusing, dataset = self._check(person)
        if refusing is None:
            self._enter(meeting, person, dataset)
        return refusing

    def review(self) -> list[Participant]:
        """Hold all meetings to the measures in force; return who left.

        To be called from time to time: measures begin, datasets change, and a
        join may have gone unchecked while geolookup was down.

        Raises:
            ServiceUnavailableError: geolookup is down; whoever was not yet classified stays.
        """
        left: list[Participant] = []
        for measure in self._in_force():
            for meeting in self._meetings.values():
                left += self._classify(measure, meeting)
        return left

    def _in_force(self) -> Iterable[Measure]:
        now = self._now()
        return [measure for measure in self._measures if measure.in_force(now)]

    def _check(self, person: Participant) -> tuple[Measure | None, str]:
        """Return the measure that refuses somebody, if one does, and the dataset that answered."""
        dataset = self._dataset
        for measure in self._in_force():
            try:
                answer = self._lookup.lookup(person.address, measure.region_set, measure.policy)
            except ServiceUnavailableError:
                if not measure.admits_unchecked:
                    return measure, dataset
                continue  # the next review finds who is to leave
            dataset = answer.dataset
            if answer.verdict is not None and measure.refuses(answer.verdict):
                return measure, dataset
        return None, dataset

    def _enter(self, meeting: Meeting, person: Participant, dataset: str) -> None:
        meeting.enter(person)
        if dataset != self._dataset:  # what was outside before may be inside now
            with contextlib.suppress(ServiceUnavailableError):
                self.review()

    def _classify(self, measure: Measure, meeting: Meeting) -> list[Participant]:
        people = meeting.participants  # positions in the answer are positions in this list
        if not people:
            return []
        result = self._lookup.classify(
            [person.address for person in people],
            region_set=measure.region_set,
            policy=measure.policy,
            record=True,
        )
        self._dataset = result.dataset
        return self._act(measure, meeting, people, result)

    def _act(
        self, measure: Measure, meeting: Meeting, people: list[Participant], result: RosterResult
    ) -> list[Participant]:
        """Remove those whom a measure reaches, keep a record of it, and return them."""
        left = [people[position] for position in measure.reached(result)]
        for person in left:
            meeting.leave(person)
        # Once for each dataset, and when it acted: a review that changes nothing decides nothing.
        case = (measure, meeting.id, result.dataset)
        if self._records is not None and (left or case not in self._recorded):
            self._recorded.add(case)
            assert result.record is not None  # noqa: S101 - it was asked for
            decision_record.append(self._records, result.record.with_reference(measure.reference))
        logger.info("measure %s: %d of %d left", measure.reference, len(left), len(people))
        return left
