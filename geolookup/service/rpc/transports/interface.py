"""The part of grpcio's internal interface that the queue transport uses, and whether it is there.

`grpc._cython.cygrpc` is what grpcio's own server is written over. It is no public
interface, so nothing is taken for granted: each name that is used is looked for, and
the objects are tried, before a transport relies on them. Nobody else imports it.
"""

from __future__ import annotations

import time
from typing import Any, Final

_PATIENCE: Final = 10.0
"""Seconds that the trial may take, of which it needs thousandths."""

_USED: Final[dict[str, tuple[str, ...]]] = {
    "CompletionQueue": ("poll", "shutdown"),
    "Server": (
        *("register_completion_queue", "add_http2_port", "start", "request_call"),
        *("shutdown", "cancel_all_calls", "destroy"),
    ),
    "Call": ("start_server_batch", "cancel"),
    "CallDetails": ("method", "deadline"),
    "RequestCallEvent": (
        *("completion_type", "success", "tag", "call", "call_details", "invocation_metadata"),
    ),
    "BatchOperationEvent": ("completion_type", "success", "tag", "batch_operations"),
    "CompletionType": ("queue_shutdown", "queue_timeout", "operation_complete"),
    "SendInitialMetadataOperation": (),
    "SendMessageOperation": (),
    "SendStatusFromServerOperation": (),
    "ReceiveMessageOperation": ("message",),
    "ReceiveCloseOnServerOperation": ("cancelled",),
    "auth_context": (),
}
"""Names in the module, and of each what is used of it."""


def unfit() -> str | None:
    """Return why the queue transport can't work with this release of grpcio; None: it can.

    Everything is looked for by name, the operations are made, and a server without a
    listener is started, asked for a call and shut down: the events must be what is expected.
    """
    try:
        from grpc._cython import cygrpc  # type: ignore[attr-defined]  # noqa: PLC0415
    except ImportError:
        return "grpcio has no grpc._cython.cygrpc"
    for name, attributes in _USED.items():
        found = getattr(cygrpc, name, None)
        if found is None:
            return f"cygrpc has no {name}"
        for attribute in attributes:
            if not hasattr(found, attribute):
                return f"cygrpc.{name} has no {attribute}"
    try:
        return _unfit_operations(cygrpc) or _unfit_events(cygrpc)
    except (AttributeError, TypeError, ValueError) as error:
        # What a call with other arguments than it takes ends with. A fixed text: see log.py.
        return f"cygrpc takes other arguments ({type(error).__name__})"


def _unfit_operations(cygrpc: Any) -> str | None:
    cygrpc.SendInitialMetadataOperation(None, 0)
    cygrpc.SendMessageOperation(b"", 0)
    cygrpc.SendStatusFromServerOperation((("name", "value"),), 0, b"", 0)
    if cygrpc.ReceiveMessageOperation(0).message() is not None:
        return "cygrpc.ReceiveMessageOperation has a message before it was received"
    cygrpc.ReceiveCloseOnServerOperation(0).cancelled()
    return None


def _unfit_events(cygrpc: Any) -> str | None:
    queue = cygrpc.CompletionQueue()
    server = cygrpc.Server([("grpc.so_reuseport", 0)], False)
    server.register_completion_queue(queue)
    server.start()
    if queue.poll(0).completion_type != cygrpc.CompletionType.queue_timeout:
        _kept.append((queue, server))
        return "cygrpc.CompletionQueue returns what is not due"
    asked, shut_down = object(), object()
    server.request_call(queue, queue, asked)
    server.shutdown(queue, shut_down)
    wrong: str | None = None
    due = {asked, shut_down}
    while due:
        event = queue.poll(time.time() + _PATIENCE)
        if event.completion_type != cygrpc.CompletionType.operation_complete:
            # Whatever is still due would wait in the queue's destructor: better kept for good.
            _kept.append((queue, server))
            return "cygrpc.CompletionQueue does not return what is due"
        if event.tag not in due:
            wrong = "cygrpc's events have other tags"
            break
        due.discard(event.tag)
        if event.tag is asked and (event.success or not hasattr(event.call, "cancel")):
            wrong = "cygrpc.Server returns a call that nobody made"
    server.destroy()
    queue.shutdown()
    last = queue.poll(time.time() + _PATIENCE)
    if last.completion_type != cygrpc.CompletionType.queue_shutdown:
        wrong = wrong or "cygrpc.CompletionQueue does not shut down"
    return wrong


_kept: list[object] = []
