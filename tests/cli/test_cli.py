"""The command line: what it prints, how it ends, and what it never repeats.

What concerns the process (exit codes, signals, streams) is tested on real
processes; the breadth of inputs through `main` in this one.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import click
import pytest
from command_line import Ended, run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import ON_FREE_PORTS, Service, serving

import geolookup
from geolookup import Dataset, Policy, Status
from geolookup.answer.region_sets import RegionSets
from geolookup.cli import classify
from geolookup.cli import command as command_line
from geolookup.cli.output import Progress, share, table
from geolookup.service.rpc.transports import build

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "geolookup")
PATIENCE = 60

CHINA, AMERICA, HONG_KONG_OR_NOT = "1.0.1.1", "8.8.8.8", "43.102.0.1"
HIDDEN = "203.0.113.77"
"""An address that no error text may repeat."""


Run = Callable[..., Ended]


def process(*arguments: str, stdin: str = "") -> Ended:
    """Run the command as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        input=stdin.encode(),
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def started(
    *arguments: str, stdin: int | IO[bytes] | None = None, stdout: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process."""

    def run_here(*arguments: str, stdin: bytes | None = None) -> Ended:
        if stdin is not None:
            stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
            monkeypatch.setattr(sys, "stdin", stream)
        return run_command(capsys, *arguments)

    return run_here


@pytest.fixture
def roster(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Write a roster to a file and return its path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "roster"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


# lookup


def test_lookup_json_is_one_object_a_line(dataset: Dataset) -> None:
    ended = process("lookup", CHINA, HONG_KONG_OR_NOT, "10.0.0.1", "--region-set", "CN", "--json")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.lines == [
        {
            "address": CHINA,
            "country": "CN",
            "status": "ASSIGNED",
            "claimed": [],
            "verdict": "INSIDE",
            "reason": "DECIDED",
            "networks": [],
            "dataset": dataset.id,
        },
        {
            "address": HONG_KONG_OR_NOT,
            "country": "HK",
            "status": "DISPUTED",
            "claimed": ["HK", "SG"],
            "verdict": "OUTSIDE",
            "reason": "DECIDED",
            "networks": [],
            "dataset": dataset.id,
        },
        {
            "address": "10.0.0.1",
            "country": "ZZ",
            "status": "SPECIAL_PURPOSE",
            "claimed": [],
            "verdict": "UNDETERMINED",
            "reason": "SPECIAL_PURPOSE",
            "networks": [],
            "dataset": dataset.id,
        },
    ]
    keys = ["address", "country", "status", "claimed", "verdict", "reason"]
    keys += ["networks", "dataset"]
    assert all(list(line) == keys for line in ended.lines)


def test_lookup_json_has_no_verdict_without_a_region_set(run: Run) -> None:
    assert list(run("lookup", CHINA, "--json").json) == [
        "address",
        "country",
        "status",
        "claimed",
        "networks",
        "dataset",
    ]


@pytest.mark.parametrize(
    "address",
    ["01.2.3.4", "1.2.3", "1.2.3.4:80", " 1.2.3.4", "", "x", "\udcff\udcfe", "2001:db8::1%eth0"],
)
def test_malformed_address_is_answered_as_invalid(run: Run, address: str) -> None:
    ended = run("lookup", "--json", "--region-set", "CN", "--", address)
    assert ended.code == 0
    assert ended.json["status"] == "INVALID"
    assert ended.json["country"] == "ZZ"
    assert ended.json["verdict"] == "UNDETERMINED"
    assert ended.json["address"] == address


def test_lookup_prints_an_aligned_table_and_the_dataset(run: Run, dataset: Dataset) -> None:
    ended = run("lookup", CHINA, HONG_KONG_OR_NOT, "2001:db8::1", "-r", "CN")
    assert ended.code == 0
    assert ended.out == (
        "ADDRESS      COUNTRY             STATUS           CLAIMED  VERDICT\n"
        "1.0.1.1      CN       China      ASSIGNED         -        INSIDE\n"
        "43.102.0.1   HK       Hong Kong  DISPUTED         HK SG    OUTSIDE\n"
        "2001:db8::1  ZZ                  SPECIAL_PURPOSE  -        "
        "UNDETERMINED: special-purpose address\n"
        f"\ndataset {dataset.id}\n"
    )


def test_lookup_says_what_the_sources_disagree_about(run: Run) -> None:
    ended = run("lookup", HONG_KONG_OR_NOT, "foo", "-r", "HK")
    assert "HK SG    UNDETERMINED: sources disagree, HK or SG\n" in ended.out
    assert "UNDETERMINED: not an address\n" in ended.out


def test_explain_draws_how_the_verdict_follows(run: Run, dataset: Dataset) -> None:
    ended = run("explain", HONG_KONG_OR_NOT, "-r", "HK")
    assert ended.code == 0
    assert "seen from  HK (policy UNANIMOUS)\n" in ended.out
    assert "dbip           HK    IN      yes\n" in ended.out
    assert "geo-whois-asn  SG    OUT     yes\n" in ended.out
    assert "registry       SG    OUT     no vote (advisory)\n" in ended.out
    assert "do all statements that count lie on one side?  no: HK IN, SG OUT\n" in ended.out
    assert "\nverdict  UNDETERMINED: sources disagree, HK or SG\n" in ended.out
    assert ended.out.endswith(f"\ndataset {dataset.id}\n")


def test_explain_json_has_a_derivation_with_a_region_set_only(run: Run) -> None:
    assert "derivation" not in run("explain", CHINA, "--json").json
    found = run("explain", CHINA, "--json", "-r", "EEA-NO", "-p", "majority").json["derivation"]
    assert (found["region_set"], found["policy"]) == ("EEA-NO", "MAJORITY")
    assert "NO" not in found["codes"]
    assert (found["verdict"], found["reason"]) == ("OUTSIDE", "DECIDED")
    assert found["steps"][-1]["verdict"] == "OUTSIDE"
    assert found["statements"][0] == {
        "source": "dbip",
        "country": "CN",
        "side": "OUT",
        "counted": True,
        "why": "",
    }


def test_explain_with_a_policy_needs_a_region_set(run: Run) -> None:
    assert run("explain", CHINA, "-p", "primary").code == 2


def test_control_characters_of_an_argument_are_escaped(run: Run) -> None:
    ended = run("lookup", "\x1b[31m\r\n")
    assert "\x1b" not in ended.out
    assert r"\x1b[31m\r\n" in ended.out


FILE = "a small dataset"
"""Stands for the file of one."""


@pytest.mark.parametrize("policy", ["primary", "PRIMARY", "Majority"])
def test_the_policy_is_named_in_any_case(run: Run, dataset: Dataset, policy: str) -> None:
    ended = run("lookup", HONG_KONG_OR_NOT, "-r", "HK", "-p", policy, "--json")
    answer = dataset.lookup(HONG_KONG_OR_NOT, "HK", Policy[policy.upper()])
    assert answer.verdict is not None
    assert ended.json["verdict"] == answer.verdict.name


@pytest.mark.parametrize(
    "arguments",
    [("lookup", CHINA, "-r", "cn"), ("region-sets", "eea-no"), ("agreement", FILE, "-r", "cn+hk")],
)
def test_region_set_is_named_in_any_case(
    run: Run, small_file: Path, arguments: tuple[str, ...]
) -> None:
    arguments = tuple(str(small_file) if one is FILE else one for one in arguments)
    capitals = (*arguments[:-1], arguments[-1].upper())
    found, expected = run(*arguments, "--json"), run(*capitals, "--json")
    assert found == expected
    assert found.code == 0


def test_lookup_reads_addresses_from_standard_input(run: Run) -> None:
    stdin = f"# who joined\n\n{CHINA}\r\n  {AMERICA}\t\nip,name\n".encode()
    ended = run("lookup", "-", "--json", stdin=stdin)
    assert [line["address"] for line in ended.lines] == [CHINA, AMERICA, "ip,name"]
    assert [line["country"] for line in ended.lines] == ["CN", "US", "ZZ"]


def test_lookup_of_no_addresses_prints_nothing(run: Run) -> None:
    assert run("lookup", "-", stdin=b"\n") == (0, "", "")


def test_lookup_answers_each_line_as_it_comes() -> None:
    """A program can keep one process and ask it, without closing the pipe."""
    with started("lookup", "-", "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        stdin, stdout = pipes(running)
        for address, country in ((CHINA, "CN"), (AMERICA, "US"), (CHINA, "CN")):
            stdin.write(f"{address}\n".encode())
            stdin.flush()
            assert json.loads(stdout.readline())["country"] == country
        stdin.close()
        assert running.wait(PATIENCE) == 0


def pipes(running: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert running.stdin is not None
    assert running.stdout is not None
    return running.stdin, running.stdout


# classify: the answer


def test_classify_json_has_the_documented_keys(dataset: Dataset) -> None:
    ended = process(
        "classify",
        "-",
        "--region-set",
        "CN",
        "--json",
        stdin=f"{CHINA}\n{AMERICA}\nfoo\n{CHINA}\n",
    )
    assert ended == (0, ended.out, "")
    assert ended.json == {
        "size": 4,
        "counts": {"CN": 2, "US": 1, "ZZ": 1},
        "statuses": {"ASSIGNED": 3, "INVALID": 1},
        "inside": [0, 3],
        "outside": 1,
        "undetermined": [2],
        "reasons": {"INVALID": 1},
        "dataset": dataset.id,
    }
    keys = ["size", "counts", "statuses", "inside", "outside", "undetermined", "reasons"]
    keys.append("dataset")
    assert list(ended.json) == keys


def test_classify_json_has_no_verdicts_without_a_region_set(run: Run) -> None:
    ended = run("classify", "-", "--json", stdin=CHINA.encode())
    assert list(ended.json) == ["size", "counts", "statuses", "dataset"]


@pytest.mark.parametrize("extra", [(), ("--region-set", "EU")])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nobody\n", b"\xef\xbb\xbf"])
def test_an_empty_roster_is_answered(
    run: Run, dataset: Dataset, extra: tuple[str, ...], content: bytes
) -> None:
    ended = run("classify", "-", "--json", *extra, stdin=content)
    assert ended.code == 0
    expected: dict[str, object] = {"size": 0, "counts": {}, "statuses": {}}
    if extra:
        expected |= {"inside": [], "outside": 0, "undetermined": [], "reasons": {}}
    assert ended.json == expected | {"dataset": dataset.id}
    assert run("classify", "-", *extra, stdin=content).code == 0


def test_classify_prints_tables(run: Run, dataset: Dataset) -> None:
    stdin = "\n".join([CHINA] * 30 + [AMERICA] * 9 + ["foo"]).encode()
    ended = run("classify", "-", "-r", "CN", stdin=stdin)
    assert ended.code == 0
    assert "INSIDE               30  75.0 %\n" in ended.out
    assert "(policy UNANIMOUS)" in ended.out
    assert "CN       China                 30  75.0 %\n" in ended.out
    assert "INVALID           1   2.5 %\n" in ended.out
    assert "inside: positions 0, 1, 2," in ended.out
    assert "18, 19, and 10 more (--json lists all)\n" in ended.out
    assert "undetermined: positions 39\n" in ended.out
    assert "INVALID       not an address          1  2.5 %\n" in ended.out
    assert ended.out.endswith(f"dataset {dataset.id}\n")


ADDRESSES = st.sampled_from(
    [
        CHINA,
        AMERICA,
        HONG_KONG_OR_NOT,
        "10.0.0.1",
        "2a00:1450::1",
        "::ffff:1.0.1.1",
        "240e::1",
        "foo",
        "1.2.3.4.5",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(roster=st.lists(ADDRESSES, max_size=40), piece=st.integers(1, 12))
def test_roster_in_pieces_gets_the_answer_of_the_whole(
    run: Run, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, roster: list[str], piece: int
) -> None:
    monkeypatch.setattr(classify, "_PIECE", piece)
    arguments = ("classify", "-", "-r", "CN+HK", "--json", "--max-invalid", "100%")
    ended = run(*arguments, stdin="\n".join(roster).encode())
    whole = dataset.classify(roster, region_set="CN+HK")
    assert ended.json == {
        "size": len(roster),
        "counts": whole.counts(),
        "statuses": {status.name: number for status, number in whole.status_counts().items()},
        "inside": list(whole.inside),
        "outside": len(whole.outside),
        "undetermined": list(whole.undetermined),
        "reasons": {reason.name: number for reason, number in whole.reason_counts().items()},
        "dataset": dataset.id,
    }


def test_many_positions_are_written_in_order(run: Run) -> None:
    """More than are turned into text at a time."""
    ended = run("classify", "-", "-r", "CN", "--json", stdin=f"{CHINA}\n".encode() * 25_001)
    assert ended.json["inside"] == list(range(25_001))


# classify: the file


@pytest.mark.parametrize(
    "content",
    [
        f"{CHINA}\n{AMERICA}\n",
        f"{CHINA}\n{AMERICA}",
        f"{CHINA}\r\n{AMERICA}\r\n",
        f"{CHINA}\r{AMERICA}\r",
        f"\ufeff{CHINA}\n{AMERICA}\n",
        f"\n  {CHINA}  \n\n# a comment, with a comma\n\t{AMERICA}\n   \n",
        f"# a comment, with a comma\n{CHINA}\n{AMERICA}\n",
        f"ip\n{CHINA}\n{AMERICA}\n",
        f" Client-IP \n{CHINA}\n{AMERICA}\n",
        f"address\n{CHINA}\n{AMERICA}\n",
        f"name,ip\nx,{CHINA}\ny,{AMERICA}\n",
        f"\n\nname,ip\nx,{CHINA}\n\n\ny,{AMERICA}\n\n",
        f"\ufeffip;name\r\n{CHINA};x\r\n{AMERICA};y\r\n",
        f"name\tIP Address\nx\t{CHINA}\ny\t{AMERICA}\n",
        f'name,"ip"\n"x, ""y""","{CHINA}"\n"line\nbreak",{AMERICA}\n',
        f"name, ip\nx, {CHINA}\ny,\t {AMERICA} \n",
        f"name,remote_addr,more\nx,{CHINA}\ny,{AMERICA},1,2,3\n",
        f"address,client_ip\nWall Street,{CHINA}\nMain Street,{AMERICA}\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_and_tables_of_every_layout_are_read(
    run: Run, roster: Callable[[bytes], str], content: str, encoding: str
) -> None:
    if encoding == "utf-16":
        content = content.removeprefix("\ufeff")  # the encoding writes a mark of its own
    ended = run("classify", roster(content.encode(encoding)), "-r", "CN", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["counts"] == {"CN": 1, "US": 1}
    assert ended.json["inside"] == [0]


def test_positions_of_a_list_leave_out_blank_lines_and_comments(
    run: Run, roster: Callable[[str], str]
) -> None:
    content = f"\n# one\n{AMERICA}\n\n# two\nfoo\n{CHINA}\n"
    ended = run("classify", roster(content), "-r", "CN", "--json")
    assert ended.json["inside"] == [2]
    assert ended.json["undetermined"] == [1]


def test_positions_of_a_csv_file_are_its_rows(run: Run, roster: Callable[[str], str]) -> None:
    """A cell that is empty or missing is a participant without an address, and counted."""
    content = f"name,ip\na,{AMERICA}\nb,\nc\n#d,{CHINA}\ne,{CHINA}\n"
    ended = run("classify", roster(content), "-r", "CN", "--json")
    assert ended.json["size"] == 5
    assert ended.json["inside"] == [3, 4]
    assert ended.json["undetermined"] == [1, 2]


@pytest.mark.parametrize("column", ["peer", "Peer", "PEER", " peer"])
def test_a_column_is_chosen_by_name(run: Run, roster: Callable[[str], str], column: str) -> None:
    ended = run("classify", roster(f"ip;peer\n{AMERICA};{CHINA}\n"), "--json", "--column", column)
    assert ended.json["counts"] == {"CN": 1}


def test_the_exact_name_wins_over_other_case(run: Run, roster: Callable[[str], str]) -> None:
    path = roster(f"ip,IP\n{AMERICA},{CHINA}\n")
    assert run("classify", path, "--json", "--column", "IP").json["counts"] == {"CN": 1}
    assert run("classify", path, "--json", "--column", "ip").json["counts"] == {"US": 1}


def test_column_option_reads_any_file_as_a_table(run: Run, roster: Callable[[str], str]) -> None:
    ended = run("classify", roster(f"whence\n{CHINA}\n"), "--json", "--column", "whence")
    assert ended.json["counts"] == {"CN": 1}


def test_undecodable_bytes_are_invalid_addresses(run: Run, roster: Callable[[bytes], str]) -> None:
    ended = run("classify", roster(b"\xfe\xfa\n\x01\n"), "--json", "--max-invalid", "100%")
    assert ended.code == 0
    assert ended.json["statuses"] == {"INVALID": 2}


def test_long_texts_are_invalid_addresses(run: Run, roster: Callable[[str], str]) -> None:
    ended = run("classify", roster(f"{'x' * 100_000}\n{CHINA}\n"), "--json")
    assert ended.json["statuses"] == {"ASSIGNED": 1, "INVALID": 1}


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (
            "name,site\nx,y\n",
            (),
            "no column seems to hold addresses; choose with --column: name, site",
        ),
        (
            "src_ip,client_ip\nx,y\n",
            (),
            "more than one column seems to hold addresses; choose with --column: src_ip, client_ip",
        ),
        (f"{HIDDEN},x\n", (), "the first line holds addresses; begin the file with a header"),
        (f"x,{HIDDEN} y\n", (), "choose with --column: x, (not shown)"),
        ("ip,name\n", ("--column", "peer"), "no column has the name given as --column"),
        ("ip,ip\n", ("--column", "ip"), "more than one column has the name given as --column"),
        ("", ("--column", "ip"), "is empty and has no column to read"),
    ],
)
def test_ambiguous_column_is_wrong_usage(
    run: Run, roster: Callable[[str], str], content: str, arguments: Sequence[str], expected: str
) -> None:
    ended = run("classify", roster(content), *arguments, "--json")
    assert ended == (2, "", ended.err)
    assert expected in ended.err
    assert HIDDEN not in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('name,ip\n"x,1.0.1.1\n1,2\n', ":3: unexpected end of data"),
        ('name,ip\nx,"1.0.1.1"2\n', ":2: ',' expected after '\"'"),
        ("ip,name\n" + "x" * 200_000, ":2: field larger than field limit"),
        ("x" * 2_000_000, ":1: the line is too long for an address"),
        (f"{CHINA}\n" + "x" * 2_000_000, ":2: the line is too long for an address"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_the_line(
    run: Run, roster: Callable[[str], str], content: str, expected: str
) -> None:
    path = roster(content)
    ended = run("classify", path, "--json")
    assert ended == (1, "", ended.err)
    assert ended.err.startswith(f"geolookup: {path}{expected}")
    assert len(ended.err.splitlines()) == 1


# info, region-sets, version


def test_info_shows_what_the_licences_ask_for(run: Run, dataset: Dataset) -> None:
    ended = run("info")
    assert ended.code == 0
    assert dataset.id in ended.out
    assert dataset.attributions
    for attribution in dataset.attributions:
        assert attribution in ended.out
    for source in dataset.sources:
        assert re.search(
            rf"^{source.name} +{source.date} +{source.licence} +{source.coverage}",
            ended.out,
            re.MULTILINE,
        )


def test_info_names_the_transport(run: Run) -> None:
    last = run("info").out.splitlines()[-1]
    assert last == f"transport  {build.description()}"
    assert ("native: libnghttp2 1." in last) is (build.missing() is None)


def test_info_json_is_the_description_of_the_dataset(run: Run, dataset: Dataset) -> None:
    assert run("info", "--json").json == dataset.info()


def test_region_sets_lists_every_named_set(run: Run) -> None:
    ended = run("region-sets", "--json")
    assert ended.lines == [
        {
            "name": one.name,
            "codes": sorted(one.codes),
            "version": one.version,
            "source": one.source,
        }
        for one in RegionSets.builtin()
    ]
    rows = run("region-sets").out.splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        [one.name, str(len(one.codes))] for one in RegionSets.builtin()
    ]


