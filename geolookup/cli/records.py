"""Reads files of records that have an address each, and writes records with further columns.

Four kinds of files, told apart by how they begin: a list of addresses, one a line; CSV
with a header; JSON lines; Parquet. Lines of any other form (logs) are read by an explicit
pattern. Text may be compressed with gzip, bzip2, xz or zstd; it is UTF-8, or UTF-16 with a
byte order mark. All are read as streams in batches, so a file may have any size.

Positions count addresses from 0 in the file's order. In a plain list blank lines and lines
that begin with "#" are left out. Elsewhere every record is counted, also one whose value is
empty or missing (an INVALID address), so that position n is record n of the data.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol, Self

import click

from geolookup._core import parse
from geolookup.errors import MissingExtraError, NoRosterError, RosterError

_LONGEST_LINE = 1 << 20
"""Characters in a line. What has more is no record, and would fill the memory."""

_LONGEST_ADDRESS = 64
"""Characters: 45 at most, and for link-local addresses a zone."""

_DELIMITERS = ",;\t|"

# Header names that mean an address, as _plain writes them. "address" alone may
# be a street, so these two count only where none of the others is there.
_COLUMNS = frozenset(
    {"ip", "ipaddress", "ip_address", "ipaddr", "ip_addr", "ipv4", "ipv6", "ip4", "ip6"}
    | {f"{who}_{what}" for who in ("client", "remote", "source", "peer", "user", "participant")
       for what in ("ip", "addr", "address")}
    | {"clientip", "src_ip"}
)  # fmt: skip
_WEAK_COLUMNS = frozenset({"address", "addr"})

# A first line may be data and hold anything about anybody; only what looks like
# a column's name is repeated.
_REPEATABLE = re.compile(r"[A-Za-z][A-Za-z_ -]{0,40}[0-9]{0,2}")

_LOG_LINE = re.compile(r"[0-9A-Fa-f.:]{3,45} \S+ \S+ \[")
"""How lines begin in the common log format of web servers."""

_MAGIC = {
    b"PK\3\4": "a zip archive or a spreadsheet",
    b"\x89GLK": "a geolookup dataset",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
}
_PARQUET = b"PAR1"
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")

_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")

FORMS: Final = ("address", "ip:port", "x-forwarded-for")
"""What a value may be: an address alone; with a port, as ``192.0.2.1:443`` or
``[2001:db8::1]:443``; or a list separated by commas, of which the first counts."""


class Batch(Protocol):
    """Some records of a file, in order."""

    @property
    def addresses(self) -> Sequence[str]:
        """The address of each; empty where it has none."""

    @property
    def roster(self) -> Any:
        """The same as `Dataset.classify` takes it most quickly. It has slices."""

    @property
    def size(self) -> int:
        """Number of records."""

    def text(self, at: int) -> str:
        """Return what the record at a position has in place of an address."""

    def column(self, name: str, option: str) -> list[str]:
        """Return the text of another column of each, such as an id, which an option names."""


class Writer(Protocol):
    """Writes records in the form in which they were read."""

    def write(self, batch: Any, added: Mapping[str, Any], chosen: Sequence[int]) -> None:
        """Write the records at the positions *chosen*, with further columns by name.

        Their values are str; where `RecordFile.is_binary`, they may be arrays of Arrow.
        """

    def close(self) -> None:
        """Finish the file."""


class _Kind(Protocol):
    """How the records of one kind of file are read and written."""

    is_binary: bool
    """Whether its records are columns of Arrow, and no text."""

    def batches(self, size: int) -> Iterator[Batch]: ...
    def writer(self, out: BinaryIO, added: Sequence[str]) -> Writer: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a record is its address.

    Attributes:
        column: name of a column; None: by the usual names.
        pattern: a regular expression whose group "address", or else its first group,
            is the address; the records are lines.
        form: one of `FORMS`.
    """

    column: str | None = None
    pattern: re.Pattern[str] | None = None
    form: str = "address"

    def address(self, text: object) -> str:
        """Return the address in a value; "", which is none, where it has none."""
        if not isinstance(text, str):
            return ""
        text = text.strip()
        if self.form == "x-forwarded-for":
            text = text.partition(",")[0].strip().strip('"')
        if self.form != "address":
            found = _PORT.fullmatch(text)
            # An IPv6 address without brackets has no port: its last group may look like one.
            if found is not None:
                text = found[1] or found[2]
            elif self.form == "ip:port":
                return ""
        return text if len(text) <= _LONGEST_ADDRESS and text.isascii() else ""


