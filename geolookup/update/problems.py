"""What goes wrong while a dataset is refreshed."""

from __future__ import annotations

from geolookup.errors import GeoLookupError


class UpdateError(GeoLookupError):
    """A refresh came to nothing: what was there before is there still.

    The text names the source and the file. It holds no address, not even a
    server's, and nothing that a server sent except a status number.
    """


class MissingError(UpdateError):
    """The publisher has no such file (HTTP status 404 or 410)."""
