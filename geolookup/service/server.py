"""The server: gRPC's own, with a pool of threads, around the handlers.

Threads and not asyncio, because they answered more calls a second on one core;
bench/server_styles.py measures both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from geolookup.dataset import open as open_dataset
from geolookup.service import handlers, log
from geolookup.service.handlers import INTERNAL_ERROR, Code, RequestError, Snapshot
from geolookup.service.settings import Limits, ListenAddress, ListenError, Settings

if TYPE_CHECKING:
    from types import FrameType

    from geolookup.dataset import Dataset

SERVICE: Final = "geolookup.v1.GeoLookupService"
UNARY: Final = {
    "Lookup": handlers.lookup,
    "ClassifyRoster": handlers.classify_roster,
    "Explain": handlers.explain,
    "ListRegionSets": handlers.list_region_sets,
    "GetDataset": handlers.get_dataset,
}

_STATUS: Final = {
    Code.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}
_STOPPED = b"\0"
"""Woken by this byte and not by a signal's number: the server has stopped."""


class _Handler(Protocol):
    def __call__(self, snapshot: Snapshot, body: bytes, limits: Limits, /) -> bytes: ...


class Server:
    """A running service over one dataset, which stays the caller's to close.

    Made listening and answering; `stop` ends it. Safe to use from several threads.
    gRPC objects don't survive a fork: make it in the process that serves.

    Raises:
        ListenError: the address can't be listened on.
    """

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.snapshot = Snapshot(dataset)
        self._limits = settings.limits
        self._stream_slots = threading.Semaphore(settings.streams)
        self._max_streams = settings.streams
        # Streams (reflection is one, too) have threads of their own, or a few open
        # ones would take those of all other calls. Two more refuse what is over the limit.
        self._stream_pool = ThreadPoolExecutor(settings.streams + 2, "geolookup-stream")
        self._pool = ThreadPoolExecutor(settings.threads, "geolookup-call")
        self._server = grpc.server(
            self._pool,
            options=[
                # A port in use must be an error, not a port shared in silence.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.limits.message_bytes),
            ],
        )
        # Calls that last as long as the client likes; they must not hold up a stop.
        self._lasting = _LastingCalls()
        self._health = health.HealthServicer()
        self._add_services()
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            self.address = self._listen(ListenAddress.parse(settings.listen))
            self._server.start()
        except BaseException:
            self._pool.shutdown()
            self._stream_pool.shutdown()
            raise

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        New calls are refused at once. Those in flight have *grace* seconds to
        finish, then they are cancelled. A second call with a shorter grace
        shortens it.
        """
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace)
        self._lasting.cancel()
        return stopped

    def _listen(self, address: ListenAddress) -> ListenAddress:
        if address.path:
            _check_socket_path(address.path)
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError:
            # gRPC's text says only that it failed.
            raise ListenError(f"listen: {_why_not(address)}") from None
        return address.with_port(port)

    def _add_services(self) -> None:
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(name, handler))
            for name, handler in UNARY.items()
        }
        methods["StreamRosters"] = grpc.stream_stream_rpc_method_handler(
            self._in_stream_pool(self._stream_rosters)
        )
        # Both, as the generated code does it: the second finds a method faster.
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )
        self._server.add_registered_method_handlers(SERVICE, methods)

        # HealthServicer marks its method to be run without a thread of its own.
        watch = self._lasting.tracked(self._health.Watch)
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        self._health.Watch = watch
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection.ReflectionServicer(names)
        reflecting.ServerReflectionInfo = self._in_stream_pool(
            self._lasting.tracked(reflecting.ServerReflectionInfo)
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, self._server)

    # Requests and responses stay bytes here: what gRPC would log of a request
    # that can't be read is then never its concern, and a response is made once.

    def _unary(
        self, name: str, handler: _Handler
    ) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return handler(self.snapshot, body, self._limits)
            except RequestError as error:
                refusal = error
            except Exception as error:
                refusal = _unexpected(name, error)
            _abort(context, refusal)

        return answer

    def _stream_rosters(
        self, bodies: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        snapshot = self.snapshot
        # One roster at a time: a client that is ahead waits in HTTP/2's flow
        # control, and one that reads slowly holds up only itself.
        for position, body in enumerate(bodies):
            try:
                response = handlers.stream_rosters(snapshot, body, self._limits, position)
            except RequestError as error:
                refusal = error
            except Exception as error:
                refusal = _unexpected("StreamRosters", error)
            else:
                yield response
                continue
            _abort(context, refusal)

    def _in_stream_pool(self, behaviour: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def in_stream_pool(requests: object, context: grpc.ServicerContext) -> Iterator[Any]:
            if not self._stream_slots.acquire(blocking=False):
                text = f"streams: over the limit of {self._max_streams}"
                _abort(context, RequestError(Code.RESOURCE_EXHAUSTED, text))
            try:
                yield from behaviour(requests, context)
            finally:
                self._stream_slots.release()

        in_stream_pool.experimental_thread_pool = self._stream_pool  # type: ignore[attr-defined]
        return in_stream_pool


class _LastingCalls:
    """Calls that are cancelled, and not waited for, when the server stops."""

    def __init__(self) -> None:
        # Guards both; nothing that may wait happens while it is held.
        self._lock = threading.Lock()
        self._contexts: set[grpc.ServicerContext] = set()
        self._cancelled = False

    def tracked(self, behaviour: Callable[..., object]) -> Callable[..., object]:
        def tracking(request: object, context: grpc.ServicerContext, *rest: object) -> object:
            self._add(context)
            return behaviour(request, context, *rest)

        return tracking

    def _add(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            late = self._cancelled
            self._contexts.add(context)
        if late:
            context.cancel()
        if not context.add_callback(lambda: self._discard(context)):
            self._discard(context)

    def _discard(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._contexts.discard(context)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            contexts = list(self._contexts)
        for context in contexts:
            context.cancel()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly; a second signal stops at once.

    For the main thread of a process that does nothing else. When the server is
    ready, its address, the dataset's id and build date, and the attributions
    that the sources' licences ask for are printed, each as ``name: value``. The
    log goes to stderr.

    Raises:
        DatasetError: the dataset can't be opened, or is not signed as it should be.
        RegionSetError: the file of region sets makes no sense.
        ListenError: the address can't be listened on.
    """
    with (
        _Signals() as signals,
        open_dataset(
            settings.dataset, region_sets=settings.region_sets, public_key=settings.public_key
        ) as dataset,
    ):
        log.install()
        server = Server(dataset, settings)
        try:
            sys.stdout.write("".join(f"{line}\n" for line in _announcement(server, dataset)))
            sys.stdout.flush()
            log.logger.info("ready, dataset %s", dataset.id)
            signals.wait()
        finally:
            log.logger.info("stopping")
            stopped = server.stop(settings.grace)
            waiting = threading.Thread(target=_wake_when, args=(stopped, signals))
            waiting.start()
            if signals.wait() != _STOPPED:
                log.logger.warning("told to stop twice: calls in flight are cancelled")
                server.stop(0)
            waiting.join()
            log.logger.info("stopped")


