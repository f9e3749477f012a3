"""What all readers share: files and state of a source being read, options, unreadable lines."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geolookup._sweep import Dialect, RangeLines
from geolookup.answer.claims import Depth
from geolookup.build.readers.decompression import Part, text
from geolookup.build.readers.places import Places
from geolookup.build.readers.ranges import SILENCE, SourceRanges, read_code_number
from geolookup.errors import SourceError

CountryFrom = Literal["country", "registered_country"]


@dataclass(frozen=True, slots=True)
class Options:
    """A manifest's options for reading a source, besides the format.

    Attributes:
        country: the code of all ranges, for formats whose lines have none.
        country_from: for MaxMind's data, which of its two countries counts: where
            the addresses are used, or where they were registered.
        depth: whether subdivisions are read, too.
    """

    country: str = ""
    country_from: CountryFrom = "country"
    depth: Depth = "country"


class Faults:
    """The lines that could not be read, and their limit.

    Args:
        allowed: number of faults that are accepted. One more ends reading with an error.

    Attributes:
        found: the lines that were left out.
        notes: what else an operator should know about the files.
    """

    def __init__(self, allowed: int = 0) -> None:
        self._allowed = allowed
        self.found: list[str] = []
        self.notes: list[str] = []

    @property
    def left(self) -> int:
        """Number of further faults that are allowed."""
        return self._allowed - len(self.found)

    def add(self, location: str, what: str) -> None:
        """Record a fault. SourceError: it is one more than allowed."""
        if self.left <= 0:
            before = f" (after {self._allowed:,} that were left out)" if self._allowed else ""
            raise SourceError(f"{location}: {what}{before}")
        self.found.append(f"{location}: {what}; left out")


@dataclass(frozen=True, slots=True, eq=False)
class ReadState:
    """What the files of one source share while they are read.

    Attributes:
        into: the source's ranges so far.
        options: an operator's options.
        faults: lines that could not be read.
        geonames: numbers of codes by ``geoname_id``, from MaxMind's location tables.
        places: reads subdivisions, and keeps those that it does not know.
    """

    into: SourceRanges
    options: Options = field(default_factory=Options)
    faults: Faults = field(default_factory=Faults)
    geonames: dict[str, int] = field(default_factory=dict)
    places: Places = field(default_factory=Places)


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One file of a source being read.

    Attributes:
        part: the file on disk, or the member of an archive.
        number: its number in the source.
        head: the beginning of its decompressed content.
        on_read: called with the number of bytes read so far.
    """

    part: Part
    number: int
    head: bytes
    on_read: Callable[[int], None] | None = None

    @property
    def name(self) -> str:
        """Its name in error texts."""
        return self.part.name

    def blocks(self) -> Iterator[bytes]:
        """Yield its decompressed content."""
        return self.part.blocks(self.on_read)

    def content(self, largest: int) -> bytearray:
        """Return its decompressed content.

        Args:
            largest: bytes that it may have.

        Raises:
            SourceError: it has more.
        """
        content = bytearray()
        for block in self.blocks():
            content += block
            if len(content) > largest:
                raise SourceError(f"{self.name}: larger than such databases are")
        return content

    @contextlib.contextmanager
    def unpacked(self, name: str) -> Iterator[Path]:
        """Have its decompressed content in a temporary file of this name, for who needs a path.

        Raises:
            SourceError: there is no room for it, or the like.
        """
        with tempfile.TemporaryDirectory(prefix="geolookup-") as folder:
            path = Path(folder, name)
            try:
                with path.open("wb") as plain:
                    plain.writelines(self.blocks())
            except OSError as error:
                what = os.strerror(error.errno or 0)
                raise SourceError(
                    f"{self.name}: can't be unpacked into {folder}: {what}"
                ) from error
            yield path


def read_unchecked_code(raw: str, file: SourceFile, state: ReadState) -> int:
    """Return the number of a code that a publisher took over without checking it.

    Two letters that are no country's code count as silence, with a note.

    Raises:
        ValueError: not two letters.
    """
    try:
        return read_code_number(raw)
    except ValueError:
        if len(raw) != 2 or not (raw.isascii() and raw.isalpha()):
            raise
    state.faults.notes.append(f"{file.name}: {raw} is no country's code, and read as silence")
    return SILENCE


def read_lines(
    file: SourceFile,
    state: ReadState,
    dialect: Dialect | None = None,
    *,
    skip: int = 0,
    read_code: Callable[[str], int] = read_code_number,
) -> None:
    """Add the ranges of a file of lines, with a subdivision if the dialect has a column for it.

    Args:
        file: the file.
        state: its source's.
        dialect: how lines are read; None: as ``first,last,code``.
        skip: lines at the beginning that are not read.
        read_code: returns the number of a code as a line has it.

    Raises:
        SourceError: one more line than allowed can't be read: ``name:line:column: what``.
    """
    lines = RangeLines(
        state.into.ipv4,
        state.into.ipv6,
        read_code,
        dialect=dialect,
        skip=skip,
        file=file.number,
        allowed_faults=state.faults.left,
        read_place=state.places.read,
    )
    more_allowed = True
    for block in text(file.blocks(), file.name):
        more_allowed = lines.feed(block)
        if not more_allowed:
            break
    else:
        more_allowed = lines.finish()
    for line, column, what in lines.faults:
        state.faults.add(f"{file.name}:{line}:{column}", what)
    if not more_allowed:
        line, column, what = lines.faults[-1]
        raise SourceError(f"{file.name}:{line}:{column}: {what}")
