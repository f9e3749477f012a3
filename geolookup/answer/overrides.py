"""An operator's overrides: ranges with a code that wins over what sources say.

Those of a manifest are compiled into a dataset. Those of a file of their own are laid over a
dataset when it is opened, see `overlay`. Both are read here.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geolookup._core import parse as parse_address
from geolookup.answer.claims import NO_COUNTRY
from geolookup.answer.country_codes import COUNTRIES, nearest_code
from geolookup.answer.subdivisions import CODE, subdivisions
from geolookup.errors import SourceError
from geolookup.tomlfile import Table, decode, load, read_raw

if TYPE_CHECKING:
    import os

KEYS: Final = ("prefix", "range", "code", "comment", "expires")
"""Of an override."""

_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*override[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's own range, which wins over sources and special-purpose ranges.

    Attributes:
        first: the first address, 4 or 16 bytes in network order.
        last: the last address, of the same family.
        code: a country's or subdivision's code, or ``ZZ`` for no country.
        comment: why, for people.
        expires: the last day on which it applies, UTC, or the moment from which on it does not;
            None: it does not expire. A manifest has days alone.
    """

    first: bytes
    last: bytes
    code: str
    comment: str = ""
    expires: date | datetime | None = None

    def __post_init__(self) -> None:
        if len(self.first) not in (4, 16) or len(self.last) != len(self.first):
            raise SourceError("first and last are 4 or 16 bytes each, and of one family")
        if self.last < self.first:
            raise SourceError("the range ends before it begins")
        check_code(self.code)

    @property
    def end(self) -> float | None:
        """The second since 1970, UTC, from which on it does not apply; None: it does not expire."""
        if isinstance(self.expires, datetime):
            return self.expires.timestamp()
        if self.expires is None or self.expires == date.max:
            return None
        return datetime.combine(self.expires + timedelta(days=1), time(), UTC).timestamp()

    @property
    def expires_text(self) -> str:
        """Its last day as YYYY-MM-DD, or the moment of its end in RFC 3339, UTC; may be empty."""
        if isinstance(self.expires, datetime):
            return self.expires.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return "" if self.expires is None else self.expires.isoformat()


class Overrides:
    """The overrides of a file that act on a dataset as it is opened. Immutable.

    Attributes:
        name: the file's, for error texts.
        digest: SHA-256 of the file: 64 hexadecimal digits.
        entries: in the file's order.
    """

    def __init__(self, name: str, digest: str, entries: Sequence[Override], lines: array[int]):
        self.name = name
        self.digest = digest
        self.entries = tuple(entries)
        self._lines = lines

    @classmethod
    def parse(cls, content: bytes, name: str) -> Overrides:
        """Read the content of a file.

        Raises:
            SourceError: it says what makes no sense. The text has file, line and key, and
                repeats no value.
        """
        text = decode(content, name, SourceError)
        values = load(text, name, SourceError)
        rows = Table(values, f"{name}: ", ("override",), SourceError)
        found = rows.value("override", list, [])
        lines = _lines(text, len(found))
        entries = []
        for number, row in enumerate(found, start=1):
            place = _place(name, lines, number)
            if not isinstance(row, dict):
                raise SourceError(f"{place}: expected tables, each under [[override]]")
            try:
                table = Table(row, f"{place}: ", KEYS, SourceError)
                entries.append(read_override(table, with_times=True))
            except SourceError as error:
                problem = str(error).removeprefix(f"{place}: ")
            else:
                continue
            raise SourceError(_located(name, text, lines, number, problem))
        return cls(name, hashlib.sha256(content).hexdigest(), entries, lines)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Overrides:
        """Read a file.

        Raises:
            SourceError: it can't be read, or as `parse`.
        """
        path = Path(path)
        return cls.parse(read_raw(path, SourceError), str(path))

    def place(self, number: int) -> str:
        """Return where an override stands, by its number from 1: file, line and number."""
        return _place(self.name, self._lines, number)

    def active(self, now: float) -> list[int]:
        """Return the numbers, from 1, of the overrides that have not expired.

        Args:
            now: seconds since 1970, UTC.
        """
        ends = (entry.end for entry in self.entries)
        return [n for n, end in enumerate(ends, start=1) if end is None or now < end]

    def until(self, now: float) -> float | None:
        """Return the second since 1970 at which the next override expires; None: none does."""
        ends = (entry.end for entry in self.entries if entry.expires is not None)
        return min((end for end in ends if end is not None and end > now), default=None)

    def since(self, now: float) -> float | None:
        """Return the second since 1970 at which the last override expired; None: none has."""
        ends = (entry.end for entry in self.entries if entry.expires is not None)
        return max((end for end in ends if end is not None and end <= now), default=None)


