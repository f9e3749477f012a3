"""The pool: places are filled again, questions end, and no worker can harm its supervisor.

The workers here are ends of lines that the tests hold. Real ones are in the tests of
the whole service.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geolookup.errors import GeoLookupError, ServiceError
from geolookup.service.admin.control import WorkerState
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import Counters
from geolookup.service.processes import messages
from geolookup.service.processes import workers as module
from geolookup.service.processes.channel import Channel
from geolookup.service.processes.event_loop import EventLoop
from geolookup.service.processes.messages import (
    START_TIMEOUT,
    STOP_MARGIN,
    Discard,
    Failed,
    Load,
    Ready,
    Reply,
    SetHealth,
    Start,
    Stop,
    StopRequested,
    Swap,
)
from geolookup.service.processes.probes import INTERVAL
from geolookup.service.processes.sealed_memory import SealedCopy, seal
from geolookup.service.processes.workers import Broadcast, WorkerPool
from geolookup.service.rpc.transports import private_port
from geolookup.service.settings import ListenAddress, ListenError, Settings

DATASET, SETS = "d" * 64, "/sets.toml"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A process, as the pool sees it; the test holds the other end of its channel."""

    pids = itertools.count(70_000)

    def __init__(self, settings: SealedCopy) -> None:
        assert pickle.loads(os.pread(settings.descriptor, settings.size, 0)) is not None  # noqa: S301 - our own
        self.number = -1
        self.state, self.dataset, self.failure = WorkerState.STARTING, "", ""
        self.started: Any = None
        self.ready_at: float | None = None
        self.channel, self.other = Channel.pair()
        self.lookups, self.asked = socket.socketpair()
        self.counters = Counters()
        self.pid = next(self.pids)
        self.killed = False
        self.code = 0
        self.answer = private_port.ANSWERED

    @property
    def in_flight(self) -> int:
        return max(0, sum(self.counters.read()["in_flight"]))

    @property
    def is_running(self) -> bool:
        return self.other.fileno() != -1

    def kill(self) -> None:
        if not self.killed:
            self.killed, self.code = True, -9
            self.other.close()

    def reap(self) -> int:
        self.channel.close()
        self.other.close()
        self.lookups.close()
        self.asked.close()
        return self.code

    # what the test does

    def end(self, code: int) -> None:
        self.code = code
        self.other.close()

    def send(self, message: messages.FromWorker) -> None:
        messages.send(self.other, message)

    def received(self) -> list[Any]:
        """Return the messages that it was sent since the last call."""
        connection = self.other._connection
        connection.setblocking(False)
        found: list[Any] = []
        with contextlib.suppress(module.ChannelError):
            while (packet := self.other.receive()) is not None:
                message = messages.decode_to_worker(packet)
                packet.close()
                found.append(message)
        return found

    def kinds(self) -> list[type]:
        return list(map(type, self.received()))

    def answer_lookup(self) -> None:
        """Answer the lookup that it was asked for since the last call, if there was one."""
        with contextlib.suppress(OSError):
            if self.asked.recv(4_096, socket.MSG_DONTWAIT) and self.answer:
                self.asked.send(self.answer)

    def reply(self, request: Any, error: str = "", dataset: str = DATASET) -> None:
        self.send(Reply(request.broadcast, dataset, error))


