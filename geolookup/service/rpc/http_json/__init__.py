"""The service in JSON over HTTP/1.1: the Connect protocol's unary form. See docs/http.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geolookup.service.processes.operating_system import clear_thread_errors

if TYPE_CHECKING:
    from geolookup.service.rpc.calls import Calls
    from geolookup.service.rpc.http_json.listener import HttpListener
    from geolookup.service.settings import ListenAddress, Settings


def open_listener(
    settings: Settings, calls: Calls, listen: ListenAddress, *, share_port: bool
) -> HttpListener:
    """Return the listener, listening.

    Args:
        settings: the limits of calls and connections, and the certificate.
        calls: answers the calls.
        listen: the address to listen on.
        share_port: whether other processes (the other workers) listen on the same port.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used.
        ServiceError: the system starts no more threads.
    """
    # Imported here and in `preload`: httptools is an extra, and asyncio is slow to import.
    from geolookup.service.rpc.http_json.listener import HttpListener  # noqa: PLC0415

    with clear_thread_errors():
        return HttpListener(settings, calls, listen, share_port=share_port)


def preload(settings: Settings) -> None:
    """Import the code that `open_listener` needs, if the settings have such a listener."""
    if settings.http is not None:
        from geolookup.service.rpc.http_json import listener  # noqa: F401, PLC0415
