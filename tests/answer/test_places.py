"""Places below the country, held against rules that know nothing of how it is done.

A place is a set of the smallest parts of the world, a region set is one, too, and a source's
statement is inside where it holds nothing else, outside where it holds nothing of it, and open
otherwise. All combinations of up to three sources are compiled, written and asked about.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pytest

from geolookup import Dataset, Verdict
from geolookup.answer import file_format
from geolookup.answer.claims import COVERAGES, Coverage, Depth, Mute, Policy, combine
from geolookup.answer.dataset import encode
from geolookup.answer.derivation import derive
from geolookup.answer.overrides import Override
from geolookup.answer.region_sets import RegionSets
from geolookup.build import compiler
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges, code_number
from geolookup.build.sources import Source
from geolookup.errors import DatasetError
from geolookup.review.difference import compare

WORLD = {
    "UA": {"Crimea", "Kyiv", "the rest of Ukraine"},
    "UA-43": {"Crimea"},
    "UA-30": {"Kyiv"},
    "RU": {"Russia"},
    "GB": {"London", "the rest of England", "Scotland", "Wales and Northern Ireland"},
    "GB-ENG": {"London", "the rest of England"},
    "GB-LND": {"London"},
    "GB-SCT": {"Scotland"},
}
"""Each place as its smallest parts."""

REGION_SETS = {
    "UA": WORLD["UA"],
    "RU": WORLD["RU"],
    "UA/43": WORLD["UA-43"],
    "UA-UA/43": WORLD["UA"] - WORLD["UA-43"],
    "UA/43+RU": WORLD["UA-43"] | WORLD["RU"],
    "UA/43+UA/30": WORLD["UA-43"] | WORLD["UA-30"],
}
DIVIDED = {name: REGION_SETS[name] for name in ("UA", "UA/43", "UA-UA/43", "UA/43+RU")}
BRITISH = {
    "GB": WORLD["GB"],
    "GB/ENG": WORLD["GB-ENG"],
    "GB/LND": WORLD["GB-LND"],
    "GB-GB/LND": WORLD["GB"] - WORLD["GB-LND"],
    "GB/ENG-GB/LND": WORLD["GB-ENG"] - WORLD["GB-LND"],
    "UA/43+GB/SCT": WORLD["UA-43"] | WORLD["GB-SCT"],
}


@dataclass(frozen=True)
class Voter:
    """A source, as the rules see it."""

    coverage: Coverage
    depth: Depth
    origin: str
    mute: Mute = ()


VERDICTS = ("INSIDE", "OUTSIDE", "UNDETERMINED")
Said = tuple[str | None, ...]
Outcome = tuple[str, str]
UNKNOWN = "UNDETERMINED", "SUBDIVISION_UNKNOWN"
DISPUTED = "UNDETERMINED", "DISPUTED"


def decided(inside: bool) -> Outcome:
    return "INSIDE" if inside else "OUTSIDE", "DECIDED"


def country(place: str) -> str:
    return place.partition("-")[0]


def expected(
    voters: Sequence[Voter], said: Said, region: frozenset[str], policy: str, needed: int
) -> Outcome:
    """Return verdict and reason by the rules of docs/answers.md."""
    counting, ruled = counted(voters, said)
    speaking = [(voter, place) for voter, place in counting if place]
    if not speaking:
        return "UNDETERMINED", "UNASSIGNED"

    def side(place: str) -> bool | None:
        parts = WORLD[place]
        return True if parts <= region else False if not parts & region else None

    sides = [(voter, place, side(place)) for voter, place in speaking]
    if policy == "PRIMARY":
        told = [inside for *_, inside in sides if inside is not None]
        return decided(told[0]) if told else UNKNOWN
    silent = not all(place for _, place in counting)
    votes: dict[str, str | None] = {}
    for voter, place in counting:
        before = votes.get(voter.origin)
        exact = place and before and "-" in place and before == country(place)
        votes[voter.origin] = place if exact else before or place
    if policy == "MAJORITY":
        found = [side(place) if place else None for place in votes.values()]
        for inside in (True, False):
            if 2 * found.count(inside) > len(votes):
                return decided(inside)
    # UNANIMOUS, which MAJORITY falls back to.
    told_sides = {inside for *_, inside in sides if inside is not None}
    can_tell = [(voter, place) for voter, place, inside in sides if inside is not None]

    def settled(voter: Voter, place: str) -> bool:
        if voter.depth == "subdivision":
            return voter.coverage == "partial"
        return any(
            other.coverage != "partial" and country(told) == country(place)
            for other, told in can_tell
        )

    unsettled = not told_sides or any(
        not settled(voter, place) for voter, place, inside in sides if inside is None
    )
    countries = {country(place) for _, place in speaking}
    if len(told_sides) > 1 or (unsettled and len(countries) > 1):
        return DISPUTED
    if silent:
        return "UNDETERMINED", "UNCONFIRMED"
    divided = any(side(country(place)) is None for _, place in can_tell)
    telling = sum(place is not None and side(place) is not None for place in votes.values())
    if unsettled or (divided and not ruled and telling < needed):
        return UNKNOWN
    return decided(told_sides.pop())


def counted(voters: tuple[Voter, ...], said: Said) -> tuple[list[tuple[Voter, str | None]], bool]:
    """Return the statements and silences that count, and whether they are authoritative."""
    heard = [one for one in zip(voters, said, strict=True) if one[0].coverage != "advisory"]
    named = {country(place) for _, place in heard if place}

    def cannot_know(voter: Voter, place: str | None) -> bool:
        return any(
            unknown in named
            and (
                not place or (country(place) != unknown and (not filed or country(place) in filed))
            )
            for unknown, filed in voter.mute
        )

    able = [one for one in heard if not cannot_know(*one)]
    if not any(place for _, place in able):
        able = heard
    ruling = [one for one in able if one[0].coverage == "authoritative" and one[1]]
    return ruling or [one for one in able if one[1] or one[0].coverage == "full"], bool(ruling)


def compiled(
    voters: Sequence[Voter], rows: Sequence[Said], *, with_evidence: bool = False
) -> bytes:
    """Return the dataset of sources that say *rows* of 0.0.0.0, 0.0.0.1 and so on."""
    content = compiled_content(voters, rows, with_evidence=with_evidence)
    return encode(content, optional=content.optional)


def compiled_content(
    voters: Sequence[Voter], rows: Sequence[Said], *, with_evidence: bool = False
) -> compiler.CompiledDataset:
    sources = []
    for number, voter in enumerate(voters):
        ranges = SourceRanges()
        for address, said in enumerate(rows):
            place = said[number]
            if place is not None:
                ranges.ipv4.append(address, address, code_number(place))
        source = Source(
            name=f"source {number}",
            licence="none",
            date=date(2026, 1, 1),
            coverage=voter.coverage,
            depth=voter.depth,
            origin=voter.origin,
            mute=voter.mute,
            within=((bytes(4), b"\xff" * 4),) if voter.coverage == "authoritative" else (),
        )
        sources.append((source, ranges))
    return compile_sources(sources, special_purpose=False, with_evidence=with_evidence)


def check(
    voters: Sequence[Voter],
    rows: Sequence[Said],
    region_sets: dict[str, set[str]],
    needed: Sequence[int] = (1, 2),
) -> None:
    """Hold the verdict and reason of each of *rows* against the rules."""
    image = compiled(voters, rows)
    packed = b"".join(address.to_bytes(4) for address in range(len(rows)))
    for number in needed:
        opened = Dataset.from_buffer(image, subdivision_sources=number)
        for name, region in region_sets.items():
            for policy in ("UNANIMOUS", "MAJORITY", "PRIMARY"):
                result = opened.classify(ipv4=packed, region_set=name, policy=policy)
                sets = (result.inside, result.outside, result.undetermined)
                verdicts = {
                    position: verdict
                    for verdict, positions in zip(VERDICTS, sets, strict=True)
                    for position in positions
                }
                for position, said in enumerate(rows):
                    got = verdicts[position], result.reasons[position].name
                    want = expected(voters, said, frozenset(region), policy, number)
                    assert got == want, (name, policy, number, list(zip(voters, said, strict=True)))


def kinds(coverages: Sequence[Coverage]) -> Iterator[tuple[Coverage, Depth]]:
    depths: tuple[Depth, ...] = ("country", "subdivision")
    return itertools.product(coverages, depths)


def statements(depth: str, places: Sequence[str]) -> list[str | None]:
    return [None, *(place for place in places if depth == "subdivision" or "-" not in place)]


def judge(voters: Sequence[Voter], places: Sequence[str], region_sets: dict[str, set[str]]) -> None:
    """Hold the claims of all that the sources may say against the rules, without a file."""
    found = [RegionSets.builtin().resolve(name) for name in region_sets]
    sets = [
        (one.name, one.codes, one.partly, frozenset(region))
        for one, region in zip(found, region_sets.values(), strict=True)
    ]
    rows = itertools.product(*(statements(voter.depth, places) for voter in voters))
    for said in rows:
        claim = combine(voters, said)
        for name, codes, partly, region in sets:
            for policy in Policy:
                got = claim.judge(codes, policy, partly)
                want = expected(voters, said, region, policy.name, 2)
                assert got == want, (name, policy, list(zip(voters, said, strict=True)))


@pytest.mark.parametrize(
    ("places", "region_sets"),
    [
        (("UA", "UA-43", "RU"), ("UA/43", "UA")),
        (("GB", "GB-ENG", "GB-LND"), ("GB/ENG", "GB-GB/LND")),
    ],
    ids=["two countries", "parent and child"],
)
def test_three_sources_of_any_kind_give_the_verdicts_of_the_rules(
    places: Sequence[str], region_sets: Sequence[str]
) -> None:
    """All coverages, depths, statements and silences of three sources, of which one is advisory."""
    regions = {name: (DIVIDED | BRITISH)[name] for name in region_sets}
    for combination in itertools.product(kinds(COVERAGES), repeat=3):
        if sum(coverage == "advisory" for coverage, _ in combination) > 1:
            continue
        voters = [Voter(*kind, origin) for kind, origin in zip(combination, "abc", strict=True)]
        if any(voter.depth == "subdivision" for voter in voters):  # else: see `check`
            judge(voters, places, regions)


@pytest.mark.parametrize("position", range(3))
def test_source_that_cannot_know_a_country_gives_the_verdicts_of_the_rules(position: int) -> None:
    """It takes UA for RU, or says nothing; the others are of any depth."""
    mute: Mute = (("UA", ("RU",)),)
    for combination in itertools.product(kinds(("full", "authoritative")), repeat=3):
        voters = [Voter(*kind, origin) for kind, origin in zip(combination, "abc", strict=True)]
        voters[position] = replace(voters[position], mute=mute)
        if any(voter.depth == "subdivision" for voter in voters):
            judge(voters, ("UA", "UA-43", "RU"), {"UA/43": WORLD["UA-43"], "RU": WORLD["RU"]})


def test_advisory_and_mute_sources_are_compiled_by_the_rules() -> None:
    for coverage, depth, origins in itertools.product(
        ("advisory", "authoritative"), ("country", "subdivision"), ("abc", "aab")
    ):
        voters = [
            Voter("full", "subdivision", origins[0]),
            Voter("full", "country", origins[1], (("UA", ("RU",)),)),
            Voter(coverage, depth, origins[2]),
        ]
        places = ("UA", "UA-43", "UA-30", "RU")
        rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
        check(voters, rows, DIVIDED)


def test_three_sources_give_the_verdicts_of_the_rules() -> None:
    """Two of them are one publisher's, and the dataset is compiled and written."""
    places = ("UA", "UA-43", "UA-30", "RU")
    for combination in itertools.product(kinds(("full", "partial")), repeat=3):
        voters = [Voter(*kind, origin) for kind, origin in zip(combination, "aab", strict=True)]
        if all(voter.depth == "country" for voter in voters):
            continue  # a dataset without subdivisions does not keep the order of three countries
        rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
        check(voters, rows, DIVIDED, (2,))


