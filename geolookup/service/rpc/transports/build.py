"""Whether the native transport is there: it needs libraries when geolookup is built."""

from __future__ import annotations


def missing(*, tls: bool = False) -> str | None:
    """Return why the native transport can't be used; None: it can.

    Args:
        tls: whether it is to speak TLS.
    """
    try:
        from geolookup import _http2  # noqa: PLC0415
    except ImportError:
        return "geolookup was built without libnghttp2 (Debian: apt install libnghttp2-dev)"
    if tls and not _http2.HAS_TLS:
        return "geolookup was built without OpenSSL (Debian: apt install libssl-dev)"
    return None


def description() -> str:
    """Return which transport serves by default and over what, or why it is not the native one."""
    reason = missing()
    if reason is not None:
        return f"threads: {reason}"
    from geolookup import _http2  # noqa: PLC0415

    tls = "TLS" if _http2.HAS_TLS else f"no TLS: {missing(tls=True)}"
    return f"native: libnghttp2 {_http2.LIBRARY}, {tls}"
