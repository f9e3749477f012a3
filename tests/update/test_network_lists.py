"""Lists of networks that are downloaded: from the catalogue to answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from command_line import Ended, run_command
from publishers import LISTS, SMALL_CATALOGUE, Server, bare, content, publishing

import geolookup
from geolookup import Network, Reason, Verdict
from geolookup.build import compiler
from geolookup.build.readers import network_list
from geolookup.errors import SourceError
from geolookup.update import (
    Cache,
    TransferLimits,
    UpdateError,
    catalogue,
    fetch,
    load_manifest,
    refresh,
    replace,
    used_by,
    write_manifest,
)

TODAY = date(2026, 11, 17)
PUBLISHED = [one for one in catalogue.load().publishers if one.kinds]
once = functools.partial(fetch, limits=TransferLimits(stall=20, attempts=1))


@pytest.fixture
def server() -> Iterator[Server]:
    with publishing() as running:
        running.publish()
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as entered:
        yield entered


def test_all_lists_are_compiled_and_answer(server: Server, cache: Cache, tmp_path: Path) -> None:
    chosen = catalogue.read(server.catalogue(), "c").chosen(
        ["geo-whois-asn", *(one.name for one in PUBLISHED)]
    )
    found = refresh(chosen, cache, today=TODAY, fetch=once)
    loaded = load_manifest(write_manifest(found, cache), found)
    target = tmp_path / "networks.geolookup"
    replace(target, lambda: compiler.compile_manifest(loaded))
    with geolookup.open(target) as opened:
        assert [(one.name, one.kinds, one.vouches) for one in opened.network_lists] == [
            (one.name, one.kinds, one.vouches) for one in PUBLISHED
        ]
        assert {one.date for one in opened.network_lists} == {TODAY.isoformat()}
        kinds = {
            "1.0.0.1": (Network.VPN, Network.HOSTING),
            "1.0.0.64": (Network.HOSTING,),
            "8.9.0.7": (Network.TOR,),
            "8.9.0.8": (),
            "8.10.0.1": (Network.RELAY,),
            "8.11.0.1": (Network.RELAY,),
            "8.11.1.1": (Network.RELAY,),
            "8.12.0.1": (Network.SATELLITE,),
            "8.13.255.1": (Network.HOSTING,),
            "2600:1f00::1": (Network.HOSTING,),
            "8.14.0.1": (Network.HOSTING,),
            "2600:1900::1": (Network.HOSTING,),
            "8.15.0.1": (Network.HOSTING,),
            "8.16.1.1": (Network.HOSTING,),
        }
        assert {address: opened.lookup(address).networks for address in kinds} == kinds
        # Apple's word is Canada there, and the source of countries says US.
        assert opened.lookup("8.10.0.1", "US").verdict is Verdict.INSIDE
        assert opened.lookup("8.10.0.2", "US").reason is Reason.DISPUTED
        assert opened.lookup("8.11.1.1", "US").reason is Reason.COVERED


@pytest.mark.parametrize("publisher", PUBLISHED, ids=lambda one: one.name)
def test_what_is_no_list_is_refused(server: Server, cache: Cache, publisher: object) -> None:
    (mirrored,) = catalogue.read(server.catalogue(), "c").chosen([publisher.name])  # type: ignore[attr-defined]
    path = mirrored.file[0].url.removeprefix(server.url)
    for body, what in (
        (b"<!doctype html><title>gone", "a web page instead of data"),
        (b"Too many requests, try again\n", "not in the format"),
        (b"", "empty"),
    ):
        server.plan(path, bare(body, length=len(body)))
        with pytest.raises(UpdateError, match=what):
            refresh([mirrored], cache, today=TODAY, fetch=once)


def test_list_that_shrinks_by_half_is_refused(server: Server, cache: Cache) -> None:
    chosen = catalogue.read(server.catalogue(), "c").chosen(["tor-exits"])
    refresh(chosen, cache, today=TODAY, fetch=once)
    server.plan("/exit-addresses", content(b"ExitAddress 8.9.0.7 2026-11-16 20:08:50\n"))
    with pytest.raises(UpdateError, match=r"implausibly small: .* where the one at hand has"):
        refresh(chosen, cache, today=TODAY, fetch=once)


MANIFEST = """
[[source]]
name = "base"
files = ["dbip-country-lite.csv.gz"]
licence = "CC-BY-4.0"
date = 2020-01-01
coverage = "full"

