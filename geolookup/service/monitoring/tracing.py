"""Spans of calls, made and exported by OpenTelemetry's packages.

Without the setting, OpenTelemetry is neither imported nor called. A span has the method, the
status code, the size of a roster and the dataset's id. It has nothing of the peer, and of the
client only the ids of W3C trace context: `tracestate` and baggage may hold any text, so they
are not read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from geolookup.errors import MissingExtraError
from geolookup.service.methods import Method
from geolookup.service.monitoring.counters import CODES

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from geolookup.service.settings import Settings

_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that make a server's span an error. The others are errors of the client."""


def remove_instrumentation() -> None:
    """Remove OpenTelemetry's wrapper of gRPC servers from this process, if it has one.

    ``opentelemetry-instrument geolookup serve`` installs it. Its spans would have the addresses
    of clients of the admin service.
    """
    wrapper = sys.modules.get("opentelemetry.instrumentation.grpc")
    if wrapper is not None:
        wrapper.GrpcInstrumentorServer().uninstrument()  # one object in each process


class CallSpan:
    """The span of one call, made by `Tracer.start`. For one thread at a time."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, code: int, *, addresses: int | None = None, dataset: str | None = None) -> None:
        """End it.

        Args:
            code: gRPC's status code.
            addresses: the number in the request; None: it has none, or was not read.
            dataset: id of the dataset that answered.
        """
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        span = self._span
        if span.is_recording():
            span.set_attribute("rpc.response.status_code", CODES[code])
            if addresses is not None:
                span.set_attribute("geolookup.addresses", addresses)
            if dataset is not None:
                span.set_attribute("geolookup.dataset.id", dataset)
            if CODES[code] in _SERVER_ERRORS:
                span.set_status(StatusCode.ERROR)
        span.end()


class Tracer:
    """Makes spans and passes them to *processor*. Thread-safe.

    The environment's OTEL_* variables set the sampling and the service's name.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        # The environment overrides this name.
        resource = Resource({"service.name": "geolookup"}).merge(_environment_resource())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("geolookup")
        self._read = TraceContextTextMapPropagator().extract
        self._kind = trace.SpanKind.SERVER

    def start(self, method: Method, metadata: Iterable[tuple[str, str | bytes]] = ()) -> CallSpan:
        """Begin the span of a call, as part of the client's trace if there is one.

        Args:
            method: the rpc.
            metadata: of the call.
        """
        parent = next((value for name, value in metadata if name == "traceparent"), None)
        context = self._read({"traceparent": parent}) if isinstance(parent, str) else None
        name = method.path.removeprefix("/")
        span = self._tracer.start_span(
            name,
            # Not None, which would mean the current context of this thread.
            context if context is not None else self._read({}),
            self._kind,
            {"rpc.system.name": "grpc", "rpc.method": name},
        )
        return CallSpan(span)

    def stop(self) -> None:
        """Export the remaining spans, and end. Waits as long as the OTEL_* variables allow."""
        self._provider.shutdown()


def _environment_resource() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector  # noqa: PLC0415

    return OTELResourceDetector().detect()


def preload(settings: Settings) -> None:
    """Import the packages that `tracer` needs, which reports those that are missing."""
    if settings.tracing:
        with suppress(ImportError):
            import opentelemetry.exporter.otlp.json.http.trace_exporter  # noqa: PLC0415
            import opentelemetry.sdk.trace.export  # noqa: F401, PLC0415


def tracer(settings: Settings) -> Tracer | None:
    """Return a tracer that exports spans as OTLP over HTTP; None: tracing is off.

    To be called in the process that makes the spans, as a thread exports them.

    Raises:
        MissingExtraError: the packages for it are not installed.
    """
    if not settings.tracing:
        return None
    try:
        from opentelemetry.exporter.otlp.json.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("tracing", "OpenTelemetry", "otel") from None
    return Tracer(BatchSpanProcessor(OTLPSpanExporter()))
