"""Exports of kinds of networks, read back and held against our own answers."""

from __future__ import annotations

import csv
import io
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_networks
from command_line import run_command

from geolookup import Dataset, Network
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import write
from geolookup.answer.intervals import FAMILIES
from geolookup.export import FORMATS, export

COVERING = {"TOR", "VPN", "PROXY", "RELAY"}


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with small_networks.dataset() as opened:
        yield opened


def exported(dataset: Dataset, path: Path, format_name: str, *kinds: Network) -> bytes:
    with path.open("wb") as file:
        export(dataset, file, format_name, networks=kinds)
    return path.read_bytes()


def edges(dataset: Dataset) -> Iterator[str]:
    """Yield the first and last address of each interval with a claim."""
    for family in FAMILIES:
        form = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
        for first, last, number in dataset.intervals(family):
            if number < MAX_CLAIMS and (family == 4 or first >> 96):
                yield from (str(form(first)), str(form(last)))


def of_kinds(address: str, kinds: tuple[Network, ...]) -> set[str]:
    """Return those kinds of an address that were asked for, from the tables of the dataset."""
    return small_networks.kinds(address) & {kind.name for kind in kinds}


@pytest.mark.parametrize(
    "kinds", [(Network.VPN,), (Network.RELAY, Network.HOSTING), tuple(Network)]
)
def test_csv_has_the_rows_of_the_kinds(
    dataset: Dataset, tmp_path: Path, kinds: tuple[Network, ...]
) -> None:
    content = exported(dataset, tmp_path / "out", "csv", *kinds).decode("ascii")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert rows
    found: dict[tuple[Any, Any], set[str]] = {}
    for row in rows:
        first, last = (ipaddress.ip_address(row[name]) for name in ("first", "last"))
        found[first, last] = set(row["networks"].split())
        assert row["code"] in (dataset.country(str(first)), "ZZ")
    for address in edges(dataset):
        at: Any = ipaddress.ip_address(address)
        named = next(
            (kind for (a, b), kind in found.items() if a.version == at.version and a <= at <= b),
            set(),
        )
        assert named == of_kinds(address, kinds), address


def test_csv_without_kinds_is_as_before(dataset: Dataset, tmp_path: Path) -> None:
    lines = exported(dataset, tmp_path / "out", "csv").splitlines()
    assert lines[0] == b"first,last,code,status,claimed"
    assert b"1.0.0.0,1.0.8.255,CN,ASSIGNED," in lines


def test_parquet_has_the_same(dataset: Dataset, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="an extra")
    content = exported(dataset, tmp_path / "csv", "csv", Network.VPN, Network.TOR)
    exported(dataset, tmp_path / "parquet", "parquet", Network.VPN, Network.TOR)
    rows = parquet.read_table(tmp_path / "parquet").to_pylist()
    listed = [(row["first"], row["last"], row["code"], " ".join(row["networks"])) for row in rows]
    assert listed == [
        (row["first"], row["last"], row["code"], row["networks"])
        for row in csv.DictReader(io.StringIO(content.decode()))
    ]


def test_nftables_has_a_set_of_each_kind(dataset: Dataset, tmp_path: Path) -> None:
    kinds = (Network.VPN, Network.HOSTING, Network.MOBILE)
    text = exported(dataset, tmp_path / "out", "nftables", *kinds).decode()
    assert re.findall(r"^add set inet geolookup (\w+)", text, re.MULTILINE) == [
        f"{name}_ipv{family}" for name in ("HOSTING", "MOBILE", "VPN") for family in FAMILIES
    ]
    found: dict[str, list[tuple[Any, Any]]] = {}
    for name, body in re.findall(
        r"^add element inet geolookup (\w+) \{([^}]*)\}", text, re.MULTILINE
    ):
        for element in body.split(","):
            first, _, last = element.strip().partition("-")
            pair = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
            found.setdefault(name, []).append(pair)
    for address in edges(dataset):
        at = ipaddress.ip_address(address)
        named = {
            kind.name
            for kind in kinds
            if any(a <= at <= b for a, b in found.get(f"{kind.name}_ipv{at.version}", []))
        }
        assert named == of_kinds(address, kinds), address


