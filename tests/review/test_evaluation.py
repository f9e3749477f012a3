"""Evaluations, held against one that looks at every address by itself."""

from __future__ import annotations

import csv
import gzip
import ipaddress
import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
import reference
import strategies  # noqa: F401 - loads the hypothesis profile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from geolookup.answer.claims import Policy, Status
from geolookup.cli import command
from geolookup.errors import SourceError
from geolookup.review.evaluation import (
    FAMILIES,
    Evaluation,
    Family,
    Group,
    Place,
    Recipe,
    Score,
    Statements,
    choose,
    evaluate,
)
from geolookup.review.truth import Truth, read_truth

SIZE = 64
CODES = ("DE", "FR", "XK", "RS")
TOP: dict[Family, int] = {4: 2**32 - 1, 6: 2**128 - 1}
START: dict[Family, int] = {4: 0x09000000, 6: 0x2A00 << 112}


# --- an oracle: one address after the other ------------------------------------------

Rows = list[tuple[int, int, str | None]]
"""Offsets of the first and last address, and the code; disjoint and ascending."""


def statements(source: reference.Source, rows: dict[Family, Rows]) -> Statements:
    """Return what a source says, as intervals over the whole line."""

    def intervals(family: Family) -> list[tuple[int, int, str | None]]:
        found: list[tuple[int, int, str | None]] = []
        at = 0
        for first, last, code in rows[family]:
            if START[family] + first > at:
                found.append((at, START[family] + first - 1, None))
            found.append((START[family] + first, START[family] + last, code))
            at = START[family] + last + 1
        found.append((at, TOP[family], None))
        return found

    mute = tuple((code, tuple(filed)) for code, filed in source.mute.items())
    return Statements(source.name, "2026-06-01", source.coverage, source.origin, mute, intervals)


def truth_of(prefixes: Sequence[tuple[int, int, str]], at: int) -> tuple[int, str] | None:
    """Return the number and code of the smallest prefix that holds an offset."""
    holding = [
        (bits, number, code)
        for number, (first, bits, code) in enumerate(prefixes)
        if first <= at < first + 2**bits
    ]
    return min(holding)[1:] if holding else None


