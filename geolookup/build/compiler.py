"""The compiler: sources, registries and an operator's overrides become intervals with claims.

Overlaps, precedence and agreement are resolved here, once, so that a lookup only has to
find an interval. Later layers win over earlier ones:
sources, then special-purpose ranges, then overrides, then the IPv6 forms that
carry an IPv4 address.
"""

from __future__ import annotations

import ipaddress
import operator
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from functools import reduce
from typing import Any, Final

from geolookup._sweep import Ranges, merge_ipv4, merge_ipv6, renumber
from geolookup.answer.age import AgeLimit
from geolookup.answer.claims import (
    COVERING,
    FIXED_CLAIMS,
    MAX_CLAIMS,
    SPECIAL_PURPOSE,
    UNASSIGNED,
    VOUCHED,
    Claim,
    Network,
    PlaceVote,
    Status,
    combine,
    network_bits,
    overriding,
)
from geolookup.answer.embedded_ipv4 import EMBEDDED, nat64_prefix
from geolookup.answer.evidence import SECTION as EVIDENCE
from geolookup.answer.file_format import DatasetContent
from geolookup.answer.overrides import Override
from geolookup.build import evidence_section, readers
from geolookup.build.manifest import Manifest
from geolookup.build.readers import (
    FIRST_SUBDIVISION,
    SourceRanges,
    code_number,
    code_text,
    network_list,
)
from geolookup.build.readers.decompression import size
from geolookup.build.sources import NetworkList, Source
from geolookup.build.special_purpose import DATE, special_purpose_prefixes
from geolookup.errors import SourceError

