"""What all the sources together say of an interval, and what follows for a region set.

A claim is stored once and intervals carry its number. Everything a policy
needs is in the claim, so a verdict is a table over claim numbers that is
computed once for each (dataset, region set, policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol, get_args

NO_COUNTRY = "ZZ"
"""The code of "no answer"; ISO 3166-1 leaves it to users."""

INVALID = 0
"""Claim number of what is not an address; the core writes it for unreadable text."""
UNASSIGNED = 1
"""Claim number of intervals of which no source speaks."""
SPECIAL_PURPOSE = 2
"""Claim number of the IANA special-purpose ranges."""

MAX_CLAIMS = 0xFF00
"""Claims are uint16; the core uses the numbers from here on: see `embedded_ipv4`."""


Coverage = Literal["full", "partial", "advisory", "authoritative"]
COVERAGES: tuple[Coverage, ...] = get_args(Coverage)
"""How a source's statements count.

``full``: each is a vote, and its silence means that nothing is known. ``partial``: it counts
where it speaks. ``advisory``: it never counts, and is shown beside the others.
``authoritative``: where it speaks, it and others of its kind alone count.
"""

Mute = tuple[tuple[str, tuple[str, ...]], ...]
"""Codes that a source cannot know, each with the codes under which it files those places.

``(("XK", ("AL", "RS")),)``: where another source names XK, its silence and its AL or RS do not
count. Without codes, ``(("XK", ()),)``, nothing that it says there counts.
"""


class Voter(Protocol):
    """What of a source decides how its statements count."""

    @property
    def coverage(self) -> Coverage:
        """How its statements count."""

    @property
    def origin(self) -> str:
        """Who says so: all sources of one origin are one vote."""

    @property
    def mute(self) -> Mute:
        """What it cannot know."""


class Status(IntEnum):
    """Why an answer is what it is. The same numbers as in the proto."""

    # Enum's own is Python code, and these are keys on hot paths.
    __hash__ = int.__hash__

    ASSIGNED = 1
    DISPUTED = 2
    UNCONFIRMED = 3
    UNASSIGNED = 4
    SPECIAL_PURPOSE = 5
    OVERRIDE = 6
    INVALID = 7


class Verdict(IntEnum):
    """Where an address is, seen from a region set. The same numbers as in the proto."""

    # Enum's own is Python code, and these are keys on hot paths.
    __hash__ = int.__hash__

    INSIDE = 1
    OUTSIDE = 2
    UNDETERMINED = 3


class Policy(IntEnum):
    """How claims become verdicts. The same numbers as in the proto."""

    # Enum's own is Python code, and these are keys on hot paths.
    __hash__ = int.__hash__

    UNANIMOUS = 1
    MAJORITY = 2
    PRIMARY = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """What all the sources say of an interval.

    Attributes:
        status: why the interval has the country it has.
        country: the code of the first source that speaks, or ``ZZ``.
        votes: every claimed code with the number of origins whose vote it
            has, sorted by code. A code that a source names while another
            source of the same origin cast their common vote has 0.
        abstentions: origins with a full source that cast no vote.
        silent: whether any full source has no answer here.
    """

    status: Status
    country: str = NO_COUNTRY
    votes: tuple[tuple[str, int], ...] = ()
    abstentions: int = 0
    silent: bool = False

    @property
    def claimed(self) -> tuple[str, ...]:
        """Every code that a source claims, sorted."""
        return tuple(code for code, _ in self.votes)

    def verdict(self, codes: Set[str], policy: Policy) -> Verdict:
        """Return where this claim's addresses are, seen from the set *codes*.

        UNANIMOUS answers only when every full source speaks and all claimed
        codes lie on one side; MAJORITY when more than half of the votes do,
        abstentions included; PRIMARY goes by `country` alone. An override
        decides under each policy, and without a country there is no verdict.
        """
        if self.country == NO_COUNTRY:
            return Verdict.UNDETERMINED
        if self.status is Status.OVERRIDE or policy is Policy.PRIMARY:
            return Verdict.INSIDE if self.country in codes else Verdict.OUTSIDE
        if policy is Policy.MAJORITY:
            inside = sum(count for code, count in self.votes if code in codes)
            cast = sum(count for _, count in self.votes)
            half = (cast + self.abstentions) / 2
            if inside > half:
                return Verdict.INSIDE
            return Verdict.OUTSIDE if cast - inside > half else Verdict.UNDETERMINED
        if self.silent:
            return Verdict.UNDETERMINED
        sides = {code in codes for code, _ in self.votes}
        if len(sides) > 1:
            return Verdict.UNDETERMINED
        return Verdict.INSIDE if sides.pop() else Verdict.OUTSIDE


def counted(voters: Sequence[Voter], said: Sequence[str | None]) -> tuple[bool, ...]:
    """Return for each source whether what it says of an address, or its silence, counts.

    Args:
        voters: the sources, in order of precedence.
        said: the code that each names; None: it is silent.
    """
    pairs = tuple(zip(voters, said, strict=True))
    named = {code for voter, code in pairs if code is not None and voter.coverage != "advisory"}
    able = tuple(
        voter.coverage != "advisory" and not _is_mute(voter, code, named) for voter, code in pairs
    )
    if not any(able[at] for at, code in enumerate(said) if code is not None):
        # Each that speaks cannot know what another one says, so none may silence the others.
        able = tuple(voter.coverage != "advisory" for voter in voters)
    deciding = tuple(
        may and code is not None and voter.coverage == "authoritative"
        for may, (voter, code) in zip(able, pairs, strict=True)
    )
    if any(deciding):
        return deciding
    # An authoritative source that is silent has nothing to say there, like a partial one.
    return tuple(
        may and (code is not None or voter.coverage == "full")
        for may, (voter, code) in zip(able, pairs, strict=True)
    )


def _is_mute(voter: Voter, code: str | None, named: Set[str]) -> bool:
    return any(
        unknown in named and code != unknown and (code is None or not filed or code in filed)
        for unknown, filed in voter.mute
    )


def combine(voters: Sequence[Voter], said: Sequence[str | None]) -> Claim:
    """Return the claim of an address about which sources say this.

    Args:
        voters: the sources, in order of precedence.
        said: the code that each names; None: it is silent.
    """
    counting = [
        (voter, code)
        for voter, code, counts in zip(voters, said, counted(voters, said), strict=True)
        if counts
    ]
    spoken = [code for _, code in counting if code is not None]
    if not spoken:
        return FIXED_CLAIMS[UNASSIGNED]
    votes = dict.fromkeys(spoken, 0)
    cast: dict[str, str | None] = {}  # by origin, in the order of precedence
    for voter, code in counting:
        cast[voter.origin] = cast.get(voter.origin) or code
    for vote in cast.values():
        if vote is not None:
            votes[vote] += 1
    silent = len(spoken) < len(counting)
    if len(votes) > 1:
        status = Status.DISPUTED
    else:
        status = Status.UNCONFIRMED if silent else Status.ASSIGNED
    abstentions = sum(vote is None for vote in cast.values())
    return Claim(status, spoken[0], tuple(sorted(votes.items())), abstentions, silent)


FIXED_CLAIMS = (
    Claim(Status.INVALID),
    Claim(Status.UNASSIGNED),
    Claim(Status.SPECIAL_PURPOSE),
)
"""The claims 0 to 2 of every dataset, by number."""


def verdict_column(claims: Iterable[Claim], codes: Set[str], policy: Policy) -> bytes:
    """Return one byte a claim, in order: the claim's `Verdict`."""
    return bytes(claim.verdict(codes, policy) for claim in claims)
