"""The load suite: what it says was measured, was; and it loads nobody who did not agree.

Runs are short, and no absolute time is asserted: that a stalled service shows is a matter of
the stall's own length.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import pickle
import pty
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trustme
from hdrh.histogram import HdrHistogram
from prometheus_client import CollectorRegistry, generate_latest
from servers import PATIENCE, ROOT, Service, serving

from bench.load import (
    ceiling,
    command,
    comparison,
    knee,
    metrics,
    native,
    options,
    page,
    report,
    targets,
    work,
)
from bench.load.arrivals import poisson
from bench.load.ceiling import Ceiling, own_services
from bench.load.client_processes import ClientProcessError, ClientProcesses
from bench.load.comparison import Ratio
from bench.load.latencies import Latencies
from bench.load.metrics import MetricsError, Reading, Spent
from bench.load.plan import ENDED, OK, UNFINISHED, UNSENT, Plan, Result
from bench.load.report import Study
from bench.load.senders import status_of
from bench.load.session import Run, Session
from bench.load.targets import Target, TargetError
from bench.load.work import NO_ADDRESS, Blend, Drawing, WorkError
from geolookup import Dataset
from geolookup.answer.claims import Status
from geolookup.client import wire
from geolookup.errors import (
    RegionSetError,
    RosterError,
    RosterTooLargeError,
    ServiceError,
    ServiceUnavailableError,
)
from geolookup.service.admin.control import ServiceStatus, WorkerStatus
from geolookup.service.methods import Method
from geolookup.service.monitoring.counters import Counters
from geolookup.service.monitoring.metrics import ServiceCollector
from geolookup.service.rpc.transports import build
from geolookup.v1 import geolookup_pb2 as v1

TRANSPORTS = ("native",) if build.missing() is None else ("threads",)
"""Those of the services: what is tested here is the load."""

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))

COMMAND = (sys.executable, "-m", "bench.load")
SHORT = ("--seconds", "0.5", "--warm-up", "0.2")
TARGET = Target("127.0.0.1:1")


@pytest.fixture(scope="module")
def client_processes() -> Iterator[ClientProcesses]:
    """Two client processes."""
    with ClientProcesses(2) as started:
        yield started


def plan(service: Service, scenario: str = "joins", **others: Any) -> Plan:
    return Plan(
        Target(service.target),
        scenario,
        **{"seconds": 0.5, "warm_up": 0.2, "under_way": 8, **others},
    )


def long_enough(one: Plan) -> Iterator[Plan]:
    """Yield a plan for longer and longer: on busy cores its time passes before an answer comes."""
    while one.seconds < PATIENCE:
        yield one
        one = replace(one, seconds=4 * one.seconds)


def loading(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


# Whom load may be sent to


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1:50051", False),
        ("127.255.255.254:1", False),
        ("localhost:50051", False),
        ("[::1]:50051", False),
        ("10.1.2.3:443", False),
        ("172.16.0.1:443", False),
        ("172.31.255.255:443", False),
        ("192.168.0.1:443", False),
        ("[fd00::1]:443", False),
        ("unix:/run/geolookup.sock", False),
        ("172.32.0.1:443", True),
        ("8.8.8.8:50051", True),
        ("100.64.0.1:443", True),
        ("169.254.169.254:80", True),
        ("0.0.0.0:50051", True),
        ("[::]:50051", True),
        ("[fe80::1]:50051", True),
        ("[2001:4860:4860::8888]:443", True),
        ("[::ffff:8.8.8.8]:443", True),
        ("0x08080808:443", True),
        ("134744072:443", True),
    ],
)
def test_address_is_public_unless_loopback_or_private(address: str, public: bool) -> None:
    assert targets.is_public(address) is public


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "127.0.0.1",
        "::1",
        "::1:50051",
        "[::1]",
        "127.0.0.1:",
        ":50051",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "http://localhost:1",
        "localhost:1/x",
        "localhost:1,8.8.8.8:1",
        "user@[::1]:1",
        "no-such-host.invalid:1",
        "127.0.0.1:99999",
        "unix:",
        "unix-abstract:x",
        "a b:1",
        "a..b:1",
    ],
)
def test_malformed_target_is_refused(address: str) -> None:
    with pytest.raises(TargetError):
        targets.is_public(address)


def test_a_name_with_one_public_address_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", ("127.0.0.1", 1)), (2, 1, 6, "", ("8.8.8.8", 1))]
    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: found)
    assert targets.is_public("mine.example:1")


@pytest.mark.parametrize("said", [(), ("--public",), ("--i-may-load-this-service",)])
@pytest.mark.parametrize("form", [("8.8.8.8:1",), ("--compare", "127.0.0.1:1", "8.8.8.8:1")])
def test_public_target_without_confirmation_is_refused(
    said: tuple[str, ...], form: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options.read([*form, *said])
    assert ended.value.code == 2
    assert "8.8.8.8:1 is not on this machine" in capsys.readouterr().err


def test_public_target_with_confirmation_is_accepted() -> None:
    chosen = options.read(["8.8.8.8:1", "--public", "--i-may-load-this-service"])
    assert chosen.targets == (Target("8.8.8.8:1"),)


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected TARGET"),
        (["127.0.0.1:1", "--compare", "127.0.0.1:2", "127.0.0.1:3"], "expected TARGET"),
        (["127.0.0.1:1", "--knee", "--rate", "5"], "--knee goes neither"),
        (["--compare", "127.0.0.1:1", "127.0.0.1:2", "--knee"], "--knee goes neither"),
        (["127.0.0.1:1", "--limit", "5"], "--limit needs --knee"),
        (["127.0.0.1:1", "--knee", "--scenario", "joins,roster-10"], "one scenario at a time"),
        (["127.0.0.1:1", "--scenario", "leaves"], "leaves: no scenario"),
        (["127.0.0.1:1", "--scenario", "roster-N"], "roster-N: no scenario"),
        (["127.0.0.1:1", "--scenario", "roster-0"], "roster-0: no scenario"),
        (["127.0.0.1:1", "--scenario", "thread-joins", "--rate", "5"], "a closed loop only"),
        (["127.0.0.1:1", "--rate", "0"], "'0': expected a number above 0"),
        (["127.0.0.1:1", "--rate", "5,inf"], "'inf': expected a number above 0"),
        (["127.0.0.1:1", "--rate", "nan"], "'nan': expected a number above 0"),
        (["127.0.0.1:1", "--seconds", "-1"], "'-1': expected a number above 0"),
        (["127.0.0.1:1", "--processes", "1.5"], "'1.5': expected a number above 0"),
        (["127.0.0.1:1", "--ipv6", "1.1"], "'1.1': expected 0 to 1"),
        (["127.0.0.1:1", "--mix", "joins=1,stream-10=1"], "joins and roster-N only"),
        (["127.0.0.1:1", "--mix", "joins"], "expected a number above 0"),
        (["127.0.0.1:1", "--key", "k.pem"], "--certificate and --key go together"),
        (["127.0.0.1:1", "--ca", "/nonexistent"], "/nonexistent: No such file"),
        (["127.0.0.1:1", "--plot", "p.gif"], "p.gif: expected a name in .png or .svg"),
        (["127.0.0.1:1", "--html", "/nonexistent/p.html"], "there is no such folder"),
        (["127.0.0.1:1", "--metrics", "none", "--metrics", "none"], "expected 1, one for each"),
        (["127.0.0.1:1", "--cores", "4095"], "there is no core 4095"),
    ],
)
def test_contradictory_command_line_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options.read(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_each_scenario_is_planned_at_each_rate() -> None:
    chosen = options.read(["127.0.0.1:1", "--scenario", "joins,mix", "--rate", "5,10"])
    assert [(one.scenario, one.rate) for one in chosen.plans] == [
        ("joins", 5),
        ("joins", 10),
        ("mix", 5),
        ("mix", 10),
    ]


def test_help_names_every_scenario_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.read(["--help"])
    told = capsys.readouterr().out
    codes = (command.DONE, command.NOTHING, 2, command.FAILED, command.INTERRUPTED)
    assert all(re.search(rf"^  {name} ", told, re.M) for name in work.SCENARIOS)
    assert all(re.search(rf"^  {code} ", told, re.M) for code in codes)


# What is asked for


@pytest.fixture(scope="module")
def drawn(dataset: Dataset) -> Callable[..., Drawing]:
    return lambda number=0, **blend: Drawing(dataset, Blend(**blend), number)


def test_addresses_are_drawn_by_weight_from_what_is_assigned(
    dataset: Dataset, drawn: Callable[..., Drawing]
) -> None:
    rows = drawn(ipv6=0.25).several(4_000)
    share = sum(len(packed or b"") == 16 for packed, _ in rows) / len(rows)
    assert 0.2 < share < 0.3
    result = dataset.classify([text for _, text in rows])
    assert set(result.statuses) <= {Status.ASSIGNED, Status.DISPUTED}
    # The United States hold a good third of what is assigned in IPv4, and far fewer intervals.
    v4 = dataset.classify([text for packed, text in rows if len(packed or b"") == 4])
    assert v4.counts()["US"] / len(v4) > 0.25


def test_draws_are_reproducible_and_differ_between_processes(
    drawn: Callable[..., Drawing],
) -> None:
    assert drawn(1).several(50) == drawn(1).several(50) != drawn(2).several(50)


def test_invalid_addresses_have_their_share_and_are_sent_as_text(
    drawn: Callable[..., Drawing],
) -> None:
    requests = [
        v1.LookupRequest.FromString(work.lookup_call(one).body) for one in [drawn(bad=0.3)] * 800
    ]
    bad = [request for request in requests if request.text == NO_ADDRESS]
    assert 0.2 < len(bad) / len(requests) < 0.4
    assert all(request.packed for request in requests if request.text != NO_ADDRESS)
    assert work.roster(drawn(bad=0.3), 50).WhichOneof("addresses") == "text"


@pytest.mark.parametrize(
    ("blend", "column"),
    [
        ({}, "ipv4"),
        ({"ipv6": 0.5}, "ipv6"),
        ({"ipv6": 1.0}, "ipv6"),
        ({"text": True}, "text"),
        ({"text": True, "ipv6": 0.5}, "text"),
    ],
)
def test_rosters_have_the_requested_form(
    drawn: Callable[..., Drawing], dataset: Dataset, blend: dict[str, Any], column: str
) -> None:
    request = work.roster(drawn(**blend), 100)
    assert request.WhichOneof("addresses") == column
    assert request.region_set == "EU"
    given = request.text.addresses if column == "text" else getattr(request, column)
    result = dataset.classify(**{"roster" if column == "text" else column: given})
    assert len(result) == 100
    assert Status.INVALID not in result.statuses


def test_mix_has_its_parts_by_weight(drawn: Callable[..., Drawing]) -> None:
    made = work.calls("mix", drawn(), {"joins": 9, "roster-10": 1})
    counts = Counter((call.method, call.addresses) for call in made)
    assert set(counts) == {(wire.LOOKUP, 1), (wire.CLASSIFY_ROSTER, 10)}
    assert 0.05 < counts[wire.CLASSIFY_ROSTER, 10] / len(made) < 0.15


@pytest.mark.parametrize("weights", [{}, {"joins": 0.0}, {"mix": 1.0}, {"coalesced": 1.0}])
def test_malformed_mix_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(WorkError):
        work.parsed_mix(weights)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServiceUnavailableError("late", code="DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED"),
        (ServiceError("refused", code="PERMISSION_DENIED"), "PERMISSION_DENIED"),
        (ServiceError("the client was closed"), "UNKNOWN"),
        (RegionSetError("unknown name at position 1"), "INVALID_ARGUMENT"),
        (RosterError("ipv4: not a multiple of 4"), "INVALID_ARGUMENT"),
        (RosterTooLargeError("roster: larger than one message may be"), "RESOURCE_EXHAUSTED"),
    ],
)
def test_errors_of_geolookups_clients_are_counted_by_status(error: Any, status: str) -> None:
    assert status_of(error) == status


def test_calls_are_due_at_random_at_the_requested_rate() -> None:
    due = list(poisson(1_000, "a", 5.0, 15.0))
    assert due == sorted(due) == list(poisson(1_000, "a", 5.0, 15.0))
    assert due != list(poisson(1_000, "b", 5.0, 15.0))
    assert due[0] >= 5.0
    assert due[-1] < 15.0
    assert 9_500 < len(due) < 10_500
    gaps = [later - one for one, later in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert 0.9 < deviation / mean < 1.1  # of gaps all alike it would be 0


# What is made of the times


def times(*milliseconds: float) -> Latencies:
    found = Latencies()
    for one in milliseconds:
        found.record(one / 1e3)
    return found


def test_percentile_beyond_all_calls_is_not_reported() -> None:
    few = times(*range(1, 101)).percentiles()
    assert few["p50"] == pytest.approx(50_000, rel=1e-3)
    assert few["p99"] == pytest.approx(99_000, rel=1e-3)
    assert few["p99.9"] is None
    assert few["p99.99"] is None
    many = Latencies()
    for _ in range(10_000):
        many.record(0.001)
    assert many.percentiles()["p99.99"] is not None
    assert set(Latencies().percentiles().values()) == {None}


def test_histograms_are_merged_and_read_by_hdrhistogram() -> None:
    one, other = times(1, 2, 3), times(4, 1_000_000)
    one.add(pickle.loads(pickle.dumps(other)))  # noqa: S301 - our own
    assert one.count == 5
    assert one.longest == pytest.approx(600e6, rel=1e-3)  # what is longer counts as that
    read = HdrHistogram.decode(one.encoded())
    assert read.get_total_count() == 5
    assert pickle.loads(pickle.dumps(Latencies())).count == 0  # noqa: S301


def test_counts_of_the_sender_in_c_keep_three_digits() -> None:
    """As the histograms that they are added to."""
    library = native.library()
    rng = random.Random(7)
    times = [1, 2, 999, 1_000, 2_047, 2_048, 2_049, 600_000_000]
    times += [rng.randrange(1, 10 ** rng.randrange(1, 9)) for _ in range(2_000)]
    for time_ in times:
        least = library.sender_time_at(library.sender_index_of(time_ * 1_000))
        assert least <= time_ <= least * 1.001 + 1e-9 or time_ == least
    edges = [library.sender_time_at(index) for index in range(library.sender_index_of(10**18) + 1)]
    assert edges == sorted(set(edges))
    assert library.sender_time_at(library.sender_index_of(10**18)) <= 600_000_000
    assert library.sender_index_of(0) == library.sender_index_of(1_400) == 1


def test_percentile_curve_ends_at_the_maximum() -> None:
    points = times(*range(1, 2_001)).curve()
    assert points == sorted(points)
    assert points[-1] == (100.0, pytest.approx(2e6, rel=1e-3))
    assert Latencies().curve() == []


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 10, 19, 29, 30])
def test_quantiles_are_those_of_students_t(freedom: int) -> None:
    def density(at: float) -> float:
        scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
        return scale / math.sqrt(freedom * math.pi) * (1 + at**2 / freedom) ** (-(freedom + 1) / 2)

    steps, end = 20_000, comparison.quantile(freedom)
    width = end / steps
    below = 0.5 + sum(density((step + 0.5) * width) for step in range(steps)) * width
    assert below == pytest.approx(0.975, abs=2e-5)


@pytest.mark.parametrize(
    ("pairs", "value", "low", "high", "differs"),
    [
        ([(2.0, 3.0)], 1.5, None, None, False),
        ([(1.0, 2.0), (10.0, 20.0), (5.0, 10.0)], 2.0, 2.0, 2.0, True),
        # logs -ln 2, +ln 2: deviation ln 2 * sqrt 2, of their mean ln 2, times 12.706
        ([(2.0, 1.0), (1.0, 2.0)], 1.0, 2**-12.706, 2**12.706, False),
    ],
)
def test_ratios_have_an_interval_about_them(
    pairs: list[tuple[float, float]], value: float, low: Any, high: Any, differs: bool
) -> None:
    found = comparison.ratio(pairs)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == (
        pytest.approx((low, high)) if low is not None else (None, None)
    )
    assert found.turns == len(pairs)
    assert found.differs is differs


def test_interval_covers_the_true_ratio_at_its_level() -> None:
    rng = random.Random(6)

    def found() -> Ratio:
        # A machine whose pace doubles and halves makes both sides of a turn alike.
        paces = [2 ** rng.uniform(-1, 1) for _ in range(8)]
        return comparison.ratio(
            [
                (pace * rng.lognormvariate(0, 0.1), 1.2 * pace * rng.lognormvariate(0, 0.1))
                for pace in paces
            ]
        )

    intervals = [found() for _ in range(600)]
    held = sum(one.low <= 1.2 <= one.high for one in intervals if one.low and one.high)
    assert 0.92 < held / len(intervals) < 0.98
    assert sum(one.differs for one in intervals) > 0.9 * len(intervals)


def measured(plan: Plan, *milliseconds: float, completed: int | None = None, **others: Any) -> Run:
    result = Result(latencies=times(*milliseconds), seconds=plan.seconds)
    result.statuses[OK] = len(milliseconds)
    result.completed = len(milliseconds) if completed is None else completed
    result.addresses = result.completed
    for name, value in others.items():
        setattr(result, name, value)
    return Run(plan, result)


def test_alternating_runs_are_compared() -> None:
    one = Plan(TARGET, "joins", seconds=1.0)
    first = [measured(one, *[pace] * 200) for pace in (1.0, 4.0)]
    second = [measured(one, *[2 * pace] * 100) for pace in (1.0, 4.0)]
    for run in first:
        run.spent = Spent(0.01, 200)
    found = comparison.compare(first, second).ratios
    assert found["calls a second"].value == pytest.approx(0.5)
    assert found["p50"].value == pytest.approx(2.0, rel=1e-2)
    assert found["p50"].differs
    assert "p99.9" not in found  # no call lies beyond
    assert "server CPU a call" not in found  # of one side only


class Queue:
    """A service with one clerk, and calls that wait for it; time is counted, not passed."""

    def __init__(self, capacity: float, disturbed: Sequence[int] = ()) -> None:
        self.took, self.disturbed, self.offered = 1 / capacity, disturbed, list[float]()

    def run(self, rate: float) -> Run:
        noise = 0.2 if len(self.offered) in self.disturbed else 0.0
        self.offered.append(rate)
        free, waits, end = 0.0, [], 10_000 * self.took
        for due in poisson(rate, rate, 0.0, end):
            free = max(free, due) + self.took
            waits.append(free - due + noise)
        plan = Plan(TARGET, "joins", rate=rate, seconds=end)
        return measured(
            plan,
            *(1e3 * wait for wait in waits),
            completed=round(min(1.0, 1 / (rate * self.took)) * len(waits)),
        )


@pytest.mark.parametrize("guess", [300.0, 1_000.0, 4_000.0])
def test_knee_is_found_below_the_capacity(guess: float) -> None:
    queue = Queue(1_000)
    found = knee.search(queue.run, guess, 20_000.0)
    assert found.held is not None
    assert found.broke is not None
    # A queue's p99 reaches 20 times the service time at about nine tenths.
    assert 700 < found.held < found.broke <= 1_100
    assert found.broke / found.held < 1.3
    rates = [run.plan.rate for run in found.runs]
    assert rates == sorted(queue.offered)


def test_single_disturbance_is_not_the_knee() -> None:
    assert knee.search(Queue(1_000, [1]).run, 1_000, 20_000.0).held == pytest.approx(
        knee.search(Queue(1_000).run, 1_000, 20_000.0).held
    )


def test_latency_at_the_knee_is_of_the_run_that_held() -> None:
    # Each load is offered twice, and disturbed at first.
    found = knee.search(Queue(1_000, range(0, 100, 2)).run, 1_000, 20_000.0)
    assert found.best is not None
    assert [found.holds(run) for run in found.runs if run.plan.rate == found.held] == [False, True]
    assert found.holds(found.best)


def test_missing_limit_is_taken_from_the_light_load() -> None:
    assert knee.search(Queue(100).run, 100).limit > knee.search(Queue(10_000).run, 10_000).limit
    assert knee.search(Queue(10_000).run, 10_000).limit == knee.LEAST_LIMIT


def test_service_that_holds_no_load_has_no_knee() -> None:
    found = knee.search(Queue(1_000).run, 1_000, 0.1)
    assert found.held is None
    assert found.broke is not None


def test_a_search_that_is_interrupted_ends() -> None:
    queue = Queue(1_000)

    def run(rate: float) -> Run:
        made = queue.run(rate)
        made.result.interrupted = len(queue.offered) == 3
        return made

    assert len(knee.search(run, 1_000).runs) == 3


# What is said about what is not to be believed

CLOSED, OPEN = Plan(TARGET, "joins", seconds=1.0), Plan(TARGET, "joins", rate=100.0, seconds=1.0)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (measured(CLOSED, *[1.0] * 100), None),
        (measured(OPEN, *[1.0] * 100), None),
        (measured(CLOSED), "nothing was asked"),
        (
            replace(measured(CLOSED, *[1.0] * 75), ceiling=Ceiling(100, 1.0)),
            "own ceiling (75 of 100",
        ),
        (replace(measured(CLOSED, *[1.0] * 75), ceiling=Ceiling(100, 0.5)), None),
        (measured(CLOSED, *[1.0] * 9, busiest=0.9), "used 90% of a core"),
        (measured(CLOSED, *[1.0] * 9, starved=0.2), "waited 20% of the time for a core"),
        (measured(OPEN, *[1.0] * 100, completed=90), "did not keep up (90 calls/s"),
        (measured(OPEN, *[1.0] * 100, behind=times(*[0.5] * 100)), "sent late (p99 0.50 ms"),
        (measured(OPEN, *[1.0] * 100, behind=times(*[0.1] * 100)), None),
        (replace(measured(CLOSED, *[1.0] * 999), spent=Spent(1.0, 1_050)), None),
        (replace(measured(CLOSED, *[1.0] * 999), spent=Spent(1.0, 1_500)), "answered 1,500 addr"),
    ],
)
def test_figure_limited_by_the_generator_is_warned_of(run: Run, said: str | None) -> None:
    warnings = run.warnings()
    assert [said is not None and said in warning for warning in warnings] == [True] * (
        said is not None
    )


def test_report_has_the_ceiling_in_cores_of_the_service() -> None:
    # 100 calls a second keep half a core busy: 200 a whole one. A call costs the service 10 ms.
    run = replace(
        measured(CLOSED, *[1.0] * 100),
        ceiling=Ceiling(100, 0.5),
        spent=Spent(cpu=1.0, addresses=100),
    )
    dearer = replace(run, spent=Spent(cpu=2.0, addresses=100))
    assert (run.margin, dearer.margin) == (2.0, 4.0)
    assert replace(run, spent=None).margin is None
    assert replace(run, ceiling=None).margin is None
    study = Study(machine={}, targets=[], blend="", processes=1, runs=[dearer, run])
    (told,) = [
        one for one in report.sentences(study) if "own ceiling for joins: 200 calls/s" in one
    ]
    assert told.endswith("; 2.0 times what a core of the service answers")


def test_processor_time_of_a_restarted_worker_counts_from_zero() -> None:
    before = Reading({"0": 10.0, "1": 5.0}, 100.0)
    assert metrics.spent(before, Reading({"0": 11.0, "1": 5.5}, 160.0)) == Spent(1.5, 60.0)
    assert metrics.spent(before, Reading({"0": 11.0, "1": 0.25, "2": 1.0}, 40.0)) == Spent(2.25, 40)


# Real services


class Pages:
    """A small HTTP server, with one page."""

    def __init__(self, page: Callable[[], tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = page()
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Pages:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FixedControl:
    """A service of one worker, which is the process given."""

    def __init__(self, dataset: Dataset, process: int) -> None:
        started = datetime(2026, 11, 1, tzinfo=UTC)
        worker = WorkerStatus(0, process, "serving", dataset.id, started, 0, 0)
        self._answer = ServiceStatus(True, dataset.id, "", started, None, None, [worker], {})

    def status(self) -> ServiceStatus:
        return self._answer


@pytest.fixture
def metered(service: Service, dataset: Dataset) -> Iterator[Pages]:
    """What the running service's metrics would say."""
    registry = CollectorRegistry(auto_describe=False)
    counted = Counters()
    control: Any = FixedControl(dataset, service.workers[0])
    registry.register(ServiceCollector(lambda: [counted], control, lambda: dataset))

    def page() -> tuple[int, bytes]:
        counted.address(int(Status.ASSIGNED), counted.region_set("EU"), 1)
        counted.end(Method.LOOKUP, 0, 1_000)
        return 200, generate_latest(registry)

    with Pages(page) as pages:
        yield pages


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"", "answered 404"),
        (200, b"up 1\n", "has no geolookup_worker_cpu_seconds_total"),
        (200, b"<html>{ \xff", "not in Prometheus's text format"),
    ],
)
def test_metrics_of_another_program_are_refused(status: int, body: bytes, said: str) -> None:
    with Pages(lambda: (status, body)) as pages, pytest.raises(MetricsError, match=said):
        metrics.read(pages.url)


