"""geolookup held against the oracle: at every boundary of the embedded data, and at random.

The boundaries are those of the raw sources and registries as the oracle reads
them, so a boundary that the compiler lost is asked about too.
"""

from __future__ import annotations

import functools
import ipaddress
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from datetime import date
from itertools import compress, pairwise

import pytest
import reference
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from reference import POLICIES, Answer, Oracle, Ruled, Said

import geolookup
from geolookup import Dataset, RegionSet
from geolookup.answer.dataset import encode
from geolookup.answer.overrides import Override
from geolookup.answer.results import RosterResult
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import Source

EU = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905 - a list of 27 quoted codes can't be read
)
REGIONS = {
    "CN": frozenset(["CN"]),
    "HK": frozenset(["HK"]),
    "TW": frozenset(["TW"]),
    "US": frozenset(["US"]),
    "EU": EU,
    "EEA-NO": EU | {"IS", "LI"},
    "DE+AT+CH": frozenset(["DE", "AT", "CH"]),
    "CN+HK+MO": frozenset(["CN", "HK", "MO"]),
}

FAMILIES = pytest.mark.parametrize("version", [4, 6])


class Sweep:
    """Both sides of every boundary of one family, with what the oracle says of them.

    Few different things are said, so each gets a number and verdicts are
    worked out once for each.
    """

    def __init__(self, version: int) -> None:
        oracle = reference.embedded()
        self.version = version
        self.values = oracle.edges(version)
        self.packed = reference.pack(version, self.values)
        numbers: dict[Said, int] = {}
        self.numbers = array(
            "H",
            (
                numbers.setdefault(oracle.said(version, value), len(numbers))
                for value in self.values
            ),
        )
        self.said = list(numbers)
        self.answers = [oracle.answer(said) for said in self.said]

    @functools.cached_property
    def examples(self) -> tuple[list[int], array[int]]:
        """An address of each different thing that is said, and the number of that."""
        first = dict(zip(reversed(self.numbers), reversed(self.values), strict=True))
        return list(first.values()), array("H", first)


@functools.cache
def sweep(version: int) -> Sweep:
    return Sweep(version)


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with geolookup.open() as opened:
        yield opened


def classify(dataset: Dataset, version: int, packed: bytes, **seen: object) -> RosterResult:
    if version == 4:
        return dataset.classify(ipv4=packed, **seen)
    return dataset.classify(ipv6=packed, **seen)


def first_difference(got: bytes, expected: bytes, width: int, values: Sequence[int]) -> str:
    """Return where two columns differ first, for a failure that can be looked into."""
    for at, value in enumerate(values):
        here = slice(width * at, width * (at + 1))
        if got[here] != expected[here]:
            return f"position {at}, address {value:#x}: {got[here]!r} is not {expected[here]!r}"
    return f"{len(got)} bytes are not {len(expected)}"


def check_columns(result: RosterResult, answers: Sequence[Answer], values: Sequence[int]) -> None:
    statuses = bytes(reference.NUMBERS[answer.status] for answer in answers)
    countries = "".join(answer.country for answer in answers).encode()
    got = result.statuses.tobytes()
    assert got == statuses, first_difference(got, statuses, 1, values)
    got = result.countries.tobytes()
    assert got == countries, first_difference(got, countries, 2, values)


# --- the embedded dataset ------------------------------------------------------------


@FAMILIES
def test_country_and_status_at_each_boundary_agree_with_oracle(
    dataset: Dataset, version: int
) -> None:
    swept = sweep(version)
    result = classify(dataset, version, swept.packed)
    assert len(result) == len(swept.values) > 900_000
    check_columns(result, [swept.answers[number] for number in swept.numbers], swept.values)


@FAMILIES
def test_lookup_at_each_boundary_agrees_with_oracle(dataset: Dataset, version: int) -> None:
    swept = sweep(version)
    size = len(swept.packed) // len(swept.values)
    addresses = [swept.packed[at : at + size] for at in range(0, len(swept.packed), size)]
    lookup = dataset.lookup
    got = [lookup(address) for address in addresses]
    expected = [swept.answers[number] for number in swept.numbers]
    wrong = [
        (hex(value), one, other)
        for value, one, other in zip(swept.values, got, expected, strict=True)
        if (one.status, one.country, one.claimed) != (other.status, other.country, other.claimed)
    ]
    assert not wrong, wrong[:5]
    assert [dataset.country(address) for address in addresses] == [one.country for one in got]
    assert {one.verdict for one in got} == {None}
    assert {one.dataset for one in got} == {dataset.id}