class RecordFile:
    """A file of records. Iterate once, inside of a with statement.

    Args:
        path: the file, or "-" for standard input.
        selection: which part of a record is its address.

    Raises:
        click.UsageError: no column of that name, or none that can be told from the names.
        RosterError: the file can't be read as what it seems to be; the text names file
            and line. `NoRosterError`: it is no file of records at all.
        MissingExtraError: Parquet or zstd, and the package for it is missing.
    """

    def __init__(self, path: str, selection: Selection | None = None) -> None:
        self.name = "standard input" if path == "-" else path
        self._selection = selection or Selection()
        self._raw: BinaryIO = _standard_input() if path == "-" else open(path, "rb")  # noqa: SIM115
        self._line = 0
        self._stream: io.TextIOWrapper | None = None
        self._done: Callable[[], int] = self._told
        self._kind: _Kind | None = None

    @property
    def is_binary(self) -> bool:
        """Whether its records are no text."""
        return self._opened().is_binary

    @property
    def size(self) -> int | None:
        """Bytes in the file; None where that is not known, as for a pipe."""
        try:
            return os.fstat(self._raw.fileno()).st_size or None
        except OSError:
            return None

    @property
    def consumed(self) -> int:
        """Bytes read so far; of a pipe, lines."""
        return self._done()

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the records in batches of *size*; the last one is shorter."""
        return self._opened().batches(size)

    def pieces(self, size: int) -> Iterator[Any]:
        """Yield the addresses alone, in batches that `Dataset.classify` takes."""
        return (batch.roster for batch in self.batches(size))

    def addresses(self) -> Iterator[str]:
        """Yield the addresses of a plain list one by one, whatever its first line looks like."""
        self._stream = self._text(self._raw)
        return (line.strip() for line in self._lines(self._stream) if not _skipped(line))

    def writer(self, out: BinaryIO, added: Sequence[str] = ()) -> Writer:
        """Return what writes records of this file, with the columns *added*, to *out*."""
        return self._opened().writer(out, added)

    def _told(self) -> int:
        try:
            return self._raw.tell()
        except OSError:
            return self._line  # of a pipe

    def _opened(self) -> _Kind:
        if self._kind is None:
            self._kind = self._detect()
        return self._kind

    def _detect(self) -> _Kind:
        beginning = self._beginning(self._raw)
        if beginning.startswith(_PARQUET):
            try:
                # An extra, and large.
                from geolookup.cli.parquet_records import ParquetRecords  # noqa: PLC0415
            except ModuleNotFoundError:
                raise MissingExtraError(f"{self.name}: Parquet", "pyarrow", "parquet") from None
            return ParquetRecords(self, self._selection)
        stream = self._raw
        if beginning.startswith(_COMPRESSED):
            # Takes a while to import, and most files are plain.
            from geolookup.build.readers.decompression import opened  # noqa: PLC0415

            stream = opened(self._raw, self.name)
            beginning = self._beginning(stream)
        self._refuse(beginning)
        self._stream = self._text(stream)
        lines = self._lines(self._stream)
        if self._selection.pattern is not None:
            return _Lines(lines, self._selection, self._selection.pattern)
        first = next((line for line in lines if not _skipped(line)), None)
        if first is None:
            if self._selection.column is not None:
                raise click.UsageError(f"{self.name} is empty and has no column to read")
            return _Lines(iter(()), self._selection, None)
        if first.lstrip().startswith("{"):
            return _JsonLines(self, chain([first], lines), self._selection)
        if first.lstrip().startswith("["):
            raise NoRosterError(
                f"{self.name}: is a JSON array; write an object a line, as 'jq -c .[]' does"
            )
        if _LOG_LINE.match(first):
            raise NoRosterError(
                f"{self.name}: is a web server's log; say where the address is, such as with"
                " --pattern '^(\\S+)'"
            )
        header = first.strip()
        is_csv = self._selection.column is not None or any(mark in header for mark in _DELIMITERS)
        if self._selection.form == "x-forwarded-for" and self._selection.column is None:
            is_csv = is_csv and _plain(header.split(",")[0]).isidentifier()
        if is_csv or _plain(header) in _COLUMNS | _WEAK_COLUMNS:
            delimiter = max(_DELIMITERS, key=first.count)
            return _Csv(self, chain([first], lines), delimiter, self._selection)
        return _Lines(
            (line for line in chain([first], lines) if not _skipped(line)), self._selection, None
        )

    def _beginning(self, file: Any) -> bytes:
        # peek() gives what the first read got, for a pipe or a terminal as well.
        peek = getattr(file, "peek", None)
        found: bytes = peek(512) if peek else b""
        return found

    def _refuse(self, beginning: bytes) -> None:
        for magic, what in _MAGIC.items():
            if beginning.startswith(magic):
                raise NoRosterError(f"{self.name}: is {what}, and no list of addresses")
        if beginning[257:262] == b"ustar":
            raise NoRosterError(f"{self.name}: is a tar archive; unpack it, and name a file")
        if b"\0" in beginning and beginning[:2] not in {b"\xff\xfe", b"\xfe\xff"}:
            raise NoRosterError(f"{self.name}: is no text")

    def _text(self, stream: BinaryIO) -> io.TextIOWrapper:
        mark = self._beginning(stream)[:2]
        encoding = "utf-16" if mark in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
        # What is not text is not an address, and is written as it was read.
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        return io.TextIOWrapper(stream, encoding, errors=errors)

    def _lines(self, stream: io.TextIOWrapper) -> Iterator[str]:
        while line := stream.readline(_LONGEST_LINE):
            self._line += 1
            if len(line) == _LONGEST_LINE and not line.endswith("\n"):
                raise RosterError(f"{self.name}:{self._line}: the line is too long for an address")
            yield line

    @property
    def place(self) -> str:
        """File and line that was read last."""
        return f"{self.name}:{self._line}"

    def index(self, names: Sequence[str]) -> int:
        """Return the position of the column with the addresses.

        Raises:
            click.UsageError: there is none, or more than one.
        """
        if self._selection.column is not None:
            return self.position(names, self._selection.column, "--column")
        if any(parse(name) is not None for name in names):
            are_all = len(names) > 1 and all(parse(name) is not None for name in names)
            hint = ", or ask for --form x-forwarded-for" if are_all else ""
            raise click.UsageError(
                f"{self.name}: the first line holds addresses; begin the file with a header, "
                f"or write one address a line{hint}"
            )
        found = [index for index, name in enumerate(names) if _plain(name) in _COLUMNS]
        if not found:
            found = [index for index, name in enumerate(names) if _plain(name) in _WEAK_COLUMNS]
        if len(found) != 1:
            what = "more than one column seems" if found else "no column seems"
            raise click.UsageError(
                f"{self.name}: {what} to hold addresses; choose with --column: {_listed(names)}"
            )
        return found[0]

    def position(self, names: Sequence[str], column: str, option: str) -> int:
        """Return the position of the column that an option names."""
        found = [index for index, name in enumerate(names) if name == column]
        if not found:
            found = [index for index, name in enumerate(names) if _plain(name) == _plain(column)]
        if len(found) != 1:
            what = "more than one column has" if found else "no column has"
            raise click.UsageError(
                f"{self.name}: {what} the name given as {option}; there are: {_listed(names)}"
            )
        return found[0]

    def check_added(self, names: Sequence[str], added: Sequence[str]) -> None:
        """Check that no column has the name of one that is added."""
        for name in added:
            if name in names:
                raise click.UsageError(
                    f"{self.name}: has a column {name} already; choose --prefix for the new ones"
                )

    def on_read(self, done: Callable[[], int]) -> None:
        """Have `consumed` count otherwise than by the file's position."""
        self._done = done

    @property
    def raw(self) -> BinaryIO:
        """The file itself."""
        return self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        standard = sys.stdin is not None and self._raw is sys.stdin.buffer
        if self._stream is not None:
            inner = self._stream.detach()  # standard input is not ours to close
            if inner is not self._raw:
                inner.close()
        if not standard:
            self._raw.close()


