"""The service's metrics for Prometheus: the sums of all workers' counters, and the status.

Labels have fixed values, or names that an operator chose. Only `region_set` has values that
clients choose: valid expressions, and a bounded number of them; see `counters`.
No label and no value holds anything of an address or of a peer.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from geolookup.answer.claims import Network, Reason, Status, Verdict
from geolookup.service import log
from geolookup.service.admin.control import Outcome, WorkerState
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import CODES
from geolookup.service.monitoring.http_server import HttpServer, Page, text_page
from geolookup.service.settings import ListenAddress

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.service.admin.control import Control, ServiceStatus
    from geolookup.service.monitoring.counters import Counters, Totals
    from geolookup.service.settings import Settings

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DAY: Final = 86_400


class ServiceCollector(Collector):
    """Reads all values at each scrape.

    Args:
        all_counters: returns the counters of all workers, and of those that have ended.
        control: returns the status.
        dataset: returns the dataset in service; None while the first one is loaded.
    """

    def __init__(
        self,
        all_counters: Callable[[], Sequence[Counters]],
        control: Control,
        dataset: Callable[[], Dataset | None],
    ) -> None:
        self._all_counters = all_counters
        self._control = control
        self._dataset = dataset

    def collect(self) -> Iterator[Metric]:
        """Yield the families, each with its samples."""
        totals = counters.total(self._all_counters())
        status = self._control.status()
        yield from _calls(totals)
        yield from _answers(totals)
        yield from _tls(totals)
        if (dataset := self._dataset()) is not None:
            yield from _dataset(dataset)
        yield from _service(status)
        yield CounterMetricFamily(
            "geolookup_log_lines_dropped",
            "Lines of the log that were dropped, since nothing read them or their disk was full.",
            value=totals.log_dropped + log.dropped(),
        )
        yield from _workers(status)


def _calls(totals: Totals) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "geolookup_calls", "Calls answered, by method and status code.", labels=("method", "code")
    )
    durations = HistogramMetricFamily(
        "geolookup_call_duration_seconds",
        "Time from a call's acceptance to its end in the service.",
        labels=("method",),
    )
    in_flight = GaugeMetricFamily(
        "geolookup_calls_in_flight", "Calls being answered.", labels=("method",)
    )
    shed = CounterMetricFamily(
        "geolookup_calls_shed",
        "Calls refused because of the load; they are not among the calls answered.",
        labels=("method",),
    )
    bounds = [bound / 1e9 for bound in counters.DURATION_BOUNDS]
    for method in Method:
        label = method.label
        for code, count in zip(CODES, totals.calls[method], strict=True):
            calls.add_metric((label, code), count)
        durations.add_metric(
            (label,),
            _cumulative(bounds, totals.durations[method]),
            totals.nanoseconds[method] / 1e9,
        )
        # A worker may write while this is read.
        in_flight.add_metric((label,), max(0, totals.in_flight[method]))
        shed.add_metric((label,), totals.shed[method])
    yield from (calls, durations, in_flight, shed)
    yield GaugeMetricFamily(
        "geolookup_connections",
        "Connections of clients that are open; native only.",
        value=totals.connections,
    )
    yield CounterMetricFamily(
        "geolookup_connections_accepted",
        "Connections of clients that were accepted; native only.",
        value=totals.connections_made,
    )
    yield _by_label(
        "geolookup_connections_closed_for_room",
        "Connections that were closed for want of room: at once (refused), or to make room for"
        " others, since they had made no call (uncalled); native only.",
        "which",
        ("refused", "uncalled"),
        totals.connections_closed,
    )
    yield GaugeMetricFamily(
        "geolookup_memory_under_way_bytes",
        "What large requests under way and their answers take of memory_budget.",
        value=totals.memory,
    )
    yield CounterMetricFamily(
        "geolookup_transfer_timeouts",
        "Calls ended because their client stopped sending or reading for transfer_timeout.",
        value=totals.transfer_timeouts,
    )


def _answers(totals: Totals) -> Iterator[Metric]:
    sizes = HistogramMetricFamily(
        "geolookup_roster_addresses", "Addresses in a roster, by roster.", labels=()
    )
    sizes.add_metric((), _cumulative(counters.SIZE_BOUNDS, totals.sizes), totals.sizes_sum)
    addresses = _by_status(
        "geolookup_addresses", "Addresses answered, by status.", totals.addresses
    )
    checks = _by_status(
        "geolookup_checks",
        "Checks of Envoy's answered, each once, by status of their address.",
        totals.checks,
    )
    verdicts = CounterMetricFamily(
        "geolookup_verdicts",
        "Verdicts about addresses, or participants, by region set; those beyond the bound on"
        " region sets are 'other'.",
        labels=("region_set", "verdict"),
    )
    for region_set, counts in totals.verdicts.items():
        for verdict, count in zip(Verdict, counts, strict=True):
            verdicts.add_metric((region_set, verdict.name), count)
    reasons = CounterMetricFamily(
        "geolookup_undetermined",
        "Addresses, or participants, without a verdict, by region set and by the reason.",
        labels=("region_set", "reason"),
    )
    for region_set, counts in totals.reasons.items():
        for reason, count in zip(Reason, counts, strict=True):
            if reason is not Reason.DECIDED:
                reasons.add_metric((region_set, reason.name), count)
    networks = CounterMetricFamily(
        "geolookup_networks",
        "Addresses answered, by kind of their network, each as often as it has kinds, and by"
        " region set; without one it is empty.",
        labels=("region_set", "network"),
    )
    for region_set, counts in totals.networks.items():
        for network, count in zip(Network, counts, strict=True):
            networks.add_metric((region_set, network.name), count)
    yield from (sizes, addresses, checks, verdicts, reasons, networks)


def _by_status(name: str, about: str, counts: Sequence[int]) -> Metric:
    return _by_label(
        name,
        about,
        "status",
        (status.name for status in Status),
        (counts[status.number] for status in Status),
    )


def _tls(totals: Totals) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "geolookup_tls_handshakes",
        "TLS handshakes that clients began.",
        value=totals.handshakes,
    )
    yield _by_label(
        "geolookup_tls_handshake_failures",
        "TLS handshakes that failed, by reason; the transport threads does not know them.",
        "reason",
        counters.HANDSHAKE_FAILURES,
        totals.handshake_failures,
    )
    yield _by_label(
        "geolookup_tls_certificate_reads",
        "Readings of the certificate by workers, by outcome.",
        "outcome",
        ("refused", "taken"),
        totals.certificate_reads,
    )
    yield GaugeMetricFamily(
        "geolookup_tls_certificate_stale",
        "Workers that were given a bad certificate and keep the one before.",
        value=totals.certificate_stale,
    )
    ends = GaugeMetricFamily(
        "geolookup_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use ends; absent without TLS.",
    )
    if totals.certificate_end:
        ends.add_metric((), totals.certificate_end)
    yield ends


def _by_label(
    name: str, about: str, label: str, values: Iterable[str], counts: Iterable[int]
) -> Metric:
    """Return a counter with a count for each value of its one label."""
    family = CounterMetricFamily(name, about, labels=(label,))
    for value, count in zip(values, counts, strict=True):
        family.add_metric((value,), count)
    return family


def _dataset(dataset: Dataset) -> Iterator[Metric]:
    yield InfoMetricFamily("geolookup_dataset", "The dataset in service.", {"id": dataset.id})
    yield GaugeMetricFamily(
        "geolookup_dataset_build_timestamp_seconds",
        "When the dataset in service was built.",
        value=dataset.built.timestamp(),
    )
    age = dataset.age
    yield GaugeMetricFamily(
        "geolookup_dataset_max_age_seconds",
        "The age from which the dataset in service is stale; 0: it has no limit.",
        value=age.max_age * _DAY,
    )
    yield GaugeMetricFamily(
        "geolookup_dataset_stale",
        "1 while the dataset in service is older than it may be, or one of its sources, else 0.",
        value=age.is_stale,
    )
    yield GaugeMetricFamily(
        "geolookup_verdicts_withheld",
        "1 while each verdict is UNDETERMINED because the dataset is stale, else 0.",
        value=age.withholds_verdicts,
    )
    sources = GaugeMetricFamily(
        "geolookup_dataset_source_timestamp_seconds",
        "The date of a source's data, at 00:00 UTC.",
        labels=("source",),
    )
    for source in dataset.sources:
        sources.add_metric((source.name,), _midnight(source.date))
    yield sources
    kept = GaugeMetricFamily(
        "geolookup_dataset_source_kept_too_long",
        "1 while a source's data is older than its licence allows to keep it, else 0.",
        labels=("source",),
    )
    overdue = {one.name for one in dataset.kept_too_long()}
    for source in dataset.sources:
        kept.add_metric((source.name,), source.name in overdue)
    yield kept


def _service(status: ServiceStatus) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "geolookup_build",
        "What is running.",
        {
            "version": importlib.metadata.version("geolookup"),
            "grpc": importlib.metadata.version("grpcio"),
            "python": platform.python_version(),
        },
    )
    yield GaugeMetricFamily(
        "geolookup_serving", "1 while health says SERVING, else 0.", value=status.serving
    )
    yield GaugeMetricFamily(
        "geolookup_supervisor_stalled_seconds",
        "How long the loop that watches the workers has done nothing, if that is too long; else 0.",
        value=status.stalled_for,
    )
    yield GaugeMetricFamily(
        "geolookup_start_timestamp_seconds",
        "When the service was started.",
        value=status.started.timestamp(),
    )
    yield GaugeMetricFamily(
        "geolookup_rollback_holds",
        "1 while a rollback holds back what the files have, else 0.",
        value=bool(status.held_back),
    )
    yield from _overrides(status)
    reloads = CounterMetricFamily(
        "geolookup_reloads", "Reloads and rollbacks, by outcome.", labels=("outcome",)
    )
    for outcome in Outcome:
        reloads.add_metric((outcome.value,), status.reloads.get(outcome, 0))
    yield reloads
    succeeded = GaugeMetricFamily(
        "geolookup_last_reload_successful",
        "0 if the newest reload or rollback was refused, else 1.",
        value=status.last_reload is None or status.last_reload.outcome is not Outcome.REFUSED,
    )
    yield succeeded
    when = GaugeMetricFamily(
        "geolookup_last_reload_timestamp_seconds",
        "When the newest reload or rollback was; absent before the first.",
    )
    if status.last_reload_time is not None:
        when.add_metric((), status.last_reload_time.timestamp())
    yield when


def _overrides(status: ServiceStatus) -> Iterator[Metric]:
    number = GaugeMetricFamily(
        "geolookup_overrides",
        "Overrides of the setting overrides, by whether they act or have expired.",
        labels=("state",),
    )
    ends = GaugeMetricFamily(
        "geolookup_overrides_next_expiry_timestamp_seconds",
        "When the next override of the setting overrides expires; absent: none does.",
    )
    over = status.overrides
    if over is not None:
        number.add_metric(("active",), over.active)
        number.add_metric(("expired",), over.expired)
        if over.until is not None:
            ends.add_metric((), over.until.timestamp())
        yield InfoMetricFamily(
            "geolookup_overrides_file",
            "The file of overrides in service, and the dataset under it.",
            {"file": over.file, "base_dataset": over.base},
        )
    yield from (number, ends)


def _workers(status: ServiceStatus) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "geolookup_worker_up", "1 while the worker is serving, else 0.", labels=("worker",)
    )
    restarts = CounterMetricFamily(
        "geolookup_worker_restarts",
        "How often the worker was started again.",
        labels=("worker",),
    )
    cpu = CounterMetricFamily(
        "geolookup_worker_cpu_seconds",
        "User and system time of the worker's process; begins anew when it is restarted.",
        labels=("worker",),
    )
    memory = GaugeMetricFamily(
        "geolookup_worker_resident_memory_bytes",
        "Resident memory of the worker's process, with what it shares of the dataset.",
        labels=("worker",),
    )
    answered = GaugeMetricFamily(
        "geolookup_worker_last_answer_timestamp_seconds",
        "When the worker last answered the lookup that the supervisor asks for each second.",
        labels=("worker",),
    )
    took = GaugeMetricFamily(
        "geolookup_worker_last_answer_seconds",
        "How long that answer took.",
        labels=("worker",),
    )
    for worker in status.workers:
        labels = (str(worker.number),)
        if worker.answered is not None:
            answered.add_metric(labels, worker.answered.timestamp())
            took.add_metric(labels, worker.answer_seconds)
        up.add_metric(labels, worker.state == "serving")
        restarts.add_metric(labels, worker.restarts)
        if (used := _process(worker.pid)) is not None:
            cpu.add_metric(labels, used[0])
            memory.add_metric(labels, used[1])
    yield from (up, restarts, cpu, memory, answered, took)


def _process(pid: int) -> tuple[float, int] | None:
    """Return a process's CPU seconds and resident bytes; None: no such process."""
    if pid <= 0:
        return None
    try:
        # Unlike most files of /proc, this one is readable for processes that can't be
        # dumped. A process may have any name, so fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    names = [*(f"{float(bound)}" for bound in bounds), "+Inf"]
    return list(zip(names, itertools.accumulate(counts), strict=True))


