"""The native transport of the clients: what no real service does, and what processes do to it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import http2
import pytest
import trustme
from blocking_client import Blocking
from counting_service import counting
from hyperframe.frame import Frame, PingFrame
from servers import PATIENCE, Service, needs_native, no_thread_starts, serving

from geolookup import ServiceError, ServiceUnavailableError
from geolookup.client import AsyncClient, Client, tls_credentials, transports
from geolookup.client.failures import Failure
from geolookup.client.transports.endpoint import read_endpoint
from geolookup.v1 import geolookup_pb2 as v1

native = pytest.importorskip(
    "geolookup.client.transports.native", reason="geolookup was built without libnghttp2"
)
TRANSPORTS = ("native",)
CHINA = "1.0.1.1"
LOOKUP = bytes.fromhex("01000101")  # that address, as it travels

ANSWER = v1.LookupResponse(country="CN", status=v1.STATUS_ASSIGNED, dataset="0" * 64)
BODY = ANSWER.SerializeToString()


# which transport


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:1",
        "[::1]:1",
        "localhost:1",
        "unix:/socket",
        "unix:///socket",
        "dns:///name.example:1",
        "dns:name.example:1",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv6:[::1]:1",
    ],
)
def test_native_transport_is_chosen_where_it_can(target: str) -> None:
    assert transports.choose(None, target, None, (), {}) == "native"
    assert transports.choose("grpcio", target, None, (), {}) == "grpcio"
    assert transports.choose(None, target, None, (), {transports.VARIABLE: "grpcio"}) == "grpcio"


@pytest.mark.parametrize(
    ("target", "credentials", "options", "reason"),
    [
        ("xds:///a", None, (), "it does not resolve xds: names"),
        ("vsock:1:2", None, (), "it does not resolve vsock: names"),
        ("dns://127.0.0.1/a:1", None, (), "it does not resolve dns: names"),
        ("a:1", grpc.ssl_channel_credentials(), (), "credentials are not from tls_credentials"),
        ("a:1", None, [("grpc.lb_policy_name", "x")], "the option grpc.lb_policy_name"),
        ("a:1", None, [("grpc.service_config", "{}")], "the option grpc.service_config"),
    ],
)
def test_grpcio_is_chosen_for_the_rest(
    target: str, credentials: Any, options: Any, reason: str
) -> None:
    assert transports.choose(None, target, credentials, options, {}) == "grpcio"
    wished = {transports.VARIABLE: "native"}  # by an operator, for all clients of a process
    assert transports.choose(None, target, credentials, options, wished) == "grpcio"
    with pytest.raises(ValueError, match=f"^transport: native can't be used: .*{reason}"):
        transports.choose("native", target, credentials, options, {})


@pytest.mark.parametrize("kind", [Client, Blocking])
def test_unknown_transport_is_refused(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^transport: expected native or grpcio"):
        kind("127.0.0.1:1", transport="quic")
    monkeypatch.setenv(transports.VARIABLE, "quic")
    with pytest.raises(ValueError, match=r"^GEOLOOKUP_CLIENT_TRANSPORT: expected"):
        kind("127.0.0.1:1")


def test_endpoint_of_an_address_has_its_name_without_port_and_zone() -> None:
    endpoint = read_endpoint("[fe80::1%eth0]:5")
    assert endpoint is not None
    assert (endpoint.hosts, endpoint.name) == ((("fe80::1%eth0", 5),), "fe80::1")


# a server that does as it is told


class Peer:
    """The server's side of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = connection.makefile("rb")
        assert self._read.read(len(http2.PREFACE)) == http2.PREFACE
        self.send(http2.SETTINGS, 0, 0, b"")

    def send(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        self.socket.sendall(http2.frame(kind, flags, stream, body))

    def headers(self, stream: int, *fields: tuple[str, str], end: bool = False) -> None:
        flags = http2.END_HEADERS | (http2.END_STREAM if end else 0)
        self.send(http2.HEADERS, flags, stream, http2.block(fields))

    def frame(self) -> Frame:
        """Return the next frame; EOFError: there is none."""
        head = self._read.read(9)
        if len(head) < 9:
            raise EOFError
        found, length = Frame.parse_frame_header(memoryview(head))
        found.parse_body(memoryview(self._read.read(length)))
        return found

    def wait_for(self, kind: int) -> Frame:
        while (found := self.frame()).type != kind:
            pass
        return found

    def ponged(self) -> bytes:
        """Return what the next ping, or answer to one, holds."""
        found = self.wait_for(http2.PING)
        assert isinstance(found, PingFrame)
        return found.opaque_data

    def request(self) -> int:
        """Return the stream of the next whole request."""
        while True:
            found = self.frame()
            if found.type == http2.DATA and "END_STREAM" in found.flags:
                return int(found.stream_id)

    def answer(self, stream: int, body: bytes = BODY) -> None:
        self.headers(stream, *GOOD)
        self.send(http2.DATA, 0, stream, prefixed(body))
        self.headers(stream, ("grpc-status", "0"), end=True)


GOOD = ((":status", "200"), ("content-type", "application/grpc"))


def prefixed(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4) + body


@contextlib.contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen, and have a thread serve what connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@contextlib.contextmanager
def peers(*scripts: Callable[[Peer], object]) -> Iterator[str]:
    """Listen; run a script for each connection, in their order, the last one for all others."""

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in range(1_000):
                connection, _ = listening.accept()
                script = scripts[min(number, len(scripts) - 1)]
                threading.Thread(target=run, args=(script, connection), daemon=True).start()

    def run(script: Callable[[Peer], object], connection: socket.socket) -> None:
        with connection, contextlib.suppress(EOFError, OSError, AssertionError):
            script(Peer(connection))

    with accepting(serve) as target:
        yield target


def answering(peer: Peer) -> None:
    while True:
        peer.answer(peer.request())


@pytest.fixture(params=[Client, Blocking], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def asked(kind: Any, target: str, **options: Any) -> Any:
    """Return what a lookup came to: the country, or an error."""
    with kind(target, timeout=PATIENCE, transport="native", **options) as client:
        try:
            return client.country(CHINA)
        except ServiceError as error:
            return error


def ends(*fields: tuple[str, str], data: bytes = b"", first: Any = GOOD) -> Callable[[Peer], None]:
    """Answer each call by headers, data and trailers."""

    def script(peer: Peer) -> None:
        while True:
            stream = peer.request()
            if first:
                peer.headers(stream, *first)
            if data:
                peer.send(http2.DATA, 0, stream, data)
            peer.headers(stream, *fields, end=True)

    return script


def resets(code: int) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        while True:
            peer.send(http2.RST_STREAM, 0, peer.request(), code.to_bytes(4))

    return script


OK = ("grpc-status", "0")
WRONG: dict[str, tuple[Callable[[Peer], None], str]] = {
    "no message": (ends(OK), "INTERNAL"),
    "half a message": (ends(OK, data=prefixed(BODY)[:-1]), "INTERNAL"),
    "half a prefix": (ends(OK, data=b"\0\0"), "INTERNAL"),
    "two messages": (ends(OK, data=2 * prefixed(BODY)), "INTERNAL"),
    "a compressed message": (ends(OK, data=b"\1" + prefixed(BODY)[1:]), "INTERNAL"),
    "no status": (ends(("x", "y"), data=prefixed(BODY)), "UNKNOWN"),
    "a status that is none": (ends(("grpc-status", "17")), "UNKNOWN"),
    "a status that is no number": (ends(("grpc-status", "-1")), "UNKNOWN"),
    "trailers only": (ends((":status", "200"), GOOD[1], ("grpc-status", "7"), first=()),
                      "PERMISSION_DENIED"),
    "a web server": (ends((":status", "200"), ("content-type", "text/html"), first=()), "UNKNOWN"),
    "HTTP 401": (ends((":status", "401"), first=()), "UNAUTHENTICATED"),
    "HTTP 403": (ends((":status", "403"), first=()), "PERMISSION_DENIED"),
    "HTTP 404": (ends((":status", "404"), first=()), "UNIMPLEMENTED"),
    "HTTP 503": (ends((":status", "503"), first=()), "UNAVAILABLE"),
    "much metadata": (ends(*(("x", "y"),) * 2_000, OK, data=prefixed(BODY)),
                      "RESOURCE_EXHAUSTED"),
    "CANCEL": (resets(8), "CANCELLED"),
    "INTERNAL_ERROR": (resets(2), "INTERNAL"),
    "ENHANCE_YOUR_CALM": (resets(11), "RESOURCE_EXHAUSTED"),
    "INADEQUATE_SECURITY": (resets(12), "PERMISSION_DENIED"),
    "REFUSED_STREAM": (resets(7), "UNAVAILABLE"),
    "a broken frame": (lambda peer: peer.send(http2.DATA, 0, 0, b"x"), "UNAVAILABLE"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_answer_that_breaks_the_protocol_is_an_error(kind: Any, name: str) -> None:
    script, code = WRONG[name]
    with peers(script) as target:
        error = asked(kind, target, retry=None)
    assert isinstance(error, ServiceError)
    assert error.code == code


def test_text_of_a_status_is_read_and_holds_no_foreign_words(kind: Any) -> None:
    text = "region_set%3A unknown region set %27%C3%A4%27, 100%"
    with peers(ends(("grpc-status", "3"), ("grpc-message", text))) as target:
        error = asked(kind, target)
    assert error.code == "INVALID_ARGUMENT"  # not ASCII, so it is no text of ours
    assert "region_set" not in str(error)


def test_answer_may_come_in_any_pieces(kind: Any) -> None:
    def script(peer: Peer) -> None:
        while True:
            stream = peer.request()
            peer.headers(stream, *GOOD)
            for one in prefixed(BODY):
                peer.send(http2.DATA, 0, stream, bytes([one]))
                peer.send(http2.DATA, 0, stream, b"")
            peer.headers(stream, OK, end=True)

    with peers(script) as target:
        assert asked(kind, target) == "CN"


def test_pings_are_answered_with_calls_and_without(kind: Any) -> None:
    answered = threading.Event()

    def script(peer: Peer) -> None:
        stream = peer.request()
        peer.send(http2.PING, 0, 0, b"12345678")
        assert peer.ponged() == b"12345678"
        peer.answer(stream)
        peer.send(http2.PING, 0, 0, b"87654321")
        assert peer.ponged() == b"87654321"
        answered.set()

    with peers(script) as target, kind(target, transport="native") as client:
        assert client.country(CHINA) == "CN"
        if kind is Blocking:
            client._runner.run(asyncio.to_thread(answered.wait, PATIENCE))
        assert answered.wait(PATIENCE)


def test_silent_connection_is_probed_and_given_up(kind: Any) -> None:
    probed, gone = threading.Event(), threading.Event()

    def silent(peer: Peer) -> None:
        peer.answer(peer.request())
        peer.wait_for(http2.PING)
        probed.set()
        with contextlib.suppress(EOFError):
            while True:
                peer.frame()
        gone.set()

    options = [("grpc.keepalive_time_ms", 200), ("grpc.keepalive_timeout_ms", 200)]
    with (
        peers(silent, answering) as target,
        kind(target, timeout=PATIENCE, transport="native", options=options) as client,
    ):
        assert client.country(CHINA) == "CN"
        wait = asyncio.to_thread(gone.wait, PATIENCE) if kind is Blocking else None
        assert client._runner.run(wait) if wait else gone.wait(PATIENCE)
        assert probed.is_set()
        assert client.country(CHINA) == "CN"


def test_call_that_a_goaway_leaves_out_is_made_again(kind: Any) -> None:
    """Also where no retry is wanted: the service has not seen it."""

    def leaving(peer: Peer) -> None:
        peer.request()
        peer.send(http2.GOAWAY, 0, 0, bytes(8))
        with contextlib.suppress(EOFError):
            while True:
                peer.frame()

    with peers(leaving, answering) as target:
        assert asked(kind, target, retry=None) == "CN"


def test_call_under_way_is_answered_after_a_goaway(kind: Any) -> None:
    def leaving(peer: Peer) -> None:
        stream = peer.request()
        peer.send(http2.GOAWAY, 0, 0, stream.to_bytes(4) + bytes(4))
        peer.answer(stream)
        with contextlib.suppress(EOFError):
            while True:
                assert peer.frame().type != http2.HEADERS

    with (
        peers(leaving, answering) as target,
        kind(target, timeout=PATIENCE, transport="native", retry=None) as client,
    ):
        assert [client.country(CHINA) for _ in range(3)] == ["CN"] * 3


def test_call_that_runs_out_of_time_is_reset_and_the_next_is_answered(kind: Any) -> None:
    reset = threading.Event()

    def script(peer: Peer) -> None:
        stream = peer.request()
        assert peer.wait_for(http2.RST_STREAM).stream_id == stream
        peer.answer(stream)  # too late
        reset.set()
        answering(peer)

    with peers(script) as target, kind(target, timeout=PATIENCE, transport="native") as client:
        with pytest.raises(ServiceUnavailableError, match=r"did not answer in 0\.1 s"):
            client.country(CHINA, timeout=0.1)
        assert reset.wait(PATIENCE)
        assert client.country(CHINA) == "CN"


@pytest.mark.parametrize("coalesce", [False, True])
def test_time_limit_may_have_any_length(kind: Any, coalesce: bool) -> None:
    with (
        peers(answering) as target,
        kind(target, transport="native", coalesce=coalesce) as client,
    ):
        assert client.country(CHINA, timeout=1e300) == "CN"
        with pytest.raises(ServiceUnavailableError, match=r"did not answer in 1e-09 s"):
            client.country(CHINA, timeout=1e-9)
        assert client.country(CHINA) == "CN"


def test_addresses_of_a_target_take_turns_and_stand_in_for_each_other(kind: Any) -> None:
    def answer(number: int, context: Any) -> None:
        pass

    with counting(answer) as (first, one), counting(answer) as (second, other):
        target = f"ipv4:{first},{second},127.0.0.1:1"
        with kind(target, timeout=PATIENCE, transport="native") as client:
            end = time.monotonic() + PATIENCE
            while not (one.attempts and other.attempts):
                assert time.monotonic() < end
                with contextlib.suppress(ServiceError):  # it is no whole answer
                    client.country(CHINA)


def test_more_calls_than_the_service_allows_wait_for_their_turn() -> None:
    def script(peer: Peer) -> None:
        peer.send(http2.SETTINGS, 0, 0, http2.settings({http2.MAX_CONCURRENT_STREAMS: 2}))
        answering(peer)

    with (
        peers(script) as target,
        Client(target, timeout=PATIENCE, transport="native") as client,
        futures.ThreadPoolExecutor(20) as pool,
    ):
        assert set(pool.map(lambda _: client.country(CHINA), range(200))) == {"CN"}


def test_call_left_over_by_a_goaway_ends_with_its_client() -> None:
    left = threading.Event()

    def leaving(peer: Peer) -> None:
        stream = peer.request()
        peer.send(http2.GOAWAY, 0, 0, stream.to_bytes(4) + bytes(4))
        left.set()
        peer.frame()

    async def close_with_one_left(target: str) -> None:
        client = AsyncClient(target, timeout=PATIENCE, transport="native")
        call = asyncio.create_task(client.country(CHINA))
        await asyncio.to_thread(left.wait, PATIENCE)
        assert await client.country(CHINA) == "CN"  # over another connection
        await client.close()
        with pytest.raises(ServiceError, match="the client was closed"):
            await asyncio.wait_for(call, PATIENCE / 2)

    with peers(leaving, answering) as target:
        asyncio.run(close_with_one_left(target))


def test_call_of_a_thread_left_over_by_a_goaway_ends_with_its_client() -> None:
    left = threading.Event()

    def leaving(peer: Peer) -> None:
        stream = peer.request()
        peer.send(http2.GOAWAY, 0, 0, stream.to_bytes(4) + bytes(4))
        left.set()
        with contextlib.suppress(EOFError):  # a call that the GOAWAY leaves out may come yet
            while True:
                peer.frame()

    with peers(leaving, answering) as target, futures.ThreadPoolExecutor(1) as pool:
        client = Client(target, timeout=PATIENCE, transport="native")
        call = pool.submit(client.country, CHINA)
        assert left.wait(PATIENCE)
        assert client.country(CHINA) == "CN"  # over another connection
        client.close()
        with pytest.raises(ServiceError, match="the client was closed"):
            call.result(PATIENCE / 2)


def test_connection_that_ends_beside_others_is_replaced(kind: Any) -> None:
    end, replaced = threading.Event(), threading.Event()

    def ending(peer: Peer) -> None:
        def shut() -> None:
            end.wait(PATIENCE)
            peer.socket.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=shut, daemon=True).start()
        answering(peer)

    def third(peer: Peer) -> None:
        replaced.set()
        answering(peer)

    with (
        peers(ending, answering, third) as target,
        kind(target, timeout=PATIENCE, transport="native", channels=2) as client,
    ):
        assert [client.country(CHINA) for _ in range(20)] == ["CN"] * 20
        time.sleep(0.15)  # connections are made no sooner one after the other
        end.set()
        until = time.monotonic() + PATIENCE
        while not replaced.is_set() and time.monotonic() < until:
            assert client.country(CHINA) == "CN"
        assert replaced.is_set()


@pytest.mark.parametrize("error", [OSError(97, "Address family not supported"), OverflowError()])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_attempt_that_fails_in_this_process_is_followed_by_another(
    kind: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as where too many files are open, or a name has an IPv6 address and the host none."""
    failures = [error]
    make = socket.socket

    def failing(*arguments: Any, **named: Any) -> socket.socket:
        if failures and threading.current_thread().name == "geolookup-connecting":
            raise failures.pop()
        return make(*arguments, **named)

    with peers(answering) as target:
        monkeypatch.setattr(socket, "socket", failing)
        assert asked(kind, target) == "CN"
        assert not failures


@pytest.mark.parametrize("when", ["at first", "later"])
def test_connection_that_no_thread_can_be_started_for_is_an_error_that_says_so(
    kind: Any, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Any] = []

    def leaving(peer: Peer) -> None:
        peer.answer(peer.request())
        peer.request()

    with (
        peers(leaving, answering) as target,
        kind(target, timeout=PATIENCE, transport="native", retry=None) as client,
    ):
        if kind is Blocking:
            client._runner.get_loop().set_exception_handler(lambda _, one: problems.append(one))
        if when == "later":
            assert client.country(CHINA) == "CN"
        with no_thread_starts(monkeypatch):
            if when == "later":
                with pytest.raises(ServiceUnavailableError):
                    client.country(CHINA)  # over the connection that ends
            with pytest.raises(ServiceUnavailableError, match="can start no more threads"):
                client.country(CHINA)
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ServiceUnavailableError):
                if client.country(CHINA) == "CN":
                    break
            assert time.monotonic() < until
    assert problems == []


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def halves_of_records(authority: trustme.CA) -> Iterator[str]:
    """Listen with TLS; send one half of the record that answers a call, and nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain, _ = listening.accept()
            with plain:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(incoming, outgoing, server_side=True)
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        incoming.write(plain.recv(65536))
                tls.write(http2.frame(http2.SETTINGS, 0, 0, b""))
                plain.sendall(outgoing.read())
                received = b""
                while LOOKUP not in received:
                    incoming.write(plain.recv(65536))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        while True:
                            received += tls.read()
                tls.write(http2.frame(http2.PING, 0, 0, bytes(8)))
                plain.sendall(outgoing.read()[:20])
                while plain.recv(65536):
                    pass

    with accepting(serve) as target:
        yield target


@needs_native
def test_half_of_a_tls_record_is_waited_for(
    kind: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca")
    credentials = tls_credentials(ca=tmp_path / "ca")
    with (
        halves_of_records(authority) as target,
        kind(target, transport="native", credentials=credentials) as client,
    ):
        began = time.thread_time()
        with pytest.raises(ServiceUnavailableError, match=r"did not answer in 0\.5 s"):
            client.country(CHINA, timeout=0.5)
        assert time.thread_time() - began < 0.25, (
            "it was not waited for, but asked for all the time"
        )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("grpc.ssl_target_name_override", "b\u00fccher.example"),
        ("grpc.default_authority", "a\nb"),
        ("grpc.primary_user_agent", "a\0b"),
        ("grpc.primary_user_agent", "\ud800"),
        ("grpc.keepalive_time_ms", -1),
        ("grpc.keepalive_timeout_ms", 2**31),
        ("grpc.max_receive_message_length", -2),
    ],
)
def test_option_that_no_connection_can_have_is_refused_at_once(option: str, value: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"^options: {option}: expected"):
            kind("127.0.0.1:1", transport="native", options=[(option, value)])


def test_socket_of_a_connection_that_cannot_be_made_is_closed() -> None:
    from geolookup import _http2_client  # noqa: PLC0415 - may lack

    ours, theirs = socket.socketpair()
    with theirs:
        for named in ("name", "authority", "agent"):
            texts = {"name": "a", "authority": "a", "agent": "a", named: "\ud800"}
            descriptor = os.dup(ours.fileno())
            with pytest.raises(UnicodeEncodeError):
                _http2_client.Connection(
                    descriptor, context=None, keepalive=0, keepalive_answer=0, **texts
                )
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        ours.close()
        theirs.settimeout(PATIENCE)
        assert theirs.recv(1) == b""


def test_connections_are_attended_after_too_many_files_were_open(
    ours: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.eventfd
    failures = 3

    def failing(*arguments: int) -> int:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made(*arguments)

    monkeypatch.setattr(os, "eventfd", failing)
    with Client(ours.target, transport="native") as client:
        for _ in range(4):
            assert client.country(CHINA) == "CN"
        assert isinstance(client._calls, native.ThreadCalls)
        assert client._calls._connections.attended


# processes


def script_of(body: str, target: str) -> subprocess.Popen[str]:
    head = f"""
import os, signal, sys, threading, time
from geolookup.client import Client
client = Client({target!r}, timeout=60, transport="native")
"""
    return subprocess.Popen(
        # From Python 3.12 a fork beside threads warns, which here is the point.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ours() -> Iterator[Service]:
    with serving() as running:
        yield running


def test_forked_process_has_connections_of_its_own(ours: Service) -> None:
    body = """
print(client.country("1.0.1.1"), flush=True)
made = [threading.Thread(target=lambda: [client.country("1.0.1.1") for _ in range(300)])
        for _ in range(4)]
for one in made: one.start()
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        answers = {client.country("8.8.8.8") for _ in range(5)}
        client.close()
        os._exit(0 if answers == {"US"} else 1)
    children.append(pid)
print({os.waitpid(pid, 0)[1] for pid in children})
for one in made: one.join()
print(client.country("1.0.1.1"))
"""
    done = script_of(body, ours.target)
    assert done.communicate(timeout=PATIENCE) == ("CN\n{0}\nCN\n", "")


def test_connecting_imports_no_codec(ours: Service) -> None:
    """A process that is forked during the import would not know the codec, and never connect."""
    body = """
print("encodings.idna" in sys.modules, client.country("1.0.1.1"), "encodings.idna" in sys.modules)
"""
    done = script_of(body, ours.target.replace("127.0.0.1", "localhost"))
    assert done.communicate(timeout=PATIENCE) == ("False CN False\n", "")


def test_forked_process_waits_for_no_lookup_of_the_other_one(ours: Service) -> None:
    """As workers that a server forks, with a client of their application and its threads."""
    body = """
from geolookup.client import Coalescing
client = Client(client._target, timeout=20, transport="native", coalesce=Coalescing(calls=1))
stop = threading.Event()
def ask():
    while not stop.is_set():
        client.lookup("1.0.1.1", "CN")
made = [threading.Thread(target=ask) for _ in range(4)]
for one in made: one.start()
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        answers = {client.lookup("8.8.8.8", "CN").country for _ in range(5)}
        os._exit(0 if answers == {"US"} else 1)
    children.append(pid)
print({os.waitpid(pid, 0)[1] for pid in children})
stop.set()
for one in made: one.join()
print(len(client._lookups), client.country("1.0.1.1"))
"""
    done = script_of(body, ours.target)
    assert done.communicate(timeout=PATIENCE) == ("{0}\n0 CN\n", "")


def test_process_ends_with_calls_under_way_and_a_client_that_is_open() -> None:
    with peers(lambda peer: [peer.frame() for _ in range(10**6)]) as target:
        body = """
for _ in range(3):
    threading.Thread(target=client.country, args=("1.0.1.1",), daemon=True).start()
time.sleep(0.3)
print("over")
"""
        done = script_of(body, target)
        assert done.communicate(timeout=PATIENCE) == ("over\n", "")
        assert done.returncode == 0


def test_interrupt_ends_a_call_and_the_client_goes_on() -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        reached.set()
        answering(peer)

    with peers(script) as target:
        body = """
try:
    client.country("1.0.1.1")
except KeyboardInterrupt:
    print("interrupted", client.country("1.0.1.1"))
"""
        done = script_of(body, target)
        assert reached.wait(PATIENCE)
        os.kill(done.pid, signal.SIGINT)
        assert done.communicate(timeout=PATIENCE) == ("interrupted CN\n", "")


@needs_native
def test_lost_connection_over_tls_does_not_end_a_process_that_has_the_systems_sigpipe(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """As command line tools do, which are to end with the reader of their output."""
    authority.cert_pem.write_to_path(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    answered, lost = threading.Event(), threading.Event()

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in range(1_000):
                plain, _ = listening.accept()
                with context.wrap_socket(plain, server_side=True) as tls:
                    peer = Peer(tls)
                    peer.answer(peer.request())
                    if number:
                        continue
                    answered.wait(PATIENCE)
                    # The end, and then a reset: after both, a write raises the signal.
                    raw = socket.socket(fileno=os.dup(tls.fileno()))
                    raw.shutdown(socket.SHUT_WR)
                    reset = struct.pack("ii", 1, 0)
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    raw.close()
                del peer  # or it would keep the socket open
                lost.set()

    body = f"""
from geolookup.client import tls_credentials
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
client = Client(client._target, timeout=60, transport="native",
                credentials=tls_credentials(ca={str(tmp_path / "ca")!r}))
print(client.country("1.0.1.1"), flush=True)
input()
print(client.country("1.0.1.1"))
"""
    with accepting(serve) as target, script_of(body, target) as done:
        assert done.stdout is not None
        assert done.stdout.readline() == "CN\n"
        answered.set()
        assert lost.wait(PATIENCE)
        assert done.communicate("\n", timeout=PATIENCE) == ("CN\n", "")
        assert done.returncode == 0


def test_client_that_is_dropped_leaves_no_thread_and_no_descriptor(ours: Service) -> None:
    body = """
import gc
def use():
    other = Client(client._target, transport="native")
    other.country("1.0.1.1")
use(); gc.collect()
before = len(os.listdir("/proc/self/fd"))
for _ in range(30):
    use()
end = time.monotonic() + 30
while time.monotonic() < end:
    gc.collect()
    names = [one.name for one in threading.enumerate() if "geolookup" in one.name]
    if not names and len(os.listdir("/proc/self/fd")) <= before:
        break
    time.sleep(0.01)
print(names, len(os.listdir("/proc/self/fd")) <= before)
"""
    done = script_of(body, ours.target)
    assert done.communicate(timeout=PATIENCE) == ("[] True\n", "")


def test_client_of_a_loop_that_is_dropped_leaves_no_descriptor(
    ours: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_PROBE", 0.01)

    async def dropped() -> None:
        async def use() -> None:
            assert await AsyncClient(ours.target, transport="native").country(CHINA) == "CN"

        await use()
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await use()
        end = time.monotonic() + PATIENCE
        while len(os.listdir("/proc/self/fd")) > before:
            assert time.monotonic() < end
            gc.collect()
            await asyncio.sleep(0.01)

    asyncio.run(dropped())


@pytest.mark.parametrize("coalesce", [False, True])
def test_tasks_of_a_group_that_fails_are_cancelled_and_the_client_goes_on(coalesce: bool) -> None:
    reset = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        for _ in range(10):
            peer.request()
        for _ in range(10):
            peer.wait_for(http2.RST_STREAM)
            reset.release()
        answering(peer)

    async def fail(target: str) -> None:
        async with AsyncClient(
            target, timeout=PATIENCE, transport="native", coalesce=coalesce
        ) as client:

            async def fails() -> None:
                await asyncio.sleep(0.1)
                raise LookupError

            with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - a block is its point
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(client.country(CHINA)) for _ in range(10)]
                    group.create_task(fails())
            assert [type(one) for one in raised.value.exceptions] == [LookupError]
            assert all(task.cancelled() for task in tasks)
            for _ in range(10):
                assert await asyncio.to_thread(reset.acquire, timeout=PATIENCE)
            assert await client.country(CHINA) == "CN"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await client.country(CHINA)
            assert await client.country(CHINA) == "CN"

    with peers(script) as target:
        asyncio.run(fail(target))


@pytest.mark.parametrize("carrier", transports.NAMES)
@pytest.mark.parametrize("coalesce", [False, True])
def test_client_of_another_event_loop_is_refused(
    ours: Service, carrier: str, coalesce: bool
) -> None:
    client = AsyncClient(ours.target, transport=carrier, coalesce=coalesce)
    assert asyncio.run(client.country(CHINA)) == "CN"

    async def again() -> None:
        with pytest.raises(RuntimeError, match="belongs to the event loop that first used it"):
            await client.country(CHINA)
        with pytest.raises(RuntimeError, match="belongs to the event loop that first used it"):
            async for _ in client.classify_many([[CHINA]]):
                pass

    asyncio.run(again())


def test_certificates_that_openssl_does_not_take_are_refused_before_use(tmp_path: Any) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match="not certificates in PEM"):
        tls_credentials(ca=empty)


def test_failures_read_the_words_of_the_native_transport() -> None:
    words = "failed to connect: timed out"
    assert Failure(grpc.StatusCode.UNAVAILABLE, words).is_retryable
