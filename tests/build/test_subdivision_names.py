"""Names of subdivisions in source data: which are known, and which must not be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from geolookup.answer.subdivisions import subdivisions
from geolookup.build.readers.places import Places
from geolookup.build.readers.ranges import code_text
from geolookup.build.subdivision_names import code_of, folded

# IPv4 addresses by the names of states in DB-IP's free city data of 2026-06-05, as
# ip-location-db has them: of each of these countries the names that hold most addresses, which
# together are 99 % of it.
DBIP = Path(__file__).parent / "dbip-states-2026-06.csv"


def test_names_of_dbip_are_known_for_most_addresses() -> None:
    named: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for line in DBIP.read_text(encoding="utf-8").splitlines()[1:]:
        country, addresses, name = line.split(",", 2)
        named[country] += int(addresses)
        if code_of(country, name) is not None:
            known[country] += int(addresses)
    shares = {country: known[country] / number for country, number in named.items()}
    assert min(shares.values()) >= 0.95, shares
    assert shares.keys() >= {"FR", "DE", "UA", "CN", "RU", "US", "JP", "CA", "GB"}


@pytest.mark.parametrize(
    ("country", "name", "code"),
    [
        ("CN", "Shanxi", "CN-SX"),
        ("CN", "Shaanxi", "CN-SN"),
        ("CN", "Shanxi Sheng", "CN-SX"),
        ("CN", "Shanx", None),
        ("RU", "Moscow", "RU-MOW"),
        ("RU", "Moscow Oblast", "RU-MOS"),
        ("RU", "Crimea", None),
        ("UA", "Crimea", "UA-43"),
        ("UA", "Kyiv City", "UA-30"),
        ("UA", "Kyiv Oblast", "UA-32"),
        ("FR", "Ile-de-France", "FR-IDF"),
        ("FR", "\u00cele-de-France", "FR-IDF"),
        ("FR", "ILE DE FRANCE", "FR-IDF"),
        ("FR", "Martinique", "MQ"),
        ("US", "Washington", "US-WA"),
        ("US", "Puerto Rico", "PR"),
        ("HU", "Veszpr\u00e9m", None),  # a county and a city
        ("DE", "Guangdong", None),
    ],
)
def test_name_means_one_place_or_none(country: str, name: str, code: str | None) -> None:
    assert code_of(country, name) == code


def test_every_name_that_is_written_down_has_a_code() -> None:
    file = Path(subdivision_names_file())
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        code, _, names = line.partition(": ")
        assert code in subdivisions().parents
        for name in names.split("; "):
            assert folded(name)
            assert code_of(code[:2], name) == code, name


def subdivision_names_file() -> str:
    import geolookup  # noqa: PLC0415

    return str(Path(geolookup.__file__).parent / "data" / "subdivision-names.txt")


def test_what_is_not_known_is_the_country_and_listed() -> None:
    places = Places()
    read = [
        places.read("UA", "43"),
        places.read("GB", "ENG", "LND"),
        places.read("GB", "ENG", "nowhere"),
        places.read("UA", "Nowhere"),
        places.read("FR", "Ain"),
        places.read("UA", ""),
        places.read("ZZ", "43"),
    ]
    assert [code_text(number) if number else None for number in read] == [
        "UA-43",
        "GB-LND",
        "GB-ENG",
        "UA",
        "FR-01",
        "UA",
        None,
    ]
    assert list(places.unknown) == [("GB", "nowhere"), ("UA", "Nowhere")]
