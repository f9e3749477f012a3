"""No address leaves the service but in an answer: everything else that it writes is searched.

A real service is asked about canaries (addresses that nothing else has) in every rpc and
wrongly in every way, is reloaded, overloaded and crashed. Then everything that its
processes wrote is searched for the canaries, and for the address that the client came
from, by tests/leaks.py.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import ipaddress
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import small_dataset
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from http2 import PREFACE, frame
from leaks import Leak, Scanner

import geolookup.answer.dataset
from geolookup.service.admin.client import RemoteControl
from geolookup.v1 import geolookup_pb2 as v1

PATIENCE = 60
ROOT = Path(__file__).resolve().parents[2]
SERVICE = "/geolookup.v1.GeoLookupService/"
PEER = "127.83.45.67"
"""Where the client's connections come from."""
NOBODY = 65_534


# --- canaries


@dataclass(frozen=True)
class Canary:
    """A pair of addresses for one purpose, so that a leak tells where it comes from."""

    ipv4: str
    ipv6: str

    @classmethod
    def of(cls, purpose: str) -> Canary:
        """Return the pair of a purpose: always the same, unlike that of any other."""
        draw = random.Random(f"canary {purpose}")
        # No octet that is a printable character, so that no part of it looks like text.
        octets = [draw.choice((150, 171, 185, 190)), *(draw.randrange(0x80, 0xF0) for _ in "123")]
        groups = ["2a0d", *(f"{draw.randrange(0x1000, 0xFFFF):x}" for _ in range(7))]
        return cls(".".join(map(str, octets)), ":".join(groups))

    @property
    def packed4(self) -> bytes:
        return ipaddress.ip_address(self.ipv4).packed

    @property
    def packed6(self) -> bytes:
        return ipaddress.ip_address(self.ipv6).packed

    @property
    def texts(self) -> list[str]:
        """Both, and the IPv4 one in each form that is one: mapped, 6to4, Teredo, NAT64."""
        high, low = self.packed4[:2].hex(), self.packed4[2:].hex()
        inverted = bytes(byte ^ 0xFF for byte in self.packed4)
        return [
            self.ipv4,
            self.ipv6,
            self.ipv6.upper(),
            f"::ffff:{self.ipv4}",
            f"::ffff:{high}:{low}",
            f"2002:{high}:{low}::1",
            f"2001::{inverted[:2].hex()}:{inverted[2:].hex()}",
            f"64:ff9b::{self.ipv4}",
        ]

    @property
    def malformed(self) -> list[str]:
        """What is not quite an address."""
        return [
            f"{self.ipv4}:443",
            f"[{self.ipv6}]:443",
            f" {self.ipv4}",
            f"{self.ipv4}\n",
            f"{self.ipv4}/24",
            f"{self.ipv6}/64",
            f"{self.ipv6}%eth0",
            f"{self.ipv4}.1",
            f"0{self.ipv4}",
            self.ipv4.replace(".", "-"),
            self.ipv6.replace(":", "-"),
            self.ipv4.rpartition(".")[0],
            str(int(ipaddress.ip_address(self.ipv4))),
            self.packed4.hex(),
            self.packed6.hex(),
            base64.b64encode(self.packed6).decode(),
            f"{self.ipv4}\0",
            f"{self.ipv4} \N{GRINNING FACE}",
            f"{self.ipv4} " * 5_000,
        ]


PURPOSES = (
    "lookup",
    "roster",
    "stream",
    "explain",
    "malformed",
    "bodies",
    "metadata",
    "region set",
    "oversize",
    "exception",
    "late",
    "path",
    "http",
    "metrics",
    "admin",
    "reload",
    "overload",
    "crash",
    "abort",
    "kill",
)
CANARIES = {purpose: Canary.of(purpose) for purpose in PURPOSES}
SEEDED = Canary.of("seeded")


def scanner() -> Scanner:
    return Scanner([PEER, *(a for c in CANARIES.values() for a in (c.ipv4, c.ipv6))])


