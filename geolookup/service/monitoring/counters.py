"""A worker's counters, in memory that its supervisor reads at any moment.

No counter describes one person: nothing here takes an address. C code adds to the memory
atomically, so counting costs a call next to nothing, readers never wait for writers,
and the counts of a worker that is killed remain.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from geolookup import _meter
from geolookup.answer.claims import Network, Reason
from geolookup.service.methods import Method

if TYPE_CHECKING:
    from typing_extensions import Buffer

CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's status codes; a code's number is its index."""

DURATION_BOUNDS: Final = _meter.DURATION_BOUNDS
"""Upper bounds of the buckets of durations, in nanoseconds; the last bucket has none."""

SIZE_BOUNDS: Final = _meter.SIZE_BOUNDS
"""Upper bounds of the buckets of roster sizes, in addresses; the last bucket has none."""

HANDSHAKE_FAILURES: Final = (
    "timed_out",
    "closed",
    "refused_by_client",
    "no_certificate",
    "expired",
    "unknown_authority",
    "bad_certificate",
    "no_http2",
    "no_tls",
    "other",
)
"""Why TLS handshakes failed; a reason's number, of meter.h, is its index."""

OTHER: Final = "other"
"""The name for all region sets without counters of their own. No region set has it."""

_SPELLINGS: Final = 1_024
_OPERAND = re.compile(r"([+-]?)([^+-]+)")


class Counters(_meter.Meter):
    """The counters of one worker.

    They lie in *memory* of `SIZE` bytes that are zero, or that other counters have written:
    a worker and its supervisor make an object each over the same memory, and the memory of a
    worker that has ended can be used again after `abandon`. See `_meter.Meter` for what is
    counted; methods are numbers of `Method`, codes are indexes into `CODES`.
    """

    SIZE: Final = _meter.SIZE
    """Bytes of memory that the counters take."""

    def __init__(self, memory: Buffer | None = None) -> None:  # noqa: ARG002  # taken by __new__
        # The mapping's own method: a call makes no Python frame.
        self.region_set: Callable[[str], int] = _RegionSetNumbers(self).__getitem__
        """Return the number under which the verdicts about a region set are counted.

        Only for valid names and expressions: the first ones keep their counters for
        good. Spellings of an expression that differ in order or repetition alone share
        a number. If no counters are left, or the name is too long, the number is that of
        `OTHER`.
        """


class _RegionSetNumbers(dict[str, int]):
    """Numbers by spelling. Threads may race to fill it: both find the same number."""

    def __init__(self, counters: Counters) -> None:
        # Weak, since the counters own this mapping: a cycle would keep their memory mapped.
        self._counters = weakref.ref(counters)

    def __missing__(self, expression: str) -> int:
        counters = self._counters()
        if counters is None:
            raise ReferenceError("the counters have been released")
        number = _number(counters, expression)
        # A bound, since clients choose the spellings.
        if len(self) < _SPELLINGS:
            self[expression] = number
        return number


def _number(counters: Counters, expression: str) -> int:
    name = canonical(expression).encode()
    if not 0 < len(name) <= _meter.NAME_BYTES:
        return _meter.REGION_SETS
    simple = b"+" not in name and b"-" not in name
    # Some counters are kept for plain names, or clients' expressions could take all.
    return counters.number(name, _meter.REGION_SETS if simple else _meter.EXPRESSIONS)


def canonical(expression: str) -> str:
    """Return one spelling for region set expressions that differ only in order or repetition.

    Operands of one sign in a row have no order: "CN+HK+CN-TW-MO" becomes "CN+HK-MO-TW".
    """
    runs: list[tuple[str, set[str]]] = []
    for operator, name in _OPERAND.findall(expression):
        sign = operator or "+"
        if not runs or runs[-1][0] != sign:
            runs.append((sign, set()))
        runs[-1][1].add(name)
    return "".join(f"{sign}{name}" for sign, names in runs for name in sorted(names)).removeprefix(
        "+"
    )


