"""The settings of a service, fixed when it starts.

`model` holds the table of settings, `source` reads flags, variables and a file into one
`Settings`, and `show` prints them.
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
