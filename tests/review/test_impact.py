"""Who would change sides: counted against asking each address on either basis."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
from array import array
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import small_dataset
import small_networks
import strategies  # noqa: F401 - loads the hypothesis profile
from command_line import Ended, run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import TOP, Line, line, lines, made
from small_dataset import CN, CN_HK, DE, FR_OVERRIDE, ZZ_OVERRIDE

from geolookup import Dataset, Policy, Reason, RegionSetError, RosterError, Verdict
from geolookup.answer.claims import MAX_CLAIMS, SPECIAL_PURPOSE
from geolookup.answer.dataset import encode, write
from geolookup.answer.embedded_ipv4 import EMBEDDED_6TO4, EMBEDDED_LOW32
from geolookup.answer.intervals import FAMILIES, Family
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import read
from geolookup.build.sources import Source
from geolookup.review.impact import (
    Basis,
    FamilyImpact,
    Outcome,
    Transition,
    assess,
    count,
)
from geolookup.review.pieces import Weight

ROOT = Path(__file__).resolve().parents[2]
DECIDED = Reason.DECIDED
INSIDE, OUTSIDE = (Outcome(verdict, DECIDED) for verdict in (Verdict.INSIDE, Verdict.OUTSIDE))
REGION_SETS = ("CN", "DE", "HK", "CN+HK", "EU", "ALL-CN")


def undetermined(reason: Reason) -> Outcome:
    return Outcome(Verdict.UNDETERMINED, reason)


def packed(address: int, family: Family) -> bytes:
    return address.to_bytes(4 if family == 4 else 16)


def asked(basis: Basis, address: int, family: Family) -> tuple[Outcome, str]:
    """Return what a lookup answers, and the country: the oracle of this page."""
    answer = basis.dataset.lookup(packed(address, family), basis.region_set, basis.policy)
    assert answer.verdict is not None
    assert answer.reason is not None
    return Outcome(answer.verdict, answer.reason), answer.country


def prefixes(first: int, end: int, family: Family) -> int:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return sum(1 for _ in ipaddress.summarize_address_range(kind(first), kind(end - 1)))


# --- against slow and obvious counting ------------------------------------------------


def check(old: Line, new: Line, before: Basis, after: Basis, found: FamilyImpact) -> None:
    """Hold what was found against a lookup of both ends of each range between two edges."""
    family = found.family
    runs: list[tuple[int, int, object]] = []
    for first, end in pairwise([*sorted({*old, *new}), TOP[family]]):
        forms = tuple(
            one[max(start for start in one if start <= first)] >= MAX_CLAIMS for one in (old, new)
        )
        state: object = forms
        if not any(forms):
            state = (asked(before, first, family), asked(after, first, family))
            assert state == (asked(before, end - 1, family), asked(after, end - 1, family))
        if runs and runs[-1][2] == state:
            runs[-1] = (runs[-1][0], end, state)
        else:
            runs.append((first, end, state))
    weights: dict[object, Weight] = {}
    for first, end, state in runs:
        weight = Weight(end - first, prefixes(first, end, family))
        weights[state] = weights.get(state, Weight()) + weight
    assert found.apart == sum(
        weights[forms].addresses for forms in ((True, False), (False, True)) if forms in weights
    )
    assert {
        ((pair.before, named.before), (pair.after, named.after)): weight
        for pair, some in found.countries.items()
        for named, weight in some.items()
    } == {
        state: weight
        for state, weight in weights.items()
        if not isinstance(state[0], bool)  # type: ignore[index]
    }


bases = st.tuples(st.sampled_from(REGION_SETS), st.sampled_from(Policy))


@settings(max_examples=60)
@given(lines(4), lines(4), bases, bases)
def test_ipv4_counts_agree_with_a_lookup_of_each_range(
    old: Line, new: Line, one: tuple[str, Policy], other: tuple[str, Policy]
) -> None:
    before, after = Basis(made(old), *one), Basis(made(new), *other)
    check(old, new, before, after, assess(before, after)[0])


@settings(max_examples=30)  # the slow counting is slow
@given(lines(6), lines(6), bases, bases)
def test_ipv6_counts_agree_with_a_lookup_of_each_range(
    old: Line, new: Line, one: tuple[str, Policy], other: tuple[str, Policy]
) -> None:
    before, after = Basis(made(None, old), *one), Basis(made(None, new), *other)
    check(old, new, before, after, assess(before, after)[1])


def changes(found: FamilyImpact) -> dict[Transition, int]:
    """Return the addresses of each transition to another outcome."""
    return {pair: n for pair, n in found.amounts().items() if pair.before != pair.after}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((None, "US", Policy.UNANIMOUS), (None, "US/CA", Policy.UNANIMOUS)),
        ((("TOR",), "CN", Policy.MAJORITY), (("TOR", "RELAY"), "CN+US", Policy.MAJORITY)),
    ],
)
def test_networks_and_subdivisions_are_counted_address_by_address(
    one: tuple[tuple[str, ...] | None, str, Policy],
    other: tuple[tuple[str, ...] | None, str, Policy],
) -> None:
    with (
        small_networks.dataset(covering=one[0]) as old,
        small_networks.dataset(covering=other[0]) as new,
    ):
        before, after = Basis(old, *one[1:]), Basis(new, *other[1:])
        found = assess(before, after)[0]
        expected = Counter[Transition]()
        for block in ("1.0.0.0/16", "2.0.0.0/16", "3.0.0.0/16", "9.0.0.0/24"):
            for address in ipaddress.IPv4Network(block):
                outcomes = (asked(basis, int(address), 4)[0] for basis in (before, after))
                expected[Transition(*outcomes)] += 1
    assert expected
    assert changes(found) == {pair: n for pair, n in expected.items() if pair.before != pair.after}


def test_real_datasets_change_where_lookups_at_their_boundaries_do(dataset: Dataset) -> None:
    """The registries' data alone in place of the embedded dataset: each range of IPv4."""
    steps: list[tuple[int, int]] = []
    with registry() as new:
        before, after = Basis(dataset, "CN"), Basis(new, "CN")
        found = assess(before, after, progress=lambda *step: steps.append(step))
        firsts = [
            sorted({first for one in (dataset, new) for first, _, _ in one.intervals(family)})
            for family in FAMILIES
        ]

        def pair_at(address: int, family: Family) -> Transition:
            return Transition(*(asked(basis, address, family)[0] for basis in (before, after)))

        expected = Counter[Transition]()
        for first, end in pairwise([*firsts[0], TOP[4]]):
            expected[pair_at(first, 4)] += end - first
        assert found[0].amounts() == expected
        draw = random.Random(2026)
        for first, end in draw.sample(list(pairwise(firsts[0])), 500):
            assert pair_at(first, 4) == pair_at(end - 1, 4)
        for first in draw.sample(firsts[1], 500):
            for address in (first - 1, first, first + 1):
                assert pair_at(address, 6) in found[1].transitions
    assert found[0].changed.addresses > 0
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)


