"""How old a dataset is, and what follows where it is older than its operator allows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, Protocol, get_args

WARN_DAYS: Final = 45
"""Days: publishers have new files every month, and a refresh may fail once."""
MAX_DAYS: Final = 36_500
"""The largest number of days that a limit may have."""

Stale = Literal["warn", "undetermined"]
STALE: Final[tuple[Stale, ...]] = get_args(Stale)
"""What a dataset does that is too old: it says so, or its verdicts are UNDETERMINED, too."""


class DatedSource(Protocol):
    """What of a source decides how old it may be; see `SourceInfo`."""

    @property
    def name(self) -> str:
        """Its name in the dataset."""

    @property
    def date(self) -> str:
        """The date of its data, YYYY-MM-DD."""

    @property
    def max_age(self) -> int:
        """Days after its date from which the dataset is stale; 0: none."""

    @property
    def keep_days(self) -> int:
        """Days for which its licence allows to keep the data; 0: any time."""


def clock() -> float:
    """Return the seconds since 1970, UTC."""
    return time.time()


@dataclass(frozen=True, slots=True)
class AgeLimit:
    """How old a dataset may be.

    Attributes:
        max_age: whole days since it was built; 0: any age.
        stale: what follows beyond that.
    """

    max_age: int = 0
    stale: Stale = "warn"


@dataclass(frozen=True, slots=True)
class Age:
    """How old a dataset is at a moment, and how old it may be.

    Attributes:
        days: whole days since it was built; 0 for a date in the future.
        max_age: the most that it may be; 0: any age.
        stale: what follows beyond that.
        is_stale: whether it is older, or one of its sources than that may be.
        stale_sources: names of the sources that are older than each may be.
    """

    days: int
    max_age: int
    stale: Stale
    is_stale: bool
    stale_sources: tuple[str, ...] = ()

    @property
    def withholds_verdicts(self) -> bool:
        """Whether each verdict is UNDETERMINED."""
        return self.is_stale and self.stale == "undetermined"

    def as_json(self) -> dict[str, object]:
        """Return it as an object that JSON can hold."""
        return {
            "days": self.days,
            "max_age": self.max_age,
            "stale": self.stale,
            "is_stale": self.is_stale,
            "stale_sources": list(self.stale_sources),
        }

    def __str__(self) -> str:
        parts = [f"{self.days:,} days"]
        if self.max_age and self.days > self.max_age:
            parts[0] += f", at most {self.max_age:,} are allowed"
        if self.stale_sources:
            parts.append(f"too old: {', '.join(self.stale_sources)}")
        if self.withholds_verdicts:
            parts.append("verdicts are UNDETERMINED")
        return "; ".join(parts)


def stale_from(built: datetime, limit: AgeLimit, sources: Iterable[DatedSource]) -> int | None:
    """Return the second since 1970, UTC, from which a dataset is stale; None: never."""
    ends = [_end(built, limit.max_age)] if limit.max_age else []
    ends += [_end(_midnight(one.date), one.max_age) for one in sources if one.max_age]
    return min(ends, default=None)


def age_of(
    built: datetime, limit: AgeLimit, sources: Iterable[DatedSource], now: float | None = None
) -> Age:
    """Return how old a dataset is.

    Args:
        built: when it was built, with a time zone.
        limit: how old it may be.
        sources: what it was built from.
        now: seconds since 1970, UTC; None: the present.
    """
    now = clock() if now is None else now
    outdated = tuple(
        one.name for one in sources if one.max_age and now >= _end(_midnight(one.date), one.max_age)
    )
    is_stale = bool(outdated) or (limit.max_age > 0 and now >= _end(built, limit.max_age))
    days = max(0, (datetime.fromtimestamp(now, UTC) - built).days)
    return Age(days, limit.max_age, limit.stale, is_stale, outdated)


def _end(start: datetime, days: int) -> int:
    """Return the first second that is more whole days after *start* than *days*."""
    try:
        return int((start + timedelta(days=days + 1)).timestamp())
    except OverflowError:  # of a date near the end of the calendar
        return int(datetime.max.replace(tzinfo=UTC).timestamp())


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)


@dataclass(frozen=True, slots=True)
class KeptSource:
    """A source whose data is kept for longer than its licence allows.

    Attributes:
        name: of the source.
        date: of its data, YYYY-MM-DD.
        keep_days: days for which its licence allows to keep it.
    """

    name: str
    date: str
    keep_days: int

    def as_json(self) -> dict[str, object]:
        """Return it as an object that JSON can hold."""
        return {"name": self.name, "date": self.date, "keep_days": self.keep_days}

    def __str__(self) -> str:
        return (
            f"source {self.name}: its data of {self.date} is older than the {self.keep_days:,} days"
            " that its licence allows to keep it; compile from newer data and delete this"
        )


def kept_too_long(sources: Iterable[DatedSource], today: date) -> tuple[KeptSource, ...]:
    """Return the sources whose licences forbid to keep data that old."""
    return tuple(
        KeptSource(one.name, one.date, one.keep_days)
        for one in sources
        if one.keep_days and (today - date.fromisoformat(one.date)).days > one.keep_days
    )


def age_warning(built: datetime, days: int = WARN_DAYS) -> str | None:
    """Return what to say of a dataset that was built more than *days* ago; None: nothing.

    Args:
        built: when it was built, with a time zone.
        days: 0: it is never too old.
    """
    age = (datetime.fromtimestamp(clock(), UTC) - built).days
    if not days or age <= days:
        return None
    return (
        f"the dataset was built {age:,} days ago, and addresses have moved since; refresh it with"
        " 'geolookup update --dataset FILE'"
    )
