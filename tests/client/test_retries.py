"""Calls without an answer are made again, by both clients, and not without end."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import random
import signal
import threading
import time
from concurrent import futures
from typing import Any

import grpc
import pytest
from counting_service import (
    AT_ONCE,
    PATIENCE,
    Ask,
    Behaviour,
    by_tasks,
    by_threads,
    counting,
    ending,
)
from servers import serving

from geolookup.client import AsyncClient, Client, Retry
from geolookup.client.channel import channel_options
from geolookup.errors import ServiceError, ServiceUnavailableError

QUICK = Retry(first_wait=0.002, longest_wait=0.002, budget=10)
"""The shortest waits that there are."""


@pytest.fixture(params=[by_threads, by_tasks], ids=["threads", "tasks"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Make so many calls at once."""
    asking: Ask = request.param
    return asking


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_calls_lost_together_are_all_retried(ask: Ask, code: grpc.StatusCode) -> None:
    """As when a worker is killed: all that are under way on its connection are lost."""
    together = threading.Barrier(AT_ONCE)

    def lose(number: int, context: grpc.ServicerContext) -> None:
        if number < AT_ONCE:
            together.wait(PATIENCE)
            context.abort(code, "")

    with counting(lose) as (target, service):
        assert ask(target, AT_ONCE) == []
        assert service.attempts == 2 * AT_ONCE


@pytest.mark.parametrize("turn", range(8))
def test_call_is_attempted_up_to_the_limit(ask: Ask, turn: int) -> None:  # noqa: ARG001 - waits vary
    with counting(ending(grpc.StatusCode.UNAVAILABLE)) as (target, service):
        (error,) = ask(target, 1, retry=QUICK)
        assert isinstance(error, ServiceUnavailableError)
        assert service.attempts == QUICK.attempts
    with counting(ending(grpc.StatusCode.UNAVAILABLE, QUICK.attempts - 1)) as (target, service):
        assert ask(target, 1, retry=QUICK) == []


def test_retries_last_longer_than_grpc_takes_to_reconnect() -> None:
    """A connection to a listener that closes is lost at once, and none is made for a while."""
    options = dict(channel_options(()))
    wait = options["grpc.initial_reconnect_backoff_ms"]
    assert isinstance(wait, int)
    default = Retry()
    waits = [
        min(default.first_wait * 2**number, default.longest_wait)
        for number in range(default.attempts - 1)
    ]
    # Each of both varies by 20 %, and the connection may be lost twice.
    assert 0.8 * sum(waits) > 2 * 1.2 * wait / 1_000


def test_retry_budget_bounds_the_attempts_on_a_failing_service() -> None:
    calls = 4 * QUICK.budget
    with (
        counting(ending(grpc.StatusCode.UNAVAILABLE)) as (target, service),
        Client(target, timeout=PATIENCE, retry=QUICK) as client,
    ):
        for _ in range(calls):
            with pytest.raises(ServiceUnavailableError):
                client.lookup("1.0.1.1")
        assert calls < service.attempts <= calls + QUICK.budget / 2


NOT_AGAIN: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "what a handler refuses": (ending(grpc.StatusCode.INTERNAL), {}),
    "what is over the limit": (ending(grpc.StatusCode.RESOURCE_EXHAUSTED), {}),
    "a hint not to come again": (ending(grpc.StatusCode.UNAVAILABLE, hint="-1"), {}),
    "it was not wanted": (ending(grpc.StatusCode.UNAVAILABLE), {"retry": None}),
}


@pytest.mark.parametrize("case", NOT_AGAIN)
def test_other_failures_are_not_retried(ask: Ask, case: str) -> None:
    behaviour, options = NOT_AGAIN[case]
    with counting(behaviour) as (target, service):
        (error,) = ask(target, 1, **options)
        assert isinstance(error, (ServiceError, ServiceUnavailableError))
        assert service.attempts == 1


# calls that are shed

SHED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("coalesce", [False, True])
def test_shed_call_is_retried_after_the_hint(ask: Ask, coalesce: bool) -> None:
    """More often than one that fails, since somebody is there: until its time is over."""
    began: list[float] = []

    def shed(number: int, context: grpc.ServicerContext) -> None:
        began.append(time.monotonic())
        ending(SHED, 8, "10")(number, context)

    with counting(shed) as (target, service):
        assert ask(target, 1, coalesce=coalesce) == []
        assert service.attempts == 9
    waits = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert all(wait >= 0.01 for wait in waits)
    assert all(wait >= 0.02 for wait in waits[1:])  # longer, as the load may last


def test_shed_coalesced_lookups_are_retried(ask: Ask) -> None:
    with counting(ending(SHED, 3, "2")) as (target, service):
        errors = ask(target, AT_ONCE, coalesce=True)
    assert {type(error) for error in errors} <= {ServiceError}  # the answer is that of one
    assert 3 < service.attempts <= 3 + AT_ONCE


def test_shed_call_whose_time_ends_before_the_hint_fails_at_once(ask: Ask) -> None:
    with counting(ending(SHED, hint="600000")) as (target, service):
        (error,) = ask(target, 1)
        assert service.attempts == 1
    assert type(error) is ServiceUnavailableError
    assert str(error) == f"the service at {target} is overloaded"
    assert (error.code, error.retry_after, error.retryable) == ("RESOURCE_EXHAUSTED", 600, True)