def registry() -> Dataset:
    """Return a dataset of what the registries delegated."""
    ranges = read([ROOT / f"data/sources/rir-country-2026-06-ipv{n}.csv.xz" for n in FAMILIES])
    source = Source(name="registry", licence="CC-BY-4.0", date=date(2026, 6, 17))
    return Dataset.from_buffer(encode(compile_sources([(source, ranges)])))


# --- what counts as what --------------------------------------------------------------


def test_dataset_held_against_itself_changes_nothing() -> None:
    with Dataset.from_buffer(encode(small_dataset.content())) as small:
        for found in assess(Basis(small, "CN"), Basis(small, "CN")):
            assert found.changed == Weight()
            assert not changes(found)
            assert found.share == 0


def test_countries_are_those_named_first_and_the_largest_first() -> None:
    old = made(line(("1.0.0.0/8", DE), ("2.0.0.0/9", FR_OVERRIDE)))
    new = made(line(("1.0.0.0/8", CN), ("2.0.0.0/9", CN)))
    found = assess(Basis(old, "CN"), Basis(new, "CN"))[0]
    assert list(found.countries[Transition(OUTSIDE, INSIDE)].items()) == [
        (("DE", "CN"), Weight(1 << 24, 1)),
        (("FR", "CN"), Weight(1 << 23, 1)),
    ]
    assert found.changed == found.decided == Weight(3 << 23, 2)
    assert found.share == 1