def test_stale_dataset_decides_nothing_below_the_country() -> None:
    """STALE comes before all that the sources say, also before an override."""
    voters = [Voter("full", "subdivision", "a"), Voter("full", "country", "b")]
    places = ("UA", "UA-43", "RU")
    rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
    content = compiled_content(voters, rows, with_evidence=True)
    opened = Dataset.from_buffer(
        encode(content, optional=content.optional), max_age=30, stale="undetermined"
    )
    addresses = [f"0.0.0.{last}" for last in range(len(rows))]
    for name, policy in itertools.product(("UA/43", "UA-UA/43", "UA", "UA/43+RU"), Policy):
        result = opened.classify([*addresses, "no"], region_set=name, policy=policy)
        assert set(result.reasons[:-1]) == {"STALE"}
        assert result.reasons[-1] == "INVALID"
        assert len(result.undetermined) == len(rows) + 1
        people = opened.classify({1: addresses, 2: ["no"]}, region_set=name, policy=policy)
        assert list(people.reasons) == ["STALE", "INVALID"]
        region_set = opened.region_sets.resolve(name)
        for address in addresses:
            answer = opened.lookup(address, name, policy)
            assert (answer.verdict, answer.reason) == ("UNDETERMINED", "STALE")
            derivation = derive(
                opened.explain(address), answer, name, region_set.codes, policy, region_set.partly
            )
            assert derivation.steps[-1].question == "is the dataset young enough?"
    assert opened.lookup("0.0.0.7").region == "UA-43"  # what is known is still said


