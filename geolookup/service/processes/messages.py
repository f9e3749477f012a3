"""The messages between the supervisor and a worker, encoded and decoded beside each other.

A worker reads what comes from the network, so the supervisor does not trust it: it decodes the
messages of `FromWorker` alone, and checks the type of each field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NewType, get_args, get_type_hints

from geolookup.service.processes.channel import Channel, Packet
from geolookup.service.processes.sealed_memory import SealedCopy

Descriptor = NewType("Descriptor", int)
"""A file descriptor. The receiver's is its own, and closed with the packet."""

START_TIMEOUT: Final = 60.0
"""Seconds that a worker may take to be ready, or to reply. It takes less than one; the machine
may be busy."""
STOP_MARGIN: Final = 2.0
"""Seconds beyond the grace that a worker has to end by itself. Then the system ends it."""

LOST: Final = Descriptor(-1)
"""In place of a descriptor that the receiver had no room for."""

# --- to a worker ----------------------------------------------------------------------
# Each request has the number of its broadcast, which the reply repeats; 0: the reply is ignored.


@dataclass(frozen=True, slots=True)
class Prepare:
    """The first message: load all code, and wait for `Start`.

    Attributes:
        settings: memory with the pickled `Settings`.
        counters: memory of `Counters.SIZE` bytes, shared with the supervisor.
        supervisor: a connected socket, over which the supervisor asks for lookups.
    """

    settings: Descriptor
    counters: Descriptor
    supervisor: Descriptor


@dataclass(frozen=True, slots=True)
class Start:
    """Take a worker slot. The worker serves once it has swapped to a dataset.

    Attributes:
        number: of the worker slot.
        listen: the address to listen on, as in the settings.
        http: that for JSON over HTTP/1.1; empty: there is none.
    """

    number: int
    listen: str
    http: str


@dataclass(frozen=True, slots=True)
class Load:
    """Open a dataset beside the one in service. Answered by `Reply`.

    Attributes:
        generation: number of the dataset, for `Swap` and `Discard`.
        file: the dataset.
        region_sets: the operator's region sets, if there are any.
        rules: the rules of Envoy's authorization, if there are any.
    """

    broadcast: int
    generation: int
    file: SealedCopy
    region_sets: SealedCopy | None
    rules: SealedCopy | None

    @property
    def is_complete(self) -> bool:
        """Whether all descriptors arrived."""
        copies = (self.file, self.region_sets, self.rules)
        return all(copy is None or copy.descriptor != LOST for copy in copies)


@dataclass(frozen=True, slots=True)
class Swap:
    """Answer from the dataset that was loaded. Answered by `Reply`."""

    broadcast: int
    generation: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop a dataset that was loaded and is not to be answered from."""

    generation: int


@dataclass(frozen=True, slots=True)
class SetHealth:
    """Answer health checks with SERVING or NOT_SERVING. Answered by `Reply`."""

    broadcast: int
    serving: bool


@dataclass(frozen=True, slots=True)
class ReloadCertificates:
    """Read the certificates again, if their files have changed."""


@dataclass(frozen=True, slots=True)
class RetireConnections:
    """Have clients make their further calls on new connections; those are still accepted."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Refuse new calls, and end after the calls in flight.

    Attributes:
        grace: seconds after which the calls in flight are cancelled.
    """

    grace: float


ToWorker = (
    Prepare
    | Start
    | Load
    | Swap
    | Discard
    | SetHealth
    | ReloadCertificates
    | RetireConnections
    | Stop
)

# --- from a worker --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a request.

    Attributes:
        broadcast: as in the request.
        dataset: id of the dataset in service; empty: none yet.
        error: why the request failed; empty: it did not.
    """

    broadcast: int
    dataset: str
    error: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker serves."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker can't serve, and ends.

    Attributes:
        reason: an error text.
        is_listen_error: whether the address could not be listened on.
    """

    reason: str
    is_listen_error: bool


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The worker received SIGTERM. It serves until it gets `Stop`."""


FromWorker = Reply | Ready | Failed | StopRequested

# --- on the channel -------------------------------------------------------------------

_TO_WORKER: Final = {kind.__name__: kind for kind in get_args(ToWorker)}
_FROM_WORKER: Final = {kind.__name__: kind for kind in get_args(FromWorker)}
_FIELD_TYPES: Final[Mapping[type[Any], Mapping[str, object]]] = {
    kind: get_type_hints(kind) for kind in (*get_args(ToWorker), *get_args(FromWorker))
}


def send(channel: Channel, message: ToWorker | FromWorker) -> None:
    """Send a message.

    Raises:
        ChannelError: as `Channel.send`.
    """
    descriptors: list[int] = []
    fields: dict[str, object] = {}
    for name, kind in _FIELD_TYPES[type(message)].items():
        value = getattr(message, name)
        if kind is Descriptor:
            descriptors.append(value)
        elif isinstance(value, SealedCopy):
            descriptors.append(value.descriptor)
            fields[name] = [value.name, value.size]
        elif value is not None:
            fields[name] = value
    channel.send(type(message).__name__, *descriptors, **fields)


def decode_to_worker(packet: Packet) -> ToWorker:
    """Return the supervisor's message in a packet.

    Raises:
        ValueError: it has none.
    """
    message: ToWorker = _decode(packet, _TO_WORKER)
    return message


def decode_from_worker(packet: Packet) -> FromWorker:
    """Return a worker's message in a packet.

    Raises:
        ValueError: it has none.
    """
    message: FromWorker = _decode(packet, _FROM_WORKER)
    return message


def _decode(packet: Packet, kinds: Mapping[str, type[Any]]) -> Any:
    kind = kinds.get(packet.kind)
    if kind is None:
        raise ValueError("kind")
    descriptors = map(Descriptor, packet.descriptors)
    fields = _FIELD_TYPES[kind].items()
    return kind(**{name: _value(packet, name, of, descriptors) for name, of in fields})


def _value(packet: Packet, name: str, kind: object, descriptors: Iterator[Descriptor]) -> object:
    if kind is Descriptor:
        return next(descriptors, LOST)
    value = packet.fields.get(name)
    if kind == SealedCopy | None and value is None:
        return None
    if kind in (SealedCopy, SealedCopy | None):
        match value:
            case [str(file), int(size)]:
                return SealedCopy(next(descriptors, LOST), file, size)
        raise ValueError(name)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(name)
    return value
