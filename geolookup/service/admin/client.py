"""Controls a running service over its admin listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message

from geolookup.admin.v1 import admin_pb2 as admin_v1
from geolookup.admin.v1 import admin_pb2_grpc as admin_v1_grpc
from geolookup.client.failures import Failure
from geolookup.client.target import read_target
from geolookup.errors import GeoLookupError, ServiceError
from geolookup.service.admin.control import Reload, ServiceStatus
from geolookup.service.admin.messages import reload_of, status_of

DEFAULT_TIMEOUT: Final = 120.0
"""Seconds. A reload reads and checks a whole dataset, and each worker opens it."""

_Result = TypeVar("_Result")


class RemoteControl:
    """A `geolookup.service.admin.control.Control` over gRPC; a context manager that closes it.

    Args:
        target: the admin listener: ``HOST:PORT`` or ``unix:PATH``.
        timeout: seconds that each call may take.
        credentials: for TLS; None: no TLS.
        server_name: for TLS, the name in the service's certificate, where the target
            has another.

    Raises:
        ServiceUnavailableError: by each call: the service can't be reached, or not in time.
        ServiceError: by each call: any other failure.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
    ) -> None:
        self._target = read_target(target)
        self._timeout = timeout
        self._tls = credentials is not None
        # No variable of the environment may redirect the connection.
        options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
        if server_name is not None:
            options.append(("grpc.ssl_target_name_override", server_name))
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._stub: Any = admin_v1_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def reload(self, *, lift_rollback: bool = False) -> Reload:
        """See `Control.reload`."""
        request = admin_v1.ReloadRequest(lift_rollback=lift_rollback)
        answer = self._call(self._stub.Reload, request)
        return self._read(lambda: reload_of(answer.reload))

    def rollback(self) -> Reload:
        """See `Control.rollback`."""
        answer = self._call(self._stub.Rollback, admin_v1.RollbackRequest())
        return self._read(lambda: reload_of(answer.reload))

    def status(self) -> ServiceStatus:
        """See `Control.status`."""
        answer = self._call(self._stub.GetStatus, admin_v1.GetStatusRequest())
        return self._read(lambda: status_of(answer))

    def drain(self) -> None:
        """See `Control.drain`."""
        self._call(self._stub.Drain, admin_v1.DrainRequest())

    def resume(self) -> None:
        """See `Control.resume`."""
        self._call(self._stub.Resume, admin_v1.ResumeRequest())

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Message) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            problem = self._failure(Failure.of(error))
        # Not in the except block, so that gRPC's texts are not in the traceback.
        raise problem

    def _failure(self, failure: Failure) -> GeoLookupError:
        if failure.code is grpc.StatusCode.UNIMPLEMENTED:
            return ServiceError(
                f"{self._target} is no admin listener; is it the clients' one?",
                code=failure.code.name,
            )
        return failure.error(self._target, self._timeout, tls=self._tls, listener="admin listener")

    def _read(self, read: Callable[[], _Result]) -> _Result:
        try:
            return read()
        except ValueError:
            pass
        raise ServiceError("the service's answer is not understood; is it another version?")