@FAMILIES
@pytest.mark.parametrize("policy", POLICIES)
def test_verdicts_of_each_region_set_agree_with_oracle(
    dataset: Dataset, version: int, policy: str
) -> None:
    """One region set at each boundary, the others once for each thing that is said."""
    swept = sweep(version)
    oracle = reference.embedded()
    for name, codes in REGIONS.items():
        values, numbers = (swept.values, swept.numbers) if name == "EU" else swept.examples
        verdicts = [reference.NUMBERS[oracle.verdict(said, codes, policy)] for said in swept.said]
        column = bytes(map(verdicts.__getitem__, numbers))
        packed = reference.pack(version, values)
        result = classify(dataset, version, packed, region_set=name, policy=policy)
        for verdict, got in ((1, result.inside), (2, result.outside), (3, result.undetermined)):
            here = column.translate(bytes(byte == verdict for byte in range(256)))
            expected = BitMap(array("I", compress(range(len(column)), here)))
            assert got == expected, (name, verdict, (got ^ expected)[:5])
        reasons = [
            reference.REASONS.index(oracle.reason(said, codes, policy)) for said in swept.said
        ]
        column = bytes(map(reasons.__getitem__, numbers))
        got_reasons = result.reasons.tobytes()
        assert got_reasons == column, first_difference(got_reasons, column, 1, values)


@FAMILIES
def test_each_interval_of_the_file_agrees_with_the_sources(dataset: Dataset, version: int) -> None:
    oracle = reference.embedded()
    first, numbers = intervals(dataset, version)
    starts = {at for start, last in oracle.ranges(version) for at in (start, last + 1)}
    assert first[0] == 0
    assert starts.issuperset(first[1:]), "an interval begins where nothing begins or ends"
    known: dict[int, Said] = {}
    for value, number in zip(first, numbers, strict=True):
        if number >= 0xFFF8:
            assert version == 6
            assert reference.embedded_ipv4(value) is not None
            continue
        said = oracle.said(version, value)
        if known.get(number) == said:
            continue
        claim = dataset.claims[number]
        answer = oracle.answer(said)
        assert (claim.status, claim.country) == (answer.status, answer.country), hex(value)
        voices = [] if isinstance(said, Ruled) else [code for _, code in oracle.voices(said)]
        if not any(voices):
            assert claim.votes == ()
        else:
            votes = oracle.votes(said)
            counted = Counter(vote for vote in votes if vote is not None)
            assert dict(claim.votes) == {code: counted[code] for code in voices if code}
            assert claim.abstentions == votes.count(None)
            assert claim.silent == (None in voices)
        known[number] = said
    assert all(one != other for one, other in pairwise(numbers))


def intervals(dataset: Dataset, version: int) -> tuple[list[int], list[int]]:
    """Return first addresses and claim numbers as they stand in the file."""

    def section(name: str, kind: str) -> list[int]:
        content = dataset.optional_section(name)
        assert content is not None
        return content.cast(kind).tolist()  # type: ignore[call-overload]  # one of "IQBH"

    if version == 4:
        return section("ipv4.first", "I"), section("ipv4.claims", "H")
    halves = zip(section("ipv6.high", "Q"), section("ipv6.low", "Q"), strict=True)
    return [high << 64 | low for high, low in halves], section("ipv6.claims", "H")


@pytest.mark.parametrize(
    ("form", "step"), [(0, 1), (1, 16), (2, 16), (3, 16)], ids=["mapped", "6to4", "Teredo", "NAT64"]
)
def test_embedded_forms_answer_as_the_ipv4_address_inside(
    dataset: Dataset, form: int, step: int
) -> None:
    values = sweep(4).values[::step]
    rest = random.Random(form).getrandbits
    wrapped = [strategies.embed(value, form, rest(80)) for value in values]
    got = dataset.classify(ipv6=reference.pack(6, wrapped))
    plain = dataset.classify(ipv4=reference.pack(4, values))
    assert got.countries == plain.countries
    assert got.statuses == plain.statuses
    seen = dataset.classify(ipv6=reference.pack(6, wrapped), region_set="CN")
    assert seen.inside == dataset.classify(ipv4=reference.pack(4, values), region_set="CN").inside


