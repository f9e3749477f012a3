"""The oracle: what the right answer is, worked out slowly and in plain sight.

It shares nothing with the code under test: it imports none of it, reads the raw
source files and IANA's registry files itself, and writes statuses, verdicts and
policies as the plain strings and numbers that the documentation gives. Where it
and geolookup differ, one of them is wrong, and this one can be read in minutes.

An address line is never flattened here. Each source keeps its own ranges, and a
question is put to every source in turn.
"""

from __future__ import annotations

import bisect
import csv
import functools
import ipaddress
import itertools
import lzma
import re
import socket
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "data" / "sources"
REGISTRIES = ROOT / "geolookup" / "data"

STATUSES = (
    "ASSIGNED",
    "DISPUTED",
    "UNCONFIRMED",
    "UNASSIGNED",
    "SPECIAL_PURPOSE",
    "OVERRIDE",
    "INVALID",
)
ASSIGNED, DISPUTED, UNCONFIRMED, UNASSIGNED, SPECIAL_PURPOSE, OVERRIDE, INVALID = STATUSES
VERDICTS = ("INSIDE", "OUTSIDE", "UNDETERMINED")
INSIDE, OUTSIDE, UNDETERMINED = VERDICTS
REASONS = (
    "DECIDED",
    *("DISPUTED", "UNCONFIRMED", "UNASSIGNED", "SPECIAL_PURPOSE", "INVALID", "COVERED"),
    *("SUBDIVISION_UNKNOWN", "NO_COUNTRY", "STALE"),
)
"""By number."""
NUMBERS = {name: number for names in (STATUSES, VERDICTS) for number, name in enumerate(names, 1)}
"""As columns and the proto write them."""
UNANIMOUS, MAJORITY, PRIMARY = "UNANIMOUS", "MAJORITY", "PRIMARY"
POLICIES = (UNANIMOUS, MAJORITY, PRIMARY)

BITS = {4: 32, 6: 128}

# What some publishers write where they know no country, or know only a continent, an
# anonymous network, or a state that is gone.
NO_COUNTRY_CODES = frozenset(
    ["EU", "AP", "A1", "A2", "A3", "T1", "XD", "ZZ", "??", "--", "-", "NONE", ""]
) | {
    code
    for gone_or_reserved in ("AN BU CS DD FX NT SU TP YU ZR", "AC CP CQ DG EA EZ IC TA")
    for code in gone_or_reserved.split()
}

# Multicast and site-local stand in IANA's address space registries, not in the
# special-purpose ones.
MORE_SPECIAL_PURPOSE = ("224.0.0.0/4", "ff00::/8", "fec0::/10")


def country(raw: str) -> str | None:
    """Return the country that a source's code stands for, None for silence."""
    code = raw.upper()
    if code in NO_COUNTRY_CODES:
        return None
    return "GB" if code == "UK" else code


