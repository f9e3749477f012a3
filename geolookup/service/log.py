"""Log lines that can't hold what a request held.

What the service has to say is an `event`: a name from a fixed list, with fields from
a fixed list. An exception's text may repeat the value that it is about, such as an
address. So no text of an exception, and no message of another library, is ever
written: only the exception's type and the places in the code that it passed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Literal, TypedDict, Unpack, get_args

OWN = "geolookup"
"""The loggers under this name write fixed texts; only these are repeated."""

Event = Literal[
    "start",  # the service begins; nothing is open yet
    "ready",  # it answers
    "reload",  # a reload or rollback ended
    "shed",  # calls were refused because of the load
    "denied",  # calls were refused since `allow` does not name the client
    "drain",  # health says NOT_SERVING, calls are answered
    "resume",  # drain was taken back
    "certificate",  # the TLS certificate was read again
    "worker_start",  # a worker's place was filled
    "worker_exit",  # one ended
    "worker_wait",  # one that ended too often waits before it is started again
    "spare_start",  # a process was started that waits for a worker's place
    "spare_exit",  # it ended before it had one
    "spare_wait",  # it ended too often, and waits before it is started again
    "transport",  # another one than the setting's is used
    "call_failed",  # a handler raised what nobody foresaw
    "stop",  # told to stop; calls in flight have their grace
    "stop_now",  # told to stop again; calls in flight are cancelled
    "exit",  # everything has ended
]
"""What can be said."""

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class Fields(TypedDict, total=False):
    """What can be said of it. Texts are the operator's own or fixed, and never a client's.

    Attributes:
        version: of this package.
        transport: what carries calls, as in the setting of this name.
        listen: where clients connect.
        admin: where operators connect; absent where there is no such listener.
        metrics: where Prometheus connects; absent likewise.
        workers: how many there are.
        worker: which of them, from 0.
        pid: its process.
        restarts: how often its place was filled again.
        exit_code: of a process that ended; negative: the signal that ended it.
        dataset: the id of the one in service.
        previous: the id of the one before.
        outcome: how it ended.
        reason: why, in a fixed text that may name files and settings.
        method: the rpc.
        error: an exception as `describe` gives it.
        calls: how many.
        seconds: how long.
        not_after: when the certificate in use ends, in UTC.
        signal: a signal's name.
    """

    version: str
    transport: str
    listen: str
    admin: str
    metrics: str
    workers: int
    worker: int
    pid: int
    restarts: int
    exit_code: int
    dataset: str
    previous: str
    outcome: str
    reason: str
    method: str
    error: str
    calls: int
    seconds: float
    not_after: str
    signal: str


_EVENTS: Final = frozenset(get_args(Event))
_TYPES: Final = {
    name: {"str": str, "int": int, "float": (int, float)}[kind.__forward_arg__]
    for name, kind in Fields.__annotations__.items()
}
_LONGEST: Final = 1_000
"""Characters of a value. A line then is one write to a pipe, which mixes with no other's."""
_PLAIN = re.compile(r"[\w.:/+@,-]+", re.ASCII)

logger = logging.getLogger("geolookup.service")


def event(name: Event, level: Level = "info", **fields: Unpack[Fields]) -> None:
    """Write one line: what happened, and the fields that say more.

    Raises:
        ValueError: an event or a field that is not in the list.
        TypeError: a field of another type.
    """
    if name not in _EVENTS:
        raise ValueError("event: not in the list of events")
    for field, value in fields.items():
        expected = _TYPES.get(field)
        if expected is None:
            raise ValueError(f"{name}: a field that is not in the list of fields")
        if not isinstance(value, expected):  # type: ignore[arg-type]  # a type or several
            raise TypeError(f"{name}: {field} has a value of another type")
    logger.log(_level(level), name, extra={"fields": fields})


def describe(error: BaseException) -> str:
    """Return an exception's type and the places it passed, innermost first; never its text."""
    return _describe(type(error), error.__traceback__)


