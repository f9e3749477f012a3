"""Writes to standard output and standard error that never wait for a reader.

A pipe or terminal that nobody reads blocks whoever writes to it, and a supervisor that waits
there supervises nothing. Setting O_NONBLOCK would change the pipe for all processes that share
it, so a thread of its own waits.
"""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import Final, TextIO

_MOST_WAITING: Final = 1_000
"""Lines that wait for a reader; more are dropped."""


class UnblockedStream:
    """A descriptor to write lines to. Thread-safe.

    A regular file is written to at once: it has no reader, and its lines are there even if the
    process is killed the moment after.

    Args:
        descriptor: to write to; it stays the caller's.

    Attributes:
        dropped: lines that were not written: too many waited, or the system refused them.
        on_dropped: called for each of these.
        on_resumed: called when a line could be written again, with the number of lines that
            were dropped before it. It may call `write`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.dropped = 0
        self.on_dropped: Callable[[], None] = lambda: None
        self.on_resumed: Callable[[int], None] = lambda _count: None
        self._reported = 0
        # Guards `dropped`. The collector of objects may log at any moment, in any thread.
        self._lock = threading.RLock()
        self._queue: queue.SimpleQueue[bytes | threading.Event] | None = None
        self._writer: int | None = None
        if not _is_file(descriptor):
            waiting: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
            writer = threading.Thread(
                target=self._write_queued, args=(waiting,), name="geolookup-log", daemon=True
            )
            # Without a thread for it, rather a log that may block than none.
            with contextlib.suppress(RuntimeError):
                writer.start()
                self._queue = waiting
                self._writer = writer.ident

    def write(self, line: bytes) -> None:
        """Write a line, now or soon, or drop it. Never blocks."""
        # What `on_resumed` writes must not be dropped behind lines that wait.
        if self._queue is None or threading.get_ident() == self._writer:
            self._write(line)
        elif self._queue.qsize() < _MOST_WAITING:
            self._queue.put(line)
        else:
            self._drop()

    def flush(self, seconds: float) -> bool:
        """Wait until the lines up to now are written or dropped, and return whether they are."""
        if self._queue is None:
            return True
        written = threading.Event()
        self._queue.put(written)
        return written.wait(seconds)

    def _write_queued(self, waiting: queue.SimpleQueue[bytes | threading.Event]) -> None:
        while True:
            item = waiting.get()
            if isinstance(item, bytes):
                self._write(item)
            else:
                item.set()

    def _write(self, line: bytes) -> None:
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # a pipe without a reader, a full disk
            self._drop()
            return
        with self._lock:
            count, self._reported = self.dropped - self._reported, self.dropped
        if count:
            self.on_resumed(count)

    def _drop(self) -> None:
        with self._lock:
            self.dropped += 1
        self.on_dropped()


def standard_stream(stream: TextIO | None, descriptor: int) -> UnblockedStream | None:
    """Return what writes to `sys.stdout` or `sys.stderr`; None: it is no descriptor's."""
    try:
        number = descriptor if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
    return UnblockedStream(number)


def open_missing_streams() -> None:
    """Open descriptors 0 to 2 on /dev/null where they are closed.

    Else the next files and sockets get these numbers, and what is written to standard error
    goes to a client.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _is_file(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    return True  # closed: each write fails at once
