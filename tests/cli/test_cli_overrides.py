"""``--overrides FILE``: exceptions act in each command that answers, and audit re-checks them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import small_dataset
from click.testing import CliRunner

import geolookup.answer.dataset
from geolookup import Dataset
from geolookup.answer import decision_record
from geolookup.answer.decision_record import DecisionRecord
from geolookup.answer.overrides import Overrides
from geolookup.cli import command
from geolookup.errors import ServiceError, SourceError
from geolookup.service import Server, Settings

OFFICE = '[[override]]\nprefix = "1.0.1.0/24"\ncode = "FR"\ncomment = "office"\n'
ROSTER = ["1.0.1.1", "2.0.0.1", "10.1.0.1"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    dataset, overrides = tmp_path / "d.geolookup", tmp_path / "o.toml"
    geolookup.answer.dataset.write(small_dataset.content(), dataset)
    overrides.write_text(OFFICE, encoding="utf-8")
    return dataset, overrides


def run(*arguments: object) -> tuple[int, str]:
    """Run the command, and return its exit code and what it printed."""
    done = CliRunner().invoke(
        command, list(map(str, arguments)), standalone_mode=False, catch_exceptions=False
    )
    return done.return_value or 0, done.output


def test_overrides_act_in_each_command_that_answers(files: tuple[Path, Path]) -> None:
    dataset, overrides = files
    options = ("--dataset", dataset, "--overrides", overrides)
    roster = dataset.with_name("roster.txt")
    roster.write_text("\n".join(ROSTER), encoding="utf-8")
    _, text = run("lookup", "1.0.1.1", "--json", *options)
    assert json.loads(text)["country"] == "FR"
    _, text = run("classify", roster, "-r", "FR", "--json", *options)
    assert json.loads(text)["inside"] == [0, 2]
    table = roster.with_name("roster.csv")
    table.write_text("ip\n" + "\n".join(ROSTER) + "\n", encoding="utf-8")
    _, text = run("annotate", table, *options)
    assert text.splitlines()[1].startswith("1.0.1.1,FR,")
    _, text = run("explain", "1.0.1.1", "-r", "FR", *options)
    digest = Overrides.load(overrides).digest
    assert "office" in text
    assert f"number 1 of file {digest}" in text
    _, text = run("info", "--json", *options)
    assert json.loads(text)["runtime_overrides"]["file"] == digest
    overrides.write_text("[[override]]\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"o\.toml:1: override 1: range: missing"):
        run("lookup", "1.0.1.1", *options)


# --- audit


def record_of(files: tuple[Path, Path], moment: datetime) -> DecisionRecord:
    with Dataset.from_buffer(files[0].read_bytes()) as base:
        dataset = base.with_overrides(Overrides.load(files[1]), moment.timestamp())
    made = dataset.classify(ROSTER, region_set="FR", record=True).record
    assert made is not None
    return made


def audited(
    files: tuple[Path, Path], record: DecisionRecord, *options: object
) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code, and outcome and text of each check of a record."""
    path = files[0].with_name("record.json")
    decision_record.write(path, [record])
    code, text = run("audit", path, "--dataset", files[0], "--json", *options)
    (one,) = json.loads(text)
    return code, {check["name"]: (check["outcome"], check["why"]) for check in one["checks"]}


@pytest.fixture
def roster(files: tuple[Path, Path]) -> Path:
    path = files[0].with_name("roster.txt")
    path.write_text("\n".join(ROSTER), encoding="utf-8")
    return path


def test_decision_with_overrides_is_made_again(files: tuple[Path, Path], roster: Path) -> None:
    record = record_of(files, datetime.now(UTC))
    code, checks = audited(files, record, "--overrides", files[1], "--roster", roster)
    assert code == 0
    assert {outcome for outcome, _ in checks.values()} == {"holds"}
    assert list(checks) == ["record", "time", "region set", "dataset", "overrides", "roster"]


def test_audit_says_which_overrides_it_needs(files: tuple[Path, Path], roster: Path) -> None:
    record = record_of(files, datetime.now(UTC))
    code, checks = audited(files, record)
    assert (code, checks["dataset"][0], checks["overrides"][0]) == (0, "holds", "not checked")
    assert record.overrides in checks["overrides"][1]
    code, checks = audited(files, record, "--roster", roster)
    assert (code, checks["roster"][0]) == (2, "not checked")
    files[1].write_text(OFFICE.replace("FR", "DE"), encoding="utf-8")
    code, checks = audited(files, record, "--overrides", files[1])
    assert (code, checks["overrides"][0]) == (1, "does not hold")


@pytest.mark.parametrize(
    ("since_expiry", "outcome"),
    [(-3_600, "holds"), (1, "holds"), (3_600, "does not hold")],
)
def test_audit_knows_what_had_expired_at_the_time(
    files: tuple[Path, Path], since_expiry: int, outcome: str
) -> None:
    """A call that began before an override expired may have ended after it, and not an hour."""
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    files[1].write_text(f"{OFFICE}expires = {end.isoformat()}\n", encoding="utf-8")
    made = record_of(files, end - timedelta(seconds=1))
    time = end + timedelta(seconds=since_expiry)
    _, checks = audited(files, replace(made, time=time), "--overrides", files[1])
    assert checks["overrides"][0] == outcome


def test_record_without_overrides_is_of_the_dataset_alone(files: tuple[Path, Path]) -> None:
    with Dataset.from_buffer(files[0].read_bytes()) as base:
        made = base.classify(ROSTER, region_set="FR", record=True).record
    assert made is not None
    code, checks = audited(files, made, "--overrides", files[1])
    assert (code, "overrides" in checks) == (0, False)


def test_server_in_this_process_refuses_overrides_that_expire(files: tuple[Path, Path]) -> None:
    files[1].write_text(f"{OFFICE}expires = 2999-01-01\n", encoding="utf-8")
    with (
        geolookup.open(files[0], overrides=files[1]) as dataset,
        pytest.raises(ServiceError, match="overrides of the dataset expire"),
    ):
        Server(dataset, Settings(listen="127.0.0.1:0"))