def test_canaries_are_unlike_each_other() -> None:
    assert len({canary.ipv4.rpartition(".")[0] for canary in CANARIES.values()}) == len(CANARIES)
    assert len({canary.packed6[:8] for canary in CANARIES.values()}) == len(CANARIES)


# --- a client that comes from an address of its own


class Relay:
    """Passes TCP connections on to a service, which sees them come from `PEER`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, source_address=(PEER, 0))
            except ConnectionError:  # the service is away
                near.close()
                continue
            except OSError:  # closed
                return
            for source, sink in ((near, far), (far, near)):
                self._open |= {source, sink}
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        # What the other side has still to say passes.
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            end.close()


# --- a service of which everything written is kept


HOOKS = '''
"""Loaded by each interpreter of the test: handlers fail and leak when the test asks them to."""

import ctypes
import os
import sys
import threading

import geolookup.service.rpc.handlers as handlers
import geolookup.service.rpc.request as request

def leak(body):
    text, part = body.split(b"LEAKING ")[1].split(b" ")[:2]
    os.write(2, b"to stderr: " + text + b"\\n")
    folder = os.environ["TMPDIR"]
    with open(os.path.join(folder, "content"), "wb") as file:
        file.write(text)
    with open(os.path.join(folder, os.fsdecode(text)), "wb"):
        pass
    with open(os.path.join(folder, "gone"), "wb") as file:
        file.write(text)
    os.unlink(file.name)
    def wait():
        ctypes.CDLL(None).prctl(15, part, 0, 0, 0)  # PR_SET_NAME
        named.set()
        threading.Event().wait()
    named = threading.Event()
    threading.Thread(target=wait, daemon=True).start()
    named.wait()
    raise request.RequestError(request.Code.INVALID_ARGUMENT, "told: " + os.fsdecode(text))

def failing(handler):
    def fail(snapshot, body, *rest):
        if b"FAILING" in bytes(body):
            raise ValueError(f"{body!r} {bytes(body).hex()}", body)
        if b"LEAKING " in bytes(body):
            leak(bytes(body))
        return handler(snapshot, body, *rest)
    return fail

for name in ("lookup", "classify_roster", "stream_rosters", "explain"):
    setattr(handlers, name, failing(getattr(handlers, name)))
'''


@dataclass
class Observed:
    """A running service in a folder of its own.

    Attributes:
        folder: where it runs and where all its temporary files go.
        process: the command's process.
        announced: the values it printed when it was ready, by name.
        told: what clients were told other than answers.
        seen: what was read of its processes while they ran.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    announced: dict[str, str]
    told: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.announced["address"]

    def processes(self) -> list[int]:
        """Return the ids of the command's process and of all under it."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def workers(self) -> list[int]:
        return self.processes()[1:]

    def observe(self) -> None:
        """Read what the system shows of its processes to others."""
        for pid in self.processes():
            folder = Path(f"/proc/{pid}")
            names = [folder / "cmdline", folder / "environ", *folder.glob("task/*/comm")]
            for name in names:
                with contextlib.suppress(OSError):
                    self.seen.append(name.read_bytes())
            with contextlib.suppress(OSError):
                links = [os.readlink(link) for link in folder.glob("fd/*")]
                self.seen.append("\n".join(links).encode())

    def written_elsewhere(self) -> list[str]:
        """Return the files outside of its folder that are open for writing."""
        found = []
        for pid in self.processes():
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    target = os.readlink(link)
                    info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
                    flags = int(info.split("flags:")[1].split()[0], 8)
                    named = target.startswith("/") and not target.startswith(("/dev/", "/memfd:"))
                    if (
                        flags & os.O_ACCMODE
                        and named
                        and not Path(target).is_relative_to(self.folder)
                    ):
                        found.append(target)
        return found

    def leaks(self, scan: Scanner) -> list[Leak]:
        """Search everything."""
        found = scan.leaks("told to a client", b"\n".join(self.told))
        found += scan.leaks("processes", b"\n".join(self.seen))
        for path in self.folder.rglob("*"):
            found += scan.leaks(f"name of {path.name}", str(path).encode())
            if path.is_file() and path.suffix != ".geolookup":  # which the test put there
                found += scan.leaks(path.name, path.read_bytes())
        return found

    def tell(self, error: Any) -> grpc.StatusCode:
        """Keep what a client was told with an error."""
        metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
        self.told.append(f"{error.code()} {error.details()} {metadata}".encode())
        code: grpc.StatusCode = error.code()
        return code

    def healthy(self, channel: grpc.Channel) -> None:
        """Wait until it answers."""
        stub: Any = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
                return
            except grpc.RpcError:
                assert time.monotonic() < deadline


@contextlib.contextmanager
def observed(
    folder: Path,
    *options: str,
    group: int | None = None,
    tracer: Sequence[str] = (),
    **environment: str,
) -> Iterator[Observed]:
    """Run the service on the small dataset while the block runs.

    Args:
        folder: an empty one.
        options: of the command.
        group: of its processes; None: the test's.
        tracer: a command that runs the rest of its arguments in its own process.
        environment: more variables.
    """
    dataset = folder / "small.geolookup"
    if not dataset.exists():
        geolookup.answer.dataset.write(small_dataset.content(), dataset)
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOKS)
    (folder / "tmp").mkdir()
    inherited = ("PATH", "LANG", "LD_LIBRARY_PATH")
    variables = {name: os.environ[name] for name in inherited if name in os.environ}
    variables |= {
        "PYTHONPATH": f"{hooks}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
    } | environment
    # Core dumps as large as they like, if the service let them be written.
    command = ["/bin/sh", "-c", 'ulimit -c "$(ulimit -H -c)" && exec "$@"', "sh"]
    command += [sys.executable, "-m", "geolookup", "serve", "--dataset", str(dataset)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with (folder / "stderr").open("wb") as log, (folder / "stdout").open("wb") as output:
        process = subprocess.Popen(
            [*tracer, *command, *options],
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=log,
            group=group,
        )
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            text = os.read(process.stdout.fileno(), 65_536) if ready else b""
            assert text, (folder / "stderr").read_text()
            output.write(text)
            announced = dict(line.split(": ", 1) for line in text.decode().splitlines())
            yield Observed(folder, process, announced)
        finally:
            if process.poll() is None:
                process.kill()
            rest, _ = process.communicate(timeout=PATIENCE)
            output.write(rest)


# --- what is asked of it


class Asking:
    """Calls with raw bytes, of which all but the answers is kept."""

    def __init__(self, service: Observed, channel: grpc.Channel) -> None:
        self._service = service
        self._channel = channel

    def unary(
        self,
        method: str,
        body: bytes,
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float = PATIENCE,
        answer_is_told: bool = True,
    ) -> grpc.StatusCode:
        """Ask, and return the status."""
        path = method if method.startswith("/") else f"{SERVICE}{method}"
        try:
            answer, call = self._channel.unary_unary(path).with_call(
                body, timeout=timeout, metadata=list(metadata)
            )
        except grpc.RpcError as error:
            return self._service.tell(error)
        headers = [*call.initial_metadata(), *call.trailing_metadata()]
        self._service.told.append(str(headers).encode())
        if answer_is_told:
            self._service.told.append(answer)
        return grpc.StatusCode.OK

    def stream(
        self, bodies: Iterable[bytes], path: str = f"{SERVICE}StreamRosters"
    ) -> grpc.StatusCode:
        """Ask, read all answers, and return the status."""
        call = self._channel.stream_stream(path)(iter(list(bodies)), timeout=PATIENCE)
        try:
            self._service.told += list(call)
        except grpc.RpcError as error:
            return self._service.tell(error)
        return grpc.StatusCode.OK


def lookup(address: str | bytes, region_set: str = "") -> bytes:
    request = v1.LookupRequest(region_set=region_set)
    if isinstance(address, str):
        request.text = address
    else:
        request.packed = address
    return request.SerializeToString()


def explain(address: str | bytes) -> bytes:
    request = v1.ExplainRequest()
    if isinstance(address, str):
        request.text = address
    else:
        request.packed = address
    return request.SerializeToString()


def text_roster(
    texts: Iterable[str], region_set: str = "", **more: Any
) -> v1.ClassifyRosterRequest:
    addresses = v1.TextAddresses(addresses=list(texts))
    return v1.ClassifyRosterRequest(text=addresses, region_set=region_set, **more)


def streamed(roster: v1.ClassifyRosterRequest) -> bytes:
    return v1.StreamRostersRequest(roster=roster).SerializeToString()


OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def ask_rightly(ask: Asking) -> None:
    canary = CANARIES["lookup"]
    for address in (*canary.texts, canary.packed4, canary.packed6):
        for region_set in ("", "CN", "EEA-NO"):
            assert ask.unary("Lookup", lookup(address, region_set)) is OK
    canary = CANARIES["roster"]
    rosters = [
        v1.ClassifyRosterRequest(ipv4=canary.packed4 * 100, region_set="EU", record=True),
        v1.ClassifyRosterRequest(ipv6=canary.packed6 * 100, region_set="EU"),
        text_roster(canary.texts, "EU", record=True),
        text_roster(canary.texts),
    ]
    for roster in rosters:
        assert ask.unary("ClassifyRoster", roster.SerializeToString()) is OK
    canary = CANARIES["stream"]
    packed = v1.ClassifyRosterRequest(ipv4=canary.packed4, region_set="CN", record=True)
    assert ask.stream([streamed(text_roster(canary.texts)), streamed(packed)] * 3) is OK
    canary = CANARIES["explain"]
    for address in (*canary.texts, canary.packed4, canary.packed6):
        # The address itself is a part of this one answer.
        assert ask.unary("Explain", explain(address), answer_is_told=False) is OK


def ask_wrongly(ask: Asking) -> None:
    canary = CANARIES["malformed"]
    for malformed in canary.malformed:
        assert ask.unary("Lookup", lookup(malformed, "CN")) is OK  # INVALID is an answer
        assert ask.unary("Explain", explain(malformed)) is OK
    assert ask.unary("ClassifyRoster", text_roster(canary.malformed).SerializeToString()) is OK
    for packed in (canary.packed4[:3], canary.packed6[:15], canary.packed4 + canary.packed6):
        assert ask.unary("Lookup", lookup(packed)) is INVALID
        roster = v1.ClassifyRosterRequest(ipv6=packed + b"xyz")
        assert ask.unary("ClassifyRoster", roster.SerializeToString()) is INVALID
        assert ask.stream([streamed(roster)]) is INVALID

    canary = CANARIES["bodies"]
    packed4, text = canary.packed4, canary.ipv4.encode()
    bodies = (
        text,
        packed4,
        canary.packed6,
        b"\x0a\x7f" + text,  # says that it is longer
        b"\x0a\x04" + packed4,  # no UTF-8 where a text is expected
        b"\x0a\x0f" + text + b"\xff",
        b"\xfa\x3f\x04" + packed4,  # a field that nobody knows
    )
    for method in ("Lookup", "ClassifyRoster", "Explain", "ListRegionSets", "GetDataset"):
        for body in bodies:
            ask.unary(method, body, answer_is_told=False)
    for body in bodies:
        ask.stream([body])

    canary = CANARIES["region set"]
    for name in (*canary.texts, *canary.malformed, f"CN+{canary.ipv4}", canary.ipv6 * 40):
        assert ask.unary("Lookup", lookup("1.0.1.1", name)) is INVALID
        roster = v1.ClassifyRosterRequest(ipv4=b"", region_set=name)
        assert ask.unary("ClassifyRoster", roster.SerializeToString()) is INVALID
        assert ask.stream([streamed(roster)]) is INVALID


def ask_beyond_the_limits(ask: Asking) -> None:
    canary = CANARIES["oversize"]
    roster = v1.ClassifyRosterRequest(ipv4=canary.packed4 * 1_001)
    assert ask.unary("ClassifyRoster", roster.SerializeToString()) is INVALID
    assert ask.stream([streamed(roster)]) is INVALID
    whole = v1.ClassifyRosterRequest(ipv6=canary.packed6 * 500_000)
    assert ask.unary("ClassifyRoster", whole.SerializeToString()) is EXHAUSTED
    assert ask.unary("Lookup", lookup(f"{canary.ipv6} " * 10_000)) is not None
    canary = CANARIES["late"]
    late = text_roster(canary.texts * 100).SerializeToString()
    for _ in range(20):
        ask.unary("ClassifyRoster", late, timeout=0.000_5, answer_is_told=False)


def ask_in_metadata(ask: Asking) -> None:
    canary = CANARIES["metadata"]
    for value in canary.texts:
        headers = (
            ("x-forwarded-for", value),
            ("forwarded", f"for={value}"),
            ("x-real-ip", value),
            ("user-agent-note", value),
            ("tracestate", f"client={value.replace(':', '_')}"),
            ("baggage", f"ip={value}"),
            (f"x-{value.replace(':', '-').lower()}", "1"),
            ("address-bin", canary.packed6),
            ("authorization", f"Basic {base64.b64encode(value.encode()).decode()}"),
        )
        for method, body in (("Lookup", lookup("1.0.1.1")), ("Explain", explain("1.0.1.1"))):
            assert ask.unary(method, body, metadata=headers) is OK
        assert ask.unary("Lookup", b"\xff", metadata=headers) is INVALID
    ask.unary("Lookup", b"", metadata=[("x-long", canary.ipv6 * 2_000)])
    ask.unary("Lookup", b"", metadata=[("x-bin", canary.packed6 * 4_000)])
    canary = CANARIES["path"]
    for path in (
        f"{SERVICE}{canary.ipv4}",
        f"/{canary.ipv4}/Lookup",
        f"/{canary.ipv6}",
        f"//{canary.ipv4}",
    ):
        ask.unary(path, canary.packed4)
    health = "/grpc.health.v1.Health/Check"
    ask.unary(health, health_pb2.HealthCheckRequest(service=canary.ipv4).SerializeToString())
    ask.unary(health, canary.packed4)
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    # An answer of reflection repeats its question, as its protocol has it.
    call = reflection_pb2.ServerReflectionRequest(file_containing_symbol=canary.ipv4)
    with contextlib.suppress(grpc.RpcError):
        ask._channel.stream_stream(reflection)(iter([call.SerializeToString()]), timeout=PATIENCE)
    ask.stream([canary.packed4], reflection)


def have_handlers_fail(ask: Asking) -> None:
    canary = CANARIES["exception"]
    for address in (*canary.texts, canary.packed4, canary.packed6):
        assert ask.unary("Lookup", lookup(address, "FAILING")) is grpc.StatusCode.INTERNAL
    roster = text_roster(canary.texts, "FAILING")
    body = roster.SerializeToString()
    assert ask.unary("ClassifyRoster", body) is grpc.StatusCode.INTERNAL
    assert ask.stream([streamed(roster)]) is grpc.StatusCode.INTERNAL
    failing = explain(f"{canary.ipv4} FAILING")
    assert ask.unary("Explain", failing) is grpc.StatusCode.INTERNAL


def speak_http(address: str, told: list[bytes], canary: Canary) -> None:
    """Say what is no gRPC, and gRPC that breaks off, to a port."""
    host, _, port = address.rpartition(":")
    settings = frame(4, 0, 0, b"")
    pieces = (
        f"GET /{canary.ipv4}?ip={canary.ipv6} HTTP/1.1\r\nHost: {canary.ipv4}\r\n"
        f"X-Forwarded-For: {canary.ipv6}\r\nUser-Agent: {canary.ipv4}\r\n\r\n".encode(),
        f"{canary.ipv4} / HTTP/1.1\r\n\r\n".encode(),
        canary.packed4 * 20,
        b"\x16\x03\x01" + canary.packed6 * 20,  # something like TLS
        b"PROXY TCP4 %b %b 1 2\r\n" % (canary.ipv4.encode(), canary.ipv4.encode()),
        PREFACE + canary.packed6 * 40,
        PREFACE + settings + frame(1, 4, 1, canary.ipv4.encode()),  # headers that are none
        PREFACE + settings + frame(1, 4, 1, b"\x00\x0f" + canary.ipv4.encode() + b"\x00"),
        PREFACE + settings + frame(7, 0, 0, bytes(8) + canary.ipv6.encode()),  # goaway, and why
        PREFACE + settings + frame(0, 0, 5, canary.packed6),  # data of no stream
        PREFACE + frame(4, 0, 0, canary.packed6[:6] * 50),
    )
    for piece in pieces:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        ):
            connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65_536):
                told.append(data)


def scrape(service: Observed) -> None:
    """Ask for the metrics, also in ways that mention an address."""
    if "metrics" not in service.announced:
        return
    canary = CANARIES["metrics"]
    with Relay(service.announced["metrics"].removeprefix("http://").split("/")[0]) as relay:
        for path in ("/metrics", f"/{canary.ipv4}", f"/metrics?ip={canary.ipv6}"):
            connection = http.client.HTTPConnection(relay.address, timeout=PATIENCE)
            connection.request("GET", path, headers={"X-Forwarded-For": canary.ipv4})
            answer = connection.getresponse()
            service.told.append(str(answer.getheaders()).encode() + answer.read())
            connection.close()
        speak_http(relay.address, service.told, canary)


def administer(service: Observed) -> None:
    """Reload good and bad files, and ask the admin listener wrongly."""
    if "admin" not in service.announced:
        return
    canary = CANARIES["reload"]
    dataset = service.folder / "small.geolookup"
    good = dataset.read_bytes()
    with RemoteControl(service.announced["admin"], timeout=PATIENCE) as control:
        reasons = []
        for content in (
            b"",
            canary.packed4,
            canary.ipv6.encode(),
            good[:-20] + canary.packed6,
            good,
        ):
            with_new = dataset.with_suffix(".new.geolookup")
            with_new.write_bytes(content)
            with_new.replace(dataset)
            reasons.append(control.reload().reason)
        assert all(reasons[:4])
        assert not reasons[4]
        service.told.append(repr((reasons, control.status(), control.rollback())).encode())
    canary = CANARIES["admin"]
    with (
        Relay(service.announced["admin"]) as relay,
        grpc.insecure_channel(relay.address) as channel,
    ):
        ask = Asking(service, channel)
        for path in (f"/geolookup.admin.v1.AdminService/{canary.ipv4}", f"/{canary.ipv6}/Reload"):
            ask.unary(path, canary.packed4)
        headers = [("x-forwarded-for", canary.ipv6)]
        ask.unary("/geolookup.admin.v1.AdminService/GetStatus", canary.packed4, metadata=headers)
        ask.unary("/grpc.health.v1.Health/Check", b"\x0a\x0f" + canary.ipv4.encode())
        speak_http(relay.address, service.told, canary)


def overload(service: Observed, channel: grpc.Channel) -> None:
    """Send far more at once than is admitted."""
    canary = CANARIES["overload"]
    body = text_roster(canary.texts * 100, "CN").SerializeToString()
    method = channel.unary_unary(f"{SERVICE}ClassifyRoster")
    calls = [method.future(body, timeout=PATIENCE) for _ in range(300)]
    streams = channel.stream_stream(f"{SERVICE}StreamRosters")
    open_streams = [streams(iter([body]), timeout=PATIENCE) for _ in range(20)]
    for call in calls:
        with contextlib.suppress(grpc.RpcError):
            call.result()
    for stream in open_streams:
        with contextlib.suppress(grpc.RpcError):
            list(stream)
    ended: list[Any] = [*calls, *open_streams]
    for call in ended:
        headers = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
        service.told.append(f"{call.code()} {call.details()} {headers}".encode())


def crash(service: Observed, channel: grpc.Channel, canary: Canary, number: signal.Signals) -> None:
    """Kill a worker that has addresses in its memory and a call in flight."""
    victims = service.workers()
    if not victims:
        return
    release = threading.Event()

    def bodies() -> Iterator[bytes]:
        for _ in range(5):
            yield streamed(text_roster(canary.texts * 100, "CN"))
        release.wait(PATIENCE)

    call = channel.stream_stream(f"{SERVICE}StreamRosters")(bodies(), timeout=PATIENCE)
    service.told += [next(call) for _ in range(5)]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    service.told.append(f"{call.code()} {call.details()} {call.trailing_metadata()}".encode())
    release.set()
    service.healthy(channel)


LIMITS = ("--max-roster", "1000", "--max-calls", "4", "--max-streams", "4", "--workers", "2")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_that_the_service_writes_holds_an_address(tmp_path: Path, log_format: str) -> None:
    options = ("--log-format", log_format, "--log-level", "debug", *LIMITS)
    with observed(tmp_path, *options) as service:
        with Relay(service.address) as relay, grpc.insecure_channel(relay.address) as channel:
            service.healthy(channel)
            ask = Asking(service, channel)
            for ask_so in (
                ask_rightly,
                ask_wrongly,
                ask_beyond_the_limits,
                ask_in_metadata,
                have_handlers_fail,
            ):
                ask_so(ask)
                service.observe()
            speak_http(relay.address, service.told, CANARIES["http"])
            administer(service)
            overload(service, channel)
            scrape(service)
            service.observe()
            assert service.written_elsewhere() == []
            crash(service, channel, CANARIES["crash"], signal.SIGSEGV)
            crash(service, channel, CANARIES["abort"], signal.SIGABRT)
            crash(service, channel, CANARIES["kill"], signal.SIGKILL)
            scrape(service)
            service.observe()
            service.process.terminate()
            service.process.wait(PATIENCE)
        assert list(tmp_path.rglob("core*")) == []
    assert len((tmp_path / "stderr").read_bytes()) > 500, "a log that says nothing proves nothing"
    assert service.leaks(scanner()) == []


# --- the search finds what there is


def seed_leaks(service: Observed, canary: Canary) -> None:
    """Have the service write an address to each place that is searched."""
    with grpc.insecure_channel(service.address) as channel:
        service.healthy(channel)
        body = lookup(f"LEAKING {canary.ipv4} {canary.ipv4[:15]} .")
        # A lookup is answered in C; an explanation is always Python's, and has the same field.
        assert Asking(service, channel).unary("Explain", body) is INVALID
    service.observe()


def test_a_leak_in_any_place_is_found(tmp_path: Path) -> None:
    with observed(tmp_path, "--workers", "1", NOTE=SEEDED.ipv6) as service:
        seed_leaks(service, SEEDED)
        service.process.terminate()
        service.process.wait(PATIENCE)
    found = service.leaks(Scanner([SEEDED.ipv4, SEEDED.ipv6]))
    places = {"told to a client", "processes", "stderr", "content", f"name of {SEEDED.ipv4}"}
    assert places == {leak.place for leak in found if leak.canary == SEEDED.ipv4}
    # A variable of the environment that holds one is not the service's doing, but is seen.
    assert {leak.place for leak in found if leak.canary == SEEDED.ipv6} == {"processes"}


def test_the_address_of_a_client_is_found(tmp_path: Path) -> None:
    """gRPC's own log, switched on by an operator, writes it: this is what must stay off."""
    quiet, loud = tmp_path / "quiet", tmp_path / "loud"
    for folder, environment in (
        (quiet, {}),
        (loud, {"GRPC_VERBOSITY": "DEBUG", "GRPC_TRACE": "http"}),
    ):
        folder.mkdir()
        options = ("--workers", "1", "--transport", "threads")  # the one over gRPC
        with observed(folder, *options, **environment) as service:
            with Relay(service.address) as relay, grpc.insecure_channel(relay.address) as channel:
                service.healthy(channel)
            service.process.terminate()
            service.process.wait(PATIENCE)
        assert bool(service.leaks(Scanner([PEER]))) == (folder is loud)