MAX_FINDINGS = 100
"""Findings that are listed for each source; of more, the number is given."""

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, name of the source being read)."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A source or the overrides as disjoint, ascending ranges.

    Attributes:
        ranges: the flattened ranges, each with the location of the range that decides it.
        rows: number of ranges before flattening.
        outside: how many of them lie, at least in part, where the source may not speak.
        lines_left_out: how many lines of its files could not be read.
    """

    ranges: SourceRanges
    rows: int
    outside: int = 0
    lines_left_out: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class CompiledDataset(DatasetContent):
    """A compiled dataset, not yet a file.

    Attributes:
        sources: what each source says, in the order of the sources.
        overrides: the overrides that apply; a range's line is its override's
            position, from 1.
        findings: what an operator should know about the input: lines left out,
            contradictions within a source, expired overrides.
        optional: sections of the dataset file besides the content: the
            evidence, unless it was left out.
    """

    sources: tuple[Layer, ...]
    overrides: Layer
    findings: tuple[str, ...]
    optional: dict[str, bytes]


def compile_manifest(
    manifest: Manifest,
    *,
    progress: Progress | None = None,
    with_evidence: bool = True,
    lenient: int = 0,
) -> CompiledDataset:
    """Read all files of a manifest and compile them.

    Args:
        manifest: what to compile.
        progress: called while files are read.
        with_evidence: as in `compile`.
        lenient: number of lines, of all sources together that have no number of their own,
            that may be unreadable. They are left out, and listed first among the findings.

    Raises:
        SourceError: as `compile` and `readers.read` do.
    """
    total = sum(
        size(file)
        for files in (
            *(entry.files for entry in manifest.sources),
            *(entry.files for entry in manifest.networks),
        )
        for file in files
    )
    faults = readers.Faults(lenient)
    listed: list[str] = []

    def read() -> Iterator[tuple[Source, SourceRanges]]:
        # One source after the other, so that only one is in memory unflattened.
        done = 0
        for entry in manifest.sources:

            def on_read(count: int, name: str = entry.source.name, before: int = done) -> None:
                if progress is not None:
                    progress(before + count, total, name)

            own = faults if entry.lenient is None else readers.Faults(entry.lenient)
            ranges = readers.read(
                entry.files,
                format_name=entry.format,
                options=entry.options,
                faults=own,
                on_read=on_read,
            )
            if own is not faults:
                listed.extend([*own.found, *own.notes])
            yield entry.source, ranges
            done += sum(size(file) for file in entry.files)

    def read_lists() -> Iterator[tuple[NetworkList, SourceRanges]]:
        done = sum(size(file) for entry in manifest.sources for file in entry.files)
        for entry in manifest.networks:
            one = entry.network_list

            def on_read(count: int, name: str = one.name, before: int = done) -> None:
                if progress is not None:
                    progress(before + count, total, name)

            own = faults if entry.lenient is None else readers.Faults(entry.lenient)
            if entry.format is not None:
                marked = readers.read_kinds(entry.files, format_name=entry.format, faults=own)
                ranges = _united(marked)
            elif one.vouches:
                ranges = readers.read(entry.files, faults=own, on_read=on_read)
            else:
                kinds = network_bits(one.kinds)
                ranges = network_list.read(entry.files, kinds, faults=own, on_read=on_read)
            if own is not faults:
                listed.extend([*own.found, *own.notes])
            yield one, ranges
            done += sum(size(file) for file in entry.files)

    compiled = compile(
        read(),
        networks=read_lists(),
        covering=manifest.covering,
        overrides=manifest.overrides,
        nat64_prefixes=manifest.nat64_prefixes,
        special_purpose=manifest.special_purpose,
        with_evidence=with_evidence,
        age_limit=manifest.age_limit,
    )
    return replace(compiled, findings=(*faults.found, *faults.notes, *listed, *compiled.findings))


def compile(  # noqa: A001 - compiler.compile says what it does; the builtin is not used here
    sources: Iterable[tuple[Source, SourceRanges]],
    *,
    networks: Iterable[tuple[NetworkList, SourceRanges]] = (),
    covering: Sequence[Network] = COVERING,
    overrides: Sequence[Override] = (),
    nat64_prefixes: Sequence[str] = (),
    special_purpose: bool = True,
    built: date | None = None,
    today: date | None = None,
    with_evidence: bool = True,
    age_limit: AgeLimit | None = None,
) -> CompiledDataset:
    """Compile sources, in order of precedence: the first that speaks names the country.

    Args:
        sources: each with its ranges, which may overlap: the more specific one
            wins, and where equally specific ones contradict each other the
            source is silent.
        networks: lists of networks, each with its ranges: their codes are the bits of their
            kinds, but for a list that vouches the codes of countries.
        covering: the kinds of networks that hide where their users are.
        overrides: the more specific one wins among them, and each over all sources.
        nat64_prefixes: IPv6 prefixes whose addresses are answered by the IPv4
            address inside, besides the well-known ones.
        special_purpose: whether the IANA registries count.
        built: the build date that the dataset states. Default: the date of the
            newest source, so that the same input gives the same bytes.
        today: the day that decides which overrides have expired, and the build
            date if there are no sources. Default: the present day, UTC.
        with_evidence: whether to keep what each source says, for explanations.
        age_limit: how old the dataset may be, and what follows; None: any age.

    Raises:
        SourceError: the input contradicts itself, or has too many different claims.
    """
    today = today or datetime.now(UTC).date()
    findings: list[str] = []
    described: list[Source] = []
    layers: list[Layer] = []
    for source, ranges in sources:
        if source.name in (known.name for known in described):
            raise SourceError(f"two sources are named {source.name!r}")
        described.append(source)
        layers.append(flatten(source, ranges, findings))
    lists = [_network_layer(one, ranges, findings) for one, ranges in networks]
    names = [one.name for one in described] + [one.network_list.name for one in lists]
    if len(set(names)) < len(names):
        raise SourceError("two lists of networks, or a list and a source, have one name")
    for one in lists:
        if one.statements is not None:  # it vouches
            described.append(one.network_list.source)
            layers.append(one.statements)
    embedded = _embedded(nat64_prefixes)
    override = _flatten_overrides(overrides, embedded, today, findings)
    special = _special_purpose() if special_purpose else SourceRanges()

    stack = [
        *(layer.ranges for layer in layers),
        *(one.ranges for one in lists),
        *(special, override.ranges, embedded),
    ]
    attempts = _attempts(described)
    for kept, pooling in attempts:
        # Each time from the start, so that the result depends on the input alone.
        numbering = _ClaimNumbers(described, pooling, kept)
        try:
            lines = _merge(stack, numbering)
        except _TooManyClaimsError:
            if (kept, pooling) == attempts[-1]:
                raise
        else:
            break
    findings += [
        f"the sources make more than {MAX_CLAIMS:,} different claims; {what}"
        for what in (_CUT.get(kept), _POOLED.get(pooling))
        if what is not None
    ]
    (ipv4_first, ipv4_claims), (ipv6_high, ipv6_low, ipv6_claims) = lines
    claims, numbers = numbering.ordered()
    places = _places(described, layers, override)
    optional = {}
    if with_evidence:
        optional[EVIDENCE] = evidence_section.encode(
            [(source, layer.ranges) for source, layer in zip(described, layers, strict=True)],
            overrides,
            override.ranges,
            special_purpose_prefixes() if special_purpose else (),
            places,
            [(one.network_list, one.ranges) for one in lists],
        )
    dates = [*(one.date for one in described), *(one.network_list.date for one in lists)]
    built = built or max(dates, default=today)
    return CompiledDataset(
        ipv4_first=ipv4_first,
        ipv4_claims=renumber(ipv4_claims, numbers),
        ipv6_first_high=ipv6_high,
        ipv6_first_low=ipv6_low,
        ipv6_claims=renumber(ipv6_claims, numbers),
        claims=claims,
        places=places,
        metadata={
            "built": f"{built.isoformat()}T00:00:00Z",
            "sources": [
                _description(source, layer) for source, layer in zip(described, layers, strict=True)
            ],
            "special_purpose": {"date": DATE} if special_purpose else None,
            "nat64_prefixes": [nat64_prefix(text).prefix for text in nat64_prefixes],
            "overrides": override.rows,
            **_expiring(overrides, today),
            **_limited(age_limit or AgeLimit()),
            **_networks(lists, covering),
        },
        sources=tuple(layers),
        overrides=override,
        findings=tuple(findings),
        optional=optional,
    )


class _Pooling(Enum):
    """Which claims are one, where there are more of them than a dataset can hold.

    All of these have one status, country, set of claimed codes, and silence; so UNANIMOUS and
    PRIMARY are exact, and MAJORITY decides wherever UNANIMOUS does.
    """

    NONE = 0
    """Those that have the same votes."""
    SETTLED = 1
    """Those whose votes settle each region set alike: MAJORITY is exact, too."""
    CERTAIN = 2
    """Those of the same majority, which settles each region set; and those that have none. The
    latter have the votes that each of them has at least, and the most votes of any in all, the
    rest as abstentions: what has a majority of these has one in each."""


_POOLED: Final = {
    _Pooling.SETTLED: (
        "those whose votes settle every region set alike are one, with the fewest votes of any;"
        " all verdicts are exact"
    ),
    _Pooling.CERTAIN: (
        "those that differ in their numbers of votes alone, and of whose codes none has a"
        " majority, share the votes that are certain for each of them, so MAJORITY says"
        " UNDETERMINED more often there; all else is exact"
    ),
}


class _Kept(Enum):
    """Which subdivisions the claims hold, where there are more of them than a dataset can hold.

    A vote for a subdivision that is not held is marked as cut, so that a region set which divides
    its country never counts it, and the vote's other answers are exact.
    """

    ALL = 0
    """All that sources name."""
    OF_ONE_COUNTRY = 1
    """Those of claims whose sources name one country."""
    AGREED = 2
    """Those that all sources name that name any."""


_CUT: Final = {
    _Kept.OF_ONE_COUNTRY: (
        "where they name different countries it holds these without subdivisions, and a region set"
        " that divides one of the countries is UNDETERMINED there"
    ),
    _Kept.AGREED: (
        "where they name different subdivisions it holds none, and a region set that divides the"
        " country is UNDETERMINED there"
    ),
}


def _attempts(sources: Sequence[Source]) -> list[tuple[_Kept, _Pooling]]:
    """Return the ways to keep the number of claims within the limit, the exact one first."""
    if all(source.depth == "country" for source in sources):
        return [(_Kept.ALL, pooling) for pooling in _Pooling]
    return [
        *((kept, _Pooling.NONE) for kept in _Kept),
        *((_Kept.AGREED, pooling) for pooling in (_Pooling.SETTLED, _Pooling.CERTAIN)),
    ]


def _without_places(claim: Claim, kept: _Kept) -> Claim:
    """Return a claim with the subdivisions that are to be held."""
    places = {vote.place for vote in claim.places if "-" in vote.place}
    if kept is _Kept.ALL or not places or claim.status is Status.OVERRIDE:
        return claim
    if claim.status is not Status.DISPUTED and (kept is not _Kept.AGREED or len(places) == 1):
        return claim
    votes: dict[tuple[str, bool, bool], PlaceVote] = {}
    for vote in claim.places:
        cut = replace(vote, place=vote.place[:2], is_cut="-" in vote.place)
        key = cut.place, cut.is_deep, cut.is_cut
        same = votes.get(key)
        votes[key] = (
            cut
            if same is None
            else replace(
                cut,
                count=same.count + cut.count,
                full=same.full or cut.full,
                authoritative=same.authoritative or cut.authoritative,
            )
        )
    return replace(claim, places=tuple(votes.values()))


class _TooManyClaimsError(SourceError):
    """More different claims than a dataset can hold."""


def _merge(
    stack: Sequence[SourceRanges], numbering: _ClaimNumbers
) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes, bytes]]:
    return (
        merge_ipv4([ranges.ipv4 for ranges in stack], numbering.number),
        merge_ipv6([ranges.ipv6 for ranges in stack], numbering.number),
    )


class _ClaimNumbers:
    """Numbers claims in the order of their first use, and sorts them in the end.

    Args:
        sources: in order of precedence.
        pooling: which claims are one.
        kept: which subdivisions they hold.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        pooling: _Pooling = _Pooling.NONE,
        kept: _Kept = _Kept.ALL,
    ) -> None:
        self._sources = sources
        self._kept = kept
        self._numbers: dict[object, int] = {}
        self._claims: list[Claim] = []
        self._pooling = pooling
        for claim in FIXED_CLAIMS:
            self._number(claim)

    def number(self, packed: bytes) -> int:
        """Return the claim number for the codes of all layers, in the order of `compile`."""
        *numbers, special, override, embedded = array("H", packed)
        if embedded:
            return embedded
        used = _used_for(numbers[len(self._sources) :])
        if override:
            claim = overriding(code_text(override))
            return self._number(replace(claim, networks=used) if used else claim)
        if special:
            return SPECIAL_PURPOSE
        numbers = numbers[: len(self._sources)]
        if not any(numbers):
            return self._number(Claim(Status.UNASSIGNED, networks=used)) if used else UNASSIGNED
        places = [code_text(number) if number else None for number in numbers]
        claim = _without_places(combine(self._sources, places), self._kept)
        return self._number(replace(claim, networks=used) if used else claim)

    def _number(self, claim: Claim) -> int:
        key: object = claim
        if self._pooling is not _Pooling.NONE:
            settled = _majority(claim) if self._pooling is _Pooling.CERTAIN else _settled(claim)
            key = (
                *(claim.status, claim.country, claim.claimed, claim.silent, settled),
                *(claim.places, claim.networks),
            )
        number = self._numbers.setdefault(key, len(self._claims))
        if number == len(self._claims):
            if number >= MAX_CLAIMS:
                raise _TooManyClaimsError(
                    f"the sources make more than {MAX_CLAIMS:,} different claims, which is as many"
                    " as a dataset can hold; leave out a source, or those that agree with no other"
                )
            self._claims.append(claim)
        elif self._pooling is _Pooling.SETTLED or (
            self._pooling is _Pooling.CERTAIN and _majority(claim)
        ):
            self._claims[number] = min(self._claims[number], claim, key=_votes_first)
        elif self._pooling is _Pooling.CERTAIN:
            self._claims[number] = _certain(self._claims[number], claim)
        return number

    def ordered(self) -> tuple[tuple[Claim, ...], bytes]:
        """Return the claims in their final order, and the final number (uint16) by number.

        The order depends on nothing but the claims, so equal intervals give equal bytes.
        """
        order = operator.attrgetter(
            "status", "country", "votes", "abstentions", "silent", "networks"
        )
        fixed = len(FIXED_CLAIMS)
        others = sorted(
            range(fixed, len(self._claims)),
            key=lambda n: (*order(self._claims[n]), *map(astuple, self._claims[n].places)),
        )
        numbers = array("H", range(0x10000))  # the embedded forms keep theirs
        for number, before in enumerate(others, start=fixed):
            numbers[before] = number
        claims = (*FIXED_CLAIMS, *(self._claims[before] for before in others))
        if sys.byteorder == "big":
            numbers.byteswap()
        return claims, numbers.tobytes()


