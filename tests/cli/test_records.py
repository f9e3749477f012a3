"""Files of records: every kind is read for what it is, annotated, or refused with the reason."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from backports import zstd
from command_line import Run, runner_for_bytes
from pyarrow import parquet
from servers import serving

from geolookup.answer.claims import Verdict
from geolookup.cli.records import RecordFile, Selection

CHINA, AMERICA, HONG_KONG = "1.0.1.1", "8.8.8.8", "43.102.0.1"
HIDDEN = "203.0.113.77"


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    return runner_for_bytes(capfdbinary)


CSV = f"""user,ip,note
alice,{CHINA},"a ""q"", b"
bob,{AMERICA}
carol,,nothing
dave,{HONG_KONG},y
"""
JSON = (
    f'{{"user": "alice", "ip": "{CHINA}", "n": 1.50}}\n'
    f'{{"user": "bob", "ip": "{AMERICA}"}}\n\n'
    '{"user": "carol", "ip": null}\n'
    f'{{ "ip":"{HONG_KONG}","user":"dave" }}\n'
)
LOG = (
    f'{CHINA} - alice [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 "(KHTML, like Gecko)"\n'
    f'{AMERICA} - bob [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200\n'
    "no address here\n"
    f"{HONG_KONG} - dave [10/Oct/2026:13:55:36 +0000]\n"
)
LIST = f"# who joined\n{CHINA}\n\n{AMERICA}\nfoo\n{HONG_KONG}\n"


def table() -> pa.Table:
    return pa.table(
        {"user": ["alice", "bob", "carol", "dave"], "ip": [CHINA, AMERICA, None, HONG_KONG]}
    )


def write_parquet(content: pa.Table) -> bytes:
    out = io.BytesIO()
    parquet.write_table(content, out)
    return out.getvalue()


KINDS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "CSV": (CSV.encode(), ()),
    "CSV with semicolons": (CSV.replace(",", ";").encode(), ()),
    "CSV with bars": (CSV.replace(",", "|").encode(), ()),
    "CSV in UTF-16": (CSV.encode("utf-16"), ()),
    "JSON lines": (JSON.encode(), ()),
    "JSON lines by a key": (JSON.replace('"ip"', '"at"').encode(), ("--column", "at")),
    "Parquet": (write_parquet(table()), ()),
    "a log": (LOG.encode(), ("--pattern", r"^(\S+) - ")),
    "a log by name": (LOG.encode(), ("--pattern", r"(?P<address>[0-9.]+) (-) ")),
    "a list": (LIST.encode(), ()),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def path_of(folder: Path, content: bytes) -> str:
    path = folder / "records"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_classify_gives_the_same_answer_for_each_kind_of_file(
    run: Run, tmp_path: Path, kind: str
) -> None:
    content, options = KINDS[kind]
    ended = run("classify", path_of(tmp_path, content), *options, "-r", "CN", "--json")
    found = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert (found["size"], found["inside"], found["undetermined"]) == (4, [0], [2])


@pytest.mark.parametrize("how", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["CSV", "JSON lines", "a log", "a list", "CSV in UTF-16"])
def test_compressed_records_are_read_as_plain_ones(
    run: Run, tmp_path: Path, kind: str, how: str
) -> None:
    content, options = KINDS[kind]
    plain = run("annotate", path_of(tmp_path, content), *options, "-r", "CN")
    packed = run("annotate", path_of(tmp_path, COMPRESSIONS[how](content)), *options, "-r", "CN")
    assert packed == plain
    assert plain.code == 0


@pytest.mark.parametrize("stdin", [False, True])
def test_compressed_records_cut_short_are_an_error(tmp_path: Path, stdin: bool) -> None:
    path = Path(path_of(tmp_path, gzip.compress(CSV.encode() * 1000)[:-20]))
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "geolookup", "annotate", "-" if stdin else str(path)],
            stdin=file,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 1
    name = "standard input" if stdin else str(path)
    assert done.stderr.decode().startswith(f"geolookup: {name}: can't be decompressed")


EXPECTED = [
    ("CN", "ASSIGNED", "INSIDE", "DECIDED"),
    ("US", "ASSIGNED", "OUTSIDE", "DECIDED"),
    ("ZZ", "INVALID", "UNDETERMINED", "INVALID"),
    ("HK", "DISPUTED", "OUTSIDE", "DECIDED"),
]


def test_annotate_adds_columns_to_csv(run: Run, tmp_path: Path) -> None:
    out = run("annotate", path_of(tmp_path, CSV.encode()), "-r", "CN").out.decode()
    rows = list(csv.reader(out.splitlines()))
    assert rows[0] == ["user", "ip", "note", "country", "status", "verdict", "reason"]
    assert [tuple(row[3:]) for row in rows[1:]] == EXPECTED
    # A short row is filled up, so that the new columns stand under their names.
    assert rows[2][:3] == ["bob", AMERICA, ""]
    assert rows[1][2] == 'a "q", b'


def test_annotate_adds_keys_to_json_and_keeps_the_record(run: Run, tmp_path: Path) -> None:
    lines = run("annotate", path_of(tmp_path, JSON.encode()), "-r", "CN").out.decode().splitlines()
    found = [json.loads(line) for line in lines]
    keys = ("country", "status", "verdict", "reason")
    assert [tuple(one[key] for key in keys) for one in found] == EXPECTED
    assert lines[0].startswith(f'{{"user": "alice", "ip": "{CHINA}", "n": 1.50, ')
    assert found[3]["user"] == "dave"


def test_annotate_adds_columns_to_parquet(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    path = path_of(tmp_path, KINDS["Parquet"][0])
    assert run("annotate", path, "-r", "CN", "-o", str(out)).code == 0
    found = parquet.read_table(out)
    assert found.select(["user", "ip"]).equals(table())
    rows = found.select(["country", "status", "verdict", "reason"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == EXPECTED


def test_annotate_puts_answers_behind_lines(run: Run, tmp_path: Path) -> None:
    content = LOG.replace("no address", "kein Zugriff \udcff").encode(errors="surrogateescape")
    out = run("annotate", path_of(tmp_path, content), "--pattern", r"^(\S+) - ", "-r", "CN").out
    lines = out.split(b"\n")
    assert [line.rsplit(b"\t", 4)[0] for line in lines[:-1]] == content.splitlines()
    found = [tuple(part.decode() for part in line.rsplit(b"\t", 4)[1:]) for line in lines[:-1]]
    assert found == EXPECTED


def test_annotate_has_no_verdict_without_a_region_set(run: Run, tmp_path: Path) -> None:
    out = run("annotate", path_of(tmp_path, CSV.encode()), "--prefix", "geo_").out.decode()
    assert out.splitlines()[0] == "user,ip,note,geo_country,geo_status"


@pytest.mark.parametrize("kind", ["CSV", "JSON lines", "Parquet"])
def test_annotate_refuses_a_name_that_a_column_has(run: Run, tmp_path: Path, kind: str) -> None:
    content = {
        "CSV": b"ip,country\n1.0.1.1,x\n",
        "JSON lines": b'{"ip": "1.0.1.1", "country": "x"}\n',
        "Parquet": write_parquet(pa.table({"ip": [CHINA], "country": ["x"]})),
    }[kind]
    out = tmp_path / "out"
    ended = run("annotate", path_of(tmp_path, content), "-o", str(out))
    assert ended.code == 2
    assert "has a column country already; choose --prefix" in ended.err
    assert not out.exists()


def test_annotate_refuses_a_row_that_is_longer_than_the_header(run: Run, tmp_path: Path) -> None:
    ended = run("annotate", path_of(tmp_path, b"ip,n\n1.0.1.1,1,2\n"))
    assert ended.code == 1
    assert "a row has 3 fields and the header 2" in ended.err


@pytest.mark.parametrize("kind", ["CSV", "JSON lines", "Parquet"])
def test_ids_stand_in_place_of_positions(run: Run, tmp_path: Path, kind: str) -> None:
    content, options = KINDS[kind]
    arguments = ("classify", path_of(tmp_path, content), *options, "-r", "CN", "--id", "user")
    found = json.loads(run(*arguments, "--json").out)
    assert (found["inside"], found["undetermined"], found["outside"]) == (["alice"], ["carol"], 2)
    out = run(*arguments).out.decode()
    assert "inside: alice\nundetermined: carol\n" in out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verdict", Verdict)
def test_rows_of_a_verdict_are_written_as_they_are(
    run: Run, tmp_path: Path, kind: str, verdict: Verdict
) -> None:
    content, options = KINDS[kind]
    path = path_of(tmp_path, content)
    ended = run("classify", path, *options, "-r", "CN", "--rows", verdict.name.lower())
    positions = {"INSIDE": [0], "OUTSIDE": [1, 3], "UNDETERMINED": [2]}[verdict.name]
    assert ended.code == 0
    if kind == "Parquet":
        assert parquet.read_table(io.BytesIO(ended.out)).equals(table().take(positions))
        return
    (tmp_path / "again").mkdir()
    again = path_of(tmp_path / "again", ended.out)
    with RecordFile(again, Selection("at" if "--column" in options else None)) as file:
        if kind.startswith(("a log", "a list")):
            assert len(ended.out.splitlines()) == len(positions)
        else:
            (batch,) = file.batches(10)
            names = ["alice", "bob", "carol", "dave"]
            assert batch.column("user", "--id") == [names[at] for at in positions]


# What is no roster. How it begins, what is said.
NO_ROSTERS: dict[str, tuple[bytes, str]] = {
    "a web log": (LOG.encode(), r"is a web server's log; .*--pattern"),
    "addresses with ports": (b"1.0.1.1:80\n[2001:200::1]:443\n", "--form ip:port"),
    "lists of addresses": (b"x\n" + b"1.0.1.1, 10.0.0.1\n" * 9, "--form x-forwarded-for"),
    "JSON in one piece": (b'[{"ip": "1.0.1.1"}]', "is a JSON array"),
    "a zip archive": (b"PK\3\4" + bytes(90), "is a zip archive or a spreadsheet"),
    "a tar archive": (b"x" * 257 + b"ustar\0" + bytes(249), "is a tar archive"),
    "a dataset": (b"\x89GLK\r\n\x1a\n", "is a geolookup dataset"),
    "bytes": (b"abc\0def\n", "is no text"),
    "prefixes": (b"1.0.0.0/24\n", "they are prefixes"),
    "numbers": (b"16843009\n", "they are numbers"),
    "names of hosts": (b"a.example.com\nb.example.com\n", "they are names of hosts"),
    "quotes": (b'"1.0.1.1"\n', "they are in quotes"),
    "prose": (b"Dear all\nwe meet at nine\n", "they are lines with more than an address"),
    "empty cells": (b"ip,n\n" + b",1\n" * 9, "they are empty"),
    "nothing alike": (b"!\n?\n", "they have no form of addresses"),
}


@pytest.mark.parametrize("what", NO_ROSTERS)
@pytest.mark.parametrize("command", ["classify", "annotate"])
def test_file_without_addresses_ends_with_5_and_the_likely_reason(
    run: Run, tmp_path: Path, what: str, command: str
) -> None:
    content, said = NO_ROSTERS[what]
    ended = run(command, path_of(tmp_path, content))
    assert ended.code == 5
    assert not ended.out
    assert re.search(said, ended.err), ended.err


def test_share_of_invalid_addresses_is_accepted_up_to_the_limit(run: Run, tmp_path: Path) -> None:
    path = path_of(tmp_path, f"{CHINA}\n{HIDDEN}:80\n".encode())
    assert run("classify", path).code == 0  # a half, and no more
    ended = run("classify", path, "--max-invalid", "49.9%")
    assert ended.code == 5
    assert "1 of 2 are no addresses" in ended.err
    assert HIDDEN not in ended.err
    assert run("classify", path, "--max-invalid", "5").code == 2


def test_file_that_ceases_to_have_addresses_ends_with_5(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.annotate._BATCH", 2)
    path = path_of(tmp_path, f"{CHINA}\n{CHINA}\n".encode() + b"x\n" * 9)
    out = tmp_path / "out"
    assert run("annotate", path, "-o", str(out)).code == 5
    assert not out.exists()


@pytest.mark.parametrize(
    ("form", "text", "address"),
    [
        ("address", "1.0.1.1:80", "1.0.1.1:80"),
        ("ip:port", "1.0.1.1:80", "1.0.1.1"),
        ("ip:port", "1.0.1.1", "1.0.1.1"),
        ("ip:port", "[2001:200::1]:443", "2001:200::1"),
        ("ip:port", "[2001:200::1]", "2001:200::1"),
        ("ip:port", "2001:200::1:443", ""),  # the port may be a part of the address
        ("ip:port", "1.0.1.1, 8.8.8.8", ""),
        ("ip:port", "", ""),
        ("x-forwarded-for", "1.0.1.1, 8.8.8.8", "1.0.1.1"),
        ("x-forwarded-for", "2001:200::1,8.8.8.8", "2001:200::1"),
        ("x-forwarded-for", '"[2001:200::1]:443", 8.8.8.8', "2001:200::1"),
        ("x-forwarded-for", "unknown, 8.8.8.8", "unknown"),
        ("address", "x" * 65, ""),
        ("address", "1.0.1.\N{FULLWIDTH DIGIT ONE}", ""),
        ("address", None, ""),
        ("address", 16843009, ""),
    ],
)
def test_values_are_read_in_each_form(form: str, text: object, address: str) -> None:
    assert Selection(form=form).address(text) == address


@pytest.mark.parametrize(
    "arguments",
    [
        ("--column", "ip", "--pattern", "(x)"),
        ("--pattern", "(x"),
        ("--pattern", "x"),
        ("--column", "nope"),
        ("--rows", "inside"),
        ("--id", "user"),
        ("-r", "CN", "--rows", "inside", "--json"),
        ("-r", "CN", "--id", "nope"),
        ("--max-invalid", "101%"),
    ],
    ids=" ".join,
)
def test_contradictory_options_are_wrong_usage(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = run("classify", path_of(tmp_path, CSV.encode()), *arguments)
    assert (ended.code, ended.out) == (2, b"")


@pytest.mark.parametrize("second", [b'{"ip": ', b"[1]", b"x"])
def test_malformed_json_is_named_by_its_line(run: Run, tmp_path: Path, second: bytes) -> None:
    path = path_of(tmp_path, b'{"ip": "1.0.1.1"}\n' + second + b"\n")
    ended = run("classify", path)
    assert ended.code == 1
    assert ended.err == f"geolookup: {path}:2: expected a JSON object\n"


def test_parquet_from_a_pipe_and_damaged_parquet_are_named(run: Run, tmp_path: Path) -> None:
    path = path_of(tmp_path, b"PAR1" + bytes(100))
    assert f"{path}: no Parquet that can be read" in run("classify", path).err
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", "classify", "-"],
        input=KINDS["Parquet"][0],
        capture_output=True,
        check=False,
    )
    assert b"Parquet is read from its end; save it as a file" in done.stderr


def test_parquet_without_its_package_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "geolookup.cli.parquet_records", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = run("classify", path_of(tmp_path, KINDS["Parquet"][0]))
    assert ended.code == 6
    assert "pip install 'geolookup[parquet]'" in ended.err


def test_parquet_of_packed_addresses_is_read(run: Run, tmp_path: Path) -> None:
    packed = pa.table({"ip": pa.array([b"\1\0\1\1", b"\x20\x01\x02" + bytes(13), b"?", None])})
    path = path_of(tmp_path, write_parquet(packed))
    assert json.loads(run("classify", path, "--json").out)["counts"] == {"CN": 1, "JP": 1, "ZZ": 2}


def test_annotate_over_a_service_answers_as_this_process(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geolookup.cli.annotate._BATCH", 3)
    content = "ip,n\n" + "".join(
        f"{address},{n}\n" for n in range(5) for address in (CHINA, "x", AMERICA)
    )
    path = path_of(tmp_path, content.encode())
    with serving("--max-roster", "2") as service:
        assert run("annotate", path, "-r", "CN", "--server", service.target) == run(
            "annotate", path, "-r", "CN"
        )


def test_annotate_takes_constant_memory(tmp_path: Path) -> None:
    """Twenty times the records take no more memory, but for what noise there is."""

    def peak(count: int) -> int:
        path = path_of(tmp_path, b"ip,name\n" + b"1.0.1.1,somebody in particular\n" * count)
        subprocess.run(
            [sys.executable, "-c", MEASURED, "annotate", path, "-o", str(tmp_path / "out")],
            check=True,
        )
        return int((tmp_path / "peak").read_text())

    small, large = peak(20_000), peak(400_000)
    assert large < small * 1.25


MEASURED = """
import resource, sys
from pathlib import Path
from geolookup.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(sys.argv[-1]).with_name("peak").write_text(str(peak))
    sys.exit(ended.code)
"""