@pytest.mark.parametrize("url", ["", "none", "ftp://127.0.0.1/", "http://:1/", "http://a:x/"])
def test_malformed_metrics_url_is_refused(url: str) -> None:
    with pytest.raises(MetricsError, match="expected http://HOST"):
        metrics.read(url)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:50051", "http://127.0.0.1:9464/metrics"),
        ("[::1]:50051", "http://[::1]:9464/metrics"),
        ("127.0.0.1:50061", None),  # whose they are at 9464, nobody knows
        ("unix:/run/50051", None),
    ],
)
def test_metrics_url_defaults_to_the_usual_port(address: str, url: str | None) -> None:
    assert command.usual_metrics(Target(address)) == url


def test_absent_metrics_are_refused() -> None:
    with pytest.raises(MetricsError, match="ConnectionRefusedError"):
        metrics.read("http://127.0.0.1:1/metrics")


@pytest.mark.parametrize(
    "scenario",
    [
        "joins",
        "client-joins",
        "coalesced",
        "thread-joins",
        "thread-coalesced",
        "roster-10",
        "roster-1000",
        "roster-100000",
        "stream-1",
        "stream-1000",
        "mix",
    ],
)
@pytest.mark.parametrize(
    "blend", [Blend(), Blend(text=True, ipv6=0.5, bad=0.1, region_set="")], ids=["packed", "text"]
)
def test_every_scenario_is_answered(
    client_processes: ClientProcesses, service: Service, scenario: str, blend: Blend
) -> None:
    for one in long_enough(plan(service, scenario, blend=blend, seconds=0.25, warm_up=0.05)):
        result = client_processes.run(one)
        if result.answered:
            break
    assert set(result.statuses) == {OK}
    assert result.answered == result.latencies.count > 0
    assert result.completed > 0
    size = work.parse(scenario)[1]
    assert result.addresses >= result.completed * size
    assert (result.addresses == result.completed * size) is (scenario != "mix")
    assert result.seconds == pytest.approx(one.seconds, rel=0.01)
    assert result.processor > 0
    assert not result.interrupted


