"""Credentials of a client: whom it trusts, and what it shows. Files are tried before use."""

from __future__ import annotations

import os
import socket
import ssl
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc

from geolookup.errors import GeoLookupError

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems keep all of their authorities in one file."""


_PROBE_TIMEOUT = 2.0
"""Seconds."""


class CredentialsError(GeoLookupError, ValueError):
    """A file can't be used for TLS. The text names the argument and the file."""


@dataclass(frozen=True, slots=True)
class Material:
    """What TLS is spoken with, in PEM.

    Attributes:
        authorities: that are trusted; None: those that come with the library.
        chain: the certificate that is shown, and those between it and its authority; None: none.
        key: its private key.
    """

    authorities: bytes | None
    chain: bytes | None = None
    key: bytes | None = None


# gRPC's credentials can't be read, and native connections need what they were made of.
_MADE_OF: weakref.WeakKeyDictionary[grpc.ChannelCredentials, Material] = weakref.WeakKeyDictionary()


def credentials_of(material: Material) -> grpc.ChannelCredentials:
    """Return gRPC's credentials that are made of PEM."""
    made = grpc.ssl_channel_credentials(material.authorities, material.key, material.chain)
    _MADE_OF[made] = material
    return made


def material(credentials: grpc.ChannelCredentials) -> Material | None:
    """Return what credentials were made of; None: they are not from here."""
    return _MADE_OF.get(credentials)


def tls_credentials(
    *,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """Return the credentials for a service with TLS.

    gRPC itself says of files that it can't use no more than that there is no connection.

    Args:
        ca: certificates (PEM) of the authorities that are trusted; None: those of the system.
        certificate: certificate chain (PEM) to show to a service that asks for one.
        key: its private key (PEM), without a password.

    Raises:
        CredentialsError: a file can't be read or used; or one of the last two without the other.
    """
    if (certificate is None) != (key is None):
        raise CredentialsError("certificate and key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = _system_authorities()
    if ca is not None:
        authorities = _read("ca", ca)
        try:
            context.load_verify_locations(
                cadata=authorities.decode("ascii", "replace").replace("\ufffd", "?")
            )
        except (ssl.SSLError, ValueError):
            _fail("ca", ca, "not certificates in PEM")
    if certificate is None or key is None:
        return credentials_of(Material(authorities))
    chain, private = _read("certificate", certificate), _read("key", key)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
            _fail("key", key, f"not the key of {os.fspath(certificate)}")
        _fail("key", key, "no private key in PEM without a password, or the certificate is none")
    return credentials_of(Material(authorities, chain, private))


def _system_authorities() -> bytes | None:
    paths = (ssl.get_default_verify_paths().cafile, *_BUNDLES)
    found = next((path for path in paths if path and os.path.isfile(path)), None)
    # None: those that come with gRPC.
    return None if found is None else Path(found).read_bytes()


def _read(argument: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        _fail(argument, path, error.strerror or "can't be read")


def _fail(argument: str, path: str | os.PathLike[str], problem: str) -> NoReturn:
    raise CredentialsError(f"{argument}: {os.fspath(path)}: {problem}")


def probe(
    target: str,
    *,
    tls: bool,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> str | None:
    """Return why a listener closes connections, found out by one that sends nothing but TLS.

    Args:
        target: HOST:PORT, [IPV6]:PORT or unix:PATH.
        tls: whether the connection that it closed was one over TLS.
        certificate: certificate chain (PEM) that was shown; None: there was none.
        key: its private key (PEM).

    Returns:
        The reason; None: it is not known.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing that matters is sent, and the error of who is not trusted is another one.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    refused = "it asks for a client's certificate"
    if certificate is not None:
        refused = "it does not accept the client's certificate"
    try:
        with _connect(target) as plain, context.wrap_socket(plain) as connection:
            if not tls:
                return "it expects TLS"
            # With TLS 1.3 only now: by an alert, or by the end where gRPC's settings would be.
            return None if connection.recv(1) else refused
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return refused if tls else "it expects TLS"
    except (OSError, ValueError):
        pass
    return None


def _connect(target: str) -> socket.socket:
    if target.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PROBE_TIMEOUT)
        connection.connect(target.removeprefix("unix:"))
        return connection
    host, _, port = target.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT)
