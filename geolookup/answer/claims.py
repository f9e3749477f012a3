"""What all the sources together say of an interval, and what follows for a region set.

A claim is stored once and intervals carry its number. Everything a policy
needs is in the claim, so a verdict is a table over claim numbers that is
computed once for each (dataset, region set, policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NoReturn, Protocol, Self, get_args

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


class _Named(StrEnum):
    """Members that compare, print and are written as JSON by their names.

    Each has the number that stands for it in columns and in the proto: `number`,
    also given by `int()`.
    """

    number: int

    def __new__(cls, name: str, number: int) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.number = number
        return member

    # Enum's own is Python code, and these are keys on hot paths.
    __hash__ = str.__hash__

    def __index__(self) -> int:
        return self.number

    def __bool__(self) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} is neither true nor false; compare it: {kind.lower()} is {kind}.{self.name}"
        )

    @classmethod
    def numbered(cls, number: int) -> Self:
        """Return the member with a number.

        Raises:
            ValueError: there is none.
        """
        for member in cls:
            if member.number == number:
                return member
        raise ValueError(f"{cls.__name__}: no member has the number {number}")


class Status(_Named):
    """Why an answer is what it is. The same numbers as in the proto."""

    ASSIGNED = "ASSIGNED", 1
    DISPUTED = "DISPUTED", 2
    UNCONFIRMED = "UNCONFIRMED", 3
    UNASSIGNED = "UNASSIGNED", 4
    SPECIAL_PURPOSE = "SPECIAL_PURPOSE", 5
    OVERRIDE = "OVERRIDE", 6
    INVALID = "INVALID", 7


class Verdict(_Named):
    """Where an address is, seen from a region set. The same numbers as in the proto."""

    INSIDE = "INSIDE", 1
    OUTSIDE = "OUTSIDE", 2
    UNDETERMINED = "UNDETERMINED", 3


class Reason(_Named):
    """Why there is no verdict. The same numbers as in the proto.

    Where several apply, the answer has the first one in this order: INVALID,
    SPECIAL_PURPOSE, STALE, NO_COUNTRY, UNASSIGNED, COVERED, DISPUTED, UNCONFIRMED,
    SUBDIVISION_UNKNOWN.
    """

    DECIDED = "DECIDED", 0
    """There is a verdict: INSIDE or OUTSIDE."""
    DISPUTED = "DISPUTED", 1
    """The sources disagree about the region set."""
    UNCONFIRMED = "UNCONFIRMED", 2
    """A full source is silent; those that speak agree about the region set."""
    UNASSIGNED = "UNASSIGNED", 3
    """No source speaks."""
    SPECIAL_PURPOSE = "SPECIAL_PURPOSE", 4
    """In the IANA special-purpose registries."""
    INVALID = "INVALID", 5
    """Not an address."""
    COVERED = "COVERED", 6
    """The network hides where its users are."""
    SUBDIVISION_UNKNOWN = "SUBDIVISION_UNKNOWN", 7
    """The country is known, and the part of it is not."""
    NO_COUNTRY = "NO_COUNTRY", 8
    """An operator's override to ``ZZ``."""
    STALE = "STALE", 9
    """The dataset is older than the operator allows."""


class Policy(_Named):
    """How claims become verdicts. The same numbers as in the proto."""

    UNANIMOUS = "UNANIMOUS", 1
    MAJORITY = "MAJORITY", 2
    PRIMARY = "PRIMARY", 3


