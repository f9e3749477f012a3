"""Errors of settings."""

from __future__ import annotations

from geolookup.errors import GeoLookupError


class SettingsError(GeoLookupError, ValueError):
    """A setting is not valid. The text names the setting and never repeats its value.

    Attributes:
        setting: the setting's name.
        problem: the reason.
        origin: of the value (a flag, a variable, a file and line), or empty.
    """

    def __init__(self, setting: str, problem: str, origin: str = "") -> None:
        super().__init__(setting, problem, origin)
        self.setting = setting
        self.problem = problem
        self.origin = origin

    def __str__(self) -> str:
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.setting}: {self.problem}{origin}"


class ListenError(GeoLookupError):
    """The server can't listen on an address."""