@dataclass
class Source:
    """One input: inclusive ranges for each family, sorted by their first addresses.

    They may overlap. Then the one that begins last decides, and of these the smallest; where
    the smallest are several that name different countries, the source is silent.
    """

    name: str
    coverage: str = "full"
    origin: str = ""
    mute: dict[str, list[str]] = field(default_factory=dict)
    ranges: dict[int, list[tuple[int, int, str | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.origin = self.origin or self.name
        self.ranges = {version: self.ranges.get(version, []) for version in (4, 6)}
        self._firsts = {version: [row[0] for row in self.ranges[version]] for version in (4, 6)}
        # The last address of any range up to each one: where that is passed, none before holds.
        self._reach = {
            version: list(itertools.accumulate((row[1] for row in self.ranges[version]), max))
            for version in (4, 6)
        }

    def says(self, version: int, value: int) -> str | None:
        """Return the country this source gives an address, None for silence."""
        rows = self.ranges[version]
        at = bisect.bisect_right(self._firsts[version], value) - 1
        while at >= 0 and rows[at][1] < value:
            if self._reach[version][at] < value:
                return None
            at -= 1
        if at < 0:
            return None
        first = rows[at][0]
        if at == 0 or rows[at - 1][0] != first:
            return rows[at][2]
        same = [row for row in self._beginning_at(version, first) if row[1] >= value]
        last = min(row[1] for row in same)
        codes = {code for _, end, code in same if end == last}
        return codes.pop() if len(codes) == 1 else None

    def _beginning_at(self, version: int, first: int) -> list[tuple[int, int, str | None]]:
        at = bisect.bisect_left(self._firsts[version], first)
        end = bisect.bisect_right(self._firsts[version], first)
        return self.ranges[version][at:end]


def read_csv(path: Path, family: socket.AddressFamily) -> list[tuple[int, int, str | None]]:
    """Read the ``first,last,code`` lines of one family, compressed with xz or not."""
    rows = []
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="ascii", newline="") as file:
        for first, last, code in csv.reader(file):
            if (":" in first) != (family == socket.AF_INET6):
                continue
            rows.append(
                (
                    int.from_bytes(socket.inet_pton(family, first)),
                    int.from_bytes(socket.inet_pton(family, last)),
                    country(code),
                )
            )
    return sorted(rows, key=lambda row: row[0])


def read_registry(path: Path) -> list[str]:
    """Return the prefixes of a special-purpose registry in IANA's own CSV format.

    A block may hold several prefixes and footnote marks: ``192.0.0.170/32, 192.0.0.171/32``,
    ``192.0.0.0/24 [2]``.
    """
    prefixes = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            prefixes += re.findall(r"[0-9a-fA-F:.]+/[0-9]+", row["Address Block"])
    return prefixes


# --- addresses -----------------------------------------------------------------------

IPV4_TEXT = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}", re.ASCII)
IPV6_TEXT = re.compile(r"[0-9a-fA-F:]+(:[0-9.]+)?", re.ASCII)
ZONE_TEXT = re.compile(r"[!-~]{1,64}", re.ASCII)


def parse(text: str) -> tuple[int, int] | None:
    """Return (version, value) of an address in text, None if it is no address.

    No leading zeros, ports, prefix lengths or spaces; a zone on link-local only.
    """
    zone = None
    if "%" in text:
        text, zone = text.split("%", 1)
        if ZONE_TEXT.fullmatch(zone) is None or "%" in zone or "/" in zone:
            return None
    if IPV4_TEXT.fullmatch(text) is None and IPV6_TEXT.fullmatch(text) is None:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if zone is not None and (address.version == 4 or not in_prefix(6, int(address), "fe80::/10")):
        return None
    return address.version, int(address)


def in_prefix(version: int, value: int, prefix: str) -> bool:
    network = ipaddress.ip_network(prefix)
    if network.version != version:
        return False
    shift = BITS[version] - network.prefixlen
    return value >> shift == int(network.network_address) >> shift


def embedded_ipv4(value: int) -> int | None:
    """Return the IPv4 address inside an IPv6 address, None if it carries none."""
    if value >> 32 == 0xFFFF:  # ::ffff:0:0/96, IPv4-mapped
        return value & 0xFFFF_FFFF
    if value >> 112 == 0x2002:  # 2002::/16, 6to4
        return value >> 80 & 0xFFFF_FFFF
    if value >> 96 == 0x2001_0000:  # 2001::/32, Teredo: the client, inverted
        return ~value & 0xFFFF_FFFF
    if value >> 32 == 0x64_FF9B << 64:  # 64:ff9b::/96, NAT64
        return value & 0xFFFF_FFFF
    return None


# --- answers -------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What geolookup must say, without the verdict."""

    status: str
    country: str
    claimed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ruled:
    """No source is asked: a registry or an operator rules, or it is no address."""

    status: str
    country: str = "ZZ"


Said = tuple[str | None, ...] | Ruled
"""What is said of an address: each source's country, in the sources' order, or a rule."""

Override = tuple[int, int, int, str]
"""(version, first, last, code); they may not overlap."""


class Oracle:
    """Answers for a list of sources; their order decides the primary code."""

    def __init__(
        self,
        sources: Sequence[Source],
        special_purpose: Iterable[str] = (),
        overrides: Sequence[Override] = (),
    ) -> None:
        self.sources = tuple(sources)
        self.overrides = tuple(overrides)
        self.special_purpose: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for prefix in special_purpose:
            network = ipaddress.ip_network(prefix)
            self.special_purpose[network.version].append((int(network[0]), int(network[-1])))

    def said(self, version: int, value: int) -> Said:
        """Return what is said of an address.

        Embedded forms come first, then overrides, special ranges, and sources.
        """
        if version == 6:
            inside = embedded_ipv4(value)
            if inside is not None:
                return self.said(4, inside)
        for family, first, last, code in self.overrides:
            if family == version and first <= value <= last:
                return Ruled(OVERRIDE, code)
        for first, last in self.special_purpose[version]:
            if first <= value <= last:
                return Ruled(SPECIAL_PURPOSE)
        return tuple(source.says(version, value) for source in self.sources)

    def said_of_text(self, text: str) -> Said:
        address = parse(text)
        return Ruled(INVALID) if address is None else self.said(*address)

    def answer(self, said: Said) -> Answer:
        if isinstance(said, Ruled):
            return Answer(said.status, said.country)
        voices = self.voices(said)
        codes = [code for _, code in voices if code is not None]
        if not codes:
            return Answer(UNASSIGNED, "ZZ")
        if len(set(codes)) > 1:
            return Answer(DISPUTED, codes[0], tuple(sorted(set(codes))))
        if None in [code for _, code in voices]:
            return Answer(UNCONFIRMED, codes[0])
        return Answer(ASSIGNED, codes[0])

    def verdict(self, said: Said, region: Set[str], policy: str) -> str:
        """Return where the address is, seen from the set of codes *region*."""
        if isinstance(said, Ruled):
            codes = [] if said.country == "ZZ" else [said.country]
        else:
            codes = [code for _, code in self.voices(said) if code is not None]
        if not codes:
            return UNDETERMINED
        if policy == PRIMARY or isinstance(said, Ruled):
            return INSIDE if codes[0] in region else OUTSIDE
        if policy == MAJORITY:
            return self._majority(said, region)
        if not isinstance(said, Ruled) and None in [code for _, code in self.voices(said)]:
            return UNDETERMINED
        if all(code in region for code in codes):
            return INSIDE
        return UNDETERMINED if any(code in region for code in codes) else OUTSIDE

    def reason(self, said: Said, region: Set[str], policy: str) -> str:
        """Return why there is no verdict; "DECIDED" where there is one."""
        if self.verdict(said, region, policy) != UNDETERMINED:
            return "DECIDED"
        if isinstance(said, Ruled):
            return "NO_COUNTRY" if said.status == OVERRIDE else said.status
        spoken = {code for _, code in self.voices(said)} - {None}
        if not spoken:
            return "UNASSIGNED"
        if spoken & region and spoken - region:
            return "DISPUTED"
        return "UNCONFIRMED"

    def _majority(self, said: Said, region: Set[str]) -> str:
        votes = self.votes(said)
        if 2 * sum(vote is not None and vote in region for vote in votes) > len(votes):
            return INSIDE
        if 2 * sum(vote is not None and vote not in region for vote in votes) > len(votes):
            return OUTSIDE
        return UNDETERMINED

    def votes(self, said: Said) -> list[str | None]:
        """Return one vote an origin: what its first source that speaks says.

        None is the vote of an origin that is silent though one of its sources is
        full; silent partial origins have no vote.
        """
        votes: list[str | None] = []
        if isinstance(said, Ruled):
            return votes
        voices = self.voices(said)
        for origin in dict.fromkeys(source.origin for source, _ in voices):
            codes = [code for source, code in voices if source.origin == origin]
            spoken = [code for code in codes if code is not None]
            votes.append(spoken[0] if spoken else None)
        return votes

    def voices(self, said: Sequence[str | None]) -> list[tuple[Source, str | None]]:
        """Return the sources that count, in order, each with what it says (None: silence)."""
        heard = []
        for source, code in zip(self.sources, said, strict=True):
            if source.coverage == "advisory":
                continue  # never
            heard.append((source, code))
        able = [voice for voice in heard if not self._speaks_of_what_it_cannot_know(voice, heard)]
        if all(code is None for _, code in able):
            able = heard
        ruling: list[tuple[Source, str | None]] = [
            (source, code)
            for source, code in able
            if source.coverage == "authoritative" and code is not None
        ]
        if ruling:
            return ruling
        return [
            (source, code) for source, code in able if code is not None or source.coverage == "full"
        ]

    def _speaks_of_what_it_cannot_know(
        self, voice: tuple[Source, str | None], heard: list[tuple[Source, str | None]]
    ) -> bool:
        source, code = voice
        for unknown, instead in source.mute.items():
            somebody_names_it = unknown in [other for _, other in heard]
            excused = code is None or (code != unknown and (instead == [] or code in instead))
            if somebody_names_it and excused:
                return True
        return False

    def ranges(self, version: int) -> Iterator[tuple[int, int]]:
        """Yield first and last of every range of sources, registries and overrides.

        Advisory sources have no boundaries: they change no answer.
        """
        for source in self.sources:
            if source.coverage == "advisory":
                continue
            for first, last, _ in source.ranges[version]:
                yield first, last
        yield from self.special_purpose[version]
        for family, first, last, _ in self.overrides:
            if family == version:
                yield first, last

    def edges(self, version: int) -> list[int]:
        """Return the addresses on both sides of every boundary, sorted, each once."""
        top = 2 ** BITS[version] - 1
        sides = {
            at for first, last in self.ranges(version) for at in (first - 1, first, last, last + 1)
        }
        return sorted(at for at in sides if 0 <= at <= top)

    def neighbourhood(self, version: int) -> list[int]:
        """Return every boundary and the addresses beside it, sorted, each once."""
        top = 2 ** BITS[version] - 1
        near = {
            at + step
            for boundaries in self.ranges(version)
            for at in boundaries
            for step in (-1, 0, 1)
        }
        return sorted(at for at in near if 0 <= at <= top)


REASONS_IN_ORDER = (
    "INVALID",
    "SPECIAL_PURPOSE",
    "STALE",
    "NO_COUNTRY",
    "UNASSIGNED",
    "COVERED",
    "DISPUTED",
    "UNCONFIRMED",
    "SUBDIVISION_UNKNOWN",
)
"""Where several reasons apply, the first of these is given."""


def participant(addresses: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return verdict and reason of somebody whose addresses have these (verdict, reason).

    The reason of what has a verdict is DECIDED.
    """
    counting = [one for one in addresses if one[1] not in ("INVALID", "SPECIAL_PURPOSE")]
    if not counting:
        counting = list(addresses)
    verdicts = {verdict for verdict, _ in counting}
    if verdicts in ({INSIDE}, {OUTSIDE}):
        return verdicts.pop(), "DECIDED"
    reasons = {reason for _, reason in counting} - {"DECIDED"}
    if INSIDE in verdicts and OUTSIDE in verdicts:
        reasons.add("DISPUTED")
    return UNDETERMINED, min(reasons, key=REASONS_IN_ORDER.index)


NO_KOSOVO = {"XK": ["AL", "RS"]}
EMBEDDED: tuple[tuple[str, str, str, dict[str, list[str]], str], ...] = (
    ("dbip", "full", "DB-IP", NO_KOSOVO, "dbip-country-2026-10-{}.csv.xz"),
    ("dbip-kosovo", "partial", "DB-IP", {}, "dbip-country-2026-06-xk.csv"),
    ("geo-whois-asn", "full", "", NO_KOSOVO, "geo-whois-asn-country-2026-06-{}.csv.xz"),
    ("registry", "advisory", "", NO_KOSOVO, "rir-country-2026-06-{}.csv.xz"),
)
"""Name, coverage, origin, what it cannot know, and files of each source of the dataset."""


@functools.cache
def embedded() -> Oracle:
    """Return the oracle of the dataset that ships with geolookup."""
    sources = [
        Source(
            name,
            coverage=coverage,
            origin=origin,
            mute=mute,
            ranges={
                4: read_csv(SOURCES / files.format("ipv4"), socket.AF_INET),
                6: read_csv(SOURCES / files.format("ipv6"), socket.AF_INET6),
            },
        )
        for name, coverage, origin, mute, files in EMBEDDED
    ]
    special = [
        *read_registry(REGISTRIES / "iana-ipv4-special-registry.csv"),
        *read_registry(REGISTRIES / "iana-ipv6-special-registry.csv"),
        *MORE_SPECIAL_PURPOSE,
    ]
    return Oracle(sources, special)


def pack(version: int, values: Iterable[int]) -> bytes:
    """Return addresses as one packed buffer in network byte order."""
    size = BITS[version] // 8
    return b"".join(value.to_bytes(size) for value in values)
