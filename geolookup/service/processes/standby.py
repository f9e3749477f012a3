"""The standby: a worker process that waits for a worker slot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from geolookup.service import log
from geolookup.service.processes import messages
from geolookup.service.processes.channel import ChannelError
from geolookup.service.processes.restart_delay import RestartDelay
from geolookup.service.processes.worker_process import WorkerProcess, exit_reason, spawn_failure

if TYPE_CHECKING:
    from geolookup.service.processes.event_loop import EventLoop, Timer


class Standby:
    """Keeps one process ready to take a worker slot. For the event loop's thread.

    A worker spends nearly all of its start on loading code, gRPC above all, and on opening the
    dataset. The standby has done both. It listens on no address and serves no call.
    It gets the same messages as any new worker when it takes a slot, so a step that it
    did early and that is out of date or failed is done again then.

    Args:
        loop: the supervisor's event loop.
        spawn: starts a process, and sends it what to do early.
    """

    def __init__(self, loop: EventLoop, spawn: Callable[[], WorkerProcess]) -> None:
        self._loop = loop
        self._spawn = spawn
        self._process: WorkerProcess | None = None
        self._started = 0.0
        self._restart_delay = RestartDelay()
        self._restart: Timer | None = None

    def start(self) -> None:
        """Start a process, unless one runs or waits out its restart delay."""
        if self._process is not None or self._restart is not None:
            return
        try:
            process = self._spawn()
        except (OSError, ChannelError) as error:
            self._start_later(spawn_failure(error), 0.0)
            return
        self._process, self._started = process, self._loop.clock()
        self._loop.add_reader(process.channel.fileno(), self._on_readable)
        log.event("spare_start", pid=process.pid)

    def send(self, message: messages.ToWorker) -> None:
        """Send it a message, if a process runs."""
        if self._process is not None:
            with suppress(ChannelError):  # `_on_readable` notices its end
                messages.send(self._process.channel, message)

    def take(self) -> WorkerProcess | None:
        """Return the process, which the caller then owns; None: none runs."""
        if self._process is not None and not self._process.is_running:
            self._on_end()  # it ended at the same moment as the worker that it would replace
        return self._release()

    def end(self) -> None:
        """Kill it at once, as it has no calls in flight, and start no other."""
        if self._restart is not None:
            self._restart.cancel()
        process = self._release()
        if process is not None:
            process.reap()

    def _release(self) -> WorkerProcess | None:
        process, self._process = self._process, None
        if process is not None:
            self._loop.remove_reader(process.channel.fileno())
        return process

    def _on_readable(self) -> None:
        assert self._process is not None  # noqa: S101 - its channel is watched
        try:
            packet = self._process.channel.receive()
            if packet is not None:
                packet.close()
                if isinstance(messages.decode_from_worker(packet), messages.Reply):
                    return
        except (ChannelError, ValueError):
            pass
        # It has ended, received SIGTERM, or sent a malformed message.
        self._on_end()

    def _on_end(self) -> None:
        process = self._release()
        assert process is not None  # noqa: S101 - the callers have checked
        code = process.reap()
        log.event("spare_exit", "warning", pid=process.pid, exit_code=code)
        self._start_later(exit_reason(code), self._loop.clock() - self._started)

    def _start_later(self, reason: str, lasted: float) -> None:
        seconds = self._restart_delay.next(lasted)
        if not seconds:
            self.start()
            return
        log.event("spare_wait", "warning", seconds=seconds, reason=reason)
        self._restart = self._loop.call_later(seconds, self._on_delay_over)

    def _on_delay_over(self) -> None:
        self._restart = None
        self.start()
