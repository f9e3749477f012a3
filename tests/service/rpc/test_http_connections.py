"""HTTP/1.1 as clients and attackers speak it: framing, limits, TLS, time, and stops."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from http_requests import Connection, Response, ask, connected, request
from servers import (
    COMMAND,
    ON_FREE_PORTS,
    PATIENCE,
    serving,
    serving_here,
    stub_of,
    within_patience,
)

import geolookup
from geolookup import Dataset
from geolookup.service import RosterLimits, Server, tls
from geolookup.service.methods import Method
from geolookup.service.monitoring import counters
from geolookup.service.rpc import handlers
from geolookup.service.rpc.handlers import Snapshot
from geolookup.service.rpc.request import Call, RequestError
from geolookup.v1 import geolookup_pb2 as v1

pytest.importorskip("httptools", reason="the extra http is not installed")

CHINA = "1.0.1.1"
CHOSEN = {"text": CHINA, "regionSet": "CN"}
LOOKUP = request("Lookup", CHOSEN)
LIMITS = RosterLimits(roster=100_000)


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Server]:
    with serving_here(
        dataset, http="127.0.0.1:0", limits=LIMITS, max_calls=4, max_metadata=2_048
    ) as running:
        yield running


def is_verdict(response: Response | None) -> bool:
    return response is not None and response.json.get("verdict") == "VERDICT_INSIDE"


# --- one connection


def test_connection_stays_open_for_the_next_request(server: Server) -> None:
    with connected(server) as connection:
        for _ in range(3):
            connection.send(LOOKUP)
            response = connection.response()
            assert is_verdict(response)
            assert response is not None
            assert "connection" not in response.headers


def test_requests_one_after_another_are_answered_in_order(server: Server) -> None:
    bodies = [{"text": f"1.0.1.{number}"} for number in range(50)]
    roster = {"ipv4": "AQABAQ==" * 1, "regionSet": "CN"}
    with connected(server) as connection:
        connection.send(
            b"".join(
                request("Explain" if number % 10 == 0 else "Lookup", body)
                for number, body in enumerate(bodies)
            )
            + request("ClassifyRoster", roster)
        )
        for number in range(50):
            response = connection.response()
            assert response is not None
            if response.status == 429:  # more wait than are admitted
                continue
            assert response.status == 200
            assert ("lookedUp" in response.json) is (number % 10 == 0)


def test_request_in_single_bytes_is_answered(server: Server) -> None:
    with connected(server) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LOOKUP:
            connection.send(bytes([byte]))
        assert is_verdict(connection.response())


def test_connection_close_is_honoured(server: Server) -> None:
    with connected(server) as connection:
        connection.send(request("Lookup", CHOSEN, {"Connection": "close"}))
        response = connection.response()
        assert is_verdict(response)
        assert response is not None
        assert response.headers["connection"] == "close"
        assert connection.is_closed()


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    with connected(server) as connection:
        connection.send(LOOKUP.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host:", b"X-Host:"))
        assert is_verdict(connection.response())
        assert connection.is_closed()


def test_expect_100_is_answered_before_the_body(server: Server) -> None:
    body = json.dumps(CHOSEN)
    head = request("Lookup", b"", {"Content-Length": str(len(body)), "Expect": "100-continue"})
    with connected(server) as connection:
        connection.send(head)
        go_on = connection.response()
        assert go_on is not None
        assert go_on.status == 100
        connection.send(body.encode())
        assert is_verdict(connection.response())


def test_expect_100_of_a_request_that_is_refused_gets_no_100(server: Server) -> None:
    size = str(LIMITS.message_bytes + 1)
    with connected(server) as connection:
        connection.send(
            request("ClassifyRoster", b"", {"Content-Length": size, "Expect": "100-continue"})
        )
        response = connection.response()
        assert response is not None
        assert (response.status, response.code) == (413, "resource_exhausted")
        assert connection.is_closed()


# --- requests that are no requests


def lookup(headers: dict[str, str | None]) -> bytes:
    return request("Lookup", CHOSEN, headers)


def at(path: str) -> bytes:
    return request("Lookup", CHOSEN, path=path)


REFUSED: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/3.0": (LOOKUP.replace(b"HTTP/1.1", b"HTTP/3.0"), 400),
    "no host": (LOOKUP.replace(b"Host:", b"X-Host:"), 400),
    "two hosts": (lookup({"host": "other.example"}), 400),
    "line feeds alone": (LOOKUP.replace(b"\r\n", b"\n"), 400),
    "carriage return in a value": (lookup({"X-A": "a\rb"}), 400),
    "null in a value": (lookup({"X-A": "a\0b"}), 400),
    "folded header": (lookup({"X-A": "a\r\n b"}), 400),
    "space before the colon": (lookup({"Content-Length ": "3"}), 400),
    "no name": (lookup({"": "a"}), 400),
    "two lengths": (lookup({"content-length": "3"}), 400),
    "two equal lengths": (lookup({"content-length": str(len(json.dumps(CHOSEN)))}), 400),
    "list of lengths": (lookup({"Content-Length": "2, 2"}), 400),
    "negative length": (lookup({"Content-Length": "-2"}), 400),
    "signed length": (lookup({"Content-Length": "+2"}), 400),
    "hexadecimal length": (lookup({"Content-Length": "0x2"}), 400),
    "length of 65 bits": (lookup({"Content-Length": "18446744073709551618"}), 400),
    "no length": (lookup({"Content-Length": None}), 411),
    "chunked": (
        request(
            "Lookup",
            b"2\r\n{}\r\n0\r\n\r\n",
            {"Content-Length": None, "Transfer-Encoding": "chunked"},
        ),
        411,
    ),
    "chunked and a length": (lookup({"Transfer-Encoding": "chunked"}), 400),
    "chunked with a tab": (lookup({"Content-Length": None, "Transfer-Encoding": "\tchunked"}), 411),
    "another encoding": (lookup({"Content-Length": None, "Transfer-Encoding": "xchunked"}), 411),
    "upgrade": (lookup({"Connection": "Upgrade", "Upgrade": "h2c"}), 400),
    "tunnel": (b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", 400),
    "whole URL": (at("http://a/geolookup.v1.GeoLookupService/Lookup"), 404),
    "query": (at("/geolookup.v1.GeoLookupService/Lookup?a"), 404),
    "escaped": (at("/geolookup.v1.GeoLookupService/%4cookup"), 404),
    "dots": (at("/x/../geolookup.v1.GeoLookupService/Lookup"), 404),
    "two slashes": (at("//geolookup.v1.GeoLookupService/Lookup"), 404),
    "lower case": (at("/geolookup.v1.geolookupservice/lookup"), 404),
    "stream": (request("StreamRosters", {}), 404),
    "health": (request(path="/grpc.health.v1.Health/Check", body={}), 404),
    "root": (request(path="/", body={}), 404),
    "GET": (request("Lookup", CHOSEN, verb="GET"), 405),
    "OPTIONS": (request("Lookup", b"", verb="OPTIONS"), 405),
    "no type": (lookup({"Content-Type": None}), 415),
    "form": (lookup({"Content-Type": "application/x-www-form-urlencoded"}), 415),
    "text": (lookup({"Content-Type": "text/plain"}), 415),
    "protobuf": (lookup({"Content-Type": "application/proto"}), 415),
    "gRPC": (lookup({"Content-Type": "application/grpc+json"}), 415),
    "another charset": (lookup({"Content-Type": "application/json; charset=latin1"}), 415),
    "gzip": (lookup({"Content-Encoding": "gzip"}), 501),
    "another expectation": (lookup({"Expect": "200-ok"}), 417),
    "another version of Connect": (lookup({"Connect-Protocol-Version": "2"}), 400),
    "time-out of 11 digits": (lookup({"Connect-Timeout-Ms": "1" * 11}), 400),
    "negative time-out": (lookup({"Connect-Timeout-Ms": "-1"}), 400),
    "time-out in other digits": (lookup({"Connect-Timeout-Ms": "\u0665"}), 400),
    "two time-outs": (
        lookup({"Connect-Timeout-Ms": "1", "connect-timeout-ms": "9"}),
        400,
    ),
    "large headers": (lookup({"X-A": "a" * 2_048}), 431),
    "many headers": (lookup({f"X-{one}": "a" for one in range(300)}), 431),
    "headers without end": (b"POST /a HTTP/1.1\r\nX-A: " + b"a" * 10_000, 431),
    "path without end": (b"POST /" + b"a" * 10_000, 431),
    "empty lines without end": (b"\r\n" * 5_000, 431),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_request_that_is_no_call_is_refused(server: Server, data: bytes, status: int) -> None:
    with connected(server) as connection:
        connection.send(data)
        response = connection.response()
        assert response is not None
        assert response.status == status
        assert set(response.json) == {"code", "message"}
        assert CHINA not in response.message
        # At most one more answer: nothing of it is read as a request of its own.
        with contextlib.suppress(OSError):
            connection.send(LOOKUP)
            connection.socket.shutdown(socket.SHUT_WR)
        following = connection.response()
        assert following is None or (is_verdict(following) and connection.is_closed())


def test_head_gets_no_body(server: Server) -> None:
    with connected(server) as connection:
        connection.send(request("Lookup", b"", verb="HEAD"))
        response = connection.response(is_head=True)
        assert response is not None
        assert response.status == 405
        connection.send(LOOKUP)
        assert is_verdict(connection.response())


def test_requests_before_one_that_is_none_are_answered(dataset: Dataset, blocked: Blocked) -> None:
    with serving_here(dataset, http="127.0.0.1:0") as server, connected(server) as connection:
        connection.send(EXPLAIN + LOOKUP + b"junk\r\n\r\n" + LOOKUP)
        assert blocked.entered.wait(PATIENCE)
        blocked.go_on.set()
        statuses = []
        while (response := connection.response()) is not None:
            statuses.append((response.status, "connection" in response.headers))
        assert statuses == [(200, False), (200, False), (400, True)]
        assert taken(server) == 0


def test_request_that_had_begun_when_its_connection_is_retired_is_answered(
    dataset: Dataset,
) -> None:
    with (
        serving_here(dataset, http="127.0.0.1:0") as server,
        connected(server) as begun,
        connected(server) as idle,
    ):
        idle.send(LOOKUP)
        assert is_verdict(idle.response())
        begun.send(LOOKUP[:10])
        assert server._http is not None
        listener = server._http
        assert within_patience(lambda: not all(one.is_idle for one in listener._connections))
        listener.retire_connections()
        assert idle.is_closed()
        begun.send(LOOKUP[10:])
        response = begun.response()
        assert is_verdict(response)
        assert response is not None
        assert response.headers["connection"] == "close"
        assert begun.is_closed()
        assert is_verdict(ask(server, "Lookup", CHOSEN))


# --- who is admitted


def taken(server: Server) -> int:
    """Return how many slots of calls are taken."""
    calls = server._calls
    most = calls._settings.max_calls
    return 2 * most - calls.unary_slots.free - calls.join_slots.free


def counted(server: Server, method: Method) -> dict[str, int]:
    """Return how many calls of a method have ended with each code."""
    row = counters.total([server.counters]).calls[method]
    return {name: number for name, number in zip(counters.CODES, row, strict=True) if number}


def half(method: str = "Lookup", size: int = 100) -> bytes:
    """Return a request that lacks most of its body."""
    return request(method, b"{", {"Content-Length": str(size)})


@contextlib.contextmanager
def half_sent(server: Server, number: int) -> Iterator[list[Connection]]:
    """Keep so many requests open whose bodies have not come."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(number)]
        for connection in connections:
            connection.send(half())
        assert within_patience(lambda: taken(server) == number)
        yield connections
    assert within_patience(lambda: taken(server) == 0)