def _describe(kind: type[BaseException], trace: TracebackType | None) -> str:
    places = [
        f"{frame.f_globals.get('__name__', '?')}:{line}:{frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(trace)
    ]
    return " < ".join([f"{kind.__module__}.{kind.__qualname__}", *reversed(places)])


class Formatter(logging.Formatter):
    """One line a record, without the texts of other libraries.

    Args:
        format: "text": time (UTC), level, logger, what happened, ``name=value``…;
            "json": the same as an object.
        worker: the number of the worker whose process this is; None: the supervisor.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, format: Format = "text", worker: int | None = None) -> None:  # noqa: A002
        super().__init__()
        self._json = format == "json"
        self._own: dict[str, Any] = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        own = record.name == OWN or record.name.startswith(f"{OWN}.")
        fields = dict(self._own)
        said = record.__dict__.get("fields") if own else None
        text = record.getMessage() if own else f"message from line {record.lineno}"
        if said is not None:
            fields |= said
        if record.exc_info and record.exc_info[0]:
            described = _describe(record.exc_info[0], record.exc_info[2])
            if said is None:
                text = f"{text}: {described}"
            else:
                fields["error"] = described
        text = text[:_LONGEST]
        fields = {name: _short(value) for name, value in fields.items()}
        if not self._json:
            values = "".join(f" {name}={_plain(value)}" for name, value in fields.items())
            shown = f"{record.levelname} {record.name}: {_one_line(text)}{values}"
            return f"{self.formatTime(record)} {shown}"
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({"event": text} if said is not None else {"event": "message", "text": text}),
            **fields,
        }
        return json.dumps(line)


def _short(value: object) -> object:
    return value[:_LONGEST] if isinstance(value, str) else value


def _plain(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _level(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def install(
    format: Format | str = "text",  # noqa: A002
    level: Level | str = "info",
    *,
    worker: int | None = None,
) -> None:
    """Write this process's log to stderr, and nothing of exceptions but what `describe` says.

    Args:
        format: as of `Formatter`.
        level: the least important lines that are written; of other libraries, none
            below "warning".
        worker: as of `Formatter`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("json" if format == "json" else "text", worker))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, _level(level)))
    logging.getLogger(OWN).setLevel(_level(level))
    # A record that can't be formatted would be printed with its arguments.
    logging.raiseExceptions = False

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        logger.error("a thread failed: %s", _describe(args.exc_type, args.exc_traceback))

    def not_raised(args: sys.UnraisableHookArgs) -> None:
        logger.error("an error was lost: %s", _describe(args.exc_type, args.exc_traceback))

    def failed(
        kind: type[BaseException], _error: BaseException, trace: TracebackType | None
    ) -> None:
        logger.error("the process failed: %s", _describe(kind, trace))

    threading.excepthook = thread_failed
    sys.unraisablehook = not_raised
    sys.excepthook = failed


def silence_grpc(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep gRPC's C core from writing to stderr, unless the operator set GRPC_VERBOSITY.

    It writes a line for each client that fails TLS, and at higher levels the clients'
    addresses. It reads the variable when it is loaded: call this before gRPC is
    imported. Processes started from here inherit it.
    """
    environment.setdefault("GRPC_VERBOSITY", "NONE")


class CountReport:
    """Writes how many calls were refused, in one line now and then and not one per call.

    For one thread, which calls `update` at least every few seconds.

    Args:
        name: the event.
        count: returns how many calls were refused since the start.
        interval: seconds between two lines.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        name: Event,
        count: Callable[[], int],
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name: Event = name
        self._count = count
        self._interval = interval
        self._clock = clock
        self._told = count()
        self._last = clock() - interval

    def update(self) -> None:
        """Write a line if calls were refused since the last one, and that is long enough ago."""
        now = self._clock()
        if now - self._last < self._interval:
            return
        count = self._count()
        if count > self._told:
            # The first line comes at once, so it counts nothing of the time before.
            event(self._name, "warning", calls=count - self._told)
            self._told, self._last = count, now
