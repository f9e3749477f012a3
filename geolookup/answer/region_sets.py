"""Region sets: named sets of codes, and the small algebra over their names.

Every country code is the name of the set of itself, and every subdivision, written with a
slash, because the hyphen means "without": "UA/43". Larger sets are written
down here, dated and sourced, or by an operator in a TOML file; nothing is ever
widened silently. "EU" holds the codes of the 27 member states and not those of
territories with a code of their own, even where EU law applies in them ("AX",
"GF", "GP", "MF", "MQ", "RE", "YT").

The M49 regions are as the UN Statistics Division publishes them. M49 lists
neither "TW" nor "XK", so no M49 region contains them ("ASIA+TW" does), and it
puts "AQ" in no region. "EASTERN_ASIA" and "ASIA" contain "CN", "HK" and "MO",
each as a code of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from geolookup.answer.country_codes import COUNTRIES, meant_names, nearest_code
from geolookup.answer.subdivisions import subdivisions
from geolookup.errors import RegionSetError

if TYPE_CHECKING:
    from geolookup.tomlfile import Table

MAX_EXPRESSION = 2_000
"""Characters in an expression: all 250 countries joined by "+" have 749, Great Britain without
one of its 153 districts 1,064."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_CODE = re.compile(r"[A-Z]{2}")
_PLACE = re.compile(r"[A-Z]{2}/[A-Z0-9]{1,3}")
"""A subdivision as expressions have it."""

# What may be repeated in an error text: nothing that an address could look like,
# in case one was typed into the wrong field. See _repeatable.
_REPEATABLE = re.compile(r"[A-Za-z0-9_+-]{1,64}")
_MAX_DIGITS = 4
_SEPARATORS = re.compile(r"[\s,;|&]+")
"""What people write between names where + belongs."""
_HEX = re.compile(r"[0-9A-Fa-f]{6,}")


@dataclass(frozen=True, slots=True)
class RegionSet:
    """A set of codes, with who defined it and when.

    Attributes:
        name: its name, or the expression that it came from.
        codes: of countries, two capital letters each and not "ZZ", and of subdivisions in
            ISO's form, such as "UA-43"; at least one. A subdivision stands there with all
            that lie in it, and none whose country is there.
        version: date of the definition (YYYY-MM-DD) or the operator's own text.
        source: who defines it.

    Raises:
        RegionSetError: *codes* is empty or holds what can't be a code.
    """

    name: str
    codes: frozenset[str]
    version: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", frozenset(self.codes))
        if not self.codes:
            raise RegionSetError("region set: it holds no code")
        places = {code for code in self.codes if "-" in code}
        # "cn" or "CHN" would silently leave every address outside.
        if not all(_CODE.fullmatch(code) and code != "ZZ" for code in self.codes - places):
            raise RegionSetError("region set: a code is not two capital letters, or is ZZ")
        if places:
            if not places <= subdivisions().parents.keys():
                raise RegionSetError("region set: a code is no subdivision of ISO 3166-2")
            object.__setattr__(self, "codes", _with_places(self.codes))

    @property
    def expression(self) -> str:
        """The codes as an expression: as few as say it, joined by +."""
        codes = sorted(self.codes)
        if any("-" in code for code in codes):
            table = subdivisions()
            codes = [
                code for code in codes if len(code) == 2 or table.parents[code] not in self.codes
            ]
        return "+".join(codes).replace("-", "/")

    @property
    def partly(self) -> frozenset[str]:
        """The countries and subdivisions that are not in the set, but a part of them is."""
        table = subdivisions if any("-" in code for code in self.codes) else None
        if table is None:
            return frozenset()
        above = {place for code in self.codes for place in table().path(code)[1:]}
        return frozenset(above - self.codes)


