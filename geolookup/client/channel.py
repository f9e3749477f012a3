"""What both kinds of channel are made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DEFAULT_TIMEOUT = 5.0
"""Seconds: long for a roster of a million, short for a participant who waits to join."""

DEFAULT_AHEAD = 16
"""Rosters of a stream under way at once: enough to hide the network's delay, and few to hold."""

_OPTIONS: Mapping[str, object] = {
    # A roster's answer has at most some 5 bytes an address: 12 million addresses.
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    # Addresses must not travel through a proxy because a variable of the
    # environment, meant for something else, names one.
    "grpc.enable_http_proxy": 0,
}


def channel_options(given: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return gRPC's channel options: ours, and over them the given ones."""
    return list({**_OPTIONS, **dict(given)}.items())


def time_limit(seconds: float) -> float:
    """Return a time limit that gRPC keeps to: one in the past it may take for none.

    Raises:
        ValueError: not above 0, or endless.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError("timeout: expected seconds, above 0")
    return seconds
