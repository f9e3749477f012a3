"""A worker: one process that maps the sealed dataset and answers clients.

It does what its supervisor says over the channel, and ends when that is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap

from geolookup.errors import GeoLookupError
from geolookup.service import log
from geolookup.service.processes import operating_system

log.silence_grpc()  # before gRPC is loaded

from geolookup.service import tls  # noqa: E402
from geolookup.service.monitoring import tracing  # noqa: E402
from geolookup.service.monitoring.counters import Meter  # noqa: E402
from geolookup.service.processes.channel import Channel, ChannelError, Message  # noqa: E402
from geolookup.service.processes.dataset_loading import open_rules, open_sealed  # noqa: E402
from geolookup.service.processes.event_loop import EventLoop  # noqa: E402
from geolookup.service.processes.sealed_memory import SealedCopy  # noqa: E402
from geolookup.service.processes.workers import MARGIN, START_PATIENCE  # noqa: E402
from geolookup.service.rpc import transports  # noqa: E402
from geolookup.service.rpc.calls import Calls  # noqa: E402
from geolookup.service.rpc.handlers import Snapshot  # noqa: E402
from geolookup.service.settings import ListenAddress, ListenError, Settings  # noqa: E402

_FAILED = 1


def main(descriptor: int, supervisor: int) -> None:
    """Run a worker until it is told to end, then end this process.

    Args:
        descriptor: of its end of the channel.
        supervisor: the process id of its supervisor.
    """
    channel = Channel.of_descriptor(descriptor)
    code = _FAILED
    try:
        code = _run(channel, supervisor)
    except Exception as error:
        log.event("call_failed", "error", method="worker", error=log.describe(error))
    finally:
        # Not sys.exit: the line must close last, since its end is the worker's end for the
        # supervisor, and no thread may hold up an end that was waited for.
        sys.stderr.flush()
        os._exit(code)


def _run(channel: Channel, supervisor: int) -> int:
    with operating_system.Signals(signal.SIGTERM) as signals, EventLoop() as loop:
        operating_system.end_with_parent(supervisor)
        # Held back until now, when there is somebody to hear them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        prepare = channel.receive()
        if prepare is None or prepare.kind != "prepare":
            return 0
        worker = _Worker(channel, loop, prepare)
        loop.add_reader(channel.fileno(), worker.hear)
        loop.add_reader(signals.fileno(), lambda: worker.signalled(signals.read()))
        loop.run()
        return worker.exit_code


@dataclass
class _Opened:
    """A dataset that a message brought, open in this process."""

    generation: int
    snapshot: Snapshot


class _Worker:
    """The state of a worker. All of it belongs to the loop's thread."""

    def __init__(self, channel: Channel, loop: EventLoop, prepare: Message) -> None:
        settings_memory, meter_memory = prepare.descriptors
        size = os.fstat(settings_memory).st_size
        # Our own process wrote it, into memory that nobody else can open.
        self._settings: Settings = pickle.loads(os.pread(settings_memory, size, 0))  # noqa: S301
        log.install(self._settings.log_format, self._settings.log_level)
        if not self._settings.core_dumps:
            operating_system.forbid_core_dumps()
        self._meter = Meter(mmap(meter_memory, Meter.SIZE))
        prepare.close()
        # Now, since a spare has the time for it, and clients wait for one that is to start.
        transports.preload(self._settings)
        tracing.preload(self._settings)
        self._listen: ListenAddress | None = None
        self._channel = channel
        self._loop = loop
        self._serving = True
        self._loaded: _Opened | None = None
        self._calls: Calls | None = None
        self._transport: transports.Transport | None = None
        self._tracer: tracing.Tracer | None = None
        self._stopping = False
        self.exit_code = 0

    # --- what it hears

    def hear(self) -> None:
        """Do what the supervisor says; end when it is gone."""
        try:
            message = self._channel.receive()
        except ChannelError:
            message = None
        if message is None:
            # Nobody is left who could reload, count or stop: this one finishes its calls.
            self._loop.remove_reader(self._channel.fileno())
            self._stop(self._settings.grace)
            return
        try:
            getattr(self, f"_do_{message.kind}")(message)
        finally:
            message.close()

    def signalled(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Ask to be let go: the supervisor says when, as it knows who takes the place."""
        if signal.SIGTERM in numbers:
            self._tell("leaving")
            self._loop.call_later(START_PATIENCE, lambda: self._stop(self._settings.grace))

    def _do_start(self, message: Message) -> None:
        """Take a place. To serve it needs a dataset as well."""
        self._listen = ListenAddress.parse(str(message.fields["listen"]))
        number = int(message.fields["number"])
        log.install(self._settings.log_format, self._settings.log_level, worker=number)

    def _do_load(self, message: Message) -> None:
        """Open a dataset beside the one that it answers from."""
        fields = message.fields
        if self._loaded is not None and self._loaded.generation == fields["generation"]:
            self._answer(message, "")  # as a spare it was told before, and has had the time
            return
        error = ""
        try:
            if message.incomplete:
                raise GeoLookupError("no file descriptor is free")
            descriptors = iter(message.descriptors)
            file = SealedCopy(next(descriptors), str(fields["name"]), int(fields["size"]))
            # In the order in which crew.py sends them.
            region_sets, rules = (
                SealedCopy(next(descriptors), str(fields[name]), int(fields[f"{name}_size"]))
                if name in fields
                else None
                for name in ("region_sets", "rules")
            )
            dataset = open_sealed(file, region_sets)
            snapshot = Snapshot(dataset, open_rules(rules, dataset))
            self._loaded = _Opened(int(fields["generation"]), snapshot)
        except GeoLookupError as problem:
            error = str(problem)
        except (OSError, MemoryError) as problem:
            error = f"can't map the dataset: {getattr(problem, 'strerror', '') or 'no memory'}"
        self._answer(message, error)

    def _do_swap(self, message: Message) -> None:
        """Answer from the dataset that was loaded; begin to serve, if this is the first."""
        error, begins = "", False
        if self._loaded is None or self._loaded.generation != message.fields["generation"]:
            error = "has not loaded it"
        else:
            snapshot = self._loaded.snapshot
            # Calls in flight keep the one before, which is unmapped when the last of them ends.
            self._loaded = None
            if self._calls is not None:
                self._calls.snapshot = snapshot
            else:
                begins = self._serve(snapshot)
        self._answer(message, error)
        if begins:  # after the answer, so that what it answers from is known when it is ready
            self._tell("ready")

    def _do_forget(self, message: Message) -> None:
        """Drop a dataset that was loaded and will not be answered from."""
        if self._loaded is not None and self._loaded.generation == message.fields["generation"]:
            self._loaded = None

    def _do_health(self, message: Message) -> None:
        """Have health checks say what the message says."""
        self._serving = bool(message.fields["serving"])
        if self._transport is not None:
            self._transport.health(self._serving)
        self._answer(message, "")

    def _do_look(self, _message: Message) -> None:
        """Look at the certificates' files now."""
        tls.look_again()

    def _do_stop(self, message: Message) -> None:
        """End after the calls in flight, or after a time."""
        self._stop(float(message.fields["grace"]))

    # --- what it says

    def _answer(self, message: Message, error: str) -> None:
        dataset = "" if self._calls is None else self._calls.snapshot.dataset.id
        self._tell("answer", round=message.fields["round"], error=error, dataset=dataset)

    def _tell(self, kind: str, **fields: object) -> None:
        with suppress(ChannelError):  # its end is heard of by `hear`
            self._channel.send(kind, **fields)

    # --- what it does

    def _serve(self, snapshot: Snapshot) -> bool:
        """Begin to take calls; False: that can't be, and this process ends."""
        assert self._listen is not None  # noqa: S101 - the first that it is told is to start
        try:
            self._tracer = tracing.tracer(self._settings)
            calls = Calls(self._settings, self._meter, snapshot, self._tracer)
            self._transport = transports.open_transport(
                self._settings, calls, self._listen, share_port=not self._listen.path
            )
        except GeoLookupError as error:
            listen = isinstance(error, ListenError)
            self._tell("failed", reason=str(error), listen=listen)
            self.exit_code = _FAILED
            self._loop.stop()
            return False
        self._calls = calls
        self._transport.health(self._serving)
        return True

    def _stop(self, grace: float) -> None:
        if self._transport is None:
            self._loop.stop()
            return
        # Whatever happens now, it does not outlast this.
        operating_system.end_within(grace + MARGIN)
        stopped = self._transport.stop(grace)
        if not self._stopping:
            self._stopping = True
            threading.Thread(target=self._end_after, args=(stopped,), daemon=True).start()

    def _end_after(self, stopped: threading.Event) -> None:
        stopped.wait()
        if self._tracer is not None:
            self._tracer.stop()
        self._loop.call_threadsafe(self._loop.stop)
