"""A supervisor's lookups: each transport answers them on a socket of their own, and counts none."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from servers import PATIENCE, needs_native

import geolookup
from geolookup.service import Settings
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import Counters
from geolookup.service.processes.event_loop import EventLoop
from geolookup.service.processes.probes import Probe, open_probe
from geolookup.service.rpc.calls import Calls
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.transports import Transport, open_transport
from geolookup.service.settings import ListenAddress
from geolookup.v1 import geolookup_pb2 as v1


@dataclass
class Asked:
    """A transport, and the probe of its supervisor."""

    calls: Calls
    transport: Transport
    loop: EventLoop
    probe: Probe

    def until(self, reached: Callable[[], bool]) -> None:
        """Run the supervisor's loop until something is so; it asks again and again."""
        late = self.loop.call_later(PATIENCE, self.loop.stop)

        def ask() -> None:
            if reached():
                self.loop.stop()
            else:
                self.probe.ask()
                self.loop.call_later(0.01, ask)

        ask()
        self.loop.run()
        late.cancel()
        assert reached()


@pytest.fixture(params=["threads", pytest.param("native", marks=needs_native)])
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    # No call is admitted but one, and no client may make a lookup.
    settings = Settings(transport=request.param, max_calls=1)
    ours, theirs = socket.socketpair()
    calls = Calls(settings, Counters(), Snapshot(geolookup.open()))
    transport = open_transport(
        settings, calls, ListenAddress.parse("127.0.0.1:0"), share_port=False, supervisor=theirs
    )
    with EventLoop() as loop:
        probe = open_probe(settings, loop, ours)
        try:
            yield Asked(calls, transport, loop, probe)
        finally:
            probe.close()
            transport.stop(0).wait(PATIENCE)


def test_lookup_is_answered_and_not_counted(asked: Asked) -> None:
    asked.until(lambda: asked.probe.answered is not None)
    assert asked.probe.missed == 0
    totals = counters.total([asked.calls.counters])
    assert sum(map(sum, totals.calls)) == sum(totals.in_flight) == sum(totals.addresses) == 0


def test_lookup_is_answered_when_all_slots_are_taken(asked: Asked) -> None:
    assert asked.calls.join_slots.take()
    assert not asked.calls.join_slots.take()
    asked.until(lambda: asked.probe.answered is not None)


def test_lookup_after_a_swap_is_answered(asked: Asked) -> None:
    asked.until(lambda: asked.probe.answered is not None)
    first = asked.probe.answered
    asked.calls.snapshot = Snapshot(geolookup.open())
    asked.until(lambda: asked.probe.answered != first)


def test_transport_that_stops_misses_lookups(asked: Asked) -> None:
    asked.until(lambda: asked.probe.answered is not None)
    assert asked.transport.stop(0).wait(PATIENCE)
    asked.until(lambda: asked.probe.missed >= 3)


CALLS: list[tuple[str, Any]] = [
    (Method.LOOKUP.path, v1.LookupRequest(text="192.0.2.1")),
    (Method.CHECK.path, health_pb2.HealthCheckRequest()),
    (Method.WATCH.path, health_pb2.HealthCheckRequest()),
    (Method.STREAM_ROSTERS.path, v1.StreamRostersRequest()),
    (Method.SERVER_REFLECTION_INFO.path, v1.LookupRequest()),
]


@pytest.mark.parametrize("asked", ["threads"], indirect=True)
@pytest.mark.parametrize(("path", "request_"), CALLS, ids=[path for path, _ in CALLS])
def test_other_programs_calls_on_the_supervisors_socket_are_refused(
    asked: Asked, path: str, request_: Any
) -> None:
    assert asked.transport.address.port
    named = re.findall(
        rf"@(geolookup-{os.getpid()}-\w+)$", Path("/proc/net/unix").read_text(), re.M
    )
    local = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    codes = []
    # Those of tests before may still be closing.
    for name in dict.fromkeys(named):
        with grpc.secure_channel(f"unix-abstract:{name}", local) as channel:
            call = channel.unary_stream(path)(request_.SerializeToString(), timeout=PATIENCE)
            with pytest.raises(grpc.RpcError) as refused:
                next(call)
            codes.append(refused.value.code())
    assert grpc.StatusCode.PERMISSION_DENIED in codes
    assert set(codes) <= {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
