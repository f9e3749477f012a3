"""A service that counts attempts and fails them as it is told, and many calls of it at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from geolookup.client import AsyncClient, Client
from geolookup.errors import GeoLookupError
from geolookup.v1 import geolookup_pb2 as v1

PATIENCE = 30
AT_ONCE = 64
"""Calls under way at the same moment."""
ANSWER = v1.LookupResponse(country="CN", status=1, dataset="0" * 64).SerializeToString()

Behaviour = Callable[[int, grpc.ServicerContext], None]
"""What becomes of the attempt with this number, from 0: it ends, or is answered."""


class Counting(grpc.GenericRpcHandler):
    """A service that counts what it is asked, and answers what a behaviour lets pass."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self.attempts = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method.endswith("StreamRosters"):
            return grpc.stream_stream_rpc_method_handler(
                lambda _, context: iter((self._answer(b"", context),))
            )
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            number, self.attempts = self.attempts, self.attempts + 1
        self._behaviour(number, context)
        return ANSWER


@contextlib.contextmanager
def counting(behaviour: Behaviour) -> Iterator[tuple[str, Counting]]:
    """Serve; yield the address, and what counts."""
    handler = Counting(behaviour)
    server = grpc.server(futures.ThreadPoolExecutor(AT_ONCE), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        server.stop(0).wait(PATIENCE)


def ending(code: grpc.StatusCode, times: int = 10**9, hint: str | None = None) -> Behaviour:
    """Return what ends the first so many attempts."""

    def behave(number: int, context: grpc.ServicerContext) -> None:
        if number < times:
            if hint is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", hint),))
            context.abort(code, "")

    return behave


def by_threads(target: str, calls: int, **options: Any) -> list[GeoLookupError]:
    """Make calls at once, each in a thread; return what failed."""
    with Client(target, timeout=PATIENCE, **options) as client:
        with futures.ThreadPoolExecutor(calls) as pool:
            made = [pool.submit(client.lookup, "1.0.1.1") for _ in range(calls)]
        failed = [one.exception() for one in made]
    return [error for error in failed if isinstance(error, GeoLookupError)]


def by_tasks(target: str, calls: int, **options: Any) -> list[GeoLookupError]:
    """Do the same in a loop."""

    async def ask() -> list[Any]:
        async with AsyncClient(target, timeout=PATIENCE, **options) as client:
            tasks = [client.lookup("1.0.1.1") for _ in range(calls)]
            return await asyncio.gather(*tasks, return_exceptions=True)

    return [error for error in asyncio.run(ask()) if isinstance(error, GeoLookupError)]


Ask = Callable[..., list[GeoLookupError]]
