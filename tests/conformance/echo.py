"""An echo service behind the native transport, for clients that judge a transport.

    python tests/conformance/echo.py PROTOS conformance
    python tests/conformance/echo.py PROTOS interop [CERTIFICATE KEY]

It has the services of ConnectRPC's conformance tests and of gRPC's interoperability tests: unary
calls, streams in one direction and in both, headers and trailers, binary metadata and status
details. Each call comes by the transport's queue for Python. PROTOS is a folder of the generated
messages; `python -m tests.conformance` makes it.

The first form serves as connectconformance asks on standard input, and answers there with its
port. The second prints its port. Both serve until they are terminated.
"""

from __future__ import annotations

import base64
import importlib
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Final

from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status

import geolookup
from geolookup import _http2
from geolookup.service import RosterLimits, Settings, certificate_files
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc.calls import Calls
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.transports.native import Handler, NativeTransport
from geolookup.service.settings import ListenAddress

UNIMPLEMENTED = 12

Pairs = list[tuple[str, "str | bytes"]]
Conversation = Generator["bytes | None", "bytes | None", None]
"""A stream's behaviour: it yields a message to send, or None for the client's next one, which is
None when there is none."""


class RefusalError(Exception):
    """The call ends with this status."""

    def __init__(self, code: int, text: str = "", details: Iterable[Any] = ()) -> None:
        super().__init__(text)
        self.code, self.text = code, text
        status = Status(code=code, message=text, details=details)
        self.details: Pairs = [("grpc-status-details-bin", status.SerializeToString())]


class Call:
    """What a behaviour knows of its call, and gives it."""

    def __init__(self, job: _http2.Job) -> None:
        self.metadata = job.metadata
        self.timeout: int | None = None
        if job.deadline is not None:
            self.timeout = round(job.deadline * 1_000 - job.accepted / 1e6)
        self.headers: Pairs = []
        self.trailers: Pairs = []

    def fields(self) -> dict[str, Pairs]:
        """Return what an answer takes."""
        return {"headers": self.headers, "trailers": self.trailers}


def unary(behaviour: Callable[[Call, bytes], bytes]) -> tuple[int, Handler]:
    """Return a method whose behaviour answers one message with one."""

    def do(job: _http2.Job) -> None:
        call = Call(job)
        try:
            answer = behaviour(call, job.body)
        except RefusalError as error:
            refuse(job, call, error)
        else:
            job.answer(answer, **call.fields())

    return _http2.PYTHON, do


def stream(behaviour: Callable[[Call], Conversation]) -> tuple[int, Handler]:
    """Return a method whose behaviour is a conversation."""
    running: dict[int, tuple[Call, Conversation]] = {}

    def do(job: _http2.Job) -> None:
        given = None
        if job.kind == _http2.BEGIN:
            call = Call(job)
            running[job.stream] = call, behaviour(call)
        elif job.kind == _http2.END:
            running.pop(job.stream)[1].close()
            job.done()
            return
        call, conversation = running[job.stream]
        if job.kind == _http2.NEXT:
            given = job.body
        try:
            message = conversation.send(given)
        except StopIteration:
            job.done(finished=True, **call.fields())
        except RefusalError as error:
            refuse(job, call, error)
        else:
            if message is None:
                job.done(**call.fields())
            else:
                job.answer(message, more=True, **call.fields())

    return _http2.PYTHON_STREAM, do


def refuse(job: _http2.Job, call: Call, error: RefusalError) -> None:
    """End a call with a status, its details and what its behaviour gave."""
    trailers = [*call.trailers, *error.details]
    job.refuse(error.code, error.text, headers=call.headers, trailers=trailers)


def one(messages: Iterable[bytes]) -> bytes:
    """Return the one message of a client that may send no more and no less."""
    found = [*messages]
    if len(found) != 1:
        raise RefusalError(UNIMPLEMENTED, f"{len(found)} request messages")
    return found[0]


def received() -> Generator[None, bytes | None, list[bytes]]:
    """Return all of the client's messages."""
    found: list[bytes] = []
    while (body := (yield)) is not None:
        found.append(body)
    return found


# --- ConnectRPC's conformance service

CONFORMANCE: Final = "connectrpc.conformance.v1"


