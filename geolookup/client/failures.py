"""What a failed call becomes: one of geolookup's own errors, without gRPC's texts.

gRPC's texts may hold anything, such as what a proxy on the way had to say. Only
those are passed on that have the form of the service's own, "field: what".
"""

from __future__ import annotations

import re
from enum import Enum

import grpc

from geolookup.errors import (
    GeoLookupError,
    RegionSetError,
    RosterError,
    RosterTooLargeError,
    ServiceError,
    ServiceUnavailableError,
)

_OWN_TEXT = re.compile(
    r"(?P<roster>roster \d{1,10}: )?(?P<field>region_set|addresses|roster|ipv4|ipv6|text): "
    r"(?P<what>[ -~]{1,500})"
)
_TOO_LARGE = "larger than max"


def failure(error: grpc.RpcError, target: str, timeout: float) -> GeoLookupError:
    """Return the error that stands for a failed call to *target* under a time limit."""
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServiceUnavailableError(f"the service at {target} can't be reached")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(target, timeout)
    return _refusal(code, error.details() or "") or ServiceError(
        f"the service at {target} answered {code.name}"
    )


class Remedy(Enum):
    """What can be done about a call for several lookups that was refused."""

    NONE = "each of them would have been refused, too"
    SMALLER = "ask for fewer at once"
    ALONE = "ask for each alone: the caller may not, or can't, ask for several"


def remedy(error: grpc.RpcError) -> Remedy:
    """Return what to do about a refused call for several lookups."""
    code = error.code()
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}:
        return Remedy.ALONE
    if isinstance(_refusal(code, error.details() or ""), RosterTooLargeError):
        return Remedy.SMALLER
    return Remedy.NONE  # an overload among them, which more calls would make worse


def _refusal(code: grpc.StatusCode, details: str) -> GeoLookupError | None:
    own = _OWN_TEXT.fullmatch(details)
    if code is grpc.StatusCode.INVALID_ARGUMENT and own:
        if own["field"] == "region_set":
            return RegionSetError((own["roster"] or "") + own["what"])
        return RosterError(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and own:
        return RosterTooLargeError(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return RosterTooLargeError("roster: larger than one message may be")
    return None


def late(target: str, timeout: float) -> ServiceUnavailableError:
    """Return the error that stands for an answer that did not come in time."""
    return ServiceUnavailableError(f"the service at {target} did not answer in {timeout:g} s")


def closed() -> ServiceError:
    """Return the error of a call after the client was closed."""
    return ServiceError("the client was closed")