class Scene:
    """A worker pool, its workers, and the callbacks that it made."""

    def __init__(self, loop: EventLoop, clock: Clock, workers: int, *, standby: bool) -> None:
        self.loop, self.clock = loop, clock
        self.outcomes: list[object] = []
        listen_address: Any = SimpleNamespace(
            of_worker=lambda number: ListenAddress("127.0.0.1", 1_000 + number), shared=True
        )
        self.workers: list[Worker] = []
        self.refuse: OSError | None = None
        self.closed = False
        self.pool = WorkerPool(
            loop,
            # Its lookups are the simpler ones to answer.
            Settings(workers=workers, spare_worker=standby, transport="threads"),
            listen_address,
            on_started=lambda: self.outcomes.append("started"),
            on_failed=self.outcomes.append,
            on_ended=lambda: self.outcomes.append("ended"),
        )
        self.loaded: Any = SimpleNamespace(
            file=seal(b"dataset", "d.geolookup"), region_sets=None, rules=None
        )

    def make(self, settings: SealedCopy) -> Worker:
        if self.refuse is not None:
            raise self.refuse
        worker = Worker(settings)
        self.workers.append(worker)
        return worker

    def settle(self, seconds: float = 0) -> None:
        """Let time pass, and all be done that is due or was said."""
        self.clock.now += seconds
        more = True
        while more:
            self.loop.call_later(0, self.loop.stop)
            self.loop.run()
            for worker in self.workers:
                worker.answer_lookup()
            more = bool(self.loop._selector.select(0))

    def start(self) -> None:
        """Have all workers ready, and forget what they were told."""
        self.pool.start()
        self.pool.deploy(1, self.loaded)
        for worker in self.workers:
            worker.send(Ready())
        started = list(self.workers)
        self.settle()
        for worker in started:
            worker.received()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.pool.close()

    def present(self) -> list[int]:
        return [status.pid for status in self.pool.statuses() if status.pid]

    def states(self) -> list[str]:
        return [status.state for status in self.pool.statuses()]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two workers, and no standby."""
    with scene_of(monkeypatch, standby=False) as made:
        yield made


@pytest.fixture
def with_standby(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two workers, and a standby when they serve."""
    with scene_of(monkeypatch, standby=True) as made:
        yield made


@contextlib.contextmanager
def scene_of(monkeypatch: pytest.MonkeyPatch, *, standby: bool) -> Iterator[Scene]:
    clock = Clock()
    with EventLoop(clock) as loop:
        made = Scene(loop, clock, workers=2, standby=standby)
        monkeypatch.setattr(module, "WorkerProcess", made.make)
        yield made
        made.close()
        made.loaded.file.close()
        for worker in made.workers:
            worker.reap()


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.message == name]


# lookups


