"""What carries the clients' calls: code of our own over libnghttp2, or grpcio.

Both answer alike. `native` makes unary calls, `grpcio` all that it is asked for: streams always,
and the calls of a client that asks for something that `native` does not do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from geolookup.client.tls import material
from geolookup.client.transports.endpoint import read_endpoint

if TYPE_CHECKING:
    import grpc

Name = Literal["native", "grpcio"]
NAMES: Final[tuple[Name, ...]] = ("native", "grpcio")
VARIABLE: Final = "GEOLOOKUP_CLIENT_TRANSPORT"

_OPTIONS: Final = frozenset(
    {
        "grpc.default_authority",
        "grpc.initial_reconnect_backoff_ms",
        "grpc.keepalive_time_ms",
        "grpc.keepalive_timeout_ms",
        "grpc.max_receive_message_length",
        "grpc.max_reconnect_backoff_ms",
        "grpc.primary_user_agent",
        "grpc.ssl_target_name_override",
    }
)
"""The channel options that `native` keeps to."""


def choose(
    name: str | None,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Iterable[tuple[str, object]],
    environment: Mapping[str, str] = os.environ,
) -> Name:
    """Return which transport carries the calls of a client.

    Args:
        name: the one that is asked for; None: that of the environment, or else the native one
            where it can.
        target: as `geolookup.client.target.read_target` returns it.
        credentials: for TLS.
        options: the caller's channel options.
        environment: where a variable may name one.

    Raises:
        ValueError: there is no such transport, or the native one was asked for by name and can't.
    """
    asked = name or environment.get(VARIABLE) or None
    if asked is not None and asked not in NAMES:
        where = "transport" if name else VARIABLE
        raise ValueError(f"{where}: expected {' or '.join(NAMES)}")
    if asked == "grpcio":
        return "grpcio"
    reason = _lacking(target, credentials, options)
    if reason is None:
        return "native"
    if name is not None:
        raise ValueError(f"transport: native can't be used: {reason}")
    return "grpcio"


def missing(*, tls: bool = False) -> str | None:
    """Return why the native transport can't be used at all; None: it can."""
    try:
        from geolookup import _http2_client  # noqa: PLC0415
    except ImportError:
        return "geolookup was built without libnghttp2"
    if tls and not _http2_client.HAS_TLS:
        return "geolookup was built without OpenSSL"
    return None


def _lacking(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Iterable[tuple[str, object]],
) -> str | None:
    reason = missing(tls=credentials is not None)
    if reason is not None:
        return reason
    if read_endpoint(target) is None:
        return f"it does not resolve {target.partition(':')[0]}: names"
    if credentials is not None and material(credentials) is None:
        return "the credentials are not from tls_credentials()"
    others = sorted({option for option, _ in options} - _OPTIONS)
    if others:
        return f"it does not know the option {others[0]}"
    return None
