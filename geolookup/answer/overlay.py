"""An operator's overrides laid over a dataset: the two make a dataset of its own.

Its file holds the intervals of both, so answering from it is like answering from any other, and
its id pins the dataset, the file of overrides, and which of these have expired. It has the claims
of the dataset at their numbers, and behind them those of the overrides. A section of its own
keeps the overrides for explanations; docs/dataset-format.md has its form.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from struct import Struct
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from geolookup._sweep import Ranges, renumber
from geolookup.answer.claims import MAX_CLAIMS, Claim, Status, overriding
from geolookup.answer.evidence import FIRST_PLACE, OverrideView, renumbered
from geolookup.answer.evidence import SECTION as EVIDENCE
from geolookup.answer.file_format import (
    PLACE_SECTIONS,
    ClaimTable,
    Image,
    RuntimeOverrides,
    Section,
    canonical_json,
    claim_sections,
    join_sections,
    place_sections,
)
from geolookup.answer.intervals import BITS, FAMILIES, Family, address_text
from geolookup.errors import SourceError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from geolookup.answer.overrides import Override, Overrides

SECTION: Final = "overrides"
"""Name of the section in a dataset file."""


def lay_over(base: Image, overrides: Overrides, now: float) -> list[Buffer] | None:
    """Return the file of a dataset with overrides laid over it, in pieces.

    Args:
        base: the dataset's file.
        overrides: to be laid over it.
        now: the second since 1970, UTC, that decides which of them have expired.

    Returns:
        None: all of them have, or there are none, so the dataset is as it was.

    Raises:
        SourceError: they contradict each other, have no effect, or do not fit in.
        DatasetError: the dataset is damaged, or has overrides laid over it already.
    """
    active = overrides.active(now)
    if not active:
        return None
    if SECTION in base.sections:
        base.fail("overrides were laid over it already; name the dataset that they were laid over")
    entries = {number: overrides.entries[number - 1] for number in active}
    _check(base, overrides, entries)
    codes = sorted({entry.code for entry in entries.values()})
    flat = _flattened(entries, codes)
    table = ClaimTable(base)
    claims = _Claims(table, codes)
    sections = {section.name: section for section in base.contents()}

    def change(name: str, *data: Buffer, needed: bool = True) -> None:
        sections[name] = Section(name, needed, b"".join(map(memoryview, data)))

    for family, columns in _COLUMNS.items():
        if len(flat[family]):
            for name, data in zip(
                columns, _spliced(base, family, flat[family], claims), strict=True
            ):
                change(name, data)
    for name, data in claim_sections(claims.added).items():
        change(name, base.section(name), data)
    if table.networks is not None:
        bits = array("H", (claim.networks for claim in claims.added))
        change("claim.networks", base.section("claim.networks"), bits)
    for name, data in _placed(base, table, claims.added).items():
        change(name, data, needed=name != EVIDENCE)
    until = overrides.until(now)
    described = RuntimeOverrides(
        base=base.id,
        file=overrides.digest,
        active=len(active),
        expired=len(overrides.entries) - len(active),
        until=None if until is None else datetime.fromtimestamp(until, UTC),
    )
    metadata = json.loads(bytes(base.section("metadata")))
    change("metadata", canonical_json({**metadata, "runtime_overrides": described.as_json()}))
    change(SECTION, _encode(entries, flat), needed=False)
    needed = [one for one in sections.values() if one.needed]
    others = sorted(name for name, one in sections.items() if not one.needed)
    return join_sections([*needed, *map(sections.__getitem__, others)])


def _check(base: Image, overrides: Overrides, entries: dict[int, Override]) -> None:
    """Refuse overrides that contradict each other, now or when others have expired."""
    rows = []
    for number, entry in entries.items():
        first, last = int.from_bytes(entry.first), int.from_bytes(entry.last)
        rows.append((len(entry.first), last - first, first, number))
        if len(entry.first) == 16:
            _, end, claim = base.interval(6, first)
            if claim >= MAX_CLAIMS and last <= end:
                raise SourceError(
                    f"{overrides.place(number)}: has no effect, since these IPv6 addresses are"
                    " answered by the IPv4 address inside; override that one instead"
                )
    # Of those of one size, two that overlap have neighbours that do.
    for one, other in pairwise(sorted(rows)):
        overlap = one[:2] == other[:2] and other[2] <= one[2] + one[1]
        if overlap and entries[one[3]].code != entries[other[3]].code:
            first_number, second_number = sorted((one[3], other[3]))
            raise SourceError(
                f"{overrides.place(second_number)}: names another code than override"
                f" {first_number} for the same addresses and is no more specific"
            )


def _flattened(entries: dict[int, Override], codes: Sequence[str]) -> dict[Family, Ranges]:
    """Return which override holds where: the codes by number from 1, the overrides as lines."""
    ranges: dict[Family, Ranges] = {family: Ranges(BITS[family]) for family in FAMILIES}
    numbers = {code: number for number, code in enumerate(codes, start=1)}
    for number, entry in entries.items():
        family: Family = 4 if len(entry.first) == 4 else 6
        first, last = int.from_bytes(entry.first), int.from_bytes(entry.last)
        ranges[family].append(first, last, numbers[entry.code], line=number)
    return {family: some.flattened()[0] for family, some in ranges.items()}


class _Claims:
    """The claims of overrides, numbered behind those of a dataset.

    Args:
        table: the dataset's claims.
        codes: those of the overrides.

    Attributes:
        added: those that the dataset has not.
    """

    def __init__(self, table: ClaimTable, codes: Sequence[str]) -> None:
        self._networks = table.networks
        self._codes = codes
        self._size = len(table)
        self._numbers: dict[Claim, int] = {}
        self._known: dict[int, int] = {}
        self.added: list[Claim] = []
        at = -1
        while (at := table.statuses.find(Status.OVERRIDE.number, at + 1)) >= 0:
            self._numbers.setdefault(table[at], at)

    def number(self, code: int, under: int) -> int:
        """Return the number of an override's claim.

        Args:
            code: the number of its code, from 1.
            under: the claim that the dataset has there. What it says of networks stays.
        """
        key = code << 16 | under
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._find(code, under)
        return known

    def _find(self, code: int, under: int) -> int:
        if under >= MAX_CLAIMS:  # addresses that carry an IPv4 address
            return under
        bits = 0 if self._networks is None else self._networks[under]
        claim = replace(overriding(self._codes[code - 1]), networks=bits)
        number = self._numbers.setdefault(claim, self._size + len(self.added))
        if number == self._size + len(self.added):
            if number >= MAX_CLAIMS:
                raise SourceError("the dataset has no room for the claims of these overrides")
            self.added.append(claim)
        return number


# --- intervals

_COLUMNS: Final[dict[Family, tuple[str, ...]]] = {
    4: ("ipv4.first", "ipv4.claims"),
    6: ("ipv6.high", "ipv6.low", "ipv6.claims"),
}


def _spliced(base: Image, family: Family, ranges: Ranges, claims: _Claims) -> tuple[bytes, ...]:
    """Return the columns of a family's intervals, in the order of `_COLUMNS`."""
    line = (_Line4 if family == 4 else _Line6)(*map(base.section, _COLUMNS[family]))
    old, size, end = line.claims, len(line.claims), 1 << BITS[family]
    at = known = 0  # all addresses below `at` are written; the interval `known` holds it
    for first, last, code in ranges:
        if first > at:
            line.append(at, old[known])
            before = line.holding(first - 1, known)
            line.copy(known + 1, before + 1)
            at, known = first, before + (before + 1 < size and line.start(before + 1) == first)
        while True:
            line.append(at, claims.number(code, old[known]))
            following = line.start(known + 1) if known + 1 < size else end
            if following > last:
                break
            at, known = following, known + 1
        at, known = last + 1, known + (following == last + 1)
    if at < end:
        line.append(at, old[known])
        line.copy(known + 1, size)
    return line.columns()


