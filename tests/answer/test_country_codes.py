"""Country codes: which exist, and how the codes in source data are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geolookup.answer.country_codes import COUNTRIES, SILENT, read_code


def test_there_are_the_249_codes_of_iso_3166_and_kosovo() -> None:
    assert len(COUNTRIES) == 250
    assert "XK" in COUNTRIES
    assert list(COUNTRIES) == sorted(COUNTRIES)
    assert all(len(code) == 2 and code.isascii() and code.isupper() for code in COUNTRIES)
    assert len(set(COUNTRIES.values())) == 250


@pytest.mark.parametrize("code", ["CN", "HK", "MO", "TW", "SS", "CW", "BQ", "SX", "MF", "AQ"])
def test_codes_of_dependent_territories_are_countries(code: str) -> None:
    assert code in COUNTRIES


@pytest.mark.parametrize("code", ["UK", "EU", "AN", "CS", "SU", "YU", "ZR", "TP", "ZZ", "EL", "FX"])
def test_reserved_codes_are_refused(code: str) -> None:
    assert code not in COUNTRIES


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        COUNTRIES["QQ"] = "Nowhere"  # type: ignore[index]


def test_a_code_reads_as_itself_in_any_case() -> None:
    for code in COUNTRIES:
        assert read_code(code) == code
        assert read_code(code.lower()) == code
        assert read_code(code.capitalize()) == code


@pytest.mark.parametrize(
    "raw",
    [
        "EU",
        "AP",
        "A1",
        "A2",
        "A3",
        "T1",
        "XD",
        "ZZ",
        "??",
        "--",
        "-",
        "",
        "CS",
        "AN",
        "SU",
        "FX",
        "TP",
        "ZR",
        "YU",
        "AC",
        "IC",
        "None",
        "none",
        "NONE",
        "eu",
        "a1",
        "zz",
        "xD",
    ],
)
def test_reserved_codes_read_as_silence(raw: str) -> None:
    assert read_code(raw) is None


def test_empty_code_reads_as_silence() -> None:
    assert not SILENT & COUNTRIES.keys()


def test_uk_reads_as_gb() -> None:
    assert read_code("UK") == "GB"
    assert read_code("uk") == "GB"


@pytest.mark.parametrize(
    "raw",
    [
        " CN",
        "CN ",
        "C",
        "CHN",
        "QQ",
        "QY",
        "NULL",
        "N/A",
        "*",
        "0",
        "\u017f\u017f",
        "\u0131n",
        "中",
    ],
)
def test_malformed_code_is_an_error(raw: str) -> None:
    """The third last and second last are upper-cased to "SS" and "IN" by Python."""
    with pytest.raises(ValueError, match="not a country code"):
        read_code(raw)


@pytest.mark.parametrize("address", ["1.2.3.4", "::1", "::", "2001:db8::1", "1::"])
def test_an_address_from_a_wrong_column_is_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"^not a country code$"):
        read_code(address)


def test_unknown_code_is_quoted_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"^'qq' is not a country code$"):
        read_code("qq")


@given(st.text(max_size=4))
def test_reading_gives_a_country_or_silence_or_a_value_error(raw: str) -> None:
    try:
        code = read_code(raw)
    except ValueError:
        return
    assert code is None or code in COUNTRIES
