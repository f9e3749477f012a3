"""The rpcs as plain functions from a request's bytes to a response's bytes.

A handler knows the snapshot, the limits and the wire format, but no server: transports
are thin shells around these functions. It refuses a request with a `RequestError`, whose text
names field and position and never repeats a value.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from geolookup import _core
from geolookup.answer.claims import Policy, Reason, Status, encode_outcome, network_bits
from geolookup.answer.decision_record import to_mapping
from geolookup.errors import RegionSetError
from geolookup.service.rpc.request import NULL_CALL, Call, Code, RequestError
from geolookup.v1 import geolookup_pb2 as v1

if TYPE_CHECKING:
    from collections.abc import Callable

    from geolookup.answer.dataset import Dataset
    from geolookup.answer.decision_record import DecisionRecord
    from geolookup.answer.results import Answer
    from geolookup.service.rpc.envoy_authz import Rules
    from geolookup.service.settings import RosterLimits

_Message = TypeVar("_Message", bound=Message)


class Snapshot:
    """A dataset in service, with the parts of it that are kept in wire form.

    A request is answered from one snapshot, and so is a whole stream.
    """

    def __init__(self, dataset: Dataset, rules: Rules | None = None) -> None:
        self.dataset = dataset
        self.rules = rules
        """The rules of Envoy's authorization, if it is enabled."""
        self.named = v1.ClassifyRosterResponse(dataset=dataset.id).SerializeToString()
        """The field `dataset` of a `ClassifyRosterResponse`, serialised with its tag."""
        self.heads: tuple[bytes, bytes] | None = None
        """What the transport native has computed for the swap to it; None: nothing, or it is done.
        """
        self.find: Callable[[bytes], _Reply | None] = dataset.replies.find
        """Return the reply to a `LookupRequest`, if it is in the cache."""
        if dataset.withholds_from is not None:  # the cache changes with the day
            self.find = partial(_find, dataset)


def _find(dataset: Dataset, body: bytes) -> _Reply | None:
    reply: _Reply | None = dataset.replies.find(body)
    return reply


_Reply = tuple[bytes, int, str, int, int]
"""A serialised `LookupResponse`, and the arguments of `Call.record_lookup`."""


def lookup(snapshot: Snapshot, body: bytes, _limits: RosterLimits, call: Call = NULL_CALL) -> bytes:
    """Answer a `LookupRequest`."""
    found = snapshot.find(body) or _lookup(snapshot, body)
    response, status, region_set, outcome, networks = found
    call.record_lookup(status, region_set, outcome, networks)
    return response


def _lookup(snapshot: Snapshot, body: bytes) -> _Reply:
    address, region_set, number, networks = _core.read_lookup(body) or _read_lookup(body)
    policy = policy_of(number)
    replies = snapshot.dataset.replies
    try:
        answer = snapshot.dataset.lookup(
            address, region_set or None, policy, networks_rule(networks)
        )
    except RegionSetError as error:
        raise _unknown_region_set(error) from None
    reply = (
        _lookup_response(answer),
        answer.status.number,
        region_set,
        outcome_of(answer),
        network_bits(answer.networks),
    )
    replies.keep(body, reply)
    return reply


def classify_roster(
    snapshot: Snapshot, body: bytes, limits: RosterLimits, call: Call = NULL_CALL
) -> bytes:
    """Answer a `ClassifyRosterRequest`."""
    roster = _core.read_roster(body)
    if roster is None:
        roster = _read_again(_parse(v1.ClassifyRosterRequest, body))
    return _classify(snapshot, roster, limits, call, streamed=False)


def stream_rosters(
    snapshot: Snapshot, body: bytes, limits: RosterLimits, position: int, call: Call = NULL_CALL
) -> bytes:
    """Answer one `StreamRostersRequest`, the one at *position* (from 0) of its stream."""
    try:
        roster = _core.read_roster(body, True)
        if roster is None:
            request = _parse(v1.StreamRostersRequest, body)
            if not request.HasField("roster"):
                raise _invalid("roster", "required")
            roster = _read_again(request.roster)
        return _classify(snapshot, roster, limits, call, streamed=True)
    except RequestError as error:
        raise RequestError(error.code, f"roster {position}: {error.text}") from None


