"""`serve`: the process that starts workers, restarts them, and reloads their dataset.

All state belongs to the thread of the event loop. Reading and checking a dataset takes long, so
another thread does it: a worker that ends meanwhile is replaced at once.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeVar

from geolookup.answer import age as ages
from geolookup.answer.age import age_warning
from geolookup.errors import GeoLookupError
from geolookup.service import log
from geolookup.service.admin.control import Outcome, Reload, ServiceStatus
from geolookup.service.extras import check_extras
from geolookup.service.file_watch import FileWatch
from geolookup.service.monitoring import counters, tracing
from geolookup.service.processes import dataset_loading, operating_system
from geolookup.service.processes.dataset_loading import LoadedDataset, TransientError
from geolookup.service.processes.event_loop import EventLoop
from geolookup.service.processes.listen_address import HeldListenAddress
from geolookup.service.processes.messages import STOP_MARGIN
from geolookup.service.processes.rollback import Hold, RollbackFolder
from geolookup.service.processes.workers import Broadcast, WorkerPool
from geolookup.service.rpc import transports
from geolookup.service.settings import ListenAddress, Settings
from geolookup.service.unblocked_stream import standard_stream

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.service.admin.server import AdminServer
    from geolookup.service.monitoring.metrics import MetricsServer

_T = TypeVar("_T")

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_REPORT_INTERVAL: Final = 1.0
"""Seconds between checks for refused calls."""
_OTHER_DESCRIPTORS: Final = 64
"""Open files of a worker beside its connections: listeners, datasets, the log, and some more."""
_STALLED: Final = 5.0
"""Seconds without a turn of the event loop from which on the supervisor knows nothing."""
_EXPIRY_INTERVAL: Final = 1.0
"""Seconds between looks at the clock, which may be set, for overrides that expire."""
_EXPIRY_LEAD: Final = 30.0
"""Seconds before an override expires from which on the dataset without it is made."""
_AGE_INTERVAL: Final = 60.0
"""Seconds between checks of the dataset's age."""


