"""A meeting of 403 under a measure: ``python examples/enforcement TARGET [RECORDS]``."""

from __future__ import annotations

import argparse
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dry_run import DryRun
from enforcement import Enforcement
from measures import Measure, Mode
from meetings import Meeting, Participant

from geolookup.client import Client

INSIDE, OUTSIDE, PRIVATE = "1.0.1.1", "8.8.8.8", "10.0.0.1"


def main(target: str, records: Path, *, dry_run: bool) -> None:
    """Play a meeting through; in a dry run say what would happen, in counts."""
    meeting = Meeting("monday")
    now = datetime.now(UTC)
    with Client(target) as client:
        enforcement = DryRun(client) if dry_run else Enforcement(client, records)
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
        if not dry_run:
            print(f"The measure reaches {', '.join(person.id for person in left)}.")  # noqa: T201
            print(f"{len(meeting.participants)} go on, with {meeting.host}.")  # noqa: T201

        refused = enforcement.join(meeting, Participant("late", INSIDE))
        if isinstance(enforcement, DryRun):
            for preview in enforcement.previews():
                print(preview)  # noqa: T201
            return
        print(f"One more is refused, by {refused.reference if refused else 'nobody'}.")  # noqa: T201
    print(f"Kept of it: {records}")  # noqa: T201


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser("enforcement")
    parser.add_argument("target", help="where geolookup serves, HOST:PORT")
    parser.add_argument("records", nargs="?", type=Path, default="records.jsonl")
    parser.add_argument("--dry-run", action="store_true", help="count, and act on nothing")
    given = parser.parse_args()
    main(given.target, given.records, dry_run=given.dry_run)
