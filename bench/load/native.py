"""Load from one thread in C, over the connections of geolookup's own clients.

No Python runs while load is made, and no object is made for a call: bench/kernels/sender.c has
the loop, and the structures that are repeated here.
"""

from __future__ import annotations

import ctypes
import functools
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final

import grpc

from bench import kernels
from bench.load.latencies import Latencies
from bench.load.plan import UNFINISHED, UNSENT, Plan, Result
from bench.load.work import Call
from geolookup.client.transports.endpoint import Address, read_endpoint

_STATUSES: Final = (
    *(code.name for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0]))),
    UNSENT,
    UNFINISHED,
)
_COUNTS: Final = 22 << 10
_CONNECTING: Final = 5.0
"""Seconds to wait for connections before a run. One that is not there by then is left to
the calls, whose statuses tell."""


class _Work(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("body", ctypes.c_char_p),
        ("path_bytes", ctypes.c_size_t),
        ("body_bytes", ctypes.c_size_t),
        ("addresses", ctypes.c_uint64),
    )


class _Run(ctypes.Structure):
    _fields_ = (
        ("work", ctypes.POINTER(_Work)),
        ("work_count", ctypes.c_size_t),
        ("due", ctypes.POINTER(ctypes.c_double)),
        ("due_count", ctypes.c_size_t),
        ("under_way", ctypes.c_size_t),
        ("start", ctypes.c_uint64),
        ("measured", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("timeout", ctypes.c_uint64),
        ("stop", ctypes.c_int),
        ("answered", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("statuses", ctypes.c_uint64 * len(_STATUSES)),
        ("completed", ctypes.c_uint64),
        ("addresses", ctypes.c_uint64),
        ("latencies", ctypes.c_uint64 * _COUNTS),
        ("behind", ctypes.c_uint64 * _COUNTS),
    )


@functools.cache
def library() -> Any:
    """Return the loop, built when it is first asked for.

    Raises:
        bench.kernels.UnavailableError: there is no compiler, or no libnghttp2 or OpenSSL.
    """
    flags = ("-D_GNU_SOURCE", "-DGEOLOOKUP_TLS", "-Wno-unused-function")
    found = kernels.load("sender", "nghttp2", "ssl", "crypto", core=flags)
    found.sender_new.restype = ctypes.c_void_p
    found.sender_counts.restype = ctypes.c_size_t
    found.sender_time_at.restype = ctypes.c_uint64
    found.sender_time_at.argtypes = (ctypes.c_size_t,)
    found.sender_index_of.restype = ctypes.c_size_t
    found.sender_index_of.argtypes = (ctypes.c_uint64,)
    found.sender_connect.argtypes = (ctypes.c_void_p, ctypes.c_uint64)
    found.sender_make.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Run))
    found.sender_free.argtypes = (ctypes.c_void_p,)
    assert found.sender_counts() == _COUNTS
    return found


def missing() -> str | None:
    """Return why no load can be made; None: it can."""
    try:
        library()
    except kernels.UnavailableError as error:
        return f"the sender of load {error}; it needs libnghttp2-dev and libssl-dev"
    return None


class NativeSender:
    """Connections, and a thread's load over them. A context manager that closes them.

    Args:
        plan: whom to ask, over how many connections.

    Raises:
        OSError: the target's name is not known.
        ValueError: OpenSSL does not take the certificates.
    """

    def __init__(self, plan: Plan) -> None:
        target, endpoint = plan.target, read_endpoint(plan.target.address)
        if endpoint is None:
            raise ValueError(f"{target.address}: only gRPC resolves it")
        packed = [_packed(address) for address in endpoint.resolve()]
        sizes = array("I", [len(one) for one in packed])
        name = (target.server_name or endpoint.name).encode()
        authority = (target.server_name or endpoint.authority).encode()
        pems = []
        for pem in (target.ca, target.certificate, target.key):
            pems += [ctypes.c_char_p(pem), ctypes.c_int(len(pem or b""))]
        self._sender = ctypes.c_void_p(
            library().sender_new(
                b"".join(one.ljust(128, b"\0") for one in packed),
                (ctypes.c_uint32 * len(packed))(*sizes),
                ctypes.c_size_t(len(packed)),
                ctypes.c_size_t(plan.connections),
                name,
                authority,
                ctypes.c_int(target.tls),
                *pems,
            )
        )
        if not self._sender:
            raise ValueError("OpenSSL does not take the authorities, certificate or key")

    def connect(self) -> None:
        """Wait for the connections, so that no measured call waits for one."""
        library().sender_connect(self._sender, round(_CONNECTING * 1e9))

    def close(self) -> None:
        """Close the connections."""
        library().sender_free(self._sender)
        self._sender = ctypes.c_void_p()

    def make(self, run: NativeRun) -> None:
        """Make the calls of a run; returns when they are over."""
        library().sender_make(self._sender, run.run)


class NativeRun:
    """The calls of a run and what is counted of them; another thread may look at it.

    Args:
        calls: to be made in turn.
        due: seconds after the start when each is due; None: a closed loop.
        under_way: most calls at once.
        timeout: seconds that each may take.
    """

    def __init__(
        self, calls: Sequence[Call], due: array[float] | None, under_way: int, timeout: float
    ) -> None:
        # The structure has pointers to what these hold.
        self._kept = [(call.method.encode(), call.body) for call in calls]
        self._due = due
        self._work = (_Work * len(calls))(
            *(
                _Work(path, body, len(path), len(body), call.addresses)
                for (path, body), call in zip(self._kept, calls, strict=True)
            )
        )
        self.run = _Run(
            work=self._work, work_count=len(calls), under_way=under_way, timeout=_ns(timeout)
        )
        if due is not None:
            # An array of none is no closed loop.
            items = (ctypes.c_double * max(1, len(due))).from_buffer(due or array("d", [0.0]))
            self.run.due, self.run.due_count = items, len(due)

    def begin(self, start: float, measured: float, end: float) -> None:
        """Set the times, as of `time.monotonic`."""
        run = self.run
        run.start, run.measured, run.end = _ns(start), _ns(measured), _ns(end)

    def stop(self) -> None:
        """Have it end at once."""
        self.run.stop = 1

    @property
    def progress(self) -> tuple[int, int]:
        """How many calls were answered, and failed."""
        return self.run.answered, self.run.failed

    def add_to(self, result: Result) -> None:
        """Add what was counted."""
        counts = zip(_STATUSES, self.run.statuses, strict=True)
        result.statuses.update({name: count for name, count in counts if count})
        result.completed += self.run.completed
        result.addresses += self.run.addresses
        for latencies, found in (
            (result.latencies, self.run.latencies),
            (result.behind, self.run.behind),
        ):
            _add(latencies, found)


def _add(latencies: Latencies, found: Any) -> None:
    at = library().sender_time_at
    for index, count in enumerate(found):
        if count:
            latencies.record_several(at(index), count)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _packed(address: Address) -> bytes:
    """Return the bytes of a struct sockaddr."""
    family, where = address
    head = struct.pack("=H", family)
    if isinstance(where, str):
        return head + where.encode() + b"\0"
    host, port = str(where[0]), int(where[1])
    if family == socket.AF_INET:
        return head + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    packed = socket.inet_pton(family, host.partition("%")[0])
    scope = int(where[3]) if len(where) > 3 else 0
    return head + struct.pack("!HI", port, 0) + packed + struct.pack("=I", scope)
