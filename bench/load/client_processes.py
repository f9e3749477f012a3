"""The client processes: start them, have them run a plan together, join what they measured."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from bench.load import generator
from bench.load.plan import Plan, Result
from geolookup.service.processes.operating_system import Signals

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from typing import Self

_NOTICE = 0.1
"""Seconds from telling the processes when a plan starts to its start."""
_MAXIMUM_WAIT = 60.0
"""Seconds over a plan's own after which a process is taken for dead."""


class ClientProcessError(Exception):
    """A client process ended, or never began. The text says which."""


class ClientProcesses:
    """Client processes, ready to run one plan after another. A context manager.

    Args:
        processes: how many.
        dataset: path of the dataset that addresses are drawn from; None: the embedded one.
        cores: processor cores that they keep to; empty: any.
    """

    def __init__(
        self, processes: int, dataset: str | None = None, cores: Iterable[int] = ()
    ) -> None:
        # Fresh interpreters: gRPC does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._processes: list[tuple[SpawnProcess, Connection]] = []
        own = os.sched_getaffinity(0)
        if chosen := set(cores):
            os.sched_setaffinity(0, chosen)
        # Ctrl-C must not meet the processes before they have learnt to leave it to this
        # one: they begin with it blocked. Multiprocessing's own process, if it were
        # started in between, would unblock it.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            for number in range(processes):
                ours, theirs = context.Pipe()
                arguments = (theirs, number, processes, dataset)
                process = context.Process(target=generator.body, args=arguments, daemon=True)
                process.start()
                theirs.close()
                self._processes.append((process, ours))
        finally:
            os.sched_setaffinity(0, own)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        try:
            for number, (_, connection) in enumerate(self._processes):
                self._await(number, connection, "start")
        except BaseException:
            self.close()
            raise

    def run(
        self,
        plan: Plan,
        *,
        progress: Callable[[float, int, int], None] = lambda *_: None,
        at_measured: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
    ) -> Result:
        """Run a plan and return what all processes measured.

        Args:
            plan: what to do.
            progress: called now and then with the seconds since the start and how many
                calls were answered and failed in the measured time.
            at_measured: called when the warm-up ends.
            at_end: called when the measured time ends, if the warm-up did. Ctrl-C ends
                it early; the result says so, and no other plan may be run after it. The second
                Ctrl-C is raised.

        Raises:
            ClientProcessError: a process ended.
            ValueError: this is not the main thread, which alone hears of Ctrl-C.
        """
        for _, connection in self._processes:
            connection.send(plan)
        for number, (_, connection) in enumerate(self._processes):
            self._await(number, connection, "prepare")
        start = time.monotonic() + _NOTICE
        for _, connection in self._processes:
            connection.send(start)
        measured = start + plan.warm_up
        moments = [(measured, at_measured), (measured + plan.seconds, at_end)]
        pending = {connection: number for number, (_, connection) in enumerate(self._processes)}
        counts = dict.fromkeys(pending, (0, 0))
        total = Result()
        maximum_wait = 2 * plan.timeout + _MAXIMUM_WAIT
        give_up = measured + plan.seconds + maximum_wait
        # Something to wait for: raised within a message, it would tear it.
        ctrl_c = (
            number
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is signal.default_int_handler
        )
        with Signals(*ctrl_c) as signals:
            while pending:
                for connection, message in self._messages(pending, moments, give_up, signals):
                    if message[0] == "result":
                        total.add(message[1])
                        del pending[connection]
                    else:
                        counts[connection] = message[1:]
                        columns = zip(*counts.values(), strict=True)
                        progress(time.monotonic() - start, *map(sum, columns))
                came = len(signals.read())
                if came + total.interrupted > 1:
                    raise KeyboardInterrupt
                if came:
                    total.interrupted = True
                    if len(moments) == 1:
                        moments[0][1]()
                    moments = []  # before it was measured there is no end of it
                    give_up = time.monotonic() + maximum_wait
                    for connection in pending:
                        with contextlib.suppress(BrokenPipeError):  # reading tells who ended
                            connection.send("stop")
            # Also where it came with the last message.
            total.interrupted = total.interrupted or bool(signals.read())
        return total

    def _messages(
        self,
        pending: Mapping[Connection, int],
        moments: list[tuple[float, Callable[[], None]]],
        give_up: float,
        signals: Signals,
    ) -> list[tuple[Connection, tuple[Any, ...]]]:
        """Wait for messages, the next moment or Ctrl-C, and do what is to be done at a moment."""
        now = time.monotonic()
        while moments and moments[0][0] <= now:
            moments.pop(0)[1]()
        if now > give_up:
            raise ClientProcessError("client processes did not come to an end")
        until = moments[0][0] if moments else give_up
        found = wait([*pending, signals.fileno()], max(0.0, until - now))
        return [
            (one, self._receive(pending[one], one)) for one in found if isinstance(one, Connection)
        ]

    def close(self) -> None:
        """End the processes."""
        for _, connection in self._processes:
            connection.close()
        for process, _ in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def _await(self, number: int, connection: Connection, what: str) -> None:
        if not connection.poll(_MAXIMUM_WAIT):
            raise ClientProcessError(f"client process {number} did not {what}")
        self._receive(number, connection)

    def _receive(self, number: int, connection: Connection) -> tuple[Any, ...]:
        with contextlib.suppress(EOFError, ConnectionResetError):
            message: tuple[Any, ...] = connection.recv()
            return message
        raise ClientProcessError(f"client process {number} ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
