"""What handlers know of a call: whether it is active, what to record, how to refuse it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Self


class Code(IntEnum):
    """Why a request is refused: gRPC's status codes."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RequestError(Exception):
    """A request is refused. The client gets the code and the text."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def copy(self) -> Self:
        """Return a copy to raise.

        An exception that is raised twice keeps all frames that it passed, and so the
        requests in their variables.
        """
        return type(self)(self.code, self.text)


INTERNAL_ERROR: Final = RequestError(Code.INTERNAL, "internal error")
"""What a client gets of an unexpected exception."""


class Call:
    """The call that a handler answers. This one is a null object: always active, records nothing.

    Subclasses count what is recorded, and know the client's deadline.
    """

    __slots__ = ()

    def check_active(self) -> None:
        """Return if the client still waits for the answer. Called between pieces of long work.

        Raises:
            RequestError: the call is cancelled, or its deadline has passed.
        """

    def record_lookup(self, status: int, region_set: str, outcome: int, networks: int) -> None:
        """Record the answer to one address.

        Args:
            status: of the address.
            region_set: of the request, or empty.
            outcome: see `claims.encode_outcome`; 0 without a region set.
            networks: the bits of the kinds of its network.
        """

    def record_check(self, status: int) -> None:
        """Record that a check of Envoy's was answered, beside what is recorded of its rules.

        Args:
            status: of its address.
        """

    def record_roster(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
        reasons: tuple[int, ...] | None,
        networks: tuple[int, ...],
    ) -> None:
        """Record the answer to a roster.

        Args:
            statuses: number of addresses by status.
            region_set: of the request, or empty.
            verdicts: number of addresses inside, outside and undetermined; None: without a
                region set.
            reasons: number of undetermined addresses by reason; None as above.
            networks: number of addresses by kind of network.
        """


NULL_CALL: Final = Call()