def _places(sources: Sequence[Source], layers: Sequence[Layer], override: Layer) -> tuple[str, ...]:
    """Return the subdivisions that the sources and overrides name, sorted."""
    deep = [
        layer.ranges
        for source, layer in zip(sources, layers, strict=True)
        if source.depth == "subdivision"
    ]
    numbers = {
        number
        for ranges in (*deep, override.ranges)
        for family in (ranges.ipv4, ranges.ipv6)
        for number in family.codes()
    }
    return tuple(code_text(number) for number in sorted(numbers) if number >= FIRST_SUBDIVISION)


def _used_for(bits: Sequence[int]) -> int:
    """Return the bits of an address's kinds, given those of each list.

    A range for which the operator of a relay vouches is that relay, whatever hides its users
    by other lists.
    """
    used = 0
    for some in bits:
        used |= some
    if used & VOUCHED:
        used = used & ~network_bits(COVERING) | Network.RELAY.bit
    return used


def _votes_first(claim: Claim) -> tuple[int, int, tuple[tuple[str, int], ...]]:
    cast = sum(count for _, count in claim.votes)
    return cast + claim.abstentions, claim.abstentions, claim.votes


def _settled(claim: Claim) -> int:
    """Return which sets of the claimed codes have a majority: bit n is set if set n has.

    Set n holds the codes of the bits of n. What is not in a region set is a set, too, so this
    is all that MAJORITY depends on.
    """
    counts = [count for _, count in claim.votes]
    total = sum(counts) + claim.abstentions
    settled = 0
    for chosen in range(1 << len(counts)):
        inside = sum(count for bit, count in enumerate(counts) if chosen >> bit & 1)
        settled |= (2 * inside > total) << chosen
    return settled


