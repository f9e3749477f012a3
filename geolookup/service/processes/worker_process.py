"""A worker's process, as the supervisor sees it: spawned, sent messages, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from mmap import mmap
from typing import Final

from geolookup.service.admin.control import WorkerState
from geolookup.service.monitoring.counters import Counters
from geolookup.service.processes import messages
from geolookup.service.processes.channel import Channel, ChannelError
from geolookup.service.processes.messages import Descriptor, Prepare
from geolookup.service.processes.operating_system import blocked_signals
from geolookup.service.processes.sealed_memory import SealedCopy, make_shared_memory

_BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv[3:];"
    " from geolookup.service.processes.worker_main import main;"
    " main(int(sys.argv[1]), int(sys.argv[2]))"
)


class WorkerProcess:
    """One worker's process. It loads its code, and waits for a worker slot.

    Args:
        settings: the pickled settings.

    Attributes:
        number: of its worker slot; -1: it has none yet.
        state: of the worker.
        dataset: id of the dataset that it answers from; empty: none yet.
        started: when the process was started.
        ready_at: when it began to serve, by the event loop's clock.
        failure: why it failed, once that is known.
        counters: its counters, in memory that both processes share.
        channel: the supervisor's end of the channel.
        lookups: the supervisor's end of the socket over which it asks for lookups.
        pid: the process id.

    Raises:
        OSError: the system can't start another process.
    """

    def __init__(self, settings: SealedCopy) -> None:
        self.number = -1
        self.state = WorkerState.STARTING
        self.dataset = ""
        self.started = datetime.now(UTC)
        self.ready_at: float | None = None
        self.failure = ""
        memory = make_shared_memory(Counters.SIZE)
        try:
            self.counters = Counters(mmap(memory, Counters.SIZE))
            self.channel, theirs = Channel.pair()
            self.lookups, asked = socket.socketpair()
            try:
                # The channel holds messages until the process reads them.
                prepare = Prepare(
                    Descriptor(settings.descriptor), Descriptor(memory), Descriptor(asked.fileno())
                )
                messages.send(self.channel, prepare)
                self._process = _spawn(theirs.fileno())
            except BaseException:
                self.channel.close()
                self.lookups.close()
                raise
            finally:
                theirs.close()
                asked.close()
        finally:
            os.close(memory)
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended. The channel may show its end a little later."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def reap(self) -> int:
        """Kill it if it still runs, wait for its end, and return its exit code."""
        self.channel.close()
        self.lookups.close()
        self._process.kill()
        return self._process.wait()

    @property
    def in_flight(self) -> int:
        """Calls that it is answering."""
        # It writes while this reads.
        return max(0, sum(self.counters.read()["in_flight"]))


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter; a fork would copy gRPC's threads' locks without the threads."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    # The terminal signals all processes of the group; only the supervisor handles that.
    with blocked_signals(signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        return subprocess.Popen(  # noqa: S603 - this interpreter, and our own code
            [
                sys.executable,
                *_interpreter_options(),
                "-c",
                _BOOTSTRAP,
                str(descriptor),
                str(os.getpid()),
                *folders,
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


def spawn_failure(error: OSError | ChannelError) -> str:
    """Return the reason why a process could not be started."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"can't be started: {reason}"


def exit_reason(code: int) -> str:
    """Return a process's exit code in words."""
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
