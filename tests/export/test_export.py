"""Exports, read back by the readers of their formats and held against our own answers."""

from __future__ import annotations

import csv
import datetime
import io
import ipaddress
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import small_dataset
import small_networks
import strategies  # noqa: F401 - loads the hypothesis profile
from command_line import exit_code
from hypothesis import given
from hypothesis import strategies as st
from namespaces import namespace

import geolookup
from geolookup import Dataset, GeoLookupError, Status
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.dataset import encode
from geolookup.answer.region_sets import RegionSets
from geolookup.build import compiler, readers
from geolookup.build.readers import SourceRanges
from geolookup.build.readers.ranges import SILENCE, code_number
from geolookup.build.sources import Source
from geolookup.export import FORMATS, export
from geolookup.export.continents import CONTINENT_OF, CONTINENTS
from geolookup.export.names import NFT_WORDS, check_table
from geolookup.export.rows import Family, Rows, prefixes, text

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = pytest.mark.parametrize("family", [4, 6])
DISPUTED = pytest.mark.parametrize("disputed", ["omit", "primary"])

NEWER_NFT_WORDS = frozenset(["destroy", "geneve", "gre", "gretap", "last", "vni", "vxlan"])
"""Those of versions after nft 1.0.6."""

Mode = Literal["omit", "primary"]


@pytest.fixture(scope="module")
def small() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


def exported(dataset: Dataset, path: Path, format_name: str, **options: Any) -> bytes:
    with path.open("wb") as file:
        export(dataset, file, format_name, **options)
    return path.read_bytes()


def lines(dataset: Dataset, path: Path, format_name: str, **options: Any) -> list[str]:
    return exported(dataset, path, format_name, **options).decode("ascii").splitlines()


def test_vouched_relay_has_no_subdivision() -> None:
    """The sources say where the relay's machines are, and the operator in which country its users.

    An operator's override is another matter.
    """
    with small_networks.dataset() as dataset:
        rows = {row.first: row.value for row in Rows(dataset, regions=True).of(4)}
        assert rows[0x02000000].code == "US-CA"
        assert rows[0x02000200].code == "US"
        assert dataset.lookup("2.0.2.1").region == ""
        assert dataset.lookup("2.0.0.1").region == "US-CA"
        roster = dataset.classify(["2.0.2.1", "2.0.0.1"])
        assert list(roster.regions) == ["", "US-CA"]


def packed(family: int, value: int) -> bytes:
    return value.to_bytes(4 if family == 4 else 16)


def carries_ipv4(family: int, value: int) -> bool:
    address = ipaddress.ip_address(packed(family, value))
    return family == 6 and (
        value >> 32 in (0xFFFF, 0x0064_FF9B << 64) or value >> 96 == 0x2001_0000
        or address in ipaddress.ip_network("2002::/16")
    )  # fmt: skip


def expected(dataset: Dataset, family: int, value: int, disputed: Mode) -> dict[str, object]:
    """Return what an export should say of an address, from what `lookup` says of it."""
    answer = dataset.lookup(packed(family, value))
    agreed = answer.status in (Status.ASSIGNED, Status.OVERRIDE)
    claimed = list(answer.claimed)
    if answer.status is Status.UNCONFIRMED:
        claimed = [answer.country]
    code = answer.country if agreed or disputed == "primary" else "ZZ"
    record: dict[str, object] = {"status": answer.status.name, "claimed": claimed}
    if code != "ZZ":
        record |= place(code)
    return record


def place(code: str) -> dict[str, object]:
    """Return what a record says of a country."""
    country: dict[str, object] = {"iso_code": code, "names": {"en": COUNTRIES[code]}}
    if code in RegionSets.builtin().resolve("EU_IN_FULL").codes:
        country["is_in_european_union"] = True
    continent = CONTINENT_OF[code]
    return {
        "continent": {"code": continent, "names": {"en": CONTINENTS[continent]}},
        "country": country,
        "country_code": code,
    }


# --- rows ----------------------------------------------------------------------------


