"""Formats of sources: lines as publishers write them, lines that make no sense, detection."""

from __future__ import annotations

import bz2
import gzip
import io
import ipaddress
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from source_samples import (
    AUSTRALIA,
    BLOCKS,
    BLOCKS6,
    EXPECTED_LIST,
    EXPECTED_RANGES,
    IPINFO,
    LIST,
    LOCATIONS,
    RANGES,
    SAMPLES,
    TOR,
    TOR6,
    legacy_database,
    search_tree,
    texts,
)

from geolookup.answer import dataset
from geolookup.answer.claims import Status
from geolookup.build import compiler, manifest, readers
from geolookup.build.readers import Faults, Options, SourceRanges, code_number, decompression
from geolookup.errors import MissingExtraError, SourceError

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return written


def archive(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


# --- every sample -----------------------------------------------------------------------


@pytest.mark.parametrize("what", SAMPLES)
def test_a_sample_of_the_real_format_is_recognised_and_read(what: str, write: Write) -> None:
    name, content, form, expected = SAMPLES[what]
    path = write(name, content)
    assert texts(readers.read([path])) == expected
    assert texts(readers.read([path], format_name=form)) == expected


@pytest.mark.parametrize("what", SAMPLES)
def test_the_first_format_that_recognises_a_sample_is_its_own(what: str) -> None:
    name, content, form, _ = SAMPLES[what]
    recognised = [one.name for one in readers.FORMATS.values() if one.recognises(content, name)]
    assert recognised[0] == form


# What several formats would take, and the one that gets it.
@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", b"1.0.0.0/24,DE\n", "prefix-csv"),
        ("a.csv", b"# a comment\n1.0.0.0/24,DE\n", "geofeed"),
        ("a.csv", b"1.0.0.0/24, DE\n", "geofeed"),
        ("a.csv", b"1.0.0.0/24,DE,,\n", "geofeed"),
        ("a.csv", b"1.0.0.0,1.0.0.1,DE\n", "range-csv"),
        ("a.csv", b"# a comment\n1.0.0.0,1.0.0.1,DE\n", "tor"),
        ("a.csv", b"1,2,DE\n", "range-csv"),
        ("a.csv", b"1,2,DE,Germany\n", "ip2location"),
        ("a.csv", b"network,country_code\n1.0.0.0/24,DE\n", "prefix-csv"),
        ("a.csv", b"network,country,country_code,continent_code,asn\n1.0.0.0/24,,DE,,\n", "ipinfo"),
        ("de.zone", b"1.0.0.0/24\n", "prefix-list"),
        ("DEv4.networks", b"1.0.0.0/24\n", "ipfire"),
        ("DEv4.networks.xz", b"1.0.0.0/24\n", "ipfire"),
    ],
)
def test_similar_formats_are_resolved_to_the_narrower(
    name: str, content: bytes, form: str, write: Write
) -> None:
    path = write(name, content)
    part = decompression.parts(path)[0]
    taken = next(
        one.name for one in readers.FORMATS.values() if one.recognises(content, part.file_name)
    )
    assert taken == form
    assert len(readers.read([path])) == 1


def test_dbip_lite_has_a_name_of_its_own(write: Write) -> None:
    path = write("dbip-country-lite-2026-06.csv", RANGES)
    assert texts(readers.read([path], format_name="dbip")) == EXPECTED_RANGES
    assert not readers.FORMATS["dbip"].recognises(b"1,2,DE\n")


# --- lines that make no sense -----------------------------------------------------------

BEFORE = {
    "range-csv": b"start,end,cc,city\n1.0.0.0,1.0.0.1,DE,x\n",
    "prefix-csv": b"1.0.0.0/24,DE\n2.0.0.0/24,DE\n",
    "prefix-list": b"# x\n1.0.0.0/24\n",
    "ipfire": b"1.0.0.0/24\n2.0.0.0/24\n",
    "ip2location": b'"0","1","-","-"\n"2","3","DE","Germany"\n',
    "ipinfo": b"\n".join(IPINFO.splitlines()[:2]) + b"\n",
    "rir": b"2|apnic|20260617|1|19830613|20260616|+1000\n"
    b"apnic|AU|ipv4|1.0.0.0|256|20110811|assigned\n",
    "iptoasn": b"1.0.0.0\t1.0.0.255\t1\tUS\tx\n1.0.1.0\t1.0.3.255\t0\tNone\tNot routed\n",
    "tor": b"# x\n16777216,16777471,AU\n",
    "geofeed": b"# x\n1.0.0.0/24,DE,,,\n",
    "geolite2": b"\n".join(BLOCKS.splitlines()[:2]) + b"\n",
}
NAMES = {"prefix-list": "cn.zone", "ipfire": "CNv4.networks"}

FIELDS = "expected {} fields"
QUOTE = "a quoted field does not end, or text follows it"
PREFIX = "the prefix can't be read"
BITS = "the prefix has bits set beyond its length"
FIRST = "the first address can't be read"
LAST = "the last address can't be read"
VALUE = "the value makes no sense for this address"