class _Line4:
    """The intervals of IPv4: those of a dataset, and new ones that are made of them."""

    def __init__(self, first: memoryview, claims: memoryview) -> None:
        self._first = first.cast("I")
        self.claims = claims.cast("H")
        self._new_first = array("I")
        self._new_claims = array("H")

    def start(self, interval: int) -> int:
        """Return the first address of an interval."""
        return self._first[interval]

    def holding(self, address: int, least: int) -> int:
        """Return the interval that holds an address; it is not before the interval *least*."""
        return bisect_right(self._first, address, least) - 1

    def append(self, first: int, claim: int) -> None:
        """Add an interval, unless the one before it has the same claim."""
        if not self._new_claims or self._new_claims[-1] != claim:
            self._new_claims.append(claim)
            self._new_first.append(first)

    def copy(self, start: int, end: int) -> None:
        """Add intervals of the dataset; the first has another claim than the one before it."""
        self._new_claims.frombytes(self.claims[start:end].cast("B"))
        self._new_first.frombytes(self._first[start:end].cast("B"))

    def columns(self) -> tuple[bytes, ...]:
        """Return the new intervals, in the order of `_COLUMNS`."""
        return self._new_first.tobytes(), self._new_claims.tobytes()


class _Line6:
    """The same of IPv6."""

    def __init__(self, high: memoryview, low: memoryview, claims: memoryview) -> None:
        self._high, self._low = high.cast("Q"), low.cast("Q")
        self.claims = claims.cast("H")
        self._new_high, self._new_low = array("Q"), array("Q")
        self._new_claims = array("H")

    def start(self, interval: int) -> int:
        return self._high[interval] << 64 | self._low[interval]

    def holding(self, address: int, least: int) -> int:
        high, low = address >> 64, address & _LOW
        above = bisect_right(self._high, high, least)
        return bisect_right(self._low, low, bisect_left(self._high, high, least, above), above) - 1

    def append(self, first: int, claim: int) -> None:
        if not self._new_claims or self._new_claims[-1] != claim:
            self._new_claims.append(claim)
            self._new_high.append(first >> 64)
            self._new_low.append(first & _LOW)

    def copy(self, start: int, end: int) -> None:
        self._new_claims.frombytes(self.claims[start:end].cast("B"))
        self._new_high.frombytes(self._high[start:end].cast("B"))
        self._new_low.frombytes(self._low[start:end].cast("B"))

    def columns(self) -> tuple[bytes, ...]:
        return self._new_high.tobytes(), self._new_low.tobytes(), self._new_claims.tobytes()


