"""Manifests: what is written is what is compiled, and what is mistyped is an error."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import reference

from geolookup.answer.age import AgeLimit
from geolookup.answer.overrides import Override, read_prefix, read_range
from geolookup.build import manifest
from geolookup.build.readers import FORMATS
from geolookup.build.sources import Source
from geolookup.errors import SourceError

SOURCE = """
[[source]]
name = "one"
files = ["one.csv"]
licence = "CC0-1.0"
date = 2026-06-01
coverage = "full"
"""
OVERRIDE = """
[[override]]
prefix = "10.0.0.0/8"
code = "DE"
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], manifest.Manifest]:
    (tmp_path / "one.csv").write_text("1.0.0.0,1.0.0.255,AU\n")
    (tmp_path / "two.csv").write_text("1.0.0.0,1.0.0.255,AU\n")

    def load(text: str) -> manifest.Manifest:
        path = tmp_path / "geolookup.toml"
        path.write_text(text)
        return manifest.load(path)

    return load


def test_every_key_of_a_manifest_is_read(
    load: Callable[[str], manifest.Manifest], tmp_path: Path
) -> None:
    found = load(
        """
        nat64_prefixes = ["2001:db8::/96"]
        special_purpose = false
        max_age = 60
        stale = "undetermined"
        [[source]]
        name = "one"
        files = ["one.csv", "two.csv"]
        format = "range-csv"
        licence = "CC-BY-4.0"
        attribution = "by One"
        url = "https://one.example"
        date = 2026-06-01
        coverage = "partial"
        origin = "One"
        max_age = 90
        keep_days = 30
        [[source]]
        name = "two"
        files = ["two.csv"]
        licence = "CC0-1.0"
        date = 2026-06-17
        coverage = "full"
        [[override]]
        prefix = "10.0.0.0/8"
        code = "DE"
        comment = "ours"
        expires = 2027-01-01
        [[override]]
        range = "2001:db8::1 - 2001:db8::9"
        code = "ZZ"
        """
    )
    assert found.path == tmp_path / "geolookup.toml"
    assert found.nat64_prefixes == ("2001:db8::/96",)
    assert not found.special_purpose
    assert found.age_limit == AgeLimit(60, "undetermined")
    one, two = found.sources
    assert one.source == Source(
        "one",
        "CC-BY-4.0",
        datetime.date(2026, 6, 1),
        "partial",
        "One",
        "by One",
        "https://one.example",
        max_age=90,
        keep_days=30,
    )
    assert one.files == (tmp_path / "one.csv", tmp_path / "two.csv")
    assert one.format == "range-csv"
    assert two.source == Source("two", "CC0-1.0", datetime.date(2026, 6, 17), "full", "two")
    assert two.format is None
    document = bytes.fromhex("20010db8") + bytes(11)
    assert found.overrides == (
        Override(b"\x0a\0\0\0", b"\x0a\xff\xff\xff", "DE", "ours", datetime.date(2027, 1, 1)),
        Override(document + b"\1", document + b"\x09", "ZZ"),
    )


