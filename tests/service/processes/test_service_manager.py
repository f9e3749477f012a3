"""systemd: what the service tells it, and the units."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import COMMAND, PATIENCE, ROOT, SPARE, serving

from geolookup.client import Client
from geolookup.service.processes.operating_system import ServiceManager

UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that systemd listens on, and its address."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(PATIENCE)
        yield listening, address


# the protocol


def test_assignments_are_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    environment = {"NOTIFY_SOCKET": address, "OTHER": "x"}
    ServiceManager(environment).notify("READY=1", "STATUS=Serving")
    assert listening.recv(100) == b"READY=1\nSTATUS=Serving"
    # What this process starts must not speak for it.
    assert environment == {"OTHER": "x"}


def test_an_address_may_be_abstract() -> None:
    name = f"geolookup-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(PATIENCE)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).notify("READY=1")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # another process's
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_for_this_process_alone(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/run/x", **environment}).watchdog == seconds
    assert ServiceManager(environment).watchdog is None


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative", "\0"])
def test_manager_that_does_not_listen_harms_nothing(address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")


def test_manager_that_reads_nothing_blocks_nothing(manager: tuple[socket.socket, str]) -> None:
    one = ServiceManager({"NOTIFY_SOCKET": manager[1]})
    for _ in range(1_000):  # more than a queue of datagrams holds
        one.notify("WATCHDOG=1")


# the service


def test_service_reports_its_start_its_loop_and_its_stop(
    manager: tuple[socket.socket, str],
) -> None:
    listening, address = manager
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    with serving(**environment) as service:
        ready = listening.recv(200).decode().splitlines()
        assert ready == ["READY=1", f"STATUS=Serving {service.announced['dataset'][0]}"]
        for _ in range(3):
            assert listening.recv(200) == b"WATCHDOG=1"
        for worker in service.workers:
            variables = Path(f"/proc/{worker}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in variables

        # A supervisor that stands still is silent: systemd then restarts it.
        service.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED | os.WNOWAIT)
        while select.select([listening], [], [], 0)[0]:  # those that were on their way
            listening.recv(200)
        assert not select.select([listening], [], [], 1.0)[0]
        service.process.send_signal(signal.SIGCONT)
        assert listening.recv(200) == b"WATCHDOG=1"

        service.process.terminate()
        while (received := listening.recv(200)) != b"STOPPING=1":
            assert received == b"WATCHDOG=1"
        assert service.process.wait(PATIENCE) == 0


# the units

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units, with a program in place of the command that is not installed where tests run."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/geolookup", sys.executable)
        (tmp_path / unit.name).write_text(text)
    return sorted(str(tmp_path / unit.name) for unit in UNITS.iterdir())


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        ["systemd-analyze", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
    if "unrecognized option" in ended.stderr:
        pytest.skip("this systemd-analyze is older than 250, which has these options")
    return ended


@needs_systemd
def test_units_have_no_error_and_no_unknown_key(units: list[str], tmp_path: Path) -> None:
    ended = analyze("verify", "--recursive-errors=no", *units)
    assert (ended.returncode, ended.stderr) == (0, "")
    # The option makes an unknown key count; by default it is a line alone.
    bad = tmp_path / "bad.service"
    bad.write_text((tmp_path / "geolookup.service").read_text() + "\n[Service]\nNoSuchKey=1\n")
    assert analyze("verify", "--recursive-errors=no", str(bad)).returncode != 0


@needs_systemd
@pytest.mark.parametrize("name", ["geolookup.service", "geolookup-update.service"])
def test_services_are_confined(units: list[str], name: str) -> None:
    (unit,) = [unit for unit in units if unit.endswith(f"/{name}")]
    # Tenths: an exposure of 2.0.
    ended = analyze("security", "--offline=true", "--threshold=20", "--no-pager", unit)
    assert ended.returncode == 0, ended.stdout


def expanded(name: str) -> set[str]:
    """Return the system calls of a set, or the one of this name."""
    if not name.startswith("@"):
        return {name}
    lines = map(str.strip, analyze("syscall-filter", name).stdout.splitlines())
    members = [line for line in lines if line and line != name and not line.startswith("#")]
    return set().union(*map(expanded, members))


def allowed(unit: Path) -> set[str]:
    """Return the system calls that a unit allows: each line adds to those before, or takes away."""
    found: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)", unit.read_text(), re.MULTILINE):
        names = set().union(*map(expanded, line.removeprefix("~").split()))
        found = found - names if line.startswith("~") else found | names
    return found


@needs_systemd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.usefixtures("transport")
def test_service_makes_only_system_calls_that_its_unit_allows(tmp_path: Path) -> None:
    """One of a worker that is refused would end it, or not do what it was made for."""
    trace = tmp_path / "trace"
    tracer = ["strace", "-D", "-f", "-qq", "-o", str(trace)]
    addresses = ["1.0.1.1", "8.8.8.8"] * 50_000
    options = ("--workers", "2", SPARE, "--metrics", "127.0.0.1:0")
    with serving(*options, command=[*tracer, *COMMAND]) as service:
        with Client(service.target) as client:
            assert client.lookup("1.0.1.1", "CN").country == "CN"
            assert len(client.classify(addresses, region_set="CN").inside) == 50_000
        service.process.send_signal(signal.SIGHUP)
        assert service.stop() == 0
    made = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)", trace.read_text(), re.MULTILINE))
    assert "memfd_create" in made  # the trace has what workers do
    assert made - allowed(UNITS / "geolookup.service") == set()
