from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SWAPPED: _ClassVar[Outcome]
    OUTCOME_UNCHANGED: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_STARTING: _ClassVar[WorkerState]
    WORKER_STATE_SERVING: _ClassVar[WorkerState]
    WORKER_STATE_DRAINING: _ClassVar[WorkerState]
    WORKER_STATE_WAITING: _ClassVar[WorkerState]
    WORKER_STATE_UNRESPONSIVE: _ClassVar[WorkerState]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SWAPPED: Outcome
OUTCOME_UNCHANGED: Outcome
OUTCOME_REFUSED: Outcome
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_STARTING: WorkerState
WORKER_STATE_SERVING: WorkerState
WORKER_STATE_DRAINING: WorkerState
WORKER_STATE_WAITING: WorkerState
WORKER_STATE_UNRESPONSIVE: WorkerState

class Reload(_message.Message):
    __slots__ = ("outcome", "dataset", "previous", "reason")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    dataset: str
    previous: str
    reason: str
    def __init__(self, outcome: _Optional[_Union[Outcome, str]] = ..., dataset: _Optional[str] = ..., previous: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ("lift_rollback",)
    LIFT_ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    lift_rollback: bool
    def __init__(self, lift_rollback: bool = ...) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("reload",)
    RELOAD_FIELD_NUMBER: _ClassVar[int]
    reload: Reload
    def __init__(self, reload: _Optional[_Union[Reload, _Mapping]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("reload",)
    RELOAD_FIELD_NUMBER: _ClassVar[int]
    reload: Reload
    def __init__(self, reload: _Optional[_Union[Reload, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("serving", "dataset", "previous", "start_time", "last_reload", "last_reload_time", "workers", "reload_counts", "expired_overrides", "age", "kept_too_long", "held_back", "overrides")
    class HeldBackEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVING_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_RELOAD_FIELD_NUMBER: _ClassVar[int]
    LAST_RELOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RELOAD_COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    KEPT_TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    dataset: str
    previous: str
    start_time: _timestamp_pb2.Timestamp
    last_reload: Reload
    last_reload_time: _timestamp_pb2.Timestamp
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    reload_counts: _containers.RepeatedCompositeFieldContainer[ReloadCount]
    expired_overrides: _containers.RepeatedCompositeFieldContainer[ExpiredOverride]
    age: DatasetAge
    kept_too_long: _containers.RepeatedCompositeFieldContainer[KeptSource]
    held_back: _containers.ScalarMap[str, str]
    overrides: RuntimeOverrides
    def __init__(self, serving: bool = ..., dataset: _Optional[str] = ..., previous: _Optional[str] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_reload: _Optional[_Union[Reload, _Mapping]] = ..., last_reload_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., reload_counts: _Optional[_Iterable[_Union[ReloadCount, _Mapping]]] = ..., expired_overrides: _Optional[_Iterable[_Union[ExpiredOverride, _Mapping]]] = ..., age: _Optional[_Union[DatasetAge, _Mapping]] = ..., kept_too_long: _Optional[_Iterable[_Union[KeptSource, _Mapping]]] = ..., held_back: _Optional[_Mapping[str, str]] = ..., overrides: _Optional[_Union[RuntimeOverrides, _Mapping]] = ...) -> None: ...

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

class KeptSource(_message.Message):
    __slots__ = ("name", "date", "keep_days")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    KEEP_DAYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    date: str
    keep_days: int
    def __init__(self, name: _Optional[str] = ..., date: _Optional[str] = ..., keep_days: _Optional[int] = ...) -> None: ...

class ExpiredOverride(_message.Message):
    __slots__ = ("number", "expires", "comment")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    expires: str
    comment: str
    def __init__(self, number: _Optional[int] = ..., expires: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class ReloadCount(_message.Message):
    __slots__ = ("outcome", "count")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    count: int
    def __init__(self, outcome: _Optional[_Union[Outcome, str]] = ..., count: _Optional[int] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("number", "pid", "state", "dataset", "start_time", "restarts", "in_flight", "last_answer_time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWER_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    pid: int
    state: WorkerState
    dataset: str
    start_time: _timestamp_pb2.Timestamp
    restarts: int
    in_flight: int
    last_answer_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., pid: _Optional[int] = ..., state: _Optional[_Union[WorkerState, str]] = ..., dataset: _Optional[str] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., restarts: _Optional[int] = ..., in_flight: _Optional[int] = ..., last_answer_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
