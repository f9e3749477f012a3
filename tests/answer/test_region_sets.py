"""Region sets: the built-in table, the algebra over names, operators' own sets."""

from __future__ import annotations

import contextlib
import itertools
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.region_sets import MAX_EXPRESSION, RegionSet, RegionSets
from geolookup.answer.subdivisions import subdivisions
from geolookup.errors import RegionSetError

ROOT = Path(__file__).resolve().parents[2]
SETS = RegionSets.builtin()
NAMED = {region_set.name: region_set for region_set in SETS}

CONTINENTS = ("AFRICA", "AMERICAS", "ASIA", "EUROPE", "OCEANIA")
# How many countries and areas the UN Statistics Division lists in each region.
M49_SIZES = {
    "AFRICA": 60,
    "NORTHERN_AFRICA": 7,
    "SUB_SAHARAN_AFRICA": 53,
    "EASTERN_AFRICA": 22,
    "MIDDLE_AFRICA": 9,
    "SOUTHERN_AFRICA": 5,
    "WESTERN_AFRICA": 17,
    "AMERICAS": 57,
    "LATIN_AMERICA_AND_THE_CARIBBEAN": 52,
    "CARIBBEAN": 28,
    "CENTRAL_AMERICA": 8,
    "SOUTH_AMERICA": 16,
    "NORTHERN_AMERICA": 5,
    "NORTH_AMERICA": 41,
    "ASIA": 50,
    "CENTRAL_ASIA": 5,
    "EASTERN_ASIA": 7,
    "SOUTH_EASTERN_ASIA": 11,
    "SOUTHERN_ASIA": 9,
    "WESTERN_ASIA": 18,
    "EUROPE": 51,
    "EASTERN_EUROPE": 10,
    "NORTHERN_EUROPE": 16,
    "SOUTHERN_EUROPE": 16,
    "WESTERN_EUROPE": 9,
    "OCEANIA": 29,
    "AUSTRALIA_AND_NEW_ZEALAND": 6,
    "MELANESIA": 5,
    "MICRONESIA": 8,
    "POLYNESIA": 10,
}
# Each continent's sub-regions; the intermediate ones where M49 has them.
M49_PARTS = {
    "AFRICA": ("NORTHERN_AFRICA", "SUB_SAHARAN_AFRICA"),
    "SUB_SAHARAN_AFRICA": ("EASTERN_AFRICA", "MIDDLE_AFRICA", "SOUTHERN_AFRICA", "WESTERN_AFRICA"),
    "AMERICAS": ("LATIN_AMERICA_AND_THE_CARIBBEAN", "NORTHERN_AMERICA"),
    "LATIN_AMERICA_AND_THE_CARIBBEAN": ("CARIBBEAN", "CENTRAL_AMERICA", "SOUTH_AMERICA"),
    "NORTH_AMERICA": ("CARIBBEAN", "CENTRAL_AMERICA", "NORTHERN_AMERICA"),
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


A_SUBDIVISION = (
    "region set: a subdivision is written as a country's code, a slash and its own code, such as"
    " UA/43"
)


def refusal(expression: str, sets: RegionSets = SETS) -> str:
    with pytest.raises(RegionSetError) as raised:
        sets.resolve(expression)
    return str(raised.value)


def definition(text: str, *, version: str = '"1"', source: str = '"x"') -> str:
    return f"{text}\nversion = {version}\nsource = {source}\n"


# The built-in table


def test_country_code_is_the_set_of_itself() -> None:
    for code in COUNTRIES:
        assert SETS.resolve(code).codes == {code}
        assert SETS.resolve(code).name == code


def test_china_is_in_no_set_widened_by_its_neighbours() -> None:
    assert SETS.resolve("CN").codes.isdisjoint({"HK", "MO", "TW"})
    assert SETS.resolve("CN+HK+MO").codes == {"CN", "HK", "MO"}
    assert SETS.resolve("EASTERN_ASIA").codes == {"CN", "HK", "MO", "JP", "KP", "KR", "MN"}


@pytest.mark.parametrize(
    ("name", "size"),
    {**M49_SIZES, "EU": 27, "EU_IN_FULL": 34, "EEA": 30, "EFTA": 4, "ALL": 250}.items(),
)
def test_table_has_each_set_in_full(name: str, size: int) -> None:
    assert len(NAMED[name].codes) == size


def test_table_has_no_further_sets() -> None:
    assert NAMED.keys() == {*M49_SIZES, "EU", "EU_IN_FULL", "EEA", "EFTA", "ALL"}
    assert len(SETS) == len(NAMED)


@pytest.mark.parametrize(("name", "parts"), M49_PARTS.items())
def test_a_region_is_the_disjoint_union_of_its_parts(name: str, parts: tuple[str, ...]) -> None:
    union = frozenset[str]().union(*(NAMED[part].codes for part in parts))
    assert NAMED[name].codes == union
    assert sum(len(NAMED[part].codes) for part in parts) == len(union)


def test_continents_are_disjoint_and_leave_out_only_what_m49_does_not_place() -> None:
    placed = [code for name in CONTINENTS for code in NAMED[name].codes]
    assert len(placed) == len(set(placed)) == 247
    assert COUNTRIES.keys() - set(placed) == {"AQ", "TW", "XK"}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("CY", "WESTERN_ASIA"),
        ("TR", "WESTERN_ASIA"),
        ("GE", "WESTERN_ASIA"),
        ("RU", "EASTERN_EUROPE"),
        ("KZ", "CENTRAL_ASIA"),
        ("IR", "SOUTHERN_ASIA"),
        ("EG", "NORTHERN_AFRICA"),
        ("SD", "NORTHERN_AFRICA"),
        ("MX", "CENTRAL_AMERICA"),
        ("GL", "NORTHERN_AMERICA"),
        ("BM", "NORTHERN_AMERICA"),
        ("GB", "NORTHERN_EUROPE"),
        ("EE", "NORTHERN_EUROPE"),
        ("SI", "SOUTHERN_EUROPE"),
        ("HK", "EASTERN_ASIA"),
        ("CX", "AUSTRALIA_AND_NEW_ZEALAND"),
        ("TL", "SOUTH_EASTERN_ASIA"),
        ("GS", "SOUTH_AMERICA"),
        ("TF", "EASTERN_AFRICA"),
        ("UM", "MICRONESIA"),
    ],
)
def test_countries_are_in_their_m49_region(code: str, name: str) -> None:
    assert code in NAMED[name].codes


