"""The admin listener: operators' control of a running service, and health that is never shed.

It is a gRPC server of its own, in the supervisor, with few threads. Clients' load does not reach
it, so it answers when the workers are at their limits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from geolookup.admin.v1 import admin_pb2 as admin_v1
from geolookup.admin.v1 import admin_pb2_grpc as admin_v1_grpc
from geolookup.errors import MissingExtraError
from geolookup.service import log, tls
from geolookup.service.admin.messages import reload_message, status_message
from geolookup.service.grpc_threads import (
    Behaviour,
    CallPool,
    HealthService,
    LongLivedCalls,
)
from geolookup.service.listen_errors import find_listen_error
from geolookup.service.methods import GEOLOOKUP, REFLECTION, REFLECTION_V1ALPHA
from geolookup.service.rpc.reflection import Reflection, generic_handlers
from geolookup.service.settings import ListenAddress, Settings
from geolookup.service.settings.model import ADMIN
from geolookup.service.unix_socket import owner_only

if TYPE_CHECKING:
    from geolookup.service.admin.control import Control

SERVICE: Final = "geolookup.admin.v1.AdminService"

_MAX_ACTIONS: Final = 2
"""Admin rpcs at once: a status beside a long reload. More are refused."""
_CHECK_THREADS: Final = 4
"""For health checks, which take microseconds."""
_MAX_STREAMS: Final = 4
"""Reflection streams at once."""
_MAX_WATCHES: Final = 16
"""Health watches at once, each in a thread."""
_HEALTH_INTERVAL: Final = 0.5
"""Seconds between updates of the health that watches receive."""
_MAX_MESSAGE: Final = 65_536
"""Bytes. All requests here are a few; a reflection request names a file or a symbol."""


class AdminServer:
    """The admin service, health, reflection and, if enabled, channelz on their own listener.

    Made listening and answering; `stop` ends it. The unix socket of a ``unix:``
    listener is for the owner of the process alone.

    Args:
        settings: of the service; `admin` is the address to listen on.
        control: performs the operations.

    Attributes:
        address: the address that it listens on, with the actual port.
        denied: number of calls refused since `allow` does not name the client.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used.
        MissingExtraError: channelz is enabled, and its package is not installed.
    """

    def __init__(self, settings: Settings, control: Control) -> None:
        if settings.admin is None:
            raise ValueError("admin: there is no address to listen on")
        self._control = control
        self._health = HealthService(("", GEOLOOKUP, SERVICE))
        self._long_lived_calls = LongLivedCalls()
        self._stopping = threading.Event()
        self.denied = 0
        self._denied_lock = threading.Lock()  # guards `denied`
        self._checks = CallPool(_CHECK_THREADS, "geolookup-admin-check")
        self._actions = _LimitedPool(_MAX_ACTIONS, "geolookup-admin-action", "admin rpcs")
        self._streams = _LimitedPool(_MAX_STREAMS, "geolookup-admin-stream", "streams")
        self._watches = _LimitedPool(_MAX_WATCHES, "geolookup-admin-watch", "health watches")
        try:
            self._server = grpc.server(self._checks, options=_options(settings))
            self._add_services(settings)
            self._update_health()
            self.address = _listen(
                self._server, settings, ListenAddress.parse(settings.admin, "admin")
            )
            self._server.start()
        except BaseException:
            self._shut_pools()
            raise
        threading.Thread(target=self._keep_health, name="geolookup-admin-health").start()

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        New calls are refused at once; those in flight have *grace* seconds. Health watches
        receive NOT_SERVING, and do not delay the stop.
        """
        self._stopping.set()
        stopped = self._health.stop(lambda: self._server.stop(grace))
        self._long_lived_calls.cancel()
        self._shut_pools()
        return stopped

    def _shut_pools(self) -> None:
        for pool in (self._checks, self._actions, self._streams, self._watches):
            pool.shutdown(wait=False)

    def _add_services(self, settings: Settings) -> None:
        authorized = _authorization(settings, self._count_denied)
        servicer = _AdminServicer(self._control, self._update_health)
        for method in admin_v1.DESCRIPTOR.services_by_name["AdminService"].methods:
            behaviour = _guarded(method.name, getattr(servicer, method.name))
            setattr(servicer, method.name, self._actions.unary(authorized(behaviour)))
        admin_v1_grpc.add_AdminServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]

        def check(request: Any, context: grpc.ServicerContext) -> Any:
            self._update_health()
            return self._health.check(request, context)

        health_servicer = health_pb2_grpc.HealthServicer()
        health_servicer.Check = authorized(_guarded("Check", check))
        health_servicer.Watch = self._watches.stream(authorized(self._health.watch))
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)

        names = [SERVICE, health.SERVICE_NAME, REFLECTION, REFLECTION_V1ALPHA]
        if settings.channelz:
            limited = lambda behaviour: self._actions.unary(authorized(behaviour))  # noqa: E731
            names.append(_add_channelz(self._server, limited))
        reflect = self._streams.stream(
            authorized(self._long_lived_calls.tracked(Reflection(names).answers))
        )
        self._server.add_generic_rpc_handlers(generic_handlers(reflect))

    def _count_denied(self) -> None:
        with self._denied_lock:
            self.denied += 1

    def _update_health(self) -> None:
        """Set the health of the process and of the clients' service from the status."""
        serving = self._control.status().serving
        # The admin service itself stays SERVING.
        for name in ("", GEOLOOKUP):
            self._health.set(name, serving=serving)

    def _keep_health(self) -> None:
        failed = False
        while not self._stopping.wait(_HEALTH_INTERVAL):
            try:
                self._update_health()
                failed = False
            except Exception as error:
                if not failed:  # one line for a series of failures
                    log.event("call_failed", "error", method="Watch", error=log.describe(error))
                failed = True


