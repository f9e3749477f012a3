"""A server in the caller's process, over one dataset: for embedding and for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from geolookup.service import log

log.silence_grpc()  # before gRPC is loaded

from geolookup.service.monitoring.counters import Counters  # noqa: E402
from geolookup.service.monitoring.tracing import tracer  # noqa: E402
from geolookup.service.rpc.calls import Calls  # noqa: E402
from geolookup.service.rpc.handlers import Snapshot  # noqa: E402
from geolookup.service.rpc.transports import open_transport  # noqa: E402
from geolookup.service.settings import ListenAddress, Settings  # noqa: E402

if TYPE_CHECKING:
    from geolookup.answer.dataset import Dataset


class Server:
    """A running service over one dataset, which the caller closes.

    It has one worker, this process, and only the clients' listener: no reloads, no admin service
    and no metrics. It serves from its construction until `stop`. Thread-safe. gRPC objects
    don't survive a fork: make it in the process that serves.

    Args:
        dataset: what to answer from.
        settings: everything else.

    Attributes:
        address: the address that it listens on, with the actual port.
        counters: of its calls.

    Raises:
        ListenError: the address can't be listened on.
        SettingsError: the TLS certificate can't be used, or gRPC can't keep a limit.
    """

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.counters = Counters()
        self._tracer = tracer(settings)
        self._calls = Calls(settings, self.counters, Snapshot(dataset), self._tracer)
        self._transport = open_transport(
            settings, self._calls, ListenAddress.parse(settings.listen), share_port=False
        )
        self.address = self._transport.address

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
        return self._transport.stop(grace)
