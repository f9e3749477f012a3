"""The admin rpcs' messages, and the plain values of `control` that they carry."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from geolookup.admin.v1 import admin_pb2 as admin_v1
from geolookup.answer.age import Age, KeptSource
from geolookup.answer.file_format import ExpiringOverride, RuntimeOverrides
from geolookup.service.admin.control import (
    Outcome,
    Reload,
    ServiceStatus,
    WorkerState,
    WorkerStatus,
)

_OUTCOMES: Final = {
    Outcome.SWAPPED: admin_v1.OUTCOME_SWAPPED,
    Outcome.UNCHANGED: admin_v1.OUTCOME_UNCHANGED,
    Outcome.REFUSED: admin_v1.OUTCOME_REFUSED,
}
_OUTCOME_OF: Final = {number: outcome for outcome, number in _OUTCOMES.items()}
_STATES: Final = {
    WorkerState.STARTING: admin_v1.WORKER_STATE_STARTING,
    WorkerState.SERVING: admin_v1.WORKER_STATE_SERVING,
    WorkerState.DRAINING: admin_v1.WORKER_STATE_DRAINING,
    WorkerState.WAITING: admin_v1.WORKER_STATE_WAITING,
    WorkerState.UNRESPONSIVE: admin_v1.WORKER_STATE_UNRESPONSIVE,
}
_STATE_OF: Final = {number: state for state, number in _STATES.items()}


def reload_message(reload: Reload) -> admin_v1.Reload:
    """Return a `Reload` as its message."""
    return admin_v1.Reload(
        outcome=_OUTCOMES[reload.outcome],
        dataset=reload.dataset,
        previous=reload.previous,
        reason=reload.reason,
    )


def _outcome(number: admin_v1.Outcome) -> Outcome:
    outcome = _OUTCOME_OF.get(number)
    if outcome is None:
        raise ValueError("outcome")
    return outcome


def reload_of(message: admin_v1.Reload) -> Reload:
    """Return the `Reload` of a message.

    Raises:
        ValueError: an outcome that is not known.
    """
    return Reload(_outcome(message.outcome), message.dataset, message.previous, message.reason)


def status_message(status: ServiceStatus) -> admin_v1.GetStatusResponse:
    """Return a `ServiceStatus` as its message."""
    message = admin_v1.GetStatusResponse(
        serving=status.serving,
        dataset=status.dataset,
        previous=status.previous,
        start_time=_timestamp(status.started),
    )
    if status.last_reload is not None:
        message.last_reload.CopyFrom(reload_message(status.last_reload))
    if status.last_reload_time is not None:
        message.last_reload_time.CopyFrom(_timestamp(status.last_reload_time))
    for outcome, count in status.reloads.items():
        message.reload_counts.add(outcome=_OUTCOMES[outcome], count=count)
    for expired in status.expired_overrides:
        message.expired_overrides.add(
            number=expired.number, expires=expired.expires.isoformat(), comment=expired.comment
        )
    if status.age is not None:
        message.age.CopyFrom(_age_message(status.age))
    for kept in status.kept_too_long:
        message.kept_too_long.add(name=kept.name, date=kept.date, keep_days=kept.keep_days)
    message.held_back.update(status.held_back)
    if status.overrides is not None:
        over = status.overrides
        message.overrides.base_dataset, message.overrides.file = over.base, over.file
        message.overrides.active, message.overrides.expired = over.active, over.expired
        if over.until is not None:
            message.overrides.until.CopyFrom(_timestamp(over.until))
    for worker in status.workers:
        message.workers.add(
            number=worker.number,
            pid=worker.pid,
            state=_STATES.get(worker.state, admin_v1.WORKER_STATE_UNSPECIFIED),
            dataset=worker.dataset,
            start_time=_timestamp(worker.started),
            restarts=worker.restarts,
            in_flight=worker.in_flight,
            last_answer_time=None if worker.answered is None else _timestamp(worker.answered),
        )
    return message


def status_of(message: admin_v1.GetStatusResponse) -> ServiceStatus:
    """Return the `ServiceStatus` of a message.

    Raises:
        ValueError: a value that is not known.
    """
    return ServiceStatus(
        serving=message.serving,
        dataset=message.dataset,
        previous=message.previous,
        started=_time(message.start_time),
        last_reload=reload_of(message.last_reload) if message.HasField("last_reload") else None,
        last_reload_time=(
            _time(message.last_reload_time) if message.HasField("last_reload_time") else None
        ),
        workers=[
            WorkerStatus(
                number=worker.number,
                pid=worker.pid,
                state=_STATE_OF.get(worker.state, WorkerState.UNKNOWN),
                dataset=worker.dataset,
                started=_time(worker.start_time),
                restarts=worker.restarts,
                in_flight=worker.in_flight,
                answered=(
                    _time(worker.last_answer_time) if worker.HasField("last_answer_time") else None
                ),
            )
            for worker in message.workers
        ],
        reloads={_outcome(one.outcome): one.count for one in message.reload_counts},
        expired_overrides=[
            ExpiringOverride(one.number, date.fromisoformat(one.expires), one.comment)
            for one in message.expired_overrides
        ],
        held_back=dict(message.held_back),
        overrides=_overrides(message.overrides) if message.HasField("overrides") else None,
        age=_age(message.age) if message.HasField("age") else None,
        kept_too_long=[
            KeptSource(one.name, one.date, one.keep_days) for one in message.kept_too_long
        ],
    )


def _age_message(age: Age) -> admin_v1.DatasetAge:
    return admin_v1.DatasetAge(
        days=age.days,
        max_age=age.max_age,
        is_stale=age.is_stale,
        withholds_verdicts=age.withholds_verdicts,
        stale_sources=age.stale_sources,
    )


def _age(message: admin_v1.DatasetAge) -> Age:
    return Age(
        days=message.days,
        max_age=message.max_age,
        is_stale=message.is_stale,
        stale="undetermined" if message.withholds_verdicts else "warn",
        stale_sources=tuple(message.stale_sources),
    )


def _overrides(message: admin_v1.RuntimeOverrides) -> RuntimeOverrides:
    return RuntimeOverrides(
        message.base_dataset,
        message.file,
        message.active,
        message.expired,
        _time(message.until) if message.HasField("until") else None,
    )


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
