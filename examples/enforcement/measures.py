"""Measures: what a legal demand asks for, where and how long; and the file that holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pyroaring import BitMap

from geolookup import Policy, RosterResult, Verdict

_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Mode(StrEnum):
    """What a measure demands."""

    DENY_INSIDE = "deny_inside"
    """Who is inside the region may not take part."""
    ADMIT_INSIDE = "admit_inside"
    """Only who is inside may join. Of those present, only who is outside leaves."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A legal demand.

    Attributes:
        reference: of the demand; it stands in the records.
        region_set: where it applies.
        mode: what it demands.
        start: when it begins.
        expiry: when it ceases to act.
        policy: how sources become a verdict.
        when_unavailable: whether joins that can't be checked are admitted ("admit") or refused
            ("refuse"). By default the many go on where one place is barred, and no one new comes
            in where only some places are allowed.
    """

    reference: str
    region_set: str
    mode: Mode
    start: datetime
    expiry: datetime
    policy: Policy = Policy.UNANIMOUS
    when_unavailable: str = ""

    def in_force(self, now: datetime) -> bool:
        """Say whether it acts."""
        return self.start <= now < self.expiry

    def refuses(self, verdict: Verdict) -> bool:
        """Say whether a join is refused."""
        return (verdict is Verdict.INSIDE) is (self.mode is Mode.DENY_INSIDE)

    def reached(self, result: RosterResult) -> BitMap:
        """Return the positions of those present who have to leave."""
        return result.inside if self.mode is Mode.DENY_INSIDE else result.outside

    @property
    def admits_unchecked(self) -> bool:
        """Whether somebody joins whom geolookup gave no answer about."""
        default = "admit" if self.mode is Mode.DENY_INSIDE else "refuse"
        return (self.when_unavailable or default) == "admit"


def read(path: Path) -> list[Measure]:
    """Read a file of measures, which the module for Prosody takes, too: see measures.json.

    Raises:
        ValueError: it is not valid. The text names file, measure and key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        values = None
    listed = values.get("measures") if isinstance(values, dict) and len(values) == 1 else None
    if not isinstance(listed, list):
        raise ValueError(f'{path}: expected {{"measures": [...]}}')
    measures = []
    for position, each in enumerate(listed, 1):
        try:
            measures.append(_measure(each))
        except ValueError as error:
            raise ValueError(f"{path}: measure {position}: {error}") from None
    return measures


def _measure(values: object) -> Measure:
    if not isinstance(values, dict):
        raise ValueError("expected an object")
    for key in values:
        if key not in _VALID:
            raise ValueError(f"{key}: not known")
    for key, is_valid in _VALID.items():
        if key not in values:
            if key not in _OPTIONAL:
                raise ValueError(f"{key}: missing")
        elif not isinstance(values[key], str) or not is_valid(values[key]):
            raise ValueError(f"{key}: not valid")
    start, expiry = _time(values["start"]), _time(values["expiry"])
    assert start is not None and expiry is not None  # noqa: S101, PT018 - they are valid
    if start >= expiry:
        raise ValueError("expiry: not after start")
    return Measure(
        values["reference"],
        values["region_set"],
        Mode(values["mode"]),
        start,
        expiry,
        Policy[values.get("policy", "UNANIMOUS")],
        values.get("when_unavailable", ""),
    )


def _time(text: str) -> datetime | None:
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if time.strftime(_TIME) == text else None


_VALID: Mapping[str, Callable[[str], object]] = {
    "reference": lambda text: 0 < len(text) <= 256 and text.isprintable(),
    "region_set": re.compile(r"[A-Z0-9_/+-]+").fullmatch,
    "mode": [mode.value for mode in Mode].__contains__,
    "start": _time,
    "expiry": _time,
    "policy": Policy.__members__.__contains__,
    "when_unavailable": ("admit", "refuse").__contains__,
}
_OPTIONAL = ("policy", "when_unavailable")
