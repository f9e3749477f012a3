"""The options of a gRPC server that follow from the settings, each with its reason.

tests/service/rpc/test_grpc_options.py tests each of them on a real connection.
"""

from __future__ import annotations

from typing import Final

import grpc

from geolookup.service.settings import Settings, SettingsError

_NO_LIMIT: Final = 2**31 - 1
"""Milliseconds that mean "never" to gRPC."""

_KEEPALIVE_TIMEOUT: Final = 20.0
"""Seconds that a client has to answer a probe: gRPC's own default. TCP resends several lost
packets within it."""

_PING_INTERVAL: Final = 10.0
"""Seconds between pings that a client may send. gRPC's own 300 would cut off clients and
proxies that keep their connections alive with the usual 10 to 60."""
_PING_STRIKES: Final = 2
"""Early pings after which a connection is closed."""

_LOOKAHEAD: Final = 512 * 1024
"""Bytes of a message that a client may send before the service reads it. A roster of 100,000
IPv4 addresses needs no more; a larger one takes a round trip per MB."""

_READ_BUFFER: Final = 1024 * 1024
"""Bytes of gRPC's read buffer of a connection: twice `_LOOKAHEAD`."""

_IDENTITY: Final = 1 << 0
_GZIP: Final = 1 << 2
"""Bits of the algorithms. Deflate stays off, as every client has gzip."""

_BOUNDED_SINCE: Final = (1, 84)
"""The first release of gRPC that stops decompression at the size limit. Earlier releases unpack
all of a message, 400 MB from 0.4 MB, before they check its size."""


def channel_options(settings: Settings, *, share_port: bool) -> list[tuple[str, int]]:
    """Return the options of a server.

    Args:
        settings: of the service.
        share_port: whether other processes may listen on the same port. If not, a port in
            use is an error, and is not shared in silence.

    Raises:
        SettingsError: this release of gRPC can't enforce a setting.
    """
    if settings.compression and _release() < _BOUNDED_SINCE:
        since = ".".join(map(str, _BOUNDED_SINCE))
        raise SettingsError("compression", f"needs grpcio {since} or newer, which bounds it")
    answer = _milliseconds(min(_KEEPALIVE_TIMEOUT, settings.keepalive or _KEEPALIVE_TIMEOUT))
    return [
        ("grpc.so_reuseport", int(share_port)),
        # Messages. Responses need no limit: the request's limits what they can be.
        ("grpc.max_receive_message_length", settings.limits.message_bytes),
        # A request in an encoding that is not enabled is refused (UNIMPLEMENTED) before
        # it is unpacked. No response is compressed: it would take longer than sending.
        (
            "grpc.compression_enabled_algorithms_bitset",
            _IDENTITY | (_GZIP if settings.compression else 0),
        ),
        # What a client sends ahead is read even if its call is refused. gRPC's default is
        # 4 MB and more per connection, so that refusing a few large rosters took a whole core.
        # A message that is read gets the windows that it needs.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
        # The default buffer grows to what arrived since the last read. Endless headers, which
        # no window limits, made it hundreds of MB.
        ("grpc.experimental.tcp_max_read_buffer_size", _READ_BUFFER),
        # Metadata. Between the first and the second limit gRPC refuses at random; equal,
        # the same request always has the same answer.
        ("grpc.max_metadata_size", settings.max_metadata),
        ("grpc.absolute_max_metadata_size", settings.max_metadata),
        # Connections. A silent one holds a descriptor and memory: before its handshake is
        # done, before it acknowledges our HTTP/2 settings, ...
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_timeout)),
        ("grpc.http2.settings_timeout", _milliseconds(settings.handshake_timeout)),
        # ... without a call, or when its peer has vanished.
        ("grpc.max_connection_idle_ms", _milliseconds(settings.max_connection_idle)),
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive)),
        # The first is what the documentation names; measured (1.85), it is the second that
        # closes the connection, and by default not before a minute has passed.
        ("grpc.keepalive_timeout_ms", answer),
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.keepalive_permit_without_calls", 1),
        # A balancer sends a connection to a worker for all of its life; its end is what
        # spreads clients anew. gRPC varies the age by 10 %, so they don't come at once.
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(settings.grace, zero=1)),
        # Pings and streams of a client. The limit on streams is higher than the slots of
        # calls.py: a call without a slot must be refused at once with a hint, while this
        # limit makes it wait in the client.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(_PING_INTERVAL)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
        ("grpc.max_concurrent_streams", 4 * (2 * settings.max_calls + settings.max_streams)),
        # It would keep the peers' addresses in memory; the admin listener serves it.
        ("grpc.enable_channelz", int(settings.channelz)),
    ]


def _milliseconds(seconds: float, zero: int = _NO_LIMIT) -> int:
    return max(1, round(seconds * 1_000)) if seconds else zero


def _release() -> tuple[int, ...]:
    return tuple(int(number) for number in grpc.__version__.split(".")[:2])