def read_policy(policy: object) -> Policy:
    """Return a policy, which may be given by its name in any letter case.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"policy: expected Policy or its name, not {type(policy).__name__}")
    # Not by an exception, which would keep what the caller sent in its context.
    known = Policy.__members__.get(policy.upper())
    if known is None:
        raise ValueError(f"policy: unknown; expected one of {', '.join(Policy.__members__)}")
    return known


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
        """Return where this claim's addresses are, seen from the set *codes*; see `judge`."""
        return self.judge(codes, policy)[0]

    def judge(self, codes: Set[str], policy: Policy) -> tuple[Verdict, Reason]:
        """Return where this claim's addresses are, seen from the set *codes*, and if not, why.

        UNANIMOUS answers only when every full source speaks and all claimed
        codes lie on one side; MAJORITY when more than half of the votes do,
        abstentions included, and wherever UNANIMOUS does; PRIMARY goes by `country`
        alone. An override decides under each policy, and without a country there is
        no verdict.
        """
        if self.country == NO_COUNTRY:
            return Verdict.UNDETERMINED, _WITHOUT_COUNTRY[self.status]
        if self.status is Status.OVERRIDE or policy is Policy.PRIMARY:
            return _decided(self.country in codes)
        if policy is Policy.MAJORITY:
            inside = sum(count for code, count in self.votes if code in codes)
            cast = sum(count for _, count in self.votes)
            half = (cast + self.abstentions) / 2
            if inside > half or cast - inside > half:
                return _decided(inside > half)
            # Votes that agree are a majority, but the compiler may keep fewer than were cast.
        sides = {code in codes for code, _ in self.votes}
        if len(sides) > 1:
            return Verdict.UNDETERMINED, Reason.DISPUTED
        if self.silent:
            return Verdict.UNDETERMINED, Reason.UNCONFIRMED
        return _decided(sides.pop())


_WITHOUT_COUNTRY = {
    Status.UNASSIGNED: Reason.UNASSIGNED,
    Status.SPECIAL_PURPOSE: Reason.SPECIAL_PURPOSE,
    Status.OVERRIDE: Reason.NO_COUNTRY,
    Status.INVALID: Reason.INVALID,
}


def _decided(inside: bool) -> tuple[Verdict, Reason]:
    return Verdict.INSIDE if inside else Verdict.OUTSIDE, Reason.DECIDED


def counted(voters: Sequence[Voter], codes: Sequence[str | None]) -> tuple[bool, ...]:
    """Return for each source whether what it says of an address, or its silence, counts.

    Args:
        voters: the sources, in order of precedence.
        codes: the code that each names; None: it is silent.
    """
    pairs = tuple(zip(voters, codes, strict=True))
    named = {code for voter, code in pairs if code is not None and voter.coverage != "advisory"}
    able = tuple(
        voter.coverage != "advisory" and not _is_mute(voter, code, named) for voter, code in pairs
    )
    if not any(able[at] for at, code in enumerate(codes) if code is not None):
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


def combine(voters: Sequence[Voter], codes: Sequence[str | None]) -> Claim:
    """Return the claim of an address about which sources say this.

    Args:
        voters: the sources, in order of precedence.
        codes: the code that each names; None: it is silent.
    """
    counting = [
        (voter, code)
        for voter, code, counts in zip(voters, codes, counted(voters, codes), strict=True)
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


def encode_outcome(verdict: Verdict, reason: Reason) -> int:
    """Return the byte of a verdict and its reason: the verdict in the two lowest bits."""
    return verdict.number | reason.number << 2


def outcome_column(claims: Iterable[Claim], codes: Set[str], policy: Policy) -> bytes:
    """Return one byte a claim, in order: the `encode_outcome` of the claim."""
    return bytes(encode_outcome(*claim.judge(codes, policy)) for claim in claims)


def stale_outcomes(statuses: bytes) -> bytes:
    """Return one byte a claim, seen from any region set while the dataset is too old.

    Args:
        statuses: one byte a claim: the number of its `Status`.
    """
    return statuses.translate(_STALE_OUTCOMES)


_STALE_OUTCOMES = bytes(
    encode_outcome(
        Verdict.UNDETERMINED,
        {
            Status.INVALID.number: Reason.INVALID,
            Status.SPECIAL_PURPOSE.number: Reason.SPECIAL_PURPOSE,
        }.get(number, Reason.STALE),
    )
    for number in range(256)
)

VERDICT_OF: Final = bytes(byte & 3 for byte in range(256))
"""For `bytes.translate`: the number of the verdict in an outcome."""
REASON_OF: Final = bytes(byte >> 2 for byte in range(256))
"""For `bytes.translate`: the number of the reason in an outcome."""