# --- nothing is written that is gone when it is searched


STRACE = shutil.which("strace")
WRITES = (
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "open",
    "openat",
    "creat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "unlink",
    "unlinkat",
    "execve",
    "prctl",
)


def traced(path: Path) -> bytes:
    """Return what strace saw, without what went into sockets, pipes and sealed memory."""
    kept = []
    for line in path.read_bytes().splitlines():
        inward = re.search(rb"write[v0-9]*\(\d+<(?:socket|pipe|anon_inode|UNIX|TCP|/memfd)", line)
        if not inward:
            kept.append(re.sub(rb"\\x(..)", lambda pair: bytes.fromhex(pair[1].decode()), line))
    return b"\n".join(kept)


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_nothing_is_written_even_for_a_moment(tmp_path: Path) -> None:
    folder, trace = tmp_path / "service", tmp_path / "trace"
    folder.mkdir()
    tracer = [str(STRACE), "-D", "-f", "-yy", "-xx", "-s", "65536", "-o", str(trace)]
    tracer += ["-e", f"trace={','.join(f'?{name}' for name in WRITES)}"]
    with observed(folder, *LIMITS, tracer=tracer) as service:
        with Relay(service.address) as relay, grpc.insecure_channel(relay.address) as channel:
            service.healthy(channel)
            ask = Asking(service, channel)
            for ask_so in (ask_rightly, ask_wrongly, ask_beyond_the_limits, have_handlers_fail):
                ask_so(ask)
        assert scanner().leaks("trace", traced(trace)) == []
        # The same search sees a file that was there for a moment.
        seed_leaks(service, SEEDED)
        found = [line for line in traced(trace).splitlines() if b"/gone" in line]
        assert Scanner([SEEDED.ipv4]).leaks("trace", b"\n".join(found))