@pytest.mark.parametrize("scenario", ["joins", "coalesced", "roster-10", "stream-10", "mix"])
def test_open_loop_offers_the_requested_rate(
    client_processes: ClientProcesses, service: Service, scenario: str
) -> None:
    one = plan(service, scenario, rate=100.0, seconds=0.6, under_way=1_000)
    result = client_processes.run(one)
    assert set(result.statuses) == {OK}
    start = 0.0
    due = [
        time
        for number in range(2)
        for time in poisson(50.0, f"0 {number}", start, start + 0.8)
        if time >= start + 0.2
    ]
    # The very calls that were due, whatever the machine was doing; but that clocks are no
    # real numbers, and one at the edge may fall on either side.
    assert abs(result.asked - len(due)) <= 1
    assert result.behind.count == result.asked
    again = client_processes.run(replace(one, repeat=1))
    assert again.asked != result.asked or again.latencies.longest != result.latencies.longest


def test_failures_are_counted_by_status(
    client_processes: ClientProcesses, service: Service
) -> None:
    for scenario in ("joins", "client-joins", "roster-10", "stream-10"):
        result = client_processes.run(
            plan(service, scenario, blend=Blend(region_set="NOWHERE"), warm_up=0.1)
        )
        assert set(result.statuses) - {ENDED} == {"INVALID_ARGUMENT"}, scenario
        assert ENDED not in result.statuses or scenario == "stream-10"
        assert result.failed == 1.0
        assert result.latencies.count == result.completed == 0


