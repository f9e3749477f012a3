"""The files of a certificate: read, and tested by a handshake in memory.

Apart from `geolookup.service.tls`, so that a service without TLS does not load `ssl`.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from geolookup.service.settings import Settings, SettingsError

_LARGEST_FILE: Final = 1_048_576
"""Bytes. A bundle of all public certificate authorities has a quarter of that."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that passed the test, with its key.

    Attributes:
        chain: the service's certificate, then the intermediate ones (PEM).
        key: its private key (PEM). Never shown.
        client_authorities: the authorities of clients' certificates (PEM); None: clients
            need no certificate.
        not_after: when the first certificate of the chain expires, as Unix time.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None
    not_after: int

    def __repr__(self) -> str:
        return f"Certificate(not_after={self.not_after})"


def load(settings: Settings) -> Certificate:
    """Read the files and test them.

    Raises:
        SettingsError: a file can't be read, is no PEM, has expired, or the key does not
            match. The text names the file, and never shows its content.
    """
    chain_path, key_path = settings.tls_certificate, settings.tls_key
    if chain_path is None or key_path is None:
        raise SettingsError("tls_certificate", "there is none")
    chain = _read("tls_certificate", chain_path)
    key = _read("tls_key", key_path)
    authorities = None
    if settings.tls_client_ca is not None:
        authorities = _read("tls_client_ca", settings.tls_client_ca)
        _check_authorities(settings.tls_client_ca, authorities)
    return Certificate(chain, key, authorities, _test(chain_path, chain, key_path, key))


def server_context(certificate: Certificate, protocol: str) -> ssl.SSLContext:
    """Return a context for a server with this certificate, as strict as the native transport's.

    Args:
        certificate: that was loaded.
        protocol: what is spoken over TLS, by its name in ALPN.

    Raises:
        ValueError: OpenSSL can't use it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # A ticket would keep a client's certificate good after its authority is no longer trusted.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols([protocol])
    try:
        with _as_file(certificate.chain) as chain, _as_file(certificate.key) as key:
            context.load_cert_chain(chain, key, lambda: "")
        if certificate.client_authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=_as_text(certificate.client_authorities))
    except ssl.SSLError:
        raise ValueError("OpenSSL can't use it") from None
    return context


def _as_text(content: bytes) -> str:
    # A PEM file may have comments in any encoding.
    return content.decode("ascii", "replace").replace("\ufffd", "?")


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        _fail(setting, path, error.strerror or "it can't be read")
    if len(content) > _LARGEST_FILE:
        _fail(setting, path, f"larger than {_LARGEST_FILE:,} bytes")
    if not content.strip():
        _fail(setting, path, "the file is empty")
    return content


def _fail(setting: str, path: Path, problem: str) -> NoReturn:
    raise SettingsError(setting, f"{path}: {problem}") from None


def _client_context(setting: str, path: Path, content: bytes) -> ssl.SSLContext:
    """Return a client's context that trusts the certificates in *content*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Trust the service's own certificate, whichever authority issued it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_as_text(content))
    except ssl.SSLError:
        _fail(setting, path, "not certificates in PEM, or not whole ones")
    return context


def _check_authorities(path: Path, content: bytes) -> None:
    authorities = _client_context("tls_client_ca", path, content).get_ca_certs()
    if not authorities:
        _fail("tls_client_ca", path, "no certificate in it is an authority's")
    if max(map(_expiry_time, authorities)) <= time.time():
        _fail("tls_client_ca", path, "all authorities have ended")


def _test(chain_path: Path, chain: bytes, key_path: Path, key: bytes) -> int:
    """Make a handshake with a certificate, and return when it expires.

    This tests that the certificate can be read, is valid now, is one for servers, and
    matches the key.
    """
    client = _client_context("tls_certificate", chain_path, chain)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    password_requests: list[None] = []

    def no_password() -> str:
        password_requests.append(None)
        return ""

    with _as_file(chain) as chain_file, _as_file(key) as key_file:
        try:
            server.load_cert_chain(chain_file, key_file, no_password)
        except ssl.SSLError as error:
            if password_requests:
                _fail("tls_key", key_path, "the key is encrypted, and there is no password")
            # A key of another kind leaves the certificate without one.
            if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
                _fail("tls_key", key_path, f"the key is not that of {chain_path}")
            _fail("tls_key", key_path, "not a private key in PEM, or not a whole one")
    try:
        found = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        _fail("tls_certificate", chain_path, error.verify_message)
    except ssl.SSLError:
        _fail("tls_certificate", chain_path, "no handshake is possible with it")
    return int(min(map(_expiry_time, (found, *client.get_ca_certs()))))


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes a path in memory: `ssl` reads keys only from paths."""
    descriptor = os.memfd_create("geolookup-pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    """Connect two contexts in memory, and return the server's certificate as the client sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_server = server.wrap_bio(to_server, to_client, server_side=True)
    at_client = client.wrap_bio(to_client, to_server)
    # Each side takes at most three steps.
    for _ in range(8):
        waiting = False
        for side in (at_client, at_server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting = True
        if not waiting:
            return at_client.getpeercert() or {}
    raise ssl.SSLError("the handshake does not end")


def _expiry_time(certificate: Mapping[str, object]) -> float:
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
