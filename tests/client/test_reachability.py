"""Why a service can't be reached: each reason by a listener that is really like that."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from counting_service import Ask, by_tasks, by_threads, counting
from servers import PATIENCE, ROOT, serving

from geolookup import ServiceUnavailableError
from geolookup.client import AsyncClient, Client, CredentialsError, tls_credentials, transports
from geolookup.client.failures import Failure, unreachable
from geolookup.client.target import read_target

NAME = "127.0.0.1"
"""Not localhost, which is ::1, too: gRPC has the error of one of both."""


class Authority:
    """An authority, and the files of what it issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, **options: Any) -> tuple[Path, Path]:
        """Return the files of a certificate for a name, and of its key."""
        issued = self._authority.issue_cert(name, **options)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"))


@contextlib.contextmanager
def answering(reply: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Listen; answer the first bytes of each connection with a reply, and close it."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listening.accept()
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(plain, True) if context else plain as connection,
                ):
                    connection.recv(4096)
                    connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"{NAME}:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


@contextlib.contextmanager
def secured(
    authority: Authority, name: str, clients: Authority | None = None, **options: Any
) -> Iterator[str]:
    """Serve over TLS, and ask clients for a certificate if there is an authority for them."""
    certificate, key = authority.issue(name, **options)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        clients.ca.read_bytes() if clients else None,
        clients is not None,
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"{NAME}:{port}"
    finally:
        server.stop(0).wait(PATIENCE)


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"{NAME}:{taken.getsockname()[1]}"


@contextlib.contextmanager
def case(name: str, ours: Authority, theirs: Authority) -> Iterator[tuple[str, list[str], str]]:
    """Yield a target, the command line's options for it, and why it can't be reached.

    The reasons are what the command line finds out; see `GUESSED` for the clients.
    """
    trusting = ["--ca", str(ours.ca)]
    shown, private = theirs.issue("client")
    showing = [*trusting, "--certificate", str(shown), "--key", str(private)]
    certificate, key = ours.issue(NAME)
    web = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    web.load_cert_chain(certificate, key)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        cases: dict[str, Callable[[], tuple[str, list[str], str]]] = {
            "refused": lambda: (closed_port(), [], "nothing listens there (connection refused)"),
            "no socket": lambda: ("unix:/nowhere/socket", [], "there is no such socket"),
            "no name": lambda: ("nowhere.invalid:50051", [], "there is no such host name"),
            "web server": lambda: (
                enter(answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
                [],
                "it does not speak gRPC but HTTP/1, as web servers and HTTP proxies do",
            ),
            "other protocol": lambda: (
                enter(answering(b"SSH-2.0-OpenSSH_9.9\r\n")),
                [],
                "it does not speak gRPC",
            ),
            "web server with TLS": lambda: (
                enter(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", web)),
                trusting,
                "it uses TLS, but does not speak gRPC",
            ),
            "plaintext to TLS": lambda: (enter(secured(ours, NAME)), [], "it expects TLS"),
            "TLS to plaintext": lambda: (
                enter(counting(lambda *_: None))[0],
                trusting,
                "TLS handshake failed: it does not use TLS",
            ),
            "unknown authority": lambda: (
                enter(secured(theirs, NAME)),
                trusting,
                "TLS handshake failed: its certificate is not from a trusted authority",
            ),
            "authority not the system's": lambda: (
                enter(secured(ours, NAME)),
                ["--tls"],
                "TLS handshake failed: its certificate is not from a trusted authority",
            ),
            "other name": lambda: (
                enter(secured(ours, "other.example")),
                trusting,
                "TLS handshake failed: its certificate is for another name",
            ),
            "certificate asked for": lambda: (
                enter(secured(ours, NAME, theirs)),
                trusting,
                "it asks for a client's certificate",
            ),
            "certificate not accepted": lambda: (
                enter(secured(ours, NAME, ours)),
                showing,
                "it does not accept the client's certificate",
            ),
        }
        yield cases[name]()


CASES = (
    "refused",
    "no socket",
    "no name",
    "web server",
    "other protocol",
    "web server with TLS",
    "plaintext to TLS",
    "TLS to plaintext",
    "unknown authority",
    "authority not the system's",
    "other name",
    "certificate asked for",
    "certificate not accepted",
)
GUESSED = {
    "plaintext to TLS": "it closes the connection; it may expect TLS",
    "certificate asked for": "it may ask for a certificate, or not accept this one",
    "certificate not accepted": "it may ask for a certificate, or not accept this one",
}
"""What the clients say where gRPC's error leaves it open: they open no connection of their own."""


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ask", [by_threads, by_tasks], ids=["threads", "tasks"])
def test_client_that_cannot_reach_a_service_says_why(
    ask: Ask, name: str, ours: Authority, theirs: Authority
) -> None:
    with case(name, ours, theirs) as (target, options, reason):
        files = dict(zip((one[2:] for one in options[::2]), options[1::2], strict=False))
        credentials = tls_credentials(**files) if options else None
        (error,) = ask(target, 1, credentials=credentials if options else None)
    assert isinstance(error, ServiceUnavailableError)
    expected = GUESSED.get(name, reason)
    assert str(error).startswith(f"the service at {target} can't be reached: ")
    assert expected in str(error)
    assert error.code == "UNAVAILABLE"


NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize("carrier", transports.NAMES)
@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (-2, -1, "TLS handshake failed: its certificate has expired"),
        (1, 2, "TLS handshake failed: its certificate is not valid yet"),
    ],
)
def test_certificate_out_of_its_time_is_reported_as_such(
    carrier: str, first: int, last: int, reason: str, ours: Authority
) -> None:
    if carrier == "native" and (missing := transports.missing(tls=True)):
        pytest.skip(missing)
    times = {"not_before": NOW + first * DAY, "not_after": NOW + last * DAY}
    with secured(ours, NAME, **times) as target:
        credentials = tls_credentials(ca=ours.ca)
        (error,) = by_threads(target, 1, credentials=credentials, transport=carrier)
    assert str(error) == f"the service at {target} can't be reached: {reason}"