def test_eu_eea_and_efta_are_what_the_treaties_say() -> None:
    assert "GB" not in NAMED["EEA"].codes
    assert "HR" in NAMED["EU"].codes
    assert NAMED["EU"].codes < NAMED["EEA"].codes
    assert NAMED["EEA"].codes - NAMED["EU"].codes == {"IS", "LI", "NO"}
    assert NAMED["EFTA"].codes == {"IS", "LI", "NO", "CH"}


def test_eu_holds_no_territory_with_a_code_of_its_own() -> None:
    territories = {"AX", "GF", "GP", "MF", "MQ", "RE", "YT", "GL", "FO", "PF", "NC"}
    assert NAMED["EU"].codes.isdisjoint(territories)


@pytest.mark.parametrize("region_set", list(SETS), ids=lambda region_set: region_set.name)
def test_every_set_is_dated_sourced_and_of_known_codes(region_set: RegionSet) -> None:
    assert region_set.codes <= COUNTRIES.keys()
    assert len(region_set.version.split("-")) == 3
    assert region_set.source


def test_sets_are_sorted_by_name() -> None:
    names = [region_set.name for region_set in SETS]
    assert names == sorted(names)


def test_no_set_bears_the_name_of_a_country() -> None:
    assert not NAMED.keys() & COUNTRIES.keys()


def test_the_page_about_region_sets_lists_them_all() -> None:
    """Codes, or the names of sets that make up the set."""
    page = (ROOT / "docs" / "region-sets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| (.+) \|$", page, re.MULTILINE)
    for name, size, content in rows:
        words = re.findall(r"[A-Z_]{2,}", content)
        codes = frozenset[str]().union(*(SETS.resolve(word).codes for word in words))
        assert codes == NAMED[name].codes
        assert int(size) == len(codes)
    assert {name for name, _, _ in rows} == NAMED.keys()
    for version in {region_set.version for region_set in SETS}:
        assert f" | {version} | " in page


