"""What can be wrong with a setting."""

from __future__ import annotations

from geolookup.errors import GeoLookupError


class SettingsError(GeoLookupError, ValueError):
    """A setting makes no sense. The text names the setting and never repeats its value.

    Attributes:
        setting: the setting's name.
        problem: what is wrong with it.
        place: where its value stands (a flag, a variable, a file and line), or empty.
    """

    def __init__(self, setting: str, problem: str, place: str = "") -> None:
        super().__init__(setting, problem, place)
        self.setting = setting
        self.problem = problem
        self.place = place

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        return f"{self.setting}: {self.problem}{place}"


class ListenError(GeoLookupError):
    """The server can't listen where it was told to."""
