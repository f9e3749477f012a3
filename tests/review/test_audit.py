"""``geolookup audit``: what holds, what does not, what can't be checked, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import small_dataset
from click.testing import CliRunner

import geolookup.answer.dataset
from geolookup import Dataset, Policy, RegionSet
from geolookup.answer import decision_record
from geolookup.answer.decision_record import DecisionRecord
from geolookup.answer.region_sets import MAX_EXPRESSION, RegionSets
from geolookup.answer.subdivisions import subdivisions
from geolookup.cli import command

ROSTER = ["1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1", "1.2.3", "2001:200::1"]
HOLDS, FAILS, NOT_CHECKED = "holds", "does not hold", "not checked"
OWN = """
[region_sets.DACH]
codes = ["DE", "AT", "CH"]
version = "2026-01-01"
source = "our legal department"
"""


def made(dataset: Dataset, region_set: str = "CN", **options: Any) -> DecisionRecord:
    result = dataset.classify(ROSTER, region_set=region_set, record=True, **options).record
    assert result is not None
    return result


def audit(*arguments: object) -> tuple[int, str]:
    """Run the command, and return its exit code and what it printed."""
    done = CliRunner().invoke(
        command, ["audit", *map(str, arguments)], standalone_mode=False, catch_exceptions=False
    )
    return done.return_value, done.output


def outcomes(path: Path, *arguments: object) -> tuple[int, dict[str, str]]:
    """Return the exit code, and what came of each check of a file's one record."""
    code, output = audit(path, "--json", *arguments)
    (audited,) = json.loads(output)
    return code, {check["name"]: check["outcome"] for check in audited["checks"]}


def kept(folder: Path, one: DecisionRecord) -> Path:
    path = folder / "record.json"
    decision_record.write(path, [one])
    return path