@pytest.mark.parametrize("answer", [b"", private_port.FAILED], ids=["none", "an error"])
def test_worker_that_answers_no_lookup_is_replaced(
    scene: Scene, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    scene.start()
    scene.settle(INTERVAL)
    silent = scene.workers[0]
    silent.answer = answer
    seen = []
    while not silent.killed:
        scene.settle(INTERVAL)
        seen.append(scene.states())
        assert scene.pool.serving
    # A lookup without an answer is missed when the next one is due, an error at once.
    late = 0 if answer else 1
    assert seen[:4] == [["serving", "serving"]] * (1 + late) + [["unresponsive", "serving"]] * (
        3 - late
    )
    assert len(seen) == 6
    assert len(scene.workers) == 3
    (stalled,) = events(caplog, "worker_stalled")
    assert stalled == {
        "worker": 0,
        "pid": silent.pid,
        "reason": "did not answer a lookup for 5 s",
    }
    assert not scene.workers[1].killed


def test_worker_that_answers_again_in_time_serves(scene: Scene) -> None:
    scene.start()
    scene.settle(INTERVAL)
    late = scene.workers[0]
    late.answer = b""
    for _ in range(4):
        scene.settle(INTERVAL)
    assert scene.states() == ["unresponsive", "serving"]
    late.asked.send(private_port.ANSWERED)
    late.answer = private_port.ANSWERED
    scene.settle()
    assert scene.states() == ["serving", "serving"]
    for _ in range(10):
        scene.settle(INTERVAL)
    assert not late.killed


def test_no_worker_answers_pool_is_not_serving(scene: Scene) -> None:
    scene.start()
    for worker in scene.workers:
        worker.answer = b""
    for _ in range(4):
        scene.settle(INTERVAL)
    assert scene.states() == ["unresponsive", "unresponsive"]
    assert not scene.pool.serving


def test_supervisor_that_was_stopped_itself_replaces_no_worker(scene: Scene) -> None:
    scene.start()
    scene.settle(INTERVAL)
    scene.settle(3_600)
    scene.settle(INTERVAL)
    assert scene.states() == ["serving", "serving"]
    assert [worker.killed for worker in scene.workers] == [False, False]


def test_status_says_when_a_worker_last_answered(scene: Scene) -> None:
    scene.start()
    assert [status.answered for status in scene.pool.statuses()] == [None, None]
    scene.settle(INTERVAL)
    assert all(status.answered is not None for status in scene.pool.statuses())


# start


def test_start_sends_each_worker_its_slot_and_the_dataset(scene: Scene) -> None:
    scene.pool.start()
    for number, worker in enumerate(scene.workers):
        start = one(worker.received())
        assert start == Start(number, f"127.0.0.1:{1_000 + number}", "")
    assert scene.states() == ["starting", "starting"]
    assert not scene.pool.serving
    scene.pool.deploy(1, scene.loaded)
    for worker in scene.workers:
        health, load, swap = worker.received()
        assert health == SetHealth(0, serving=True)
        assert load == Load(
            0, 1, SealedCopy(load.file.descriptor, "d.geolookup", 7), region_sets=None, rules=None
        )
        assert load.is_complete
        assert swap == Swap(0, 1)


def test_load_brings_region_sets_with_the_dataset(scene: Scene) -> None:
    scene.loaded.region_sets = seal(b"sets", SETS)
    scene.pool.start()
    scene.pool.deploy(1, scene.loaded)
    _, _, load, _ = scene.workers[0].received()
    assert load.is_complete
    assert (load.region_sets.name, load.region_sets.size) == (SETS, 4)
    scene.loaded.region_sets.close()


def test_pool_has_started_when_each_worker_is_ready(scene: Scene) -> None:
    scene.pool.start()
    scene.pool.deploy(1, scene.loaded)
    first, second = scene.workers
    first.send(Ready())
    scene.settle()
    assert (scene.outcomes, scene.states()) == ([], ["serving", "starting"])
    assert scene.pool.serving
    second.send(Ready())
    scene.settle()
    assert (scene.outcomes, scene.states()) == (["started"], ["serving", "serving"])


@pytest.mark.parametrize(("listen", "kind"), [(True, ListenError), (False, ServiceError)])
def test_worker_that_fails_at_the_start_gives_the_error(
    scene: Scene, listen: bool, kind: type[GeoLookupError]
) -> None:
    scene.pool.start()
    scene.workers[0].send(Failed("listen: in use", listen))
    scene.settle()
    scene.workers[0].end(1)
    scene.settle()
    (error,) = scene.outcomes
    assert type(error) is kind
    assert str(error) == "listen: in use"


@pytest.mark.parametrize(
    ("code", "text"), [(3, "ended with exit code 3"), (-11, "was ended by signal 11")]
)
def test_worker_that_ends_before_the_start_is_not_restarted(
    scene: Scene, code: int, text: str
) -> None:
    scene.pool.start()
    scene.pool.deploy(1, scene.loaded)
    scene.workers[1].end(code)
    scene.settle()
    (error,) = scene.outcomes
    assert str(error) == f"worker 1 {text}"
    assert len(scene.workers) == 2


def test_worker_that_is_not_ready_in_time_is_killed(scene: Scene) -> None:
    scene.pool.start()
    scene.pool.deploy(1, scene.loaded)
    scene.workers[0].send(Ready())
    scene.settle(START_TIMEOUT)
    assert [worker.killed for worker in scene.workers] == [False, True]
    assert [str(error) for error in scene.outcomes] == ["worker 1 was not ready in time"]


# places


def test_slot_is_refilled_at_once_the_first_time(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene.start()
    scene.workers[0].end(-9)
    scene.settle()
    assert len(scene.workers) == 3
    newest = scene.workers[2]
    assert newest.number == 0
    assert newest.kinds() == [Start, SetHealth, Load, Swap]
    assert scene.states() == ["starting", "serving"]
    assert scene.pool.statuses()[0].restarts == 1
    (ended,) = events(caplog, "worker_exit")
    assert ended == {"worker": 0, "pid": scene.workers[0].pid, "exit_code": -9}
    assert scene.pool.serving


def test_slot_whose_workers_end_repeatedly_waits_longer_each_time(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.start()
    scene.workers[0].end(1)
    scene.settle()
    for wait in (0.1, 0.2, 0.4):
        scene.workers[-1].end(1)
        scene.settle()
        assert scene.states() == ["waiting", "serving"]
        scene.settle(wait * 0.9)
        assert scene.states() == ["waiting", "serving"]
        scene.settle(wait * 0.2)
        assert scene.states() == ["starting", "serving"]
    waits = events(caplog, "worker_wait")
    assert [fields["seconds"] for fields in waits] == pytest.approx([0.1, 0.2, 0.4])
    assert {fields["reason"] for fields in waits} == {"ended with exit code 1"}


def test_worker_that_served_for_long_is_replaced_at_once(scene: Scene) -> None:
    scene.start()
    for _ in range(4):
        scene.settle(10.1)
        scene.workers[-1].end(1)
        scene.settle()
        scene.workers[-1].send(Ready())
        scene.settle()
        assert scene.states() == ["serving", "serving"]


def test_process_that_can_not_start_is_tried_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    scene.workers[0].end(1)
    scene.settle()
    assert scene.states() == ["waiting", "serving"]
    reason = "can't be started: Resource temporarily unavailable"
    assert events(caplog, "worker_wait")[-1]["reason"] == reason
    scene.refuse = None
    scene.settle(30)
    assert scene.states() == ["starting", "serving"]


def test_worker_that_requests_a_stop_serves_until_another_does(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene.start()
    leaving = scene.workers[0]
    for _ in range(2):  # a second time it changes nothing
        leaving.send(StopRequested())
        scene.settle()
    assert len(scene.workers) == 3
    assert scene.states() == ["starting", "serving"]
    assert leaving.kinds() == []
    # It is asked what the others are, and waited for.
    done: list[Broadcast] = []
    scene.pool.swap(2, done.append)
    for worker in scene.workers[1:]:
        worker.reply(worker.received()[-1])
    scene.settle()
    assert done == []
    leaving.reply(one(leaving.received()))
    scene.settle()
    assert [ended.problems for ended in done] == [[]]
    # One that fails to take its place is no reason to go.
    scene.workers[2].end(1)
    scene.settle()
    assert leaving.kinds() == []
    scene.settle(0.2)
    scene.workers[3].send(Ready())
    scene.settle()
    stop = one(leaving.received())
    assert stop == Stop(Settings().grace)
    # It takes no calls any more, so it is asked nothing.
    scene.pool.reload_certificates()
    assert leaving.kinds() == []
    leaving.end(0)
    scene.settle()
    assert len(scene.workers) == 4
    assert scene.states() == ["serving", "serving"]
    levels = [record.levelname for record in caplog.records if record.message == "worker_exit"]
    assert levels == ["ERROR", "INFO"]


@pytest.mark.parametrize("why", ["it has a socket of its own", "it was not ready"])
def test_worker_that_requests_a_stop_stops_at_once_if(scene: Scene, why: str) -> None:
    scene.start()
    leaving = scene.workers[0]
    if why == "it was not ready":
        leaving.end(1)
        scene.settle()
        leaving = scene.workers[2]
        leaving.received()
    else:
        scene.pool._listen_address.shared = False
    leaving.send(StopRequested())
    scene.settle()
    assert leaving.kinds() == [Stop]
    leaving.send(Ready())  # it crosses the other's word
    scene.settle()
    assert scene.states() == ["starting", "serving"]
    leaving.end(0)
    scene.settle()
    assert scene.states() == ["starting", "serving"]


def test_broadcast_ignores_the_end_of_a_replaced_worker(scene: Scene) -> None:
    scene.start()
    leaving, other = scene.workers
    leaving.send(StopRequested())
    scene.settle()
    done: list[Broadcast] = []
    scene.pool.swap(2, done.append)
    for worker in (other, scene.workers[2]):
        worker.reply(worker.received()[-1])
    leaving.end(0)
    scene.settle()
    assert [ended.problems for ended in done] == [[]]


def test_pool_serves_while_a_worker_hands_over(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    scene.workers[1].end(1)
    scene.workers[0].send(StopRequested())
    scene.settle()
    assert scene.states() == ["waiting", "waiting"]
    assert scene.pool.serving
    scene.workers[0].end(0)
    scene.settle()
    assert not scene.pool.serving


def test_counters_outlive_their_worker(scene: Scene) -> None:
    scene.start()
    for worker in scene.workers:
        worker.counters.begin(Method.LOOKUP)
        worker.counters.end(Method.LOOKUP, 0, 1_000)
        worker.counters.begin(Method.LOOKUP)
    assert [status.in_flight for status in scene.pool.statuses()] == [1, 1]
    for code in range(3):
        scene.workers[0 if not code else -1].end(code)
        scene.settle(20)
    totals = counters.total(scene.pool.counters())
    assert totals.calls[Method.LOOKUP][0] == 2
    # Of the dead one's calls none is in flight any more.
    assert totals.in_flight[Method.LOOKUP] == 1
    # However many have ended, one meter stands for them.
    assert len(scene.pool.counters()) == 3


# the standby


def test_standby_starts_when_all_serve_and_is_no_worker(with_standby: Scene) -> None:
    with_standby.pool.start()
    with_standby.pool.deploy(1, with_standby.loaded)
    first, second = with_standby.workers
    first.send(Ready())
    with_standby.settle()
    assert len(with_standby.workers) == 2
    second.send(Ready())
    with_standby.settle()
    *_, standby = with_standby.workers
    assert len(with_standby.workers) == 3
    done: list[Broadcast] = []
    with_standby.pool.load(2, with_standby.loaded, done.append)
    with_standby.pool.reload_certificates()
    # It may open the dataset in service ahead. What comes of that is waited for by nobody.
    load = one(standby.received())
    assert (type(load), load.generation, load.broadcast) == (Load, 1, 0)
    standby.reply(load, error="no memory", dataset="")
    for worker in (first, second):
        asked = [message for message in worker.received() if isinstance(message, Load)]
        worker.reply(asked[-1])
    with_standby.settle()
    assert [ended.problems for ended in done] == [[]]
    assert with_standby.present() == [first.pid, second.pid]
    assert len(with_standby.pool.counters()) == 3


def test_standby_takes_the_slot_of_a_worker_that_ends(
    with_standby: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with_standby.start()
    first, second, standby = with_standby.workers
    standby.received()
    second.end(-9)
    with_standby.settle()
    assert with_standby.present() == [first.pid, standby.pid]
    assert with_standby.states() == ["serving", "starting"]
    start, *rest = standby.received()
    assert start == Start(1, "127.0.0.1:1001", "")
    assert list(map(type, rest)) == [SetHealth, Load, Swap]
    assert events(caplog, "worker_start")[-1] == {"worker": 1, "pid": standby.pid, "restarts": 1}
    # The next one is started when the processor is no longer needed for this one.
    assert len(with_standby.workers) == 3
    standby.send(Ready())
    with_standby.settle()
    assert with_standby.states() == ["serving", "serving"]
    assert len(with_standby.workers) == 4
    pids = [fields["pid"] for fields in events(caplog, "spare_start")]
    assert pids == [worker.pid for worker in with_standby.workers[2:]]


def test_standby_that_takes_a_slot_gets_the_current_dataset(
    with_standby: Scene,
) -> None:
    with_standby.start()
    first, second, standby = with_standby.workers
    with_standby.pool.deploy(2, with_standby.loaded)
    ahead = [message.generation for message in standby.received()]
    assert ahead == [1, 2]
    with_standby.pool.drain(True, lambda _: None)
    done: list[Broadcast] = []
    with_standby.pool.load(3, with_standby.loaded, done.append)
    second.end(-9)
    with_standby.settle()
    _, health, load, swap, asked = standby.received()
    assert health.serving is False
    assert load.generation == swap.generation == 2
    assert asked.generation == 3
    # From then on it is one of those that are asked.
    first.reply(first.received()[-1])
    with_standby.settle()
    assert done == []
    standby.reply(asked)
    with_standby.settle()
    assert len(done) == 1


def test_standby_takes_the_slot_of_a_worker_that_requests_a_stop(with_standby: Scene) -> None:
    with_standby.start()
    leaving, _, standby = with_standby.workers
    leaving.send(StopRequested())
    with_standby.settle()
    assert leaving.kinds() == []
    standby.send(Ready())
    with_standby.settle()
    assert leaving.kinds() == [Stop]


def test_standby_respects_the_restart_delay(
    with_standby: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with_standby.start()
    with_standby.workers[0].end(1)
    with_standby.settle()
    for wait in (0.1, 0.2, 0.4):
        taken = with_standby.workers[-1]
        taken.send(Ready())
        with_standby.settle()
        assert with_standby.workers[-1] is not taken, "there is a standby"
        taken.end(1)
        with_standby.settle(wait * 0.1)
        assert with_standby.states() == ["waiting", "serving"]
        with_standby.settle(wait)
        assert with_standby.states() == ["starting", "serving"]
        assert with_standby.present()[0] == with_standby.workers[-1].pid
    assert [e["seconds"] for e in events(caplog, "worker_wait")] == pytest.approx([0.1, 0.2, 0.4])


def test_standby_that_ends_repeatedly_waits_and_harms_no_worker(
    with_standby: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with_standby.start()
    for wait in (0.0, 0.1, 0.2):
        before = len(with_standby.workers)
        with_standby.workers[-1].end(-9)
        with_standby.settle()
        assert len(with_standby.workers) == before + (not wait)
        # Whoever becomes ready meanwhile changes nothing of that.
        with_standby.workers[0].send(Ready())
        with_standby.settle(wait)
        assert len(with_standby.workers) == before + 1
    assert [e["seconds"] for e in events(caplog, "spare_wait")] == pytest.approx([0.1, 0.2])
    assert {e["reason"] for e in events(caplog, "spare_wait")} == {"was ended by signal 9"}
    assert {e["exit_code"] for e in events(caplog, "spare_exit")} == {-9}
    assert with_standby.states() == ["serving", "serving"]
    assert [status.restarts for status in with_standby.pool.statuses()] == [0, 0]
    # One that lasted is forgiven what was before.
    with_standby.settle(10)
    with_standby.workers[-1].end(1)
    with_standby.settle()
    assert len(with_standby.workers) == before + 2


def test_standby_that_ends_with_a_worker_takes_no_slot(with_standby: Scene) -> None:
    with_standby.start()
    _, second, standby = with_standby.workers
    second.end(-9)
    standby.end(-9)
    with_standby.settle()
    assert with_standby.states() == ["serving", "starting"]
    assert with_standby.present()[1] == with_standby.workers[-1].pid
    assert with_standby.workers[-1].is_running


def test_standby_that_requests_a_stop_is_replaced(with_standby: Scene) -> None:
    with_standby.start()
    standby = with_standby.workers[-1]
    standby.send(StopRequested())
    with_standby.settle()
    assert not standby.is_running
    assert len(with_standby.workers) == 4


def test_standby_that_can_not_start_is_tried_again(
    with_standby: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with_standby.start()
    with_standby.refuse = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    with_standby.workers[-1].end(-9)
    with_standby.settle()
    (waits,) = events(caplog, "spare_wait")
    assert waits["reason"] == "can't be started: Resource temporarily unavailable"
    with_standby.refuse = None
    with_standby.settle(waits["seconds"])
    assert len(with_standby.workers) == 4
    assert with_standby.states() == ["serving", "serving"]


@pytest.mark.parametrize("state", ["it waits", "it is waited with"])
def test_standby_ends_at_once_when_the_pool_stops(with_standby: Scene, state: str) -> None:
    with_standby.start()
    first, second, _ = with_standby.workers
    if state == "it is waited with":
        for _ in range(2):
            with_standby.workers[-1].end(1)
            with_standby.settle()
    with_standby.pool.stop(5)
    with_standby.settle(1)
    assert not with_standby.workers[-1].is_running
    started = len(with_standby.workers)
    first.end(0)
    second.end(0)
    with_standby.settle()
    assert with_standby.outcomes[-1] == "ended"
    assert len(with_standby.workers) == started


# malformed messages

MALFORMED: dict[str, bytes] = {
    "not JSON": b"hello",
    "nested too deeply": b"[" * 60_000,
    "an unknown kind": b'["Reload", {}]',
    "a kind for workers": b'["Start", {"number": 0, "listen": ""}]',
    "a reply without fields": b'["Reply", {}]',
    "a reply without its error": b'["Reply", {"broadcast": 1, "dataset": ""}]',
    "a number in a string": b'["Reply", {"broadcast": "1", "dataset": "", "error": ""}]',
    "an infinite number": b'["Reply", {"broadcast": Infinity, "dataset": "", "error": ""}]',
    "not a number": b'["Reply", {"broadcast": NaN, "dataset": "", "error": ""}]',
    "a number that is true": b'["Reply", {"broadcast": true, "dataset": "", "error": ""}]',
    "a dataset that is a list": b'["Reply", {"broadcast": 1, "dataset": [], "error": ""}]',
    "an error that is null": b'["Reply", {"broadcast": 1, "dataset": "", "error": null}]',
    "a failure without a reason": b'["Failed", {"is_listen_error": true}]',
    "a reason that is a number": b'["Failed", {"reason": 1, "is_listen_error": true}]',
    "a reason and no more": b'["Failed", {"reason": "x"}]',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_worker_that_sends_a_malformed_message_is_replaced(
    scene: Scene, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    scene.start()
    scene.workers[0].end(0)
    scene.settle()
    speaking = scene.workers[-1]
    speaking.other._connection.send(body)
    scene.settle()
    assert speaking.channel.fileno() == -1
    assert scene.states() == ["waiting", "serving"]
    assert events(caplog, "worker_wait")[-1]["reason"] == "sent a malformed message"


def test_descriptors_from_a_worker_are_closed(scene: Scene, tmp_path: Path) -> None:
    scene.start()
    path = tmp_path / "file"
    path.touch()
    for number in range(3):
        with path.open() as file:
            scene.workers[0].other.send(
                "Reply", file.fileno(), broadcast=number, dataset="", error=""
            )
    scene.settle()
    mine = Path("/proc/self/fd")
    assert path not in {mine.joinpath(name).resolve() for name in os.listdir(mine)}


# rounds


def one(found: list[Any]) -> Any:
    (message,) = found
    return message


def test_broadcast_ends_when_all_have_replied(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    scene.pool.load(2, scene.loaded, done.append)
    asked = [one(worker.received()) for worker in scene.workers]
    assert list(map(type, asked)) == [Load, Load]
    scene.workers[0].reply(asked[0])
    scene.settle()
    assert done == []
    scene.workers[1].reply(asked[1], error="no memory")
    scene.settle()
    (ended,) = done
    assert ended.problems == ["worker 1: no memory"]


def test_status_has_the_dataset_of_each_worker(scene: Scene) -> None:
    scene.start()
    scene.pool.swap(2, lambda _: None)
    for worker in scene.workers:
        worker.reply(one(worker.received()), dataset=f"from {worker.number}")
    scene.settle()
    assert [status.dataset for status in scene.pool.statuses()] == ["from 0", "from 1"]


def test_reply_counts_once_and_for_its_own_broadcast(scene: Scene) -> None:
    scene.start()
    done: list[str] = []
    scene.pool.load(2, scene.loaded, lambda _: done.append("load"))
    scene.pool.swap(2, lambda _: done.append("swap"))
    load, swap = scene.workers[0].received()
    for _ in range(3):
        scene.workers[0].reply(load)
    scene.workers[0].reply(swap)
    scene.workers[0].reply(Swap(99, 2))
    scene.settle()
    assert done == []
    load, swap = scene.workers[1].received()
    scene.workers[1].reply(swap)
    scene.settle()
    assert done == ["swap"]
    scene.workers[1].reply(load)
    scene.settle()
    assert done == ["swap", "load"]


def test_broadcast_does_not_wait_for_a_worker_that_ends(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    scene.pool.swap(2, done.append)
    scene.workers[0].reply(one(scene.workers[0].received()))
    scene.workers[1].end(1)
    scene.settle()
    (ended,) = done
    assert ended.problems == ["worker 1 ended"]


def test_worker_that_does_not_reply_is_killed(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    scene.pool.swap(2, done.append)
    scene.workers[0].reply(one(scene.workers[0].received()))
    scene.settle(START_TIMEOUT)
    (ended,) = done
    assert ended.problems == ["worker 1 did not answer"]
    assert scene.workers[1].killed
    scene.settle(START_TIMEOUT)
    assert len(done) == 1


def test_worker_that_reads_nothing_is_killed(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    for _ in range(2_000):  # more than a channel holds
        scene.pool.swap(2, done.append)
        scene.workers[0].received()
    assert scene.workers[1].killed
    assert not scene.workers[0].killed
    scene.settle()
    assert len(scene.workers) == 3


def test_worker_that_starts_during_a_load_loads_the_dataset_too(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    scene.pool.load(2, scene.loaded, done.append)
    scene.workers[0].reply(one(scene.workers[0].received()))
    scene.workers[1].end(1)
    scene.settle()
    assert done == []
    newest = scene.workers[2]
    *equipment, asked = newest.received()
    assert list(map(type, equipment)) == [Start, SetHealth, Load, Swap]
    assert (type(asked), asked.generation) == (Load, 2)
    newest.reply(asked)
    scene.settle()
    (ended,) = done
    # That one had ended is told all the same.
    assert ended.problems == ["worker 1 ended"]


def test_worker_that_starts_after_a_deploy_swaps_to_the_dataset(scene: Scene) -> None:
    scene.start()
    scene.pool.deploy(2, scene.loaded)
    scene.pool.swap(2, lambda _: None)
    scene.workers[1].end(1)
    scene.settle()
    _, health, load, swap = scene.workers[2].received()
    assert isinstance(health, SetHealth)
    assert load.generation == swap.generation == 2


def test_broadcast_without_workers_ends_at_once(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    for worker in scene.workers:
        worker.end(1)
    scene.settle()
    assert scene.present() == []
    assert not scene.pool.serving
    done: list[Broadcast] = []
    scene.pool.swap(2, done.append)
    (ended,) = done
    assert ended.problems == []


def test_discard_reaches_all_workers(scene: Scene) -> None:
    scene.start()
    scene.pool.discard(7)
    for worker in scene.workers:
        message = one(worker.received())
        assert message == Discard(7)


def test_worker_that_starts_during_a_drain_is_not_serving(scene: Scene) -> None:
    scene.start()
    done: list[Broadcast] = []
    scene.pool.drain(True, done.append)
    for worker in scene.workers:
        message = one(worker.received())
        assert message.serving is False
        worker.reply(message)
    scene.settle()
    assert len(done) == 1
    assert scene.states() == ["draining", "draining"]
    scene.workers[0].end(1)
    scene.settle()
    assert scene.workers[2].received()[1].serving is False
    scene.pool.drain(False, done.append)
    assert scene.workers[1].received()[-1].serving is True
    assert scene.states() == ["starting", "serving"]


# the end


def test_stop_reaches_all_workers_and_none_restarts(scene: Scene) -> None:
    scene.start()
    scene.pool.stop(5)
    for worker in scene.workers:
        message = one(worker.received())
        assert message == Stop(5)
    assert scene.states() == ["draining", "draining"]
    scene.workers[0].end(0)
    scene.settle()
    assert scene.outcomes == ["started"]
    scene.workers[1].end(1)
    scene.settle()
    assert scene.outcomes == ["started", "ended"]
    assert len(scene.workers) == 2


def test_stop_includes_workers_that_hand_over(scene: Scene) -> None:
    scene.start()
    leaving = scene.workers[0]
    leaving.send(StopRequested())
    scene.settle()
    scene.pool.stop(5)
    assert Stop in leaving.kinds()
    for worker in scene.workers[1:]:
        worker.end(0)
    scene.settle()
    assert scene.outcomes == ["started"]
    leaving.end(0)
    scene.settle()
    assert scene.outcomes == ["started", "ended"]


def test_worker_that_does_not_stop_is_killed_after_grace_and_margin(scene: Scene) -> None:
    scene.start()
    scene.pool.stop(5)
    scene.settle(5)
    assert not any(worker.killed for worker in scene.workers)
    scene.settle(2 * STOP_MARGIN)
    assert all(worker.killed for worker in scene.workers)
    assert scene.outcomes == ["started", "ended"]


def test_second_stop_may_shorten_the_grace(scene: Scene) -> None:
    scene.start()
    scene.pool.stop(1_000)
    scene.pool.stop(0)
    assert [message.grace for message in scene.workers[0].received()] == [1_000, 0]
    scene.settle(2 * STOP_MARGIN)
    assert scene.outcomes == ["started", "ended"]


def test_stop_does_not_wait_for_an_empty_slot(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    for worker in scene.workers:
        worker.end(1)
    scene.settle()
    scene.pool.stop(5)
    scene.settle()
    assert scene.outcomes == ["started", "ended"]
    scene.refuse = None
    scene.settle(100)
    assert len(scene.workers) == 2


def test_close_kills_and_reaps_all(scene: Scene) -> None:
    scene.start()
    scene.close()
    assert all(worker.killed for worker in scene.workers)
    assert all(worker.channel.fileno() == -1 for worker in scene.workers)


def test_channel_holds_messages_until_the_worker_reads(scene: Scene) -> None:
    """A process that takes long to begin must not be taken for one that reads nothing."""
    scene.pool.start()
    scene.pool.deploy(1, scene.loaded)
    for _ in range(20):
        scene.pool.drain(False, lambda _: None)
    assert not any(worker.killed for worker in scene.workers)
    assert scene.workers[0].kinds().count(SetHealth) == 21
