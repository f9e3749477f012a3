"""Exports as HAProxy, nginx and ipset read them, asked at the edges of every interval."""

from __future__ import annotations

import http.client
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_dataset
import small_networks
from namespaces import namespace

from geolookup import Dataset, Network, Status
from geolookup.answer.claims import MAX_CLAIMS
from geolookup.answer.dataset import encode
from geolookup.answer.intervals import FAMILIES
from geolookup.export import export

Ask = Callable[[str], str]
"""Returns what a server finds in its map for an address."""

KINDS = (Network.VPN, Network.TOR, Network.HOSTING)
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

HAPROXY = """
global
  pidfile {folder}/pid
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 60s
frontend answers
  bind unix@{folder}/socket
  http-request set-var(txn.found) req.hdr(x-ip),map_ip({map},ZZ)
  http-request return status 200 content-type text/plain lf-string %[var(txn.found)]
"""

NGINX = """
pid {folder}/pid;
error_log {folder}/errors;
master_process off;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  geo $http_x_ip $found {{ default ZZ; include {map}; }}
  server {{ listen unix:{folder}/socket; location / {{ return 200 $found; }} }}
}}
"""

COMMANDS = {
    "haproxy": ["-D", "-f", "{folder}/configuration"],
    "nginx": ["-c", "{folder}/configuration", "-p", "{folder}"],
}
"""Each returns when the program listens, and leaves it running."""

CONFIGURATIONS = {"haproxy": HAPROXY, "nginx": NGINX}

each_program = pytest.mark.parametrize("program", CONFIGURATIONS)


@pytest.fixture(scope="session")
def ipset() -> Callable[[str], str]:
    return namespace("ipset", "ipset create trial hash:net")


@pytest.fixture(scope="module")
def small() -> Iterator[Dataset]:
    with Dataset.from_buffer(encode(small_dataset.content())) as opened:
        yield opened


@pytest.fixture(scope="module")
def listed() -> Iterator[Dataset]:
    with small_networks.dataset() as opened:
        yield opened


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Ask]]:
    """Start a program with an export in its map, and return a way to ask it."""
    started: list[int] = []
    connections: list[UnixConnection] = []

    def start(program: str, dataset: Dataset, **options: Any) -> Ask:
        command = shutil.which(program, path=PATH)
        if command is None:
            pytest.skip(f"{program} is not installed")
        with (tmp_path / "map").open("wb") as file:
            export(dataset, file, program, **options)
        text = CONFIGURATIONS[program].format(folder=tmp_path, map=tmp_path / "map")
        (tmp_path / "configuration").write_text(text)
        arguments = [argument.format(folder=tmp_path) for argument in COMMANDS[program]]
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        started.append(int((tmp_path / "pid").read_text()))
        connection = UnixConnection(tmp_path / "socket")
        connections.append(connection)

        def ask(address: str) -> str:
            connection.request("GET", "/", headers={"x-ip": address})
            return connection.getresponse().read().decode()

        return ask

    yield start
    for connection in connections:
        connection.close()
    for process in started:
        os.kill(process, signal.SIGTERM)


def edges(dataset: Dataset) -> dict[str, str]:
    """Return the first and last address of each interval and those beside, and their codes."""
    asked = {}
    for family in FAMILIES:
        form = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
        top = 2**32 - 1 if family == 4 else 2**128 - 1
        for first, last, number in dataset.intervals(family):
            for value in {max(first - 1, 0), first, last, min(last + 1, top)}:
                if number < MAX_CLAIMS and not embedded(family, value):
                    asked[str(form(value))] = code(dataset, str(form(value)))
    assert "255.255.255.255" in asked
    assert len(asked) > 30
    return asked


def embedded(family: int, value: int) -> bool:
    """Whether an IPv6 address carries an IPv4 address, or did so in times past (``::/96``)."""
    return family == 6 and (
        value >> 96 == 0x2001_0000
        or value >> 112 == 0x2002
        or value >> 32 in (0, 0xFFFF, 0x0064_FF9B << 64)
    )


def code(dataset: Dataset, address: str) -> str:
    answer = dataset.lookup(address)
    agreed = answer.status in (Status.ASSIGNED, Status.OVERRIDE)
    return answer.country if agreed else "ZZ"


def kinds(address: str) -> str:
    """Return the kinds of an address among `KINDS`, from the tables of the dataset."""
    found = small_networks.kinds(address)
    return ",".join(kind.name for kind in Network if kind in KINDS and kind.name in found) or "ZZ"


@each_program
def test_server_finds_the_country_at_every_edge(
    small: Dataset, serve: Callable[..., Ask], program: str
) -> None:
    asked = edges(small)
    ask = serve(program, small)
    assert {address: ask(address) for address in asked} == asked


@each_program
def test_server_finds_only_the_codes_asked_for(
    small: Dataset, serve: Callable[..., Ask], program: str
) -> None:
    asked = {address: code if code == "CN" else "ZZ" for address, code in edges(small).items()}
    ask = serve(program, small, codes=["CN"])
    assert {address: ask(address) for address in asked} == asked


