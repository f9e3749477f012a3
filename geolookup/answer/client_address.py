"""Whose address it is: the client's behind load balancers, or INVALID, and never the next best.

A peer that is no trusted proxy is the client, whatever its headers claim. What a trusted proxy
says is read from the right, hop by hop, through trusted proxies alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from geolookup import _core
from geolookup.answer.embedded_ipv4 import MAPPED_BYTES

Headers = Mapping[str, "str | Iterable[str]"] | Iterable[tuple[str, str]]
"""Of a request: names, in any letter case, and values; a name may come several times."""


class AddressSource(Enum):
    """Where a client's address was found."""

    PEER = "PEER"
    """The connection's other end, which is no trusted proxy."""
    PROXY = "PROXY"
    """The PROXY protocol's header."""
    X_FORWARDED_FOR = "X_FORWARDED_FOR"
    FORWARDED = "FORWARDED"
    """The header of RFC 7239."""


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """A client's address, or why there is none.

    Attributes:
        address: in text, without a port; empty if there is none, which every lookup answers as
            INVALID. It is not in the `repr`.
        source: where it was found, or where what is wrong was.
        problem: what is wrong, without any of the values; None: nothing.
    """

    address: str = field(repr=False)
    source: AddressSource
    problem: str | None = None


_X_FORWARDED_FOR, _FORWARDED = "x-forwarded-for", "forwarded"
_SOURCES: Final = {
    _X_FORWARDED_FOR: AddressSource.X_FORWARDED_FOR,
    _FORWARDED: AddressSource.FORWARDED,
}
_LONGEST = 16_384
"""Characters of a header's values together."""


class _WrongError(Exception):
    """What is wrong with a chain; its text has none of the values."""


class ClientAddress:
    """Finds clients' addresses behind trusted proxies; `geolookup.ClientAddress`.

    Args:
        trusted: the proxies, as CIDR prefixes or addresses: load balancers, gateways, CDNs.
            All of them must write the header in *header*, or speak the PROXY protocol, else a
            client's own header would be believed.
        header: which header the proxies write: "x-forwarded-for" or "forwarded". The other one
            is never read.

    Raises:
        ValueError: a prefix is none or has bits beyond its length, all addresses would be
            trusted, or another header.
        TypeError: *trusted* is a text.
    """

    def __init__(self, trusted: Iterable[str], *, header: str = _X_FORWARDED_FOR) -> None:
        # Not before the first one is made, as most users make none.
        from ipaddress import ip_network  # noqa: PLC0415

        if isinstance(trusted, (str, bytes)):
            raise TypeError("trusted: expected several prefixes, not one text")
        self._header = header.lower()
        if self._header not in _SOURCES:
            raise ValueError(f"header: expected {' or '.join(_SOURCES)}")
        self._trusted: list[tuple[int, int, int]] = []
        for prefix in trusted:
            network = ip_network(prefix)
            if network.prefixlen == 0:
                raise ValueError("trusted: a prefix of length 0 trusts everybody")
            width = network.max_prefixlen
            shift = width - network.prefixlen
            self._trusted.append((width // 8, shift, int(network.network_address) >> shift))

    def find(
        self, peer: str, headers: Headers | None = None, *, proxy: bytes | None = None
    ) -> FoundAddress:
        """Return the address of a client.

        Args:
            peer: the connection's other end: an address, with a port ("192.0.2.1:80",
                "[2001:db8::1]:80") or without, or as gRPC writes it ("ipv4:192.0.2.1:80").
            headers: those of the request.
            proxy: the PROXY protocol's header of the connection, version 1 or 2, from its first
                byte to its last.
        """
        source = AddressSource.PEER
        try:
            packed, text = _endpoint(_plain_peer(peer))
            if self._is_trusted(packed) and proxy is not None:
                source = AddressSource.PROXY
                packed, text = _proxied(proxy)
            if not self._is_trusted(packed):
                return FoundAddress(text, source)
            named = _values(headers, self._header)
            if named is None and source is AddressSource.PROXY:
                return FoundAddress(text, source)
            source = _SOURCES[self._header]
            if named is None:
                raise _WrongError("a trusted proxy sent no such header: the client is not known")
            hops = _for_values(named) if self._header == _FORWARDED else _items(named)
            for number, hop in enumerate(hops, 1):
                try:
                    packed, text = _endpoint(hop)
                except _WrongError as error:
                    raise _WrongError(f"hop {number} from the right {error}") from None
                if not self._is_trusted(packed):
                    break
        except _WrongError as error:
            return FoundAddress("", source, str(error))
        # Where all hops are trusted the farthest one is a machine of the operator's own.
        return FoundAddress(text, source)

    def _is_trusted(self, packed: bytes) -> bool:
        number = int.from_bytes(packed)
        return any(
            len(packed) == width and number >> shift == prefix
            for width, shift, prefix in self._trusted
        )


def _endpoint(text: str) -> tuple[bytes, str]:
    """Return the address of a text that may have a port, packed and in text."""
    address = text
    if text.startswith("["):
        found = re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?", text, re.ASCII)
        if found is None or not _is_port(found[2]) or ":" not in found[1]:
            raise _WrongError("is no address in brackets")
        address = found[1]
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
        if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not _is_port(port):
            raise _WrongError("has a port that is none")
    packed = _core.parse(address)
    if packed is None:
        raise _WrongError("is empty" if not text else "is no address")
    # As a mapped address, an IPv4 proxy is the same proxy.
    return (packed[12:], address) if packed.startswith(MAPPED_BYTES) else (packed, address)


def _is_port(text: str | None) -> bool:
    return text is None or int(text) <= 0xFFFF


def _plain_peer(peer: str) -> str:
    """Return a peer as others than gRPC write it."""
    if not isinstance(peer, str):
        raise TypeError(f"peer: expected str, not {type(peer).__name__}")
    scheme, _, rest = peer.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return rest.replace("%5B", "[").replace("%5D", "]")
    return peer


def _values(headers: Headers | None, name: str) -> str | None:
    """Return all values of a header, in their order; None: it is not there."""
    found: list[str] = []
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    for key, value in pairs:
        if key.lower() == name:
            found += [value] if isinstance(value, str) else list(value)
    if not found:
        return None
    joined = ",".join(found)
    if len(joined) > _LONGEST:
        raise _WrongError(f"the header has over {_LONGEST:,} characters")
    return joined


def _items(text: str) -> Iterator[str]:
    """Yield the items of a list with commas, the last one first."""
    for item in reversed(text.split(",")):
        yield item.strip(" \t")


def _for_values(text: str) -> Iterator[str]:
    """Yield the `for` of each element of RFC 7239's header, the last one first.

    From the right, because what is left of the client's own element is the client's, who may
    have left a quotation mark open there.
    """
    for element in _elements(text):
        yield _for_value(element)


_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf"({_WORD})=({_WORD}|" + r'"(?:[^"\\]|\\.)*")[ \t]*(?:;[ \t]*|$)'


def _elements(text: str) -> Iterator[str]:
    """Yield the elements of a list with commas and quotation marks, the last one first."""
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            # One behind an odd number of backslashes belongs to the text in quotation marks.
            before = at - len(text[:at].rstrip("\\"))
            if before % 2 == 0:
                quoted = not quoted
        elif text[at] == "," and not quoted:
            yield text[at + 1 : end]
            end = at
    yield text[:end]


def _for_value(element: str) -> str:
    element, found, at = element.strip(" \t"), None, 0
    while at < len(element):
        matched = re.compile(_PAIR).match(element, at)
        if matched is None:
            raise _WrongError("an element of the header is none of RFC 7239")
        if matched[1].lower() == "for":
            if found is not None:
                raise _WrongError("an element of the header names two clients")
            found = matched[2]
        at = matched.end()
    if found is None:
        raise _WrongError("an element of the header names no client")
    if found.startswith('"'):
        return re.sub(r"\\(.)", r"\1", found[1:-1])
    return found


_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_1 = (
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39})"
    rb" (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n"
)
_WIDTHS = {1: 4, 2: 16}  # of an address, by version 2's family: IPv4, IPv6


