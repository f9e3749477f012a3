"""Ranges by the name of a set, for firewalls: a set for each country and family.

With regions a set of a country still holds all of the country, and a set of a subdivision
(``UA_43_ipv4``) all that lie in it. With networks there is a set of each kind (``VPN_ipv4``), and
none of countries. IPv6 prefixes that carry IPv4 addresses are in no set.
"""

from __future__ import annotations

from collections.abc import Iterator

from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.intervals import FAMILIES, Family
from geolookup.answer.subdivisions import subdivisions
from geolookup.export.rows import Rows

Ranges = list[tuple[int, int]]
"""First and last addresses, ascending and apart."""


def sets(rows: Rows) -> Iterator[tuple[str, Family, Ranges]]:
    """Yield a set's name, its family and ranges, by name.

    Empty sets too, so that rules that use them load, and what an older file put in them goes.
    """
    named = _kinds(rows) if rows.networks else _codes(rows)
    for name in sorted(named):
        for family in FAMILIES:
            yield f"{name.replace('-', '_')}_ipv{family}", family, named[name].get(family, [])


def _kinds(rows: Rows) -> dict[str, dict[Family, Ranges]]:
    named: dict[str, dict[Family, Ranges]] = {kind.name: {} for kind in rows.networks}
    for family in FAMILIES:
        for kind, first, last in rows.network_spans(family):
            named[kind.name].setdefault(family, []).append((first, last))
    return named


def _codes(rows: Rows) -> dict[str, dict[Family, Ranges]]:
    all_codes = (*COUNTRIES, *(rows.dataset.claims.places if rows.regions else ()))
    named: dict[str, dict[Family, Ranges]] = {code: {} for code in rows.codes or all_codes}
    for family in FAMILIES:
        for first, last, code in rows.spans(family):
            for holding in subdivisions().path(code) if "-" in code else (code,):
                if holding in named:
                    named[holding].setdefault(family, []).append((first, last))
    return named
