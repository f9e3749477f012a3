"""The crew: places are filled again, questions end, and no worker can harm its supervisor.

The workers here are ends of lines that the tests hold. Real ones are in the tests of
the whole service.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geolookup.errors import GeoLookupError, ServiceError
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import Meter
from geolookup.service.processes import workers as module
from geolookup.service.processes.channel import Channel, Message
from geolookup.service.processes.event_loop import EventLoop
from geolookup.service.processes.sealed_memory import SealedCopy, seal
from geolookup.service.processes.workers import START_PATIENCE, Crew, Round
from geolookup.service.settings import ListenAddress, ListenError, Settings

DATASET, SETS = "d" * 64, "/sets.toml"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """What the crew takes for a process; the test holds the other end of its line."""

    pids = itertools.count(70_000)

    def __init__(self, settings: SealedCopy) -> None:
        assert pickle.loads(os.pread(settings.descriptor, settings.size, 0)) is not None  # noqa: S301 - our own
        self.number = -1
        self.state, self.dataset, self.reason = "starting", "", ""
        self.started: Any = None
        self.ready_at: float | None = None
        self.channel, self.other = Channel.pair()
        self.meter = Meter()
        self.pid = next(self.pids)
        self.killed = False
        self.code = 0

    @property
    def in_flight(self) -> int:
        return max(0, sum(self.meter.read()["in_flight"]))

    @property
    def runs(self) -> bool:
        return self.other.fileno() != -1

    def kill(self) -> None:
        if not self.killed:
            self.killed, self.code = True, -9
            self.other.close()

    def reap(self) -> int:
        self.channel.close()
        self.other.close()
        return self.code

    # what the test does

    def end(self, code: int) -> None:
        self.code = code
        self.other.close()

    def heard(self) -> list[Message]:
        """Return what it was told since the last time."""
        connection = self.other._connection
        connection.setblocking(False)
        messages = []
        with contextlib.suppress(module.ChannelError):
            while (message := self.other.receive()) is not None:
                message.close()
                messages.append(message)
        return messages

    def kinds(self) -> list[str]:
        return [message.kind for message in self.heard()]

    def answer(self, message: Message, error: str = "", dataset: str = DATASET) -> None:
        self.other.send("answer", round=message.fields["round"], dataset=dataset, error=error)


class Scene:
    """A crew, its workers, and what it told its supervisor."""

    def __init__(self, loop: EventLoop, clock: Clock, workers: int, *, spare: bool) -> None:
        self.loop, self.clock = loop, clock
        self.told: list[object] = []
        listen_address: Any = SimpleNamespace(
            of_worker=lambda number: ListenAddress("127.0.0.1", 1_000 + number), shared=True
        )
        self.workers: list[Worker] = []
        self.refuse: OSError | None = None
        self.closed = False
        self.crew = Crew(
            loop,
            Settings(workers=workers, spare_worker=spare),
            listen_address,
            started=lambda: self.told.append("started"),
            failed=self.told.append,
            ended=lambda: self.told.append("ended"),
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
            more = bool(self.loop._selector.select(0))

    def start(self) -> None:
        """Have all workers ready, and forget what they were told."""
        self.crew.start()
        self.crew.deploy(1, self.loaded)
        for worker in self.workers:
            worker.other.send("ready")
        started = list(self.workers)
        self.settle()
        for worker in started:
            worker.heard()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.crew.close()

    def present(self) -> list[int]:
        return [status.pid for status in self.crew.statuses() if status.pid]

    def states(self) -> list[str]:
        return [status.state for status in self.crew.statuses()]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two workers, and no spare."""
    with scene_of(monkeypatch, spare=False) as made:
        yield made


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two workers, and a spare when they serve."""
    with scene_of(monkeypatch, spare=True) as made:
        yield made


@contextlib.contextmanager
def scene_of(monkeypatch: pytest.MonkeyPatch, *, spare: bool) -> Iterator[Scene]:
    clock = Clock()
    with EventLoop(clock) as loop:
        made = Scene(loop, clock, workers=2, spare=spare)
        monkeypatch.setattr(module, "WorkerProcess", made.make)
        yield made
        made.close()
        made.loaded.file.close()
        for worker in made.workers:
            worker.reap()


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.message == name]


# start


def test_all_are_started_and_given_the_dataset(scene: Scene) -> None:
    scene.crew.start()
    for number, worker in enumerate(scene.workers):
        start = one(worker.heard())
        assert (start.kind, start.fields) == (
            "start",
            {"number": number, "listen": f"127.0.0.1:{1_000 + number}"},
        )
    assert scene.states() == ["starting", "starting"]
    assert not scene.crew.serving
    scene.crew.deploy(1, scene.loaded)
    for worker in scene.workers:
        health, load, swap = worker.heard()
        assert (health.kind, health.fields) == ("health", {"serving": True, "round": 0})
        assert load.kind == "load"
        assert load.fields == {"generation": 1, "name": "d.geolookup", "size": 7, "round": 0}
        assert len(load.descriptors) == 1
        assert (swap.kind, swap.fields) == ("swap", {"generation": 1, "round": 0})


def test_region_sets_go_with_the_dataset(scene: Scene) -> None:
    scene.loaded.region_sets = seal(b"sets", SETS)
    scene.crew.start()
    scene.crew.deploy(1, scene.loaded)
    _, _, load, _ = scene.workers[0].heard()
    assert len(load.descriptors) == 2
    assert load.fields["region_sets"] == SETS
    assert load.fields["region_sets_size"] == 4
    scene.loaded.region_sets.close()


def test_it_has_started_when_each_is_ready(scene: Scene) -> None:
    scene.crew.start()
    scene.crew.deploy(1, scene.loaded)
    first, second = scene.workers
    first.other.send("ready")
    scene.settle()
    assert (scene.told, scene.states()) == ([], ["serving", "starting"])
    assert scene.crew.serving
    second.other.send("ready")
    scene.settle()
    assert (scene.told, scene.states()) == (["started"], ["serving", "serving"])


@pytest.mark.parametrize(("listen", "kind"), [(True, ListenError), (False, ServiceError)])
def test_what_a_worker_says_at_the_start_is_why_there_is_none(
    scene: Scene, listen: bool, kind: type[GeoLookupError]
) -> None:
    scene.crew.start()
    scene.workers[0].other.send("failed", reason="listen: in use", listen=listen)
    scene.settle()
    scene.workers[0].end(1)
    scene.settle()
    (error,) = scene.told
    assert type(error) is kind
    assert str(error) == "listen: in use"


@pytest.mark.parametrize(
    ("code", "text"), [(3, "ended with exit code 3"), (-11, "was ended by signal 11")]
)
def test_a_worker_that_ends_before_the_start_is_not_started_again(
    scene: Scene, code: int, text: str
) -> None:
    scene.crew.start()
    scene.crew.deploy(1, scene.loaded)
    scene.workers[1].end(code)
    scene.settle()
    (error,) = scene.told
    assert str(error) == f"worker 1 {text}"
    assert len(scene.workers) == 2


def test_a_worker_that_is_never_ready_is_given_up(scene: Scene) -> None:
    scene.crew.start()
    scene.crew.deploy(1, scene.loaded)
    scene.workers[0].other.send("ready")
    scene.settle(START_PATIENCE)
    assert [worker.killed for worker in scene.workers] == [False, True]
    assert [str(error) for error in scene.told] == ["worker 1 was not ready in time"]


# places


def test_a_place_is_filled_again_at_once_the_first_time(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene.start()
    scene.workers[0].end(-9)
    scene.settle()
    assert len(scene.workers) == 3
    newest = scene.workers[2]
    assert newest.number == 0
    assert newest.kinds() == ["start", "health", "load", "swap"]
    assert scene.states() == ["starting", "serving"]
    assert scene.crew.statuses()[0].restarts == 1
    (ended,) = events(caplog, "worker_exit")
    assert ended == {"worker": 0, "pid": scene.workers[0].pid, "exit_code": -9}
    assert scene.crew.serving


def test_a_place_whose_workers_end_again_and_again_stays_empty_for_longer_each_time(
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


def test_who_served_for_long_is_replaced_at_once(scene: Scene) -> None:
    scene.start()
    for _ in range(4):
        scene.settle(10.1)
        scene.workers[-1].end(1)
        scene.settle()
        scene.workers[-1].other.send("ready")
        scene.settle()
        assert scene.states() == ["serving", "serving"]


def test_a_process_that_can_not_be_started_is_tried_again(
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


def test_a_worker_that_was_told_to_end_serves_until_another_does(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene.start()
    leaving = scene.workers[0]
    for _ in range(2):  # a second time it changes nothing
        leaving.other.send("leaving")
        scene.settle()
    assert len(scene.workers) == 3
    assert scene.states() == ["starting", "serving"]
    assert leaving.kinds() == []
    # It is asked what the others are, and waited for.
    done: list[Round] = []
    scene.crew.swap(2, done.append)
    for worker in scene.workers[1:]:
        worker.answer(worker.heard()[-1])
    scene.settle()
    assert done == []
    leaving.answer(one(leaving.heard()))
    scene.settle()
    assert [ended.problems for ended in done] == [[]]
    # One that fails to take its place is no reason to go.
    scene.workers[2].end(1)
    scene.settle()
    assert leaving.kinds() == []
    scene.settle(0.2)
    scene.workers[3].other.send("ready")
    scene.settle()
    stop = one(leaving.heard())
    assert (stop.kind, stop.fields) == ("stop", {"grace": Settings().grace})
    # It takes no calls any more, so it is asked nothing.
    scene.crew.look()
    assert leaving.kinds() == []
    leaving.end(0)
    scene.settle()
    assert len(scene.workers) == 4
    assert scene.states() == ["serving", "serving"]
    levels = [record.levelname for record in caplog.records if record.message == "worker_exit"]
    assert levels == ["ERROR", "INFO"]


@pytest.mark.parametrize("why", ["it has a socket of its own", "it was not ready"])
def test_a_worker_that_was_told_to_end_goes_at_once_if(scene: Scene, why: str) -> None:
    scene.start()
    leaving = scene.workers[0]
    if why == "it was not ready":
        leaving.end(1)
        scene.settle()
        leaving = scene.workers[2]
        leaving.heard()
    else:
        scene.crew._listen_address.shared = False
    leaving.other.send("leaving")
    scene.settle()
    assert leaving.kinds() == ["stop"]
    leaving.other.send("ready")  # it crosses the other's word
    scene.settle()
    assert scene.states() == ["starting", "serving"]
    leaving.end(0)
    scene.settle()
    assert scene.states() == ["starting", "serving"]


def test_a_round_does_not_mind_who_was_to_end(scene: Scene) -> None:
    scene.start()
    leaving, other = scene.workers
    leaving.other.send("leaving")
    scene.settle()
    done: list[Round] = []
    scene.crew.swap(2, done.append)
    for worker in (other, scene.workers[2]):
        worker.answer(worker.heard()[-1])
    leaving.end(0)
    scene.settle()
    assert [ended.problems for ended in done] == [[]]


def test_one_that_leaves_is_enough_to_serve(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    scene.workers[1].end(1)
    scene.workers[0].other.send("leaving")
    scene.settle()
    assert scene.states() == ["waiting", "waiting"]
    assert scene.crew.serving
    scene.workers[0].end(0)
    scene.settle()
    assert not scene.crew.serving


def test_what_a_worker_counted_outlives_it(scene: Scene) -> None:
    scene.start()
    for worker in scene.workers:
        worker.meter.begin(counters.LOOKUP)
        worker.meter.end(counters.LOOKUP, 0, 1_000)
        worker.meter.begin(counters.LOOKUP)
    assert [status.in_flight for status in scene.crew.statuses()] == [1, 1]
    for code in range(3):
        scene.workers[0 if not code else -1].end(code)
        scene.settle(20)
    totals = counters.total(scene.crew.meters())
    assert totals.calls[counters.LOOKUP][0] == 2
    # Of the dead one's calls none is in flight any more.
    assert totals.in_flight[counters.LOOKUP] == 1
    # However many have ended, one meter stands for them.
    assert len(scene.crew.meters()) == 3


# the spare


def test_a_spare_is_started_when_all_serve_and_is_no_worker(spared: Scene) -> None:
    spared.crew.start()
    spared.crew.deploy(1, spared.loaded)
    first, second = spared.workers
    first.other.send("ready")
    spared.settle()
    assert len(spared.workers) == 2
    second.other.send("ready")
    spared.settle()
    *_, spare = spared.workers
    assert len(spared.workers) == 3
    done: list[Round] = []
    spared.crew.load(2, spared.loaded, done.append)
    spared.crew.look()
    # It may open the dataset in service ahead. What comes of that is waited for by nobody.
    load = one(spare.heard())
    assert (load.kind, load.fields["generation"], load.fields["round"]) == ("load", 1, 0)
    spare.answer(load, error="no memory", dataset="")
    for worker in (first, second):
        asked = [message for message in worker.heard() if message.kind == "load"]
        worker.answer(asked[-1])
    spared.settle()
    assert [ended.problems for ended in done] == [[]]
    assert spared.present() == [first.pid, second.pid]
    assert len(spared.crew.meters()) == 3


def test_the_spare_takes_the_place_of_a_worker_that_ends(
    spared: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spared.start()
    first, second, spare = spared.workers
    spare.heard()
    second.end(-9)
    spared.settle()
    assert spared.present() == [first.pid, spare.pid]
    assert spared.states() == ["serving", "starting"]
    start, *rest = spare.heard()
    assert (start.kind, start.fields) == ("start", {"number": 1, "listen": "127.0.0.1:1001"})
    assert [message.kind for message in rest] == ["health", "load", "swap"]
    assert events(caplog, "worker_start")[-1] == {"worker": 1, "pid": spare.pid, "restarts": 1}
    # The next one is started when the processor is no longer needed for this one.
    assert len(spared.workers) == 3
    spare.other.send("ready")
    spared.settle()
    assert spared.states() == ["serving", "serving"]
    assert len(spared.workers) == 4
    pids = [fields["pid"] for fields in events(caplog, "spare_start")]
    assert pids == [worker.pid for worker in spared.workers[2:]]


def test_a_spare_that_takes_a_place_is_given_what_is_in_service_by_then(spared: Scene) -> None:
    spared.start()
    first, second, spare = spared.workers
    spared.crew.deploy(2, spared.loaded)
    ahead = [message.fields["generation"] for message in spare.heard()]
    assert ahead == [1, 2]
    spared.crew.drain(True, lambda _: None)
    done: list[Round] = []
    spared.crew.load(3, spared.loaded, done.append)
    second.end(-9)
    spared.settle()
    _, health, load, swap, asked = spare.heard()
    assert health.fields["serving"] is False
    assert load.fields["generation"] == swap.fields["generation"] == 2
    assert asked.fields["generation"] == 3
    # From then on it is one of those that are asked.
    first.answer(first.heard()[-1])
    spared.settle()
    assert done == []
    spare.answer(asked)
    spared.settle()
    assert len(done) == 1


def test_the_spare_takes_the_place_of_a_worker_that_was_told_to_end(spared: Scene) -> None:
    spared.start()
    leaving, _, spare = spared.workers
    leaving.other.send("leaving")
    spared.settle()
    assert leaving.kinds() == []
    spare.other.send("ready")
    spared.settle()
    assert leaving.kinds() == ["stop"]


def test_a_spare_defeats_no_back_off(spared: Scene, caplog: pytest.LogCaptureFixture) -> None:
    spared.start()
    spared.workers[0].end(1)
    spared.settle()
    for wait in (0.1, 0.2, 0.4):
        taken = spared.workers[-1]
        taken.other.send("ready")
        spared.settle()
        assert spared.workers[-1] is not taken, "there is a spare"
        taken.end(1)
        spared.settle(wait * 0.1)
        assert spared.states() == ["waiting", "serving"]
        spared.settle(wait)
        assert spared.states() == ["starting", "serving"]
        assert spared.present()[0] == spared.workers[-1].pid
    assert [e["seconds"] for e in events(caplog, "worker_wait")] == pytest.approx([0.1, 0.2, 0.4])


def test_a_spare_that_ends_again_and_again_is_waited_with_and_harms_no_worker(
    spared: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    spared.start()
    for wait in (0.0, 0.1, 0.2):
        before = len(spared.workers)
        spared.workers[-1].end(-9)
        spared.settle()
        assert len(spared.workers) == before + (not wait)
        # Whoever becomes ready meanwhile changes nothing of that.
        spared.workers[0].other.send("ready")
        spared.settle(wait)
        assert len(spared.workers) == before + 1
    assert [e["seconds"] for e in events(caplog, "spare_wait")] == pytest.approx([0.1, 0.2])
    assert {e["reason"] for e in events(caplog, "spare_wait")} == {"was ended by signal 9"}
    assert {e["exit_code"] for e in events(caplog, "spare_exit")} == {-9}
    assert spared.states() == ["serving", "serving"]
    assert [status.restarts for status in spared.crew.statuses()] == [0, 0]
    # One that lasted is forgiven what was before.
    spared.settle(10)
    spared.workers[-1].end(1)
    spared.settle()
    assert len(spared.workers) == before + 2


def test_a_spare_that_ends_together_with_a_worker_takes_no_place(spared: Scene) -> None:
    spared.start()
    _, second, spare = spared.workers
    second.end(-9)
    spare.end(-9)
    spared.settle()
    assert spared.states() == ["serving", "starting"]
    assert spared.present()[1] == spared.workers[-1].pid
    assert spared.workers[-1].runs


def test_a_spare_that_was_told_to_end_is_replaced(spared: Scene) -> None:
    spared.start()
    spare = spared.workers[-1]
    spare.other.send("leaving")
    spared.settle()
    assert not spare.runs
    assert len(spared.workers) == 4


def test_a_spare_that_can_not_be_started_is_tried_again(
    spared: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    spared.start()
    spared.refuse = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    spared.workers[-1].end(-9)
    spared.settle()
    (waits,) = events(caplog, "spare_wait")
    assert waits["reason"] == "can't be started: Resource temporarily unavailable"
    spared.refuse = None
    spared.settle(waits["seconds"])
    assert len(spared.workers) == 4
    assert spared.states() == ["serving", "serving"]


@pytest.mark.parametrize("state", ["it waits", "it is waited with"])
def test_a_spare_ends_at_once_when_all_are_to_stop(spared: Scene, state: str) -> None:
    spared.start()
    first, second, _ = spared.workers
    if state == "it is waited with":
        for _ in range(2):
            spared.workers[-1].end(1)
            spared.settle()
    spared.crew.stop(5)
    spared.settle(1)
    assert not spared.workers[-1].runs
    started = len(spared.workers)
    first.end(0)
    second.end(0)
    spared.settle()
    assert spared.told[-1] == "ended"
    assert len(spared.workers) == started


# what makes no sense

NONSENSE: dict[str, bytes] = {
    "not JSON": b"hello",
    "nested too deeply": b"[" * 60_000,
    "an unknown kind": b'["reload", {}]',
    "a kind for workers": b'["start", {}]',
    "an answer without anything": b'["answer", {}]',
    "an answer without its error": b'["answer", {"round": 1, "dataset": ""}]',
    "a round that is a text": b'["answer", {"round": "1", "dataset": "", "error": ""}]',
    "a round without end": b'["answer", {"round": Infinity, "dataset": "", "error": ""}]',
    "a round that is no number": b'["answer", {"round": NaN, "dataset": "", "error": ""}]',
    "a round that is true": b'["answer", {"round": true, "dataset": "", "error": ""}]',
    "a dataset that is a list": b'["answer", {"round": 1, "dataset": [], "error": ""}]',
    "an error that is null": b'["answer", {"round": 1, "dataset": "", "error": null}]',
    "a failure without a reason": b'["failed", {"listen": true}]',
    "a reason that is a number": b'["failed", {"reason": 1, "listen": true}]',
    "a reason and no more": b'["failed", {"reason": "x"}]',
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_a_worker_that_says_what_makes_no_sense_is_replaced(
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
    assert events(caplog, "worker_wait")[-1]["reason"] == "said what makes no sense"


def test_files_that_a_worker_sends_are_closed(scene: Scene, tmp_path: Path) -> None:
    scene.start()
    path = tmp_path / "file"
    path.touch()
    for number in range(3):
        with path.open() as file:
            scene.workers[0].other.send("answer", file.fileno(), round=number, dataset="", error="")
    scene.settle()
    mine = Path("/proc/self/fd")
    assert path not in {mine.joinpath(name).resolve() for name in os.listdir(mine)}


# rounds


def one(messages: list[Message]) -> Message:
    (message,) = messages
    return message


def test_a_round_ends_when_all_have_answered(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    scene.crew.load(2, scene.loaded, done.append)
    asked = [one(worker.heard()) for worker in scene.workers]
    assert [message.kind for message in asked] == ["load", "load"]
    scene.workers[0].answer(asked[0])
    scene.settle()
    assert done == []
    scene.workers[1].answer(asked[1], error="no memory")
    scene.settle()
    (ended,) = done
    assert ended.problems == ["worker 1: no memory"]


def test_what_a_worker_answers_from_is_known(scene: Scene) -> None:
    scene.start()
    scene.crew.swap(2, lambda _: None)
    for worker in scene.workers:
        worker.answer(one(worker.heard()), dataset=f"from {worker.number}")
    scene.settle()
    assert [status.dataset for status in scene.crew.statuses()] == ["from 0", "from 1"]


def test_an_answer_counts_once_and_to_its_own_round(scene: Scene) -> None:
    scene.start()
    done: list[str] = []
    scene.crew.load(2, scene.loaded, lambda _: done.append("load"))
    scene.crew.swap(2, lambda _: done.append("swap"))
    load, swap = scene.workers[0].heard()
    for _ in range(3):
        scene.workers[0].answer(load)
    scene.workers[0].answer(swap)
    scene.workers[0].answer(Message("", {"round": 99}))
    scene.settle()
    assert done == []
    load, swap = scene.workers[1].heard()
    scene.workers[1].answer(swap)
    scene.settle()
    assert done == ["swap"]
    scene.workers[1].answer(load)
    scene.settle()
    assert done == ["swap", "load"]


def test_a_worker_that_ends_is_not_waited_for(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    scene.crew.swap(2, done.append)
    scene.workers[0].answer(one(scene.workers[0].heard()))
    scene.workers[1].end(1)
    scene.settle()
    (ended,) = done
    assert ended.problems == ["worker 1 ended"]


def test_a_worker_that_does_not_answer_is_ended(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    scene.crew.swap(2, done.append)
    scene.workers[0].answer(one(scene.workers[0].heard()))
    scene.settle(START_PATIENCE)
    (ended,) = done
    assert ended.problems == ["worker 1 did not answer"]
    assert scene.workers[1].killed
    scene.settle(START_PATIENCE)
    assert len(done) == 1


def test_a_worker_that_reads_nothing_is_ended(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    for _ in range(2_000):  # more than a line holds
        scene.crew.swap(2, done.append)
        scene.workers[0].heard()
    assert scene.workers[1].killed
    assert not scene.workers[0].killed
    scene.settle()
    assert len(scene.workers) == 3


def test_who_is_started_while_a_dataset_is_loaded_loads_it_too(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    scene.crew.load(2, scene.loaded, done.append)
    scene.workers[0].answer(one(scene.workers[0].heard()))
    scene.workers[1].end(1)
    scene.settle()
    assert done == []
    newest = scene.workers[2]
    *equipment, asked = newest.heard()
    assert [message.kind for message in equipment] == ["start", "health", "load", "swap"]
    assert (asked.kind, asked.fields["generation"]) == ("load", 2)
    newest.answer(asked)
    scene.settle()
    (ended,) = done
    # That one had ended is told all the same.
    assert ended.problems == ["worker 1 ended"]


def test_who_is_started_after_a_dataset_was_deployed_swaps_to_it(scene: Scene) -> None:
    scene.start()
    scene.crew.deploy(2, scene.loaded)
    scene.crew.swap(2, lambda _: None)
    scene.workers[1].end(1)
    scene.settle()
    _, health, load, swap = scene.workers[2].heard()
    assert health.kind == "health"
    assert load.fields["generation"] == swap.fields["generation"] == 2


def test_a_round_of_nobody_is_over_at_once(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    for worker in scene.workers:
        worker.end(1)
    scene.settle()
    assert scene.present() == []
    assert not scene.crew.serving
    done: list[Round] = []
    scene.crew.swap(2, done.append)
    (ended,) = done
    assert ended.problems == []


def test_a_forgotten_dataset_is_told_to_all(scene: Scene) -> None:
    scene.start()
    scene.crew.forget(7)
    for worker in scene.workers:
        message = one(worker.heard())
        assert (message.kind, message.fields) == ("forget", {"generation": 7})


def test_who_is_started_during_a_drain_says_not_serving(scene: Scene) -> None:
    scene.start()
    done: list[Round] = []
    scene.crew.drain(True, done.append)
    for worker in scene.workers:
        message = one(worker.heard())
        assert message.fields["serving"] is False
        worker.answer(message)
    scene.settle()
    assert len(done) == 1
    assert scene.states() == ["draining", "draining"]
    scene.workers[0].end(1)
    scene.settle()
    assert scene.workers[2].heard()[1].fields["serving"] is False
    scene.crew.drain(False, done.append)
    assert scene.workers[1].heard()[-1].fields["serving"] is True
    assert scene.states() == ["starting", "serving"]


# the end


def test_all_are_told_to_stop_and_none_is_started_again(scene: Scene) -> None:
    scene.start()
    scene.crew.stop(5)
    for worker in scene.workers:
        message = one(worker.heard())
        assert (message.kind, message.fields) == ("stop", {"grace": 5})
    assert scene.states() == ["draining", "draining"]
    scene.workers[0].end(0)
    scene.settle()
    assert scene.told == ["started"]
    scene.workers[1].end(1)
    scene.settle()
    assert scene.told == ["started", "ended"]
    assert len(scene.workers) == 2


def test_those_who_are_leaving_are_stopped_and_waited_for_as_well(scene: Scene) -> None:
    scene.start()
    leaving = scene.workers[0]
    leaving.other.send("leaving")
    scene.settle()
    scene.crew.stop(5)
    assert "stop" in leaving.kinds()
    for worker in scene.workers[1:]:
        worker.end(0)
    scene.settle()
    assert scene.told == ["started"]
    leaving.end(0)
    scene.settle()
    assert scene.told == ["started", "ended"]


def test_who_does_not_stop_is_ended_after_the_grace_and_a_margin(scene: Scene) -> None:
    scene.start()
    scene.crew.stop(5)
    scene.settle(5)
    assert not any(worker.killed for worker in scene.workers)
    scene.settle(2 * module.MARGIN)
    assert all(worker.killed for worker in scene.workers)
    assert scene.told == ["started", "ended"]


def test_a_second_stop_may_shorten_the_grace(scene: Scene) -> None:
    scene.start()
    scene.crew.stop(1_000)
    scene.crew.stop(0)
    assert [message.fields["grace"] for message in scene.workers[0].heard()] == [1_000, 0]
    scene.settle(2 * module.MARGIN)
    assert scene.told == ["started", "ended"]


def test_a_place_that_waits_does_not_hold_up_the_end(scene: Scene) -> None:
    scene.start()
    scene.refuse = OSError(errno.EAGAIN, "no")
    for worker in scene.workers:
        worker.end(1)
    scene.settle()
    scene.crew.stop(5)
    scene.settle()
    assert scene.told == ["started", "ended"]
    scene.refuse = None
    scene.settle(100)
    assert len(scene.workers) == 2


def test_closing_ends_and_reaps_all(scene: Scene) -> None:
    scene.start()
    scene.close()
    assert all(worker.killed for worker in scene.workers)
    assert all(worker.channel.fileno() == -1 for worker in scene.workers)


def test_the_line_holds_what_is_said_before_the_worker_reads(scene: Scene) -> None:
    """A process that takes long to begin must not be taken for one that reads nothing."""
    scene.crew.start()
    scene.crew.deploy(1, scene.loaded)
    for _ in range(20):
        scene.crew.drain(False, lambda _: None)
    assert not any(worker.killed for worker in scene.workers)
    assert json.dumps([message.kind for message in scene.workers[0].heard()]).count("health") == 21
