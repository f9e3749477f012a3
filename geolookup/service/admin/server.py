"""The admin listener: what operators ask of a running service, and health that is never shed.

It is a gRPC server of its own, in the supervisor, with few threads: no load of clients
reaches it, so it answers when the workers are at their limits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from geolookup.admin.v1 import admin_pb2 as admin_v1
from geolookup.admin.v1 import admin_pb2_grpc as admin_v1_grpc
from geolookup.errors import MissingExtraError
from geolookup.service import log, tls
from geolookup.service.admin.messages import reload_message, status_message
from geolookup.service.lasting import LastingCalls
from geolookup.service.pool import Pool
from geolookup.service.settings import ListenAddress, ListenError, Settings
from geolookup.service.settings.model import ADMIN
from geolookup.service.unix_socket import owner_only
from geolookup.service.watches import Watches

if TYPE_CHECKING:
    from geolookup.service.admin.control import Control

SERVICE: Final = "geolookup.admin.v1.AdminService"
CLIENTS_SERVICE: Final = "geolookup.v1.GeoLookupService"

_ACTIONS: Final = 2
"""Admin rpcs at once: a status beside a long reload. More are refused."""
_THREADS: Final = 4
"""For health checks, which take microseconds."""
_STREAMS: Final = 4
"""Reflection streams at once."""
_WATCHES: Final = 16
"""Health watches at once, each in a thread."""
_LOOK: Final = 0.5
"""Seconds between looks at the service's health for those who watch it."""
_MAX_MESSAGE: Final = 65_536
"""Bytes. All requests here are a few; a reflection request names a file or a symbol."""

Behaviour = Callable[..., Any]


