"""Transports: they take calls from the network and have `Calls` answer them.

Each is a class with the same contract (`Transport`) and a thin shell around the same calls.
The same tests run over each.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol

from geolookup.service import log
from geolookup.service.processes.operating_system import clear_thread_errors
from geolookup.service.rpc.transports import build

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from geolookup.service.rpc.calls import Calls
    from geolookup.service.rpc.handlers import Snapshot
    from geolookup.service.settings import ListenAddress, Settings


class Transport(Protocol):
    """A listener and all its calls. It serves from its construction until `stop`.

    gRPC objects don't survive a fork: make it in the process that serves.
    """

    address: ListenAddress
    """The address that it listens on, with the actual port."""

    def prepare(self, snapshot: Snapshot) -> None:
        """Compute what answering from a snapshot needs, before it is the one in service.

        Else the swap to it takes a tenth of a second, in which each worker answers from the one
        before.
        """
        ...

    def health(self, serving: bool) -> None:
        """Answer health checks with SERVING, or NOT_SERVING."""
        ...

    def retire_connections(self) -> None:
        """Have clients make their further calls on new connections, which are still accepted.

        The transport `threads` can't: gRPC's server says so when it no longer listens.
        """
        ...

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        Health becomes NOT_SERVING, and new calls are refused. Calls in flight have *grace*
        seconds, then they are cancelled; long-lived calls (health watches, reflection) are
        cancelled at once. Streams of rosters end when they have waited for a roster for a second:
        with UNAVAILABLE over `native`, over `threads` perhaps with CANCELLED. A second
        call with a shorter grace shortens it.
        """
        ...


def open_transport(
    settings: Settings,
    calls: Calls,
    listen: ListenAddress,
    *,
    share_port: bool,
    supervisor: socket.socket | None = None,
) -> Transport:
    """Return the transport that the settings name, listening.

    If geolookup was built without what the native transport needs, that is logged, and the
    transport is `threads`, gRPC's public server.

    Args:
        settings: the transport's name, and the limits of connections.
        calls: answers the calls.
        listen: the address to listen on.
        share_port: whether other processes (the other workers) listen on the same port.
        supervisor: a connected socket over which a supervisor asks for lookups, as
            `geolookup.service.processes.probes` does; None: there is none. The transport closes it.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used, or gRPC can't keep a limit.
        ServiceError: the system starts no more threads.
    """
    name, reason = chosen(settings)
    if reason is not None:
        log.event("transport", "warning", transport=name, reason=reason)
    with clear_thread_errors():
        return _TRANSPORTS[name]()(
            settings, calls, listen, share_port=share_port, supervisor=supervisor
        )


def chosen(settings: Settings) -> tuple[str, str | None]:
    """Return the transport to use, and why it is not the one in the settings."""
    if settings.transport != "native":
        return settings.transport, None
    reason = build.missing(tls=settings.tls_certificate is not None)
    return ("native", None) if reason is None else ("threads", reason)


def preload(settings: Settings) -> None:
    """Import the code that `open_transport` needs, which takes longer than to run it."""
    _TRANSPORTS[chosen(settings)[0]]()


def _native() -> Callable[..., Transport]:
    from geolookup.service.rpc.transports.native import NativeTransport  # noqa: PLC0415

    return NativeTransport


def _threads() -> Callable[..., Transport]:
    from geolookup.service.rpc.transports.threads import ThreadTransport  # noqa: PLC0415

    return ThreadTransport


_TRANSPORTS: Final = {"native": _native, "threads": _threads}
"""Imported on first use: the one is not built everywhere, the other is slow to import."""