@FAMILIES
def test_text_of_a_sample_agrees_with_oracle(dataset: Dataset, version: int) -> None:
    swept = sweep(version)
    rng = random.Random(version)
    chosen = rng.sample(range(len(swept.values)), 30_000)
    values = [swept.values[at] for at in chosen]
    answers = [swept.answers[swept.numbers[at]] for at in chosen]
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    objects = [kind(value) for value in values]
    texts = [str(one) for one in objects]
    check_columns(dataset.classify(texts), answers, values)
    check_columns(dataset.classify([one.exploded.upper() for one in objects]), answers, values)
    check_columns(dataset.classify(objects), answers, values)
    assert [dataset.country(text) for text in texts] == [answer.country for answer in answers]
    got = [dataset.lookup(text) for text in texts]
    assert [one.claimed for one in got] == [answer.claimed for answer in answers]


def test_random_region_sets_agree_with_oracle(dataset: Dataset) -> None:
    swept = sweep(4)
    example = {number: value for value, number in zip(swept.values, swept.numbers, strict=True)}
    check_random_region_sets(dataset, reference.embedded(), list(example.values()), 50)


def test_random_region_sets_on_each_pair_of_codes_agree_with_oracle() -> None:
    """A small dataset, because seeing thousands of claims from a new region set takes a while."""
    codes = (*sorted(EU)[:16], "CN", "HK", "TW", None)
    pairs = [(one, other) for one in codes for other in codes]
    sources = [
        reference.Source(
            f"source {side}",
            ranges={4: [(0x01000000 + at,) * 2 + (pair[side],) for at, pair in enumerate(pairs)]},
        )
        for side in (0, 1)
    ]
    with Dataset.from_buffer(compiled(sources, ())) as small:
        values = [first for first, _, _ in sources[0].ranges[4]]
        check_random_region_sets(small, Oracle(sources), values, 2_000)


def check_random_region_sets(
    dataset: Dataset, oracle: Oracle, values: Sequence[int], count: int
) -> None:
    rng = random.Random(count)
    said = [oracle.said(4, value) for value in values]
    codes = sorted({oracle.answer(one).country for one in said} - {"ZZ"})
    for turn in range(count):
        region = frozenset(rng.sample(codes, rng.randint(1, rng.choice([2, 5, len(codes)]))))
        policy = rng.choice(POLICIES)
        chosen = [rng.randrange(len(values)) for _ in range(100)]
        packed = reference.pack(4, [values[at] for at in chosen])
        seen = RegionSet("HERE", region) if turn % 2 else "+".join(sorted(region))
        result = dataset.classify(ipv4=packed, region_set=seen, policy=policy)
        expected = [oracle.verdict(said[at], region, policy) for at in chosen]
        assert verdict_list(result) == expected, (sorted(region), policy)
        why = [oracle.reason(said[at], region, policy) for at in chosen]
        assert list(result.reasons) == why, (sorted(region), policy)


def verdict_list(result: RosterResult) -> list[str]:
    """Return the verdict of each position; each has exactly one."""
    verdicts = [""] * len(result)
    for name, positions in (
        ("INSIDE", result.inside),
        ("OUTSIDE", result.outside),
        ("UNDETERMINED", result.undetermined),
    ):
        for at in positions:
            assert not verdicts[at]
            verdicts[at] = name
    return verdicts


# --- at random -----------------------------------------------------------------------


@functools.cache
def near(version: int) -> tuple[int, ...]:
    """Return a sample of the boundaries to weigh random addresses by."""
    oracle = reference.embedded()
    boundaries = sorted({at for edges in oracle.ranges(version) for at in edges})
    return tuple(random.Random(version).sample(boundaries, 5_000))


def somewhere() -> st.SearchStrategy[tuple[int, int]]:
    return st.deferred(lambda: strategies.values(near(4), near(6)))


def said_of(address: object) -> Said:
    """Return what the oracle says of an address in any form that geolookup takes."""
    oracle = reference.embedded()
    if isinstance(address, str):
        return oracle.said_of_text(address)
    if isinstance(address, bytes):
        if len(address) not in (4, 16):
            return Ruled(reference.INVALID)
        return oracle.said(4 if len(address) == 4 else 6, int.from_bytes(address))
    assert isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    return oracle.said_of_text(str(address))


