#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), 2026-11-29
#
# One would guess: a client gets the status code that the server aborts with; a text that is too
# long is cut, or fails each time.
# It is so: the text travels as a header, percent-encoded, and the client's limit for headers
# holds for it. Above 8 KiB the client replaces the whole status with RESOURCE_EXHAUSTED, at
# random: the same call succeeds in bringing its code one time and not the next, and more rarely
# the longer the text is. Above 16 KiB it never does. A letter outside ASCII counts three times
# its bytes, so 1,300 Chinese characters are enough. A client that retries RESOURCE_EXHAUSTED
# repeats a call that can never succeed.
#
# Seen (the server always aborts with INVALID_ARGUMENT, 200 calls a row; the middle rows vary):
#   1000 letters: 200 INVALID_ARGUMENT
#   12000 letters: 108 INVALID_ARGUMENT, 92 RESOURCE_EXHAUSTED
#   1300 Chinese characters: 116 INVALID_ARGUMENT, 84 RESOURCE_EXHAUSTED
#   17000 letters: 200 RESOURCE_EXHAUSTED
#
# Exits non-zero unless the first row has one code, the middle ones both, the last one the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc


def refuse(request, context):
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.decode())


class Handler(grpc.GenericRpcHandler):
    def service(self, call_details):
        return grpc.unary_unary_rpc_method_handler(refuse)


server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
call = channel.unary_unary("/example.Service/Method")


def count_codes(count, letter, name):
    codes = Counter()
    for _ in range(200):
        try:
            call((letter * count).encode())
        except grpc.RpcError as error:
            codes[error.code().name] += 1
    print(f"{count} {name}:", ", ".join(f"{codes[code]} {code}" for code in sorted(codes)))
    return sorted(codes)


found = [
    count_codes(1_000, "a", "letters"),
    count_codes(12_000, "a", "letters"),
    count_codes(1_300, "\u4e2d", "Chinese characters"),
    count_codes(17_000, "a", "letters"),
]
channel.close()
server.stop(None)
both = ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"]
sys.exit(0 if found == [both[:1], both, both, both[1:]] else "changed")
PYTHON