def test_calls_over_the_limit_are_refused_with_a_hint(server: Server) -> None:
    before = counters.total([server.counters]).shed[Method.LOOKUP]
    with half_sent(server, 4), connected(server) as connection:
        for _ in range(2):  # on one connection, since its body is small
            connection.send(LOOKUP)
            response = connection.response()
            assert response is not None
            assert (response.status, response.code) == (429, "resource_exhausted")
            assert response.message == "calls: over the limit of 4"
            assert 1 <= int(response.headers["retry-after"]) <= 3
            assert 50 <= int(response.headers["trailer-grpc-retry-pushback-ms"]) <= 3_000
        # Lookups have slots of their own.
        connection.send(request("GetDataset", {}))
        response = connection.response()
        assert response is not None
        assert response.status == 200
    assert counters.total([server.counters]).shed[Method.LOOKUP] == before + 2


def test_memory_over_the_budget_is_refused_with_a_hint(dataset: Dataset) -> None:
    roster = json.dumps({"text": {"addresses": ["255.255.255.255"] * 50_000}})
    with serving_here(dataset, http="127.0.0.1:0", memory_budget=8 << 20) as server:
        counting = server.counters
        # It needs more than the budget, and is alone.
        assert ask(server, "ClassifyRoster", roster).status == 200
        assert within_patience(lambda: counting.read()["memory"] == 0)
        assert counting.take_memory(1 << 20, 8 << 20)
        response = ask(server, "ClassifyRoster", roster)
        assert (response.status, response.code) == (429, "resource_exhausted")
        assert "memory_budget" in response.message
        assert "retry-after" in response.headers
        counting.give_back_memory(1 << 20)
        assert within_patience(lambda: counting.read()["memory"] == 0)
        assert ask(server, "ClassifyRoster", roster).status == 200
        assert taken(server) == 0


