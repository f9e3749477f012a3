"""IPinfo Lite CSV: ``network,country,country_code,continent,...`` with a header.

``1.0.0.0/24,Australia,AU,Oceania,OC,AS13335,"Cloudflare, Inc.",cloudflare.com``. A network
of one address has no length.
"""

from __future__ import annotations

from geolookup.build.readers import detection
from geolookup.build.readers.prefix_csv import read

__all__ = ["NAME", "read", "recognises"]

NAME = "ipinfo"


def recognises(head: bytes, _name: str = "") -> bool:
    """Return whether a file has this format, judged by its header."""
    return {"network", "country_code", "continent_code", "asn"} <= set(
        detection.beginning(head).header()
    )
