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
from geolookup.build.readers import SILENCE, Faults, Options, SourceRanges, code_text
from geolookup.build.readers.kinds import MARKED
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


DEEP_ROWS4 = (
    ("0.0.0.0", "-", "-"),  # noqa: S104 - the first address
    ("1.0.0.0", "US", "California"),
    ("1.0.1.0", "DE", "-"),
    ("1.0.2.0", "DE", "Bayern"),
    ("1.0.3.0", "DE", "Nirgends"),
    ("9.0.0.0", "-", "-"),
)
DEEP_ROWS6 = (("::", "-", "-"), ("2a00::", "GB", "England"), ("2b00::", "-", "-"))


def test_bin_of_db3_names_subdivisions_as_the_publishers_reader_does(path: Path) -> None:
    path.write_bytes(samples.ip2location_database(DEEP_ROWS4, DEEP_ROWS6, columns=4))
    faults = Faults()
    found = readers.read([path], options=Options(depth="subdivision"), faults=faults)
    assert [code for *_, code in listed(found)] == ["US-CA", "DE", "DE-BY", "DE", "GB-ENG"]
    assert faults.notes == [f"{path}: 'Nirgends' is no known subdivision of DE; read as DE"]
    assert [code for *_, code in listed(readers.read([path]))] == ["US", "DE", "DE", "DE", "GB"]
    package = pytest.importorskip("IP2Location", reason="the publisher's reader is the oracle")
    reader = package.IP2Location(str(path))
    try:
        for first, _, region in (*DEEP_ROWS4, *DEEP_ROWS6):
            assert reader.get_region(first) == region
    finally:
        reader.close()


@pytest.mark.parametrize("columns", [2, 3])
def test_bin_without_subdivisions_is_no_source_of_them(path: Path, columns: int) -> None:
    path.write_bytes(samples.ip2location_database(ROWS4, columns=columns))
    with pytest.raises(SourceError, match="depth: its rows have no subdivision"):
        readers.read([path], options=Options(depth="subdivision"))


def test_bin_whose_name_of_a_region_is_cut_is_refused(path: Path) -> None:
    content = samples.ip2location_database(DEEP_ROWS4, columns=4)
    path.write_bytes(content[: content.index(b"Nirgends") + 4])
    with pytest.raises(SourceError, match="or a damaged one"):
        readers.read([path], options=Options(depth="subdivision"))


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

    def __init__(self, first: str, last: str, code: str | None, flags: int = 0) -> None:
        self.first_address, self.last_address, self.country_code = first, last, code
        self._flags = flags

    def has_flag(self, flag: int) -> bool:
        return bool(self._flags & flag)


NETWORKS = (
    Network("1.0.0.0", "1.255.255.255", "AU", 4),
    Network("1.0.1.0", "1.0.1.255", "CN"),
    Network("1.0.2.0", "1.0.2.255", None),
    Network("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "UN", 10),
)


@pytest.fixture
def location_db(tmp_path: Path) -> Path:
    path = tmp_path / "location.db"
    path.write_bytes(b"LOCDBXX\1" + bytes(200))
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents of the databases that a package in the place of IPFire's opened."""
    contents: list[bytes] = []

    class Database:
        def __init__(self, path: str) -> None:
            contents.append(Path(path).read_bytes())

        @property
        def networks(self) -> Iterator[Network]:
            return iter(NETWORKS)

    package: Any = types.ModuleType("location")
    package.Database = Database
    package.NETWORK_FLAG_ANONYMOUS_PROXY = 1
    package.NETWORK_FLAG_SATELLITE_PROVIDER = 2
    package.NETWORK_FLAG_ANYCAST = 4
    package.NETWORK_FLAG_DROP = 8
    monkeypatch.setitem(sys.modules, "location", package)
    return contents


def test_libloc_networks_are_nested_ranges(location_db: Path, opened: list[bytes]) -> None:
    faults = Faults()
    assert listed(readers.read([location_db], faults=faults)) == [
        ("1.0.0.0", "1.255.255.255", "AU"),
        ("1.0.1.0", "1.0.1.255", "CN"),
        ("1.0.2.0", "1.0.2.255", "-"),
        ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "-"),
    ]
    assert opened == [location_db.read_bytes()]
    assert faults.notes == [f"{location_db}: UN is no country's code, and read as silence"]


@pytest.mark.usefixtures("opened")
def test_libloc_flags_are_ranges_by_kind(location_db: Path) -> None:
    """What lies in a flagged network without the flag is said, too; the rest is not."""
    found = readers.read_kinds([location_db])
    assert {kind: list(ranges.ipv4) for kind, ranges in found.items()} == {
        "SATELLITE": [],
        "ANYCAST": [
            (0x01000000, 0x01FFFFFF, MARKED),
            (0x01000100, 0x010001FF, SILENCE),
            (0x01000200, 0x010002FF, SILENCE),
        ],
        "HOSTILE": [],
    }
    (satellite,), (hostile,) = found["SATELLITE"].ipv6, found["HOSTILE"].ipv6
    assert satellite == hostile
    assert satellite[2] == MARKED


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


# --- network kinds of text formats


BLOCKS = b"""\
network,geoname_id,registered_country_geoname_id,represented_country_geoname_id,\
is_anonymous_proxy,is_satellite_provider,is_anycast
1.0.0.0/24,2077456,2077456,,0,0,1
1.0.1.0/24,1814991,1814991,,0,1,
1.0.1.128/25,1814991,1814991,,0,0,
"""


def test_geolite2_columns_are_ranges_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    path.write_bytes(BLOCKS)
    found = readers.read_kinds([path])
    assert found.keys() == {"PROXY", "SATELLITE", "ANYCAST"}

    def marked(kind: str) -> list[tuple[int, int]]:
        flat, _ = found[kind].ipv4.flattened()
        return [(first, last) for first, last, code in flat if code == MARKED]

    assert marked("ANYCAST") == [(0x01000000, 0x010000FF)]
    assert marked("SATELLITE") == [(0x01000100, 0x0100017F)]
    assert marked("PROXY") == []


def test_geolite2_mark_that_is_none_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    path.write_bytes(BLOCKS.replace(b",0,1,\n", b",0,yes,\n"))
    with pytest.raises(SourceError, match=r"blocks\.csv:3:\d+: expected 1, 0 or nothing"):
        readers.read_kinds([path])


def test_ipfire_lists_of_flags_are_ranges_by_kind(tmp_path: Path) -> None:
    for name, content in (
        ("A1v4.networks", "1.0.0.0/24\n"), ("A3v6.networks", "2001:200::/32\n"),
        ("XDv4.networks", ""), ("DEv4.networks", "2.0.0.0/8\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
    found = readers.read_kinds([tmp_path])
    assert list(found["PROXY"].ipv4) == [(0x01000000, 0x010000FF, MARKED)]
    assert len(found["ANYCAST"].ipv6) == 1
    assert len(found["HOSTILE"]) == 0
    assert {code_text(code) for _, _, code in readers.read([tmp_path]).ipv4} == {"DE"}


def test_format_that_knows_no_kinds_has_none(tmp_path: Path) -> None:
    path = tmp_path / "ranges.csv"
    path.write_text("1.0.0.0,1.0.0.255,AU\n")
    assert readers.read_kinds([path]) == {}
