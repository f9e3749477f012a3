"""Where clients connect, held by the supervisor before any worker is there, and while none is."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Final

from geolookup.service.settings import ListenAddress, ListenError

_ATTEMPTS: Final = 20
"""Free ports that are tried where a host has several addresses: one must be free on all."""

NOT_HERE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Reservation:
    """The address that is listened on, kept from everybody but this user's workers.

    A TCP port is bound and not listened on: nobody connects to it here, the workers
    share it (SO_REUSEPORT), and another service that asks for it finds it in use.
    Of a unix socket each worker has one of its own: the first has the path that was
    asked for, and the others have ``PATH.1``, ``PATH.2`` and so on.

    Args:
        address: where to listen; port 0: one that is free.
        workers: how many will.

    Attributes:
        shared: whether all workers listen on the same address.

    Raises:
        ListenError: the address is in use, or can't be listened on.
        SettingsError: the path of a worker's socket is too long.
    """

    def __init__(self, address: ListenAddress, workers: int) -> None:
        self._sockets: list[socket.socket] = []
        self.shared = not address.path
        if address.path:
            paths = [address.path, *(f"{address.path}.{i}" for i in range(1, workers))]
            self._addresses = [ListenAddress.parse(f"unix:{path}") for path in paths]
            for path in paths:
                check_path(path)
        else:
            self._sockets, port = _hold(address)
            self._addresses = [address.with_port(port)] * workers

    def address(self, worker: int) -> ListenAddress:
        """Return where a worker listens."""
        return self._addresses[worker]

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where clients may connect, each place once."""
        return tuple(dict.fromkeys(self._addresses))

    def release(self) -> None:
        """Let others have it. Those who listen on it go on."""
        while self._sockets:
            self._sockets.pop().close()

    def clear(self) -> None:
        """Remove the sockets that workers left behind which had no time to do it."""
        self.release()
        for address in self.addresses:
            if address.path:
                with contextlib.suppress(OSError, ListenError):
                    check_path(address.path)
                    os.unlink(address.path)


def _hold(address: ListenAddress) -> tuple[list[socket.socket], int]:
    try:
        found = socket.getaddrinfo(
            address.host.strip("[]"), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(f"listen: the host can't be resolved: {error.strerror}") from None
    places = list(dict.fromkeys((family, name[:2]) for family, _, _, _, name in found))
    held: list[socket.socket] = []
    for attempt in range(_ATTEMPTS):
        try:
            port = address.port
            absent: OSError | None = None
            for family, (host, _) in places:
                try:
                    held.append(_held(family, (host, port)))
                except OSError as error:
                    # A name may stand for addresses that are not of this machine, such as
                    # localhost for ::1 where there is no IPv6. Workers leave these out, too.
                    if error.errno not in NOT_HERE:
                        raise
                    absent = error
                else:
                    port = held[-1].getsockname()[1]
            if not held and absent is not None:
                raise absent
            return held, port
        except OSError as error:
            for one in held:
                one.close()
            held.clear()
            if address.port or attempt == _ATTEMPTS - 1:
                # The system's own text, as Python's repeats the address.
                reason = os.strerror(error.errno or 0)
                raise ListenError(f"listen: can't listen on port {port}: {reason}") from None
    raise AssertionError  # the last attempt has raised or returned


def _held(family: int, name: tuple[str | int, ...]) -> socket.socket:
    # Alone at first, or a port that another service shares with itself would be shared with
    # us too. Connections to earlier workers that ended a moment ago are no reason to refuse it.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(name)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # This one is no longer passed over by another service's probe like the one above.
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(probe.getsockname())
        except BaseException:
            holder.close()
            raise
    return holder


def check_path(path: str) -> None:
    """Refuse a socket's path that is in use: gRPC would take it over in silence.

    Raises:
        ListenError: a server answers there, it is a file of another kind, or its
            folder is not there.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise ListenError(
                "listen: can't make a socket at this path: No such file or directory"
            ) from None
        return
    except OSError as error:
        raise ListenError(f"listen: can't make a socket at this path: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ListenError("listen: there is a file at this path, and it is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # or a server whose queue is full would hold us up
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left behind by a server that is no more
        except PermissionError as error:
            raise ListenError(
                f"listen: can't make a socket at this path: {error.strerror}"
            ) from None
        except OSError:
            pass  # somebody has it: too busy to answer, or of another kind (EPROTOTYPE)
    raise ListenError("listen: another server listens at this path")