@each_program
def test_server_finds_kinds_of_networks_at_every_edge(
    listed: Dataset, serve: Callable[..., Ask], program: str
) -> None:
    asked = {address: kinds(address) for address in edges(listed)}
    assert {"VPN", "VPN,HOSTING", "TOR,VPN,HOSTING", "HOSTING", "ZZ"} <= set(asked.values())
    ask = serve(program, listed, networks=KINDS)
    assert {address: ask(address) for address in asked} == asked


@pytest.mark.parametrize(
    ("program", "found"),
    [("haproxy", ("DE", "DE", "DE", "ZZ")), ("nginx", ("DE", "ZZ", "ZZ", "ZZ"))],
)
def test_server_finds_ipv4_addresses_inside_as_the_page_says(
    small: Dataset, serve: Callable[..., Ask], program: str, found: tuple[str, ...]
) -> None:
    ask = serve(program, small)
    forms = ("::ffff:2.0.0.1", "2002:200:1::", "::2.0.0.1", "64:ff9b::200:1")
    assert tuple(ask(address) for address in forms) == found


def test_ipset_holds_the_country_at_every_edge(
    small: Dataset, tmp_path: Path, ipset: Callable[[str], str]
) -> None:
    asked = edges(small)
    with (tmp_path / "sets").open("wb") as file:
        export(small, file, "ipset", codes=["CN", "DE", "FR", "MO"])
    names = {f"{code}_ipv{family}" for code in ("CN", "DE", "FR", "MO") for family in FAMILIES}
    tests = [
        f"{name} {address}"
        for address in asked
        for name in names
        if name[-1] == str(ipaddress.ip_address(address).version)
    ]
    (tmp_path / "tests").write_text("".join(f"{test}\n" for test in tests))
    found = ipset(
        f"ipset restore <{tmp_path}/sets; ipset list -name | tr '\\n' ' '; echo\n"
        "while read -r name address; do\n"
        '  ipset -quiet test "$name" "$address" && echo "$name $address" || true\n'
        f"done <{tmp_path}/tests"
    ).splitlines()
    assert set(found[0].split()) == names
    wanted = {
        f"{code}_ipv{ipaddress.ip_address(address).version} {address}"
        for address, code in asked.items()
        if code != "ZZ"
    }
    assert set(found[1:]) == wanted
    assert len(wanted) > 8


def test_ipset_loading_a_newer_file_replaces_the_elements(
    small: Dataset, tmp_path: Path, ipset: Callable[[str], str]
) -> None:
    for name, disputed in (("older", "primary"), ("newer", "omit")):
        with (tmp_path / name).open("wb") as file:
            export(small, file, "ipset", codes=["CN"], disputed=disputed)
    listed = ipset(
        f"ipset restore <{tmp_path}/older; ipset test CN_ipv4 9.0.0.1\n"
        f"ipset restore <{tmp_path}/newer; ipset save CN_ipv4; ipset list -name"
    ).splitlines()
    assert [line for line in listed if line.startswith("add")] == ["add CN_ipv4 1.0.1.0/24"]
    assert listed[-2:] == ["CN_ipv4", "CN_ipv6"]


def test_ipset_holds_the_whole_space_as_halves(tmp_path: Path, ipset: Callable[[str], str]) -> None:
    """A prefix of length 0 is none for it."""
    content = small_dataset.Content(
        ipv4_first=bytes(4),
        ipv4_claims=small_dataset.CN.to_bytes(2, "little"),
        ipv6_first_high=bytes(8),
        ipv6_first_low=bytes(8),
        ipv6_claims=small_dataset.CN.to_bytes(2, "little"),
        metadata=small_dataset.metadata(),
    )
    with Dataset.from_buffer(encode(content)) as dataset, (tmp_path / "sets").open("wb") as file:
        export(dataset, file, "ipset", codes=["CN"])
    saved = ipset(f"ipset restore <{tmp_path}/sets; ipset save").splitlines()
    assert sorted(line for line in saved if line.startswith("add")) == [
        "add CN_ipv4 0.0.0.0/1",
        "add CN_ipv4 128.0.0.0/1",
        "add CN_ipv6 8000::/1",
        "add CN_ipv6 ::/1",
    ]


def test_ipset_of_kinds_has_a_set_of_each(
    listed: Dataset, tmp_path: Path, ipset: Callable[[str], str]
) -> None:
    with (tmp_path / "sets").open("wb") as file:
        export(listed, file, "ipset", networks=KINDS)
    saved = ipset(f"ipset restore <{tmp_path}/sets; ipset save").splitlines()
    found: dict[str, list[Any]] = {}
    for _, name, prefix in (line.split() for line in saved if line.startswith("add")):
        found.setdefault(name, []).append(ipaddress.ip_network(prefix))
    for address in edges(listed):
        at = ipaddress.ip_address(address)
        named = {
            kind.name
            for kind in KINDS
            if any(at in network for network in found.get(f"{kind.name}_ipv{at.version}", []))
        }
        assert named == set(kinds(address).split(",")) - {"ZZ"}, address
