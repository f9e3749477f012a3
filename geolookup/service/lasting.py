"""Calls that last as long as the client likes, and must not hold up a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc


class LastingCalls:
    """Calls that are cancelled, and not waited for, when the server stops. Thread-safe."""

    def __init__(self) -> None:
        # Guards both; nothing that may wait happens while it is held.
        self._lock = threading.Lock()
        self._contexts: set[grpc.ServicerContext] = set()
        self._cancelled = False

    def tracked(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Return a behaviour whose calls are among these while they last."""

        def tracking(request: object, context: grpc.ServicerContext, *rest: object) -> object:
            self._add(context)
            return behaviour(request, context, *rest)

        return tracking

    def cancel(self) -> None:
        """Cancel all of them, and each that comes later."""
        with self._lock:
            self._cancelled = True
            contexts = list(self._contexts)
        for context in contexts:
            context.cancel()

    def _add(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            late = self._cancelled
            self._contexts.add(context)
        if late:
            context.cancel()
        if not context.add_callback(lambda: self._discard(context)):
            self._discard(context)

    def _discard(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._contexts.discard(context)