@FAMILIES
@DISPUTED
def test_rows_cover_the_space_and_agree_with_lookup(
    small: Dataset, family: Family, disputed: Mode
) -> None:
    rows = list(Rows(small, disputed=disputed).of(family))
    assert rows[0].first == 0
    assert rows[-1].last == 2 ** (32 if family == 4 else 128) - 1
    for row, following in pairwise(rows):
        assert row.last + 1 == following.first
        assert row.value != following.value
    for first, last, said in rows:
        for value in {first, (first + last) // 2, last}:
            if carries_ipv4(family, value):
                assert said.status == "EMBEDDED_IPV4"
                continue
            record = expected(small, family, value, disputed)
            assert said.code == record.get("country_code", "ZZ")
            assert [said.status, list(said.claimed)] == [record["status"], record["claimed"]]


def test_primary_gives_the_country_that_lookup_gives(small: Dataset) -> None:
    seen = set()
    for first, _, said in Rows(small, disputed="primary").of(4):
        assert said.code == small.country(packed(4, first))
        seen.add(said.status)
    assert {"DISPUTED", "UNCONFIRMED", "ASSIGNED", "OVERRIDE"} <= seen


@FAMILIES
def test_spans_are_the_fewest_that_cover_the_addresses_with_a_country(
    small: Dataset, family: Family
) -> None:
    rows = Rows(small, disputed="primary")
    covered = [(span.first, span.last, span.code) for span in rows.spans(family)]
    pieces = [row for row in rows.of(family) if row.value.code != "ZZ"]
    assert sum(last - first + 1 for first, last, _ in covered) == sum(
        row.last - row.first + 1 for row in pieces
    )
    for row in pieces:
        assert any(a <= row.first and row.last <= b and c == row.value.code for a, b, c in covered)
    for (_, last, code), (first, _, other) in pairwise(covered):
        assert last < first
        assert last + 1 < first or code != other


@given(st.data())
def test_prefixes_are_the_fewest_that_make_up_the_range(data: st.DataObject) -> None:
    family: Family = data.draw(st.sampled_from((4, 6)))
    bits = 32 if family == 4 else 128
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, 2**bits - 1)] * 2)))
    found = list(prefixes(family, first, last))
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    assert [
        ipaddress.ip_network((packed(family, value), length)) for value, length in found
    ] == list(ipaddress.summarize_address_range(kind(first), kind(last)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1))
def test_text_is_an_address_that_means_the_number(ipv4: int, ipv6: int) -> None:
    assert int(ipaddress.IPv4Address(text(4, ipv4))) == ipv4
    assert int(ipaddress.IPv6Address(text(6, ipv6))) == ipv6


# --- MMDB ----------------------------------------------------------------------------