# The algebra


@pytest.mark.parametrize(
    ("expression", "codes"),
    [
        ("DE+AT+CH", {"DE", "AT", "CH"}),
        ("EFTA-NO", {"IS", "LI", "CH"}),
        ("EFTA-NO+NO", {"IS", "LI", "CH", "NO"}),
        ("NO+EFTA-NO", {"IS", "LI", "CH"}),
        ("DE-EU+FR", {"FR"}),
        ("DE+DE", {"DE"}),
    ],
)
def test_expression_is_evaluated_from_left_to_right(expression: str, codes: set[str]) -> None:
    assert SETS.resolve(expression).codes == codes
    assert SETS.resolve(expression).name == expression


UKRAINE = frozenset(subdivisions().children["UA"])
ENGLAND = frozenset(subdivisions().below("GB-ENG"))


@pytest.mark.parametrize(
    ("expression", "codes", "partly"),
    [
        ("UA/43", {"UA-43"}, {"UA"}),
        ("US/CA+US/NY", {"US-CA", "US-NY"}, {"US"}),
        ("UA-UA/43", UKRAINE - {"UA-43"}, {"UA"}),
        ("UA-UA/43+UA/43", {"UA"}, set()),
        ("UA/43+UA", {"UA"}, set()),
        ("EFTA-CH/ZH", {"IS", "LI", "NO", *subdivisions().children["CH"]} - {"CH-ZH"}, {"CH"}),
        ("UA/43+RU-RU", {"UA-43"}, {"UA"}),
        ("UA/43+UA/30-UA/43", {"UA-30"}, {"UA"}),
        # A parent holds what lies in it.
        ("GB/LND", {"GB-LND"}, {"GB", "GB-ENG"}),
        ("GB/ENG", {"GB-ENG", *ENGLAND}, {"GB"}),
        ("GB/ENG-GB/LND", ENGLAND - {"GB-LND"}, {"GB", "GB-ENG"}),
        ("GB/ENG+GB/SCT+GB/WLS+GB/NIR", {"GB"}, set()),
        ("NO/30", {"NO-30", "NO-31", "NO-32", "NO-33"}, {"NO"}),
    ],
)
def test_subdivisions_join_and_divide_countries(
    expression: str, codes: set[str], partly: set[str]
) -> None:
    found = SETS.resolve(expression)
    assert found.codes == codes
    assert found.partly == partly
    assert SETS.resolve(found.expression).codes == codes


def test_set_of_codes_is_completed_like_an_expression() -> None:
    assert RegionSet("x", frozenset({"GB-ENG"})).codes == SETS.resolve("GB/ENG").codes
    assert RegionSet("x", frozenset({"UA", "UA-43"})).codes == {"UA"}
    for code in ("UA-99", "CN-HK", "UA/43"):
        with pytest.raises(RegionSetError):
            RegionSet("x", frozenset({code}))


def test_no_difference_of_two_countries_means_a_subdivision() -> None:
    read = 0
    for place in [*subdivisions().parents, *subdivisions().countries]:
        country, _, part = place.partition("-")
        if part not in COUNTRIES:
            continue
        read += 1
        text = refusal(f"{country}-{part}")
        if part == country:
            assert text == "region set: the expression leaves no code"
        else:
            assert text.startswith(f"region set: {part} is not in {country}")
    assert read == 897


OPERANDS = st.lists(
    st.tuples(st.sampled_from("+-"), st.sampled_from([*NAMED, *COUNTRIES])), min_size=1, max_size=20
)


@given(OPERANDS)
def test_expression_agrees_with_python_sets(operands: list[tuple[str, str]]) -> None:
    operands[0] = ("+", operands[0][1])
    expected: set[str] = set()
    for operator, name in operands:
        codes = NAMED[name].codes if name in NAMED else {name}
        before = expected
        expected = expected | codes if operator == "+" else expected - codes
        if operator == "-" and expected == before:
            expression = "".join(operator + name for operator, name in operands)[1:]
            assert refusal(expression).startswith(f"region set: {name} is not in ")
            return
    expression = "".join(operator + name for operator, name in operands)[1:]
    if expected:
        assert SETS.resolve(expression).codes == expected
    else:
        assert refusal(expression) == "region set: the expression leaves no code"


