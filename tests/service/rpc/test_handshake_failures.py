"""Failed TLS handshakes are counted by reason, and nothing says whose they were."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from servers import PATIENCE, needs_native, serving_here

import geolookup
from geolookup.service import Server
from geolookup.service.monitoring import counters
from geolookup.service.monitoring.counters import HANDSHAKE_FAILURES

pytestmark = needs_native
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
TIMEOUT = 1.0


@dataclass(frozen=True)
class Running:
    server: Server
    authority: trustme.CA

    def connect(self) -> socket.socket:
        return socket.create_connection((self.server.address.host, self.server.address.port), 10)

    def failures(self) -> dict[str, int]:
        """Return the reasons that were counted, with their numbers."""
        totals = counters.total([self.server.counters]).handshake_failures
        return {reason: n for reason, n in zip(HANDSHAKE_FAILURES, totals, strict=True) if n}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    certificate = authority.issue_cert("localhost")
    files = {"chain": certificate.cert_chain_pems[0], "key": certificate.private_key_pem}
    files["clients"] = authority.cert_pem
    for name, blob in files.items():
        (folder / name).write_bytes(blob.bytes())
    with (
        geolookup.open() as dataset,
        serving_here(
            dataset,
            transport="native",
            tls_certificate=folder / "chain",
            tls_key=folder / "key",
            tls_client_ca=folder / "clients",
            handshake_timeout=TIMEOUT,
        ) as server,
    ):
        yield Running(server, authority)


def context(running: Running, certificate: trustme.LeafCert | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    running.authority.configure_trust(made)
    made.set_alpn_protocols(["h2"])
    if certificate is not None:
        certificate.configure_cert(made)
    return made


def shake_hands(running: Running, made: ssl.SSLContext) -> None:
    """Begin a connection, and wait until the server ends it."""
    with (
        contextlib.suppress(OSError),
        running.connect() as raw,
        made.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        connection.recv(1)  # TLS 1.3 tells of a refused certificate then


def show(running: Running, certificate: trustme.LeafCert | None, **options: Any) -> None:
    made = context(running, certificate)
    for name, value in options.items():
        setattr(made, name, value)
    shake_hands(running, made)


def no_certificate(running: Running) -> None:
    show(running, None)


def no_certificate_1_2(running: Running) -> None:
    show(running, None, maximum_version=ssl.TLSVersion.TLSv1_2)


def expired(running: Running) -> None:
    show(running, running.authority.issue_cert("a.example", not_after=NOW - DAY))


def unknown_authority(running: Running) -> None:
    show(running, trustme.CA().issue_cert("a.example"))


def bad_certificate(running: Running) -> None:
    show(running, certificate_for_servers(running.authority))


def certificate_for_servers(authority: trustme.CA) -> trustme.LeafCert:
    """Return a certificate that is for servers alone, which trustme can't make."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    issuer_key: Any = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(issuer.subject, x509.Name([]), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return trustme.LeafCert(key.private_bytes(pem, *plain), certificate.public_bytes(pem), [])


def refused_by_client(running: Running) -> None:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trustme.CA().configure_trust(made)
    shake_hands(running, made)


def no_http2(running: Running) -> None:
    made = context(running, running.authority.issue_cert("a.example"))
    made.set_alpn_protocols(["http/1.1"])
    shake_hands(running, made)


def send_in_clear(running: Running, text: bytes) -> None:
    with running.connect() as raw:
        raw.sendall(text)
        # OpenSSL 3.5 closes with some of it unread, which resets the connection.
        with contextlib.suppress(ConnectionResetError):
            raw.recv(100)


def no_tls(running: Running) -> None:
    send_in_clear(running, b"GET / HTTP/1.1\r\n\r\n")


def no_tls_http2(running: Running) -> None:
    send_in_clear(running, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def closed(running: Running) -> None:
    running.connect().close()


def timed_out(running: Running) -> None:
    with running.connect() as raw:
        raw.recv(1)


def other(running: Running) -> None:
    made = context(running, None)
    made.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_1
    shake_hands(running, made)


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (no_certificate, "no_certificate"),
        (no_certificate_1_2, "no_certificate"),
        (expired, "expired"),
        (unknown_authority, "unknown_authority"),
        (bad_certificate, "bad_certificate"),
        (refused_by_client, "refused_by_client"),
        (no_http2, "no_http2"),
        (no_tls, "no_tls"),
        (no_tls_http2, "no_tls"),
        (closed, "closed"),
        (timed_out, "timed_out"),
        (other, "other"),
    ],
)
def test_failed_handshake_is_counted_by_its_reason(
    running: Running, fail: Callable[[Running], None], reason: str
) -> None:
    before = running.failures()
    fail(running)
    expected = before | {reason: before.get(reason, 0) + 1}
    end = time.monotonic() + PATIENCE
    while running.failures() == before:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert running.failures() == expected


def test_handshake_that_succeeds_is_no_failure(running: Running) -> None:
    before = running.failures()
    made = context(running, running.authority.issue_cert("a.example"))
    with running.connect() as raw, made.wrap_socket(raw, server_hostname="localhost") as connection:
        # The server's settings come when the handshake is over.
        assert connection.recv(100)
    assert running.failures() == before


def test_reasons_are_documented() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "tls.md"
    listed = page.read_text("utf-8").split("## Failed handshakes")[1]
    assert [reason for reason in HANDSHAKE_FAILURES if f"`{reason}`" not in listed] == []
