"""Makes a gRPC server of either kind listen, and finds the reason if it can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from geolookup.service import tls
from geolookup.service.listen_errors import find_listen_error
from geolookup.service.settings import ListenAddress
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
        raise find_listen_error("listen", address)
    return address.with_port(port)
