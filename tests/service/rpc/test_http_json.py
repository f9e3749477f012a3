"""JSON over HTTP/1.1: over real sockets, beside the answers that gRPC gives."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from http_requests import Response, ask
from hypothesis import given
from hypothesis import strategies as st
from servers import PATIENCE, serving_here, stub_of

from geolookup import Dataset
from geolookup.service import RosterLimits, Server
from geolookup.service.rpc.http_json import json_request
from geolookup.v1 import geolookup_pb2 as v1

pytest.importorskip("httptools", reason="the extra http is not installed")

CHINA, AMERICA = "1.0.1.1", "8.8.8.8"
PACKED = base64.b64encode(bytes([1, 0, 1, 1])).decode()
SECRET = "100.99.98.97"  # noqa: S105
"""What no error may repeat."""
CHOSEN = {"text": CHINA, "regionSet": "CN"}


LIMIT = 1_000
"""Addresses in a roster of the server below."""


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Server]:
    limits = RosterLimits(roster=LIMIT)
    with serving_here(dataset, http="127.0.0.1:0", limits=limits, max_calls=8) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(str(server.address)) as channel:
        yield stub_of(channel)


# --- answers


def test_lookup_answers_with_the_names_of_the_json_mapping(
    server: Server, dataset: Dataset
) -> None:
    response = ask(server, "Lookup", CHOSEN)
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.json == {
        "country": "CN",
        "status": "STATUS_ASSIGNED",
        "verdict": "VERDICT_INSIDE",
        "dataset": dataset.id,
    }


TEXTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from([CHINA, AMERICA, "10.0.0.1", "43.102.0.1", "::ffff:1.0.1.1", "1.0.1.01", ""]),
    st.text(max_size=8),
)
PACKED_BYTES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
ADDRESSES = st.one_of(
    st.fixed_dictionaries({"text": TEXTS}), st.fixed_dictionaries({"packed": PACKED_BYTES})
)
ROSTERS = st.one_of(
    st.fixed_dictionaries({"ipv4": st.lists(st.binary(min_size=4, max_size=4)).map(b"".join)}),
    st.fixed_dictionaries({"ipv6": st.lists(st.binary(min_size=16, max_size=16)).map(b"".join)}),
    st.fixed_dictionaries(
        {"text": st.lists(TEXTS, max_size=20).map(lambda texts: v1.TextAddresses(addresses=texts))}
    ),
)
PERSPECTIVES = st.fixed_dictionaries(
    {},
    optional={
        "region_set": st.sampled_from(["CN", "EEA-NO", "EU+CH", "NOWHERE"]),
        "policy": st.sampled_from(v1.Policy.values()),
        "networks": st.sampled_from(v1.CoveringNetworks.values()),
    },
)
ROSTER_FIELDS = st.fixed_dictionaries(
    {},
    optional={"record": st.booleans(), "reasons": st.booleans(), "regions": st.booleans()},
)


def expected(call: Any, message: Any) -> Any:
    """Return gRPC's answer, or its error in the form of this one's."""
    try:
        return call(message, timeout=PATIENCE)
    except grpc.RpcError as error:
        return {"code": error.code().name.lower(), "message": error.details()}


def given_by(response: Response, kind: Any) -> Any:
    if response.status != 200:
        return response.json
    return json_format.Parse(response.body, kind())


def without_times(answer: Any) -> Any:
    """Return an answer without what changes from second to second."""
    if isinstance(answer, v1.ClassifyRosterResponse):
        answer.record.ClearField("time")
        answer.record.ClearField("digest")
    return answer


@given(address=ADDRESSES, perspective=PERSPECTIVES)
def test_lookup_answers_as_grpc(
    server: Server, stub: Any, address: dict[str, Any], perspective: dict[str, Any]
) -> None:
    message = v1.LookupRequest(**address, **perspective)
    response = ask(server, "Lookup", json_format.MessageToJson(message))
    assert given_by(response, v1.LookupResponse) == expected(stub.Lookup, message)


@given(roster=ROSTERS, perspective=PERSPECTIVES, fields=ROSTER_FIELDS)
def test_classify_roster_answers_as_grpc(
    server: Server,
    stub: Any,
    roster: dict[str, Any],
    perspective: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    message = v1.ClassifyRosterRequest(**roster, **perspective, **fields)
    response = ask(server, "ClassifyRoster", json_format.MessageToJson(message))
    kind = v1.ClassifyRosterResponse
    assert without_times(given_by(response, kind)) == without_times(
        expected(stub.ClassifyRoster, message)
    )


def test_participants_answer_as_grpc(server: Server, stub: Any) -> None:
    message = v1.ClassifyRosterRequest(
        text=v1.TextAddresses(addresses=[CHINA, AMERICA, "10.0.0.1"]),
        region_set="CN",
        group_sizes=[1, 2],
    )
    response = ask(server, "ClassifyRoster", json_format.MessageToJson(message))
    assert given_by(response, v1.ClassifyRosterResponse) == stub.ClassifyRoster(message)
    assert response.json["participants"] == 2


@given(address=ADDRESSES)
def test_explain_answers_as_grpc(server: Server, stub: Any, address: dict[str, Any]) -> None:
    message = v1.ExplainRequest(**address)
    response = ask(server, "Explain", json_format.MessageToJson(message))
    kind = v1.ExplainResponse
    assert given_by(response, kind) == expected(stub.Explain, message)


@pytest.mark.parametrize("method", ["ListRegionSets", "GetDataset"])
def test_requests_without_fields_answer_as_grpc(server: Server, stub: Any, method: str) -> None:
    message = getattr(v1, f"{method}Request")()
    response = ask(server, method, {})
    assert given_by(response, getattr(v1, f"{method}Response")) == getattr(stub, method)(message)


def test_numbers_of_64_bits_are_strings_and_times_are_rfc_3339(server: Server) -> None:
    found = ask(server, "GetDataset", {}).json
    assert isinstance(found["ipv4Intervals"], str | int)
    assert found["buildTime"].endswith("Z")
    assert isinstance(found["sources"][0]["ranges"], str)


def test_every_unary_method_of_the_service_is_answered() -> None:
    service = v1.DESCRIPTOR.services_by_name["GeoLookupService"]
    unary = {one.name for one in service.methods if not one.client_streaming}
    assert {method.rpc for method in json_request.METHODS} == unary


def test_names_as_in_the_contract_are_read_too(server: Server) -> None:
    assert ask(server, "Lookup", {"text": CHINA, "region_set": "CN"}).json == (
        ask(server, "Lookup", CHOSEN).json
    )


# --- requests that are refused

MALFORMED: dict[str, tuple[str, bytes | str, str]] = {
    "empty": ("Lookup", b"", "request: not JSON at character 0"),
    "not UTF-8": ("Lookup", b'{"text":"\xff"}', "request: not UTF-8 at byte 9"),
    "UTF-16": ("Lookup", "{}".encode("utf-16"), "request: not UTF-8 at byte 0"),
    "byte order mark": ("Lookup", "\ufeff{}", "request: not JSON at character 0"),
    "half": ("Lookup", '{"text":', "request: not JSON at character 8"),
    "two": ("Lookup", "{}{}", "request: not JSON at character 2"),
    "comma at the end": (
        "Lookup",
        '{"text":"1.0.1.1",}',
        # Before 3.13 Python names the bracket, and since then the comma.
        f"request: not JSON at character {17 if sys.version_info >= (3, 13) else 18}",
    ),
    "single quotes": ("Lookup", "{'text':'1.0.1.1'}", "request: not JSON at character 1"),
    "control character": ("Lookup", '{"text":"1\n"}', "request: not JSON at character 10"),
    "array": ("Lookup", "[]", "request: expected an object"),
    "text": ("Lookup", '"1.0.1.1"', "request: expected an object"),
    "null": ("Lookup", "null", "request: expected an object"),
    "NaN": ("Lookup", '{"policy":NaN}', "request: a number with a fraction or an exponent"),
    "fraction": ("Lookup", '{"policy":1.0}', "request: a number with a fraction or an exponent"),
    "exponent": ("Lookup", '{"policy":1e0}', "request: a number with a fraction or an exponent"),
    "huge number": (
        "Lookup",
        '{"policy":' + "9" * 5_000 + "}",
        "request: not JSON that this service reads",
    ),
    "deep": ("Lookup", "[" * 100_000, "request: not JSON that this service reads"),
    "unknown field": (
        "Lookup",
        f'{{"text":"{SECRET}","regionset":"CN"}}',
        "request: field 2 is unknown (is it regionSet?); LookupRequest has text, packed, regionSet,"
        " policy, networks",
    ),
    "unknown field with a value for a name": (
        "Lookup",
        f'{{"{SECRET}":1}}',
        "request: field 1 is unknown; LookupRequest has text, packed, regionSet, policy, networks",
    ),
    "unknown field of no fields": (
        "GetDataset",
        '{"a":1}',
        "request: field 1 is unknown; GetDatasetRequest has no fields",
    ),
    "unknown field inside": (
        "ClassifyRoster",
        '{"text":{"address":[]}}',
        "text: field 1 is unknown; TextAddresses has addresses",
    ),
    "twice": (
        "Lookup",
        f'{{"text":"{SECRET}","text":"1.0.1.1"}}',
        "request: field 2 and one before it: only one of them may be given",
    ),
    "twice by both names": (
        "Lookup",
        '{"text":"1.0.1.1","regionSet":"CN","region_set":"DE"}',
        "request: field 3 and one before it: only one of them may be given",
    ),
    "two of one": (
        "Lookup",
        f'{{"text":"1.0.1.1","packed":"{PACKED}"}}',
        "request: field 2 and one before it: only one of them may be given",
    ),
    "null field": (
        "Lookup",
        '{"text":"1.0.1.1","regionSet":null}',
        "regionSet: null; leave the field out",
    ),
    "empty region set": (
        "Lookup",
        '{"text":"1.0.1.1","regionSet":""}',
        "regionSet: empty; leave it out where no verdict is asked for",
    ),
    "number for a text": ("Lookup", '{"text":16777217}', "text: expected a string"),
    "half a surrogate pair": ("Lookup", r'{"text":"\ud800"}', "text: half a surrogate pair"),
    "number for a region set": (
        "Lookup",
        '{"text":"1.0.1.1","regionSet":1}',
        "regionSet: expected a string",
    ),
    "policy without prefix": (
        "Lookup",
        '{"text":"1.0.1.1","policy":"MAJORITY"}',
        "policy: expected one of POLICY_UNSPECIFIED, POLICY_UNANIMOUS, POLICY_MAJORITY,"
        " POLICY_PRIMARY",
    ),
    "policy by number": (
        "Lookup",
        '{"text":"1.0.1.1","policy":1}',
        "policy: expected one of POLICY_UNSPECIFIED, POLICY_UNANIMOUS, POLICY_MAJORITY,"
        " POLICY_PRIMARY",
    ),
    "text for a switch": (
        "ClassifyRoster",
        '{"ipv4":"","record":"true"}',
        "record: expected true or false",
    ),
    "number for a switch": (
        "ClassifyRoster",
        '{"ipv4":"","record":1}',
        "record: expected true or false",
    ),
    "text for texts": (
        "ClassifyRoster",
        '{"text":"1.0.1.1"}',
        "text: expected an object",
    ),
    "array for texts": (
        "ClassifyRoster",
        '{"text":["1.0.1.1"]}',
        "text: expected an object",
    ),
    "number among texts": (
        "ClassifyRoster",
        f'{{"text":{{"addresses":["{SECRET}",1]}}}}',
        "text.addresses[1]: expected a string",
    ),
    "null among texts": (
        "ClassifyRoster",
        '{"text":{"addresses":[null]}}',
        "text.addresses[0]: expected a string",
    ),
    "negative size": (
        "ClassifyRoster",
        '{"ipv4":"","groupSizes":[1,-1]}',
        "groupSizes[1]: expected a whole number from 0 to 4294967295",
    ),
    "size of 33 bits": (
        "ClassifyRoster",
        '{"ipv4":"","groupSizes":[4294967296]}',
        "groupSizes[0]: expected a whole number from 0 to 4294967295",
    ),
    "size as text": (
        "ClassifyRoster",
        '{"ipv4":"","groupSizes":["1"]}',
        "groupSizes[0]: expected a whole number from 0 to 4294967295",
    ),
    "size as a switch": (
        "ClassifyRoster",
        '{"ipv4":"","groupSizes":[true]}',
        "groupSizes[0]: expected a whole number from 0 to 4294967295",
    ),
    "ipv4 of 5 bytes": (
        "ClassifyRoster",
        '{"ipv4":"AQABAQE="}',
        "ipv4: 5 bytes are no multiple of 4",
    ),
    "over the limit": (
        "ClassifyRoster",
        json.dumps({"ipv4": base64.b64encode(bytes(4 * LIMIT + 4)).decode()}),
        "ipv4: 1001 addresses are over the limit of 1000 a roster",
    ),
    "no address": ("Lookup", "{}", "address: required"),
}


@pytest.mark.parametrize(("method", "body", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_refused_by_its_place(
    server: Server, method: str, body: bytes | str, message: str
) -> None:
    response = ask(server, method, body)
    assert (response.status, response.code) == (400, "invalid_argument")
    assert response.message == message
    assert SECRET not in response.message


@pytest.mark.parametrize(
    "packed",
    [
        "",
        "AQAB",  # 3 bytes
        "AQABAQE=",  # 5
        "AQABAQ",  # no padding
        "AQABAQ=",
        "AQABAQ===",
        "AQABAR==",  # bits beyond the last byte
        "AQABAQ==\n",
        " AQABAQ==",
        "AQ-B_Q==",  # the other alphabet
        "AQ==ABAQ",
        "AQAB*Q==",
        "1.0.1.1",
        "\u0661QABAQ==",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
    ],
)
def test_packed_that_is_not_exactly_an_address_is_refused(server: Server, packed: str) -> None:
    response = ask(server, "Lookup", {"packed": packed, "regionSet": "CN"})
    assert (response.status, response.code) == (400, "invalid_argument")
    assert response.message == "packed: expected base64 of 4 or 16 bytes"


def test_unknown_region_set_is_an_error_as_over_grpc(server: Server, stub: Any) -> None:
    response = ask(server, "Lookup", {"text": CHINA, "regionSet": "NOWHERE"})
    with pytest.raises(grpc.RpcError) as error:
        stub.Lookup(v1.LookupRequest(text=CHINA, region_set="NOWHERE"))
    assert response.code == error.value.code().name.lower()
    assert response.message == error.value.details()
