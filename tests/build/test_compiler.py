"""The compiler, against an oracle that looks at every address and at every source in turn."""

from __future__ import annotations

import bisect
import dataclasses
import datetime
import functools
import ipaddress
import itertools
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import reference
import strategies  # noqa: F401 - loads the hypothesis profile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geolookup.answer import claims, embedded_ipv4
from geolookup.answer.claims import FIXED_CLAIMS, Claim, Policy, Status, Verdict
from geolookup.answer.dataset import encode
from geolookup.answer.overrides import Override, read_prefix, read_range
from geolookup.build import compiler, manifest
from geolookup.build.compiler import CompiledDataset
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import Source
from geolookup.errors import SourceError

DAY = datetime.date(2026, 6, 1)
ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "geolookup" / "data" / "embedded.geolookup"

Row = tuple[int, int, str]


# --- asking what was compiled --------------------------------------------------------


class Line:
    """One family's intervals of a compiled dataset, as Python numbers."""

    def __init__(self, compiled: CompiledDataset, version: int) -> None:
        self.version = version
        if version == 4:
            self.firsts = list(column("I", compiled.ipv4_first))
            self.claims = list(column("H", compiled.ipv4_claims))
        else:
            self.firsts = [
                high << 64 | low
                for high, low in zip(
                    column("Q", compiled.ipv6_first_high),
                    column("Q", compiled.ipv6_first_low),
                    strict=True,
                )
            ]
            self.claims = list(column("H", compiled.ipv6_claims))

    def claim(self, at: int) -> int:
        return self.claims[bisect.bisect_right(self.firsts, at) - 1]


def column(kind: str, data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)


def claim_of(compiled: CompiledDataset, address: str) -> Claim:
    """Return the claim of an address, which carries no IPv4 address."""
    found = ipaddress.ip_address(address)
    return compiled.claims[Line(compiled, found.version).claim(int(found))]


def assert_well_formed(compiled: CompiledDataset) -> None:
    """Gap-free, ascending, merged, and without claims that nothing has."""
    used = set(range(len(FIXED_CLAIMS)))
    for version in (4, 6):
        line = Line(compiled, version)
        assert line.firsts[0] == 0
        assert all(one < two for one, two in itertools.pairwise(line.firsts))
        assert all(one != two for one, two in itertools.pairwise(line.claims))
        assert len(line.firsts) == len(line.claims)
        used |= {claim for claim in line.claims if claim < claims.MAX_CLAIMS}
    assert used == set(range(len(compiled.claims)))
    assert compiled.claims[:3] == FIXED_CLAIMS
    order = [
        (claim.status, claim.country, claim.votes, claim.abstentions, claim.silent)
        for claim in compiled.claims[3:]
    ]
    assert all(one < two for one, two in itertools.pairwise(order))


# --- making what is compiled ---------------------------------------------------------


EVERYWHERE = (read_prefix("0.0.0.0/0"), read_prefix("::/0"))


def source(
    name: str, coverage: claims.Coverage = "full", origin: str = "", mute: claims.Mute = ()
) -> Source:
    within = EVERYWHERE if coverage == "authoritative" else ()
    return Source(name, "CC0-1.0", DAY, coverage, origin, mute=mute, within=within)


def ranges(*rows: str) -> SourceRanges:
    """Return ranges written ``prefix code``."""
    return SourceRanges.of(
        (*read_prefix(row.split()[0]), row.split()[1] if " " in row else "") for row in rows
    )


def override(where: str, code: str, **more: object) -> Override:
    first, last = read_range(where) if "-" in where else read_prefix(where)
    return Override(first, last, code, **more)


# --- at random, in a small corner of the address line --------------------------------