def test_another_reason_alone_is_no_change_of_sides() -> None:
    old, new = made(line(("1.0.0.0/8", CN_HK))), made(line(("1.0.0.0/8", ZZ_OVERRIDE)))
    found = assess(Basis(old, "CN"), Basis(new, "CN"))[0]
    pair = Transition(undetermined(Reason.DISPUTED), undetermined(Reason.NO_COUNTRY))
    assert changes(found) == {pair: 1 << 24}
    assert found.changed == Weight()
    assert found.decided == Weight()
    assert found.share == 0


def test_private_addresses_with_an_override_count() -> None:
    old = made(line(("10.0.0.0/8", SPECIAL_PURPOSE)))
    new = made(line(("10.0.0.0/8", SPECIAL_PURPOSE), ("10.1.0.0/16", FR_OVERRIDE)))
    found = assess(Basis(old, "FR"), Basis(new, "FR"))[0]
    assert changes(found) == {Transition(undetermined(Reason.SPECIAL_PURPOSE), INSIDE): 1 << 16}
    assert found.share == 1


def test_addresses_that_carry_others_are_not_counted_in_ipv6() -> None:
    old, new = (
        made(line(("1.0.0.0/8", claim)), line(("2002::/16", EMBEDDED_6TO4), family=6))
        for claim in (CN, DE)
    )
    ipv4, ipv6 = assess(Basis(old, "CN"), Basis(new, "CN"))
    assert ipv4.changed.addresses == 1 << 24
    assert sum(ipv6.amounts().values()) == (1 << 128) - (1 << 112)
    assert ipv6.apart == 0


@pytest.mark.parametrize("other", [CN, EMBEDDED_LOW32])
def test_addresses_that_carry_others_in_one_dataset_only_are_named(other: int) -> None:
    old = made(None, line(("2002::/16", EMBEDDED_6TO4), family=6))
    new = made(None, line(("2002::/16", other), family=6))
    for one, two in ((old, new), (new, old)):
        found = assess(Basis(one, "CN"), Basis(two, "CN"))[1]
        assert found.apart == 1 << 112
        assert not changes(found)


def test_stale_dataset_has_no_verdicts() -> None:
    image = encode(small_dataset.content())
    with (
        Dataset.from_buffer(image) as fresh,
        Dataset.from_buffer(image, max_age=1, stale="undetermined") as stale,
    ):
        found = assess(Basis(fresh, "CN"), Basis(stale, "CN"))[0]
    assert changes(found)[Transition(INSIDE, undetermined(Reason.STALE))] == 256
    assert {pair.after.reason for pair in changes(found)} == {Reason.STALE}


def test_unknown_region_set_is_refused() -> None:
    small = Dataset.from_buffer(encode(small_dataset.content()))
    with pytest.raises(RegionSetError, match="unknown region set"):
        assess(Basis(small, "CN"), Basis(small, "NOWHERE"))


# --- rosters --------------------------------------------------------------------------


def test_roster_is_counted_by_address_and_by_participant() -> None:
    roster = ["1.0.1.1", "2.0.0.1", "3.0.0.1", "10.0.0.1", "1.2.3", "2.0.0.1"]
    with Dataset.from_buffer(encode(small_dataset.content())) as small:
        before, after = (small.classify(roster, region_set=name) for name in ("CN", "CN+HK"))
        counts = count(before, after)
        grouped = [
            small.classify(roster, groups=[2, 1, 3], region_set=name) for name in ("CN", "CN+HK")
        ]
        assert counts == {
            Transition(INSIDE, INSIDE): 1,
            Transition(OUTSIDE, OUTSIDE): 2,
            Transition(undetermined(Reason.DISPUTED), INSIDE): 1,
            Transition(*[undetermined(Reason.SPECIAL_PURPOSE)] * 2): 1,
            Transition(*[undetermined(Reason.INVALID)] * 2): 1,
        }
        assert sum(count(*grouped).values()) == 3
        assert count(*grouped)[Transition(undetermined(Reason.DISPUTED), INSIDE)] == 1
        with pytest.raises(RosterError, match="different rosters"):
            count(before, grouped[1])
        with pytest.raises(RosterError, match="different rosters"):
            count(before, small.classify(roster[1:], region_set="CN"))
        with pytest.raises(ValueError, match="region set"):
            count(small.classify(roster), small.classify(roster))


