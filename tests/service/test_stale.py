"""Age acts: a dataset that grows too old while it answers, over both transports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import small_dataset
from pyroaring import BitMap
from servers import PATIENCE, Service, serving, serving_here, stub_of

from geolookup import Dataset
from geolookup.answer import age as ages
from geolookup.answer import dataset as writer
from geolookup.answer.claims import Policy
from geolookup.answer.dataset import encode
from geolookup.answer.decision_record import to_json
from geolookup.client import Client
from geolookup.service.rpc.envoy_authz import Mode, Rule, Rules
from geolookup.service.rpc.handlers import Snapshot
from geolookup.v1 import geolookup_pb2 as v1

ROSTER = bytes((1, 0, 1, 1, 2, 0, 0, 1, 3, 0, 0, 1, 10, 1, 0, 1))
"""CN, DE, disputed, and an override to FR."""
FRESH = (1, 2, 1)
"""INSIDE, OUTSIDE and UNDETERMINED in it, seen from CN."""
SECONDS = 3
"""Until a dataset is stale: longer than the first answers take, also on a busy machine."""


def content(built: datetime, **described: object) -> small_dataset.Content:
    plain = small_dataset.content()
    stated = {"built": built.isoformat(timespec="seconds").replace("+00:00", "Z")}
    return replace(plain, metadata=plain.metadata | stated | described)


def soon_stale() -> Dataset:
    """Return a dataset that will be stale in some seconds."""
    built = datetime.now(UTC) - timedelta(days=31) + timedelta(seconds=SECONDS)
    image = encode(content(built, max_age=30, stale="undetermined"))
    return Dataset.from_buffer(image)


def watch(dataset: Dataset, ask: Callable[[], bool]) -> None:
    """Ask until the dataset is stale, and hold each answer against the clock.

    Args:
        dataset: about to become stale.
        ask: returns whether the answer was that of a fresh dataset.
    """
    moment = dataset.withholds_from
    assert moment is not None
    fresh = 0
    while True:
        before = int(time.time())
        answer = ask()
        if int(time.time()) < moment:
            assert answer
            fresh += 1
        elif before >= moment:
            assert not answer
            break
    assert fresh > 1, "the answers before the day were not kept by the service"
    assert not ask()


@pytest.fixture
def stub(transport: str) -> Iterator[tuple[Dataset, Any]]:  # noqa: ARG001
    with (
        soon_stale() as dataset,
        serving_here(dataset) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        yield dataset, stub_of(channel)


def counts(response: v1.ClassifyRosterResponse) -> tuple[int, int, int]:
    columns = (response.inside, response.outside, response.undetermined)
    inside, outside, undetermined = (len(BitMap.deserialize(one)) for one in columns)
    return inside, outside, undetermined


def test_verdicts_are_undetermined_from_the_day_on(stub: tuple[Dataset, Any]) -> None:
    """Lookups, rosters, and a stream that began before; what is kept of before is not used."""
    dataset, service = stub
    roster = v1.ClassifyRosterRequest(ipv4=ROSTER, region_set="CN", record=False)

    def requests() -> Iterator[v1.StreamRostersRequest]:
        while not ended:
            yield v1.StreamRostersRequest(roster=roster)

    ended = False
    stream = service.StreamRosters(requests(), timeout=PATIENCE)

    def is_fresh() -> bool:
        found = [
            service.Lookup(v1.LookupRequest(text="1.0.1.1", region_set="CN")).verdict
            == v1.VERDICT_INSIDE,
            counts(service.ClassifyRoster(roster)) == FRESH,
        ]
        if len(set(found)) == 1:  # not in between
            return found[0]
        return is_fresh()

    watch(dataset, is_fresh)
    for response in stream:
        if counts(response.roster) == (0, 0, 4):
            break
        assert counts(response.roster) == FRESH
    ended = True
    stream.cancel()
    # Countries and statuses are as they were: the sources still say so.
    answer = service.Lookup(v1.LookupRequest(text="1.0.1.1"))
    assert (answer.country, answer.status, answer.verdict) == ("CN", v1.STATUS_ASSIGNED, 0)
    recorded = service.ClassifyRoster(
        v1.ClassifyRosterRequest(ipv4=ROSTER, region_set="CN", record=True)
    )
    assert (recorded.record.inside, recorded.record.undetermined) == (0, 4)
    age = service.GetDataset(v1.GetDatasetRequest()).age
    assert (age.days, age.max_age, age.is_stale, age.withholds_verdicts) == (31, 30, True, True)


@contextmanager
def gateway(dataset: Dataset) -> Iterator[Callable[[], Any]]:
    """Run a server whose rule refuses who is INSIDE, and give what asks it about one who is."""
    messages = pytest.importorskip(
        "envoy.service.auth.v3.external_auth_pb2", reason="the extra envoy is not installed"
    )
    rules = Rules((Rule(name="measure", region_set="CN", mode=Mode.DENY_INSIDE),))
    request = messages.CheckRequest()
    request.attributes.source.address.socket_address.address = "1.0.1.1"
    request.attributes.request.http.host = "meet.example"
    request.attributes.request.http.path = "/join"
    with (
        serving_here(dataset, authz=True) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        server.snapshot = Snapshot(dataset, rules)
        check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=messages.CheckRequest.SerializeToString,
            response_deserializer=messages.CheckResponse.FromString,
        )
        yield lambda: check(request, timeout=PATIENCE)


@pytest.mark.usefixtures("transport")
def test_gateway_is_answered_undetermined_from_the_day_on() -> None:
    """A rule that refuses who is INSIDE admits all of a stale dataset: it has no verdicts."""
    with soon_stale() as dataset, gateway(dataset) as check:

        def is_fresh() -> bool:
            response = check()
            if response.status.code == 0:
                sent = {one.header.key: one.header.value for one in response.ok_response.headers}
                assert sent["x-geo-verdict"] == "UNDETERMINED"
            return bool(response.status.code)

        watch(dataset, is_fresh)


@pytest.mark.usefixtures("transport")
def test_gateway_refuses_again_when_a_wrong_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = encode(content(datetime.now(UTC), max_age=30, stale="undetermined"))
    with Dataset.from_buffer(image) as dataset:
        monkeypatch.setattr(ages, "clock", lambda: time.time() + 40 * 86400)
        with gateway(dataset) as check:
            # Only Python's clock is wrong here; Python prepares what the loop answers.
            assert dataset.withholds_verdicts
            monkeypatch.undo()
            assert not dataset.withholds_verdicts
            assert [check().status.code for _ in range(3)] == [7, 7, 7]


def test_library_answers_undetermined_from_the_day_on() -> None:
    with soon_stale() as dataset:

        def is_fresh() -> bool:
            answer = dataset.lookup("1.0.1.1", "CN")
            assert answer.verdict is not None
            return answer.verdict.name == "INSIDE"

        watch(dataset, is_fresh)
        assert dataset.classify(["1.0.1.1", "10.1.0.1"], region_set="CN").verdict_counts() == {
            "INSIDE": 0,
            "OUTSIDE": 0,
            "UNDETERMINED": 2,
        }
        assert dataset.lookup("1.0.1.1").country == "CN"


# --- the command


def described_sources() -> list[dict[str, object]]:
    described: Any = small_dataset.metadata()["sources"]
    return [dict(one) for one in described]


def write(path: Path, days: int, **described: object) -> None:
    built = datetime.now(UTC) - timedelta(days=days, minutes=1)
    writer.write(content(built, **described), path)


@pytest.fixture(scope="module")
def stale(
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,  # noqa: ARG001
) -> Iterator[Service]:
    """A service whose dataset is older than the setting allows, and than a licence does."""
    path = tmp_path_factory.mktemp("stale") / "old.geolookup"
    sources = described_sources()
    sources[0]["keep_days"] = 30
    sources[1]["max_age"] = 40
    write(path, 90, sources=sources, max_age=1_000)
    ports = ("--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    options = ("--dataset", str(path), "--max-age", "60")
    with serving(*ports, *options, GEOLOOKUP_STALE="undetermined") as service:
        yield service


def test_setting_takes_the_place_of_the_manifest(stale: Service) -> None:
    with Client(stale.target) as client:
        answer = client.lookup("1.0.1.1", region_set="CN")
        assert answer.verdict is not None
        assert answer.verdict.name == "UNDETERMINED"
        info = client.info()
    assert info["age"] == {
        "days": 90,
        "max_age": 60,
        "stale": "undetermined",
        "is_stale": True,
        "stale_sources": ["two"],
    }
    assert [one["name"] for one in info["kept_too_long"]] == ["one"]
    assert [(one.max_age, one.keep_days) for one in _sources(stale)] == [(0, 30), (40, 0)]


def _sources(service: Service) -> Any:
    with grpc.insecure_channel(service.target) as channel:
        response = stub_of(channel).GetDataset(v1.GetDatasetRequest(), timeout=PATIENCE)
    assert list(response.kept_too_long) == ["one"]
    return response.sources


def test_service_says_everywhere_that_its_dataset_is_stale(stale: Service) -> None:
    (admin,), (metrics,) = stale.announced["admin"], stale.announced["metrics"]
    text = run("admin", "status", "--admin", admin)
    assert "90 days, at most 60 are allowed; too old: two; verdicts are UNDETERMINED" in text
    assert "source one: its data of 2026-06-17 is older than the 30 days" in text
    status = json.loads(run("admin", "status", "--admin", admin, "--json"))
    assert status["age"]["is_stale"] is True
    assert status["kept_too_long"] == [{"name": "one", "date": "2026-06-17", "keep_days": 30}]
    with urllib.request.urlopen(metrics, timeout=PATIENCE) as page:  # noqa: S310 - our own
        lines = page.read().decode().splitlines()
    assert "geolookup_dataset_stale 1.0" in lines
    assert "geolookup_verdicts_withheld 1.0" in lines
    assert "geolookup_dataset_max_age_seconds 5.184e+06" in lines
    assert 'geolookup_dataset_source_kept_too_long{source="one"} 1.0' in lines
    health = metrics.replace("/metrics", "/healthz")
    with urllib.request.urlopen(health, timeout=PATIENCE) as page:  # noqa: S310
        assert page.read().decode().startswith("serving\nstale dataset: 90 days")
    log = stale.log()
    for event in ("old_dataset", "stale_dataset", "kept_too_long"):
        assert log.count(f" {event} ") == 1, log
    assert "90 days, at most 60 are allowed; too old: two" in run("info", "--server", stale.target)


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


def test_commands_warn_of_a_stale_dataset(tmp_path: Path) -> None:
    path = tmp_path / "old.geolookup"
    sources = described_sources()
    sources[0]["keep_days"] = 30
    write(path, 90, sources=sources, max_age=60)
    file = ("--dataset", str(path))
    told = run("verify", str(path), "--min-coverage", "0")
    assert "warning    the dataset is too old: 90 days, at most 60 are allowed\n" in told
    assert "warning    source one: its data" in told
    assert "90 days, at most 60 are allowed\n" in run("info", *file)
    question = ("lookup", "1.0.1.1", "--region-set", "CN", "--json", *file)
    assert json.loads(run(*question))["verdict"] == "INSIDE"
    assert json.loads(run(*question, "--max-age", "89"))["verdict"] == "UNDETERMINED"
    assert json.loads(run(*question, "--max-age", "89"))["reason"] == "STALE"
    assert json.loads(run(*question, "--max-age", "90"))["verdict"] == "INSIDE"


@pytest.mark.parametrize(("days", "holds"), [(30, True), (29, True), (28, False)])
def test_audit_takes_the_age_on_the_day_of_the_decision(
    tmp_path: Path, days: int, holds: bool
) -> None:
    """A record of 29 days after the build: today the dataset would be too old."""
    path, roster = tmp_path / "old.geolookup", tmp_path / "roster.txt"
    write(path, 90, max_age=days, stale="undetermined")
    roster.write_text("1.0.1.1\n2.0.0.1\n")
    with Dataset.from_buffer(path.read_bytes(), stale="warn") as dataset:
        result = dataset.classify(["1.0.1.1", "2.0.0.1"], region_set="CN")
        record = dataset.record(
            "CN",
            Policy.UNANIMOUS,
            statuses=result.status_counts(),
            inside=1,
            outside=1,
            undetermined=0,
            reasons=result.reason_counts(),
            time=dataset.built + timedelta(days=29, hours=1),
        )
    (tmp_path / "record.json").write_text(to_json(record))
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", "audit", str(tmp_path / "record.json"),
         "--dataset", str(path), "--roster", str(roster)],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode == 0) is holds, done.stdout + done.stderr
