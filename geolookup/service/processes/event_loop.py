"""An event loop in one thread: readable descriptors, timers, and calls from other threads.

Supervisor and workers keep their state in the thread that runs it, and so need no locks.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

Action = Callable[[], None]

_LONGEST_WAIT: Final = 3_600.0
"""Seconds. The system call that waits takes no arbitrary number."""


class Timer:
    """An action at a time. `cancel` may be called at any moment, also after the action ran."""

    def __init__(self, time: float, action: Action) -> None:
        self.time = time
        self._action: Action | None = action

    def cancel(self) -> None:
        """Drop the action."""
        self._action = None

    def fire(self) -> None:
        """Run the action, unless it was cancelled or ran before."""
        action, self._action = self._action, None
        if action is not None:
            action()


class EventLoop:
    """Runs actions until `stop`. Only `call_threadsafe` may be called from other threads.

    Args:
        clock: returns monotonic seconds; tests pass their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._calls: deque[Action] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        # Guards `_wake_writer` against a write while it is closed, and `_refuses_calls`.
        self._lock = threading.Lock()
        self._refuses_calls = False
        self._stopped = False
        self._turned = clock()
        self.add_reader(self._wake_reader.fileno(), self._run_calls)

    def add_reader(self, descriptor: int, action: Action) -> None:
        """Run *action* whenever the descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def remove_reader(self, descriptor: int) -> None:
        """Take back `add_reader`. The descriptor must still be open."""
        self._selector.unregister(descriptor)

    def call_later(self, seconds: float, action: Action) -> Timer:
        """Run *action* once, after a time."""
        timer = Timer(self.clock() + seconds, action)
        heapq.heappush(self._timers, (timer.time, next(self._order), timer))
        return timer

    def call_threadsafe(self, action: Action) -> bool:
        """Run *action* soon. For any thread. False: it never runs, as calls are refused."""
        with self._lock:
            if self._refuses_calls:
                return False
            self._calls.append(action)
        self._wake()
        return True

    def refuse_calls(self) -> None:
        """Run the calls that wait, and refuse all later ones.

        So each call that was accepted runs, and a thread that waits for its call gets its result.
        """
        with self._lock:
            self._refuses_calls = True
        while self._calls:
            self._calls.popleft()()

    def _wake(self) -> None:
        # A full socket wakes the loop anyway, and a closed one has no loop.
        with self._lock, contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def run(self) -> None:
        """Run actions until one of them calls `stop`. It may be called again then."""
        self._stopped = False
        while not self._stopped:
            self._turned = self.clock()
            for key, _ in self._selector.select(self._time_to_wait()):
                # An earlier action may have closed this descriptor, and a new one may
                # have its number.
                if self._selector.get_map().get(key.fd) is key and not self._stopped:
                    key.data()
            self._run_timers()

    @property
    def stalled_for(self) -> float:
        """Seconds since the loop last had nothing left to do or began anew. For any thread.

        A loop without timers waits as long for a descriptor.
        """
        return max(0.0, self.clock() - self._turned)

    def stop(self) -> None:
        """Return from `run` when the current action is done."""
        self._stopped = True

    def _time_to_wait(self) -> float:
        if not self._timers:
            return _LONGEST_WAIT
        return min(max(0.0, self._timers[0][0] - self.clock()), _LONGEST_WAIT)

    def _run_timers(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now and not self._stopped:
            heapq.heappop(self._timers)[2].fire()

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4_096):
                pass
        # Calls that arrive meanwhile have written a byte, and run after timers and readers.
        for _ in range(len(self._calls)):
            if self._stopped:
                self._wake()  # the next `run` runs the rest
                return
            self._calls.popleft()()

    def close(self) -> None:
        """Close the loop's own descriptors. Later calls are refused."""
        self._selector.close()
        with self._lock:
            self._refuses_calls = True
            self._wake_reader.close()
            self._wake_writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