def test_bounds_and_unknown_codes_of_a_source_are_read(
    load: Callable[[str], manifest.Manifest], tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("# ours\n192.0.2.0/24\n\n2001:db8::/32  # lab\n")
    bounds = (read_prefix("192.0.2.0/24"), read_prefix("2001:db8::/32"))
    feed = SOURCE.replace('"full"', '"authoritative"')
    for text in ('within = "own.txt"', 'within = ["192.0.2.0/24", "2001:db8::/32"]'):
        (found,) = load(feed + text).sources
        assert found.source.within == bounds
    (found,) = load(SOURCE + 'overlaps = "last-begins"').sources
    assert found.source.overlaps == "last-begins"
    (found,) = load(SOURCE + 'mute = ["XK", "AX"]').sources
    assert found.source.mute == (("AX", ()), ("XK", ()))
    (found,) = load(SOURCE + 'mute = { XK = ["AL", "RS"], AX = [] }').sources
    assert found.source.mute == (("AX", ()), ("XK", ("AL", "RS")))


def test_missing_keys_have_defaults(load: Callable[[str], manifest.Manifest]) -> None:
    found = load(SOURCE)
    assert found.special_purpose
    assert found.nat64_prefixes == ()
    assert found.overrides == ()
    assert load(OVERRIDE).sources == (), "overrides work without any source"


def test_the_embedded_dataset_has_a_manifest() -> None:
    found = manifest.load(reference.ROOT / "data" / "geolookup.toml")
    assert {entry.source.name: entry.source.coverage for entry in found.sources} == {
        "dbip": "full",
        "dbip-kosovo": "partial",
        "geo-whois-asn": "full",
        "registry": "advisory",
    }
    assert {entry.source.licence for entry in found.sources} == {"CC-BY-4.0"}
    dbip, kosovo, whois, registry = (entry.source for entry in found.sources)
    assert dbip.attribution == kosovo.attribution == "IP Geolocation by DB-IP (https://db-ip.com)"
    assert dbip.origin == kosovo.origin, "the older edition has no vote of its own"
    assert "nro.net" in whois.attribution
    assert "nro.net" in registry.attribution


# name, the manifest, the error after the manifest's path
MALFORMED = [
    ("nothing", "", ": describes neither a source nor an override"),
    ("not TOML", "a = \n", ":1:5: Invalid value"),
    ("no end", SOURCE + 'x = "', ": Unterminated string"),
    ("a key twice", SOURCE + 'name = "b"\n', ":8:11: Cannot overwrite a value"),
    ("nested too deeply", "a = " + "[" * 20_000, ": can't be read as TOML"),
    ("a number of too many digits", "a = " + "1" * 5_000, ": can't be read as TOML"),
    ("an unknown key", "x = 1\n" + SOURCE, ": x: unknown key; expected source, override, "),
    ("a key nearly right", "sources = []\n", ": sources: unknown key; expected source"),
    (
        "an unknown key of a source",
        SOURCE + 'license = "MIT"',
        ": source 1: license: unknown key; expected licence",
    ),
    ("an address for a key", SOURCE + '"192.0.2.1" = 1', ": source 1: a key: unknown key"),
    ("a second source's key", SOURCE + SOURCE + "x = 1", ": source 2: x: unknown key"),
    ("the same name", SOURCE + SOURCE, ": source 2: name: an earlier source has it"),
    ("a source that is no table", "source = [1]", ": source: expected tables, each under [[source"),
    ("sources that are no list", 'source = "x"', ": source: expected a list"),
    ("no name", SOURCE.replace("name", "# name"), ": source 1: name: missing"),
    ("an empty name", SOURCE.replace('"one"', '""'), ": source 1: name: empty"),
    ("a number for a name", SOURCE.replace('"one"', "1"), ": source 1: name: expected a text"),
    ("no licence", SOURCE.replace("licence", "# "), ": source 1: licence: missing"),
    ("no date", SOURCE.replace("date", "# "), ": source 1: date: missing"),
    (
        "a date in quotes",
        SOURCE.replace("2026-06-01", '"2026-06-01"'),
        ": source 1: date: expected a date such as 2026-06-01, without quotes",
    ),
    (
        "a date with time",
        SOURCE.replace("2026-06-01", "2026-06-01T00:00:00"),
        ": source 1: date: expected a date",
    ),
    ("no coverage", SOURCE.replace("coverage", "# "), ": source 1: coverage: missing"),
    (
        "a coverage of its own",
        SOURCE.replace('"full"', '"half"'),
        ": source 1: coverage: expected one of: full, partial",
    ),
    (
        "an unknown format",
        SOURCE + 'format = "xls"',
        f": source 1: format: expected one of: {', '.join(FORMATS)}",
    ),
    (
        "an authoritative source of everything",
        SOURCE.replace('"full"', '"authoritative"'),
        ": source 1: within: missing; an authoritative source",
    ),
    (
        "a full source with bounds",
        SOURCE + 'within = ["10.0.0.0/8"]',
        ": source 1: within: a full source has no bounds",
    ),
    (
        "bounds that are no prefix",
        SOURCE + 'within = ["192.0.2.0/24", "10.0.0.1/8"]',
        ": source 1: within: 2: the prefix has bits set beyond its length",
    ),
    (
        "overlaps of its own",
        SOURCE + 'overlaps = "first"',
        ": source 1: overlaps: expected one of: smallest, last-begins",
    ),
    ("no number of lines", SOURCE + "lenient = -1", ": source 1: lenient: expected a number"),
    ("bounds in no file", SOURCE + 'within = "gone.txt"', ": source 1: within: "),
    ("no bounds", SOURCE + "within = []", ": source 1: within: holds no prefix"),
    ("mute about a region set", SOURCE + 'mute = ["EU"]', ": source 1: mute: expected the codes"),
    (
        "mute by an unknown name",
        SOURCE + "mute = { Kosovo = [] }",
        ": source 1: mute: Kosovo: unknown key",
    ),
    ("no files", SOURCE.replace('["one.csv"]', "[]"), ": source 1: files: names no file"),
    (
        "files that are no texts",
        SOURCE.replace('["one.csv"]', "[1]"),
        ": source 1: files: expected a list of texts",
    ),
    (
        "a missing file",
        SOURCE.replace('["one.csv"]', '["one.csv", "gone.csv"]'),
        ": source 1: files: entry 2: there is no file ",
    ),
    ("an override of nothing", "[[override]]\ncode = 'DE'", ": override 1: range: missing"),
    (
        "prefix and range",
        OVERRIDE + 'range = "10.0.0.1-10.0.0.2"',
        ": override 1: has a prefix and a range",
    ),
    (
        "a code of another list",
        OVERRIDE.replace('"DE"', '"UK"'),
        ": override 1: code: the code is a country's, a subdivision's, or ZZ; did you mean GB?",
    ),
    ("no code", OVERRIDE.replace("code", "# "), ": override 1: code: missing"),
    (
        "a code of no country",
        OVERRIDE.replace("DE", "EU"),
        ": override 1: code: the code is a country's, a subdivision's, or ZZ",
    ),
    (
        "host bits",
        OVERRIDE.replace("10.0.0.0/8", "10.0.0.1/8"),
        ": override 1: prefix: the prefix has bits set beyond its length",
    ),
    (
        "an address for a prefix",
        OVERRIDE.replace("/8", ""),
        ": override 1: prefix: a prefix is an address, a slash and a number of bits",
    ),
    (
        "a prefix of 33 bits",
        OVERRIDE.replace("/8", "/33"),
        ": override 1: prefix: a prefix is",
    ),
    ("a netmask", OVERRIDE.replace("/8", "/255.0.0.0"), ": override 1: prefix: a prefix is"),
    ("leading zeros", OVERRIDE.replace("/8", "/08"), ": override 1: prefix: a prefix is"),
    (
        "no address",
        OVERRIDE.replace("10.0.0.0/8", "10.0.0/8"),
        ": override 1: prefix: an address can't be read",
    ),
    (
        "a range of one address",
        OVERRIDE.replace('prefix = "10.0.0.0/8"', 'range = "10.0.0.1"'),
        ": override 1: range: a range is an address, a hyphen and an address",
    ),
    (
        "a range backwards",
        OVERRIDE.replace('prefix = "10.0.0.0/8"', 'range = "10.0.0.2-10.0.0.1"'),
        ": override 1: range: the range ends before it begins",
    ),
    (
        "a range of both families",
        OVERRIDE.replace('prefix = "10.0.0.0/8"', 'range = "10.0.0.2-::1"'),
        ": override 1: range: first and last are 4 or 16 bytes each, and of one family",
    ),
    (
        "a NAT64 prefix of 33 bits",
        'nat64_prefixes = ["2001:db8::/96", "2001:db8::/33"]' + SOURCE,
        ": nat64_prefixes: entry 2: a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits",
    ),
    ("no days", "max_age = 0" + SOURCE, ": max_age: expected a number of days from 1"),
    ("days as a switch", "max_age = true" + SOURCE, ": max_age: expected"),
    ("another word for stale", 'stale = "inside"' + SOURCE, ": stale: expected"),
    ("days of a source", SOURCE + "keep_days = -1", ": source 1: keep_days: expected a number"),
    (
        "a text for a switch",
        'special_purpose = "no"' + SOURCE,
        ": special_purpose: expected true or false",
    ),
]


@pytest.mark.parametrize(
    ("text", "what"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_invalid_manifest_is_refused_with_file_and_key(
    text: str, what: str, load: Callable[[str], manifest.Manifest], tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'geolookup.toml'}{what}")
    assert "10.0.0" not in str(caught.value)
    assert "192.0.2.1" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['["192.0.2.1"]\n' * 2, '"192.0.2.1" = 1\n' * 2, 'a = {"192.0.2.1" = 1, "192.0.2.1" = 2}'],
)
def test_address_in_place_of_a_key_is_not_quoted(
    text: str, load: Callable[[str], manifest.Manifest]
) -> None:
    with pytest.raises(SourceError) as caught:
        load(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "192.0.2.1" not in repr(error)
        error = error.__cause__ or error.__context__


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        manifest.load(tmp_path / "missing.toml")
    (tmp_path / "latin1.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(SourceError, match="not UTF-8"):
        manifest.load(tmp_path / "latin1.toml")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("0.0.0.0/0", bytes(4), b"\xff" * 4),
        ("192.0.2.7/32", b"\xc0\0\2\7", b"\xc0\0\2\7"),
        ("192.0.2.0/25", b"\xc0\0\2\0", b"\xc0\0\2\x7f"),
        ("::/0", bytes(16), b"\xff" * 16),
        ("2001:db8::/33", b"\x20\1\x0d\xb8" + bytes(12), b"\x20\1\x0d\xb8\x7f" + b"\xff" * 11),
    ],
)
def test_a_prefix_is_read_as_its_first_and_last_address(
    text: str, first: bytes, last: bytes
) -> None:
    assert read_prefix(text) == (first, last)


@pytest.mark.parametrize("text", ["fe80::%eth0/64", "/8", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/٨"])
def test_malformed_prefix_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        read_prefix(text)


@pytest.mark.parametrize("text", ["-", "1.2.3.4-", "-1.2.3.4", "1.2.3.4-1.2.3.5-1.2.3.6", ""])
def test_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        read_range(text)
