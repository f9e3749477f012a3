"""MMDB, the binary format of MaxMind's databases, through the package ``maxminddb``.

A record's country is its ``country.iso_code`` (MaxMind, DB-IP), or a ``country_code`` or
``country`` of two letters beside other values (ip-location-db, IPinfo). The manifest may
ask for ``country_from = "registered_country"``. The IPv6 copies of IPv4 networks are left out.
Its subdivisions are the ``iso_code`` or the English name of ``subdivisions``, or the names
``state1`` and ``state2`` (ip-location-db).

The package's reader in C trusts the file: damaged files made it write and read outside of
its memory. So its decoder in Python is used, once for each record, and the search tree is
checked here and walked by the core:
https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geolookup._sweep import walk_tree
from geolookup.build.readers.source_file import CountryFrom, ReadState, SourceFile
from geolookup.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from maxminddb.types import Record

NAME = "mmdb"

_MARKER = b"\xab\xcd\xefMaxMind.com"
_NOT_TEXT = b"\0"
_BETWEEN = 16
"""Bytes of zeros between the search tree and the records."""
_MARKED_WITHIN = 128 << 10
"""The last marker within this many bytes of a file's end counts."""
_BOUNDED = (3, 2)
"""The package's first version that bounds the work of decoding a record."""
_VALUES_PER_BYTE = 8
_MORE_VALUES = 1 << 17
_MAX_NETWORKS_PER_NODE = 16
"""A tree has one per node; a few more where parts of it are shared."""


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file may have this format.

    The format's marker is near the end of the file; `read` checks it.
    """
    return _MARKER in head or _NOT_TEXT in head[:4096]


def read(file: SourceFile, state: ReadState) -> None:
    """Add a database's ranges to a source.

    Raises:
        SourceError: the package is missing; it is not an MMDB database; it has no
            countries; one more record than allowed can't be read: ``name: record n: what``.
    """
    has_country = has_region = False
    deep = state.options.depth == "subdivision"

    def number_of(record: Record) -> int:
        nonlocal has_country, has_region
        raw = _country(record, state.options.country_from)
        regions = _regions(record) if deep else ()
        has_country = has_country or raw is not None
        has_region = has_region or any(regions)
        return state.places.read(raw or "", *regions)

    if not read_records(file, state, number_of):
        return
    if not has_country:
        raise SourceError(f"{file.name}: its records hold no country")
    if deep and not has_region:
        raise SourceError(f"{file.name}: depth: its records hold no subdivision")


def read_records(file: SourceFile, state: ReadState, number_of: Callable[[Record], int]) -> int:
    """Add a database's ranges to a source, and return the number of its networks.

    Args:
        file: the database.
        state: of the source.
        number_of: returns the number that a record stands for. ValueError: for none.

    Raises:
        SourceError: as `read`.
    """
    if _is_plain(file):
        return _read_database(file.part.path, file, state, number_of, file.on_read)
    # A database is read from a mapping, so a compressed one is unpacked into a file.
    with file.unpacked("database.mmdb") as path:
        return _read_database(path, file, state, number_of)


def _is_plain(file: SourceFile) -> bool:
    if file.part.member:
        return False
    with file.part.path.open("rb") as raw:
        return raw.read(16) == file.head[:16]


def _read_database(
    path: Path,
    file: SourceFile,
    state: ReadState,
    number_of: Callable[[Record], int],
    on_read: Callable[[int], None] | None = None,
) -> int:
    try:
        from maxminddb import (  # noqa: PLC0415 - an extra: only MMDB files need it
            InvalidDatabaseError,
            __version__,
        )
        from maxminddb.decoder import Decoder  # noqa: PLC0415
    except ImportError:
        __version__ = "0"
    if tuple(map(int, __version__.split(".")[:2])) < _BOUNDED:
        package = f"maxminddb {'.'.join(map(str, _BOUNDED))} or newer"
        raise MissingExtraError(f"{file.name}: MMDB", package, "mmdb")
    try:
        with (
            path.open("rb") as raw,
            mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as content,
        ):
            marker = content.rfind(_MARKER, max(0, len(content) - _MARKED_WITHIN))
            if marker < 0:
                raise ValueError("no database")
            start = marker + len(_MARKER)
            tree = _Tree.of(content, marker, Decoder(content, start).decode(start)[0])
            tree.check()
            decoder = Decoder(content, tree.data)
            records = _Records(decoder.decode, _VALUES_PER_BYTE * len(content) + _MORE_VALUES)
            return _add(tree, _Numbers(records, file, state, tree.size, number_of), on_read)
    except SourceError:
        raise
    # TypeError: a value has another type than the format asks for.
    except (InvalidDatabaseError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{file.name}: no MMDB database, or a damaged one") from error


@dataclass(slots=True)
class _Records:
    """Decodes records, while their values are in proportion to the size of the file.

    Many pointers may lead to the same values, so decoding a small file may take unbounded
    time. In real files, too, most records share values, but have less than one per byte.

    Attributes:
        decode: decodes one record; the package limits it to 65,536 values.
        left: values that may still be decoded.
    """

    decode: Callable[[int], tuple[Record, int]]
    left: int

    def at(self, offset: int) -> Record:
        """Return the record at an offset. ValueError: it exceeds the limit."""
        record, _ = self.decode(offset)
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


@dataclass(slots=True)
class _Numbers:
    """The numbers that records stand for.

    Attributes:
        records: decodes them.
        file: the database.
        state: its source's.
        size: bytes of the tree, after which the records begin.
        number_of: returns the number of a record. ValueError: it has none.
        wrong: what is wrong with the records that can't be read, by record.
    """

    records: _Records
    file: SourceFile
    state: ReadState
    size: int
    number_of: Callable[[Record], int]
    wrong: dict[int, str] = field(default_factory=dict)

    def of(self, record: int) -> int:
        """Return a record's number; -1: it can't be read."""
        found = self.records.at(record + self.size)
        try:
            return self.number_of(found)
        except ValueError as error:
            self.wrong[record] = str(error)
            return -1

    def on_fault(self, record: int, position: int) -> None:
        self.state.faults.add(f"{self.file.name}: record {position}", self.wrong[record])


def _add(tree: _Tree, numbers: _Numbers, on_read: Callable[[int], None] | None) -> int:
    file, state = numbers.file, numbers.state

    def on_network(position: int) -> None:
        # There are about as many networks as nodes.
        if on_read is not None:
            on_read(min(file.part.size * position // (tree.nodes + 1), file.part.size))

    return walk_tree(
        state.into.ipv4,
        state.into.ipv6,
        tree.children,
        nodes=tree.nodes,
        ipv4_node=tree.ipv4,
        bits=tree.bits,
        least=_BETWEEN,
        most=tree.end - tree.size,
        code_of=numbers.of,
        on_fault=numbers.on_fault,
        file=file.number,
        on_network=on_network,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """The search tree of a database.

    Attributes:
        nodes: number of nodes.
        children: two per node: another node; *nodes* for none; or *nodes* plus the distance
            of a record from the end of the tree.
        size: its bytes.
        end: offset of the end of the records.
        bits: length of the addresses.
        ipv4: the node below which the IPv4 addresses are, in a tree of IPv6; -1: none.
    """

    nodes: int
    children: array[int]
    size: int
    end: int
    bits: int
    ipv4: int

    @classmethod
    def of(cls, content: mmap.mmap, end: int, metadata: Any) -> _Tree:
        """Return the tree that the metadata describes; *end* is the offset of the marker.

        Raises:
            KeyError, TypeError, ValueError: it has another version of the format, does
                not fit into the file, or has a cycle on the path to IPv4.
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
        path = [0]
        while bits == 128 and len(path) <= 96 and path[-1] < nodes:
            path.append(children[2 * path[-1]])
        if len(set(path)) < len(path):
            raise ValueError("a cycle")
        return cls(nodes, children, size, end, bits, path[96] if len(path) > 96 else -1)

    @property
    def data(self) -> int:
        """Offset of the records."""
        return self.size + _BETWEEN

    def check(self) -> None:
        """Check that it is a tree, no deeper than addresses have bits. ValueError: it is not."""
        paths = {0: 1}  # number of paths to each node of a level
        ended = 0
        for depth in range(1, self.bits + 1):
            below: dict[int, int] = {}
            for node, count in paths.items():
                for child in self.children[2 * node : 2 * node + 2]:
                    if child < self.nodes:
                        below[child] = below.get(child, 0) + count
                    else:
                        ended += count
            paths = below
            # Other branches lead to the IPv4 part too, and are not followed.
            if depth < 96:
                ended += paths.pop(self.ipv4, 0)
            elif depth == 96 and self.ipv4 in paths:
                ended += paths[self.ipv4] - 1
                paths[self.ipv4] = 1
            if ended + sum(paths.values()) > _MAX_NETWORKS_PER_NODE * (self.nodes + 1):
                raise ValueError("more networks than a tree has")
            if not paths:
                return
        raise ValueError("too deep")


def _children(raw: bytes, nodes: int, record_size: int) -> array[int]:
    """Return the two children of each node."""
    wide = bytearray(8 * nodes)
    if record_size == 28:  # the fourth of seven bytes holds the upper four bits of both
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


def _regions(record: Record) -> tuple[str, ...]:
    """Return codes or names of subdivisions, from the largest on; empty texts where unknown."""
    if not isinstance(record, dict):
        return ()
    listed = record.get("subdivisions")
    if isinstance(listed, list):
        return tuple(map(_region, listed))
    named = (record.get("state1", record.get("region", "")), record.get("state2", ""))
    return tuple(text if isinstance(text, str) else "" for text in named)


def _region(subdivision: Record) -> str:
    if not isinstance(subdivision, dict):
        return ""
    names = subdivision.get("names")
    name = names.get("en") if isinstance(names, dict) else None
    text = subdivision.get("iso_code", name)
    return text if isinstance(text, str) else ""
