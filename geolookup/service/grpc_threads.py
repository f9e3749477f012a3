"""What gRPC's public server needs around its threads: pools, long-lived calls, health watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from geolookup.service.rpc.admission import Slots

Behaviour = Callable[..., Any]
"""A function that answers a call: ``(request or requests, context)``."""

LAST_MESSAGE_TIMEOUT: Final = 1.0
"""Seconds that a health watch has to receive NOT_SERVING when the service stops."""


STREAM_PAUSE: Final = 1.0
"""Seconds without a roster after which a stop ends a stream; as GL_STREAM_PAUSE."""

_T = TypeVar("_T")


class CallPool(ThreadPoolExecutor):
    """A pool for calls, all of whose threads start at once.

    The base class starts a thread when there is work. gRPC's server submits work in the thread
    that serves all calls: if a new thread could not start there, for lack of memory or by a limit
    of the system, that thread would end, and the server would never answer again.

    Args:
        threads: number of threads.
        name: beginning of the threads' names.
        slots: each call has acquired one of them, which is released when its work is done;
            None: the calls have none. Not when the handler returns: the handler of a call that
            is cancelled before its request arrives never runs.

    Raises:
        RuntimeError: the threads can't be started.
    """

    def __init__(self, threads: int, name: str, slots: Slots | None = None) -> None:
        super().__init__(threads, name)
        self._slots = slots
        all_started = threading.Barrier(threads + 1)
        try:
            for _ in range(threads):
                super().submit(all_started.wait)  # of the base: it is no call
            all_started.wait()
        except BaseException:
            all_started.abort()
            raise

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, and release its slot."""
        if self._slots is None:
            return super().submit(fn, *args, **kwargs)
        try:
            # Not a callback of the future, which would take the future's lock once more.
            return super().submit(self._run, self._slots, fn, args, kwargs)
        except BaseException:
            self._slots.give_back()
            raise

    @staticmethod
    def _run(
        slots: Slots, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            slots.give_back()

    def assign(self, behaviour: Behaviour) -> Behaviour:
        """Make gRPC run a behaviour in this pool, and return it."""
        behaviour.experimental_thread_pool = self  # type: ignore[attr-defined]
        return behaviour


class LongLivedCalls:
    """Calls that last as long as the client likes: cancelled when the server stops. Thread-safe."""

    def __init__(self) -> None:
        # Guards both. Nothing waits while it is held.
        self._lock = threading.Lock()
        self._contexts: set[grpc.ServicerContext] = set()
        self._cancelled = False

    def tracked(self, behaviour: Behaviour) -> Behaviour:
        """Return a behaviour whose calls are cancelled by `cancel`."""

        def track(request: object, context: grpc.ServicerContext, *rest: object) -> object:
            self._add(context)
            return behaviour(request, context, *rest)

        return track

    def cancel(self) -> None:
        """Cancel all calls, also those that begin later."""
        with self._lock:
            self._cancelled = True
            contexts = list(self._contexts)
        for context in contexts:
            context.cancel()

    def _add(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            cancelled = self._cancelled
            self._contexts.add(context)
        if cancelled:
            context.cancel()
        if not context.add_callback(lambda: self._discard(context)):
            self._discard(context)

    def _discard(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._contexts.discard(context)


class Pauses:
    """Streams that wait for their client: a stop cancels those that have done so for a while.

    Thread-safe.
    """

    def __init__(self) -> None:
        # Guards the mapping. Nothing waits while it is held.
        self._lock = threading.Lock()
        self._since: dict[grpc.ServicerContext, float] = {}

    def wait(self, context: grpc.ServicerContext, wait: Callable[[], _T]) -> _T:
        """Return what *wait* returns, which waits for the client of a call."""
        with self._lock:
            self._since[context] = time.monotonic()
        try:
            return wait()
        finally:
            with self._lock:
                del self._since[context]

    def end(self, stopped: threading.Event) -> None:
        """Cancel streams that wait, from now on until the event."""
        threading.Thread(
            target=self._end, args=(stopped,), name="geolookup-pauses", daemon=True
        ).start()

    def _end(self, stopped: threading.Event) -> None:
        while not stopped.wait(STREAM_PAUSE / 4):
            before = time.monotonic() - STREAM_PAUSE
            with self._lock:
                late = [one for one, since in self._since.items() if since <= before]
            for context in late:
                context.cancel()


class HealthService:
    """grpc.health.v1 for gRPC's public server, with a thread for each watch. Thread-safe.

    The non-blocking mode of gRPC's health service must not be used: a change of health waits,
    under the service's lock, until each client has received it. A client that reads nothing delays
    it, and one that disconnects at that moment blocks it for ever, since the server's thread that
    would end the wait needs the same lock.

    Args:
        names: of the services; "" for the process as a whole. All are SERVING at first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._health = health.HealthServicer(experimental_non_blocking=False)
        # Watches of known services receive NOT_SERVING before they end; others have no state.
        self._watches, self._unknown_watches = LongLivedCalls(), LongLivedCalls()
        self._lock = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._stopping = False
        for name in names:
            self.set(name, serving=True)

    def set(self, name: str, *, serving: bool) -> None:
        """Set the health of a service. Its watches receive a change."""
        with self._lock:
            if self._serving.get(name) is not serving:
                self._serving[name] = serving
                state = health_pb2.HealthCheckResponse
                self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer ``Check``."""
        return self._health.Check(request, context)

    def watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Answer ``Watch``: the state, and each change of it. Blocks the thread."""
        calls = self._watches if request.service in self._serving else self._unknown_watches
        changes: Iterator[Any] = calls.tracked(self._changes)(request, context)
        return changes

    def stop(self, stop_server: Callable[[], threading.Event]) -> threading.Event:
        """Send NOT_SERVING to all watches and end them, and stop the server.

        Watches that have not received it within `LAST_MESSAGE_TIMEOUT` are cancelled.

        Args:
            stop_server: begins to stop the server, and returns the event of its end.
        """
        self._stopping = True
        self._health.enter_graceful_shutdown()
        self._unknown_watches.cancel()
        stopped = stop_server()

        def cancel_late() -> None:
            if not stopped.wait(LAST_MESSAGE_TIMEOUT):
                self._watches.cancel()

        threading.Thread(target=cancel_late, name="geolookup-last-message", daemon=True).start()
        return stopped

    def _changes(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for response in self._health.Watch(request, context):
            yield response
            if self._stopping and response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                context.cancel()
