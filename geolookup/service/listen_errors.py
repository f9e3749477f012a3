"""Why an address can't be listened on, and what can be done about it."""

from __future__ import annotations

import errno
import os
import socket

from geolookup.service.settings import ListenAddress, ListenError


def cannot_listen(setting: str, address: ListenAddress, number: int) -> ListenError:
    """Return the error for an address with a port.

    Args:
        setting: that of the address; the error text begins with it.
        address: what was to be listened on.
        number: the operating system's error number.
    """
    # The system's own text: Python's repeats the address, and gRPC has no reason.
    reason = os.strerror(number)
    if number != errno.EADDRINUSE:
        return ListenError(f"{setting}: can't listen on port {address.port}: {reason}")
    return ListenError(
        f"{setting}: can't listen on {address}: {reason}; stop what listens there, or choose "
        f"another port with --{setting}"
    )


def find_listen_error(setting: str, address: ListenAddress) -> ListenError:
    """Return the error for an address on which gRPC can't listen: it does not say why."""
    try:
        if address.path:
            reason = os.strerror(_bind_error(socket.AF_UNIX, address.path))
            return ListenError(f"{setting}: can't make a socket at this path: {reason}")
        host = address.host.strip("[]")
        family, _, _, _, name = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
        return cannot_listen(setting, address, _bind_error(family, name))
    except socket.gaierror as error:
        return ListenError(f"{setting}: the host can't be resolved: {error.strerror}")


def _bind_error(family: socket.AddressFamily, name: object) -> int:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(name)  # type: ignore[arg-type]  # as getaddrinfo gave it
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return errno.EADDRINUSE  # it was, a moment ago