def test_calls_over_grpc_leave_what_calls_in_json_have_taken(dataset: Dataset) -> None:
    large = v1.ClassifyRosterRequest(ipv4=bytes(400_000))
    with (
        serving_here(dataset, http="127.0.0.1:0", memory_budget=2 << 20) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        counting, stub = server.counters, stub_of(channel)
        assert counting.take_memory(1_500_000, 2 << 20)  # as a call in JSON does
        with pytest.raises(grpc.RpcError) as refused:
            stub.ClassifyRoster(large, timeout=PATIENCE)
        assert "memory_budget" in str(refused.value.details())
        assert counting.read()["memory"] == 1_500_000
        counting.give_back_memory(1_500_000)
        assert stub.ClassifyRoster(large, timeout=PATIENCE).size == 100_000
        assert within_patience(lambda: counting.read()["memory"] == 0)


def test_request_of_more_parts_than_a_roster_has_is_refused(dataset: Dataset) -> None:
    limits = RosterLimits(roster=30_000)
    with serving_here(dataset, http="127.0.0.1:0", limits=limits) as server:
        response = ask(server, "ClassifyRoster", "[" + "[]," * 100_000 + "[]]")
        assert (response.status, response.message) == (400, "request: over 61024 parts")


def test_roster_of_the_largest_size_is_answered(server: Server) -> None:
    texts = [f"1.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(LIMITS.roster)]
    body = {"text": {"addresses": texts}, "regionSet": "CN", "groupSizes": [1] * LIMITS.roster}
    response = ask(server, "ClassifyRoster", body)
    assert response.status == 200
    assert response.json["participants"] == LIMITS.roster
    assert within_patience(lambda: server.counters.read()["memory"] == 0)


# --- calls that take long


class Blocked:
    """A handler that waits, and then looks whether its call is active."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.ended: list[str] = []
        monkeypatch.setattr(handlers, "explain", self.explain)

    def explain(self, _s: Snapshot, _b: bytes, _l: RosterLimits, call: Call) -> bytes:
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        try:
            call.check_active()
        except RequestError as error:
            self.ended.append(error.text)
            raise
        return b""


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Blocked:
    return Blocked(monkeypatch)


EXPLAIN = request("Explain", {"text": CHINA})


def test_lookups_are_answered_while_a_thread_is_busy(dataset: Dataset, blocked: Blocked) -> None:
    with serving_here(dataset, http="127.0.0.1:0") as server, connected(server) as connection:
        connection.send(EXPLAIN)
        assert blocked.entered.wait(PATIENCE)
        assert is_verdict(ask(server, "Lookup", CHOSEN))
        blocked.go_on.set()
        response = connection.response()
        assert response is not None
        assert (response.status, response.json) == (200, {})


def test_client_that_disconnects_cancels_its_call(dataset: Dataset, blocked: Blocked) -> None:
    with serving_here(dataset, http="127.0.0.1:0") as server:
        with connected(server) as connection:
            connection.send(EXPLAIN)
            assert blocked.entered.wait(PATIENCE)
        assert within_patience(lambda: not server._http._connections)  # type: ignore[union-attr]
        blocked.go_on.set()
        assert within_patience(lambda: taken(server) == 0)
        assert blocked.ended == ["the client has cancelled the call"]
        assert counted(server, Method.EXPLAIN) == {"CANCELLED": 1}


def test_deadline_that_has_passed_ends_a_call(dataset: Dataset, blocked: Blocked) -> None:
    with serving_here(dataset, http="127.0.0.1:0") as server, connected(server) as connection:
        connection.send(request("Explain", {"text": CHINA}, {"Connect-Timeout-Ms": "50"}))
        sent = time.monotonic()
        if blocked.entered.wait(1):  # on a busy machine it may be over before it begins
            time.sleep(max(0.0, sent + 0.06 - time.monotonic()))
        blocked.go_on.set()
        response = connection.response()
        assert response is not None
        assert (response.status, response.code) == (504, "deadline_exceeded")
        assert counted(server, Method.EXPLAIN) == {"DEADLINE_EXCEEDED": 1}


def test_time_out_of_nothing_is_a_deadline_that_has_passed(server: Server) -> None:
    assert ask(server, "Lookup", CHOSEN, {"Connect-Timeout-Ms": "0"}).status == 504
    assert is_verdict(ask(server, "Lookup", CHOSEN, {"Connect-Timeout-Ms": "9999999999"}))


@pytest.mark.parametrize("method", ["Lookup", "Explain"])
def test_exception_reaches_neither_client_nor_log(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError(f"bad address {CHINA}")

    monkeypatch.setattr(handlers, method.lower(), fail)
    with serving_here(dataset, http="127.0.0.1:0") as server:
        response = ask(server, method, {"text": CHINA})
        assert (response.status, response.json) == (
            500,
            {"code": "internal", "message": "internal error"},
        )
        assert counted(server, Method[method.upper()]) == {"INTERNAL": 1}
    errors = [record.__dict__["fields"]["error"] for record in caplog.records]
    assert len(errors) == 1
    assert "ValueError" in errors[0]
    assert CHINA not in errors[0]


# --- stops


def test_stop_answers_what_is_under_way(dataset: Dataset, blocked: Blocked) -> None:
    with (
        serving_here(dataset, http="127.0.0.1:0") as server,
        connected(server) as idle,
        connected(server) as busy,
        connected(server) as reading,
    ):
        idle.send(LOOKUP)
        assert is_verdict(idle.response())
        busy.send(EXPLAIN)
        reading.send(LOOKUP[:-5])
        assert blocked.entered.wait(PATIENCE)
        assert within_patience(lambda: taken(server) == 2)
        stopped = server.stop(PATIENCE)
        assert idle.is_closed()
        address = server.http_address
        assert address is not None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port), PATIENCE)
        assert not stopped.is_set()
        reading.send(LOOKUP[-5:])
        blocked.go_on.set()
        for connection in (busy, reading):
            response = connection.response()
            assert response is not None
            assert response.status == 200
            assert response.headers["connection"] == "close"
            assert connection.is_closed()
        assert stopped.wait(PATIENCE)


def test_stop_without_grace_ends_what_is_under_way(dataset: Dataset, blocked: Blocked) -> None:
    with serving_here(dataset, http="127.0.0.1:0") as server, connected(server) as connection:
        connection.send(EXPLAIN)
        assert blocked.entered.wait(PATIENCE)
        server.stop(PATIENCE)
        stopped = server.stop(0)
        assert connection.response() is None
        blocked.go_on.set()
        assert stopped.wait(PATIENCE)


# --- time


TIMES = {"handshake_timeout": 0.2, "transfer_timeout": 1.0, "max_connection_idle": 1.0}


def test_connection_without_a_request_is_closed(dataset: Dataset) -> None:
    with serving_here(dataset, http="127.0.0.1:0", **TIMES) as server:
        with connected(server) as silent, connected(server) as slow:
            slow.send(LOOKUP[:20])
            assert silent.is_closed()
            assert slow.is_closed()
        with connected(server) as idle:
            idle.send(LOOKUP)
            assert is_verdict(idle.response())
            assert idle.is_closed()


def test_request_that_does_not_come_whole_is_refused(dataset: Dataset) -> None:
    with serving_here(dataset, http="127.0.0.1:0", **TIMES) as server:
        with connected(server) as connection:
            connection.send(half())
            response = connection.response()
            assert response is not None
            assert response.status == 408
            assert connection.is_closed()
        assert within_patience(lambda: taken(server) == 0)
        assert within_patience(lambda: counters.total([server.counters]).transfer_timeouts == 1)


def test_client_that_takes_no_answers_is_disconnected(dataset: Dataset) -> None:
    large = request("ListRegionSets", {})
    with serving_here(dataset, http="127.0.0.1:0", transfer_timeout=1) as server:
        address = server.http_address
        assert address is not None
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.connect((address.host, address.port))
            one.settimeout(PATIENCE)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                one.sendall(large * 200_000)  # they are read no more, and then it is ended
        assert within_patience(lambda: taken(server) == 0)
        assert is_verdict(ask(server, "Lookup", CHOSEN))


def test_connection_of_the_largest_age_is_closed_after_its_answer(dataset: Dataset) -> None:
    with (
        serving_here(
            dataset, http="127.0.0.1:0", max_connection_age=1, handshake_timeout=0.4
        ) as server,
        connected(server) as connection,
    ):
        connection.send(LOOKUP)
        assert is_verdict(connection.response())
        assert connection.is_closed()


def test_connection_without_a_call_makes_room_for_another(dataset: Dataset) -> None:
    with (
        serving_here(dataset, http="127.0.0.1:0", max_connections=2) as server,
        connected(server) as used,
        connected(server) as unused,
    ):
        used.send(LOOKUP)
        assert is_verdict(used.response())
        with connected(server) as third:
            third.send(LOOKUP)
            assert is_verdict(third.response())
            assert unused.is_closed()
            with connected(server) as fourth:  # all others have made a call
                with contextlib.suppress(OSError):
                    fourth.send(LOOKUP)
                assert fourth.is_closed()
            used.send(LOOKUP)
            assert is_verdict(used.response())
        totals = counters.total([server.counters])
        assert (totals.connections_made, totals.connections_closed) == (3, [1, 1])
        counting = server.counters
    assert within_patience(lambda: counting.read()["connections"] == 0)


# --- the dataset


def test_new_snapshot_answers_the_next_request(dataset: Dataset, small_file: Path) -> None:
    with (
        serving_here(dataset, http="127.0.0.1:0") as server,
        geolookup.open(small_file) as other,
        connected(server) as connection,
    ):
        for snapshot in (Snapshot(dataset), Snapshot(other)):
            server.snapshot = snapshot
            connection.send(request("GetDataset", {}))
            response = connection.response()
            assert response is not None
            assert response.json["id"] == snapshot.dataset.id


# --- TLS


class Files:
    """A certificate of the service, and the authority of all certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.write()
        self.authority.cert_pem.write_to_path(folder / "clients")

    def write(self) -> None:
        """Put a new certificate in the place of the one before."""
        made = self.authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(self.folder / "key")
        (self.folder / "chain").write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "http": "127.0.0.1:0",
            "tls_certificate": self.folder / "chain",
            "tls_key": self.folder / "key",
        }

    @property
    def mutual(self) -> dict[str, Any]:
        return {**self.settings, "tls_client_ca": self.folder / "clients"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def over_tls(
    server: Server, files: Files, *names: str, ciphers: str = "", issuer: trustme.CA | None = None
) -> Iterator[Connection]:
    """Connect; with names, as a client that has a certificate with them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files.authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    if names:
        (issuer or files.authority).issue_cert(*names).configure_cert(context)
    address = server.http_address
    assert address is not None
    with (
        socket.create_connection((address.host, address.port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as one,
    ):
        yield Connection(one)


def failures(server: Server) -> dict[str, int]:
    """Return how many handshakes failed, by the reason."""
    numbers = counters.total([server.counters]).handshake_failures
    return {
        name: number
        for name, number in zip(counters.HANDSHAKE_FAILURES, numbers, strict=True)
        if number
    }


def test_tls_is_spoken_with_http_1_1_alone(dataset: Dataset, files: Files) -> None:
    with serving_here(dataset, **files.settings) as server:
        with over_tls(server, files) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            assert connection.socket.selected_alpn_protocol() == "http/1.1"
            connection.send(LOOKUP)
            assert is_verdict(connection.response())
        assert counters.total([server.counters]).handshakes == 1


def test_weak_tls_and_none_are_refused(
    dataset: Dataset, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with serving_here(dataset, **files.settings) as server:
        with connected(server) as plain:
            plain.send(LOOKUP)
            assert plain.response() is None
        weak = "AES128-SHA256"  # without forward secrecy
        with (
            pytest.raises((ssl.SSLError, ConnectionResetError)),
            over_tls(server, files, ciphers=weak),
        ):
            raise AssertionError
        with over_tls(server, files) as connection:
            connection.send(LOOKUP)
            assert is_verdict(connection.response())
        assert within_patience(lambda: not server._http._connections)  # type: ignore[union-attr]
        assert failures(server) == {"no_tls": 1, "other": 1}
    assert "127.0.0.1" not in caplog.text


def test_client_without_a_certificate_gets_no_answer(dataset: Dataset, files: Files) -> None:
    with serving_here(dataset, **files.mutual) as server:
        # In TLS 1.3 the client learns it from an alert, when its own handshake is done.
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            over_tls(server, files) as connection,
        ):
            connection.send(LOOKUP)
            assert connection.is_closed()
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            over_tls(server, files, "meet.example", issuer=trustme.CA()) as connection,
        ):
            assert connection.is_closed()
        assert within_patience(lambda: len(failures(server)) == 2)
        assert failures(server) == {"no_certificate": 1, "unknown_authority": 1}
        with over_tls(server, files, "meet.example") as connection:
            connection.send(LOOKUP)
            assert is_verdict(connection.response())
        assert counted(server, Method.LOOKUP) == {"OK": 1}


def test_clients_may_call_what_their_names_are_allowed(dataset: Dataset, files: Files) -> None:
    allow = {
        "Lookup": frozenset({"meet.example"}),
        "*": frozenset({"ops.example"}),
    }
    with serving_here(dataset, **files.mutual, allow=allow) as server:
        for name, statuses in (
            ("meet.example", (200, 403)),
            ("ops.example", (403, 200)),
            ("other.example", (403, 403)),
        ):
            certificate = (name,)
            with over_tls(server, files, *certificate) as connection:
                for body, status in zip((LOOKUP, EXPLAIN), statuses, strict=True):
                    connection.send(body)
                    response = connection.response()
                    assert response is not None
                    assert response.status == status, name
                    if status == 403:
                        assert response.code == "permission_denied"
                        assert name not in response.message
        assert counted(server, Method.LOOKUP) == {"OK": 1, "PERMISSION_DENIED": 2}


def test_new_certificate_is_used_by_the_next_handshake(dataset: Dataset, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with serving_here(dataset, **files.settings) as server:
        with over_tls(server, files) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            before = connection.socket.getpeercert(True)
        files.write()
        tls.reload_changed()
        with over_tls(server, files) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            assert connection.socket.getpeercert(True) != before
            connection.send(LOOKUP)
            assert is_verdict(connection.response())


# --- the command


def curl(*options: str) -> tuple[int, Any]:
    """Return HTTP's status and the answer."""
    printed = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", "-H", "content-type: application/json", *options],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    body, _, status = printed.rpartition("\n")
    return int(status), json.loads(body)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_workers_answer_curl_and_count(tmp_path: Path) -> None:
    large = tmp_path / "roster.json"
    large.write_text(json.dumps({"text": {"addresses": [CHINA] * 200_000}, "regionSet": "CN"}))
    with serving("--http", "127.0.0.1:0", "--workers", "2", "--metrics", "127.0.0.1:0") as service:
        url = f"{service.announced['http'][0]}/geolookup.v1.GeoLookupService"
        for _ in range(8):
            status, answer = curl("-d", json.dumps(CHOSEN), f"{url}/Lookup")
            assert (status, answer["verdict"]) == (200, "VERDICT_INSIDE")
        status, answer = curl("-d", json.dumps({**CHOSEN, "regionset": "CN"}), f"{url}/Lookup")
        assert (status, answer["code"]) == (400, "invalid_argument")
        # So large that curl asks first whether to send it.
        status, answer = curl("-d", f"@{large}", f"{url}/ClassifyRoster")
        assert (status, answer["counts"]) == (200, {"CN": 200_000})
        text = subprocess.run(
            ["curl", "-s", service.announced["metrics"][0]],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout
        assert 'geolookup_calls_total{code="OK",method="Lookup"} 8.0' in text
        assert 'geolookup_calls_total{code="INVALID_ARGUMENT",method="Lookup"} 1.0' in text
        assert service.stop() == 0
        assert CHINA not in service.log()


def test_unix_socket_is_answered_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with serving("--http", f"unix:{path}") as service:
        assert service.announced["http"] == [f"unix:{path}"]
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(PATIENCE)
            one.connect(str(path))
            connection = Connection(one)
            connection.send(LOOKUP)
            assert is_verdict(connection.response())
        assert service.stop() == 0
    assert not path.exists()


def test_port_in_use_is_a_clear_error(server: Server) -> None:
    address = server.http_address
    ended = subprocess.run(
        [*COMMAND, *ON_FREE_PORTS, "--http", str(address)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ended.returncode != 0
    assert f"http: can't listen on {address}" in ended.stderr
    assert "--http" in ended.stderr


# --- privacy


SECRET = "171.185.150.190"  # noqa: S105 - an address that nothing else has


def leaking() -> Iterator[bytes]:
    """Yield requests with the address in every place, but for answers that hold it."""
    for value in (
        SECRET,
        f"{SECRET}:443",
        f"[{SECRET}]",
        base64.b64encode(SECRET.encode()).decode(),
    ):
        for name in ("text", "packed", "regionSet", "policy", "networks", value):
            yield request(
                "Lookup", {"text": CHINA, name: value} if name != "text" else {name: value}
            )
        for name in ("ipv4", "text", "record", "groupSizes", value):
            yield request("ClassifyRoster", {name: value})
            yield request("ClassifyRoster", {name: [value, 1]})
            yield request("ClassifyRoster", {"text": {"addresses": [value, 1], name: value}})
        for body in (value, f'{{"text":{value}}}', f'{{"text":"{value}', f"[{value}]"):
            yield request("Lookup", body)
            yield request("Explain", body)
        for header in ("Connect-Timeout-Ms", "Connect-Protocol-Version", "Content-Type", "Expect"):
            yield request("Lookup", CHOSEN, {header: value})
        for header in ("Content-Encoding", "X-Forwarded-For", "Host", value, "Content-Length"):
            yield request("Lookup", CHOSEN, {header: value})
        yield request(path=f"/{value}", body=CHOSEN)
        yield request("Lookup", CHOSEN, path=f"/geolookup.v1.GeoLookupService/Lookup?text={value}")
        yield request("Lookup", CHOSEN, verb=value)
        yield f"GET http://{value}/ HTTP/1.1\r\n{value}\r\n\r\n".encode()


def test_address_reaches_no_error_no_log_and_no_metric() -> None:
    with serving(
        "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "debug"
    ) as service:
        port = int(service.announced["http"][0].rpartition(":")[2])
        statuses = set()
        for data in leaking():
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as one:
                connection = Connection(one)
                connection.send(data)
                response = connection.response()
                assert response is not None, data
                statuses.add(response.status)
                shown = f"{response.headers}{response.body!r}"
                assert SECRET not in shown, data
                assert SECRET.split(".", 1)[1] not in shown, data
        assert statuses >= {200, 400, 404, 415, 417, 501}
        metrics = service.announced["metrics"][0].removeprefix("http://").split("/")[0]
        host, _, number = metrics.rpartition(":")
        with socket.create_connection((host, int(number)), PATIENCE) as one:
            one.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            page = b"".join(iter(lambda: one.recv(65_536), b""))
        assert b"geolookup_calls_total" in page
        assert service.stop() == 0
        for written in (page.decode(), service.log()):
            assert SECRET not in written
