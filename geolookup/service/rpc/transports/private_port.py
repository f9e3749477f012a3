"""How a supervisor asks a worker over gRPC's public server for a lookup.

That server takes no socket that is connected, and clients' port is shared with other workers. So
the worker listens on a socket of its own as well and, for each request that its supervisor sends,
makes a call there: it passes the server's own thread, a thread of a pool, and the dataset in use.
"""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc

from geolookup.service.grpc_threads import CallPool
from geolookup.service.rpc import handlers
from geolookup.service.rpc.request import NULL_CALL, Code, RequestError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from geolookup.service.rpc.calls import Calls
    from geolookup.service.settings import RosterLimits

ANSWERED: Final = b"\x01"
FAILED: Final = b"\x00"

_LONGEST: Final = 3_600.0
"""Seconds that a call may take: it is the supervisor that loses patience."""
_LOCAL: Final[object] = [b"local"]


_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class PrivatePort:
    """The worker's own socket, and the thread that makes its supervisor's calls there.

    The socket's name is no secret to other programs of this machine. Calls through it are refused
    (`check_port`), but for those of one method whose name is.

    Args:
        server: not started yet.
        calls: has the dataset in use.
        limits: of requests.
        supervisor: the connected socket.
    """

    def __init__(
        self, server: grpc.Server, calls: Calls, limits: RosterLimits, supervisor: socket.socket
    ) -> None:
        self._calls = calls
        self._limits = limits
        self._supervisor = supervisor
        secret = secrets.token_hex(16)
        self._target = f"unix-abstract:geolookup-{os.getpid()}-{secrets.token_hex(8)}"
        self._path = f"/geolookup.supervisor/{secret}"
        # Of its own: it waits for no client's call.
        pool = CallPool(1, "geolookup-supervisor")
        lookup = pool.assign(lambda body, _context: self._lookup(body))
        handler: _Handler = grpc.unary_unary_rpc_method_handler(lookup)
        server.add_generic_rpc_handlers((_OneMethod(self._path, handler),))
        credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
        server.add_secure_port(self._target, credentials)

    def open(self) -> None:
        """Begin to answer the supervisor. The server has started."""
        threading.Thread(target=self._run, name="geolookup-private-port", daemon=True).start()

    def _lookup(self, body: bytes) -> bytes:
        return handlers.lookup(self._calls.snapshot, body, self._limits, NULL_CALL)

    def _run(self) -> None:
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        with self._supervisor, grpc.secure_channel(self._target, credentials) as channel:
            ask: Callable[..., bytes] = channel.unary_unary(self._path)
            while request := self._supervisor.recv(64):
                try:
                    answer = ANSWERED if ask(request, timeout=_LONGEST) else FAILED
                except grpc.RpcError:
                    answer = FAILED
                try:
                    self._supervisor.send(answer)
                except OSError:
                    return


class _OneMethod(grpc.GenericRpcHandler):
    def __init__(self, path: str, handler: _Handler) -> None:
        self._path, self._handler = path, handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        return self._handler if handler_call_details.method == self._path else None


def check_port(context: grpc.ServicerContext) -> None:
    """Return if a call came by the clients' port.

    Raises:
        RequestError: PERMISSION_DENIED.
    """
    # The name first, which costs less and decides for clients over TCP.
    if context.peer().startswith("unix:"):
        kind = context.auth_context().get("transport_security_type")
        if kind == _LOCAL:
            raise RequestError(Code.PERMISSION_DENIED, "this socket is the supervisor's")