def test_other_faults_of_a_certificate_are_reported_in_fixed_words() -> None:
    reasons = {
        "CERTIFICATE_VERIFY_FAILED: self-signed certificate in certificate chain":
            "is not from a trusted authority",
        "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK":
            "is not from a trusted authority",
        "Tls handshake failed: CERTIFICATE_VERIFY_FAILED: certificate has expired: OK":
            "has expired",
        "CERTIFICATE_VERIFY_FAILED: certificate revoked": "is not accepted (certificate revoked)",
        "CERTIFICATE_VERIFY_FAILED: EE certificate key too weak [ipv4:10.0.0.1:1]":
            "is not accepted (EE certificate key too weak)",
        "CERTIFICATE_VERIFY_FAILED: 10.0.0.1": "is not from a trusted authority",
    }  # fmt: skip
    head = "TLS handshake failed: its certificate "
    assert {details: unreachable(details).text for details in reasons} == {
        details: head + text for details, text in reasons.items()
    }
    assert all(unreachable(details).is_lasting for details in reasons)


@pytest.mark.skipif(
    transports.missing(tls=True) is not None, reason=f"{transports.missing(tls=True)}"
)
def test_common_name_of_a_certificate_is_not_taken_for_its_name(ours: Authority) -> None:
    """Not by the native transport: RFC 9525. gRPC's own takes it where no DNS name is there."""
    options: Any = {
        "credentials": tls_credentials(ca=ours.ca),
        "options": [("grpc.ssl_target_name_override", "service.example")],
        "transport": "native",
    }
    with secured(ours, "someone@example.org", common_name="service.example") as target:
        (error,) = by_threads(target, 1, **options)
    assert "its certificate is for another name" in str(error)
    with secured(ours, "service.example", common_name="other.example") as target:
        (error,) = by_threads(target, 1, **options)
    assert "UNIMPLEMENTED" in str(error)  # which is this server's answer


def command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_command_that_cannot_reach_a_service_says_why_in_one_line(
    name: str, ours: Authority, theirs: Authority
) -> None:
    with case(name, ours, theirs) as (target, options, reason):
        code, out, err = command("info", "--server", target, *options)
    assert (code, out) == (4, "")
    assert err == f"geolookup: the service at {target} can't be reached: {reason}\n"


@pytest.mark.parametrize("name", ["refused", "plaintext to TLS", "certificate asked for"])
def test_admin_command_says_why_in_one_line(name: str, ours: Authority, theirs: Authority) -> None:
    with case(name, ours, theirs) as (target, options, reason):
        code, out, err = command("admin", "status", "--admin", target, *options)
    assert (code, out) == (4, "")
    assert err == f"geolookup: the admin listener at {target} can't be reached: {reason}\n"


def test_proxy_of_the_environment_is_named_where_it_is_not_used() -> None:
    _, _, err = command("info", "--server", closed_port(), https_proxy="http://127.0.0.1:1")
    assert err.endswith("(connection refused) (the proxy in https_proxy is not used)\n")


# which commands


COMMANDS = {
    "lookup": ["1.0.1.1"],
    "classify": ["-"],
    "explain": ["1.0.1.1"],
    "info": [],
    "region-sets": [],
}


@pytest.fixture(scope="module")
def asking(ours: Authority, theirs: Authority) -> Iterator[list[str]]:
    """The options of a connection to a service that asks for certificates."""
    certificate, key = ours.issue("service.example")
    shown, private = theirs.issue("client")
    with serving(
        *("--tls-certificate", str(certificate), "--tls-key", str(key)),
        *("--tls-client-ca", str(theirs.ca)),
    ) as service:
        options = ["--ca", str(ours.ca), "--certificate", str(shown), "--key", str(private)]
        yield ["--server", service.target, "--server-name", "service.example", *options]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_reaches_a_service_that_asks_for_certificates(
    name: str, asking: list[str]
) -> None:
    code, out, err = command(name, *COMMANDS[name], *asking)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("name", [*COMMANDS, "admin status"])
