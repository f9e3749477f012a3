"""Evidence: what each source says, kept beside the claims so that answers can be explained.

A section of its own in the dataset file, which is read only for explanations.
docs/dataset-format.md describes it, and `geolookup.build.evidence_section` writes it.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, NoReturn

from geolookup.answer.intervals import (
    Family,
    address_text,
    covering_ipv4,
    covering_ipv6,
    joined,
    ranges_of,
)
from geolookup.errors import DatasetError

SECTION: Final = "evidence"
"""Name of the section in a dataset file."""

FIRST_PLACE: Final = 0x8000
"""The numbers from here on are positions among a dataset's subdivisions; 0: silence; the others
are two letters."""

ALIGNMENT: Final = 64
"""Columns begin at multiples of this many bytes."""


class Statement(NamedTuple):
    """What one source says of an address.

    Attributes:
        place: the code of a country or subdivision; None: the source is silent.
        first: first address of its range, or of the gap between its ranges.
            Where a more specific range of the same source cuts a range, this
            is the piece that holds the address.
        last: last address of the same.
    """

    place: str | None
    first: int
    last: int

    @property
    def country(self) -> str | None:
        """The country's code."""
        return self.place and self.place[:2]

    @property
    def region(self) -> str:
        """The subdivision's code, or nothing."""
        return self.place if self.place is not None and "-" in self.place else ""