SIZE = 32
# Both ends of the line, its inside, and for IPv6 the place where the lower half overflows.
CORNERS = {
    4: (0, 0x01000000, 2**32 - SIZE),
    6: (0, (0x20010200 << 96) + 2**64 - SIZE // 2, 2**128 - SIZE),
}
CODES = ("DE", "FR", "CN", "eu", "UK")
REGION_SETS = (frozenset(["DE"]), frozenset(["DE", "FR"]), frozenset(["GB", "CN", "DE"]))


@st.composite
def rows_of(draw: st.DrawFn, codes: Sequence[str], most: int) -> list[Row]:
    found = []
    for _ in range(draw(st.integers(0, most))):
        first = draw(st.integers(0, SIZE - 1))
        last = draw(st.one_of(st.integers(first, SIZE - 1), st.just(min(first + 3, SIZE - 1))))
        found.append((first, last, draw(st.sampled_from(codes))))
    return found


@dataclass(frozen=True)
class Case:
    version: int
    start: int
    sources: list[tuple[Source, list[Row]]]
    overrides: list[Row]

    def packed(self, offset: int) -> bytes:
        return (self.start + offset).to_bytes(4 if self.version == 4 else 16)

    def compile(self, order: random.Random | None = None) -> CompiledDataset:
        """Compile; with *order*, the rows of each source are shuffled before."""
        made = []
        for one, given_rows in self.sources:
            rows = given_rows.copy()
            if order is not None:
                order.shuffle(rows)
            packed = ((self.packed(first), self.packed(last), code) for first, last, code in rows)
            made.append((one, SourceRanges.of(packed)))
        return compiler.compile(
            made,
            overrides=[
                Override(self.packed(first), self.packed(last), code)
                for first, last, code in self.overrides
            ],
            special_purpose=False,
        )

    def oracle(self) -> reference.Oracle:
        return reference.Oracle(
            [
                reference.Source(
                    one.name,
                    coverage=one.coverage,
                    origin=one.origin,
                    mute={code: list(filed) for code, filed in one.mute},
                )
                for one, _ in self.sources
            ]
        )

    def said(self, at: int) -> tuple[str | None, ...]:
        return tuple(
            None if code is None else reference.country(code)
            for code in (most_specific(rows, at) for _, rows in self.sources)
        )


def most_specific(rows: Iterable[Row], at: int) -> str | None:
    """Return what the smallest ranges around an address say, None if they disagree."""
    holding = [row for row in rows if row[0] <= at <= row[1]]
    least = min((last - first for first, last, _ in holding), default=0)
    codes = {reference.country(row[2]) for row in holding if row[1] - row[0] == least}
    return codes.pop() if len(codes) == 1 else None


def contradiction(rows: list[Row]) -> bool:
    return any(
        one[2] != two[2] and one[1] - one[0] == two[1] - two[0]
        and max(one[0], two[0]) <= min(one[1], two[1])
        for one, two in itertools.combinations(rows, 2)
    )  # fmt: skip


COVERAGES: tuple[claims.Coverage, ...] = (
    "full",
    "full",
    "full",
    "partial",
    "partial",
    "advisory",
    "authoritative",
)
MUTES: tuple[claims.Mute, ...] = (
    (),
    (),
    (("FR", ()),),
    (("FR", ("DE",)),),
    (("CN", ("FR", "GB")), ("FR", ())),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    version = draw(st.sampled_from([4, 6]))
    described = [
        source(
            f"s{index}",
            draw(st.sampled_from(COVERAGES)),
            draw(st.sampled_from(["", "", "A", "B"])),
            draw(st.sampled_from(MUTES)),
        )
        for index in range(draw(st.integers(0, 5)))
    ]
    overrides = draw(st.one_of(st.just([]), rows_of(("DE", "FR", "ZZ"), 4)))
    assume(not contradiction(overrides))
    return Case(
        version,
        draw(st.sampled_from(CORNERS[version])),
        [(one, draw(rows_of(CODES, 6))) for one in described],
        overrides,
    )


@settings(max_examples=200)
@given(cases())
def test_each_address_has_the_status_and_verdicts_of_its_sources(case: Case) -> None:
    compiled = case.compile()
    assert_well_formed(compiled)
    line = Line(compiled, case.version)
    oracle = case.oracle()
    top = 2 ** (32 if case.version == 4 else 128) - 1
    asked: set[tuple[Claim, tuple[str | None, ...]]] = set()
    for at in range(-1, SIZE + 1):
        if not 0 <= case.start + at <= top:
            continue
        claim = compiled.claims[line.claim(case.start + at)]
        code = most_specific(case.overrides, at) if covered(case.overrides, at) else None
        if covered(case.overrides, at):
            assert (claim.status, claim.country) == (Status.OVERRIDE, code or "ZZ")
            for region in REGION_SETS:
                expected = reference.UNDETERMINED
                if code is not None:
                    expected = reference.INSIDE if code in region else reference.OUTSIDE
                assert {claim.verdict(region, policy) for policy in Policy} == {expected}
            continue
        said = case.said(at)
        answer = oracle.answer(said)
        assert (claim.status, claim.country) == (answer.status, answer.country)
        assert (claim.claimed if claim.status is Status.DISPUTED else ()) == answer.claimed
        if (claim, said) in asked:
            continue
        asked.add((claim, said))
        for region in REGION_SETS:
            for policy in Policy:
                assert claim.verdict(region, policy) == oracle.verdict(said, region, policy.name)


def covered(rows: Iterable[Row], at: int) -> bool:
    return any(first <= at <= last for first, last, _ in rows)


@given(cases(), st.randoms(use_true_random=False))
def test_row_order_of_a_source_changes_no_byte(case: Case, order: random.Random) -> None:
    one, two = case.compile(), case.compile(order)
    for name in (*COLUMNS, "claims", "metadata"):
        assert getattr(one, name) == getattr(two, name)


COLUMNS = ("ipv4_first", "ipv4_claims", "ipv6_first_high", "ipv6_first_low", "ipv6_claims")


@given(cases())
def test_statements_of_each_source_are_kept_for_explanations(case: Case) -> None:
    compiled = case.compile()
    for (_, rows), layer in zip(case.sources, compiled.sources, strict=True):
        family = layer.ranges.ipv4 if case.version == 4 else layer.ranges.ipv6
        assert layer.rows == len(rows)
        for first, last, number in family:
            expected = {most_specific(rows, at - case.start) for at in (first, last)}
            assert expected == {number.to_bytes(2).decode() if number else None}


# --- sources -------------------------------------------------------------------------


def test_claims_combine_all_sources() -> None:
    compiled = compiler.compile(
        [
            (source("a"), ranges("1.0.0.0/24 DE", "1.0.1.0/24 DE", "1.0.2.0/24 DE")),
            (source("b"), ranges("1.0.0.0/24 DE", "1.0.1.0/24 FR", "1.0.4.0/24 FR")),
            (source("c", "partial"), ranges("1.0.1.0/25 CN", "1.0.3.0/24 CN")),
        ]
    )
    assert_well_formed(compiled)
    assert claim_of(compiled, "1.0.0.1") == Claim(Status.ASSIGNED, "DE", (("DE", 2),))
    assert claim_of(compiled, "1.0.1.1") == Claim(
        Status.DISPUTED, "DE", (("CN", 1), ("DE", 1), ("FR", 1))
    )
    assert claim_of(compiled, "1.0.1.129") == Claim(Status.DISPUTED, "DE", (("DE", 1), ("FR", 1)))
    assert claim_of(compiled, "1.0.2.1") == Claim(
        Status.UNCONFIRMED, "DE", (("DE", 1),), 1, silent=True
    )
    assert claim_of(compiled, "1.0.3.1") == Claim(
        Status.UNCONFIRMED, "CN", (("CN", 1),), 2, silent=True
    )
    assert claim_of(compiled, "1.0.5.1") == FIXED_CLAIMS[claims.UNASSIGNED]


def test_sources_of_one_origin_have_one_vote() -> None:
    compiled = compiler.compile(
        [
            (source("a1", origin="A"), ranges("1.0.0.0/24 DE")),
            (source("b"), ranges("1.0.0.0/24 FR", "1.0.1.0/24 FR")),
            (source("a2", origin="A"), ranges("1.0.0.0/24 CN", "1.0.1.0/24 CN")),
        ]
    )
    assert claim_of(compiled, "1.0.0.1") == Claim(
        Status.DISPUTED, "DE", (("CN", 0), ("DE", 1), ("FR", 1))
    )
    assert claim_of(compiled, "1.0.1.1") == Claim(
        Status.DISPUTED, "FR", (("CN", 1), ("FR", 1)), silent=True
    )


def test_bounded_source_loses_what_lies_outside_and_it_is_listed() -> None:
    bounds = tuple(map(read_prefix, ("1.0.0.0/24", "1.0.2.0/23", "2001:200::/32")))
    feed = Source("feed", "CC0-1.0", DAY, "authoritative", within=bounds)
    rows = (
        "1.0.0.0/25 DE",
        "1.0.0.0/22 FR",
        "9.0.0.0/8 DE",
        "2001:200::/31 CN",
        "2001:200::/48 JP",
    )
    compiled = compiler.compile(
        [(source("a"), ranges("0.0.0.0/0 US", "::/0 US")), (feed, ranges(*rows))],
        special_purpose=False,
    )
    for address, country in {
        "1.0.0.127": "DE", "1.0.0.128": "FR", "1.0.0.255": "FR", "1.0.1.0": "US", "1.0.1.255": "US",
        "1.0.2.0": "FR", "1.0.3.255": "FR", "1.0.4.0": "US", "9.0.0.0": "US",
        "2001:200::1": "JP", "2001:200:1::": "CN", "2001:200:ffff:ffff::": "CN", "2001:201::": "US",
    }.items():  # fmt: skip
        assert claim_of(compiled, address) == Claim(Status.ASSIGNED, country, ((country, 1),))
    left_out = "not, or not all, within what the source may speak of; left out there"
    assert compiled.findings == tuple(f"row {row}: {left_out}" for row in (2, 3, 4))
    described = compiled.metadata["sources"]
    assert isinstance(described, list)
    assert {key: described[1][key] for key in ("within", "ranges", "ranges_outside")} == {
        "within": 3, "ranges": 5, "ranges_outside": 3,
    }  # fmt: skip
    assert not {"within", "ranges_outside", "mute"} & described[0].keys()


def test_range_of_a_reserved_code_makes_a_hole_in_a_wider_range() -> None:
    compiled = compiler.compile([(source("a"), ranges("1.0.0.0/16 DE", "1.0.1.0/24 EU"))])
    assert claim_of(compiled, "1.0.0.255").country == "DE"
    assert claim_of(compiled, "1.0.1.0").status is Status.UNASSIGNED
    assert claim_of(compiled, "1.0.2.0").country == "DE"


def test_contradictions_of_a_source_are_silence_and_reported() -> None:
    rows = ranges("1.0.0.0/24 DE", "1.0.0.0/23 DE", "1.0.0.0/24 FR", "2001:200::/32 JP",
                  "2001:200::/32 KR")  # fmt: skip
    compiled = compiler.compile([(source("a"), rows)])
    assert claim_of(compiled, "1.0.0.1").status is Status.UNASSIGNED
    assert claim_of(compiled, "1.0.1.1").country == "DE"
    assert claim_of(compiled, "2001:200::1").status is Status.UNASSIGNED
    what = "for the same addresses and is no more specific, so the source is silent there"
    assert compiled.findings == (
        f"row 3: names another country than row 1 {what}",
        f"row 5: names another country than row 4 {what}",
    )


def test_overlaps_are_resolved_by_format_and_otherwise_reported() -> None:
    rows = SourceRanges.of(
        (*read_range(where), code)
        for where, code in (
            ("1.0.0.0-1.0.0.99", "DE"),
            ("1.0.0.50-1.0.0.255", "FR"),
            ("1.0.0.240-1.0.1.9", "FR"),
        )
    )
    for overlaps, country in ((None, "DE"), ("smallest", "DE"), ("last-begins", "FR")):
        one = dataclasses.replace(source("a"), overlaps=overlaps)
        compiled = compiler.compile([(one, rows)])
        assert claim_of(compiled, "1.0.0.49").country == "DE"
        assert claim_of(compiled, "1.0.0.50").country == country
        assert claim_of(compiled, "1.0.0.99").country == country
        assert claim_of(compiled, "1.0.0.100").country == "FR"
        assert compiled.findings == (
            ()
            if overlaps
            else (
                "a: 1 ranges overlap another one in part and name another country; where they do,"
                ' the smallest decides, unless the manifest says overlaps = "last-begins".'
                " The first: row 2 overlaps row 1",
            )
        )


def test_findings_are_listed_up_to_a_limit_and_then_counted() -> None:
    rows = [f"1.{a}.{b}.0/24 {code}" for a in range(2) for b in range(60) for code in ("DE", "FR")]
    found = compiler.compile([(source("a"), ranges(*rows))]).findings
    assert len(found) == compiler.MAX_FINDINGS + 1
    assert found[-1] == "a: 20 more such contradictions"


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(SourceError, match="two sources are named 'a'"):
        compiler.compile([(source("a"), ranges()), (source("a"), ranges())])


def test_more_claims_than_a_dataset_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given_sources = [(source("a"), ranges("1.0.0.0/24 DE", "1.0.1.0/24 FR"))]
    monkeypatch.setattr(compiler, "MAX_CLAIMS", 5)
    assert len(compiler.compile(given_sources).claims) == 5
    monkeypatch.setattr(compiler, "MAX_CLAIMS", 4)
    with pytest.raises(SourceError, match=r"more than 4 different claims.*leave out a source"):
        compiler.compile(given_sources)


def test_no_sources_compile_to_the_special_purpose_registries() -> None:
    compiled = compiler.compile([], today=DAY)
    assert_well_formed(compiled)
    assert compiled.claims == FIXED_CLAIMS
    assert claim_of(compiled, "9.9.9.9").status is Status.UNASSIGNED
    assert claim_of(compiled, "192.168.0.1").status is Status.SPECIAL_PURPOSE
    bare = compiler.compile([], special_purpose=False)
    assert column("I", bare.ipv4_first) == (0,)
    assert bare.metadata["special_purpose"] is None


# --- special-purpose ranges and embedded IPv4 ----------------------------------------


def test_special_purpose_ranges_win_over_sources() -> None:
    compiled = compiler.compile([(source("a"), ranges("0.0.0.0/0 DE", "::/0 DE"))])
    for address in ("10.0.0.0", "100.127.255.255", "192.0.0.9", "224.0.0.1", "255.255.255.255",
                    "::", "::1", "64:ff9b:1::", "100::", "2001:db8::1", "fe80::1", "fec0::1",
                    "ff02::1"):  # fmt: skip
        assert claim_of(compiled, address).status is Status.SPECIAL_PURPOSE, address
    for address in ("9.255.255.255", "11.0.0.0", "223.255.255.255", "::2", "2001:200::", "fbff::"):
        assert claim_of(compiled, address).country == "DE", address


def test_ipv6_forms_that_carry_ipv4_have_the_claim_number_of_their_form() -> None:
    compiled = compiler.compile(
        [(source("a"), ranges("::/0 DE"))],
        nat64_prefixes=["2a00:1:2::/48", "64:ff9b:1:2::/96"],
    )
    line = Line(compiled, 6)
    for prefix, number in (
        ("::ffff:0:0/96", embedded_ipv4.EMBEDDED_LOW32),
        ("64:ff9b::/96", embedded_ipv4.EMBEDDED_LOW32),
        ("2001::/32", embedded_ipv4.EMBEDDED_TEREDO),
        ("2002::/16", embedded_ipv4.EMBEDDED_6TO4),
        ("2a00:1:2::/48", embedded_ipv4.EMBEDDED_NAT64_48),
        ("64:ff9b:1:2::/96", embedded_ipv4.EMBEDDED_LOW32),  # inside a special-purpose prefix
    ):
        network = ipaddress.IPv6Network(prefix)
        first, last = int(network[0]), int(network[-1])
        assert line.claim(first) == line.claim(last) == number
        assert line.claim(first - 1) < claims.MAX_CLAIMS
        assert line.claim(last + 1) < claims.MAX_CLAIMS
    assert compiled.metadata["nat64_prefixes"] == ["2a00:1:2::/48", "64:ff9b:1:2::/96"]


@pytest.mark.parametrize(
    ("prefixes", "what"),
    [
        (["2a00::/33"], "NAT64 prefix 1: a NAT64 prefix has 32"),
        (["2a00::/32", "2a00:0:1::/48"], "NAT64 prefix 2: overlaps another one"),
        (["64:ff9b::/96"], "NAT64 prefix 1: overlaps another one \\(NAT64\\)"),
        (["2002:1::/32"], "NAT64 prefix 1: overlaps another one \\(6to4\\)"),
    ],
)
def test_invalid_nat64_prefix_is_refused_with_its_number(prefixes: list[str], what: str) -> None:
    with pytest.raises(SourceError, match=what):
        compiler.compile([], nat64_prefixes=prefixes)


# --- overrides -----------------------------------------------------------------------


def test_overrides_win_over_sources_and_special_purpose_ranges() -> None:
    compiled = compiler.compile(
        [(source("a"), ranges("1.0.0.0/8 FR"))],
        overrides=[
            override("10.0.0.0/8", "DE"),
            override("10.1.0.0/16", "ZZ"),
            override("10.1.1.0-10.1.1.9", "CN"),
            override("1.2.3.4/32", "DE"),
            override("fd00::/8", "DE"),
        ],
    )
    assert_well_formed(compiled)
    expected = {"10.0.0.1": "DE", "10.1.0.255": "ZZ", "10.1.1.0": "CN", "10.1.1.9": "CN",
                "10.1.1.10": "ZZ", "10.2.0.0": "DE", "1.2.3.4": "DE", "fd12::1": "DE"}  # fmt: skip
    for address, code in expected.items():
        assert claim_of(compiled, address) == Claim(Status.OVERRIDE, code), address
    assert claim_of(compiled, "1.2.3.5").status is Status.ASSIGNED
    assert claim_of(compiled, "fc00::1").status is Status.SPECIAL_PURPOSE
    assert compiled.metadata["overrides"] == 5
    assert [compiled.overrides.ranges.ipv4.place(index)[1] for index in range(2)] == [4, 1]


def test_overrides_work_without_any_source() -> None:
    compiled = compiler.compile([], overrides=[override("10.0.0.0/8", "DE")], today=DAY)
    assert claim_of(compiled, "10.0.0.1").country == "DE"
    assert compiled.metadata["built"] == "2026-06-01T00:00:00Z"


def test_an_override_applies_until_the_end_of_its_last_day() -> None:
    ours = [override("10.0.0.0/8", "DE", expires=DAY), override("11.0.0.0/8", "DE")]
    on_time = compiler.compile([], overrides=ours, today=DAY)
    assert claim_of(on_time, "10.0.0.1").status is Status.OVERRIDE
    assert on_time.findings == ()
    assert on_time.metadata["expiring_overrides"] == [
        {"number": 1, "expires": "2026-06-01", "comment": ""}
    ]
    late = compiler.compile([], overrides=ours, today=DAY + datetime.timedelta(days=1))
    assert claim_of(late, "10.0.0.1").status is Status.SPECIAL_PURPOSE
    assert claim_of(late, "11.0.0.1").status is Status.OVERRIDE
    assert late.findings == ("override 1: expired after 2026-06-01, not applied",)
    assert late.metadata["overrides"] == 1
    assert "expiring_overrides" not in late.metadata, "a dataset without them keeps its bytes"


def test_overrides_that_contradict_each_other_are_refused() -> None:
    same = [override(f"10.0.0.{octet}/32", "DE") for octet in range(3)]
    same += [override("10.0.0.1-10.0.0.1", "FR")]
    with pytest.raises(SourceError, match="override 4: names another code than override 2 ") as e:
        compiler.compile([], overrides=same)
    assert "10.0.0" not in str(e.value)


@pytest.mark.parametrize(
    "where",
    ["::ffff:10.0.0.0/104", "::ffff:0:0/96", "2002::/16", "2001:0:1::/48", "2a00::1:0:0/128"],
)
def test_override_without_effect_is_refused(where: str) -> None:
    with pytest.raises(SourceError, match=r"override 1: .* IPv4 address inside; override"):
        compiler.compile([], overrides=[override(where, "DE")], nat64_prefixes=["2a00::/32"])


@pytest.mark.parametrize("where", ["2000::/3", "2001:1::-2002::9", "2002:9::-2003::9"])
def test_an_override_that_holds_more_than_embedded_forms_applies_to_the_rest(where: str) -> None:
    compiled = compiler.compile([], overrides=[override(where, "DE")])
    assert Status.OVERRIDE in [claim.status for claim in compiled.claims]
    first, last = (
        int.from_bytes(edge) for edge in (read_prefix if "/" in where else read_range)(where)
    )
    line = Line(compiled, 6)
    for at in (first, last):
        form = at >> 112 == 0x2002
        expected = (
            embedded_ipv4.EMBEDDED_6TO4
            if form
            else compiled.claims.index(Claim(Status.OVERRIDE, "DE"))
        )
        assert line.claim(at) == expected


# --- metadata, and the embedded dataset ----------------------------------------------


def test_metadata_describes_the_sources_in_order() -> None:
    newer = Source(
        "b", "MIT", datetime.date(2026, 6, 17), "partial", "B", "by B", "https://b.example"
    )
    sources = [(source("a"), ranges("1.0.0.0/24 DE", "::/64 DE")), (newer, ranges())]
    assert compiler.compile(sources).metadata == {
        "built": "2026-06-17T00:00:00Z",
        "sources": [
            {"name": "a", "licence": "CC0-1.0", "date": "2026-06-01", "coverage": "full",
             "origin": "a", "attribution": "", "url": "", "ranges": 2},
            {"name": "b", "licence": "MIT", "date": "2026-06-17", "coverage": "partial",
             "origin": "B", "attribution": "by B", "url": "https://b.example", "ranges": 0},
        ],
        "special_purpose": {"date": "2025-10-09"},
        "nat64_prefixes": [],
        "overrides": 0,
    }  # fmt: skip
    built = compiler.compile(sources, built=datetime.date(2027, 1, 2)).metadata["built"]
    assert built == "2027-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("", "MIT", DAY), "a source has a name"),
        (("a", "MIT", DAY, "half"), "coverage is one of: full, partial, advisory, authoritative"),
        (("a", "MIT", DAY, "authoritative"), "within: missing"),
        (("a", "MIT", DAY, "full", "", "", "", (), EVERYWHERE), "within: a full source has no"),
        (("a", "MIT", DAY, "full", "", "", "", (("XK", ("EU",)),)), "mute: expected the codes"),
    ],
)
def test_invalid_source_is_refused(arguments: tuple[object, ...], what: str) -> None:
    with pytest.raises(SourceError, match=what):
        Source(*arguments)