# Format, what it is, line, column, what is wrong with it.
MALFORMED = [
    ("range-csv", "too few fields", b"1.0.0.0,1.0.0.1,DE", 1, FIELDS.format(4)),
    ("range-csv", "too many fields", b"1.0.0.0,1.0.0.1,DE,x,y", 1, FIELDS.format(4)),
    ("range-csv", "an empty line", b"", 1, FIELDS.format(4)),
    ("range-csv", "an integer", b"16777216,16777217,DE,x", 1, FIRST),
    ("range-csv", "a quote that does not end", b'1.0.0.0,1.0.0.1,DE,"x', 20, QUOTE),
    ("range-csv", "text after a quote", b'"1.0.0.0"x,1.0.0.1,DE,y', 1, QUOTE),
    ("range-csv", "backwards", b"1.0.0.1,1.0.0.0,DE,x", 9, "the range ends before it begins"),
    ("range-csv", "two families", b"::,1.0.0.0,DE,x", 4, "first and last are not of one family"),
    ("range-csv", "no code", b"1.0.0.0,1.0.0.1,QQ,x", 17, "'QQ' is not a country code"),
    ("prefix-csv", "no code", b"1.0.0.0/24,XYZ", 12, "not a country code"),
    ("prefix-csv", "one field", b"1.0.0.0/24", 1, FIELDS.format(2)),
    ("prefix-csv", "three fields", b"1.0.0.0/24,DE,", 1, FIELDS.format(2)),
    ("prefix-csv", "bits", b"1.0.0.1/24,DE", 1, BITS),
    ("prefix-csv", "bits of IPv6", b"2001:db8::1/64,DE", 1, BITS),
    ("prefix-csv", "too long", b"1.0.0.0/33,DE", 1, PREFIX),
    ("prefix-csv", "too long for IPv6", b"2001:db8::/129,DE", 1, PREFIX),
    ("prefix-csv", "no length", b"1.0.0.0/,DE", 1, PREFIX),
    ("prefix-csv", "a leading zero", b"1.0.0.0/08,DE", 1, PREFIX),
    ("prefix-csv", "a sign", b"1.0.0.0/+8,DE", 1, PREFIX),
    ("prefix-csv", "two slashes", b"1.0.0.0/8/8,DE", 1, PREFIX),
    ("prefix-csv", "a netmask", b"1.0.0.0/255.0.0.0,DE", 1, PREFIX),
    ("prefix-csv", "a length beyond 2^128", b"1.0.0.0/" + b"9" * 39 + b",DE", 1, PREFIX),
    ("prefix-csv", "a space", b"1.0.0.0/24 ,DE", 1, PREFIX),
    ("prefix-csv", "a zone", b"fe80::%eth0/64,DE", 1, PREFIX),
    ("prefix-csv", "a quoted code", b'1.0.0.0/24,"QQ"', 13, "'QQ' is not a country code"),
    ("prefix-list", "a code", b"1.0.0.0/24,DE", 1, FIELDS.format(1)),
    ("prefix-list", "words", b"  words", 3, PREFIX),
    ("ipfire", "bits", b"1.0.0.1/24", 1, BITS),
    ("ip2location", "text", b'"1.0.0.0","1.0.0.1","DE","x"', 2, FIRST),
    ("ip2location", "a leading zero", b'"01","2","DE","x"', 2, FIRST),
    ("ip2location", "a sign", b'"1","-2","DE","x"', 6, LAST),
    ("ip2location", "beyond 2^128", b'"1","340282366920938463463374607431768211456","DE","x"', 6,
     LAST),
    ("ip2location", "digits without end", b'"1","' + b"9" * 50 + b'","DE","x"', 6, LAST),
    ("ip2location", "backwards", b'"2","1","DE","x"', 6, "the range ends before it begins"),
    ("ip2location", "three fields", b'"1","2","DE"', 1, "expected at least 4 fields"),
    ("ip2location", "a name", b'"1","2","Germany","DE"', 10, "not a country code"),
    ("ipinfo", "no network", b",Germany,DE,Europe,EU,,,", 1, PREFIX),
    ("ipinfo", "a comma without quotes", b"1.0.0.0/24,Germany,DE,Europe,EU,AS1,A, Inc.,a.de", 1,
     FIELDS.format(8)),
    ("ipinfo", "no code", b"1.0.0.0/24,Germany,Germany,Europe,EU,,,", 20, "not a country code"),
    ("rir", "no status", b"apnic|AU|ipv4|1.0.0.0|256|20110811", 1, "expected 2 to 32 fields"),
    ("rir", "an unknown status", b"apnic|AU|ipv4|1.0.0.0|256|20110811|taken", 36,
     "the status is none that registries use"),
    ("rir", "an unknown type", b"apnic|AU|ipv5|1.0.0.0|256|20110811|assigned", 10,
     "the type is neither asn, ipv4 nor ipv6"),
    ("rir", "another family", b"apnic|AU|ipv6|1.0.0.0|32|20110811|assigned", 15, FIRST),
    ("rir", "no addresses", b"apnic|AU|ipv4|1.0.0.0|0|20110811|assigned", 23, VALUE),
    ("rir", "past the end", b"apnic|AU|ipv4|255.255.255.0|257|20110811|assigned", 29, VALUE),
    ("rir", "a count that is none", b"apnic|AU|ipv4|1.0.0.0|/24|20110811|assigned", 23, VALUE),
    ("rir", "too long a prefix", b"apnic|AU|ipv6|2001:db8::|129|20110811|assigned", 26, VALUE),
    ("rir", "bits", b"apnic|AU|ipv6|2001:db8::|16|20110811|assigned", 26, BITS),
    ("rir", "no code", b"apnic|QQ|ipv4|1.0.0.0|256|20110811|assigned", 7, "'QQ' is not"),
    ("iptoasn", "three fields among five", b"1.0.0.0\t1.0.0.1\tDE", 1, FIELDS.format(5)),
    ("iptoasn", "spaces", b"1.0.0.0 1.0.0.1 1 DE x", 1, FIELDS.format(5)),
    ("iptoasn", "no code", b"1.0.0.0\t1.0.0.1\t1\tunknown\tx", 19, "not a country code"),
    ("tor", "text among integers", b"1.0.0.0,1.0.0.1,DE", 1, FIRST),
    ("tor", "no code", b"1,2,Germany", 5, "not a country code"),
    ("tor", "four fields", b"1,2,DE,", 1, FIELDS.format(3)),
    ("geofeed", "a prefix alone", b"1.0.0.0/24", 1, "expected at least 2 fields"),
    ("geofeed", "words", b"see below, DE", 1, PREFIX),
    ("geofeed", "a name", b"1.0.0.0/24, Germany ,,", 13, "not a country code"),
    ("geofeed", "a region", b"1.0.0.0/24,DE-BY,,", 12, "not a country code"),
    ("geofeed", "bits", b"  1.0.0.1/24,DE,,", 3, BITS),
    ("geolite2", "an unknown place", b"1.0.0.0/24,77,1814991,,0,0,", 12,
     "not in the table of locations"),
    ("geolite2", "too few fields", b"1.0.0.0/24,1814991", 1, FIELDS.format(7)),
    ("geolite2", "bits", b"1.0.0.1/24,1814991,,,0,0,", 1, BITS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "line", "place", "what"),
    [(row[0], row[2], f"3:{row[3]}", row[4]) for row in MALFORMED],
    ids=[f"{row[0]}-{row[1]}" for row in MALFORMED],
)
def test_malformed_line_of_each_format_is_named_with_its_position(
    form: str, line: bytes, place: str, what: str, write: Write
) -> None:
    path = write(NAMES.get(form, "source.csv"), BEFORE[form] + line + b"\r\n")
    files = [path]
    if form == "geolite2":
        files.append(write("locations.csv", LOCATIONS))
    if readers.FORMATS[form].is_tolerant:
        faults = Faults()
        assert readers.read(files, format_name=form, faults=faults).lines_left_out == 1
        (note,) = faults.notes
        assert note.startswith(f"{path}:{place}: {what}")
        assert note.endswith("; left out")
        return
    with pytest.raises(SourceError) as caught:
        readers.read(files, format_name=form)
    text = str(caught.value)
    assert text.startswith(f"{path}:{place}: ")
    assert what in text
    faults = Faults(1)
    readers.read(files, format_name=form, faults=faults)
    assert faults.found == [f"{text}; left out"]


