"""What all the sources together say of an interval, and what follows for a region set.

A claim is stored once and intervals carry its number. Everything a policy
needs is in the claim, so a verdict is a table over claim numbers that is
computed once for each (dataset, region set, policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, NoReturn, Protocol, Self, get_args

from geolookup.answer.subdivisions import subdivisions

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

Depth = Literal["country", "subdivision"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
"""How far down a source names places: countries alone, or parts of them, too."""

Mute = tuple[tuple[str, tuple[str, ...]], ...]
"""Codes that a source cannot know, each with the codes under which it files those places.

``(("XK", ("AL", "RS")),)``: where another source names XK, its silence and its AL or RS do not
count. Without codes, ``(("XK", ()),)``, nothing that it says there counts.
"""


SUBDIVISION_SOURCES: Final = 2
"""Origins that must tell the side where it depends on subdivisions, if nobody says otherwise:
states of one free source are wrong for 16 % of its addresses, those of two that agree for 0.8 %."""


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

    @property
    def depth(self) -> Depth:
        """Whether it names subdivisions, too."""


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


class Network(_Named):
    """What a network is used for. The same numbers as in the proto."""

    TOR = "TOR", 1
    """Exits of the Tor network."""
    VPN = "VPN", 2
    PROXY = "PROXY", 3
    RELAY = "RELAY", 4
    """Many people's traffic leaves there: iCloud Private Relay, WARP."""
    HOSTING = "HOSTING", 5
    """Data centres and clouds."""
    SATELLITE = "SATELLITE", 6
    ANYCAST = "ANYCAST", 7
    """Addresses that are announced from several places."""
    MOBILE = "MOBILE", 8

    @property
    def bit(self) -> int:
        """What stands for it in a claim's `networks`."""
        return 1 << self.number - 1


VOUCHED: Final = 1 << 15
"""Bit of a claim's `networks`: who operates the relay says in which country its users are."""

COVERING: Final = (Network.TOR, Network.VPN, Network.PROXY, Network.RELAY)
"""The kinds that hide where the users of a network are, unless an operator chooses others."""


def network_bits(kinds: Iterable[Network]) -> int:
    """Return the bits of several kinds."""
    bits = 0
    for kind in kinds:
        bits |= kind.bit
    return bits


def networks_of(bits: int) -> tuple[Network, ...]:
    """Return the kinds whose bits are set, in their order."""
    return tuple(kind for kind in Network if bits & kind.bit)


def read_kinds(kinds: Iterable[Network | str]) -> tuple[Network, ...]:
    """Return kinds of networks in their order; they may be given by name, in any letter case.

    Raises:
        TypeError, ValueError: they are none.
    """
    if isinstance(kinds, (str, bytes)) or not isinstance(kinds, Iterable):
        raise TypeError(f"expected kinds of networks, not {type(kinds).__name__}")
    found = set()
    for kind in kinds:
        if not isinstance(kind, (Network, str)):
            raise TypeError(f"expected Network or its name, not {type(kind).__name__}")
        known = Network.__members__.get(kind.upper()) if isinstance(kind, str) else kind
        if known is None:
            raise ValueError(f"expected of {', '.join(Network.__members__)}")
        found.add(known)
    return tuple(kind for kind in Network if kind in found)


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


def ignores_networks(networks: object) -> bool:
    """Return whether covering networks are to be ignored: "IGNORE", in any letter case, or None.

    Raises:
        TypeError, ValueError: another value.
    """
    if networks is None:
        return False
    if not isinstance(networks, str):
        raise TypeError(f"networks: expected str, not {type(networks).__name__}")
    if networks.upper() != "IGNORE":
        raise ValueError('networks: unknown; expected "IGNORE"')
    return True