# --- crashes leave nothing


def owner(pid: int) -> tuple[int, int]:
    """Return the user and the group to which the system gives the files in /proc of a process.

    Those of a process that may not be dumped are root's, whoever runs it.
    """
    status = Path(f"/proc/{pid}/environ").stat()
    return status.st_uid, status.st_gid


# For root the group alone tells the two apart.
OTHER_GROUP = NOBODY if os.getuid() == 0 else None


def test_no_core_dump_can_be_made(tmp_path: Path) -> None:
    with observed(tmp_path, "--workers", "2", group=OTHER_GROUP) as service:
        deadline = time.monotonic() + PATIENCE
        for pid in service.processes():
            while owner(pid) != (0, 0):  # the spare may be loading still, and knows no address
                assert time.monotonic() < deadline
                time.sleep(0.01)
            limits = Path(f"/proc/{pid}/limits").read_text()
            (line,) = [line for line in limits.splitlines() if line.startswith("Max core file")]
            assert line.split()[4:6] == ["0", "0"]


def test_core_dumps_can_be_switched_on(tmp_path: Path) -> None:
    with observed(tmp_path, "--workers", "1", "--core-dumps", group=OTHER_GROUP) as service:
        for pid in service.processes():
            assert owner(pid) == (os.getuid(), OTHER_GROUP or os.getgid())