# --- lines ----------------------------------------------------------------------------


class _TextBatch:
    __slots__ = ()

    addresses: list[str]

    @property
    def roster(self) -> list[str]:
        return self.addresses

    @property
    def size(self) -> int:
        return len(self.addresses)

    def text(self, at: int) -> str:
        return self.addresses[at]


@dataclass(frozen=True, slots=True)
class _LineBatch(_TextBatch):
    lines: list[str]
    addresses: list[str]

    def text(self, at: int) -> str:
        return self.lines[at]

    def column(self, name: str, option: str) -> list[str]:
        raise click.UsageError(f"{option} {name}: a list has no columns")


class _Lines:
    is_binary = False

    def __init__(
        self, lines: Iterator[str], selection: Selection, pattern: re.Pattern[str] | None
    ) -> None:
        self._lines = lines
        self._selection = selection
        self._pattern = pattern

    def batches(self, size: int) -> Iterator[_LineBatch]:
        address = self._selection.address
        while lines := [line.rstrip("\n") for line in islice(self._lines, size)]:
            yield _LineBatch(lines, [address(self._found(line)) for line in lines])

    def _found(self, line: str) -> object:
        if self._pattern is None:
            return line
        found = self._pattern.search(line)
        if found is None:
            return None
        return found["address"] if "address" in self._pattern.groupindex else found[1]

    def writer(self, out: BinaryIO, added: Sequence[str]) -> Writer:  # noqa: ARG002 - as of all
        return _LineWriter(out)


