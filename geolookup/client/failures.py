"""What a failed call becomes: one of geolookup's own errors, without gRPC's texts.

gRPC's texts may hold anything, such as what a proxy on the way had to say. Only
those are passed on that have the form of the service's own, "field: what".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import grpc

from geolookup.client.target import ignored_proxy
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
_OVER_LIMIT = "over the limit"
_HINT = "grpc-retry-pushback-ms"

_REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED})
"""Codes of requests that are not answered as they are. The second was that of a roster over the
limit until 0.1."""

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
        if self.code in _NOT_ANSWERED:
            return not unreachable(self.details).is_lasting
        return self.is_shed

    def more_telling(self, other: Failure | None) -> Failure:
        """Return this one or *other*, an earlier attempt's, that says more of the reason.

        Of several addresses of a name, gRPC's text has the error of one: behind "localhost" the
        service may listen on 127.0.0.1 and not on ::1.
        """
        if other is None or other.code is not self.code or unreachable(self.details) != REFUSED:
            return self
        return other

    def error(
        self,
        target: str,
        timeout: float,
        *,
        tls: bool = False,
        field: str | None = None,
        listener: str = "service",
    ) -> GeoLookupError:
        """Return the error that stands for it.

        Args:
            target: that of the call.
            timeout: its time limit, in seconds.
            tls: whether it was made over TLS.
            field: the argument that the caller gave its addresses in.
            listener: what should be there.
        """
        who = f"the {listener} at {target}"
        text, kind = f"{who} answered {self.code.name}", ServiceError
        if self.is_shed:
            kind = ServiceUnavailableError
            text = f"{who} is overloaded"
        elif self.code is grpc.StatusCode.UNAVAILABLE:
            reason = unreachable(self.details, tls=tls).text
            kind = ServiceUnavailableError
            text = f"{who} can't be reached{': ' if reason else ''}{reason}"
            if reason and (proxy := ignored_proxy()):
                text += f" (the proxy in {proxy} is not used)"
        elif self.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            kind = ServiceUnavailableError
            text = f"{who} did not answer in {timeout:g} s"
        elif (refusal := self._refusal(field)) is not None:
            return refusal
        return kind(
            text,
            code=self.code.name,
            retry_after=None if self.hint is None or self.hint < 0 else self.hint,
            retryable=self.is_retryable or self.code is grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    @property
    def remedy(self) -> Remedy:
        """What to do about it if it was a call for several lookups."""
        if self.code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}:
            return Remedy.ALONE
        if isinstance(self._refusal(), RosterTooLargeError):
            return Remedy.SMALLER
        return Remedy.NONE  # an overload among them, which more calls would make worse

    def _refusal(self, field: str | None = None) -> GeoLookupError | None:
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in self.details:
            return RosterTooLargeError(f"{field or 'roster'}: larger than one message may be")
        own = _OWN_TEXT.fullmatch(self.details)
        if own is None or self.code not in _REFUSED:
            return None
        roster = own["roster"] or ""
        if own["field"] == "region_set":
            # As `RegionSets.resolve` has it.
            subject = "" if own["what"].startswith("unknown region set") else "region set: "
            return RegionSetError(f"{roster}{subject}{own['what']}")
        # Addresses travel in another form than the caller gave them in.
        text = f"{roster or (field or own['field']) + ': '}{own['what']}"
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED or _OVER_LIMIT in own["what"]:
            return RosterTooLargeError(text)
        return RosterError(text)


class Reason(NamedTuple):
    """Why a service can't be reached.

    Attributes:
        text: for people.
        is_lasting: whether the next attempt would end in the same way.
    """

    text: str
    is_lasting: bool = False


UNKNOWN = Reason("")
REFUSED = Reason("nothing listens there (connection refused)")
CLOSED = Reason("it closes the connection; it may expect TLS")
CLOSED_OVER_TLS = Reason(
    "it closes the connection; it may ask for a certificate, or not accept this one"
)

_REASONS = [
    (re.compile(pattern), Reason(text, is_lasting))
    for pattern, text, is_lasting in (
        ("Connection refused", REFUSED.text, False),
        ("No such file or directory", "there is no such socket", False),
        ("Permission denied", "the socket may not be opened (permission denied)", True),
        ("[Nn]etwork is unreachable|No route to host", "no network leads there", False),
        ("Too many open files", "too many files are open in this process", False),
        ("can't start new thread", "this process can start no more threads", False),
        ("name not found|Misformatted|no data", "there is no such host name", True),
        ("errors? resolving|DNS resolution|lookup failed", "its name is not resolved", False),
        (
            "Hostname Verification Check failed|not valid for",
            "TLS handshake failed: its certificate is for another name",
            True,
        ),
        ("WRONG_VERSION_NUMBER", "TLS handshake failed: it does not use TLS", True),
        (
            "Failed to create security handshaker",
            "the authorities, certificate or key for TLS can't be used",
            True,
        ),
        ("missing selected ALPN", "it uses TLS, but does not speak gRPC", True),
        ("[Hh]andshake", "TLS handshake failed", False),
        (
            "http1.x server",
            "it does not speak gRPC but HTTP/1, as web servers and HTTP proxies do",
            False,
        ),
        ("Failed parsing HTTP/2|SETTINGS", "it does not speak gRPC", False),
    )
]
_UNVERIFIED = re.compile("CERTIFICATE_VERIFY_FAILED(?:: (?P<why>[A-Za-z '()-]{1,80}))?")
"""What is wrong with a certificate: words of OpenSSL or BoringSSL, each from a fixed list."""
_UNKNOWN_AUTHORITY = re.compile("issuer certificate|self.signed|first certificate")
_CLOSED = re.compile(
    "(failed to connect|backends failing).*(Socket closed|Connection reset|End of TCP|Broken pipe)"
)


def unreachable(details: str, *, tls: bool = False) -> Reason:
    """Return why a service can't be reached.

    Args:
        details: gRPC's text, whose words are its own business. tests/client/test_reachability.py
            meets each of these with a real listener.
        tls: whether the connection was to be one over TLS.
    """
    if unverified := _UNVERIFIED.search(details):
        return _unverified((unverified["why"] or "").strip())
    for pattern, reason in _REASONS:
        if pattern.search(details):
            return reason
    if _CLOSED.search(details):
        return CLOSED_OVER_TLS if tls else CLOSED
    return UNKNOWN


def _unverified(why: str) -> Reason:
    if why == "certificate has expired":
        text = "has expired"
    elif why == "certificate is not yet valid":
        text = "is not valid yet"
    elif not why or _UNKNOWN_AUTHORITY.search(why):
        text = "is not from a trusted authority"
    else:
        text = f"is not accepted ({why})"
    return Reason(f"TLS handshake failed: its certificate {text}", is_lasting=True)


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


EXPIRED = Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "")
"""An answer that did not come in time."""


def closed() -> ServiceError:
    """Return the error of a call after the client was closed."""
    return ServiceError("the client was closed")
