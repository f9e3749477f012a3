"""What both kinds of channel are made with: options, numbers, time limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

DEFAULT_TIMEOUT = 5.0
"""Seconds: long for a roster of a million, short for a participant who waits to join."""

DEFAULT_AHEAD = 16
"""Rosters of a stream under way at once: enough to hide the network's delay, and few to hold."""

_KEEPALIVE = 30.0
"""Seconds without a word after which a connection is probed, with calls or without: the
routers between forget idle connections after a minute or more, and a join must not be what
finds out. The service permits pings every 10 s."""
_KEEPALIVE_ANSWER = 10.0
"""Seconds until a probe, or anything sent, without an acknowledgement ends the connection."""

_LARGEST_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes. A roster's answer has at most some 5 an address: 12 million addresses."""

_OPTIONS: Mapping[str, object] = {
    "grpc.max_receive_message_length": _LARGEST_MESSAGE,
    # Addresses must not travel through a proxy because a variable of the
    # environment, meant for something else, names one.
    "grpc.enable_http_proxy": 0,
    # A service, or a worker, that was replaced is back within a second; gRPC's own first wait
    # is one, and its last two minutes, for which a service that is back would not be asked.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.keepalive_time_ms": round(_KEEPALIVE * 1_000),
    "grpc.keepalive_timeout_ms": round(_KEEPALIVE_ANSWER * 1_000),
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,  # else the probes of an idle one end after two
    # For calls that gRPC sends again: if it still has the message.
    "grpc.per_rpc_retry_buffer_size": _LARGEST_MESSAGE,
    # Channels to one target share a connection otherwise, and a connection stays with
    # one of the service's workers for all of its life.
    "grpc.use_local_subchannel_pool": 1,
}


_CONFIG: Final[Mapping[str, object]] = {
    # All addresses that a name resolves to, in turn, and those that answer alone. No
    # retryPolicy: see `geolookup.client.retry`.
    "loadBalancingConfig": [{"round_robin": {}}]
}


def channel_options(
    given: Iterable[tuple[str, object]], *, retries: bool = False
) -> list[tuple[str, object]]:
    """Return gRPC's channel options: ours, and over them the given ones.

    Args:
        given: the caller's. A service config among them replaces ours as a whole.
        retries: whether gRPC may send a call again that the service has not seen.
    """
    ours = {"grpc.service_config": json.dumps(_CONFIG), "grpc.enable_retries": int(retries)}
    return list({**_OPTIONS, **ours, **dict(given)}.items())


def channel_count(channels: int) -> int:
    """Return a number of channels.

    Raises:
        ValueError: below 1, or so many that it must be a slip.
    """
    if not 1 <= channels <= 1_000:
        raise ValueError("channels: expected 1 to 1000")
    return channels


def rosters_ahead(ahead: int) -> int:
    """Return a number of rosters under way.

    Raises:
        ValueError: below 1.
    """
    if ahead < 1:
        raise ValueError("ahead: expected at least 1")
    return ahead


def time_limit(seconds: float) -> float:
    """Return a time limit that gRPC keeps to: one in the past it may take for none.

    Raises:
        ValueError: not above 0, or endless.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError("timeout: expected seconds, above 0")
    return seconds
