"""MMDB, the format of MaxMind's databases, for its readers in any language.

`mmdb_writer` writes the file. It would fill the search tree prefix by prefix, which takes
a minute for a million prefixes and depends on their order. So the tree is built here, in
one pass over the rows, which are sorted and leave no gaps.

The format has the IPv4 tree at ``::/96``. Where an IPv6 prefix has an IPv4 address right
behind it, the tree gets an alias, a second way into the IPv4 tree, as MaxMind's own
databases have: IPv4-mapped, 6to4 and NAT64 addresses get the answer of the IPv4 address
that they carry. A Teredo address carries its client's address inverted behind 64 other
bits, and NAT64 prefixes of 40 to 64 bits have 8 bits in between: an alias would answer for
another address, so these say `EMBEDDED_IPV4` and no country.

What networks are used for stands in ``traits``, under GeoIP2's names for it. A database of some
kinds of networks alone has the form of GeoIP2's Anonymous-IP.

The data section has nothing but records, each whole: where a value repeats, the later one points
into an earlier record. `mmdb_writer` would put every string and map beside the records, which the
format allows and maxminddb-golang's `Verify` does not.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

from mmdb_writer import Encoder, SearchTreeLeaf, SearchTreeNode, TreeWriter

from geolookup.answer.claims import COVERING, NO_COUNTRY, Network
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.embedded_ipv4 import EMBEDDED_6TO4, EMBEDDED_LOW32, EMBEDDED_NAT64_32
from geolookup.answer.region_sets import RegionSets
from geolookup.export.continents import CONTINENT_OF, CONTINENTS
from geolookup.export.rows import Row, Rows, RowValue

Tree = SearchTreeNode | SearchTreeLeaf | None

DATABASE_TYPE = "geolookup-Country"
"""Contains "Country", by which readers (geoip2) recognise the kind of database."""

NETWORKS_TYPE = "GeoIP2-Anonymous-IP"
"""As a whole the name by which readers recognise the kind of database."""

_FLAGS = {
    Network.TOR: "is_tor_exit_node",
    Network.VPN: "is_anonymous_vpn",
    Network.PROXY: "is_public_proxy",
    Network.HOSTING: "is_hosting_provider",
    Network.SATELLITE: "is_satellite_provider",
    Network.ANYCAST: "is_anycast",
}
"""GeoIP2 has none for relays and mobile networks."""

# The number of bits after the prefix; the first 32 of them are the IPv4 address.
_ALIASES = {EMBEDDED_LOW32: 32, EMBEDDED_NAT64_32: 96, EMBEDDED_6TO4: 112}

_IPV4_SPACE = 1 << 32


def write(rows: Rows, file: BinaryIO, *, database_type: str | None = None) -> None:
    """Write a database with a record for every address.

    A record has ``country.iso_code`` and ``country_code``, where there is a country, and its
    English name and continent, ``subdivisions[].iso_code``, where there is one, ``status`` and
    ``claimed``; and ``traits`` and ``networks`` where the rows have networks. Where they have
    nothing else, a record has the flags of ``traits`` itself and ``networks``, and other addresses
    have none.

    Args:
        rows: what to write.
        file: has a file descriptor.
        database_type: by which readers recognise what records hold; None: `NETWORKS_TYPE` where
            the rows have nothing but networks, else `DATABASE_TYPE`.
    """
    with _without_garbage_collection():
        leaves = _Leaves(rows.only_networks)
        ipv4 = _grow(rows.whole(4), 32, leaves)
        tree = _grow(_with_ipv4(rows.whole(6)), 128, leaves, ipv4)
        metadata = {
            "ip_version": 6,
            "database_type": database_type
            or (NETWORKS_TYPE if rows.only_networks else DATABASE_TYPE),
            "languages": ["en"],
            "binary_format_major_version": 2,
            "binary_format_minor_version": 0,
            "description": {"en": "; ".join(rows.heading())},
            "build_epoch": int(rows.dataset.built.timestamp()),
        }
        file.flush()
        # It opens its argument, which may be a descriptor, and closes it.
        _Writer(tree, metadata).write(os.dup(file.fileno()))  # type: ignore[arg-type]


class _RecordEncoder(Encoder):
    """Encodes the records of the search tree one behind the other, with nothing in between."""

    def __init__(self, cache: bool = True, **types: Any) -> None:
        super().__init__(cache, **types)
        self._records: dict[bytes, int] = {}
        self._written: dict[bytes, int] = {}
        self._plain = self if not cache else Encoder(cache=False)

    def encode(self, value: Any, type_id: int | None = None, return_offset: bool = False) -> Any:
        """Return the offset of a record, or the bytes of a value that is none."""
        if not return_offset:
            return super().encode(value, type_id)
        whole = self._plain.encode(value)
        if whole not in self._records:
            out = bytearray()
            self._add(value, out)
            self._records[whole] = self.data_pointer
            self.data_list.append(bytes(out))
            self.data_pointer += len(out)
        return self._records[whole]

    def _add(self, value: Any, out: bytearray, *, is_record: bool = True) -> None:
        whole = self._plain.encode(value)
        offset = self._written.get(whole)
        if offset is not None and not is_record:
            pointer = self._encode_pointer(offset)
            if len(pointer) < len(whole):
                out += pointer
                return
        self._written.setdefault(whole, self.data_pointer + len(out))
        if isinstance(value, dict | list):
            out += self._make_header(self.python_type_id(value), len(value))
            parts = value if isinstance(value, list) else itertools.chain(*value.items())
            for part in parts:
                self._add(part, out, is_record=False)
        else:
            out += whole


class _Writer(TreeWriter):
    encoder_cls = _RecordEncoder


class _Leaves(dict[RowValue, SearchTreeLeaf | None]):
    """One leaf for each different record."""

    def __init__(self, only_networks: bool) -> None:
        super().__init__()
        self._only_networks = only_networks
        self._of_kinds: dict[tuple[tuple[Network, ...], bool], SearchTreeLeaf] = {}

    def __missing__(self, value: RowValue) -> SearchTreeLeaf | None:
        leaf = self._of_networks(value) if self._only_networks else self._of_country(value)
        self[value] = leaf
        return leaf

    def _of_networks(self, value: RowValue) -> SearchTreeLeaf | None:
        if not value.networks:
            return None
        key = value.networks, value.vouched
        if key not in self._of_kinds:
            self._of_kinds[key] = SearchTreeLeaf({**_traits(value), **_kinds(value)})
        return self._of_kinds[key]

    def _of_country(self, value: RowValue) -> SearchTreeLeaf:
        record: dict[object, object] = {}
        if value.code != NO_COUNTRY:
            country, _, part = value.code.partition("-")
            record = {**_place(country), "country_code": country}
            if part:
                record["subdivisions"] = [{"iso_code": part}]
        if value.networks:
            # The library writes an empty map as an array.
            record |= {"traits": flags} if (flags := _traits(value)) else {}
            record |= _kinds(value)
        return SearchTreeLeaf({**record, "status": value.status, "claimed": list(value.claimed)})


def _place(country: str) -> dict[object, object]:
    """Return what GeoIP2 has of a country; a false flag is left out there, too."""
    continent = CONTINENT_OF[country]
    named: dict[object, object] = {"iso_code": country, "names": {"en": COUNTRIES[country]}}
    if country in _in_european_union():
        named["is_in_european_union"] = True
    return {
        "continent": {"code": continent, "names": {"en": CONTINENTS[continent]}},
        "country": named,
    }


@cache
def _in_european_union() -> frozenset[str]:
    return RegionSets.builtin().resolve("EU_IN_FULL").codes


def _kinds(value: RowValue) -> dict[object, object]:
    return {"networks": [kind.name for kind in value.networks]}


def _traits(value: RowValue) -> dict[object, object]:
    """Return GeoIP2's flags; false ones are left out there, too."""
    flags: dict[object, object] = {
        flag: True for kind, flag in _FLAGS.items() if kind in value.networks
    }
    if not value.vouched and not set(COVERING).isdisjoint(value.networks):
        flags["is_anonymous"] = True
    return flags