_LOW: Final = (1 << 64) - 1


# --- subdivisions


def _placed(base: Image, table: ClaimTable, added: Sequence[Claim]) -> dict[str, bytes]:
    """Return the sections that change with the subdivisions that the added claims name."""
    old = table.places
    places = sorted({*old, *(vote.place for claim in added for vote in claim.places)})
    if not places:
        return {}
    changed: dict[str, bytes] = {}
    before = {name: bytes(base.section(name)) if old else b"" for name in PLACE_SECTIONS}
    if not old:
        before["claim.places"] = bytes(len(table))
    elif list(old) != places:
        numbers = array("H", range(0x10000))
        for number, place in enumerate(old, start=FIRST_PLACE):
            numbers[number] = FIRST_PLACE + bisect_left(places, place)
        before["place.vote"] = renumber(before["place.vote"], numbers.tobytes())
        if EVIDENCE in base.sections:
            try:
                changed[EVIDENCE] = renumbered(base.section(EVIDENCE), numbers.tobytes())
            except (LookupError, TypeError, ValueError, RecursionError) as error:
                base.fail(f"section {EVIDENCE}: not of its form ({type(error).__name__})")
    for name, data in place_sections(added, places).items():
        changed[name] = data if name == "place.code" else before[name] + data
    return changed