def test_malformed_geofeed_line_is_left_out_and_never_widened(
    write: Write,
) -> None:
    bad = (
        "prefix,country,region,city",
        "2.0.0.1/24,DE,,,",
        "2.0.1.0/33,DE,,,",
        "02.0.2.0/24,DE,,,",
    )
    path = write("feed.csv", "\n".join(["1.0.0.0/24,DE,,,", *bad, "3.0.0.0/24,FR,,,"]).encode())
    faults = Faults()
    ranges = readers.read([path], format_name="geofeed", faults=faults)
    assert list(ranges.ipv4) == [
        (0x01000000, 0x010000FF, code_number("DE")),
        (0x03000000, 0x030000FF, code_number("FR")),
    ]
    assert [note.split(": ")[0] for note in faults.notes] == [f"{path}:{n}:1" for n in range(2, 6)]
    assert ranges.lines_left_out == 4
    many = write("many.csv", b"1.0.0.0/24,DE\n" + b"x,DE\n" * 150)
    faults = Faults()
    assert readers.read([many], format_name="geofeed", faults=faults).lines_left_out == 150
    assert len(faults.notes) == 101
    assert faults.notes[-1] == f"{many}: 50 more such lines"


def test_every_text_format_has_samples_and_malformed_lines() -> None:
    formats = set(readers.FORMATS) - {"mmdb", "dbip", "geoip-legacy", "ip2location-bin", "libloc"}
    assert {row[0] for row in MALFORMED} == formats
    assert {form for _, _, form, _ in SAMPLES.values()} | {"geolite2"} == formats


# --- folders as publishers and packagers leave them -------------------------------------


@pytest.mark.parametrize(
    ("names", "data"),
    [
        pytest.param(
            ["geo-country-ipv4.csv", "geo-country-ipv4-num.csv", "package.json", "README.md",
             "NRO_LICENSE", "GEOLITE2_EULA"],
            ["geo-country-ipv4.csv"],
            id="npm",
        ),
        pytest.param(["geo-country-ipv4-num.csv"], ["geo-country-ipv4-num.csv"], id="no twin"),
        pytest.param(
            ["au.zone", "de.zone", "MD5SUM", "Copyrights.txt"], ["au.zone", "de.zone"], id="ipdeny"
        ),
        pytest.param(
            ["a.csv.gz", "a.csv.gz.md5", "a.csv.gz.asc", "SHA256SUMS", "checksums.txt"],
            ["a.csv.gz"],
            id="checksums",
        ),
        pytest.param(
            ["licensed.csv", "my-notices.csv"], ["licensed.csv", "my-notices.csv"], id="own names"
        ),
    ],
)  # fmt: skip
def test_folder_stands_for_the_files_in_it_that_hold_data(
    names: list[str], data: list[str], tmp_path: Path
) -> None:
    for name in names:
        content = b"not data: see below"
        if name.endswith(".zone"):
            content = b"1.0.0.0/24\n"
        elif name in data or "-num" in name:
            content = b"16777216,16777471,AU\n" if "-num" in name else b"1.0.0.0,1.0.0.255,AU\n"
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    faults = Faults()
    ranges = readers.read([tmp_path], faults=faults)
    assert ranges.files == tuple(str(tmp_path / name) for name in data)
    twins = [name for name in names if "-num" in name and name not in data]
    assert faults.notes == [
        f"{tmp_path / twin}: left out; {twin.replace('-num', '')} has the same with"
        " addresses as text"
        for twin in twins
    ]


# --- GeoIP Legacy -----------------------------------------------------------------------

LEGACY = {"AU": 16, "CN": 48, "JP": 111, "US": 225, "EU": 2, "AX": 247, "SS": 254, "O1": 255}
"""Numbers of a few codes, as MaxMind's first library had them."""


def test_geoip_legacy_is_read_by_its_name_and_merged(tmp_path: Path) -> None:
    four = {"1.0.0.0/24": "AU", "1.0.1.0/24": "CN", "1.0.2.0/23": "CN", "9.0.0.0/8": "EU",
            "10.0.0.0/8": "O1", "255.0.0.0/8": "SS"}  # fmt: skip
    six = {"2001:200::/32": "JP", "2a00:1::/32": "AX", "ff00::/8": "US"}
    for name, entries, edition in (("GeoIP.dat", four, 1), ("GeoIPv6.dat", six, 12)):
        (tmp_path / name).write_bytes(
            legacy_database({prefix: LEGACY[code] for prefix, code in entries.items()}, edition)
        )
    faults = Faults()
    ranges = readers.read([tmp_path], faults=faults)
    assert texts(ranges) == [
        ("1.0.0.0", "1.0.0.255", "AU"),
        ("1.0.1.0", "1.0.3.255", "CN"),
        ("255.0.0.0", "255.255.255.255", "SS"),
        ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
        ("2a00:1::", "2a00:1:ffff:ffff:ffff:ffff:ffff:ffff", "AX"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "US"),
    ]
    assert faults.notes == [
        f"{tmp_path}/{name}: the format has no code for XK: such places are under other codes"
        for name in ("GeoIP.dat", "GeoIPv6.dat")
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"1.0.0.0,1.0.0.255,AU\n" * 9, id="text"),
        pytest.param(legacy_database({"1.0.0.0/24": 16}, 2), id="cities"),
        pytest.param(legacy_database({"1.0.0.0/24": 16})[:-4], id="no edition"),
        pytest.param(bytes(6) + b"\xff\xff\xff\1", id="a cycle"),
        pytest.param(b"\1\0\0\2\0\0" * 200 + b"\xff\xff\xff\x0c", id="two cycles"),
        pytest.param(
            b"".join(2 * (n + 1).to_bytes(3, "little") for n in range(30))
            + 2 * (0xFFFF10).to_bytes(3, "little") + b"\xff\xff\xff\1",
            id="more networks than a tree has",
        ),
    ],
)  # fmt: skip
def test_geoip_legacy_that_is_damaged_is_refused(content: bytes, write: Write) -> None:
    path = write("GeoIP.dat", content)
    with pytest.raises(SourceError, match=r"GeoIP\.dat: "):
        readers.read([path], format_name="geoip-legacy")