def test_region_sets_shows_what_an_expression_holds(run: Run) -> None:
    ended = run("region-sets", "EFTA-NO", "CN", "--json")
    assert [line["codes"] for line in ended.lines] == [["CH", "IS", "LI"], ["CN"]]
    ended = run("region-sets", "EFTA-NO", "CN")
    assert "EFTA-NO: 3 countries\n  CH  Switzerland\n  IS  Iceland\n" in ended.out
    assert "CN: 1 country\n  CN  China\n" in ended.out


OWN_SETS = """
[region_sets.DACH]
codes = ["DE", "AT", "CH"]
version = "2026-01-01"
source = "Legal"
"""


@pytest.fixture
def own_sets(tmp_path: Path) -> str:
    path = tmp_path / "sets.toml"
    path.write_text(OWN_SETS)
    return str(path)


def test_own_region_sets_work_in_every_command(run: Run, own_sets: str) -> None:
    asked = ("--region-sets", own_sets, "--json")
    assert run("region-sets", "DACH+FR", *asked).json["codes"] == ["AT", "CH", "DE", "FR"]
    assert len(run("region-sets", *asked).lines) == len(RegionSets.builtin()) + 1
    assert run("lookup", AMERICA, "-r", "DACH", *asked).json["verdict"] == "OUTSIDE"
    ended = run("classify", "-", "-r", "DACH+US", *asked, stdin=AMERICA.encode())
    assert ended.json["inside"] == [0]


