"""Refreshing a dataset from its publishers: ``geolookup update``.

Three steps, each of which changes nothing if it fails:

- `refresh` downloads the publishers' files into a `Cache`, with conditional requests;
- `write_manifest` describes them, for `geolookup.build.manifest` and `geolookup.build.compiler`;
- `replace` compiles and checks the new dataset, and replaces the old one with it.

A `Catalogue` has the files and their URLs. Nothing here reads the
environment or writes to a terminal.
"""

from __future__ import annotations

from geolookup.update.cache import Cache, Version
from geolookup.update.catalogue import Catalogue, PublishedFile, Publisher, builtin_text, load
from geolookup.update.checks import Check, acceptance
from geolookup.update.downloads import Download, RefreshedSource, refresh
from geolookup.update.problems import MissingError, UpdateError
from geolookup.update.replacement import (
    Replacement,
    id_of,
    load_manifest,
    replace,
    used_by,
    write_manifest,
)
from geolookup.update.transfer import TransferLimits, Validators, fetch

__all__ = [
    "Cache",
    "Catalogue",
    "Check",
    "Download",
    "MissingError",
    "PublishedFile",
    "Publisher",
    "RefreshedSource",
    "Replacement",
    "TransferLimits",
    "UpdateError",
    "Validators",
    "Version",
    "acceptance",
    "builtin_text",
    "fetch",
    "id_of",
    "load",
    "load_manifest",
    "refresh",
    "replace",
    "used_by",
    "write_manifest",
]
