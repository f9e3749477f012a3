"""The spare: a worker's process that waits for a place to become free."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from geolookup.service import log
from geolookup.service.processes.channel import ChannelError
from geolookup.service.processes.restart_delay import RestartDelay
from geolookup.service.processes.worker_process import WorkerProcess, how_it_ended, why_not_started

if TYPE_CHECKING:
    from geolookup.service.processes.event_loop import EventLoop, Timer


class Spare:
    """Keeps one process ready to become a worker, for the loop's thread.

    Nearly all that a worker does until it answers is to load its code, gRPC above all, and to
    open the dataset. A spare has done both and waits for the word to start. It listens
    nowhere, and answers nobody. Who starts it tells it all that any worker is told, so
    nothing that it has done ahead is relied on: what is out of date, or failed, is done then.

    Args:
        loop: in which all happens.
        spawn: starts a process, and tells it what to do ahead.
    """

    def __init__(self, loop: EventLoop, spawn: Callable[[], WorkerProcess]) -> None:
        self._loop = loop
        self._spawn = spawn
        self._process: WorkerProcess | None = None
        self._since = 0.0
        self._delay = RestartDelay()
        self._wait: Timer | None = None

    def keep(self) -> None:
        """Have one from now on, unless those before it ended again and again: then later."""
        if self._process is not None or self._wait is not None:
            return
        try:
            process = self._spawn()
        except (OSError, ChannelError) as error:
            self._keep_later(why_not_started(error), 0.0)
            return
        self._process, self._since = process, self._loop.clock()
        self._loop.add_reader(process.channel.fileno(), self._hear)
        log.event("spare_start", pid=process.pid)

    def tell(self, kind: str, *descriptors: int, **fields: object) -> None:
        """Have it do something ahead, if there is one."""
        if self._process is not None:
            with suppress(ChannelError):  # its end is heard of by `_hear`
                self._process.channel.send(kind, *descriptors, **fields)

    def take(self) -> WorkerProcess | None:
        """Return the process, which is the caller's from now on; None: there is none."""
        if self._process is not None and not self._process.runs:
            self._lose()  # it ended in the same moment as the worker whose place it would take
        return self._give_up()

    def end(self) -> None:
        """End it at once, as nobody waits for its answers, and keep none."""
        if self._wait is not None:
            self._wait.cancel()
        process = self._give_up()
        if process is not None:
            process.reap()

    def _give_up(self) -> WorkerProcess | None:
        process, self._process = self._process, None
        if process is not None:
            self._loop.remove_reader(process.channel.fileno())
        return process

    def _hear(self) -> None:
        assert self._process is not None  # noqa: S101 - it is watched while it is ours
        message = None
        with suppress(ChannelError):
            message = self._process.channel.receive()
        if message is not None:
            message.close()
        # All else that it can say is that it was told to end (SIGTERM).
        if message is None or message.kind != "answer":
            self._lose()

    def _lose(self) -> None:
        """Have it ended, and replace it."""
        process = self._give_up()
        assert process is not None  # noqa: S101 - the callers have looked
        code = process.reap()
        log.event("spare_exit", "warning", pid=process.pid, exit_code=code)
        self._keep_later(how_it_ended(code), self._loop.clock() - self._since)

    def _keep_later(self, reason: str, lasted: float) -> None:
        seconds = self._delay.next(lasted)
        if not seconds:
            self.keep()
            return
        log.event("spare_wait", "warning", seconds=seconds, reason=reason)
        self._wait = self._loop.call_later(seconds, self._waited)

    def _waited(self) -> None:
        self._wait = None
        self.keep()