def test_version_is_that_of_the_package() -> None:
    assert process("--version") == (0, f"geolookup {geolookup.__version__}\n", "")


@pytest.mark.parametrize(
    "command", ["lookup", "classify", "info", "region-sets", "serve", "compile"]
)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.code == 0
    assert f"\n    geolookup {command}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_help_lists_the_exit_codes(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    assert re.findall(r"^ +(\d)  \w", ended.out, re.MULTILINE) == list("0123456")


# compile


MANIFEST = """
[[source]]
name = "ours"
files = ["ranges.csv"]
format = "range-csv"
licence = "CC0-1.0"
date = 2026-01-02
coverage = "full"
attribution = "Ours"
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "ranges.csv").write_text("8.8.8.0,8.8.8.255,CN\n2a00::,2a00::ff,DE\n")
    path = tmp_path / "ours.toml"
    path.write_text(MANIFEST)
    return path


def test_compile_writes_a_dataset_that_answers(manifest: Path) -> None:
    first, second = manifest.with_name("first"), manifest.with_name("second")
    ended = process("compile", str(manifest), "-o", str(first))
    assert ended == (0, ended.out, "")
    assert process("compile", str(manifest), "--output", str(second)).code == 0
    assert first.read_bytes() == second.read_bytes()

    answer = process("lookup", AMERICA, "--dataset", str(first), "--json").json
    assert answer["country"] == "CN"
    assert ended.out == f"{first}: {first.stat().st_size:,} bytes\ndataset {answer['dataset']}\n"
    assert process("info", "--dataset", str(first), "--json").json["attributions"] == ["Ours"]


def test_a_failed_compilation_says_where_and_leaves_the_old_file(manifest: Path) -> None:
    output = manifest.with_name("output")
    output.write_text("old")
    manifest.with_name("ranges.csv").write_text("8.8.8.0,8.8.8.255,CN\n8.8.9.0,8.8.9.255,XX\n")
    before = sorted(path.name for path in manifest.parent.iterdir())
    ended = process("compile", str(manifest), "-o", str(output))
    assert ended.code == 1
    assert re.match(r"geolookup: .*ranges\.csv:2:", ended.err)
    assert len(ended.err.splitlines()) == 1
    assert output.read_text() == "old"
    assert sorted(path.name for path in manifest.parent.iterdir()) == before


def test_compile_reports_findings(run: Run, manifest: Path) -> None:
    manifest.with_name("ranges.csv").write_text("8.8.8.0,8.8.8.255,CN\n8.8.8.0,8.8.8.255,US\n")
    output = manifest.with_name("output")
    ended = run("compile", str(manifest), "-o", str(output))
    assert ended.code == 0
    assert re.match(r"geolookup: .*ranges\.csv:2: ", ended.err)
    assert run("lookup", AMERICA, "--dataset", str(output), "--json").json["country"] == "ZZ"


# serve, and asking it


@pytest.fixture(scope="module")
def small_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one region set of its own and a low limit of addresses in a roster."""
    path = tmp_path_factory.mktemp("service") / "sets.toml"
    path.write_text(OWN_SETS)
    with serving("--region-sets", str(path), "--max-roster", "7") as running:
        yield running


