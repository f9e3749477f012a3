"""What both kinds of channel are made with: options, retries, time limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
"""Seconds until a probe, or anything sent, that nobody acknowledged ends the connection."""

_OPTIONS: Mapping[str, object] = {
    # A roster's answer has at most some 5 bytes an address: 12 million addresses.
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
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
    # Channels to one target share a connection otherwise, and a connection stays with
    # one of the service's workers for all of its life.
    "grpc.use_local_subchannel_pool": 1,
}


@dataclass(frozen=True, slots=True)
class Retry:
    """How calls that the service does not answer are made again, within their time limit.

    All calls but streams are: they change nothing in the service. The service's own hint
    when to come back, or not to (``grpc-retry-pushback-ms``), goes before the waits here.

    Attributes:
        attempts: calls in all, 2 to 5.
        first_wait: seconds before the second attempt, 0.002 at least; doubled each time, and
            varied by 20 %.
        longest_wait: bound on these seconds.
        budget: tokens that a channel starts with, 1 to 1000; a failure takes one, and no
            call is made again while half of them or fewer are left. So a service that is
            down is not asked several times as often. All calls under way on a connection
            fail at once when it is lost: half of the tokens should be more than these.
        refill: tokens that a success gives back.

    Raises:
        ValueError: a value that gRPC would not keep to.
    """

    # Together they outlast gRPC's own wait before it connects again, twice.
    attempts: int = 4
    first_wait: float = 0.05
    longest_wait: float = 1.0
    budget: int = 1_000
    refill: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= 5:
            raise ValueError("attempts: expected 2 to 5")
        # A wait that gRPC rounds to no millisecond never ends (1.85): the call is not made again
        # and fails when its time is over.
        if not 0.002 <= self.first_wait <= self.longest_wait < float("inf"):
            raise ValueError(
                "first_wait, longest_wait: expected seconds from 0.002 on, the first no longer"
            )
        if not 1 <= self.budget <= 1_000:
            raise ValueError("budget: expected 1 to 1000")
        if not 0.001 <= self.refill <= self.budget:
            raise ValueError("refill: expected 0.001 to the budget")


DEFAULT_RETRY = Retry()

_NOT_ANSWERED: Final = ["UNAVAILABLE", "CANCELLED"]
"""Codes of calls that no handler has answered. The second is what gRPC's servers say to those
that arrive in the moment in which they stop; a call that the caller cancels is not made again."""


def channel_options(
    given: Iterable[tuple[str, object]],
    retry: Retry | None = None,
    unary: Iterable[str] = (),
) -> list[tuple[str, object]]:
    """Return gRPC's channel options: ours, and over them the given ones.

    Args:
        given: the caller's. A service config among them replaces ours as a whole.
        retry: how calls are made again; None: they are not.
        unary: the methods that are, as ``/service/method``.
    """
    config: dict[str, object] = {
        # All addresses that a name resolves to, in turn, and those that answer alone.
        "loadBalancingConfig": [{"round_robin": {}}]
    }
    options = dict(_OPTIONS)
    if retry is None:
        options["grpc.enable_retries"] = 0
    else:
        names = [method.strip("/").split("/") for method in unary]
        config["methodConfig"] = [
            {
                "name": [{"service": service, "method": method} for service, method in names],
                "retryPolicy": {
                    "maxAttempts": retry.attempts,
                    "initialBackoff": f"{retry.first_wait:.3f}s",
                    "maxBackoff": f"{retry.longest_wait:.3f}s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": _NOT_ANSWERED,
                },
            }
        ]
        config["retryThrottling"] = {"maxTokens": retry.budget, "tokenRatio": retry.refill}
    options["grpc.service_config"] = json.dumps(config)
    return list({**options, **dict(given)}.items())


def channel_count(channels: int) -> int:
    """Return a number of channels.

    Raises:
        ValueError: below 1, or so many that it must be a slip.
    """
    if not 1 <= channels <= 1_000:
        raise ValueError("channels: expected 1 to 1000")
    return channels


def time_limit(seconds: float) -> float:
    """Return a time limit that gRPC keeps to: one in the past it may take for none.

    Raises:
        ValueError: not above 0, or endless.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError("timeout: expected seconds, above 0")
    return seconds