def test_each_command_has_the_options_of_tls(name: str) -> None:
    _, out, _ = command(*name.split(), "--help")
    for option in ("--timeout", "--tls", "--ca", "--certificate", "--key", "--server-name"):
        assert f"  {option} " in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--tls"], "--tls is for --server"),
        (["--ca", "README.md"], "--ca is for --server"),
        (["--server-name", "x"], "--server-name is for --server"),
        (["--server", "a:1", "--key", "README.md"], "--certificate and --key belong together"),
        (["--server", "a:1", "--ca", "README.md"], "--ca: README.md: not certificates in PEM"),
        (["--server", "http://a:1"], "http:// begins the URL of a web page"),
        (["--server", "a"], "a has no port; expected HOST:PORT"),
        (["--server", "a:99999"], "the port of a:99999 is not from 1 to 65535"),
        (["--server", "a b:1"], "expected HOST:PORT, [IPV6]:PORT or unix:PATH"),
    ],
)
def test_wrong_options_of_a_connection_are_named(options: list[str], text: str) -> None:
    code, out, err = command("info", *options)
    assert (code, out) == (2, "")
    assert text in err
    assert len(err.splitlines()) == 1


# targets


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "[::1]:65535",
        "[fe80::1%eth0]:5",
        "unix:/run/socket",
        "unix:///run/socket",
        "unix:///" + 106 * "a",
        "dns:///geolookup.example:50051",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "xds:///geolookup",
    ],
)
def test_target_that_grpc_takes_is_taken(target: str) -> None:
    assert read_target(target) == target


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("", "expected HOST:PORT"),
        ("localhost", "localhost has no port"),
        ("[::1]", r"\[::1\] has no port"),
        ("::1:50051", "expected HOST:PORT"),
        ("localhost:", "expected HOST:PORT"),
        ("localhost:0", "not from 1 to 65535"),
        ("localhost:65536", "not from 1 to 65535"),
        ("localhost:http", "expected HOST:PORT"),
        ("http://localhost:50051", "http:// begins the URL of a web page"),
        ("https://localhost", "https:// begins the URL of a web page"),
        ("grpc://localhost:50051", "grpc:// begins the URL"),
        (" localhost:50051", "expected HOST:PORT"),
        ("localhost:50051/path", "expected HOST:PORT"),
        ("unix:", "expected HOST:PORT"),
        ("unix:/" + 107 * "a", "the path of a socket has at most 107 bytes"),
        ("unix:///" + 107 * "a", "the path of a socket has at most 107 bytes"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_malformed_target_is_refused_at_once(kind: type[Any], target: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^target: .*{text}"):
        kind(target)


def test_target_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="target: expected str, not int"):
        Client(50051)


# attempts


def test_failure_of_a_listening_address_is_preferred_over_a_refused_one() -> None:
    """A name may have several addresses, and gRPC's text has the error of one of them."""
    unavailable = grpc.StatusCode.UNAVAILABLE
    refused = Failure(unavailable, "connect to remote host: Connection refused")
    other = Failure(unavailable, "Failed parsing HTTP/2")
    assert refused.more_telling(other) is other
    assert other.more_telling(refused) is other
    assert refused.more_telling(None) is refused


def test_lasting_failure_is_tried_once() -> None:
    """By gRPC's texts, as each attempt is one connection at most and can't be counted."""
    texts = {
        "errors resolving a:1: [field:hostname lookup error:address lookup failed for a:1: "
        "Domain name not found]": True,
        "DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS qtype=A name=a "
        "is_balancer=0: Domain name not found": True,
        "DNS resolution failed for a:1: Timeout while contacting DNS servers": False,
        "last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection "
        "refused": False,
        "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL "
        "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate": True,
        "Socket closed": False,
    }
    assert {text: unreachable(text).is_lasting for text in texts} == texts


# credentials


def test_files_that_cannot_be_used_for_tls_are_named(
    ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    certificate, key = ours.issue("one.example")
    _, other = theirs.issue("two.example")
    text = tmp_path / "text"
    text.write_text("no PEM")
    for files, expected in (
        ({"ca": text}, f"ca: {text}: not certificates in PEM"),
        ({"ca": tmp_path / "none"}, f"ca: {tmp_path}/none: No such file or directory"),
        ({"certificate": certificate}, "certificate and key belong together"),
        ({"certificate": certificate, "key": other}, f"key: {other}: not the key of {certificate}"),
        ({"certificate": certificate, "key": text}, f"key: {text}: no private key in PEM"),
    ):
        with pytest.raises(CredentialsError) as raised:
            tls_credentials(**files)
        assert str(raised.value).startswith(expected)
    tls_credentials(ca=ours.ca, certificate=certificate, key=key)
    tls_credentials()
