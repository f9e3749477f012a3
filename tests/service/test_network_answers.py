"""Kinds of networks over both transports: what the service says is what the library says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import pytest
from servers import PATIENCE, serving, serving_here, stub_of

from geolookup import Dataset, Network, Reason, Verdict
from geolookup.answer.dataset import encode
from geolookup.build.compiler import compile as compile_sources
from geolookup.build.readers import SourceRanges
from geolookup.build.sources import NetworkList, Source
from geolookup.client import Client
from geolookup.service.monitoring import counters
from geolookup.v1 import geolookup_pb2 as v1

DAY = date(2026, 11, 1)
IMAGES: dict[str, bytes] = {}
"""Files of datasets, by id."""
ADDRESSES = ["1.0.0.1", "1.0.1.1", "1.0.2.1", "2001:200::1", "10.0.0.1", "x"]
"""A VPN, hosting, nothing of either; a VPN in a cloud; private, and no address."""


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    sixth = 0x2001_0200 << 96
    source = SourceRanges()
    source.ipv4.append(0x01000000, 0x01FFFFFF, 0x434E)
    source.ipv6.append(sixth, sixth | (1 << 96) - 1, 0x434E)
    vpn, hosting = SourceRanges(), SourceRanges()
    vpn.ipv4.append(0x01000000, 0x010000FF, Network.VPN.bit)
    vpn.ipv6.append(sixth, sixth | (1 << 96) - 1, Network.VPN.bit)
    hosting.ipv4.append(0x01000100, 0x010001FF, Network.HOSTING.bit)
    hosting.ipv6.append(sixth, sixth | 0xFFFF, Network.HOSTING.bit)
    content = compile_sources(
        [(Source("s", "x", DAY), source)],
        networks=[
            (NetworkList("vpn", "x", DAY, (Network.VPN,)), vpn),
            (NetworkList("cloud", "x", DAY, (Network.HOSTING,)), hosting),
        ],
    )
    image = encode(content, optional=content.optional)
    with Dataset.from_buffer(image) as opened:
        IMAGES[opened.id] = image
        yield opened


@pytest.fixture
def target(transport: str, dataset: Dataset) -> Iterator[str]:  # noqa: ARG001
    with serving_here(dataset) as server:
        yield str(server.address)


@pytest.mark.parametrize("networks", [None, "IGNORE", "ignore"])
def test_service_says_what_the_library_says(
    target: str, dataset: Dataset, networks: str | None
) -> None:
    with Client(target) as client:
        for _ in range(3):  # from Python, from what it taught the loop, and again
            for address in ADDRESSES:
                for region_set in ("CN", None):
                    got = client.lookup(address, region_set, networks=networks)
                    assert got == dataset.lookup(address, region_set, networks=networks)
            for region_set in ("CN", None):
                got_roster = client.classify(ADDRESSES, region_set=region_set, networks=networks)
                known = dataset.classify(ADDRESSES, region_set=region_set, networks=networks)
                assert got_roster == known
                assert got_roster.network_counts() == {Network.VPN: 2, Network.HOSTING: 2}
        many = list(client.classify_many([ADDRESSES] * 2, region_set="CN", networks=networks))
        assert many == [dataset.classify(ADDRESSES, region_set="CN", networks=networks)] * 2
        for address in ADDRESSES:
            assert client.explain(address) == dataset.explain(address)


def test_same_question_with_and_without_networks_has_answers_of_its_own(target: str) -> None:
    with Client(target) as client:
        for _ in range(3):
            assert client.lookup("1.0.0.1", "CN").reason is Reason.COVERED
            assert client.lookup("1.0.0.1", "CN", networks="IGNORE").reason is Reason.DECIDED
            assert list(client.classify(ADDRESSES, region_set="CN").inside) == [1, 2]
            ignored = client.classify(ADDRESSES, region_set="CN", networks="IGNORE")
            assert list(ignored.inside) == [0, 1, 2, 3]


def test_kinds_are_counted_by_region_set(transport: str, dataset: Dataset) -> None:  # noqa: ARG001
    with serving_here(dataset) as server, Client(str(server.address)) as client:

        def grown(ask: Callable[[], object]) -> dict[str, dict[str, int]]:
            before = counters.total([server.counters]).networks
            ask()
            after = counters.total([server.counters]).networks
            found = {}
            for name, counts in after.items():
                old = before.get(name, [0] * len(Network))
                pairs = zip(Network, counts, old, strict=True)
                named = {kind.name: new - was for kind, new, was in pairs if new != was}
                found |= {name: named} if named else {}
            return found

        both = {"VPN": 1, "HOSTING": 1}
        for _ in range(3):  # from Python, from what it taught the loop, and again
            assert grown(lambda: client.lookup("1.0.0.1", "CN")) == {"CN": {"VPN": 1}}
            assert grown(lambda: client.lookup("1.0.0.1", "CN", networks="IGNORE")) == {
                "CN": {"VPN": 1}
            }
            assert grown(lambda: client.lookup("2001:200::1", "CN")) == {"CN": both}
            assert grown(lambda: client.lookup("2001:200::1")) == {"": both}
            assert grown(lambda: client.lookup("1.0.2.1", "CN")) == {}
            assert grown(lambda: client.explain("1.0.1.1")) == {"": {"HOSTING": 1}}
            twice = {"VPN": 2, "HOSTING": 2}
            assert grown(lambda: client.classify(ADDRESSES, region_set="CN")) == {"CN": twice}
            assert grown(lambda: client.classify(ADDRESSES)) == {"": twice}
            assert grown(
                lambda: list(client.classify_many([ADDRESSES] * 2, region_set="CN+HK"))
            ) == {"CN+HK": {"VPN": 4, "HOSTING": 4}}


def test_record_says_that_networks_were_ignored(target: str, dataset: Dataset) -> None:
    with Client(target) as client:
        for source in (client, dataset):
            seen = source.classify(ADDRESSES, region_set="CN", networks="IGNORE", record=True)
            assert seen.record is not None
            assert (seen.record.networks, seen.record.inside) == ("IGNORE", 4)
            plain = source.classify(ADDRESSES, region_set="CN", record=True).record
            assert plain is not None
            assert (plain.networks, plain.reasons) == (
                "",
                {Reason.SPECIAL_PURPOSE: 1, Reason.INVALID: 1, Reason.COVERED: 2},
            )


@pytest.mark.parametrize(
    ("kinds", "recorded", "inside"),
    [("none", "IGNORE", [0, 1, 2, 3]), ("HOSTING", "HOSTING", [0, 2]), ("as-compiled", "", [1, 2])],
)
def test_service_has_covering_kinds_of_its_own(
    transport: str,  # noqa: ARG001
    dataset: Dataset,
    tmp_path: Path,
    kinds: str,
    recorded: str,
    inside: list[int],
) -> None:
    path = tmp_path / "networks.geolookup"
    path.write_bytes(IMAGES[dataset.id])
    with (
        serving("--dataset", str(path), "--covering", kinds) as service,
        Client(service.target) as client,
    ):
        for _ in range(3):  # from Python, from what it taught the loop, and again
            assert list(client.classify(ADDRESSES, region_set="CN").inside) == inside
            verdicts = [client.lookup(one, "CN").verdict for one in ADDRESSES]
            found = [at for at, verdict in enumerate(verdicts) if verdict is Verdict.INSIDE]
            assert found == inside
        result = client.classify(ADDRESSES, region_set="CN", record=True)
        assert result.record is not None
        assert result.record.networks == recorded
        named = {"none": [], "as-compiled": ["TOR", "VPN", "PROXY", "RELAY"]}
        assert client.info()["covering"] == named.get(kinds, [kinds])


def test_counts_and_column_are_in_the_message(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        stub: Any = stub_of(channel)
        request = v1.ClassifyRosterRequest(ipv4=bytes((1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 2, 1)))
        for region_set in ("", "CN"):
            request.region_set = region_set
            response = stub.ClassifyRoster(request, timeout=PATIENCE)
            assert response.networks == bytes((2, 16, 0))
            assert [(one.network, one.count) for one in response.network_counts] == [
                (v1.NETWORK_VPN, 1),
                (v1.NETWORK_HOSTING, 1),
            ]


@pytest.mark.parametrize("networks", [2, -1, 2**31 - 1])
def test_unknown_rule_for_networks_is_refused(target: str, networks: int) -> None:
    with grpc.insecure_channel(target) as channel:
        stub: Any = stub_of(channel)
        lookup = v1.LookupRequest(text="1.0.0.1", region_set="CN", networks=networks)
        roster = v1.ClassifyRosterRequest(ipv4=bytes(4), region_set="CN", networks=networks)
        for call, request in ((stub.Lookup, lookup), (stub.ClassifyRoster, roster)):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "networks: not the number of a CoveringNetworks"
