"""One client process: makes the calls of a plan, and measures them.

An open loop makes each call when it is due, however many are under way, and a call's time
runs from when it was due. A service that stops for a second is so seen by all who would
have asked in that second; a closed loop, which waits for its answers, would have asked
nothing and seen one slow call.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import selectors
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import geolookup
from bench.load.arrivals import poisson
from bench.load.native import NativeRun, NativeSender
from bench.load.plan import OK, UNFINISHED, UNSENT, Plan, Result
from bench.load.senders import Sender, addresses, sender_of, status_of, threaded_client
from bench.load.work import Call, Drawing, calls, is_native
from geolookup.errors import GeoLookupError

_BREATH = 8
"""Calls that an open loop sends in a row when it is behind, before answers get their turn."""
_TICK = 0.25
"""Seconds between looks at what the starter of this process says, and words to it."""


def main(connection: Connection, number: int, processes: int, dataset: str | None) -> None:
    """Run the plans that come over a connection, until it ends. The body of a process.

    Sends ("ready",) once. Then receives a plan, draws, connects and sends ("prepared",);
    receives the monotonic time at which the plan begins; sends ("progress", answered,
    failed) now and then, and ("result", result) at the end. "stop" ends a plan early.
    """
    # Ctrl-C reaches all processes; the one who started them tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # select() keeps microseconds where epoll rounds up to milliseconds, and the loop has only
    # a few descriptors: gRPC watches its sockets itself. One loop for all plans: gRPC ties
    # itself to it.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with geolookup.open(dataset) as opened, asyncio.Runner(loop_factory=lambda: loop) as runner:
        connection.send(("ready",))
        drawn: dict[object, list[Call]] = {}
        while True:
            plan = connection.recv()
            if plan == "stop":  # it came too late
                continue
            drawing = Drawing(opened, plan.blend, number)
            key = (plan.scenario, plan.blend, tuple(plan.mix.items()))
            if key not in drawn:
                drawn.clear()  # one scenario's may be large
                drawn[key] = calls(plan.scenario, drawing, plan.mix)
            run = _Run(plan, drawing, drawn[key], number, processes)
            connection.send(("result", run.run(connection, runner)))


class _Run:
    """A plan's share of one process."""

    def __init__(
        self, plan: Plan, drawing: Drawing, ready: Sequence[Call], number: int, processes: int
    ) -> None:
        self.plan = plan
        self.drawing = drawing
        self.ready = ready
        self.seed = f"{plan.repeat} {number}"
        self.share = 1 / processes
        # What is over goes to the first ones.
        self.under_way = plan.under_way // processes + (number < plan.under_way % processes)
        self.result = Result()
        self.stopped = False
        self.start = self.measured = self.end = self.ended = 0.0
        self._begun = False
        self._waited = 0.0
        self._progress = self._progress_of_result

    def run(self, connection: Connection, runner: asyncio.Runner) -> Result:
        self.connection = connection
        if self.plan.scenario.startswith("thread-"):
            self._threads()
        elif is_native(self.plan.scenario):
            self._native()
        else:
            runner.run(self._tasks())
        gc.unfreeze()
        self._finish()
        self.result.seconds = max(0.0, min(self.end, self.ended) - self.measured)
        self.result.busiest = self.result.processor / (self.result.seconds or 1.0)
        self.result.starved = self._waited / (self.result.seconds or 1.0)
        self.result.interrupted = self.stopped
        return self.result

    def _prepared(self) -> None:
        """Say so, and learn when it begins."""
        gc.collect()
        gc.freeze()  # the drawn calls need no looking at while calls are timed
        self.connection.send(("prepared",))
        begin = self.connection.recv()
        if begin == "stop":
            self.stopped, begin = True, time.monotonic()
        self.start = begin
        self.measured = begin + self.plan.warm_up
        self.end = self.measured + self.plan.seconds

    # in C

    def _native(self) -> None:
        plan = self.plan
        due = None
        if plan.rate is not None:
            length = plan.warm_up + plan.seconds
            due = array("d", poisson(plan.rate * self.share, self.seed, 0.0, length))
        run = NativeRun(self.ready, due, max(1, self.under_way), plan.timeout)
        self._progress = lambda: run.progress
        over = threading.Event()

        def watch() -> None:
            for at, tick in self._ticks():
                over.wait(max(0.0, at - time.monotonic()))
                tick()
                if self.stopped:
                    run.stop()
                    return
            while not over.wait(_TICK) and not self.stopped:
                self._tick()
            if self.stopped:
                run.stop()

        with contextlib.closing(NativeSender(plan)) as sender:
            sender.connect()
            self._prepared()
            run.begin(self.start, self.measured, self.end)
            watching = threading.Thread(target=watch)
            watching.start()
            sender.make(run)  # in the main thread, whose waits for a core are known
            self.ended = time.monotonic()
            over.set()
            watching.join()
        run.add_to(self.result)

    # asyncio

    async def _tasks(self) -> None:
        sender = sender_of(self.plan, self.drawing)
        await sender.connect()
        self._prepared()
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.sleep(self.start - time.monotonic())
            loop = asyncio.create_task(
                self._closed_loop(sender)
                if self.plan.rate is None
                else self._open_loop(sender, self.plan.rate * self.share)
            )
            await asyncio.wait({loop, watching}, return_when=asyncio.FIRST_COMPLETED)
            if self.stopped:
                self.ended = time.monotonic()
                loop.cancel()
                await asyncio.wait({loop})
            else:
                await loop
                self.ended = time.monotonic()
        finally:
            watching.cancel()
            await sender.close()

    async def _closed_loop(self, sender: Sender) -> None:
        turns = itertools.cycle(self.ready)

        async def caller() -> None:
            while (begun := time.monotonic()) < self.end:
                call = next(turns)
                await self._make(sender, call, begun, begun)

        await asyncio.gather(*(caller() for _ in range(self.under_way)))

    async def _open_loop(self, sender: Sender, rate: float) -> None:
        turns = itertools.cycle(self.ready)
        slots = asyncio.Semaphore(max(1, self.under_way))
        tasks: set[asyncio.Task[None]] = set()

        async def make(due: float, begun: float, call: Call) -> None:
            try:
                await self._make(sender, call, due, begun)
            finally:
                slots.release()

        times = poisson(rate, self.seed, self.start, self.end)
        in_a_row = 0
        held: list[float] = []
        try:
            for due in times:
                held = [due]
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                    in_a_row = 0
                elif (in_a_row := in_a_row + 1) % _BREATH == 0:
                    await asyncio.sleep(0)
                await slots.acquire()
                # Nothing is sent once the measured time and a call's limit are over: a service
                # that can't keep up would be asked for as long as it takes.
                if time.monotonic() > self.end + self.plan.timeout:
                    self._unsent(itertools.chain(held, times), self.end)
                    break
                task = asyncio.create_task(make(due, time.monotonic(), next(turns)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                held = []
            if tasks:
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            self._unsent(itertools.chain(held, times), self.ended)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            raise

    async def _make(self, sender: Sender, call: Call, due: float, begun: float) -> None:
        try:
            self._note(due, begun, call, await sender.send(call))
        except asyncio.CancelledError:
            self._note(due, begun, call, UNFINISHED)
            raise

    def _unsent(self, times: Iterator[float], until: float) -> None:
        """Count what was due until then and never sent."""
        due = itertools.takewhile(lambda time: time < until, times)
        count = sum(time >= self.measured for time in due)
        if count:
            self.result.statuses[UNSENT] += count

    async def _watch(self) -> None:
        """Tell how it goes, hear of an early end, and take the processor's time."""
        for at, tick in self._ticks():
            await asyncio.sleep(at - time.monotonic())
            tick()
            if self.stopped:
                return
        # Calls may be under way for a while yet.
        while not self.stopped:
            await asyncio.sleep(_TICK)
            self._tick()

    # threads

    def _threads(self) -> None:
        ready = addresses(self.drawing, self.plan.blend)
        client = threaded_client(self.plan)
        call = Call("", b"", 1)
        noting = threading.Lock()
        region_set = self.plan.blend.region_set or None

        def caller(first: int) -> None:
            for address in itertools.islice(itertools.cycle(ready), first, None):
                begun = time.monotonic()
                if begun >= self.end or self.stopped:
                    return
                try:
                    client.lookup(address, region_set)
                    status = OK
                except GeoLookupError as error:
                    status = status_of(error)
                with noting:
                    self._note(begun, begun, call, status)

        with client:
            self._prepared()
            callers = [
                threading.Thread(target=caller, args=(37 * one,)) for one in range(self.under_way)
            ]
            time.sleep(max(0.0, self.start - time.monotonic()))
            for one in callers:
                one.start()
            for at, tick in self._ticks():
                time.sleep(max(0.0, at - time.monotonic()))
                tick()
                if self.stopped:
                    break
            for one in callers:
                one.join()
            self.ended = time.monotonic()

    # both

    def _ticks(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """Yield what is to be done while calls are made, and when."""
        at = self.start
        measuring = False
        while at < self.end:
            at = min(at + _TICK, self.end)
            if not measuring and at >= self.measured:
                at, measuring = self.measured, True
                yield at, self._begin
            else:
                yield at, self._tick
        yield self.end, self._finish

    def _begin(self) -> None:
        self.result.processor = -time.process_time()
        self._waited = -_waited()
        self._begun = True

    def _finish(self) -> None:
        if self._begun:
            self.result.processor += time.process_time()
            self._waited += _waited()
            self._begun = False

    def _tick(self) -> None:
        if self.connection.poll():
            with contextlib.suppress(EOFError, ConnectionResetError):
                self.connection.recv()  # "stop": there is nothing else to be said
            self.stopped = True  # also where nobody is left who would say it
            self._finish()
            return
        self.connection.send(("progress", *self._progress()))

    def _progress_of_result(self) -> tuple[int, int]:
        return self.result.answered, self.result.asked - self.result.answered

    def _note(self, due: float, begun: float, call: Call, status: str) -> None:
        now = time.monotonic()
        if status == OK and self.measured <= now < self.end:
            self.result.completed += 1
            self.result.addresses += call.addresses
        if not self.measured <= due < self.end:
            return
        self.result.statuses[status] += 1
        if self.plan.rate is not None:
            self.result.behind.record(begun - due)
        if status == OK:
            self.result.latencies.record(now - due)


def _waited() -> float:
    """Return the seconds that this process's main thread was ready to run and did not."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def body(*arguments: Any) -> None:
    """Run `main`, and end quietly when whoever started this process is gone."""
    try:
        main(*arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