# --- explanations

_HEAD: Final = Struct("<QQQ")  # numbers of overrides, of IPv4 ranges and of IPv6 ranges


def _encode(entries: dict[int, Override], flat: dict[Family, Ranges]) -> bytes:
    texts = [
        json.dumps(
            {
                "number": number,
                "country": entry.code,
                "comment": entry.comment,
                "expires": entry.expires_text,
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        for number, entry in entries.items()
    ]
    at = {number: position for position, number in enumerate(entries)}
    rows4, rows6 = list(flat[4]), list(flat[6])
    return b"".join(
        (
            _HEAD.pack(len(texts), len(rows4), len(rows6)),
            *(
                array("Q", (row[which] >> shift & _LOW for row in rows6))
                for which in (0, 1)
                for shift in (64, 0)
            ),
            *(array("I", (row[which] for row in rows4)) for which in (0, 1)),
            *(
                array("I", (at[ranges.place(i)[1]] for i in range(len(ranges))))
                for ranges in (flat[6], flat[4])
            ),
            array("I", accumulate(map(len, texts), initial=0)),
            *texts,
        )
    )


class AppliedOverrides:
    """The overrides that were laid over a dataset, for explanations.

    Args:
        section: the bytes of `SECTION`.
        file: digest of the file that they stand in.
        fail: raises the error of a damaged section.
    """

    def __init__(self, section: memoryview, file: str, fail: Callable[[str], NoReturn]) -> None:
        self._file, self._fail = file, fail
        if len(section) < _HEAD.size:
            fail(_DAMAGED)
        texts, ipv4, ipv6 = _HEAD.unpack_from(section)
        at = _HEAD.size

        def take(kind: Literal["I", "Q"], count: int) -> memoryview[int]:
            nonlocal at
            size = count * (8 if kind == "Q" else 4)
            if size > len(section) - at:
                fail(_DAMAGED)
            column = section[at : at + size].cast(kind)
            at += size
            return column

        self._ipv6 = [take("Q", ipv6) for _ in range(4)]
        self._ipv4 = [take("I", ipv4) for _ in range(2)]
        self._entries: dict[Family, memoryview[int]] = {6: take("I", ipv6), 4: take("I", ipv4)}
        self._offsets = take("I", texts + 1)
        self._texts = section[at:]

    def override(self, family: Family, address: int) -> OverrideView | None:
        """Return the override that decides for an address, if one does.

        Raises:
            DatasetError: the section is damaged.
        """
        found = self._range(family, address)
        if found is None:
            return None
        first, last, position = found
        try:
            start, end = self._offsets[position], self._offsets[position + 1]
            entry = json.loads(bytes(self._texts[start:end]))
            return OverrideView(
                country=entry["country"],
                comment=entry["comment"],
                expires=entry["expires"],
                first=address_text(family, first),
                last=address_text(family, last),
                number=entry["number"],
                file=self._file,
            )
        except (IndexError, KeyError, TypeError, ValueError):
            self._fail(_DAMAGED)

    def _range(self, family: Family, address: int) -> tuple[int, int, int] | None:
        if family == 4:
            firsts, lasts = self._ipv4
            at = bisect_right(firsts, address) - 1
            if at < 0:
                return None
            first, last = firsts[at], lasts[at]
        else:
            first_high, first_low, last_high, last_low = self._ipv6
            high, low = address >> 64, address & _LOW
            above = bisect_right(first_high, high)
            at = bisect_right(first_low, low, bisect_left(first_high, high, 0, above), above) - 1
            if at < 0:
                return None
            first = first_high[at] << 64 | first_low[at]
            last = last_high[at] << 64 | last_low[at]
        return (first, last, self._entries[family][at]) if address <= last else None


_DAMAGED: Final = f"section {SECTION}: not of its form"