class RegionSets:
    """The named region sets, and what expressions over names mean.

    Immutable: `extended` returns a new object. Iteration gives the named sets
    sorted by name; the country codes are not among them.
    """

    __slots__ = ("_named",)

    def __init__(self, named: Iterable[RegionSet] = ()) -> None:
        ordered = sorted(named, key=lambda region_set: region_set.name)
        self._named: Mapping[str, RegionSet] = MappingProxyType(
            {region_set.name: region_set for region_set in ordered}
        )

    @staticmethod
    @cache
    def builtin() -> RegionSets:
        """Return the sets that geolookup defines: EU, EEA, EFTA and the UN M49 regions."""
        return RegionSets(_builtin_sets())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RegionSets:
        """Return the built-in sets and those that a file defines; see `extended`.

        Raises:
            RegionSetError: as `extended`, or the file can't be read.
        """
        from geolookup import tomlfile  # noqa: PLC0415 - as in `extended`

        name = os.fsdecode(path)
        return cls.builtin().extended(tomlfile.read_raw(Path(name), RegionSetError), name)

    def extended(self, toml: str | bytes, name: str) -> RegionSets:
        """Return these sets and those that an operator's TOML text defines.

        A definition has `version`, `source`, and either `codes` (a list) or
        `expression`, which may use sets defined later in the same text.

        Args:
            toml: tables ``[region_sets.NAME]`` and nothing else.
            name: the file's name, with which error texts begin.

        Raises:
            RegionSetError: not TOML, or a definition that is not valid. The text
                names the key.
        """
        # Most processes define no sets of their own and need no TOML parser.
        from geolookup import tomlfile  # noqa: PLC0415

        document = tomlfile.parse(toml, name, ("region_sets",), RegionSetError)
        names = tuple(document.value("region_sets", dict, {}))
        tables = document.table("region_sets", names) if names else document
        definitions = {}
        for position, set_name in enumerate(names, start=1):
            self._check_name(set_name, position, tables)
            table = tables.table(set_name, ("codes", "expression", "version", "source"))
            definitions[set_name] = _Definition(table)
        known = dict(self._named)
        for set_name in _in_order(definitions, tables):
            known[set_name] = definitions[set_name].region_set(set_name, RegionSets(known.values()))
        return RegionSets(known.values())

    def _check_name(self, name: str, position: int, tables: Table) -> None:
        if not _NAME.fullmatch(name):
            raise tables.error(
                f"the name of table {position}, {_shown(name)}, is not of capital letters,"
                " digits and _"
            )
        if _CODE.fullmatch(name) and name not in self._named:
            raise tables.error(f"{name}: names of two letters are reserved for country codes")
        if name in self._named:
            raise tables.error(f"{name}: there is a set of this name already")

    def resolve(self, expression: str) -> RegionSet:
        """Return the set that an expression names.

        An expression is a country code, a subdivision with a slash ("UA/43") or a set's
        name, or several joined by "+" (and those of the next) and "-" (without those of the
        next), worked from left to right, such as "EEA-NO". Names are case-sensitive.

        Raises:
            RegionSetError: an unknown name (the text suggests the nearest), an
                expression over 2,000 characters, one that leaves no code, or a "-" that
                removes nothing.
        """
        named = self._named.get(expression)
        if named is not None:
            return named
        if expression in COUNTRIES:
            return _of_code(expression)
        return self._evaluate(expression)

    def _evaluate(self, expression: str) -> RegionSet:
        operands = _operands(expression)
        codes: frozenset[str] = frozenset()
        used: dict[str, RegionSet] = {}
        for operator, name, position in operands:
            operand = self._operand(name, position, expression, single=len(operands) == 1)
            used[name] = operand
            before = codes
            codes = _united(codes, operand.codes) if operator == "+" else _without(codes, operand)
            if operator == "-" and codes == before:
                raise RegionSetError(_removes_nothing(expression[: position - 1], name))
        if not codes:
            raise RegionSetError("region set: the expression leaves no code")
        dated = [operand for operand in used.values() if operand.version]
        return RegionSet(
            name=expression,
            codes=codes,
            version=", ".join(f"{operand.name} {operand.version}" for operand in dated),
            source="; ".join(dict.fromkeys(operand.source for operand in used.values())),
        )

    def _operand(self, name: str, position: int, expression: str, *, single: bool) -> RegionSet:
        found = self._named.get(name)
        if found is not None:
            return found
        if name in COUNTRIES:
            return _of_code(name)
        if "/" in name:
            return _of_place(name)
        country = expression[: max(position - 1, 0)][-2:]
        if not single and subdivisions().parents.keys() & {f"{country}-{name}"}:
            raise RegionSetError(
                f"region set: {name} at position {position + 1} is no code; the subdivision is"
                f" {country}/{name}"
            )
        names = [part.upper() for part in _SEPARATORS.split(name.strip()) if part.isascii()]
        if len(names) > 1 and all(part in self._named or part in COUNTRIES for part in names):
            raise RegionSetError(f"region set: names are joined with +: {'+'.join(names)}")
        where = "" if single else f" at position {position + 1}"
        if not _repeatable(expression):
            raise RegionSetError(f"region set: unknown name{where or ' at position 1'}")
        text = f"unknown region set {name!r}{where}"
        nearest = self._nearest(name)
        raise RegionSetError(f"{text}; did you mean {nearest}?" if nearest else text)

    def _nearest(self, name: str) -> str:
        upper = name.upper()
        if upper in self._named or upper in COUNTRIES:
            return repr(upper)
        meant = meant_names()
        if upper in meant:
            return repr(meant[upper])
        if len(upper) == 2:
            return ""  # every code is near to every other
        # Only here: it is never needed where all goes well.
        from difflib import get_close_matches  # noqa: PLC0415

        near = get_close_matches(upper, [*self._named, *COUNTRIES, *meant], n=3, cutoff=0.75)
        return " or ".join(dict.fromkeys(repr(meant.get(text, text)) for text in near))

    def __iter__(self) -> Iterator[RegionSet]:
        return iter(self._named.values())

    def __len__(self) -> int:
        return len(self._named)


