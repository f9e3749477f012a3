"""Whom load may be sent to, and how to connect."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc

from geolookup.client.tls import Material, credentials_of

_OWN_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
        ),
    )
)
"""Where only one's own machines are: loopback and private. Not link-local, where clouds have
their metadata services."""


class TargetError(Exception):
    """A target that load is not sent to. The text says why."""


@dataclass(frozen=True)
class Target:
    """A service, and how to connect to it. Travels to the client processes.

    Attributes:
        address: HOST:PORT, [IPV6]:PORT or unix:PATH.
        tls: whether to use TLS.
        ca: certificates to trust, in PEM; None: those that gRPC trusts by itself.
        certificate: the client's own, in PEM, with *key*.
        key: its private key, in PEM.
        server_name: the name to expect in the service's certificate; "": the host.
    """

    address: str
    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str = ""

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials of a channel; None: there is no TLS."""
        if not self.tls:
            return None
        return credentials_of(Material(self.ca, self.certificate, self.key))

    @property
    def options(self) -> list[tuple[str, object]]:
        """Channel options."""
        name = "grpc.ssl_target_name_override"
        return [(name, self.server_name)] if self.server_name else []


def is_public(address: str) -> bool:
    """Say whether a target may be anybody's but one's own.

    Raises:
        TargetError: it is no target, or its name is not known.
    """
    if re.fullmatch(r"unix:.+", address):
        return False
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:(\d{1,5})|([^\[\]:/\s]+):(\d{1,5})", address)
    if match is None:
        raise TargetError(f"{address}: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
    host, port = match[1] or match[3], int(match[2] or match[4])
    if not 0 < port < 65_536:
        raise TargetError(f"{address}: the port is not from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise TargetError(f"{address}: the name is not known") from error
    # Each of them: a channel may connect to any.
    return not all(_is_own(str(row[4][0])) for row in found)


def _is_own(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return any(address in network for network in _OWN_NETWORKS)


def permit(address: str, *, public: bool, permission: bool) -> None:
    """Check that load may be sent to a target: to a public one only when told twice.

    Raises:
        TargetError: it may not.
    """
    if is_public(address) and not (public and permission):
        raise TargetError(
            f"{address} is not on this machine or a private network: load on it may harm others. "
            "If it is yours, say so twice: --public --i-may-load-this-service"
        )


def read_pem(path: str | None) -> bytes | None:
    """Return a PEM file's content.

    Raises:
        TargetError: it can't be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
