"""What the clients send and what they make of the answers; no networking in here.

Each verb is a function that returns a `Request`: the method, the bytes to send, and how to read
the bytes that come back.

Addresses are read by the client and travel packed: that costs both sides less
than text, and what is no address never leaves the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from geolookup import _core
from geolookup.answer.addresses import core_address, core_roster, packed_buffer
from geolookup.answer.arrow import column_addresses, objects
from geolookup.answer.claims import (
    Coverage,
    Network,
    PlaceVote,
    Policy,
    Reason,
    Status,
    Verdict,
    ignores_networks,
    read_policy,
)
from geolookup.answer.decision_record import RecordError, from_mapping
from geolookup.answer.embedded_ipv4 import MAPPED_BYTES
from geolookup.answer.evidence import OverrideView, RegistryEntry
from geolookup.answer.explanation import Explanation, NetworkView, SourceView
from geolookup.answer.file_format import SourceInfo, read_source
from geolookup.answer.participants import Participants, People, whose
from geolookup.answer.region_sets import RegionSet, RegionSets
from geolookup.answer.results import Answer, RosterResult
from geolookup.errors import RegionSetError, RosterError, ServiceError
from geolookup.v1 import geolookup_pb2 as v1

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from geolookup.answer.addresses import Address, Roster
    from geolookup.answer.decision_record import DecisionRecord
    from geolookup.answer.participants import ById

_Message = TypeVar("_Message", bound=Message)
_Result_co = TypeVar("_Result_co", covariant=True)

_METHOD = "/geolookup.v1.GeoLookupService/"
LOOKUP = f"{_METHOD}Lookup"
CLASSIFY_ROSTER = f"{_METHOD}ClassifyRoster"
STREAM_ROSTERS = f"{_METHOD}StreamRosters"
EXPLAIN = f"{_METHOD}Explain"
LIST_REGION_SETS = f"{_METHOD}ListRegionSets"
GET_DATASET = f"{_METHOD}GetDataset"

UNARY = (LOOKUP, CLASSIFY_ROSTER, EXPLAIN, LIST_REGION_SETS, GET_DATASET)

EMPTY = b""
"""The request of the two methods that have no parameters."""


@dataclass(frozen=True, slots=True)
class Question:
    """From which region set, and by which policy, addresses are seen.

    Attributes:
        region_set: its name or expression; None: no verdicts are asked for.
        policy: how claims become verdicts.
        expression: what is sent; a `RegionSet` travels as its codes, because
            the service may know another set by its name.
        record: whether a decision record is asked for, too.
        networks: "IGNORE": networks that hide where their users are have a verdict, too.
        lookup: what a serialised `LookupRequest` has behind the address.
    """

    region_set: str | None
    policy: Policy
    expression: str
    record: bool = False
    networks: str | None = None
    lookup: bytes = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        request = v1.LookupRequest(
            region_set=self.expression,
            policy=_number(self.policy),
            networks=_networks(self),
        )
        # Once for a question, as each of these takes longer than all else that a lookup needs.
        object.__setattr__(self, "lookup", request.SerializeToString())
        object.__setattr__(self, "_hash", hash((self.lookup, self.region_set, self.record)))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(
        cls,
        region_set: str | RegionSet | None,
        policy: Policy | str,
        record: bool = False,
        networks: str | None = None,
    ) -> Question:
        """Make a question of the arguments of `lookup` and `classify`.

        Raises:
            TypeError, ValueError, RegionSetError: as `Dataset.lookup`, where
                that is known without the service's region sets.
        """
        if type(region_set) in _CACHED and type(policy) in _POLICIES and type(networks) in _CACHED:
            return _question(region_set, policy, record, networks)
        return cls._of(region_set, policy, record, networks)

    @classmethod
    def _of(
        cls,
        region_set: str | RegionSet | None,
        policy: Policy | str,
        record: bool,
        networks: str | None,
    ) -> Question:
        policy = read_policy(policy)
        rule = "IGNORE" if ignores_networks(networks) else None
        if region_set is None:
            if record:
                raise ValueError("record: needs a region set; name one with region_set=")
            return cls(None, policy, "", networks=rule)
        if isinstance(region_set, RegionSet):
            return cls(region_set.name, policy, region_set.expression, record, rule)
        if not isinstance(region_set, str):
            raise TypeError(
                f"region_set: expected str or RegionSet, not {type(region_set).__name__}"
            )
        if not region_set:
            raise RegionSetError("region set: the expression is empty")
        if not region_set.isascii():  # names are; and some text can't be sent at all
            raise RegionSetError("region set: unknown name at position 1")
        return cls(region_set, policy, region_set, record, rule)


# A client asks the same few questions again and again.
_CACHED = (str, type(None))
_POLICIES = (str, Policy)
_question = lru_cache(256)(Question._of)


class Request(NamedTuple, Generic[_Result_co]):
    """A call that is to be made.

    Attributes:
        method: one of `UNARY`.
        body: the serialised request.
        read: returns the result in a serialised response; raises ServiceError if it holds none.
        field: the argument that the caller gave addresses in, for errors.
    """

    method: str
    body: bytes
    read: Callable[[bytes], _Result_co]
    field: str | None = None


# The first field of a serialised `LookupRequest`, up to the address.
_IPV4 = v1.LookupRequest(packed=bytes(4)).SerializeToString()[:-4]
_IPV6 = v1.LookupRequest(packed=bytes(16)).SerializeToString()[:-16]
_NO_ADDRESS = v1.LookupRequest(text="").SerializeToString()  # gets the answer INVALID


def lookup(packed: bytes | None, question: Question) -> Request[Answer]:
    """Return the request for one address, as `packed_address` returns it."""
    if packed is None:
        head = _NO_ADDRESS
    elif len(packed) == 4:
        head = _IPV4 + packed
    else:
        head = _IPV6 + packed
    return Request(LOOKUP, head + question.lookup, answer)


def lookups(rows: list[bytes | None], question: Question) -> Request[list[Answer]]:
    """Return the request for several addresses, as `packed_address` returns them.

    Either all of them can be read or none can. Answers that are not `is_complete` lack the
    claimed codes, which a roster's answer has not.
    """
    request = v1.ClassifyRosterRequest(
        region_set=question.expression,
        policy=_number(question.policy),
        reasons=question.region_set is not None,
        regions=True,
        networks=_networks(question),
    )
    good = [row for row in rows if row is not None]
    if good:
        _fill_rows(request, good)
    else:
        request.text.addresses.extend([""] * len(rows))
    read = partial(_answers, question=question, size=len(rows))
    return Request(CLASSIFY_ROSTER, request.SerializeToString(), read)


def classify(
    roster: Roster | ById | None,
    ipv4: Buffer | None,
    ipv6: Buffer | None,
    question: Question,
    groups: Iterable[int] | None = None,
) -> Request[RosterResult]:
    """Return the request for a roster."""
    request = v1.ClassifyRosterRequest()
    field, participants, present = _fill(request, roster, ipv4, ipv6, groups, question)
    read = partial(_roster, question, participants, present)
    return Request(CLASSIFY_ROSTER, request.SerializeToString(), read, field)


def explain(address: Address) -> Request[Explanation]:
    """Return the request for an explanation."""
    request = v1.ExplainRequest()
    _fill_packed(request, packed_address(address))
    return Request(EXPLAIN, request.SerializeToString(), _explanation)


def packed_address(address: Address) -> bytes | None:
    """Return an address in 4 or 16 bytes; None: it can't be read, and its answer is INVALID.

    Raises:
        TypeError: no address by its type.
    """
    form = core_address(address)
    packed = _core.parse(form) if isinstance(form, str) else form
    return packed if packed is not None and len(packed) in (4, 16) else None


def _fill_packed(request: v1.ExplainRequest, packed: bytes | None) -> None:
    if packed is None:
        request.text = ""  # no address either, and gets the answer INVALID
    else:
        request.packed = packed


def stream_request(
    column: str, roster: Any, groups: Iterable[int] | None, question: Question
) -> Request[RosterResult]:
    """Return the request for one roster of a stream; *column* is rosters, ipv4 or ipv6."""
    request = v1.StreamRostersRequest()
    _, participants, present = _fill(
        request.roster,
        roster if column == "rosters" else None,
        roster if column == "ipv4" else None,
        roster if column == "ipv6" else None,
        groups,
        question,
    )
    read = partial(streamed_result, question=question, participants=participants, present=present)
    return Request(STREAM_ROSTERS, request.SerializeToString(), read)


def one_of(verb: str, **given: Any) -> tuple[str, Any]:
    """Return the name and value of the only argument that is not None.

    Raises:
        TypeError: none is, or several are.
    """
    chosen = [(name, value) for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        *others, last = given
        raise TypeError(f"{verb}: expected exactly one of {', '.join(others)} and {last}")
    return chosen[0]


def answer(body: bytes) -> Answer:
    """Return the answer in a serialised `LookupResponse`.

    Raises:
        ServiceError: it holds none.
    """
    try:
        return _answer(body)
    except (DecodeError, ValueError):
        raise _not_understood() from None


# The same few thousand answers come again and again.
@lru_cache(8192)
def _answer(body: bytes) -> Answer:
    response = v1.LookupResponse.FromString(body)
    return Answer(
        country=response.country,
        status=Status.numbered(response.status),
        claimed=tuple(response.claimed),
        verdict=Verdict.numbered(response.verdict) if response.verdict else None,
        dataset=response.dataset,
        reason=_reason(response),
        region=response.region,
        networks=tuple(map(Network.numbered, response.networks)),
    )


def _reason(response: v1.LookupResponse) -> Reason | None:
    if not response.verdict or (
        # A service of a version without reasons.
        response.verdict == v1.VERDICT_UNDETERMINED and not response.reason
    ):
        return None
    return Reason.numbered(response.reason)


def is_complete(answer: Answer) -> bool:
    """Return whether an answer to `lookups` is all that `lookup` would give."""
    return answer.status is not Status.DISPUTED


def _answers(body: bytes, question: Question, size: int) -> list[Answer]:
    result = _roster(question, None, None, body)
    if result.size != size:
        raise _not_understood()
    verdicts: Sequence[Verdict | None] = [None] * size
    reasons: Sequence[Reason | None] = [None] * size
    if question.region_set is not None:
        verdicts = result.verdicts
        if result.has_reasons:
            reasons = result.reasons
    columns = zip(
        *(result.countries, result.statuses, verdicts, reasons, result.regions, result.networks),
        strict=True,
    )
    dataset = result.dataset
    return [_plain_answer(*column, dataset) for column in columns]


@lru_cache(8192)
def _plain_answer(
    country: str,
    status: Status,
    verdict: Verdict | None,
    reason: Reason | None,
    region: str,
    networks: tuple[Network, ...],
    dataset: str,
) -> Answer:
    return Answer(country, status, (), verdict, dataset, reason, region, networks)


def _roster(
    question: Question, participants: Participants | None, present: bytes | None, body: bytes
) -> RosterResult:
    return _result(_parse(v1.ClassifyRosterResponse, body), question, participants, present)


def streamed_result(
    body: bytes,
    question: Question,
    participants: Participants | None = None,
    present: bytes | None = None,
) -> RosterResult:
    """Return the result in a serialised `StreamRostersResponse`.

    Raises:
        ServiceError: it holds none.
    """
    return _result(_parse(v1.StreamRostersResponse, body).roster, question, participants, present)


def read_streamed(request: Request[RosterResult] | None, body: bytes) -> RosterResult:
    """Return the result in an answer of a stream.

    Args:
        request: what it answers; None: nothing is left to be answered.
        body: the answer.

    Raises:
        ServiceError: it holds none, or nothing was left.
    """
    if request is None:
        raise _not_understood()
    return request.read(body)


_FORMS = {
    v1.ADDRESS_FORM_IPV4: "IPv4",
    v1.ADDRESS_FORM_IPV6: "IPv6",
    v1.ADDRESS_FORM_IPV4_MAPPED: "IPv4-mapped",
    v1.ADDRESS_FORM_6TO4: "6to4",
    v1.ADDRESS_FORM_TEREDO: "Teredo",
    v1.ADDRESS_FORM_NAT64: "NAT64",
}


def _explanation(body: bytes) -> Explanation:
    response = _parse(v1.ExplainResponse, body)
    override, entry = response.override, response.special_purpose
    try:
        status = Status.numbered(response.status)
    except ValueError:
        raise _not_understood() from None
    return Explanation(
        country=response.country,
        status=status,
        claimed=tuple(vote.country for vote in response.votes),
        votes=tuple(vote.count for vote in response.votes),
        abstentions=response.abstentions,
        form=_FORMS.get(response.form, "none"),
        looked_up=response.looked_up,
        first=response.interval.first,
        last=response.interval.last,
        sources=tuple(
            SourceView(
                view.source,
                view.country or None,
                view.range.first,
                view.range.last,
                _coverage(view.coverage),
                view.counted,
                view.region,
            )
            for view in response.sources
        ),
        override=OverrideView(
            override.country,
            override.comment,
            override.expires,
            override.range.first,
            override.range.last,
            override.number,
            override.file,
        )
        if response.HasField("override")
        else None,
        special_purpose=RegistryEntry(entry.prefix, entry.name, entry.rfc)
        if response.HasField("special_purpose")
        else None,
        evidence=response.evidence,
        dataset=response.dataset,
        region=response.region,
        subdivision_sources=response.subdivision_sources or None,
        places=tuple(
            PlaceVote(
                vote.place,
                vote.count,
                full=vote.full,
                is_deep=vote.is_deep,
                authoritative=vote.authoritative,
                is_cut=vote.is_cut,
            )
            for vote in response.places
        ),
        networks=tuple(map(Network.numbered, response.networks)),
        network_lists=tuple(
            NetworkView(
                one.network_list,
                one.date,
                tuple(map(Network.numbered, one.kinds)),
                one.vouches,
                one.range.first,
                one.range.last,
            )
            for one in response.network_lists
        ),
    )


def _region_sets(body: bytes) -> RegionSets:
    try:
        return RegionSets(
            RegionSet(item.name, frozenset(item.codes), item.version, item.source)
            for item in _parse(v1.ListRegionSetsResponse, body).region_sets
        )
    except RegionSetError:
        raise _not_understood() from None


def _info(body: bytes) -> dict[str, Any]:
    response = _parse(v1.GetDatasetResponse, body)
    try:
        info = json.loads(response.info_json)
        if info["id"] == response.id:
            return dict(info)
    except (ValueError, TypeError, KeyError):
        pass
    raise _not_understood()


def _built(body: bytes) -> datetime:
    return _parse(v1.GetDatasetResponse, body).build_time.ToDatetime(UTC)


def _sources(body: bytes) -> tuple[SourceInfo, ...]:
    try:
        return tuple(map(read_source, _info(body)["sources"]))
    except (ValueError, TypeError, KeyError):
        raise _not_understood() from None


REGION_SETS = Request(LIST_REGION_SETS, EMPTY, _region_sets)
INFO = Request(GET_DATASET, EMPTY, _info)
ID = Request(GET_DATASET, EMPTY, lambda body: _parse(v1.GetDatasetResponse, body).id)
BUILT = Request(GET_DATASET, EMPTY, _built)
SOURCES = Request(GET_DATASET, EMPTY, _sources)
ATTRIBUTIONS = Request(
    GET_DATASET, EMPTY, lambda body: tuple(_parse(v1.GetDatasetResponse, body).attributions)
)


def _coverage(number: v1.Coverage) -> Coverage:
    try:
        name = v1.Coverage.Name(number).removeprefix("COVERAGE_").lower()
    except ValueError:  # of a service that is newer
        raise _not_understood() from None
    return cast("Coverage", name)


def _fill(
    request: v1.ClassifyRosterRequest,
    roster: Roster | ById | None,
    ipv4: Buffer | None,
    ipv6: Buffer | None,
    groups: Iterable[int] | None,
    question: Question,
) -> tuple[str, Participants | None, bytes | None]:
    """Fill a request.

    Returns:
        The name of the argument with the addresses, whose they are, and which are present: see
        `RosterResult`.
    """
    column, addresses = one_of("classify", roster=roster, ipv4=ipv4, ipv6=ipv6)
    participants = whose(addresses, groups, question.region_set)
    present = None
    request.region_set = question.expression
    request.policy = _number(question.policy)
    request.record = question.record
    # Results have these wherever they come from, so that the arguments are none of the verbs'.
    request.reasons = question.region_set is not None
    request.regions = True
    request.networks = _networks(question)
    if column == "ipv4":
        request.ipv4 = packed = _bytes(packed_buffer(addresses, column, 4))
        size = len(packed) // 4
    elif column == "ipv6":
        request.ipv6 = packed = _bytes(packed_buffer(addresses, column, 16))
        size = len(packed) // 16
    elif isinstance(addresses, Mapping):
        participants = _fill_people(request, People.of(addresses))
        size = participants.addresses
    else:
        size, present = _fill_roster(request, addresses)
    if participants is not None:
        participants.check(size)
        request.MergeFromString(_core.wire_groups(participants.sizes))
    return column, participants, present


def _fill_people(request: v1.ClassifyRosterRequest, people: People) -> Participants:
    try:
        packed, families, sizes = _core.parse_people(people.lists)
    except TypeError:
        forms, participants = people.forms()  # not all of them are text
        _fill_forms(request, forms)
        return participants
    _fill_parsed(request, chain.from_iterable(people.lists), packed, families)
    return people.participants(sizes)


def _fill_roster(request: v1.ClassifyRosterRequest, roster: object) -> tuple[int, bytes | None]:
    """Fill a request with a roster; return its size, and which addresses are present."""
    present = None
    if not isinstance(roster, (list, tuple)):
        column = column_addresses(roster)
        if column is not None:
            packed, families, present = column
            _fill_parsed(request, _written(packed, families), packed, families)
            return len(families), present
        roster, present = objects(roster) or (roster, None)
    if isinstance(roster, (list, tuple)):
        try:
            packed, families = _core.parse_many(roster)
        except TypeError:
            pass  # not all of them are text
        else:
            _fill_parsed(request, roster, packed, families)
            return len(roster), present
    forms = core_roster(roster)
    _fill_forms(request, forms)
    return len(forms), present


def _written(packed: bytes, families: bytes) -> Iterator[str]:
    """Yield addresses of 16 bytes as text, for requests whose addresses are not all valid."""
    for at, family in enumerate(families):
        if family == 6:
            yield _text(b"", packed[16 * at : 16 * at + 16])
        else:
            yield "{}.{}.{}.{}".format(*packed[16 * at + 12 : 16 * at + 16])


def _fill_forms(request: v1.ClassifyRosterRequest, forms: list[str | bytes]) -> None:
    rows = [_core.parse(form) if isinstance(form, str) else form for form in forms]
    good = [row for row in rows if row is not None and len(row) in (4, 16)]
    if len(good) < len(rows):
        request.text.addresses.extend(map(_text, forms, rows))
    else:
        _fill_rows(request, good)


def _fill_rows(request: v1.ClassifyRosterRequest, rows: list[bytes]) -> None:
    if all(len(row) == 4 for row in rows):
        request.ipv4 = b"".join(rows)
    else:
        request.ipv6 = b"".join(MAPPED_BYTES[: 16 - len(row)] + row for row in rows)


def _fill_parsed(
    request: v1.ClassifyRosterRequest, texts: Iterable[str], packed: bytes, families: bytes
) -> None:
    present = set(families)
    if present <= {4}:
        # The last of each four words.
        request.ipv4 = memoryview(packed).cast("I")[3::4].tobytes()
    elif 0 in present:
        request.text.addresses.extend(
            text if family else "" for text, family in zip(texts, families, strict=True)
        )
    else:
        request.ipv6 = _mapped(packed, families) if 4 in present else packed


def _mapped(packed: bytes, families: bytes) -> bytes:
    """Return rows of 16 bytes with the IPv4 ones in IPv4-mapped form."""
    rows = bytearray(packed)
    # All rows at once: 0xff in the columns 10 and 11 where the family is 4.
    mask = int.from_bytes(families.translate(_MASK))
    for at in (10, 11):
        column = memoryview(rows)[at::16]
        column[:] = (int.from_bytes(column.tobytes()) | mask).to_bytes(len(families))
    return bytes(rows)


_MASK = bytes(0xFF if family == 4 else 0 for family in range(256))


def _text(form: str | bytes, row: bytes | None) -> str:
    if row is None or len(row) not in (4, 16):
        return ""
    if isinstance(form, str):
        return form
    # Only here: packed addresses alone do not need it.
    from ipaddress import ip_address  # noqa: PLC0415

    return str(ip_address(row))


def _bytes(packed: Buffer) -> bytes:
    return packed if isinstance(packed, bytes) else memoryview(packed).tobytes()


def _networks(question: Question) -> v1.CoveringNetworks:
    if question.networks is None:
        return v1.COVERING_NETWORKS_UNSPECIFIED
    return v1.COVERING_NETWORKS_IGNORE


def _number(policy: Policy) -> Any:
    return policy.number  # the types of the generated code want their own enum


def _result(
    response: v1.ClassifyRosterResponse,
    question: Question,
    participants: Participants | None,
    present: bytes | None,
) -> RosterResult:
    asked = question.region_set is not None
    if response.participants != (0 if participants is None else len(participants)):
        if participants is not None and not response.participants:
            raise ServiceError("the service has a version that knows no participants")
        raise ServiceError("the service's answer is about another number of participants")
    try:
        result = RosterResult.from_columns(
            size=response.size,
            countries=response.countries,
            statuses=response.statuses,
            inside=response.inside if asked else None,
            outside=response.outside if asked else None,
            undetermined=response.undetermined if asked else None,
            reasons=_reasons(response) if asked else None,
            regions=response.regions or None,
            networks=response.networks or None,
            dataset=response.dataset,
            region_set=question.region_set,
            policy=question.policy if asked else None,
            participants=participants,
            present=present,
        )
        if question.record:
            result.record = _record(response.record, result, question)
    except (RosterError, RecordError) as error:
        raise ServiceError(f"the service's answer makes no sense: {error}") from None
    return result


def _reasons(response: v1.ClassifyRosterResponse) -> bytes | None:
    """Return the column of reasons; None: the service has a version that has none."""
    return response.reasons if response.reasons or not response.size else None


def _record(message: v1.DecisionRecord, result: RosterResult, question: Question) -> DecisionRecord:
    """Return the record of a message.

    Raises:
        RecordError: it makes no sense, or says something else than the answer.
    """
    values = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    record = from_mapping(
        values
        | {
            "codes": list(message.codes),
            "statuses": dict(message.statuses),
            "reasons": dict(message.reasons),
        }
    )
    same = (
        record.dataset == result.dataset
        and record.region_set == question.expression
        and record.policy is question.policy
        and record.addresses in (None, result.size)
        and question.networks in (None, record.networks)  # the service may cover kinds of its own
        and record.statuses == result.status_counts()
        and [record.inside, record.outside, record.undetermined]
        == list(result.verdict_counts().values())
    )
    if not same:
        raise RecordError("record: it is not that of this answer")
    return record


def _parse(kind: type[_Message], body: bytes) -> _Message:
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError):
        raise _not_understood() from None


def _not_understood() -> ServiceError:
    return ServiceError("the service's answer is not understood; is it another version?")
