"""Target: requests for rosters and single addresses, whose answers protobuf, too, could give.

The handlers read requests and write responses in the core. Here the same is done by the
protobuf runtime, `Dataset.classify` and `RosterResult`, and both must agree: on every
field of the answer, on what is counted, or on the refusal's code and text. wire.c goes
through the same bytes far faster, and knows less of what is right.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import small_dataset
from google.protobuf.message import DecodeError

from geolookup import Dataset, _core
from geolookup.answer.claims import Policy, Reason, Status
from geolookup.answer.dataset import encode
from geolookup.errors import RegionSetError
from geolookup.service import RosterLimits
from geolookup.service.rpc import handlers
from geolookup.service.rpc.handlers import Snapshot, record_message
from geolookup.service.rpc.request import Call, Code, RequestError
from geolookup.v1 import geolookup_pb2 as v1

LIMITS = RosterLimits(roster=12)
"""So few that what is random is over the limit now and then."""

WORDS = (
    b"\x0a\x08\1\0\1\1\2\0\0\1",
    b"\x12\x10",
    b"\x1a\x09\x0a\x07",
    b"1.0.1.1",
    b"2001:200::",
    b"\x22\2EU",
    b"\x22\2CN",
    b"\x28\2",
    b"\x30\1",
    b"\x38\1",
    b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\1",
)

POLICIES = (Policy.UNANIMOUS, Policy.UNANIMOUS, Policy.MAJORITY, Policy.PRIMARY)


class Noted(Call):
    """A call that keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[object, ...]] = []
        self.asked = 0

    def check_active(self) -> None:
        self.asked += 1

    def record_lookup(self, status: int, region_set: str, outcome: int) -> None:
        self.answers.append((status, region_set, outcome))

    def record_roster(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
        reasons: tuple[int, ...] | None,
    ) -> None:
        self.answers.append((statuses, region_set, verdicts, reasons))


@functools.cache
def snapshot() -> Snapshot:
    """Return a dataset in service that has each status in both families."""
    return Snapshot(Dataset.from_buffer(encode(small_dataset.content())))


def compare(body: bytes, *, streamed: bool, limits: RosterLimits = LIMITS) -> Any:
    """Answer a request both ways and return what both say.

    Args:
        body: any bytes.
        streamed: they are a `StreamRostersRequest`, not a `ClassifyRosterRequest`.
        limits: what the request is held to.

    Returns:
        A `ClassifyRosterResponse`, or (code, text) of a refusal.

    Raises:
        AssertionError: the two differ.
    """
    expected_call, call = Noted(), Noted()
    expected = _outcome(_by_protobuf, body, limits, expected_call, streamed)
    found = _outcome(_by_handler, body, limits, call, streamed)
    assert found == expected
    assert call.answers == expected_call.answers
    if isinstance(found, v1.ClassifyRosterResponse):
        assert sum(found.counts.values()) == found.size == len(found.statuses)
    return found


def requests(data: bytes) -> None:
    """Any bytes, taken for a lookup, for a roster and for one of a stream."""
    compare_reader(data)
    compare_lookup(data)
    compare_both(data)


def compare_both(data: bytes) -> None:
    """Compare both ways of answering any bytes, as either request."""
    compare(data, streamed=False)
    compare(data, streamed=True)


def compare_reader(data: bytes) -> None:
    """Hold what the core's reader finds in any bytes to what protobuf does."""
    for streamed in (False, True):
        roster = _core.read_roster(data, streamed)
        request = _parsed(data, streamed)
        if roster is not None:
            assert request is not None
            assert fields(roster) == fields_of_message(request)
        if request is not None:  # what is serialised again must be readable
            request.DiscardUnknownFields()
            again = _core.read_roster(request.SerializeToString())
            assert again is not None
            assert fields(again) == fields_of_message(request)


def compare_lookup(data: bytes) -> None:
    """Hold what lookups are answered with to what protobuf makes of any bytes."""
    compare_lookup_reader(data)
    expected_call = Noted()
    expected = _outcome(_looked_up, data, LIMITS, expected_call, False)
    # The second time it is what was kept.
    for _ in range(2):
        call = Noted()
        assert _outcome(_by_lookup, data, LIMITS, call, False) == expected
        assert call.answers == expected_call.answers


def compare_lookup_reader(data: bytes) -> None:
    """Hold what the core's reader of lookups finds in any bytes to what protobuf does."""
    found = _core.read_lookup(data)
    try:
        request = v1.LookupRequest.FromString(data)
    except (DecodeError, ValueError):
        assert found is None
        return
    address = getattr(request, request.WhichOneof("address") or "text")
    expected = address, request.region_set, request.policy
    if found is not None:
        assert found == expected
    request.DiscardUnknownFields()
    usual = request.HasField("text") or len(request.packed) in (4, 16)
    assert _core.read_lookup(request.SerializeToString()) == (expected if usual else None)


def fields(roster: _core.WireRoster) -> tuple[object, ...]:
    """Return all that the reader says of a request."""
    size = None if roster.form is None else roster.size
    return roster.form, size, roster.region_set, roster.policy, roster.record, roster.reasons


def fields_of_message(request: v1.ClassifyRosterRequest) -> tuple[object, ...]:
    """Return what the reader should say of a request."""
    form = request.WhichOneof("addresses")
    size = {
        None: None,
        "ipv4": len(request.ipv4) // 4,
        "ipv6": len(request.ipv6) // 16,
        "text": len(request.text.addresses),
    }[form]
    return form, size, request.region_set, request.policy, request.record, request.reasons


