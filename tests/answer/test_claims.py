"""Verdicts, spelled out by hand: every status under every policy, seen from several region sets."""

from __future__ import annotations

import re
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import reference

from geolookup.answer import claims
from geolookup.answer.claims import (
    REASON_OF,
    VERDICT_OF,
    Claim,
    Policy,
    Reason,
    Status,
    Verdict,
    combine,
    encode_outcome,
    outcome_column,
)

I, O, U = Verdict.INSIDE, Verdict.OUTSIDE, Verdict.UNDETERMINED  # noqa: E741 - the tables are read as pictures

CN, HK, JP = frozenset(["CN"]), frozenset(["HK"]), frozenset(["JP"])
CN_HK = CN | HK
NOBODY: frozenset[str] = frozenset()

# what it says ->                                           seen from, UNANIMOUS, MAJORITY, PRIMARY
TABLE: dict[str, tuple[Claim, list[tuple[frozenset[str], Verdict, Verdict, Verdict]]]] = {
    "ASSIGNED: two full sources name the code": (
        Claim(Status.ASSIGNED, "CN", (("CN", 2),)),
        [(CN, I, I, I), (HK, O, O, O), (CN_HK, I, I, I), (NOBODY, O, O, O)],
    ),
    "ASSIGNED: the only source": (
        Claim(Status.ASSIGNED, "CN", (("CN", 1),)),
        [(CN, I, I, I), (HK, O, O, O)],
    ),
    "ASSIGNED: a full source and a partial one that agrees": (
        Claim(Status.ASSIGNED, "HK", (("HK", 2),)),
        [(HK, I, I, I), (CN, O, O, O)],
    ),
    "DISPUTED: one against one": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 1))),
        [(CN, U, U, I), (HK, U, U, O), (CN_HK, I, I, I), (JP, O, O, O), (NOBODY, O, O, O)],
    ),
    "DISPUTED: two against one": (
        Claim(Status.DISPUTED, "CN", (("CN", 2), ("HK", 1))),
        [(CN, U, I, I), (HK, U, O, O), (CN_HK, I, I, I), (JP, O, O, O)],
    ),
    "DISPUTED: the first source stands alone": (
        Claim(Status.DISPUTED, "HK", (("CN", 2), ("HK", 1))),
        [(CN, U, I, O), (HK, U, O, I), (CN_HK, I, I, I), (JP, O, O, O)],
    ),
    "DISPUTED: three codes, none with more than half": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 1), ("JP", 1))),
        [(CN, U, O, I), (CN_HK, U, I, I), (JP, U, O, O), (CN_HK | JP, I, I, I)],
    ),
    "DISPUTED: two against two": (
        Claim(Status.DISPUTED, "JP", (("CN", 2), ("JP", 2))),
        [(CN, U, U, O), (JP, U, U, I), (HK, O, O, O)],
    ),
    "DISPUTED: a full source is silent, one against one": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 1)), abstentions=1, silent=True),
        [(CN, U, U, I), (HK, U, U, O), (CN_HK, U, I, I), (JP, U, O, O)],
    ),
    "DISPUTED: two full sources are silent, one against one": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 1)), abstentions=2, silent=True),
        [(CN, U, U, I), (CN_HK, U, U, I), (JP, U, U, O)],
    ),
    "DISPUTED: a partial source contradicts the full one": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 1))),
        [(CN, U, U, I), (HK, U, U, O), (CN_HK, I, I, I)],
    ),
    "DISPUTED: two sources of one origin, whose vote the first one casts": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 0))),
        [(CN, U, I, I), (HK, U, O, O), (CN_HK, I, I, I), (JP, O, O, O)],
    ),
    "DISPUTED: one origin with two opinions against another origin": (
        Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 0), ("JP", 1))),
        [(CN, U, U, I), (CN_HK, U, U, I), (JP, U, U, O), (HK, U, O, O)],
    ),
    "UNCONFIRMED: one speaks, one full source is silent": (
        Claim(Status.UNCONFIRMED, "CN", (("CN", 1),), abstentions=1, silent=True),
        [(CN, U, U, I), (HK, U, U, O), (NOBODY, U, U, O)],
    ),
    "UNCONFIRMED: two speak, one full source is silent": (
        Claim(Status.UNCONFIRMED, "CN", (("CN", 2),), abstentions=1, silent=True),
        [(CN, U, I, I), (HK, U, O, O)],
    ),
    "UNCONFIRMED: two speak, two full sources are silent": (
        Claim(Status.UNCONFIRMED, "CN", (("CN", 2),), abstentions=2, silent=True),
        [(CN, U, U, I), (HK, U, U, O)],
    ),
    "UNCONFIRMED: the silent full source has an origin that votes": (
        Claim(Status.UNCONFIRMED, "CN", (("CN", 1),), abstentions=0, silent=True),
        [(CN, U, I, I), (HK, U, O, O)],
    ),
    "UNASSIGNED": (
        Claim(Status.UNASSIGNED),
        [(CN, U, U, U), (NOBODY, U, U, U)],
    ),
    "UNASSIGNED: full sources are silent": (
        Claim(Status.UNASSIGNED, abstentions=2, silent=True),
        [(CN, U, U, U), (NOBODY, U, U, U)],
    ),
    "SPECIAL_PURPOSE": (
        Claim(Status.SPECIAL_PURPOSE),
        [(CN, U, U, U), (NOBODY, U, U, U)],
    ),
    "OVERRIDE": (
        Claim(Status.OVERRIDE, "CN"),
        [(CN, I, I, I), (HK, O, O, O), (CN_HK, I, I, I), (NOBODY, O, O, O)],
    ),
    "OVERRIDE to no country": (
        Claim(Status.OVERRIDE, "ZZ"),
        [(CN, U, U, U), (frozenset(["ZZ"]), U, U, U), (NOBODY, U, U, U)],
    ),
    "INVALID": (
        Claim(Status.INVALID),
        [(CN, U, U, U), (frozenset(["ZZ"]), U, U, U), (NOBODY, U, U, U)],
    ),
}


