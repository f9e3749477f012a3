"""What a run cost the service: its processor time, read from its metrics before and after."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

CPU = "geolookup_worker_cpu_seconds_total"
ADDRESSES = "geolookup_addresses_total"

_PATIENCE = 2.0
"""Seconds: it is read while calls are made, and must not hold up the end of a run."""
_LARGEST = 16 * 1024 * 1024


class MetricsError(Exception):
    """The metrics can't be read, or are not geolookup's. The text says why."""


@dataclass(frozen=True)
class Reading:
    """The metrics at a moment.

    Attributes:
        cpu: seconds of processor time by worker; begins anew when one is restarted.
        addresses: answered up to now.
    """

    cpu: Mapping[str, float]
    addresses: float


@dataclass(frozen=True)
class Spent:
    """What lies between two readings.

    Attributes:
        cpu: seconds of processor time of all workers.
        addresses: answered, whoever asked.
    """

    cpu: float
    addresses: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.addresses + other.addresses)


def spent(before: Reading, after: Reading) -> Spent:
    """Return what lies between two readings.

    Of a worker that was restarted in between, what it used before it ended is not known.
    """
    cpu = 0.0
    for worker, seconds in after.cpu.items():
        earlier = before.cpu.get(worker, 0.0)
        cpu += seconds - earlier if seconds >= earlier else seconds
    addresses = after.addresses - before.addresses
    return Spent(cpu, addresses if addresses >= 0 else after.addresses)


def read(url: str) -> Reading:
    """Return the metrics at a URL (http or https).

    Raises:
        MetricsError: they can't be read.
    """
    text = _fetched(url)
    cpu: dict[str, float] = {}
    addresses = 0.0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == CPU:
                    cpu[sample.labels.get("worker", "")] = sample.value
                elif sample.name == ADDRESSES:
                    addresses += sample.value
    except ValueError:
        raise MetricsError(f"{url}: not in Prometheus's text format") from None
    if not cpu:
        raise MetricsError(f"{url}: has no {CPU}")
    return Reading(cpu, addresses)


def _fetched(url: str) -> str:
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in kinds or not parts.hostname or port == -1:
        raise MetricsError(f"{url}: expected http://HOST:PORT/metrics")
    # Not urllib.request: it would go through a proxy that the environment names.
    connection = kinds[parts.scheme](parts.hostname, port, timeout=_PATIENCE)
    try:
        connection.request("GET", parts.path or "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        body: bytes = answer.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise MetricsError(f"{url}: {type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise MetricsError(f"{url}: answered {answer.status}")
    return body.decode("utf-8", "replace")
