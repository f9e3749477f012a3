"""Ways to take calls from the network and have `Calls` answer them.

Each is a class with the same contract (`Transport`), a thin shell around the same
calls, and the same tests run over each.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol

from geolookup.service import log
from geolookup.service.rpc.transports import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from geolookup.service.rpc.calls import Calls
    from geolookup.service.settings import ListenAddress, Settings


class Transport(Protocol):
    """A listener and all calls that come over it. Made listening and answering.

    gRPC objects don't survive a fork: made in the process that serves.
    """

    address: ListenAddress
    """Where it listens, with the port that was really taken."""

    def health(self, serving: bool) -> None:
        """Have health checks say SERVING, or NOT_SERVING."""
        ...

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        Health says NOT_SERVING, new calls are refused at once, those in flight have
        *grace* seconds to finish and are cancelled then; calls that last as long as
        the client likes (health watches, reflection) are cancelled at once. A second
        call with a shorter grace shortens it.
        """
        ...


def open_transport(
    settings: Settings, calls: Calls, listen: ListenAddress, *, share_port: bool
) -> Transport:
    """Return the transport that the settings name, listening.

    Where geolookup was built without what the native one needs, that is logged, and it is
    gRPC's public server.

    Args:
        settings: which one, and what a connection may do.
        calls: what answers.
        listen: where to listen; of the settings' own address all workers have one part.
        share_port: whether other processes listen on the same port (the other workers).

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used, or gRPC can't keep a limit.
    """
    name, reason = chosen(settings)
    if reason is not None:
        log.event("transport", "warning", transport=name, reason=reason)
    return _TRANSPORTS[name]()(settings, calls, listen, share_port=share_port)


def chosen(settings: Settings) -> tuple[str, str | None]:
    """Return the name of the transport that serves, and why it is another than the settings'."""
    if settings.transport != "native":
        return settings.transport, None
    reason = build.missing(tls=settings.tls_certificate is not None)
    return ("native", None) if reason is None else ("threads", reason)


def preload(settings: Settings) -> None:
    """Load the code that `open_transport` will need, which takes longer than to open it."""
    _TRANSPORTS[chosen(settings)[0]]()


def _native() -> Callable[..., Transport]:
    from geolookup.service.rpc.transports.native import NativeTransport  # noqa: PLC0415

    return NativeTransport


def _threads() -> Callable[..., Transport]:
    from geolookup.service.rpc.transports.threads import ThreadTransport  # noqa: PLC0415

    return ThreadTransport


_TRANSPORTS: Final = {"native": _native, "threads": _threads}
"""Loaded when they are used: the one is not there everywhere, the other takes a while."""