def test_two_sources_give_the_verdicts_of_the_rules() -> None:
    places = ("GB", "GB-ENG", "GB-LND", "GB-SCT", "UA", "UA-43")
    for combination in itertools.product(kinds(("full", "partial", "authoritative")), repeat=2):
        voters = [Voter(*kind, origin) for kind, origin in zip(combination, "ab", strict=True)]
        rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
        check(voters, rows, BRITISH)


def test_sources_of_countries_decide_where_subdivisions_do_not_matter() -> None:
    voters = [Voter("full", "country", "a"), Voter("full", "country", "b")]
    rows: list[Said] = list(itertools.product([None, "UA", "RU", "GB"], repeat=2))
    check(voters, rows, {**REGION_SETS, **BRITISH})


def test_override_of_a_subdivision_decides_alone() -> None:
    ranges = SourceRanges()
    ranges.ipv4.append(0, 9, code_number("RU"))
    source = Source(name="a", licence="none", date=date(2026, 1, 1))
    overrides = [
        Override(bytes([0, 0, 0, 1]), bytes([0, 0, 0, 1]), "UA-43"),
        Override(bytes([0, 0, 0, 2]), bytes([0, 0, 0, 2]), "UA"),
    ]
    image = encode(compile_sources([(source, ranges)], overrides=overrides, special_purpose=False))
    opened = Dataset.from_buffer(image)
    answers = [opened.lookup(f"0.0.0.{last}", "UA/43") for last in range(3)]
    assert [(one.country, one.region) for one in answers] == [
        ("RU", ""),
        ("UA", "UA-43"),
        ("UA", ""),
    ]
    assert [str(one.verdict) for one in answers] == ["OUTSIDE", "INSIDE", "UNDETERMINED"]
    assert str(answers[2].reason) == "SUBDIVISION_UNKNOWN"


