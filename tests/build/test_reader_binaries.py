"""Databases in binary forms that have readers of their own: IP2Location's and IPFire's."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import source_samples as samples

from geolookup.build import readers
from geolookup.build.readers import Faults, SourceRanges, code_text
from geolookup.errors import SourceError

ROWS4 = (("0.0.0.0", "-"), ("1.0.0.0", "AU"), ("1.0.1.0", "CN"), ("1.0.4.0", "-"),  # noqa: S104 - the first address
         ("9.0.0.0", "US"), ("224.0.0.0", "-"))  # fmt: skip
ROWS6 = (("::", "-"), ("::ffff:1.0.0.0", "AU"), ("::ffff:1.0.1.0", "-"), ("2001:200::", "JP"),
         ("2001:201::", "-"), ("2a00::", "GB"))  # fmt: skip
EXPECTED = [
    ("1.0.0.0", "1.0.0.255", "AU"),
    ("1.0.1.0", "1.0.3.255", "CN"),
    ("9.0.0.0", "223.255.255.255", "US"),
    ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
    ("2a00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "GB"),
]


def listed(ranges: SourceRanges) -> list[tuple[str, str, str]]:
    return [
        (
            str(ip_address(first.to_bytes(size))),
            str(ip_address(last.to_bytes(size))),
            code_text(code) if code else "-",
        )
        for size, family in ((4, ranges.ipv4), (16, ranges.ipv6))
        for first, last, code in family
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "IP2LOCATION-LITE-DB1.BIN"


@pytest.mark.parametrize("columns", [2, 3, 5])
def test_bin_rows_are_ranges_up_to_the_next(path: Path, columns: int) -> None:
    path.write_bytes(samples.ip2location_database(ROWS4, ROWS6, columns=columns))
    found = listed(readers.read([path]))
    # The IPv6 rows hold IPv4 in its mapped form, as in the publisher's files.
    assert found == [*EXPECTED[:3], EXPECTED[0], *EXPECTED[3:]]


def test_bin_rows_are_what_the_publishers_reader_finds(path: Path) -> None:
    package = pytest.importorskip("IP2Location", reason="the publisher's reader is the oracle")
    path.write_bytes(samples.ip2location_database(ROWS4, ROWS6))
    reader = package.IP2Location(str(path))
    try:
        for first, last, code in listed(readers.read([path])):
            for address in (first, last):
                assert reader.get_country_short(address) == code
        for address in ("0.255.255.255", "1.0.4.0", "224.0.0.0", "2001:201::"):
            assert reader.get_country_short(address) == "-"
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut in the header", samples.ip2location_database(ROWS4)[:30]),
        ("cut in the rows", samples.ip2location_database(ROWS4)[:80]),
        ("cut before the codes", samples.ip2location_database(ROWS4)[: 64 + 8 * len(ROWS4) + 4]),
        ("rows in another order", samples.ip2location_database((ROWS4[2], ROWS4[1], *ROWS4[3:]))),
        ("a name in the place of a code", samples.ip2location_database(((ROWS4[0][0], "AUS"),))),
        ("another product", samples.ip2location_database(ROWS4, product=2)),
    ],
)
def test_bin_that_is_damaged_is_refused(path: Path, name: str, content: bytes) -> None:  # noqa: ARG001
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"DB1\.BIN: no IP2Location database, or a damaged one"):
        readers.read([path], format_name="ip2location-bin")


def test_bin_of_another_kind_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "firmware.bin"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SourceError, match="no MMDB database"):
        readers.read([path])


# --- IPFire's database


class Network:
    """What the package `location` yields, as far as the reader asks for it."""

    def __init__(self, first: str, last: str, code: str | None) -> None:
        self.first_address, self.last_address, self.country_code = first, last, code


NETWORKS = (
    Network("1.0.0.0", "1.255.255.255", "AU"),
    Network("1.0.1.0", "1.0.1.255", "CN"),
    Network("1.0.2.0", "1.0.2.255", None),
    Network("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "UN"),
)


@pytest.fixture
def location_db(tmp_path: Path) -> Path:
    path = tmp_path / "location.db"
    path.write_bytes(b"LOCDBXX\1" + bytes(200))
    return path


def test_libloc_networks_are_nested_ranges(
    location_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []

    class Database:
        def __init__(self, path: str) -> None:
            opened.append(Path(path).read_bytes())

        @property
        def networks(self) -> Iterator[Network]:
            return iter(NETWORKS)

    package: Any = types.ModuleType("location")
    package.Database = Database
    monkeypatch.setitem(sys.modules, "location", package)
    faults = Faults()
    assert listed(readers.read([location_db], faults=faults)) == [
        ("1.0.0.0", "1.255.255.255", "AU"),
        ("1.0.1.0", "1.0.1.255", "CN"),
        ("1.0.2.0", "1.0.2.255", "-"),
        ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "-"),
    ]
    assert opened == [location_db.read_bytes()]
    assert faults.notes == [f"{location_db}: UN is no country's code, and read as silence"]


def test_libloc_without_its_package_names_it_and_the_way_out(
    location_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "location", None)
    with pytest.raises(SourceError) as caught:
        readers.read([location_db])
    assert str(caught.value).startswith(f"{location_db}: IPFire's database needs its package")
    assert "python3-location" in str(caught.value)
    assert "location export --directory=DIR --format=list" in str(caught.value)


def test_libloc_that_is_damaged_is_refused(location_db: Path) -> None:
    pytest.importorskip("location", reason="needs IPFire's package (Debian: python3-location)")
    with pytest.raises(SourceError, match="no IPFire database, or a damaged one"):
        readers.read([location_db])


def test_libloc_database_of_the_distribution_is_read() -> None:
    pytest.importorskip("location", reason="needs IPFire's package (Debian: python3-location)")
    path = Path("/var/lib/location/database.db")
    if not path.exists():
        pytest.skip("needs IPFire's database (Debian: libloc-database)")
    assert len(readers.read([path])) > 500_000
