"""What sources of countries say of network kinds, beside the country: lists of marked ranges.

MaxMind's blocks have columns and its databases have ``traits``, IPFire's export has lists of
their own (``A1v4.networks``), and its database has flags. Each function adds ranges to one state
for each kind: the code is `MARKED`, or `SILENCE` for what lies in a marked range and is not
marked itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geolookup._sweep import Dialect
from geolookup.answer.claims import Network, networks_of
from geolookup.build.readers import (
    detection,
    geolite2,
    ipfire,
    libloc,
    mmdb,
    network_list,
    prefix_list,
)
from geolookup.build.readers.ranges import SILENCE, SourceRanges
from geolookup.build.readers.source_file import ReadState, SourceFile, read_lines

MARKED: Final = 1
"""The number that stands for "of this kind" in `Ranges`."""

KINDS: Final = (*Network.__members__, "HOSTILE")
"""``HOSTILE`` is IPFire's list of networks to drop; the others are kinds of networks."""

States = Callable[[str], ReadState]
"""Returns the state of a kind, into which its ranges go."""

_COLUMNS: Final = {
    "PROXY": "is_anonymous_proxy",
    "SATELLITE": "is_satellite_provider",
    "ANYCAST": "is_anycast",
}
_LISTS: Final = {"A1": "PROXY", "A2": "SATELLITE", "A3": "ANYCAST", "XD": "HOSTILE"}
_FLAGS: Final = {
    "PROXY": "NETWORK_FLAG_ANONYMOUS_PROXY",
    "SATELLITE": "NETWORK_FLAG_SATELLITE_PROVIDER",
    "ANYCAST": "NETWORK_FLAG_ANYCAST",
    "HOSTILE": "NETWORK_FLAG_DROP",
}


def of_geolite2(file: SourceFile, states: States) -> None:
    """Add what the columns of a file of blocks mark. Of an older edition some are missing."""
    header = detection.beginning(file.head).header()
    network = detection.column(header, ("network",))
    if geolite2.is_table(file.head) or network is None:
        return
    for kind, name in _COLUMNS.items():
        column = detection.column(header, (name,))
        if column is not None:
            size = len(header)
            dialect = Dialect(
                "networks", quotes=True, least=size, most=size, first=network, code=column
            )
            read_lines(file, states(kind), dialect, skip=1, read_code=_read_mark)


def _read_mark(raw: str) -> int:
    if raw not in {"", "0", "1"}:
        raise ValueError("expected 1, 0 or nothing")
    return MARKED if raw == "1" else SILENCE


def of_mmdb(file: SourceFile, states: States) -> None:
    """Add what the records of a database mark: MaxMind's flags, as such or in ``traits``."""
    bits = ReadState(SourceRanges())
    mmdb.read_records(file, bits, network_list.kinds_of_record)
    for family in (bits.into.ipv4, bits.into.ipv6):
        for first, last, found in family:
            for kind in networks_of(found):
                ranges = states(kind.name).into
                into = ranges.ipv4 if family is bits.into.ipv4 else ranges.ipv6
                into.append(first, last, MARKED, file=file.number)


def of_ipfire(file: SourceFile, states: States) -> None:
    """Add a list of flagged networks; of a country's list nothing."""
    kind = _LISTS.get(ipfire.code_of(file))
    if kind is not None:
        read_lines(file, states(kind), prefix_list.DIALECT, read_code=lambda _: MARKED)


def of_libloc(file: SourceFile, states: States) -> None:
    """Add the flagged networks of a database."""
    package = libloc.package(file)
    flags = [(kind, getattr(package, name)) for kind, name in _FLAGS.items()]
    # Networks come before those inside them, so what follows a marked one may lie in it.
    marked = {(kind, bits): -1 for kind in _FLAGS for bits in (32, 128)}

    def add(network: libloc.Network, first: int, last: int, bits: int) -> None:
        for kind, flag in flags:
            is_marked = network.has_flag(flag)
            if is_marked or first <= marked[kind, bits]:
                into = states(kind).into
                family = into.ipv4 if bits == 32 else into.ipv6
                family.append(first, last, MARKED if is_marked else SILENCE, file=file.number)
                if is_marked:
                    marked[kind, bits] = max(marked[kind, bits], last)

    libloc.each_network(file, add)
