"""Reads rosters from files: one address a line, or one column of a CSV file.

Reading is by lines and holds one of them at a time, so a file may have any
size. Positions count addresses from 0 in the file's order. In a plain list
blank lines and lines that begin with "#" are skipped and not counted. In a CSV
file every row after the header is counted, also one whose cell is empty
(an INVALID address), so that position n is row n of the data; only lines
without anything are skipped. Space around an address is part of the file's
layout and dropped; a byte order mark too. Files are UTF-8, or UTF-16 with a
byte order mark.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import BinaryIO, Self

import click

from geolookup._core import parse
from geolookup.errors import RosterError

_LONGEST_LINE = 1 << 20
"""Characters in a line. What has more is no list of addresses, and would fill the memory."""

_LONGEST_ADDRESS = 64
"""Characters: 45 at most, and for link-local addresses a zone."""

_DELIMITERS = ",;\t"

# Header names that mean an address, as _plain writes them. "address" alone may
# be a street, so these two count only where none of the others is there.
_COLUMNS = frozenset({
    "ip", "ipaddress", "ip_address", "ipaddr", "ip_addr", "ipv4", "ipv6", "ip4", "ip6",
    "client_ip", "clientip", "client_address", "client_addr", "remote_ip", "remote_addr",
    "remote_address", "source_ip", "src_ip", "source_address", "peer_ip", "peer_address",
    "user_ip", "participant_ip", "participant_address",
})  # fmt: skip
_WEAK_COLUMNS = frozenset({"address", "addr"})

# A first line may be data, with anybody's details; error texts repeat only what has the
# form of a column's name.
_REPEATABLE = re.compile(r"[A-Za-z][A-Za-z_ -]{0,40}[0-9]{0,2}")


class AddressFile:
    """Addresses of a file, in order. Iterate once, inside of a with statement.

    Args:
        path: the file, or "-" for standard input.
        column: CSV column that holds the addresses; the file is CSV then. None: it
            is CSV if its first line has a comma, semicolon or tab, or is one
            of the usual names of such a column, and the column is found by name.

    Raises:
        click.UsageError: no column of that name, or none that the names show.
        RosterError: the file can't be read as what it seems to be; the text
            names file and line.
    """

    def __init__(self, path: str, column: str | None = None) -> None:
        self.name = "standard input" if path == "-" else path
        self._column = column
        self._line = 0
        self._file: BinaryIO = _standard_input() if path == "-" else open(path, "rb")  # noqa: SIM115
        # No errors: what is not text is not an address, and INVALID is an answer.
        self._stream = io.TextIOWrapper(self._file, _encoding(self._file), errors="replace")

    @property
    def size(self) -> int | None:
        """Bytes in the file; None where that is not known, as for a pipe."""
        try:
            return os.fstat(self._file.fileno()).st_size or None
        except OSError:
            return None

    @property
    def consumed(self) -> int:
        """Bytes read so far."""
        try:
            return self._file.tell()
        except OSError:
            return 0

    def pieces(self, size: int) -> Iterator[list[str]]:
        """Return the addresses in lists of *size*; the last one is shorter.

        Texts that are too long for an address come out empty, which is none
        either, so that a piece's memory follows from its size.
        """
        addresses = (text if len(text) <= _LONGEST_ADDRESS else "" for text in self)
        return iter(lambda: list(islice(addresses, size)), [])

    def __iter__(self) -> Iterator[str]:
        lines = self._lines()
        first = next((line for line in lines if not _skipped(line)), None)
        if first is None:
            if self._column is not None:
                raise click.UsageError(f"{self.name} is empty and has no column to read")
            return iter(())
        header = first.strip()
        is_csv = self._column is not None or any(mark in header for mark in _DELIMITERS)
        if is_csv or _plain(header) in _COLUMNS | _WEAK_COLUMNS:
            return self._cells(chain([first], lines), max(_DELIMITERS, key=first.count))
        return _plain_list(chain([first], lines))

    def lines(self) -> Iterator[str]:
        """Return the addresses of a plain list, even if its first line resembles a header."""
        return _plain_list(self._lines())

    def _lines(self) -> Iterator[str]:
        while line := self._stream.readline(_LONGEST_LINE):
            self._line += 1
            if len(line) == _LONGEST_LINE and not line.endswith("\n"):
                raise RosterError(f"{self.name}:{self._line}: the line is too long for an address")
            yield line

    def _cells(self, lines: Iterator[str], delimiter: str) -> Iterator[str]:
        # Strict: a quote left open would swallow the rest of the file in silence.
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            index = self._index([name.strip() for name in next(rows)])
            for row in rows:
                if row:
                    yield row[index].strip() if index < len(row) else ""
        except csv.Error as error:
            raise RosterError(f"{self.name}:{self._line}: {error}") from None

    def _index(self, header: list[str]) -> int:
        if self._column is not None:
            return self._asked(header, self._column)
        if any(parse(name) is not None for name in header):
            raise click.UsageError(
                f"{self.name}: the first line holds addresses; begin the file with a header, "
                "or write one address a line"
            )
        found = [index for index, name in enumerate(header) if _plain(name) in _COLUMNS]
        if not found:
            found = [index for index, name in enumerate(header) if _plain(name) in _WEAK_COLUMNS]
        if len(found) != 1:
            what = "more than one column seems" if found else "no column seems"
            raise click.UsageError(
                f"{self.name}: {what} to hold addresses; choose with --column: {_listed(header)}"
            )
        return found[0]

    def _asked(self, header: list[str], column: str) -> int:
        found = [index for index, name in enumerate(header) if name == column]
        if not found:
            found = [index for index, name in enumerate(header) if _plain(name) == _plain(column)]
        if len(found) != 1:
            what = "more than one column has" if found else "no column has"
            raise click.UsageError(
                f"{self.name}: {what} the name given as --column; there are: {_listed(header)}"
            )
        return found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stdin is not None and self._file is sys.stdin.buffer:
            self._stream.detach()  # standard input is not ours to close
        else:
            self._stream.close()


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise RosterError("standard input is closed")
    return sys.stdin.buffer


def _encoding(file: BinaryIO) -> str:
    # peek() gives what the first read got, for a pipe or a terminal as well.
    peek = getattr(file, "peek", None)
    mark = peek(2)[:2] if peek else b""
    return "utf-16" if mark in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


def _plain_list(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if not _skipped(line))


def _skipped(line: str) -> bool:
    return line.isspace() or line.startswith("#")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _listed(header: list[str]) -> str:
    names = [name if _REPEATABLE.fullmatch(name) else "(not shown)" for name in header[:30]]
    return ", ".join([*names, "..."] if len(header) > 30 else names)
