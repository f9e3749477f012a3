"""Tracing: spans that say how a call went, and nothing of who made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from servers import PATIENCE

from geolookup.errors import MissingExtraError
from geolookup.service import Settings
from geolookup.service.admin.client import RemoteControl
from geolookup.service.methods import Method
from geolookup.service.monitoring import tracing
from geolookup.service.monitoring.counters import CODES

pytest.importorskip("opentelemetry.sdk", reason="comes with the extra otel")
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

ROOT = Path(__file__).resolve().parents[3]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ADDRESS = "100.99.98.97"
DATASET = "d" * 64


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(memory: InMemorySpanExporter) -> Iterator[tracing.Tracer]:
    made = tracing.Tracer(SimpleSpanProcessor(memory))
    yield made
    made.stop()


def test_span_has_method_and_status_code(
    tracer: tracing.Tracer, memory: InMemorySpanExporter
) -> None:
    span = tracer.start(Method.CLASSIFY_ROSTER)
    span.end(CODES.index("OK"), addresses=1_000, dataset=DATASET)
    (read,) = memory.get_finished_spans()
    assert read.name == "geolookup.v1.GeoLookupService/ClassifyRoster"
    assert read.kind is SpanKind.SERVER
    assert read.parent is None
    assert read.status.status_code is StatusCode.UNSET
    assert dict(read.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "geolookup.v1.GeoLookupService/ClassifyRoster",
        "rpc.response.status_code": "OK",
        "geolookup.addresses": 1_000,
        "geolookup.dataset.id": DATASET,
    }
    assert read.resource.attributes["service.name"] == "geolookup"


@pytest.mark.parametrize("method", Method)
def test_every_method_has_its_full_name(
    tracer: tracing.Tracer, memory: InMemorySpanExporter, method: Method
) -> None:
    tracer.start(method).end(0)
    name = memory.get_finished_spans()[0].name
    assert name.rpartition("/")[2] == method.label.rpartition(".")[2]
    standard = range(Method.CHECK, Method.AUTHORIZATION_CHECK)
    assert name.startswith("grpc.") == (method in standard)


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        *((code, False) for code in ("OK", "INVALID_ARGUMENT", "CANCELLED", "RESOURCE_EXHAUSTED")),
        *((code, True) for code in ("INTERNAL", "DEADLINE_EXCEEDED", "UNAVAILABLE")),
    ],
)
def test_only_the_servers_own_failures_are_errors(
    tracer: tracing.Tracer, memory: InMemorySpanExporter, code: str, failed: bool
) -> None:
    tracer.start(Method.LOOKUP).end(CODES.index(code))
    (read,) = memory.get_finished_spans()
    assert (read.status.status_code is StatusCode.ERROR) == failed
    assert not read.status.description
    assert not read.events


def test_a_span_is_part_of_the_clients_trace(
    tracer: tracing.Tracer, memory: InMemorySpanExporter
) -> None:
    metadata = [("user-agent", "x"), ("traceparent", f"00-{TRACE}-{PARENT}-01")]
    tracer.start(Method.LOOKUP, metadata).end(0)
    (read,) = memory.get_finished_spans()
    assert read.context is not None
    assert read.parent is not None
    assert f"{read.context.trace_id:032x}" == TRACE
    assert f"{read.parent.span_id:016x}" == PARENT


def test_a_client_that_samples_nothing_costs_no_span(
    tracer: tracing.Tracer, memory: InMemorySpanExporter
) -> None:
    tracer.start(Method.LOOKUP, [("traceparent", f"00-{TRACE}-{PARENT}-00")]).end(0)
    assert memory.get_finished_spans() == ()


@pytest.mark.parametrize(
    "value",
    ["", ADDRESS, f"00-{TRACE}-{PARENT}", f"00-{'0' * 32}-{PARENT}-01", b"\xff", "x" * 9_999],
)
def test_a_trace_context_that_is_none_is_not_repeated(
    tracer: tracing.Tracer, memory: InMemorySpanExporter, value: str | bytes
) -> None:
    tracer.start(Method.LOOKUP, [("traceparent", value)]).end(0)
    (read,) = memory.get_finished_spans()
    assert read.parent is None
    assert ADDRESS not in read.to_json()


def test_nothing_else_of_the_metadata_is_read(
    tracer: tracing.Tracer, memory: InMemorySpanExporter
) -> None:
    metadata = [
        ("traceparent", f"00-{TRACE}-{PARENT}-01"),
        ("tracestate", f"vendor={ADDRESS}"),
        ("baggage", f"address={ADDRESS}"),
        ("x-forwarded-for", ADDRESS),
        ("user-agent", ADDRESS),
    ]
    tracer.start(Method.LOOKUP, metadata).end(0)
    (read,) = memory.get_finished_spans()
    assert ADDRESS not in read.to_json()
    assert read.context is not None
    assert not read.context.trace_state


def test_spans_reach_a_collector_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    arrived = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            monkeypatch.setenv("OTEL_SERVICE_NAME", "joins")
            made = tracing.tracer(Settings(tracing=True))
            assert made is not None
            made.start(Method.EXPLAIN).end(0, dataset=DATASET)
            made.stop()
            assert arrived.wait(30)
        finally:
            server.shutdown()
            thread.join()
    (resource,) = json.loads(received[0])["resourceSpans"]
    named = {one["key"]: one["value"] for one in resource["resource"]["attributes"]}
    assert named["service.name"] == {"stringValue": "joins"}
    (span,) = resource["scopeSpans"][0]["spans"]
    assert span["name"] == "geolookup.v1.GeoLookupService/Explain"
    assert {one["key"] for one in span["attributes"]} == {
        "rpc.system.name",
        "rpc.method",
        "rpc.response.status_code",
        "geolookup.dataset.id",
    }


def test_switched_off_it_is_nothing_and_loads_nothing() -> None:
    assert tracing.tracer(Settings()) is None
    code = (
        "import sys\n"
        "from geolookup.service import Settings\nfrom geolookup.service.monitoring import tracing\n"
        "assert tracing.tracer(Settings()) is None\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"


def test_without_its_packages_it_can_not_be_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(MissingExtraError, match=r"^tracing: needs OpenTelemetry, which"):
        tracing.tracer(Settings(tracing=True))


def test_instrumentation_from_outside_makes_no_spans_of_our_servers(tmp_path: Path) -> None:
    """Its spans would have the address of whoever asks the admin service."""
    environment = {
        "GEOLOOKUP_LISTEN": "127.0.0.1:0",
        "GEOLOOKUP_ADMIN": "127.0.0.1:0",
        "GEOLOOKUP_METRICS": "none",
        "GEOLOOKUP_WORKERS": "1",
        "GEOLOOKUP_TRANSPORT": "threads",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    wrapper = Path(sys.executable).with_name("opentelemetry-instrument")
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [wrapper, sys.executable, "-m", "geolookup", "serve"],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        # Printed in one write, the admin listener's line last but those of the dataset.
        lines = iter(process.stdout.readline, "")
        admin = next(line for line in lines if line.startswith("admin")).split()[-1]
        with RemoteControl(admin, timeout=PATIENCE) as control:
            assert control.status().serving
        process.terminate()
        printed = process.stdout.read()
        assert process.wait(PATIENCE) == 0
    assert "trace_id" not in printed