@given(st.text(max_size=30))
def test_any_text_resolves_or_is_a_region_set_error(text: str) -> None:
    with contextlib.suppress(RegionSetError):
        assert SETS.resolve(text).codes


def test_an_expression_says_which_dated_sets_it_used() -> None:
    assert SETS.resolve("EEA-NO+EFTA").version == "EEA 2020-02-01, EFTA 1995-01-01"
    assert "European Economic Area" in SETS.resolve("EEA-NO").source
    assert SETS.resolve("DE+AT").source == "ISO 3166-1"


def test_expression_of_all_countries_is_accepted() -> None:
    everything = "+".join(COUNTRIES)
    assert len(everything) < MAX_EXPRESSION
    assert SETS.resolve(everything).codes == COUNTRIES.keys()


# What is refused, and how


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", "region set: the expression is empty"),
        ("+", "region set: a name is missing at position 1"),
        ("CN+", "region set: a name is missing at position 4"),
        ("CN--HK", "region set: a name is missing at position 4"),
        ("-CN", "region set: a name is missing at position 1"),
        ("CN-CN", "region set: the expression leaves no code"),
        ("DE + AT", "region set: unknown name at position 1"),
        ("A" * 2_001, "region set: the expression has over 2,000 characters"),
        ("eea", "unknown region set 'eea'; did you mean 'EEA'?"),
        ("EU+cn", "unknown region set 'cn' at position 4; did you mean 'CN'?"),
        ("EROPE", "unknown region set 'EROPE'; did you mean 'EUROPE'?"),
        ("UK", "unknown region set 'UK'; did you mean 'GB'?"),
        ("EL", "unknown region set 'EL'; did you mean 'GR'?"),
        ("Germany", "unknown region set 'Germany'; did you mean 'DE'?"),
        ("China", "unknown region set 'China'; did you mean 'CN'?"),
        ("CN,HK", "region set: names are joined with +: CN+HK"),
        ("cn, hk;Mo", "region set: names are joined with +: CN+HK+MO"),
        ("EEA | CH", "region set: names are joined with +: EEA+CH"),
        ("QQ", "unknown region set 'QQ'"),
        ("ZZ", "unknown region set 'ZZ'"),
        ("EU-ZZ", "unknown region set 'ZZ' at position 4"),
        # A difference that removes nothing means something else than it says.
        ("CH-EU", "region set: EU is not in CH"),
        ("EU-GB", "region set: GB is not in EU"),
        ("CN-HK", "region set: HK is not in CN"),
        ("US-CA", "region set: CA is not in US; the subdivision is US/CA"),
        ("EU+US-CA", "region set: CA is not in EU+US; the subdivision is US/CA"),
        ("UA/43-UA/30", "region set: UA/30 is not in UA/43"),
        # Subdivisions.
        ("UA-43", "region set: 43 at position 4 is no code; the subdivision is UA/43"),
        ("CN/HK", "region set: there is no CN/HK: it is the country HK"),
        ("FR/974", "region set: there is no FR/974: it is the country RE"),
        ("ua/43", "region set: unknown subdivision ua/43; did you mean UA/43?"),
        ("GB/EN", "region set: unknown subdivision GB/EN; did you mean GB/ENG?"),
        ("BE/99", "region set: unknown subdivision BE/99; those of BE are BRU, VLG, WAL"),
        ("EU/1", "region set: EU/1: EU is no country's code"),
        ("UA/", A_SUBDIVISION),
        ("1.2.3.4/8", A_SUBDIVISION),
        ("2001:db8::/32", A_SUBDIVISION),
        ("UA/43/1", A_SUBDIVISION),
    ],
)
def test_unknown_name_is_refused_with_the_nearest_one(expression: str, expected: str) -> None:
    assert refusal(expression) == expected


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.77",
        "2001:db8::77",
        "192-0-2-77",
        "3221226061",
        "2001-db8--77",
        "192_0_2_77",
        "fd77000000000000000000000000db8f",
        "fe80--db8-77",
        "c000024d77777",
        "CN+192.0.2.77",
        "192.0.2.77-CN",
        "QQ+192.0.2.77",
        "77",
        "192.0.2.77:8080",
    ],
)
def test_an_address_in_the_wrong_field_is_never_repeated(address: str) -> None:
    text = refusal(address)
    assert "77" not in text
    assert "192" not in text
    assert "db8" not in text


