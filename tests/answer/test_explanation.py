"""Explanations: the same answer as a lookup gives, with the reasons that led to it."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import geolookup
from geolookup import _core
from geolookup.answer.claims import MAX_CLAIMS, Status
from geolookup.answer.dataset import Dataset, encode
from geolookup.answer.embedded_ipv4 import embedded_ipv4, nat64_prefix
from geolookup.answer.evidence import SECTION, Evidence
from geolookup.answer.intervals import Family
from geolookup.answer.overrides import Override, read_prefix
from geolookup.build import compiler, evidence_section
from geolookup.build.readers import SourceRanges, code_number
from geolookup.build.sources import Source
from geolookup.errors import DatasetClosedError, DatasetError


@pytest.fixture(scope="module")
def embedded() -> Iterator[Dataset]:
    with geolookup.open() as dataset:
        yield dataset


def ranges_of(*rows: tuple[str, str]) -> SourceRanges:
    ranges = SourceRanges()
    for prefix, code in rows:
        first, last = (int.from_bytes(end) for end in read_prefix(prefix))
        family = ranges.ipv4 if "." in prefix else ranges.ipv6
        family.append(first, last, code_number(code))
    return ranges


def small(*, with_evidence: bool = True) -> Dataset:
    compiled = compiler.compile(
        [
            (
                Source("one", "CC0-1.0", date(2026, 1, 1)),
                ranges_of(("9.0.0.0/8", "DE"), ("9.9.0.0/16", "AT"), ("2a00::/16", "FR")),
            ),
            (
                Source("two", "CC0-1.0", date(2026, 1, 1)),
                ranges_of(("9.0.0.0/9", "DE"), ("2a00::/17", "CH")),
            ),
        ],
        overrides=[
            Override(*read_prefix("10.0.0.0/8"), "CH", "office"),
            Override(*read_prefix("10.1.0.0/16"), "ZZ", "lab", date(2030, 1, 1)),
            Override(*read_prefix("2a00:1::/32"), "IT"),
        ],
        nat64_prefixes=["2a01:64::/32", "2a02:64::/96"],
        with_evidence=with_evidence,
        today=date(2026, 1, 2),
    )
    return Dataset.from_buffer(encode(compiled, optional=compiled.optional))


def test_each_source_is_quoted_with_its_own_range() -> None:
    why = small().explain("9.128.0.1")
    assert (why.country, why.status) == ("DE", Status.UNCONFIRMED)
    assert (why.first, why.last) == ("9.128.0.0", "9.255.255.255")
    one, two = why.sources
    assert (one.source, one.country) == ("one", "DE")
    assert (one.first, one.last) == ("9.10.0.0", "9.255.255.255")
    assert (two.source, two.country) == ("two", None)
    assert (two.first, two.last) == ("9.128.0.0", "255.255.255.255")
    assert (why.claimed, why.votes, why.abstentions) == (("DE",), (1,), 1)


def test_a_more_specific_range_of_a_source_is_the_one_quoted() -> None:
    why = small().explain("9.9.1.1")
    assert (why.status, why.claimed) == (Status.DISPUTED, ("AT", "DE"))
    assert (why.sources[0].country, why.sources[0].first, why.sources[0].last) == (
        "AT", "9.9.0.0", "9.9.255.255",
    )  # fmt: skip


def test_sources_that_do_not_count_are_shown_beside_those_that_do() -> None:
    day = date(2026, 1, 1)
    compiled = compiler.compile(
        [
            (
                Source("city", "CC0-1.0", day, mute=(("XK", ("RS",)),)),
                ranges_of(("9.0.0.0/8", "RS")),
            ),
            (Source("list", "CC0-1.0", day, "partial"), ranges_of(("9.1.0.0/16", "XK"))),
            (
                Source("feed", "CC0-1.0", day, "authoritative", within=(read_prefix("9.0.0.0/8"),)),
                ranges_of(("9.2.0.0/16", "DE")),
            ),
            (Source("registry", "CC0-1.0", day, "advisory"), ranges_of(("9.0.0.0/8", "AL"))),
        ]
    )
    with Dataset.from_buffer(encode(compiled, optional=compiled.optional)) as dataset:
        for address, country, counted in (
            ("9.0.0.1", "RS", "city"),
            ("9.1.0.1", "XK", "list"),
            ("9.2.0.1", "DE", "feed"),
        ):
            why = dataset.explain(address)
            assert (why.country, why.status) == (country, Status.ASSIGNED)
            assert (why.claimed, why.votes, why.abstentions) == ((country,), (1,), 0)
            assert [view.source for view in why.sources if view.counted] == [counted]
        assert [view.coverage for view in why.sources] == [
            "full", "partial", "authoritative", "advisory",
        ]  # fmt: skip
        assert dataset.explain("10.0.0.1").status is Status.SPECIAL_PURPOSE
        assert not any(view.counted for view in dataset.explain("10.0.0.1").sources)
        city, _, feed, _ = dataset.sources
        assert city.mute == (("XK", ("RS",)),)
        assert (feed.within, feed.ranges_outside) == (1, 0)


def test_the_override_that_decided_is_named() -> None:
    override = small().explain("10.1.2.3").override
    assert override is not None
    assert (override.country, override.comment, override.expires) == ("ZZ", "lab", "2030-01-01")
    assert (override.first, override.last) == ("10.1.0.0", "10.1.255.255")
    wider = small().explain("10.2.0.0").override
    assert wider is not None
    assert (wider.country, wider.comment, wider.expires) == ("CH", "office", "")
    ipv6 = small().explain("2a00:1::5").override
    assert ipv6 is not None
    assert (ipv6.first, ipv6.last) == ("2a00:1::", "2a00:1:ffff:ffff:ffff:ffff:ffff:ffff")


def test_the_registry_row_that_decided_is_the_most_specific() -> None:
    why = small().explain("192.0.0.9")
    assert why.status is Status.SPECIAL_PURPOSE
    assert why.special_purpose is not None
    assert why.special_purpose.prefix == "192.0.0.9/32"
    assert why.special_purpose.name == "Port Control Protocol Anycast"
    assert why.override is None


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("9.9.1.1", "IPv4"),
        ("::ffff:9.9.1.1", "IPv4-mapped"),
        ("2002:0909:0101::1", "6to4"),
        ("2001::f6f6:fefe", "Teredo"),
        ("64:ff9b::9.9.1.1", "NAT64"),
        ("2a02:64::9.9.1.1", "NAT64"),
        ("2a01:64:909:101::", "NAT64"),
    ],
)
def test_a_carried_ipv4_address_is_the_one_explained(address: str, form: str) -> None:
    dataset = small()
    for given_as in (address, ipaddress.ip_address(address), ipaddress.ip_address(address).packed):
        why = dataset.explain(given_as)
        assert (why.form, why.looked_up, why.country) == (form, "9.9.1.1", "AT")
        assert (why.first, why.last) == ("9.9.0.0", "9.9.255.255")


@pytest.mark.parametrize("bits", [32, 40, 48, 56, 64, 96])
def test_nat64_address_is_decoded_as_in_rfc_6052(bits: int) -> None:
    # The table of section 2.4, for 192.0.2.33.
    text = {
        32: "2001:db8:c000:221::",
        40: "2001:db8:1c0:2:21::",
        48: "2001:db8:122:c000:2:2100::",
        56: "2001:db8:122:3c0:0:221::",
        64: "2001:db8:122:344:c0:2:2100::",
        96: "2001:db8:122:344::192.0.2.33",
    }[bits]
    network = ipaddress.ip_network((text, bits), strict=False)
    claim = nat64_prefix(str(network)).claim
    name, carried = embedded_ipv4(claim, int(ipaddress.IPv6Address(text)))
    assert (name, str(ipaddress.IPv4Address(carried))) == ("NAT64", "192.0.2.33")


def test_malformed_address_is_explained_as_invalid() -> None:
    for given_as in ("1.2.3", "", b"123"):
        why = small().explain(given_as)
        assert (why.form, why.looked_up, why.first, why.status) == ("none", "", "", Status.INVALID)
        assert not why.sources


def test_dataset_without_evidence_explains_interval_and_votes() -> None:
    why = small(with_evidence=False).explain("9.9.1.1")
    assert not why.evidence
    assert not why.sources
    assert (why.first, why.votes, why.status) == ("9.9.0.0", (1, 1), Status.DISPUTED)


def test_an_explanation_shows_no_address_in_its_repr() -> None:
    for address in ("9.9.1.1", "10.1.2.3", "2a00:1::5"):
        text = repr(small().explain(address))
        assert not any(part in text for part in ("9.9.", "10.1.", "2a00", "9.0.0.0"))


def test_closed_dataset_refuses_explanations() -> None:
    dataset = small()
    dataset.close()
    with pytest.raises(DatasetClosedError):
        dataset.explain("9.9.1.1")


def sample_of_boundaries(dataset: Dataset) -> list[tuple[int, int]]:
    draw = random.Random(20260617)
    chosen = []
    for family in (4, 6):
        intervals = draw.sample(list(dataset.intervals(family)), 3000)
        chosen += [(family, edge) for first, last, _ in intervals for edge in (first, last)]
    return chosen


def test_explanations_agree_with_lookups_and_with_the_raw_sources(embedded: Dataset) -> None:
    oracle = reference.embedded()
    for family, value in sample_of_boundaries(embedded):
        packed = value.to_bytes(4 if family == 4 else 16)
        why, answer = embedded.explain(packed), embedded.lookup(packed)
        assert (why.country, why.status) == (answer.country, answer.status)
        if why.status is Status.DISPUTED:
            assert why.claimed == answer.claimed
        looked_up = int(ipaddress.ip_address(why.looked_up))
        version = 4 if "." in why.looked_up else 6
        said = [view.country for view in why.sources]
        assert said == [source.says(version, looked_up) for source in oracle.sources]
        views: list[Any] = [*why.sources, why]
        for view in views:
            first, last = (int(ipaddress.ip_address(text)) for text in (view.first, view.last))
            assert first <= looked_up <= last
        assert (why.special_purpose is not None) == (why.status is Status.SPECIAL_PURPOSE)


def test_python_and_core_decode_carried_addresses_alike(embedded: Dataset) -> None:
    draw = random.Random(7)
    forms = [
        (first, last, number)
        for first, last, number in embedded.intervals(6)
        if number >= MAX_CLAIMS
    ]
    assert len(forms) == 4
    for first, last, number in forms:
        for value in (first, last, *(draw.randint(first, last) for _ in range(200))):
            carried = embedded_ipv4(number, value)[1].to_bytes(4)
            assert embedded.lookup(value.to_bytes(16)) is embedded.lookup(carried)


@given(st.binary(max_size=400))
def test_malformed_evidence_is_refused(content: bytes) -> None:
    with pytest.raises(DatasetError, match=f"here: section {SECTION}"):
        Evidence(memoryview(content), "here")


def test_ranges_as_intervals_cover_the_space_and_merge_equal_neighbours() -> None:
    ranges = ranges_of(
        ("9.0.0.0/8", "DE"), ("10.0.0.0/8", "DE"), ("11.0.0.0/16", "DE"), ("255.0.0.0/8", "FR")
    )
    firsts, codes, merged, starts, boundaries = ranges.ipv4.intervals()
    assert [hex(first) for first in memoryview(firsts).cast("I")] == [
        "0x0", "0x9000000", "0xb010000", "0xff000000",
    ]  # fmt: skip
    de, fr = code_number("DE"), code_number("FR")
    assert list(memoryview(codes).cast("H")) == [0, de, 0, fr]
    assert list(memoryview(merged).cast("I")) == [1]
    assert list(memoryview(starts).cast("I")) == [0]
    # 10.0.0.0 is 5 << 25 and 9.0.0.0 lies in 4 << 25; 11.0.0.0 is 11 << 24 and 10.0.0.0 10 << 24.
    assert boundaries == bytes([25, 1, 24, 1])
    assert ranges.ipv6.intervals() == (bytes(8), bytes(8), bytes(2), b"", b"", b"")


@given(
    st.sampled_from([4, 6]),
    st.lists(
        st.tuples(st.integers(1, 2**20), st.integers(0, 9), st.sampled_from(["", "DE", "FR"])),
        max_size=40,
    ),
    st.integers(0, 96),
)
def test_each_range_is_quoted_whatever_it_was_merged_with(
    family: Family, rows: list[tuple[int, int, str]], shift: int
) -> None:
    # An upper part that is far away has ranges of each size below it.
    unit = 1 << (shift if family == 6 else shift % 9)
    top = (1 << (32 if family == 4 else 128)) - 1
    expected: list[tuple[int, int, str | None]] = []
    ranges = SourceRanges()
    at = 0
    for size, gap, code in rows:
        first, last = at + gap * unit, at + (gap + size) * unit - 1
        if last > top:
            break
        if gap:
            expected.append((at, first - 1, None))
        into = ranges.ipv4 if family == 4 else ranges.ipv6
        into.append(first, last, code_number(code) if code else 0)
        expected.append((first, last, code or None))
        at = last + 1
    if at <= top:
        expected.append((at, top, None))
    section = evidence_section.encode(
        [(Source("one", "CC0-1.0", date(2026, 1, 1)), ranges)], (), SourceRanges(), ()
    )
    (one,) = Evidence(memoryview(section), "here").sources
    for first, last, country in expected:
        for address in {first, last, first + (last - first) // 2}:
            assert one.statement(family, address) == (country, first, last)
    merged = [key for key, _ in itertools.groupby(country for _, _, country in expected)]
    assert [country for _, _, country in one.intervals(family)] == merged


def test_damaged_boundaries_are_refused_when_they_are_read() -> None:
    rows = [(f"9.{second}.0.0/16", "DE") for second in range(4)]
    source = Source("one", "CC0-1.0", date(2026, 1, 1))
    section = evidence_section.encode([(source, ranges_of(*rows))], (), SourceRanges(), ())
    (at,) = [i for i in range(len(section)) if section[i : i + 6] == bytes([16, 1, 17, 1, 16, 1])]
    for damage in (bytes([16, 0]), bytes([200, 1]), bytes([16, 0xFF, 0xFF, 0xFF])):
        content = section[:at] + damage + section[at + len(damage) :]
        (one,) = Evidence(memoryview(content), "here").sources
        with pytest.raises(DatasetError, match=f"here: section {SECTION}"):
            one.statement(4, 0x09030000)


def test_overlapping_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="disjoint"):
        ranges_of(("9.0.0.0/8", "DE"), ("9.1.0.0/16", "AT")).ipv4.intervals()


def test_parse_keeps_the_form_for_explanations(embedded: Dataset) -> None:
    assert _core.parse("::ffff:1.0.1.1") is not None
    assert embedded.explain("::ffff:1.0.1.1").form == "IPv4-mapped"