@dataclass(frozen=True, slots=True)
class OverrideView:
    """The operator's override that decided.

    Attributes:
        country: its code, which may be a subdivision's; "ZZ": no country.
        comment: the operator's reason.
        expires: the last day on which it applies (YYYY-MM-DD), the moment of its end
            (RFC 3339), or empty.
        first: first address of its range, or of the piece of it that holds the
            address, where a more specific override cuts it.
        last: last address of the same.
        number: its position in the file of overrides, from 1; 0: it stands in the manifest that
            the dataset was compiled from.
        file: SHA-256 of that file: 64 hexadecimal digits, or nothing.
    """

    country: str
    comment: str
    expires: str
    first: str = field(repr=False)
    last: str = field(repr=False)
    number: int = 0
    file: str = ""


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A row of the special-purpose registries.

    Attributes:
        prefix: in CIDR notation.
        name: what it is for.
        rfc: what defines it.
    """

    prefix: str
    name: str
    rfc: str


class Evidence:
    """The evidence of one dataset. Immutable; it keeps the section's memory.

    Attributes:
        sources: what each source says, in order of precedence.

    Raises:
        DatasetError: the section's content is not of its form.
    """

    def __init__(self, section: memoryview, name: str, places: Sequence[str] = ()) -> None:
        """Read a section.

        Args:
            section: its bytes.
            name: the file's name, for error texts.
            places: the dataset's subdivisions.
        """
        import ipaddress  # noqa: PLC0415 - answers don't need it, and import this module

        self._name = name
        try:
            size = int.from_bytes(section[:8], "little")
            if size > len(section) - 8:
                raise ValueError("the index is longer than the section")
            index = json.loads(bytes(section[8 : 8 + size]))
            columns = section[8 + size + -(8 + size) % ALIGNMENT :]
            self.networks = tuple(
                SourceEvidence(entry, columns, name, ()) for entry in index.get("networks", ())
            )
            self.sources = tuple(
                SourceEvidence(entry, columns, name, places) for entry in index["sources"]
            )
            self._overrides: list[dict[str, str]] = index["overrides"]
            self._override_ranges: dict[Family, list[tuple[int, int, int]]] = {
                4: _numbers(index["override_ranges"]["ipv4"]),
                6: _numbers(index["override_ranges"]["ipv6"]),
            }
            rows = [RegistryEntry(*row) for row in index["special_purpose"]]
            self._registry = [(ipaddress.ip_network(row.prefix), row) for row in rows]
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            self._fail(error)

    def override(self, family: Family, address: int) -> OverrideView | None:
        """Return the override that decides for an address, if one does."""
        ranges = self._override_ranges[family]
        at = bisect_right(ranges, address, key=lambda row: row[0]) - 1
        if at < 0 or ranges[at][1] < address:
            return None
        first, last, number = ranges[at]
        try:
            row = self._overrides[number]
            return OverrideView(
                country=row["country"],
                comment=row["comment"],
                expires=row["expires"],
                first=address_text(family, first),
                last=address_text(family, last),
            )
        except (IndexError, KeyError, TypeError) as error:
            self._fail(error)

    def special_purpose(self, family: Family, address: int) -> RegistryEntry | None:
        """Return the most specific registry row that holds an address, if any."""
        holding = [
            (network.prefixlen, row)
            for network, row in self._registry
            if network.version == family
            and int(network.network_address) <= address <= int(network.broadcast_address)
        ]
        return max(holding, key=lambda pair: pair[0])[1] if holding else None

    def _fail(self, error: Exception) -> NoReturn:
        raise _damaged(self._name, type(error).__name__) from error


def renumbered(section: memoryview, numbers: bytes) -> bytes:
    """Return a section with other numbers for what its sources name.

    Args:
        section: its bytes.
        numbers: the new number (uint16, little-endian) by old number.

    Raises:
        LookupError, TypeError, ValueError: the section is damaged.
    """
    from geolookup._sweep import renumber  # noqa: PLC0415 - answers don't need it

    changed = bytearray(section)
    size = int.from_bytes(section[:8], "little")
    columns = 8 + size + -(8 + size) % ALIGNMENT
    for entry in json.loads(bytes(section[8 : 8 + size]))["sources"]:
        for family in ("ipv4", "ipv6"):
            *_, offset, length = entry[family]
            place = slice(columns + offset, columns + offset + length)
            changed[place] = renumber(bytes(section[place]), numbers)
    return bytes(changed)


def _damaged(name: str, what: str) -> DatasetError:
    return DatasetError(f"{name}: section {SECTION}: not of its form ({what})")


def _numbers(listed: list[tuple[str, str, int]]) -> list[tuple[int, int, int]]:
    return [(int(first, 16), int(last, 16), number) for first, last, number in listed]


class SourceEvidence:
    """What one source says of all addresses.

    Attributes:
        name: the source's name.
    """

    def __init__(
        self, entry: dict[str, Any], columns: memoryview, file: str, places: Sequence[str]
    ) -> None:
        self.name: str = entry["name"]
        self._file = file
        self._places = places
        self._ipv4 = _take(columns, entry["ipv4"], "I", "H")
        self._ipv6 = _take(columns, entry["ipv6"], "Q", "Q", "H")
        # Files of before have none: their intervals are the source's ranges.
        self._ranges: dict[Family, _Ranges | None] = {
            4: _take_ranges(columns, entry.get("ipv4_ranges")),
            6: _take_ranges(columns, entry.get("ipv6_ranges")),
        }

    def intervals(self, family: Family) -> Iterator[tuple[int, int, str | None]]:
        """Yield first and last address and the country (None: silent), ascending, without gaps.

        Neighbours may name the same country: where they name different parts of it.
        """
        if family == 4:
            firsts, codes = self._ipv4
            starts: Iterable[int] = firsts
        else:
            highs, lows, codes = self._ipv6
            starts = joined(highs, lows)
        texts = {code: (place := self._place(code)) and place[:2] for code in set(codes)}
        return ranges_of(family, starts, map(texts.__getitem__, codes))

    def statement(self, family: Family, address: int) -> Statement:
        """Return what it says of one address.

        Raises:
            DatasetError: what is kept of its ranges is damaged.
        """
        number, first, last = self.numbered(family, address)
        return Statement(self._place(number), first, last)

    def numbered(self, family: Family, address: int) -> tuple[int, int, int]:
        """Return the number that holds for an address, and the first and last of its range.

        It is that of a code, of a list of networks the bits of its kinds; 0: nothing is said.

        Raises:
            DatasetError: as `statement`.
        """
        if family == 4:
            firsts, codes = self._ipv4
            at, first, last = covering_ipv4(firsts, address)
        else:
            highs, lows, codes = self._ipv6
            at, first, last = covering_ipv6(highs, lows, address)
        ranges = self._ranges[family]
        if ranges is not None:
            try:
                first, last = ranges.covering(at, first, last, address)
            except ValueError as error:
                raise _damaged(self._file, str(error)) from error
        return codes[at], first, last

    def _place(self, number: int) -> str | None:
        if number < FIRST_PLACE or not self._places:
            return number.to_bytes(2).decode("ascii", "replace") if number else None
        if number - FIRST_PLACE >= len(self._places):
            raise _damaged(self._file, "a subdivision that the dataset has not")
        return self._places[number - FIRST_PLACE]


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Where the ranges begin that intervals were put together from.

    Attributes:
        merged: the numbers of these intervals, ascending.
        starts: of each of them, where its boundaries begin among all bytes.
        boundaries: see docs/dataset-format.md.
    """

    merged: memoryview[int]
    starts: memoryview[int]
    boundaries: memoryview[int]

    def covering(self, interval: int, first: int, last: int, address: int) -> tuple[int, int]:
        """Return first and last address of the range in an interval that holds an address.

        Raises:
            ValueError: the boundaries are damaged.
        """
        number = bisect_left(self.merged, interval)
        if number == len(self.merged) or self.merged[number] != interval:
            return first, last
        after = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.boundaries)
        coded = self.boundaries[self.starts[number] : after]
        at = 0
        while at < len(coded):
            zeros, more, shift = coded[at], 0, 0
            at += 1
            while at < len(coded) and shift < _LONGEST:
                more |= (coded[at] & 0x7F) << shift
                shift += 7
                at += 1
                if coded[at - 1] < 0x80:
                    break
            boundary = (first >> zeros) + more << zeros
            if not first < boundary <= last:
                raise ValueError("a boundary lies outside of its interval")
            if boundary > address:
                return first, boundary - 1
            first = boundary
        return first, last


_LONGEST: Final = 7 * 19
"""Bits that 128 bits take at 7 a byte."""


def _take_ranges(columns: memoryview, places: list[int] | None) -> _Ranges | None:
    if places is None:
        return None
    merged, starts, boundaries = _cut(columns, places, "I", "I", "B")
    if len(merged) != len(starts):
        raise ValueError("columns of different lengths")
    return _Ranges(merged, starts, boundaries)


def _take(
    columns: memoryview, places: list[int], *kinds: Literal["H", "I", "Q"]
) -> tuple[memoryview[int], ...]:
    taken = _cut(columns, places, *kinds)
    if len({len(column) for column in taken}) != 1 or any(column[0] for column in taken[:-1]):
        raise ValueError("columns of different lengths, or that do not begin at 0")
    return taken


def _cut(
    columns: memoryview, places: list[int], *kinds: Literal["B", "H", "I", "Q"]
) -> tuple[memoryview[int], ...]:
    cut: list[memoryview[int]] = []
    for kind, offset, size in zip(kinds, places[::2], places[1::2], strict=True):
        if not (0 <= offset <= offset + size <= len(columns)):
            raise ValueError("a column lies outside of the section")
        cut.append(columns[offset : offset + size].cast(kind))
    return tuple(cut)
