"""Signals, core dumps and the end of a process, by Linux system calls."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from geolookup.errors import ServiceError

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MAPPED: Final = 1 << 20
"""Bytes of a block that has a mapping of its own, and goes back to the system when it is freed. A
roster of 100,000 addresses is smaller: to map it anew each time would take longer."""
_KEPT: Final = 8 << 20
"""Bytes that an arena keeps free at its end."""


def forbid_core_dumps() -> None:
    """Keep this process's memory, which holds addresses, from being written to disk in a crash.

    Other processes of the same user then can't read that memory either (ptrace, /proc).
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(parent: int) -> None:
    """Receive SIGTERM when the process *parent*, which started this one, has ended."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def end_within(seconds: float) -> None:
    """Have the system end this process after a time, even if it hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


class ServiceManager:
    """Tells systemd, or what speaks its protocol, how the service is (sd_notify).

    A datagram is all of the protocol. The libraries for it are unkept (sdnotify: 2017) or bind
    libsystemd, which must be there to compile them.

    Args:
        environment: the variables; those of the protocol are removed, as they are not for the
            processes that this one starts.

    Attributes:
        watchdog: seconds within which systemd wants to hear `WATCHDOG=1`; None: never.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self.watchdog: float | None = None
        if self._address and microseconds.isdecimal() and process == str(os.getpid()):
            self.watchdog = int(microseconds) / 1e6 or None

    def notify(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``. What does not arrive is lost; never blocks."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            sender.sendto("\n".join(assignments).encode(), flags, self._address)


@contextmanager
def blocked_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Block signals in this thread. A process that is started meanwhile keeps them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Makes signals readable from a descriptor. For the main thread.

    The interpreter writes each signal's number into a socket. Code in a signal handler
    could instead wait for a lock that the main thread holds.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers

    def __enter__(self) -> Self:
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _ignore) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reading.close()
        self._writing.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has arrived."""
        return self._reading.fileno()

    def read(self) -> tuple[signal.Signals, ...]:
        """Return the signals that arrived since the last call, in order."""
        received = b""
        with suppress(BlockingIOError):
            received = self._reading.recv(4_096)
        return tuple(signal.Signals(number) for number in received if number in self._numbers)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Replace the default action; the wake-up descriptor reports the signal."""


def raise_descriptor_limit() -> int:
    """Raise this process's limit on open files to what it may be, and return it.

    Processes that it starts have the same. -1: there is no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A container may forbid it.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return -1 if soft == resource.RLIM_INFINITY else soft


@contextmanager
def clear_thread_errors() -> Iterator[None]:
    """Make a ServiceError of what happens where the system starts no thread.

    Raises:
        ServiceError: it starts none.
    """
    try:
        yield
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise ServiceError(
            "the system starts no more threads: see the limit on processes (ulimit -u, a"
            " container's pids.max) and on memory, or lower the setting threads"
        ) from None


def bound_allocator() -> None:
    """Keep the C library (glibc) from holding ever more of what is freed.

    By default it raises its thresholds to the size of the largest block that was freed (32 MB at
    most), and then keeps twice as much in each arena.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def return_free_memory() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), unused, unused, unused):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
