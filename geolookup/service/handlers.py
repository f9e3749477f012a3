"""What the service answers: plain functions from a request's bytes to a response's bytes.

A handler knows the snapshot, the limits and the wire format, and no server:
transports are thin shells around these functions. What it refuses it raises as
a `RequestError`, whose text names field and position and never repeats a value.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from geolookup.claims import Policy
from geolookup.errors import RegionSetError, RosterError
from geolookup.v1 import geolookup_pb2 as v1

if TYPE_CHECKING:
    from geolookup.dataset import Dataset
    from geolookup.roster import Answer, RosterResult
    from geolookup.service.settings import Limits

_Message = TypeVar("_Message", bound=Message)


class Code(IntEnum):
    """Why a request was refused. The numbers of gRPC's status codes."""

    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13


class RequestError(Exception):
    """A request that is refused, with what the client may be told."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


INTERNAL_ERROR: Final = RequestError(Code.INTERNAL, "internal error")
"""All that a client learns of an exception that nobody expected."""


class Snapshot:
    """A dataset in service, with what is kept of it in wire form.

    A request is answered from one snapshot, and so is a whole stream.
    """

    _MAX_ANSWERS: Final = 100_000
    """Ten times the distinct answers of a dataset; some 20 MB."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        # By identity, as a dataset hands out one object for each distinct
        # answer. The value holds the answer so that its id is not used again.
        self._answers: dict[int, tuple[Answer, bytes]] = {}

    def encoded(self, answer: Answer) -> bytes:
        """Return an answer as a serialised `LookupResponse`."""
        entry = self._answers.get(id(answer))
        if entry is None:
            if len(self._answers) >= self._MAX_ANSWERS:
                self._answers.clear()
            entry = self._answers[id(answer)] = (answer, _lookup_response(answer))
        return entry[1]


def lookup(snapshot: Snapshot, body: bytes, _limits: Limits) -> bytes:
    """Answer a `LookupRequest`."""
    request = _parse(v1.LookupRequest, body)
    address = _address(request)
    policy = _policy(request.policy)
    try:
        answer = snapshot.dataset.lookup(address, request.region_set or None, policy)
    except RegionSetError as error:
        raise _unknown_region_set(error) from None
    return snapshot.encoded(answer)


def classify_roster(snapshot: Snapshot, body: bytes, limits: Limits) -> bytes:
    """Answer a `ClassifyRosterRequest`."""
    request = _parse(v1.ClassifyRosterRequest, body)
    response = v1.ClassifyRosterResponse()
    _fill(response, _classify(snapshot, request, limits))
    return response.SerializeToString()


def stream_rosters(snapshot: Snapshot, body: bytes, limits: Limits, position: int) -> bytes:
    """Answer one `StreamRostersRequest`, the one at *position* (from 0) of its stream."""
    response = v1.StreamRostersResponse()
    try:
        request = _parse(v1.StreamRostersRequest, body)
        if not request.HasField("roster"):
            raise _invalid("roster", "required")
        _fill(response.roster, _classify(snapshot, request.roster, limits))
    except RequestError as error:
        raise RequestError(error.code, f"roster {position}: {error.text}") from None
    return response.SerializeToString()


def explain(snapshot: Snapshot, body: bytes, _limits: Limits) -> bytes:
    """Answer an `ExplainRequest`."""
    request = _parse(v1.ExplainRequest, body)
    why = snapshot.dataset.explain(_address(request))
    response = v1.ExplainResponse(
        country=why.country,
        status=int(why.status),  # type: ignore[arg-type]  # any number of the enum
        abstentions=why.abstentions,
        form=_FORMS[why.form],
        looked_up=why.looked_up,
        evidence=why.evidence,
        dataset=why.dataset,
    )
    if why.first:
        response.interval.first, response.interval.last = why.first, why.last
    for code, count in zip(why.claimed, why.votes, strict=True):
        response.votes.add(country=code, count=count)
    for view in why.sources:
        response.sources.add(
            source=view.source,
            country=view.country or "",
            range=v1.Range(first=view.first, last=view.last),
        )
    if why.override is not None:
        response.override.country = why.override.country
        response.override.comment = why.override.comment
        response.override.expires = why.override.expires
        response.override.range.first = why.override.first
        response.override.range.last = why.override.last
    if why.special_purpose is not None:
        response.special_purpose.prefix = why.special_purpose.prefix
        response.special_purpose.name = why.special_purpose.name
        response.special_purpose.rfc = why.special_purpose.rfc
    return response.SerializeToString()


def list_region_sets(snapshot: Snapshot, body: bytes, _limits: Limits) -> bytes:
    """Answer a `ListRegionSetsRequest`."""
    _parse(v1.ListRegionSetsRequest, body)
    response = v1.ListRegionSetsResponse()
    for region_set in snapshot.dataset.region_sets:
        response.region_sets.add(
            name=region_set.name,
            codes=sorted(region_set.codes),
            version=region_set.version,
            source=region_set.source,
        )
    return response.SerializeToString()


