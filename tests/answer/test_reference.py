"""The oracle has tests of its own: small sources by hand, and facts that anyone can look up."""

from __future__ import annotations

import ast
import ipaddress
import lzma
import socket
from itertools import pairwise
from pathlib import Path

import pytest
import reference
from reference import (
    ASSIGNED,
    DISPUTED,
    INSIDE,
    MAJORITY,
    OUTSIDE,
    OVERRIDE,
    PRIMARY,
    SPECIAL_PURPOSE,
    UNANIMOUS,
    UNASSIGNED,
    UNCONFIRMED,
    UNDETERMINED,
    Answer,
    Oracle,
    Source,
)
from strategies import MALFORMED


def ranges(*rows: tuple[int, int, str]) -> dict[int, list[tuple[int, int, str | None]]]:
    """Return the same small ranges for both families, far from any embedded form in IPv6."""
    v6 = 0x2400 << 112
    read = [(first, last, reference.country(code)) for first, last, code in rows]
    return {4: list(read), 6: [(v6 + first, v6 + last, code) for first, last, code in read]}


def test_reference_imports_no_code_under_test() -> None:
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ] + [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "ipaddress" in names
    assert not [name for name in names if name.startswith("geolookup")]


def test_a_source_is_silent_before_between_and_behind_its_ranges() -> None:
    source = Source("a", ranges=ranges((10, 19, "CN"), (20, 20, "HK"), (30, 39, "EU")))
    said = [source.says(4, value) for value in (0, 9, 10, 19, 20, 21, 29, 30, 39, 40, 2**32 - 1)]
    assert said == [None, None, "CN", "CN", "HK", None, None, None, None, None, None]


@pytest.mark.parametrize(
    ("raw", "code"),
    [("CN", "CN"), ("cn", "CN"), ("UK", "GB"), ("XK", "XK"), ("EU", None), ("AP", None)]
    + [(raw, None) for raw in ("ZZ", "zz", "-", "--", "??", "", "None", "A1", "SU", "AN", "CS")],
)
def test_reference_reads_codes(raw: str, code: str | None) -> None:
    assert reference.country(raw) == code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0", (4, 0)),  # noqa: S104 - an address to read, not to bind
        ("1.2.3.4", (4, 0x01020304)),
        ("255.255.255.255", (4, 0xFFFFFFFF)),
        ("::", (6, 0)),
        ("::1", (6, 1)),
        ("::1.2.3.4", (6, 0x01020304)),
        ("2001:DB8::A", (6, 0x20010DB8 << 96 | 10)),
        ("1:2:3:4:5:6:7::", (6, 0x00010002000300040005000600070000)),
        ("fe80::1%eth0", (6, 0xFE80 << 112 | 1)),
        ("febf::1%3", (6, 0xFEBF << 112 | 1)),
    ],
)
def test_reference_parses_text(text: str, expected: tuple[int, int]) -> None:
    assert reference.parse(text) == expected


@pytest.mark.parametrize("text", MALFORMED)
def test_reference_refuses_malformed_text(text: str) -> None:
    assert reference.parse(text) is None


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("::ffff:1.0.1.1", "1.0.1.1"),
        ("2002:0100:0101::", "1.0.1.1"),
        ("2002:0100:0101:ffff:ffff:ffff:ffff:ffff", "1.0.1.1"),
        ("64:ff9b::1.0.1.1", "1.0.1.1"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"),  # the example in RFC 4380
        ("::1.0.1.1", None),
        ("::fffe:1.0.1.1", None),
        ("::1:0:0:0", None),
        ("64:ff9b:1::1.0.1.1", None),
        ("64:ff9b::1:1.0.1.1", None),
        ("2001:1::", None),
        ("2003::", None),
    ],
)
def test_reference_decodes_the_ipv4_address_inside(text: str, inside: str | None) -> None:
    expected = None if inside is None else int(ipaddress.IPv4Address(inside))
    assert reference.embedded_ipv4(int(ipaddress.IPv6Address(text))) == expected


def two_full_and_a_partial() -> Oracle:
    return Oracle(
        [
            Source("a", ranges=ranges((10, 19, "CN"), (20, 29, "HK"), (40, 49, "JP"))),
            Source("b", ranges=ranges((10, 24, "CN"), (30, 34, "HK"))),
            Source(
                "c",
                coverage="partial",
                ranges=ranges((18, 19, "HK"), (20, 21, "HK"), (50, 50, "TW")),
            ),
        ],
        ["0.0.0.45/32", "0.0.0.60/30"],
        [(4, 19, 19, "TW"), (4, 47, 47, "ZZ"), (4, 60, 60, "CN")],
    )


