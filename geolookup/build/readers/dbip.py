"""DB-IP Lite (``dbip-country-lite-2026-06.csv``): range CSV without a header.

Silence is ``ZZ``. Recognised by content as range CSV; this name is for manifests
and downloads that accept DB-IP's own file alone.
"""

from __future__ import annotations

from geolookup.build.readers import detection, range_csv
from geolookup.build.readers.range_csv import read

__all__ = ["NAME", "read", "recognises"]

NAME = "dbip"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file is range CSV with addresses as text."""
    row = detection.beginning(head).row()
    return range_csv.recognises(head) and detection.is_address(row[0])
