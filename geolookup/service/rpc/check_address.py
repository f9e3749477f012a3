"""Which address a check of Envoy's is about: the peer's, a header's, or what a trusted chain says.

A header is read only where the operator names it: clients write headers, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from geolookup.answer.client_address import ClientAddress

if TYPE_CHECKING:
    from geolookup.service.settings import Settings


class CheckAddress:
    """Finds the address of a check.

    Args:
        header: the name, in lower case, of the one header that carries it; empty: none does.
        chain: reads the peer and the chain of proxies; None: the peer is the client.
    """

    def __init__(self, header: str = "", chain: ClientAddress | None = None) -> None:
        self.header = header
        self.chain = chain

    @classmethod
    def of(cls, settings: Settings) -> CheckAddress:
        """Return what the settings ask for."""
        chain = None
        if settings.authz_trusted:
            chain = ClientAddress(settings.authz_trusted, header=settings.authz_chain)
        return cls(settings.authz_address_header or "", chain)

    def find(self, attributes: Any) -> str:
        """Return the address of an ``AttributeContext``, in text.

        It is empty, which every lookup answers as INVALID, where there is none: a peer on a
        unix socket, a header that is missing or comes several times, a malformed chain. A
        header's value is returned as it is: whether it is exactly one address is the lookup's
        to say.
        """
        peer: str = attributes.source.address.socket_address.address
        if self.header:
            values = [value for name, value in _headers(attributes) if name == self.header]
            return values[0] if len(values) == 1 else ""
        if self.chain is not None:
            return self.chain.find(peer, _headers(attributes)).address
        return peer


PEER: Final = CheckAddress()
"""The peer, whatever the headers say."""


def _headers(attributes: Any) -> Iterator[tuple[str, str]]:
    """Yield the headers' names, in lower case, and values.

    Envoy joins a header's values by commas, or with ``encode_raw_headers`` lists each.
    """
    http = attributes.request.http
    for name, value in http.headers.items():
        yield name.lower(), value
    for one in http.header_map.headers:
        yield one.key.lower(), one.value or one.raw_value.decode("latin-1")