@pytest.fixture
def read_mmdb(small: Dataset, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Export a dataset, by default the small one, and open it with `maxminddb`."""
    maxminddb = pytest.importorskip("maxminddb")
    pytest.importorskip("mmdb_writer")
    opened = []

    def read(dataset: Dataset = small, **options: Any) -> Any:
        path = tmp_path / f"{len(opened)}.mmdb"
        exported(dataset, path, "mmdb", **options)
        opened.append(maxminddb.open_database(path, maxminddb.MODE_AUTO))
        return opened[-1]

    yield read
    for reader in opened:
        reader.close()


def check_everywhere(dataset: Dataset, reader: Any, disputed: Mode, step: int = 1) -> int:
    """Ask for the first, a middle and the last address of each interval, or of each *step*-th."""
    asked = 0
    families: tuple[Family, ...] = (4, 6)
    known: dict[geolookup.Answer, dict[str, object]] = {}
    for family in families:
        for first, last, _ in itertools.islice(dataset.intervals(family), 0, None, step):
            for value in {first, (first + last) // 2, last}:
                if family == 6 and value < 2**32:
                    continue  # the format has the IPv4 tree there
                record = reader.get(text(family, value))
                asked += 1
                if family == 6 and value >> 96 == 0x2001_0000:
                    assert record == {"status": "EMBEDDED_IPV4", "claimed": []}
                    continue
                answer = dataset.lookup(packed(family, value))
                if answer not in known:
                    known[answer] = expected(dataset, family, value, disputed)
                assert record == known[answer], text(family, value)
    return asked


@DISPUTED
def test_mmdb_of_the_small_dataset_agrees_with_lookup(
    small: Dataset, read_mmdb: Callable[..., Any], disputed: Mode
) -> None:
    assert check_everywhere(small, read_mmdb(disputed=disputed), disputed) > 50


def test_mmdb_of_the_embedded_dataset_agrees_with_lookup(
    dataset: Dataset, read_mmdb: Callable[..., Any]
) -> None:
    assert check_everywhere(dataset, read_mmdb(dataset), "omit", 29) > 35_000


def test_mmdb_answers_carried_ipv4_by_the_address_inside(
    small: Dataset, read_mmdb: Callable[..., Any]
) -> None:
    reader = read_mmdb()
    for first, last, _ in small.intervals(4):
        for value in {first, last}:
            inside = reader.get(text(4, value))
            assert inside == reader.get(text(6, 0xFFFF << 32 | value))
            for rest in (0, 2**80 - 1):
                assert inside == reader.get(text(6, 0x2002 << 112 | value << 80 | rest))


def test_mmdb_has_no_country_for_teredo_clients(read_mmdb: Callable[..., Any]) -> None:
    """Where other databases have an alias, the answer would be that of the server's address."""
    reader = read_mmdb()
    server_in_germany = "2001:0:200:1::"
    assert reader.get("2.0.0.1")["country_code"] == "DE"
    assert reader.get(server_in_germany) == {"status": "EMBEDDED_IPV4", "claimed": []}


def with_nat64(*configured: str) -> Dataset:
    rows = [(b"\1\0\0\0", b"\1\xff\xff\xff", "CN"), (b"\2\0\0\0", b"\2\xff\xff\xff", "DE")]
    source = Source("one", "CC0-1.0", datetime.date(2026, 6, 17))
    compiled = compiler.compile([(source, SourceRanges.of(rows))], nat64_prefixes=configured)
    return Dataset.from_buffer(encode(compiled))


@pytest.mark.parametrize("prefix", ["2a00:1::/96", "2a00:1::/32"])
def test_mmdb_aliases_nat64_prefixes_with_the_ipv4_address_right_behind(
    read_mmdb: Callable[..., Any], prefix: str
) -> None:
    network = ipaddress.IPv6Network(prefix)
    with with_nat64(prefix) as dataset:
        reader = read_mmdb(dataset)
        for ipv4, code in ((0x0101_0101, "CN"), (0x02FF_FFFF, "DE"), (0x0300_0000, None)):
            value = int(network[0]) | ipv4 << 96 - network.prefixlen
            assert reader.get(text(6, value)).get("country_code") == code
            assert dataset.country(packed(6, value)) == code or code is None


def test_mmdb_aliases_adjacent_nat64_prefixes_each(read_mmdb: Callable[..., Any]) -> None:
    """The dataset has one interval for both."""
    with with_nat64("2a00::/96", "2a00::1:0:0/96") as dataset:
        reader = read_mmdb(dataset)
        for upper in (0, 1):
            value = 0x2A00 << 112 | upper << 32 | 0x0101_0101
            assert reader.get(text(6, value))["country_code"] == "CN"


@pytest.mark.parametrize("length", [40, 48, 56, 64])
def test_mmdb_has_no_country_for_nat64_with_bits_in_between(
    read_mmdb: Callable[..., Any], length: int
) -> None:
    with with_nat64(f"2a00:1::/{length}") as dataset:
        reader = read_mmdb(dataset)
        first = int(ipaddress.IPv6Address("2a00:1::"))
        for value in (first, first | 0x01010101 << 24, first + 2 ** (128 - length) - 1):
            assert reader.get(text(6, value)) == {"status": "EMBEDDED_IPV4", "claimed": []}


def test_mmdb_tree_walk_ends(small: Dataset, read_mmdb: Callable[..., Any]) -> None:
    walked = list(read_mmdb())
    assert 20 < len(walked) < 2_000
    for network, record in walked:
        if network.version == 4:
            assert record == expected(small, 4, int(network[0]), "omit")


def test_mmdb_is_read_back_as_its_package_walks_it(small: Dataset, tmp_path: Path) -> None:
    """Aliases of IPv4 with it, which neither follows."""
    pytest.importorskip("mmdb_writer")
    maxminddb = pytest.importorskip("maxminddb")
    path = tmp_path / "a.mmdb"
    exported(small, path, "mmdb")
    ranges = readers.read([path])
    with maxminddb.open_database(path) as database:
        walked = [
            (network, record.get("country", {}).get("iso_code")) for network, record in database
        ]
    assert {network.version for network, _ in walked} == {4, 6}
    for version, found in ((4, ranges.ipv4), (6, ranges.ipv6)):
        assert list(found) == [
            (int(network[0]), int(network[-1]), code_number(code) if code else SILENCE)
            for network, code in walked
            if network.version == version
        ]


def test_mmdb_names_the_dataset_and_its_attributions(
    small: Dataset, read_mmdb: Callable[..., Any]
) -> None:
    metadata = read_mmdb().metadata()
    assert metadata.ip_version == 6
    assert "Country" in metadata.database_type
    assert metadata.build_epoch == small.built.timestamp()
    assert small.id in metadata.description["en"]
    assert "thanks to Öne" in metadata.description["en"]


def test_mmdb_of_one_single_record_can_be_read(read_mmdb: Callable[..., Any]) -> None:
    compiled = compiler.compile([], special_purpose=False)
    with Dataset.from_buffer(encode(compiled)) as nothing:
        reader = read_mmdb(nothing)
        assert reader.get("1.2.3.4") == {"status": "UNASSIGNED", "claimed": []}
        assert reader.get("2a00::") == {"status": "UNASSIGNED", "claimed": []}


# The country's, the continent's and the European Union's as GeoIP2 has them.
PLACES = (
    ("CN", "China", "AS", "Asia", False),
    ("DE", "Germany", "EU", "Europe", True),
    ("US", "United States", "NA", "North America", False),
    ("RE", "Réunion", "AF", "Africa", True),
    ("AS", "American Samoa", "OC", "Oceania", False),
    ("GS", "South Georgia and the South Sandwich Islands", "AN", "Antarctica", False),
    ("BR", "Brazil", "SA", "South America", False),
    ("XK", "Kosovo", "EU", "Europe", False),
)


@pytest.mark.parametrize(("code", "name", "continent", "continent_name", "in_union"), PLACES)
def test_mmdb_record_has_name_continent_and_union(
    read_mmdb: Callable[..., Any],
    code: str,
    name: str,
    continent: str,
    continent_name: str,
    in_union: bool,
) -> None:
    source = Source("one", "CC0-1.0", datetime.date(2026, 6, 17))
    ranges = SourceRanges.of([(b"\1\0\0\0", b"\1\xff\xff\xff", code)])
    with Dataset.from_buffer(encode(compiler.compile([(source, ranges)]))) as dataset:
        record = read_mmdb(dataset).get("1.2.3.4")
    assert record["continent"] == {"code": continent, "names": {"en": continent_name}}
    assert record["country"].pop("is_in_european_union", False) is in_union
    assert record["country"] == {"iso_code": code, "names": {"en": name}}


def test_every_country_has_a_continent() -> None:
    assert CONTINENT_OF.keys() == COUNTRIES.keys()
    assert set(CONTINENT_OF.values()) == CONTINENTS.keys()


@pytest.mark.parametrize("name", ["GeoIP2-Country", "DBIP-Location (compat=City)"])
def test_mmdb_has_the_type_that_was_asked_for(read_mmdb: Callable[..., Any], name: str) -> None:
    assert read_mmdb(database_type=name).metadata().database_type == name


def test_mmdb_data_section_holds_nothing_but_records(small: Dataset, tmp_path: Path) -> None:
    """As the Verify of maxminddb-golang asks: each value in it is one that the tree points to."""
    decoder = pytest.importorskip("maxminddb.decoder", reason="an extra")
    maxminddb = pytest.importorskip("maxminddb", reason="an extra")
    pytest.importorskip("mmdb_writer", reason="an extra")
    content = exported(small, tmp_path / "a.mmdb", "mmdb")
    with maxminddb.open_database(tmp_path / "a.mmdb") as reader:
        count, size = reader.metadata().node_count, reader.metadata().record_size
    assert size == 24
    tree, rest = content[: count * 6], content[count * 6 :]
    pointed = {int.from_bytes(tree[at : at + 3]) for at in range(0, len(tree), 3)}
    targets = {pointer - count - 16 for pointer in pointed if pointer > count}
    assert rest[:16] == bytes(16)
    data = rest[16 : rest.rindex(b"\xab\xcd\xefMaxMind.com")]
    starts, at = set(), 0
    while at < len(data):
        starts.add(at)
        _, at = decoder.Decoder(data).decode(at)
    assert starts == targets
    assert len(starts) > 10


def test_goaccess_shows_countries_and_continents(small: Dataset, tmp_path: Path) -> None:
    goaccess = shutil.which("goaccess")
    if goaccess is None:
        pytest.skip("goaccess is not installed")
    pytest.importorskip("mmdb_writer", reason="an extra")
    exported(small, tmp_path / "a.mmdb", "mmdb")
    asked = ("1.0.1.0", "1.0.2.0", "2.0.0.0", "::ffff:2.0.0.1", "2001:200::", "3.0.0.0")
    line = '{} - - [30/Nov/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 10 "-" "x"\n'
    (tmp_path / "log").write_text("".join(line.format(address) for address in asked))
    subprocess.run(
        [
            goaccess,
            tmp_path / "log",
            "--log-format=COMBINED",
            "--no-global-config",
            "--no-progress",
            f"--geoip-database={tmp_path}/a.mmdb",
            f"--output={tmp_path}/out.json",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    hosts = json.loads((tmp_path / "out.json").read_text())["hosts"]["data"]
    assert {host["data"]: host["country"] for host in hosts} == {
        "1.0.1.0": "CN China",
        "1.0.2.0": "Unknown",
        "2.0.0.0": "DE Germany",
        "::ffff:2.0.0.1": "DE Germany",
        "2001:200::": "CN China",
        "3.0.0.0": "Unknown",
    }


# --- CSV and Parquet -----------------------------------------------------------------


def as_csv(rows: Rows) -> list[dict[str, str]]:
    families: tuple[Family, ...] = (4, 6)
    return [
        {
            "first": str(ipaddress.ip_address(packed(family, first))),
            "last": str(ipaddress.ip_address(packed(family, last))),
            "code": said.code,
            "status": said.status,
            "claimed": " ".join(said.claimed),
        }
        for family in families
        for first, last, said in rows.of(family)
    ]


@DISPUTED
def test_csv_has_one_line_per_row(small: Dataset, tmp_path: Path, disputed: Mode) -> None:
    content = exported(small, tmp_path / "out", "csv", disputed=disputed)
    assert content.startswith(b"first,last,code,status,claimed\n")
    assert b"\r" not in content
    read = list(csv.DictReader(io.StringIO(content.decode("ascii"))))
    for row in read:  # the text of ::ffff:0:0 may be dotted or not
        row["first"] = str(ipaddress.ip_address(row["first"]))
        row["last"] = str(ipaddress.ip_address(row["last"]))
    assert read == as_csv(Rows(small, disputed=disputed))


def test_csv_of_some_codes_has_only_their_rows(small: Dataset, tmp_path: Path) -> None:
    found = lines(small, tmp_path / "out", "csv", codes=["CN", "FR"])
    assert {line.split(",")[2] for line in found[1:]} == {"CN", "FR"}
    assert "1.0.1.0,1.0.1.255,CN,ASSIGNED," in found


@DISPUTED
def test_parquet_has_the_same_rows(small: Dataset, tmp_path: Path, disputed: Mode) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415

    exported(small, tmp_path / "out", "parquet", disputed=disputed)
    table = parquet.read_table(tmp_path / "out")
    assert table.schema.metadata[b"geolookup.dataset"] == small.id.encode()
    read = table.to_pylist()
    for row in read:
        first = ipaddress.ip_address(row.pop("first_packed"))
        assert first == ipaddress.ip_address(row["first"])
        assert ipaddress.ip_address(row.pop("last_packed")) == ipaddress.ip_address(row["last"])
        last = ipaddress.ip_address(row["last"])
        assert row.pop("family") == first.version
        for bound, address in (("first", first), ("last", last)):
            columns = row.pop(f"{bound}_ipv4"), row.pop(f"{bound}_ipv6")
            assert columns == (
                (int(address), None) if first.version == 4 else (None, address.packed)
            )
        assert [ipaddress.ip_network(text) for text in row.pop("prefixes")] == list(
            ipaddress.summarize_address_range(first, last)
        )
        row["first"] = str(first)
        row["last"] = str(last)
        row["claimed"] = " ".join(row["claimed"])
    assert read == as_csv(Rows(small, disputed=disputed))


# --- geofeed -------------------------------------------------------------------------


@DISPUTED
def test_geofeed_has_the_prefixes_that_have_a_country(
    small: Dataset, tmp_path: Path, disputed: Mode
) -> None:
    content = exported(small, tmp_path / "out", "geofeed", disputed=disputed)
    assert content.count(b"\n") == content.count(b"\r\n")
    parsed = [line.split(",") for line in content.decode().splitlines() if line[0] != "#"]
    assert all(row[2:] == ["", "", ""] and row[1] not in ("", "ZZ") for row in parsed)
    networks = [(ipaddress.ip_network(row[0]), row[1]) for row in parsed]
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        pieces = [(n, code) for n, code in networks if n.version == family]
        spans = list(Rows(small, disputed=disputed).spans(family))
        assert sum(n.num_addresses for n, _ in pieces) == sum(s.last - s.first + 1 for s in spans)
        for network, code in pieces:
            assert any(
                span.first <= int(network[0]) and int(network[-1]) <= span.last
                for span in spans
                if span.code == code
            )


def test_geofeed_comments_name_the_dataset(small: Dataset, tmp_path: Path) -> None:
    content = exported(small, tmp_path / "out", "geofeed").decode()
    comments = [line for line in content.splitlines() if line.startswith("#")]
    assert comments[0] == f"# geolookup dataset {small.id}"
    assert "# thanks to Öne" in comments


# --- nftables ------------------------------------------------------------------------


def sets_of(script: str) -> dict[str, list[str]]:
    """Return the elements by the set's name."""
    named: dict[str, list[str]] = {
        name: [] for name in re.findall(r"^add set inet \w+ (\w+) \{ type", script, re.MULTILINE)
    }
    for name, elements in re.findall(
        r"^add element inet \w+ (\w+) \{(.*?)\}", script, re.MULTILINE | re.DOTALL
    ):
        named[name] += [element.strip() for element in elements.split(",")]
    return named


@DISPUTED
def test_nftables_has_one_set_per_country_and_family(
    small: Dataset, tmp_path: Path, disputed: Mode
) -> None:
    script = exported(small, tmp_path / "out", "nftables", disputed=disputed).decode()
    families: tuple[Family, ...] = (4, 6)
    wanted: dict[str, list[str]] = {
        f"{code}_ipv{family}": [] for code in COUNTRIES for family in families
    }
    for family in families:
        for first, last, code in Rows(small, disputed=disputed).spans(family):
            element = text(family, first) + (f"-{text(family, last)}" if last != first else "")
            wanted[f"{code}_ipv{family}"].append(element)
    assert sets_of(script) == wanted


def test_nftables_defines_the_sets_of_codes_that_have_no_address(
    small: Dataset, tmp_path: Path
) -> None:
    script = exported(small, tmp_path / "out", "nftables", codes=["FR", "MO"]).decode()
    assert sets_of(script) == {
        "FR_ipv4": ["10.1.0.0-10.1.255.255"],
        "FR_ipv6": [],
        "MO_ipv4": [],
        "MO_ipv6": [],
    }


@pytest.fixture(scope="session")
def nft() -> Callable[[str], str]:
    return namespace("nft", "nft list ruleset")


def test_nftables_loading_a_newer_file_keeps_the_rules_and_drops_old_elements(
    small: Dataset, tmp_path: Path, nft: Callable[[str], str]
) -> None:
    older, newer = tmp_path / "older.nft", tmp_path / "newer.nft"
    exported(small, older, "nftables", disputed="primary", table="filter")
    exported(small, newer, "nftables", table="filter")
    listed = nft(
        f"nft -f {older}\n"
        "nft list set inet filter US_ipv4 | grep -q 8.0.0.0/8\n"
        "nft 'add chain inet filter input; add rule inet filter input ip saddr @CN_ipv4 drop'\n"
        f"nft -f {newer}\n"
        "nft list table inet filter"
    )
    assert "ip saddr @CN_ipv4 drop" in listed
    assert listed.count("1.0.1.0/24") == 1
    assert "8.0.0.0/8" not in listed
    assert "set MO_ipv6 {" in listed


def test_nftables_loads_a_country_of_the_embedded_dataset(
    dataset: Dataset, tmp_path: Path, nft: Callable[[str], str]
) -> None:
    path = tmp_path / "sets.nft"
    script = exported(dataset, path, "nftables", codes=["MO"]).decode()
    listed = nft(f"nft -f {path}; nft list set inet geolookup MO_ipv4")
    assert listed.count(",") + 1 == len(sets_of(script)["MO_ipv4"]) > 10


def test_nftables_tables_that_nft_refuses_are_refused_and_no_others(
    nft: Callable[[str], str],
) -> None:
    words = [*sorted(NFT_WORDS), "filter", "geolookup", "SET", "Inet", "a1", "saddr", "chains"]
    refused = nft(f"for word in {' '.join(words)}; do nft add table inet $word || echo $word; done")
    assert set(refused.split()) <= NFT_WORDS
    assert NFT_WORDS - set(refused.split()) <= NEWER_NFT_WORDS
    for word in words:
        if word in NFT_WORDS:
            with pytest.raises(ValueError, match="a word of nft's own"):
                check_table(word)
        else:
            check_table(word)


# --- all formats ---------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_dataset_gives_the_same_bytes_in_every_process(
    tmp_path: Path, format_name: str
) -> None:
    if format_name in ("mmdb", "parquet"):
        pytest.importorskip({"mmdb": "mmdb_writer", "parquet": "pyarrow"}[format_name])
    source = tmp_path / "small.geolookup"
    source.write_bytes(encode(small_dataset.content()))
    files = []
    for seed in ("1", "2"):
        files.append(tmp_path / f"{seed}.out")
        command = ["-m", "geolookup", "export", source, "--format", format_name, "-o", files[-1]]
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        )
    assert files[0].read_bytes() == files[1].read_bytes() != b""


@pytest.mark.parametrize("format_name", FORMATS)
def test_progress_ends_at_the_end(small: Dataset, tmp_path: Path, format_name: str) -> None:
    if format_name in ("mmdb", "parquet"):
        pytest.importorskip({"mmdb": "mmdb_writer", "parquet": "pyarrow"}[format_name])
    seen: list[tuple[int, int]] = []
    exported(
        small,
        tmp_path / "out",
        format_name,
        progress=lambda done, total: seen.append((done, total)),
    )
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("json", {}),
        ("mmdb", {"codes": ["CN"]}),
        ("csv", {"table": "filter"}),
        ("nftables", {"table": "counter"}),
        ("nftables", {"table": "a; flush ruleset"}),
        ("csv", {"database_type": "GeoIP2-Country"}),
        ("mmdb", {"database_type": "GeoIP2-Anonymous-IP"}),
        ("mmdb", {"database_type": "GeoLite2-ASN"}),
        ("mmdb", {"database_type": "Country\n"}),
        ("mmdb", {"database_type": ""}),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(
    small: Dataset, format_name: str, options: dict[str, Any]
) -> None:
    file = io.BytesIO()
    with pytest.raises(ValueError, match=r"format_name|codes|table|database_type"):
        export(small, file, format_name, **options)
    assert file.getvalue() == b""


def test_a_closed_dataset_is_not_exported() -> None:
    closed = Dataset.from_buffer(encode(small_dataset.content()))
    closed.close()
    with pytest.raises(geolookup.DatasetClosedError):
        export(closed, io.BytesIO(), "csv")


@pytest.mark.parametrize(
    ("format_name", "library", "module"),
    [("mmdb", "mmdb_writer", "mmdb"), ("parquet", "pyarrow", "parquet")],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    small: Dataset, monkeypatch: pytest.MonkeyPatch, format_name: str, library: str, module: str
) -> None:
    monkeypatch.delitem(sys.modules, f"geolookup.export.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(GeoLookupError, match=rf"geolookup\[{format_name}\]"):
        export(small, io.BytesIO(), format_name)


# --- the command ---------------------------------------------------------------------


def test_command_writes_the_file_and_reports_it(
    small: Dataset, small_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    assert exit_code("export", small_file, "--format", "csv", "-o", out) == 0
    printed = capsys.readouterr().out
    assert f"{out.stat().st_size:,} bytes" in printed
    assert small.id in printed
    assert out.read_bytes() == exported(small, tmp_path / "again", "csv")


def test_command_writes_text_to_standard_output(
    small_file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code = exit_code("export", small_file, "--format", "nftables", "--code", "fr", "-o", "-")
    assert code == 0
    written = capfdbinary.readouterr().out
    assert b"FR_ipv4" in written
    assert written.rstrip().endswith(b"flush set inet geolookup FR_ipv6")


def test_csv_keeps_namibia_with_the_option_that_the_page_names() -> None:
    pandas = pytest.importorskip("pandas", reason="the extra bench brings pandas")
    content = (
        b"first,last,code,status,claimed\n"
        b"1.0.0.0,1.0.0.255,NA,ASSIGNED,\n2.0.0.0,2.0.0.255,DE,ASSIGNED,\n"
    )
    assert pandas.read_csv(io.BytesIO(content))["code"].isna().tolist() == [True, False]
    kept = pandas.read_csv(io.BytesIO(content), keep_default_na=False)
    assert kept["code"].tolist() == ["NA", "DE"]
    assert "keep_default_na=False" in (ROOT / "docs/export.md").read_text()


@pytest.mark.parametrize("how", [("-r", "eea-fr"), ("-r", "MINE", "--region-sets", "sets.toml")])
def test_command_writes_countries_of_a_region_set(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sets.toml").write_text(
        '[region_sets.MINE]\ncodes = ["DE", "AT"]\nversion = "1"\nsource = "me"\n'
    )
    assert (
        exit_code("export", small_file, "-f", "csv", *how, "--disputed", "primary", "-o", "out")
        == 0
    )
    with Path("out").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert {row["code"] for row in rows} == {"DE", "AT"}
    assert exit_code("export", small_file, "-f", "csv", "-r", "CN,HK", "-o", "none") == 2
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "mmdb", "--code", "CN"), "--code"),
        (("--format", "mmdb", "-r", "EU"), "--region-set"),
        (("--format", "csv", "--code", "Germany"), "did you mean DE?"),
        (("--format", "csv", "-r", "CN,HK"), "joined with +: CN+HK"),
        (("--format", "csv", "--table", "filter"), "--table"),
        (("--format", "csv", "--database-type", "GeoIP2-Country"), "--database-type"),
        (("--format", "mmdb", "--database-type", "GeoLite2-ASN"), "--database-type"),
        (("--format", "nftables", "--table", "a; flush ruleset"), "--table"),
        (("--format", "nftables", "--table", "inet"), "--table: a word of nft's"),
        (("--format", "nftables", "--code", "QQ"), "QQ"),
        (("--format", "xml"), "xml"),
        ((), "--format"),
    ],
)
def test_command_refuses_invalid_options(
    small_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    out = tmp_path / "out"
    assert exit_code("export", small_file, "-o", out, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_command_does_not_repeat_an_address_in_the_wrong_place(
    small_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for address in ("203.0.113.77", "2001-db8--77", "203-0-113-77"):
        assert exit_code("export", small_file, "--format", "csv", "--code", address, "-o", out) == 2
        assert address not in capsys.readouterr().err


def test_command_leaves_the_old_file_when_the_dataset_is_damaged(
    small_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    small_file.write_bytes(small_file.read_bytes()[:-1])
    assert exit_code("export", small_file, "--format", "csv", "-o", out) == 3
    assert out.read_text() == "old"
    assert exit_code("export", tmp_path / "missing", "--format", "csv", "-o", out) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "small.geolookup"]