def test_serve_announces_what_it_serves(small_service: Service, dataset: Dataset) -> None:
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", small_service.target)
    assert small_service.announced["dataset"] == [dataset.id]
    assert small_service.announced["built"] == [dataset.built.date().isoformat()]
    assert small_service.announced["attribution"] == list(dataset.attributions)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with serving("--listen", f"unix:{tmp_path}/socket") as running:
        assert running.target == f"unix:{tmp_path}/socket"
        assert (
            process("lookup", CHINA, "--server", running.target, "--json").json["country"] == "CN"
        )
        running.process.send_signal(number)
        assert running.process.wait(PATIENCE) == 0


def test_serve_on_an_address_in_use_ends_with_1(small_service: Service) -> None:
    ended = process("serve", "--listen", small_service.target)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines()[-1].startswith("geolookup: listen: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("lookup", CHINA, HONG_KONG_OR_NOT, "10.0.0.1", "foo", "\udcff", "2a00:1450::1"),
        ("lookup", CHINA, HONG_KONG_OR_NOT, "-r", "CN+HK+SG"),
        ("lookup", HONG_KONG_OR_NOT, "-r", "HK", "-p", "primary"),
        ("lookup", CHINA, "--json"),
    ],
)
def test_lookup_by_a_service_agrees_with_this_process(
    run: Run, small_service: Service, arguments: Sequence[str]
) -> None:
    local = run(*arguments)
    assert local.code == 0
    assert run(*arguments, "--server", small_service.target) == local


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 13, 14, 15, 40])
@pytest.mark.parametrize("request_size", [4, 7, 16, 1_000])
def test_a_roster_of_any_size_is_classified_by_a_service(
    run: Run, small_service: Service, monkeypatch: pytest.MonkeyPatch, size: int, request_size: int
) -> None:
    """Also over the limit of a request, and where the service's own limit is lower."""
    monkeypatch.setattr(classify, "_REQUEST", request_size)
    mixed = [CHINA, "240e::1", "foo", AMERICA, HONG_KONG_OR_NOT, "10.0.0.1", "::ffff:1.0.1.1"]
    stdin = "\n".join(mixed[n % len(mixed)] for n in range(size)).encode()
    for extra in ([], ["-r", "CN+HK", "--json"]):
        local = run("classify", "-", *extra, stdin=stdin)
        assert local.code == 0
        assert run("classify", "-", *extra, "--server", small_service.target, stdin=stdin) == local