def explain(
    snapshot: Snapshot, body: bytes, _limits: RosterLimits, call: Call = NULL_CALL
) -> bytes:
    """Answer an `ExplainRequest`."""
    request = _parse(v1.ExplainRequest, body)
    why = snapshot.dataset.explain(_address(request))
    call.record_lookup(why.status.number, "", 0, network_bits(why.networks))
    response = v1.ExplainResponse(
        country=why.country,
        status=why.status.number,  # type: ignore[arg-type]  # any number of the enum
        abstentions=why.abstentions,
        form=_FORMS[why.form],
        looked_up=why.looked_up,
        evidence=why.evidence,
        dataset=why.dataset,
        region=why.region,
        subdivision_sources=why.subdivision_sources or 0,
    )
    if why.first:
        response.interval.first, response.interval.last = why.first, why.last
    for code, count in zip(why.claimed, why.votes, strict=True):
        response.votes.add(country=code, count=count)
    for vote in why.places:
        response.places.add(**asdict(vote))
    response.networks.extend(network.number for network in why.networks)  # type: ignore[misc]
    for one in why.network_lists:
        response.network_lists.add(
            network_list=one.network_list,
            date=one.date,
            kinds=[kind.number for kind in one.kinds],
            vouches=one.vouches,
            range=v1.Range(first=one.first, last=one.last),
        )
    for view in why.sources:
        response.sources.add(
            source=view.source,
            country=view.country or "",
            range=v1.Range(first=view.first, last=view.last),
            coverage=_COVERAGE[view.coverage],
            counted=view.counted,
            region=view.region,
        )
    if why.override is not None:
        response.override.country = why.override.country
        response.override.comment = why.override.comment
        response.override.expires = why.override.expires
        response.override.range.first = why.override.first
        response.override.range.last = why.override.last
        response.override.number = why.override.number
        response.override.file = why.override.file
    if why.special_purpose is not None:
        response.special_purpose.prefix = why.special_purpose.prefix
        response.special_purpose.name = why.special_purpose.name
        response.special_purpose.rfc = why.special_purpose.rfc
    return response.SerializeToString()


def list_region_sets(
    snapshot: Snapshot, body: bytes, _limits: RosterLimits, _call: Call = NULL_CALL
) -> bytes:
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


