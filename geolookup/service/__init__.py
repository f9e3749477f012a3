"""The gRPC service: `serve` runs it with `Settings`.

Importing this package loads no gRPC: `Server` and `serve` are imported on first use.
"""

from typing import TYPE_CHECKING

from geolookup.service.settings import ListenError, RosterLimits, Settings, SettingsError

if TYPE_CHECKING:
    from geolookup.service.processes.supervisor import serve
    from geolookup.service.server import Server

__all__ = ["ListenError", "RosterLimits", "Server", "Settings", "SettingsError", "serve"]


def __getattr__(name: str) -> object:
    if name == "Server":
        from geolookup.service.server import Server  # noqa: PLC0415

        return Server
    if name == "serve":
        from geolookup.service.processes.supervisor import serve  # noqa: PLC0415

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
