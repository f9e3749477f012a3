"""Evidence: what each source says, kept beside the claims so that answers can be explained.

A section of its own in the dataset file, read when something is to be explained
and at no other time. docs/dataset-format.md describes it, and
`geolookup.build.evidence_section` writes it.
"""

from __future__ import annotations

import ipaddress
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, NoReturn

from geolookup.answer.intervals import covering_ipv4, covering_ipv6
from geolookup.errors import DatasetError

SECTION: Final = "evidence"
"""Name of the section in a dataset file."""

ALIGNMENT: Final = 64
"""Columns begin at multiples of this many bytes."""

Family = Literal[4, 6]


class Says(NamedTuple):
    """What one source says of an address.

    Attributes:
        source: its name.
        country: the code; None: it is silent.
        first: first address of its range, or of the gap between its ranges.
            Where a more specific range of the same source cuts a range, this
            is the piece that holds the address.
        last: last address of the same.
    """

    source: str
    country: str | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """An operator's override.

    Attributes:
        country: its code; "ZZ": no country.
        comment: why, as the operator wrote it.
        expires: the last day on which it applies (YYYY-MM-DD), or empty.
        first: first address of its range, or of the piece of it that holds the
            address, where a more specific override cuts it.
        last: last address of the same.
    """

    country: str
    comment: str
    expires: str
    first: int
    last: int


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

    Raises:
        DatasetError: the section's content is not of its form.
    """

    def __init__(self, section: memoryview, name: str) -> None:
        self._name = name
        try:
            size = int.from_bytes(section[:8], "little")
            if size > len(section) - 8:
                raise ValueError("the index is longer than the section")
            index = json.loads(bytes(section[8 : 8 + size]))
            columns = section[8 + size + -(8 + size) % ALIGNMENT :]
            self._sources = tuple(SourceLine(entry, columns) for entry in index["sources"])
            self._overrides: list[dict[str, str]] = index["overrides"]
            self._override_ranges: dict[Family, list[tuple[int, int, int]]] = {
                4: _numbers(index["override_ranges"]["ipv4"]),
                6: _numbers(index["override_ranges"]["ipv6"]),
            }
            rows = [RegistryEntry(*row) for row in index["special_purpose"]]
            self._registry = [(ipaddress.ip_network(row.prefix), row) for row in rows]
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            self._fail(error)

    def sources(self, family: Family, address: int) -> tuple[Says, ...]:
        """Return what each source says of an address, in their order of precedence."""
        return tuple(source.says(family, address) for source in self._sources)

    @property
    def lines(self) -> tuple[SourceLine, ...]:
        """What each source says of the whole address line, in their order of precedence."""
        return self._sources

    def override(self, family: Family, address: int) -> OverrideEntry | None:
        """Return the override that decides for an address, if one does."""
        ranges = self._override_ranges[family]
        at = bisect_right(ranges, address, key=lambda row: row[0]) - 1
        if at < 0 or ranges[at][1] < address:
            return None
        first, last, number = ranges[at]
        try:
            row = self._overrides[number]
            return OverrideEntry(row["country"], row["comment"], row["expires"], first, last)
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
        raise DatasetError(
            f"{self._name}: section {SECTION}: not of its form ({type(error).__name__})"
        ) from error


def _numbers(listed: list[tuple[str, str, int]]) -> list[tuple[int, int, int]]:
    return [(int(first, 16), int(last, 16), number) for first, last, number in listed]


class SourceLine:
    """What one source says of the whole address line.

    Attributes:
        name: the source's name.
    """

    def __init__(self, entry: dict[str, Any], columns: memoryview) -> None:
        self.name: str = entry["name"]
        self._ipv4 = _take(columns, entry["ipv4"], "I", "H")
        self._ipv6 = _take(columns, entry["ipv6"], "Q", "Q", "H")

    def intervals(self, family: Family) -> Iterator[tuple[int, int, str | None]]:
        """Yield first and last address and the code (None: silent), ascending, without gaps."""
        if family == 4:
            firsts, codes = self._ipv4
            starts: Iterable[int] = firsts
        else:
            highs, lows, codes = self._ipv6
            starts = (high << 64 | low for high, low in zip(highs, lows, strict=True))
        said = {
            code: code.to_bytes(2).decode("ascii", "replace") if code else None
            for code in set(codes)
        }
        pairs = zip(starts, codes, strict=True)
        first, code = next(pairs)
        for following, other in pairs:
            yield first, following - 1, said[code]
            first, code = following, other
        yield first, (1 << (32 if family == 4 else 128)) - 1, said[code]

    def says(self, family: Family, address: int) -> Says:
        """Return what it says of one address."""
        if family == 4:
            firsts, codes = self._ipv4
            at, first, last = covering_ipv4(firsts, address)
        else:
            highs, lows, codes = self._ipv6
            at, first, last = covering_ipv6(highs, lows, address)
        code = codes[at]
        country = code.to_bytes(2).decode("ascii", "replace") if code else None
        return Says(self.name, country, first, last)


def _take(
    columns: memoryview, places: list[int], *kinds: Literal["H", "I", "Q"]
) -> tuple[memoryview[int], ...]:
    taken: list[memoryview[int]] = []
    for kind, offset, size in zip(kinds, places[::2], places[1::2], strict=True):
        if not (0 <= offset <= offset + size <= len(columns)):
            raise ValueError("a column lies outside of the section")
        taken.append(columns[offset : offset + size].cast(kind))
    if len({len(column) for column in taken}) != 1 or any(column[0] for column in taken[:-1]):
        raise ValueError("columns of different lengths, or that do not begin at 0")
    return tuple(taken)
