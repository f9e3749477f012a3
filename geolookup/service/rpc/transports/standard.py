"""Parses requests of gRPC's standard services (health, reflection)."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from geolookup.service.rpc.request import Code, RequestError

_Message = TypeVar("_Message", bound=Message)

_UNREADABLE: Final = RequestError(Code.INTERNAL, "Exception deserializing request!")
"""The text of gRPC's public server."""


def parse(kind: type[_Message], body: bytes) -> _Message:
    """Parse a request.

    Raises:
        RequestError: INTERNAL: it can't be parsed.
    """
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError):  # ValueError: text that is no UTF-8, in some runtimes
        raise _UNREADABLE.copy() from None
