#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), 2026-11-29
#
# One would guess: a retryPolicy in the service config holds for every request of the method.
# It is so: a call whose headers and message exceed 256 KiB is sent once, whatever the policy
# asks for. No warning, no other status: the caller gets the server's UNAVAILABLE as if all
# attempts had failed. The bound is the channel option grpc.per_rpc_retry_buffer_size.
#
# Seen (maxAttempts 4, the server answers UNAVAILABLE):
#   request of 1000 bytes: 4 attempts, UNAVAILABLE
#   request of 250000 bytes: 4 attempts, UNAVAILABLE
#   request of 262144 bytes: 1 attempts, UNAVAILABLE
#   request of 1000000 bytes: 1 attempts, UNAVAILABLE
#   request of 1000000 bytes, buffer of 2 MiB: 4 attempts, UNAVAILABLE
#
# Exits non-zero if the attempts are others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.3
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

attempts = []


def refuse(request, context):
    attempts.append(len(request))
    context.abort(grpc.StatusCode.UNAVAILABLE, "try again")


class Handler(grpc.GenericRpcHandler):
    def service(self, call_details):
        return grpc.unary_unary_rpc_method_handler(refuse)


retry_policy = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
config = {"methodConfig": [{"name": [{}], "retryPolicy": retry_policy}]}
server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()


def count_attempts(size, options=()):
    attempts.clear()
    service_config = ("grpc.service_config", json.dumps(config))
    with grpc.insecure_channel(f"127.0.0.1:{port}", [service_config, *options]) as channel:
        try:
            channel.unary_unary("/example.Service/Method")(bytes(size))
        except grpc.RpcError as error:
            note = ", buffer of 2 MiB" if options else ""
            name = error.code().name
            print(f"request of {size} bytes{note}: {len(attempts)} attempts, {name}")
    return len(attempts)


found = [count_attempts(size) for size in (1_000, 250_000, 262_144, 1_000_000)]
found.append(count_attempts(1_000_000, [("grpc.per_rpc_retry_buffer_size", 2 << 20)]))
server.stop(None)
sys.exit(0 if found == [4, 4, 1, 1, 4] else "changed")
PYTHON