def test_info_of_a_service_is_that_of_its_dataset(
    run: Run, small_service: Service, dataset: Dataset
) -> None:
    described = run("info", "--server", small_service.target, "--json").json
    assert described["id"] == dataset.id
    assert described["attributions"] == list(dataset.attributions)
    # How this machine would serve is none of the service's.
    local = run("info").out.rpartition("\ntransport  ")[0]
    assert run("info", "--server", small_service.target).out == local


def test_region_sets_of_a_service_are_its_own(run: Run, small_service: Service) -> None:
    names = [
        line["name"]
        for line in run("region-sets", "--server", small_service.target, "--json").lines
    ]
    assert "DACH" in names
    assert len(names) == len(RegionSets.builtin()) + 1
    ended = run("lookup", AMERICA, "-r", "DACH", "--server", small_service.target, "--json")
    assert ended.json["verdict"] == "OUTSIDE"


def test_a_region_set_that_the_service_does_not_know_ends_with_2(
    run: Run, small_service: Service
) -> None:
    for command in (("lookup", CHINA), ("classify", "-")):
        ended = run(*command, "-r", "DACHH", "--server", small_service.target, stdin=CHINA.encode())
        assert ended.code == 2
        assert "did you mean 'DACH'?" in ended.err


def test_a_service_that_does_not_answer_in_time_ends_with_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        ended = process("lookup", CHINA, "--server", target, "--timeout", "0.5")
    assert ended.code == 4
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1


