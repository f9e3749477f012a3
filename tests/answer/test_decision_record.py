"""Decision records: what they say, that they hold no address, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import PATIENCE, Service, stub_of

from geolookup import Dataset, Policy, Reason, RegionSet, Status
from geolookup.answer import decision_record
from geolookup.answer.country_codes import COUNTRIES
from geolookup.answer.decision_record import DecisionRecord, RecordError
from geolookup.answer.region_sets import RegionSets
from geolookup.client import AsyncClient, Client
from geolookup.v1 import geolookup_pb2 as v1

ROSTER = ["1.0.1.1", "8.8.8.8", "43.102.0.1", "10.0.0.1", "1.2.3", "2001:200::1"]

SAMPLE = DecisionRecord(
    time=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
    dataset="ab" * 32,
    dataset_built=datetime(2026, 6, 17, tzinfo=UTC),
    region_set="EEA-NO",
    region_set_version="EEA 2020-02-01",
    codes=("AT", "BE"),
    policy=Policy.UNANIMOUS,
    size=7,
    inside=2,
    outside=1,
    undetermined=4,
    statuses={Status.INVALID: 3, Status.ASSIGNED: 3, Status.DISPUTED: 1},
    reasons={Reason.DISPUTED: 1, Reason.INVALID: 3},
)
FORMAT_1 = replace(SAMPLE, reasons=None, addresses=None)


@st.composite
def records(draw: st.DrawFn) -> DecisionRecord:
    """Any record that makes sense."""
    number = st.integers(0, 2**30 - 1)
    inside, outside = draw(number), draw(number)
    statuses = {Status.ASSIGNED: inside + outside} if inside + outside else {}
    lost = draw(st.dictionaries(st.sampled_from(list(Status)[1:]), st.integers(1, 2**28)))
    codes = draw(st.sets(st.sampled_from(sorted(COUNTRIES)), min_size=1))
    times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))
    return DecisionRecord(
        time=draw(times).replace(microsecond=0),
        dataset=draw(st.binary(min_size=32, max_size=32)).hex(),
        dataset_built=draw(times).replace(microsecond=0),
        region_set=draw(st.text("ABZ09_+-", min_size=1, max_size=1000)),
        region_set_version=draw(st.text(st.characters(codec="utf-8"))),
        codes=tuple(sorted(codes)),
        policy=draw(st.sampled_from(Policy)),
        size=inside + outside + sum(lost.values()),
        inside=inside,
        outside=outside,
        undetermined=sum(lost.values()),
        statuses=statuses | lost,
        reasons=draw(st.sampled_from([reasons_of(lost), None])),
        reference=draw(st.text(max_size=256).filter(str.isprintable)),
    )


def reasons_of(statuses: Mapping[Status, int]) -> dict[Reason, int]:
    """Return a reason for each address without a verdict."""
    return {
        Reason.NO_COUNTRY if status is Status.OVERRIDE else Reason[status.name]: count
        for status, count in statuses.items()
    }


# --- form


@given(records())
def test_a_record_survives_its_json(one: DecisionRecord) -> None:
    text = decision_record.to_json(one)
    assert decision_record.from_json(text) == one
    assert decision_record.from_json(text.encode()) == one
    assert decision_record.to_json(decision_record.from_json(text)) == text
    assert "\n" not in text


def test_json_form_is_the_documented_one() -> None:
    assert decision_record.to_json(SAMPLE) == (
        '{"addresses":7,"codes":["AT","BE"],'
        f'"dataset":"{"ab" * 32}",'
        '"dataset_built":"2026-06-17T00:00:00Z",'
        '"digest":"f0","format":2,"inside":2,"outside":1,"policy":"UNANIMOUS",'
        '"reasons":{"DISPUTED":1,"INVALID":3},'
        '"region_set":"EEA-NO","region_set_version":"EEA 2020-02-01","size":7,'
        '"statuses":{"ASSIGNED":3,"DISPUTED":1,"INVALID":3},'
        '"time":"2026-11-24T09:30:00Z","undetermined":4}'
    ).replace('"f0"', f'"{SAMPLE.digest}"')


def test_record_of_format_1_is_read_and_written_as_before() -> None:
    assert decision_record.from_json(decision_record.to_json(FORMAT_1)) == FORMAT_1
    assert decision_record.to_json(FORMAT_1) == (
        '{"codes":["AT","BE"],'
        f'"dataset":"{"ab" * 32}",'
        '"dataset_built":"2026-06-17T00:00:00Z",'
        '"digest":"f0","format":1,"inside":2,"outside":1,"policy":"UNANIMOUS",'
        '"region_set":"EEA-NO","region_set_version":"EEA 2020-02-01","size":7,'
        '"statuses":{"ASSIGNED":3,"DISPUTED":1,"INVALID":3},'
        '"time":"2026-11-24T09:30:00Z","undetermined":4}'
    ).replace('"f0"', f'"{FORMAT_1.digest}"')


def test_digest_is_of_the_json_without_it() -> None:
    values = json.loads(decision_record.to_json(SAMPLE.with_reference("Az. 17/26 é")))
    digest = values.pop("digest")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_json_with_other_order_and_white_space_is_read() -> None:
    values = json.loads(decision_record.to_json(SAMPLE))
    backwards = dict(reversed(values.items()))
    assert decision_record.from_json(json.dumps(backwards, indent=4)) == SAMPLE


def test_a_record_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        SAMPLE.inside = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        SAMPLE.statuses[Status.INVALID] = 0  # type: ignore[index]
    assert hash(replace(SAMPLE)) == hash(SAMPLE)


def changed(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda plain: plain | values


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda plain: {name: value for name, value in plain.items() if name != key}


# What is wrong, what is done to a good record's JSON object, how the error begins.
WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "not an object": (lambda plain: [plain], "record: expected a JSON object"),
    "a number": (lambda _: 7, "record: expected a JSON object"),
    "a key too many": (changed(address="100.99.98.97"), "record: a key that is not known"),
    "no digest": (without("digest"), "digest: missing"),
    "no time": (without("time"), "time: missing"),
    "another format": (changed(format=3), "format: not 1 or 2"),
    "no format": (without("format"), "format: missing"),
    "reasons in format 1": (changed(format=1), "record: a key that is not known"),
    "no reasons": (without("reasons"), "reasons: missing"),
    "an unknown reason": (changed(reasons={"LOST": 4}), "reasons: expected numbers by the names"),
    "reasons that are not the undetermined": (changed(reasons={"INVALID": 3}), "reasons: their"),
    "more of a reason than of its status": (
        changed(reasons={"INVALID": 4}),
        "reasons.INVALID: more than the addresses of that status",
    ),
    "a reason of what is decided": (
        changed(reasons={"DECIDED": 1, "INVALID": 3}),
        "reasons: one that does not occur",
    ),
    "a reason that does not occur": (
        changed(reasons={"DISPUTED": 1, "INVALID": 3, "STALE": 0}),
        "reasons: one that does not occur",
    ),
    "a negative count of a reason": (
        changed(reasons={"DISPUTED": -1, "INVALID": 3}),
        "reasons.DISPUTED: not in 0..",
    ),
    "true as format": (changed(format=True), "format: expected a number"),
    "another count": (changed(inside=1, outside=2), "digest: not that of this record"),
    "another reference": (changed(reference="x"), "digest: not that of this record"),
    "a digest of another type": (changed(digest=7), "digest: not that of this record"),
    "local time": (changed(time="2026-11-24T09:30:00+01:00"), "time: expected"),
    "a time without leading zeros": (changed(time="2026-1-24T09:30:00Z"), "time: expected"),
    "a day that is none": (changed(dataset_built="2026-02-30T00:00:00Z"), "dataset_built: "),
    "a time as number": (changed(time=1), "time: expected a text"),
    "half a dataset id": (changed(dataset="ab"), "dataset: not 64"),
    "capital letters in a dataset id": (changed(dataset="AB" * 32), "dataset: not 64"),
    "no region set": (changed(region_set=""), "region_set: not an expression"),
    "an address as region set": (changed(region_set="100.99.98.97"), "region_set: not an"),
    "an endless region set": (changed(region_set="A" * 40_001), "region_set: not an"),
    "half a character": (changed(region_set_version="\ud800"), "region_set_version: not a text"),
    "no code": (changed(codes=[]), "codes: expected at least one"),
    "codes out of order": (changed(codes=["BE", "AT"]), "codes: expected at least one, sorted"),
    "a code twice": (changed(codes=["AT", "AT"]), "codes: expected at least one, sorted"),
    "no country's code": (changed(codes=["ZZ"]), "codes: not all"),
    "codes as text": (changed(codes="AT"), "codes: expected a list"),
    "an unknown kind of networks": (changed(networks="PIGEON"), "networks: expected"),
    "kinds of networks in another order": (changed(networks="VPN,TOR"), "networks: expected"),
    "a kind of networks twice": (changed(networks="VPN,VPN"), "networks: expected"),
    "an empty kind of networks": (changed(networks="VPN,"), "networks: expected"),
    "kinds beside IGNORE": (changed(networks="IGNORE,VPN"), "networks: expected"),
    "an unknown policy": (changed(policy="BEST"), "policy: expected one of"),
    "a sum that is not the size": (changed(size=8), "inside, outside and undetermined: "),
    "statuses that are not the size": (changed(statuses={"INVALID": 4}), "statuses: their sum"),
    "an unknown status": (changed(statuses={"LOST": 7}), "statuses: expected"),
    "statuses as a list": (changed(statuses=[7]), "statuses: expected"),
    "a fraction": (changed(size=7.0), "size: expected a number"),
    "a negative number": (changed(inside=-1, outside=4), "inside: not in 0.."),
    "a number too large": (changed(size=2**32, inside=2**32 - 5), "size: not in 0.."),
    "a status that does not occur": (
        changed(statuses={"ASSIGNED": 3, "DISPUTED": 1, "INVALID": 3, "OVERRIDE": 0}),
        "statuses: one that does not occur",
    ),
    "verdicts about nobody": (
        changed(inside=4, outside=1, undetermined=2),
        "undetermined: less than",
    ),
    "a novel as reference": (changed(reference="a" * 257), "reference: over 256"),
    "a reference that steers a terminal": (changed(reference="\x1b[2J"), "reference: holds"),
}


@pytest.mark.parametrize("name", WRONG)
def test_inconsistent_record_is_refused(name: str) -> None:
    change, text = WRONG[name]
    values = change(json.loads(decision_record.to_json(SAMPLE)))
    with pytest.raises(RecordError) as caught:
        decision_record.from_json(json.dumps(values))
    assert str(caught.value).startswith(text)
    assert "100.99" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON, at line 1"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format":1,"format":1}', "a key stands there twice"),
        (b"{}{}", "not JSON"),
    ],
)
def test_malformed_json_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        decision_record.from_json(text)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"time": datetime(2026, 11, 24)}, "time: not in UTC"),
        ({"time": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "time: not in UTC"),
        ({"time": SAMPLE.time.replace(microsecond=1)}, "time: expected whole seconds"),
        ({"dataset_built": datetime(1969, 1, 1, tzinfo=UTC)}, "dataset_built: expected"),
    ],
)
def test_times_are_whole_seconds_in_utc(values: dict[str, Any], text: str) -> None:
    with pytest.raises(RecordError, match=text):
        replace(SAMPLE, **values)


# --- files


def test_file_has_one_record_per_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    second = SAMPLE.with_reference("order 17/2026")
    decision_record.append(path, SAMPLE)
    decision_record.append(path, second)
    assert decision_record.read(path) == [SAMPLE, second]
    assert path.read_text().count("\n") == 2
    decision_record.write(path, [second])
    assert decision_record.read(path) == [second]


def test_indented_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    values = json.loads(decision_record.to_json(SAMPLE))
    path.write_text("\ufeff" + json.dumps(values, indent=2) + "\r\n" + json.dumps(values))
    assert decision_record.read(path) == [SAMPLE, SAMPLE]


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    good = decision_record.to_json(SAMPLE)
    path.write_text(f"{good}\n\n{good.replace('AT', 'CH')}\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:3: codes: expected"):
        decision_record.read(path)
    path.write_text(f"{good}\n100.99.98.97\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:2: ") as caught:
        decision_record.read(path)
    assert "100.99" not in str(caught.value)
    path.write_bytes(b"\xff")
    with pytest.raises(RecordError, match=r"records\.jsonl: record: not UTF-8"):
        decision_record.read(path)


def test_an_empty_file_holds_no_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(" \n\n")
    assert decision_record.read(path) == []


def test_concurrent_appends_keep_each_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    threads = [
        threading.Thread(target=lambda: [decision_record.append(path, SAMPLE) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decision_record.read(path) == [SAMPLE] * 80


# --- made of answers


@pytest.mark.parametrize("policy", Policy)
def test_a_record_counts_what_was_decided(dataset: Dataset, policy: Policy) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    result = dataset.classify(ROSTER, region_set="EASTERN_ASIA", policy=policy, record=True)
    made = result.record
    assert made is not None
    assert before <= made.time <= datetime.now(UTC)
    assert (made.dataset, made.dataset_built) == (dataset.id, dataset.built)
    assert (made.region_set, made.policy, made.size) == ("EASTERN_ASIA", policy, len(ROSTER))
    definition = RegionSets.builtin().resolve("EASTERN_ASIA")
    assert (made.region_set_version, set(made.codes)) == (definition.version, definition.codes)
    sets = (result.inside, result.outside, result.undetermined)
    assert [made.inside, made.outside, made.undetermined] == [len(one) for one in sets]
    assert made.statuses == result.status_counts()
    assert made.reasons == result.reason_counts()
    assert decision_record.from_json(decision_record.to_json(made)) == made


def test_record_is_made_on_request_only(dataset: Dataset) -> None:
    assert dataset.classify(ROSTER, region_set="CN").record is None


def test_results_with_different_records_are_equal(dataset: Dataset) -> None:
    with_record = dataset.classify(ROSTER, region_set="CN", record=True)
    assert with_record == dataset.classify(ROSTER, region_set="CN")
    assert copy.copy(with_record.record) == with_record.record


def test_a_record_needs_a_region_set(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="record: needs a region set"):
        dataset.classify(ROSTER, record=True)


def test_an_empty_roster_has_a_record(dataset: Dataset) -> None:
    made = dataset.classify([], region_set="CN", record=True).record
    assert made is not None
    assert (made.size, made.statuses) == (0, {})


def test_a_region_set_object_is_recorded_by_its_codes(dataset: Dataset) -> None:
    own = RegionSet("OFFICES", frozenset({"DE", "AT"}), "7", "us")
    made = dataset.classify(ROSTER, region_set=own, record=True).record
    assert made is not None
    assert (made.region_set, made.codes, made.region_set_version) == ("AT+DE", ("AT", "DE"), "")


# --- over the network


def comparable(made: DecisionRecord | None) -> DecisionRecord:
    assert made is not None
    return replace(made, time=SAMPLE.time)


@pytest.fixture(scope="module")
def stub(service: Service) -> Any:
    with grpc.insecure_channel(service.target) as channel:
        yield stub_of(channel)


REGION_SETS = ["CN", "EEA-NO", RegionSet("OFFICES", frozenset({"DE", "AT"}))]


@pytest.mark.parametrize("region_set", REGION_SETS, ids=["a code", "an expression", "an object"])
def test_record_of_a_service_is_the_same(
    dataset: Dataset, service: Service, region_set: str | RegionSet
) -> None:
    here = dataset.classify(ROSTER, region_set=region_set, record=True).record
    with Client(service.target, timeout=PATIENCE) as client:
        there = client.classify(ROSTER, region_set=region_set, record=True).record
        many = client.classify_many([ROSTER, []], region_set=region_set, record=True)
        streamed = [result.record for result in many]
        assert client.classify(ROSTER, region_set=region_set).record is None
        with pytest.raises(ValueError, match="record: needs a region set"):
            client.classify(ROSTER, record=True)
    assert comparable(there) == comparable(here) == comparable(streamed[0])
    assert streamed[1] is not None
    assert streamed[1].size == 0


async def asked_later(target: str) -> list[DecisionRecord | None]:
    async with AsyncClient(target, timeout=PATIENCE) as client:
        one = await client.classify(ROSTER, region_set="CN", record=True)
        many = client.classify_many([ROSTER], region_set="CN", record=True)
        return [one.record, *[result.record async for result in many]]


def test_record_of_the_asynchronous_client_is_the_same(dataset: Dataset, service: Service) -> None:
    import asyncio  # noqa: PLC0415 - only here

    here = dataset.classify(ROSTER, region_set="CN", record=True).record
    for there in asyncio.run(asked_later(service.target)):
        assert comparable(there) == comparable(here)


def test_record_of_a_packed_roster_is_the_same(dataset: Dataset, service: Service) -> None:
    packed = bytes([1, 0, 1, 1, 8, 8, 8, 8])
    here = dataset.classify(ipv4=packed, region_set="CN", record=True).record
    with Client(service.target, timeout=PATIENCE) as client:
        there = client.classify(ipv4=packed, region_set="CN", record=True).record
        wide = bytes(10) + b"\xff\xff" + packed[:4]
        mapped = client.classify(ipv6=wide, region_set="CN", record=True).record
    assert comparable(there) == comparable(here)
    assert mapped is not None
    assert mapped.inside == 1


@pytest.mark.parametrize("reasons", [False, True])
def test_record_message_agrees_with_the_json(stub: Any, reasons: bool) -> None:
    request = v1.ClassifyRosterRequest(
        text=v1.TextAddresses(addresses=ROSTER), region_set="EU", record=True, reasons=reasons
    )
    message = stub.ClassifyRoster(request, timeout=PATIENCE).record
    values = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    values |= {"codes": list(message.codes), "statuses": dict(message.statuses)}
    values["reasons"] = dict(message.reasons)
    assert message.format == (2 if reasons else 1)
    assert decision_record.from_json(json.dumps(values)).digest == message.digest


def test_a_service_refuses_a_record_without_a_region_set(stub: Any) -> None:
    request = v1.ClassifyRosterRequest(ipv4=b"", record=True)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ClassifyRoster(request, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "record: needs region_set"


def test_record_is_sent_on_request_only(stub: Any) -> None:
    request = v1.ClassifyRosterRequest(ipv4=bytes(4), region_set="CN")
    assert not stub.ClassifyRoster(request, timeout=PATIENCE).HasField("record")