class Conformance:
    """The behaviours that connectrpc/conformance/v1/service.proto describes."""

    def __init__(self) -> None:
        self.v1 = importlib.import_module(f"{CONFORMANCE}.service_pb2")

    def methods(self) -> dict[str, tuple[int, Handler]]:
        """Return all of them by path."""
        found = {
            "Unary": unary(self.unary),
            "ServerStream": stream(self.server_stream),
            "ClientStream": stream(self.client_stream),
            "BidiStream": stream(self.bidi_stream),
        }
        return {f"/{CONFORMANCE}.ConformanceService/{name}": how for name, how in found.items()}

    def unary(self, call: Call, body: bytes) -> bytes:
        request = self.v1.UnaryRequest.FromString(body)
        payload = self.respond(call, request.response_definition, [request])
        return self.v1.UnaryResponse(payload=payload).SerializeToString()

    def client_stream(self, call: Call) -> Conversation:
        kind = self.v1.ClientStreamRequest
        requests = [kind.FromString(body) for body in (yield from received())]
        definition = (requests or [kind()])[0].response_definition
        payload = self.respond(call, definition, requests)
        yield self.v1.ClientStreamResponse(payload=payload).SerializeToString()

    def server_stream(self, call: Call) -> Conversation:
        request = self.v1.ServerStreamRequest.FromString(one((yield from received())))
        definition = request.response_definition
        set_fields(call, definition)
        response = self.v1.ServerStreamResponse
        yield from self.rest(call, definition, response, [request], 0)

    def bidi_stream(self, call: Call) -> Conversation:
        requests: list[Any] = []
        definition, response = self.v1.StreamResponseDefinition(), self.v1.BidiStreamResponse
        sent, first = 0, True
        while (body := (yield None)) is not None:
            request = self.v1.BidiStreamRequest.FromString(body)
            requests.append(request)
            if first:
                definition, at_once = request.response_definition, request.full_duplex
                set_fields(call, definition)
                first = False
            if not at_once:
                continue
            if sent == len(definition.response_data):
                break
            yield from self.one_of(call, definition, response, requests, sent)
            sent += 1
            requests = []
        yield from self.rest(call, definition, response, requests, sent)

    def rest(self, call: Call, definition: Any, response: Any, requests: Any, sent: int) -> Any:
        """Send what is left of a definition's responses, then its error."""
        for number in range(sent, len(definition.response_data)):
            told = None if number else requests
            yield from self.one_of(call, definition, response, told, number)
        if definition.HasField("error"):
            sent = len(definition.response_data)
            raise self.error(definition.error, None if sent else self.info(call, requests))

    def one_of(self, call: Call, definition: Any, response: Any, requests: Any, number: int) -> Any:
        """Send one of a definition's responses."""
        time.sleep(definition.response_delay_ms / 1_000)
        payload = self.v1.ConformancePayload(data=definition.response_data[number])
        if requests is not None:
            payload.request_info.CopyFrom(self.info(call, requests, whole=number == 0))
        yield response(payload=payload).SerializeToString()

    def respond(self, call: Call, definition: Any, requests: list[Any]) -> Any:
        """Return the payload of a single response, after its delay; or raise its error."""
        set_fields(call, definition)
        time.sleep(definition.response_delay_ms / 1_000)
        info = self.info(call, requests)
        if definition.HasField("error"):
            raise self.error(definition.error, info)
        return self.v1.ConformancePayload(data=definition.response_data, request_info=info)

    def info(self, call: Call, requests: Iterable[Any], *, whole: bool = True) -> Any:
        """Return what the service saw of a request."""
        info = self.v1.ConformancePayload.RequestInfo()
        for request in requests:
            info.requests.add().Pack(request)
        if whole:
            if call.timeout is not None:
                info.timeout_ms = call.timeout
            values: dict[str, list[str]] = {}
            for name, value in call.metadata:
                text = value if isinstance(value, str) else base64.b64encode(value).decode()
                values.setdefault(name, []).append(text)
            for name, texts in values.items():
                info.request_headers.add(name=name, value=texts)
        return info

    def error(self, error: Any, info: Any) -> RefusalError:
        details = [*error.details]
        if info is not None:
            details.append(any_pb2.Any())
            details[-1].Pack(info)
        return RefusalError(error.code, error.message, details)


def set_fields(call: Call, definition: Any) -> None:
    """Have a call send a definition's headers and trailers."""
    for given, fields in (
        (definition.response_headers, call.headers),
        (definition.response_trailers, call.trailers),
    ):
        for field in given:
            name = field.name.lower()
            for value in field.value:
                binary = name.endswith("-bin")
                fields.append((name, base64.b64decode(value + "===") if binary else value))


# --- gRPC's interoperability service

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


