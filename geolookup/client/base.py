"""What both clients are made of, whatever carries their calls."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from geolookup.client.channel import (
    DEFAULT_TIMEOUT,
    channel_count,
    channel_options,
    time_limit,
)
from geolookup.client.coalescing import (
    CALLS_OVER_GRPCIO,
    CALLS_OVER_NATIVE,
    Batch,
    Coalescer,
    Coalescing,
)
from geolookup.client.failures import Failure, closed
from geolookup.client.retry import DEFAULT_RETRY, Attempts, Budget, Retry
from geolookup.client.target import read_target
from geolookup.client.transports import choose
from geolookup.client.transports.endpoint import read_endpoint

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import grpc

    from geolookup.client.transports.connecting import Settings
    from geolookup.errors import GeoLookupError


class BaseClient:
    """The arguments of a client, and its state; `Client` documents them."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        channels: int = 1,
        retry: Retry | None = DEFAULT_RETRY,
        coalesce: bool | Coalescing = False,
        transport: str | None = None,
    ) -> None:
        self._target = read_target(target)
        self._timeout = time_limit(timeout)
        self._credentials = credentials
        options = tuple(options)
        self._native = choose(transport, target, credentials, options) == "native"
        self._options = channel_options(options, retries=retry is not None)
        self._count = channel_count(channels)
        self._budget = Budget(retry)
        self._coalesce = Coalescing() if coalesce is True else coalesce
        self._closed = False
        self._begin()
        if self._native:
            _native.add(self)

    def _begin(self) -> None:
        raise NotImplementedError

    def _on_fork(self) -> None:
        """Forget what other threads were about to do, in a process that was forked."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._target}{', closed' if self._closed else ''}>"

    def _settings(self) -> Settings:
        """Return how native connections are made."""
        from geolookup.client.transports.native import settings_of  # noqa: PLC0415 - may lack

        endpoint = read_endpoint(self._target)
        assert endpoint is not None  # noqa: S101 - or the transport would be another
        return settings_of(endpoint, self._count, self._credentials, dict(self._options))

    def _coalescer(
        self, send: Callable[[Batch], bool], lock: AbstractContextManager[Any]
    ) -> Coalescer | None:
        if not self._coalesce:
            return None
        calls = self._count * (CALLS_OVER_NATIVE if self._native else CALLS_OVER_GRPCIO)
        return Coalescer(self._coalesce, calls, self._budget, self._problem, send, lock)

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else time_limit(timeout)

    def _attempts(self, deadline: float) -> Attempts:
        return Attempts(self._budget, deadline)

    def _outcome(
        self, failure: Failure, attempts: Attempts, limit: float, field: str | None
    ) -> float | GeoLookupError:
        """Return the seconds until a failed call is made again, or what its caller gets."""
        wait = None if self._closed else attempts.wait_after(failure, monotonic())
        return self._problem(attempts.failure or failure, limit, field) if wait is None else wait

    def _problem(self, failure: Failure, limit: float, field: str | None = None) -> GeoLookupError:
        """Return what the caller of a failed call gets."""
        if self._closed:
            return closed()
        return failure.error(self._target, limit, tls=self._credentials is not None, field=field)


_native: weakref.WeakSet[BaseClient] = weakref.WeakSet()


def _on_fork() -> None:
    for client in list(_native):
        client._on_fork()


# Those over grpcio are of no use in a process that was forked.
os.register_at_fork(after_in_child=_on_fork)