# --- hostile bytes ----------------------------------------------------------------------


PIECES = (
    b"1.0.0.0",
    b"::1",
    b"/24",
    b",",
    b'"',
    b"\t",
    b"|",
    b"DE",
    b"\n",
    b"#",
    b" ",
    b"ipv4",
    b"network",
    b"geoname_id",
    b"country_iso_code",
    b"\0",
    b"256",
    b"assigned",
    b"\xff",
)
"""What sources are made of, in no order."""


@pytest.mark.parametrize("form", readers.FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    content=st.binary(max_size=400)
    | st.lists(
        st.sampled_from(PIECES),
        max_size=40,
    ).map(b"".join)
)
@example(content=b"\xff\xfe1")
@example(content=b"\xff\xfe\0\xd8\n\0")
@example(content=b"PK\3\4" + bytes(40))
@example(content=b"PK\5\6" + bytes(18))
@example(content=b"\x28\xb5\x2f\xfd" + bytes(10))
@example(content=b"\xab\xcd\xefMaxMind.com" + b"\xe9" * 30)
@example(content=bytes(6) + b"\xff\xff\xff\1")
@example(content=b"geoname_id,country_iso_code\n" + b'"' + b"x" * 200_000)
def test_hostile_bytes_give_a_source_error_or_ranges(
    form: str, content: bytes, write: Write
) -> None:
    if form == "mmdb":
        pytest.importorskip("maxminddb")
    path = write(NAMES.get(form, "source.csv"), content)
    table = [write("locations.csv", LOCATIONS)] if form == "geolite2" else []
    for format_name in (form, None):
        said = ""
        try:
            ranges = readers.read([path, *table], format_name=format_name, faults=Faults(3))
            assert len(ranges)
        except SourceError as error:
            said = str(error)
        assert "1.0.0.0" not in said


@given(st.binary(max_size=200))
def test_detection_of_random_bytes_never_fails(head: bytes) -> None:
    for form in readers.FORMATS.values():
        assert form.recognises(head) in (True, False)
        assert form.is_table(head) in (True, False)


# --- round trips of the range dialects --------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(
                st.tuples(st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
                st.tuples(st.just(6), st.integers(2**48, 2**128 - 1),
                          st.integers(2**48, 2**128 - 1)),
            ),
            st.sampled_from(["DE", "CN", "??"]),
        ),
        min_size=1,
    ),
    dialect=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    ending=st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_ranges_written_in_any_dialect_are_read_back(
    rows: list[tuple[tuple[int, int, int], str]],
    dialect: tuple[bool, bool, bool],
    ending: str,
    write: Write,
) -> None:
    quoted, integers, header = dialect
    lines = ["first,last,code"] if header else []
    expected = []
    for (version, one, other), code in rows:
        first, last = sorted((one, other))
        make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        fields = [str(first), str(last)] if integers else [str(make(first)), str(make(last))]
        fields.append(code)
        lines.append(",".join(f'"{field}"' if quoted else field for field in fields))
        expected.append((version, (str(make(first)), str(make(last)), code.strip("?"))))
    path = write("source.csv", (ending.join(lines) + ending).encode())
    assert texts(readers.read([path])) == [
        row for _, row in sorted(expected, key=lambda pair: pair[0])
    ]


# --- compression, archives, folders -----------------------------------------------------


def zstd() -> ModuleType:
    if sys.version_info >= (3, 14):
        return pytest.importorskip("compression.zstd")
    return pytest.importorskip("backports.zstd", reason="needs backports.zstd")


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: zstd().compress(data),
    "zip": lambda data: archive({"source.csv": data}),
    "gzip in zip": lambda data: archive({"source.csv.gz": gzip.compress(data)}),
    "zip with papers": lambda data: archive(
        {
            "x/README_LITE.TXT": b"read me",
            "x/LICENSE-CC.txt": b"free",
            "x/source.csv": data,
        }
    ),
}


