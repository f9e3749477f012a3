"""A gRPC server of the service's options, whose methods are plain: it repeats, counts and waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.settings import Settings

PATIENCE = 30
"""Seconds; less than any of gRPC's own limits on time, so what ends within it, our option ended."""


@dataclass
class Running:
    """A server with three methods: one repeats, one counts bytes, one waits to be told."""

    port: int
    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


def start(options: list[tuple[str, int]], target: str = "127.0.0.1:0") -> tuple[Any, Running]:
    running = Running(0)

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(running.go_on.set)
        running.begun.release()
        assert running.go_on.wait(PATIENCE)
        return request

    server = grpc.server(ThreadPoolExecutor(20), options=options)
    methods = {
        "Echo": lambda request, _: request,
        "Count": lambda request, _: str(len(request)).encode(),
        "Wait": wait,
    }
    server.add_registered_method_handlers(
        "test", {name: grpc.unary_unary_rpc_method_handler(one) for name, one in methods.items()}
    )
    running.port = server.add_insecure_port(target)
    server.start()
    return server, running


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[Running]:
    server, running = start(channel_options(Settings(**settings), share_port=False))
    try:
        yield running
    finally:
        running.go_on.set()
        server.stop(0).wait(PATIENCE)