def _parsed(data: bytes, streamed: bool) -> v1.ClassifyRosterRequest | None:
    try:
        if not streamed:
            return v1.ClassifyRosterRequest.FromString(data)
        request = v1.StreamRostersRequest.FromString(data)
    except (DecodeError, ValueError):
        return None
    return request.roster if request.HasField("roster") else None


def _outcome(answer: Any, body: bytes, limits: RosterLimits, call: Call, streamed: bool) -> Any:
    try:
        response = answer(body, limits, call, streamed)
    except RequestError as error:
        return error.code, error.text
    # A record tells the second in which it was made, and its digest covers that.
    if isinstance(response, v1.ClassifyRosterResponse) and response.HasField("record"):
        assert response.record.time
        assert len(response.record.digest) == 64
        response.record.time = response.record.digest = ""
    return response


def _by_lookup(body: bytes, limits: RosterLimits, call: Call, _streamed: bool) -> v1.LookupResponse:
    return v1.LookupResponse.FromString(handlers.lookup(snapshot(), body, limits, call))


def _looked_up(
    body: bytes, _limits: RosterLimits, call: Call, _streamed: bool
) -> v1.LookupResponse:
    request = _parse(v1.LookupRequest, body)
    form = request.WhichOneof("address")
    if form is None:
        raise RequestError(Code.INVALID_ARGUMENT, "address: required")
    address = getattr(request, form)
    if form == "packed" and len(address) not in (4, 16):
        text = f"packed: {len(address)} bytes; an address has 4 or 16"
        raise RequestError(Code.INVALID_ARGUMENT, text)
    if not 0 <= request.policy < len(POLICIES):
        raise RequestError(Code.INVALID_ARGUMENT, "policy: not the number of a policy")
    try:
        answer = snapshot().dataset.lookup(
            address, request.region_set or None, POLICIES[request.policy]
        )
    except RegionSetError as error:
        text = f"region_set: {str(error).removeprefix('region set: ')}"
        raise RequestError(Code.INVALID_ARGUMENT, text) from None
    verdict: Any = 0 if answer.verdict is None else answer.verdict.number
    reason: Any = 0 if answer.reason is None else answer.reason.number
    call.record_lookup(answer.status.number, request.region_set, verdict + 4 * reason)
    return v1.LookupResponse(
        country=answer.country,
        status=answer.status.number,
        claimed=answer.claimed,
        verdict=verdict,
        dataset=answer.dataset,
        reason=reason,
    )


def _by_handler(
    body: bytes, limits: RosterLimits, call: Call, streamed: bool
) -> v1.ClassifyRosterResponse:
    if not streamed:
        answer = handlers.classify_roster(snapshot(), body, limits, call)
        return v1.ClassifyRosterResponse.FromString(answer)
    answer = handlers.stream_rosters(snapshot(), body, limits, 7, call)
    return v1.StreamRostersResponse.FromString(answer).roster


def _by_protobuf(
    body: bytes, limits: RosterLimits, call: Call, streamed: bool
) -> v1.ClassifyRosterResponse:
    request: Any
    if not streamed:
        return _answer(_parse(v1.ClassifyRosterRequest, body), limits, call)
    try:
        request = _parse(v1.StreamRostersRequest, body)
        if not request.HasField("roster"):
            raise RequestError(Code.INVALID_ARGUMENT, "roster: required")
        return _answer(request.roster, limits, call)
    except RequestError as error:
        raise RequestError(error.code, f"roster 7: {error.text}") from None


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError):
        name = kind.DESCRIPTOR.full_name
        raise RequestError(Code.INVALID_ARGUMENT, f"request: not a {name}") from None


def _answer(
    request: v1.ClassifyRosterRequest, limits: RosterLimits, call: Call
) -> v1.ClassifyRosterResponse:
    def refused(text: str, code: Code = Code.INVALID_ARGUMENT) -> RequestError:
        return RequestError(code, text)

    form = request.WhichOneof("addresses")
    if form is None:
        raise refused("addresses: required")
    width = {"ipv4": 4, "ipv6": 16, "text": 1}[form]
    given: Any = list(request.text.addresses) if form == "text" else getattr(request, form)
    if len(given) % width:
        raise refused(f"{form}: {len(given)} bytes are no multiple of {width}")
    size = len(given) // width
    if size > limits.roster:
        raise refused(f"{form}: {size} addresses are over the limit of {limits.roster} a roster")
    if not 0 <= request.policy < len(POLICIES):
        raise refused("policy: not the number of a policy")
    if request.record and not request.region_set:
        raise refused("record: needs region_set")
    try:
        result = snapshot().dataset.classify(
            **{"roster" if form == "text" else form: given},
            region_set=request.region_set or None,
            policy=POLICIES[request.policy],
            record=request.record,
        )
    except RegionSetError as error:
        raise refused(f"region_set: {str(error).removeprefix('region set: ')}") from None
    response = v1.ClassifyRosterResponse(
        size=result.size,
        countries=result.countries.tobytes(),
        statuses=result.statuses.tobytes(),
        counts=result.counts(),
        dataset=result.dataset,
    )
    verdicts = reasons = None
    if request.region_set:
        response.inside, response.outside, response.undetermined = result.serialised()
        verdicts = tuple(result.verdict_counts().values())
        for reason, count in result.reason_counts().items():
            response.reason_counts.add(reason=reason.number, count=count)
        reasons = tuple(result.reason_counts().get(reason, 0) for reason in Reason)
        if request.reasons:
            response.reasons = result.reasons.tobytes()
    if result.record is not None:
        if not request.reasons:
            result.record = replace(result.record, reasons=None)
        response.record.CopyFrom(record_message(result.record))
    counts = {status: result.status_counts().get(status, 0) for status in Status}
    call.record_roster((0, *counts.values()), request.region_set, verdicts, reasons)
    return response
