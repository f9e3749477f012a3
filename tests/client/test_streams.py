"""Streams that break off: what is asked for again, and when a stream must not go on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from blocking_client import Blocking
from counting_service import PATIENCE

from geolookup import Dataset, ServiceError, ServiceUnavailableError
from geolookup.client import Client, Retry
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.v1 import geolookup_pb2 as v1

QUICK = Retry(first_wait=0.002, longest_wait=0.01)
UNAVAILABLE, SHED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
ROSTERS = [["1.0.1.1"] * number for number in range(1, 9)]
"""Of different sizes, so that each is known by its own."""

Break = tuple[int, grpc.StatusCode, str | None]
"""After how many answers an attempt ends, with which status, and its hint."""


class Breaking(grpc.GenericRpcHandler):
    """The real handler of streams, which breaks off the first attempts.

    Attributes:
        attempts: the sizes of the rosters that came in each.
        answered: of those that were answered.
    """

    def __init__(self, dataset: Dataset, breaks: list[Break]) -> None:
        self.snapshot = handlers.Snapshot(dataset)
        self.attempts: list[list[int]] = []
        self.answered: list[int] = []
        self.on_break: Callable[[], None] = lambda: None
        self.rename: Callable[[v1.ClassifyRosterResponse], None] = lambda _: None
        self._breaks = breaks

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._answers)

    def _answers(self, bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        came: list[int] = []
        number = len(self.attempts)
        self.attempts.append(came)
        end = self._breaks[number] if number < len(self._breaks) else None
        if end is not None and end[0] == 0:
            self._end(end, context)
        for count, body in enumerate(bodies, 1):
            request = v1.StreamRostersRequest.FromString(body).roster
            size = len(request.ipv4) // 4
            came.append(size)
            answer = handlers.classify_roster(
                self.snapshot, request.SerializeToString(), RosterLimits()
            )
            response = v1.ClassifyRosterResponse.FromString(answer)
            self.rename(response)
            self.answered.append(size)
            yield v1.StreamRostersResponse(roster=response).SerializeToString()
            if end is not None and end[0] == count:
                self._end(end, context)

    def _end(self, end: Break, context: grpc.ServicerContext) -> None:
        self.on_break()
        if end[2] is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", end[2]),))
        context.abort(end[1], "")


@contextlib.contextmanager
def breaking(dataset: Dataset, *breaks: Break) -> Iterator[tuple[str, Breaking]]:
    """Serve; yield the address, and what counts."""
    service = Breaking(dataset, list(breaks))
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        server.stop(0).wait(PATIENCE)


@pytest.fixture(params=[Client, Blocking], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("ahead", [1, 3, 16])
@pytest.mark.parametrize(
    "breaks",
    [
        [(0, UNAVAILABLE, None)],
        [(0, SHED, "1")] * 6,
        [(1, UNAVAILABLE, None)],
        [(3, UNAVAILABLE, None), (0, UNAVAILABLE, None), (2, SHED, "1"), (1, UNAVAILABLE, None)],
        [(8, UNAVAILABLE, None)],
    ],
)
def test_stream_that_breaks_off_goes_on_where_it_was(
    dataset: Dataset, kind: Any, ahead: int, breaks: list[Break]
) -> None:
    taken = []

    def given() -> Iterator[list[str]]:
        for roster in ROSTERS:
            taken.append(len(roster))
            yield roster

    with (
        breaking(dataset, *breaks) as (target, service),
        kind(target, timeout=PATIENCE, retry=QUICK) as client,
    ):
        results = client.classify_many(given(), region_set="CN", ahead=ahead)
        assert [result.size for result in results] == [len(roster) for roster in ROSTERS]
    assert taken == [len(roster) for roster in ROSTERS]
    assert len(service.attempts) == len(breaks) + 1
    for came in service.attempts:
        assert came == sorted(came), "each attempt sends them in their order"


@pytest.mark.parametrize(
    ("end", "attempts"),
    [
        ((0, UNAVAILABLE, None), QUICK.attempts),
        ((0, UNAVAILABLE, "-1"), 1),
        ((0, SHED, None), 1),
        ((0, grpc.StatusCode.PERMISSION_DENIED, None), 1),
        ((0, grpc.StatusCode.INTERNAL, None), 1),
    ],
)
def test_stream_is_made_again_as_often_as_a_call(
    dataset: Dataset, kind: Any, end: Break, attempts: int
) -> None:
    with (
        breaking(dataset, *[end] * 1_000) as (target, service),
        kind(target, timeout=PATIENCE, retry=QUICK) as client,
    ):
        with pytest.raises(ServiceError):
            list(client.classify_many(ROSTERS, region_set="CN"))
        # grpc.aio forgets a status that comes while it sends; one of the next attempts has it.
        assert len(service.attempts) >= attempts
        assert kind is Blocking or len(service.attempts) == attempts


def test_stream_of_a_client_without_retries_is_made_once(dataset: Dataset, kind: Any) -> None:
    with (
        breaking(dataset, (2, UNAVAILABLE, None)) as (target, service),
        kind(target, timeout=PATIENCE, retry=None) as client,
    ):
        # One at a time: grpc.aio forgets answers, too, if a stream ends while it sends.
        results = client.classify_many(ROSTERS, region_set="CN", ahead=1)
        assert [next(results).size for _ in range(2)] == [1, 2]
        with pytest.raises(ServiceUnavailableError):
            next(results)
        assert len(service.attempts) == 1


def test_stream_does_not_go_on_with_another_dataset(dataset: Dataset, kind: Any) -> None:
    def rename(response: v1.ClassifyRosterResponse) -> None:
        if len(service.attempts) > 1:
            response.dataset = "f" * 64

    with (
        breaking(dataset, (2, UNAVAILABLE, None)) as (target, service),
        kind(target, timeout=PATIENCE, retry=QUICK) as client,
    ):
        service.rename = rename
        # One at a time: grpc.aio forgets answers, too, if a stream ends while it sends.
        results = client.classify_many(ROSTERS, region_set="CN", ahead=1)
        assert [next(results).size for _ in range(2)] == [1, 2]
        with pytest.raises(ServiceUnavailableError, match="another dataset") as raised:
            next(results)
        assert raised.value.retryable


def test_stream_goes_on_while_its_iterator_waits(dataset: Dataset, kind: Any) -> None:
    """It breaks off while the caller has no roster; the next one is sent once, by the new one."""
    broken = threading.Event()

    def given() -> Iterator[list[str]]:
        yield ROSTERS[0]
        assert broken.wait(PATIENCE)
        yield ROSTERS[1]

    with (
        breaking(dataset, (1, UNAVAILABLE, None)) as (target, service),
        kind(target, timeout=PATIENCE, retry=QUICK) as client,
    ):
        service.on_break = broken.set
        results = client.classify_many(given(), region_set="CN")
        assert [result.size for result in results] == [1, 2]
        assert service.answered == [1, 2]


def test_wait_for_a_result_ends_also_beyond_a_stream_that_broke_off(
    dataset: Dataset, kind: Any
) -> None:
    with (
        breaking(dataset, *[(0, SHED, "50")] * 1_000) as (target, _),
        kind(target, timeout=0.3, retry=QUICK) as client,
        pytest.raises(ServiceUnavailableError),
    ):
        list(client.classify_many(ROSTERS, region_set="CN"))