class _AdminServicer(admin_v1_grpc.AdminServiceServicer):
    def __init__(self, control: Control, on_change: Callable[[], None]) -> None:
        self._control = control
        self._on_change = on_change

    def Reload(  # noqa: N802
        self, request: admin_v1.ReloadRequest, _context: object
    ) -> admin_v1.ReloadResponse:
        result = self._control.reload(lift_rollback=request.lift_rollback)
        return admin_v1.ReloadResponse(reload=reload_message(result))

    def Rollback(self, _request: object, _context: object) -> admin_v1.RollbackResponse:  # noqa: N802
        return admin_v1.RollbackResponse(reload=reload_message(self._control.rollback()))

    def GetStatus(self, _request: object, _context: object) -> admin_v1.GetStatusResponse:  # noqa: N802
        return status_message(self._control.status())

    def Drain(self, _request: object, _context: object) -> admin_v1.DrainResponse:  # noqa: N802
        self._control.drain()
        self._on_change()
        return admin_v1.DrainResponse()

    def Resume(self, _request: object, _context: object) -> admin_v1.ResumeResponse:  # noqa: N802
        self._control.resume()
        self._on_change()
        return admin_v1.ResumeResponse()


class _LimitedPool(CallPool):
    """Runs a number of calls at once, and refuses others in one thread more."""

    def __init__(self, limit: int, name: str, what: str) -> None:
        super().__init__(limit + 1, name)
        self._limit = threading.BoundedSemaphore(limit)
        self._refusal = f"{what}: over the limit of {limit} at once"

    def unary(self, behaviour: Behaviour) -> Behaviour:
        def limited(request: object, context: grpc.ServicerContext) -> object:
            with self._slot(context):
                return behaviour(request, context)

        return self.assign(limited)

    def stream(self, behaviour: Behaviour) -> Behaviour:
        def limited(requests: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self._slot(context):
                yield from behaviour(requests, context)

        return self.assign(limited)

    @contextlib.contextmanager
    def _slot(self, context: grpc.ServicerContext) -> Iterator[None]:
        if not self._limit.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._refusal)
        try:
            yield
        finally:
            self._limit.release()


def _guarded(name: str, behaviour: Behaviour) -> Behaviour:
    """Return a behaviour whose unexpected exceptions reach neither client nor log as text."""

    def guarded(request: object, context: grpc.ServicerContext) -> object:
        try:
            return behaviour(request, context)
        except Exception as error:
            log.event("call_failed", "error", method=name, error=log.describe(error))
        return context.abort(grpc.StatusCode.INTERNAL, "internal error")

    return guarded


def _authorization(
    settings: Settings, on_denied: Callable[[], None]
) -> Callable[[Behaviour], Behaviour]:
    """Return a decorator: a behaviour then answers only clients that `allow` names.

    Args:
        settings: of the service.
        on_denied: called for each call that is refused.
    """

    def authorized(behaviour: Behaviour) -> Behaviour:
        def authorize(request: object, context: grpc.ServicerContext, *rest: object) -> object:
            client = tls.identities(context.auth_context())  # type: ignore[arg-type]
            if not tls.permitted(settings, ADMIN, client):
                on_denied()
                context.abort(grpc.StatusCode.PERMISSION_DENIED, tls.refusal(ADMIN))
            return behaviour(request, context, *rest)

        return authorize if ADMIN in settings.allow else behaviour

    return authorized


def _options(settings: Settings) -> list[tuple[str, object]]:
    return [
        ("grpc.so_reuseport", 0),  # a port in use must be an error
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.enable_channelz", int(settings.channelz)),
    ]


def _add_channelz(server: grpc.Server, limited: Callable[[Behaviour], Behaviour]) -> str:
    """Add channelz, which shows this process's connections, and return the service's name."""
    try:
        from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("channelz", "grpcio-channelz", "channelz") from None
    servicer = channelz.ChannelzServicer()
    service = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
    for method in service.methods:
        setattr(servicer, method.name, limited(getattr(servicer, method.name)))
    channelz_pb2_grpc.add_ChannelzServicer_to_server(servicer, server)
    return str(service.full_name)


def _listen(server: grpc.Server, settings: Settings, address: ListenAddress) -> ListenAddress:
    # A unix socket of mode 0600 admits its owner and root. A certificate proves no more,
    # unless `allow` distinguishes clients by their certificates.
    encrypted = not address.path or ADMIN in settings.allow
    credentials = tls.credentials(settings) if encrypted else None
    # Nothing else makes files while the supervisor starts.
    with owner_only() if address.path else contextlib.nullcontext():
        try:
            if credentials is None:
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), credentials)
        except RuntimeError:
            raise find_listen_error("admin", address) from None
    return address.with_port(port)
