"""The Connect protocol's unary form: answers and errors in JSON, by HTTP's status codes.

See https://connectrpc.com/docs/protocol. It has no I/O.
"""

from __future__ import annotations

import json
from typing import Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from geolookup.service.methods import Method
from geolookup.service.rpc.request import Code, RequestError
from geolookup.v1 import geolookup_pb2 as v1

_RESPONSES: Final[dict[Method, type[Message]]] = {
    Method.LOOKUP: v1.LookupResponse,
    Method.CLASSIFY_ROSTER: v1.ClassifyRosterResponse,
    Method.EXPLAIN: v1.ExplainResponse,
    Method.LIST_REGION_SETS: v1.ListRegionSetsResponse,
    Method.GET_DATASET: v1.GetDatasetResponse,
}

_STATUSES: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
}
_NAMES: Final = {code: code.name.lower() for code in Code} | {Code.CANCELLED: "canceled"}

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

_LONGEST_TIMEOUT: Final = 10
"""Digits of a time-out in milliseconds: 115 days."""


def answer(method: Method, response: bytes) -> bytes:
    """Return a response in JSON.

    Args:
        method: a unary one of the service.
        response: as it is on the wire.
    """
    return _encode(MessageToDict(_RESPONSES[method].FromString(response))).encode()


def status_of(code: Code) -> int:
    """Return HTTP's status code for an error."""
    return _STATUSES[code]


def error(code: Code, text: str) -> bytes:
    """Return the body of an error."""
    return _encode({"code": _NAMES[code], "message": text}).encode()


def timeout(value: str) -> float:
    """Return the seconds of a header ``Connect-Timeout-Ms``.

    Raises:
        RequestError: INVALID_ARGUMENT: it is no number of milliseconds.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_TIMEOUT):
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"connect-timeout-ms: expected at most {_LONGEST_TIMEOUT} digits",
        )
    return int(value) / 1_000