def altered(path: Path, **values: object) -> None:
    """Change a record in its file together with its digest, as somebody would who means it."""
    plain = json.loads(path.read_text()) | values
    del plain["digest"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    import hashlib  # noqa: PLC0415 - only here

    path.write_text(json.dumps(plain | {"digest": hashlib.sha256(text.encode()).hexdigest()}))


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "roster.txt"
    path.write_text("\n".join(ROSTER))
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A dataset file that is not the embedded one."""
    path = tmp_path / "other.geolookup"
    geolookup.answer.dataset.write(small_dataset.content(), path)
    return path


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("region_set", ["CN", "EEA-NO", "ASIA+TW"])
def test_unchanged_record_holds(
    dataset: Dataset, tmp_path: Path, roster: Path, region_set: str, policy: Policy
) -> None:
    path = kept(tmp_path, made(dataset, region_set, policy=policy).with_reference("17/26"))
    code, checks = outcomes(path, "--roster", roster)
    assert (code, set(checks.values())) == (0, {HOLDS})
    assert list(checks) == ["record", "time", "region set", "dataset", "roster"]


def test_text_output_lists_the_outcomes(dataset: Dataset, tmp_path: Path, roster: Path) -> None:
    code, output = audit(kept(tmp_path, made(dataset)), "--roster", roster)
    assert code == 0
    assert output.endswith("1 record: 1 holds\n")
    assert all(line.endswith("holds") for line in output.splitlines()[1:6])


def test_record_with_a_changed_value_fails_its_digest(dataset: Dataset, tmp_path: Path) -> None:
    path = kept(tmp_path, made(dataset))
    path.write_text(path.read_text().replace('"CN"', '"TW"'))
    assert outcomes(path) == (1, {"record": FAILS})


def test_record_with_a_recomputed_digest_fails_against_the_roster(
    dataset: Dataset, tmp_path: Path, roster: Path
) -> None:
    one = made(dataset)
    path = kept(tmp_path, one)
    altered(path, inside=one.inside + 1, outside=one.outside - 1)
    code, checks = outcomes(path)
    assert (code, checks["record"]) == (0, HOLDS)  # nobody can see it without the roster
    code, output = audit(path, "--roster", roster)
    assert code == 1
    assert f"inside: {one.inside + 1} recorded, {one.inside} counted" in output


def test_record_with_other_codes_fails(dataset: Dataset, tmp_path: Path) -> None:
    path = kept(tmp_path, made(dataset))
    altered(path, codes=["CN", "TW"])
    code, checks = outcomes(path)
    assert (code, checks["region set"]) == (1, FAILS)


@pytest.mark.parametrize(
    "time", [datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)]
)
def test_record_of_an_impossible_time_fails(
    dataset: Dataset, tmp_path: Path, time: datetime
) -> None:
    path = kept(tmp_path, replace(made(dataset), time=time.replace(microsecond=0)))
    code, checks = outcomes(path)
    assert (code, checks["time"]) == (1, FAILS)


def test_record_of_another_build_time_fails(dataset: Dataset, tmp_path: Path) -> None:
    path = kept(tmp_path, made(dataset))
    altered(path, dataset_built="2020-01-01T00:00:00Z")
    code, checks = outcomes(path)
    assert (code, checks["dataset"]) == (1, FAILS)


def test_record_of_another_dataset_fails(
    dataset: Dataset, tmp_path: Path, roster: Path, other: Path
) -> None:
    with geolookup.open(other) as opened:
        elsewhere = kept(tmp_path, made(opened))
    # Not asked for, so that nothing is wrong with the record ...
    code, checks = outcomes(elsewhere)
    assert (code, checks["dataset"]) == (0, NOT_CHECKED)
    # ... but a replay needs it.
    code, checks = outcomes(elsewhere, "--roster", roster)
    assert (code, checks["roster"]) == (2, NOT_CHECKED)
    assert outcomes(elsewhere, "--roster", roster, "--dataset", other)[0] == 0
    ours = kept(tmp_path, made(dataset))
    code, checks = outcomes(ours, "--dataset", other)
    assert (code, checks["dataset"]) == (1, FAILS)


def test_record_of_an_operators_region_set_holds(tmp_path: Path, roster: Path) -> None:
    sets = tmp_path / "sets.toml"
    sets.write_text(OWN)
    with geolookup.open(region_sets=sets) as dataset:
        path = kept(tmp_path, made(dataset, "DACH-CH"))
    code, checks = outcomes(path, "--roster", roster)
    assert (code, checks["region set"], checks["roster"]) == (2, NOT_CHECKED, HOLDS)
    assert outcomes(path, "--region-sets", sets)[0] == 0
    # The definition has moved on, so it can't be said what this one was.
    sets.write_text(OWN.replace('"AT"', '"LI"').replace("2026-01-01", "2026-02-02"))
    code, output = audit(path, "--region-sets", sets)
    assert code == 2
    assert "it was of version DACH 2026-01-01, here it is DACH 2026-02-02" in output


def test_roster_in_a_csv_file_is_replayed(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text("name,ip\n" + "".join(f"p{i},{text}\n" for i, text in enumerate(ROSTER)))
    code, checks = outcomes(kept(tmp_path, made(dataset)), "--roster", path, "--column", "ip")
    assert (code, checks["roster"]) == (0, HOLDS)


def test_record_of_another_roster_fails_without_showing_it(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "roster.txt"
    path.write_text("1.0.1.1\n")
    code, output = audit(kept(tmp_path, made(dataset)), "--roster", path)
    assert code == 1
    assert "size: 6 recorded, 1 counted" in output
    assert not any(address in output for address in ROSTER)


def test_exit_code_is_that_of_the_worst_record(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    one = made(dataset)
    decision_record.write(path, [one, replace(one, time=datetime(2001, 1, 1, tzinfo=UTC)), one])
    code, output = audit(path, path)
    assert code == 1
    assert output.endswith("6 records: 4 hold, 2 do not hold\n")
    assert "records.jsonl:2\n" in output


def test_file_of_malformed_json_fails(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("100.99.98.97")
    code, output = audit(path)
    assert code == 1
    assert "record.json:1" in output
    assert "100.99" not in output


@pytest.mark.parametrize("arguments", [("--column", "ip"), ("--roster", "-")])
def test_contradictory_options_are_wrong_usage(
    dataset: Dataset, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "records.jsonl"
    decision_record.write(path, [made(dataset)] * 2)
    done = CliRunner().invoke(command, ["audit", str(path), *arguments])
    assert done.exit_code == 2


def test_empty_file_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("")
    assert CliRunner().invoke(command, ["audit", str(path)]).exit_code == 2


def test_replay_uses_the_codes_of_the_record(dataset: Dataset) -> None:
    """A name that means nothing here still replays: that is what the codes are kept for."""
    assert "DACH" not in {one.name for one in RegionSets.builtin()}
    own = RegionSet("DACH", frozenset({"DE", "AT", "CH"}))
    by_codes = dataset.classify(ROSTER, region_set=own).verdict_counts()
    assert by_codes == dataset.classify(ROSTER, region_set="AT+CH+DE").verdict_counts()


def test_region_set_of_very_many_parts_is_recorded_and_audited(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Its expression is longer than one that may be asked for."""
    listed = subdivisions().children.values()
    own = RegionSet("PARTS", frozenset(place for places in listed for place in places[1:]))
    assert len(own.expression) > MAX_EXPRESSION
    one = dataset.classify(ROSTER, region_set=own, record=True).record
    assert one is not None
    assert (one.region_set, set(one.codes)) == (own.expression, own.codes)
    assert outcomes(kept(tmp_path, one))[1]["region set"] == "holds"
    other = replace(one, codes=one.codes[1:])
    assert outcomes(kept(tmp_path, other))[1]["region set"] != "holds"