def _with_ipv4(rows: Iterator[Row]) -> Iterator[Row]:
    """Put the IPv4 tree where the format has it, over what the rows say of ``::/96``."""
    yield Row(0, _IPV4_SPACE - 1, RowValue(NO_COUNTRY, "", form=EMBEDDED_LOW32))
    for row in rows:
        if row.last >= _IPV4_SPACE:
            yield row._replace(first=max(row.first, _IPV4_SPACE))


def _grow(
    rows: Iterator[Row], bits: int, leaves: _Leaves, ipv4: SearchTreeNode | None = None
) -> SearchTreeNode:
    """Return the search tree of rows that cover *bits* bits without gaps.

    Args:
        rows: ascending, from 0.
        bits: 32 or 128.
        leaves: missing ones are added.
        ipv4: where aliases lead.
    """
    row = next(rows)

    def block(first: int, below: int) -> Tree:
        # The 2**below addresses from first on; the row holds at least the first one.
        nonlocal row
        last, value = first + (1 << below) - 1, row.value
        if row.last < last or _ALIASES.get(value.form, below) != below:
            return halves(first, below)
        if row.last == last:
            row = next(rows, row)
        return ipv4 if value.form in _ALIASES else leaves[value]

    def halves(first: int, below: int) -> SearchTreeNode:
        below -= 1
        return SearchTreeNode(block(first, below), block(first + (1 << below), below))

    # The root is a node even where one record holds for all.
    return halves(0, bits)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch the garbage collector off: a tree of a million nodes holds no garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