def test_region_is_the_lowest_place_that_the_sources_agree_on() -> None:
    voters = [Voter("full", "subdivision", "a"), Voter("full", "subdivision", "b")]
    rows: list[Said] = [
        ("GB-LND", "GB-LND"),
        ("GB-LND", "GB-ENG"),
        ("GB-LND", "GB-SCT"),
        ("GB-LND", "GB"),
        ("GB-LND", None),
        ("GB-LND", "UA-43"),
        ("GB", "GB"),
    ]
    opened = Dataset.from_buffer(compiled(voters, rows))
    regions = [opened.lookup(f"0.0.0.{last}").region for last in range(len(rows))]
    assert regions == ["GB-LND", "GB-ENG", "", "GB-LND", "GB-LND", "", ""]


def test_fewer_subdivisions_are_held_where_claims_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voters = [Voter("full", "subdivision", "a"), Voter("partial", "subdivision", "b")]
    places = ("UA", "UA-43", "UA-30", "RU", "GB-ENG", "GB-LND", "GB")
    rows = list(itertools.product(statements("subdivision", places), repeat=2))
    exact = Dataset.from_buffer(compiled(voters, rows))
    held = [len(exact.claims)]
    packed = b"".join(address.to_bytes(4) for address in range(len(rows)))
    region_sets = {**REGION_SETS, **BRITISH}
    for _ in range(2):  # first those of disputed countries go, then those that are disputed
        monkeypatch.setattr(compiler, "MAX_CLAIMS", held[-1] - 1)
        fewer = Dataset.from_buffer(compiled(voters, rows))
        held.append(len(fewer.claims))
        for name, policy in itertools.product(region_sets, ("UNANIMOUS", "MAJORITY", "PRIMARY")):
            one, other = (
                opened.classify(ipv4=packed, region_set=name, policy=policy)
                for opened in (exact, fewer)
            )
            assert one.inside >= other.inside, (name, policy)
            assert one.outside >= other.outside, (name, policy)
            if "/" not in name:
                assert (one.inside, one.outside) == (other.inside, other.outside)
    assert held[0] > held[1] > held[2]


@pytest.mark.parametrize("depth", ["country", "subdivision"])
def test_first_source_decides_wherever_what_is_left_out_can_not_matter(
    monkeypatch: pytest.MonkeyPatch, depth: Depth
) -> None:
    """What a claim stands for that holds fewer subdivisions has one verdict, or it has none."""
    voters = [Voter("full", "subdivision", "a"), Voter("full", depth, "b")]
    places = ("UA", "UA-43", "UA-30", "RU", "RU-MOW", "RU-SPE")
    rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
    exact = Dataset.from_buffer(compiled(voters, rows))
    monkeypatch.setattr(compiler, "MAX_CLAIMS", len(exact.claims) - 1)
    fewer = Dataset.from_buffer(compiled(voters, rows))
    packed = b"".join(address.to_bytes(4) for address in range(len(rows)))
    claims = memoryview(fewer.core[0].classify_ipv4(packed)).cast("H").tolist()
    for name in ("UA/43", "UA-UA/43", "UA/43+RU", "RU/MOW", "RU-RU/MOW+UA"):
        before, after = (
            list(opened.classify({at: [f"0.0.0.{at}"] for at in range(len(rows))},
                                 region_set=name, policy="PRIMARY").by_id().values())
            for opened in (exact, fewer)
        )  # fmt: skip
        for claim in set(claims):
            here = [at for at, number in enumerate(claims) if number == claim]
            verdicts = {before[at] for at in here}
            assert {after[at] for at in here} == (
                verdicts if len(verdicts) == 1 else {Verdict.UNDETERMINED}
            ), (name, [rows[at] for at in here])


