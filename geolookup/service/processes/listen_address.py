"""The clients' address, held by the supervisor for as long as the service runs."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from geolookup.service.listen_errors import cannot_listen
from geolookup.service.settings import ListenAddress, ListenError
from geolookup.service.unix_socket import check_path_is_free

_ATTEMPTS: Final = 20
"""Free ports to try where a host has several addresses: the port must be free on all."""

_NOT_HERE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class HeldListenAddress:
    """The address that clients connect to, held for this service's workers.

    A TCP port is bound, but not listened on: the workers share it (SO_REUSEPORT), and another
    service that binds it finds it in use, also while no worker runs.
    Unix sockets can't be shared: the first worker has the path of the setting, the others
    have ``PATH.1``, ``PATH.2`` and so on.

    Args:
        address: where to listen; port 0 takes a free one.
        workers: the number of workers.
        setting: that of the address, which error texts name.

    Attributes:
        shared: whether all workers listen on the same address.

    Raises:
        ListenError: the address is in use, or can't be listened on.
        SettingsError: the path of a worker's socket is too long.
    """

    def __init__(self, address: ListenAddress, workers: int, setting: str = "listen") -> None:
        self._sockets: list[socket.socket] = []
        self.shared = not address.path
        if address.path:
            paths = [address.path, *(f"{address.path}.{i}" for i in range(1, workers))]
            self._addresses = [ListenAddress.parse(f"unix:{path}", setting) for path in paths]
            for path in paths:
                check_path_is_free(path, setting)
        else:
            self._sockets, port = bind_all(address, _hold, setting)
            self._addresses = [address.with_port(port)] * workers

    def of_worker(self, number: int) -> ListenAddress:
        """Return the address on which a worker listens."""
        return self._addresses[number]

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The addresses that clients may connect to, each once."""
        return tuple(dict.fromkeys(self._addresses))

    def release(self) -> None:
        """Stop holding the port. Workers that listen on it are not affected."""
        while self._sockets:
            self._sockets.pop().close()

    def remove_sockets(self) -> None:
        """Release the port, and remove socket files of workers that could not do it."""
        self.release()
        for address in self.addresses:
            if address.path:
                with contextlib.suppress(OSError, ListenError):
                    check_path_is_free(address.path)
                    os.unlink(address.path)


Bind = Callable[[int, tuple[str | int, ...]], socket.socket]
"""Returns a socket of a family that is bound to a name, or raises OSError."""


def bind_all(
    address: ListenAddress, bind: Bind, setting: str = "listen"
) -> tuple[list[socket.socket], int]:
    """Bind one port on all addresses of a host; return the sockets and the port.

    Raises:
        ListenError: the host can't be resolved, or the port can't be bound.
    """
    try:
        found = socket.getaddrinfo(
            address.host.strip("[]"), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(f"{setting}: the host can't be resolved: {error.strerror}") from None
    endpoints = list(dict.fromkeys((family, name[:2]) for family, _, _, _, name in found))
    sockets: list[socket.socket] = []
    for attempt in range(_ATTEMPTS):
        try:
            port = address.port
            absent: OSError | None = None
            for family, (host, _) in endpoints:
                try:
                    sockets.append(bind(family, (host, port)))
                except OSError as error:
                    # A name may resolve to addresses that this machine does not have, such as
                    # localhost to ::1 without IPv6.
                    if error.errno not in _NOT_HERE:
                        raise
                    absent = error
                else:
                    port = sockets[-1].getsockname()[1]
            if not sockets and absent is not None:
                raise absent
            return sockets, port
        except OSError as error:
            for one in sockets:
                one.close()
            sockets.clear()
            if address.port or attempt == _ATTEMPTS - 1:
                number = error.errno or 0
                raise cannot_listen(setting, address.with_port(port), number) from None
    raise AssertionError  # the last attempt has raised or returned


def _hold(family: int, name: tuple[str | int, ...]) -> socket.socket:
    # The first bind is exclusive: with SO_REUSEPORT it would succeed on a port that another
    # service of this user shares between its own processes. SO_REUSEADDR admits a port with
    # connections of workers that have just ended.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(name)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Without SO_REUSEADDR the holder makes the exclusive bind of another service fail.
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(probe.getsockname())
        except BaseException:
            holder.close()
            raise
    return holder
