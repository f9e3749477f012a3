"""The meter: exact sums whoever adds, in memory that outlives the process that wrote it."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from geolookup import _meter
from geolookup.answer.claims import Reason, Status, Verdict, encode_outcome
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import (
    CODES,
    DURATION_BOUNDS,
    OTHER,
    SIZE_BOUNDS,
    Counters,
)

ROOT = Path(__file__).resolve().parents[2]
MILLISECOND = 1_000_000
CODE = CODES.index


def verdicts_of(reading: _meter.Reading) -> dict[str, tuple[int, int, int]]:
    """Return addresses by verdict, by region set."""
    return {name: verdicts for name, (verdicts, _) in reading["region_sets"].items()}


def count(one: Counters, region_set: str, *verdicts: int) -> None:
    """Count verdicts, of a roster that has no addresses otherwise."""
    one.roster((0,) * 8, one.region_set(region_set), verdicts)


def shared_memory() -> mmap.mmap:
    return mmap.mmap(-1, Counters.SIZE)


# what is counted


def test_meter_names_and_numbers_match_the_memory_layout() -> None:
    assert len(Method) == len({method.label for method in Method}) == _meter.METHODS
    assert len(CODES) == len(set(CODES)) == _meter.CODES
    assert Method.LOOKUP.label == "Lookup"
    assert Method.SERVER_REFLECTION_INFO.label == "ServerReflectionInfo"


def test_meter_codes_are_those_of_grpc() -> None:
    import grpc  # noqa: PLC0415

    assert (
        tuple(code.name for code in sorted(grpc.StatusCode, key=lambda code: code.value[0]))
        == CODES
    )


def test_a_call_is_in_flight_from_its_begin_to_its_end() -> None:
    one = Counters()
    one.begin(Method.EXPLAIN)
    one.begin(Method.EXPLAIN)
    assert one.read()["in_flight"][Method.EXPLAIN] == 2
    one.end(Method.EXPLAIN, CODE("INTERNAL"), MILLISECOND)
    read = one.read()
    assert read["in_flight"][Method.EXPLAIN] == 1
    assert read["calls"][Method.EXPLAIN][CODE("INTERNAL")] == 1
    assert read["nanoseconds"][Method.EXPLAIN] == MILLISECOND
    assert sum(map(sum, read["calls"])) == sum(map(sum, read["durations"])) == 1


@pytest.mark.parametrize("bucket", range(len(DURATION_BOUNDS) + 1))
def test_duration_is_counted_in_the_first_bucket_that_holds_it(bucket: int) -> None:
    one = Counters()
    least = DURATION_BOUNDS[bucket - 1] + 1 if bucket else 0
    most = DURATION_BOUNDS[bucket] if bucket < len(DURATION_BOUNDS) else 2**62
    for nanoseconds in (least, most):
        one.end(Method.CHECK, 0, nanoseconds)
    assert one.read()["durations"][Method.CHECK][bucket] == 2


def test_bucket_bounds_ascend_from_50_microseconds_to_10_seconds() -> None:
    assert DURATION_BOUNDS[0] == 50_000
    assert DURATION_BOUNDS[-1] == 10_000_000_000
    assert list(DURATION_BOUNDS) == sorted(set(DURATION_BOUNDS))
    # A quantile read from the buckets is off by at most this factor.
    assert all(b <= 1.7 * a for a, b in itertools.pairwise(DURATION_BOUNDS))
    assert list(SIZE_BOUNDS) == sorted(set(SIZE_BOUNDS))


def test_duration_of_a_clock_set_back_is_zero() -> None:
    one = Counters()
    one.end(Method.LOOKUP, 0, -5)
    one.end(Method.LOOKUP, 0, -1)
    assert one.read()["nanoseconds"][Method.LOOKUP] == 0
    assert one.read()["durations"][Method.LOOKUP][0] == 2


@given(st.lists(st.integers(0, 2_000_000), min_size=7, max_size=7))
@example([0] * 7)
@example([1, 0, 0, 0, 0, 0, 0])
def test_a_roster_is_counted_by_size_and_by_status(counts: list[int]) -> None:
    one = Counters()
    one.roster((0, *counts))
    read = one.read()
    assert read["addresses"] == (0, *counts)
    assert read["sizes_sum"] == sum(counts)
    bucket = sum(sum(counts) > bound for bound in SIZE_BOUNDS)
    assert [index for index, number in enumerate(read["sizes"]) if number] == [bucket]


@pytest.mark.parametrize(
    "wrong", [(), (0,) * 7, (0,) * 9, (1, 0, 0, 0, 0, 0, 0, 0), (0, 2, 0, 0, 0, 0, 0, -1)]
)
def test_impossible_roster_counts_are_refused(wrong: tuple[int, ...]) -> None:
    one = Counters()
    with pytest.raises((ValueError, OverflowError)):
        one.roster(wrong, 0, (1, 1, 1))
    assert one.read() == Counters().read()


@pytest.mark.parametrize("wrong", [(), (1, 1), (1, 1, 1, 1), (1, 1, -1)])
def test_impossible_verdict_counts_are_refused(wrong: tuple[int, ...]) -> None:
    one = Counters()
    with pytest.raises((ValueError, OverflowError)):
        one.roster((0, 3, 0, 0, 0, 0, 0, 0), 0, wrong)
    assert one.read() == Counters().read()


@given(st.lists(st.integers(0, 2_000_000), min_size=10, max_size=10))
def test_a_roster_is_counted_by_reason(reasons: list[int]) -> None:
    reasons[0] = 0
    one, sums = Counters(), tuple(2 * n for n in reasons)
    number = one.region_set("EU")
    for _ in range(2):
        one.roster((0, sum(reasons), *[0] * 6), number, (0, 0, sum(reasons)), tuple(reasons))
    assert one.read()["region_sets"]["EU"][1] == sums
    other = Counters()
    other.absorb(one)
    assert other.read()["region_sets"] == one.read()["region_sets"]
    assert counters.total([one, other]).reasons["EU"] == [2 * n for n in sums]
    with pytest.raises(ValueError, match="reasons: 3 numbers, expected 10"):
        one.roster((0,) * 8, 0, (0, 0, 0), (1, 2, 3))


@given(st.lists(st.integers(0, 2_000_000), min_size=8, max_size=8), st.integers(0, 255))
def test_addresses_are_counted_by_kind_of_network(kinds: list[int], bits: int) -> None:
    one = Counters()
    seen = one.region_set("EU")
    outcome = encode_outcome(Verdict.UNDETERMINED, Reason.COVERED)
    one.roster((0, 1, *[0] * 6), seen, (0, 0, 1), None, tuple(kinds))
    one.roster((0, 1, *[0] * 6), 0, None, None, tuple(kinds))
    one.roster((0, 1, *[0] * 6), one.region_set("x" * 65), (0, 0, 1), None, tuple(kinds))
    one.address(Status.ASSIGNED.number, seen, outcome, bits)
    one.address(Status.ASSIGNED.number, 0, 0, bits)
    expected = [n + (bits >> at & 1) for at, n in enumerate(kinds)]
    other = Counters()
    other.absorb(one)
    for counted in (one, other):
        read = counted.read()
        assert list(read["networks_of_region_sets"]["EU"]) == expected
        assert list(read["networks"]) == expected
        assert list(read["other_networks"]) == kinds
    sums = counters.total([one, other]).networks
    assert sums == {
        "": [2 * n for n in expected],
        "EU": [2 * n for n in expected],
        counters.OTHER: [2 * n for n in kinds],
    }


@pytest.mark.parametrize("wrong", [(), (1,) * 7, (0, 0, 0, 0, 0, 0, 0, -1)])
def test_impossible_counts_of_networks_are_refused(wrong: tuple[int, ...]) -> None:
    one = Counters()
    with pytest.raises((ValueError, OverflowError)):
        one.roster((0, 3, *[0] * 6), 0, (3, 0, 0), None, wrong)
    with pytest.raises(ValueError, match="networks: out of range"):
        one.address(Status.ASSIGNED.number, 0, 1, 256)
    assert one.read() == Counters().read()


@given(st.lists(st.integers(0, 2_000_000), min_size=3, max_size=3))
def test_a_roster_is_counted_by_verdict(verdicts: tuple[int, int, int]) -> None:
    one = Counters()
    statuses = (0, sum(verdicts), 0, 0, 0, 0, 0, 0)
    one.roster(statuses, one.region_set("EU"), tuple(verdicts))
    one.roster(statuses)
    read = one.read()
    assert read["region_sets"] == {"EU": (tuple(verdicts), (0,) * 10)}
    assert read["sizes_sum"] == 2 * sum(verdicts)


def test_an_address_is_counted_by_status_and_verdict() -> None:
    one, other = Counters(), Counters()
    one.address(Status.DISPUTED.number, one.region_set("EU"), Verdict.OUTSIDE.number)
    third = Counters()
    undetermined = encode_outcome(Verdict.UNDETERMINED, Reason.DISPUTED)
    third.address(Status.DISPUTED.number, third.region_set("EU"), undetermined)
    assert third.read()["region_sets"] == {"EU": ((0, 0, 1), (0, 1, *[0] * 8))}
    for wrong in (40, 4, 36):
        with pytest.raises(ValueError, match="outcome"):
            third.address(Status.DISPUTED.number, 0, wrong)
    other.address(Status.DISPUTED.number)
    assert one.read()["addresses"] == other.read()["addresses"] == (0, 0, 1, 0, 0, 0, 0, 0)
    assert one.read()["region_sets"] == {"EU": ((0, 1, 0), (0,) * 10)}
    assert other.read()["region_sets"] == {}
    assert other.read()["sizes_sum"] == 0


def test_shed_call_is_neither_begun_nor_ended() -> None:
    one = Counters()
    one.shed(Method.LOOKUP)
    read = one.read()
    assert read["shed"] == (1, *[0] * 9)
    assert not any(read["in_flight"])
    assert not any(map(sum, read["calls"]))


def test_certificate_expiry_and_reload_outcomes_are_kept() -> None:
    one, two = Counters(), Counters()
    one.certificate(True, 2_000)
    assert counters.total([one, two]).certificate_end == 2_000
    two.certificate(True, 1_000)
    two.certificate(False, 1_000)
    one.handshake()
    totals = counters.total([one, two])
    assert totals.certificate_end == 1_000
    assert totals.certificate_reads == [1, 2]
    assert totals.certificate_stale == 1
    assert totals.handshakes == 1
    two.certificate(True, 3_000)
    assert counters.total([one, two]).certificate_stale == 0


def test_connections_and_their_failures_are_counted() -> None:
    one, two = Counters(), Counters()
    for _ in range(3):
        one.connection(True)
    one.connection(False)
    two.connection(True)
    two.connection_closed(True)
    two.connection_closed(False)
    two.connection_closed(False)
    one.transfer_timeout()
    one.handshake_failure(counters.HANDSHAKE_FAILURES.index("expired"))
    totals = counters.total([one, two])
    assert (totals.connections, totals.connections_made) == (3, 4)
    assert totals.connections_closed == [2, 1]
    assert totals.transfer_timeouts == 1
    failures = dict(zip(counters.HANDSHAKE_FAILURES, totals.handshake_failures, strict=True))
    assert failures["expired"] == 1
    assert sum(failures.values()) == 1
    with pytest.raises(ValueError, match="reason"):
        one.handshake_failure(len(counters.HANDSHAKE_FAILURES))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("begin", (10,)),
        ("end", (10, 0, 1)),
        ("end", (0, 17, 1)),
        ("shed", (10,)),
        ("address", (0,)),
        ("address", (8,)),
        ("address", (1, 257, 1)),
        ("address", (1, 0, 4)),
        ("roster", ((0,) * 8, 257, (1, 1, 1))),
        ("number", (b"", 5)),
        ("number", (b"X" * 65, 5)),
        ("number", (b"X", 257)),
    ],
)
def test_a_number_out_of_range_is_refused_and_counts_nothing(
    method: str, arguments: tuple[object, ...]
) -> None:
    one = Counters()
    with pytest.raises(ValueError, match=r"out of range|bytes are not in"):
        getattr(one, method)(*arguments)
    assert one.read() == Counters().read()


def test_negative_numbers_are_refused() -> None:
    one = Counters()
    for call in (lambda: one.begin(-1), lambda: one.roster((0,) * 8, 0, (-1, 0, 0))):
        with pytest.raises(OverflowError):
            call()


def test_counter_beyond_64_bits_wraps() -> None:
    one = Counters()
    count(one, "EU", 2**64 - 1, 0, 0)
    count(one, "EU", 3, 0, 0)
    assert one.read()["region_sets"]["EU"][0] == (2, 0, 0)


# region sets


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("EU", "EU"),
        ("CN+HK", "CN+HK"),
        ("HK+CN+HK", "CN+HK"),
        ("EEA-NO-IS", "EEA-IS-NO"),
        ("EEA-NO+CH", "EEA-NO+CH"),
        ("EEA+CH-NO", "CH+EEA-NO"),
    ],
)
def test_expressions_that_differ_in_order_share_a_count(expression: str, name: str) -> None:
    assert counters.canonical(expression) == name
    one = Counters()
    count(one, expression, 1, 2, 3)
    count(one, name, 1, 2, 3)
    assert verdicts_of(one.read()) == {name: (2, 4, 6)}


@given(
    st.lists(
        st.tuples(st.sampled_from("+-"), st.sampled_from(["CN", "EU", "DE", "ASIA"])), max_size=6
    )
)
def test_canonical_expression_has_the_same_codes(rest: list[tuple[str, str]]) -> None:
    from geolookup.answer.region_sets import RegionSets  # noqa: PLC0415
    from geolookup.errors import RegionSetError  # noqa: PLC0415

    expression = "EUROPE" + "".join(operator + name for operator, name in rest)
    resolve = RegionSets.builtin().resolve
    try:
        codes = resolve(expression).codes
    except RegionSetError:  # a part removes nothing, or no code is left: it is never counted
        assume(False)
    assert resolve(counters.canonical(expression)).codes == codes


def test_region_sets_beyond_the_last_slot_are_counted_as_other() -> None:
    one = Counters()
    for number in range(_meter.REGION_SETS + 20):
        count(one, f"SET_{number}", 1, 0, 0)
    totals = counters.total([one])
    assert len(totals.verdicts) == _meter.REGION_SETS + 1
    assert totals.verdicts[OTHER] == [20, 0, 0]
    assert totals.verdicts["SET_0"] == [1, 0, 0]


def test_random_expressions_leave_slots_for_names() -> None:
    one = Counters()
    for number in range(_meter.REGION_SETS):
        count(one, f"CN+SET_{number}", 0, 1, 0)
    count(one, "EU", 0, 0, 1)
    totals = counters.total([one])
    assert totals.verdicts["EU"] == [0, 0, 1]
    assert totals.verdicts[OTHER] == [0, _meter.REGION_SETS - _meter.EXPRESSIONS, 0]


def test_name_too_long_for_a_slot_is_counted_as_other() -> None:
    one = Counters()
    count(one, "A" * 64, 1, 0, 0)
    count(one, "A" * 65, 0, 1, 0)
    totals = counters.total([one])
    assert totals.verdicts == {OTHER: [0, 1, 0], "A" * 64: [1, 0, 0]}


def test_cached_expressions_are_bounded() -> None:
    one = Counters()
    for number in range(3_000):
        one.region_set(f"A-B{number}")
    assert len(one.region_set.__self__) <= 1_024  # type: ignore[attr-defined]  # the mapping's own
    assert one.region_set("A-B2999") == _meter.REGION_SETS


# memory


def test_two_meters_over_one_memory_agree() -> None:
    with shared_memory() as memory:
        writing, reading = Counters(memory), Counters(memory)
        writing.begin(0)
        count(writing, "EU", 1, 1, 1)
        assert reading.read() == writing.read()
        assert reading.region_set("EU") == writing.region_set("EU")
        del writing, reading


@pytest.mark.parametrize("size", [0, 8, Counters.SIZE - 1])
def test_memory_that_is_too_small_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"memory: {size} bytes; a meter has {Counters.SIZE}"):
        Counters(bytearray(size))


def test_memory_that_holds_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="neither zero nor a meter's"):
        Counters(bytearray(b"x" * Counters.SIZE))


def test_read_only_memory_is_refused() -> None:
    with pytest.raises(BufferError):
        Counters(bytes(Counters.SIZE))


def test_unaligned_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="not aligned"):
        Counters(memoryview(bytearray(Counters.SIZE + 8))[1:])


def test_memory_is_released_with_the_meter() -> None:
    memory = bytearray(Counters.SIZE)
    one = Counters(memory)
    with pytest.raises(BufferError):
        memory.clear()
    del one
    memory.clear()


# several at once


def count_much(one: Counters, times: int) -> None:
    for _ in range(times):
        one.begin(Method.LOOKUP)
        one.address(Status.ASSIGNED.number, one.region_set("EU"), Verdict.INSIDE.number)
        one.end(Method.LOOKUP, CODE("OK"), 60_000)
        one.roster((0, 1, 1, 1, 0, 0, 0, 0), one.region_set("CN+HK"), (1, 2, 3))


def expect_much(one: Counters, times: int) -> None:
    read = one.read()
    assert read["in_flight"] == (0,) * 10
    assert read["calls"][Method.LOOKUP][0] == times
    assert read["durations"][Method.LOOKUP][1] == times
    assert read["nanoseconds"][Method.LOOKUP] == times * 60_000
    assert read["addresses"] == (0, 2 * times, times, times, 0, 0, 0, 0)
    assert verdicts_of(read) == {"EU": (times, 0, 0), "CN+HK": (times, 2 * times, 3 * times)}


def test_many_threads_add_up_exactly() -> None:
    one = Counters()
    threads = [threading.Thread(target=count_much, args=(one, 2_000)) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    expect_much(one, 16_000)


def count_in(path: str, times: int, barrier: multiprocessing.synchronize.Barrier) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), Counters.SIZE) as memory:
        one = Counters(memory)
        barrier.wait(60)
        count_much(one, times)
        del one


def test_processes_add_up_exactly_in_one_memory(tmp_path: Path) -> None:
    path = tmp_path / "meter"
    path.write_bytes(bytes(Counters.SIZE))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=count_in, args=(str(path), 30_000, barrier)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    with path.open("r+b") as file, mmap.mmap(file.fileno(), Counters.SIZE) as memory:
        one = Counters(memory)
        expect_much(one, 60_000)
        del one


WORKER = """
import mmap, os, sys
from geolookup.service.monitoring.counters import Counters
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), Counters.SIZE)
one = Counters(memory)
one.begin(0)
one.end(0, 0, 1)
one.roster((0,) * 8, one.region_set("EU"), (7, 0, 0))
one.begin(3)
print("ready", flush=True)
sys.stdin.read()
"""


def test_counts_of_a_killed_process_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "meter"
    path.write_bytes(bytes(Counters.SIZE))
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    with path.open("r+b") as file, mmap.mmap(file.fileno(), Counters.SIZE) as memory:
        one = Counters(memory)
        assert one.read()["calls"][0][0] == 1
        assert verdicts_of(one.read()) == {"EU": (7, 0, 0)}
        assert one.read()["in_flight"][3] == 1
        one.abandon()
        assert one.read()["in_flight"][3] == 0
        assert one.read()["calls"][0][0] == 1
        del one


# together


def test_absorbing_adds_counters_and_leaves_gauges() -> None:
    retired, dead = Counters(), Counters()
    for one in (retired, dead):
        count_much(one, 10)
    dead.begin(Method.WATCH)
    dead.certificate(True, 1_000)
    dead.shed(Method.CHECK)
    count(dead, "ASIA", 1, 0, 0)
    retired.absorb(dead)
    read = retired.read()
    assert read["calls"][Method.LOOKUP][0] == 20
    assert read["shed"][Method.CHECK] == 1
    assert read["certificate_reads"] == (0, 1)
    assert verdicts_of(read) == {"EU": (20, 0, 0), "CN+HK": (20, 40, 60), "ASIA": (1, 0, 0)}
    assert (read["in_flight"], read["certificate_end"]) == ((0,) * 10, 0)


def test_absorbing_into_a_full_table_counts_as_other() -> None:
    retired, dead = Counters(), Counters()
    for number in range(_meter.REGION_SETS):
        count(retired, f"SET_{number}", 1, 0, 0)
    count(dead, "EU", 5, 0, 0)
    count(dead, "SET_3", 1, 0, 0)
    retired.absorb(dead)
    totals = counters.total([retired])
    assert totals.verdicts[OTHER] == [5, 0, 0]
    assert totals.verdicts["SET_3"] == [2, 0, 0]


def test_absorbing_itself_is_refused() -> None:
    with shared_memory() as memory:
        one, same = Counters(memory), Counters(memory)
        for other in (one, same):
            with pytest.raises(ValueError, match="can't absorb itself"):
                one.absorb(other)
        del one, same, other


def test_total_is_the_sum_of_its_meters() -> None:
    one, two = Counters(), Counters()
    count_much(one, 3)
    count_much(two, 4)
    two.begin(Method.WATCH)
    together = Counters()
    count_much(together, 7)
    together.begin(Method.WATCH)
    assert counters.total([one, two]) == counters.total([together])
    assert counters.total([]) == counters.total([Counters()])


# when calls that were shed come again


def hints(slots: _meter.Slots, windows: range, shed: int, ended: int) -> list[int]:
    """Shed so many calls, and end so many, in each tenth of a second; return all hints."""
    told = []
    for window in windows:
        for _ in range(ended):
            slots.give_back()
        told += [
            slots.shed(1_000_000_000 + window * 100_000_000 + at * 100_000_000 // shed)
            for at in range(shed)
        ]
    return told


def test_retry_hint_follows_the_load_within_bounds() -> None:
    slots = _meter.Slots(4)
    first = hints(slots, range(1), 50, 50)
    assert min(first) >= 50
    assert max(first) <= 150
    loaded = hints(slots, range(1, 40), 60, 10)[-600:]  # six are shed for each that ends
    assert 295 <= min(loaded) < 400
    assert 800 < max(loaded) <= 900
    assert 550 < statistics.mean(loaded) < 650
    overrun = hints(slots, range(40, 80), 500, 0)[-2_000:]
    assert min(overrun) >= 1_000
    assert max(overrun) <= 3_000
    calm = hints(slots, range(80, 120), 1, 500)[-10:]
    assert max(calm) <= 150


def test_retry_hint_varies_at_random() -> None:
    """Those that are shed together must not come together."""
    told = hints(_meter.Slots(1), range(1), 1_000, 0)
    assert len(set(told)) > 90
    assert 95 < statistics.mean(told) < 105
