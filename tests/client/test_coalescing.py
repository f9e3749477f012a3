"""Coalesced lookups: the answers of plain ones in fewer calls, each caller for itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from servers import PATIENCE, Service

from geolookup import (
    Answer,
    Dataset,
    RegionSet,
    RegionSetError,
    ServiceError,
    ServiceUnavailableError,
    Status,
)
from geolookup.client import AsyncClient, Client, Coalescing, transports
from geolookup.client.coalescing import Queues
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.service.rpc.request import RequestError
from geolookup.v1 import geolookup_pb2 as v1

CHINA, AMERICA, DISPUTED, PRIVATE = "1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1"
GERMANY6 = "2a02:2e0:3fe:1001:302::"
BAD = ("", "1.2.3", "1.2.3.4:80", "::1%eth0", b"", b"123", "\ud800")


# which lookups go together


class QueuesMachine(RuleBasedStateMachine):
    """`Queues` beside a list of all that wait, in order."""

    CALLS, BATCH, WAITING = 2, 3, 5

    def __init__(self) -> None:
        super().__init__()
        self.queues: Queues[str, int] = Queues(self.CALLS, self.BATCH, self.WAITING)
        self.waiting: list[tuple[str, int]] = []
        self.under_way: Counter[str] = Counter()
        self.sent: dict[str, deque[list[int]]] = {"a": deque(), "b": deque()}
        self.number = 0

    @rule(key=st.sampled_from("ab"))
    def arrive(self, key: str) -> None:
        self.number += 1
        idle = self.under_way[key] < self.CALLS
        assert self.queues.begin(key) == idle
        if idle:
            self.under_way[key] += 1
            self.sent[key].append([self.number])
        elif len(self.waiting) >= self.WAITING:
            with pytest.raises(ServiceUnavailableError):
                self.queues.add(key, self.number)
        else:
            self.queues.add(key, self.number)
            self.waiting.append((key, self.number))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        self.queues.remove(*one)
        self.queues.remove(*one)  # the second time it is nothing
        self.waiting.remove(one)

    @rule(key=st.sampled_from("ab"), put_back=st.booleans())
    def end(self, key: str, put_back: bool) -> None:
        if not self.under_way[key]:
            return
        ended = self.sent[key].popleft()
        if put_back:
            self.queues.put_back(key, ended)
            self.waiting = [*((key, one) for one in ended), *self.waiting]
        expected = [one for queue, one in self.waiting if queue == key][: self.BATCH]
        assert self.queues.next_batch(key) == expected
        self.waiting = [
            (queue, one) for queue, one in self.waiting if queue != key or one not in expected
        ]
        if expected:
            self.sent[key].append(expected)
        else:
            self.under_way[key] -= 1

    @invariant()
    def no_lookup_waits_while_a_call_is_free(self) -> None:
        assert len(self.queues) == len(self.waiting)
        for key in "ab":
            waits = any(queue == key for queue, _ in self.waiting)
            assert not waits or self.under_way[key] == self.CALLS

    def teardown(self) -> None:
        assert sorted(self.queues.drain()) == sorted(one for _, one in self.waiting)
        assert len(self.queues) == 0


TestQueues = QueuesMachine.TestCase
TestQueues.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.parametrize("wrong", [{"batch": 1}, {"waiting": 0}, {"calls": 0}])
def test_invalid_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Coalescing(**wrong)


# a service whose calls can be held


class Held(grpc.GenericRpcHandler):
    """The real handlers. Calls wait for `release`, and are counted by what they ask for."""

    def __init__(self, dataset: Dataset, limits: RosterLimits) -> None:
        self.snapshot = handlers.Snapshot(dataset)
        self.limits = limits
        self.calls: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.refuse: Callable[[str], tuple[grpc.StatusCode, str] | None] = lambda _: None
        self.answer: Callable[[str, bytes], bytes] | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method).rpartition("/")[2]

        def behaviour(body: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((method, self._size(method, body)))
            self.entered.release()
            assert self.gate.wait(PATIENCE)
            if refusal := self.refuse(method):
                context.abort(*refusal)
            if self.answer is not None:
                return self.answer(method, body)
            handler = handlers.lookup if method == "Lookup" else handlers.classify_roster
            try:
                return handler(self.snapshot, body, self.limits)
            except RequestError as error:
                codes = {code.value[0]: code for code in grpc.StatusCode}
                context.abort(codes[error.code], error.text)
                raise

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _size(self, method: str, body: bytes) -> int:
        if method == "Lookup":
            return 1
        request = v1.ClassifyRosterRequest.FromString(body)
        return len(request.ipv4) // 4 + len(request.ipv6) // 16 + len(request.text.addresses)


class Crowd:
    """Many who ask one client at the same moment: threads of a `Client`, tasks of the other."""

    def __init__(self, kind: str, target: str, **options: Any) -> None:
        self.client: Any
        if kind == "threads":
            self.client = Client(target, **options)
            self._pool = futures.ThreadPoolExecutor(200)
        else:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever)
            self._thread.start()
            self.client = AsyncClient(target, **options)
        self.kind = kind

    def ask(self, address: Any, *arguments: Any, **named: Any) -> futures.Future[Answer]:
        if self.kind == "threads":
            return self._pool.submit(self.client.lookup, address, *arguments, **named)
        return asyncio.run_coroutine_threadsafe(
            self.client.lookup(address, *arguments, **named), self._loop
        )

    def wait_for(self, waiting: int) -> None:
        """Return once that many lookups wait in the client."""
        end = time.monotonic() + PATIENCE
        while len(self.client._lookups) != waiting:
            assert time.monotonic() < end, f"{len(self.client._lookups)} wait"
            threading.Event().wait(0.001)

    def close(self) -> None:
        if self.kind == "threads":
            self.client.close()
        else:
            asyncio.run_coroutine_threadsafe(self.client.close(), self._loop).result(PATIENCE)

    def end(self) -> None:
        self.close()
        if self.kind == "threads":
            self._pool.shutdown()
        else:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            assert not asyncio.all_tasks(self._loop)
            self._loop.close()


@pytest.fixture(params=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextlib.contextmanager
def held(
    dataset: Dataset, kind: str, limits: RosterLimits | None = None, **options: Any
) -> Iterator[tuple[Held, Crowd]]:
    """Run a held service and a crowd before it."""
    service = Held(dataset, limits or RosterLimits())
    running = grpc.server(futures.ThreadPoolExecutor(80), options=[("grpc.so_reuseport", 0)])
    running.add_generic_rpc_handlers((service,))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    options = {"coalesce": Coalescing(calls=1), "timeout": PATIENCE, "retry": None, **options}
    crowd = Crowd(kind, f"127.0.0.1:{port}", **options)
    try:
        yield service, crowd
    finally:
        service.gate.set()
        crowd.end()
        running.stop(None).wait(PATIENCE)


def gathered(service: Held, crowd: Crowd, asked: list[tuple[Any, ...]]) -> list[Any]:
    """Hold a first lookup, let the others gather behind it, release; return their futures."""
    first = crowd.ask(PRIVATE, "CN")
    assert service.entered.acquire(timeout=PATIENCE)
    waiting = []
    for number, arguments in enumerate(asked, 1):
        waiting.append(crowd.ask(*arguments))
        crowd.wait_for(number)  # so that their order is known
    service.gate.set()
    assert first.result(PATIENCE).status is Status.SPECIAL_PURPOSE
    return waiting


def test_lookup_of_an_idle_client_is_sent_at_once_alone(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        service.gate.set()
        for address in (CHINA, AMERICA, DISPUTED):
            assert crowd.ask(address, "CN").result(PATIENCE) == dataset.lookup(address, "CN")
        assert service.calls == [("Lookup", 1)] * 3


@pytest.mark.parametrize(
    ("carrier", "at_once"),
    [
        ("grpcio", 1),
        pytest.param(
            "native",
            64,
            marks=pytest.mark.skipif(
                transports.missing() is not None, reason=f"{transports.missing()}"
            ),
        ),
    ],
)
def test_lookups_are_gathered_beyond_the_calls_that_the_transport_bears(
    dataset: Dataset, kind: str, carrier: str, at_once: int
) -> None:
    with held(dataset, kind, coalesce=True, transport=carrier) as (service, crowd):
        answers = [crowd.ask(CHINA, "CN") for _ in range(at_once + 2)]
        for _ in range(at_once):
            assert service.entered.acquire(timeout=PATIENCE)
        crowd.wait_for(2)
        service.gate.set()
        assert {one.result(PATIENCE).country for one in answers} == {"CN"}
        assert service.calls == [*[("Lookup", 1)] * at_once, ("ClassifyRoster", 2)]


def test_waiting_lookups_are_sent_in_one_call(dataset: Dataset, kind: str) -> None:
    asked = [(address, "CN") for address in (CHINA, AMERICA, GERMANY6, CHINA, "::ffff:1.0.1.1")]
    with held(dataset, kind) as (service, crowd):
        answers = gathered(service, crowd, asked)
        assert [one.result(PATIENCE) for one in answers] == [dataset.lookup(*one) for one in asked]
        assert service.calls == [("Lookup", 1), ("ClassifyRoster", 5)]


def test_single_waiting_lookup_is_sent_as_a_lookup(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        (answer,) = gathered(service, crowd, [(DISPUTED, "CN")])
        assert answer.result(PATIENCE) == dataset.lookup(DISPUTED, "CN")
        assert service.calls == [("Lookup", 1)] * 2


def test_disputed_addresses_of_a_batch_are_looked_up_once_each(dataset: Dataset, kind: str) -> None:
    asked = [(address, "CN") for address in (DISPUTED, CHINA, DISPUTED, AMERICA)]
    with held(dataset, kind) as (service, crowd):
        answers = gathered(service, crowd, asked)
        assert [one.result(PATIENCE) for one in answers] == [dataset.lookup(*one) for one in asked]
        assert dataset.lookup(DISPUTED).claimed
        assert service.calls == [("Lookup", 1), ("ClassifyRoster", 4), ("Lookup", 1)]


def test_batch_is_bounded(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind, coalesce=Coalescing(calls=1, batch=4)) as (service, crowd):
        answers = gathered(service, crowd, [(CHINA, "CN")] * 10)
        assert {one.result(PATIENCE).country for one in answers} == {"CN"}
        assert [size for _, size in service.calls] == [1, 4, 4, 2]


def test_lookup_beyond_the_queue_bound_fails_at_once(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind, coalesce=Coalescing(calls=1, waiting=3)) as (service, crowd):
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        waiting = [crowd.ask(CHINA, "CN") for _ in range(3)]
        crowd.wait_for(3)
        with pytest.raises(ServiceUnavailableError, match="3 lookups waiting"):
            crowd.ask(CHINA, "CN").result(PATIENCE)
        service.gate.set()
        assert {one.result(PATIENCE).country for one in [first, *waiting]} == {"CN"}


def test_lookups_are_batched_by_question_and_validity(dataset: Dataset, kind: str) -> None:
    china = RegionSet("CHINA", frozenset(["CN"]))
    questions: list[tuple[Any, ...]] = [
        ("CN",),
        ("EU",),
        (None,),
        ("CN", "MAJORITY"),
        ("CN", "PRIMARY"),
        (china,),
    ]
    asked = [(address, *one) for one in questions for address in (CHINA, *BAD[:2], AMERICA, *BAD)]
    with held(dataset, kind) as (service, crowd):
        answers = [crowd.ask(*one) for one in asked]
        for _ in range(2 * len(questions)):  # the first of each question, bad ones have their own
            assert service.entered.acquire(timeout=PATIENCE)
        crowd.wait_for(len(asked) - 2 * len(questions))
        service.gate.set()
        got = [one.result(PATIENCE) for one in answers]
        assert got == [dataset.lookup(*one) for one in asked]
        sizes = Counter(size for _, size in service.calls)
        assert sizes == {1: 3 * len(questions), len(BAD) + 1: len(questions)}


def test_unknown_region_set_fails_its_own_lookups_only(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        bad = [crowd.ask(CHINA, "NOWHERE") for _ in range(4)]
        assert service.entered.acquire(timeout=PATIENCE)
        crowd.wait_for(3)
        good = crowd.ask(CHINA, "CN")
        service.gate.set()
        assert good.result(PATIENCE).country == "CN"
        problems = [one.exception(PATIENCE) for one in bad]
        assert {type(problem) for problem in problems} == {RegionSetError}
        assert len({str(problem) for problem in problems}) == 1
        assert len(set(map(id, problems))) == 4, "an error object is its caller's own"


@pytest.mark.parametrize("address", [5, None, ["1.0.1.1"]])
def test_address_of_another_type_fails_its_own_lookup_only(
    dataset: Dataset, kind: str, address: Any
) -> None:
    with held(dataset, kind) as (service, crowd):
        service.gate.set()
        with pytest.raises(TypeError, match="address: expected"):
            crowd.ask(address).result(PATIENCE)
        assert crowd.ask(CHINA).result(PATIENCE).country == "CN"


def test_time_limit_applies_to_its_own_lookup_only(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        patient = crowd.ask(AMERICA, "CN")
        crowd.wait_for(1)
        with pytest.raises(ServiceUnavailableError, match=r"did not answer in 0\.05 s"):
            crowd.ask(DISPUTED, "CN", timeout=0.05).result(PATIENCE)
        crowd.wait_for(1)  # who is late does not wait any longer
        service.gate.set()
        assert first.result(PATIENCE).country == "CN"
        assert patient.result(PATIENCE).country == "US"
        assert service.calls == [("Lookup", 1)] * 2


def test_expired_lookup_leaves_its_batch_to_the_others(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        gates = [threading.Event(), threading.Event()]
        service.gate = gates[0]
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        hasty = crowd.ask(CHINA, "CN", timeout=2)
        others = [crowd.ask(AMERICA, "CN") for _ in range(2)]
        crowd.wait_for(3)
        service.gate = gates[1]
        gates[0].set()
        assert first.result(PATIENCE).country == "CN"
        assert service.entered.acquire(timeout=PATIENCE)
        assert service.calls[1] == ("ClassifyRoster", 3)
        with pytest.raises(ServiceUnavailableError, match="did not answer in 2 s"):
            hasty.result(PATIENCE)
        gates[1].set()
        assert [one.result(PATIENCE).country for one in others] == ["US", "US"]


def test_cancelled_task_cancels_no_other_lookup(dataset: Dataset) -> None:
    with held(dataset, "tasks") as (service, crowd):
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        waiting = [crowd.ask(AMERICA, "CN") for _ in range(4)]
        crowd.wait_for(4)
        assert waiting[1].cancel()
        crowd.wait_for(3)
        assert first.cancel(), "even the one whose call is under way"
        service.gate.set()
        kept = [waiting[0], *waiting[2:]]
        assert {one.result(PATIENCE).country for one in kept} == {"US"}
        assert service.calls == [("Lookup", 1), ("ClassifyRoster", 3)]


def test_failed_batch_fails_its_lookups_and_the_next_is_sent(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        service.refuse = lambda method: (
            (grpc.StatusCode.UNAVAILABLE, "") if method == "ClassifyRoster" else None
        )
        failed = gathered(service, crowd, [(CHINA, "CN")] * 3)
        problems = [one.exception(PATIENCE) for one in failed]
        assert {type(problem) for problem in problems} == {ServiceUnavailableError}
        assert len(set(map(id, problems))) == 3
        assert crowd.ask(CHINA, "CN").result(PATIENCE).country == "CN"


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED])
def test_refused_rosters_are_sent_as_lookups(
    dataset: Dataset, kind: str, code: grpc.StatusCode
) -> None:
    with held(dataset, kind) as (service, crowd):
        service.refuse = lambda method: (code, "") if method == "ClassifyRoster" else None
        asked = [(address, "CN") for address in (CHINA, AMERICA, DISPUTED, CHINA)]
        answers = gathered(service, crowd, asked)
        assert [one.result(PATIENCE) for one in answers] == [dataset.lookup(*one) for one in asked]
        before = len(service.calls)
        again = [crowd.ask(CHINA, "CN") for _ in range(8)]
        assert {one.result(PATIENCE).country for one in again} == {"CN"}
        assert service.calls[before:] == [("Lookup", 1)] * 8, "it does not try rosters again"


def test_roster_limit_of_the_service_is_learnt(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind, RosterLimits(roster=3)) as (service, crowd):
        answers = gathered(service, crowd, [(CHINA, "CN")] * 12)
        assert {one.result(PATIENCE).country for one in answers} == {"CN"}
        assert [size for _, size in service.calls] == [1, 12, 6, 3, 3, 3, 3]


def test_roster_limit_of_one_address_sends_lookups(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind, RosterLimits(roster=1)) as (service, crowd):
        answers = gathered(service, crowd, [(CHINA, "CN")] * 3)
        assert {one.result(PATIENCE).country for one in answers} == {"CN"}
        assert ("ClassifyRoster", 1) not in service.calls


def test_an_answer_of_another_size_is_an_error(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):

        def shorter(method: str, body: bytes) -> bytes:
            if method == "Lookup":
                return handlers.lookup(service.snapshot, body, service.limits)
            request = v1.ClassifyRosterRequest.FromString(body)
            request.ipv4 = request.ipv4[4:]
            return handlers.classify_roster(
                service.snapshot, request.SerializeToString(), service.limits
            )

        service.answer = shorter
        for one in gathered(service, crowd, [(CHINA, "CN")] * 3):
            with pytest.raises(ServiceError, match="not understood"):
                one.result(PATIENCE)
        assert crowd.ask(CHINA, "CN").result(PATIENCE).country == "CN"


def test_closing_ends_all_waiting_lookups(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        waiting = [crowd.ask(CHINA, "CN") for _ in range(3)]
        crowd.wait_for(3)
        crowd.close()
        for one in (first, *waiting, crowd.ask(CHINA, "CN")):
            with pytest.raises(ServiceError, match="the client was closed"):
                one.result(PATIENCE)


def test_closing_ends_a_batch_under_way(dataset: Dataset, kind: str) -> None:
    with held(dataset, kind) as (service, crowd):
        gates = [threading.Event(), threading.Event()]
        service.gate = gates[0]
        first = crowd.ask(CHINA, "CN")
        assert service.entered.acquire(timeout=PATIENCE)
        waiting = [crowd.ask(CHINA, "CN") for _ in range(3)]
        crowd.wait_for(3)
        service.gate = gates[1]
        gates[0].set()
        assert first.result(PATIENCE).country == "CN"
        assert service.entered.acquire(timeout=PATIENCE)
        crowd.close()
        for one in waiting:
            with pytest.raises(ServiceError, match="the client was closed"):
                one.result(PATIENCE)
        gates[1].set()


# against the real service

FORMS = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda value: value.to_bytes(4)),
    st.integers(0, 2**128 - 1).map(lambda value: value.to_bytes(16)),
    st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(lambda value: value.to_bytes(16)),
    st.integers(0, 2**32 - 1).map(lambda value: bytes(10) + b"\xff\xff" + value.to_bytes(4)),
    st.sampled_from([CHINA, AMERICA, DISPUTED, PRIVATE, GERMANY6, "2002:0100:0101::"]),
    st.sampled_from([*strategies.MALFORMED, b"", b"123"]),
)


@pytest.fixture(scope="module", params=["threads", "tasks"])
def crowd(request: pytest.FixtureRequest, service: Service) -> Iterator[Crowd]:
    crowd = Crowd(
        request.param,
        service.target,
        timeout=PATIENCE,
        channels=2,
        coalesce=Coalescing(batch=50),
    )
    yield crowd
    crowd.end()


@settings(max_examples=40)
@given(
    addresses=st.lists(FORMS, min_size=1, max_size=120),
    region_set=st.sampled_from([None, "CN", "EU-DE", "EUROPE"]),
    policy=st.sampled_from(["UNANIMOUS", "MAJORITY", "PRIMARY"]),
)
def test_random_concurrent_lookups_agree_with_single_ones(
    crowd: Crowd,
    dataset: Dataset,
    addresses: list[Any],
    region_set: str | None,
    policy: str,
) -> None:
    asked = [crowd.ask(address, region_set, policy) for address in addresses]
    got = [one.result(PATIENCE) for one in asked]
    assert got == [dataset.lookup(address, region_set, policy) for address in addresses]


def test_many_concurrent_lookups_are_answered(crowd: Crowd, dataset: Dataset) -> None:
    rng = random.Random(5)
    addresses = [rng.randbytes(4) for _ in range(2_000)]
    asked = [crowd.ask(address, "EU") for address in addresses]
    assert [one.result(PATIENCE) for one in asked] == [
        dataset.lookup(address, "EU") for address in addresses
    ]