def _lines(text: str, expected: int) -> array[int]:
    """Return the line of each override's header; empty: they are written in another form."""
    lines = array("I")
    line, at = 1, 0
    for header in _HEADER.finditer(text):
        line += text.count("\n", at, header.start())
        at = header.start()
        lines.append(line)
    return lines if len(lines) == expected else array("I")


def _place(name: str, lines: array[int], number: int) -> str:
    line = f":{lines[number - 1]}" if lines else ""
    return f"{name}{line}: override {number}"


def _located(name: str, text: str, lines: array[int], number: int, problem: str) -> str:
    """Return the text of an error, which begins with the line of its key where it has one."""
    if not lines:
        return f"{name}: override {number}: {problem}"
    rows, key = text.split("\n"), problem.partition(":")[0]
    first = lines[number - 1]
    end = lines[number] - 1 if number < len(lines) else len(rows)
    for line in range(first, end):
        if rows[line].partition("=")[0].strip(" \t\"'") == key:
            return f"{name}:{line + 1}: override {number}: {problem}"
    return f"{name}:{first}: override {number}: {problem}"


def read_override(table: Table, *, with_times: bool) -> Override:
    """Return the override that a table under ``[[override]]`` describes.

    Args:
        table: its keys are `KEYS`.
        with_times: whether it may expire within a day.

    Raises:
        GeoLookupError: as the table makes it, with the key.
    """
    key = "prefix" if table.has("prefix") else "range"
    if table.has("prefix") and table.has("range"):
        raise table.error("has a prefix and a range; expected one of them")
    text = table.value(key, str)
    with table.locating(key):
        first, last = read_prefix(text) if key == "prefix" else read_range(text)
    code = table.value("code", str)
    with table.locating("code"):
        check_code(code)
    comment = table.value("comment", str, "")
    expires = _expires(table, with_times) if table.has("expires") else None
    with table.locating(key):
        return Override(first, last, code, comment, expires)


def _expires(table: Table, with_times: bool) -> date | datetime:
    if not (with_times and table.has("expires", datetime)):
        return table.value("expires", date)
    moment = table.value("expires", datetime)
    if moment.tzinfo is None:
        raise table.error("expires: a time needs its offset from UTC: 2026-12-01T18:00:00Z")
    return moment


def check_code(code: str) -> None:
    """Refuse what is no code of an override.

    Raises:
        SourceError: it is not one of a country or a subdivision, and not ``ZZ``.
    """
    if CODE.fullmatch(code):
        if code not in subdivisions().parents:
            same = subdivisions().countries.get(code)
            hint = f"; it is the country {same}" if same else ""
            raise SourceError(f"the code is no subdivision of ISO 3166-2{hint}")
    elif code not in COUNTRIES and code != NO_COUNTRY:
        nearest = nearest_code(code)
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise SourceError(f"the code is a country's, a subdivision's, or {NO_COUNTRY}{hint}")


_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


def read_prefix(text: str) -> tuple[bytes, bytes]:
    """Return the first and last address (packed) of a prefix such as ``192.0.2.0/24``.

    Raises:
        SourceError: it can't be read, or has bits set beyond its length. The
            text does not repeat it.
    """
    address, slash, length = text.partition("/")
    first = _parse(address)
    if not slash or _LENGTH.fullmatch(length) is None or int(length) > 8 * len(first):
        raise SourceError("a prefix is an address, a slash and a number of bits")
    rest = (1 << 8 * len(first) - int(length)) - 1
    value = int.from_bytes(first)
    if value & rest:
        raise SourceError("the prefix has bits set beyond its length")
    return first, (value | rest).to_bytes(len(first))


def read_range(text: str) -> tuple[bytes, bytes]:
    """Return the first and last address (packed) of ``192.0.2.1-192.0.2.9``.

    Raises:
        SourceError: it can't be read. The text does not repeat it.
    """
    first, hyphen, last = text.partition("-")
    if not hyphen:
        raise SourceError("a range is an address, a hyphen and an address")
    return _parse(first.strip()), _parse(last.strip())


def _parse(text: str) -> bytes:
    packed = None if "%" in text else parse_address(text)
    if packed is None:
        raise SourceError("an address can't be read")
    return packed