@dataclass(frozen=True, slots=True)
class PlaceVote:
    """One of the places that the sources which count name of an interval.

    Attributes:
        place: code of a country or of a subdivision.
        count: number of origins whose vote it has.
        full: whether a full or an authoritative source names it.
        is_deep: whether it comes from sources of depth ``subdivision``: such a one that names
            a country alone does not know the part, and is silent about it.
        authoritative: whether an authoritative source names it.
        is_cut: whether the sources name subdivisions of this country that the dataset does
            not hold, because it would have too many claims.
    """

    place: str
    count: int
    full: bool = True
    is_deep: bool = False
    authoritative: bool = False
    is_cut: bool = False


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
        places: what they name with subdivisions, in the order of precedence. Empty where no
            source of the dataset has the depth ``subdivision``, or where *votes* has all.
        networks: what the network is used for: a bit for each `Network`, and `VOUCHED`.
    """

    status: Status
    country: str = NO_COUNTRY
    votes: tuple[tuple[str, int], ...] = ()
    abstentions: int = 0
    silent: bool = False
    places: tuple[PlaceVote, ...] = ()
    networks: int = 0

    @property
    def claimed(self) -> tuple[str, ...]:
        """Every code that a source claims, sorted."""
        return tuple(code for code, _ in self.votes)

    @property
    def region(self) -> str:
        """The subdivision that the sources name, or nothing.

        Where they name several, the lowest one in which all of these lie; so nothing where
        they disagree, about the country or about the part of it. Nothing where a list vouches
        for the country of a relay's users either: what sources name is where the relay is.
        """
        if self.networks & VOUCHED and self.status is not Status.OVERRIDE:
            return ""
        places = {vote.place for vote in self.places if "-" in vote.place}
        if not places or self.status is Status.DISPUTED:
            return ""
        lowest = next(iter(places)) if len(places) == 1 else subdivisions().lowest(places)
        return lowest if "-" in lowest else ""

    def confirmed_region(self, subdivision_sources: int) -> str:
        """Return `region` if so many independent origins name it, or places in it; else nothing.

        An override or an authoritative source suffices alone.
        """
        region = self.region
        naming = [
            vote
            for vote in self.places
            if region and "-" in vote.place and region in subdivisions().path(vote.place)
        ]
        enough = (
            self.status is Status.OVERRIDE
            or any(vote.authoritative for vote in naming)
            or sum(vote.count for vote in naming) >= subdivision_sources
        )
        return region if enough else ""

    def covered(self, covering: int) -> bool:
        """Return whether the network hides where its users are.

        Args:
            covering: the bits of the kinds that do.
        """
        return bool(self.networks & covering) and not self.networks & VOUCHED

    def verdict(
        self,
        codes: Set[str],
        policy: Policy,
        partly: Set[str] = frozenset(),
        subdivision_sources: int = SUBDIVISION_SOURCES,
    ) -> Verdict:
        """Return where this claim's addresses are, seen from the set *codes*; see `judge`."""
        return self.judge(codes, policy, partly, subdivision_sources)[0]

    def judge(
        self,
        codes: Set[str],
        policy: Policy,
        partly: Set[str] = frozenset(),
        subdivision_sources: int = SUBDIVISION_SOURCES,
        covering: int = 0,
    ) -> tuple[Verdict, Reason]:
        """Return where this claim's addresses are, seen from the set *codes*, and if not, why.

        UNANIMOUS answers only when every full source speaks and all claimed
        codes lie on one side; MAJORITY when more than half of the votes do,
        abstentions included, and wherever UNANIMOUS does; PRIMARY goes by `country`
        alone. An override decides under each policy, and without a country there is
        no verdict. Neither is there, under each policy, for a network of a *covering* kind,
        unless a list vouches for the country of its users: then UNANIMOUS decides, and the
        sources' subdivisions do not count, for those are of the relay and not of its users.

        A source that names a place in *partly* can't tell the side: under UNANIMOUS it must
        be one of countries, and another full source that can tell must name the same country;
        under the other policies it abstains.

        Args:
            codes: countries and subdivisions; see `region_sets.RegionSet`.
            policy: how claims become verdicts.
            partly: countries and subdivisions of which a part is in *codes*.
            subdivision_sources: independent origins that must tell the side under
                UNANIMOUS where it depends on subdivisions.
            covering: the bits of the kinds of networks that hide where their users are.
        """
        if self.country == NO_COUNTRY:
            return Verdict.UNDETERMINED, _WITHOUT_COUNTRY[self.status]
        claim = self
        if self.networks & covering and self.status is not Status.OVERRIDE:
            if self.covered(covering):
                return Verdict.UNDETERMINED, Reason.COVERED
            # Its users' country was vouched for, and counts where all sources agree with it.
            policy = Policy.UNANIMOUS
            claim = replace(self, places=())
        if partly:
            return _Sides(claim, codes, partly).judge(policy, subdivision_sources)
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