@pytest.mark.parametrize("kinds", [(Network.VPN,), tuple(Network)])
def test_mmdb_is_an_anonymous_ip_database(
    dataset: Dataset, tmp_path: Path, kinds: tuple[Network, ...]
) -> None:
    pytest.importorskip("mmdb_writer", reason="an extra")
    maxminddb = pytest.importorskip("maxminddb", reason="an extra")
    path = tmp_path / "anonymous.mmdb"
    exported(dataset, path, "mmdb", *kinds)
    with maxminddb.open_database(path) as reader:
        assert reader.metadata().database_type == "GeoIP2-Anonymous-IP"
        for address in edges(dataset):
            record = reader.get(address)
            names = of_kinds(address, kinds)
            assert set((record or {}).get("networks", ())) == names, address
            if not names:
                assert record is None
                continue
            assert record.get("is_anonymous_vpn", False) == ("VPN" in names)
            assert record.get("is_tor_exit_node", False) == ("TOR" in names)
            assert record.get("is_hosting_provider", False) == ("HOSTING" in names)
            vouched = address.startswith(("1.0.2.", "2.0.2.", "2.0.3."))
            assert record.get("is_anonymous", False) == bool(names & COVERING and not vouched)


def test_mmdb_of_countries_has_traits(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("mmdb_writer", reason="an extra")
    maxminddb = pytest.importorskip("maxminddb", reason="an extra")
    exported(dataset, tmp_path / "out.mmdb", "mmdb")
    with maxminddb.open_database(tmp_path / "out.mmdb") as reader:
        assert reader.get("1.0.1.1") == {
            "continent": {"code": "AS", "names": {"en": "Asia"}},
            "country": {"iso_code": "CN", "names": {"en": "China"}},
            "country_code": "CN",
            "traits": {
                "is_anonymous": True, "is_anonymous_vpn": True, "is_hosting_provider": True,
            },
            "networks": ["VPN", "HOSTING"],
            "status": "ASSIGNED",
            "claimed": [],
        }  # fmt: skip
        assert reader.get("1.0.2.1")["networks"] == ["RELAY"]
        assert "traits" not in reader.get("1.0.2.1")
        assert "traits" not in reader.get("1.0.8.1")


@pytest.mark.parametrize("format_name", FORMATS)
def test_dataset_without_lists_has_no_kinds_to_export(format_name: str, tmp_path: Path) -> None:
    with (
        small_networks.dataset(lists=False) as dataset,
        pytest.raises(ValueError, match="the dataset has no lists of networks"),
    ):
        exported(dataset, tmp_path / "out", format_name, Network.VPN)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-f", "geofeed", "--network", "VPN"], "a geofeed has no place for what a network"),
        (["-f", "nftables", "--network", "VPN", "--code", "CN"], "sets of kinds or of countries"),
        (["-f", "nftables", "--network", "VPN", "--regions"], "sets of kinds or of countries"),
        (["-f", "csv", "--network", "RESIDENTIAL"], "'RESIDENTIAL' is not one of"),
    ],
)
def test_command_refuses_what_a_format_cannot_say(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "networks.geolookup"
    content = small_networks.compiled()
    write(content, path, optional=content.optional)
    ended = run_command(capsys, "export", path, "-o", tmp_path / "out", *arguments)
    assert ended.code == 2
    assert expected in ended.err
    assert not (tmp_path / "out").exists()


def test_command_exports_a_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "networks.geolookup"
    content = small_networks.compiled()
    write(content, path, optional=content.optional)
    ended = run_command(
        capsys, "export", path, "-f", "csv", "--network", "tor", "--code", "CN", "-o", "-"
    )
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "first,last,code,status,claimed,networks",
        "1.0.1.7,1.0.1.7,CN,ASSIGNED,,TOR",
    ]
    ended = run_command(capsys, "export", "-f", "csv", "--network", "VPN", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "the dataset has no lists of networks" in ended.err


def test_geofeed_with_kinds_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a geofeed has no place"):
        exported(dataset, tmp_path / "out", "geofeed", Network.VPN)
