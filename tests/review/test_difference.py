"""What a new dataset changed: counted right, limited right, and said without guessing."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import small_dataset
import strategies  # noqa: F401 - loads the hypothesis profile
from command_line import Ended, run_command
from hypothesis import given, settings
from lines import TOP, Line, line, lines, made, prefix
from small_dataset import AT_DE, CLAIMS, CN, CN_CN_US, CN_HK, DE

from geolookup import Dataset, SourceError, Status
from geolookup.answer.claims import NO_COUNTRY, UNASSIGNED, Claim
from geolookup.answer.dataset import encode
from geolookup.answer.embedded_ipv4 import EMBEDDED_6TO4
from geolookup.build.manifest import load, load_canaries, load_limits
from geolookup.change_limits import LimitError, read_limited, read_share
from geolookup.review.difference import (
    LARGEST,
    SMALL,
    UNIT,
    Difference,
    Family,
    FamilyDifference,
    Weight,
    compare,
    percent,
)

ROOT = Path(__file__).resolve().parents[2]


def ipv4(old: Line, new: Line) -> FamilyDifference:
    return compare(made(old), made(new)).families[0]


# --- against slow and obvious counting ------------------------------------------------


def said(found: Line, address: int) -> tuple[str, Status | None, tuple[str, ...]]:
    claim = found[max(start for start in found if start <= address)]
    if claim == EMBEDDED_6TO4:
        return NO_COUNTRY, None, ()
    return CLAIMS[claim].country, CLAIMS[claim].status, CLAIMS[claim].claimed


def pieces(old: Line, new: Line, family: Family) -> list[tuple[int, int, object, object]]:
    """Return (first, end, said before, said now), neighbours of which the same is said joined."""
    edges = [*sorted({*old, *new}), TOP[family]]
    found: list[tuple[int, int, object, object]] = []
    for first, end in pairwise(edges):
        states = said(old, first), said(new, first)
        if found and found[-1][2:] == states:
            found[-1] = (found[-1][0], end, *states)
        else:
            found.append((first, end, *states))
    return found


def prefixes(first: int, end: int, family: Family) -> int:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return sum(1 for _ in ipaddress.summarize_address_range(kind(first), kind(end - 1)))


def check_family(old: Line, new: Line, family: Family, found: FamilyDifference) -> None:
    before, gained, lost = Counter[str](), Counter[str](), Counter[str]()
    before_prefixes, flows = Counter[str](), Counter[tuple[str, str]]()
    disputed, became = Counter[str](), 0
    for first, end, was, is_ in pieces(old, new, family):
        assert isinstance(was, tuple)
        assert isinstance(is_, tuple)
        if was[1] is is_[1] is None:
            continue
        size, count = end - first, prefixes(first, end, family)
        before[was[0]] += size
        before_prefixes[was[0]] += count
        if was[0] != is_[0]:
            lost[was[0]] += size
            gained[is_[0]] += size
            flows[was[0], is_[0]] += count
        if is_[1] is Status.DISPUTED and was[1] is not Status.DISPUTED:
            became += size
            disputed.update(dict.fromkeys(is_[2], size))
    assert {
        c: (x.before, x.gained.addresses, x.lost.addresses) for c, x in found.codes.items()
    } == {
        code: (Weight(before[code], before_prefixes[code]), gained[code], lost[code])
        for code in {*before, *gained, *disputed} - {NO_COUNTRY}
    }
    assert found.newly_disputed.addresses == became
    for code, change in found.codes.items():
        assert change.newly_disputed.addresses == disputed[code]
        assert {to: w.prefixes for to, w in change.lost_to.items()} == {
            to: count for (since, to), count in flows.items() if since == code
        }
        assert {since: w.prefixes for since, w in change.gained_from.items()} == {
            since: count for (since, to), count in flows.items() if to == code
        }
        assert change.after.addresses == before[code] + gained[code] - lost[code]
    assert found.moved.addresses == sum(gained.values())


@given(lines(4), lines(4))
def test_ipv4_counts_agree_with_counting_each_address(old: Line, new: Line) -> None:
    check_family(old, new, 4, compare(made(old), made(new)).families[0])


@settings(max_examples=40)  # the slow counting is slow
@given(lines(6), lines(6))
def test_ipv6_counts_agree_with_counting_each_address(old: Line, new: Line) -> None:
    check_family(old, new, 6, compare(made(None, old), made(None, new)).families[1])


@given(lines(4))
def test_dataset_compared_with_itself_has_no_difference(one: Line) -> None:
    found = ipv4(one, one)
    assert found.moved == found.newly_disputed == found.no_longer_disputed == Weight()
    assert found.largest == ()
    assert not Difference("", "", (found,)).exceeded({"*": Fraction(0), "DISPUTED": Fraction(0)})


# --- what counts as what --------------------------------------------------------------


def test_gains_and_losses_name_the_other_code() -> None:
    found = ipv4(
        line(("1.0.0.0/8", CN), ("2.0.0.0/8", DE)),
        line(("1.0.0.0/8", CN), ("1.0.0.0/16", DE), ("1.1.0.0/16", UNASSIGNED), ("3.0.0.0/8", CN)),
    )
    china = found.codes["CN"]
    assert china.before.addresses == 1 << 24
    assert china.lost == Weight(2 << 16, 2)
    assert china.lost_to == {"DE": Weight(1 << 16, 1), "ZZ": Weight(1 << 16, 1)}
    assert china.gained_from == {"ZZ": Weight(1 << 24, 1)}
    assert china.change == Fraction((2 << 16) + (1 << 24), 1 << 24)
    assert found.codes["DE"].lost_to == {"ZZ": Weight(1 << 24, 1)}
    assert "ZZ" not in found.codes


def test_new_code_has_no_share() -> None:
    assert ipv4(line(), line(("1.0.0.0/8", CN))).codes["CN"].change is None


def test_dispute_with_more_codes_is_not_newly_disputed() -> None:
    found = ipv4(line(("1.0.0.0/8", CN_HK)), line(("1.0.0.0/8", AT_DE)))
    assert found.newly_disputed == Weight()
    assert found.moved.addresses == 1 << 24


def test_newly_disputed_counts_for_all_claimed_codes() -> None:
    found = ipv4(line(("1.0.0.0/8", DE)), line(("1.0.0.0/8", AT_DE)))
    assert {code: c.newly_disputed.addresses for code, c in found.codes.items()} == {
        "AT": 1 << 24,
        "DE": 1 << 24,
    }
    back = ipv4(line(("1.0.0.0/8", AT_DE)), line(("1.0.0.0/8", DE)))
    assert (back.newly_disputed, back.no_longer_disputed.addresses) == (Weight(), 1 << 24)


def test_claims_with_other_numbers_are_the_same_claims() -> None:
    """The compiler numbers claims anew each time."""
    more = (*CLAIMS[:CN], Claim(Status.ASSIGNED, "AD", (("AD", 2),)), *CLAIMS[CN:])
    found = compare(
        made(line(("1.0.0.0/8", CN))), made(line(("1.0.0.0/8", CN + 1)), claims=more)
    ).families[0]
    assert found.moved == Weight()
    assert list(found.codes) == ["CN"]


def test_addresses_that_carry_others_are_not_counted() -> None:
    old = made(None, line(("2002::/16", EMBEDDED_6TO4), ("2001:200::/32", CN), family=6))
    assert sum(w.addresses for w in compare(old, old).families[1].pieces.values()) == (
        (1 << 128) - (1 << 112)
    )


def test_moves_are_merged_and_sorted_by_size() -> None:
    singles = [(f"8.0.{i}.0/32", CN) for i in range(LARGEST + 5)]
    old = line(("1.0.0.0/8", AT_DE))
    new = line(("1.0.0.0/9", CN), ("1.128.0.0/9", CN_CN_US), *singles)
    found = ipv4(old, new).largest
    assert len(found) == LARGEST
    first, end = prefix("1.0.0.0/8")
    assert found[0] == (first, end - 1, "AT", "CN")
    # Of equal ones the lowest.
    assert [moved.first for moved in found[1:]] == [prefix(text)[0] for text, _ in singles][
        : LARGEST - 1
    ]


# --- limits ---------------------------------------------------------------------------


def exceeded(old: Line, new: Line, **limits: str) -> list[str]:
    max_change = {key.replace("EVERY", "*"): read_share(text) for key, text in limits.items()}
    return [one.about for one in compare(made(old), made(new)).exceeded(max_change)]


def test_limit_is_exceeded_above_its_value_only() -> None:
    old = line(("1.0.0.0/8", CN))
    new = line(("1.0.0.0/8", CN), ("1.0.0.0/16", DE))
    assert exceeded(old, new, CN="0.390625%") == []  # just 1/256
    assert exceeded(old, new, CN="0.390624%") == ["CN"]
    assert exceeded(old, new, HK="0%") == []


def test_limit_of_one_code_overrides_that_of_every_code() -> None:
    old = line(("1.0.0.0/8", CN), ("2.0.0.0/8", DE))
    new = line(("1.0.0.0/8", DE), ("2.0.0.0/8", CN))
    assert exceeded(old, new, EVERY="0%") == ["CN", "DE"]
    assert exceeded(old, new, EVERY="0%", CN="200%") == ["DE"]
    assert exceeded(old, new, EVERY="200%", CN="100%") == ["CN"]


def test_limit_of_every_code_counts_small_codes_as_larger() -> None:
    old, new = line(("1.0.0.0/24", CN)), line(("1.0.0.0/24", CN), ("1.0.1.0/24", CN))
    assert SMALL == 256 * 256
    assert exceeded(old, new, EVERY="0.390625%") == []
    assert exceeded(old, new, EVERY="0.39%") == ["CN"]
    assert exceeded(old, new, CN="99%") == ["CN"]
    assert exceeded(line(), old, CN="1000%") == ["CN"], "it appeared from nothing"


def test_disputes_can_be_limited() -> None:
    old, new = line(("1.0.0.0/8", DE)), line(("1.0.0.0/8", DE), ("1.0.0.0/16", small_dataset.AT_DE))
    assert exceeded(old, new, DISPUTED="0.39%") == ["DISPUTED"]
    assert exceeded(new, old, DISPUTED="0.39%") == ["DISPUTED"]
    assert exceeded(old, new, DISPUTED="0.390625%") == []


def test_each_family_is_held_to_the_limit() -> None:
    old = made(line(("1.0.0.0/8", CN)), line(("2001:200::/32", CN), family=6))
    new = made(line(("1.0.0.0/8", CN)), line(("2001:200::/33", CN), family=6))
    assert [
        (one.family, one.about) for one in compare(old, new).exceeded({"CN": Fraction(1, 4)})
    ] == [(6, "CN")]
    assert UNIT[6] * SMALL == 1 << 96, "an IPv6 /32"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0.5%", Fraction(1, 200)),
        ("0.5 %", Fraction(1, 200)),
        ("5%", Fraction(1, 20)),
        ("0.25", Fraction(1, 4)),
        ("0.999999", Fraction(999_999, 1_000_000)),
        ("100%", Fraction(1)),
        ("500%", Fraction(5)),
        ("0", Fraction(0)),
    ],
)
def test_share_is_read(text: str, share: Fraction) -> None:
    assert read_share(text) == share


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "-1%",
        "1e5",
        "nan",
        "1.%",
        ".5",
        "٣%",
        "1 000",
        "192.0.2.7",
        "1",
        "1.0",
        "5",
        "80",
        "500",
    ],
)
def test_malformed_share_is_refused(text: str) -> None:
    with pytest.raises(LimitError) as caught:
        read_share(text)
    assert "192.0.2.7" not in str(caught.value)


@pytest.mark.parametrize("text", ["cn", "EU", "ZZ", "", "**", "disputed", "192.0.2.7"])
def test_limit_on_an_invalid_code_is_refused(text: str) -> None:
    with pytest.raises(LimitError):
        read_limited(text)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Fraction(0), "0 %"),
        (Fraction(1, 3), "33.33 %"),
        (Fraction(1, 30), "3.333 %"),
        (Fraction(995, 1000), "99.5 %"),
        (Fraction(5004, 1_000_000), "0.5004 %"),
        (Fraction(1, 200), "0.5 %"),
        (Fraction(1, 100_000), "0.001 %"),
        (Fraction(20), "2,000 %"),
    ],
)
def test_percent_is_formatted(share: Fraction, text: str) -> None:
    assert percent(share) == text


# --- the command ----------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    old, new = tmp_path / "old.geolookup", tmp_path / "new.geolookup"
    content = small_dataset.content()
    old.write_bytes(encode(content))
    claims = array("H", content.ipv4_claims)
    at = claims.index(DE)
    claims[at] = CN
    content.ipv4_claims = claims.tobytes()
    new.write_bytes(encode(content))
    return str(old), str(new)


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(run_command, capsys, "diff")


def test_command_without_limits_prints_and_exits_with_0(run: Run, files: tuple[str, str]) -> None:
    code, out, err = run(*files)
    assert (code, err) == (0, "")
    assert "2.0.0.0 - 2.255.255.255  DE      CN   16,777,216" in out


def test_command_with_an_exceeded_limit_prints_and_exits_with_1(
    run: Run, files: tuple[str, str]
) -> None:
    code, out, err = run(*files, "--max-change", "DE=99.5%", "--max-change", "US=0%")
    assert code == 1
    assert err == (
        f"geolookup: {files[1]}: changed too much: "
        "DE changed by 100 % in IPv4, allowed are 99.5 %\n"
    )
    assert "LARGEST MOVES" in out
    assert run(*files, "--max-change", "DE=100%")[0] == 0


def test_json_has_the_whole_difference(run: Run, files: tuple[str, str]) -> None:
    code, out, _ = run(*files, "--json", "--max-change", "DE=1%")
    found = json.loads(out)
    assert code == 1
    assert [one["about"] for one in found["exceeded"]] == ["DE"]
    assert found["ipv4"]["codes"]["DE"]["lost_to"] == {"CN": {"size": 1 << 24, "prefixes": 1}}
    assert found["ipv4"]["largest"] == [
        {
            "first": "2.0.0.0",
            "last": "2.255.255.255",
            "before": "DE",
            "after": "CN",
            "size": 1 << 24,
        }
    ]
    assert found["ipv6"]["unit"] == "/48"
    assert found["ipv6"]["codes"] == {}


def test_limits_of_the_command_line_override_the_manifest(
    run: Run, files: tuple[str, str], tmp_path: Path
) -> None:
    manifest = tmp_path / "geolookup.toml"
    manifest.write_text('[limits]\nmax_change = { DE = "1%", "*" = "3000%" }\n')
    assert run(*files, "--manifest", str(manifest))[0] == 1
    assert run(*files, "--manifest", str(manifest), "--max-change", "DE=100%")[0] == 0


@pytest.mark.parametrize(
    "text", ["CN", "=1%", "CN=", "cn=1%", "203.0.113.77=1%", "CN=203.0.113.77", "CN=5"]
)
def test_invalid_limit_is_wrong_usage(run: Run, files: tuple[str, str], text: str) -> None:
    code, _, err = run(*files, "--max-change", "DE=1%", "--max-change", text)
    assert code == 2
    assert "--max-change, number 2: " in err
    assert "203.0.113.77" not in err


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_file_is_exit_code_3(run: Run, files: tuple[str, str], which: int) -> None:
    Path(files[which]).write_bytes(b"no dataset")
    code, _, err = run(*files)
    assert code == 3
    assert files[which] in err


def test_two_embedded_datasets_are_compared_in_seconds(dataset: Dataset) -> None:
    """The largest there is: half a million intervals of each family in all."""
    told: list[int] = []
    found = compare(dataset, dataset, progress=lambda done, total: told.append(total - done))
    assert not found.families[0].moved.addresses
    assert len(found.families[0].codes) > 200
    assert told == sorted(told, reverse=True)
    assert told[-1] == 0


def test_process_with_an_exceeded_limit_exits_with_1(files: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", "diff", *files, "--max-change", "*=1%"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1


# --- limits in a manifest -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("limits = 1", "limits: expected a table"),
        ("[limits]\nmax = 1", "limits: max: unknown key"),
        ('[limits]\nmax_change = "1%"', "limits: max_change: expected a table"),
        ("[limits]\nmax_change = { CN = 1 }", "limits: max_change: CN: expected a text"),
        ('[limits]\nmax_change = { CN = "a lot" }', "limits: max_change: CN: expected a share"),
        ('[limits]\nmax_change = { cn = "1%" }', "limits: max_change: cn: expected a country's"),
        ('[limits]\nmax_change = { "203.0.113.77" = "1%" }', "limits: max_change: a key: expected"),
        ("[limits]\nmin_coverage = 0.5", "limits: min_coverage: expected a text"),
        (
            '[limits]\nmax_change = { "*" = "5" }',
            "limits: max_change: a key: a number of 1 or more",
        ),
        ('[limits]\nmin_coverage = "80"', "limits: min_coverage: a number of 1 or more"),
        ('[limits]\nmin_coverage = "100.1%"', "limits: min_coverage: there is no more than 100%"),
        ('[limits]\nmin_coverage = "half"', "limits: min_coverage: expected a share"),
        ('canaries = "203.0.113.77.csv"', "canaries: there is no file"),
        ("canaries = []", "canaries: expected a text"),
    ],
)
def test_invalid_limits_and_canaries_are_refused_with_the_key(
    tmp_path: Path, text: str, what: str
) -> None:
    path = tmp_path / "geolookup.toml"
    path.write_text(f'{text}\n[[override]]\nprefix = "10.0.0.0/8"\ncode = "DE"\n')
    for read in (load, load_canaries if "canaries" in text else load_limits):
        with pytest.raises(SourceError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {what}")


def test_a_manifest_holds_limits_and_canaries(tmp_path: Path) -> None:
    path = tmp_path / "geolookup.toml"
    (tmp_path / "canaries.csv").write_text("1.0.1.1,CN\n")
    path.write_text(
        'canaries = "canaries.csv"\n'
        "[limits]\n"
        'max_change = { CN = "0.5%", "*" = "5%", DISPUTED = "0.01" }\n'
        'min_coverage = "80%"\n'
        '[[override]]\nprefix = "10.0.0.0/8"\ncode = "DE"\n'
    )
    loaded = load(path)
    assert loaded.limits == load_limits(path)
    assert loaded.limits.max_change == {
        "CN": Fraction(1, 200),
        "*": Fraction(1, 20),
        "DISPUTED": Fraction(1, 100),
    }
    assert loaded.limits.min_coverage == Fraction(4, 5)
    assert loaded.canaries == load_canaries(path) == tmp_path / "canaries.csv"