def get_dataset(
    snapshot: Snapshot, body: bytes, _limits: RosterLimits, _call: Call = NULL_CALL
) -> bytes:
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
        info_json=json.dumps(info, ensure_ascii=False),
    )
    age = dataset.age
    response.age.days, response.age.max_age = age.days, age.max_age
    response.age.is_stale = age.is_stale
    response.age.withholds_verdicts = age.withholds_verdicts
    response.age.stale_sources.extend(age.stale_sources)
    response.kept_too_long.extend(kept.name for kept in dataset.kept_too_long())
    over = dataset.runtime_overrides
    if over is not None:
        response.overrides.base_dataset, response.overrides.file = over.base, over.file
        response.overrides.active, response.overrides.expired = over.active, over.expired
        if over.until is not None:
            response.overrides.until.FromDatetime(over.until)
    for source in dataset.sources:
        response.sources.add(
            name=source.name,
            licence=source.licence,
            date=source.date,
            coverage=_COVERAGE[source.coverage],
            origin=source.origin,
            ranges=source.ranges,
            mute=[v1.MuteCode(country=code, filed_as=filed) for code, filed in source.mute],
            within=source.within,
            ranges_outside=source.ranges_outside,
            lines_left_out=source.lines_left_out,
            max_age=source.max_age,
            keep_days=source.keep_days,
            has_subdivisions=source.depth == "subdivision",
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
_COVERAGE: Final = {
    "full": v1.COVERAGE_FULL,
    "partial": v1.COVERAGE_PARTIAL,
    "advisory": v1.COVERAGE_ADVISORY,
    "authoritative": v1.COVERAGE_AUTHORITATIVE,
}
_POLICIES: Final = {int(v1.POLICY_UNSPECIFIED): Policy.UNANIMOUS} | {
    policy.number: policy for policy in Policy
}


def outcome_of(answer: Answer) -> int:
    """Return how an answer is counted; 0: no region set was asked for."""
    if answer.verdict is None or answer.reason is None:
        return 0
    return encode_outcome(answer.verdict, answer.reason)


def _lookup_response(answer: Answer) -> bytes:
    return v1.LookupResponse(
        country=answer.country,
        status=answer.status.number,  # type: ignore[arg-type]  # any number of the enum
        claimed=answer.claimed,
        verdict=0 if answer.verdict is None else answer.verdict.number,  # type: ignore[arg-type]
        dataset=answer.dataset,
        reason=0 if answer.reason is None else answer.reason.number,  # type: ignore[arg-type]
        region=answer.region,
        networks=[network.number for network in answer.networks],  # type: ignore[misc]
    ).SerializeToString()


def _read_lookup(body: bytes) -> tuple[str | bytes, str, int, int]:
    """Read a request in a form that the core leaves to protobuf."""
    request = _parse(v1.LookupRequest, body)
    return _address(request), request.region_set, request.policy, request.networks


def _read_again(request: v1.ClassifyRosterRequest) -> _core.WireRoster:
    """Return the roster of a request in a form that the core leaves to protobuf."""
    request.DiscardUnknownFields()
    roster = _core.read_roster(request.SerializeToString())
    if roster is None:
        raise RuntimeError("a request was serialised in an unknown form")
    return roster


def _classify(
    snapshot: Snapshot,
    roster: _core.WireRoster,
    limits: RosterLimits,
    call: Call,
    *,
    streamed: bool,
) -> bytes:
    field = roster.form
    if field is None:
        raise _invalid("addresses", "required")
    if roster.rest:
        width = 4 if field == "ipv4" else 16
        raise _invalid(field, f"{roster.nbytes} bytes are no multiple of {width}")
    if roster.size > limits.roster:
        # Not RESOURCE_EXHAUSTED, upon which clients ask again for what can never be answered.
        raise _invalid(
            field, f"{roster.size} addresses are over the limit of {limits.roster} a roster"
        )
    policy = policy_of(roster.policy)
    networks = networks_rule(roster.networks)
    region_set = roster.region_set
    if roster.record and not region_set:
        raise _invalid("record", "needs region_set")
    if roster.participants is not None:
        _check_groups(roster)
    try:
        answer = snapshot.dataset.answer(roster, region_set or None, policy, networks)
    except RegionSetError as error:
        raise _unknown_region_set(error) from None
    while answer.step():
        call.check_active()
    statuses, verdicts, reasons = answer.statuses, answer.verdicts, answer.reasons
    rest = snapshot.named
    if roster.record and verdicts is not None:
        inside, outside, undetermined = verdicts
        record = snapshot.dataset.record(
            region_set,
            policy,
            statuses={
                status: statuses[status.number] for status in Status if statuses[status.number]
            },
            inside=inside,
            outside=outside,
            undetermined=undetermined,
            reasons={reason: n for reason, n in zip(Reason, reasons, strict=True) if n}
            if (roster.reasons or roster.participants is not None) and reasons is not None
            else None,
            networks=networks or "",
        )
        rest += v1.ClassifyRosterResponse(record=record_message(record)).SerializeToString()
    if roster.regions and snapshot.dataset.has_subdivisions:
        rest += v1.ClassifyRosterResponse(regions=_regions(snapshot, answer)).SerializeToString()
    call.record_roster(statuses, region_set, verdicts, reasons, answer.network_counts)
    return answer.finish(rest, streamed)


def _regions(snapshot: Snapshot, answer: _core.RosterAnswer) -> bytes:
    codes, claims = snapshot.dataset.claims.regions(), answer.claims
    return b"" if codes is None or claims is None else _core.map48(claims, codes)


def _check_groups(roster: _core.WireRoster) -> None:
    field = "group_sizes"
    if not roster.region_set:
        raise _invalid(field, "needs region_set")
    if roster.without is not None:
        raise _invalid(field, f"0 at position {roster.without}, but a participant has an address")
    if roster.grouped != roster.size:
        # The sum is not repeated: it is an address, if addresses were sent as numbers.
        raise _invalid(field, f"their sum is not {roster.size}, the number of addresses")


def record_message(record: DecisionRecord) -> v1.DecisionRecord:
    """Return a decision record without a reference as a message."""
    return v1.DecisionRecord(**to_mapping(record))  # the JSON form has the same names


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


def policy_of(number: int) -> Policy:
    """Return the policy that a number stands for.

    Raises:
        RequestError: INVALID_ARGUMENT, none.
    """
    policy = _POLICIES.get(number)
    if policy is None:
        raise _invalid("policy", "not the number of a policy")
    return policy


def networks_rule(number: int) -> str | None:
    """Return what `Dataset.lookup` takes for a number of `CoveringNetworks`.

    Raises:
        RequestError: INVALID_ARGUMENT, none.
    """
    if number not in (v1.COVERING_NETWORKS_UNSPECIFIED, v1.COVERING_NETWORKS_IGNORE):
        raise _invalid("networks", "not the number of a CoveringNetworks")
    return "IGNORE" if number == v1.COVERING_NETWORKS_IGNORE else None


def _invalid(field: str, what: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, f"{field}: {what}")


def _unknown_region_set(error: RegionSetError) -> RequestError:
    # The texts of this error never repeat what could be an address.
    return _invalid("region_set", str(error).removeprefix("region set: "))
