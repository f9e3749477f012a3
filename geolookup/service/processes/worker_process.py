"""A worker's process, as its supervisor has it: spawned, spoken to over a line, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from mmap import mmap
from typing import Final

from geolookup.service.monitoring.counters import Meter
from geolookup.service.processes.channel import Channel, ChannelError
from geolookup.service.processes.operating_system import signals_held
from geolookup.service.processes.sealed_memory import SealedCopy, make_shared_memory

_BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv[3:];"
    " from geolookup.service.processes.worker_main import main;"
    " main(int(sys.argv[1]), int(sys.argv[2]))"
)


class WorkerProcess:
    """One worker's process. It loads what it needs, and waits to be told where to serve.

    Args:
        settings: the settings, pickled.

    Attributes:
        number: its place; -1: it has none yet.

    Raises:
        OSError: the system has no place for another process.
    """

    def __init__(self, settings: SealedCopy) -> None:
        self.number = -1
        self.state = "starting"
        self.dataset = ""
        self.started = datetime.now(UTC)
        self.ready_at: float | None = None
        self.reason = ""
        memory = make_shared_memory(Meter.SIZE)
        try:
            self.meter = Meter(mmap(memory, Meter.SIZE))
            self.channel, theirs = Channel.pair()
            try:
                # What it is told waits for it: the line holds it before the process is there.
                self.channel.send("prepare", settings.descriptor, memory)
                self._process = _spawn(theirs.fileno())
            except BaseException:
                self.channel.close()
                raise
            finally:
                theirs.close()
        finally:
            os.close(memory)
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet. It may be heard of a little later that it has."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def reap(self) -> int:
        """Have it ended, which one that has closed its line has; return how it did."""
        self.channel.close()
        # It has ended, unless it is out of its mind, or nobody needs it.
        self._process.kill()
        return self._process.wait()

    @property
    def in_flight(self) -> int:
        """Calls it is answering."""
        # It writes while this reads.
        return max(0, sum(self.meter.read()["in_flight"]))


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter; a fork would copy gRPC's threads' locks without the threads."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    # Of the terminal's signals a worker knows nothing: they are its supervisor's.
    with signals_held(signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        return subprocess.Popen(  # noqa: S603 - this interpreter, and our own code
            [
                *(sys.executable, *_interpreter_options(), "-c", _BOOTSTRAP),
                *(str(descriptor), str(os.getpid()), *folders),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(descriptor,),
        )


def _interpreter_options() -> Iterator[str]:
    flags = sys.flags
    for option, given in (
        ("-I", flags.isolated),
        ("-E", flags.ignore_environment),
        ("-s", flags.no_user_site),
        ("-B", flags.dont_write_bytecode),
        ("-O", flags.optimize == 1),
        ("-OO", flags.optimize > 1),
    ):
        if given:
            yield option
    yield from (f"-W{option}" for option in sys.warnoptions)


def why_not_started(error: OSError | ChannelError) -> str:
    """Return in words why there is no process."""
    what = error.strerror if isinstance(error, OSError) else str(error)
    return f"can't be started: {what}"


def how_it_ended(code: int) -> str:
    """Return in words what a process's exit code says."""
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