def _majority(claim: Claim) -> str:
    """Return the code that has a majority by itself, or nothing."""
    total = sum(count for _, count in claim.votes) + claim.abstentions
    return next((code for code, count in claim.votes if 2 * count > total), "")


def _certain(one: Claim, other: Claim) -> Claim:
    """Return two claims that differ in numbers of votes as one; see `_ClaimNumbers`."""
    total = max(sum(n for _, n in claim.votes) + claim.abstentions for claim in (one, other))
    votes = tuple(
        (code, min(n, m)) for (code, n), (_, m) in zip(one.votes, other.votes, strict=True)
    )
    return replace(one, votes=votes, abstentions=total - sum(n for _, n in votes))


def flatten(source: Source, ranges: SourceRanges, findings: list[str]) -> Layer:
    """Return a source's ranges as they count: disjoint, and within its bounds.

    Args:
        source: whose they are.
        ranges: which may overlap.
        findings: takes what an operator should know: contradictions, and what lies outside.
    """
    flat, clashes = _flatten(ranges, last_begins=source.overlaps == "last-begins")
    partial = [
        f"{ranges.location(family, index)} overlaps {ranges.location(family, other)}"
        for family in (ranges.ipv4, ranges.ipv6)
        for other, index in family.partial_overlaps()
        if source.overlaps is None and family[other][2] != family[index][2]
    ]
    if partial:
        findings.append(
            f"{source.name}: {len(partial):,} ranges overlap another one in part and name another"
            " country; where they do, the smallest decides, unless the manifest says overlaps ="
            f' "last-begins". The first: {partial[0]}'
        )
    findings += [
        f"{ranges.location(family, index)}: names another country than"
        f" {ranges.location(family, other)} for the same addresses and is no more specific, so"
        " the source is silent there"
        for family, other, index in clashes[:MAX_FINDINGS]
    ]
    if len(clashes) > MAX_FINDINGS:
        findings.append(f"{source.name}: {len(clashes) - MAX_FINDINGS:,} more such contradictions")
    if not source.within:
        return Layer(flat, len(ranges), lines_left_out=ranges.lines_left_out)
    inside, outside = _bounded(flat, source.within)
    findings += [
        f"{place}: not, or not all, within what the source may speak of; left out there"
        for place in outside[:MAX_FINDINGS]
    ]
    if len(outside) > MAX_FINDINGS:
        findings.append(f"{source.name}: {len(outside) - MAX_FINDINGS:,} more such ranges")
    return Layer(inside, len(ranges), len(outside), ranges.lines_left_out)


