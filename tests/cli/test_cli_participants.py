"""``--participant``: records of one participant may stand anywhere in a file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers import Service

from geolookup import Dataset
from geolookup.answer import decision_record
from geolookup.cli import command

CHINA, AMERICA, PRIVATE = "1.0.1.1", "8.8.8.8", "10.0.0.1"

ROWS = [
    ("ann", CHINA),
    ("bob", AMERICA),
    ("ann", PRIVATE),
    ("bob", CHINA),
    ("cyd", AMERICA),
    ("dan", "no address"),
    ("ann", CHINA),
    ("dan", PRIVATE),
]
INSIDE, UNDETERMINED = ["ann"], ["bob", "dan"]


def csv_of(rows: list[tuple[str, str]]) -> str:
    return "user,ip\n" + "".join(f"{user},{address}\n" for user, address in rows)


def json_of(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"user": user, "ip": address}) + "\n" for user, address in rows)


@pytest.fixture(params=["csv", "json"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "roster"
    path.write_text(csv_of(ROWS) if request.param == "csv" else json_of(ROWS))
    return path


def run(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)], input=given)


def classify(file: object, *arguments: object) -> Any:
    done = run("classify", file, "--region-set", "CN", "--participant", "user", *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_participants_are_named_by_their_column(file: Path, dataset: Dataset) -> None:
    found = json.loads(classify(file, "--json"))
    assert (found["size"], found["participants"], found["outside"]) == (8, 4, 1)
    assert (found["inside"], found["undetermined"]) == (INSIDE, UNDETERMINED)
    assert found["reasons"] == {"DISPUTED": 1, "INVALID": 1}
    assert found["counts"] == {"CN": 3, "US": 2, "ZZ": 3}
    assert sum(found["statuses"].values()) == 8
    assert found["dataset"] == dataset.id


def test_table_counts_participants(file: Path) -> None:
    text = classify(file)
    assert "PARTICIPANTS" in text
    assert "\ninside: ann\n" in text
    assert "\nundetermined: bob, dan\n" in text


def test_rows_of_participants_are_written_wherever_they_stand(file: Path) -> None:
    written = classify(file, "--rows", "inside", "--rows", "outside").splitlines()
    assert sum("ann" in line for line in written) == 3
    assert sum("cyd" in line for line in written) == 1
    assert not any("bob" in line or "dan" in line for line in written)


def test_service_answers_alike_in_one_request_or_several(
    file: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = classify(file, "--json")
    assert classify(file, "--json", "--server", service.target) == alone
    for piece in (1, 3, 4):  # "ann" has three addresses
        monkeypatch.setattr("geolookup.cli.classify._REQUEST", piece)
        monkeypatch.setattr("geolookup.cli.classify._PIECE", piece)
        assert classify(file, "--json", "--server", service.target) == alone
        assert classify(file, "--json") == alone


def test_annotated_records_have_the_verdict_of_their_participant(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(csv_of(ROWS))
    arguments = ("annotate", path, "--region-set", "CN", "--participant", "user")
    lines = run(*arguments).output.splitlines()
    assert lines[0] == "user,ip,country,status,verdict,reason"
    assert [line.split(",")[2:] for line in lines[1:]] == [
        ["CN", "ASSIGNED", "INSIDE", "DECIDED"],
        ["US", "ASSIGNED", "UNDETERMINED", "DISPUTED"],
        ["ZZ", "SPECIAL_PURPOSE", "INSIDE", "DECIDED"],
        ["CN", "ASSIGNED", "UNDETERMINED", "DISPUTED"],
        ["US", "ASSIGNED", "OUTSIDE", "DECIDED"],
        ["ZZ", "INVALID", "UNDETERMINED", "INVALID"],
        ["CN", "ASSIGNED", "INSIDE", "DECIDED"],
        ["ZZ", "SPECIAL_PURPOSE", "UNDETERMINED", "INVALID"],
    ]
    for size in (1, 3):
        monkeypatch.setattr("geolookup.cli.annotate._BATCH", size)
        assert run(*arguments).output.splitlines() == lines
        assert run(*arguments, "--server", service.target).output.splitlines() == lines
    with_regions = run(*arguments, "--regions", "--prefix", "geo_").output.splitlines()
    assert with_regions[0] == "user,ip,geo_country,geo_status,geo_verdict,geo_reason,geo_region"
    assert with_regions[1:] == [f"{line}," for line in lines[1:]]


def test_annotating_participants_needs_a_region_set(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(csv_of(ROWS))
    done = run("annotate", path, "--participant", "user")
    assert "--participant is about a region set" in done.output + str(done.exception)


@pytest.mark.parametrize(
    ("given", "arguments", "text"),
    [
        (csv_of([("ann", CHINA), (" ", AMERICA)]), [], "record 2 has no value in the column user"),
        ('{"user": null, "ip": "1.0.1.1"}\n', [], "record 1 has no value in the column user"),
        (f"{CHINA}\n", [], "--participant user: a list has no columns"),
        ("name,ip\nann,1.0.1.1\n", [], "no column has the name given as --participant"),
        (csv_of(ROWS), ["--id", "user"], "leave out --id"),
        (csv_of([("ann", "x"), ("bob", "y")]), [], "2 of 2 are no addresses"),
    ],
)
def test_rosters_without_participants_are_refused(
    given: str, arguments: list[str], text: str
) -> None:
    named = ["--region-set", "CN", "--participant", "user", *arguments]
    done = run("classify", "-", *named, given=given)
    assert done.exit_code != 0
    assert text in done.output + str(done.exception)
    assert CHINA not in done.output + str(done.exception)


def test_participants_need_a_region_set() -> None:
    done = run("classify", "-", "--participant", "user", given=csv_of(ROWS))
    assert "--participant and --rows are about a region set" in done.output + str(done.exception)


def test_nobody_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("user,ip\n")
    found = json.loads(classify(path, "--json"))
    assert (found["size"], found["participants"], found["inside"]) == (0, 0, [])


def test_audit_replays_a_decision_about_participants(tmp_path: Path, dataset: Dataset) -> None:
    rows = [*ROWS, *((f"user {at}", CHINA) for at in range(5))]
    people: dict[str, list[str]] = {}
    for user, address in rows:
        people.setdefault(user, []).append(address)
    record = dataset.classify(people, region_set="CN", record=True).record
    assert record is not None
    decision_record.write(tmp_path / "record.json", [record])
    roster = tmp_path / "roster.csv"
    random.Random(1).shuffle(rows)
    roster.write_text(csv_of(rows))
    arguments = ("audit", tmp_path / "record.json", "--roster", roster)
    done = run(*arguments, "--participant", "user")
    assert "roster      holds" in done.output
    done = run(*arguments)
    assert "roster      does not hold: size: 9 recorded, 13 counted" in done.output
    done = run("audit", tmp_path / "record.json", "--participant", "user")
    assert "--column and --participant are for --roster" in done.output + str(done.exception)