@pytest.mark.parametrize("how", COMPRESSIONS)
@pytest.mark.parametrize("what", ["range CSV", "RIR delegated-extended", "a geofeed in UTF-16"])
def test_each_format_is_read_in_each_compression(how: str, what: str, write: Write) -> None:
    _, content, _, expected = SAMPLES[what]
    path = write("source", COMPRESSIONS[how](content))
    seen: list[int] = []
    assert texts(readers.read([path], on_read=seen.append)) == expected
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= path.stat().st_size


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_damaged_compression_is_named(how: str, write: Write) -> None:
    lines = b"".join(
        b"1.%d.%d.0,1.%d.%d.9,DE\n" % (a, b, a, b) for a in range(9) for b in range(99)
    )
    packed = COMPRESSIONS[how](lines)
    path = write("source", packed[: len(packed) // 2])
    with pytest.raises(SourceError, match="can't be decompressed") as caught:
        readers.read([path])
    assert str(caught.value).startswith(str(path))


def test_zstd_without_its_package_says_what_to_install(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "_zstd_module", lambda: None)
    path = write("source.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(MissingExtraError) as caught:
        readers.read([path])
    assert str(caught.value).startswith(f"{path}: compressed with zstd: needs backports.zstd")
    assert "pip install 'geolookup[zstd]'" in str(caught.value)


def test_lines_in_an_archive_are_named_with_archive_and_member(write: Write) -> None:
    path = write("source.zip", archive({"a\nb.csv": RANGES + b"nonsense\n"}))
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value).startswith(f"{path}/a?b.csv:3:1: ")


def test_a_folder_of_ipfire_lists_is_one_source(tmp_path: Path) -> None:
    for name, content in {
        "CNv4.networks": b"1.0.1.0/24\n",
        "DEv6.networks": b"2001:600:1000::/48\n",
        "EUv4.networks": b"2.56.16.0/22\n",
        "QQv4.networks": b"2.0.0.0/24\n",
        "A1v4.networks": b"1.0.1.0/24\n",
        "XDv4.networks": b"1.0.1.0/24\n",
        "ZWv4.networks": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    faults = Faults()
    ranges = readers.read([tmp_path], faults=faults)
    assert texts(ranges) == [
        ("1.0.1.0", "1.0.1.255", "CN"),
        ("2.56.16.0", "2.56.19.255", ""),
        ("2.0.0.0", "2.0.0.255", ""),
        ("2001:600:1000::", "2001:600:1000:ffff:ffff:ffff:ffff:ffff", "DE"),
    ]
    assert ranges.location(ranges.ipv6, 0) == f"{tmp_path}/DEv6.networks:1"
    assert faults.notes == [
        f"{tmp_path}/QQv4.networks: QQ is no country's code, and read as silence"
    ]


def test_prefix_list_without_a_country_is_refused(write: Write) -> None:
    path = write("blocks.txt", LIST)
    assert texts(readers.read([path], options=Options(country="CN"))) == EXPECTED_LIST
    for name in ("blocks.txt", "my.txt", "qq.zone", "eu.zone"):
        with pytest.raises(SourceError, match="a list of prefixes without a country"):
            readers.read([write(name, LIST)])


def test_options_of_another_format_are_refused(write: Write) -> None:
    path = write("source.csv", RANGES)
    with pytest.raises(SourceError, match="country: means nothing for the format range-csv"):
        readers.read([path], options=Options(country="DE"))
    with pytest.raises(SourceError, match="country_from: means nothing for"):
        readers.read([path], options=Options(country_from="registered_country"))


# --- MaxMind ----------------------------------------------------------------------------

GEOLITE2 = {
    "GeoLite2-Country-CSV_20260616/COPYRIGHT.txt": b"Database and Contents Copyright",
    "GeoLite2-Country-CSV_20260616/GeoLite2-Country-Blocks-IPv4.csv": BLOCKS,
    "GeoLite2-Country-CSV_20260616/GeoLite2-Country-Blocks-IPv6.csv": BLOCKS6,
    "GeoLite2-Country-CSV_20260616/GeoLite2-Country-Locations-de.csv": LOCATIONS,
    "GeoLite2-Country-CSV_20260616/GeoLite2-Country-Locations-en.csv": LOCATIONS,
}
EXPECTED_GEOLITE2 = [
    ("1.0.0.0", "1.0.0.255", "AU"),
    ("1.0.1.0", "1.0.1.255", "CN"),
    ("2.16.0.0", "2.23.255.255", ""),
    ("5.62.56.0", "5.62.59.255", ""),
    ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
]


@pytest.mark.parametrize("how", ["zip", "folder", "files"])
def test_geolite2_is_read_as_archive_folder_or_files(how: str, tmp_path: Path) -> None:
    if how == "zip":
        files = [tmp_path / "GeoLite2-Country-CSV_20260616.zip"]
        files[0].write_bytes(archive(GEOLITE2))
    else:
        for name, content in GEOLITE2.items():
            (tmp_path / Path(name).name).write_bytes(content)
        files = [tmp_path] if how == "folder" else sorted(tmp_path.glob("*.csv"))
    assert texts(readers.read(files)) == EXPECTED_GEOLITE2
    registered = readers.read(files, options=Options(country_from="registered_country"))
    assert [code for _, _, code in texts(registered)] == ["CN", "CN", "DE", "DE", "JP"]


def test_maxminds_tar_archive_of_a_database_is_read(tmp_path: Path) -> None:
    path = tmp_path / "GeoLite2-Country_20260616.tar.gz"
    files = {
        "GeoLite2-Country_20260616/COPYRIGHT.txt": b"(c)",
        "GeoLite2-Country_20260616/GeoLite2-Country.mmdb": search_tree([(17, 1)]),
        "GeoLite2-Country_20260616/LICENSE.txt": b"free",
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    plain = tmp_path / "GeoLite2-Country.mmdb"
    plain.write_bytes(search_tree([(17, 1)]))
    assert texts(readers.read([path])) == texts(readers.read([plain]))


CITY = b"""\
0.0.0.0,0.255.255.255,ZZ,,,,,0,0,
1.0.0.0,1.0.0.255,AU,Queensland,,"South Brisbane",,-27.4767,153.017,
1.0.1.0,1.0.3.255,CN,Fujian,,"Fuzhou, old town",,26.06,119.3,
41.182.0.0,41.182.255.255,NA,Khomas,,Windhoek,,-22.55,17.08,
2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP,Tokyo,,Tokyo,,35,139,
"""
DBIP_CITY = b"""\
0.0.0.0,0.255.255.255,ZZ,ZZ,,,0,0
1.0.0.0,1.0.0.255,OC,AU,Queensland,"South Brisbane",-27.4767,153.017
1.0.1.0,1.0.3.255,AS,CN,Fujian,"Fuzhou, old town",26.06,119.3
41.182.0.0,41.182.255.255,AF,NA,Khomas,Windhoek,-22.55,17.08
2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,AS,JP,Tokyo,Tokyo,35,139
"""


@pytest.mark.parametrize("content", [CITY, DBIP_CITY], ids=["code third", "behind a continent"])
@pytest.mark.parametrize("name", [None, "range-csv", "dbip"])
def test_city_csv_in_text_is_read_without_a_header(
    content: bytes, name: str | None, write: Write
) -> None:
    path = write("city.csv", content)
    assert texts(readers.read([path], format_name=name)) == [
        ("0.0.0.0", "0.255.255.255", ""),  # noqa: S104 - binds nothing
        ("1.0.0.0", "1.0.0.255", "AU"),
        ("1.0.1.0", "1.0.3.255", "CN"),
        ("41.182.0.0", "41.182.255.255", "NA"),
        ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
    ]


def test_city_csv_in_integers_is_read_as_its_text(write: Write) -> None:
    numbers = b"".join(
        line.replace(b"1.0.0.0,1.0.0.255", b"16777216,16777471")
        .replace(b"1.0.1.0,1.0.3.255", b"16777472,16778239") + b"\n"
        for line in CITY.splitlines()[1:3]
    )  # fmt: skip
    text = b"".join(line + b"\n" for line in CITY.splitlines()[1:3])
    assert texts(readers.read([write("n.csv", numbers)])) == texts(
        readers.read([write("t.csv", text)])
    )


@pytest.mark.parametrize(
    "line",
    [
        b"41.182.0.0,41.182.255.255,NA,KH,Windhoek\n",  # Khomas in Namibia, or Cambodia?
        b"41.182.0.0,41.182.255.255,NA,Khomas,Windhoek\n",  # Namibia, or North America?
    ],
)
def test_city_csv_whose_code_may_be_of_a_continent_is_refused(line: bytes, write: Write) -> None:
    with pytest.raises(SourceError, match="in none of the known formats"):
        readers.read([write("city.csv", line)])


def test_geolite2_blocks_without_locations_are_refused(write: Write) -> None:
    path = write("GeoLite2-Country-Blocks-IPv4.csv", BLOCKS)
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value).startswith(f"{path}: needs the publisher's table of locations")


def test_geolite2_locations_alone_hold_no_range(write: Write) -> None:
    path = write("GeoLite2-Country-Locations-en.csv", LOCATIONS)
    with pytest.raises(SourceError, match=r"Locations-en\.csv: holds no range"):
        readers.read([path])


@pytest.mark.parametrize(
    ("line", "place", "what"),
    [
        (b'1,en,NA,"North America",QQ,Nowhere,0\n', "8:25", "'QQ' is not a country code"),
        (b"1,en\n", "8:1", "expected 7 fields"),
    ],
)
def test_malformed_location_is_named_with_its_position(
    line: bytes, place: str, what: str, write: Write
) -> None:
    path = write("GeoLite2-Country-Locations-en.csv", LOCATIONS + line)
    with pytest.raises(SourceError) as caught:
        readers.read([path, write("blocks.csv", BLOCKS)])
    assert str(caught.value).startswith(f"{path}:{place}: {what}")


def mmdb(records: Mapping[str, object]) -> bytes:
    netaddr = pytest.importorskip("netaddr")
    writer_module = pytest.importorskip("mmdb_writer")
    pytest.importorskip("maxminddb")
    writer = writer_module.MMDBWriter(6, ipv4_compatible=True)
    for network, record in records.items():
        writer.insert_network(netaddr.IPSet([network]), record)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mmdb")
        writer.to_db_file(str(path))
        return path.read_bytes()


MAXMIND = {
    "1.0.0.0/24": {
        "country": {"iso_code": "AU", "geoname_id": 2077456},
        "registered_country": {"iso_code": "CN"},
    },
    "1.0.1.0/24": {"continent": {"code": "EU"}, "registered_country": {"iso_code": "DE"}},
    "2001:200::/32": {"country": {"iso_code": "JP"}, "registered_country": {"iso_code": "JP"}},
}
EXPECTED_MMDB = [
    ("1.0.0.0", "1.0.0.255", "AU"),
    ("1.0.1.0", "1.0.1.255", ""),
    ("2001:200::", "2001:200:ffff:ffff:ffff:ffff:ffff:ffff", "JP"),
]


@pytest.mark.parametrize(
    ("record", "what"),
    [
        pytest.param(b"\xe1\xa1\x1e\x42AU", "its records hold no country", id="a number for a key"),
        pytest.param(b"\xe1\xe0\x42AU", "no MMDB database, or a damaged one", id="a map for a key"),
        pytest.param(b"\xe1\x41a\x20\0", "no MMDB database, or a damaged one", id="in itself"),
        pytest.param(b"\x20\0", "no MMDB database, or a damaged one", id="a pointer to itself"),
        pytest.param(b"\xe1\x41a\x3f\xff\xff\xff", "no MMDB database, or a damaged one", id="far"),
        pytest.param(b"\xff\xff\xff\xff", "no MMDB database, or a damaged one", id="a long map"),
        pytest.param(b"\x41\xff", "no MMDB database, or a damaged one", id="no UTF-8"),
        pytest.param(b"\x42AU", "its records hold no country", id="a text"),
    ],
)
def test_invalid_mmdb_record_is_an_error(record: bytes, what: str, write: Write) -> None:
    """The package's reader in C ended the process over the first of them."""
    pytest.importorskip("maxminddb")
    path = write("a.mmdb", search_tree([(17, 1)], record=record))
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value) == f"{path}: {what}"


def test_mmdb_reports_progress(write: Write) -> None:
    pytest.importorskip("maxminddb")
    nodes = 2**16 - 1  # of a whole tree, in which child i of node n is node 2n + i
    tree = [(2 * at + 1, 2 * at + 2) for at in range(nodes // 2)]
    path = write("a.mmdb", search_tree([*tree, *[(nodes + 16, nodes + 16)] * (nodes // 2 + 1)]))
    told: list[int] = []
    assert len(readers.read([path], on_read=told.append)) == 2**16 + 1
    assert len(told) > 3
    assert told == sorted(told)
    assert told[0] < path.stat().st_size // 4
    assert path.stat().st_size // 2 < told[-1] <= path.stat().st_size


@pytest.mark.parametrize(
    ("nodes", "changed"),
    [
        pytest.param([(17, 1)], {"ip_version": b"\xa1\7"}, id="IPv7"),
        pytest.param([(17, 1)], {"ip_version": b"\x416"}, id="a text for a number"),
        pytest.param([(17, 1)], {"binary_format_major_version": b"\xa1\3"}, id="format 3"),
        pytest.param([(17, 1)], {"node_count": b"\xc2\xff\xff"}, id="more nodes than bytes"),
        pytest.param([(17, 1)], {"record_size": b"\xa1\x19"}, id="records of 25 bits"),
        pytest.param([(2, 1)], {}, id="a record in the zeros"),
        pytest.param([(15, 1)], {}, id="a record in the last of the zeros"),
        pytest.param([(17 + len(AUSTRALIA), 1)], {}, id="a record in the marker"),
        pytest.param([(17 + len(AUSTRALIA) + 14, 1)], {}, id="the metadata for a record"),
        pytest.param([(0xFFFFFF, 1)], {}, id="a record beyond the file"),
    ],
)
def test_mmdb_that_contradicts_its_metadata_is_refused(
    nodes: list[tuple[int, int]], changed: dict[str, bytes], write: Write
) -> None:
    pytest.importorskip("maxminddb")
    path = write("a.mmdb", search_tree(nodes, **changed))
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value) == f"{path}: no MMDB database, or a damaged one"


def test_mmdb_with_unknown_metadata_is_read(write: Write) -> None:
    pytest.importorskip("maxminddb")
    path = write("a.mmdb", search_tree([(1, 17)], new_in_version_2_1=b"\x41t"))
    assert [code for _, _, code in texts(readers.read([path]))] == ["AU"]


@pytest.mark.parametrize(
    ("pointers", "what"),
    [(10, "its records hold no country"), (127, "no MMDB database, or a damaged one")],
)
def test_mmdb_records_over_the_work_budget_are_refused(
    pointers: int, what: str, write: Write
) -> None:
    """Each is a pointer to the same 3,000 values: some megabytes of it would take hours."""
    pytest.importorskip("maxminddb")
    shared = b"\x1e\4" + (3_000 - 285).to_bytes(2) + b"\x40" * 3_000
    first = pointers + 1 + 16 + len(shared)
    nodes = [(at + 1, first + 2 * at) for at in range(pointers)]
    record = shared + b"\x20\0" * pointers
    path = write("a.mmdb", search_tree([*nodes, (pointers + 1,) * 2], record=record))
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value) == f"{path}: {what}"


def test_mmdb_prefix_above_the_ipv4_subtree_covers_ipv4(write: Write) -> None:
    pytest.importorskip("maxminddb")
    path = write("a.mmdb", search_tree([(17, 1)]))
    assert texts(readers.read([path])) == [
        ("0.0.0.0", "255.255.255.255", "AU"),  # noqa: S104 - a range
        ("::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "AU"),
    ]


def test_mmdb_search_tree_with_a_cycle_is_refused(write: Write) -> None:
    """Its networks would have more bits than addresses, or never come to an end."""
    pytest.importorskip("maxminddb")

    def leave(count: int) -> int:
        return count + 16  # the first byte of the data

    chain = [(at + 1, leave(129)) for at in range(128)] + [(leave(129), leave(129))]
    for nodes in (
        [(0, leave(1))],
        [(1, leave(2)), (leave(2), 0)],
        [(leave(2), 1), (leave(2), 1)],
        chain,  # one bit too deep
        [(at + 1, at + 1) for at in range(127)] + [(leave(128), leave(128))],  # 2**128 networks
        # 2**30 ways to where IPv4 lies, which are not followed there: 96 zeros, and its node
        [(1, 97), *[(at + 1, 128) for at in range(1, 96)], (leave(128), leave(128))]
        + [(at + 1, at + 1) for at in range(97, 127)]
        + [(96, 96)],
    ):
        path = write("a.mmdb", search_tree(nodes))
        with pytest.raises(SourceError, match=r"no MMDB database, or a damaged one$"):
            readers.read([path])
    sound = [(at + 1, leave(128)) for at in range(127)] + [(leave(128), leave(128))]
    for size in (24, 28, 32):
        assert len(readers.read([write("a.mmdb", search_tree(sound, size))])) == 129
        with pytest.raises(SourceError, match=r"no MMDB database, or a damaged one$"):
            readers.read([write("a.mmdb", search_tree(chain, size))])


@pytest.mark.parametrize(
    "records",
    [
        MAXMIND,
        {
            "1.0.0.0/24": {"country_code": "AU"},
            "1.0.1.0/24": {"country_code": "EU"},
            "2001:200::/32": {"country_code": "JP", "country": "Japan"},
        },
        {
            "1.0.0.0/24": {"country": "AU", "country_name": "Australia"},
            "1.0.1.0/24": {"continent": "AS"},
            "2001:200::/32": {"country": "JP"},
        },
    ],
    ids=["MaxMind", "flat code", "IPinfo"],
)
@pytest.mark.parametrize("how", ["plain", "gzip", "zip"])
def test_mmdb_of_any_schema_is_read(records: dict[str, object], how: str, write: Write) -> None:
    content = mmdb(records)
    path = write("a.mmdb", content if how == "plain" else COMPRESSIONS[how](content))
    ranges = readers.read([path])
    assert texts(ranges) == EXPECTED_MMDB
    assert ranges.location(ranges.ipv4, 0) == (str(path) if how != "zip" else f"{path}/source.csv")


def test_mmdb_registered_country_is_read_on_request(write: Write) -> None:
    path = write("a.mmdb", mmdb(MAXMIND))
    ranges = readers.read([path], options=Options(country_from="registered_country"))
    assert [code for _, _, code in texts(ranges)] == ["CN", "DE", "JP"]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ({"1.0.0.0/24": {"autonomous_system_number": 13335}}, ": its records hold no country"),
        ({"1.0.0.0/24": {"country_code": "QQ"}}, ": record 1: 'QQ' is not a country code"),
        ({"1.0.0.0/24": {"country": "Germany"}}, ": record 1: not a country code"),
    ],
)
def test_mmdb_without_countries_is_refused(
    records: dict[str, object], what: str, write: Write
) -> None:
    path = write("a.mmdb", mmdb(records))
    with pytest.raises(SourceError) as caught:
        readers.read([path])
    assert str(caught.value).startswith(f"{path}{what}")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_damaged_mmdb_is_named(cut: float, write: Write) -> None:
    content = mmdb(MAXMIND)
    path = write("a.mmdb", content[: int(len(content) * cut)])
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="mmdb")
    assert str(caught.value) == f"{path}: no MMDB database, or a damaged one"


def test_malformed_mmdb_record_is_one_fault(write: Write) -> None:
    pytest.importorskip("maxminddb")
    record = b"\xe1\x4ccountry_code\x42QQ"
    path = write("a.mmdb", search_tree([(17, 17 + len(record))], record=record + AUSTRALIA))
    faults = Faults(1)
    assert [code for _, _, code in texts(readers.read([path], faults=faults))] == ["AU"]
    assert faults.found == [f"{path}: record 1: 'QQ' is not a country code; left out"]


def test_mmdb_that_cannot_be_decompressed_is_an_error(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("maxminddb")
    path = write("a.mmdb", gzip.compress(search_tree([(17, 1)])))
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "database.mmdb").symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: nullcontext(str(folder)))
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="mmdb")
    assert str(caught.value) == f"{path}: can't be unpacked into {folder}: No space left on device"


def test_mmdb_with_an_old_package_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("maxminddb"), "__version__", "2.8.2")
    path = write("a.mmdb", search_tree([(17, 1)]))
    with pytest.raises(MissingExtraError, match="pip install 'geolookup"):
        readers.read([path])


def test_mmdb_without_its_package_says_what_to_install(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    path = write("a.mmdb", bytes(100))
    with pytest.raises(MissingExtraError) as caught:
        readers.read([path])
    assert str(caught.value) == (
        f"{path}: MMDB: needs maxminddb 3.2 or newer, which is not installed:"
        " pip install 'geolookup[mmdb]'"
    )


# --- leniency ---------------------------------------------------------------------------


def test_lenient_reading_leaves_out_as_many_lines_as_allowed(write: Write) -> None:
    path = write("source.csv", RANGES + b"x\n2.0.0.0,2.0.0.1,DE\n3.0.0.0,3.0.0.1,QQ\n")
    faults = Faults(2)
    assert len(readers.read([path], format_name="range-csv", faults=faults)) == 3
    assert faults.found == [
        f"{path}:3:1: expected three fields: first,last,code; left out",
        f"{path}:5:17: 'QQ' is not a country code; left out",
    ]
    with pytest.raises(SourceError) as caught:
        readers.read([path], format_name="range-csv", faults=Faults(1))
    assert str(caught.value) == (
        f"{path}:5:17: 'QQ' is not a country code (after 1 that were left out)"
    )


def test_overlong_line_is_an_error_when_reading_leniently(write: Write) -> None:
    path = write("source.csv", RANGES + b"x" * 5000)
    with pytest.raises(SourceError, match=":3:1: the line is longer than 4,096 bytes"):
        readers.read([path], faults=Faults(10))


# --- together ---------------------------------------------------------------------------

MANIFEST = """\
[[source]]
name = "dbip"
files = ["dbip.csv.xz"]
licence = "CC-BY-4.0"
date = 2026-06-01
coverage = "full"

[[source]]
name = "registry"
files = ["registry.csv.xz"]
licence = "CC-BY-4.0"
date = 2026-06-17
coverage = "full"

[[source]]
name = "tor"
files = ["geoip", "geoip6"]
licence = "CC-BY-SA-4.0"
date = 2026-06-25
coverage = "full"

[[source]]
name = "geolite2"
files = ["GeoLite2.zip"]
licence = "GeoLite2 EULA"
date = 2026-06-16
coverage = "full"
country_from = "registered_country"
"""


def _manifest(folder: Path, tor: bytes = TOR, tor6: bytes = TOR6, extra: bytes = b"") -> Path:
    sources = Path(__file__).resolve().parents[2] / "data" / "sources"
    for short, pattern in {"dbip": "dbip-country-*ipv4*", "registry": "rir-country-*ipv4*"}.items():
        found = sorted(sources.glob(pattern))
        with lzma.open(found[0]) as file:
            excerpt = b"".join(file.readline() for _ in range(500))
        (folder / f"{short}.csv.xz").write_bytes(lzma.compress(excerpt + extra))
    (folder / "geoip").write_bytes(tor)
    (folder / "geoip6").write_bytes(tor6)
    (folder / "GeoLite2.zip").write_bytes(archive(GEOLITE2))
    path = folder / "geolookup.toml"
    path.write_text(MANIFEST)
    return path


def test_manifest_compiles_sources_of_all_formats_together(tmp_path: Path) -> None:
    compiled = compiler.compile_manifest(manifest.load(_manifest(tmp_path)))
    file = tmp_path / "all.geolookup"
    dataset.write(compiled, file)
    with dataset.open(file) as snapshot:
        answer = snapshot.lookup("1.0.0.1")
        assert (answer.country, answer.status) == ("AU", Status.DISPUTED)
        assert answer.claimed == ("AU", "CN")  # GeoLite2: registered in CN, in this sample
        assert snapshot.lookup("1.0.1.1").country == "CN"
        names = [source.name for source in snapshot.sources]
        assert names == ["dbip", "registry", "tor", "geolite2"]
    assert f"{tmp_path}/geoip6: UN is no country's code, and read as silence" in compiled.findings


def test_a_lenient_compilation_lists_the_lines_it_left_out(tmp_path: Path) -> None:
    loaded = manifest.load(_manifest(tmp_path, extra=b"nonsense\n"))
    with pytest.raises(SourceError, match=r"dbip\.csv\.xz:501:1: expected three fields"):
        compiler.compile_manifest(loaded)
    with pytest.raises(SourceError, match=r"registry\.csv\.xz:501:1: expected three fields"):
        compiler.compile_manifest(loaded, lenient=1)
    compiled = compiler.compile_manifest(loaded, lenient=2)
    assert [finding.rpartition("/")[2] for finding in compiled.findings[:2]] == [
        "dbip.csv.xz:501:1: expected three fields: first,last,code; left out",
        "registry.csv.xz:501:1: expected three fields: first,last,code; left out",
    ]


def test_command_takes_the_number_of_lines_to_leave_out(tmp_path: Path) -> None:
    path = _manifest(tmp_path, extra=b"nonsense\n")
    command = [sys.executable, "-m", "geolookup", "compile", str(path), "-o", str(tmp_path / "out")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "dbip.csv.xz:501:1" in failed.stderr
    done = subprocess.run([*command, "--lenient", "2"], capture_output=True, text=True, check=True)
    assert done.stderr.count("left out") == 2


# --- the files that machines have -------------------------------------------------------


def _tor() -> Path:
    folder = Path("/usr/share/tor")
    if not (folder / "geoip").is_file():
        pytest.skip("needs Debian's tor-geoipdb")
    return folder


def test_debians_tor_files_are_read_whole() -> None:
    folder = _tor()
    for name in ("geoip", "geoip6"):
        content = (folder / name).read_bytes()
        ranges = readers.read([folder / name])
        assert len(ranges) == sum(
            bool(line) and not line.startswith(b"#") for line in content.splitlines()
        )


def test_debians_tor_files_compile_with_the_other_sources(tmp_path: Path) -> None:
    folder = _tor()
    path = _manifest(tmp_path, (folder / "geoip").read_bytes(), (folder / "geoip6").read_bytes())
    compiled = compiler.compile_manifest(manifest.load(path))
    assert len(compiled.ipv4_first) > 4 * 100_000


def test_ipfires_own_export_is_read(tmp_path: Path) -> None:
    program = shutil.which("location")
    if program is None or not Path("/var/lib/location/database.db").exists():
        pytest.skip("needs IPFire's tool and database (Debian: location, libloc-database)")
    command = [program, "export", f"--directory={tmp_path}", "--format=list", "LI"]
    subprocess.run(command, check=True, capture_output=True)
    ranges: SourceRanges = readers.read([tmp_path])
    assert {code for _, _, code in texts(ranges)} == {"LI"}
