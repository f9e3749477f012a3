"""Addresses to listen on: grammar, reach, and collisions."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from geolookup.service.settings.problems import SettingsError

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})", re.ASCII)
_MAX_PATH = 107
"""Bytes of a unix socket's path: sockaddr_un holds 108 with the final NUL."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address to listen on: a host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str, setting: str = "listen") -> ListenAddress:
        """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        Args:
            text: what to read.
            setting: the setting that errors name.

        Raises:
            SettingsError: it is none of these.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path or "\0" in path:
                raise SettingsError(setting, "expected a path after unix:")
            if len(path.encode("utf-8", "surrogateescape")) > _MAX_PATH:
                raise SettingsError(setting, f"a socket's path has at most {_MAX_PATH} bytes")
            return cls(path=path)
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match[2]) > 0xFFFF or not _is_host(match[1]):
            raise SettingsError(setting, "expected HOST:PORT, [IPV6]:PORT or unix:PATH")
        return cls(host=match[1], port=int(match[2]))

    def with_port(self, port: int) -> ListenAddress:
        """Return this address with the actual port."""
        return self if self.path else ListenAddress(host=self.host, port=port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it: 127.0.0.0/8, ::1, localhost or a unix socket.

        Any other name is not: it is resolved too late to know.
        """
        if self.path or self.host == "localhost":
            return True
        try:
            return _ip(self.host).is_loopback
        except ValueError:
            return False

    def collides_with(self, other: ListenAddress) -> bool:
        """Whether both can't be listened on at once, as far as this is known beforehand."""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port or self.port == 0:
            return False
        own, others = _names(self.host), _names(other.host)
        return bool(own & others) or bool({"0.0.0.0", "::"} & (own | others))  # noqa: S104

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        return _ip(host).version == 6
    except ValueError:
        return False


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.strip("[]"))


def _names(host: str) -> set[str]:
    """Return the addresses and names that a host stands for, in normal form."""
    if host == "localhost":
        return {"localhost", "127.0.0.1", "::1"}
    try:
        return {str(_ip(host))}
    except ValueError:
        return {host.lower()}
