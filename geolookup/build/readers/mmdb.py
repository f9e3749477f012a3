"""MMDB, the binary format of MaxMind's databases, through the package ``maxminddb``.

A record's country is its ``country.iso_code`` (MaxMind, DB-IP), or a ``country_code`` or
``country`` of two letters beside other values (ip-location-db, IPinfo). The manifest may
ask for ``country_from = "registered_country"``. The IPv6 copies of IPv4 networks are left out.

The package has a reader in C, which believes what a file says: damaged ones had it write
beyond its memory and read from where a number pointed. So its decoder in Python is used, for
each record once, and the search tree is measured and then walked here:
https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geolookup.build.readers.ranges import read_code_number
from geolookup.build.readers.source_file import CountryFrom, File, Reading
from geolookup.errors import SourceError

if TYPE_CHECKING:
    from maxminddb.types import Record

NAME = "mmdb"

_MARKER = b"\xab\xcd\xefMaxMind.com"
_HOLDS_NO_TEXT = b"\0"
_BETWEEN = 16
"""Bytes of zeros between the search tree and the records."""
_MARKED_WITHIN = 128 << 10
"""The last marker in so many bytes at a file's end is the one that counts."""
_BOUNDED = (3, 2)
"""The package's first version that has bounds for what a record makes it do."""
_Network = tuple[int, int, int]
"""Its first address, the length of its prefix, and where its record is."""
_VALUES_A_BYTE = 8
_VALUES_MORE = 1 << 17
_TOLD = 1 << 14
"""Networks from one word of the progress to the next."""
_MOST_WAYS = 16
"""Networks a node of the tree. A tree has one; a few more where parts of it are shared."""


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file that begins so may be in this format.

    What marks it stands at the end of the file, so that `read` says for sure.
    """
    return _MARKER in head or _HOLDS_NO_TEXT in head[:4096]


def read(file: File, reading: Reading) -> None:
    """Add a database's ranges to a source.

    Raises:
        SourceError: the package is missing; it is no such database; it says nothing
            of countries; a record too many can't be read: ``name: record n: what``.
    """
    with tempfile.TemporaryDirectory(prefix="geolookup-") as folder:
        if _is_plain(file):
            _read_database(file.part.path, file, reading, file.on_read)
            return
        # A database is read from a mapping; what is compressed has to become a file.
        path = Path(folder, "database.mmdb")
        try:
            with path.open("wb") as plain:
                plain.writelines(file.blocks())
        except OSError as error:
            what = os.strerror(error.errno or 0)
            raise SourceError(f"{file.name}: can't be unpacked into {folder}: {what}") from error
        _read_database(path, file, reading)


def _is_plain(file: File) -> bool:
    if file.part.member:
        return False
    with file.part.path.open("rb") as raw:
        return raw.read(16) == file.head[:16]


def _read_database(
    path: Path, file: File, reading: Reading, on_read: Callable[[int], None] | None = None
) -> None:
    try:
        from maxminddb import (  # noqa: PLC0415 - an extra: only MMDB files need it
            InvalidDatabaseError,
            __version__,
        )
        from maxminddb.decoder import Decoder  # noqa: PLC0415
    except ImportError:
        __version__ = "0"
    if tuple(map(int, __version__.split(".")[:2])) < _BOUNDED:
        raise SourceError(
            f"{file.name}: MMDB needs the package maxminddb: pip install 'geolookup[mmdb]'"
        )
    try:
        with (
            path.open("rb") as raw,
            mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as content,
        ):
            marker = content.rfind(_MARKER, max(0, len(content) - _MARKED_WITHIN))
            if marker < 0:
                raise ValueError("no database")
            place = marker + len(_MARKER)
            tree = _Tree.of(content, marker, Decoder(content, place).decode(place)[0])
            tree.check()
            networks = tree.networks()
            if on_read is not None:
                networks = _told(networks, tree.nodes + 1, file.part.size, on_read)
            decoder = Decoder(content, tree.data)
            records = _Records(decoder.decode, _VALUES_A_BYTE * len(content) + _VALUES_MORE)
            _add(tree.bits, networks, records, file, reading)
    except SourceError:
        raise
    # TypeError: what has to be a number, or a name, is something else.
    except (InvalidDatabaseError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{file.name}: no MMDB database, or a damaged one") from error


@dataclass(slots=True)
class _Records:
    """Decodes records, as long as what they hold together is in proportion to the file.

    Pointers may lead to the same values again and again, so that a small file can hold more
    than anybody could wait for. In real ones most records share what they hold, too, but a
    byte stands for less than a value.

    Attributes:
        decode: decodes one, which has at most 65,536 values; the package sees to that.
        left: values that may still come.
    """

    decode: Callable[[int], tuple[Record, int]]
    left: int

    def at(self, place: int) -> Record:
        """Return a record. ValueError: it is one too many."""
        record, _ = self.decode(place)
        waiting = [record]
        while waiting:
            self.left -= 1
            value = waiting.pop()
            if isinstance(value, dict):
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, str | bytes | bytearray):
                self.left -= len(value) // 64
        if self.left < 0:
            raise ValueError("more values than a database has")
        return record


def _told(
    networks: Iterable[_Network], most: int, size: int, on_read: Callable[[int], None]
) -> Iterator[_Network]:
    """Yield the networks, of which there are about *most*, and tell of the progress."""
    for position, network in enumerate(networks):
        if position % _TOLD == 0:
            on_read(min(size * position // most, size))
        yield network


def _add(
    bits: int, networks: Iterable[_Network], records: _Records, file: File, reading: Reading
) -> None:
    ipv4, ipv6 = reading.into.ipv4, reading.into.ipv6
    numbers: dict[int, int | str] = {}  # by place of a record; or what is wrong with it
    speaks = False
    position = 0
    for position, (first, length, place) in enumerate(networks, start=1):
        number = numbers.get(place)
        if number is None:
            raw = _country(records.at(place), reading.options.country_from)
            speaks = speaks or raw is not None
            try:
                number = read_code_number(raw or "")
            except ValueError as error:
                number = str(error)
            numbers[place] = number
        if isinstance(number, str):
            reading.faults.add(f"{file.name}: record {position}", number)
            continue
        last = first | (1 << bits - length) - 1
        if last < 1 << 32:
            ipv4.append(first, last, number, file=file.number)
            continue
        ipv6.append(first, last, number, file=file.number)
        if first == 0:  # a shorter prefix than ::/96, which answers for all of IPv4
            ipv4.append(0, (1 << 32) - 1, number, file=file.number)
    if position and not speaks:
        raise SourceError(f"{file.name}: its records hold no country")


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """The search tree of a database.

    Attributes:
        nodes: how many it has.
        children: two a node: another node, *nodes* for none, or *nodes* more than how far
            beyond the tree a record begins.
        size: bytes that it takes.
        end: where the records end.
        bits: of the addresses.
        ipv4: the node below which IPv4 lies, in a tree of IPv6; -1: none.
    """

    nodes: int
    children: array[int]
    size: int
    end: int
    bits: int
    ipv4: int

    @classmethod
    def of(cls, content: mmap.mmap, end: int, metadata: Any) -> _Tree:
        """Read it as its metadata, which begins at *end*, describes it.

        Raises:
            KeyError, TypeError, ValueError: it is of another version of the format, does
                not fit into the file, or has a circle on the way to IPv4.
        """
        nodes, record_size = metadata["node_count"], metadata["record_size"]
        size = nodes * record_size // 4
        if (
            metadata["binary_format_major_version"] != 2
            or record_size not in (24, 28, 32)
            or metadata["ip_version"] not in (4, 6)
            or not 0 <= size <= end - _BETWEEN
        ):
            raise ValueError("no database of this format")
        bits = 128 if metadata["ip_version"] == 6 else 32
        children = _children(content[:size], nodes, record_size)
        way = [0]
        while bits == 128 and len(way) <= 96 and way[-1] < nodes:
            way.append(children[2 * way[-1]])
        if len(set(way)) < len(way):
            raise ValueError("a circle")
        return cls(nodes, children, size, end, bits, way[96] if len(way) > 96 else -1)

    @property
    def data(self) -> int:
        """Where the records begin."""
        return self.size + _BETWEEN

    def check(self) -> None:
        """Raise a ValueError for what is no tree, or deeper than addresses have bits."""
        ways = {0: 1}  # to the nodes of a level
        ended = 0
        for depth in range(1, self.bits + 1):
            below: dict[int, int] = {}
            for node, count in ways.items():
                for child in self.children[2 * node : 2 * node + 2]:
                    if child < self.nodes:
                        below[child] = below.get(child, 0) + count
                    else:
                        ended += count
            ways = below
            # Other branches end in the IPv4 part too, and are not followed.
            if depth < 96:
                ended += ways.pop(self.ipv4, 0)
            elif depth == 96 and self.ipv4 in ways:
                ended += ways[self.ipv4] - 1
                ways[self.ipv4] = 1
            if ended + sum(ways.values()) > _MOST_WAYS * (self.nodes + 1):
                raise ValueError("more networks than a tree has")
            if not ways:
                return
        raise ValueError("too deep")

    def networks(self) -> Iterator[_Network]:
        """Yield those that have a record, in their order.

        Raises:
            ValueError: a record would begin where none can be.
        """
        nodes, children = self.nodes, self.children
        least = nodes + _BETWEEN
        waiting = [(0, 0, 0)]
        while waiting:
            node, depth, first = waiting.pop()
            if node < nodes:
                if node != self.ipv4 or first == 0:
                    right = first | 1 << self.bits - depth - 1
                    waiting.append((children[2 * node + 1], depth + 1, right))
                    waiting.append((children[2 * node], depth + 1, first))
            elif node > nodes:
                place = node - nodes + self.size
                if node < least or place >= self.end:
                    raise ValueError("a record outside of the records")
                yield first, depth, place


def _children(raw: bytes, nodes: int, record_size: int) -> array[int]:
    """Return the two children of each node."""
    wide = bytearray(8 * nodes)
    if record_size == 28:  # the fourth of seven bytes has the upper four bits of both
        wide[0::8] = raw[3::7].translate(bytes(byte >> 4 for byte in range(256)))
        wide[4::8] = raw[3::7].translate(bytes(byte & 15 for byte in range(256)))
        for at in (1, 2, 3):
            wide[at::8] = raw[at - 1 :: 7]
            wide[at + 4 :: 8] = raw[at + 3 :: 7]
    else:
        size = record_size // 8
        for at in range(size):
            wide[4 - size + at :: 4] = raw[at::size]
    children = array("I", wide)
    if sys.byteorder == "little":
        children.byteswap()
    return children


def _country(record: Record, country_from: CountryFrom) -> str | None:
    if not isinstance(record, dict):
        return None
    country = record.get(country_from)
    if isinstance(country, dict):
        code = country.get("iso_code")
        return code if isinstance(code, str) else None
    if country_from == "registered_country":
        return None
    code = record.get("country_code", country)
    return code if isinstance(code, str) else None
