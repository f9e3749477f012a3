"""Target: requests for rosters and single addresses, whose answers protobuf, too, could give.

The handlers read requests and write responses in the core. Here the same is done by the
protobuf runtime, `Dataset.classify` and `RosterResult`, and both must agree: on every
field of the answer, on what is counted, or on the refusal's code and text. wire.c goes
through the same bytes far faster, and knows less of what is right.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import reference
import small_dataset
from google.protobuf.message import DecodeError
from pyroaring import BitMap

from geolookup import Dataset, RosterResult, _core
from geolookup.answer.claims import Network, Policy, Reason, Status, network_bits
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
    b"\x48\1",
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

    def record_lookup(self, status: int, region_set: str, outcome: int, networks: int) -> None:
        self.answers.append((status, region_set, outcome, networks))

    def record_roster(
        self,
        statuses: tuple[int, ...],
        region_set: str,
        verdicts: tuple[int, int, int] | None,
        reasons: tuple[int, ...] | None,
        networks: tuple[int, ...],
    ) -> None:
        self.answers.append((statuses, region_set, verdicts, reasons, networks))


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
    expected = address, request.region_set, request.policy, request.networks
    if found is not None:
        assert found == expected
    request.DiscardUnknownFields()
    usual = request.HasField("text") or len(request.packed) in (4, 16)
    assert _core.read_lookup(request.SerializeToString()) == (expected if usual else None)


def fields(roster: _core.WireRoster) -> tuple[object, ...]:
    """Return all that the reader says of a request."""
    size = None if roster.form is None else roster.size
    groups = None
    if roster.participants is not None:
        groups = roster.participants, roster.grouped, roster.without
    asked = roster.record, roster.reasons, roster.networks
    return roster.form, size, roster.region_set, roster.policy, asked, groups


def fields_of_message(request: v1.ClassifyRosterRequest) -> tuple[object, ...]:
    """Return what the reader should say of a request."""
    form = request.WhichOneof("addresses")
    size = {
        None: None,
        "ipv4": len(request.ipv4) // 4,
        "ipv6": len(request.ipv6) // 16,
        "text": len(request.text.addresses),
    }[form]
    groups = None
    if request.group_sizes:
        sizes = list(request.group_sizes)
        groups = len(sizes), sum(sizes), sizes.index(0) if 0 in sizes else None
    asked = request.record, request.reasons, request.networks
    return form, size, request.region_set, request.policy, asked, groups


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
    if request.networks not in (0, 1):
        text = "networks: not the number of a CoveringNetworks"
        raise RequestError(Code.INVALID_ARGUMENT, text)
    try:
        answer = snapshot().dataset.lookup(
            address,
            request.region_set or None,
            POLICIES[request.policy],
            "IGNORE" if request.networks else None,
        )
    except RegionSetError as error:
        text = f"region_set: {str(error).removeprefix('region set: ')}"
        raise RequestError(Code.INVALID_ARGUMENT, text) from None
    verdict: Any = 0 if answer.verdict is None else answer.verdict.number
    reason: Any = 0 if answer.reason is None else answer.reason.number
    networks = network_bits(answer.networks)
    call.record_lookup(answer.status.number, request.region_set, verdict + 4 * reason, networks)
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
    if request.networks not in (0, 1):
        raise refused("networks: not the number of a CoveringNetworks")
    if request.record and not request.region_set:
        raise refused("record: needs region_set")
    sizes = list(request.group_sizes)
    wrong = _wrong_groups(sizes, size, request.region_set)
    if wrong:
        raise refused(f"group_sizes: {wrong}")
    try:
        result = snapshot().dataset.classify(
            **{"roster" if form == "text" else form: given},
            region_set=request.region_set or None,
            policy=POLICIES[request.policy],
            networks="IGNORE" if request.networks else None,
            record=request.record and not sizes,
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
    if sizes:
        _answer_about_participants(request, result, response)
    elif request.region_set:
        _answer_about_addresses(request, result, response)
    verdicts, reasons = _counted(response) if request.region_set else (None, None)
    counts = {status: result.status_counts().get(status, 0) for status in Status}
    kinds = result.network_counts()
    networks = tuple(kinds.get(kind, 0) for kind in Network)
    call.record_roster((0, *counts.values()), request.region_set, verdicts, reasons, networks)
    return response


def _answer_about_addresses(
    request: v1.ClassifyRosterRequest, result: RosterResult, response: v1.ClassifyRosterResponse
) -> None:
    """Fill in verdicts and reasons, and the record."""
    response.inside, response.outside, response.undetermined = result.serialised()
    for reason, count in result.reason_counts().items():
        response.reason_counts.add(reason=reason.number, count=count)
    if request.reasons:
        response.reasons = result.reasons.tobytes()
    if result.record is not None:
        if not request.reasons:
            result.record = replace(result.record, reasons=None, addresses=None)
        response.record.CopyFrom(record_message(result.record))


def _wrong_groups(sizes: list[int], addresses: int, region_set: str) -> str:
    """Return what is wrong with group sizes; empty: nothing, or there are none."""
    if sizes and not region_set:
        return "needs region_set"
    if 0 in sizes:
        return f"0 at position {sizes.index(0)}, but a participant has an address"
    if sizes and sum(sizes) != addresses:
        return f"their sum is not {addresses}, the number of addresses"
    return ""


def _answer_about_participants(
    request: v1.ClassifyRosterRequest, result: RosterResult, response: v1.ClassifyRosterResponse
) -> None:
    """Fill in what is said of participants, given what is said of their addresses."""
    verdicts = [""] * result.size
    for name in ("inside", "outside", "undetermined"):
        for position in getattr(result, name):
            verdicts[position] = name.upper()
    addresses = iter(zip(verdicts, (one.name for one in result.reasons), strict=True))
    people = [
        reference.participant(list(itertools.islice(addresses, size)))
        for size in request.group_sizes
    ]
    for name in ("inside", "outside", "undetermined"):
        places = [at for at, (verdict, _) in enumerate(people) if verdict == name.upper()]
        setattr(response, name, BitMap(places).serialize())
    why = [Reason[reason] for _, reason in people]
    if request.reasons:
        response.reasons = bytes(reason.number for reason in why)
    counted = {
        reason: why.count(reason) for reason in Reason if reason in why and reason.number > 0
    }
    for reason, count in counted.items():
        response.reason_counts.add(reason=reason.number, count=count)
    response.participants = len(people)
    if request.record:
        inside, outside, undetermined = (
            sum(verdict == name for verdict, _ in people) for name in reference.VERDICTS
        )
        record = snapshot().dataset.record(
            request.region_set,
            POLICIES[request.policy],
            statuses=result.status_counts(),
            inside=inside,
            outside=outside,
            undetermined=undetermined,
            reasons=counted,
        )
        assert (record.size, record.addresses) == (len(people), result.size)
        response.record.CopyFrom(record_message(record))


def _counted(response: v1.ClassifyRosterResponse) -> tuple[Any, Any]:
    """Return verdicts and reasons as `Call.record_roster` gets them."""
    sets = (response.inside, response.outside, response.undetermined)
    found: dict[int, int] = {one.reason: one.count for one in response.reason_counts}
    reasons = tuple(found.get(reason.number, 0) for reason in Reason)
    return tuple(len(BitMap.deserialize(one)) for one in sets), reasons