# How it ends


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Usage: geolookup"),
        (("fly",), "geolookup: No such command 'fly' (see geolookup --help)"),
        ((CHINA,), "geolookup: an address is no command; use 'geolookup lookup ADDRESS'"),
        (("lookup",), "geolookup: lookup: Missing argument 'ADDRESS...' (see geolookup lookup"),
        (("lookup", "x", "--fly"), "geolookup: lookup: No such option"),
        (("lookup", "x", "-r", "eeea"), "unknown region set 'EEEA'; did you mean 'EEA'?"),
        (("lookup", "x", "-r", "cn,hk"), "names are joined with +: CN+HK"),
        (("lookup", "x", "-r", "CN-CN"), "the expression leaves no code"),
        (("lookup", "x", "-p", "primary"), "--policy decides about a region set; add --region-set"),
        (("lookup", "x", "-r", "CN", "-p", "all"), "'all' is not one of 'unanimous', 'majority'"),
        (("lookup", "x", "--timeout", "3"), "--timeout is for --server"),
        (("lookup", "x", "--server", "a:1", "--timeout", "0"), "0.0 is not in the range x>0"),
        (("lookup", "x", "--server", "a:1", "--dataset", "f"), "--server answers from its own"),
        (("lookup", "x", "--region-sets", "/nowhere"), "File '/nowhere' does not exist"),
        (("classify", "/nowhere"), "File '/nowhere' does not exist"),
        (("classify", "."), "File '.' is a directory"),
        (("classify", "-", "b"), "unexpected extra argument"),
        (("region-sets", "QQ"), "unknown region set 'QQ'"),
        (("region-sets", "EU", "--server", "a:1"), "--server lists its own named sets"),
        (("region-sets", "--timeout", "3"), "--timeout is for --server"),
        (("compile", "README.md"), "Missing option '-o' / '--output'"),
        (("compile", "/nowhere", "-o", "x"), "File '/nowhere' does not exist"),
        (("compile", "README.md", "-o", "/nowhere/x"), "there is no folder /nowhere"),
        (("serve", "--listen", "everywhere"), "listen: expected HOST:PORT"),
        (("serve", "--max-roster", "0"), "max_roster: expected a whole number from 1"),
    ],
)
def test_wrong_usage_ends_with_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], expected: str
) -> None:
    monkeypatch.chdir(ROOT)
    ended = run(*arguments)
    assert ended.code == 2
    assert expected in ended.err
    assert ended.out == ""
    if arguments:
        assert ended.err.startswith("geolookup: ")
        assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"", b"no dataset", b"\x00" * 10_000])
@pytest.mark.parametrize("command", ["lookup", "classify", "info", "serve"])
def test_a_bad_dataset_ends_with_3(
    run: Run, tmp_path: Path, command: str, content: bytes | None
) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    arguments = {"lookup": ["x"], "classify": ["-"], "info": [], "serve": ON_FREE_PORTS}
    ended = run(command, *arguments[command], "--dataset", str(path), stdin=b"")
    assert ended.code == 3
    assert ended.out == ""
    *before, last = ended.err.splitlines()
    assert last.startswith(f"geolookup: {path}: ")
    assert bool(before) == (command == "serve")  # whose log goes there, too


@pytest.mark.parametrize(
    "command",
    [("lookup", CHINA), ("classify", "-"), ("info",), ("region-sets",)],
    ids=lambda command: command[0],
)
def test_an_unreachable_service_ends_with_4(command: Sequence[str]) -> None:
    ended = process(*command, "--server", closed_port(), "--timeout", "10", stdin=HIDDEN)
    assert ended.code == 4
    assert ended.out == ""
    assert ended.err.startswith("geolookup: ")
    assert "Traceback" not in ended.err
    assert HIDDEN not in ended.err
    assert CHINA not in ended.err