@functools.cache
@functools.cache
def embedded() -> CompiledDataset:
    return compiler.compile_manifest(manifest.load(ROOT / "data" / "geolookup.toml"))


def test_embedded_dataset_has_about_as_many_intervals_as_its_sources() -> None:
    compiled = embedded()
    assert_well_formed(compiled)
    assert [layer.rows for layer in compiled.sources] == [
        362_078 + 710_785,
        97 + 47,
        334_373 + 216_295,
        141_822 + 68_368,
    ]
    assert len(compiled.ipv4_first) == 4 * 492_702
    assert len(compiled.ipv6_first_high) == 8 * 484_676
    assert len(compiled.claims) == 11_960
    assert len(compiled.findings) == 3, "equal ranges of geo-whois-asn that name two countries"
    assert all("names another country than" in finding for finding in compiled.findings)


@pytest.mark.parametrize("version", [4, 6])
def test_the_embedded_dataset_agrees_with_its_raw_files(version: int) -> None:
    compiled, oracle = embedded(), reference.embedded()
    line = Line(compiled, version)
    # A sample: the dataset made of this is held to the oracle at every boundary.
    for at in oracle.neighbourhood(version)[::40]:
        number = line.claim(at)
        if number >= claims.MAX_CLAIMS:
            assert reference.embedded_ipv4(at) is not None
            continue
        claim = compiled.claims[number]
        answer = oracle.answer(oracle.said(version, at))
        assert (claim.status, claim.country) == (answer.status, answer.country)


