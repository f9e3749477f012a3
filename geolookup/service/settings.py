"""Everything a server can be told, fixed when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from geolookup.errors import GeoLookupError

MAX_TEXT_BYTES = 48
"""Wire bytes of one address in text: at most 45 characters ("::ffff:" forms with a dotted
tail are the longest) and 2 of framing, rounded up."""

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})", re.ASCII)


class SettingsError(GeoLookupError, ValueError):
    """A setting makes no sense. The text begins with the setting's name."""


class ListenError(GeoLookupError):
    """The server can't listen where it was told to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Attributes:
        roster: addresses in a roster.
    """

    roster: int = 1_000_000

    @property
    def message_bytes(self) -> int:
        """Bytes of the largest request that can be within the limits."""
        return self.roster * MAX_TEXT_BYTES + 65_536  # and room for the other fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a server can be told.

    Attributes:
        listen: ``HOST:PORT`` (an IPv6 host in brackets; port 0 takes a free
            one) or ``unix:PATH``.
        dataset: the dataset file; None: the embedded one.
        region_sets: TOML file with the operator's own region sets.
        public_key: file with the Ed25519 public keys (PEM) of which one must have
            signed the dataset; None: it need not be signed.
        limits: what one request may ask for.
        threads: calls worked on at once. A call holds its thread while its
            request arrives, so this is also how many slow clients it takes to
            hold up the others.
        streams: streams open at once, those of reflection included; each has
            a thread of its own, and one more is refused with RESOURCE_EXHAUSTED.
        grace: seconds that calls in flight have to finish when the server stops.

    Raises:
        SettingsError: a value makes no sense.
    """

    listen: str = "127.0.0.1:50051"
    dataset: Path | None = None
    region_sets: Path | None = None
    public_key: Path | None = None
    limits: Limits = Limits()
    threads: int = 16
    streams: int = 64
    grace: float = 30.0

    def __post_init__(self) -> None:
        ListenAddress.parse(self.listen)
        for name, value in (
            ("roster_limit", self.limits.roster),
            ("threads", self.threads),
            ("streams", self.streams),
        ):
            if value < 1:
                raise SettingsError(f"{name}: expected a number of at least 1")
        # Message sizes are a C int in gRPC.
        if self.limits.message_bytes > 2**31 - 1:
            raise SettingsError(f"roster_limit: at most {(2**31 - 65_537) // MAX_TEXT_BYTES:,}")
        if not 0 <= self.grace < float("inf"):
            raise SettingsError("grace: expected seconds, at least 0")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: either a host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        Raises:
            SettingsError: it is none of these.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path or "\0" in path:
                raise SettingsError("listen: expected a path after unix:")
            return cls(path=path)
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match[2]) > 0xFFFF:
            raise SettingsError("listen: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
        return cls(host=match[1], port=int(match[2]))

    def with_port(self, port: int) -> ListenAddress:
        """Return this address with the port that was really taken."""
        return self if self.path else ListenAddress(host=self.host, port=port)

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"