@dataclass(frozen=True, slots=True, eq=False)
class _NetworkLayer:
    """A list of networks as disjoint, ascending ranges.

    Attributes:
        network_list: what it is.
        ranges: flattened, with the bits of their kinds for codes.
        rows: number of ranges before flattening.
        statements: of a list that vouches what it says of countries; else None.
    """

    network_list: NetworkList
    ranges: SourceRanges
    rows: int
    statements: Layer | None = None


def _network_layer(one: NetworkList, ranges: SourceRanges, findings: list[str]) -> _NetworkLayer:
    if not one.vouches:
        flat, clashes = _flatten(ranges)
        findings += [
            f"{ranges.location(family, index)}: is of another kind than"
            f" {ranges.location(family, other)}, and of neither there"
            for family, other, index in clashes[:MAX_FINDINGS]
        ]
        return _NetworkLayer(one, flat, len(ranges))
    statements = flatten(one.source, ranges, findings)
    flat = statements.ranges
    used = SourceRanges(files=flat.files)
    for family, into in ((flat.ipv4, used.ipv4), (flat.ipv6, used.ipv6)):
        for index, (first, last, code) in enumerate(family):
            file, line = family.place(index)
            bits = Network.RELAY.bit | (VOUCHED if code else 0)
            into.append(first, last, bits, file=file, line=line)
    return _NetworkLayer(one, used, len(ranges), statements)