def test_embedded_file_is_what_its_sources_compile_to() -> None:
    compiled = embedded()
    assert encode(compiled, optional=compiled.optional) == EMBEDDED.read_bytes(), (
        "compile it again: geolookup compile data/geolookup.toml "
        "-o geolookup/data/embedded.geolookup"
    )


def test_compiling_in_another_process_gives_the_embedded_file(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati"}
    path = tmp_path / "again.geolookup"
    subprocess.run(
        [sys.executable, "-m", "geolookup", "compile", "data/geolookup.toml", "-o", str(path)],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=120,
    )
    assert path.read_bytes() == EMBEDDED.read_bytes()


def test_progress_names_each_source_and_ends_at_the_whole() -> None:
    seen: list[tuple[int, int, str]] = []
    loaded = manifest.load(ROOT / "data" / "geolookup.toml")
    compiler.compile_manifest(loaded, progress=lambda *report: seen.append(report))
    total = sum(file.stat().st_size for entry in loaded.sources for file in entry.files)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (total, total, "registry")
    assert {(of, name) for _, of, name in seen} == {
        (total, name) for name in ("dbip", "dbip-kosovo", "geo-whois-asn", "registry")
    }


def test_a_source_that_can_not_be_read_stops_the_compilation(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1.0.0.0,1.0.0.255,DE\n1.0.1.0,1.0.1.255,QQ\n")
    (tmp_path / "m.toml").write_text(
        '[[source]]\nname = "a"\nfiles = ["a.csv"]\nlicence = "MIT"\ndate = 2026-06-01\n'
        'coverage = "full"\n'
    )
    with pytest.raises(SourceError) as caught:
        compiler.compile_manifest(manifest.load(tmp_path / "m.toml"))
    assert str(caught.value) == f"{tmp_path / 'a.csv'}:2:19: 'QQ' is not a country code"


def test_lenient_is_set_per_source_and_counted_in_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1.0.0.0,1.0.0.255,DE\n1.0.1.0,1.0.1.255,QQ\n")
    (tmp_path / "feed.csv").write_text("1.0.0.0/24,DE,,\n1.0.1.1/24,DE,,\n")
    source = (
        '[[source]]\nname = "{0}"\nfiles = ["{0}.csv"]\nlicence = "MIT"\ndate = 2026-06-01\n'
        'coverage = "full"\n{1}\n'
    )
    path = tmp_path / "m.toml"
    path.write_text(source.format("a", "lenient = 1") + source.format("feed", ""))
    compiled = compiler.compile_manifest(manifest.load(path))
    described = compiled.metadata["sources"]
    assert isinstance(described, list)
    assert [one["lines_left_out"] for one in described] == [1, 1]
    assert [finding.partition(": ")[0] for finding in compiled.findings] == [
        f"{tmp_path / 'feed.csv'}:2:1", f"{tmp_path / 'a.csv'}:2:19",
    ]  # fmt: skip
    path.write_text(source.format("a", "lenient = 0"))
    with pytest.raises(SourceError, match="QQ"):
        compiler.compile_manifest(manifest.load(path), lenient=5)


def a_claim(codes: tuple[str, ...], counts: list[int], abstentions: int) -> Claim:
    votes = tuple(zip(codes, counts, strict=True))
    return Claim(Status.DISPUTED, codes[0], votes, abstentions)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), min_size=3, max_size=3), st.integers(0, 4)),
        min_size=1,
        max_size=6,
    )
)
def test_pooled_claims_have_only_verdicts_of_all_their_claims(
    drawn: list[tuple[list[int], int]],
) -> None:
    codes = ("AT", "DE", "FR")
    claims = [a_claim(codes, counts, abstentions) for counts, abstentions in drawn]
    pooled = functools.reduce(compiler._certain, claims)
    regions = [set(chosen) for n in range(4) for chosen in itertools.combinations(codes, n)]
    for region, policy in itertools.product(regions, Policy):
        said = pooled.verdict(region, policy)
        for claim in claims:
            exact = claim.verdict(region, policy)
            if policy is not Policy.MAJORITY or said is not Verdict.UNDETERMINED:
                assert said is exact


def test_claims_with_different_deciding_sources_are_not_pooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("1.0.0.0", "1.0.0.255", "DE"), ("2.0.0.0", "2.0.0.255", "DE")]
    other = [("1.0.0.0", "1.0.0.255", "AT"), ("2.0.0.0", "2.0.0.255", "AT")]
    third = [("1.0.0.0", "1.0.0.255", "AT"), ("2.0.0.0", "2.0.0.255", "DE")]

    def compiled() -> CompiledDataset:
        return compiler.compile(
            [
                (Source(name, "CC0-1.0", DAY), packed_ranges(table))
                for name, table in (("one", rows), ("two", other), ("three", third))
            ]
        )

    exact = compiled()
    assert len(exact.claims) == 5
    assert not exact.findings
    monkeypatch.setattr(compiler, "MAX_CLAIMS", 4)
    with pytest.raises(SourceError, match="different claims"):
        compiled()  # AT has a majority of one, and DE of the other


def test_pooled_claims_keep_their_deciding_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five sources: AT 3 and DE 2, AT 4 and DE 1, AT 2 with DE 2 and FR 1, AT 2 with DE 1 and FR 2.
    said = ("AT AT AT DE DE", "AT AT AT AT DE", "AT AT DE DE FR", "AT AT DE FR FR")
    tables = [
        [(f"{n}.0.0.0", f"{n}.0.0.255", row.split()[at]) for n, row in enumerate(said, start=1)]
        for at in range(5)
    ]

    def compiled() -> CompiledDataset:
        return compiler.compile(
            [(source(f"s{n}"), packed_ranges(table)) for n, table in enumerate(tables)]
        )

    assert len(compiled().claims) == 3 + 4
    monkeypatch.setattr(compiler, "MAX_CLAIMS", 3 + 2)
    pooled = compiled()
    assert set(pooled.claims[3:]) == {
        Claim(Status.DISPUTED, "AT", (("AT", 3), ("DE", 2))),
        Claim(Status.DISPUTED, "AT", (("AT", 2), ("DE", 1), ("FR", 2))),
    }
    assert "all verdicts are exact" in pooled.findings[0]


