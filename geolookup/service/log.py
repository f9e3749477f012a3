"""Log lines that can't hold what a request held.

The service logs an `event`: a name from a fixed list, with fields from a fixed list. An
exception's text may repeat the value that it is about, such as an address. So the text of an
exception, and the message of another library, is never written: only the exception's
type and its stack of code positions.
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

from geolookup.service.unblocked_stream import UnblockedStream, standard_stream

OWN = "geolookup"
"""The loggers under this name write fixed texts, so their messages may be logged."""

Event = Literal[
    "start",  # the service begins; nothing is open yet
    "unknown_variable",  # a variable looks like a setting and is none
    "ready",  # it answers calls
    "old_dataset",  # the dataset in service is older than the setting allows
    "stale_dataset",  # it is older than it may be: verdicts may be UNDETERMINED
    "kept_too_long",  # the licence of one of its sources forbids to keep data that old
    "reload",  # a reload or rollback ended
    "rollback",  # what a rollback holds back, or why it does not outlast a restart
    "expiry",  # overrides expired, or why they still act
    "shed",  # calls were refused because of the load
    "denied",  # calls were refused since `allow` does not name the client
    "drain",  # health is NOT_SERVING, calls are answered
    "resume",  # drain was taken back
    "certificate",  # the TLS certificate was read again
    "worker_start",  # a process was started in a worker slot
    "worker_exit",  # a worker ended
    "worker_stalled",  # a worker answered no lookup, and is replaced
    "worker_wait",  # a worker that ended too often waits before its restart
    "spare_start",  # a standby was started
    "spare_exit",  # a standby ended before it was needed
    "spare_wait",  # a standby that ended too often waits before its restart
    "few_descriptors",  # the limit on open files is too low for the connections
    "transport",  # another transport than the setting's is used
    "log_dropped",  # lines were dropped, since the log was not read or its disk was full
    "call_failed",  # a handler raised an unexpected exception
    "lame_duck",  # a signal to stop: health is NOT_SERVING, calls are answered for a while
    "stop",  # a signal stops the service; calls in flight have their grace
    "stop_now",  # a second signal; calls in flight are cancelled
    "exit",  # everything has ended
]
"""All events."""

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class Fields(TypedDict, total=False):
    """The fields of events. Strings are fixed or an operator's, never a client's.

    Attributes:
        version: of this package.
        transport: as in the setting of this name.
        listen: where clients connect.
        http: where clients connect that speak JSON over HTTP/1.1; absent where there is no
            such listener.
        admin: where operators connect; absent likewise.
        metrics: where Prometheus connects; absent likewise.
        workers: the number of workers.
        worker: number of the worker slot, from 0.
        pid: its process.
        restarts: how often the worker was restarted.
        exit_code: of a process that ended; negative: the number of the signal.
        dataset: id of the dataset in service.
        previous: id of the dataset before.
        outcome: of a reload, or of reading a certificate.
        reason: why, in a fixed text that may name files and settings.
        method: the rpc.
        error: an exception as `describe` gives it.
        calls: a number of calls.
        lines: a number of lines of the log.
        seconds: a duration.
        not_after: when the certificate in use ends, in UTC.
        signal: a signal's name.
    """

    version: str
    transport: str
    listen: str
    http: str
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
    lines: int
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
_FLUSH: Final = 1.0
"""Seconds that the lines of a process that ends, or has started, may take to be read."""
_PLAIN = re.compile(r"[\w.:/+@,-]+", re.ASCII)

logger = logging.getLogger("geolookup.service")


def event(name: Event, level: Level = "info", **fields: Unpack[Fields]) -> None:
    """Write one line with the event and its fields.

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
    """Return an exception's type and stack, innermost position first; never its text."""
    return _describe(type(error), error.__traceback__)