def _united(marked: Mapping[str, SourceRanges]) -> SourceRanges:
    """Return ranges by kind as one list with the bits of their kinds.

    What is no kind of network, such as IPFire's list of networks to drop, is left out.
    """
    layers = []
    for kind, ranges in marked.items():
        if kind in Network.__members__:
            bits = SourceRanges()
            flat = _flatten(ranges)[0]
            for family, into in ((flat.ipv4, bits.ipv4), (flat.ipv6, bits.ipv6)):
                for first, last, code in family:
                    into.append(first, last, Network[kind].bit if code else 0)
            layers.append(bits)

    def together(packed: bytes) -> int:
        return reduce(operator.or_, array("H", packed), 0)

    united = SourceRanges()
    starts4, bits4 = merge_ipv4([one.ipv4 for one in layers], together)
    high, low, bits6 = merge_ipv6([one.ipv6 for one in layers], together)
    starts6 = zip(_numbers(high, "Q"), _numbers(low, "Q"), strict=True)
    for into, starts, kinds in (
        (united.ipv4, _numbers(starts4, "I"), _numbers(bits4, "H")),
        (united.ipv6, [upper << 64 | lower for upper, lower in starts6], _numbers(bits6, "H")),
    ):
        ends = [*starts[1:], 1 << into.bits]
        for first, end, bit in zip(starts, ends, kinds, strict=True):
            if bit:
                into.append(first, end - 1, bit)
    if not len(united):
        raise SourceError("the files mark no kind of networks")
    return united