@pytest.mark.parametrize(
    ("value", "answer", "unanimous", "majority", "primary"),
    [  # seen from {HK, TW}
        (9, Answer(UNASSIGNED, "ZZ"), UNDETERMINED, UNDETERMINED, UNDETERMINED),
        (10, Answer(ASSIGNED, "CN"), OUTSIDE, OUTSIDE, OUTSIDE),
        (18, Answer(DISPUTED, "CN", ("CN", "HK")), UNDETERMINED, OUTSIDE, OUTSIDE),
        (19, Answer(OVERRIDE, "TW"), INSIDE, INSIDE, INSIDE),
        (20, Answer(DISPUTED, "HK", ("CN", "HK")), UNDETERMINED, INSIDE, INSIDE),
        (22, Answer(DISPUTED, "HK", ("CN", "HK")), UNDETERMINED, UNDETERMINED, INSIDE),
        (25, Answer(UNCONFIRMED, "HK"), UNDETERMINED, UNDETERMINED, INSIDE),
        (30, Answer(UNCONFIRMED, "HK"), UNDETERMINED, UNDETERMINED, INSIDE),
        (44, Answer(UNCONFIRMED, "JP"), UNDETERMINED, UNDETERMINED, OUTSIDE),
        (45, Answer(SPECIAL_PURPOSE, "ZZ"), UNDETERMINED, UNDETERMINED, UNDETERMINED),
        (47, Answer(OVERRIDE, "ZZ"), UNDETERMINED, UNDETERMINED, UNDETERMINED),
        (50, Answer(UNCONFIRMED, "TW"), UNDETERMINED, UNDETERMINED, INSIDE),
        (60, Answer(OVERRIDE, "CN"), OUTSIDE, OUTSIDE, OUTSIDE),
        (61, Answer(SPECIAL_PURPOSE, "ZZ"), UNDETERMINED, UNDETERMINED, UNDETERMINED),
    ],
)
def test_reference_gives_answers_and_verdicts(
    value: int, answer: Answer, unanimous: int, majority: int, primary: int
) -> None:
    oracle = two_full_and_a_partial()
    said = oracle.said(4, value)
    region = {"HK", "TW"}
    assert oracle.answer(said) == answer
    assert oracle.verdict(said, region, UNANIMOUS) == unanimous
    assert oracle.verdict(said, region, MAJORITY) == majority
    assert oracle.verdict(said, region, PRIMARY) == primary


def test_sources_of_one_origin_have_one_vote_and_the_first_that_speaks_casts_it() -> None:
    oracle = Oracle(
        [
            Source("a1", origin="a", ranges=ranges((1, 1, "CN"), (3, 3, "CN"))),
            Source("a2", origin="a", ranges=ranges((1, 1, "HK"), (2, 2, "HK"))),
            Source("b", coverage="partial", ranges=ranges((3, 3, "JP"))),
            Source("c", ranges=ranges((4, 4, "CN"))),
        ]
    )
    assert oracle.votes(oracle.said(4, 1)) == ["CN", None]
    assert oracle.votes(oracle.said(4, 2)) == ["HK", None]
    assert oracle.votes(oracle.said(4, 3)) == ["CN", "JP", None]
    assert oracle.votes(oracle.said(4, 4)) == [None, "CN"]