def test_call_due_beyond_the_bound_waits_and_is_timed_from_when_due(
    client_processes: ClientProcesses, service: Service
) -> None:
    """One call under way to each process, and far more due than can be answered so."""
    result = client_processes.run(
        plan(
            service,
            "roster-100000",
            rate=20_000.0,
            seconds=0.4,
            warm_up=0,
            timeout=1.0,
            under_way=2,
        )
    )
    assert result.statuses[UNSENT] > result.answered > 0
    assert result.asked == pytest.approx(8_000, rel=0.1)
    assert result.completed < 0.5 * result.asked
    assert result.behind.longest > 0.4e6  # microseconds: all of the measured time


STALL = 0.5
"""Seconds that the service is stopped for; all times below are shares of it."""


@contextlib.contextmanager
def stalling(service: Service) -> Iterator[Callable[[], None]]:
    """Yield what stops the service's worker a moment later, for `STALL` seconds."""
    timers: list[threading.Timer] = []
    (worker,) = service.workers

    def begin() -> None:
        for at, what in ((0.3, signal.SIGSTOP), (0.3 + STALL, signal.SIGCONT)):
            timers.append(threading.Timer(at, os.kill, (worker, what)))
            timers[-1].start()

    try:
        yield begin
    finally:
        for timer in timers:
            timer.cancel()
        os.kill(worker, signal.SIGCONT)