def _numbers(column: bytes, kind: str) -> list[int]:
    numbers = array(kind, column)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _networks(lists: Sequence[_NetworkLayer], covering: Sequence[Network]) -> dict[str, Any]:
    """Return what the metadata says of lists of networks; nothing where there are none."""
    described: dict[str, Any] = {}
    if lists:
        described["networks"] = [
            {
                "name": one.network_list.name,
                "licence": one.network_list.licence,
                "date": one.network_list.date.isoformat(),
                "kinds": [kind.name for kind in one.network_list.kinds],
                "vouches": one.network_list.vouches,
                "attribution": one.network_list.attribution,
                "url": one.network_list.url,
                "ranges": one.rows,
            }
            for one in lists
        ]
    if tuple(covering) != COVERING:
        described["covering"] = [kind.name for kind in covering]
    return described


def _bounded(
    flat: SourceRanges, within: Iterable[tuple[bytes, bytes]]
) -> tuple[SourceRanges, list[str]]:
    """Return what lies within prefixes, and the places of the ranges that do not, or not all."""
    allowed = SourceRanges()
    for start, end in within:
        family = allowed.ipv4 if len(start) == 4 else allowed.ipv6
        family.append(int.from_bytes(start), int.from_bytes(end), 1)
    inside = SourceRanges(files=flat.files)
    outside: dict[str, None] = {}  # in the order of the address line
    for ranges, into, bounds in (
        (flat.ipv4, inside.ipv4, allowed.ipv4.flattened()[0]),
        (flat.ipv6, inside.ipv6, allowed.ipv6.flattened()[0]),
    ):
        ends = [last for _, last, _ in bounds]
        for index, (first, last, code) in enumerate(ranges):
            file, line = ranges.place(index)
            kept = 0
            for bound in range(bisect_left(ends, first), len(bounds)):
                if bounds[bound][0] > last:
                    break
                low, high = max(first, bounds[bound][0]), min(last, bounds[bound][1])
                into.append(low, high, code, file=file, line=line)
                kept += high - low + 1
            if kept < last - first + 1:
                outside[flat.location(ranges, index)] = None
    return inside, list(outside)


def _description(source: Source, layer: Layer) -> dict[str, object]:
    """Return what the metadata says of a source. What does not apply is left out."""
    described: dict[str, object] = {
        "name": source.name,
        "licence": source.licence,
        "date": source.date.isoformat(),
        "coverage": source.coverage,
        **({"depth": source.depth} if source.depth != "country" else {}),
        "origin": source.origin,
        "attribution": source.attribution,
        "url": source.url,
        "ranges": layer.rows,
    }
    if source.mute:
        described["mute"] = {code: list(filed) for code, filed in source.mute}
    if layer.lines_left_out:
        described["lines_left_out"] = layer.lines_left_out
    if source.within:
        described["within"] = len(source.within)
        described["ranges_outside"] = layer.outside
    if source.max_age:
        described["max_age"] = source.max_age
    if source.keep_days:
        described["keep_days"] = source.keep_days
    return described