def expected(
    family: Family,
    groups: dict[str, list[tuple[int, int, str]]],
    sources: Sequence[reference.Source],
    policy: str,
) -> dict[tuple[str, object], tuple[float, int]]:
    """Return (prefixes, addresses) for each operator and verdict, seen from the real code."""
    oracle = reference.Oracle(sources)
    found: dict[tuple[str, object], tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for name, prefixes in groups.items():
        places = {at: truth_of(prefixes, at) for at in range(SIZE)}
        sizes = Counter(place[0] for place in places.values() if place)
        for at, place in places.items():
            if place is None:
                continue
            said = oracle.said(family, START[family] + at)
            verdict = oracle.verdict(said, {place[1]}, policy)
            share, addresses = found[name, verdict]
            found[name, verdict] = share + 1 / sizes[place[0]], addresses + 1
    return dict(found)


@st.composite
def rows_of(draw: st.DrawFn) -> Rows:
    edges = sorted(draw(st.sets(st.integers(0, SIZE), max_size=8)) | {0, SIZE})
    return [
        (first, last - 1, code)
        for first, last in itertools.pairwise(edges)
        if (code := draw(st.sampled_from((None, *CODES)))) is not None
    ]


@st.composite
def prefixes_of(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    found: dict[tuple[int, int], str] = {}
    for _ in range(draw(st.integers(1, 5))):
        bits = draw(st.integers(0, 5))
        at = draw(st.integers(0, (SIZE >> bits) - 1)) << bits
        found.setdefault((at, bits), draw(st.sampled_from(CODES)))
    return [(first, bits, code) for (first, bits), code in found.items()]


def group_of(name: str, prefixes: dict[Family, list[tuple[int, int, str]]]) -> Group:
    places: dict[Family, list[Place]] = {4: [], 6: []}
    for family, listed in prefixes.items():
        for at in range(SIZE):
            place = truth_of(listed, at)
            if place is not None:
                address = START[family] + at
                places[family].append(Place(address, address, place[1], place[0]))
    return Group(name, places)


@settings(max_examples=60)
@given(st.data())
def test_scores_are_those_of_each_address_by_itself(data: st.DataObject) -> None:
    family: Family = data.draw(st.sampled_from([4, 6]))
    kinds = ("full", "full", "partial", "authoritative")
    sources, described = [], []
    for name in "abc"[: data.draw(st.integers(1, 3))]:
        rows: dict[Family, Rows] = {4: [], 6: []}
        rows[family] = data.draw(rows_of())
        source = reference.Source(
            name,
            coverage=data.draw(st.sampled_from(kinds)),
            origin=data.draw(st.sampled_from(["", "one"])),
            mute=data.draw(st.sampled_from([{}, {"XK": ["RS"]}])),
            ranges={
                family: [
                    (START[family] + first, START[family] + last, code)
                    for first, last, code in rows[family]
                ]
            },
        )
        sources.append(source)
        described.append(statements(source, rows))
    known = {name: data.draw(prefixes_of()) for name in ("north", "south")}
    other: Family = 10 - family  # type: ignore[assignment]
    groups = [group_of(name, {family: one, other: []}) for name, one in known.items()]
    found = evaluate(groups, described)
    subsets = [
        members
        for size in range(1, len(sources) + 1)
        for members in itertools.combinations(sources, size)
    ]
    assert {score.recipe.sources for score in found.scores} == {
        tuple(source.name for source in members) for members in subsets
    }
    for members in subsets:
        for policy in Policy:
            (score,) = [
                one
                for one in found.scores
                if one.recipe == Recipe(tuple(source.name for source in members))
                and one.policy is policy
            ]
            assert score.family == family
            wanted = expected(family, known, members, policy.name)
            for group in known:
                for outcome, verdict in (
                    ("right", reference.INSIDE),
                    ("wrong", reference.OUTSIDE),
                    ("undetermined", reference.UNDETERMINED),
                ):
                    amount = score.groups[group][outcome]  # type: ignore[index]
                    share, addresses = wanted.get((group, verdict), (0.0, 0))
                    assert amount.addresses == addresses
                    assert math.isclose(amount.prefixes, share, abs_tol=1e-9)
            assert {code: part.addresses for code, part in score.falsely_inside.items()} == falsely(
                family, known, members, policy.name
            )


def falsely(
    family: Family,
    groups: dict[str, list[tuple[int, int, str]]],
    sources: Sequence[reference.Source],
    policy: str,
) -> dict[str, int]:
    """Return how many addresses are INSIDE each code and really elsewhere."""
    oracle = reference.Oracle(sources)
    found: Counter[str] = Counter()
    for prefixes in groups.values():
        for at in range(SIZE):
            place = truth_of(prefixes, at)
            if place is None:
                continue
            said = oracle.said(family, START[family] + at)
            for code in CODES:
                if code != place[1] and oracle.verdict(said, {code}, policy) == reference.INSIDE:
                    found[code] += 1
    return dict(found)


# --- what is special -------------------------------------------------------------------


def everywhere(name: str, code: str | None, coverage: str = "full", **more: object) -> Statements:
    return Statements(
        name,
        "2026-06-01",
        coverage,
        name,
        (),
        lambda family: [(0, TOP[family], code)],
        **more,
    )


def one_prefix(name: str, code: str, number: int = 0, count: int = 1) -> Group:
    places = [
        Place(256 * (number + at), 256 * (number + at) + 255, code, at) for at in range(count)
    ]
    return Group(name, {4: places, 6: []})


def score_of(found: Evaluation, recipe: Recipe, policy: Policy = Policy.UNANIMOUS) -> Score:
    (score,) = [
        score for score in found.scores if score.recipe == recipe and score.policy is policy
    ]
    return score


def test_advisory_source_is_scored_alone_and_in_no_combination() -> None:
    groups = [one_prefix("north", "DE")]
    found = evaluate(groups, [everywhere("a", "DE"), everywhere("registry", "FR", "advisory")])
    assert {score.recipe.sources for score in found.scores} == {("a",), ("registry",)}
    assert score_of(found, Recipe(("registry",))).share("wrong") == 1


def test_own_publication_is_left_out_where_its_operator_is_scored() -> None:
    groups = [one_prefix("north", "DE"), one_prefix("south", "DE", 9)]
    feed = everywhere("feed", "DE", "partial", own={"north": None})
    found = evaluate(groups, [everywhere("a", "FR"), feed])
    both = score_of(found, Recipe(("a", "feed")), Policy.MAJORITY)
    assert both.groups["north"]["wrong"].prefixes == 1
    assert both.groups["south"]["undetermined"].prefixes == 1
    alone = score_of(found, Recipe(("feed",)))
    assert alone.groups["north"]["undetermined"].prefixes == 1
    assert alone.groups["south"]["right"].prefixes == 1
    assert found.left_out == {"north": ("feed",)}


def test_older_edition_stands_alone_and_in_the_place_of_the_newer_one() -> None:
    groups = [one_prefix("north", "DE")]
    sources = [everywhere("a", "DE"), everywhere("b", "DE")]
    found = evaluate(groups, sources, older=[everywhere("a", "FR")])
    assert score_of(found, Recipe(("a",))).share("right") == 1
    assert score_of(found, Recipe(("a",), older="a")).share("wrong") == 1
    assert score_of(found, Recipe(("a", "b"), older="a")).share("undetermined") == 1
    with pytest.raises(ValueError, match="older edition of c"):
        evaluate(groups, sources, older=[everywhere("c", "FR")])


def test_more_sources_than_can_be_combined_are_refused() -> None:
    with pytest.raises(ValueError, match="9 sources; combinations of 8"):
        evaluate([one_prefix("north", "DE")], [everywhere(name, "DE") for name in "abcdefghi"])


def test_statuses_have_the_share_of_right_countries() -> None:
    groups = [one_prefix("north", "DE"), one_prefix("south", "FR", 9)]
    found = evaluate(groups, [everywhere("a", "DE"), everywhere("b", None)])
    (both,) = [one for one in found.statuses if one.recipe == Recipe(("a", "b"))]
    assert (both.status, both.amount.prefixes, both.right.prefixes) == (Status.UNCONFIRMED, 2, 1)


def test_confidence_interval_is_that_of_resampled_operators() -> None:
    groups = [
        one_prefix(f"n{number}", "DE" if number % 3 else "FR", 100 * number, 1 + number % 5)
        for number in range(20)
    ]
    score = score_of(evaluate(groups, [everywhere("a", "DE")]), Recipe(("a",)))
    interval = score.interval("wrong")
    assert interval is not None
    dice = random.Random(1)
    shares = []
    for _ in range(4000):
        drawn = [dice.choice(groups) for _ in groups]
        wrong = sum(len(group.places[4]) for group in drawn if group.places[4][0].code == "FR")
        shares.append(wrong / sum(len(group.places[4]) for group in drawn))
    shares.sort()
    assert math.isclose(interval.low, shares[100], abs_tol=0.03)
    assert math.isclose(interval.high, shares[-101], abs_tol=0.03)
    assert interval.low < score.share("wrong") < interval.high
    alone = score_of(evaluate(groups[:1], [everywhere("a", "DE")]), Recipe(("a",)))
    assert alone.interval("wrong") is None


def test_choice_is_the_recipe_that_decides_most_within_the_bound() -> None:
    groups = [one_prefix("north", "DE", 0, 99), one_prefix("south", "FR", 200)]

    def says(family: Family) -> list[tuple[int, int, str | None]]:
        if family == 6:
            return [(0, TOP[6], None)]
        return [(0, 256 * 150 - 1, "DE"), (256 * 150, TOP[4], None)]

    careful = Statements("careful", "2026-06-01", "full", "careful", (), says)
    found = evaluate(groups, [everywhere("bold", "DE"), careful])
    assert choose(found.scores, 0.5) == (Recipe(("bold",)), Policy.UNANIMOUS)
    assert choose(found.scores, 0.0) == (Recipe(("careful",)), Policy.UNANIMOUS)
    liar = evaluate(groups, [everywhere("bold", "IT")])
    assert choose(liar.scores, 0.5) is None


# --- files ---------------------------------------------------------------------------


def places(truth: Truth) -> dict[str, list[tuple[str, str, str]]]:
    def text(family: Family, value: int) -> str:
        return str(ipaddress.IPv4Address(value) if family == 4 else ipaddress.IPv6Address(value))

    return {
        group.name: [
            (text(family, place.first), text(family, place.last), place.code)
            for family in FAMILIES
            for place in group.places[family]
        ]
        for group in truth.groups
    }


def test_ground_truth_is_read_from_feeds_and_tables(tmp_path: Path) -> None:
    (tmp_path / "north.csv").write_text(
        "# ours\n9.0.0.0/24,DE,DE-BE,Berlin,\n9.0.0.0/25,FR,,,\n9.0.1.7/24,DE,,,\n9.1.0.0/24,,,,\n"
    )
    with gzip.open(tmp_path / "many.csv.gz", "wt") as file:
        writer = csv.writer(file)
        writer.writerow(["operator", "Prefix", "country_code"])
        writer.writerow(["north", "2a00::/32", "de"])
        writer.writerow(["The South, Ltd.", "9.2.0.0/32", "UK"])
        writer.writerow(["The South, Ltd.", "9.2.0.1/24", "UK"])
        writer.writerow(["The South, Ltd.", "9.3.0.0/24", "DE"])
        writer.writerow(["The South, Ltd.", "9.3.0.0/24", "FR"])
        writer.writerow(["", "9.4.0.0/24", "FR"])
    truth = read_truth([tmp_path / "north.csv", tmp_path / "many.csv.gz"])
    assert places(truth) == {
        "The South, Ltd.": [("9.2.0.0", "9.2.0.0", "GB")],
        "north": [
            ("9.0.0.0", "9.0.0.127", "FR"),
            ("9.0.0.128", "9.0.0.255", "DE"),
            ("2a00::", "2a00:0:ffff:ffff:ffff:ffff:ffff:ffff", "DE"),
        ],
    }
    assert truth.prefixes == 4
    assert [finding.rpartition("/")[2] for finding in truth.findings] == [
        "many.csv.gz:4: the prefix has bits set beyond its length; left out",
        "many.csv.gz:7: names no operator; left out",
        "north.csv:4:1: the prefix has bits set beyond its length; left out",
        "line 6: names another country than line 5 for the same prefix; left out",
    ]
    assert read_truth([tmp_path]).prefixes == 4, "a folder stands for the files in it"


def test_ground_truth_without_a_country_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nothing.csv"
    path.write_text("prefix,country,operator\n9.0.0.0/24,,north\n")
    with pytest.raises(SourceError, match="no place is known"):
        read_truth([path])


# --- the command -----------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("9.0.0.0,9.0.1.255,DE\n9.0.2.0,9.0.3.255,FR\n")
    (tmp_path / "b.csv").write_text("9.0.0.0,9.0.0.255,DE\n9.0.1.0,9.0.3.255,FR\n")
    feeds = tmp_path / "feeds"
    feeds.mkdir()
    (feeds / "north.csv").write_text("9.0.1.0/24,DE,,,\n")
    (feeds / "east.csv").write_text("9.0.2.0/24,DE,,,\n")
    source = '[[source]]\nlicence = "CC0-1.0"\ncoverage = "{}"\nname = "{}"\nfiles = ["{}"]\n'
    (tmp_path / "sources.toml").write_text(
        "".join(
            source.format(coverage, name, file) + "date = 2026-06-01\n"
            for coverage, name, file in (
                ("full", "a", "a.csv"),
                ("full", "b", "b.csv"),
                ("partial", "feeds", "feeds"),
            )
        )
    )
    (tmp_path / "older.toml").write_text(
        source.format("full", "a", "b.csv") + "date = 2026-05-01\n"
    )
    (tmp_path / "truth.csv").write_text(
        "prefix,country,operator\n9.0.0.0/24,DE,north\n9.0.1.0/24,DE,north\n9.0.2.0/24,FR,south\n"
    )
    return tmp_path / "sources.toml"


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(command, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_scores_a_manifest_and_a_dataset_alike(manifest: Path, tmp_path: Path) -> None:
    truth = ("--truth", tmp_path / "truth.csv")
    found = json.loads(run(manifest, *truth, "--json", "--wrong-at-most", "0%"))
    assert found["truth"] == {"operators": 2, "prefixes": 3}
    assert found["left_out"] == {"north": ["feeds"]}
    by_recipe = {
        ("+".join(score["sources"]), score["policy"]): score
        for score in found["scores"]
        if score["family"] == 4
    }
    assert len(by_recipe) == 7 * 3
    assert by_recipe["a", "UNANIMOUS"]["prefixes"]["right"]["share"] == 1
    assert math.isclose(by_recipe["b", "UNANIMOUS"]["prefixes"]["wrong"]["share"], 1 / 3)
    assert by_recipe["b", "UNANIMOUS"]["falsely_inside"]["FR"]["addresses"] == 256
    # north's own file is left out of the feeds: it would be right about 9.0.1.0/24.
    north = by_recipe["feeds", "UNANIMOUS"]["operators"]["north"]
    assert north["undetermined"]["prefixes"] == 2
    assert by_recipe["feeds", "UNANIMOUS"]["operators"]["south"]["wrong"]["prefixes"] == 1
    assert found["choice"] == {"sources": ["a"], "policy": "UNANIMOUS"}
    dataset = tmp_path / "made.geolookup"
    CliRunner().invoke(
        command, ["compile", str(manifest), "-o", str(dataset)], catch_exceptions=False
    )
    same = json.loads(run(dataset, *truth, "--json"))
    assert [score for score in same["scores"] if "feeds" not in score["sources"]] == [
        score for score in found["scores"] if "feeds" not in score["sources"]
    ]


def test_command_prints_tables_and_draws(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "accuracy.svg"
    shown = run(
        manifest, "--truth", tmp_path / "truth.csv", "--older", tmp_path / "older.toml",
        "--wrong-at-most", "0.001", "--plot", plot,
    )  # fmt: skip
    lines = shown.splitlines()
    assert lines[0] == "3 prefixes of 2 operators"
    older = next(line.split() for line in lines if line.startswith("a (older)  "))
    assert older[:4] == ["a", "(older)", "UNANIMOUS", "33.33"]
    assert "a (older) + b + feeds" in shown
    assert "Scored without the operator's own publication: north (feeds)" in shown
    assert lines[-1].startswith("Wrong for at most 0.10 % in each family, and decides most: a, ")
    assert plot.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a lot", "expected a share"),
        ("-1%", "expected a share"),
        ("101%", "there is no more than 100%"),
        ("1.5", "needs its unit"),
    ],
)
def test_command_refuses_a_bound_that_is_no_share(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("9.0.0.0/24,DE,,,\n")
    result = CliRunner().invoke(
        command,
        ["evaluate", "--truth", str(tmp_path / "truth.csv"), f"--wrong-at-most={text}"],
    )
    assert result.exit_code == 2
    assert "--wrong-at-most: " in result.output
    assert why in result.output
