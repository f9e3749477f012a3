#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), 2026-11-29
#
# One would guess: an HTTP/2 client returns flow-control credit when a good part of the window is
# used. The window that grpcio announces is 4 MiB, so a thousand answers of ten bytes need none.
# It is so: the client sends two WINDOW_UPDATE frames for each call, one for the stream (which has
# ended by then) and one for the connection, each for 5 to 15 bytes. Half of the frames that the
# client sends are these. A server in front of such clients handles them, and a bound on
# control frames must leave room for them.
#
# Seen (1000 calls one after the other, 10 bytes each way, after 100 to warm up; PING varies):
#   client: 1000 DATA, 1000 HEADERS, 14 PING, 2000 WINDOW_UPDATE
#   server: 1000 DATA, 2000 HEADERS, 14 PING, 999 WINDOW_UPDATE
#   largest increment: 15 bytes
#
# Exits non-zero if the client sends fewer than 1900, or one of more than 1000 bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.3
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

NAMES = {0: "DATA", 1: "HEADERS", 3: "RST_STREAM", 4: "SETTINGS", 6: "PING", 7: "GOAWAY"}
WINDOW_UPDATE = 8
PREFACE = 24  # bytes that a client sends before its first frame
frames = {"client": Counter(), "server": Counter()}
increments = []


async def forward(reader, writer, sender):
    """Pass an HTTP/2 connection's bytes on in one direction, and count its frames."""
    try:
        if sender == "client":
            writer.write(await reader.readexactly(PREFACE))
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3]))
            frames[sender][NAMES.get(head[3], "WINDOW_UPDATE")] += 1
            if head[3] == WINDOW_UPDATE and sender == "client":
                increments.append(int.from_bytes(body))
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class Handler(grpc.GenericRpcHandler):
    def service(self, call_details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: bytes(10))


server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()


async def on_connection(reader, writer):
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(
        forward(reader, server_writer, "client"), forward(server_reader, writer, "server")
    )


loop = asyncio.new_event_loop()
proxy = loop.run_until_complete(asyncio.start_server(on_connection, "127.0.0.1", 0))
threading.Thread(target=loop.run_forever, daemon=True).start()
with grpc.insecure_channel(f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as channel:
    call = channel.unary_unary("/example.Service/Method")
    for _ in range(100):
        call(bytes(10))
    for counter in frames.values():
        counter.clear()
    increments.clear()
    for _ in range(1_000):
        call(bytes(10))
    sent = frames["client"]["WINDOW_UPDATE"]
    largest = max(increments)
    for sender, counter in frames.items():
        print(f"{sender}:", ", ".join(f"{counter[name]} {name}" for name in sorted(counter)))
    print(f"largest increment: {largest} bytes")
server.stop(None)
sys.exit(0 if sent >= 1_900 and largest <= 1_000 else "changed")
PYTHON
