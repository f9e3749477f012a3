"""Explanations: why an address has its answer, for people who must account for a decision."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from geolookup._core import parse
from geolookup.answer.claims import (
    INVALID,
    MAX_CLAIMS,
    VOUCHED,
    Claim,
    Coverage,
    Network,
    PlaceVote,
    Status,
    Voter,
    combine,
    counted,
    networks_of,
)
from geolookup.answer.embedded_ipv4 import embedded_ipv4
from geolookup.answer.intervals import address_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from geolookup.answer.evidence import Evidence, OverrideView, RegistryEntry
    from geolookup.answer.intervals import Family


@dataclass(frozen=True, slots=True)
class SourceView:
    """What one source says of an address.

    Attributes:
        source: its name.
        country: the code; None: the source is silent.
        region: code of the subdivision, or nothing.
        first: first address of the source's range, or of the gap between its
            ranges. Where the source's own more specific ranges cut a range,
            this is the piece that holds the address.
        last: last address of the same.
        coverage: how its statements count; see `claims.Coverage`.
        counted: whether what it says here, or its silence, counted.
    """

    source: str
    country: str | None
    first: str = field(repr=False)
    last: str = field(repr=False)
    coverage: Coverage
    counted: bool
    region: str = ""


class DatedList(Protocol):
    """What of a list of networks an explanation names."""

    @property
    def name(self) -> str:
        """Its name in this dataset."""

    @property
    def date(self) -> str:
        """Of its data, YYYY-MM-DD."""


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A list of networks that an address is in.

    Attributes:
        network_list: its name.
        date: of its data, YYYY-MM-DD.
        kinds: what it says the network is used for.
        vouches: whether it says in which country the users are.
        first: first address of the list's range.
        last: last address of the same.
    """

    network_list: str
    date: str
    kinds: tuple[Network, ...]
    vouches: bool
    first: str = field(repr=False)
    last: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an address has the answer it has. Its repr shows no address.

    Attributes:
        country: as in `Answer`.
        status: as in `Answer`.
        claimed: every code that a source claims, sorted, whatever the status.
        votes: for each of these, the number of origins whose vote it has: with evidence
            the sources' own votes, otherwise those that the claim keeps.
        abstentions: origins with a full source that cast no vote.
        form: how the address was given: "IPv4", "IPv6", "IPv4-mapped", "6to4",
            "Teredo", "NAT64", or "none" for what is no address.
        looked_up: the address that was looked up, in canonical text: for the
            forms that carry an IPv4 address, that one. Empty if there is none.
        first: first address of the interval that it lies in, all of which has
            this answer.
        last: last address of the same.
        sources: what each source says, in their order of precedence; empty
            without evidence.
        override: the override that decided, if one did.
        special_purpose: the registry's row that decided, if one did.
        evidence: whether the dataset carries evidence. Without it the last
            three say nothing, but for an override of a file.
        dataset: id of the dataset.
        region: as in `Answer`.
        subdivision_sources: as in `geolookup.open`; None: the dataset has no subdivisions.
        places: the votes for places, where they say more than *votes*; see `claims.Claim`.
        networks: what the network is used for, as in `Answer`.
        network_lists: the lists that say so; empty without evidence.
    """

    country: str
    status: Status
    claimed: tuple[str, ...]
    votes: tuple[int, ...]
    abstentions: int
    form: str
    looked_up: str = field(repr=False)
    first: str = field(repr=False)
    last: str = field(repr=False)
    sources: tuple[SourceView, ...]
    override: OverrideView | None
    special_purpose: RegistryEntry | None
    evidence: bool
    dataset: str
    region: str = ""
    subdivision_sources: int | None = None
    places: tuple[PlaceVote, ...] = ()
    networks: tuple[Network, ...] = ()
    network_lists: tuple[NetworkView, ...] = ()


def explain(
    address: str | bytes,
    interval_of: Callable[[Family, int], tuple[int, int, int]],
    claims: Sequence[Claim],
    evidence: Evidence | None,
    sources: Sequence[Voter],
    dataset: str,
    subdivision_sources: int | None = None,
    lists: Sequence[DatedList] = (),
    applied: Callable[[Family, int], OverrideView | None] | None = None,
) -> Explanation:
    """Return the explanation of an address.

    Args:
        address: text, or packed bytes in network order.
        interval_of: the interval that holds an address: (first, last, claim number).
        claims: by number.
        evidence: that of the dataset, if it has any.
        sources: what the dataset was built from, in order of precedence.
        dataset: its id.
        subdivision_sources: as in `Explanation`.
        lists: its lists of networks.
        applied: the override of a file that decides for an address, if one does; None: no
            overrides were laid over the dataset.
    """
    packed = parse(address) if isinstance(address, str) else address
    if packed is None or len(packed) not in (4, 16):
        claim = claims[INVALID]
        return Explanation(
            claim.country, claim.status, (), (), 0, "none", "", "", "", (), None, None,
            evidence is not None, dataset, subdivision_sources=subdivision_sources,
        )  # fmt: skip
    family: Family = 4 if len(packed) == 4 else 6
    value = int.from_bytes(packed)
    form = f"IPv{family}"
    first, last, number = interval_of(family, value)
    if number >= MAX_CLAIMS:
        form, value = embedded_ipv4(number, value)
        family = 4
        first, last, number = interval_of(family, value)
    claim = claims[number]
    override: OverrideView | None = None
    special: RegistryEntry | None = None
    views: tuple[SourceView, ...] = ()
    network_views: tuple[NetworkView, ...] = ()
    if claim.status is Status.OVERRIDE and applied is not None:
        override = applied(family, value)
    if evidence is not None:
        if claim.status is Status.OVERRIDE:
            override = override or evidence.override(family, value)
        elif claim.status is Status.SPECIAL_PURPOSE:
            special = evidence.special_purpose(family, value)
        statements = [source.statement(family, value) for source in evidence.sources]
        places = [statement.place for statement in statements]
        views = tuple(
            SourceView(
                source=found.name,
                country=statement.country,
                first=address_text(family, statement.first),
                last=address_text(family, statement.last),
                coverage=source.coverage,
                counted=counts,
                region=statement.region,
            )
            for found, statement, source, counts in zip(
                evidence.sources, statements, sources, _counted(claim, sources, places), strict=True
            )
        )
        network_views = tuple(_network_views(evidence, lists, family, value))
        cast = combine(sources, places)
        if cast.claimed == claim.claimed:
            # A claim may keep fewer votes than were cast; see `compiler`.
            claim = replace(
                claim, votes=cast.votes, abstentions=cast.abstentions, places=cast.places
            )
    return Explanation(
        country=claim.country,
        status=claim.status,
        claimed=claim.claimed,
        votes=tuple(count for _, count in claim.votes),
        abstentions=claim.abstentions,
        form=form,
        looked_up=address_text(family, value),
        first=address_text(family, first),
        last=address_text(family, last),
        sources=views,
        override=override,
        special_purpose=special,
        evidence=evidence is not None,
        dataset=dataset,
        region=claim.region,
        subdivision_sources=subdivision_sources,
        places=claim.places,
        networks=networks_of(claim.networks),
        network_lists=network_views,
    )


def _network_views(
    evidence: Evidence, lists: Sequence[DatedList], family: Family, value: int
) -> Iterator[NetworkView]:
    for one, found in zip(lists, evidence.networks, strict=True):
        bits, first, last = found.numbered(family, value)
        if bits:
            yield NetworkView(
                one.name,
                one.date,
                networks_of(bits),
                bool(bits & VOUCHED),
                address_text(family, first),
                address_text(family, last),
            )


def _counted(
    claim: Claim, sources: Sequence[Voter], places: Sequence[str | None]
) -> tuple[bool, ...]:
    if claim.status in (Status.OVERRIDE, Status.SPECIAL_PURPOSE):
        return (False,) * len(places)
    return counted(sources, places)