def slow(result: Result) -> float:
    """Return the share of calls that took longer than a quarter of the stall."""
    within = max(
        (percent for percent, took in result.latencies.curve() if took < STALL / 4 * 1e6),
        default=0.0,
    )
    return 1 - within / 100


def test_stall_is_measured_by_an_open_loop_and_hidden_by_a_closed_one(
    client_processes: ClientProcesses,
) -> None:
    """Of what is due in a stall of a second, three quarters wait for longer than a quarter."""
    with serving() as service, stalling(service) as begin:
        one = plan(service, seconds=3 * STALL, warm_up=0.5, timeout=20 * STALL)
        opened = client_processes.run(replace(one, rate=200.0, under_way=10_000), at_measured=begin)
    with serving() as service, stalling(service) as begin:
        one = plan(service, seconds=3 * STALL, warm_up=0.5, timeout=20 * STALL, under_way=2)
        closed = client_processes.run(one, at_measured=begin)
    assert set(opened.statuses) == set(closed.statuses) == {OK}
    # A quarter of all calls in the open loop; in the closed one the two that were under way.
    assert slow(opened) > 0.15
    assert slow(closed) < 0.1
    assert opened.latencies.percentile(90) > STALL / 4 * 1e6
    # Both saw the whole stall once.
    assert opened.latencies.longest > 0.9 * STALL * 1e6
    assert closed.latencies.longest > 0.9 * STALL * 1e6


