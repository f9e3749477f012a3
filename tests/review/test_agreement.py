"""How far sources agree: figures held against a count that looks at every address."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import pytest
import small_dataset
import small_networks
import strategies  # noqa: F401 - loads the hypothesis profile
from command_line import Ended, run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from geolookup import Dataset, Policy, RegionSet, RegionSetError, Status, Verdict
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import encode
from geolookup.answer.intervals import FAMILIES
from geolookup.build import compiler
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import Coverage, Source
from geolookup.review.agreement import Agreement, Amount, Pair, measure

DAY = datetime.date(2026, 6, 17)
BASE = 0x0100_0000  # 1.0.0.0, which is routable
SPAN = 24
CODES = ("CN", "HK", "DE", "AT")
DACH = RegionSet("DACH", frozenset(["DE", "AT", "CH"]))

Rows = list[tuple[int, int, str]]


def built(
    *sources: Rows, coverage: Coverage = "full", evidence: bool = True, origins: str = "abcd"
) -> Dataset:
    compiled = compiler.compile(
        [
            (
                Source(f"source {i}", "CC0-1.0", DAY, coverage=coverage, origin=origins[i]),
                SourceRanges.of(
                    ((BASE + a).to_bytes(4), (BASE + b).to_bytes(4), code) for a, b, code in rows
                ),
            )
            for i, rows in enumerate(sources)
        ]
    )
    optional = compiled.optional if evidence else {}
    return Dataset.from_buffer(encode(compiled, optional=optional))


def disjoint(draw: st.DrawFn) -> Rows:
    edges = sorted(draw(st.sets(st.integers(0, SPAN), max_size=8)))
    return [
        (a, b - 1, draw(st.sampled_from(CODES)))
        for a, b in pairwise(edges)
        if draw(st.integers(0, 3))
    ]


row_lists = st.composite(disjoint)()


def said(rows: Rows, at: int) -> str | None:
    return next((code for a, b, code in rows if a <= at <= b), None)


def addresses(measured: Agreement) -> dict[Status, int]:
    return {status: amount.addresses for status, amount in measured.statuses.items()}


@settings(max_examples=60)
@given(st.lists(row_lists, min_size=2, max_size=3))
def test_pairs_agree_with_the_sources_at_each_address(sources: list[Rows]) -> None:
    dataset = built(*sources)
    measured = measure(dataset, 4, views=dataset.views())
    assert measured.pairs is not None
    for pair, (left, right) in zip(measured.pairs, combinations(sources, 2), strict=True):
        both = [
            (said(left, at), said(right, at))
            for at in range(SPAN)
            if said(left, at) and said(right, at)
        ]
        assert pair.both.addresses == len(both)
        assert pair.same.addresses == sum(a == b for a, b in both)


@settings(max_examples=60)
@given(row_lists, row_lists)
def test_pairs_follow_from_the_claims_of_two_full_sources(one: Rows, other: Rows) -> None:
    dataset = built(one, other)
    by_views = measure(dataset, 4, views=dataset.views())
    by_claims = measure(dataset, 4)
    assert by_views.pairs is not None
    assert by_claims.pairs is not None
    assert [(p.sources, p.both.addresses, p.same.addresses) for p in by_views.pairs] == [
        (p.sources, p.both.addresses, p.same.addresses) for p in by_claims.pairs
    ]


@settings(max_examples=60)
@given(st.lists(row_lists, min_size=1, max_size=3))
def test_regions_agree_with_the_sources_at_each_address(sources: list[Rows]) -> None:
    dataset = built(*sources)
    (region,) = measure(dataset, 4, [DACH]).regions
    agreed = split = unconfirmed = 0
    for at in range(SPAN):
        codes = [said(rows, at) for rows in sources]
        sides = {code in DACH.codes for code in codes if code}
        split += len(sides) == 2
        unconfirmed += sides == {True} and None in codes
        agreed += sides == {True} and None not in codes
    assert [region.agreed.addresses, region.split.addresses, region.unconfirmed.addresses] == [
        agreed,
        split,
        unconfirmed,
    ]
    assert region.claimed.addresses == agreed + split + unconfirmed
    assert region.verdicts[Policy.UNANIMOUS][Verdict.INSIDE].addresses == agreed
    assert region.open[Policy.UNANIMOUS].addresses == split + unconfirmed
    for policy in Policy:
        counted = Counter(
            dataset.lookup((BASE + at).to_bytes(4), DACH, policy).verdict for at in range(SPAN)
        )
        by_verdict = region.verdicts[policy]
        for verdict in (Verdict.INSIDE, Verdict.OUTSIDE):
            assert by_verdict[verdict].addresses == counted[verdict]


@pytest.mark.parametrize("covering", [None, (), ("HOSTING",)])
@pytest.mark.parametrize("name", ["CN", "US/CA", "DE"])
def test_verdicts_are_the_lookups_where_networks_hide_their_users(
    covering: tuple[str, ...] | None, name: str
) -> None:
    with small_networks.dataset(covering=covering) as dataset:
        for family in FAMILIES:
            (region,) = measure(dataset, family, [name]).regions
            for policy in Policy:
                counted = Counter[Verdict]()
                for first, last, number in dataset.intervals(family):
                    if number < MAX_CLAIMS:
                        address = first.to_bytes(4 if family == 4 else 16)
                        found = dataset.lookup(address, name, policy)
                        if found.verdict is not None:
                            counted[found.verdict] += last - first + 1
                for verdict in (Verdict.INSIDE, Verdict.OUTSIDE):
                    assert region.verdicts[policy][verdict].addresses == counted[verdict]


def test_space_that_a_network_covers_is_open() -> None:
    with small_networks.dataset() as dataset:
        (region,) = measure(dataset, 4, ["CN"]).regions
    # A VPN, and a range for which the relay's operator names no country.
    assert region.open[Policy.UNANIMOUS].addresses == 512
    assert region.agreed.addresses == 1 << 16


def test_statuses_of_routable_space_alone_are_counted() -> None:
    with Dataset.from_buffer(encode(small_dataset.content())) as small:
        ipv4, ipv6 = measure(small, 4), measure(small, 6)
    special = 2**24 - 2 * 2**16
    assert Status.SPECIAL_PURPOSE not in ipv4.statuses
    assert ipv4.routable.addresses == 2**32 - special
    assert addresses(ipv4)[Status.OVERRIDE] == 2 * 2**16
    assert addresses(ipv4)[Status.DISPUTED] == 3 * 2**24
    assert sum(addresses(ipv4).values()) == ipv4.routable.addresses
    # 2000::/3 without 2001::/32 and 2002::/16.
    assert ipv6.routable.addresses == 2**125 - 2**96 - 2**112
    assert addresses(ipv6)[Status.ASSIGNED] == 2**96 + 2**63


def test_intervals_count_once_each() -> None:
    dataset = built([(0, 1, "CN"), (4, 4, "DE")], [(0, 0, "CN"), (1, 1, "HK"), (4, 4, "DE")])
    measured = measure(dataset, 4, ["CN"])
    assert measured.pairs == (Pair(("source 0", "source 1"), Amount(3, 3), Amount(2, 2)),)
    assert measured.regions[0].agreed == Amount(1, 1)
    assert measured.regions[0].split == Amount(1, 1)


@pytest.mark.parametrize(
    ("count", "options", "known"),
    [
        (1, {}, ()),
        (2, {"coverage": "partial"}, None),
        (2, {"origins": "aa"}, None),
        (3, {}, None),
    ],
)
def test_dataset_without_evidence_has_no_pairs(
    count: int, options: dict[str, Any], known: tuple[Pair, ...] | None
) -> None:
    dataset = built(*[[(0, 3, "CN")]] * count, evidence=False, **options)
    assert dataset.views() == ()
    assert measure(dataset, 4).pairs == known


def test_an_unknown_region_set_is_refused() -> None:
    with pytest.raises(RegionSetError):
        measure(built([(0, 1, "CN")]), 4, ["NOWHERE"])


def test_embedded_sources_agree_as_the_page_says(dataset: Dataset) -> None:
    """Figures of docs/data.md; they change with the data, and the page with them."""
    measured = measure(dataset, 4, ["CN", "HK"], views=dataset.views())
    routable = measured.routable.addresses
    shares = {
        status.name: round(100 * amount.addresses / routable, 1)
        for status, amount in measured.statuses.items()
    }
    assert shares == {"ASSIGNED": 95.2, "DISPUTED": 4.4, "UNCONFIRMED": 0.4}
    assert measured.pairs is not None
    pairs = {
        pair.sources: round(100 * pair.same.addresses / pair.both.addresses, 1)
        for pair in measured.pairs
    }
    assert pairs["dbip", "geo-whois-asn"] == 95.5
    assert pairs["dbip", "registry"] == 91.9
    assert pairs["geo-whois-asn", "registry"] == 95.7
    china, hong_kong = measured.regions
    assert round(china.split.addresses / 1e6, 1) == 14.0
    known = hong_kong.agreed.addresses + hong_kong.split.addresses
    assert round(hong_kong.agreed.addresses / known, 2) == 0.65


# --- what a source says --------------------------------------------------------------


@given(row_lists)
def test_source_view_covers_the_space_and_agrees_with_the_source(rows: Rows) -> None:
    (view,) = built(rows).views()
    assert view.name == "source 0"
    intervals = list(view.intervals(4))
    assert intervals[0][0] == 0
    assert intervals[-1][1] == 2**32 - 1
    for (_, last, _), (first, _, _) in pairwise(intervals):
        assert last + 1 == first
    for first, last, code in intervals:
        for address in {first, last}:
            assert code == said(rows, address - BASE)
    assert list(view.intervals(6)) == [(0, 2**128 - 1, None)]


def test_source_view_of_ipv6_agrees_with_the_source() -> None:
    edge = 0x2A00 << 112
    rows = [((edge + 3).to_bytes(16), (edge + 2**70).to_bytes(16), "CN")]
    source = Source("one", "CC0-1.0", DAY)
    compiled = compiler.compile([(source, SourceRanges.of(rows))])
    dataset = Dataset.from_buffer(encode(compiled, optional=compiled.optional))
    (view,) = dataset.views()
    assert list(view.intervals(6)) == [
        (0, edge + 2, None),
        (edge + 3, edge + 2**70, "CN"),
        (edge + 2**70 + 1, 2**128 - 1, None),
    ]


# --- the command ---------------------------------------------------------------------


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    return partial(run_command, capsys, "agreement")


def test_command_prints_tables_for_people(run: Any, small_file: Any) -> None:
    code, printed, _ = run(small_file)
    assert code == 0
    for heading in ("IPv4, in addresses", "IPv6, in /48s", "STATUS", "REGION SET", "POLICY"):
        assert heading in printed
    assert "compiled without evidence" in printed


def test_command_prints_json_for_programs(run: Any, small_file: Any) -> None:
    code, printed, _ = run(small_file, "-r", "CN", "-r", "DE+AT", "--json")
    assert code == 0
    record = json.loads(printed)
    ipv4 = record["ipv4"]
    assert ipv4["unit"] == "address"
    assert ipv4["pairs"] is None
    assert [region["name"] for region in ipv4["region_sets"]] == ["CN", "DE+AT"]
    china, dach = ipv4["region_sets"]
    assert china["agreed"] == {"size": 2**8, "intervals": 1}
    assert dach["split"] == {"size": 0, "intervals": 0}
    assert china["policies"]["MAJORITY"]["INSIDE"]["size"] == 2**8 + 2 * 2**24
    assert record["ipv6"]["unit"] == "/48"
    assert record["ipv6"]["statuses"]["ASSIGNED"]["size"] == pytest.approx(2**16)


@pytest.mark.parametrize(("arguments", "expected"), [(("-r", "NOWHERE"), 2), (("missing",), 3)])
def test_command_has_the_common_exit_codes(
    run: Any, small_file: Any, arguments: tuple[str, ...], expected: int
) -> None:
    assert run(*([small_file] if "-r" in arguments else []), *arguments)[0] == expected
