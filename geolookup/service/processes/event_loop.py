"""A loop over file descriptors, timers and what other threads want done, in one thread.

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

_LONGEST: Final = 3_600.0
"""Seconds for which it sleeps at most: the system's own call takes no arbitrary number."""


class Timer:
    """An action at a time. `cancel` may be called at any moment, also after it."""

    def __init__(self, time: float, action: Action) -> None:
        self.time = time
        self._action: Action | None = action

    def cancel(self) -> None:
        """Have nothing happen."""
        self._action = None

    def fire(self) -> None:
        """Do it, unless it was cancelled or done."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Loop:
    """Runs actions until `stop`. Only `call` may be called from other threads.

    Args:
        clock: seconds that never go back; tests have their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._called: deque[Action] = deque()
        self._waking, self._waker = socket.socketpair()
        for end in (self._waking, self._waker):
            end.setblocking(False)
        # Guards `_waker` against being written to while it is closed, and `_ended`.
        self._open = threading.Lock()
        self._ended = False
        self._stopped = False
        self.watch(self._waking.fileno(), self._run_called)

    def watch(self, descriptor: int, action: Action) -> None:
        """Run *action* whenever the descriptor can be read."""
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer. It must still be open."""
        self._selector.unregister(descriptor)

    def after(self, seconds: float, action: Action) -> Timer:
        """Run *action* once, so many seconds from now."""
        timer = Timer(self.clock() + seconds, action)
        heapq.heappush(self._timers, (timer.time, next(self._order), timer))
        return timer

    def call(self, action: Action) -> bool:
        """Run *action* soon. For any thread. False: never, as `end` was before."""
        with self._open:
            if self._ended:
                return False
            self._called.append(action)
        self._wake()
        return True

    def end(self) -> None:
        """Run what was called and has not had its turn, and take no more calls.

        Whoever waits in another thread for what he called is then sure to hear of it.
        """
        with self._open:
            self._ended = True
        while self._called:
            self._called.popleft()()

    def _wake(self) -> None:
        with self._open, contextlib.suppress(OSError):  # full: it wakes anyway; or closed
            self._waker.send(b"\0")

    def run(self) -> None:
        """Run actions until one of them calls `stop`. May be called again then."""
        self._stopped = False
        while not self._stopped:
            for key, _ in self._selector.select(self._pause()):
                # An action may have closed what another one was about, and what it
                # opened since may have the same number.
                if self._selector.get_map().get(key.fd) is key and not self._stopped:
                    key.data()
            self._run_due()

    def stop(self) -> None:
        """Have `run` return when the action that calls this is done."""
        self._stopped = True

    def _pause(self) -> float:
        if not self._timers:
            return _LONGEST
        return min(max(0.0, self._timers[0][0] - self.clock()), _LONGEST)

    def _run_due(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now and not self._stopped:
            heapq.heappop(self._timers)[2].fire()

    def _run_called(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waking.recv(4_096):
                pass
        # Those that come meanwhile have written a byte, and have their turn after the others.
        for _ in range(len(self._called)):
            if self._stopped:
                self._wake()  # the next `run`, which does the others
                return
            self._called.popleft()()

    def close(self) -> None:
        """Let go of its descriptors. What is called from now on never runs."""
        self._selector.close()
        with self._open:
            self._ended = True
            self._waking.close()
            self._waker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
