"""What a process of the service asks of the operating system for itself."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Have a crash leave nothing of this process's memory, which holds addresses, on a disk.

    Other processes of the same user can't read that memory either (ptrace, /proc).
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(parent: int) -> None:
    """Be sent SIGTERM when the process *parent*, which started this one, has ended."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was too quick
        os.kill(os.getpid(), signal.SIGTERM)


def end_within(seconds: float) -> None:
    """Have the system end this process after a time, in whatever it may be stuck by then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


@contextmanager
def signals_held(*numbers: signal.Signals) -> Iterator[None]:
    """Hold signals back in this thread; a process that is started meanwhile does so for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Signals as something to read, for the main thread.

    The interpreter writes each signal's number into a socket: unlike code in a
    signal handler, that can't meet a lock that the main thread holds.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers

    def __enter__(self) -> Self:
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _received) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reading.close()
        self._writing.close()

    def fileno(self) -> int:
        """Return the descriptor that can be read when a signal has come."""
        return self._reading.fileno()

    def read(self) -> tuple[signal.Signals, ...]:
        """Return the signals that came since the last time, in their order."""
        received = b""
        with suppress(BlockingIOError):
            received = self._reading.recv(4_096)
        return tuple(signal.Signals(number) for number in received if number in self._numbers)


def _received(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by nothing more than having a handler."""


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), unused, unused, unused):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
