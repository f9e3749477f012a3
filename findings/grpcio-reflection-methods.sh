#!/usr/bin/env bash
# grpcio-reflection 1.85.1, grpcio 1.85.3, protobuf 7.36.2 (PyPI), 2026-11-29
#
# One would guess: file_containing_symbol finds the file of every full name. The protocol's own
# comment names <package>.<service>.<method> as an example.
# It is so: the server finds services, messages and even fields, but answers NOT_FOUND for the
# name of a method. So the package's own client can't find a method on the package's own server,
# unless the method's service was looked up before: then it is there.
#
# Seen:
#   grpc.reflection.v1alpha.ServerReflection: found
#   grpc.reflection.v1alpha.ServerReflectionRequest: found
#   grpc.reflection.v1alpha.ServerReflectionRequest.host: found
#   grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo: error 5, not found
#   client, method first: KeyError
#   client, service before the method: ServerReflectionInfo
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
  grpcio-reflection==1.85.1 grpcio==1.85.3 protobuf==7.36.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

PACKAGE = "grpc.reflection.v1alpha"
SERVICE = f"{PACKAGE}.ServerReflection"
METHOD = f"{SERVICE}.ServerReflectionInfo"
SYMBOLS = (
    SERVICE,
    f"{PACKAGE}.ServerReflectionRequest",
    f"{PACKAGE}.ServerReflectionRequest.host",
    METHOD,
)

server = grpc.server(ThreadPoolExecutor(4))
reflection.enable_server_reflection([reflection.SERVICE_NAME], server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")


def ask(symbol):
    request = ServerReflectionRequest(file_containing_symbol=symbol)
    answer = next(ServerReflectionStub(channel).ServerReflectionInfo(iter([request])))
    if answer.HasField("error_response"):
        return f"error {answer.error_response.error_code}, {answer.error_response.error_message}"
    return "found"


def find_method(service_first):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    try:
        if service_first:
            pool.FindServiceByName(SERVICE)
        return pool.FindMethodByName(METHOD).name
    except KeyError:
        return "KeyError"


found = [ask(symbol) for symbol in SYMBOLS]
for symbol, answer in zip(SYMBOLS, found, strict=True):
    print(f"{symbol}: {answer}")
found += [find_method(service_first=False), find_method(service_first=True)]
print(f"client, method first: {found[-2]}")
print(f"client, service before the method: {found[-1]}")
channel.close()
server.stop(None)
expected = ["found"] * 3 + ["error 5, not found", "KeyError", "ServerReflectionInfo"]
sys.exit(0 if found == expected else "changed")
PYTHON
