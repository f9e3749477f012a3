"""``geolookup admin``: an operator's requests to a running service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from geolookup.cli.connection import connection_options
from geolookup.cli.options import json_option
from geolookup.cli.output import printable, table

if TYPE_CHECKING:
    from geolookup.answer.file_format import RuntimeOverrides
    from geolookup.cli.connection import Connection
    from geolookup.service.admin.client import RemoteControl
    from geolookup.service.admin.control import Reload, ServiceStatus, WorkerStatus

_Function = TypeVar("_Function", bound=Callable[..., object])

_DEFAULT_TARGET = "127.0.0.1:50052"
_TIMEOUT = 120.0
_REFUSED = 1
_ID_SHOWN = 12

_EPILOG = """\b
Exit codes:
  0  done; also a reload of a file that is in service already
  1  refused, with the reason; nothing changed
  2  usage
  4  the service is not reachable, or not in time
"""


_connection = connection_options(
    "--admin",
    "The service's admin listener: HOST:PORT or unix:PATH.",
    default=_DEFAULT_TARGET,
)


def _options(function: _Function) -> _Function:
    """Add --json, --admin and what goes with it."""
    return _connection(json_option(function))


@click.group(name="admin", short_help="Reload, roll back, drain or inspect a running service.")
def administer() -> None:
    """Ask something of a running service, over its admin listener.

    \b
    Examples:
      geolookup admin status
      geolookup admin reload --admin unix:/run/geolookup/admin.sock
    """


@administer.command(name="reload", epilog=_EPILOG, short_help="Read the dataset file again.")
@click.option("--lift-rollback", is_flag=True, help="Take what a rollback holds back, too.")
@_options
def reload_service(*, lift_rollback: bool, as_json: bool, connection: Connection) -> int:
    """Have the service read its dataset file and region sets again, and swap them in.

    A file that is damaged, unsigned where it must be signed, or that changes more than
    it may, is refused, and the service goes on with what it has. What the service was
    rolled back from is not taken either, unless --lift-rollback is given.
    """
    with _connect(connection) as control:
        return _show_reload(control.reload(lift_rollback=lift_rollback), as_json=as_json)


@administer.command(
    name="rollback", epilog=_EPILOG, short_help="Return to the dataset before this one."
)
@_options
def roll_back_service(*, as_json: bool, connection: Connection) -> int:
    """Have the service return to the dataset that was in service before.

    The current one is held back until the file has another: neither a reload, a signal,
    a change of the region sets nor a restart takes it. 'geolookup admin reload
    --lift-rollback' does.
    """
    with _connect(connection) as control:
        return _show_reload(control.rollback(), as_json=as_json)


@administer.command(name="status", epilog=_EPILOG, short_help="Say how it is.")
@_options
def show_status(*, as_json: bool, connection: Connection) -> None:
    """Say how the service is: health, dataset, last reload, every worker."""
    with _connect(connection) as control:
        status = control.status()
    click.echo(json.dumps(_plain_status(status)) if as_json else _status_text(status))


@administer.command(name="drain", epilog=_EPILOG, short_help="Have load balancers go elsewhere.")
@_options
def drain_service(*, as_json: bool, connection: Connection) -> None:
    """Have health checks answered with NOT_SERVING; calls are answered all the same.

    'geolookup admin resume' takes it back.
    """
    with _connect(connection) as control:
        control.drain()
    click.echo(json.dumps({"serving": False}) if as_json else "draining: health says NOT_SERVING")


@administer.command(name="resume", epilog=_EPILOG, short_help="Take back drain.")
@_options
def resume_service(*, as_json: bool, connection: Connection) -> None:
    """Take back 'geolookup admin drain'."""
    with _connect(connection) as control:
        control.resume()
        serving = control.status().serving
    if as_json:
        click.echo(json.dumps({"serving": serving}))
    else:
        click.echo(f"resumed: health says {'SERVING' if serving else 'NOT_SERVING'}")


@contextmanager
def _connect(connection: Connection) -> Iterator[RemoteControl]:
    # gRPC takes longer to import than all else together.
    from geolookup.service.admin.client import RemoteControl  # noqa: PLC0415

    with (
        connection.diagnosed(),
        RemoteControl(
            connection.target,
            timeout=connection.timeout or _TIMEOUT,
            credentials=connection.credentials,
            server_name=connection.server_name,
        ) as control,
    ):
        yield control


def _show_reload(reload: Reload, *, as_json: bool) -> int:
    refused = reload.outcome == "refused"
    if as_json:
        click.echo(json.dumps(_plain_reload(reload)))
    elif refused:
        click.echo(f"geolookup: refused: {printable(reload.reason)}", err=True)
    else:
        previous = f", previous {reload.previous}" if reload.previous else ""
        click.echo(f"{reload.outcome}: dataset {reload.dataset}{previous}")
        if reload.reason:
            click.echo(f"geolookup: {printable(reload.reason)}", err=True)
    return _REFUSED if refused else 0


def _plain_reload(reload: Reload) -> dict[str, str]:
    return {
        "outcome": str(reload.outcome),
        "dataset": reload.dataset,
        "previous": reload.previous,
        "reason": reload.reason,
    }


def _plain_status(status: ServiceStatus) -> dict[str, object]:
    return {
        "serving": status.serving,
        "dataset": status.dataset,
        "previous": status.previous,
        "started": _time(status.started),
        "last_reload": status.last_reload and _plain_reload(status.last_reload),
        "last_reload_time": status.last_reload_time and _time(status.last_reload_time),
        "reloads": {str(outcome): count for outcome, count in status.reloads.items()},
        "expired_overrides": [one.as_json() for one in status.expired_overrides],
        "age": status.age and status.age.as_json(),
        "kept_too_long": [one.as_json() for one in status.kept_too_long],
        "held_back": dict(status.held_back),
        "overrides": status.overrides and status.overrides.as_json(),
        "workers": [_plain_worker(worker) for worker in status.workers],
    }


def _plain_worker(worker: WorkerStatus) -> dict[str, object]:
    return {
        "number": worker.number,
        "pid": worker.pid,
        "state": worker.state,
        "dataset": worker.dataset,
        "started": _time(worker.started),
        "restarts": worker.restarts,
        "in_flight": worker.in_flight,
        "answered": worker.answered and _time(worker.answered),
    }


def _status_text(status: ServiceStatus) -> str:
    facts = [
        ["health", "SERVING" if status.serving else "NOT_SERVING"],
        ["dataset", status.dataset],
        *([["age", printable(str(status.age))]] if status.age is not None else []),
        ["previous", status.previous or "none"],
        *(
            ["held back", printable(f"{name} {digest}, by a rollback")]
            for name, digest in status.held_back.items()
        ),
        *([["overrides", _overrides_text(status.overrides)]] if status.overrides else []),
        ["started", _time(status.started)],
    ]
    if status.last_reload is not None and status.last_reload_time is not None:
        reason = f": {printable(status.last_reload.reason)}" if status.last_reload.reason else ""
        when = _time(status.last_reload_time)
        facts.append(["last reload", f"{status.last_reload.outcome} at {when}{reason}"])
    warnings = (*status.expired_overrides, *status.kept_too_long)
    facts += [["warning", printable(str(one))] for one in warnings]
    rows = [["WORKER", "PID", "STATE", "DATASET", "STARTED", "RESTARTS", "IN FLIGHT"]]
    rows += [
        [
            str(worker.number),
            str(worker.pid or "-"),
            worker.state,
            worker.dataset[:_ID_SHOWN] or "-",
            _time(worker.started),
            str(worker.restarts),
            str(worker.in_flight),
        ]
        for worker in status.workers
    ]
    return f"{table(facts)}\n\n{table(rows, right=(0, 1, 5, 6))}"


def _overrides_text(over: RuntimeOverrides) -> str:
    until = f", the next until {_time(over.until)}" if over.until is not None else ""
    return f"{over.active:,} act{until}, {over.expired:,} expired; file {over.file}"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
