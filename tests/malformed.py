"""Clients that speak no gRPC, or a broken one, to see what a server says about them."""

from __future__ import annotations

import contextlib
import socket

from http2 import PREFACE, frame

SETTINGS = PREFACE + frame(4, 0, 0, b"")

MESSAGES = (
    b"",
    b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello",  # the beginning of TLS
    bytes(range(256)),
    PREFACE + b"garbage" * 20,
    PREFACE + frame(4, 0, 0, b"12345"),  # settings of an odd size
    SETTINGS + frame(1, 4, 1, b"\xff" * 50),  # headers that can't be unpacked
    SETTINGS + frame(0, 1, 77, b"data"),  # for a stream that was never opened
    SETTINGS + frame(9, 0, 1, b"x" * 20),  # the continuation of nothing
    SETTINGS + b"\xff\xff\xff" + bytes(6) + b"x" * 100,  # a frame over the limit
    SETTINGS + frame(8, 0, 0, bytes(4)),  # a window that grows by nothing
    SETTINGS + frame(6, 0, 0, bytes(8)) * 2_000,  # pings
)


def visit(port: int) -> list[int]:
    """Send each message to a port of this machine; return the ports that they came from.

    Each connection lasts until the server has hung up, after this side has.
    """
    ports = []
    for message in MESSAGES:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            ports.append(client.getsockname()[1])
            client.sendall(message)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                while client.recv(65_536):
                    pass
    return ports