def _wake_when(stopped: threading.Event, signals: _Signals) -> None:
    stopped.wait()
    signals.wake()


def _announcement(server: Server, dataset: Dataset) -> Iterator[str]:
    yield f"address: {server.address}"
    yield f"dataset: {dataset.id}"
    yield f"built: {dataset.built.date().isoformat()}"
    for attribution in dataset.attributions:
        yield f"attribution: {attribution}"


class _Signals:
    """SIGTERM and SIGINT as something to wait for."""

    _STOP = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> _Signals:
        # The interpreter writes each signal's number into a socket: unlike code
        # in a signal handler, that can't meet a lock that the main thread holds.
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _received) for number in self._STOP}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reading.close()
        self._writing.close()

    def wait(self) -> bytes:
        """Wait for a signal to stop, or for `wake`; return the byte that said so."""
        expected = {bytes([number]) for number in self._STOP} | {_STOPPED}
        while (received := self._reading.recv(1)) not in expected:
            pass
        return received

    def wake(self) -> None:
        self._writing.send(_STOPPED)


def _received(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by nothing more than having a handler."""


def _abort(context: grpc.ServicerContext, refusal: RequestError) -> NoReturn:
    context.abort(_STATUS[refusal.code], refusal.text)
    raise AssertionError  # abort has raised


def _unexpected(name: str, error: Exception) -> RequestError:
    log.logger.error("%s failed: %s", name, log.describe(error))
    return INTERNAL_ERROR


def _check_socket_path(path: str) -> None:
    """Refuse a path that is in use: gRPC would take it over in silence.

    Raises:
        ListenError: a server answers there, or it is a file of another kind.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # nothing is there, or listening will say what is wrong
    if not stat.S_ISSOCK(mode):
        raise ListenError("listen: there is a file at this path, and it is no socket")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(path)
        raise ListenError("listen: another server listens at this path")


def _why_not(address: ListenAddress) -> str:
    """Return the operating system's reason for which an address can't be listened on."""
    try:
        if address.path:
            return f"can't make a socket at this path: {_bind_error(socket.AF_UNIX, address.path)}"
        host = address.host.strip("[]")
        family, _, _, _, name = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
        return f"can't listen on port {address.port}: {_bind_error(family, name)}"
    except socket.gaierror as error:
        return f"the host can't be resolved: {error.strerror}"


def _bind_error(family: socket.AddressFamily, name: object) -> str:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(name)  # type: ignore[arg-type]  # as getaddrinfo gave it
        except OSError as error:
            return error.strerror or "refused"
    return "refused"
