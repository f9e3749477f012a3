"""How old a dataset is, and what to say of one that is too old."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

WARN_DAYS: Final = 45
"""Days: publishers have new files every month, and a refresh may fail once."""


def age_warning(built: datetime, days: int = WARN_DAYS) -> str | None:
    """Return what to say of a dataset that was built more than *days* ago; None: nothing.

    Args:
        built: when it was built, with a time zone.
        days: 0: it is never too old.
    """
    age = (datetime.now(UTC) - built).days
    if not days or age <= days:
        return None
    return (
        f"the dataset was built {age:,} days ago, and addresses have moved since; refresh it with"
        " 'geolookup update --dataset FILE'"
    )
