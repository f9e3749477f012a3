#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), 2026-11-30
#
# One would guess: what the handler of a stream has in its variables is freed when the handler has
# returned, whether the client ends the stream or cancels it. CPython counts references, and the
# handler keeps nothing.
# It is so: where the client cancels while the handler waits for a request, it stays in most cases
# until the cyclic garbage collector comes. The server appends the RpcError by which the handler learns
# of it to a list in the state of the call; the error's traceback has the handler's frame, and the
# frame has the iterator with that state. A server that has little to do makes few objects, and so
# its collector does not come. With the traceback taken off the error nothing stays.
# The collector is off here, to see what stays without it.
#
# Seen (the second and the third line differ from run to run, and are never 0):
#   ended by the client: 0 of 20 stay
#   cancelled, for request in requests: 18 of 20 stay
#   cancelled, the handler catches the error: 16 of 20 stay
#   cancelled, the handler takes its traceback off: 0 of 20 stay
#   after gc.collect(): 0
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.3
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import queue
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc

STREAMS = 20


class Large:
    """Stands for what a handler has opened, such as a dataset."""


opened = []
returned = queue.SimpleQueue()


def make():
    large = Large()
    opened.append(weakref.ref(large))
    return large


def plain(requests, context):
    large = make()
    context.add_callback(lambda: returned.put(None))
    for request in requests:
        yield request


def catching(requests, context):
    large = make()
    context.add_callback(lambda: returned.put(None))
    try:
        for request in requests:
            yield request
    except grpc.RpcError:
        pass


def tidy(requests, context):
    large = make()
    context.add_callback(lambda: returned.put(None))
    try:
        for request in requests:
            yield request
    except grpc.RpcError as error:
        error.__traceback__ = None


handlers = {
    name: grpc.stream_stream_rpc_method_handler(behaviour)
    for name, behaviour in (("plain", plain), ("catching", catching), ("tidy", tidy))
}
server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()


def stay(method, cancel):
    opened.clear()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(STREAMS):
            requests = queue.SimpleQueue()
            requests.put(b"x")
            call = channel.stream_stream(f"/x/{method}")(iter(requests.get, None))
            next(call)
            if cancel:
                time.sleep(0.2)  # until the handler waits for the next request
                call.cancel()
            requests.put(None)
            if not cancel:
                list(call)
            returned.get(timeout=30)
    end = time.monotonic() + 3  # for threads that are about to leave the handler
    while alive() and time.monotonic() < end:
        time.sleep(0.01)
    return alive()


def alive():
    return sum(one() is not None for one in opened)


gc.disable()
found = []
for text, method, cancel in (
    ("ended by the client", "plain", False),
    ("cancelled, for request in requests", "plain", True),
    ("cancelled, the handler catches the error", "catching", True),
    ("cancelled, the handler takes its traceback off", "tidy", True),
):
    found.append(stay(method, cancel))
    print(f"{text}: {found[-1]} of {STREAMS} stay")
    if method == "catching":
        gc.collect()
        after = alive()
print(f"after gc.collect(): {after}")
server.stop(None)
ended, plainly, caught, tidied = found
sys.exit("changed" if ended or tidied or after or not (plainly and caught) else 0)
PYTHON