@dataclass(slots=True)
class Totals:
    """The sums of several workers' counters. Lists are as the tuples in `_meter.Reading`.

    Attributes:
        in_flight: calls being answered, by method.
        calls: calls answered, by method and code.
        durations: the same by method and bucket of `DURATION_BOUNDS`.
        nanoseconds: the time they took, by method.
        shed: calls refused because of the load, by method.
        addresses: by status; the first is unused.
        checks: Envoy's, by status of their address.
        sizes: rosters by bucket of `SIZE_BOUNDS`.
        sizes_sum: addresses in rosters.
        verdicts: inside, outside and undetermined, by region set.
        reasons: the undetermined ones by number of the reason, by region set.
        networks: addresses by kind of their network, by region set; "": seen from none.
        handshakes: TLS handshakes that clients began.
        handshake_failures: those that failed, by `HANDSHAKE_FAILURES`.
        transfer_timeouts: calls that `transfer_timeout` has ended.
        certificate_reads: readings of certificates that failed, and that succeeded.
        certificate_end: when the first certificate in use ends, as Unix time; 0: none.
        certificate_stale: workers that keep an old certificate, since the new one is bad.
        log_dropped: lines of the log that were dropped.
        memory: bytes of large requests and their answers that are under way.
        connections: that are open.
        connections_made: that were accepted.
        connections_closed: for want of room: at once, and before they made a call.
    """

    in_flight: list[int] = field(default_factory=lambda: [0] * len(Method))
    calls: list[list[int]] = field(default_factory=lambda: [[0] * len(CODES) for _ in Method])
    durations: list[list[int]] = field(
        default_factory=lambda: [[0] * (len(DURATION_BOUNDS) + 1) for _ in Method]
    )
    nanoseconds: list[int] = field(default_factory=lambda: [0] * len(Method))
    shed: list[int] = field(default_factory=lambda: [0] * len(Method))
    addresses: list[int] = field(default_factory=lambda: [0] * 8)
    checks: list[int] = field(default_factory=lambda: [0] * 8)
    sizes: list[int] = field(default_factory=lambda: [0] * (len(SIZE_BOUNDS) + 1))
    sizes_sum: int = 0
    verdicts: dict[str, list[int]] = field(default_factory=lambda: {OTHER: [0, 0, 0]})
    reasons: dict[str, list[int]] = field(default_factory=lambda: {OTHER: [0] * len(Reason)})
    networks: dict[str, list[int]] = field(
        default_factory=lambda: {"": [0] * len(Network), OTHER: [0] * len(Network)}
    )
    handshakes: int = 0
    handshake_failures: list[int] = field(default_factory=lambda: [0] * len(HANDSHAKE_FAILURES))
    transfer_timeouts: int = 0
    certificate_reads: list[int] = field(default_factory=lambda: [0, 0])
    certificate_end: int = 0
    certificate_stale: int = 0
    log_dropped: int = 0
    memory: int = 0
    connections: int = 0
    connections_made: int = 0
    connections_closed: list[int] = field(default_factory=lambda: [0, 0])


def total(all_counters: Iterable[_meter.Meter]) -> Totals:
    """Return the sums of these counters."""
    totals = Totals()
    for counters in all_counters:
        reading = counters.read()
        for sums, numbers in (
            (totals.in_flight, reading["in_flight"]),
            (totals.nanoseconds, reading["nanoseconds"]),
            (totals.shed, reading["shed"]),
            (totals.addresses, reading["addresses"]),
            (totals.checks, reading["checks"]),
            (totals.sizes, reading["sizes"]),
            (totals.certificate_reads, reading["certificate_reads"]),
            (totals.handshake_failures, reading["handshake_failures"]),
            *zip(totals.calls, reading["calls"], strict=True),
            *zip(totals.durations, reading["durations"], strict=True),
        ):
            _add(sums, numbers)
        for name, (verdicts, reasons) in [
            (OTHER, reading["other_region_sets"]),
            *reading["region_sets"].items(),
        ]:
            _add(totals.verdicts.setdefault(name, [0, 0, 0]), verdicts)
            _add(totals.reasons.setdefault(name, [0] * len(Reason)), reasons)
        for name, networks in [
            ("", reading["networks"]),
            (OTHER, reading["other_networks"]),
            *reading["networks_of_region_sets"].items(),
        ]:
            _add(totals.networks.setdefault(name, [0] * len(Network)), networks)
        totals.sizes_sum += reading["sizes_sum"]
        totals.handshakes += reading["handshakes"]
        totals.transfer_timeouts += reading["transfer_timeouts"]
        totals.certificate_stale += reading["certificate_stale"]
        totals.log_dropped += reading["log_dropped"]
        totals.memory += reading["memory"]
        totals.connections += reading["connections"]
        totals.connections_made += reading["connections_made"]
        _add(totals.connections_closed, reading["connections_closed"])
        ends = [end for end in (totals.certificate_end, reading["certificate_end"]) if end]
        totals.certificate_end = min(ends, default=0)
    return totals


def _add(sums: list[int], numbers: Iterable[int]) -> None:
    for index, number in enumerate(numbers):
        sums[index] += number
