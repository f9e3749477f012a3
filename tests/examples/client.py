"""Asks a geolookup service by the library's own client, as the examples in other languages do.

    python client.py TARGET join REGION_SET < addresses
    python client.py TARGET takedown REGION_SET < participants

SERVICE_CA is a file of the authorities that sign the service's certificate.
"""

from __future__ import annotations

import os
import sys

from geolookup import Reason
from geolookup.client import Client, tls_credentials
from geolookup.errors import GeoLookupError

TIMEOUT = 10


def main() -> None:
    target, action, region_set = sys.argv[1:]
    authorities = os.environ.get("SERVICE_CA")
    credentials = tls_credentials(ca=authorities) if authorities else None
    with Client(target, timeout=TIMEOUT, credentials=credentials) as client:
        if action == "join":
            join(client, region_set)
        else:
            takedown(client, region_set)


def join(client: Client, region_set: str) -> None:
    for line in sys.stdin:
        answer = client.lookup(line.strip(), region_set)
        assert answer.verdict is not None
        reason = "UNSPECIFIED" if answer.reason is Reason.DECIDED else answer.reason
        told = f"STATUS_{answer.status.name} VERDICT_{answer.verdict.name} REASON_{reason}"
        sys.stdout.write(f"{answer.country} {told}\n")
        sys.stdout.flush()


def takedown(client: Client, region_set: str) -> None:
    people = {name: addresses for name, *addresses in map(str.split, sys.stdin)}
    answer = client.classify(people, region_set=region_set)
    for reason, count in answer.reason_counts().items():
        sys.stderr.write(f"{count} undetermined: REASON_{reason}\n")
    sys.stdout.write("".join(f"{name}\n" for name in answer.ids_inside))


if __name__ == "__main__":
    try:
        main()
    except GeoLookupError as error:
        sys.exit(f"client: {error}")
