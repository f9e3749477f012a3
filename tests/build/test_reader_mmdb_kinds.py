"""Flags of MMDB databases as kinds of networks, written by another program's library."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from geolookup import Dataset, Network, SourceError
from geolookup.answer.dataset import encode
from geolookup.build import manifest, readers
from geolookup.build.compiler import compile_manifest
from geolookup.build.readers.kinds import MARKED

mmdb_writer = pytest.importorskip("mmdb_writer", reason="writes the databases; an extra")
netaddr = pytest.importorskip("netaddr", reason="comes with mmdb_writer")

US: dict[str, Any] = {"country": {"iso_code": "US"}}

RECORDS: dict[str, dict[str, Any]] = {
    "1.0.0.0/24": {**US, "traits": {"is_anycast": True}},
    "1.0.1.0/24": {**US, "traits": {"is_satellite_provider": True, "is_anonymous_proxy": True}},
    "1.0.2.0/24": {**US, "traits": {"is_anonymous": True, "is_anonymous_vpn": True}},
    "1.0.3.0/24": {**US, "traits": {"is_tor_exit_node": True, "is_hosting_provider": True}},
    "1.0.4.0/24": {**US, "traits": {"is_anonymous": True}},
    "1.0.5.0/24": {**US, "traits": {"is_anycast": False, "static_ip_score": 1.5}},
    "1.0.6.0/24": {**US, "traits": {}},
    "1.0.7.0/24": US,
    "2001:db80::/32": {**US, "traits": {"is_residential_proxy": True}},
}
KINDS = {
    "1.0.0.0/24": {"ANYCAST"},
    "1.0.1.0/24": {"SATELLITE", "PROXY"},
    "1.0.2.0/24": {"VPN"},
    "1.0.3.0/24": {"TOR", "HOSTING"},
    "1.0.4.0/24": {"PROXY"},
    "2001:db80::/32": {"PROXY"},
}


def written(path: Path, records: dict[str, dict[str, Any]]) -> Path:
    writer = mmdb_writer.MMDBWriter(6, "GeoIP2-Country", ipv4_compatible=True)
    for prefix, record in records.items():
        writer.insert_network(netaddr.IPSet([prefix]), record)
    writer.to_db_file(str(path))
    return path


def test_traits_are_ranges_by_kind(tmp_path: Path) -> None:
    found = readers.read_kinds([written(tmp_path / "country.mmdb", RECORDS)])
    expected: dict[str, set[tuple[int, int, int]]] = {}
    for prefix, names in KINDS.items():
        network = ipaddress.ip_network(prefix)
        row = int(network[0]), int(network[-1]), MARKED
        for name in names:
            expected.setdefault(name, set()).add(row)
    assert {kind: {*of.ipv4, *of.ipv6} for kind, of in found.items()} == expected


@pytest.mark.parametrize("flat", [False, True], ids=["traits", "flags"])
def test_source_of_countries_is_a_list_of_networks_too(tmp_path: Path, flat: bool) -> None:
    records = {
        prefix: record | record.get("traits", {}) if flat else record
        for prefix, record in RECORDS.items()
    }
    if flat:
        records = {p: {k: v for k, v in r.items() if k != "traits"} for p, r in records.items()}
    written(tmp_path / "country.mmdb", records)
    (tmp_path / "manifest.toml").write_text(
        '[[source]]\nname = "base"\nfiles = ["country.mmdb"]\nlicence = "x"\ndate = 2026-11-01\n'
        'coverage = "full"\n[[network]]\nname = "traits"\nfiles = ["country.mmdb"]\n'
        'format = "mmdb"\nlicence = "x"\ndate = 2026-11-01\n'
    )
    content = compile_manifest(manifest.load(tmp_path / "manifest.toml"))
    with Dataset.from_buffer(encode(content, optional=content.optional)) as dataset:
        for prefix in RECORDS:
            answer = dataset.lookup(str(ipaddress.ip_network(prefix)[1]))
            assert answer.country == "US"
            assert {kind.name for kind in answer.networks} == KINDS.get(prefix, set()), prefix
        assert [one.kinds for one in dataset.network_lists] == [()]
        assert Network.VPN in dataset.covering


@pytest.mark.parametrize("entry", ["", 'format = "mmdb"\n', 'kind = "TOR"\n'])
def test_database_without_flags_is_no_list(tmp_path: Path, entry: str) -> None:
    written(tmp_path / "country.mmdb", {"1.0.0.0/24": US, "1.0.1.0/24": US})
    (tmp_path / "manifest.toml").write_text(
        '[[source]]\nname = "base"\nfiles = ["country.mmdb"]\nlicence = "x"\ndate = 2026-11-01\n'
        'coverage = "full"\n[[network]]\nname = "none"\nfiles = ["country.mmdb"]\n'
        f'{entry}licence = "x"\ndate = 2026-11-01\n'
    )
    with pytest.raises(SourceError, match=r"marks? no (kind|network)"):
        compile_manifest(manifest.load(tmp_path / "manifest.toml"))
