"""The packages that settings ask for, looked for before anything is started."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from geolookup.errors import MissingExtraError

if TYPE_CHECKING:
    from geolookup.service.settings import Settings

_NEEDED: Final = {
    "tracing": ("opentelemetry.exporter.otlp.json.http", "OpenTelemetry", "otel"),
    "authz": ("envoy", "xds-protos", "envoy"),
    "http": ("httptools", "httptools", "http"),
    "channelz": ("grpc_channelz", "grpcio-channelz", "channelz"),
}
"""By setting: a module, the package that has it, and the extra that brings it."""


def check_extras(settings: Settings) -> None:
    """Check that the packages are there which the settings ask for.

    A worker without one would only end, again and again.

    Raises:
        MissingExtraError: one is not.
    """
    asked = {
        "tracing": settings.tracing,
        "authz": settings.answers_checks,
        "http": settings.http is not None,
        "channelz": settings.channelz,
    }
    for setting, (module, package, extra) in _NEEDED.items():
        if asked[setting] and not _is_installed(module):
            raise MissingExtraError(setting, package, extra)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # one of its parents is not there
        return False