class Interop:
    """The behaviours that gRPC's interop-test-descriptions.md describes."""

    def __init__(self) -> None:
        self.v1 = importlib.import_module("interop_pb2")

    def methods(self) -> dict[str, tuple[int, Handler]]:
        """Return all of them by path."""
        found = {
            "EmptyCall": unary(lambda _call, _body: b""),
            "UnaryCall": unary(self.unary),
            "StreamingInputCall": stream(self.input),
            "StreamingOutputCall": stream(self.output),
            "FullDuplexCall": stream(self.full_duplex),
        }
        return {f"/grpc.testing.TestService/{name}": how for name, how in found.items()}

    def unary(self, call: Call, body: bytes) -> bytes:
        echo_metadata(call)
        request = self.v1.Request.FromString(body)
        refuse_as_asked(request)
        return self.payload(request.response_size)

    def input(self, _call: Call) -> Conversation:
        bodies = yield from received()
        total = sum(len(self.v1.Input.FromString(body).payload.body) for body in bodies)
        yield self.v1.Sum(aggregated_payload_size=total).SerializeToString()

    def output(self, _call: Call) -> Conversation:
        yield from self.responses(one((yield from received())))

    def full_duplex(self, call: Call) -> Conversation:
        echo_metadata(call)
        while (body := (yield None)) is not None:
            yield from self.responses(body)

    def responses(self, body: bytes) -> Conversation:
        request = self.v1.OutputRequest.FromString(body)
        refuse_as_asked(request)
        for asked in request.response_parameters:
            time.sleep(asked.interval_us / 1e6)
            yield self.payload(asked.size)

    def payload(self, size: int) -> bytes:
        answer: bytes = self.v1.Input(payload={"body": bytes(size)}).SerializeToString()
        return answer


def echo_metadata(call: Call) -> None:
    call.headers += [pair for pair in call.metadata if pair[0] == INITIAL]
    call.trailers += [pair for pair in call.metadata if pair[0] == TRAILING]


def refuse_as_asked(request: Any) -> None:
    status = request.response_status
    if status.code:
        raise RefusalError(status.code, status.message)


# --- serving


def limit_of(size: int) -> RosterLimits:
    """Return limits with a largest message that no roster's size comes to."""
    return type("Limits", (RosterLimits,), {"message_bytes": size})()


def serve(methods: dict[str, tuple[int, Handler]], **options: Any) -> NativeTransport:
    settings = Settings(listen="127.0.0.1:0", threads=64, watch=0, compression=True, **options)
    calls = Calls(settings, Counters(), Snapshot(geolookup.open()))
    address = ListenAddress("127.0.0.1", 0)
    return NativeTransport(settings, calls, address, share_port=False, more=methods)


def read_sized() -> bytes:
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    return sys.stdin.buffer.read(size)


def conformance(folder: Path) -> None:
    compat = importlib.import_module(f"{CONFORMANCE}.server_compat_pb2")
    asked = compat.ServerCompatRequest.FromString(read_sized())
    options: dict[str, Any] = {}
    if asked.use_tls:
        for name, content in (
            ("tls_certificate", asked.server_creds.cert),
            ("tls_key", asked.server_creds.key),
            ("tls_client_ca", asked.client_tls_cert),
        ):
            if content:
                path = folder / name
                path.write_bytes(content)
                options[name] = path
    # Of its clients' certificates each is its own authority, which geolookup refuses to be told.
    certificate_files._check_authorities = lambda *_: None
    if asked.message_receive_limit:
        options["limits"] = limit_of(asked.message_receive_limit)
    transport = serve(Conformance().methods(), **options)
    answer = compat.ServerCompatResponse(host="127.0.0.1", port=transport.address.port)
    if asked.use_tls:
        answer.pem_cert = asked.server_creds.cert
    body = answer.SerializeToString()
    sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
    sys.stdout.flush()


def interop(*files: str) -> None:
    paths = map(Path, files)
    options = dict(zip(("tls_certificate", "tls_key"), paths, strict=False))
    transport = serve(Interop().methods(), **options)
    sys.stdout.write(f"{transport.address.port}\n")
    sys.stdout.flush()


def main() -> None:
    protos, service, *files = sys.argv[1:]
    sys.path.insert(0, protos)
    if service == "interop":
        interop(*files)
    else:
        with tempfile.TemporaryDirectory() as folder:
            conformance(Path(folder))
    signal.pause()


if __name__ == "__main__":
    main()