def as_object(value: tuple[int, int]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    version, number = value
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def packed_form(value: tuple[int, int]) -> bytes:
    return as_object(value).packed


def any_form() -> st.SearchStrategy[object]:
    return st.one_of(
        strategies.texts(somewhere()),
        strategies.malformed_texts(),
        somewhere().map(packed_form),
        st.binary(max_size=20),
        somewhere().map(as_object),
        strategies.texts(st.tuples(st.just(6), st.integers(0xFE80 << 112, 0xFEC0 << 112)))
        .filter(lambda text: "." not in text.partition("%")[0])
        .map(ipaddress.IPv6Address),
    )


@settings(max_examples=400)
@given(
    roster=strategies.rosters(any_form()),
    region=st.sampled_from(sorted(REGIONS)),
    policy=st.sampled_from(POLICIES),
)
def test_mixed_roster_agrees_with_oracle(
    dataset: Dataset, roster: list[object], region: str, policy: str
) -> None:
    oracle = reference.embedded()
    said = [said_of(address) for address in roster]
    result = dataset.classify(roster, region_set=region, policy=policy)
    answers = [oracle.answer(one) for one in said]
    assert list(result.countries) == [answer.country for answer in answers]
    assert list(result.statuses) == [answer.status for answer in answers]
    assert verdict_list(result) == [oracle.verdict(one, REGIONS[region], policy) for one in said]
    reasons = [oracle.reason(one, REGIONS[region], policy) for one in said]
    assert list(result.reasons) == reasons
    assert result.reason_counts() == Counter(one for one in reasons if one != "DECIDED")
    assert result.counts() == dict(sorted(Counter(result.countries).items()))
    for code in set(result.countries):
        assert list(result.positions(code)) == [
            at for at, answer in enumerate(answers) if answer.country == code
        ]
    for at, address in enumerate(roster):
        single = dataset.lookup(address, region, policy)
        assert single.country == result.countries[at] == dataset.country(address)
        assert single.status == result.statuses[at]
        assert single.claimed == answers[at].claimed
        assert single.verdict == oracle.verdict(said[at], REGIONS[region], policy)
        assert single.reason == reasons[at]


@settings(max_examples=300)
@given(roster=strategies.rosters(somewhere()))
def test_packed_roster_agrees_with_its_texts(
    dataset: Dataset, roster: list[tuple[int, int]]
) -> None:
    texts = dataset.classify([str(as_object(value)) for value in roster])
    mixed = reference.pack(
        6, [value if version == 6 else 0xFFFF << 32 | value for version, value in roster]
    )
    assert dataset.classify(ipv6=mixed) == texts
    ipv4 = [value for value in roster if value[0] == 4]
    assert (
        dataset.classify(ipv4=reference.pack(4, [value for _, value in ipv4])).countries
        == dataset.classify([as_object(value) for value in ipv4]).countries
    )


@settings(max_examples=600)
@given(text=strategies.malformed_texts())
def test_nearly_valid_text_agrees_with_oracle(dataset: Dataset, text: str) -> None:
    oracle = reference.embedded()
    expected = oracle.answer(oracle.said_of_text(text))
    answer = dataset.lookup(text)
    assert (answer.status, answer.country) == (expected.status, expected.country)
    assert dataset.classify([text]).statuses == [expected.status]


@pytest.mark.parametrize("text", strategies.MALFORMED)
def test_malformed_texts_are_invalid_and_leave_the_roster_whole(
    dataset: Dataset, text: str
) -> None:
    result = dataset.classify(["1.0.1.1", text, "10.0.0.1"], region_set="CN")
    assert list(result.countries) == ["CN", "ZZ", "ZZ"]
    assert list(result.statuses) == [
        geolookup.Status.ASSIGNED,
        geolookup.Status.INVALID,
        geolookup.Status.SPECIAL_PURPOSE,
    ]
    assert list(result.inside) == [0]
    assert list(result.undetermined) == [1, 2]


# --- the compiler, on small datasets -------------------------------------------------

CODES = ("CN", "HK", "DE", "GB")


@st.composite
def small_sources(draw: st.DrawFn) -> list[reference.Source]:
    """Return one to four sources of a few ranges on the same short stretches of both lines.

    The IPv6 stretch has boundaries below and above the lower 64 bits.
    """
    return [
        reference.Source(
            f"source {number}",
            coverage=draw(
                st.sampled_from(["full", "full", "partial", "advisory", "authoritative"])
            ),
            mute=draw(st.sampled_from([{}, {}, {"CN": ["HK"]}, {"HK": []}])),
            origin=draw(st.sampled_from(["a", "b", f"source {number}"])),
            ranges={4: draw(_ranges(_ipv4_point)), 6: draw(_ranges(_ipv6_point))},
        )
        for number in range(draw(st.integers(1, 4)))
    ]


def _ipv4_point(step: int) -> int:
    # The last ones lie at the very end of the line.
    return 0x01000000 + step if step < 60 else 2**32 - 64 + step


def _ipv6_point(step: int) -> int:
    return (0x2400 << 112) + (step << 62) if step < 60 else 2**128 - 64 + step


def _ranges(
    point: Callable[[int], int],
) -> st.SearchStrategy[list[tuple[int, int, str | None]]]:
    """Return sorted, disjoint ranges with gaps between some of them."""

    def build(cuts: list[int], codes: list[str | None]) -> list[tuple[int, int, str | None]]:
        at = sorted(cuts)
        return [
            (point(first), point(behind) - 1, code)
            for first, behind, code in zip(at, at[1:], codes, strict=False)
            if code != "gap" and point(first) < point(behind)
        ]

    return st.builds(
        build,
        st.lists(st.integers(0, 63), unique=True, max_size=12),
        st.lists(st.sampled_from([*CODES, None, "gap"]), min_size=12, max_size=12),
    )


EVERYWHERE = tuple((bytes(size), b"\xff" * size) for size in (4, 16))


def compiled(sources: Sequence[reference.Source], overrides: Sequence[reference.Override]) -> bytes:
    def pair(version: int, first: int, last: int) -> tuple[bytes, bytes]:
        return reference.pack(version, [first]), reference.pack(version, [last])

    return encode(
        compile_sources(
            [
                (
                    Source(
                        source.name,
                        licence="CC0-1.0",
                        date=date(2026, 6, 1),
                        coverage=source.coverage,
                        origin=source.origin,
                        mute=tuple((code, tuple(filed)) for code, filed in source.mute.items()),
                        within=EVERYWHERE if source.coverage == "authoritative" else (),
                    ),
                    SourceRanges.of(
                        (*pair(version, first, last), code or "ZZ")
                        for version in (4, 6)
                        for first, last, code in source.ranges[version]
                    ),
                )
                for source in sources
            ],
            overrides=[
                Override(*pair(version, first, last), code)
                for version, first, last, code in overrides
            ],
        )
    )


def small_overrides() -> st.SearchStrategy[list[reference.Override]]:
    """Return up to two overrides that don't overlap."""
    codes = st.sampled_from([*CODES, "ZZ"])
    return st.one_of(
        st.just([]),
        st.builds(lambda code: [(4, 0x01000010, 0x0100001C, code)], codes),
        st.builds(
            lambda code, other: [
                (4, 0x01000010, 0x01000010, code),
                (6, _ipv6_point(3) + 5, _ipv6_point(20) - 7, other),
            ],
            codes,
            codes,
        ),
    )


@settings(max_examples=100)
@given(
    sources=small_sources(),
    overrides=small_overrides(),
    region=strategies.region_codes(CODES),
)
def test_small_dataset_at_each_boundary_agrees_with_oracle(
    sources: list[reference.Source], overrides: list[reference.Override], region: Set[str]
) -> None:
    special = [
        *reference.read_registry(reference.REGISTRIES / "iana-ipv4-special-registry.csv"),
        *reference.read_registry(reference.REGISTRIES / "iana-ipv6-special-registry.csv"),
        *reference.MORE_SPECIAL_PURPOSE,
    ]
    oracle = Oracle(sources, special, overrides)
    with Dataset.from_buffer(compiled(sources, overrides)) as dataset:
        for version in (4, 6):
            values = oracle.neighbourhood(version)
            said = [oracle.said(version, value) for value in values]
            answers = [oracle.answer(one) for one in said]
            packed = reference.pack(version, values)
            check_columns(classify(dataset, version, packed), answers, values)
            for value, answer in zip(values, answers, strict=True):
                got = dataset.lookup(reference.pack(version, [value]))
                assert got.claimed == answer.claimed
            for policy in POLICIES:
                seen = RegionSet("HERE", frozenset(region))
                result = classify(dataset, version, packed, region_set=seen, policy=policy)
                assert verdict_list(result) == [oracle.verdict(one, region, policy) for one in said]
