"""The main program of a worker: it maps the sealed dataset and answers clients.

The supervisor controls it over the channel. It ends when the supervisor has ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap
from typing import TYPE_CHECKING

from geolookup.errors import GeoLookupError
from geolookup.service import log
from geolookup.service.processes import operating_system

log.silence_grpc()  # before gRPC is loaded

from geolookup.service import tls  # noqa: E402
from geolookup.service.monitoring import tracing  # noqa: E402
from geolookup.service.monitoring.counters import Counters  # noqa: E402
from geolookup.service.processes import messages  # noqa: E402
from geolookup.service.processes.channel import Channel, ChannelError, Packet  # noqa: E402
from geolookup.service.processes.dataset_loading import open_rules, open_sealed  # noqa: E402
from geolookup.service.processes.event_loop import EventLoop  # noqa: E402
from geolookup.service.processes.messages import (  # noqa: E402
    START_TIMEOUT,
    STOP_MARGIN,
    Discard,
    Failed,
    Load,
    Prepare,
    Ready,
    ReloadCertificates,
    Reply,
    RetireConnections,
    SetHealth,
    Start,
    Stop,
    StopRequested,
    Swap,
)
from geolookup.service.rpc import http_json, transports  # noqa: E402
from geolookup.service.rpc.calls import Calls  # noqa: E402
from geolookup.service.rpc.handlers import Snapshot  # noqa: E402
from geolookup.service.settings import ListenAddress, ListenError, Settings  # noqa: E402

if TYPE_CHECKING:
    from geolookup.service.rpc.http_json.listener import HttpListener

_FAILED = 1
_MEMORY_INTERVAL = 2.0
"""Seconds between looks at whether memory can be given back."""
_LEAST_FREED = 1 << 20
"""Bytes for which that is done."""


def main(descriptor: int, supervisor: int) -> None:
    """Run a worker until the supervisor stops it, then end this process.

    Args:
        descriptor: of this process's end of the channel.
        supervisor: process id of the supervisor.
    """
    channel = Channel.of_descriptor(descriptor)
    code = _FAILED
    try:
        code = _run(channel, supervisor)
    except Exception as error:
        log.event("call_failed", "error", method="worker", error=log.describe(error))
    finally:
        # Not sys.exit: no thread may delay the end, and the channel must close last, since
        # its end is the worker's end for the supervisor.
        log.flush()
        os._exit(code)


def _run(channel: Channel, supervisor: int) -> int:
    with operating_system.Signals(signal.SIGTERM) as signals, EventLoop() as loop:
        operating_system.end_with_parent(supervisor)
        # Blocked until now, when its handler is installed.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        packet = channel.receive()
        if packet is None:
            return 0
        worker = _Worker(channel, loop, packet)
        loop.add_reader(channel.fileno(), worker.on_readable)
        loop.add_reader(signals.fileno(), lambda: worker.on_signals(signals.read()))
        loop.run()
        return worker.exit_code


@dataclass
class _LoadedSnapshot:
    """A dataset that is open in this process and not yet in service."""

    generation: int
    snapshot: Snapshot


class _Worker:
    """The state of a worker. All of it belongs to the event loop's thread."""

    def __init__(self, channel: Channel, loop: EventLoop, packet: Packet) -> None:
        prepare = messages.decode_to_worker(packet)
        if not isinstance(prepare, Prepare):
            raise TypeError("the first message does not prepare a worker")
        size = os.fstat(prepare.settings).st_size
        # The supervisor wrote it, into memory that no other program can open.
        self._settings: Settings = pickle.loads(os.pread(prepare.settings, size, 0))  # noqa: S301
        self._counters = Counters(mmap(prepare.counters, Counters.SIZE))
        log.install(
            self._settings.log_format,
            self._settings.log_level,
            on_dropped=self._counters.log_dropped,
        )
        if not self._settings.core_dumps:
            operating_system.forbid_core_dumps()
        operating_system.bound_allocator()
        self._supervisor = socket.socket(fileno=os.dup(prepare.supervisor))
        packet.close()
        # Now, since a standby has time for it, and clients wait for a worker that starts.
        transports.preload(self._settings)
        http_json.preload(self._settings)
        tracing.preload(self._settings)
        self._listen: ListenAddress | None = None
        self._http_listen: ListenAddress | None = None
        self._channel = channel
        self._loop = loop
        self._serving = True
        self._loaded: _LoadedSnapshot | None = None
        self._calls: Calls | None = None
        self._transport: transports.Transport | None = None
        self._http: HttpListener | None = None
        self._tracer: tracing.Tracer | None = None
        self._stopping = False
        self.exit_code = 0

    def on_readable(self) -> None:
        """Do what the supervisor's next message says; stop if the supervisor has ended."""
        try:
            packet = self._channel.receive()
        except ChannelError:
            packet = None
        if packet is None:
            # Without a supervisor nothing reloads, counts or stops this worker.
            self._loop.remove_reader(self._channel.fileno())
            self._stop(self._settings.grace)
            return
        try:
            self._on_message(messages.decode_to_worker(packet))
        finally:
            packet.close()

    def on_signals(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Request a stop: the supervisor sends it when another worker has taken over."""
        if signal.SIGTERM in numbers:
            self._send(StopRequested())
            self._loop.call_later(START_TIMEOUT, lambda: self._stop(self._settings.grace))

    def _on_message(self, message: messages.ToWorker) -> None:
        match message:
            case Start():
                self._on_start(message)
            case Load():
                self._reply(message.broadcast, self._load(message))
            case Swap():
                self._on_swap(message)
            case Discard():
                if self._has_loaded(message.generation):
                    self._loaded = None
            case SetHealth():
                self._serving = message.serving
                if self._transport is not None:
                    self._transport.health(self._serving)
                self._reply(message.broadcast, "")
            case ReloadCertificates():
                tls.reload_changed()
            case RetireConnections():
                self._retire_connections()
            case Stop():
                self._stop(message.grace)
            case Prepare():
                raise TypeError("a worker is prepared once")

    def _on_start(self, message: Start) -> None:
        self._listen = ListenAddress.parse(message.listen)
        self._http_listen = ListenAddress.parse(message.http, "http") if message.http else None
        settings = self._settings
        log.install(settings.log_format, settings.log_level, worker=message.number)

    def _retire_connections(self) -> None:
        for listener in (self._transport, self._http):
            if listener is not None:
                listener.retire_connections()

    def _has_loaded(self, generation: int) -> bool:
        return self._loaded is not None and self._loaded.generation == generation

    def _load(self, message: Load) -> str:
        """Open a dataset beside the one in service; return an error text, or nothing."""
        if self._has_loaded(message.generation):
            return ""  # done early, as a standby
        try:
            if not message.is_complete:
                raise GeoLookupError("no file descriptor is free")
            dataset = open_sealed(message.file, message.region_sets, self._settings)
            snapshot = Snapshot(dataset, open_rules(message.rules, dataset))
            self._loaded = _LoadedSnapshot(message.generation, snapshot)
            if self._transport is not None:
                self._transport.prepare(snapshot)
        except GeoLookupError as error:
            return str(error)
        except (OSError, MemoryError) as error:
            return f"can't map the dataset: {getattr(error, 'strerror', '') or 'no memory'}"
        return ""

    def _on_swap(self, message: Swap) -> None:
        """Answer from the dataset that was loaded; begin to serve if it is the first."""
        if self._loaded is None or not self._has_loaded(message.generation):
            self._reply(message.broadcast, "has not loaded it")
            return
        snapshot = self._loaded.snapshot
        # Calls in flight keep the old dataset, which is unmapped when the last of them ends.
        self._loaded = None
        started = False
        if self._calls is not None:
            self._calls.snapshot = snapshot
        else:
            started = self._serve(snapshot)
        self._reply(message.broadcast, "")
        if started:  # after the reply, which tells the supervisor the dataset's id
            self._send(Ready())

    def _reply(self, broadcast: int, error: str) -> None:
        dataset = "" if self._calls is None else self._calls.snapshot.dataset.id
        self._send(Reply(broadcast, dataset, error))

    def _send(self, message: messages.FromWorker) -> None:
        with suppress(ChannelError):  # `on_readable` notices the end of the channel
            messages.send(self._channel, message)

    def _serve(self, snapshot: Snapshot) -> bool:
        """Begin to take calls; False: it is not possible, and this process ends."""
        assert self._listen is not None  # noqa: S101 - `Start` comes first
        try:
            self._tracer = tracing.tracer(self._settings)
            calls = Calls(self._settings, self._counters, snapshot, self._tracer)
            self._transport = transports.open_transport(
                self._settings,
                calls,
                self._listen,
                share_port=not self._listen.path,
                supervisor=self._supervisor,
            )
            if self._http_listen is not None:
                self._http = http_json.open_listener(
                    self._settings,
                    calls,
                    self._http_listen,
                    share_port=not self._http_listen.path,
                )
        except GeoLookupError as error:
            self._send(Failed(str(error), isinstance(error, ListenError)))
            self.exit_code = _FAILED
            self._loop.stop()
            return False
        self._calls = calls
        self._loop.call_later(_MEMORY_INTERVAL, self._check_memory)
        self._transport.health(self._serving)
        operating_system.return_free_memory()  # reading a dataset takes twice what it leaves
        return True

    def _check_memory(self) -> None:
        """Give memory back to the system when large requests are over."""
        if self._counters.memory_freed(_LEAST_FREED):
            operating_system.return_free_memory()
        self._loop.call_later(_MEMORY_INTERVAL, self._check_memory)

    def _stop(self, grace: float) -> None:
        if self._transport is None:
            self._loop.stop()
            return
        # A limit for all that follows, whatever hangs.
        operating_system.end_within(grace + STOP_MARGIN)
        stopped = [self._transport.stop(grace)]
        if self._http is not None:
            stopped.append(self._http.stop(grace))
        if not self._stopping:
            self._stopping = True
            threading.Thread(target=self._end_after, args=(stopped,), daemon=True).start()

    def _end_after(self, stopped: list[threading.Event]) -> None:
        for event in stopped:
            event.wait()
        if self._tracer is not None:
            self._tracer.stop()
        self._loop.call_threadsafe(self._loop.stop)