def test_absent_service_is_counted_as_unavailable(client_processes: ClientProcesses) -> None:
    one = Plan(TARGET, "joins", rate=50.0, seconds=0.5, warm_up=0.1, under_way=100)
    assert set(client_processes.run(one).statuses) == {"UNAVAILABLE"}


def test_client_process_that_ends_is_an_error(service: Service) -> None:
    before = multiprocessing.active_children()
    with ClientProcesses(2) as own:
        (process, *_) = [one for one in multiprocessing.active_children() if one not in before]
        with pytest.raises(ClientProcessError, match=r"client process \d ended"):
            own.run(plan(service, seconds=30.0), at_measured=process.kill)


@pytest.mark.parametrize("when", ["within a message", "between two"])
def test_ctrl_c_truncates_no_message(
    service: Service, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In client processes of its own: none may run another plan after it."""
    receive = Connection._recv  # type: ignore[attr-defined]
    left = ["Ctrl-C"]  # once some call was answered
    answered = 0

    def interrupt() -> None:
        if answered and left:
            left.clear()
            signal.raise_signal(signal.SIGINT)

    def torn(connection: Any, size: int, *others: Any) -> Any:
        read = receive(connection, size, *others)
        if when == "within a message":  # of which the length is read now, and no more
            interrupt()
        return read

    def progress(_seconds: float, count: int, _failed: int) -> None:
        nonlocal answered
        answered = count
        if when == "between two":
            interrupt()

    monkeypatch.setattr(Connection, "_recv", torn)
    with ClientProcesses(2) as own:
        result = own.run(plan(service, seconds=60.0), progress=progress)
    assert result.interrupted
    assert result.answered >= answered > 0
    assert 0 < result.seconds < 60


def test_second_ctrl_c_does_not_wait(service: Service) -> None:
    with ClientProcesses(2) as own, pytest.raises(KeyboardInterrupt):
        own.run(
            plan(service, seconds=60.0),
            progress=lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(2)],
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_services_processor_time_is_taken_from_its_metrics(
    client_processes: ClientProcesses, service: Service, metered: Pages
) -> None:
    session = Session(client_processes, {service.target: metered.url}, lambda _: None)
    run = session.run(plan(service, "roster-1000", seconds=1.0))
    assert run.spent is not None
    assert run.cpu_per_call is not None
    assert run.cpu_per_address is not None
    # One process, whose threads have what cores there are.
    assert 0 < run.spent.cpu < 1.5 * (os.cpu_count() or 1)
    assert run.cpu_per_call == pytest.approx(1_000 * run.cpu_per_address)
    assert not session.notes


def test_metrics_that_fail_during_a_run_are_noted_once(
    client_processes: ClientProcesses, service: Service
) -> None:
    session = Session(
        client_processes, {service.target: "http://127.0.0.1:1/metrics"}, lambda _: None
    )
    assert session.run(plan(service)).spent is None
    assert session.run(plan(service)).spent is None
    assert session.notes == ["http://127.0.0.1:1/metrics: ConnectionRefusedError"]


@pytest.mark.parametrize("scenario", ["joins", "coalesced", "roster-1000", "stream-10", "mix"])
def test_ceiling_is_measured_in_each_scenario(
    client_processes: ClientProcesses, scenario: str
) -> None:
    ours = Blend(region_set="OURS")  # which only the service knows that load is for
    with own_services(2) as server:
        for one in long_enough(Plan(server, scenario, seconds=0.3, warm_up=0.1, blend=ours)):
            found = ceiling.measure(client_processes, one, server, 2)
            if found.measured:
                break
        assert set(client_processes.run(replace(one, blend=Blend())).statuses) == {OK}
    assert 0 < found.measured <= found.rate
    assert found.busiest > 0


# The whole command


@pytest.fixture(scope="module")
def reported(service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A run of two scenarios at two rates: its JSON, and the folder with what it wrote."""
    folder = tmp_path_factory.mktemp("load")
    done = loading(
        service.target,
        "--scenario",
        "joins,roster-10",
        "--rate",
        "50,100",
        *SHORT,
        "--json",
        "--html",
        str(folder / "page.html"),
        "--plot",
        str(folder / "plot.svg"),
    )
    assert done.returncode == command.DONE, done.stderr
    assert done.stderr == ""  # there is no terminal to show progress on
    return json.loads(done.stdout), folder


def test_json_has_what_was_measured(reported: tuple[Any, Path], dataset: Dataset) -> None:
    found = reported[0]
    assert [one["dataset"] for one in found["targets"]] == [dataset.id]
    assert [(run["scenario"], run["offered"]) for run in found["runs"]] == [
        ("joins", 50),
        ("joins", 100),
        ("roster-10", 50),
        ("roster-10", 100),
    ]
    for run in found["runs"]:
        assert run["loop"] == "open"
        assert run["statuses"] == {OK: run["answered"]}
        assert HdrHistogram.decode(run["hdr_histogram"]).get_total_count() == run["answered"]
        assert 0 < run["latency"]["p50"] <= run["latency"]["max"]
        assert run["latency"]["p99.99"] is None
        assert run["ceiling"]["calls_per_second"] >= run["ceiling"]["measured"] > 0
        assert run["server_cpu_per_call"] is None


def test_page_is_one_self_contained_file(reported: tuple[Any, Path]) -> None:
    page = (reported[1] / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == page.count("</svg>") == 1
    assert "What the clients saw" in page
    assert not re.search(r"<(link|script|img|iframe|object)\b|@import|url\(http|src=", page)


def test_picture_has_a_panel_for_each_scenario_and_one_of_percentiles(
    reported: tuple[Any, Path],
) -> None:
    text = (reported[1] / "plot.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own
    titles = [line for line in text.splitlines() if line.strip().startswith("<!-- Latency")]
    assert len(titles) == 3


def test_two_targets_are_measured_alternately(service: Service, metered: Pages) -> None:
    done = loading(
        "--compare",
        service.target,
        service.target,
        "--rounds",
        "3",
        *SHORT,
        "--json",
        "--metrics",
        metered.url,
        "--metrics",
        metered.url,
        "--no-ceiling",
    )
    assert done.returncode == command.DONE, done.stderr
    found = json.loads(done.stdout)
    assert [run["side"] for run in found["runs"]] == ["A", "B"]
    assert [run["seconds"] for run in found["runs"]] == pytest.approx([1.5, 1.5], rel=0.02)
    (compared,) = found["comparisons"]
    assert {"calls a second", "p50", "p99", "server CPU a call"} <= set(compared["ratios"])
    # A turn that had too few calls for a figure is not among its ratios.
    told = [ratio for ratio in compared["ratios"].values() if ratio["turns"] > 1]
    assert compared["ratios"]["p50"] in told
    for ratio in told:
        assert ratio["turns"] <= 3
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
    assert all(run["server_cpu_per_call"] > 0 for run in found["runs"])


def test_knee_of_a_real_service_is_searched(service: Service, tmp_path: Path) -> None:
    """With a limit that no service holds: the search goes down, and a light load is soon run."""
    done = loading(
        service.target,
        "--knee",
        "--limit",
        "0.001",
        "--seconds",
        "0.1",
        "--warm-up",
        "0.1",
        "--html",
        str(tmp_path / "knee.html"),
    )
    assert done.returncode == command.DONE, done.stderr
    assert "no knee: not even the lightest load was held (p99 within 0.001 ms" in done.stdout
    assert "The search for the knee" in done.stdout
    assert "limit of p99" in (tmp_path / "knee.html").read_text(encoding="utf-8")


def test_the_knee_is_drawn_where_it_was_found() -> None:
    found = knee.search(Queue(1_000).run, 1_000, 20_000.0)
    study = Study({}, [("127.0.0.1:1", "")], "addresses packed", 1, list(found.runs), found)
    assert found.held is not None
    assert f"knee: {found.held:,.0f}/s" in page.page(study)
    assert f"the knee: {found.held:,.0f} calls/s were held, {found.broke:,.0f} not" in report.text(
        study
    )
    # Loads that were too much on purpose are no reason to warn.
    assert not any("keep up" in text for text in report.cautions(study))


def test_absent_service_ends_with_1() -> None:
    done = loading("127.0.0.1:1")
    assert (done.returncode, done.stdout) == (command.NOTHING, "")
    assert done.stderr == "127.0.0.1:1: UNAVAILABLE\n"


def test_failed_calls_end_with_3(service: Service) -> None:
    done = loading(service.target, "--region-set", "NOWHERE", "--no-ceiling", *SHORT)
    assert done.returncode == command.FAILED
    assert "| INVALID_ARGUMENT |" in done.stdout
    assert "100.00%" in done.stdout


def test_file_that_is_no_dataset_ends_with_1(service: Service, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no dataset")
    done = loading(service.target, "--dataset", str(tmp_path / "x"))
    assert done.returncode == command.NOTHING
    assert "Traceback" not in done.stderr


def until(descriptor: int, pattern: bytes) -> bytes:
    """Read from a terminal until what a pattern matches comes."""
    read, end = b"", time.monotonic() + PATIENCE
    while not re.search(pattern, read):
        assert time.monotonic() < end, read
        if select.select([descriptor], [], [], 0.1)[0]:
            read += os.read(descriptor, 4_096)
    return read


@pytest.mark.parametrize("loop", [(), ("--rate", "100")], ids=["closed", "open"])
def test_ctrl_c_reports_what_was_measured(service: Service, loop: tuple[str, ...]) -> None:
    """On a terminal, where progress is shown and Ctrl-C goes to all processes."""
    ours, theirs = pty.openpty()
    arguments = ("--seconds", "600", "--warm-up", "0.1", "--no-ceiling", *loop, "--json")
    with (
        os.fdopen(ours, "rb", buffering=0),
        os.fdopen(theirs, "wb") as terminal,
        subprocess.Popen(
            [*COMMAND, service.target, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=terminal,
            start_new_session=True,
        ) as running,
    ):
        try:
            shown = until(ours, rb" [1-9][\d,]* answered, 0 failed")
            assert b"of 600.1 s" in shown
            os.killpg(running.pid, signal.SIGINT)
            out, _ = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert running.returncode == command.INTERRUPTED
    found = json.loads(out)
    assert found["interrupted"]
    (run,) = found["runs"]
    assert run["answered"] > 0
    assert 0 < run["seconds"] < 600
    assert set(run["statuses"]) <= {OK, UNFINISHED, UNSENT}
    assert found["warnings"][0].startswith("ended early")


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def behind_tls(authority: trustme.CA, folder: Path, *, mutual: bool) -> Iterator[str]:
    """Run a service with a certificate for localhost; the authority's is in the folder already."""
    own = authority.issue_cert("localhost")
    own.private_key_pem.write_to_path(folder / "server-key.pem")
    for pem in own.cert_chain_pems:
        pem.write_to_path(folder / "server.pem", append=True)
    options = ["--tls-certificate", str(folder / "server.pem")]
    options += ["--tls-key", str(folder / "server-key.pem")]
    if mutual:
        options += ["--tls-client-ca", str(folder / "ca.pem")]
    with serving(*options) as service:
        yield service.target


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
def test_targets_may_be_behind_tls(authority: trustme.CA, tmp_path: Path, mutual: bool) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = authority.issue_cert("load@example.org")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in client.cert_chain_pems:
        pem.write_to_path(tmp_path / "client.pem", append=True)
    own = ("--certificate", str(tmp_path / "client.pem"), "--key", str(tmp_path / "key.pem"))
    with behind_tls(authority, tmp_path, mutual=mutual) as target:
        trusting = (target, "--ca", str(tmp_path / "ca.pem"), "--server-name", "localhost")
        done = loading(*trusting, *(own if mutual else ()), "--no-ceiling", "--json", *SHORT)
        assert done.returncode == command.DONE, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        assert run["statuses"] == {OK: run["answered"]}
        wrong = trusting if mutual else (target, "--tls")
        refused = loading(*wrong, "--no-ceiling", *SHORT)
        assert refused.returncode == command.NOTHING
        assert refused.stderr == f"{target}: UNAVAILABLE\n"


def test_report_names_scenario_and_target() -> None:
    study = Study({"cores": "2"}, [("127.0.0.1:1", "ab" * 32)], "addresses packed", 1)
    study.runs.append(measured(CLOSED, *[1.0] * 100, statuses=Counter({OK: 100, "UNAVAILABLE": 1})))
    told = report.text(study)
    assert "127.0.0.1:1: dataset abababababab" in told
    assert (
        "| joins | closed, 32 under way | 100 | 100 | 1.00 | 1.00 | 1.00 | - | - | 0.99% |" in told
    )
    assert "| joins | closed, 32 under way | UNAVAILABLE | 1 | 0.990% |" in told
