"""Makes a gRPC server of either kind listen, and finds the reason if it can't."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from geolookup.service import tls
from geolookup.service.settings import ListenAddress, ListenError
from geolookup.service.unix_socket import check_path_is_free

if TYPE_CHECKING:
    import grpc

    from geolookup.service.monitoring.counters import Counters
    from geolookup.service.settings import Settings


def listen(
    settings: Settings,
    address: ListenAddress,
    counters: Counters,
    *,
    insecure: Callable[[str], int],
    secure: Callable[[str, grpc.ServerCredentials], int],
) -> ListenAddress:
    """Make a server listen, with TLS if the settings have a certificate.

    Args:
        settings: the certificate.
        address: to listen on.
        counters: count the handshakes.
        insecure: adds a port without TLS to the server, and returns the port.
        secure: adds a port with TLS.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the certificate can't be used.
    """
    if address.path:
        check_path_is_free(address.path)
    credentials = tls.credentials(settings, counters)
    try:
        port = insecure(str(address)) if credentials is None else secure(str(address), credentials)
    except RuntimeError:
        port = 0
    if not port:
        # gRPC's own text repeats the address and has no reason.
        raise ListenError(f"listen: {_failure_reason(address)}")
    return address.with_port(port)


def _failure_reason(address: ListenAddress) -> str:
    """Return the operating system's reason why an address can't be listened on."""
    try:
        if address.path:
            return f"can't make a socket at this path: {_bind_error(socket.AF_UNIX, address.path)}"
        host = address.host.strip("[]")
        family, _, _, _, name = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
        return f"can't listen on port {address.port}: {_bind_error(family, name)}"
    except socket.gaierror as error:
        return f"the host can't be resolved: {error.strerror}"


def _bind_error(family: socket.AddressFamily, name: object) -> str:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(name)  # type: ignore[arg-type]  # as getaddrinfo gave it
        except OSError as error:
            return error.strerror or "refused"
    return "refused"
