"""Log lines that can't hold what a request held.

An exception's text may repeat the value that it is about, such as an address.
So no text of an exception, and no message of another library, is ever written:
only the exception's type and the places in the code that it passed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from types import TracebackType

OWN = "geolookup"
"""The loggers under this name write fixed texts; only these are repeated."""

logger = logging.getLogger("geolookup.service")


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
    """One line a record: time (UTC), level, logger, text. Other libraries' texts are left out."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        own = record.name == OWN or record.name.startswith(f"{OWN}.")
        text = record.getMessage() if own else f"message from line {record.lineno}"
        if record.exc_info and record.exc_info[0]:
            text = f"{text}: {_describe(record.exc_info[0], record.exc_info[2])}"
        return f"{self.formatTime(record)} {record.levelname} {record.name}: {text}"


def install() -> None:
    """Write this process's log to stderr, and nothing of exceptions but what `describe` says."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    root = logging.getLogger()
    root.handlers = [handler]
    logging.getLogger(OWN).setLevel(logging.INFO)
    # A record that can't be formatted would be printed with its arguments.
    logging.raiseExceptions = False

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        logger.error("a thread failed: %s", _describe(args.exc_type, args.exc_traceback))

    def not_raised(args: sys.UnraisableHookArgs) -> None:
        logger.error("an error was lost: %s", _describe(args.exc_type, args.exc_traceback))

    threading.excepthook = thread_failed
    sys.unraisablehook = not_raised
