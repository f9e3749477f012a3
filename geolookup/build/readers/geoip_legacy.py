"""GeoIP Legacy, MaxMind's first binary format: ``GeoIP.dat`` and ``GeoIPv6.dat``.

Debian's package ``geoip-database`` has both, made from DB-IP's data each month. A search tree
with three bytes a child, the lowest first; a child from `_COUNTRIES` on is a country's number.
The format's list of countries ended with the format: what it lacks (``XK``) stands under
other codes, and is named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from geolookup.answer.country_codes import COUNTRIES
from geolookup.build.readers.ranges import read_code_number
from geolookup.build.readers.source_file import ReadState, SourceFile
from geolookup.errors import SourceError

NAME = "geoip-legacy"

_CODES: Final = (
    "-- AP EU AD AE AF AG AI AL AM CW AO AQ AR AS AT AU AW AZ BA BB BD BE BF BG BH BI BJ BM BN BO"
    " BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CX CY CZ DE DJ DK DM DO DZ"
    " EC EE EG EH ER ES ET FI FJ FK FM FO FR SX GA GB GD GE GF GH GI GL GM GN GP GQ GR GS GT GU GW"
    " GY HK HM HN HR HT HU ID IE IL IN IO IQ IR IS IT JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA"
    " LB LC LI LK LR LS LT LU LV LY MA MC MD MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ"
    " NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RU"
    " RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR ST SV SY SZ TC TD TF TG TH TJ TK TM TN TO TL"
    " TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT RS ZA ZM ME ZW A1 A2 O1 AX"
    " GG IM JE BL MF BQ SS O1"
)
CODES: Final = tuple(_CODES.split())
"""By number. ``O1``, "other", is no country."""

_COUNTRIES: Final = 0xFFFF00
_NODE: Final = 6
_BITS: Final = {1: 32, 12: 128}
"""Of the addresses, by the number of the edition: countries by IPv4, and by IPv6."""
_STRUCTURE: Final = b"\xff\xff\xff"
_SEARCHED: Final = 23
"""Bytes at the end in which the structure begins: its mark, the edition, and what follows."""
_MAX_NETWORKS_PER_NODE: Final = 16
"""A tree has one network more than nodes; some more where parts are shared."""
_LARGEST: Final = 1 << 28
"""Bytes of a file. There is room for 16.7 million nodes; Debian's have 8 MB."""
_NAMED: Final = re.compile(r"GeoIP(v6)?\.dat", re.IGNORECASE)


def recognises(_head: bytes, name: str = "") -> bool:
    """Return whether a file with this name has this format; its content begins like any other."""
    return _NAMED.fullmatch(name) is not None


def read(file: SourceFile, state: ReadState) -> None:
    """Add a database's ranges to a source.

    Raises:
        SourceError: not a database of countries in this format, or a damaged one.
    """
    content = file.content(_LARGEST)
    try:
        bits = _bits(bytes(content[-_SEARCHED:]))
        into = state.into.ipv4 if bits == 32 else state.into.ipv6
        numbers = [0 if code == "O1" else read_code_number(code) for code in CODES]
        start, before, code = 0, 0, -1
        for first, country in _networks(bytes(content), bits):
            if numbers[country] != code:
                if code > 0:
                    into.append(start, first - 1, code, file=file.number)
                start, code = first, numbers[country]
            before = first
        if code > 0 and before >= start:
            into.append(start, (1 << bits) - 1, code, file=file.number)
    except (ValueError, IndexError) as error:
        raise SourceError(f"{file.name}: no GeoIP Legacy database, or a damaged one") from error
    lacking = ", ".join(sorted(COUNTRIES.keys() - set(CODES)))
    state.faults.notes.append(
        f"{file.name}: the format has no code for {lacking}: such places are under other codes"
    )


def _bits(end: bytes) -> int:
    """Return the length of the addresses. ValueError: another edition, or none."""
    at = end.rfind(_STRUCTURE, 0, -1)
    if at < 0 or end[at + 3] not in _BITS:
        raise ValueError("no edition of countries")
    return _BITS[end[at + 3]]


def _networks(content: bytes, bits: int) -> Iterator[tuple[int, int]]:
    """Yield first address and country's number of each network, ascending and without gaps.

    Raises:
        ValueError, IndexError: the tree is none, or leads out of the file.
    """
    allowed = _MAX_NETWORKS_PER_NODE * (len(content) // _NODE + 1)
    waiting = [(0, 0, 0)]
    while waiting:
        child, depth, first = waiting.pop()
        if child >= _COUNTRIES:
            allowed -= 1
            if allowed < 0:
                raise ValueError("more networks than a tree has")
            yield first, child - _COUNTRIES
            continue
        if depth == bits or (child + 1) * _NODE > len(content):
            raise ValueError("too deep, or a node outside of the file")
        at = child * _NODE
        left = int.from_bytes(content[at : at + 3], "little")
        right = int.from_bytes(content[at + 3 : at + 6], "little")
        waiting.append((right, depth + 1, first | 1 << bits - depth - 1))
        waiting.append((left, depth + 1, first))