def _describe(kind: type[BaseException], trace: TracebackType | None) -> str:
    positions = [
        f"{frame.f_globals.get('__name__', '?')}:{line}:{frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(trace)
    ]
    return " < ".join([f"{kind.__module__}.{kind.__qualname__}", *reversed(positions)])


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
        event_fields = record.__dict__.get("fields") if own else None
        text = record.getMessage() if own else f"message from line {record.lineno}"
        if event_fields is not None:
            fields |= event_fields
        if record.exc_info and record.exc_info[0]:
            described = _describe(record.exc_info[0], record.exc_info[2])
            if event_fields is None:
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
            **({"event": text} if event_fields is not None else {"event": "message", "text": text}),
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


class _StreamHandler(logging.Handler):
    """Writes records to a stream that never blocks. No lock: the stream is thread-safe."""

    def __init__(self, stream: UnblockedStream) -> None:
        super().__init__()
        self._stream = stream

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._stream.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        self._stream.flush(_FLUSH)


_stream: UnblockedStream | None = None
"""Where this process's log goes; None: not installed, or to an object in memory (tests)."""


def flush() -> None:
    """Wait until the lines up to now are written, but no longer than a moment."""
    if _stream is not None:
        _stream.flush(_FLUSH)


def dropped() -> int:
    """Return the number of this process's lines that were dropped."""
    return 0 if _stream is None else _stream.dropped


def _report_dropped(count: int) -> None:
    event("log_dropped", "warning", lines=count)


def install(
    format: Format | str = "text",  # noqa: A002
    level: Level | str = "info",
    *,
    worker: int | None = None,
    on_dropped: Callable[[], None] | None = None,
) -> None:
    """Write this process's log to stderr, with exceptions as in `describe`.

    Lines that stderr does not take are dropped: a log that is not read blocks nothing.

    Args:
        format: as of `Formatter`.
        level: the least important lines that are written; of other libraries, none
            below "warning".
        worker: as of `Formatter`.
        on_dropped: called for each line that is dropped.
    """
    global _stream  # noqa: PLW0603 - the process has one standard error
    if _stream is None:
        _stream = standard_stream(sys.stderr, 2)
    handler = logging.StreamHandler() if _stream is None else _StreamHandler(_stream)
    if _stream is not None:
        _stream.on_resumed = _report_dropped
        if on_dropped is not None:
            _stream.on_dropped = on_dropped
    handler.setFormatter(Formatter("json" if format == "json" else "text", worker))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, _level(level)))
    logging.getLogger(OWN).setLevel(_level(level))
    # A record that can't be formatted would be printed with its arguments.
    logging.raiseExceptions = False

    def on_thread_exception(args: threading.ExceptHookArgs) -> None:
        logger.error("a thread failed: %s", _describe(args.exc_type, args.exc_traceback))

    def on_unraisable(args: sys.UnraisableHookArgs) -> None:
        logger.error("an error was lost: %s", _describe(args.exc_type, args.exc_traceback))

    def on_exception(
        kind: type[BaseException], _error: BaseException, trace: TracebackType | None
    ) -> None:
        logger.error("the process failed: %s", _describe(kind, trace))

    threading.excepthook = on_thread_exception
    sys.unraisablehook = on_unraisable
    sys.excepthook = on_exception


def silence_grpc(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep gRPC's C core from writing to stderr, unless the operator set GRPC_VERBOSITY.

    It writes a line for each client that fails TLS, and at higher levels the clients'
    addresses. It reads the variable when it is loaded: call this before gRPC is
    imported. Processes started from here inherit it.
    """
    environment.setdefault("GRPC_VERBOSITY", "NONE")


class CountReport:
    """Logs the number of refused calls, in one line per interval and not one per call.

    For one thread, which calls `update` every few seconds.

    Args:
        name: the event.
        count: returns the number of calls refused since the start.
        interval: seconds between two lines.
        clock: returns monotonic seconds.
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
        self._reported = count()
        self._last = clock() - interval

    def update(self) -> None:
        """Write a line if calls were refused since the last line, and the interval is over."""
        now = self._clock()
        if now - self._last < self._interval:
            return
        count = self._count()
        if count > self._reported:
            event(self._name, "warning", calls=count - self._reported)
            self._reported, self._last = count, now