@pytest.mark.parametrize(
    ("said", "answer", "votes"),
    [
        # the registry, advisory, changes nothing
        ("CN CN DE - -", Answer(ASSIGNED, "CN"), ["CN", "CN"]),
        ("CN - CN - -", Answer(UNCONFIRMED, "CN"), ["CN", None]),
        ("- - DE - -", Answer(UNASSIGNED, "ZZ"), [None, None]),
        # one operator's word decides, two that differ don't
        ("CN - DE HK -", Answer(ASSIGNED, "HK"), ["HK"]),
        ("CN CN - HK TW", Answer(DISPUTED, "HK", ("HK", "TW")), ["HK", "TW"]),
        ("CN CN - - TW", Answer(ASSIGNED, "TW"), ["TW"]),
        # the second source can't know XK, and files it under AL
        ("XK AL DE - -", Answer(ASSIGNED, "XK"), ["XK"]),
        ("XK - DE - -", Answer(ASSIGNED, "XK"), ["XK"]),
        ("XK FR DE - -", Answer(DISPUTED, "XK", ("FR", "XK")), ["XK", "FR"]),
        ("AL AL - - -", Answer(ASSIGNED, "AL"), ["AL", "AL"]),
        ("AL XK - - -", Answer(DISPUTED, "AL", ("AL", "XK")), ["AL", "XK"]),
        ("AL AL XK - -", Answer(ASSIGNED, "AL"), ["AL", "AL"]),
    ],
)
def test_what_counts_depends_on_each_sources_coverage(
    said: str, answer: Answer, votes: list[str | None]
) -> None:
    oracle = Oracle(
        [
            Source("a"),
            Source("b", mute={"XK": ["AL", "RS"]}),
            Source("registry", coverage="advisory"),
            Source("c", coverage="authoritative"),
            Source("d", coverage="authoritative"),
        ]
    )
    codes = tuple(None if code == "-" else code for code in said.split())
    assert oracle.answer(codes) == answer
    assert oracle.votes(codes) == votes


def test_sources_that_cannot_know_what_the_other_says_dispute_it() -> None:
    oracle = Oracle([Source("a", mute={"XK": []}), Source("b", mute={"FR": []})])
    assert oracle.answer(("FR", "XK")) == Answer(DISPUTED, "FR", ("FR", "XK"))


def test_edges_are_both_sides_of_each_boundary() -> None:
    oracle = Oracle([Source("a", ranges={4: [(0, 5, "CN"), (9, 10, "DE"), (11, 2**32 - 1, "HK")]})])
    assert oracle.edges(4) == [0, 5, 6, 8, 9, 10, 11, 2**32 - 1]


def test_neighbourhood_is_each_boundary_with_the_addresses_beside_it() -> None:
    oracle = Oracle([Source("a", ranges={4: [(0, 5, "CN"), (2**32 - 1, 2**32 - 1, "HK")]})])
    assert oracle.neighbourhood(4) == [0, 1, 4, 5, 6, 2**32 - 2, 2**32 - 1]


def test_csv_files_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.xz"
    path.write_bytes(lzma.compress(b"1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.3.255,EU\n"))
    assert reference.read_csv(path, socket.AF_INET) == [
        (0x01000000, 0x010000FF, "AU"),
        (0x01000100, 0x010003FF, None),
    ]


def test_registry_rows_may_hold_several_prefixes_and_footnotes(tmp_path: Path) -> None:
    path = tmp_path / "registry.csv"
    path.write_text(
        "Address Block,Name,RFC\n"
        '192.0.0.0/24 [2],IETF Protocol Assignments,"[RFC6890], Section 2.1"\n'
        '"192.0.0.170/32, 192.0.0.171/32",NAT64/DNS64 Discovery,"[RFC8880]\n[RFC7050]"\n',
        encoding="utf-8",
    )
    prefixes = ["192.0.0.0/24", "192.0.0.170/32", "192.0.0.171/32"]
    assert reference.read_registry(path) == prefixes


def test_the_embedded_sources_are_sorted_and_disjoint_but_for_one() -> None:
    for source in reference.embedded().sources:
        for version in (4, 6):
            rows = source.ranges[version]
            assert rows
            assert all(first <= last for first, last, _ in rows)
            assert all(one[0] <= other[0] for one, other in pairwise(rows))
            disjoint = all(one[1] < other[0] for one, other in pairwise(rows))
            assert disjoint == (source.name != "geo-whois-asn")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1.0.1.1", Answer(ASSIGNED, "CN")),
        ("::ffff:1.0.1.1", Answer(ASSIGNED, "CN")),
        ("8.8.8.8", Answer(ASSIGNED, "US")),
        ("43.102.0.1", Answer(DISPUTED, "HK", ("HK", "SG"))),
        ("2e00::1", Answer(UNCONFIRMED, "CH")),
        ("46.99.0.1", Answer(ASSIGNED, "XK")),
        ("10.0.0.1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("100.64.0.1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("224.0.0.1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("255.255.255.255", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("::", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("fec0::1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("ff02::1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("2001:db8::1", Answer(SPECIAL_PURPOSE, "ZZ")),
        ("::2", Answer(UNASSIGNED, "ZZ")),
    ],
)
def test_facts_of_the_embedded_data_hold(text: str, answer: Answer) -> None:
    oracle = reference.embedded()
    assert oracle.answer(oracle.said_of_text(text)) == answer
