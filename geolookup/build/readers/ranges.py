"""The ranges of a source as readers return them, by family, with their locations in its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from geolookup._sweep import Ranges
from geolookup.answer.country_codes import read_code
from geolookup.answer.subdivisions import subdivisions
from geolookup.errors import SourceError

SILENCE = 0
"""The number of no code."""


FIRST_SUBDIVISION = 0x8000
"""The numbers from here on stand for subdivisions; below are pairs of letters."""


def code_number(code: str) -> int:
    """Return the number that stands for the code of a country or subdivision in `Ranges`."""
    return int.from_bytes(code.encode("ascii")) if len(code) == 2 else _numbers()[code]


def code_text(number: int) -> str:
    """Return the code of a number that is not `SILENCE`."""
    if number < FIRST_SUBDIVISION:
        return number.to_bytes(2).decode("ascii")
    return _subdivisions()[number - FIRST_SUBDIVISION]


@cache
def _subdivisions() -> tuple[str, ...]:
    return tuple(subdivisions().parents)


@cache
def _numbers() -> Mapping[str, int]:
    return {code: FIRST_SUBDIVISION + at for at, code in enumerate(_subdivisions())}


def read_code_number(raw: str) -> int:
    """Return the number of a code as a source wrote it, `SILENCE` for what is no country.

    Raises:
        ValueError: not a code.
    """
    code = read_code(raw)
    return SILENCE if code is None else code_number(code)


@dataclass(frozen=True, slots=True, eq=False)
class SourceRanges:
    """The ranges of one source, of both families, in the order of its files.

    Attributes:
        ipv4: ranges of 32 bits.
        ipv6: ranges of 128 bits.
        files: names of the files, by the numbers that the ranges carry.
        lines_left_out: number of lines that could not be read.
    """

    ipv4: Ranges = field(default_factory=lambda: Ranges(32))
    ipv6: Ranges = field(default_factory=lambda: Ranges(128))
    files: tuple[str, ...] = ()
    lines_left_out: int = 0

    def __len__(self) -> int:
        """Return the number of ranges of both families."""
        return len(self.ipv4) + len(self.ipv6)

    @classmethod
    def of(cls, rows: Iterable[tuple[bytes, bytes, str]]) -> SourceRanges:
        """Return the ranges (first, last, code): packed addresses, a code as sources write it.

        Raises:
            SourceError: a row is not valid; the text names it, counted from 1.
        """
        ranges = cls()
        for row, (first, last, code) in enumerate(rows, start=1):
            try:
                if len(first) not in (4, 16) or len(last) != len(first):
                    raise ValueError("first and last are 4 or 16 bytes each")
                family = ranges.ipv4 if len(first) == 4 else ranges.ipv6
                number = read_code_number(code)
                family.append(int.from_bytes(first), int.from_bytes(last), number, line=row)
            except ValueError as error:
                raise SourceError(f"row {row}: {error}") from error
        return ranges

    def location(self, family: Ranges, index: int) -> str:
        """Return the location of a range of `ipv4` or `ipv6`: ``file:line``, or ``row 7``.

        For formats without lines it is the file's name alone.
        """
        file, line = family.place(index)
        if not self.files:
            return f"row {line}"
        return f"{self.files[file]}:{line}" if line else self.files[file]
