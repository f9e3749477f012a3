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
from geolookup.answer.dataset import open as open_dataset
from geolookup.answer.decision_record import to_json
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import NetworkList, Source
from geolookup.cli import command, main

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
        networks=[
            (NetworkList("vpn", "MIT", DAY, (Network.VPN,), attribution="VPNs by Someone"), vpn),
            (NetworkList("mixed", "CC-BY-4.0", DAY, ()), SourceRanges()),
        ],
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
    server = request.param == "--server"
    return [request.param, request.getfixturevalue("target") if server else str(path)]


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


def test_info_names_the_lists_of_networks(source: list[str]) -> None:
    text = run("info", *source).output
    assert "\ncovering  TOR, VPN, PROXY, RELAY\n" in text
    assert (
        "NETWORKS  DATE        LICENCE    KINDS             VOUCHES  RANGES\n"
        "vpn       2026-11-01  MIT        VPN               no            1\n"
        "mixed     2026-11-01  CC-BY-4.0  as the list says  no            0\n"
    ) in text
    assert "\n\nVPNs by Someone\n" in text
    described = json.loads(run("info", "--json", *source).output)
    assert described["covering"] == ["TOR", "VPN", "PROXY", "RELAY"]
    assert [one["name"] for one in described["networks"]] == ["vpn", "mixed"]
    assert described["attributions"] == ["VPNs by Someone"]


def test_info_names_the_covering_kinds_of_a_process(path: Path) -> None:
    for given, shown in (("none", "none"), ("HOSTING,TOR", "TOR, HOSTING")):
        text = run("info", "--dataset", path, "--covering", given).output
        assert f"\ncovering  {shown}\n" in text


def test_info_without_lists_of_networks_names_no_kinds() -> None:
    text = run("info").output
    assert "covering" not in text
    assert "NETWORKS" not in text


def test_covering_of_a_process_takes_the_place_of_the_manifest(path: Path) -> None:
    def found(*more: str) -> tuple[Any, Any]:
        answer = json.loads(output("lookup", VPN, "--json", "--dataset", path, *more))
        return answer["verdict"], answer["reason"]

    assert found("--covering", "vpn,Tor") == ("UNDETERMINED", "COVERED")
    for kinds in ("TOR", "none"):
        assert found("--covering", kinds) == ("INSIDE", "DECIDED")


@pytest.mark.parametrize("kinds", ["", "VPN TOR", "VPN,", "PIGEON", "VPN,none"])
def test_unknown_covering_kinds_are_refused(path: Path, kinds: str) -> None:
    done = run("lookup", VPN, "--dataset", path, "--covering", kinds)
    assert done.exit_code == 2
    assert "--covering: expected of TOR, VPN, PROXY, RELAY" in done.output


def test_covering_is_the_service_s_own(target: str) -> None:
    done = run("lookup", VPN, "--server", target, "--covering", "VPN")
    assert done.exit_code == 2
    assert "--subdivision-sources and --covering" in done.output


@pytest.mark.parametrize(
    ("chosen", "recorded", "undetermined"),
    [
        (None, "", 1),
        (["TOR", "VPN", "PROXY", "RELAY"], "", 1),
        (["VPN"], "VPN", 1),
        (["HOSTING", "TOR"], "TOR,HOSTING", 0),
        ([], "IGNORE", 0),
    ],
)
def test_record_has_the_kinds_of_an_operator_and_audit_asks_for_them(
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    chosen: list[str] | None,
    recorded: str,
    undetermined: int,
) -> None:
    def audit(*more: str) -> tuple[Any, str]:
        arguments = ("audit", kept, "--roster", roster, "--dataset", path, *more)
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return ended.value.code, capsys.readouterr().out

    addresses = [ip for _, ip in ROWS]
    with open_dataset(path, covering=chosen) as dataset:
        record = dataset.classify(addresses, region_set="CN", record=True).record
    assert record is not None
    assert (record.networks, record.undetermined) == (recorded, undetermined)
    kept, roster = tmp_path / "record.json", tmp_path / "roster.txt"
    kept.write_text(to_json(record))
    roster.write_text("\n".join(addresses))
    if recorded == "IGNORE":
        assert audit()[0] == audit("--covering", "PROXY")[0] == 0
        return
    code, text = audit("--covering", "PROXY")
    assert code == 2
    assert "not checked: it was decided with" in text
    if recorded:
        code, text = audit()
        assert code == 2
        assert f"it was decided with --covering {recorded}; name that" in text
        assert audit("--covering", recorded)[0] == 0
    else:
        assert "it was decided without --covering; leave that out" in text
        assert audit()[0] == 0


@pytest.mark.parametrize("door", ["lookup", "classify", "annotate", "explain"])
def test_ignored_networks_without_a_region_set_are_refused(door: str, roster: Path) -> None:
    subject = VPN if door in {"lookup", "explain"} else roster
    done = run(door, subject, "--networks", "ignore")
    assert done.exit_code == 2
    assert "--networks decides about a region set; add --region-set" in str(done.output)