class _Sides:
    """The places that a claim holds, seen from a region set that holds parts of countries."""

    def __init__(self, claim: Claim, codes: Set[str], partly: Set[str]) -> None:
        self._claim = claim
        self._codes = codes
        self._partly = partly
        self._votes = claim.places or tuple(PlaceVote(code, count) for code, count in claim.votes)
        sides = [(vote, self._side(vote.place)) for vote in self._votes]
        self._telling = [(vote, inside) for vote, inside in sides if inside is not None]
        self._open = [vote for vote, inside in sides if inside is None]
        self._sides = sides

    def _side(self, place: str) -> bool | None:
        """Return whether a place is inside; None: a part of it is."""
        if place in self._codes or place[:2] in self._codes:
            return True
        return None if place in self._partly else False

    def judge(self, policy: Policy, subdivision_sources: int) -> tuple[Verdict, Reason]:
        if self._claim.status is Status.OVERRIDE:
            places = [vote.place for vote in self._claim.places] or [self._claim.country]
            inside = self._side(places[0])
            return _SUBDIVISION_UNKNOWN if inside is None else _decided(inside)
        if policy is Policy.PRIMARY:
            return self._primary()
        if policy is Policy.MAJORITY:
            within = sum(vote.count for vote, inside in self._telling if inside)
            outside = sum(vote.count for vote, inside in self._telling if not inside)
            half = (sum(vote.count for vote in self._votes) + self._claim.abstentions) / 2
            if within > half or outside > half:
                return _decided(within > half)
        return self._unanimous(subdivision_sources)

    def _primary(self) -> tuple[Verdict, Reason]:
        # A source that is open is passed over, but for one whose subdivision was cut.
        asked = [inside for vote, inside in self._sides if vote.is_cut or inside is not None]
        sides = [inside for inside in asked if inside is not None]
        if self._claim.places and asked[:1] == [None]:
            return _SUBDIVISION_UNKNOWN
        if not self._claim.places:
            # The votes are not in the order of the sources, but the country is the first one's.
            first = self._side(self._claim.country)
            sides = sides if first is None else [first]
            if len(set(sides)) > 1:
                return Verdict.UNDETERMINED, Reason.DISPUTED
        return _decided(sides[0]) if sides else _SUBDIVISION_UNKNOWN

    def _unanimous(self, subdivision_sources: int) -> tuple[Verdict, Reason]:
        sides = {inside for _, inside in self._telling}
        unsettled = not sides or not all(map(self._is_settled, self._open))
        several = len({vote.place[:2] for vote in self._votes}) > 1
        if len(sides) > 1 or (unsettled and several):
            return Verdict.UNDETERMINED, Reason.DISPUTED
        if self._claim.silent:
            return Verdict.UNDETERMINED, Reason.UNCONFIRMED
        if unsettled or not self._suffices(subdivision_sources):
            return _SUBDIVISION_UNKNOWN
        return _decided(sides.pop())

    def _is_settled(self, vote: PlaceVote) -> bool:
        """Return whether a vote that can't tell the side leaves it to those that can."""
        if vote.is_deep:
            # It is silent, and a partial source's silence does not count.
            return not vote.full and not vote.is_cut
        return any(other.full and other.place[:2] == vote.place[:2] for other, _ in self._telling)

    def _suffices(self, subdivision_sources: int) -> bool:
        """Return whether enough origins tell the side, if it depends on subdivisions."""
        telling = [vote for vote, _ in self._telling]
        return (
            not any(vote.place[:2] in self._partly for vote in telling)
            or any(vote.authoritative for vote in telling)
            or sum(vote.count for vote in telling) >= subdivision_sources
        )


_SUBDIVISION_UNKNOWN = Verdict.UNDETERMINED, Reason.SUBDIVISION_UNKNOWN

