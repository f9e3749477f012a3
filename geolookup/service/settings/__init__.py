"""Everything a service can be told, fixed when it starts.

`model` holds the table that all else follows from, `source` reads flags, variables and
a file into one `Settings`, and `show` writes them down again.
"""

from geolookup.service.settings.listening import ListenAddress
from geolookup.service.settings.model import MAX_TEXT_BYTES, RosterLimits, Settings
from geolookup.service.settings.problems import ListenError, SettingsError

__all__ = [
    "MAX_TEXT_BYTES",
    "ListenAddress",
    "ListenError",
    "RosterLimits",
    "Settings",
    "SettingsError",
]
