"""Options of sources in manifests, and the dialects that readers describe to the core."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from geolookup._sweep import Dialect, RangeLines, Ranges
from geolookup.build import manifest
from geolookup.build.readers import Options
from geolookup.errors import SourceError

SOURCE = """\
[[source]]
name = "one"
files = ["one"]
licence = "CC0-1.0"
date = 2026-06-01
coverage = "full"
"""


def load(folder: Path, lines: str) -> manifest.SourceEntry:
    path = folder / "geolookup.toml"
    path.write_text(SOURCE + lines)
    return manifest.load(path).sources[0]


def test_options_of_a_source_are_read_from_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()  # a folder may stand for the files in it
    assert load(tmp_path, "").options == Options("", "country")
    assert load(tmp_path, 'country = "DE"\n').options == Options("DE", "country")
    registered = load(tmp_path, 'country_from = "registered_country"\n').options
    assert registered == Options("", "registered_country")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('country = "de"', "country: expected a country's code"),
        ('country = "EU"', "country: expected a country's code"),
        ("country = 1", "country: expected a text"),
        ('country_from = "geoname_id"', "country_from: expected one of: country, registered_"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "one").touch()
    with pytest.raises(SourceError, match=f"source 1: {what}"):
        load(tmp_path, line + "\n")


@pytest.mark.parametrize(
    ("form", "options", "what"),
    [
        ("rows", {"least": 3}, "the form is one of: ranges, networks, delegations"),
        ("ranges", {"least": 0}, "a line has from 1 to 32 fields"),
        ("ranges", {"least": 33}, "a line has from 1 to 32 fields"),
        ("ranges", {"least": 3, "most": 2}, "a line has from 1 to 32 fields"),
        ("ranges", {"least": 3, "last": 3}, "a column is below the least number of fields"),
        ("ranges", {"least": 3, "first": -1}, "a column is below the least number of fields"),
        ("ranges", {"least": 3, "code": 3}, "a column is below the least number of fields"),
        ("ranges", {"least": 3, "separator": ";;"}, "a separator is one character of ASCII"),
        ("ranges", {"least": 3, "separator": '"'}, "a separator is one character of ASCII"),
        ("ranges", {"least": 3, "separator": "\n"}, "a separator is one character of ASCII"),
        ("ranges", {"least": 3, "separator": "\xa7"}, "a separator is one character of ASCII"),
        ("delegations", {"least": 1}, "delegations have at least 2 fields"),
        ("delegations", {"least": 2}, "delegations have at least 2 fields, and at most 7 or more"),
    ],
)
def test_invalid_dialect_is_refused(form: str, options: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Dialect(form, **options)


def test_dialect_cannot_be_copied() -> None:
    with pytest.raises(TypeError):
        copy.copy(Dialect("ranges", least=3))


def test_only_the_first_lines_are_skipped_and_they_count() -> None:
    ipv4 = Ranges(32)
    lines = RangeLines(ipv4, Ranges(128), lambda _: 1, skip=2, allowed_faults=9)
    assert lines.feed(b"a header\n")
    assert lines.feed(b"and another\n1.0.0.0,1.0.0.1,DE\nx\n")
    assert ipv4.place(0) == (0, 3)
    assert [line for line, _, _ in lines.faults] == [4]


def test_ranges_of_mapped_addresses_become_ipv4_and_others_do_not() -> None:
    ipv4, ipv6 = Ranges(32), Ranges(128)
    lines = RangeLines(ipv4, ipv6, lambda _: 1)
    assert lines.feed(
        b"::ffff:1.0.0.0,::ffff:1.0.0.255,DE\n"
        b"::ffff:0:0,::ffff:ffff:ffff,DE\n"
        b"::fffe:ffff:ffff,::ffff:1.0.0.0,DE\n"
        b"::ffff:ffff:ffff,::1:0:0:0,DE\n"
        b"64:ff9b::,64:ff9b::ffff:ffff,DE\n"
    )
    assert list(ipv4) == [(0x01000000, 0x010000FF, 1), (0, 0xFFFFFFFF, 1)]
    assert len(ipv6) == 3
