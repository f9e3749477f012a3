"""Requests of gRPC's standard services (health, reflection), which reach a transport as bytes."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from geolookup.service.rpc.request import Code, RequestError

_Message = TypeVar("_Message", bound=Message)

_UNREADABLE: Final = RequestError(Code.INTERNAL, "Exception deserializing request!")
"""In the words of gRPC's public server."""


def parsed(kind: type[_Message], body: bytes) -> _Message:
    """Return a request.

    Raises:
        RequestError: INTERNAL, it is none.
    """
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError):  # ValueError: text that is no UTF-8, in some runtimes
        raise _UNREADABLE.anew() from None