def test_shed_call_without_retry_is_made_once(ask: Ask) -> None:
    with counting(ending(SHED, hint="20")) as (target, service):
        (error,) = ask(target, 1, retry=None)
        assert service.attempts == 1
    assert isinstance(error, ServiceUnavailableError)
    assert (error.retry_after, error.retryable) == (0.02, True)


@pytest.mark.parametrize(
    ("code", "hint", "retry_after", "retryable"),
    [
        ("UNAVAILABLE", None, None, True),
        ("UNAVAILABLE", "-1", None, False),
        ("UNAVAILABLE", "soon", None, False),
        ("UNAVAILABLE", "5", 0.005, True),
        ("RESOURCE_EXHAUSTED", None, None, False),
        ("RESOURCE_EXHAUSTED", "-1", None, False),
        ("PERMISSION_DENIED", None, None, False),
        ("INTERNAL", None, None, False),
    ],
)
def test_error_has_code_hint_and_whether_to_retry(
    code: str, hint: str | None, retry_after: float | None, retryable: bool
) -> None:
    with counting(ending(grpc.StatusCode[code], hint=hint)) as (target, _):
        (error,) = by_threads(target, 1, retry=QUICK)
    assert isinstance(error, ServiceError)
    assert (error.code, error.retry_after, error.retryable) == (code, retry_after, retryable)
    again = copy.copy(error)
    assert (again.code, again.retry_after, again.retryable) == (code, retry_after, retryable)


def test_closing_ends_the_wait_of_a_shed_call() -> None:
    shed = threading.Event()

    def behave(number: int, context: grpc.ServicerContext) -> None:
        shed.set()
        ending(SHED, hint="20000")(number, context)

    with counting(behave) as (target, _), futures.ThreadPoolExecutor(4) as pool:
        for coalesce in (False, True):
            shed.clear()
            client = Client(target, timeout=PATIENCE, coalesce=coalesce)
            calls = [pool.submit(client.lookup, "1.0.1.1") for _ in range(4)]
            assert shed.wait(PATIENCE)
            client.close()
            for call in calls:
                with pytest.raises(ServiceError, match="the client was closed"):
                    call.result(PATIENCE / 2)


def test_closing_ends_the_wait_of_a_shed_task() -> None:
    async def close(target: str, coalesce: bool) -> None:
        client = AsyncClient(target, timeout=PATIENCE, coalesce=coalesce)
        calls = [asyncio.create_task(client.lookup("1.0.1.1")) for _ in range(4)]
        await asyncio.to_thread(shed.wait, PATIENCE)
        await client.close()
        for call in calls:
            with pytest.raises(ServiceError, match="the client was closed"):
                await asyncio.wait_for(call, PATIENCE / 2)

    def behave(number: int, context: grpc.ServicerContext) -> None:
        shed.set()
        ending(SHED, hint="20000")(number, context)

    for coalesce in (False, True):
        shed = threading.Event()
        with counting(behave) as (target, _):
            asyncio.run(close(target, coalesce))


BAD = {
    "one attempt": ({"attempts": 1}, "attempts"),
    "more than gRPC makes": ({"attempts": 6}, "attempts"),
    "no wait": ({"first_wait": 0}, "first_wait"),
    "a wait that gRPC takes for none": ({"first_wait": 0.001}, "first_wait"),
    "a first wait over the longest": ({"first_wait": 2}, "first_wait"),
    "endless waits": ({"longest_wait": float("inf")}, "longest_wait"),
    "no tokens": ({"budget": 0}, "budget"),
    "more tokens than gRPC has": ({"budget": 1_001}, "budget"),
    "no refill": ({"refill": 0}, "refill"),
    "more at once than there is room for": ({"budget": 1, "refill": 2}, "refill"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_retry_values_are_refused(case: str) -> None:
    values, what = BAD[case]
    with pytest.raises(ValueError, match=what):
        Retry(**values)


# workers that are killed


@pytest.mark.parametrize("addresses", [1_000, 70_000, 1_000_000])
def test_rosters_of_any_size_survive_killed_workers(addresses: int) -> None:
    """Also those over 256 KiB, of which gRPC's own retry keeps no copy."""
    roster = bytes(4 * addresses)
    killed = threading.Event()

    def classify() -> int:
        answered = 0
        while not killed.is_set():
            assert client.classify(ipv4=roster).size == addresses
            answered += 1
        return answered

    with (
        serving("--workers", "2", "--spare-worker") as service,
        Client(service.target, timeout=PATIENCE, channels=4) as client,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        callers = [pool.submit(classify) for _ in range(4)]
        try:
            for _ in range(5):
                before = set(service.workers)
                os.kill(random.choice(sorted(before)), signal.SIGKILL)
                end = time.monotonic() + PATIENCE
                while len(set(service.workers) - before) < 1:  # another was started in its place
                    assert time.monotonic() < end
                    assert killed.wait(0.01) is False
        finally:
            killed.set()
        assert all(caller.result(PATIENCE) for caller in callers)
