"""A server in this process, over one dataset: for programs that bring their own, and for tests."""

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
    """A running service over one dataset, which stays the caller's to close.

    It has one worker, which is this process, and of the listeners only the one for clients:
    nothing reloads and nothing is scraped. Made listening and answering; `stop` ends it.
    Safe to use from several threads. gRPC objects don't survive a fork: make it in
    the process that serves.

    Args:
        dataset: what to answer from.
        settings: everything else.

    Attributes:
        address: where it listens, with the port that was really taken.
        counters: what it counts.

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
        """What new calls and new streams are answered from; may be swapped."""
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
