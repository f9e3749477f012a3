"""What an operator may ask of a running service, whoever carries the request.

The supervisor does it; the admin rpcs, signals and the file watch are ways to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from geolookup.answer.file_format import ExpiringOverride


class Outcome(StrEnum):
    """How a reload or a rollback ended."""

    SWAPPED = "swapped"
    """Every worker answers from the new dataset."""
    UNCHANGED = "unchanged"
    """The file holds the dataset that is in service already."""
    REFUSED = "refused"
    """Nothing changed; the reason says why."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a reload or a rollback.

    Attributes:
        outcome: how it ended.
        dataset: id of the dataset in service now.
        previous: id of the one that `Control.rollback` would return to; empty: none.
        reason: why it was refused, or empty. Fixed texts and file names; never an address.
    """

    outcome: Outcome
    dataset: str
    previous: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker.

    Attributes:
        number: its place, from 0; a restarted worker keeps it.
        pid: its process; 0 while it is waiting to be started again.
        state: "starting", "serving", "draining", "waiting" (to be started again).
        dataset: id of the dataset that it answers from.
        started: when its process was started.
        restarts: how often this place was filled again.
        in_flight: calls it is answering.
    """

    number: int
    pid: int
    state: str
    dataset: str
    started: datetime
    restarts: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The whole service.

    Attributes:
        serving: whether health says SERVING.
        dataset: id of the dataset in service.
        previous: id of the one to roll back to; empty: none.
        started: when the supervisor was started.
        last_reload: the newest reload or rollback, if there was one.
        last_reload_time: when that was.
        workers: every worker, by number.
        reloads: reloads and rollbacks since the start, by how they ended.
        expired_overrides: the operator's overrides in the dataset in service that still
            decide after their last day.
    """

    serving: bool
    dataset: str
    previous: str
    started: datetime
    last_reload: Reload | None
    last_reload_time: datetime | None
    workers: Sequence[WorkerStatus]
    reloads: Mapping[Outcome, int] = field(default_factory=dict)
    expired_overrides: Sequence[ExpiringOverride] = ()


class Control(Protocol):
    """What can be asked. Each may be called from any thread, and returns when it is done."""

    def reload(self) -> Reload:
        """Read the dataset file and the region sets again, and swap them in everywhere."""
        ...

    def rollback(self) -> Reload:
        """Return to the dataset that was in service before."""
        ...

    def status(self) -> ServiceStatus:
        """Return how the service is."""
        ...

    def drain(self) -> None:
        """Say NOT_SERVING to health checks and go on answering, until told to stop."""
        ...

    def resume(self) -> None:
        """Take back `drain`."""
        ...