def _proxied(header: bytes) -> tuple[bytes, str]:
    """Return the source address of a PROXY protocol's header, packed and in text."""
    if header.startswith(_SIGNATURE):
        return _proxied_by_version_2(header)
    matched = re.fullmatch(_VERSION_1, header) if len(header) <= 107 else None
    if matched is None:
        raise _WrongError(
            "the proxy does not know the client"
            if header.startswith(b"PROXY UNKNOWN") and header.endswith(b"\r\n")
            else "the header is none of the PROXY protocol"
        )
    source, target = (_core.parse(matched[at].decode()) for at in (2, 3))
    width = 4 if matched[1] == b"TCP4" else 16
    if source is None or target is None or not len(source) == len(target) == width:
        raise _WrongError("the header is none of the PROXY protocol")
    if max(int(matched[4]), int(matched[5])) > 0xFFFF:
        raise _WrongError("the header is none of the PROXY protocol")
    return _endpoint(matched[2].decode())


def _proxied_by_version_2(header: bytes) -> tuple[bytes, str]:
    if len(header) < 16 or header[12] >> 4 != 2:
        raise _WrongError("the header is none of the PROXY protocol")
    if len(header) != 16 + int.from_bytes(header[14:16]):
        raise _WrongError("the PROXY protocol's header has another length than it says")
    command, family = header[12] & 15, header[13] >> 4
    if command == 0:
        raise _WrongError("the proxy speaks for itself (LOCAL): there is no client")
    width = _WIDTHS.get(family)
    if command != 1 or width is None or header[13] & 15 not in (1, 2):
        raise _WrongError("the proxy does not know the client")
    if len(header) < 16 + 2 * width + 4:
        raise _WrongError("the PROXY protocol's header ends in an address")
    from ipaddress import ip_address  # noqa: PLC0415

    return _endpoint(str(ip_address(header[16 : 16 + width])))
