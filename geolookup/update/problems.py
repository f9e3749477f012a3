"""Errors of refreshing a dataset."""

from __future__ import annotations

from geolookup.errors import GeoLookupError


class UpdateError(GeoLookupError):
    """A refresh failed; what was there before is unchanged.

    The text names the source and the file. It holds no address, not even a
    server's, and of a server's response no more than a status number.
    """


class MissingError(UpdateError):
    """The publisher has no such file (HTTP status 404 or 410)."""
