"""What a failed call becomes: one of geolookup's own errors, without gRPC's texts.

gRPC's texts may hold anything, such as what a proxy on the way had to say. Only
those are passed on that have the form of the service's own, "field: what".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

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
_HINT = "grpc-retry-pushback-ms"

_NOT_ANSWERED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Codes of calls that no handler has answered. The second is what gRPC's servers send to those
that arrive in the moment in which they stop; a call that the caller cancels is not made again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call failed.

    Attributes:
        code: gRPC's status code.
        details: the text that came with it; may hold anything.
        hint: seconds until the service wants to be asked again; below 0: never; None: it gave
            no hint.
    """

    code: grpc.StatusCode
    details: str
    hint: float | None = None

    @classmethod
    def of(cls, error: Any) -> Failure:
        """Return the failure of a call of either of gRPC's APIs that has ended."""
        hint = dict(error.trailing_metadata() or ()).get(_HINT)
        return cls(error.code(), error.details() or "", _seconds(hint))

    @property
    def is_shed(self) -> bool:
        """Whether the service refused the call for its load alone."""
        return (
            self.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            and self.hint is not None
            and self.hint >= 0
        )

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may be answered a moment later."""
        if self.hint is not None and self.hint < 0:
            return False
        return self.code in _NOT_ANSWERED or self.is_shed

    def error(self, target: str, timeout: float) -> GeoLookupError:
        """Return the error that stands for it, of a call to *target* under a time limit."""
        if self.code is grpc.StatusCode.UNAVAILABLE:
            return ServiceUnavailableError(f"the service at {target} can't be reached")
        if self.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return timed_out(target, timeout)
        return self._refusal() or ServiceError(f"the service at {target} answered {self.code.name}")

    @property
    def remedy(self) -> Remedy:
        """What to do about it if it was a call for several lookups."""
        if self.code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}:
            return Remedy.ALONE
        if isinstance(self._refusal(), RosterTooLargeError):
            return Remedy.SMALLER
        return Remedy.NONE  # an overload among them, which more calls would make worse

    def _refusal(self) -> GeoLookupError | None:
        own = _OWN_TEXT.fullmatch(self.details)
        if self.code is grpc.StatusCode.INVALID_ARGUMENT and own:
            if own["field"] == "region_set":
                return RegionSetError((own["roster"] or "") + own["what"])
            return RosterError(self.details)
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and own:
            return RosterTooLargeError(self.details)
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in self.details:
            return RosterTooLargeError("roster: larger than one message may be")
        return None


class Remedy(Enum):
    """What can be done about a call for several lookups that was refused."""

    NONE = "each of them would have been refused, too"
    SMALLER = "request fewer at once"
    ALONE = "request each alone: the caller may not, or can't, request several"


def _seconds(hint: Any) -> float | None:
    # As gRPC reads it: what is no number is a request not to come again.
    if hint is None:
        return None
    try:
        return int(hint) / 1_000
    except ValueError:
        return -1.0


def timed_out(target: str, timeout: float) -> ServiceUnavailableError:
    """Return the error that stands for an answer that did not come in time."""
    return ServiceUnavailableError(f"the service at {target} did not answer in {timeout:g} s")


def closed() -> ServiceError:
    """Return the error of a call after the client was closed."""
    return ServiceError("the client was closed")