def get_dataset(snapshot: Snapshot, body: bytes, _limits: Limits) -> bytes:
    """Answer a `GetDatasetRequest`."""
    _parse(v1.GetDatasetRequest, body)
    dataset = snapshot.dataset
    info = dataset.info()
    built = Timestamp()
    built.FromDatetime(dataset.built)
    response = v1.GetDatasetResponse(
        id=dataset.id,
        build_time=built,
        ipv4_intervals=info["ipv4_intervals"],
        ipv6_intervals=info["ipv6_intervals"],
        claims=info["claims"],
        attributions=dataset.attributions,
    )
    for source in dataset.sources:
        response.sources.add(
            name=source.name,
            licence=source.licence,
            date=source.date,
            coverage=_COVERAGE[source.coverage],
            origin=source.origin,
            ranges=source.ranges,
        )
    return response.SerializeToString()


_FORMS: Final = {
    "none": v1.ADDRESS_FORM_UNSPECIFIED,
    "IPv4": v1.ADDRESS_FORM_IPV4,
    "IPv6": v1.ADDRESS_FORM_IPV6,
    "IPv4-mapped": v1.ADDRESS_FORM_IPV4_MAPPED,
    "6to4": v1.ADDRESS_FORM_6TO4,
    "Teredo": v1.ADDRESS_FORM_TEREDO,
    "NAT64": v1.ADDRESS_FORM_NAT64,
}
_COVERAGE: Final = {"full": v1.COVERAGE_FULL, "partial": v1.COVERAGE_PARTIAL}
_POLICIES: Final = {int(v1.POLICY_UNSPECIFIED): Policy.UNANIMOUS} | {int(p): p for p in Policy}


def _lookup_response(answer: Answer) -> bytes:
    return v1.LookupResponse(
        country=answer.country,
        status=int(answer.status),  # type: ignore[arg-type]  # any number of the enum
        claimed=answer.claimed,
        verdict=int(answer.verdict or 0),  # type: ignore[arg-type]
        dataset=answer.dataset,
    ).SerializeToString()


def _classify(
    snapshot: Snapshot, request: v1.ClassifyRosterRequest, limits: Limits
) -> RosterResult:
    field = request.WhichOneof("addresses")
    if field is None:
        raise _invalid("addresses", "required")
    if field == "text":
        size = len(request.text.addresses)
    else:
        packed: bytes = getattr(request, field)
        width = 4 if field == "ipv4" else 16
        if len(packed) % width:
            raise _invalid(field, f"{len(packed)} bytes are no multiple of {width}")
        size = len(packed) // width
    if size > limits.roster:
        raise RequestError(
            Code.RESOURCE_EXHAUSTED,
            f"{field}: {size} addresses are over the limit of {limits.roster} a roster",
        )
    policy = _policy(request.policy)
    try:
        return snapshot.dataset.classify(
            list(request.text.addresses) if field == "text" else None,
            ipv4=packed if field == "ipv4" else None,
            ipv6=packed if field == "ipv6" else None,
            region_set=request.region_set or None,
            policy=policy,
        )
    except RegionSetError as error:
        raise _unknown_region_set(error) from None
    except RosterError as error:
        raise RequestError(Code.INVALID_ARGUMENT, str(error)) from None


def _fill(response: v1.ClassifyRosterResponse, result: RosterResult) -> None:
    response.size = result.size
    response.countries = result.countries.tobytes()
    response.statuses = result.statuses.tobytes()
    response.counts.update(result.counts())
    if result.region_set is not None:
        response.inside, response.outside, response.undetermined = result.serialised()
    response.dataset = result.dataset


def _parse(kind: type[_Message], body: bytes) -> _Message:
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError):  # ValueError: text that is no UTF-8, in some runtimes
        raise _invalid("request", f"not a {kind.DESCRIPTOR.full_name}") from None


def _address(request: v1.LookupRequest | v1.ExplainRequest) -> str | bytes:
    field = request.WhichOneof("address")
    if field == "text":
        return request.text
    if field is None:
        raise _invalid("address", "required")
    if len(request.packed) not in (4, 16):
        raise _invalid("packed", f"{len(request.packed)} bytes; an address has 4 or 16")
    return request.packed


def _policy(number: int) -> Policy:
    policy = _POLICIES.get(number)
    if policy is None:
        raise _invalid("policy", "not the number of a policy")
    return policy


def _invalid(field: str, what: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, f"{field}: {what}")


def _unknown_region_set(error: RegionSetError) -> RequestError:
    # Its texts are made for this: they never repeat what could be an address.
    return _invalid("region_set", str(error).removeprefix("region set: "))
