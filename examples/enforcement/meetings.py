"""Meetings, as little of them as enforcement needs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in a meeting.

    Attributes:
        id: the meeting service's own; it never leaves this component.
        address: where they connect from, in text.
        may_host: whether the meeting can be theirs.
    """

    id: str
    address: str = field(repr=False)
    may_host: bool = False


class Meeting:
    """Who is in a meeting, in the order in which they came."""

    def __init__(self, id: str) -> None:  # noqa: A002 - as in Participant
        self.id = id
        self._present: dict[str, Participant] = {}

    @property
    def participants(self) -> list[Participant]:
        """Everybody present."""
        return list(self._present.values())

    @property
    def host(self) -> Participant | None:
        """Whose meeting it is: the first present who may host it."""
        return next((person for person in self._present.values() if person.may_host), None)

    def enter(self, person: Participant) -> None:
        """Let somebody in."""
        self._present[person.id] = person

    def leave(self, person: Participant) -> None:
        """See somebody off; the meeting goes on."""
        self._present.pop(person.id, None)