def serve(settings: Settings, *, unknown_variables: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly; a second signal stops at once.

    For the main thread of a process that does nothing else. SIGHUP reads the dataset,
    the region sets, the overrides and the certificates again. When all workers serve, this
    prints the addresses, the dataset's id and build date, and the attributions that the sources'
    licences require, each as ``name: value``. The log goes to stderr.

    Args:
        settings: of the service.
        unknown_variables: see `geolookup.service.settings.source.Configuration`; the log
            names them.

    Raises:
        DatasetError: the dataset can't be opened, or is not signed as required.
        RegionSetError: the file of region sets is not valid.
        SourceError: the file of overrides is not valid.
        ListenError: an address can't be listened on.
        SettingsError: a certificate can't be used.
        ServiceError: the workers can't be started.
        MissingExtraError: a setting asks for a package that is not installed.
    """
    check_extras(settings)
    tracing.remove_instrumentation()
    log.install(settings.log_format, settings.log_level)
    log.event(
        "start",
        version=version("geolookup"),
        workers=settings.workers,
        transport=transports.chosen(settings)[0],
    )
    for name in unknown_variables:
        reason = f"no setting has the variable {name}; it is ignored"
        log.event("unknown_variable", "warning", reason=reason)
    _check_descriptors(settings)
    if not settings.core_dumps:
        operating_system.forbid_core_dumps()
    with operating_system.Signals(*_STOP, signal.SIGHUP) as signals, EventLoop() as loop:
        supervisor = Supervisor(settings, loop)
        loop.add_reader(signals.fileno(), lambda: supervisor.on_signals(signals.read()))
        try:
            with operating_system.clear_thread_errors():
                supervisor.run()
        finally:
            supervisor.close()
    log.event("exit")


def _check_descriptors(settings: Settings) -> None:
    limit = operating_system.raise_descriptor_limit()
    listeners = 1 if settings.http is None else 2
    needed = listeners * settings.max_connections + _OTHER_DESCRIPTORS
    if 0 <= limit < needed:
        log.event(
            "few_descriptors",
            "warning",
            reason=f"max_connections needs {needed} open files in each worker, and the limit"
            f" (ulimit -n) is {limit}",
        )


class Supervisor:
    """Runs the service; implements `geolookup.service.admin.control.Control`.

    Args:
        settings: of the service.
        loop: the event loop of the main thread.

    Raises:
        ListenError: the clients' address is in use, or can't be listened on.
    """

    def __init__(self, settings: Settings, loop: EventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._started = datetime.now(UTC)
        self._manager = operating_system.ServiceManager()
        self._listen_address = HeldListenAddress(
            ListenAddress.parse(settings.listen), settings.workers
        )
        self._http_address: HeldListenAddress | None = None
        try:
            if settings.http is not None:
                self._http_address = HeldListenAddress(
                    ListenAddress.parse(settings.http, "http"), settings.workers, "http"
                )
            self._workers = WorkerPool(
                loop,
                settings,
                self._listen_address,
                http_address=self._http_address,
                on_started=self._on_started,
                on_failed=self._on_failed,
                on_ended=loop.stop,
            )
        except BaseException:
            self._release_addresses()
            raise
        self._watch = FileWatch(dataset_loading.watched_files(settings))
        self._loader = ThreadPoolExecutor(1, "geolookup-load")
        self._admin: AdminServer | None = None
        self._metrics: MetricsServer | None = None
        self._current: LoadedDataset | None = None
        self._previous: LoadedDataset | None = None
        self._ahead: _Ahead | None = None
        self._preparing = False
        self._hold = Hold()
        self._rollback_folder = RollbackFolder(settings)
        self._generation = 0
        # Reloads and rollbacks run one after the other.
        self._waiting: deque[_Change] = deque()
        self._changing: _Change | None = None
        # Set when all workers' health has changed.
        self._drains: set[Future[None]] = set()
        self._last_reload: Reload | None = None
        self._last_reload_time: datetime | None = None
        self._outcomes: Counter[Outcome] = Counter()
        # What was logged of the age of the dataset in service.
        self._reported_ages: set[str] = set()
        self._serving = False
        self._drained = False
        self._stopping = self._stopping_workers = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Start everything, and return when all workers have ended.

        Raises:
            GeoLookupError: as `serve`.
        """
        # The workers load gRPC while the dataset is read.
        self._workers.start()
        self._open_listeners()
        self._run_in_background(self._load_first, self._deploy, self._fail_to_start)
        self._loop.run()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Kill the workers that are left, and release everything."""
        self._stopping = True
        self._refuse_pending()
        self._loop.refuse_calls()
        self._stop_listeners(0)
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        self._forget_ahead()
        for loaded in (self._current, self._previous):
            if loaded is not None:
                loaded.close()
        for address in self._held_addresses():
            address.remove_sockets()

    def on_signals(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Stop, or reload, as the signals say."""
        for number in numbers:
            if number in _STOP:
                self._stop(number)
            elif not self._stopping and self._serving:
                self._workers.reload_certificates()
                self._change(_Change(self._reload))

    # --- start and end

    def _open_listeners(self) -> None:
        # Imported here: a service without these listeners starts sooner.
        if self._settings.admin is not None:
            from geolookup.service.admin.server import AdminServer  # noqa: PLC0415

            self._admin = AdminServer(self._settings, self)
        if self._settings.metrics is not None:
            from geolookup.service.monitoring.metrics import MetricsServer  # noqa: PLC0415

            self._metrics = MetricsServer(
                self._settings, self._workers.counters, self, self._current_dataset
            )

    def _held_addresses(self) -> Iterator[HeldListenAddress]:
        yield self._listen_address
        if self._http_address is not None:
            yield self._http_address

    def _release_addresses(self) -> None:
        for address in self._held_addresses():
            address.release()

    def _stop_listeners(self, grace: float) -> None:
        admin, metrics, self._admin, self._metrics = self._admin, self._metrics, None, None
        if admin is not None:
            admin.stop(grace).wait(grace + STOP_MARGIN)
        if metrics is not None:
            metrics.stop()

    def _load_first(self) -> LoadedDataset:
        return dataset_loading.load(self._settings, hold=self._rollback_folder.read())

    def _deploy(self, loaded: LoadedDataset) -> None:
        self._current, self._hold = loaded, loaded.hold
        if self._hold:
            log.event("rollback", dataset=loaded.dataset.id, reason=str(self._hold))
        self._workers.deploy(self._generation, loaded)

    def _fail_to_start(self, error: BaseException) -> None:
        self._failure = error
        self._stopping = True
        self._workers.stop(0)

    def _on_failed(self, error: GeoLookupError) -> None:
        if self._failure is None:
            self._fail_to_start(error)

    def _on_started(self) -> None:
        assert self._current is not None  # noqa: S101 - the workers answer from it
        self._serving = True
        fields: log.Fields = {
            "dataset": self._current.dataset.id,
            "listen": " ".join(map(str, self._listen_address.addresses)),
        }
        if self._http_address is not None:
            fields["http"] = " ".join(map(str, self._http_address.addresses))
        if self._admin is not None:
            fields["admin"] = str(self._admin.address)
        if self._metrics is not None:
            fields["metrics"] = str(self._metrics.address)
        log.event("ready", **fields)
        self._check_age()
        self._check_expiry()
        for report in (
            log.CountReport("shed", self._shed),
            log.CountReport("denied", self._denied),
        ):
            self._report_refusals(report)
        if self._settings.watch:
            self._loop.call_later(self._settings.watch, self._check_files)
        self._manager.notify("READY=1", f"STATUS=Serving {self._current.dataset.id}")
        self._feed_watchdog()
        # Last, so that who waits for these lines finds in the log what the start has to say.
        log.flush()
        text = "".join(f"{line}\n" for line in self._announcement(self._current))
        stdout = standard_stream(sys.stdout, 1)
        if stdout is None:
            sys.stdout.write(text)
        else:
            stdout.write(text.encode())

    def _report_age(self) -> None:
        """Log what is to say of the age of the dataset in service, each time once."""
        assert self._current is not None  # noqa: S101 - the workers answer from it
        dataset = self._current.dataset

        def is_new(what: str) -> bool:
            known = what in self._reported_ages
            self._reported_ages.add(what)
            return not known

        reason = age_warning(dataset.built, self._settings.warn_age)
        if reason is not None and is_new("old"):
            log.event("old_dataset", "warning", dataset=dataset.id, reason=reason)
        age = dataset.age
        if age.is_stale and is_new("stale"):
            reason = f"the dataset is too old: {age}"
            log.event("stale_dataset", "warning", dataset=dataset.id, reason=reason)
        for kept in dataset.kept_too_long():
            if is_new(f"kept {kept.name}"):
                log.event("kept_too_long", "warning", dataset=dataset.id, reason=str(kept))

    def _announcement(self, loaded: LoadedDataset) -> Iterator[str]:
        for address in self._listen_address.addresses:
            yield f"address: {address}"
        for address in () if self._http_address is None else self._http_address.addresses:
            yield f"http: {_url(self._settings, address)}"
        if self._admin is not None:
            yield f"admin: {self._admin.address}"
        if self._metrics is not None:
            yield f"metrics: http://{self._metrics.address}/metrics"
        yield f"dataset: {loaded.dataset.id}"
        yield f"built: {loaded.dataset.built.date().isoformat()}"
        for attribution in loaded.dataset.attributions:
            yield f"attribution: {attribution}"

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping:
            log.event("stop_now", "warning", signal=number.name)
            self._stopping_workers = True
            self._release_addresses()
            self._workers.stop(0)
            return
        self._stopping = True
        self._serving = False
        self._manager.notify("STOPPING=1")
        self._refuse_pending()
        if self._settings.lame_duck:
            log.event("lame_duck", signal=number.name, seconds=self._settings.lame_duck)
            self._workers.retire()
            self._loop.call_later(self._settings.lame_duck, lambda: self._stop_workers(number))
        else:
            self._stop_workers(number)

    def _stop_workers(self, number: signal.Signals) -> None:
        if self._stopping_workers:
            return
        self._stopping_workers = True
        log.event("stop", signal=number.name, seconds=self._settings.grace)
        # Another service may now listen on the port, while the workers finish their calls.
        self._release_addresses()
        self._workers.stop(self._settings.grace)

    def _refuse_pending(self) -> None:
        for change in (self._changing, *self._waiting):
            if change is not None:
                change.future.set_result(self._refused("the service is stopping"))
        self._changing = None
        self._waiting.clear()
        for done in list(self._drains):
            self._finish_drain(done)

    # --- Control: called by threads of the admin and the metrics listener

    def reload(self, *, lift_rollback: bool = False) -> Reload:
        """See `Control.reload`."""
        return self._request(lambda change: self._reload(change, lift_rollback=lift_rollback))

    def rollback(self) -> Reload:
        """See `Control.rollback`."""
        return self._request(self._roll_back)

    def status(self) -> ServiceStatus:
        """See `Control.status`."""
        current, previous = self._current, self._previous
        # The workers are asked each second while they serve, so the loop turns as often.
        stalled_for = self._loop.stalled_for if self._serving else 0.0
        is_stalled = stalled_for >= _STALLED
        return ServiceStatus(
            serving=(
                self._serving and not self._drained and self._workers.serving and not is_stalled
            ),
            stalled_for=stalled_for if is_stalled else 0.0,
            dataset="" if current is None else current.dataset.id,
            previous="" if previous is None else previous.dataset.id,
            started=self._started,
            last_reload=self._last_reload,
            last_reload_time=self._last_reload_time,
            workers=self._workers.statuses(),
            reloads=dict(self._outcomes),
            expired_overrides=() if current is None else current.dataset.expired_overrides(),
            age=None if current is None else current.dataset.age,
            kept_too_long=() if current is None else current.dataset.kept_too_long(),
            held_back=self._hold.held_back(),
            overrides=None if current is None else current.runtime_overrides,
        )

    def drain(self) -> None:
        """See `Control.drain`."""
        self._set_drained(True)

    def resume(self) -> None:
        """See `Control.resume`."""
        self._set_drained(False)

    def _set_drained(self, drained: bool) -> None:
        done: Future[None] = Future()

        def begin() -> None:
            if self._stopping:
                done.set_result(None)
                return
            self._drained = drained
            log.event("drain" if drained else "resume")
            self._drains.add(done)
            self._workers.drain(drained, lambda _: self._finish_drain(done))

        if self._loop.call_threadsafe(begin):
            done.result()

    def _finish_drain(self, done: Future[None]) -> None:
        if done in self._drains:
            self._drains.remove(done)
            done.set_result(None)

    def _request(self, begin: Callable[[_Change], None]) -> Reload:
        change = _Change(begin)
        if not self._loop.call_threadsafe(lambda: self._change(change)):
            return self._refused("the service is stopping")
        return change.future.result()

    def _current_dataset(self) -> Dataset | None:
        return None if self._current is None else self._current.dataset

    # --- changes of the dataset

    def _change(self, change: _Change) -> None:
        if self._stopping or not self._serving:
            change.future.set_result(self._refused("the service is not serving"))
            return
        if self._changing is not None:
            self._waiting.append(change)
            return
        self._changing = change
        change.started = self._loop.clock()
        change.begin(change)

    def _finish(self, change: _Change, reload: Reload) -> None:
        if change is not self._changing:
            return  # the service stops, and the caller has its result
        self._last_reload, self._last_reload_time = reload, datetime.now(UTC)
        self._outcomes[reload.outcome] += 1
        fields: log.Fields = {"outcome": reload.outcome.value, "dataset": reload.dataset}
        if reload.previous:
            fields["previous"] = reload.previous
        if reload.reason:
            fields["reason"] = reload.reason
        fields["seconds"] = self._loop.clock() - change.started
        log.event("reload", "error" if reload.outcome is Outcome.REFUSED else "info", **fields)
        if reload.outcome is Outcome.SWAPPED:
            self._manager.notify(f"STATUS=Serving {reload.dataset}")
            self._reported_ages.clear()
            self._report_age()
        self._end(change, reload)

    def _end(self, change: _Change, result: Reload) -> None:
        change.future.set_result(result)
        self._changing = None
        if self._waiting:
            self._change(self._waiting.popleft())

    def _reload(self, change: _Change, *, lift_rollback: bool = False) -> None:
        self._watch.mark_read()
        before = self._current

        def on_failed(error: BaseException) -> None:
            if isinstance(error, TransientError):
                self._watch.mark_changed()
            self._finish(change, self._refused(_reason(error, "Reload")))

        def on_loaded(found: LoadedDataset) -> None:
            if before is not None and found.identity == before.identity:
                found.close()
                self._finish_held(change, Outcome.UNCHANGED, found.hold)
            else:
                self._swap(change, found, found.hold, keep=False)

        hold = Hold() if lift_rollback else self._hold
        self._run_in_background(
            lambda: dataset_loading.load(self._settings, before, hold), on_loaded, on_failed
        )

    def _roll_back(self, change: _Change) -> None:
        if self._current is None or self._previous is None:
            self._finish(change, self._refused("there is no dataset to return to"))
        else:
            previous = self._previous
            hold = self._hold.after_rollback(self._current.identity, previous.identity)
            now = ages.clock()
            if previous.until is None or now < previous.until:
                self._swap(change, previous, hold, keep=True)
                return
            # Overrides in it have expired since.
            self._run_in_background(
                lambda: dataset_loading.renew(previous, self._settings, now),
                lambda found: self._swap(change, found, hold, keep=False),
                lambda error: self._finish(change, self._refused(_reason(error, "Rollback"))),
            )

    def _finish_held(self, change: _Change, outcome: Outcome, hold: Hold) -> None:
        """Finish a change after which *hold* is held back; keep that for a restart first."""
        reason = str(hold) if hold and outcome is Outcome.UNCHANGED else ""
        if hold == self._hold:
            self._finish(change, self._outcome(outcome, reason))
            return
        self._hold = hold
        kept = self._current
        assert kept is not None  # noqa: S101 - something was loaded

        def on_written(_: None) -> None:
            self._finish(change, self._outcome(outcome, reason))

        def on_failed(error: BaseException) -> None:
            # The rollback holds all the same, for as long as this process runs.
            why = error.strerror if isinstance(error, OSError) else log.describe(error)
            problem = f"a restart ends the rollback: {self._rollback_folder.path}: {why}"
            log.event("rollback", "warning", dataset=kept.dataset.id, reason=problem)
            self._finish(change, self._outcome(outcome, problem))

        def write() -> None:
            contents = [b"" if part is None else part.map() for part in kept.parts]
            self._rollback_folder.write(hold, contents, kept.signature)

        self._run_in_background(write, on_written, on_failed)

    def _swap(self, change: _Change, found: LoadedDataset, hold: Hold, *, keep: bool) -> None:
        """Have all workers open a dataset, and answer from it once all have opened it.

        Args:
            change: the reload or rollback.
            found: the dataset.
            hold: what is held back afterwards.
            keep: whether to keep the dataset open if a worker refuses it.
        """
        self._generation += 1
        generation = self._generation

        def on_loaded(broadcast: Broadcast) -> None:
            if broadcast.problems or self._stopping:
                self._workers.discard(generation)
                if not keep:
                    found.close()
                # A worker that ended or had no memory says nothing about the file.
                self._watch.mark_changed()
                reason = broadcast.problems[0] if broadcast.problems else "the service is stopping"
                self._finish(change, self._refused(reason))
                return
            outdated = self._previous
            self._previous, self._current = self._current, found
            if outdated is not None and outdated is not found:
                outdated.close()
            self._workers.deploy(generation, found)
            self._workers.swap(generation, on_swapped)

        def on_swapped(_: Broadcast) -> None:
            # A worker that did not swap has ended, and its successor has the new dataset.
            self._finish_held(change, Outcome.SWAPPED, hold)

        self._workers.load(generation, found, on_loaded)

    def _outcome(self, outcome: Outcome, reason: str = "") -> Reload:
        current, previous = self._current, self._previous
        return Reload(
            outcome,
            "" if current is None else current.dataset.id,
            "" if previous is None else previous.dataset.id,
            reason,
        )

    def _refused(self, reason: str) -> Reload:
        return self._outcome(Outcome.REFUSED, reason)

    # --- overrides that expire

    def _check_expiry(self) -> None:
        if self._stopping:
            return
        wait = _EXPIRY_INTERVAL
        current = self._current
        if current is not None and current.until is not None:
            left = current.until - ages.clock()
            if left > 0:
                wait = min(wait, left)
                if left <= _EXPIRY_LEAD:
                    self._prepare_expiry(current, current.until)
            elif self._changing is None:
                self._change(_Change(self._expire))
        self._loop.call_later(wait, self._check_expiry)

    def _prepare_expiry(self, current: LoadedDataset, until: float) -> None:
        """Have ready what follows the dataset in service when its next override expires."""
        if self._preparing or (self._ahead is not None and self._ahead.current is current):
            return
        self._forget_ahead()
        self._preparing = True

        def on_done(found: LoadedDataset) -> None:
            self._preparing = False
            if self._stopping or self._current is not current:
                found.close()
                return
            self._generation += 1
            self._ahead = _Ahead(current, found, self._generation)
            # Workers open it now, and again at the time if they did not: that takes them long.
            self._workers.load(self._generation, found, lambda _: None)

        def on_failed(_: BaseException) -> None:
            self._preparing = False  # it is tried again at the time, and then logged

        self._run_in_background(
            lambda: dataset_loading.renew(current, self._settings, until), on_done, on_failed
        )

    def _forget_ahead(self) -> None:
        if self._ahead is not None:
            self._workers.discard(self._ahead.generation)
            self._ahead.found.close()
            self._ahead = None

    def _expire(self, change: _Change) -> None:
        """Have all workers answer from a dataset in which what has expired does not act."""
        current = self._current
        assert current is not None  # noqa: S101 - it has overrides
        ahead = self._ahead
        if ahead is not None and ahead.current is current:
            self._ahead = None
            self._replace_expired(change, ahead.found, ahead.generation)
            return
        self._generation += 1
        generation = self._generation
        now = ages.clock()
        self._run_in_background(
            lambda: dataset_loading.renew(current, self._settings, now),
            lambda found: self._replace_expired(change, found, generation),
            lambda error: self._end_expiry(change, _reason(error, "Expiry")),
        )

    def _replace_expired(self, change: _Change, found: LoadedDataset, generation: int) -> None:
        def on_loaded(broadcast: Broadcast) -> None:
            if broadcast.problems or self._stopping:
                self._workers.discard(generation)
                found.close()
                self._end_expiry(change, broadcast.problems[0] if broadcast.problems else "")
                return
            expired, self._current = self._current, found
            self._workers.deploy(generation, found)
            self._workers.swap(generation, lambda _: on_swapped(expired))

        def on_swapped(expired: LoadedDataset | None) -> None:
            assert expired is not None and found.runtime_overrides is not None  # noqa: S101, PT018
            over = found.runtime_overrides
            log.event(
                "expiry",
                dataset=found.dataset.id,
                previous=expired.dataset.id,
                reason=f"of the overrides {over.expired:,} have expired and {over.active:,} act",
            )
            # The dataset to which a rollback returns is the same as before.
            expired.close()
            self._manager.notify(f"STATUS=Serving {found.dataset.id}")
            self._end_expiry(change, "")

        self._workers.load(generation, found, on_loaded)

    def _end_expiry(self, change: _Change, problem: str) -> None:
        """Finish; after a problem it is tried again."""
        if problem and self._current is not None:
            log.event("expiry", "error", dataset=self._current.dataset.id, reason=problem)
        if change is self._changing:
            self._end(change, self._outcome(Outcome.UNCHANGED))

    # --- periodic checks

    def _check_files(self) -> None:
        if self._stopping:
            return
        if self._changing is None and self._watch.poll():
            self._change(_Change(self._reload))
        self._loop.call_later(self._settings.watch, self._check_files)

    def _feed_watchdog(self) -> None:
        """Show systemd that this loop runs, in which workers are probed, replaced and stopped."""
        if self._manager.watchdog is not None:
            self._manager.notify("WATCHDOG=1")
            # Twice as often as needed, as sd_watchdog_enabled(3) recommends.
            self._loop.call_later(self._manager.watchdog / 2, self._feed_watchdog)

    def _check_age(self) -> None:
        if not self._stopping:
            self._report_age()
            self._loop.call_later(_AGE_INTERVAL, self._check_age)

    def _report_refusals(self, report: log.CountReport) -> None:
        report.update()
        if not self._stopping:
            self._loop.call_later(_REPORT_INTERVAL, lambda: self._report_refusals(report))

    def _shed(self) -> int:
        return sum(counters.total(self._workers.counters()).shed)

    def _denied(self) -> int:
        code = counters.CODES.index("PERMISSION_DENIED")
        denied = sum(counts[code] for counts in counters.total(self._workers.counters()).calls)
        return denied + (0 if self._admin is None else self._admin.denied)

    # --- work in another thread

    def _run_in_background(
        self,
        work: Callable[[], _T],
        on_done: Callable[[_T], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        def on_finished(future: Future[_T]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:
                self._loop.call_threadsafe(lambda: on_failed(error))
            else:
                self._loop.call_threadsafe(lambda: on_done(future.result()))

        self._loader.submit(work).add_done_callback(on_finished)


def _url(settings: Settings, address: ListenAddress) -> str:
    """Return where an HTTP client connects; the address itself, if it is a unix socket's."""
    scheme = "http" if settings.tls_certificate is None else "https"
    return str(address) if address.path else f"{scheme}://{address}"


def _reason(error: BaseException, method: str) -> str:
    """Return why something failed, and log what was not foreseen."""
    if isinstance(error, GeoLookupError):
        return str(error)
    log.event("call_failed", "error", method=method, error=log.describe(error))
    return "an internal error"


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What follows the dataset in service when its next override expires.

    Attributes:
        current: the dataset in service.
        found: what follows it.
        generation: the number by which workers know that.
    """

    current: LoadedDataset
    found: LoadedDataset
    generation: int


class _Change:
    """A reload, a rollback or an expiry, whose caller waits for the future."""

    def __init__(self, begin: Callable[[_Change], None]) -> None:
        self.begin = begin
        self.started = 0.0  # by the event loop's clock
        self.future: Future[Reload] = Future()
