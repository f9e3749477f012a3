"""Health as gRPC's public server gives it (grpc.health.v1), with a thread for each who watches it.

gRPC's health service has a way without threads, and must not be used so: whoever changes the
health waits, under the service's lock, until each client has been sent what he says. One that
reads nothing holds him up, and one that leaves at that moment does so for ever, since
the server's thread that would end the wait comes to the same lock first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from geolookup.service.lasting import LastingCalls

LAST_WORDS: Final = 1.0
"""Seconds that a health watch has to hear that the service stops, before it is cut off."""


class Watches:
    """The health of some services, those who ask for it, and those who watch it. Thread-safe.

    Args:
        names: the services'; "" for the process as a whole. All are SERVING at first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._health = health.HealthServicer(experimental_non_blocking=False)
        # What is not ours has no state that changes, so it does not hear of a stop.
        self._ours, self._others = LastingCalls(), LastingCalls()
        self._lock = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._stopping = False
        for name in names:
            self.set(name, serving=True)

    def set(self, name: str, *, serving: bool) -> None:
        """Say whether a service is there. Who watches it is told if that is news."""
        with self._lock:
            if self._serving.get(name) is not serving:
                self._serving[name] = serving
                state = health_pb2.HealthCheckResponse
                self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer ``Check``."""
        return self._health.Check(request, context)

    def watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Answer ``Watch``: the state, and each that it changes to. Waits in the thread."""
        calls = self._ours if request.service in self._serving else self._others
        changes: Iterator[Any] = calls.tracked(self._changes)(request, context)
        return changes

    def stop(self) -> None:
        """Have all that watch told that nothing is served any more, and end."""
        self._stopping = True
        self._health.enter_graceful_shutdown()
        self._others.cancel()

    def cut_off(self, stopped: threading.Event) -> None:
        """Cancel those who have not heard of the stop within `LAST_WORDS`, if it takes so long."""

        def wait() -> None:
            if not stopped.wait(LAST_WORDS):
                self._ours.cancel()

        threading.Thread(target=wait, name="geolookup-last-words", daemon=True).start()

    def _changes(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for response in self._health.Watch(request, context):
            yield response
            if self._stopping and response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                context.cancel()