# RegionSet


@pytest.mark.parametrize("codes", [[], ["cn"], ["CHN"], ["ZZ"], ["CN", ""], "CN"])
def test_a_region_set_of_anything_but_codes_is_refused(codes: list[str]) -> None:
    """Lower case would otherwise put every address outside, silently."""
    with pytest.raises(RegionSetError):
        RegionSet("MINE", frozenset(codes), "1", "x")


def test_a_region_set_is_hashable_and_equal_by_value() -> None:
    assert RegionSet("A", frozenset({"DE"})) == RegionSet("A", frozenset({"DE"}))
    assert len({RegionSet("A", frozenset({"DE"})), RegionSet("A", frozenset({"DE"}))}) == 1


# Operators' own sets


def test_an_operator_adds_sets_by_codes_and_by_expression() -> None:
    toml = definition(
        '[region_sets.DACH]\ncodes = ["DE", "AT", "CH"]',
        version='"2026-01-01"',
        source='"Legal, ticket 123"',
    ) + definition('[region_sets.EEA_WITHOUT_NO]\nexpression = "EEA-NO"')
    sets = SETS.extended(toml, "sets.toml")
    assert sets.resolve("DACH") == RegionSet(
        "DACH", frozenset({"DE", "AT", "CH"}), "2026-01-01", "Legal, ticket 123"
    )
    assert sets.resolve("EEA_WITHOUT_NO").codes == NAMED["EEA"].codes - {"NO"}
    assert sets.resolve("EU-DACH").codes == NAMED["EU"].codes - {"DE", "AT"}
    assert len(sets) == len(SETS) + 2


def test_extending_leaves_the_original_as_it_was() -> None:
    SETS.extended(definition('[region_sets.MINE]\ncodes = ["DE"]'), "sets.toml")
    assert refusal("MINE").startswith("unknown region set 'MINE'")


def test_sets_may_use_sets_defined_later() -> None:
    toml = definition('[region_sets.A]\nexpression = "B+FR"') + definition(
        '[region_sets.B]\nexpression = "C-DE"'
    )
    toml += definition('[region_sets.C]\nexpression = "EU-IT"')
    sets = SETS.extended(toml, "sets.toml")
    assert sets.resolve("A").codes == NAMED["EU"].codes - {"IT", "DE"}


def test_a_toml_date_is_a_version() -> None:
    toml = definition('[region_sets.MINE]\ncodes = ["DE"]', version="2026-01-01")
    assert SETS.extended(toml, "sets.toml").resolve("MINE").version == "2026-01-01"


def test_sets_can_be_extended_twice_but_not_redefined() -> None:
    toml = definition('[region_sets.MINE]\ncodes = ["DE"]')
    sets = SETS.extended(toml, "one.toml")
    more = sets.extended(definition('[region_sets.OURS]\nexpression = "MINE+FR"'), "two.toml")
    assert more.resolve("OURS").codes == {"DE", "FR"}
    with pytest.raises(RegionSetError, match=r"^two.toml: region_sets: MINE: there is a set"):
        sets.extended(toml, "two.toml")


def test_an_empty_file_adds_nothing() -> None:
    assert len(SETS.extended("", "sets.toml")) == len(SETS)
    assert len(SETS.extended("[region_sets]", "sets.toml")) == len(SETS)


NAMES = st.text(string.ascii_uppercase + "_", min_size=3, max_size=6).filter(
    lambda name: name[0] != "_" and name not in NAMED
)


