"""Verifying a dataset: what is unsound or implausible is found, and canaries stay unnamed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import date
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import small_dataset
from command_line import Ended, run_command
from small_dataset import PREFIXES

from geolookup import Dataset, DatasetError, SourceError, Status
from geolookup.answer.claims import INVALID, UNASSIGNED
from geolookup.answer.dataset import encode
from geolookup.answer.dataset import open as open_dataset
from geolookup.cli import main
from geolookup.review.verification import read_canaries, verify

HIDDEN4, HIDDEN6 = "1.0.1.77", "2001:200::77"
OPTIONAL = {"extra": bytes(range(256)) * 4}

Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(run_command, capsys, "verify")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.geolookup"
    path.write_bytes(encode(small_dataset.content(), optional=OPTIONAL))
    return path


@pytest.fixture
def small() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


def with_expiring(path: Path, *expires: str) -> Path:
    """Write a dataset whose manifest had an override for each last day."""
    content = small_dataset.content()
    content.metadata["expiring_overrides"] = [
        {"number": number, "expires": day, "comment": f"office {number}"}
        for number, day in enumerate(expires, start=1)
    ]
    path.write_bytes(encode(content))
    return path


# --- overrides that have expired ------------------------------------------------------


@pytest.mark.parametrize(
    ("today", "expected"),
    [("2026-06-01", []), ("2026-06-02", [1]), ("2026-06-03", [1, 2]), ("2030-01-01", [1, 2])],
)
def test_an_override_has_expired_from_the_day_after_its_last(
    tmp_path: Path, today: str, expected: list[int]
) -> None:
    path = with_expiring(tmp_path / "ours.geolookup", "2026-06-01", "2026-06-02", "9999-12-31")
    with open_dataset(path) as dataset:
        expired = dataset.expired_overrides(date.fromisoformat(today))
        assert [one.number for one in expired] == expected
        assert [one.number for one in dataset.expiring_overrides] == [1, 2, 3]


def test_overrides_that_have_expired_are_named_and_are_no_failure(run: Run, tmp_path: Path) -> None:
    path = with_expiring(tmp_path / "ours.geolookup", "2001-01-01", "9999-12-31")
    code, out, err = run(str(path), "--min-coverage", "0")
    assert (code, err) == (0, "")
    assert "override 1 (office 1): expired after 2001-01-01" in out
    assert "office 2" not in out
    code, out, _ = run(str(path), "--min-coverage", "0", "--json")
    assert json.loads(out)["expired_overrides"] == [
        {"number": 1, "expires": "2001-01-01", "comment": "office 1"}
    ]


def test_info_names_overrides_that_have_expired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_expiring(tmp_path / "ours.geolookup", "2001-01-01", "9999-12-31")
    with pytest.raises(SystemExit):
        main(["info", "--dataset", str(path)])
    shown = capsys.readouterr().out
    assert re.search(r"^1 +2001-01-01 +office 1$", shown, re.M)
    assert "office 2" not in shown


def test_dataset_without_expiring_overrides_lists_none(run: Run, path: Path) -> None:
    _, out, _ = run(str(path), "--min-coverage", "0")
    assert "expired" not in out


# --- the file -------------------------------------------------------------------------


def test_sound_dataset_exits_with_0(run: Run, path: Path) -> None:
    code, out, err = run(str(path), "--min-coverage", "2%")
    assert (code, err) == (0, "")
    assert "14 sections" in out


def test_sections_not_checked_on_opening_are_verified(run: Run, path: Path) -> None:
    image = bytearray(path.read_bytes())
    image[image.index(OPTIONAL["extra"]) + 500] ^= 1
    path.write_bytes(image)
    Dataset.from_buffer(bytes(image)).close()  # opening it does not show it
    code, _, err = run(str(path), "--min-coverage", "0")
    assert code == 3
    assert "section extra" in err


def test_each_damaged_byte_is_exit_code_3(run: Run, path: Path) -> None:
    image = path.read_bytes()
    rng = random.Random(3)
    for at in [0, 4095, 4096, len(image) - 1, *(rng.randrange(len(image)) for _ in range(60))]:
        changed = bytearray(image)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert run(str(path), "--min-coverage", "0")[0] == 3, at


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 5000])
def test_a_truncated_file_is_exit_code_3(run: Run, path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert run(str(path))[0] == 3


def test_a_missing_file_is_exit_code_3(run: Run, tmp_path: Path) -> None:
    assert run(str(tmp_path / "nothing"))[0] == 3


TOP4, TOP6 = (1 << 32) - 1, (1 << 128) - 1


@pytest.mark.parametrize(
    ("ipv4", "what"),
    [
        ([(0, 9, UNASSIGNED), (11, TOP4, UNASSIGNED)], "interval 2 does not begin"),
        ([(0, 9, UNASSIGNED), (9, TOP4, UNASSIGNED)], "interval 2 does not begin"),
        ([(1, TOP4, UNASSIGNED)], "interval 1 does not begin"),
        ([(0, TOP4 - 1, UNASSIGNED)], "the last interval does not end"),
        ([], "the last interval does not end"),
        ([(0, TOP4, INVALID)], "interval 1 is INVALID"),
        ([(0, TOP4, 12)], "interval 1 has a claim that there is not"),
        ([(0, TOP4, 0xFFFF)], "interval 1 has a claim that there is not"),
    ],
)
def test_gap_between_intervals_is_found(
    small: Dataset, monkeypatch: pytest.MonkeyPatch, ipv4: list[tuple[int, int, int]], what: str
) -> None:
    """Opening refuses such files; this holds even where it should not."""
    monkeypatch.setattr(
        Dataset, "intervals", lambda _, f: iter(ipv4 if f == 4 else [(0, TOP6, UNASSIGNED)])
    )
    with pytest.raises(DatasetError, match=f"^IPv4: {what}"):
        verify(small)


# --- coverage -------------------------------------------------------------------------


def test_coverage_is_the_share_of_the_space_that_can_have_a_country(small: Dataset) -> None:
    ipv4, ipv6 = verify(small).coverage
    countries = 256 + 6 * (1 << 24) + (1 << 16)  # of the overrides one has a country
    assert ipv4.answered == countries
    assert ipv4.space == (1 << 32) - ((1 << 24) - (2 << 16))
    assert (ipv4.codes, ipv4.intervals) == (6, len(list(small.intervals(4))))
    assert ipv4.statuses[Status.OVERRIDE] == 2 << 16
    assert Status.SPECIAL_PURPOSE not in ipv4.statuses
    assert sum(ipv4.statuses.values()) == ipv4.space
    assert ipv6.space == (1 << 125) - (1 << 96) - (1 << 112), "without Teredo and 6to4"
    assert ipv6.answered == (1 << 96) + (1 << 64)
    assert ipv6.codes == 3
    assert any("2001:200::/32" in prefix for prefix in PREFIXES)


def test_dataset_of_little_coverage_fails(run: Run, path: Path) -> None:
    code, out, err = run(str(path))
    assert code == 1
    assert "% of the IPv4 space has a country, expected are at least 50.00%" in err
    assert "IPv4" in out


def test_coverage_equal_to_the_minimum_passes(small: Dataset) -> None:
    share = verify(small).coverage[0].share
    assert not verify(small, min_coverage=share).failures
    (failure,) = verify(small, min_coverage=share + Fraction(1, 1 << 64)).failures
    found, expected = re.findall(r"([\d.]+)%", failure)
    assert float(found) <= float(expected)


@pytest.mark.parametrize("text", ["", "half", "-1%", "80", "101%"])
def test_invalid_coverage_is_wrong_usage(run: Run, path: Path, text: str) -> None:
    code, _, err = run(str(path), "--min-coverage", text)
    assert code == 2
    assert "--min-coverage" in err


def test_the_embedded_dataset_passes(dataset: Dataset) -> None:
    told: list[tuple[int, int]] = []
    found = verify(dataset, progress=lambda *done: told.append(done))
    assert found.failures == ()
    assert found.coverage[0].codes > 200
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


# --- canaries -------------------------------------------------------------------------


@pytest.fixture
def canaries(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "canaries.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


ALIVE = (
    "\ufeffaddress,code\r\n"
    "# ours\n"
    "\n"
    f"{HIDDEN4},CN\n"
    "3.0.0.1, HK\n"
    "3.0.0.1,DISPUTED\n"
    '"10.0.0.1","SPECIAL_PURPOSE"\n'
    "10.1.0.1,OVERRIDE\n"
    "200.0.0.1,ZZ\n"
    "200.0.0.1,UNASSIGNED\n"
    "2002:200:1::,DE"
)


def test_a_printed_canary_does_not_show_its_address(canaries: Callable[..., Path]) -> None:
    (canary,) = read_canaries(canaries(f"{HIDDEN4},CN\n"))
    assert canary.address == bytes([1, 0, 1, 77])
    assert repr(canary.address) not in repr(canary)
    assert HIDDEN4 not in repr(canary)


def test_matching_canaries_pass(run: Run, path: Path, canaries: Callable[..., Path]) -> None:
    code, out, err = run(str(path), "--min-coverage", "0", "--canaries", str(canaries(ALIVE)))
    assert (code, err) == (0, "")
    assert "8 of 8 as expected" in out


def test_mismatched_canary_is_named_by_its_line(
    run: Run, path: Path, canaries: Callable[..., Path]
) -> None:
    file = canaries(f"# ours\n{HIDDEN4},US\n2.0.0.1,DE\n{HIDDEN6},ZZ\n3.0.0.1,ASSIGNED\n")
    code, out, err = run(str(path), "--min-coverage", "0", "--canaries", str(file))
    assert code == 1
    assert f"{file}:2: expected US, found CN (ASSIGNED)" in err
    assert f"{file}:4: expected ZZ, found CN (ASSIGNED)" in err
    assert f"{file}:5: expected ASSIGNED, found HK (DISPUTED)" in err
    assert "1 of 4 as expected" in out
    code, out, err = run(str(path), "--min-coverage", "0", "--canaries", str(file), "--json")
    found = json.loads(out)
    assert code == 1
    assert found["mismatched"][0] == {
        "line": 2,
        "expected": "US",
        "expected_networks": None,
        "country": "CN",
        "status": "ASSIGNED",
        "networks": [],
    }
    assert not [hidden for hidden in (HIDDEN4, HIDDEN6) if hidden in out + err]


def test_canaries_in_toml_are_named_by_their_lines_too(
    run: Run, path: Path, canaries: Callable[..., Path]
) -> None:
    file = canaries(
        f'[[canary]]\naddress = "2.0.0.1"\ncode = "DE"\ncomment = "ours"\n\n'
        f'[[canary]]\naddress = "{HIDDEN4}"\ncode = "HK"\n',
        "canaries.toml",
    )
    code, _, err = run(str(path), "--min-coverage", "0", "--canaries", str(file))
    assert code == 1
    assert f"{file}:6: expected HK, found CN (ASSIGNED)" in err
    assert HIDDEN4 not in err


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("c.csv", f"{HIDDEN4}\n", "c.csv:1: expected address,code"),
        ("c.csv", f"1.0.0.1,CN\n{HIDDEN4},CN,more\n", "c.csv:2: networks: expected none"),
        ("c.csv", f"{HIDDEN4}:80,CN\n", "c.csv:1: address: not an address"),
        ("c.csv", f"{HIDDEN4}/24,CN\n", "c.csv:1: address: not an address"),
        ("c.csv", f"{HIDDEN6}%eth0,CN\n", "c.csv:1: address: not an address"),
        ("c.csv", f"1.0.0.1,CN\naddress,code\n{HIDDEN4},CN\n", "c.csv:2: address: not an"),
        ("c.csv", f"{HIDDEN4},cn\n", "c.csv:1: code: expected a country's code"),
        ("c.csv", f"{HIDDEN4},EU\n", "c.csv:1: code: expected a country's code"),
        ("c.csv", f"{HIDDEN4},INVALID\n", "c.csv:1: code: expected a country's code"),
        ("c.csv", f"CN,{HIDDEN4}\n", "c.csv:1: address: not an address"),
        ("c.csv", "# nothing\n\n", "c.csv: holds no canary"),
        ("c.csv", b"1.0.0.1,\xff\n", "c.csv: not UTF-8"),
        ("c.toml", f'[[canary]]\naddress = "{HIDDEN4}"\n', "c.toml: canary 1: code: missing"),
        (
            "c.toml",
            f'\n[[canary]]\naddress = "{HIDDEN4}x"\ncode = "CN"\n',
            "c.toml:2: address: not",
        ),
        ("c.toml", f'[[canary]]\n"{HIDDEN4}" = "CN"\n', "c.toml: canary 1: a key: unknown key"),
        ("c.toml", f'canary = "{HIDDEN4}"\n', "c.toml: canary: expected a list"),
        (
            "c.toml",
            f'canary = ["{HIDDEN4}"]\n',
            "c.toml: canary: expected tables, each under [[canary]]",
        ),
        ("c.toml", f'"{HIDDEN4}" = 1\n', "c.toml: a key: unknown key; expected canary"),
        ("c.toml", f"[[canary]]\naddress = {HIDDEN4}\n", "c.toml:2:"),
        ("c.toml", f'[["{HIDDEN4}"]]\n[["{HIDDEN4}"]]\n["{HIDDEN4}"]\n', "c.toml:3:"),
    ],
)
def test_invalid_canary_file_is_refused(
    canaries: Callable[..., Path], name: str, content: str | bytes, what: str
) -> None:
    with pytest.raises(SourceError) as caught:
        read_canaries(canaries(content, name))
    assert what in str(caught.value)
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert not [hidden for hidden in (HIDDEN4, HIDDEN6) if hidden in shown]


def test_a_manifest_may_name_canaries_and_coverage(
    run: Run, path: Path, canaries: Callable[..., Path]
) -> None:
    canaries(f"{HIDDEN4},US\n")
    manifest = canaries('canaries = "canaries.csv"\n[limits]\nmin_coverage = "1%"\n', "m.toml")
    code, _, err = run(str(path), "--manifest", str(manifest))
    assert code == 1
    assert "canaries.csv:1: expected US" in err
    assert "IPv4 space" not in err
    alive = canaries(f"{HIDDEN4},CN\n", "other.csv")
    assert run(str(path), "--manifest", str(manifest), "--canaries", str(alive))[0] == 0
    code, _, err = run(
        str(path), "--manifest", str(manifest), "--canaries", str(alive), "--min-coverage", "99%"
    )
    assert (code, "IPv4 space" in err) == (1, True)