def test_table_has_every_status() -> None:
    assert {claim.status for claim, _ in TABLE.values()} == set(Status)


@pytest.mark.parametrize("name", TABLE)
def test_verdict_of_each_claim_and_policy(name: str) -> None:
    claim, rows = TABLE[name]
    for codes, unanimous, majority, primary in rows:
        seen_from = "+".join(sorted(codes)) or "nobody"
        assert claim.verdict(codes, Policy.UNANIMOUS) is unanimous, (seen_from, "UNANIMOUS")
        assert claim.verdict(codes, Policy.MAJORITY) is majority, (seen_from, "MAJORITY")
        assert claim.verdict(codes, Policy.PRIMARY) is primary, (seen_from, "PRIMARY")


def test_a_set_and_its_complement_never_both_hold_an_address() -> None:
    everything = frozenset(["CN", "HK", "JP"])
    swapped = {I: O, O: I, U: U}
    for claim, _ in TABLE.values():
        for codes in (CN, HK, JP, CN_HK, everything, NOBODY):
            for policy in Policy:
                there = claim.verdict(codes, policy)
                assert claim.verdict(everything - codes, policy) is swapped[there]


def test_no_policy_contradicts_a_unanimous_verdict() -> None:
    for claim, _ in TABLE.values():
        for codes in (CN, HK, JP, CN_HK, NOBODY):
            verdict = claim.verdict(codes, Policy.UNANIMOUS)
            if verdict is not U:
                assert claim.verdict(codes, Policy.MAJORITY) is verdict
                assert claim.verdict(codes, Policy.PRIMARY) is verdict


# what it says, seen from -> why there is no verdict, by policy where that is not PRIMARY
@pytest.mark.parametrize(
    ("name", "codes", "reason"),
    [
        ("ASSIGNED: the only source", CN, "DECIDED"),
        ("DISPUTED: one against one", CN, "DISPUTED"),
        ("DISPUTED: one against one", CN_HK, "DECIDED"),
        ("DISPUTED: two full sources are silent, one against one", CN, "DISPUTED"),
        ("DISPUTED: two full sources are silent, one against one", CN_HK, "UNCONFIRMED"),
        ("DISPUTED: two full sources are silent, one against one", JP, "UNCONFIRMED"),
        ("UNCONFIRMED: one speaks, one full source is silent", CN, "UNCONFIRMED"),
        ("UNASSIGNED: full sources are silent", CN, "UNASSIGNED"),
        ("SPECIAL_PURPOSE", CN, "SPECIAL_PURPOSE"),
        ("OVERRIDE", CN, "DECIDED"),
        ("OVERRIDE to no country", CN, "NO_COUNTRY"),
        ("INVALID", CN, "INVALID"),
    ],
)
def test_reason_by_hand(name: str, codes: frozenset[str], reason: str) -> None:
    claim, _ = TABLE[name]
    for policy in (Policy.UNANIMOUS, Policy.MAJORITY):
        assert claim.judge(codes, policy)[1] == reason
    if claim.country != "ZZ":
        assert claim.judge(codes, Policy.PRIMARY)[1] is Reason.DECIDED
    else:
        assert claim.judge(codes, Policy.PRIMARY)[1] == reason