def _midnight(day: str) -> float:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp()


class MetricsServer:
    """Serves `/metrics` and `/healthz` on `Settings.metrics`, until `stop`.

    ``/metrics`` is in the text format or in OpenMetrics, by the request's Accept header;
    ``/healthz`` is 200 while health is SERVING, else 503. Other paths are 404.

    Args:
        settings: of the service; `metrics` is the address to listen on.
        all_counters: returns the counters of all workers, and of those that have ended.
        control: returns the status.
        dataset: returns the dataset in service; None while the first one is loaded.

    Raises:
        ListenError: the address can't be listened on.
    """

    def __init__(
        self,
        settings: Settings,
        all_counters: Callable[[], Sequence[Counters]],
        control: Control,
        dataset: Callable[[], Dataset | None],
    ) -> None:
        if settings.metrics is None:
            raise ValueError("metrics: there is no address to listen on")
        self._control = control
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ServiceCollector(all_counters, control, dataset))
        ProcessCollector(registry=registry)  # of the supervisor
        # It chooses and writes the format.
        self._exposition = make_wsgi_app(registry)
        self._server = HttpServer(
            ListenAddress.parse(settings.metrics, "metrics"),
            {"/metrics": self._metrics, "/healthz": self._healthz},
            "metrics",
        )
        self.address = self._server.address

    def stop(self) -> None:
        """Stop answering, and wait until the port is free."""
        self._server.stop()

    def _metrics(self, headers: Mapping[str, str]) -> Page:
        answered: dict[str, str] = {}

        def start_response(_status: str, fields: Iterable[tuple[str, str]]) -> None:
            answered.update(fields)

        (body,) = self._exposition(
            {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/metrics",
                "HTTP_ACCEPT": headers.get("accept", ""),
                "HTTP_ACCEPT_ENCODING": headers.get("accept-encoding", ""),
            },
            start_response,
        )
        return Page(200, answered, body)

    def _healthz(self, _headers: Mapping[str, str]) -> Page:
        status = self._control.status()
        text = "serving" if status.serving else "not serving"
        if status.stalled_for:
            text += f"\nthe supervisor has done nothing for {status.stalled_for:.0f} s"
        text += "".join(
            f"\nworker {worker.number}: {worker.state}"
            for worker in status.workers
            if worker.state is WorkerState.UNRESPONSIVE
        )
        if status.age is not None and status.age.is_stale:
            text += f"\nstale dataset: {status.age}"
        return text_page(200 if status.serving else 503, text)
