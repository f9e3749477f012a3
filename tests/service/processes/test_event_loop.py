"""The loop: what is ready, due or called runs, once, in order, in one thread."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.service.processes import event_loop as module
from geolookup.service.processes.event_loop import EventLoop, Timer

PATIENCE = 30


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[EventLoop]:
    with EventLoop(clock) as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def run_until_idle(loop: EventLoop) -> None:
    """Run all that is due, called or ready now."""
    loop.call_later(0, loop.stop)
    loop.run()


# descriptors


def test_reader_runs_until_the_descriptor_was_read(loop: EventLoop, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    read: list[bytes] = []

    def act() -> None:
        read.append(os.read(reading, 1))
        if len(read) == 3:
            loop.stop()

    loop.add_reader(reading, act)
    os.write(writing, b"abc")
    loop.run()
    assert read == [b"a", b"b", b"c"]


def test_removed_reader_does_not_run(loop: EventLoop, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    told: list[int] = []
    loop.add_reader(reading, lambda: told.append(1))
    os.write(writing, b"a")
    loop.remove_reader(reading)
    run_until_idle(loop)
    assert told == []


def test_reader_removed_by_an_earlier_action_does_not_run(loop: EventLoop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[int] = []

    def act(which: int) -> None:
        told.append(which)
        other = pairs[1 - which][0]
        loop.remove_reader(other.fileno())
        other.close()
        loop.stop()

    for which, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours.fileno(), lambda which=which: act(which))  # type: ignore[misc]
        theirs.send(b"x")
    loop.run()
    assert len(told) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_new_reader_with_a_reused_number_does_not_run_for_the_old_event(
    loop: EventLoop,
) -> None:
    """A worker's end closes its line, and the next worker's line takes the number."""
    pairs = [socket.socketpair() for _ in range(2)]
    later = socket.socketpair()
    numbers: list[int] = []
    told: list[str] = []

    def act(which: int) -> None:
        told.append("old")
        number = pairs[1 - which][0].detach()
        loop.remove_reader(number)
        os.dup2(later[0].fileno(), number)  # which closes it first
        numbers.append(number)
        loop.add_reader(number, lambda: told.append("new"))
        loop.call_later(0, loop.stop)

    for which, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours.fileno(), lambda which=which: act(which))  # type: ignore[misc]
        theirs.send(b"x")
    loop.run()
    assert told == ["old"]
    for end in (end for pair in (*pairs, later) for end in pair):
        end.close()
    for number in numbers:
        os.close(number)


# timers


def test_timers_fire_in_the_order_of_their_times(loop: EventLoop, clock: Clock) -> None:
    fired: list[str] = []
    loop.call_later(2, lambda: fired.append("later"))
    loop.call_later(1, lambda: fired.append("sooner"))
    loop.call_later(1, lambda: fired.append("sooner, made second"))
    clock.now += 1
    run_until_idle(loop)
    assert fired == ["sooner", "sooner, made second"]
    clock.now += 1
    run_until_idle(loop)
    assert fired[2:] == ["later"]


def test_timer_fires_once(loop: EventLoop, clock: Clock) -> None:
    fired: list[int] = []
    timer = loop.call_later(1, lambda: fired.append(1))
    for _ in range(3):
        clock.now += 5
        run_until_idle(loop)
    timer.fire()
    timer.cancel()
    assert fired == [1]


def test_cancelled_timer_does_nothing(loop: EventLoop, clock: Clock) -> None:
    fired: list[int] = []
    timer = loop.call_later(1, lambda: fired.append(1))
    timer.cancel()
    timer.cancel()
    clock.now += 5
    run_until_idle(loop)
    assert fired == []


def test_timer_cancelled_by_one_due_with_it_does_nothing(loop: EventLoop, clock: Clock) -> None:
    fired: list[str] = []
    timers: list[Timer] = []

    def cancel() -> None:
        timers[0].cancel()

    loop.call_later(1, cancel)
    timers.append(loop.call_later(1, lambda: fired.append("cancelled")))
    clock.now += 1
    run_until_idle(loop)
    assert fired == []


def test_timer_may_start_the_next(loop: EventLoop, clock: Clock) -> None:
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.now)
        loop.call_later(1, again)

    again()
    for _ in range(3):
        clock.now += 1
        run_until_idle(loop)
    assert fired == [1_000, 1_001, 1_002, 1_003]


@given(
    times=st.lists(st.integers(0, 20), max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
    steps=st.lists(st.integers(0, 7), min_size=1, max_size=8),
)
def test_timers_agree_with_a_sorted_list(
    times: list[int], cancelled: set[int], steps: list[int]
) -> None:
    clock = Clock()
    fired: list[int] = []
    with EventLoop(clock) as loop:
        timers = [
            loop.call_later(time, lambda number=number: fired.append(number))  # type: ignore[misc]
            for number, time in enumerate(times)
        ]
        for number in cancelled & set(range(len(times))):
            timers[number].cancel()
        for step in steps:
            clock.now += step
            run_until_idle(loop)
    due = sorted((time, number) for number, time in enumerate(times) if number not in cancelled)
    assert fired == [number for time, number in due if time <= sum(steps)]


def test_wait_ends_at_the_next_timer_or_the_systems_limit() -> None:
    with EventLoop() as loop:
        loop.call_later(1e12, loop.stop)
        assert loop._time_to_wait() == module._LONGEST_WAIT
        loop.call_later(0.01, loop.stop)
        loop.run()


# calls


def test_call_from_another_thread_wakes_the_loop(loop: EventLoop) -> None:
    ran_in: list[threading.Thread] = []

    def act() -> None:
        ran_in.append(threading.current_thread())
        loop.stop()

    other = threading.Thread(target=loop.call_threadsafe, args=(act,))
    # Long asleep by then, or not yet: both must work.
    loop.call_threadsafe(other.start)
    loop.run()
    other.join(PATIENCE)
    assert ran_in == [threading.current_thread()]


def test_calls_of_one_thread_keep_their_order(loop: EventLoop) -> None:
    ran: list[int] = []
    for number in range(5_000):  # more than wake it
        loop.call_threadsafe(lambda number=number: ran.append(number))  # type: ignore[misc]
    loop.call_threadsafe(loop.stop)
    loop.run()
    assert ran == list(range(5_000))


def test_calls_of_many_threads_all_run(loop: EventLoop) -> None:
    ran: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: [loop.call_threadsafe(lambda: ran.append(1)) for _ in range(1_000)]
        )
        for _ in range(4)
    ]

    def look() -> None:
        if len(ran) == 4_000:
            loop.stop()
        else:
            loop.call_threadsafe(look)

    for thread in threads:
        thread.start()
    loop.call_threadsafe(look)
    loop.run()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ran) == 4_000


def test_call_that_calls_again_does_not_block_timers_and_readers(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    reading, writing = pipe
    waiting = {"timer", "descriptor"}

    def again() -> None:
        loop.call_threadsafe(loop.stop if not waiting else again)

    def read() -> None:
        os.read(reading, 1)
        waiting.discard("descriptor")

    loop.add_reader(reading, read)
    os.write(writing, b"x")
    loop.call_later(0, lambda: waiting.discard("timer"))
    loop.call_threadsafe(again)
    loop.run()
    assert not waiting


def test_call_after_close_is_refused() -> None:
    loop = EventLoop()
    loop.close()
    assert not loop.call_threadsafe(loop.stop)


def test_refuse_calls_runs_earlier_calls_and_refuses_later_ones(loop: EventLoop) -> None:
    """Each of many threads is told truly whether its action ran."""
    ran: list[int] = []
    promised: list[int] = []
    loop.call_threadsafe(loop.stop)
    loop.run()
    first = threading.Barrier(5)

    def call(thread: int) -> None:
        first.wait(PATIENCE)
        number = 0
        while loop.call_threadsafe(lambda value=10_000_000 * thread + number: ran.append(value)):  # type: ignore[misc]
            promised.append(10_000_000 * thread + number)
            number += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    first.wait(PATIENCE)
    loop.refuse_calls()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(ran) == sorted(promised)
    assert not loop.call_threadsafe(loop.stop)


# stopping


@pytest.mark.parametrize("how", ["call", "timer", "descriptor"])
def test_stop_defers_everything_to_the_next_run(
    loop: EventLoop, pipe: tuple[int, int], how: str
) -> None:
    ran: list[str] = []

    def stop() -> None:
        ran.append("stop")
        loop.stop()

    if how == "call":
        loop.call_threadsafe(stop)
        loop.call_threadsafe(lambda: ran.append("called"))
        loop.call_threadsafe(loop.stop)
    elif how == "timer":
        loop.call_later(0, stop)
        loop.call_later(0, lambda: ran.append("called"))
        loop.call_later(0, loop.stop)
    else:
        os.write(pipe[1], b"xx")
        loop.add_reader(pipe[0], lambda: (os.read(pipe[0], 1), stop()))
    loop.run()
    assert ran == ["stop"]
    loop.run()
    assert ran == ["stop", "stop" if how == "descriptor" else "called"]


def test_close_leaves_no_descriptor_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with EventLoop() as loop:
        run_until_idle(loop)
        assert set(os.listdir("/proc/self/fd")) > before
    assert set(os.listdir("/proc/self/fd")) == before
