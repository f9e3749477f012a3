"""The first lines of a file, by which its format is recognised."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from geolookup._core import parse

_SEEN = 1 << 16
"""Bytes that are read for it: tor's files begin with 15 lines of comments."""

NETWORK = ("network", "prefix", "cidr", "ip_prefix", "subnet")
FIRST = (
    "first", "start", "from", "start_ip", "ip_start", "ip_from", "first_ip", "range_start",
    "ip_range_start", "start_address", "begin",
)  # fmt: skip
LAST = (
    "last", "end", "to", "end_ip", "ip_end", "ip_to", "last_ip", "range_end",
    "ip_range_end", "end_address",
)  # fmt: skip
CODE = ("country_code", "country_iso_code", "iso_code", "code", "cc", "alpha2code", "country")
"""Column names, the likeliest first: beside a code column, "country" holds a name."""
SUBDIVISION = (
    "subdivision_code", "subdivision_1_iso_code", "region_code", "subdivision", "state1",
    "stateprov", "state_prov", "state", "region", "region_name", "province",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first lines of a file.

    Attributes:
        lines: up to ten that are neither empty nor comments.
        commented: whether there are comments among them.
    """

    lines: tuple[str, ...]
    commented: bool

    def row(self, separator: str = ",", at: int = 0) -> list[str]:
        """Return the fields of a line, without quotes and spaces around; [] if there is none."""
        if at >= len(self.lines):
            return []
        line = self.lines[at]
        if separator != ",":
            return [field.strip() for field in line.split(separator)]
        try:
            fields = next(csv.reader([line], skipinitialspace=True), [])
        except csv.Error:
            return []
        return [field.strip() for field in fields]

    def header(self) -> list[str]:
        """Return the fields of the first line as names of columns."""
        return [name.casefold() for name in self.row()]

    @property
    def quoted(self) -> bool:
        """Whether a field is quoted in `lines`."""
        return any('"' in line for line in self.lines)


def beginning(head: bytes) -> Beginning:
    """Return the first lines of a file that begins with these bytes."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head[:_SEEN].decode("utf-16", "replace")
    else:
        text = head[:_SEEN].removeprefix(codecs.BOM_UTF8).decode("latin-1")
    # What follows the last line end may be half a line, unless nothing else is there.
    lines = text.split("\n")
    lines = [line.removesuffix("\r") for line in (lines[:-1] or lines)]
    full = [line for line in lines if line.strip()]
    data = [line for line in full if not line.lstrip().startswith("#")]
    return Beginning(tuple(data[:10]), len(data) < len(full))


def column(header: Sequence[str], names: Collection[str]) -> int | None:
    """Return the index of the first of these names that the header has; None: it has none."""
    return next((header.index(name) for name in names if name in header), None)


def is_number(text: str) -> bool:
    """Return whether a text is a decimal number, as long as an address's at most."""
    return text.isascii() and text.isdigit() and len(text) <= 39


def is_address(text: str) -> bool:
    """Return whether a text is an address."""
    return parse(text) is not None


def is_range(fields: Sequence[str]) -> bool:
    """Return whether the first two fields are addresses, or both numbers."""
    if len(fields) < 2:
        return False
    return all(map(is_number, fields[:2])) or all(map(is_address, fields[:2]))


def is_network(text: str) -> bool:
    """Return whether a text is a prefix or an address, bits beyond its length or not."""
    address, slash, length = text.partition("/")
    return is_address(address) and (not slash or is_number(length))


def is_code(text: str) -> bool:
    """Return whether a text may be a code, or what stands for none."""
    return len(text) <= 4 and (not text or text.isalpha() or text in {"??", "--", "-"})