class AdminServer:
    """The admin service, health, reflection and, when asked for, channelz on their listener.

    Made listening and answering; `stop` ends it. The unix socket of a ``unix:``
    listener is for the owner of the process alone.

    Args:
        settings: of which `admin` says where to listen.
        control: what does it.

    Attributes:
        address: where it listens, with the port that was really taken.
        denied: calls refused up to now since `allow` does not name the client.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used.
        MissingExtraError: channelz is asked for, and its package is not installed.
    """

    def __init__(self, settings: Settings, control: Control) -> None:
        if settings.admin is None:
            raise ValueError("admin: None, so there is nowhere to listen")
        self._control = control
        self._watches = Watches(("", CLIENTS_SERVICE, SERVICE))
        self._lasting = LastingCalls()
        self._stopping = threading.Event()
        self.denied = 0
        self._counting = threading.Lock()  # guards `denied`
        self._pools = [
            Pool(number, f"geolookup-admin-{name}")
            # One more of each kind, to refuse what is over the limit.
            for name, number in (
                ("health", _THREADS),
                ("action", _ACTIONS + 1),
                ("stream", _STREAMS + 1),
                ("watch", _WATCHES + 1),
            )
        ]
        calls, actions, streams, watches = self._pools
        self._actions = _Bounded(actions, _ACTIONS, "admin rpcs")
        self._streams = _Bounded(streams, _STREAMS, "streams")
        self._watching = _Bounded(watches, _WATCHES, "health watches")
        try:
            self._server = grpc.server(calls, options=_options(settings))
            self._add_services(settings)
            self._mirror()
            self.address = _listen(
                self._server, settings, ListenAddress.parse(settings.admin, "admin")
            )
            self._server.start()
        except BaseException:
            self._shut_pools()
            raise
        threading.Thread(target=self._watch, name="geolookup-admin-watch").start()

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        New calls are refused at once; those in flight have *grace* seconds. Those who
        watch the health are told NOT_SERVING and not waited for.
        """
        self._stopping.set()
        self._watches.stop()
        stopped = self._server.stop(grace)
        self._lasting.cancel()
        self._watches.cut_off(stopped)
        self._shut_pools()
        return stopped

    def _shut_pools(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False)

    def _add_services(self, settings: Settings) -> None:
        admitted = _admission(settings, self._count_denied)
        servicer = _AdminServicer(self._control, self._mirror)
        for method in admin_v1.DESCRIPTOR.services_by_name["AdminService"].methods:
            behaviour = _private(method.name, getattr(servicer, method.name))
            setattr(servicer, method.name, self._actions.unary(admitted(behaviour)))
        admin_v1_grpc.add_AdminServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]

        def check(request: Any, context: grpc.ServicerContext) -> Any:
            self._mirror()
            return self._watches.check(request, context)

        checking = health_pb2_grpc.HealthServicer()
        checking.Check = admitted(_private("Check", check))
        checking.Watch = self._watching.stream(admitted(self._watches.watch))
        health_pb2_grpc.add_HealthServicer_to_server(checking, self._server)

        names = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if settings.channelz:
            placed = lambda behaviour: self._actions.unary(admitted(behaviour))  # noqa: E731
            names.append(_add_channelz(self._server, placed))
        reflecting = reflection.ReflectionServicer(names)
        reflecting.ServerReflectionInfo = self._streams.stream(
            admitted(self._lasting.tracked(reflecting.ServerReflectionInfo))
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, self._server)

    def _count_denied(self) -> None:
        with self._counting:
            self.denied += 1

    def _mirror(self) -> None:
        """Have health say what the service is."""
        serving = self._control.status().serving
        # The admin service itself answers, whatever the others do.
        for name in ("", CLIENTS_SERVICE):
            self._watches.set(name, serving=serving)

    def _watch(self) -> None:
        failed = False
        while not self._stopping.wait(_LOOK):
            try:
                self._mirror()
                failed = False
            except Exception as error:
                if not failed:  # once, and not each half second
                    log.event("call_failed", "error", method="Watch", error=log.describe(error))
                failed = True


class _AdminServicer(admin_v1_grpc.AdminServiceServicer):
    def __init__(self, control: Control, changed: Callable[[], None]) -> None:
        self._control = control
        self._changed = changed

    def Reload(self, _request: object, _context: object) -> admin_v1.ReloadResponse:  # noqa: N802
        return admin_v1.ReloadResponse(reload=reload_message(self._control.reload()))

    def Rollback(self, _request: object, _context: object) -> admin_v1.RollbackResponse:  # noqa: N802
        return admin_v1.RollbackResponse(reload=reload_message(self._control.rollback()))

    def GetStatus(self, _request: object, _context: object) -> admin_v1.GetStatusResponse:  # noqa: N802
        return status_message(self._control.status())

    def Drain(self, _request: object, _context: object) -> admin_v1.DrainResponse:  # noqa: N802
        self._control.drain()
        self._changed()
        return admin_v1.DrainResponse()

    def Resume(self, _request: object, _context: object) -> admin_v1.ResumeResponse:  # noqa: N802
        self._control.resume()
        self._changed()
        return admin_v1.ResumeResponse()


class _Bounded:
    """Runs behaviours in a pool of their own, so many at once; others are refused at once."""

    def __init__(self, pool: Pool, number: int, name: str) -> None:
        self._pool = pool
        self._slots = threading.BoundedSemaphore(number)
        self._refusal = f"{name}: over the limit of {number} at once"

    def unary(self, behaviour: Behaviour) -> Behaviour:
        def bounded(request: object, context: grpc.ServicerContext) -> object:
            with self._slot(context):
                return behaviour(request, context)

        return self._placed(bounded)

    def stream(self, behaviour: Behaviour) -> Behaviour:
        def bounded(requests: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self._slot(context):
                yield from behaviour(requests, context)

        return self._placed(bounded)

    @contextlib.contextmanager
    def _slot(self, context: grpc.ServicerContext) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._refusal)
        try:
            yield
        finally:
            self._slots.release()

    def _placed(self, behaviour: Behaviour) -> Behaviour:
        behaviour.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        return behaviour


def _private(name: str, behaviour: Behaviour) -> Behaviour:
    """Return a behaviour of which an unforeseen exception tells nobody its text."""

    def guarded(request: object, context: grpc.ServicerContext) -> object:
        try:
            return behaviour(request, context)
        except Exception as error:
            log.event("call_failed", "error", method=name, error=log.describe(error))
        return context.abort(grpc.StatusCode.INTERNAL, "internal error")

    return guarded


def _admission(settings: Settings, denied: Callable[[], None]) -> Callable[[Behaviour], Behaviour]:
    """Return what has a behaviour answer only those who may ask here.

    Args:
        settings: whose `allow` decides.
        denied: called for each call that is refused.
    """

    def admitted(behaviour: Behaviour) -> Behaviour:
        def admitting(request: object, context: grpc.ServicerContext, *rest: object) -> object:
            who = tls.identities(context.auth_context())  # type: ignore[arg-type]  # of sequences
            if not tls.permitted(settings, ADMIN, who):
                denied()
                context.abort(grpc.StatusCode.PERMISSION_DENIED, tls.refusal(ADMIN))
            return behaviour(request, context, *rest)

        return admitting if ADMIN in settings.allow else behaviour

    return admitted


def _options(settings: Settings) -> list[tuple[str, object]]:
    return [
        ("grpc.so_reuseport", 0),  # a port in use must be an error
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.enable_channelz", int(settings.channelz)),
    ]


def _add_channelz(server: grpc.Server, placed: Callable[[Behaviour], Behaviour]) -> str:
    """Add channelz, which shows this process's connections, and return the service's name."""
    try:
        from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("channelz", "grpcio-channelz", "channelz") from None
    servicer = channelz.ChannelzServicer()
    service = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
    for method in service.methods:
        setattr(servicer, method.name, placed(getattr(servicer, method.name)))
    channelz_pb2_grpc.add_ChannelzServicer_to_server(servicer, server)
    return str(service.full_name)


def _listen(server: grpc.Server, settings: Settings, address: ListenAddress) -> ListenAddress:
    # A unix socket of mode 0600 admits its owner and root. A certificate proves no more,
    # unless `allow` tells clients with certificates apart.
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
            raise ListenError(f"admin: can't listen on {address}") from None
    return address.with_port(port)
