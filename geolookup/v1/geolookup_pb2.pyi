from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_ASSIGNED: _ClassVar[Status]
    STATUS_DISPUTED: _ClassVar[Status]
    STATUS_UNCONFIRMED: _ClassVar[Status]
    STATUS_UNASSIGNED: _ClassVar[Status]
    STATUS_SPECIAL_PURPOSE: _ClassVar[Status]
    STATUS_OVERRIDE: _ClassVar[Status]
    STATUS_INVALID: _ClassVar[Status]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_INSIDE: _ClassVar[Verdict]
    VERDICT_OUTSIDE: _ClassVar[Verdict]
    VERDICT_UNDETERMINED: _ClassVar[Verdict]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_DISPUTED: _ClassVar[Reason]
    REASON_UNCONFIRMED: _ClassVar[Reason]
    REASON_UNASSIGNED: _ClassVar[Reason]
    REASON_SPECIAL_PURPOSE: _ClassVar[Reason]
    REASON_INVALID: _ClassVar[Reason]
    REASON_COVERED: _ClassVar[Reason]
    REASON_SUBDIVISION_UNKNOWN: _ClassVar[Reason]
    REASON_NO_COUNTRY: _ClassVar[Reason]
    REASON_STALE: _ClassVar[Reason]

class Network(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NETWORK_UNSPECIFIED: _ClassVar[Network]
    NETWORK_TOR: _ClassVar[Network]
    NETWORK_VPN: _ClassVar[Network]
    NETWORK_PROXY: _ClassVar[Network]
    NETWORK_RELAY: _ClassVar[Network]
    NETWORK_HOSTING: _ClassVar[Network]
    NETWORK_SATELLITE: _ClassVar[Network]
    NETWORK_ANYCAST: _ClassVar[Network]
    NETWORK_MOBILE: _ClassVar[Network]

class CoveringNetworks(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COVERING_NETWORKS_UNSPECIFIED: _ClassVar[CoveringNetworks]
    COVERING_NETWORKS_IGNORE: _ClassVar[CoveringNetworks]

class Policy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_UNSPECIFIED: _ClassVar[Policy]
    POLICY_UNANIMOUS: _ClassVar[Policy]
    POLICY_MAJORITY: _ClassVar[Policy]
    POLICY_PRIMARY: _ClassVar[Policy]

class AddressForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADDRESS_FORM_UNSPECIFIED: _ClassVar[AddressForm]
    ADDRESS_FORM_IPV4: _ClassVar[AddressForm]
    ADDRESS_FORM_IPV6: _ClassVar[AddressForm]
    ADDRESS_FORM_IPV4_MAPPED: _ClassVar[AddressForm]
    ADDRESS_FORM_6TO4: _ClassVar[AddressForm]
    ADDRESS_FORM_TEREDO: _ClassVar[AddressForm]
    ADDRESS_FORM_NAT64: _ClassVar[AddressForm]

class Coverage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COVERAGE_UNSPECIFIED: _ClassVar[Coverage]
    COVERAGE_FULL: _ClassVar[Coverage]
    COVERAGE_PARTIAL: _ClassVar[Coverage]
    COVERAGE_ADVISORY: _ClassVar[Coverage]
    COVERAGE_AUTHORITATIVE: _ClassVar[Coverage]
STATUS_UNSPECIFIED: Status
STATUS_ASSIGNED: Status
STATUS_DISPUTED: Status
STATUS_UNCONFIRMED: Status
STATUS_UNASSIGNED: Status
STATUS_SPECIAL_PURPOSE: Status
STATUS_OVERRIDE: Status
STATUS_INVALID: Status
VERDICT_UNSPECIFIED: Verdict
VERDICT_INSIDE: Verdict
VERDICT_OUTSIDE: Verdict
VERDICT_UNDETERMINED: Verdict
REASON_UNSPECIFIED: Reason
REASON_DISPUTED: Reason
REASON_UNCONFIRMED: Reason
REASON_UNASSIGNED: Reason
REASON_SPECIAL_PURPOSE: Reason
REASON_INVALID: Reason
REASON_COVERED: Reason
REASON_SUBDIVISION_UNKNOWN: Reason
REASON_NO_COUNTRY: Reason
REASON_STALE: Reason
NETWORK_UNSPECIFIED: Network
NETWORK_TOR: Network
NETWORK_VPN: Network
NETWORK_PROXY: Network
NETWORK_RELAY: Network
NETWORK_HOSTING: Network
NETWORK_SATELLITE: Network
NETWORK_ANYCAST: Network
NETWORK_MOBILE: Network
COVERING_NETWORKS_UNSPECIFIED: CoveringNetworks
COVERING_NETWORKS_IGNORE: CoveringNetworks
POLICY_UNSPECIFIED: Policy
POLICY_UNANIMOUS: Policy
POLICY_MAJORITY: Policy
POLICY_PRIMARY: Policy
ADDRESS_FORM_UNSPECIFIED: AddressForm
ADDRESS_FORM_IPV4: AddressForm
ADDRESS_FORM_IPV6: AddressForm
ADDRESS_FORM_IPV4_MAPPED: AddressForm
ADDRESS_FORM_6TO4: AddressForm
ADDRESS_FORM_TEREDO: AddressForm
ADDRESS_FORM_NAT64: AddressForm
COVERAGE_UNSPECIFIED: Coverage
COVERAGE_FULL: Coverage
COVERAGE_PARTIAL: Coverage
COVERAGE_ADVISORY: Coverage
COVERAGE_AUTHORITATIVE: Coverage

class NetworkCount(_message.Message):
    __slots__ = ("network", "count")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    network: Network
    count: int
    def __init__(self, network: _Optional[_Union[Network, str]] = ..., count: _Optional[int] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    count: int
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., count: _Optional[int] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("text", "packed", "region_set", "policy", "networks")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    REGION_SET_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    text: str
    packed: bytes
    region_set: str
    policy: Policy
    networks: CoveringNetworks
    def __init__(self, text: _Optional[str] = ..., packed: _Optional[bytes] = ..., region_set: _Optional[str] = ..., policy: _Optional[_Union[Policy, str]] = ..., networks: _Optional[_Union[CoveringNetworks, str]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("country", "status", "claimed", "verdict", "dataset", "reason", "region", "networks")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    country: str
    status: Status
    claimed: _containers.RepeatedScalarFieldContainer[str]
    verdict: Verdict
    dataset: str
    reason: Reason
    region: str
    networks: _containers.RepeatedScalarFieldContainer[Network]
    def __init__(self, country: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., claimed: _Optional[_Iterable[str]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., dataset: _Optional[str] = ..., reason: _Optional[_Union[Reason, str]] = ..., region: _Optional[str] = ..., networks: _Optional[_Iterable[_Union[Network, str]]] = ...) -> None: ...

class TextAddresses(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class ClassifyRosterRequest(_message.Message):
    __slots__ = ("ipv4", "ipv6", "text", "region_set", "policy", "record", "reasons", "group_sizes", "regions", "networks")
    IPV4_FIELD_NUMBER: _ClassVar[int]
    IPV6_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REGION_SET_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZES_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    ipv4: bytes
    ipv6: bytes
    text: TextAddresses
    region_set: str
    policy: Policy
    record: bool
    reasons: bool
    group_sizes: _containers.RepeatedScalarFieldContainer[int]
    regions: bool
    networks: CoveringNetworks
    def __init__(self, ipv4: _Optional[bytes] = ..., ipv6: _Optional[bytes] = ..., text: _Optional[_Union[TextAddresses, _Mapping]] = ..., region_set: _Optional[str] = ..., policy: _Optional[_Union[Policy, str]] = ..., record: bool = ..., reasons: bool = ..., group_sizes: _Optional[_Iterable[int]] = ..., regions: bool = ..., networks: _Optional[_Union[CoveringNetworks, str]] = ...) -> None: ...

class ClassifyRosterResponse(_message.Message):
    __slots__ = ("size", "countries", "statuses", "counts", "inside", "outside", "undetermined", "dataset", "record", "reasons", "reason_counts", "participants", "regions", "networks", "network_counts")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SIZE_FIELD_NUMBER: _ClassVar[int]
    COUNTRIES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    UNDETERMINED_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_COUNTS_FIELD_NUMBER: _ClassVar[int]
    size: int
    countries: bytes
    statuses: bytes
    counts: _containers.ScalarMap[str, int]
    inside: bytes
    outside: bytes
    undetermined: bytes
    dataset: str
    record: DecisionRecord
    reasons: bytes
    reason_counts: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    participants: int
    regions: bytes
    networks: bytes
    network_counts: _containers.RepeatedCompositeFieldContainer[NetworkCount]
    def __init__(self, size: _Optional[int] = ..., countries: _Optional[bytes] = ..., statuses: _Optional[bytes] = ..., counts: _Optional[_Mapping[str, int]] = ..., inside: _Optional[bytes] = ..., outside: _Optional[bytes] = ..., undetermined: _Optional[bytes] = ..., dataset: _Optional[str] = ..., record: _Optional[_Union[DecisionRecord, _Mapping]] = ..., reasons: _Optional[bytes] = ..., reason_counts: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., participants: _Optional[int] = ..., regions: _Optional[bytes] = ..., networks: _Optional[bytes] = ..., network_counts: _Optional[_Iterable[_Union[NetworkCount, _Mapping]]] = ...) -> None: ...

class DecisionRecord(_message.Message):
    __slots__ = ("format", "time", "dataset", "dataset_built", "region_set", "region_set_version", "codes", "policy", "size", "inside", "outside", "undetermined", "statuses", "digest", "reasons", "subdivision_sources", "addresses", "networks", "overrides", "base_dataset")
    class StatusesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ReasonsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_BUILT_FIELD_NUMBER: _ClassVar[int]
    REGION_SET_FIELD_NUMBER: _ClassVar[int]
    REGION_SET_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    UNDETERMINED_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SUBDIVISION_SOURCES_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    BASE_DATASET_FIELD_NUMBER: _ClassVar[int]
    format: int
    time: str
    dataset: str
    dataset_built: str
    region_set: str
    region_set_version: str
    codes: _containers.RepeatedScalarFieldContainer[str]
    policy: str
    size: int
    inside: int
    outside: int
    undetermined: int
    statuses: _containers.ScalarMap[str, int]
    digest: str
    reasons: _containers.ScalarMap[str, int]
    subdivision_sources: int
    addresses: int
    networks: str
    overrides: str
    base_dataset: str
    def __init__(self, format: _Optional[int] = ..., time: _Optional[str] = ..., dataset: _Optional[str] = ..., dataset_built: _Optional[str] = ..., region_set: _Optional[str] = ..., region_set_version: _Optional[str] = ..., codes: _Optional[_Iterable[str]] = ..., policy: _Optional[str] = ..., size: _Optional[int] = ..., inside: _Optional[int] = ..., outside: _Optional[int] = ..., undetermined: _Optional[int] = ..., statuses: _Optional[_Mapping[str, int]] = ..., digest: _Optional[str] = ..., reasons: _Optional[_Mapping[str, int]] = ..., subdivision_sources: _Optional[int] = ..., addresses: _Optional[int] = ..., networks: _Optional[str] = ..., overrides: _Optional[str] = ..., base_dataset: _Optional[str] = ...) -> None: ...

class StreamRostersRequest(_message.Message):
    __slots__ = ("roster",)
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    roster: ClassifyRosterRequest
    def __init__(self, roster: _Optional[_Union[ClassifyRosterRequest, _Mapping]] = ...) -> None: ...

class StreamRostersResponse(_message.Message):
    __slots__ = ("roster",)
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    roster: ClassifyRosterResponse
    def __init__(self, roster: _Optional[_Union[ClassifyRosterResponse, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("text", "packed")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    text: str
    packed: bytes
    def __init__(self, text: _Optional[str] = ..., packed: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("country", "status", "votes", "abstentions", "form", "looked_up", "interval", "sources", "override", "special_purpose", "evidence", "dataset", "region", "subdivision_sources", "places", "networks", "network_lists")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    ABSTENTIONS_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    LOOKED_UP_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_PURPOSE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    SUBDIVISION_SOURCES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_LISTS_FIELD_NUMBER: _ClassVar[int]
    country: str
    status: Status
    votes: _containers.RepeatedCompositeFieldContainer[Vote]
    abstentions: int
    form: AddressForm
    looked_up: str
    interval: Range
    sources: _containers.RepeatedCompositeFieldContainer[SourceView]
    override: OverrideEntry
    special_purpose: RegistryEntry
    evidence: bool
    dataset: str
    region: str
    subdivision_sources: int
    places: _containers.RepeatedCompositeFieldContainer[PlaceVote]
    networks: _containers.RepeatedScalarFieldContainer[Network]
    network_lists: _containers.RepeatedCompositeFieldContainer[NetworkView]
    def __init__(self, country: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., votes: _Optional[_Iterable[_Union[Vote, _Mapping]]] = ..., abstentions: _Optional[int] = ..., form: _Optional[_Union[AddressForm, str]] = ..., looked_up: _Optional[str] = ..., interval: _Optional[_Union[Range, _Mapping]] = ..., sources: _Optional[_Iterable[_Union[SourceView, _Mapping]]] = ..., override: _Optional[_Union[OverrideEntry, _Mapping]] = ..., special_purpose: _Optional[_Union[RegistryEntry, _Mapping]] = ..., evidence: bool = ..., dataset: _Optional[str] = ..., region: _Optional[str] = ..., subdivision_sources: _Optional[int] = ..., places: _Optional[_Iterable[_Union[PlaceVote, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[Network, str]]] = ..., network_lists: _Optional[_Iterable[_Union[NetworkView, _Mapping]]] = ...) -> None: ...

class PlaceVote(_message.Message):
    __slots__ = ("place", "count", "full", "is_deep", "authoritative", "is_cut")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    IS_DEEP_FIELD_NUMBER: _ClassVar[int]
    AUTHORITATIVE_FIELD_NUMBER: _ClassVar[int]
    IS_CUT_FIELD_NUMBER: _ClassVar[int]
    place: str
    count: int
    full: bool
    is_deep: bool
    authoritative: bool
    is_cut: bool
    def __init__(self, place: _Optional[str] = ..., count: _Optional[int] = ..., full: bool = ..., is_deep: bool = ..., authoritative: bool = ..., is_cut: bool = ...) -> None: ...

class NetworkView(_message.Message):
    __slots__ = ("network_list", "date", "kinds", "vouches", "range")
    NETWORK_LIST_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    VOUCHES_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    network_list: str
    date: str
    kinds: _containers.RepeatedScalarFieldContainer[Network]
    vouches: bool
    range: Range
    def __init__(self, network_list: _Optional[str] = ..., date: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[Network, str]]] = ..., vouches: bool = ..., range: _Optional[_Union[Range, _Mapping]] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("country", "count")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    country: str
    count: int
    def __init__(self, country: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: str
    last: str
    def __init__(self, first: _Optional[str] = ..., last: _Optional[str] = ...) -> None: ...

class SourceView(_message.Message):
    __slots__ = ("source", "country", "range", "coverage", "counted", "region")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    source: str
    country: str
    range: Range
    coverage: Coverage
    counted: bool
    region: str
    def __init__(self, source: _Optional[str] = ..., country: _Optional[str] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., coverage: _Optional[_Union[Coverage, str]] = ..., counted: bool = ..., region: _Optional[str] = ...) -> None: ...

class OverrideEntry(_message.Message):
    __slots__ = ("country", "comment", "expires", "range", "number", "file")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    country: str
    comment: str
    expires: str
    range: Range
    number: int
    file: str
    def __init__(self, country: _Optional[str] = ..., comment: _Optional[str] = ..., expires: _Optional[str] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., number: _Optional[int] = ..., file: _Optional[str] = ...) -> None: ...

class RegistryEntry(_message.Message):
    __slots__ = ("prefix", "name", "rfc")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RFC_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    name: str
    rfc: str
    def __init__(self, prefix: _Optional[str] = ..., name: _Optional[str] = ..., rfc: _Optional[str] = ...) -> None: ...

class ListRegionSetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRegionSetsResponse(_message.Message):
    __slots__ = ("region_sets",)
    REGION_SETS_FIELD_NUMBER: _ClassVar[int]
    region_sets: _containers.RepeatedCompositeFieldContainer[RegionSet]
    def __init__(self, region_sets: _Optional[_Iterable[_Union[RegionSet, _Mapping]]] = ...) -> None: ...

class RegionSet(_message.Message):
    __slots__ = ("name", "codes", "version", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    codes: _containers.RepeatedScalarFieldContainer[str]
    version: str
    source: str
    def __init__(self, name: _Optional[str] = ..., codes: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("id", "build_time", "sources", "ipv4_intervals", "ipv6_intervals", "claims", "attributions", "info_json", "age", "kept_too_long", "overrides")
    ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    IPV4_INTERVALS_FIELD_NUMBER: _ClassVar[int]
    IPV6_INTERVALS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    INFO_JSON_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    KEPT_TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    id: str
    build_time: _timestamp_pb2.Timestamp
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    ipv4_intervals: int
    ipv6_intervals: int
    claims: int
    attributions: _containers.RepeatedScalarFieldContainer[str]
    info_json: str
    age: DatasetAge
    kept_too_long: _containers.RepeatedScalarFieldContainer[str]
    overrides: RuntimeOverrides
    def __init__(self, id: _Optional[str] = ..., build_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., ipv4_intervals: _Optional[int] = ..., ipv6_intervals: _Optional[int] = ..., claims: _Optional[int] = ..., attributions: _Optional[_Iterable[str]] = ..., info_json: _Optional[str] = ..., age: _Optional[_Union[DatasetAge, _Mapping]] = ..., kept_too_long: _Optional[_Iterable[str]] = ..., overrides: _Optional[_Union[RuntimeOverrides, _Mapping]] = ...) -> None: ...

class RuntimeOverrides(_message.Message):
    __slots__ = ("base_dataset", "file", "active", "expired", "until")
    BASE_DATASET_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    base_dataset: str
    file: str
    active: int
    expired: int
    until: _timestamp_pb2.Timestamp
    def __init__(self, base_dataset: _Optional[str] = ..., file: _Optional[str] = ..., active: _Optional[int] = ..., expired: _Optional[int] = ..., until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DatasetAge(_message.Message):
    __slots__ = ("days", "max_age", "is_stale", "withholds_verdicts", "stale_sources")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    WITHHOLDS_VERDICTS_FIELD_NUMBER: _ClassVar[int]
    STALE_SOURCES_FIELD_NUMBER: _ClassVar[int]
    days: int
    max_age: int
    is_stale: bool
    withholds_verdicts: bool
    stale_sources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, days: _Optional[int] = ..., max_age: _Optional[int] = ..., is_stale: bool = ..., withholds_verdicts: bool = ..., stale_sources: _Optional[_Iterable[str]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "licence", "date", "coverage", "origin", "ranges", "mute", "within", "ranges_outside", "lines_left_out", "max_age", "keep_days", "has_subdivisions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    MUTE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    RANGES_OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    LINES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_DAYS_FIELD_NUMBER: _ClassVar[int]
    HAS_SUBDIVISIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    licence: str
    date: str
    coverage: Coverage
    origin: str
    ranges: int
    mute: _containers.RepeatedCompositeFieldContainer[MuteCode]
    within: int
    ranges_outside: int
    lines_left_out: int
    max_age: int
    keep_days: int
    has_subdivisions: bool
    def __init__(self, name: _Optional[str] = ..., licence: _Optional[str] = ..., date: _Optional[str] = ..., coverage: _Optional[_Union[Coverage, str]] = ..., origin: _Optional[str] = ..., ranges: _Optional[int] = ..., mute: _Optional[_Iterable[_Union[MuteCode, _Mapping]]] = ..., within: _Optional[int] = ..., ranges_outside: _Optional[int] = ..., lines_left_out: _Optional[int] = ..., max_age: _Optional[int] = ..., keep_days: _Optional[int] = ..., has_subdivisions: bool = ...) -> None: ...

class MuteCode(_message.Message):
    __slots__ = ("country", "filed_as")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    FILED_AS_FIELD_NUMBER: _ClassVar[int]
    country: str
    filed_as: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, country: _Optional[str] = ..., filed_as: _Optional[_Iterable[str]] = ...) -> None: ...
