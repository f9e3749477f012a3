"""The gRPC service: `serve` runs it, told by `Settings`."""

from geolookup.service.server import Server, serve
from geolookup.service.settings import Limits, ListenError, Settings, SettingsError

__all__ = ["Limits", "ListenError", "Server", "Settings", "SettingsError", "serve"]