@given(st.lists(NAMES, unique=True, min_size=1, max_size=6), st.data())
def test_definitions_in_any_order_give_the_same_sets(names: list[str], data: st.DataObject) -> None:
    """Each set adds to one that is defined before it; the file has them shuffled."""
    codes: dict[str, frozenset[str]] = {}
    tables = []
    for position, name in enumerate(names):
        base = data.draw(st.sampled_from([*names[:position], "EFTA", "EU", "CN"]))
        code = data.draw(st.sampled_from(list(COUNTRIES)))
        tables.append(definition(f'[region_sets.{name}]\nexpression = "{base}+{code}"'))
        codes[name] = (codes[base] if base in codes else SETS.resolve(base).codes) | {code}
    sets = SETS.extended("".join(data.draw(st.permutations(tables))), "sets.toml")
    assert {name: sets.resolve(name).codes for name in names} == codes


BAD_FILES = {
    "no TOML": ("[region_sets", "sets.toml: Expected"),
    "nested without end": ("a = " + "[" * 5_000, "sets.toml: can't be read as TOML"),
    "another top-level key": (
        "[regions]",
        "sets.toml: regions: unknown key; expected region_sets",
    ),
    "no table of tables": ("region_sets = 3", "sets.toml: region_sets: expected a table"),
    "no table": ("[region_sets]\nDACH = 3", "sets.toml: region_sets: DACH: expected a table"),
    "lower case": (
        definition('[region_sets.dach]\ncodes = ["DE"]'),
        "sets.toml: region_sets: the name of table 1, 'dach', is not of capital letters",
    ),
    "an operator in the name": (
        definition('[region_sets."DE-AT"]\ncodes = ["DE"]'),
        "sets.toml: region_sets: the name of table 1, 'DE-AT', is not of capital letters",
    ),
    "an address as the name": (
        definition('[region_sets."192.0.2.77"]\ncodes = ["DE"]'),
        "sets.toml: region_sets: the name of table 1, not shown here, is not of capital letters",
    ),
    "a country": (
        definition('[region_sets.CN]\nexpression = "HK+MO"'),
        "sets.toml: region_sets: CN: names of two letters are reserved for country codes",
    ),
    "a country that may come": (
        definition('[region_sets.QQ]\ncodes = ["DE"]'),
        "sets.toml: region_sets: QQ: names of two letters are reserved for country codes",
    ),
    "a built-in set": (
        definition('[region_sets.EU]\ncodes = ["DE"]'),
        "sets.toml: region_sets: EU: there is a set of this name already",
    ),
    "a built-in M49 region": (
        definition('[region_sets.ASIA]\nexpression = "EASTERN_ASIA+TW"'),
        "sets.toml: region_sets: ASIA: there is a set of this name already",
    ),
    "an unknown key": (
        definition('[region_sets.MINE]\ncountries = ["DE"]'),
        "sets.toml: region_sets: MINE: countries: unknown key; expected codes",
    ),
    "both": (
        definition('[region_sets.MINE]\ncodes = ["DE"]\nexpression = "DE"'),
        "sets.toml: region_sets: MINE: expected either codes or expression",
    ),
    "neither": (
        definition("[region_sets.MINE]"),
        "sets.toml: region_sets: MINE: expected either codes or expression",
    ),
    "no version": (
        '[region_sets.MINE]\ncodes = ["DE"]\nsource = "x"',
        "sets.toml: region_sets: MINE: version: missing",
    ),
    "an empty source": (
        definition('[region_sets.MINE]\ncodes = ["DE"]', source='" "'),
        "sets.toml: region_sets: MINE: source: empty",
    ),
    "a version that is a number": (
        definition('[region_sets.MINE]\ncodes = ["DE"]', version="3"),
        "sets.toml: region_sets: MINE: version: expected a text",
    ),
    "codes that are no list": (
        definition('[region_sets.MINE]\ncodes = "DE"'),
        "sets.toml: region_sets: MINE: codes: expected a list",
    ),
    "no codes": (
        definition("[region_sets.MINE]\ncodes = []"),
        "sets.toml: region_sets: MINE: codes: expected a list of country codes, not empty",
    ),
    "a code in lower case": (
        definition('[region_sets.MINE]\ncodes = ["DE", "at"]'),
        "sets.toml: region_sets: MINE: codes[1]: 'at' is not a country code; did you mean 'AT'?",
    ),
    "a name among the codes": (
        definition('[region_sets.MINE]\ncodes = ["Germany"]'),
        "sets.toml: region_sets: MINE: codes[0]: 'Germany' is not a country code; did you mean"
        " 'DE'?",
    ),
    "a code of another list": (
        definition('[region_sets.MINE]\ncodes = ["DE", "UK"]'),
        "sets.toml: region_sets: MINE: codes[1]: 'UK' is not a country code; did you mean 'GB'?",
    ),
    "a set among the codes": (
        definition('[region_sets.MINE]\ncodes = ["EU"]'),
        "sets.toml: region_sets: MINE: codes[0]: 'EU' is not a country code",
    ),
    "no answer among the codes": (
        definition('[region_sets.MINE]\ncodes = ["ZZ"]'),
        "sets.toml: region_sets: MINE: codes[0]: 'ZZ' is not a country code",
    ),
    "a number among the codes": (
        definition('[region_sets.MINE]\ncodes = ["DE", 1]'),
        "sets.toml: region_sets: MINE: codes: expected a list of texts",
    ),
    "a code twice": (
        definition('[region_sets.MINE]\ncodes = ["DE", "DE"]'),
        "sets.toml: region_sets: MINE: codes[1]: DE is listed twice",
    ),
    "an address among the codes": (
        definition('[region_sets.MINE]\ncodes = ["192.0.2.77"]'),
        "sets.toml: region_sets: MINE: codes[0]: not shown here is not a country code",
    ),
    "an expression that is no text": (
        definition('[region_sets.MINE]\nexpression = ["EU"]'),
        "sets.toml: region_sets: MINE: expression: expected a text",
    ),
    "an unknown name": (
        definition('[region_sets.MINE]\nexpression = "EU-FRANCE"'),
        "sets.toml: region_sets: MINE: expression: unknown region set 'FRANCE' at position 4; "
        "did you mean 'FR'?",
    ),
    "nothing left": (
        definition('[region_sets.MINE]\nexpression = "CN-CN"'),
        "sets.toml: region_sets: MINE: expression: the expression leaves no code",
    ),
    "itself": (
        definition('[region_sets.MINE]\nexpression = "MINE+DE"'),
        "sets.toml: region_sets: sets defined in a cycle: MINE -> MINE",
    ),
    "a circle": (
        definition('[region_sets.ONE]\nexpression = "TWO"')
        + definition('[region_sets.TWO]\nexpression = "DE+THREE"')
        + definition('[region_sets.THREE]\nexpression = "ONE-FR"'),
        "sets.toml: region_sets: sets defined in a cycle: ",
    ),
}


