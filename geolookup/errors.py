"""Every error geolookup raises on purpose.

Messages say what broke and where (file, line, field, position), and never
repeat an address: what a caller sent must not end up in a log through the
text of an exception.
"""

from __future__ import annotations

__all__ = [
    "DatasetClosedError",
    "DatasetError",
    "GeoLookupError",
    "MissingExtraError",
    "NoRosterError",
    "RegionSetError",
    "RosterError",
    "RosterTooLargeError",
    "ServiceError",
    "ServiceUnavailableError",
    "SourceError",
]


class GeoLookupError(Exception):
    """Base of all errors raised by geolookup."""


class MissingExtraError(GeoLookupError):
    """What was asked for needs a package that is not installed; the text says how to get it.

    Args:
        what: what needs it, such as "pictures".
        package: the package.
        extra: the extra of geolookup that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what}: needs {package}, which is not installed: pip install 'geolookup[{extra}]'"
        )


class DatasetError(GeoLookupError):
    """A dataset file is damaged, unreadable or of an unknown format."""


class DatasetClosedError(GeoLookupError):
    """The dataset was closed before the call."""


class RegionSetError(GeoLookupError, ValueError):
    """A region set's name, expression or definition makes no sense."""


class RosterError(GeoLookupError, ValueError):
    """A roster as a whole makes no sense, such as a packed buffer of 7 bytes."""


class NoRosterError(RosterError):
    """The input is no list of addresses: too little of it can be read as one."""


class RosterTooLargeError(RosterError):
    """A roster has more addresses than the limit allows."""


class SourceError(GeoLookupError, ValueError):
    """A source file, an override or a compiler input can't be used.

    The text begins with the place: ``file:line:column: what``.
    """


class ServiceError(GeoLookupError):
    """A geolookup service answered a call with an error.

    Attributes:
        code: gRPC's status code by name, such as "RESOURCE_EXHAUSTED"; None: the call
            did not come to an end with a status.
        retry_after: seconds after which the service wants to be asked again; None: it
            gave no hint.
        retryable: whether the same call may be answered later. The clients have made it again
            as often as they may.
    """

    def __init__(
        self,
        *args: object,
        code: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(*args)
        self.code = code
        self.retry_after = retry_after
        self.retryable = retryable


class ServiceUnavailableError(ServiceError):
    """A geolookup service could not be reached, or not in time, or is overloaded."""
