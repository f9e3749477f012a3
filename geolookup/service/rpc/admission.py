"""Limits on calls under way, and the refusal of calls beyond them."""

from __future__ import annotations

from typing import Final

from geolookup import _meter
from geolookup.service.rpc.request import Code, RequestError

RETRY_HINT: Final = "grpc-retry-pushback-ms"
"""Trailing metadata of a shed call: the milliseconds that gRPC's clients wait before a retry, if
they retry. `Slots.shed` returns them."""


class ShedError(RequestError):
    """A call is refused because of the load. The client gets a `RETRY_HINT`."""


class Slots(_meter.Slots):
    """A number of calls that may be under way at once.

    Thread-safe. The native transport takes slots without Python.
    """

    def __init__(self, number: int, what: str) -> None:
        self.refusal = ShedError(Code.RESOURCE_EXHAUSTED, f"{what}: over the limit of {number}")