@pytest.mark.parametrize(("toml", "expected"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_invalid_definition_is_refused_with_file_and_key(toml: str, expected: str) -> None:
    with pytest.raises(RegionSetError) as raised:
        SETS.extended(toml, "sets.toml")
    assert str(raised.value).startswith(expected)
    assert "192" not in str(raised.value)


def test_circular_definition_is_refused_in_the_order_of_use() -> None:
    uses = {"ONE": "TWO", "TWO": "THREE", "THREE": "ONE"}
    toml = "".join(
        definition(f'[region_sets.{name}]\nexpression = "{used}"') for name, used in uses.items()
    )
    with pytest.raises(RegionSetError) as raised:
        SETS.extended(toml, "sets.toml")
    circle = str(raised.value).split(": ")[-1].split(" -> ")
    assert circle[0] == circle[-1]
    assert len(circle) == 4
    assert all(uses[name] == used for name, used in itertools.pairwise(circle))


def test_a_long_chain_of_definitions_needs_no_recursion() -> None:
    """A recursive walk would end at Python's limit of about 1,000 frames."""
    toml = "".join(
        definition(f'[region_sets.S{n}]\nexpression = "S{n + 1}"') for n in range(1_500)
    ) + definition('[region_sets.S1500]\ncodes = ["DE"]')
    assert SETS.extended(toml, "sets.toml").resolve("S0").codes == {"DE"}
