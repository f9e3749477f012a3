"""A server in the caller's process, over one dataset: for embedding and for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from geolookup.errors import ServiceError
from geolookup.service import log

log.silence_grpc()  # before gRPC is loaded

from geolookup.service.monitoring.counters import Counters  # noqa: E402
from geolookup.service.monitoring.tracing import tracer  # noqa: E402
from geolookup.service.rpc import http_json  # noqa: E402
from geolookup.service.rpc.calls import Calls  # noqa: E402
from geolookup.service.rpc.handlers import Snapshot  # noqa: E402
from geolookup.service.rpc.transports import open_transport  # noqa: E402
from geolookup.service.settings import ListenAddress, Settings  # noqa: E402

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset
    from geolookup.service.rpc.http_json.listener import HttpListener


class Server:
    """A running service over one dataset, which the caller closes.

    It has one worker, this process, and only the clients' listeners: no reloads, no admin service
    and no metrics. It serves from its construction until `stop`. Thread-safe. gRPC objects
    don't survive a fork: make it in the process that serves.

    Args:
        dataset: what to answer from.
        settings: everything else.

    Attributes:
        address: the address that it listens on, with the actual port.
        http_address: that for JSON over HTTP/1.1; None: the settings have none.
        counters: of its calls.

    Raises:
        ServiceError: overrides of a file that were laid over the dataset expire.
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used, or gRPC can't keep a limit.
    """

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        if dataset.expires:
            raise ServiceError(
                "overrides of the dataset expire, and this server would answer by them all the"
                " same; give them to 'geolookup serve --overrides'"
            )
        self.counters = Counters()
        self._tracer = tracer(settings)
        self._calls = Calls(settings, self.counters, Snapshot(dataset), self._tracer)
        self._transport = open_transport(
            settings, self._calls, ListenAddress.parse(settings.listen), share_port=False
        )
        self.address = self._transport.address
        self._http: HttpListener | None = None
        self.http_address: ListenAddress | None = None
        if settings.http is not None:
            listen = ListenAddress.parse(settings.http, "http")
            try:
                self._http = http_json.open_listener(
                    settings, self._calls, listen, share_port=False
                )
            except BaseException:
                self._transport.stop(0)
                raise
            self.http_address = self._http.address

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot for new calls and new streams; assign one to swap it."""
        return self._calls.snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        self._calls.snapshot = snapshot

    def stop(self, grace: float) -> threading.Event:
        """Begin to stop, and return the event of having stopped.

        New calls are refused at once. Those in flight have *grace* seconds to
        finish, then they are cancelled. A second call with a shorter grace
        shortens it.
        """
        stopped = self._transport.stop(grace)
        if self._http is None:
            return stopped
        both = threading.Event()
        others = self._http.stop(grace)

        def wait() -> None:
            stopped.wait()
            others.wait()
            both.set()

        threading.Thread(target=wait, name="geolookup-stop", daemon=True).start()
        return both
