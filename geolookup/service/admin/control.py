"""What an operator can do with a running service.

The supervisor implements it. The admin rpcs, signals and the file watch call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from geolookup.answer.age import Age, KeptSource
    from geolookup.answer.file_format import ExpiringOverride, RuntimeOverrides


class Outcome(StrEnum):
    """How a reload or a rollback ended."""

    SWAPPED = "swapped"
    """Every worker answers from the new dataset."""
    UNCHANGED = "unchanged"
    """The file holds the dataset that is in service already."""
    REFUSED = "refused"
    """Nothing changed; the reason is in `Reload.reason`."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The result of a reload or a rollback.

    Attributes:
        outcome: how it ended.
        dataset: id of the dataset in service now.
        previous: id of the dataset that `Control.rollback` would return to; empty: none.
        reason: why it was refused, or what a rollback holds back, or empty. It holds fixed
            texts and file names; no address.
    """

    outcome: Outcome
    dataset: str
    previous: str = ""
    reason: str = ""


class WorkerState(StrEnum):
    """The state of a worker."""

    STARTING = "starting"
    """Its process loads code and dataset."""
    SERVING = "serving"
    """It answers calls."""
    HANDING_OVER = "handing over"
    """It answers calls until the process that replaces it serves. No worker slot shows this."""
    UNRESPONSIVE = "unresponsive"
    """It does not answer its supervisor's lookups."""
    DRAINING = "draining"
    """Health is NOT_SERVING, or it finishes its calls and ends."""
    WAITING = "waiting"
    """Its process has ended, and the next one starts after a delay."""
    UNKNOWN = "unknown"
    """A state that this version does not know."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker slot.

    Attributes:
        number: of the slot, from 0; a restarted worker keeps it.
        pid: its process; 0 while it waits.
        state: of the worker.
        dataset: id of the dataset that it answers from.
        started: when its process was started.
        restarts: how often a process in this slot was replaced.
        in_flight: calls that it is answering.
        answered: when it last answered its supervisor's lookup; None: not yet.
        answer_seconds: how long that took.
    """

    number: int
    pid: int
    state: WorkerState
    dataset: str
    started: datetime
    restarts: int
    in_flight: int
    answered: datetime | None = None
    answer_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The whole service.

    Attributes:
        serving: whether health is SERVING.
        dataset: id of the dataset in service.
        previous: id of the dataset that a rollback returns to; empty: none.
        started: when the supervisor was started.
        last_reload: result of the newest reload or rollback, if there was one.
        last_reload_time: when that was.
        workers: all worker slots, by number.
        reloads: reloads and rollbacks since the start, by how they ended.
        expired_overrides: the operator's overrides in the dataset in service that still
            decide after their last day.
        age: of the dataset in service; None while the first one is loaded.
        kept_too_long: its sources whose licences forbid to keep data that old.
        stalled_for: seconds for which the supervisor has done nothing, if that is too long; it
            may not know then how its workers are, and is not serving.
        held_back: digests of the files that a rollback holds back, by the names of their
            settings; a dataset's is its id.
        overrides: which overrides of the setting `overrides` act; None: there is no such file.
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
    age: Age | None = None
    kept_too_long: Sequence[KeptSource] = ()
    stalled_for: float = 0.0
    held_back: Mapping[str, str] = field(default_factory=dict)
    overrides: RuntimeOverrides | None = None


class Control(Protocol):
    """The operations. Any thread may call them; each returns when it is done."""

    def reload(self, *, lift_rollback: bool = False) -> Reload:
        """Read the dataset and all that belongs to it again, and have all workers swap to it.

        Args:
            lift_rollback: take what a rollback holds back, too.
        """
        ...

    def rollback(self) -> Reload:
        """Return to the dataset that was in service before, and hold the current one back.

        It is held back until another comes, or `reload` lifts the rollback.
        """
        ...

    def status(self) -> ServiceStatus:
        """Return the service's status."""
        ...

    def drain(self) -> None:
        """Answer health checks with NOT_SERVING, and calls as before."""
        ...

    def resume(self) -> None:
        """Take back `drain`."""
        ...
