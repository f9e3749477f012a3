"""MMDB, the binary format of MaxMind's databases, through the package ``maxminddb``.

A record's country is its ``country.iso_code`` (MaxMind, DB-IP), or a ``country_code`` or
``country`` of two letters beside other values (ip-location-db, IPinfo). The manifest may
ask for ``country_from = "registered_country"``. The IPv6 copies of IPv4 networks are left out.

The package's fast reader follows whatever a damaged search tree says, and writes beyond its
memory where branches are longer than an address. A tree is therefore measured before.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
from array import array
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from geolookup.errors import SourceError
from geolookup.readers.ranges import read_code_number
from geolookup.readers.reading import CountryFrom, File, Reading

if TYPE_CHECKING:
    from maxminddb.types import Record

NAME = "mmdb"

_MARKER = b"\xab\xcd\xefMaxMind.com"
_HOLDS_NO_TEXT = b"\0"
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
        # The package's fast reader maps a file; what is compressed has to become one.
        path = file.part.path
        if not _is_plain(file):
            path = Path(folder, "database.mmdb")
            with path.open("wb") as plain:
                plain.writelines(file.blocks())
        _read_database(path, file, reading)


def _is_plain(file: File) -> bool:
    if file.part.member:
        return False
    with file.part.path.open("rb") as raw:
        return raw.read(16) == file.head[:16]


def _read_database(path: Path, file: File, reading: Reading) -> None:
    ipv4, ipv6 = reading.into.ipv4, reading.into.ipv6
    numbers: dict[str, int] = {}
    speaks = False
    position = 0
    for position, (network, record) in enumerate(_records(path, file.name), start=1):
        raw = _country(record, reading.options.country_from)
        if raw is None:
            raw = ""
        else:
            speaks = True
        number = numbers.get(raw)
        if number is None:
            try:
                number = numbers[raw] = read_code_number(raw)
            except ValueError as error:
                reading.faults.add(f"{file.name}: record {position}", str(error))
                continue
        first = int(network.network_address)
        # Not broadcast_address, which takes longer than everything else here together.
        last = first | (1 << network.max_prefixlen - network.prefixlen) - 1
        (ipv4 if network.version == 4 else ipv6).append(first, last, number, file=file.number)
    if position and not speaks:
        raise SourceError(f"{file.name}: its records hold no country")


def _records(path: Path, name: str) -> Iterator[tuple[IPv4Network | IPv6Network, Record]]:
    try:
        import maxminddb  # noqa: PLC0415 - an extra: only MMDB files need it
    except ImportError as error:
        raise SourceError(
            f"{name}: MMDB needs the package maxminddb: pip install 'geolookup[mmdb]'"
        ) from error
    try:
        with maxminddb.open_database(path) as database:
            known = database.metadata()
            with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as tree:
                _check_tree(tree, known.node_count, known.record_size, known.ip_version)
            yield from database
    except (maxminddb.InvalidDatabaseError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{name}: no MMDB database, or a damaged one") from error


def _check_tree(tree: mmap.mmap, nodes: int, record_size: int, version: int) -> None:
    """Raise a ValueError for a search tree that is none, or deeper than addresses have bits."""
    bits = 128 if version == 6 else 32
    records = _search_tree(tree[: nodes * record_size // 4], nodes, record_size)
    # Other branches end in the IPv4 part too, and the package leaves those out.
    left = [0]
    while version == 6 and len(left) <= 96 and left[-1] < nodes:
        left.append(records[2 * left[-1]])
    if len(set(left)) < len(left):
        raise ValueError("a circle")
    ipv4 = left[96] if len(left) > 96 else -1
    ways = {0: 1}  # to the nodes of a level
    networks = 0
    for depth in range(1, bits + 1):
        below: dict[int, int] = {}
        for node, count in ways.items():
            for child in records[2 * node : 2 * node + 2]:
                if child < nodes:
                    below[child] = below.get(child, 0) + count
                else:
                    networks += count
        ways = below
        if depth < 96:
            ways.pop(ipv4, None)
        elif depth == 96 and ipv4 in ways:
            ways[ipv4] = 1
        if networks > _MOST_WAYS * (nodes + 1):
            raise ValueError("more networks than a tree has")
        if not ways:
            return
    raise ValueError("too deep")


def _search_tree(raw: bytes, nodes: int, record_size: int) -> array[int]:
    """Return the two records of each node."""
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
    records = array("I", wide)
    if sys.byteorder == "little":
        records.byteswap()
    return records


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