def test_reason_is_decided_where_there_is_a_verdict_and_nowhere_else() -> None:
    for claim, _ in TABLE.values():
        for codes in (CN, HK, JP, CN_HK, NOBODY):
            for policy in Policy:
                verdict, reason = claim.judge(codes, policy)
                assert verdict is claim.verdict(codes, policy)
                assert (verdict is U) is (reason is not Reason.DECIDED)


def test_outcome_has_the_verdict_below_the_reason() -> None:
    assert encode_outcome(Verdict.INSIDE, Reason.DECIDED) == 1
    assert encode_outcome(Verdict.OUTSIDE, Reason.DECIDED) == 2
    assert encode_outcome(Verdict.UNDETERMINED, Reason.DISPUTED) == 0b111
    for verdict in Verdict:
        for reason in Reason:
            byte = encode_outcome(verdict, reason)
            assert (VERDICT_OF[byte], REASON_OF[byte]) == (verdict.number, reason.number)


# Kinds of sources, and what each may say: every combination of up to three is asked.
EXHAUSTED = [
    (number, kinds) for number in (1, 2, 3) for kinds in product(("full", "partial"), repeat=number)
]


@pytest.mark.parametrize(("number", "kinds"), EXHAUSTED, ids=str)
def test_judge_is_the_oracles_for_all_small_cases(number: int, kinds: tuple[str, ...]) -> None:
    regions = [frozenset(one) for n in range(4) for one in combinations(("CN", "HK", "JP"), n)]
    for shared in (False, True):
        sources = [
            reference.Source(f"s{at}", coverage=kind, origin="o" if shared and at < 2 else f"o{at}")
            for at, kind in enumerate(kinds)
        ]
        voters = [
            SimpleNamespace(coverage=one.coverage, origin=one.origin, mute=(), depth="country")
            for one in sources
        ]
        oracle = reference.Oracle(sources)
        for said in product(("CN", "HK", "JP", None), repeat=number):
            claim = combine(voters, said)
            for region, policy in product(regions, Policy):
                verdict, reason = claim.judge(region, policy)
                assert verdict == oracle.verdict(said, region, policy.name), (said, region)
                assert reason == oracle.reason(said, region, policy.name), (said, region)


def test_outcome_column_is_one_byte_a_claim_in_order() -> None:
    column = outcome_column([claim for claim, _ in TABLE.values()], CN, Policy.MAJORITY)
    by_hand = [
        next(row[2] for row in rows if row[0] == CN) if any(row[0] == CN for row in rows) else None
        for _, rows in TABLE.values()
    ]
    assert len(column) == len(TABLE)
    assert [
        (at, Verdict.numbered(VERDICT_OF[column[at]]))
        for at, verdict in enumerate(by_hand)
        if verdict is not None
    ] == [(at, verdict) for at, verdict in enumerate(by_hand) if verdict is not None]


def test_claimed_lists_codes_that_lost_their_origins_vote_too() -> None:
    assert Claim(Status.DISPUTED, "CN", (("CN", 1), ("HK", 0))).claimed == ("CN", "HK")


def test_the_first_claim_numbers_are_fixed() -> None:
    assert claims.FIXED_CLAIMS[claims.INVALID] == Claim(Status.INVALID)
    assert claims.FIXED_CLAIMS[claims.UNASSIGNED] == Claim(Status.UNASSIGNED)
    assert claims.FIXED_CLAIMS[claims.SPECIAL_PURPOSE] == Claim(Status.SPECIAL_PURPOSE)
    assert (claims.INVALID, claims.UNASSIGNED, claims.SPECIAL_PURPOSE) == (0, 1, 2)


@pytest.mark.parametrize("enum", [Status, Verdict, Policy])
def test_numbers_are_those_of_the_proto(enum: type[Status | Verdict | Policy]) -> None:
    root = Path(__file__).resolve().parents[2]
    proto = (root / "proto/geolookup/v1/geolookup.proto").read_text(encoding="utf-8")
    name = enum.__name__
    block = re.search(rf"^enum {name} {{(.*?)^}}", proto, re.DOTALL | re.MULTILINE)
    assert block is not None
    numbers = dict(re.findall(rf"^  {name.upper()}_(\w+) = (\d+);", block[1], re.MULTILINE))
    assert numbers.pop("UNSPECIFIED") == "0"
    assert numbers == {member.name: str(member.number) for member in enum}
