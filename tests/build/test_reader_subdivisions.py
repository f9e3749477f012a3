"""Subdivisions in each format that can hold them, and what is refused where it can't."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from geolookup.build import readers
from geolookup.build.readers import Faults, Options, code_text
from geolookup.errors import SourceError

DEEP = Options(depth="subdivision")

LOCATIONS = (
    "geoname_id,locale_code,continent_code,continent_name,country_iso_code,country_name,"
    "subdivision_1_iso_code,subdivision_1_name,subdivision_2_iso_code,subdivision_2_name,city_name\n"
    "1,en,EU,Europe,UA,Ukraine,43,Crimea,,,Yalta\n"
    "2,en,EU,Europe,GB,United Kingdom,ENG,England,LND,London,London\n"
    "3,en,EU,Europe,UA,Ukraine,,,,,\n"
)
BLOCKS = (
    "network,geoname_id,registered_country_geoname_id\n"
    "1.0.0.0/24,1,3\n1.0.1.0/24,2,\n1.0.2.0/24,3,\n"
)

FILES: Mapping[str, tuple[dict[str, str], list[str]]] = {
    "geofeed": (
        {
            "feed.csv": "# feed\n1.0.0.0/24,UA,UA-43,Yalta,\n1.0.1.0/24,GB,GB-EN\n1.0.2.0/24,UA\n"
            "1.0.3.0/24,UA,,,\n1.0.4.0/24,FR,FR-974,,\n1.0.5.0/24,UA,UA-99,,\n"
        },
        ["UA-43", "GB-ENG", "UA", "UA", "RE", "UA"],
    ),
    "range CSV with a header": (
        {
            "a.csv": "start_ip,end_ip,country_code,state1\n1.0.0.0,1.0.0.255,CN,Shaanxi\n"
            "1.0.1.0,1.0.1.255,CN,Shanxi\n1.0.2.0,1.0.2.255,US,Nowhere\n"
        },
        ["CN-SN", "CN-SX", "US"],
    ),
    "DB-IP City": (
        {
            "a.csv": '1.0.0.0,1.0.0.255,EU,DE,Bavaria,"Munich, centre",48.1,11.5\n'
            "1.0.1.0,1.0.1.255,EU,FR,Rhone-Alpes,Lyon,45.7,4.8\n"
            "1.0.2.0,1.0.2.255,EU,UA,Crimea,Yalta,44.5,34.1\n"
        },
        ["DE-BY", "FR-ARA", "UA-43"],
    ),
    "city CSV of ip-location-db": (
        {
            "a.csv": "1.0.0.0,1.0.0.255,DE,Bavaria,,Munich,,48.1,11.5,\n"
            "1.0.1.0,1.0.1.255,DE,,,,,48.1,11.5,\n"
        },
        ["DE-BY", "DE"],
    ),
    "prefix CSV": (
        {"a.csv": "network,country_code,region_code\n1.0.0.0/24,US,CA\n1.0.1.0/24,CA,ca-qc\n"},
        ["US-CA", "CA-QC"],
    ),
    "IP2Location DB3": (
        {
            "a.csv": '"16777216","16777471","US","United States of America","California","LA"\n'
            '"16777472","16777727","-","-","-","-"\n'
        },
        ["US-CA", ""],
    ),
    "GeoLite2 City": (
        {"City-Locations-en.csv": LOCATIONS, "City-Blocks-IPv4.csv": BLOCKS},
        ["UA-43", "GB-LND", "UA"],
    ),
}


def places(files: Mapping[str, str], folder: Path, options: Options = DEEP) -> list[str]:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    found = readers.read([folder], options=options)
    return [code_text(code) if code else "" for _, _, code in found.ipv4]


@pytest.mark.parametrize("name", FILES)
def test_subdivisions_are_read_from_each_format(name: str, tmp_path: Path) -> None:
    files, expected = FILES[name]
    assert places(files, tmp_path) == expected


@pytest.mark.parametrize("name", FILES)
def test_without_depth_the_same_files_name_countries(name: str, tmp_path: Path) -> None:
    files, expected = FILES[name]
    found = places(files, tmp_path, Options())
    assert [code for code in found if code != "FR"] == [
        code[:2] for code in expected if code[:2] not in ("RE", "FR")
    ]


def test_subdivisions_of_mmdb_are_codes_or_names(tmp_path: Path) -> None:
    netaddr = pytest.importorskip("netaddr", reason="needs mmdb-writer")
    writer_of = pytest.importorskip("mmdb_writer", reason="needs mmdb-writer").MMDBWriter
    records = (
        {"country": {"iso_code": "UA"}, "subdivisions": [{"iso_code": "43"}]},
        {
            "country": {"iso_code": "GB"},
            "subdivisions": [{"iso_code": "ENG"}, {"iso_code": "LND"}],
        },
        {"country": {"iso_code": "GB"}, "subdivisions": [{"iso_code": "ENG"}, {"iso_code": "??"}]},
        {"country": {"iso_code": "DE"}, "subdivisions": [{"names": {"en": "Bavaria"}}]},
        {"country_code": "CN", "state1": "Guangdong", "state2": ""},
        {"country": {"iso_code": "UA"}},
        {"country": {"iso_code": "UA"}, "subdivisions": "43"},
    )
    writer = writer_of(4, "places", languages=["en"])
    for last, record in enumerate(records):
        writer.insert_network(netaddr.IPSet([f"1.0.{last}.0/24"]), record)
    path = tmp_path / "places.mmdb"
    writer.to_db_file(str(path))
    faults = Faults()
    found = readers.read([path], options=DEEP, faults=faults)
    assert [code_text(code) for _, _, code in found.ipv4] == [
        "UA-43",
        "GB-LND",
        "GB-ENG",
        "DE-BY",
        "CN-GD",
        "UA",
        "UA",
    ]
    assert faults.notes == [f"{path}: '??' is no known subdivision of GB; read as GB"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1.0.0.0,1.0.0.255,DE\n", "depth: its lines have no subdivision"),
        ("start_ip,end_ip,country_code\n1.0.0.0,1.0.0.255,DE\n", "depth: no column names"),
        ("network,country_code\n1.0.0.0/24,DE\n", "depth: no column names a subdivision"),
        ("1.0.0.0/24,DE\n", "depth: no column names a subdivision"),
        ('"16777216","16777471","US","United States"\n', "depth: its lines have no subdivision"),
        (
            "apnic|AU|ipv4|1.0.0.0|256|20110811|assigned\n",
            "depth: means nothing for the format rir",
        ),
    ],
)
def test_file_without_subdivisions_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=what):
        readers.read([path], options=DEEP)


def test_unknown_subdivisions_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1.0.0.0/24,UA,UA-99,,\n1.0.1.0/24,UA,UA-99,,\n", encoding="utf-8")
    faults = Faults()
    readers.read([path], options=DEEP, faults=faults)
    assert faults.notes == [f"{path}: 'UA-99' is no known subdivision of UA; read as UA"]