_WITHOUT_COUNTRY = {
    Status.UNASSIGNED: Reason.UNASSIGNED,
    Status.SPECIAL_PURPOSE: Reason.SPECIAL_PURPOSE,
    Status.OVERRIDE: Reason.NO_COUNTRY,
    Status.INVALID: Reason.INVALID,
}


def _decided(inside: bool) -> tuple[Verdict, Reason]:
    return Verdict.INSIDE if inside else Verdict.OUTSIDE, Reason.DECIDED


def counted(voters: Sequence[Voter], places: Sequence[str | None]) -> tuple[bool, ...]:
    """Return for each source whether what it says of an address, or its silence, counts.

    Args:
        voters: the sources, in order of precedence.
        places: the code of the country or subdivision that each names; None: it is silent.
    """
    codes = [place and place[:2] for place in places]
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


def combine(voters: Sequence[Voter], places: Sequence[str | None]) -> Claim:
    """Return the claim of an address about which sources say this.

    Args:
        voters: the sources, in order of precedence.
        places: the code of the country or subdivision that each names; None: it is silent.
    """
    naming = [
        (voter, place)
        for voter, place, counts in zip(voters, places, counted(voters, places), strict=True)
        if counts
    ]
    counting = [(voter, place and place[:2]) for voter, place in naming]
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
    return Claim(
        status,
        spoken[0],
        tuple(sorted(votes.items())),
        abstentions,
        silent,
        _place_votes(voters, [(voter, place) for voter, place in naming if place is not None]),
    )


def _place_votes(
    voters: Sequence[Voter], naming: Sequence[tuple[Voter, str]]
) -> tuple[PlaceVote, ...]:
    """Return the votes for places of the sources that count and speak, in their order."""
    if not any(voter.depth == "subdivision" for voter in voters):
        return ()
    if len({place for _, place in naming}) == 1 and all(
        voter.depth == "country" for voter, _ in naming
    ):
        return ()  # the claim's votes say it all
    cast: dict[str, tuple[str, bool]] = {}
    for voter, place in naming:
        key = place, voter.depth == "subdivision"
        before = cast.setdefault(voter.origin, key)
        if "-" in place and before[0] == place[:2]:
            cast[voter.origin] = key  # the same said more exactly
    return tuple(
        PlaceVote(
            place,
            count=sum(vote == (place, is_deep) for vote in cast.values()),
            full=bool(kinds & {"full", "authoritative"}),
            is_deep=is_deep,
            authoritative="authoritative" in kinds,
        )
        for (place, is_deep), kinds in _by_place(naming).items()
    )


def _by_place(naming: Sequence[tuple[Voter, str]]) -> dict[tuple[str, bool], set[Coverage]]:
    """Return by place and depth how the sources that name it count."""
    kinds: dict[tuple[str, bool], set[Coverage]] = {}
    for voter, place in naming:
        kinds.setdefault((place, voter.depth == "subdivision"), set()).add(voter.coverage)
    return kinds


FIXED_CLAIMS = (
    Claim(Status.INVALID),
    Claim(Status.UNASSIGNED),
    Claim(Status.SPECIAL_PURPOSE),
)
"""The claims 0 to 2 of every dataset, by number."""


def overriding(code: str) -> Claim:
    """Return the claim of an override to the code of a country or a subdivision."""
    places = (PlaceVote(code, 1, is_deep=True, authoritative=True),) if "-" in code else ()
    return Claim(Status.OVERRIDE, code[:2], places=places)


def encode_outcome(verdict: Verdict, reason: Reason) -> int:
    """Return the byte of a verdict and its reason: the verdict in the two lowest bits."""
    return verdict.number | reason.number << 2


def outcome_column(
    claims: Iterable[Claim],
    codes: Set[str],
    policy: Policy,
    partly: Set[str] = frozenset(),
    subdivision_sources: int = SUBDIVISION_SOURCES,
    covering: int = 0,
) -> bytes:
    """Return one byte a claim, in order: the `encode_outcome` of the claim; see `Claim.judge`."""
    return bytes(
        encode_outcome(*claim.judge(codes, policy, partly, subdivision_sources, covering))
        for claim in claims
    )


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
