"""Spans of calls, through OpenTelemetry's own packages, for whoever asks for them.

Without the setting nothing here is imported and nothing is called. A span says which
method was called, how it ended, how large a roster was and which dataset answered. It
has nothing of the peer, and of the client's own texts only the ids that W3C trace
context defines: `tracestate` and baggage, which hold whatever a client likes, are not read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from geolookup.errors import MissingExtraError
from geolookup.service.monitoring.counters import CODES, METHODS

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from geolookup.service.settings import Settings

_SERVICES: Final = (
    *["geolookup.v1.GeoLookupService"] * 6,
    *["grpc.health.v1.Health"] * 2,
    "grpc.reflection.v1alpha.ServerReflection",
    "envoy.service.auth.v3.Authorization",
)
_NAMES: Final = tuple(
    f"{service}/{method.rpartition('.')[2]}"
    for service, method in zip(_SERVICES, METHODS, strict=True)
)
_OURS: Final = frozenset(
    CODES.index(name)
    for name in (
        *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"),
        "DATA_LOSS",
    )
)
"""Codes that a server's span calls an error; the others are the client's doing."""


def remove_instrumentation() -> None:
    """Have OpenTelemetry's wrapper of gRPC servers, if this process has it, wrap none of ours.

    ``opentelemetry-instrument geolookup serve`` puts it there; its spans have the address of
    whoever calls the admin service.
    """
    wrapper = sys.modules.get("opentelemetry.instrumentation.grpc")
    if wrapper is not None:
        wrapper.GrpcInstrumentorServer().uninstrument()  # one object in each process


class CallSpan:
    """One call's span, begun by `Tracer.start`. For one thread at a time."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, code: int, *, addresses: int | None = None, dataset: str | None = None) -> None:
        """End it.

        Args:
            code: gRPC's status code.
            addresses: how many the request had; None: it has none, or was not read.
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
            if code in _OURS:
                span.set_status(StatusCode.ERROR)
        span.end()


class Tracer:
    """Makes spans and hands them to *processor*. Made by `tracer`; any thread may use it.

    The environment's OTEL_* variables say which calls are sampled, and what the service is called.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        # What the environment says of the service goes before this.
        resource = Resource({"service.name": "geolookup"}).merge(_said_by_environment())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("geolookup")
        self._read = TraceContextTextMapPropagator().extract
        self._kind = trace.SpanKind.SERVER

    def start(self, method: int, metadata: Iterable[tuple[str, str | bytes]] = ()) -> CallSpan:
        """Begin the span of a call, as a part of the client's trace if it sent one.

        Args:
            method: index into `meter.METHODS`.
            metadata: the call's.
        """
        parent = next((value for name, value in metadata if name == "traceparent"), None)
        context = self._read({"traceparent": parent}) if isinstance(parent, str) else None
        span = self._tracer.start_span(
            _NAMES[method],
            # Empty, and not None, which would be whatever is current in this thread.
            context if context is not None else self._read({}),
            self._kind,
            {"rpc.system.name": "grpc", "rpc.method": _NAMES[method]},
        )
        return CallSpan(span)

    def stop(self) -> None:
        """Hand on what was not yet, and end. Waits as long as OTEL_* variables allow."""
        self._provider.shutdown()


def _said_by_environment() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector  # noqa: PLC0415

    return OTELResourceDetector().detect()


def preload(settings: Settings) -> None:
    """Load the packages that `tracer` will need; of one that is missing, that will tell."""
    if settings.tracing:
        with suppress(ImportError):
            import opentelemetry.exporter.otlp.json.http.trace_exporter  # noqa: PLC0415
            import opentelemetry.sdk.trace.export  # noqa: F401, PLC0415


def tracer(settings: Settings) -> Tracer | None:
    """Return what makes spans and exports them, as OTLP over HTTP; None if they are switched off.

    To be called in the process that makes the spans: they are exported by a thread.

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
