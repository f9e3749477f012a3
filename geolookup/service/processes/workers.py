"""The workers as their supervisor sees them: started, asked, ended, and started again."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from geolookup.errors import GeoLookupError, ServiceError
from geolookup.service import log
from geolookup.service.admin.control import WorkerStatus
from geolookup.service.monitoring.counters import Meter
from geolookup.service.processes.channel import ChannelError, Message
from geolookup.service.processes.dataset_loading import LoadedDataset
from geolookup.service.processes.restart_delay import RestartDelay
from geolookup.service.processes.sealed_memory import seal
from geolookup.service.processes.standby import Spare
from geolookup.service.processes.worker_process import WorkerProcess, how_it_ended, why_not_started
from geolookup.service.settings import ListenError, Settings

if TYPE_CHECKING:
    from geolookup.service.processes.event_loop import EventLoop, Timer
    from geolookup.service.processes.listen_address import HeldListenAddress

START_PATIENCE: Final = 60.0
"""Seconds that a worker may take to be ready. It takes less than one; the machine may be busy."""
MARGIN: Final = 2.0
"""Seconds beyond the grace that a worker has to end by itself. Then the system ends it."""


@dataclass(eq=False)
class Round:
    """A question to all workers, until each has answered, is gone, or is late.

    Attributes:
        kind: what they are asked.
        done: called when nobody is awaited any more.
        problems: what kept the others from it, a text each.
    """

    kind: str
    descriptors: tuple[int, ...]
    fields: dict[str, Any]
    done: Callable[[Round], None]
    joined: bool
    awaited: set[WorkerProcess] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    timer: Timer | None = None


class _Place:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.restarts = -1
        self.delay = RestartDelay()
        self.waiting_since = datetime.now(UTC)


class Crew:
    """All workers. For the loop's thread, but for `statuses`, `meters` and `serving`.

    Args:
        loop: in which all happens.
        settings: what the service was told.
        listen_address: where the workers listen.
        started: called when all workers are ready for the first time.
        failed: called when one ends before that, with why; it is started no more.
        ended: called when the last one has ended after `stop`.
    """

    def __init__(
        self,
        loop: EventLoop,
        settings: Settings,
        listen_address: HeldListenAddress,
        *,
        started: Callable[[], None],
        failed: Callable[[GeoLookupError], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._sealed = seal(pickle.dumps(settings), "settings")
        self._listen_address = listen_address
        self._on_started, self._on_failed, self._on_ended = started, failed, ended
        self._places = [_Place(number) for number in range(settings.workers)]
        # Those that want to end, and whose places others have taken: they answer until these
        # are ready, and finish their calls then.
        self._leaving: list[WorkerProcess] = []
        self._spare = Spare(loop, self._spawn_spare)
        self._rounds: dict[int, Round] = {}
        self._asked = 0
        self._deployed: tuple[int, LoadedDataset] | None = None
        self._started = self._stopping = self._drained = False
        self._retired = Meter()
        self._meters: tuple[Meter, ...] = (self._retired,)

    # --- what others see

    def meters(self) -> Sequence[Meter]:
        """Return the meters of all workers, with one for all that are no more."""
        return self._meters

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Return how the workers are, by number."""
        return tuple(self._status(place) for place in self._places)

    @property
    def serving(self) -> bool:
        """Whether a worker answers."""
        return any(process.state in ("serving", "leaving") for process in self._all())

    def _status(self, place: _Place) -> WorkerStatus:
        process = place.process
        restarts = max(0, place.restarts)
        if process is None:
            return WorkerStatus(
                place.number, 0, "waiting", "", place.waiting_since, restarts, in_flight=0
            )
        state = process.state
        if state == "serving" and (self._drained or self._stopping):
            state = "draining"
        return WorkerStatus(
            number=place.number,
            pid=process.pid,
            state=state,
            dataset=process.dataset,
            started=process.started,
            restarts=restarts,
            in_flight=process.in_flight,
        )

    # --- what is asked of them

    def start(self) -> None:
        """Start all processes. They load what is needed until `deploy` gives them a dataset."""
        for place in self._places:
            self._fill(place)

    def deploy(self, generation: int, loaded: LoadedDataset) -> None:
        """Have workers that are started from now on answer from this dataset.

        Those that have none yet get it now.
        """
        first, self._deployed = self._deployed is None, (generation, loaded)
        if first:
            for process in self._present():
                self._equip(process)
        descriptors, fields = _load_message(generation, loaded)
        self._spare.tell("load", *descriptors, **fields, round=0)

    def load(self, generation: int, loaded: LoadedDataset, done: Callable[[Round], None]) -> None:
        """Have all workers open a dataset beside the one they answer from."""
        descriptors, fields = _load_message(generation, loaded)
        self._ask("load", descriptors, fields, done, joined=True)

    def swap(self, generation: int, done: Callable[[Round], None]) -> None:
        """Have all workers answer from the dataset that they loaded."""
        self._ask("swap", (), {"generation": generation}, done)

    def forget(self, generation: int) -> None:
        """Have all workers drop a dataset that they loaded and will not answer from."""
        for process in self._present():
            self._tell(process, "forget", generation=generation)

    def drain(self, drained: bool, done: Callable[[Round], None]) -> None:
        """Have all workers' health say NOT_SERVING, or SERVING again."""
        self._drained = drained
        self._ask("health", (), {"serving": not drained}, done)

    def look(self) -> None:
        """Have all workers look at their certificates' files now."""
        for process in self._present():
            self._tell(process, "look")

    def stop(self, grace: float) -> None:
        """Have all workers end, with *grace* seconds for calls in flight. May be called again."""
        self._stopping = True
        self._spare.end()
        processes = self._all()
        for process in processes:
            self._tell(process, "stop", grace=grace)
        self._loop.call_later(grace + 2 * MARGIN, self.kill)
        if not processes:
            self._loop.call_threadsafe(self._on_ended)

    def kill(self) -> None:
        """End all workers at once."""
        for process in self._all():
            process.kill()

    def close(self) -> None:
        """End what is left, and let go of it."""
        self._spare.end()
        self.kill()
        for process in self._all():
            process.reap()
        self._sealed.close()

    # --- how they come and go

    def _all(self) -> list[WorkerProcess]:
        placed = [place.process for place in self._places if place.process is not None]
        return [*placed, *self._leaving]

    def _present(self) -> list[WorkerProcess]:
        """Return those that take calls, or will."""
        return [process for process in self._all() if process.state != "draining"]

    def _fill(self, place: _Place) -> None:
        if self._stopping or place.process is not None:
            return
        try:
            process = self._spare.take() or WorkerProcess(self._sealed)
        except (OSError, ChannelError) as error:
            self._vacate(place, why_not_started(error), 0.0)
            return
        process.number, place.process = place.number, process
        place.restarts += 1
        self._meters = (*self._meters, process.meter)
        self._loop.add_reader(process.channel.fileno(), lambda: self._hear(process))
        self._loop.call_later(START_PATIENCE, lambda: self._check_started(process))
        log.event(
            *("worker_start", "info" if not place.restarts else "warning"),
            worker=place.number, pid=process.pid, restarts=place.restarts,
        )  # fmt: skip
        listen = str(self._listen_address.of_worker(place.number))
        self._tell(process, "start", number=place.number, listen=listen)
        if self._deployed is not None:
            self._equip(process)

    def _keep_spare(self) -> None:
        """Have a spare, once the workers that are being started no longer need the processor."""
        if not self._settings.spare_worker or not self._started or self._stopping:
            return
        if all(process.state != "starting" for process in self._all()):
            self._spare.keep()

    def _spawn_spare(self) -> WorkerProcess:
        assert self._deployed is not None  # noqa: S101 - all have started
        process = WorkerProcess(self._sealed)
        descriptors, fields = _load_message(*self._deployed)
        self._tell(process, "load", *descriptors, **fields, round=0)
        return process

    def _equip(self, process: WorkerProcess) -> None:
        """Give a new process what the others have been given."""
        assert self._deployed is not None  # noqa: S101 - the callers have looked
        generation, loaded = self._deployed
        descriptors, fields = _load_message(generation, loaded)
        self._tell(process, "health", serving=not self._drained, round=0)
        self._tell(process, "load", *descriptors, **fields, round=0)
        self._tell(process, "swap", generation=generation, round=0)
        for number, asked in self._rounds.items():
            if asked.joined:
                asked.awaited.add(process)
                self._tell(process, asked.kind, *asked.descriptors, **asked.fields, round=number)

    def _check_started(self, process: WorkerProcess) -> None:
        if process.state == "starting":
            process.reason = "was not ready in time"
            process.kill()

    def _vacate(self, place: _Place, reason: str, served: float) -> None:
        """Say that a place is empty, and when it will be filled again."""
        place.process = None
        place.waiting_since = datetime.now(UTC)
        if self._stopping:
            return
        if not self._started:
            if self._deployed is not None or reason:
                self._fail(ServiceError(f"worker {place.number} {reason}"))
            return
        seconds = place.delay.next(served)
        if seconds:
            log.event(
                *("worker_wait", "error"),
                worker=place.number, restarts=place.restarts, seconds=seconds, reason=reason,
            )  # fmt: skip
            self._loop.call_later(seconds, lambda: self._fill(place))
        else:
            self._fill(place)

    def _fail(self, error: GeoLookupError) -> None:
        self._stopping = True
        self._on_failed(error)

    def _gone(self, process: WorkerProcess) -> None:
        self._loop.remove_reader(process.channel.fileno())
        code = process.reap()
        self._retire(process)
        place = self._places[process.number]
        leaving = process in self._leaving
        expected = self._stopping or leaving
        log.event(
            *("worker_exit", "info" if expected and not code else "error"),
            worker=process.number, pid=process.pid, exit_code=code,
        )  # fmt: skip
        if leaving:
            self._leaving.remove(process)
        else:
            served = 0.0 if process.ready_at is None else self._loop.clock() - process.ready_at
            self._vacate(place, process.reason or how_it_ended(code), served)
        for asked in list(self._rounds.values()):
            # From one that was to end there is nothing to wait for.
            self._settle(asked, process, "" if leaving else f"worker {process.number} ended")
        if self._stopping and not self._all():
            self._on_ended()
        self._keep_spare()

    def _retire(self, process: WorkerProcess) -> None:
        # A new one, so that who adds up the old tuple meanwhile counts nothing twice.
        retired = Meter()
        retired.absorb(self._retired)
        retired.absorb(process.meter)
        others = [meter for meter in self._meters[1:] if meter is not process.meter]
        self._retired, self._meters = retired, (retired, *others)

    # --- what they say

    def _tell(self, process: WorkerProcess, kind: str, *descriptors: int, **fields: Any) -> None:
        try:
            process.channel.send(kind, *descriptors, **fields)
        except ChannelError:
            process.kill()  # which is heard of like any other end

    def _hear(self, process: WorkerProcess) -> None:
        try:
            message = process.channel.receive()
            if message is not None:
                message.close()  # none that it sends has descriptors
                self._take(process, message)
                return
        except (ChannelError, ValueError):
            process.reason = "said what makes no sense"
        self._gone(process)

    def _take(self, process: WorkerProcess, message: Message) -> None:
        fields = message.fields
        if message.kind == "answer":
            dataset, number, error = _fields(fields, dataset=str, round=int, error=str)
            process.dataset = dataset
            asked = self._rounds.get(number)
            if asked is not None:
                self._settle(asked, process, error and f"worker {process.number}: {error}")
        elif message.kind == "ready":
            if process in self._leaving:
                return  # told to end before it had begun
            process.state = "serving"
            process.ready_at = self._loop.clock()
            for leaving in self._leaving:
                if leaving.number == process.number and leaving.state == "leaving":
                    self._let_go(leaving)
            self._check_all_started()
            self._keep_spare()
        elif message.kind == "failed":
            process.reason, listen = _fields(fields, reason=str, listen=bool)
            if not self._started and not self._stopping:
                self._fail((ListenError if listen else ServiceError)(process.reason))
        elif message.kind == "leaving":
            self._leave(process)
        else:
            raise ValueError("kind")

    def _check_all_started(self) -> None:
        if not self._started and not self._stopping:
            self._started = all(
                place.process is not None and place.process.state == "serving"
                for place in self._places
            )
            if self._started:
                self._on_started()

    def _leave(self, process: WorkerProcess) -> None:
        """Fill the place of a worker that was told to end (SIGTERM), and then let it go.

        Connections that a listener holds and has not accepted are lost when it closes, so
        there must be another before. Of a unix socket there can be no other.
        """
        if process in self._leaving:
            return
        if self._stopping or not self._started:
            self._let_go(process)
            return
        place = self._places[process.number]
        place.process = None
        self._leaving.append(process)
        if process.state == "serving" and self._listen_address.shared:
            process.state = "leaving"
        else:
            self._let_go(process)
        self._fill(place)

    def _let_go(self, process: WorkerProcess) -> None:
        process.state = "draining"
        self._tell(process, "stop", grace=self._settings.grace)

    # --- rounds

    def _ask(
        self,
        kind: str,
        descriptors: tuple[int, ...],
        fields: dict[str, Any],
        done: Callable[[Round], None],
        *,
        joined: bool = False,
    ) -> None:
        self._asked += 1
        number = self._asked
        asked = Round(kind, descriptors, fields, done, joined, set(self._present()))
        self._rounds[number] = asked
        asked.timer = self._loop.call_later(START_PATIENCE, lambda: self._give_up(asked))
        for process in list(asked.awaited):
            self._tell(process, kind, *descriptors, **fields, round=number)
        self._conclude(asked)

    def _settle(self, asked: Round, process: WorkerProcess, problem: str) -> None:
        if process not in asked.awaited:
            return
        asked.awaited.remove(process)
        if problem:
            asked.problems.append(problem)
        self._conclude(asked)

    def _give_up(self, asked: Round) -> None:
        for process in list(asked.awaited):
            process.reason = "did not answer its supervisor"
            process.kill()
            self._settle(asked, process, f"worker {process.number} did not answer")

    def _conclude(self, asked: Round) -> None:
        if asked.awaited:
            return
        if asked.timer is not None:
            asked.timer.cancel()
        self._rounds = {n: other for n, other in self._rounds.items() if other is not asked}
        asked.done(asked)


def _fields(fields: Mapping[str, Any], **kinds: type) -> list[Any]:
    """Return fields of a worker's message.

    Raises:
        ValueError: one is missing, or of another type.
    """
    values = [fields.get(name) for name in kinds]
    if not all(type(value) is kind for value, kind in zip(values, kinds.values(), strict=True)):
        raise ValueError("fields")
    return values


def _load_message(generation: int, loaded: LoadedDataset) -> tuple[tuple[int, ...], dict[str, Any]]:
    fields: dict[str, Any] = {
        "generation": generation,
        "name": loaded.file.name,
        "size": loaded.file.size,
    }
    descriptors = [loaded.file.descriptor]
    for name, sealed in (("region_sets", loaded.region_sets), ("rules", loaded.rules)):
        if sealed is not None:
            descriptors.append(sealed.descriptor)
            fields[name], fields[f"{name}_size"] = sealed.name, sealed.size
    return tuple(descriptors), fields