class _LineWriter:
    """Lines with further values behind them, each after a tab."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(
        self, batch: _LineBatch, added: Mapping[str, Sequence[str]], chosen: Sequence[int]
    ) -> None:
        columns = tuple(added.values())
        self._out.writelines(
            _encoded("\t".join([batch.lines[at], *(column[at] for column in columns)]) + "\n")
            for at in chosen
        )

    def close(self) -> None:
        """There is nothing to finish."""


# --- CSV ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CsvBatch(_TextBatch):
    file: RecordFile
    header: list[str]
    rows: list[list[str]]
    addresses: list[str]

    def column(self, name: str, option: str) -> list[str]:
        index = self.file.position(self.header, name, option)
        return [row[index] if index < len(row) else "" for row in self.rows]


class _Csv:
    is_binary = False

    def __init__(
        self, file: RecordFile, lines: Iterator[str], delimiter: str, selection: Selection
    ) -> None:
        self._file = file
        self._delimiter = delimiter
        self._selection = selection
        # Strict: a quote left open would swallow the rest of the file in silence.
        self._rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        with _csv_errors(file):
            self._header = [name.strip() for name in next(self._rows)]
        self._index = file.index(self._header)

    def batches(self, size: int) -> Iterator[_CsvBatch]:
        index, address = self._index, self._selection.address
        rows = filter(None, self._rows)
        while True:
            with _csv_errors(self._file):
                some = list(islice(rows, size))
            if not some:
                return
            addresses = [address(row[index]) if index < len(row) else "" for row in some]
            yield _CsvBatch(self._file, self._header, some, addresses)

    def writer(self, out: BinaryIO, added: Sequence[str]) -> Writer:
        self._file.check_added(self._header, added)
        return _CsvWriter(self._file, out, self._delimiter, [*self._header, *added])


class _CsvWriter:
    def __init__(self, file: RecordFile, out: BinaryIO, delimiter: str, header: list[str]) -> None:
        self._file = file
        self._out = out
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._writer.writerow(header)

    def write(
        self, batch: _CsvBatch, added: Mapping[str, Sequence[str]], chosen: Sequence[int]
    ) -> None:
        width = len(batch.header)
        columns = tuple(added.values())
        for at in chosen:
            row = batch.rows[at]
            if len(row) > width and added:
                raise RosterError(
                    f"{self._file.name}: a row has {len(row)} fields and the header {width}, so"
                    " that further columns have no place"
                )
            filled = [*row, *[""] * (width - len(row))] if added else row
            self._writer.writerow([*filled, *(column[at] for column in columns)])
        self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._out.write(_encoded(self._text.getvalue()))
        self._text.seek(0)
        self._text.truncate()


class _csv_errors:  # noqa: N801 - used as a statement
    """Raises errors of the csv module with file and line."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, csv.Error):
            raise RosterError(f"{self._file.place}: {error}") from None


# --- JSON lines -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _JsonBatch(_TextBatch):
    file: RecordFile
    lines: list[str]
    objects: list[dict[str, object]]
    addresses: list[str]

    def column(self, name: str, option: str) -> list[str]:
        if not any(name in one for one in self.objects):
            names = list(dict.fromkeys(chain.from_iterable(self.objects)))
            self.file.position(names, name, option)
        values = ("" if one.get(name) is None else one[name] for one in self.objects)
        return [value if isinstance(value, str) else json.dumps(value) for value in values]


