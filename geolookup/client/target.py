"""The address of a service: what gRPC takes for one, and what is none."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

_EXPECTED: Final = "expected HOST:PORT, [IPV6]:PORT or unix:PATH"
_RESOLVED: Final = re.compile(r"(dns|ipv4|ipv6|passthrough|unix|unix-abstract|vsock|xds):.+")
"""Names that gRPC resolves by their scheme."""
_LONGEST_PATH: Final = 107
"""Bytes that Linux takes for a socket, but one for the zero at its end."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\[\]:/\s]+)(?::(?P<port>\d+))?")


def read_target(target: str) -> str:
    """Return a target that gRPC can be given.

    gRPC itself takes what is none for a name that does not resolve, fills in port 443, and
    cuts off what is over 16 bits of a port.

    Raises:
        TypeError: no str.
        ValueError: not the address of a gRPC service.
    """
    if not isinstance(target, str):
        raise TypeError(f"target: expected str, not {type(target).__name__}")
    if _RESOLVED.fullmatch(target):
        path = target.removeprefix("unix:")
        if path != target and len(os.fsencode(path.removeprefix("//"))) > _LONGEST_PATH:
            raise ValueError(f"target: the path of a socket has at most {_LONGEST_PATH} bytes")
        return target
    if scheme := _SCHEME.match(target):
        raise ValueError(f"target: {scheme[0]} begins the URL of a web page; of gRPC, {_EXPECTED}")
    found = _HOST_PORT.fullmatch(target)
    if found is None:
        raise ValueError(f"target: {_EXPECTED}")
    if found["port"] is None:
        raise ValueError(f"target: {target} has no port; {_EXPECTED}")
    if not 0 < int(found["port"]) < 65_536:
        raise ValueError(f"target: the port of {target} is not from 1 to 65535")
    return target


def ignored_proxy(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the variable that names a proxy which is not used, if there is one."""
    names = ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY")
    return next((name for name in names if environment.get(name)), None)
