"""What a worker counts: numbers in memory that its supervisor reads at any moment.

No number says anything of one person: nothing here takes an address. The memory
is written with atomic additions from C, so counting costs a call next to nothing,
readers never wait for writers, and a worker that is killed takes no number with it.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from geolookup import _meter

if TYPE_CHECKING:
    from typing_extensions import Buffer

METHODS: Final = (
    "Lookup",
    "ClassifyRoster",
    "StreamRosters",
    "Explain",
    "ListRegionSets",
    "GetDataset",
    "Check",
    "Watch",
    "ServerReflectionInfo",
    "Authorization.Check",
)
"""The methods of the main listener; a method's number is its index.
The last is Envoy's, whose name alone would be that of health's."""

LOOKUP, CLASSIFY_ROSTER, STREAM_ROSTERS, EXPLAIN, LIST_REGION_SETS, GET_DATASET = range(6)
CHECK, WATCH, SERVER_REFLECTION_INFO, AUTHORIZATION_CHECK = range(6, 10)

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

OTHER: Final = "other"
"""Stands for all region sets that have no counters of their own. No region set has this name."""

_SPELLINGS: Final = 1_024
_OPERAND = re.compile(r"([+-]?)([^+-]+)")


class Meter(_meter.Meter):
    """One worker's numbers.

    Made over memory of `SIZE` bytes that are zero, or that a meter has written: a
    worker and its supervisor make one each over the same memory, and a worker that
    takes a dead one's place may go on with its memory after `abandon`. See `_meter.Meter`
    for what is counted how; methods and codes are indexes into `METHODS` and
    `CODES`.
    """

    SIZE: Final = _meter.SIZE
    """Bytes of memory that a meter takes."""

    def __init__(self, memory: Buffer | None = None) -> None:  # noqa: ARG002  # taken by __new__
        # The mapping's own method: for every call it is a look-up without a frame.
        self.region_set: Callable[[str], int] = _Numbers(self).__getitem__
        """Return the number under which the verdicts about a region set are counted.

        Only for names and expressions that were found valid: the first ones keep
        their place for good. All spellings of an expression that differ in order
        or repetition alone are one. Where there is no place for it, or its name is
        too long for one, the number is that of `OTHER`.
        """


class _Numbers(dict[str, int]):
    """Numbers by spelling. Threads may race to fill it: both find the same number."""

    def __init__(self, meter: Meter) -> None:
        # The meter has this mapping, and lets go of its memory when its last user does.
        self._meter = weakref.ref(meter)

    def __missing__(self, expression: str) -> int:
        meter = self._meter()
        if meter is None:
            raise ReferenceError("the meter is gone")
        number = _number(meter, expression)
        # What clients spell must not fill the memory.
        if len(self) < _SPELLINGS:
            self[expression] = number
        return number


def _number(meter: _meter.Meter, expression: str) -> int:
    name = canonical(expression).encode()
    if not 0 < len(name) <= _meter.NAME_BYTES:
        return _meter.REGION_SETS
    simple = b"+" not in name and b"-" not in name
    # Some places are kept for plain names, or a client's inventions could take them all.
    return meter.number(name, _meter.REGION_SETS if simple else _meter.EXPRESSIONS)


def canonical(expression: str) -> str:
    """Return one spelling for region set expressions that differ only in order or repetition.

    What is added or taken away in one go has no order: "CN+HK+CN-TW-MO" becomes "CN+HK-MO-TW".
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
    """What several meters have counted together. Tuples are as in `_meter.Reading`.

    Attributes:
        in_flight: calls being answered, by method.
        calls: calls answered, by method and code.
        durations: the same by method and bucket of `DURATION_BOUNDS`.
        nanoseconds: the time they took, by method.
        shed: calls refused because of the load, by method.
        addresses: by status; the first is nobody's.
        sizes: rosters by bucket of `SIZE_BOUNDS`.
        sizes_sum: addresses in rosters.
        verdicts: inside, outside and undetermined, by region set.
        handshakes: TLS handshakes that clients began.
        certificate_reads: those that failed, and those that were taken.
        certificate_end: when the first certificate in use ends, as Unix time; 0: none.
        certificate_stale: workers that were given a bad certificate and kept the one before.
    """

    in_flight: list[int] = field(default_factory=lambda: [0] * len(METHODS))
    calls: list[list[int]] = field(default_factory=lambda: [[0] * len(CODES) for _ in METHODS])
    durations: list[list[int]] = field(
        default_factory=lambda: [[0] * (len(DURATION_BOUNDS) + 1) for _ in METHODS]
    )
    nanoseconds: list[int] = field(default_factory=lambda: [0] * len(METHODS))
    shed: list[int] = field(default_factory=lambda: [0] * len(METHODS))
    addresses: list[int] = field(default_factory=lambda: [0] * 8)
    sizes: list[int] = field(default_factory=lambda: [0] * (len(SIZE_BOUNDS) + 1))
    sizes_sum: int = 0
    verdicts: dict[str, list[int]] = field(default_factory=lambda: {OTHER: [0, 0, 0]})
    handshakes: int = 0
    certificate_reads: list[int] = field(default_factory=lambda: [0, 0])
    certificate_end: int = 0
    certificate_stale: int = 0


def total(meters: Iterable[_meter.Meter]) -> Totals:
    """Return what these meters have counted together."""
    totals = Totals()
    for meter in meters:
        reading = meter.read()
        for sums, numbers in (
            (totals.in_flight, reading["in_flight"]),
            (totals.nanoseconds, reading["nanoseconds"]),
            (totals.shed, reading["shed"]),
            (totals.addresses, reading["addresses"]),
            (totals.sizes, reading["sizes"]),
            (totals.certificate_reads, reading["certificate_reads"]),
            (totals.verdicts[OTHER], reading["other_verdicts"]),
            *zip(totals.calls, reading["calls"], strict=True),
            *zip(totals.durations, reading["durations"], strict=True),
        ):
            _add(sums, numbers)
        for name, verdicts in reading["region_sets"].items():
            _add(totals.verdicts.setdefault(name, [0, 0, 0]), verdicts)
        totals.sizes_sum += reading["sizes_sum"]
        totals.handshakes += reading["handshakes"]
        totals.certificate_stale += reading["certificate_stale"]
        ends = [end for end in (totals.certificate_end, reading["certificate_end"]) if end]
        totals.certificate_end = min(ends, default=0)
    return totals


def _add(sums: list[int], numbers: Iterable[int]) -> None:
    for index, number in enumerate(numbers):
        sums[index] += number
