"""The worker pool, as the supervisor sees it: processes in slots, started and started again."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from geolookup.errors import GeoLookupError, ServiceError
from geolookup.service import log
from geolookup.service.admin.control import WorkerState, WorkerStatus
from geolookup.service.monitoring.counters import Counters
from geolookup.service.processes import messages
from geolookup.service.processes.channel import ChannelError
from geolookup.service.processes.messages import (
    START_TIMEOUT,
    STOP_MARGIN,
    Discard,
    Failed,
    FromWorker,
    Load,
    Ready,
    ReloadCertificates,
    Reply,
    RetireConnections,
    SetHealth,
    Start,
    Stop,
    StopRequested,
    Swap,
    ToWorker,
)
from geolookup.service.processes.probes import INTERVAL, Probe, open_probe
from geolookup.service.processes.restart_delay import RestartDelay
from geolookup.service.processes.sealed_memory import seal
from geolookup.service.processes.standby import Standby
from geolookup.service.processes.worker_process import WorkerProcess, exit_reason, spawn_failure
from geolookup.service.settings import ListenError, Settings

if TYPE_CHECKING:
    from geolookup.service.processes.dataset_loading import LoadedDataset
    from geolookup.service.processes.event_loop import EventLoop, Timer
    from geolookup.service.processes.listen_address import HeldListenAddress


@dataclass(eq=False)
class Broadcast:
    """A request to all workers, until each has replied, ended or run out of time.

    Attributes:
        request: the message.
        on_done: called when no reply is awaited any more.
        includes_new: whether workers that start meanwhile get the request, too.
        awaited: the workers whose replies are awaited.
        problems: error texts, one for each worker that failed.
        timeout: ends the workers that have not replied.
    """

    request: Load | Swap | SetHealth
    on_done: Callable[[Broadcast], None]
    includes_new: bool
    awaited: set[WorkerProcess]
    problems: list[str] = field(default_factory=list)
    timeout: Timer | None = None


_FIRST_PROBE: Final = 0.1
"""Seconds after which a worker that is ready is asked for its first lookup."""
_MISSED: Final = 2
"""Lookups without an answer from which on a worker no longer counts as serving."""


class _WorkerSlot:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.restarts = -1
        self.restart_delay = RestartDelay()
        self.empty_since = datetime.now(UTC)


class WorkerPool:
    """All workers. For the event loop's thread, but for `statuses`, `counters` and `serving`.

    Args:
        loop: the supervisor's event loop.
        settings: of the service.
        listen_address: the address that is held for the workers.
        http_address: that for JSON over HTTP/1.1; None: there is none.
        on_started: called when all workers are ready for the first time.
        on_failed: called with the error when a worker ends before that; none is restarted then.
        on_ended: called when the last worker has ended after `stop`.
    """

    def __init__(
        self,
        loop: EventLoop,
        settings: Settings,
        listen_address: HeldListenAddress,
        *,
        http_address: HeldListenAddress | None = None,
        on_started: Callable[[], None],
        on_failed: Callable[[GeoLookupError], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._sealed_settings = seal(pickle.dumps(settings), "settings")
        self._listen_address, self._http_address = listen_address, http_address
        self._on_started, self._on_failed, self._on_ended = on_started, on_failed, on_ended
        self._slots = [_WorkerSlot(number) for number in range(settings.workers)]
        # Workers that requested a stop and whose slots others have: they serve until the new
        # ones are ready, then they finish their calls.
        self._replaced: list[WorkerProcess] = []
        self._standby = Standby(loop, self._spawn_standby)
        self._broadcasts: dict[int, Broadcast] = {}
        self._last_broadcast = 0
        # Of the workers that serve. A new object for each change: other threads read it.
        self._probes: dict[WorkerProcess, Probe] = {}
        self._deployed: tuple[int, LoadedDataset] | None = None
        self._started = self._stopping = self._drained = False
        # The counts of all workers that have ended, then those of each process.
        self._counters: tuple[Counters, ...] = (Counters(),)

    # --- state, for any thread

    def counters(self) -> Sequence[Counters]:
        """Return the counters of all workers, and one for all workers that have ended."""
        return self._counters

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Return the status of each worker slot, by number."""
        return tuple(self._status(slot) for slot in self._slots)

    @property
    def serving(self) -> bool:
        """Whether a worker answers calls."""
        answering = (WorkerState.SERVING, WorkerState.HANDING_OVER)
        return any(
            process.state in answering and not self._is_unresponsive(process)
            for process in self._all()
        )

    def _status(self, slot: _WorkerSlot) -> WorkerStatus:
        process = slot.process
        restarts = max(0, slot.restarts)
        if process is None:
            return WorkerStatus(
                number=slot.number,
                pid=0,
                state=WorkerState.WAITING,
                dataset="",
                started=slot.empty_since,
                restarts=restarts,
                in_flight=0,
            )
        state = process.state
        if state is WorkerState.SERVING and (self._drained or self._stopping):
            state = WorkerState.DRAINING
        elif state is WorkerState.SERVING and self._is_unresponsive(process):
            state = WorkerState.UNRESPONSIVE
        probe = self._probes.get(process)
        return WorkerStatus(
            number=slot.number,
            pid=process.pid,
            state=state,
            dataset=process.dataset,
            started=process.started,
            restarts=restarts,
            in_flight=process.in_flight,
            answered=None if probe is None else probe.answered,
            answer_seconds=0.0 if probe is None else probe.seconds,
        )

    # --- operations

    def start(self) -> None:
        """Start all processes. They load their code, and serve when `deploy` gives a dataset."""
        for slot in self._slots:
            self._start_worker(slot)

    def deploy(self, generation: int, loaded: LoadedDataset) -> None:
        """Give this dataset to workers that start from now on, and to those that have none."""
        first, self._deployed = self._deployed is None, (generation, loaded)
        if first:
            for process in self._live():
                self._initialise(process)
        self._standby.send(_load_message(0, generation, loaded))

    def load(
        self, generation: int, loaded: LoadedDataset, on_done: Callable[[Broadcast], None]
    ) -> None:
        """Have all workers open a dataset beside the one in service."""
        self._broadcast(
            lambda number: _load_message(number, generation, loaded), on_done, includes_new=True
        )

    def swap(self, generation: int, on_done: Callable[[Broadcast], None]) -> None:
        """Have all workers answer from the dataset that they loaded."""
        self._broadcast(lambda number: Swap(number, generation), on_done)

    def discard(self, generation: int) -> None:
        """Have all workers drop a dataset that they loaded."""
        for process in self._live():
            self._send(process, Discard(generation))

    def drain(self, drained: bool, on_done: Callable[[Broadcast], None]) -> None:
        """Have all workers answer health checks with NOT_SERVING, or SERVING again."""
        self._drained = drained
        self._broadcast(lambda number: SetHealth(number, serving=not drained), on_done)

    def reload_certificates(self) -> None:
        """Have all workers read their certificates again, if the files have changed."""
        for process in self._live():
            self._send(process, ReloadCertificates())

    def retire(self) -> None:
        """Have all clients go elsewhere, while calls are answered and connections accepted."""
        self.drain(True, lambda _: None)
        for process in self._live():
            self._send(process, RetireConnections())

    def stop(self, grace: float) -> None:
        """Stop all workers, with *grace* seconds for calls in flight. May be called again."""
        self._stopping = True
        self._standby.end()
        processes = self._all()
        for process in processes:
            self._end_probes(process)
            self._send(process, Stop(grace))
        self._loop.call_later(grace + 2 * STOP_MARGIN, self.kill)
        if not processes:
            self._loop.call_threadsafe(self._on_ended)

    def kill(self) -> None:
        """Kill all workers."""
        for process in self._all():
            process.kill()

    def close(self) -> None:
        """Kill the workers that are left, and release everything."""
        self._standby.end()
        self.kill()
        for process in self._all():
            process.reap()
        self._sealed_settings.close()

    # --- processes and slots

    def _all(self) -> list[WorkerProcess]:
        return [*(slot.process for slot in self._slots if slot.process), *self._replaced]

    def _live(self) -> list[WorkerProcess]:
        """Return the workers that take calls, or will."""
        return [process for process in self._all() if process.state is not WorkerState.DRAINING]

    def _start_worker(self, slot: _WorkerSlot) -> None:
        if self._stopping or slot.process is not None:
            return
        try:
            process = self._standby.take() or WorkerProcess(self._sealed_settings)
        except (OSError, ChannelError) as error:
            self._vacate(slot, spawn_failure(error), 0.0)
            return
        process.number, slot.process = slot.number, process
        slot.restarts += 1
        self._counters = (*self._counters, process.counters)
        self._loop.add_reader(process.channel.fileno(), lambda: self._on_readable(process))
        self._loop.call_later(START_TIMEOUT, lambda: self._on_start_timeout(process))
        log.event(
            "worker_start",
            "warning" if slot.restarts else "info",
            worker=slot.number,
            pid=process.pid,
            restarts=slot.restarts,
        )
        listen = str(self._listen_address.of_worker(slot.number))
        http = self._http_address
        self._send(
            process,
            Start(slot.number, listen, "" if http is None else str(http.of_worker(slot.number))),
        )
        if self._deployed is not None:
            self._initialise(process)

    def _ensure_standby(self) -> None:
        """Start a standby, once the workers that start no longer need the processor."""
        if not self._settings.spare_worker or not self._started or self._stopping:
            return
        if all(process.state is not WorkerState.STARTING for process in self._all()):
            self._standby.start()

    def _spawn_standby(self) -> WorkerProcess:
        assert self._deployed is not None  # noqa: S101 - all workers have started
        process = WorkerProcess(self._sealed_settings)
        self._send(process, _load_message(0, *self._deployed))
        return process

    def _initialise(self, process: WorkerProcess) -> None:
        """Send a new process all that the other workers have been sent."""
        assert self._deployed is not None  # noqa: S101 - the callers have checked
        generation, loaded = self._deployed
        self._send(process, SetHealth(0, serving=not self._drained))
        self._send(process, _load_message(0, generation, loaded))
        self._send(process, Swap(0, generation))
        for broadcast in self._broadcasts.values():
            if broadcast.includes_new:
                broadcast.awaited.add(process)
                self._send(process, broadcast.request)

    def _on_start_timeout(self, process: WorkerProcess) -> None:
        if process.state is WorkerState.STARTING:
            process.failure = "was not ready in time"
            process.kill()

    def _vacate(self, slot: _WorkerSlot, reason: str, served: float) -> None:
        """Empty a slot, and schedule the start of the next process."""
        slot.process = None
        slot.empty_since = datetime.now(UTC)
        if self._stopping:
            return
        if not self._started:
            if self._deployed is not None or reason:
                self._fail(ServiceError(f"worker {slot.number} {reason}"))
            return
        seconds = slot.restart_delay.next(served)
        if seconds:
            log.event(
                "worker_wait",
                "error",
                worker=slot.number,
                restarts=slot.restarts,
                seconds=seconds,
                reason=reason,
            )
            self._loop.call_later(seconds, lambda: self._start_worker(slot))
        else:
            self._start_worker(slot)

    def _fail(self, error: GeoLookupError) -> None:
        self._stopping = True
        self._on_failed(error)

    def _on_end(self, process: WorkerProcess) -> None:
        self._loop.remove_reader(process.channel.fileno())
        self._end_probes(process)
        code = process.reap()
        self._retire_counters(process)
        slot = self._slots[process.number]
        replaced = process in self._replaced
        expected = self._stopping or replaced
        log.event(
            "worker_exit",
            "info" if expected and not code else "error",
            worker=process.number,
            pid=process.pid,
            exit_code=code,
        )
        if replaced:
            self._replaced.remove(process)
        else:
            served = 0.0 if process.ready_at is None else self._loop.clock() - process.ready_at
            self._vacate(slot, process.failure or exit_reason(code), served)
        # The end of a replaced worker is expected, so it fails no broadcast.
        problem = "" if replaced else f"worker {process.number} ended"
        for broadcast in list(self._broadcasts.values()):
            self._acknowledge(broadcast, process, problem)
        if self._stopping and not self._all():
            self._on_ended()
        self._ensure_standby()

    def _retire_counters(self, process: WorkerProcess) -> None:
        # A new object, so that a thread that adds up the old tuple counts nothing twice.
        ended, *running = self._counters
        retired = Counters()
        retired.absorb(ended)
        retired.absorb(process.counters)
        self._counters = (retired, *(one for one in running if one is not process.counters))

    # --- probes

    def _is_unresponsive(self, process: WorkerProcess) -> bool:
        probe = self._probes.get(process)
        return probe is not None and probe.missed >= _MISSED

    def _begin_probes(self, process: WorkerProcess) -> None:
        if process in self._probes:
            return  # it says again that it is ready
        probe = open_probe(self._settings, self._loop, process.lookups)
        self._probes = {**self._probes, process: probe}
        self._loop.call_later(_FIRST_PROBE, lambda: self._probe(process))

    def _probe(self, process: WorkerProcess) -> None:
        probe = self._probes.get(process)
        if probe is None:
            return
        probe.ask()
        limit = self._settings.worker_timeout
        if limit and probe.missed * INTERVAL >= limit:
            process.failure = f"did not answer a lookup for {probe.missed * INTERVAL:g} s"
            log.event(
                "worker_stalled",
                "error",
                worker=process.number,
                pid=process.pid,
                reason=process.failure,
            )
            self._end_probes(process)
            process.kill()  # `_on_end` follows
            return
        self._loop.call_later(INTERVAL, lambda: self._probe(process))

    def _end_probes(self, process: WorkerProcess) -> None:
        probe = self._probes.get(process)
        if probe is not None:
            probe.close()
            self._probes = {one: its for one, its in self._probes.items() if one is not process}

    # --- messages

    def _send(self, process: WorkerProcess, message: ToWorker) -> None:
        try:
            messages.send(process.channel, message)
        except ChannelError:
            process.kill()  # `_on_end` follows, as with any other end

    def _on_readable(self, process: WorkerProcess) -> None:
        try:
            packet = process.channel.receive()
            if packet is not None:
                packet.close()  # no message from a worker has descriptors
                self._on_message(process, messages.decode_from_worker(packet))
                return
        except (ChannelError, ValueError):
            process.failure = "sent a malformed message"
        self._on_end(process)

    def _on_message(self, process: WorkerProcess, message: FromWorker) -> None:
        match message:
            case Reply():
                process.dataset = message.dataset
                broadcast = self._broadcasts.get(message.broadcast)
                if broadcast is not None:
                    problem = message.error and f"worker {process.number}: {message.error}"
                    self._acknowledge(broadcast, process, problem)
            case Ready():
                self._on_ready(process)
            case Failed():
                process.failure = message.reason
                if not self._started and not self._stopping:
                    kind = ListenError if message.is_listen_error else ServiceError
                    self._fail(kind(message.reason))
            case StopRequested():
                self._on_stop_requested(process)

    def _on_ready(self, process: WorkerProcess) -> None:
        if process in self._replaced:
            return  # it was asked to stop before it was ready
        process.state = WorkerState.SERVING
        process.ready_at = self._loop.clock()
        self._begin_probes(process)
        for replaced in self._replaced:
            if replaced.number == process.number and replaced.state is WorkerState.HANDING_OVER:
                self._stop_worker(replaced)
        if not self._started and not self._stopping:
            self._started = all(
                slot.process is not None and slot.process.state is WorkerState.SERVING
                for slot in self._slots
            )
            if self._started:
                self._on_started()
        self._ensure_standby()

    def _on_stop_requested(self, process: WorkerProcess) -> None:
        """Replace a worker that received SIGTERM, and stop it once the new one serves.

        Connections that a listener holds and has not accepted are lost when it closes, so
        another must listen before. Two processes can't listen on one unix socket.
        """
        if process in self._replaced:
            return
        if self._stopping or not self._started:
            self._stop_worker(process)
            return
        slot = self._slots[process.number]
        slot.process = None
        self._replaced.append(process)
        if process.state is WorkerState.SERVING and self._shares_addresses:
            process.state = WorkerState.HANDING_OVER
        else:
            self._stop_worker(process)
        self._start_worker(slot)

    @property
    def _shares_addresses(self) -> bool:
        """Whether two workers can listen where one does."""
        http = self._http_address
        return self._listen_address.shared and (http is None or http.shared)

    def _stop_worker(self, process: WorkerProcess) -> None:
        process.state = WorkerState.DRAINING
        self._end_probes(process)
        self._send(process, Stop(self._settings.grace))

    # --- broadcasts

    def _broadcast(
        self,
        request_of: Callable[[int], Load | Swap | SetHealth],
        on_done: Callable[[Broadcast], None],
        *,
        includes_new: bool = False,
    ) -> None:
        self._last_broadcast += 1
        number = self._last_broadcast
        broadcast = Broadcast(request_of(number), on_done, includes_new, set(self._live()))
        self._broadcasts[number] = broadcast
        broadcast.timeout = self._loop.call_later(
            START_TIMEOUT, lambda: self._on_reply_timeout(broadcast)
        )
        for process in list(broadcast.awaited):
            self._send(process, broadcast.request)
        self._finish_if_done(broadcast)

    def _acknowledge(self, broadcast: Broadcast, process: WorkerProcess, problem: str) -> None:
        if process not in broadcast.awaited:
            return
        broadcast.awaited.remove(process)
        if problem:
            broadcast.problems.append(problem)
        self._finish_if_done(broadcast)

    def _on_reply_timeout(self, broadcast: Broadcast) -> None:
        for process in list(broadcast.awaited):
            process.failure = "did not answer its supervisor"
            process.kill()
            self._acknowledge(broadcast, process, f"worker {process.number} did not answer")

    def _finish_if_done(self, broadcast: Broadcast) -> None:
        if broadcast.awaited:
            return
        if broadcast.timeout is not None:
            broadcast.timeout.cancel()
        del self._broadcasts[broadcast.request.broadcast]
        broadcast.on_done(broadcast)


def _load_message(broadcast: int, generation: int, loaded: LoadedDataset) -> Load:
    return Load(broadcast, generation, loaded.file, loaded.region_sets, loaded.rules)
