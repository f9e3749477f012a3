"""A request as handlers see it: the call it came by, and how it is refused."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Self


class Code(IntEnum):
    """Why a request was refused. The numbers of gRPC's status codes."""

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
    """A request that is refused, with what the client may be told."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def anew(self) -> Self:
        """Return another one that says the same.

        One that is raised more than once keeps every frame that it ever passed, and
        with them the requests that were in their hands.
        """
        return type(self)(self.code, self.text)


INTERNAL_ERROR: Final = RequestError(Code.INTERNAL, "internal error")
"""All that a client learns of an exception that nobody expected."""


class Call:
    """The call that a handler answers. This one is nobody's: it waits for ever, and forgets."""

    __slots__ = ()

    def go_on(self) -> None:
        """Return if somebody still waits for the answer; asked between the pieces of big work.

        Raises:
            RequestError: nobody does.
        """

    def looked_up(self, status: int, region_set: str, verdict: int) -> None:
        """Note the answer to one address.

        Args:
            status: why.
            region_set: what was asked for, or empty.
            verdict: the answer to it, or 0.
        """

    def classified(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
    ) -> None:
        """Note the answer to a roster.

        Args:
            statuses: how many addresses have each status, by its number.
            region_set: what was asked for, or empty.
            verdicts: how many are inside, outside and undetermined; None: nothing was asked.
        """


NOBODY: Final = Call()
