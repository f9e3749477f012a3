"""What all readers share: a file being read, an operator's options, lines that make no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from geolookup._sweep import Dialect, RangeLines
from geolookup.build.readers.decompression import Part, text
from geolookup.build.readers.ranges import SILENCE, SourceRanges, read_code_number
from geolookup.errors import SourceError

CountryFrom = Literal["country", "registered_country"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a manifest says of how a source is read, besides its format.

    Attributes:
        country: the code of all ranges, for formats whose lines have none.
        country_from: for MaxMind's data, which of its two countries counts: where
            the addresses are used, or where they were registered.
    """

    country: str = ""
    country_from: CountryFrom = "country"


class Faults:
    """The lines that could not be read, and how many may be.

    Args:
        allowed: after more than so many the reading ends with an error.

    Attributes:
        found: the lines that were left out.
        notes: what else an operator should know of what was read.
    """

    def __init__(self, allowed: int = 0) -> None:
        self._allowed = allowed
        self.found: list[str] = []
        self.notes: list[str] = []

    @property
    def left(self) -> int:
        """How many more are allowed."""
        return self._allowed - len(self.found)

    def add(self, place: str, what: str) -> None:
        """Note a fault. SourceError: it is one too many."""
        if self.left <= 0:
            before = f" (after {self._allowed:,} that were left out)" if self._allowed else ""
            raise SourceError(f"{place}: {what}{before}")
        self.found.append(f"{place}: {what}; left out")


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A source being read.

    Attributes:
        into: its ranges.
        options: an operator's options.
        faults: lines that could not be read.
        locations: numbers of codes by MaxMind's names of places, as its tables have them.
    """

    into: SourceRanges
    options: Options = field(default_factory=Options)
    faults: Faults = field(default_factory=Faults)
    locations: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One file of a source being read.

    Attributes:
        part: where it is.
        number: its number in the source.
        head: what its plain content begins with.
        on_read: told of the progress.
    """

    part: Part
    number: int
    head: bytes
    on_read: Callable[[int], None] | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.part.name

    def blocks(self) -> Iterator[bytes]:
        """Yield its plain content."""
        return self.part.blocks(self.on_read)


def read_unchecked_code(raw: str, file: File, reading: Reading) -> int:
    """Return the number of a code that a publisher has from others, and did not check.

    Two letters that are no country's are silence, and noted.

    Raises:
        ValueError: not two letters.
    """
    try:
        return read_code_number(raw)
    except ValueError:
        if len(raw) != 2 or not (raw.isascii() and raw.isalpha()):
            raise
    reading.faults.notes.append(f"{file.name}: {raw} is no country's code, and read as silence")
    return SILENCE


def read_lines(
    file: File,
    reading: Reading,
    dialect: Dialect | None = None,
    *,
    skip: int = 0,
    read_code: Callable[[str], int] = read_code_number,
) -> None:
    """Add the ranges of a file of lines.

    Args:
        file: the file.
        reading: its source.
        dialect: how lines are read; None: as ``first,last,code``.
        skip: lines at the beginning that are not read.
        read_code: the number of a code as it stands in a line.

    Raises:
        SourceError: a line too many can't be read: ``name:line:column: what``.
    """
    lines = RangeLines(
        reading.into.ipv4,
        reading.into.ipv6,
        read_code,
        dialect=dialect,
        skip=skip,
        file=file.number,
        allowed_faults=reading.faults.left,
    )
    going_on = True
    for block in text(file.blocks(), file.name):
        going_on = lines.feed(block)
        if not going_on:
            break
    else:
        going_on = lines.finish()
    for line, column, what in lines.faults:
        reading.faults.add(f"{file.name}:{line}:{column}", what)
    if not going_on:
        line, column, what = lines.faults[-1]
        raise SourceError(f"{file.name}:{line}:{column}: {what}")
