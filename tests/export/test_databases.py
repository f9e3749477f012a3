"""The page's recipes for PostgreSQL and ClickHouse, run as they stand there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_dataset

from geolookup import Dataset, Status
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import encode
from geolookup.answer.intervals import FAMILIES
from geolookup.export import export

PAGE = Path(__file__).resolve().parents[2] / "docs/export.md"


def recipe(program: str) -> str:
    """Return the SQL that follows the paragraph which begins with a program's name."""
    found = re.search(rf"^{program}\b.*?```sql\n(.*?)```", PAGE.read_text(), re.M | re.S)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


def countries(dataset: Dataset) -> dict[str, str]:
    """Return the first and last address of each interval, and the country that an export has."""
    found = {}
    for family in FAMILIES:
        form = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
        for first, last, number in dataset.intervals(family):
            for value in {first, last} if number < MAX_CLAIMS else ():
                answer = dataset.lookup(str(form(value)))
                agreed = answer.status in (Status.ASSIGNED, Status.OVERRIDE)
                found[str(form(value))] = answer.country if agreed else "ZZ"
    assert len(found) > 30
    return found


def written(dataset: Dataset, folder: Path, format_name: str) -> None:
    with (folder / "countries.csv").open("wb") as file:
        export(dataset, file, format_name)


@pytest.fixture
def postgresql() -> Iterator[Path]:
    """Run a server of its own; yield the folder of its socket, where its user may read."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or shutil.which("psql") is None:
        pytest.skip("PostgreSQL is not installed")
    identity: dict[str, Any] = {}
    if os.getuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("nobody")
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="geolookup-") as name:
        folder = Path(name)
        if identity:
            os.chown(folder, identity["user"], identity["group"])

        def run(*command: object) -> None:
            texts = [str(part) for part in command]
            subprocess.run(
                texts, check=True, capture_output=True, timeout=120, cwd=folder, **identity
            )

        data = folder / "data"
        run(programs[-1], "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        control = [programs[-1].with_name("pg_ctl"), "-D", data, "-w"]
        settings = f"-c listen_addresses='' -c fsync=off -k {folder}"
        run(*control, "-l", folder / "log", "-o", settings, "start")
        try:
            yield folder
        finally:
            run(*control, "-m", "immediate", "stop")


def test_postgresql_joins_as_the_page_says(dataset: Dataset, postgresql: Path) -> None:
    expected = countries(dataset)
    written(dataset, postgresql, "csv")
    (postgresql / "joins").write_text("".join(f"{address}\n" for address in expected))
    create = "CREATE TABLE joins (ip inet);\n\\copy joins FROM 'joins'\n"
    (postgresql / "recipe.sql").write_text(create + recipe("PostgreSQL, in psql"))
    psql = shutil.which("psql")
    assert psql is not None
    done = subprocess.run(
        [
            psql,
            "-h",
            postgresql,
            "-U",
            "postgres",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            "recipe.sql",
        ],
        cwd=postgresql,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert {str(ipaddress.ip_address(ip)): code for ip, code in rows} == expected


def test_clickhouse_finds_as_the_page_says(dataset: Dataset, tmp_path: Path) -> None:
    session = pytest.importorskip("chdb.session", reason="ClickHouse for Python is not installed")
    expected = countries(dataset)
    written(dataset, tmp_path, "prefixes")
    create, select = (
        part for part in recipe("ClickHouse").split(";") if "SELECT" in part or "CREATE" in part
    )
    with contextlib.chdir(tmp_path), contextlib.closing(session.Session()) as opened:
        opened.query("CREATE DATABASE small")
        opened.query("USE small")
        opened.query(create)
        for version, kind in ((4, "IPv4"), (6, "IPv6")):
            asked = {
                a: c for a, c in expected.items() if ipaddress.ip_address(a).version == version
            }
            (tmp_path / "joins").write_text("".join(f"{address}\n" for address in asked))
            opened.query("DROP TABLE IF EXISTS joins")
            opened.query(f"CREATE TABLE joins (ip {kind}) ENGINE = Memory")
            opened.query("INSERT INTO joins SELECT * FROM file('joins', TSV, 'ip String')")
            rows = [
                line.split("\t") for line in str(opened.query(select, "TSV")).splitlines() if line
            ]
            assert {str(ipaddress.ip_address(ip)): code for ip, code in rows} == asked
        mapped = "SELECT dictGet('countries', 'code', tuple(toIPv6('::ffff:1.0.1.1')))"
        assert str(opened.query(mapped, "TSV")).strip() == "CN"
