"""Kinds of networks in differences and canaries: counted right, limited right, and shown."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import small_networks
from command_line import Ended, run_command

from geolookup import Dataset, Network, SourceError
from geolookup.answer.dataset import encode, write
from geolookup.build import compiler
from geolookup.build.sources import NetworkList, Source
from geolookup.change_limits import LimitError, read_limited
from geolookup.review.acceptance import objections
from geolookup.review.difference import Weight, compare
from geolookup.review.verification import read_canaries, verify

OLD = {"vpns": ["1.0.0.0/24", "1.0.2.0/24"], "more": ["1.0.2.0/25", "2600::/32"]}
NEW = {"vpns": ["1.0.0.0/25", "1.0.4.0/24"], "exits": ["1.0.0.7/32"]}
KINDS = {"vpns": Network.VPN, "more": Network.VPN, "exits": Network.TOR}


def built(lists: dict[str, list[str]]) -> compiler.CompiledDataset:
    day = small_networks.DAY
    source = small_networks.ranges([("1.0.0.0/8", "CN"), ("2600::/16", "CN")])
    return compiler.compile(
        [(Source("base", "x", day), source)],
        networks=[
            (
                NetworkList(name, "x", day, (KINDS[name],)),
                small_networks.listed((KINDS[name],), prefixes),
            )
            for name, prefixes in lists.items()
        ],
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    for name, lists in (("old", OLD), ("new", NEW)):
        content = built(lists)
        write(content, folder / name, optional=content.optional)
    return folder / "old", folder / "new"


def opened(lists: dict[str, list[str]]) -> Dataset:
    return Dataset.from_buffer(encode(built(lists)))


def addresses(lists: dict[str, list[str]], kind: Network) -> set[int]:
    """Return all IPv4 addresses of a kind, one by one."""
    found: set[int] = set()
    for name, prefixes in lists.items():
        for prefix in prefixes if KINDS[name] is kind else ():
            network = ipaddress.ip_network(prefix)
            found |= set(
                range(int(network[0]), int(network[-1]) + 1) if network.version == 4 else ()
            )
    return found


def test_kinds_are_compared_address_by_address() -> None:
    with opened(OLD) as old, opened(NEW) as new:
        found = compare(old, new)
    ipv4, ipv6 = found.families
    for kind in (Network.VPN, Network.TOR):
        before, after = addresses(OLD, kind), addresses(NEW, kind)
        change = ipv4.networks[kind]
        assert change.before.addresses == len(before)
        assert change.gained.addresses == len(after - before)
        assert change.lost.addresses == len(before - after)
    assert set(ipv4.networks) == {Network.TOR, Network.VPN}
    assert ipv4.networks[Network.VPN].change == Fraction(128 + 256 + 256, 512)
    assert ipv4.networks[Network.TOR].change is None
    assert ipv6.networks[Network.VPN].lost == Weight(1 << 96, 1)
    assert ipv6.networks[Network.VPN].change == 1
    assert [(one.name, one.before, one.after) for one in found.lists] == [
        ("exits", None, 1), ("more", 2, None), ("vpns", 2, 2),
    ]  # fmt: skip
    # The countries are the same, whatever their networks are.
    assert ipv4.moved == ipv6.moved == Weight()


def test_datasets_without_lists_have_no_kinds_to_compare() -> None:
    with opened({}) as old:
        found = compare(old, old)
    assert (found.lists, [one.networks for one in found.families]) == ((), [{}, {}])


@pytest.mark.parametrize(
    ("limit", "exceeded"),
    [
        ({"VPN": "124%"}, ["VPN changed by 125 % in IPv4, allowed are 124 %"]),
        ({"VPN": "125%"}, []),
        (
            {"VPN": "99%"},
            [
                "VPN changed by 125 % in IPv4, allowed are 99 %",
                "VPN changed by 100 % in IPv6, allowed are 99 %",
            ],
        ),
        ({"TOR": "999%"}, ["TOR appeared in IPv4, allowed are 999 %"]),
        ({"HOSTING": "0%"}, []),
        ({"*": "0%"}, []),
    ],
)
def test_limit_of_a_kind_is_held(limit: dict[str, str], exceeded: list[str]) -> None:
    limits = {name: Fraction(text[:-1]) / 100 for name, text in limit.items()}
    with opened(OLD) as old, opened(NEW) as new:
        assert [str(one) for one in compare(old, new).exceeded(limits)] == exceeded


def test_list_that_vanishes_is_refused() -> None:
    from geolookup.change_limits import ChangeLimits  # noqa: PLC0415

    limits = ChangeLimits({"VPN": Fraction(1, 2)}, Fraction(0))
    with opened(OLD) as old, opened({}) as new:
        assert objections(new, old, limits) == (
            "VPN changed by 100 % in IPv4, allowed are 50 %",
            "VPN changed by 100 % in IPv6, allowed are 50 %",
        )
        assert objections(old, old, limits) == ()


def test_limit_is_about_a_known_kind() -> None:
    assert read_limited("VPN") == "VPN"
    with pytest.raises(LimitError):
        read_limited("vpn")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    return lambda *arguments: run_command(capsys, *arguments)


def test_command_shows_kinds_and_lists(run: Callable[..., Ended], files: tuple[Path, Path]) -> None:
    ended = run("diff", *files, "--max-change", "VPN=50%")
    assert ended.code == 1
    assert "VPN changed by 125 % in IPv4, allowed are 50 %" in ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["NETWORKS", "BEFORE", "GAINED", "LOST", "CHANGE"] in lines
    assert ["VPN", "512", "256", "384", "125.000", "%"] in lines
    assert ["TOR", "0", "1", "0", "new"] in lines
    assert ["more", "2", "none"] in lines
    ended = run("diff", *files, "--json")
    found = json.loads(ended.out)
    assert found["ipv4"]["networks"]["VPN"]["lost"] == {"size": 384, "prefixes": 2}
    assert found["ipv6"]["networks"]["VPN"]["change"] == 1
    assert found["network_lists"][0] == {"name": "exits", "before": None, "after": 1}


# --- canaries -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with small_networks.dataset() as one:
        yield one


@pytest.mark.parametrize(
    ("row", "mismatch"),
    [
        ("1.0.1.1,CN,VPN", ""),
        ("1.0.1.1,CN,VPN HOSTING", ""),
        ("1.0.1.1,,HOSTING", ""),
        ("1.0.1.1,ASSIGNED,VPN", ""),
        ("1.0.1.1,CN,", ""),
        ("1.0.1.1,CN", ""),
        ("1.0.8.1,CN,none", ""),
        ("1.0.8.1,,none", ""),
        ("1.0.1.1,CN,none", "expected CN, no kind of network, found CN (ASSIGNED), VPN HOSTING"),
        ("1.0.8.1,,VPN", "expected VPN, found CN (ASSIGNED), no kind of network"),
        ("1.0.1.1,CN,TOR VPN", "expected CN, TOR VPN, found CN (ASSIGNED), VPN HOSTING"),
        ("1.0.1.1,DE,VPN", "expected DE, VPN, found CN (ASSIGNED), VPN HOSTING"),
        ("1.0.1.1,DE", "expected DE, found CN (ASSIGNED)"),
    ],
)
def test_canary_has_networks(dataset: Dataset, tmp_path: Path, row: str, mismatch: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"address,code,networks\n{row}\n")
    found = verify(dataset, canaries=read_canaries(path), min_coverage=Fraction(0))
    assert list(found.failures) == ([f"{path}:2: {mismatch}"] if mismatch else [])


def test_canary_in_toml_has_networks(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[[canary]]\naddress = "1.0.1.1"\nnetworks = ["VPN"]\n'
        '[[canary]]\naddress = "1.0.8.1"\ncode = "CN"\nnetworks = []\n'
        '[[canary]]\naddress = "1.0.1.1"\ncode = "CN"\nnetworks = ["TOR"]\n'
    )
    canaries = read_canaries(path)
    assert [one.networks for one in canaries] == [(Network.VPN,), (), (Network.TOR,)]
    found = verify(dataset, canaries=canaries, min_coverage=Fraction(0))
    assert [one.canary.line for one in found.mismatched] == [8]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1.0.1.1,CN,vpn", "networks: expected none, or of TOR, VPN"),
        ("1.0.1.1,CN,none VPN", "networks: expected none, or of TOR, VPN"),
        ("1.0.1.1,CN,VPN,", "expected address,code"),
        ("1.0.1.1,,", "code: expected a country's code"),
    ],
)
def test_wrong_networks_of_a_canary_are_an_error(tmp_path: Path, row: str, expected: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{row}\n")
    with pytest.raises(SourceError) as caught:
        read_canaries(path)
    assert str(caught.value).startswith(f"{path}:1: {expected}")
    assert "1.0.1.1" not in str(caught.value)


def test_command_tells_networks_of_mismatches(
    run: Callable[..., Ended], files: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("1.0.0.1,CN,none\n")
    ended = run("verify", files[0], "--canaries", path, "--min-coverage", "0", "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["mismatched"] == [
        {
            "line": 1, "expected": "CN", "expected_networks": [], "country": "CN",
            "status": "ASSIGNED", "networks": ["VPN"],
        }
    ]  # fmt: skip