@st.composite
def many_sources(draw: st.DrawFn) -> tuple[list[reference.Source], list[list[str]]]:
    """Return up to eight sources, and what each says of a few addresses."""
    sources = [
        reference.Source(
            f"s{number}",
            coverage=draw(st.sampled_from(COVERAGES)),
            origin=draw(st.sampled_from(["", "", "", "A"])),
        )
        for number in range(draw(st.integers(3, 8)))
    ]
    code = st.sampled_from(["DE", "DE", "FR", "CN", "GB", ""])
    rows = draw(st.lists(st.lists(code, min_size=8, max_size=8), min_size=1, max_size=12))
    return sources, rows


@settings(max_examples=150)
@given(many_sources(), st.sampled_from(list(compiler._Pooling)))
def test_pooling_loses_only_verdicts_of_undecided_majorities(
    case: tuple[list[reference.Source], list[list[str]]], pooling: compiler._Pooling
) -> None:
    sources, rows = case
    oracle = reference.Oracle(sources)
    described = [source(one.name, one.coverage, one.origin) for one in sources]
    numbering = compiler._ClaimNumbers(described, pooling)
    said = [tuple(code or None for code in row[: len(sources)]) for row in rows]
    packed = [
        struct.pack(
            f"{len(sources) + 3}H",
            *(int.from_bytes(code.encode()) if code else 0 for code in codes), 0, 0, 0,
        )
        for codes in said
    ]  # fmt: skip
    numbers = [numbering.number(one) for one in packed]
    found, order = numbering.ordered()
    final = column("H", order)
    for codes, number in zip(said, numbers, strict=True):
        claim = found[final[number]]
        answer = oracle.answer(codes)
        assert (claim.status, claim.country) == (answer.status, answer.country)
        for size in range(5):
            for region in itertools.combinations(("DE", "FR", "CN", "GB"), size):
                verdicts = {p: claim.verdict(frozenset(region), p) for p in Policy}
                wanted = {p: oracle.verdict(codes, set(region), p.name) for p in Policy}
                majority = verdicts.pop(Policy.MAJORITY)
                exact = wanted.pop(Policy.MAJORITY)
                assert verdicts == wanted
                if pooling is not compiler._Pooling.CERTAIN or majority != reference.UNDETERMINED:
                    assert majority == exact
                if verdicts[Policy.UNANIMOUS] != reference.UNDETERMINED:
                    assert majority == verdicts[Policy.UNANIMOUS]


def packed_ranges(rows: list[tuple[str, str, str]]) -> SourceRanges:
    return SourceRanges.of(
        (ipaddress.ip_address(first).packed, ipaddress.ip_address(last).packed, code)
        for first, last, code in rows
    )