@pytest.mark.parametrize("policy", ["UNANIMOUS", "MAJORITY", "PRIMARY"])
def test_derivation_ends_with_the_verdict_of_the_answer(policy: str) -> None:
    voters = [
        Voter("full", "country", "a"),
        Voter("full", "subdivision", "b"),
        Voter("partial", "subdivision", "c"),
    ]
    places = ("UA", "UA-43", "RU")
    rows = list(itertools.product(*(statements(voter.depth, places) for voter in voters)))
    opened = Dataset.from_buffer(compiled(voters, rows, with_evidence=True))
    for name in ("UA/43", "UA-UA/43", "UA"):
        region_set = opened.region_sets.resolve(name)
        for last, said in enumerate(rows):
            address = f"0.0.0.{last}"
            answer = opened.lookup(address, name, policy)
            derivation = derive(
                opened.explain(address),
                answer,
                name,
                region_set.codes,
                Policy[policy],
                region_set.partly,
            )
            assert derivation.steps[-1].verdict is answer.verdict, said
            assert derivation.steps[-1].reason is answer.reason
            # It follows from the statements, without a word about what the dataset keeps.
            assert "keep" not in derivation.steps[-1].question, (name, said)


@pytest.mark.parametrize(
    ("places", "what"),
    [
        (("UA-43", "UA-99"), "UA-99 is unknown; upgrade geolookup"),
        (("UA-43", "UA-30"), "not codes of subdivisions, sorted"),
        (("UA-43", "UA-43"), "not codes of subdivisions, sorted"),
        (("CN-HK", "UA-43"), "CN-HK is unknown"),
        (("UA", "UA-43"), "not codes of subdivisions"),
        (("UA-30",), "does not fit the format"),
    ],
)
def test_dataset_with_wrong_subdivisions_is_refused(places: tuple[str, ...], what: str) -> None:
    voter = Voter("full", "subdivision", "a")
    content = compiled_content([voter], [("UA-43",)])
    with pytest.raises(DatasetError, match=what):
        encode(replace(content, places=places))


@pytest.mark.parametrize(
    ("section", "data", "what"),
    [
        ("claim.places", b"\1\0\0\1", "place.vote: 1 items, expected 2"),
        ("claim.places", b"\0\0\0\1\0", "claim.places: 5 items, expected 4"),
        ("place.vote", b"\1\x80", "place.vote: unknown values"),
        ("place.vote", b"au", "place.vote: unknown values"),
        ("place.flags", b"\x10", "place.flags: unknown values"),
        ("place.code", b"UA-43", "no multiple of 6"),
        ("place.code", None, "place.code is missing"),
    ],
)
def test_damaged_places_are_refused(section: str, data: bytes | None, what: str) -> None:
    image = encode(compiled_content([Voter("full", "subdivision", "a")], [("UA-43",)]))
    whole = file_format.Image(memoryview(image), "file")
    sections = []
    for name in whole.sections:
        content = data if name == section else bytes(whole.section(name))
        if content is not None:
            sections.append(file_format.Section(name, True, content))
    with pytest.raises(DatasetError, match=what):
        Dataset.from_buffer(b"".join(file_format.join_sections(sections)))


def test_difference_counts_what_moved_within_a_country() -> None:
    voter = Voter("full", "subdivision", "a")
    before = Dataset.from_buffer(compiled([voter], [("UA-43",), ("UA-30",), ("UA",), ("RU",)]))
    after = Dataset.from_buffer(compiled([voter], [("UA-43",), ("UA-43",), ("UA-30",), ("UA-30",)]))
    ipv4, ipv6 = compare(before, after).families
    assert (ipv4.moved.addresses, ipv4.moved_within.addresses) == (1, 2)
    assert (ipv6.moved.addresses, ipv6.moved_within.addresses) == (0, 0)
    same = compare(before, before).families[0]
    assert same.moved_within.addresses == 0
