"""Refreshing a dataset from its publishers: ``geolookup update``.

Three steps, each of which leaves everything as it was when it fails:

- `refresh` brings the publishers' files into a `Cache`, with conditional requests;
- `write_manifest` describes them, for `geolookup.build.manifest` and `geolookup.build.compiler`;
- `replace` compiles, checks and puts the new dataset in the place of the old one.

What is downloaded, and from where, says a `Catalogue`. Nothing here reads the
environment or writes to a terminal.
"""

from __future__ import annotations

from geolookup.update.cache import Cache, Version
from geolookup.update.catalogue import Catalogue, PublishedFile, Publisher, builtin_text, load
from geolookup.update.checks import Check, alike, plausible
from geolookup.update.downloads import Download, Refreshed, refresh
from geolookup.update.problems import MissingError, UpdateError
from geolookup.update.replacement import (
    Replaced,
    id_of,
    load_manifest,
    replace,
    used_by,
    write_manifest,
)
from geolookup.update.transfer import Patience, Validators, fetch

__all__ = [
    "Cache",
    "Catalogue",
    "Check",
    "Download",
    "MissingError",
    "Patience",
    "PublishedFile",
    "Publisher",
    "Refreshed",
    "Replaced",
    "UpdateError",
    "Validators",
    "Version",
    "alike",
    "builtin_text",
    "fetch",
    "id_of",
    "load",
    "load_manifest",
    "plausible",
    "refresh",
    "replace",
    "used_by",
    "write_manifest",
]