@given(st.lists(st.sampled_from(sorted(small_dataset.ONE_OF_EACH)), max_size=40))
def test_roster_counts_agree_with_a_lookup_of_each(roster: list[str]) -> None:
    small = Dataset.from_buffer(encode(small_dataset.content()))
    one, other = ("CN", Policy.UNANIMOUS), ("CN+DE", Policy.MAJORITY)
    expected = Counter[Transition]()
    for address in roster:
        answers = [small.lookup(address, *basis) for basis in (one, other)]
        expected[Transition(*(Outcome(a.verdict, a.reason) for a in answers))] += 1
    results = [
        small.classify(roster, region_set=name, policy=policy) for name, policy in (one, other)
    ]
    assert count(*results) == expected


# --- the command ----------------------------------------------------------------------

Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(run_command, capsys, "impact")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two datasets: in the new one 2.0.0.0/8 is CN, and was DE."""
    old, new = tmp_path / "old.geolookup", tmp_path / "new.geolookup"
    content = small_dataset.content()
    write(content, old)
    claims = array("H", content.ipv4_claims)
    claims[claims.index(DE)] = CN
    content.ipv4_claims = claims.tobytes()
    write(content, new)
    return str(old), str(new)


@pytest.fixture
def networks(tmp_path: Path) -> str:
    path = tmp_path / "networks.geolookup"
    content = small_networks.compiled()
    write(content, path, optional=content.optional)
    return str(path)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_new_dataset_shows_who_changes_sides(run: Run, files: tuple[str, str]) -> None:
    code, out, err = run(*files, "-r", "cn")
    assert (code, err) == (0, "")
    # Of DE (2.0.0.0/8), AT or DE, and two small ones.
    assert "change sides: 16,777,216 addresses, 49.902 % of those with a verdict" in out
    assert ["OUTSIDE", "INSIDE", "16,777,216"] in [row[:3] for row in rows(out)]
    assert "DE → CN 16,777,216" in out


def test_embedded_dataset_is_the_default_and_has_a_name(
    run: Run, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.answer.dataset.EMBEDDED", files[0])
    for old in ((), ("embedded",)):
        found = json.loads(run(*old, "-r", "CN", "--new-region-set", "CN+HK", "--json").out)
        assert found["before"]["dataset"] == found["after"]["dataset"]
        assert found["ipv4"]["verdicts"]["UNDETERMINED"]["INSIDE"] == 1 << 24
    found = json.loads(run("embedded", files[1], "-r", "CN", "--json").out)
    assert found["before"]["dataset"] != found["after"]["dataset"]


def test_json_has_the_whole_impact(run: Run, files: tuple[str, str]) -> None:
    code, out, _ = run(*files, "-r", "CN", "--new-policy", "primary", "--json")
    found = json.loads(out)
    assert code == 0
    assert [found[side]["policy"] for side in ("before", "after")] == ["UNANIMOUS", "PRIMARY"]
    with Dataset.from_buffer(Path(files[0]).read_bytes()) as old:
        assert found["before"] == {
            "dataset": old.id,
            "built": "2026-06-17T00:00:00Z",
            "region_set": "CN",
            "policy": "UNANIMOUS",
            "overrides": None,
            "covering": [],
            "subdivision_sources": 2,
        }
    moved = {
        (one["before"]["verdict"], one["before"]["reason"], one["after"]["verdict"]): one
        for one in found["ipv4"]["changes"]
    }
    assert moved["OUTSIDE", "DECIDED", "INSIDE"] == {
        "before": {"verdict": "OUTSIDE", "reason": "DECIDED"},
        "after": {"verdict": "INSIDE", "reason": "DECIDED"},
        "size": 1 << 24,
        "prefixes": 1,
        "countries": [{"before": "DE", "after": "CN", "size": 1 << 24, "prefixes": 1}],
    }
    # PRIMARY decides what is disputed or unconfirmed: 3, 5, 8 and 9.0.0.0/8.
    assert moved["UNDETERMINED", "DISPUTED", "INSIDE"]["size"] == 1 << 24
    assert moved["UNDETERMINED", "DISPUTED", "OUTSIDE"]["size"] == 1 << 24
    assert moved["UNDETERMINED", "UNCONFIRMED", "INSIDE"]["size"] == 1 << 24
    assert found["ipv4"]["verdicts"]["OUTSIDE"]["INSIDE"] == 1 << 24
    assert found["ipv6"]["unit"] == "/48"
    assert (found["roster"], found["exceeded"]) == (None, [])


def test_covering_kinds_are_compared(run: Run, networks: str) -> None:
    code, out, _ = run(networks, "-r", "CN", "--new-covering", "none", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["before"]["covering"] == ["TOR", "VPN", "PROXY", "RELAY"]
    assert found["after"]["covering"] == []
    reasons = {one["before"]["reason"] for one in found["ipv4"]["changes"]}
    assert "COVERED" in reasons
    assert "no one" not in out


def test_own_region_sets_of_either_side_are_read(
    run: Run, files: tuple[str, str], tmp_path: Path
) -> None:
    for name, codes in (("old.toml", "DE"), ("new.toml", "CN")):
        (tmp_path / name).write_text(
            f'[region_sets.OURS]\ncodes = ["{codes}"]\nversion = "1"\nsource = "us"\n'
        )
    sets = [str(tmp_path / name) for name in ("old.toml", "new.toml")]
    old = files[0]
    assert run(old, old, "-r", "OURS").code == 2
    assert "0 addresses" in run(old, old, "-r", "OURS", "--region-sets", sets[0]).out
    ended = run(old, "-r", "OURS", "--region-sets", sets[0], "--new-region-sets", sets[1])
    assert ["INSIDE", "OUTSIDE", "16,777,216"] in [row[:3] for row in rows(ended.out)]
    assert ended.code == 0


def test_overrides_of_a_file_are_tried(run: Run, files: tuple[str, str], tmp_path: Path) -> None:
    """Of two overrides one has expired."""
    overrides = tmp_path / "overrides.toml"
    overrides.write_text(
        '[[override]]\nprefix = "2.1.0.0/16"\ncode = "CN"\n'
        '[[override]]\nprefix = "2.2.0.0/16"\ncode = "CN"\nexpires = 2020-01-01\n'
    )
    ended = run(files[0], "-r", "CN", "--new-overrides", overrides, "--json")
    found = json.loads(ended.out)
    assert ended.code == 0
    assert found["ipv4"]["changed"] == {"size": 1 << 16, "prefixes": 1}
    assert found["ipv4"]["verdicts"]["OUTSIDE"]["INSIDE"] == 1 << 16
    digest = hashlib.sha256(overrides.read_bytes()).hexdigest()
    assert [found[side]["overrides"] for side in ("before", "after")] == [None, digest]
    both = run(files[0], files[1], "-r", "CN", "--overrides", overrides, "--json")
    assert json.loads(both.out)["ipv4"]["changed"]["size"] == (1 << 24) - (1 << 16)


ROSTERS = {
    "list.txt": "2.0.0.1\n2.0.0.2\n1.0.1.1\n10.0.0.1\n",
    "joins.csv": "user,ip\nann,2.0.0.1\nbo,2.0.0.2\nbo,1.0.1.1\ncy,10.0.0.1\n",
    "ports.csv": "user,peer\nann,2.0.0.1:1\nbo,2.0.0.2:2\nbo,1.0.1.1:3\ncy,10.0.0.1:4\n",
    "access.log": "".join(
        f'{ip} - - [24/Nov/2026:09:00:00 +0000] "GET / HTTP/1.1"\n'
        for ip in ("2.0.0.1", "2.0.0.2", "1.0.1.1", "10.0.0.1")
    ),
}


@pytest.mark.parametrize(
    ("name", "options", "counted"),
    [
        ("list.txt", (), (4, 2)),
        ("joins.csv", (), (4, 2)),
        ("joins.csv", ("--column", "ip", "--participant", "user"), (3, 2)),
        ("ports.csv", ("--column", "peer", "--form", "ip:port"), (4, 2)),
        ("access.log", ("--pattern", r"^(\S+)"), (4, 2)),
    ],
)
def test_roster_is_counted_and_no_address_is_printed(
    *,
    run: Run,
    files: tuple[str, str],
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
    counted: tuple[int, int],
) -> None:
    roster = tmp_path / name
    roster.write_text(ROSTERS[name])
    for extra in ((), ("--json",)):
        code, out, err = run(*files, "-r", "CN", "--roster", roster, *options, *extra)
        assert (code, err) == (0, "")
        assert not [ip for ip in ("2.0.0", "1.0.1", "10.0.0", "ann", "bo") if ip in out]
    found = json.loads(out)["roster"]
    assert (found["size"], found["changed"]) == counted
    assert found["unit"] == ("participant" if "--participant" in options else "address")
    assert sum(sum(some.values()) for some in found["verdicts"].values()) == counted[0]


def test_roster_over_one_piece_is_counted_whole(
    run: Run, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.impact._PIECE", 3)
    roster = tmp_path / "joins.csv"
    people = [f"{at},2.0.0.{at}\n{at},8.8.8.{at}\n" for at in range(10)]
    roster.write_text("user,ip\n" + "".join(people))
    for options, size, changed in (((), 20, 10), (("--participant", "user"), 10, 0)):
        ended = run(*files, "-r", "CN", "--roster", roster, *options, "--json")
        found = json.loads(ended.out)["roster"]
        assert (found["size"], found["changed"]) == (size, changed)


def test_what_is_no_roster_ends_with_5(run: Run, files: tuple[str, str], tmp_path: Path) -> None:
    roster = tmp_path / "names.txt"
    roster.write_text("one.example.org\ntwo.example.org\n")
    code, out, err = run(*files, "-r", "CN", "--roster", roster)
    assert (code, out) == (5, "")
    assert "names of hosts" in err
    assert "example.org" not in err.replace(str(roster), "")


@pytest.mark.parametrize(
    ("limit", "code", "named"),
    [("50%", 0, ""), ("49%", 1, "IPv4"), ("10%", 1, "the roster")],
)
def test_limit_is_exceeded_above_its_value_only(
    run: Run, files: tuple[str, str], tmp_path: Path, limit: str, code: int, named: str
) -> None:
    (tmp_path / "roster.txt").write_text("2.0.0.1\n" + "8.8.8.8\n" * 4)
    options = ("-r", "CN", "--roster", tmp_path / "roster.txt", "--max-change", limit)
    ended = run(*files, *options)
    assert ended.code == code
    assert named in ended.err
    assert "change sides" in ended.out
    exceeded = json.loads(run(*files, *options, "--json").out)["exceeded"]
    assert bool(exceeded) is bool(code)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("FILE", "-r", "CN"), "nothing is different"),
        (("FILE", "FILE"), "--region-set"),
        (("FILE", "-r", "CN", "--new-region-set", "NOWHERE"), "unknown region set"),
        (("FILE", "-r", "CN", "--new-covering", "VPN"), "no lists of networks"),
        (("FILE", "-r", "CN", "--new-covering", "CHEESE"), "--new-covering"),
        (("FILE", "-r", "CN", "--new-subdivision-sources", "1"), "no subdivisions"),
        (("FILE", "FILE", "-r", "CN", "--participant", "user"), "add --roster"),
        (("FILE", "FILE", "-r", "CN", "--column", "ip"), "add --roster"),
        (("FILE", "FILE", "-r", "CN", "--max-change", "5"), "--max-change"),
        (("FILE", "FILE", "-r", "CN", "--plot", "out.jpeg"), "--plot"),
        (("FILE", "FILE", "-r", "CN", "--plot", "FILE"), "--plot"),
        (("FILE", "-r", "CN", "--new-overrides", "missing.toml"), "--new-overrides"),
    ],
)
def test_wrong_use_is_refused(
    run: Run, files: tuple[str, str], arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*(files[0] if one == "FILE" else one for one in arguments))
    assert (code, out) == (2, "")
    assert said in err


def test_missing_dataset_ends_with_3(run: Run, files: tuple[str, str]) -> None:
    assert run(files[0], "missing.geolookup", "-r", "CN").code == 3
