"""Where a target leads: the socket addresses that its name resolves to."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final

_MOST: Final = 64
"""Addresses of one name that are connected to."""

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[!-9;-~]+)):"
    r"(?P<port>\d+)"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A target, read.

    Attributes:
        hosts: names or addresses, each with its port; empty: a Unix socket.
        path: of a Unix socket.
        authority: what calls say whom they are for.
        name: what a certificate is to be for.
    """

    hosts: tuple[tuple[str, int], ...]
    path: str
    authority: str
    name: str

    def resolve(self) -> list[Address]:
        """Return the addresses to connect to, at least one.

        Raises:
            OSError: there are none.
        """
        if not self.hosts:
            return [(socket.AF_UNIX, self.path)]
        found: dict[Address, None] = {}
        for host, port in self.hosts:
            # Of a text Python makes bytes by the codec idna, which is imported then: a process that
            # is forked meanwhile would not know it, ever.
            name = host.encode("ascii")
            for family, _, _, _, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
                found[family, address] = None
        return list(found)[:_MOST]


Address = tuple[socket.AddressFamily, "str | tuple[str | int, ...] | tuple[int, bytes]"]
"""A family and what its sockets connect to."""


def read_endpoint(target: str) -> Endpoint | None:
    """Return where a target leads; None: only gRPC's resolvers know.

    Args:
        target: as `geolookup.client.target.read_target` returns it.
    """
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        path = rest.removeprefix("//")
        return Endpoint((), path, "localhost", "localhost") if path else None
    if scheme == "dns":
        if rest.startswith("//") and not rest.startswith("///"):
            return None  # by a name server of its own
        target = rest.removeprefix("///")
    elif scheme in {"ipv4", "ipv6"}:
        target = rest.removeprefix("///")
    hosts = []
    for one in target.split(","):
        match = _HOST_PORT.fullmatch(one)
        if match is None:
            return None
        hosts.append((match["ipv6"] or match["host"], int(match["port"])))
    host = hosts[0][0].partition("%")[0]
    return Endpoint(tuple(hosts), "", target.partition(",")[0], host)
