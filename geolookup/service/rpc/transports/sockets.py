"""Sockets that listen: what transports with an event loop of their own accept connections from."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from typing import Final

from geolookup.service.processes.listen_address import bind_all
from geolookup.service.settings import ListenAddress, ListenError
from geolookup.service.unix_socket import check_path_is_free

_BACKLOG: Final = 1_024
"""Connections that the system makes before the loop has accepted them."""


def listening_sockets(
    address: ListenAddress, *, share_port: bool, setting: str = "listen"
) -> tuple[list[socket.socket], ListenAddress]:
    """Return sockets that listen, and the address with the actual port. None of them blocks.

    Args:
        address: to listen on.
        share_port: whether other processes listen on the same port.
        setting: that of the address, which error texts name.

    Raises:
        ListenError: the address can't be listened on.
    """
    if address.path:
        return [_listening_at(address.path, setting)], address
    sockets, port = bind_all(address, partial(_listening, share_port=share_port), setting)
    return sockets, address.with_port(port)


def _listening_at(path: str, setting: str) -> socket.socket:
    """Return a socket that listens at a path, in place of one that was left behind."""
    check_path_is_free(path, setting)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        one.bind(path)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except OSError as error:
        one.close()
        reason = error.strerror or "refused"
        raise ListenError(f"{setting}: can't make a socket at this path: {reason}") from None
    return one


def _listening(family: int, name: tuple[str | int, ...], *, share_port: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(name)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one