class _Definition:
    """An operator's set, whose expression is not yet resolved."""

    def __init__(self, table: Table) -> None:
        if table.has("codes") == table.has("expression"):
            raise table.error("expected either codes or expression")
        if table.has("version", date):  # TOML has dates of its own
            self.version = table.value("version", date).isoformat()
        else:
            self.version = table.text("version")
        self.source = table.text("source")
        self._table = table
        if table.has("codes"):
            self._expression = "+".join(_code_list(table))
        else:
            self._expression = table.value("expression", str)

    def names(self) -> list[str]:
        """Return the names that the expression uses."""
        with self._reading_expression():
            return [name for _, name, _ in _operands(self._expression)]

    def region_set(self, name: str, known: RegionSets) -> RegionSet:
        with self._reading_expression():
            codes = known.resolve(self._expression).codes
        return RegionSet(name, codes, self.version, self.source)

    @contextmanager
    def _reading_expression(self) -> Iterator[None]:
        """Put the file and the key before the text of an error."""
        try:
            yield
        except RegionSetError as error:
            what = str(error).removeprefix("region set: ")
            raise self._table.error(f"expression: {what}") from None


def _in_order(definitions: Mapping[str, _Definition], tables: Table) -> list[str]:
    """Return the names so that each comes after those that its definition uses."""
    # As rarely needed as the TOML parser.
    from graphlib import CycleError, TopologicalSorter  # noqa: PLC0415

    graph = {name: definition.names() for name, definition in definitions.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        # graphlib lists each set before the one that uses it.
        cycle = " -> ".join(reversed(error.args[1]))
    else:
        return [name for name in order if name in definitions]
    raise tables.error(f"sets defined in a cycle: {cycle}")


def _code_list(table: Table) -> tuple[str, ...]:
    """Return the names of a list's codes in an expression."""
    codes = table.texts("codes")
    if not codes:
        raise table.error("codes: expected a list of country codes, not empty")
    for position, code in enumerate(codes):
        if code not in COUNTRIES and code not in (subdivisions().parents if "-" in code else ()):
            nearest = _iso(code) or nearest_code(code)
            what = (
                "no subdivision"
                if "-" in code or nearest == _iso(code) != ""
                else "not a country code"
            )
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            raise table.error(f"codes[{position}]: {_shown(code)} is {what}{hint}")
        if code in codes[:position]:
            raise table.error(f"codes[{position}]: {code} is listed twice")
    return tuple(code.replace("-", "/") for code in codes)


def _iso(code: str) -> str:
    """Return a subdivision that was written as in an expression in ISO's form, else nothing."""
    iso = code.upper().replace("/", "-")
    return iso if "/" in code and iso in subdivisions().parents else ""


def _operands(expression: str) -> list[tuple[str, str, int]]:
    """Split an expression into (operator, name, position from 0); the first operator is "+"."""
    if not expression:
        raise RegionSetError("region set: the expression is empty")
    if len(expression) > MAX_EXPRESSION:
        raise RegionSetError(f"region set: the expression has over {MAX_EXPRESSION:,} characters")
    parts = re.split(r"([+-])", expression)
    operands = []
    position = 0
    for operator, name in zip(["+", *parts[1::2]], parts[::2], strict=True):
        if not name:
            raise RegionSetError(f"region set: a name is missing at position {position + 1}")
        operands.append((operator, name, position))
        position += len(name) + 1
    return operands


def _repeatable(text: str) -> bool:
    """Say whether *text* can't be an address, in part or with other separators."""
    text = _PLACE.sub("AA", text)
    names = [name for name in re.split(r"[+-]", text) if name]
    return (
        _REPEATABLE.fullmatch(text) is not None
        and all(name[0].isalpha() for name in names)
        and sum(map(str.isdigit, text)) <= _MAX_DIGITS
        # Packed bytes in hex, and in base64, which mixes capitals with small letters.
        and not any(_HEX.fullmatch(name) for name in names)
        and all(name.isupper() or name.islower() or name.istitle() for name in names)
    )


def _shown(text: str) -> str:
    return repr(text) if _repeatable(text) else "not shown here"


def _united(codes: Set[str], more: Set[str]) -> frozenset[str]:
    united = frozenset(codes | more)
    return _with_places(united) if any("-" in code for code in united) else united


def _with_places(codes: Set[str]) -> frozenset[str]:
    """Return the codes with all that lie in one of them, and none whose country is there.

    A country whose parts are all there is there, too.
    """
    table = subdivisions()
    countries = {code for code in codes if "-" not in code}
    places = {place for code in codes if "-" in code for place in (code, *table.below(code))}
    for country in {place[:2] for place in places}:
        if places.issuperset(table.children[country]):
            countries.add(country)
    return frozenset(countries | {place for place in places if place[:2] not in countries})


def _without(codes: Set[str], operand: RegionSet) -> frozenset[str]:
    """Return the codes without those of a set: a part of a country leaves its other parts."""
    left = set(codes)
    for code in operand.codes:
        if "-" not in code:
            left = {one for one in left if one[:2] != code}
            continue
        table = subdivisions()
        if code[:2] in left:
            left.remove(code[:2])
            left.update(table.below(code[:2]))
        left.difference_update((code, *table.below(code), *table.above(code)))
    return frozenset(left)


def _removes_nothing(left: str, name: str) -> str:
    """Return the text of the error for a difference that changes nothing."""
    text = f"region set: {name} is not in {left}"
    last = re.split("[+-]", left)[-1]
    meant = f"; the subdivision is {last}/{name}"
    return text + meant if f"{last}-{name}" in subdivisions().parents else text


def _of_place(name: str) -> RegionSet:
    """Return the set of one subdivision, such as ``UA/43``."""
    country, _, part = name.partition("/")
    table = subdivisions()
    code = f"{country}-{part}"
    if code in table.parents:
        return RegionSet(name, frozenset({code}), "", "ISO 3166-2")
    if not _PLACE.fullmatch(name.upper()):
        raise RegionSetError(
            "region set: a subdivision is written as a country's code, a slash and its own code,"
            " such as UA/43"
        )
    if country.upper() not in COUNTRIES:
        raise RegionSetError(f"region set: {name}: {country} is no country's code")
    if code.upper() in table.countries:
        same = table.countries[code.upper()]
        raise RegionSetError(f"region set: there is no {name}: it is the country {same}")
    meant = table.read(country.upper(), part)
    if meant is not None:
        raise RegionSetError(
            f"region set: unknown subdivision {name}; did you mean {meant.replace('-', '/')}?"
        )
    known = [one[3:] for one in table.children.get(country.upper(), ())]
    some = f"; those of {country.upper()} are {', '.join(known)}" if len(known) <= _LISTED else ""
    raise RegionSetError(f"region set: unknown subdivision {name}{some}")


_LISTED = 100
"""Subdivisions that an error text lists."""


def _of_code(code: str) -> RegionSet:
    source = "user-assigned code for Kosovo" if code == "XK" else "ISO 3166-1"
    return RegionSet(code, frozenset({code}), "", source)


# The codes of each set, as the source of the set lists them.

_EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_EU_FURTHER = "AX GF GP MF MQ RE YT"
_EEA = f"{_EU} IS LI NO"
_EFTA = "CH IS LI NO"

_M49_VERSION = "2024-02-27"
_M49_SOURCE = (
    "UN Statistics Division, Standard country or area codes for statistical use (M49), "
    "https://unstats.un.org/unsd/methodology/m49/"
)
# Every country or area that M49 puts in a region stands in exactly one of these.
_M49 = {
    # Africa
    "NORTHERN_AFRICA": "DZ EG EH LY MA SD TN",
    "EASTERN_AFRICA": "BI DJ ER ET IO KE KM MG MU MW MZ RE RW SC SO SS TF TZ UG YT ZM ZW",
    "MIDDLE_AFRICA": "AO CD CF CG CM GA GQ ST TD",
    "SOUTHERN_AFRICA": "BW LS NA SZ ZA",
    "WESTERN_AFRICA": "BF BJ CI CV GH GM GN GW LR ML MR NE NG SH SL SN TG",
    # Americas
    "CARIBBEAN": (
        "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI"
    ),
    "CENTRAL_AMERICA": "BZ CR GT HN MX NI PA SV",
    "SOUTH_AMERICA": "AR BO BR BV CL CO EC FK GF GS GY PE PY SR UY VE",
    "NORTHERN_AMERICA": "BM CA GL PM US",
    # Asia
    "CENTRAL_ASIA": "KG KZ TJ TM UZ",
    "EASTERN_ASIA": "CN HK JP KP KR MN MO",
    "SOUTH_EASTERN_ASIA": "BN ID KH LA MM MY PH SG TH TL VN",
    "SOUTHERN_ASIA": "AF BD BT IN IR LK MV NP PK",
    "WESTERN_ASIA": "AE AM AZ BH CY GE IL IQ JO KW LB OM PS QA SA SY TR YE",
    # Europe
    "EASTERN_EUROPE": "BG BY CZ HU MD PL RO RU SK UA",
    "NORTHERN_EUROPE": "AX DK EE FI FO GB GG IE IM IS JE LT LV NO SE SJ",
    "SOUTHERN_EUROPE": "AD AL BA ES GI GR HR IT ME MK MT PT RS SI SM VA",
    "WESTERN_EUROPE": "AT BE CH DE FR LI LU MC NL",
    # Oceania
    "AUSTRALIA_AND_NEW_ZEALAND": "AU CC CX HM NF NZ",
    "MELANESIA": "FJ NC PG SB VU",
    "MICRONESIA": "FM GU KI MH MP NR PW UM",
    "POLYNESIA": "AS CK NU PF PN TK TO TV WF WS",
}
_M49_UNIONS = {
    "SUB_SAHARAN_AFRICA": ("EASTERN_AFRICA", "MIDDLE_AFRICA", "SOUTHERN_AFRICA", "WESTERN_AFRICA"),
    "AFRICA": ("NORTHERN_AFRICA", "SUB_SAHARAN_AFRICA"),
    "LATIN_AMERICA_AND_THE_CARIBBEAN": ("CARIBBEAN", "CENTRAL_AMERICA", "SOUTH_AMERICA"),
    # M49 names the continent in a footnote, across the sub-regions.
    "NORTH_AMERICA": ("CARIBBEAN", "CENTRAL_AMERICA", "NORTHERN_AMERICA"),
    "AMERICAS": ("LATIN_AMERICA_AND_THE_CARIBBEAN", "NORTHERN_AMERICA"),
    "ASIA": (
        "CENTRAL_ASIA",
        "EASTERN_ASIA",
        "SOUTH_EASTERN_ASIA",
        "SOUTHERN_ASIA",
        "WESTERN_ASIA",
    ),
    "EUROPE": ("EASTERN_EUROPE", "NORTHERN_EUROPE", "SOUTHERN_EUROPE", "WESTERN_EUROPE"),
    "OCEANIA": ("AUSTRALIA_AND_NEW_ZEALAND", "MELANESIA", "MICRONESIA", "POLYNESIA"),
}


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _builtin_sets() -> Iterator[RegionSet]:
    yield RegionSet(
        "EU",
        _codes(_EU),
        "2020-02-01",
        "Treaty on European Union, the 27 member states, "
        "https://european-union.europa.eu/principles-countries-history/eu-countries_en",
    )
    yield RegionSet(
        "EU_IN_FULL",
        _codes(f"{_EU} {_EU_FURTHER}"),
        "2014-01-01",
        "Treaty on the Functioning of the European Union, articles 349 and 355: the member states,"
        " the outermost regions with a code of their own, and Åland, "
        "https://eur-lex.europa.eu/eli/treaty/tfeu_2012/oj",
    )
    # The list has been of these codes since South Sudan joined it.
    yield RegionSet("ALL", frozenset(COUNTRIES), "2011-08-09", "ISO 3166-1, and XK for Kosovo")
    yield RegionSet(
        "EEA",
        _codes(_EEA),
        "2020-02-01",
        "Agreement on the European Economic Area, https://www.efta.int/eea",
    )
    yield RegionSet(
        "EFTA",
        _codes(_EFTA),
        "1995-01-01",
        "European Free Trade Association, the four member states, https://www.efta.int",
    )
    m49 = {name: _codes(codes) for name, codes in _M49.items()}
    for name, parts in _M49_UNIONS.items():
        m49[name] = frozenset().union(*(m49[part] for part in parts))
    for name, codes in m49.items():
        yield RegionSet(name, codes, _M49_VERSION, _M49_SOURCE)
