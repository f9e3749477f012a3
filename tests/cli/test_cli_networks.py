"""``--networks ignore``: networks that hide their users are decided like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers import serving

from geolookup import Network
from geolookup.answer.dataset import encode
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import NetworkList, Source
from geolookup.cli import command

DAY = date(2026, 11, 1)
VPN, PLAIN, ELSEWHERE = "1.0.0.1", "1.0.1.1", "2.0.0.1"
ROWS = [("ann", VPN), ("bob", PLAIN), ("cyd", ELSEWHERE), ("ann", PLAIN)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset in which one of China's networks is a VPN."""
    source, vpn = SourceRanges(), SourceRanges()
    source.ipv4.append(0x01000000, 0x01FFFFFF, 0x434E)
    source.ipv4.append(0x02000000, 0x02FFFFFF, 0x5553)
    vpn.ipv4.append(0x01000000, 0x010000FF, Network.VPN.bit)
    content = compile_sources(
        [(Source("s", "x", DAY), source)],
        networks=[(NetworkList("vpn", "x", DAY, (Network.VPN,)), vpn)],
    )
    path = tmp_path_factory.mktemp("networks") / "networks.geolookup"
    path.write_bytes(encode(content, optional=content.optional))
    return path


@pytest.fixture(scope="module")
def target(path: Path) -> Iterator[str]:
    with serving("--dataset", str(path)) as service:
        yield service.target


@pytest.fixture(params=["--dataset", "--server"])
def source(request: pytest.FixtureRequest, path: Path) -> list[str]:
    answers: str = path if request.param == "--dataset" else request.getfixturevalue("target")
    return [request.param, str(answers)]


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    file = tmp_path / "roster.csv"
    file.write_text("user,ip\n" + "".join(f"{user},{ip}\n" for user, ip in ROWS))
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)])


def output(*arguments: object) -> str:
    done = run(*arguments, "--region-set", "CN")
    assert done.exit_code == 0, done.output
    return done.output


def test_lookup_decides_ignored_networks(source: list[str]) -> None:
    def answer(*more: str) -> tuple[Any, Any, Any]:
        found = json.loads(output("lookup", VPN, "--json", *source, *more))
        return found["verdict"], found["reason"], found["networks"]

    assert answer() == ("UNDETERMINED", "COVERED", ["VPN"])
    for word in ("ignore", "IGNORE"):
        assert answer("--networks", word) == ("INSIDE", "DECIDED", ["VPN"])


def test_classify_decides_ignored_networks(source: list[str], roster: Path) -> None:
    def found(*more: str) -> tuple[Any, Any, Any]:
        answer = json.loads(output("classify", roster, "--json", *source, *more))
        return answer["inside"], answer["undetermined"], answer["outside"]

    assert found() == ([1, 3], [0], 1)
    assert found("--networks", "ignore") == ([0, 1, 3], [], 1)
    by_person = ("--participant", "user")
    assert found(*by_person) == (["bob"], ["ann"], 1)
    assert found(*by_person, "--networks", "ignore") == (["ann", "bob"], [], 1)


def test_classify_writes_rows_of_ignored_networks(source: list[str], roster: Path) -> None:
    rows = output("classify", roster, "--rows", "inside", "--networks", "ignore", *source)
    assert rows.split() == ["user,ip", f"ann,{VPN}", f"bob,{PLAIN}", f"ann,{PLAIN}"]


def test_classify_in_pieces_decides_ignored_networks(
    source: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.classify._REQUEST", 2)
    monkeypatch.setattr("geolookup.cli.classify._PIECE", 2)
    file = tmp_path / "roster"
    file.write_text(f"{VPN}\n" * 5)
    found = json.loads(output("classify", file, "--json", "--networks", "ignore", *source))
    assert (found["inside"], found["reasons"]) == ([0, 1, 2, 3, 4], {})


def test_annotate_decides_ignored_networks(source: list[str], roster: Path) -> None:
    def lines(*more: str) -> list[str]:
        return output("annotate", roster, *source, *more).splitlines()

    covered = f"ann,{VPN},CN,ASSIGNED,UNDETERMINED,COVERED"
    decided = f"ann,{VPN},CN,ASSIGNED,INSIDE,DECIDED"
    assert lines()[1] == covered
    assert lines("--networks", "ignore")[1] == decided
    assert lines()[2:] == lines("--networks", "ignore")[2:]


def test_explain_decides_ignored_networks(source: list[str]) -> None:
    def found(*more: str) -> tuple[Any, Any, Any]:
        derivation = json.loads(output("explain", VPN, "--json", *source, *more))["derivation"]
        question = "does the network hide where its users are?"
        finding = next(s["finding"] for s in derivation["steps"] if s["question"] == question)
        return derivation["verdict"], derivation["reason"], finding

    assert found() == ("UNDETERMINED", "COVERED", "yes: VPN")
    assert found("--networks", "ignore") == ("INSIDE", "DECIDED", "that is ignored: VPN")


@pytest.mark.parametrize("door", ["lookup", "classify", "annotate", "explain"])
def test_ignored_networks_without_a_region_set_are_refused(door: str, roster: Path) -> None:
    subject = VPN if door in {"lookup", "explain"} else roster
    done = run(door, subject, "--networks", "ignore")
    assert done.exit_code == 2
    assert "--networks decides about a region set; add --region-set" in str(done.output)
