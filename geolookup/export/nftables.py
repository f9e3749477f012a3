"""nftables: a named interval set for each code and family, as a script for ``nft -f``.

With regions a set of a country still holds all of the country, and a set of a subdivision
(``UA_43_ipv4``) all that lie in it. With networks there is a set of each kind (``VPN_ipv4``), and
none of countries.

Loading it again replaces the sets' content in one transaction: rules that use the sets
stay, and no packet is matched against an empty set. IPv6 prefixes that carry IPv4 addresses are
in no set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.intervals import FAMILIES, Family
from geolookup.answer.subdivisions import subdivisions
from geolookup.export.rows import Rows, text

# One element per line, for people who compare files; nft reads any layout.
_SEPARATOR = ",\n\t"


def write(rows: Rows, file: BinaryIO, *, table: str = "geolookup") -> None:
    """Write the spans as sets named such as ``CN_ipv4`` in the table ``inet`` *table*."""
    file.writelines(f"{line}\n".encode() for line in _lines(rows, table))


def _lines(rows: Rows, table: str) -> Iterator[str]:
    for line in rows.heading():
        yield f"# {line}"
    yield f"add table inet {table}"
    ranges: dict[str, dict[Family, list[str]]]
    if rows.networks:
        ranges = {kind.name: {} for kind in rows.networks}
        for family in FAMILIES:
            for kind, first, last in rows.network_spans(family):
                ranges[kind.name].setdefault(family, []).append(_element(family, first, last))
        yield from _sets(ranges, table)
        return
    # Empty sets too, so that rules that use them load and elements of an older file go.
    all_codes = (*COUNTRIES, *(rows.dataset.claims.places if rows.regions else ()))
    ranges = {code: {} for code in rows.codes or all_codes}
    for family in FAMILIES:
        for first, last, code in rows.spans(family):
            for holding in subdivisions().path(code) if "-" in code else (code,):
                if holding in ranges:
                    ranges[holding].setdefault(family, []).append(_element(family, first, last))
    yield from _sets(ranges, table)


def _sets(ranges: Mapping[str, Mapping[Family, list[str]]], table: str) -> Iterator[str]:
    for code in sorted(ranges):
        for family in FAMILIES:
            name = f"inet {table} {code.replace('-', '_')}_ipv{family}"
            yield f"add set {name} {{ type ipv{family}_addr; flags interval; }}"
            yield f"flush set {name}"
            if elements := ranges[code].get(family):
                yield f"add element {name} {{\n\t{_SEPARATOR.join(elements)}\n}}"


def _element(family: Family, first: int, last: int) -> str:
    if first == last:
        return text(family, first)
    return f"{text(family, first)}-{text(family, last)}"