class _JsonLines:
    is_binary = False

    def __init__(self, file: RecordFile, lines: Iterator[str], selection: Selection) -> None:
        self._file = file
        self._selection = selection
        self._lines = (line for line in lines if not line.isspace())
        self._key: str | None = selection.column

    def batches(self, size: int) -> Iterator[_JsonBatch]:
        while lines := list(islice(self._read(), size)):
            objects = [one for _, one in lines]
            if self._key is None:
                names = list(dict.fromkeys(chain.from_iterable(objects)))
                self._key = names[self._file.index(names)]
            elif not any(self._key in one for one in objects):
                names = list(dict.fromkeys(chain.from_iterable(objects)))
                self._key = names[self._file.position(names, self._key, "--column")]
            addresses = [self._selection.address(one.get(self._key)) for one in objects]
            yield _JsonBatch(self._file, [line for line, _ in lines], objects, addresses)

    def _read(self) -> Iterator[tuple[str, dict[str, object]]]:
        for line in self._lines:
            text = line.strip()
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                # The error's text would quote the line.
                value = None
            if not isinstance(value, dict):
                raise RosterError(f"{self._file.place}: expected a JSON object")
            yield text, value

    def writer(self, out: BinaryIO, added: Sequence[str]) -> Writer:
        return _JsonWriter(self._file, out, added)


class _JsonWriter:
    def __init__(self, file: RecordFile, out: BinaryIO, added: Sequence[str]) -> None:
        self._file = file
        self._out = out
        self._names = tuple(added)

    def write(
        self, batch: _JsonBatch, added: Mapping[str, Sequence[str]], chosen: Sequence[int]
    ) -> None:
        for at in chosen:
            line, record = batch.lines[at], batch.objects[at]
            if added:
                self._file.check_added(list(record), self._names)
                more = json.dumps({name: column[at] for name, column in added.items()})
                # The record itself stays as it was written, down to its numbers.
                line = f"{line[:-1].rstrip()}{', ' if record else ''}{more[1:]}"
            self._out.write(_encoded(f"{line}\n"))

    def close(self) -> None:
        """There is nothing to finish."""


# --- what is no roster ----------------------------------------------------------------

_REASONS: Final = (
    ("empty", re.compile(r""), "they are empty"),
    (
        "port",
        re.compile(r"\[[0-9A-Fa-f:.]+\]:\d+|\d+\.\d+\.\d+\.\d+:\d+"),
        "they have a port; ask for --form ip:port",
    ),
    (
        "list",
        re.compile(r"[0-9A-Fa-f.:]+(?:, ?[0-9A-Fa-f.:]+)+"),
        "they are lists of addresses; ask for --form x-forwarded-for, whose first counts",
    ),
    ("prefix", re.compile(r"[0-9A-Fa-f.:]+/\d+"), "they are prefixes, and no addresses"),
    ("number", re.compile(r"\d+"), "they are numbers; write addresses as text"),
    ("quoted", re.compile(r"[\"'].*[\"']"), "they are in quotes"),
    (
        "line",
        re.compile(r".*\s.*"),
        "they are lines with more than an address; say where it is with --pattern",
    ),
    ("name", re.compile(r"(?:[A-Za-z0-9_-]+\.)+[A-Za-z]{2,}"), "they are names of hosts"),
)


class InvalidCheck:
    """Counts what is no address, and refuses what is no roster.

    Args:
        name: the input's.
        most: the largest share of INVALID addresses that is accepted.
    """

    def __init__(self, name: str, most: Any) -> None:
        self._name = name
        self._most = most
        self._size = self._invalid = 0
        self._why: Counter[str] = Counter()

    def add(self, batch: Batch, invalid: Sequence[int]) -> None:
        """Count a batch, of which the addresses at the positions *invalid* are none."""
        self._size += batch.size
        self._invalid += len(invalid)
        if self._why.total() < 1_000:
            for at in invalid[:1_000]:
                text = batch.text(at)
                found = next((why for _, shape, why in _REASONS if shape.fullmatch(text)), "")
                self._why[found] += 1

    def check(self) -> None:
        """Check what was counted so far.

        Raises:
            NoRosterError: too much of it is no address. The text gives the likely reason
                and repeats nothing of the input.
        """
        if not self._size or self._invalid <= self._most * self._size:
            return
        (why, count), *_ = self._why.most_common(1)
        likely = why if why and 2 * count > self._why.total() else "they have no form of addresses"
        raise NoRosterError(
            f"{self._name}: {self._invalid:,} of {self._size:,} are no addresses: {likely}"
            " (--max-invalid allows more)"
        )


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise RosterError("standard input is closed")
    return sys.stdin.buffer


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _skipped(line: str) -> bool:
    return line.isspace() or line.startswith("#")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _listed(names: Sequence[str]) -> str:
    shown = [name if _REPEATABLE.fullmatch(name) else "(not shown)" for name in names[:30]]
    return ", ".join([*shown, "..."] if len(names) > 30 else shown)
