"""``python -m tests.conformance [JUDGE...]``: have others judge the native transport.

connect   ConnectRPC's conformance tests, against the echo service: plaintext, TLS, client
          certificates, gzip
interop   the client of gRPC's interoperability tests (grpc-go), against the echo service
h2spec    cases of HTTP/2, against ``geolookup serve``
clients   the examples in Go, Node.js, Java and Rust and the library's own client, against
          ``geolookup serve``

Exits with 1 if a case fails. Needs Go, and for the clients npm, Maven and cargo; versions are
pinned (go.mod). What is built stays in build/conformance. The first run builds for minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent), str(ROOT / "proto")]

import generate  # noqa: E402
import trustme  # noqa: E402
from servers import serving  # noqa: E402

OUT = ROOT / "build" / "conformance"
BIN = OUT / "bin"
ECHO = (sys.executable, str(HERE / "echo.py"), str(OUT / "protos"))
INTEROP = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
)
"""Those that need no account with anyone, and one server."""
CLIENTS = "go node java rust python"

Count = tuple[int, int]
"""Cases that passed, and all."""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def built(*command: str | Path, **environment: str) -> str:
    done = run(*command, **environment)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}")
    return done.stdout


def build_judges() -> None:
    """Build the judges in Go, and what the echo service reads."""
    BIN.mkdir(parents=True, exist_ok=True)
    built("go", "-C", HERE, "install", "tool", GOBIN=str(BIN))
    module = built("go", "-C", HERE, "list", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance")
    protos = Path(module.strip()) / "proto"
    (OUT / "protos").mkdir(exist_ok=True)
    built(
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={protos}"),
        *(f"--proto_path={HERE}", f"--python_out={OUT / 'protos'}", "interop.proto"),
        *(
            f"connectrpc/conformance/v1/{name}.proto"
            for name in ("config", "service", "server_compat")
        ),
        PYTHONPATH=str(generate.generator()),
    )


def connect() -> dict[str, Count]:
    command = ("--mode", "server", "--conf", HERE / "features.yaml", "--parallel", "2")
    known = f"@{HERE / 'known_failing.txt'}"
    done = run(
        BIN / "connectconformance", *command, "--known-failing", known, "--", *ECHO, "conformance"
    )
    found = re.search(r"Total cases: (\d+)\n(\d+) passed", done.stdout)
    if done.returncode or not found:
        print(done.stdout)
    return {"connect": (int(found[2]), int(found[1])) if found else (0, 1)}


@contextlib.contextmanager
def certificate() -> Iterator[tuple[Path, Path, Path]]:
    """Write a certificate for this machine; yield its file, its key's and its authority's."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        made = authority.issue_cert("localhost", "127.0.0.1")
        chain, key, trusted = (Path(folder, name) for name in ("chain", "key", "ca"))
        chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        trusted.write_bytes(authority.cert_pem.bytes())
        yield chain, key, trusted


def interop() -> dict[str, Count]:
    with certificate() as (chain, key, trusted):
        tls = (
            "-use_tls",
            "-use_test_ca",
            "-ca_file",
            trusted,
            "-server_host_override",
            "localhost",
        )
        return {
            "interop": interop_over((), ()),
            "interop, TLS": interop_over((str(chain), str(key)), tls),
        }


def interop_over(server: tuple[str, ...], client: tuple[str | Path, ...]) -> Count:
    passed = 0
    with subprocess.Popen([*ECHO, "interop", *server], stdout=subprocess.PIPE, text=True) as echo:
        try:
            assert echo.stdout is not None
            port = echo.stdout.readline().strip()
            where = ("-server_host", "127.0.0.1", "-server_port", port)
            for case in INTEROP:
                done = run(BIN / "client", *where, *client, "-test_case", case)
                if done.returncode:
                    print(f"{case}:\n{done.stdout}")
                passed += done.returncode == 0
        finally:
            echo.terminate()
    return passed, len(INTEROP)


def h2spec() -> dict[str, Count]:
    with certificate() as (chain, key, _):
        tls = ("--tls-certificate", str(chain), "--tls-key", str(key))
        return {"h2spec": h2spec_over(()), "h2spec, TLS": h2spec_over(("-t", "-k"), *tls)}


def h2spec_over(client: tuple[str, ...], *server: str) -> Count:
    with serving("--transport", "native", *server) as service:
        host, _, port = service.target.rpartition(":")
        done = run(BIN / "h2spec", "-h", host, "-p", port, *client)
    found = re.search(r"(\d+) tests, (\d+) passed", done.stdout)
    if done.returncode or not found:
        print(done.stdout[done.stdout.find("Failures:") :])
    return (int(found[2]), int(found[1])) if found else (0, 1)


def clients() -> dict[str, Count]:
    done = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--transport", "native"),
        "tests/examples/test_example_clients.py",
        GEOLOOKUP_FETCH="1",
        EXAMPLE_CLIENTS=CLIENTS,
        CARGO_TARGET_DIR=str(OUT / "rust"),
    )
    passed, failed = (
        sum(map(int, re.findall(rf"(\d+) {outcome}", done.stdout)))
        for outcome in ("passed", "(?:failed|error|skipped)")
    )
    if done.returncode or failed:
        print(done.stdout)
    return {"clients": (passed, passed + failed)}


JUDGES: dict[str, Callable[[], dict[str, Count]]] = {
    "connect": connect,
    "interop": interop,
    "h2spec": h2spec,
    "clients": clients,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("judge", nargs="*", metavar="JUDGE", help="which; all if none is named")
    chosen = parser.parse_args().judge or [*JUDGES]
    for name in chosen:
        if name not in JUDGES:
            parser.error(f"there is no judge {name!r}")
    if {*chosen} - {"clients"}:
        build_judges()
    failed = 0
    for name in chosen:
        for label, (passed, total) in JUDGES[name]().items():
            print(f"{label:14} {passed:4} of {total:4} passed", flush=True)
            failed += total - passed
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