[[network]]
name = "exits"
files = ["tor-exit-addresses.txt", "our-own.txt"]
kind = "TOR"
licence = "x"
date = 2020-01-01

[[network]]
name = "relays"
files = ["icloud-egress-ip-ranges.csv"]
kind = "RELAY"
vouches = true
licence = "x"
date = 2020-01-01
"""


def test_lists_of_a_manifest_may_be_downloads(server: Server, cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "geolookup.toml"
    path.write_text(MANIFEST)
    (tmp_path / "our-own.txt").write_text("192.88.98.0/24\n")
    chosen = used_by(path, catalogue.read(server.catalogue(), "c"))
    assert [one.name for one in chosen] == ["dbip", "tor-exits", "icloud-private-relay"]
    found = refresh(chosen, cache, today=TODAY, fetch=once)
    loaded = load_manifest(path, found)
    # A file of the operator's own has no other date than the manifest's.
    assert [entry.network_list.date for entry in loaded.networks] == [date(2020, 1, 1), TODAY]
    assert len(compiler.compile_manifest(loaded).metadata["networks"]) == 2


SMALL = f"""{SMALL_CATALOGUE}
[[network]]
name = "vpns"
kind = "VPN"
licence = "CC0-1.0"
attribution = ""
url = ""
notice = ""
origin = ""
[[network.file]]
name = "vpns.txt"
url = "https://mirror.example/vpns.txt"
date = "modified"
smallest = 1
largest = 10
largest_unpacked = 10
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('kind = "VPN"', "", "network 1: kind: missing"),
        ('kind = "VPN"', 'kind = "vpn"', "network 1: kind: expected of TOR, VPN"),
        ('kind = "VPN"', "kind = []", "network 1: kind: names none"),
        ('kind = "VPN"', 'kind = "VPN"\nvouches = true', "network 1: vouches: only a list of kind"),
        ('kind = "VPN"', 'kind = "VPN"\ncoverage = "full"', "network 1: coverage: unknown key"),
        ('kind = "VPN"', 'kind = "VPN"\nformat = "tor"', "network 1: format: unknown key"),
        ('"vpns"', '"mirror"', "the name mirror is used twice"),
        ('"vpns.txt"', '"ranges.csv"', "the name ranges.csv is used twice"),
        ("[[network.file]]", "[[network.files]]", "network 1: files: unknown key"),
    ],
)
def test_invalid_entry_of_a_list_is_an_error(old: str, new: str, expected: str) -> None:
    assert len(catalogue.read(SMALL, "c").publishers) == 2
    with pytest.raises(UpdateError) as caught:
        catalogue.read(SMALL.replace(old, new, 1), "mirrors.toml")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "body", [*LISTS.values(), b"network,x\n1.0.0.0/8,y\n", b"1.0.0.1,1.0.0.2\n"]
)
def test_what_is_recognised_is_read(body: bytes, tmp_path: Path) -> None:
    assert network_list.recognises(body)
    (tmp_path / "list").write_bytes(body)
    assert len(network_list.read([tmp_path / "list"], Network.VPN.bit))


@pytest.mark.parametrize(
    "body", [b"", b"no list\n", b"name,kind\na,b\n", b"start,kind\n1.0.0.0,b\n"]
)
def test_what_is_not_recognised_is_not_read(body: bytes, tmp_path: Path) -> None:
    assert not network_list.recognises(body)
    (tmp_path / "list").write_bytes(body)
    with pytest.raises(SourceError):
        network_list.read([tmp_path / "list"], Network.VPN.bit)


@pytest.fixture
def run(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    path = tmp_path / "catalogue.toml"
    path.write_text(server.catalogue())
    return lambda *arguments: run_command(
        capsys, "update", "--catalogue", path, "--cache", tmp_path / "cache", *arguments
    )


def test_command_names_licences_and_refuses_lists_alone(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    target = tmp_path / "countries.geolookup"
    ended = run("x4bnet-vpn", "tor-exits", "--dataset", target)
    assert ended.code == 1
    assert "describes neither a source nor an override" in ended.err
    assert "The Tor Project publishes the addresses" in ended.err
    assert not target.exists()
    ended = run("x4bnet-vpn", "tor-exits")
    assert ended.code == 0
    assert "tor-exit-addresses.txt" in ended.out
