"""A meeting of 402 under a measure: ``python examples/enforcement TARGET [RECORDS]``."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from enforcement import Enforcement
from measures import Measure, Mode
from meetings import Meeting, Participant

from geolookup.client import Client

INSIDE, OUTSIDE, PRIVATE = "1.0.1.1", "8.8.8.8", "10.0.0.1"


def main(target: str, records: Path) -> None:
    """Play a meeting through."""
    meeting = Meeting("monday")
    now = datetime.now(UTC)
    with Client(target) as client:
        enforcement = Enforcement(client, records)
        enforcement.open(meeting)
        enforcement.join(meeting, Participant("host", OUTSIDE, may_host=True))
        for number in range(399):
            enforcement.join(meeting, Participant(f"guest-{number}", OUTSIDE))
        for number in range(2):
            enforcement.join(meeting, Participant(f"reached-{number}", INSIDE))
        enforcement.join(meeting, Participant("intern", PRIVATE))
        print(f"{len(meeting.participants)} people meet.")  # noqa: T201 - shows what happens

        measure = Measure("order 17/2026", "CN", Mode.DENY_INSIDE, now, now + timedelta(days=30))
        left = enforcement.impose(measure)
        print(f"The measure reaches {', '.join(person.id for person in left)}.")  # noqa: T201
        print(f"{len(meeting.participants)} go on, with {meeting.host}.")  # noqa: T201

        refused = enforcement.join(meeting, Participant("late", INSIDE))
        print(f"One more is refused, by {refused.reference if refused else 'nobody'}.")  # noqa: T201
    print(f"Kept of it: {records}")  # noqa: T201


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "records.jsonl"))