def test_control_c_ends_quietly_with_130() -> None:
    with started("lookup", "-", "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        stdin, stdout = pipes(running)
        stdin.write(f"{CHINA}\n".encode())
        stdin.flush()
        assert stdout.readline()  # it is up, and waits for the next line
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert err == b""


def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "roster"
    path.write_text(f"{CHINA}\n" * 100_000)
    with (
        path.open("rb") as roster,
        started("lookup", "-", "--json", stdin=roster, stdout=subprocess.PIPE) as running,
    ):
        assert running.stdout is not None
        assert running.stdout.readline()
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_full_disk_is_reported_in_one_line() -> None:
    with open("/dev/full", "wb") as full, started("region-sets", stdout=full) as running:
        assert running.stderr is not None
        err = running.stderr.read().decode()
    assert running.returncode == 1
    assert err == "geolookup: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--format", "csv", "-o"),
        ("export", "--format", "parquet", "-o"),
        ("map", "-o"),
    ],
    ids=" ".join,
)
def test_output_that_finds_no_space_is_named_and_old_file_stays(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    shell = 'ulimit -f 8; exec "$0" -B -m geolookup "$@"'  # blocks of 1,024 bytes
    done = subprocess.run(
        ["/bin/bash", "-c", shell, sys.executable, *arguments, str(path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"geolookup: {path}: File too large"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 1, "0.0 %"),
        (1, 1, "100.0 %"),
        (1, 10**9, "< 0.1 %"),
        (10**9 - 1, 10**9, "> 99.9 %"),
        (999, 1_000_000, "< 0.1 %"),
        (1_000, 1_000_000, "0.1 %"),
        (9_990, 10_000, "99.9 %"),
        (9_991, 10_000, "> 99.9 %"),
        (3, 2, "150.0 %"),
        (0, 0, "-"),
    ],
)
def test_share_is_0_or_100_percent_only_when_exact(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def without(tmp_path: Path, *names: str) -> dict[str, str]:
    """Return an environment in which modules can't be imported, as if they were not there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {names!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("pyarrow", "parquet", ("export", "-f", "parquet", "-o", "OUT")),
        ("mmdb_writer", "mmdb", ("export", "-f", "mmdb", "-o", "OUT")),
        ("matplotlib", "map", ("map", "-o", "OUT.png")),
        ("urllib3", "update", ("update",)),
        ("cryptography", "sign", ("info", "--public-key", "pyproject.toml")),
        ("opentelemetry", "otel", ("serve", "--tracing")),
        ("envoy", "envoy", ("authz",)),
        ("grpc_channelz", "channelz", ("serve", "--channelz", "--admin", "127.0.0.1:0")),
    ],
)
def test_missing_extra_ends_with_6_and_names_what_to_install(
    tmp_path: Path, module: str, extra: str, arguments: tuple[str, ...]
) -> None:
    given = [text.replace("OUT", str(tmp_path / "out")) for text in arguments]
    done = subprocess.run(
        [*COMMAND, *given],
        cwd=ROOT,
        env=without(tmp_path, module),
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 6
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith(f"which is not installed: pip install 'geolookup[{extra}]'")


def test_help_of_the_load_generator_needs_no_extra(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "--help"],
        cwd=ROOT,
        env=without(tmp_path, "hdrh", "numpy", "matplotlib"),
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--rate" in done.stdout or b"usage" in done.stdout


def test_lookup_of_many_addresses_prints_tables_in_pieces(run: Run) -> None:
    count = 2_500
    ended = run("lookup", "-", "-r", "CN", stdin=f"{CHINA}\n".encode() * count)
    lines = ended.out.splitlines()
    assert len(lines) == 1 + count + 2
    assert len(set(lines[1:-2])) == 1  # aligned alike
    assert lines[0].split() == ["ADDRESS", "COUNTRY", "STATUS", "CLAIMED", "VERDICT"]


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_verdicts_have_colours_on_a_terminal(environment: dict[str, str], coloured: bool) -> None:
    master, slave = pty.openpty()
    subprocess.run(
        [*COMMAND, "lookup", CHINA, AMERICA, "-r", "CN"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=slave,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=PATIENCE,
    )
    written = os.read(master, 10_000).decode()
    os.close(slave)
    os.close(master)
    assert ("\x1b[36mINSIDE" in written) is coloured
    assert "INSIDE" in written


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("EE", ["EE", "EEA"]), ("eea-n", ["eea-NO", "eea-NL"]), ("CN+TW", ["CN+TW"])],
)
def test_shell_completes_region_sets(typed: str, expected: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from geolookup_command import main; main()"],
        cwd=ROOT,
        env={
            **os.environ,
            "_GEOLOOKUP_COMPLETE": "bash_complete",
            "COMP_WORDS": f"geolookup lookup 1.0.1.1 --region-set {typed}",
            "COMP_CWORD": "4",
        },
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    found = [line.removeprefix("plain,") for line in done.stdout.decode().splitlines()]
    assert set(expected) <= set(found)
    assert all(name.upper().startswith(typed.upper()) for name in found)


def test_progress_of_a_pipe_is_a_count_and_ends_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("geolookup.cli.output._PATIENCE", -1.0)
    with Progress("reading") as progress:
        progress.update(1_000)
        progress.finish()
        progress.update(2_000)
    assert capsys.readouterr().err == "\rreading  1,000\n\rreading  2,000\n"


def test_progress_that_is_finished_leaves_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("geolookup.cli.output._PATIENCE", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("one", 10) as progress:
        progress.update(5)
        progress.finish()
        assert capsys.readouterr().err.endswith("\n")
        progress.update(10, 10, "two")
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("start", ["command", "module"])
def test_interrupt_during_imports_prints_nothing(tmp_path: Path, start: str) -> None:
    # In the place of a library that all commands import.
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = "from geolookup_command import main; main()"
    done = subprocess.run(
        [sys.executable, *(["-c", command] if start == "command" else ["-m", "geolookup"])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("closed", "code", "expected"),
    [
        (">&-", 0, ""),
        ("<&-", 1, "geolookup: standard input is closed\n"),
        ("2>&- -r QQ", 2, ""),
    ],
)
def test_closed_streams_end_without_a_traceback(closed: str, code: int, expected: str) -> None:
    shell = f'exec "$0" -m geolookup lookup 1.0.1.1 - --json {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        cwd=ROOT,
        input=b"" if closed != "<&-" else None,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr.decode()) == (code, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        (HIDDEN,),
        (f"{HIDDEN}:8080",),
        ("2001:db8::77",),
        ("lookup", "x", "--region-set", HIDDEN),
        ("lookup", "x", "--region-set", f"EU-{HIDDEN}"),
        ("lookup", "x", "--region-set", HIDDEN.replace(".", "-")),
        ("lookup", "x", "--policy", HIDDEN),
        ("lookup", "x", "-r", "CN", "--policy", HIDDEN.replace(".", "-")),
        ("lookup", "x", "-r", "CN", "--policy", "2001:db8::77"),
        ("lookup", "x", "--timeout", HIDDEN),
        ("lookup", "x", f"--{HIDDEN}"),
        ("lookup", "x", f"--json={HIDDEN}"),
        ("lookup", "x", "--region-sets", HIDDEN),
        ("classify", HIDDEN),
        ("classify", "2001:db8::77"),
        ("classify", "-", HIDDEN),
        ("classify", "-", "--column", HIDDEN),
        ("region-sets", HIDDEN),
        ("compile", HIDDEN, "-o", "x"),
        ("serve", HIDDEN),
        ("serve", "--listen", HIDDEN),
        ("serve", "--max-roster", HIDDEN),
    ],
)
def test_address_in_place_of_another_argument_is_not_repeated(
    run: Run, arguments: Sequence[str]
) -> None:
    ended = run(*arguments, stdin=b"name,place\n")
    assert ended.code == 2
    # As numbers of their own: a setting's bounds (44,737,877) may have the same digits.
    assert not re.search(r"(?<![0-9])(?:203|113|77)(?![0-9])|db8", ended.err)


def test_an_unforeseen_failure_shows_its_place_and_not_its_text(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(HIDDEN)

    monkeypatch.setattr(Dataset, "lookup", fail)
    ended = run("lookup", HIDDEN)
    assert ended.code == 1
    assert re.fullmatch(r"geolookup: unforeseen ZeroDivisionError at test_cli\.py:\d+\n", ended.err)


# Start-up, tables, progress


def test_each_subcommand_has_the_name_it_is_listed_by() -> None:
    context = click.Context(command_line)
    for name in command_line.list_commands(context):
        subcommand = command_line.get_command(context, name)
        assert subcommand is not None
        assert subcommand.name == name
    assert command_line.get_command(context, "look") is None


def test_lookup_loads_no_grpc_compiler_or_other_subcommand() -> None:
    code = (
        "import sys\nfrom geolookup.cli import main\n"
        "try: main(['lookup', '1.0.1.1'])\n"
        "except SystemExit: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE
    )
    modules = set(done.stdout.decode().split())
    assert "geolookup.answer.dataset" in modules
    heavy = {"grpc", "google.protobuf", "geolookup.build.compiler", "geolookup.client", "pyroaring"}
    assert modules.isdisjoint(heavy)
    assert "geolookup.cli.lookup" in modules
    assert modules.isdisjoint({"geolookup.cli.classify", "geolookup.cli.serve"})


def test_tables_are_aligned() -> None:
    rows = [["A", "NUMBER", "B"], ["long text", "1", "x"], ["", "1,000", ""]]
    assert table(rows, right=(1,)) == (
        "A          NUMBER  B\nlong text       1  x\n            1,000"
    )


class Terminal(io.StringIO):
    """Standard error as a terminal has it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "shown"), [(1.0, False), (3.0, True)])
def test_progress_appears_on_a_terminal_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, shown: bool
) -> None:
    clock = iter([100.0, 100.0 + seconds, 100.1 + seconds])
    monkeypatch.setattr("geolookup.cli.output.time.monotonic", lambda: next(clock))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("reading", 200) as progress:
        progress.update(100)
        progress.update(200, label="writing")
    assert ("reading" in terminal.getvalue()) is shown
    assert ("writing" in terminal.getvalue()) is shown
    assert ("100%" in terminal.getvalue()) is shown


def test_progress_without_a_terminal_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 200.0])
    monkeypatch.setattr("geolookup.cli.output.time.monotonic", lambda: next(clock, 200.0))
    with Progress("reading", 200) as progress:
        progress.update(100)
    assert capsys.readouterr().err == ""


def test_statuses_are_named_as_in_the_api(run: Run) -> None:
    ended = run("classify", "-", "--json", stdin=b"10.0.0.1\nfoo\n")
    assert set(ended.json["statuses"]) <= Status.__members__.keys()
