"""The table of ISO 3166-2, held against the package that it comes from."""

from __future__ import annotations

import re

import pycountry
import pytest

from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.subdivisions import CODE, subdivisions

TABLE = subdivisions()
NORWAY = {"NO-31", "NO-32", "NO-33", "NO-39", "NO-40", "NO-55", "NO-56"}


def test_table_has_the_codes_of_the_package_and_those_written_down() -> None:
    known = {one.code: one.parent_code or one.code[:2] for one in pycountry.subdivisions}
    assert TABLE.parents.keys() | TABLE.countries.keys() == known.keys() | NORWAY
    assert TABLE.parents.keys().isdisjoint(TABLE.countries)
    for code in TABLE.parents.keys() - NORWAY:
        assert TABLE.parents[code] == known[code]


def test_codes_are_sorted_and_of_countries() -> None:
    assert list(TABLE.parents) == sorted(TABLE.parents)
    assert len(TABLE.parents) < 0x8000
    for code, parent in TABLE.parents.items():
        assert CODE.fullmatch(code)
        assert code[:2] in COUNTRIES
        assert parent[:2] == code[:2]
        assert parent in TABLE.parents or parent == code[:2]
        assert code in TABLE.children[parent]


def test_places_that_are_countries_are_no_subdivisions() -> None:
    # Every subdivision whose name says so in the package.
    overseas = re.compile("^(Overseas|Outlying|Arctic|Special administrative region$)")
    for one in pycountry.subdivisions:
        if overseas.search(one.type) and one.code != "TL-OE":
            assert TABLE.countries[one.code] in COUNTRIES, one.code
    assert TABLE.countries["CN-TW"] == "TW"
    assert TABLE.countries["NL-AW"] == "AW"
    assert TABLE.countries["FI-01"] == "AX"
    assert set(TABLE.countries.values()) <= COUNTRIES.keys()


@pytest.mark.parametrize(
    ("country", "region", "place"),
    [
        ("UA", "43", "UA-43"),
        ("UA", "UA-43", "UA-43"),
        ("US", "ca", "US-CA"),
        ("GB", "GB-EN", "GB-ENG"),
        ("GB", "SC", "GB-SCT"),
        ("NO", "01", "NO-31"),
        ("FR", "974", "RE"),
        ("CN", "HK", "HK"),
        ("UA", "99", None),
        ("UA", "RU-KDA", None),
        ("HK", "HK", None),
    ],
)
def test_codes_are_read_as_sources_write_them(country: str, region: str, place: str | None) -> None:
    assert TABLE.read(country, region) == place


@pytest.mark.parametrize(
    ("places", "lowest"),
    [
        ({"GB-LND"}, "GB-LND"),
        ({"GB-LND", "GB-ENG"}, "GB-ENG"),
        ({"GB-LND", "GB-BIR"}, "GB-ENG"),
        ({"GB-LND", "GB-SCT"}, "GB"),
        ({"GB-LND", "UA-43"}, ""),
    ],
)
def test_lowest_common_place_is_found(places: set[str], lowest: str) -> None:
    assert TABLE.lowest(places) == lowest