def _limited(limit: AgeLimit) -> dict[str, Any]:
    """Return what the metadata says of how old the dataset may be; nothing where that is any."""
    described: dict[str, Any] = {"max_age": limit.max_age} if limit.max_age else {}
    return described | ({"stale": limit.stale} if limit.stale != AgeLimit().stale else {})


def _expiring(overrides: Sequence[Override], today: date) -> dict[str, Any]:
    """Return what the metadata says of overrides that apply now and have a last day."""
    expiring = [
        {
            "number": number,
            "expires": override.expires.isoformat(),
            "comment": override.comment,
        }
        for number, override in enumerate(overrides, start=1)
        if override.expires is not None and override.expires >= today
    ]
    # Left out where there are none: a dataset without them keeps its bytes.
    return {"expiring_overrides": expiring} if expiring else {}


def _flatten_overrides(
    overrides: Sequence[Override], embedded: SourceRanges, today: date, findings: list[str]
) -> Layer:
    ranges = SourceRanges()
    for position, override in enumerate(overrides, start=1):
        if override.expires is not None and override.expires < today:
            findings.append(
                f"override {position}: expired after {override.expires.isoformat()}, not applied"
            )
            continue
        first, last = int.from_bytes(override.first), int.from_bytes(override.last)
        family = ranges.ipv4 if len(override.first) == 4 else ranges.ipv6
        if family is ranges.ipv6 and any(
            start <= first and last <= end for start, end, _ in embedded.ipv6
        ):
            raise SourceError(
                f"override {position}: has no effect, since these IPv6 addresses are answered by"
                " the IPv4 address inside; override that one instead"
            )
        family.append(first, last, code_number(override.code), line=position)
    flat, clashes = _flatten(ranges)
    for family, other, index in clashes:
        raise SourceError(
            f"override {family.place(index)[1]}: names another code than override"
            f" {family.place(other)[1]} for the same addresses and is no more specific"
        )
    return Layer(flat, len(ranges))


def _flatten(
    ranges: SourceRanges, *, last_begins: bool = False
) -> tuple[SourceRanges, list[tuple[Ranges, int, int]]]:
    """Return disjoint ranges, and the pairs that clash: (family, index, index)."""
    ipv4, clashes4 = ranges.ipv4.flattened(last_begins)
    ipv6, clashes6 = ranges.ipv6.flattened(last_begins)
    return SourceRanges(ipv4, ipv6, ranges.files), [
        *((ranges.ipv4, *pair) for pair in clashes4),
        *((ranges.ipv6, *pair) for pair in clashes6),
    ]


def _special_purpose() -> SourceRanges:
    ranges = SourceRanges()
    for row in special_purpose_prefixes():
        _add_prefix(ranges, row.prefix, 1)
    return _flatten(ranges)[0]


def _embedded(nat64_prefixes: Sequence[str]) -> SourceRanges:
    """Return the prefixes that carry IPv4 addresses, with their claim numbers for codes."""
    forms = list(EMBEDDED)
    for position, text in enumerate(nat64_prefixes, start=1):
        try:
            form = nat64_prefix(text)
        except SourceError as error:
            raise SourceError(f"NAT64 prefix {position}: {error}") from error
        network = ipaddress.IPv6Network(form.prefix)
        for other in forms:
            if network.overlaps(ipaddress.IPv6Network(other.prefix)):
                raise SourceError(f"NAT64 prefix {position}: overlaps another one ({other.name})")
        forms.append(form)
    ranges = SourceRanges()
    for form in forms:
        _add_prefix(ranges, form.prefix, form.claim)
    return _flatten(ranges)[0]


def _add_prefix(ranges: SourceRanges, prefix: str, code: int) -> None:
    network = ipaddress.ip_network(prefix)
    family = ranges.ipv4 if network.version == 4 else ranges.ipv6
    family.append(int(network.network_address), int(network.broadcast_address), code)
