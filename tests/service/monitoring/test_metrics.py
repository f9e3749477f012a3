"""Metrics: what Prometheus reads is what was counted, and reading it can do no harm."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from geolookup import Dataset
from geolookup.answer.claims import Status
from geolookup.answer.file_format import RuntimeOverrides
from geolookup.service import Settings
from geolookup.service.admin.control import Outcome, Reload, ServiceStatus, WorkerStatus
from geolookup.service.methods import Method
from geolookup.service.monitoring import http_server
from geolookup.service.monitoring.counters import CODES, Counters
from geolookup.service.monitoring.metrics import MetricsServer, ServiceCollector
from geolookup.service.settings import ListenError

ROOT = Path(__file__).resolve().parents[3]
STARTED = datetime(2026, 11, 1, tzinfo=UTC)
PATIENCE = 30
PROMTOOL = shutil.which("promtool")


@dataclass
class FixedControl:
    """A service that is as it is told to be."""

    answer: ServiceStatus
    held: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.held.set()

    def status(self) -> ServiceStatus:
        self.asked.set()
        assert self.held.wait(PATIENCE)
        return self.answer

    def reload(self, *, lift_rollback: bool = False) -> Reload:  # noqa: ARG002 - of Control
        raise AssertionError

    def rollback(self) -> Reload:
        raise AssertionError

    def drain(self) -> None:
        raise AssertionError

    resume = drain


def a_status(dataset: Dataset) -> ServiceStatus:
    serving = WorkerStatus(0, os.getpid(), "serving", dataset.id, STARTED, 0, 0, STARTED, 0.001)
    waiting = replace(serving, number=1, pid=0, state="waiting", restarts=3, answered=None)
    return ServiceStatus(
        serving=True,
        dataset=dataset.id,
        previous="",
        started=STARTED,
        last_reload=Reload(Outcome.REFUSED, dataset.id, reason="damaged"),
        last_reload_time=STARTED,
        workers=[serving, waiting],
        reloads={Outcome.SWAPPED: 2, Outcome.REFUSED: 1},
        overrides=RuntimeOverrides("b" * 64, "f" * 64, 2, 1, STARTED),
    )


@pytest.fixture
def control(dataset: Dataset) -> FixedControl:
    return FixedControl(a_status(dataset))


@pytest.fixture
def all_counters() -> list[Counters]:
    """Two workers, the second of which has done nothing."""
    one = Counters()
    one.begin(Method.LOOKUP)
    one.address(Status.ASSIGNED.number, one.region_set("EU"), 1)
    one.end(Method.LOOKUP, CODES.index("OK"), 60_000)
    one.begin(Method.CLASSIFY_ROSTER)
    one.roster(
        (0, 2, 0, 0, 0, 0, 0, 1), one.region_set("CN+HK"), (1, 1, 1), (0, 0, 0, 0, 0, 1, *[0] * 4),
        (0, 2, *[0] * 6),
    )  # fmt: skip
    one.end(Method.CLASSIFY_ROSTER, CODES.index("OK"), 2_000_000)
    one.begin(Method.WATCH)
    one.shed(Method.LOOKUP)
    one.certificate(True, 1_800_000_000)
    one.check(Status.SPECIAL_PURPOSE.number)
    return [one, Counters()]


@pytest.fixture
def server(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> Iterator[MetricsServer]:
    running = MetricsServer(
        Settings(metrics="127.0.0.1:0"), lambda: all_counters, control, lambda: dataset
    )
    try:
        yield running
    finally:
        control.held.set()
        running.stop()


def get(server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=PATIENCE)
    try:
        connection.request(
            method, path, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples by name, and by their labels' values in the order of the names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in read_text(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def exposed(all_counters: list[Counters], control: Any, dataset: Dataset) -> dict[str, Any]:
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: all_counters, control, lambda: dataset))
    return samples(generate_latest(registry).decode())


# what is said


def test_calls_are_those_that_the_meters_counted(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    found = exposed(all_counters, control, dataset)
    calls = found["geolookup_calls_total"]
    assert len(calls) == len(Method) * len(CODES)
    assert {key: value for key, value in calls.items() if value} == {
        ("OK", "Lookup"): 1,
        ("OK", "ClassifyRoster"): 1,
    }
    assert found["geolookup_calls_in_flight"][("Watch",)] == 1
    assert sum(found["geolookup_calls_in_flight"].values()) == 1
    assert found["geolookup_calls_shed_total"][("Lookup",)] == 1


def test_durations_are_cumulative_and_in_seconds(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    found = exposed(all_counters, control, dataset)
    buckets = {
        bound: value
        for (bound, method), value in found["geolookup_call_duration_seconds_bucket"].items()
        if method == "ClassifyRoster"
    }
    assert buckets["0.0015"] == 0
    assert buckets["0.002"] == buckets["10.0"] == buckets["+Inf"] == 1
    assert found["geolookup_call_duration_seconds_sum"][("ClassifyRoster",)] == 0.002
    assert found["geolookup_call_duration_seconds_count"][("Lookup",)] == 1


def test_answers_are_counted_by_status_and_by_verdict(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    found = exposed(all_counters, control, dataset)
    assert found["geolookup_addresses_total"][("ASSIGNED",)] == 3
    assert found["geolookup_addresses_total"][("INVALID",)] == 1
    assert set(found["geolookup_addresses_total"]) == {(status.name,) for status in Status}
    assert found["geolookup_checks_total"][("SPECIAL_PURPOSE",)] == 1
    assert sum(found["geolookup_checks_total"].values()) == 1
    assert found["geolookup_verdicts_total"][("EU", "INSIDE")] == 1
    assert found["geolookup_verdicts_total"][("CN+HK", "UNDETERMINED")] == 1
    assert found["geolookup_verdicts_total"][("other", "INSIDE")] == 0
    assert found["geolookup_undetermined_total"][("INVALID", "CN+HK")] == 1
    assert found["geolookup_undetermined_total"][("DISPUTED", "CN+HK")] == 0
    assert ("DECIDED", "CN+HK") not in found["geolookup_undetermined_total"]
    assert found["geolookup_networks_total"][("VPN", "CN+HK")] == 2
    assert found["geolookup_networks_total"][("MOBILE", "CN+HK")] == 0
    assert found["geolookup_networks_total"][("HOSTING", "")] == 0
    assert found["geolookup_roster_addresses_sum"][()] == 3
    assert found["geolookup_roster_addresses_bucket"][("2.0",)] == 0
    assert found["geolookup_roster_addresses_bucket"][("5.0",)] == 1


def test_the_dataset_and_its_sources_are_dated(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    found = exposed(all_counters, control, dataset)
    assert found["geolookup_dataset_info"] == {(dataset.id,): 1}
    assert found["geolookup_dataset_build_timestamp_seconds"][()] == dataset.built.timestamp()
    assert {name for (name,) in found["geolookup_dataset_source_timestamp_seconds"]} == {
        source.name for source in dataset.sources
    }
    for source in dataset.sources:
        stamp = found["geolookup_dataset_source_timestamp_seconds"][(source.name,)]
        assert datetime.fromtimestamp(stamp, UTC).date().isoformat() == source.date


def test_the_service_and_its_workers_are_shown(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    found = exposed(all_counters, control, dataset)
    assert found["geolookup_serving"][()] == 1
    assert found["geolookup_start_timestamp_seconds"][()] == STARTED.timestamp()
    assert found["geolookup_reloads_total"] == {
        ("swapped",): 2,
        ("unchanged",): 0,
        ("refused",): 1,
    }
    assert found["geolookup_last_reload_successful"][()] == 0
    assert found["geolookup_worker_up"] == {("0",): 1, ("1",): 0}
    assert found["geolookup_worker_restarts_total"] == {("0",): 0, ("1",): 3}
    # Of a worker without a process there is nothing to say.
    assert set(found["geolookup_worker_cpu_seconds_total"]) == {("0",)}
    used = os.times()
    assert 0 < found["geolookup_worker_cpu_seconds_total"][("0",)] <= used.user + used.system + 0.1
    assert found["geolookup_worker_resident_memory_bytes"][("0",)] > 10_000_000


def test_without_tls_no_certificate_ends(control: FixedControl, dataset: Dataset) -> None:
    found = exposed([Counters()], control, dataset)
    assert "geolookup_tls_certificate_expiry_timestamp_seconds" not in found
    assert found["geolookup_tls_certificate_stale"][()] == 0


def test_a_bad_certificate_is_visible(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    all_counters[0].certificate(False, 1_800_000_000)
    found = exposed(all_counters, control, dataset)
    assert found["geolookup_tls_certificate_expiry_timestamp_seconds"][()] == 1_800_000_000
    assert found["geolookup_tls_certificate_stale"][()] == 1
    assert found["geolookup_tls_certificate_reads_total"] == {("taken",): 1, ("refused",): 1}


def test_a_process_that_is_gone_leaves_the_rest_readable(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(PATIENCE)
    gone = replace(control.answer.workers[0], pid=process.pid)
    control.answer = replace(control.answer, workers=[gone])
    found = exposed(all_counters, control, dataset)
    assert "geolookup_worker_cpu_seconds_total" not in found
    assert found["geolookup_worker_up"] == {("0",): 1}


# the exposition


def test_the_text_format_is_well_formed(server: MetricsServer) -> None:
    status, headers, body = get(server)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = samples(body.decode())
    assert found["geolookup_calls_total"][("OK", "Lookup")] == 1
    # The supervisor's own process is shown by the names that all dashboards know.
    assert "process_cpu_seconds_total" in found


def test_openmetrics_is_served_on_request(server: MetricsServer) -> None:
    status, headers, body = get(
        server, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    )
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    # Its parser is strict: orders of buckets, units, suffixes.
    assert "geolookup_calls" in {family.name for family in read_openmetrics(body.decode())}


def test_gzip_is_served_if_accepted(server: MetricsServer) -> None:
    _, headers, body = get(server, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert b"geolookup_calls_total" in gzip.decompress(body)


def test_each_scrape_reads_anew(server: MetricsServer, all_counters: list[Counters]) -> None:
    for number in range(1, 4):
        found = samples(get(server)[2].decode())
        assert found["geolookup_calls_shed_total"][("Explain",)] == number - 1
        all_counters[1].shed(Method.EXPLAIN)


def test_names_follow_the_conventions(server: MetricsServer) -> None:
    for family in read_text(get(server)[2].decode()):
        assert family.name.startswith(("geolookup_", "process_")), family.name
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|millis|us|ns|kb|mb)\b", family.name)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(server: MetricsServer) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=get(server)[2],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# the server


def test_health_is_that_of_the_service(server: MetricsServer, control: FixedControl) -> None:
    assert get(server, "/healthz")[::2] == (200, b"serving\n")
    control.answer = replace(control.answer, serving=False)
    assert get(server, "/healthz")[::2] == (503, b"not serving\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/../metrics", "/favicon.ico", "*"])
def test_everything_else_is_not_found(server: MetricsServer, path: str) -> None:
    assert get(server, path)[0] == 404


def test_a_query_changes_nothing(server: MetricsServer) -> None:
    assert b"geolookup_serving" in get(server, "/metrics?name[]=nothing")[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get(server: MetricsServer, method: str) -> None:
    status, headers, _ = get(server, method=method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/2\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nAccept: a\nb\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + bytes(60) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nCookie: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server: MetricsServer, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.address.port), PATIENCE) as client:
        client.sendall(request_)
        assert client.recv(12) == b"HTTP/1.1 400"
    assert get(server)[0] == 200


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    try:
        while block := client.recv(65_536):
            received += block
    except ConnectionResetError:
        pass
    return received


def test_a_request_that_does_not_come_is_not_waited_for(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_TIMEOUT", 0.1)
    with socket.create_connection(("127.0.0.1", server.address.port), PATIENCE) as client:
        client.sendall(b"GET /metr")
        assert read_to_end(client) == b""


def test_connections_that_only_wait_do_not_keep_a_scraper_out(server: MetricsServer) -> None:
    waiting = [
        socket.create_connection(("127.0.0.1", server.address.port), PATIENCE)
        for _ in range(3 * http_server._MAX_CONNECTIONS)
    ]
    try:
        assert get(server)[0] == 200
        # The oldest made room.
        assert read_to_end(waiting[0]) == b""
    finally:
        for client in waiting:
            client.close()


def test_a_slow_page_holds_up_no_other_connection(
    server: MetricsServer, control: FixedControl
) -> None:
    control.held.clear()
    with socket.create_connection(("127.0.0.1", server.address.port), PATIENCE) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert control.asked.wait(PATIENCE)
        assert get(server, "/nothing")[0] == 404
        control.held.set()
        assert read_to_end(client).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_failure_shows_nothing_of_itself(
    server: MetricsServer, all_counters: list[Counters], caplog: pytest.LogCaptureFixture
) -> None:
    all_counters.append("203.0.113.7")  # no meter
    status, _, body = get(server)
    assert (status, body) == (500, b"internal error\n")
    assert "203.0.113.7" not in caplog.text
    assert "AttributeError" in caplog.text
    all_counters.pop()
    assert get(server)[0] == 200


def test_a_port_in_use_is_an_error(server: MetricsServer, dataset: Dataset) -> None:
    settings = Settings(metrics=str(server.address))
    control = FixedControl(a_status(dataset))
    expected = f"^metrics: can't listen on {server.address}: .* another port with --metrics"
    with pytest.raises(ListenError, match=expected):
        MetricsServer(settings, list, control, lambda: dataset)


def test_stopping_closes_the_port_and_all_connections(
    all_counters: list[Counters], control: FixedControl, dataset: Dataset
) -> None:
    running = MetricsServer(
        Settings(metrics="127.0.0.1:0"), lambda: all_counters, control, lambda: dataset
    )
    with socket.create_connection(("127.0.0.1", running.address.port), PATIENCE) as client:
        assert get(running)[0] == 200
        running.stop()
        running.stop()
        assert read_to_end(client) == b""
    with pytest.raises(ConnectionRefusedError):
        get(running)


# what is made of it

QUERY_NAME = re.compile(r"\b(?:geolookup|process)_\w+")


def names_in_use(text: str) -> set[str]:
    return set(QUERY_NAME.findall(text))


@pytest.fixture
def known(all_counters: list[Counters], control: FixedControl, dataset: Dataset) -> set[str]:
    found = set(exposed(all_counters, control, dataset))
    return found | {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def dashboard() -> Any:
    return json.loads((ROOT / "deploy/grafana/geolookup.json").read_text(encoding="utf-8"))


def test_the_dashboard_asks_for_metrics_that_exist(known: set[str]) -> None:
    expressions = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    assert len(expressions) > 15
    for expression in expressions:
        assert names_in_use(expression) <= known, expression


def test_the_alerts_ask_for_metrics_that_exist(known: set[str]) -> None:
    text = (ROOT / "deploy/prometheus/geolookup.rules.yml").read_text(encoding="utf-8")
    recorded = set(re.findall(r"record: (\S+)", text))
    names = names_in_use(re.sub(r"^\s*#.*$|description:.*$|- name:.*$", "", text, flags=re.M))
    assert len(names) > 8
    assert names <= known | recorded


def observability() -> str:
    return (ROOT / "docs/observability.md").read_text(encoding="utf-8")


def test_the_documentation_names_every_metric_and_no_other(known: set[str]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    families = {name for name in families if name.startswith("geolookup_")}
    documented = set(re.findall(r"`(geolookup_\w+)", observability()))
    assert documented == families


def test_the_documentation_gives_each_metric_its_type_and_labels(server: MetricsServer) -> None:
    rows = dict(
        re.findall(r"^\| `(geolookup_\w+)` \| (\w+ \| [^|]*?) \|", observability(), flags=re.M)
    )
    for family in read_text(get(server)[2].decode()):
        if not family.name.startswith("geolookup_"):
            continue
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        # The text format knows no "info".
        kind = "info" if name.endswith("_info") else family.type
        documented, _, names = rows[name].partition(" | ")
        assert documented == kind, name
        assert set(re.findall(r"\w+", names)) == labels, name


def test_the_documentation_names_every_alert_and_no_other() -> None:
    rules = (ROOT / "deploy/prometheus/geolookup.rules.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", rules)
    assert re.findall(r"^\| `(Geolookup\w+)`", observability(), flags=re.M) == alerts


def test_each_alert_is_tested() -> None:
    rules = (ROOT / "deploy/prometheus/geolookup.rules.yml").read_text(encoding="utf-8")
    tests = (ROOT / "deploy/prometheus/tests.yml").read_text(encoding="utf-8")
    tested = set(re.findall(r"\b(Geolookup\w+)", tests))
    assert tested >= set(re.findall(r"alert: (\w+)", rules))


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "geolookup.rules.yml"), ("test", "rules", "tests.yml")]
)
def test_promtool_accepts_the_alerts(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments],
        cwd=ROOT / "deploy/prometheus",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_can_read_what_the_dashboard_asks_for(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    queries = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    rules = [
        # Grafana puts values in the place of its variables.
        {"record": f"query:{number}", "expr": re.sub(r"\$__rate_interval", "5m", query)}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout
