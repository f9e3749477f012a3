"""TLS for the listeners: certificates that are read again when they change, and who may call what.

A certificate is tried before it is used: read, and then shaken hands with, in memory.
What passes is what gRPC gets, byte for byte; what fails changes nothing.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn, Protocol

import grpc

from geolookup.service import log
from geolookup.service.file_watch import FileState, file_state
from geolookup.service.settings import Settings, SettingsError
from geolookup.service.settings.model import ADMIN, HEALTH, OTHERS

_LARGEST_FILE: Final = 1_048_576
"""Bytes. A bundle with all authorities of the web has a quarter of that."""

_SETTLED: Final = 2.0
"""Seconds that files which don't belong together must stay as they are to be an error:
certificate and key are written one after the other."""

_in_use: weakref.WeakSet[Certificates] = weakref.WeakSet()
"""Of this process; gRPC's credentials keep them alive."""

_Signature = tuple[FileState, ...]


class CertificateCounters(Protocol):
    """What is counted: `geolookup.service.monitoring.counters.Counters`."""

    def handshake(self) -> None:
        """Count a TLS handshake that a client began."""

    def certificate(self, taken: bool, not_after: int, /) -> None:
        """Count a reading of the certificate, and when the one in use ends (Unix time)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was tried, and what belongs to it.

    Attributes:
        chain: the service's certificate and those between it and its authority (PEM).
        key: its private key (PEM). Never shown.
        client_authorities: who clients' certificates must come from (PEM); None: they
            need none.
        not_after: when the first of the chain ends, as Unix time.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None
    not_after: int

    def __repr__(self) -> str:
        return f"Certificate(not_after={self.not_after})"


def load(settings: Settings) -> Certificate:
    """Read the files and try them.

    Raises:
        SettingsError: a file can't be read, is no PEM, has ended, or the key is
            another certificate's. The text names the file, and never shows what is in it.
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
    return Certificate(chain, key, authorities, _try(chain_path, chain, key_path, key))


@dataclass(slots=True)
class _Refused:
    """Files that are not sound: how they were found, when first, and whether that was told."""

    signature: _Signature
    since: float
    told: bool = False


class Certificates:
    """The certificate in use, read again when its files change.

    gRPC asks for it before each handshake, from threads of its own. Then, and not more
    often than each `Settings.watch` seconds, the files are looked at. If they changed
    and are sound, the handshake is the first with the new certificate; connections
    that stand are not touched. If they are not sound, the certificate in use stays, which
    is counted and logged, once a change.

    Raises:
        SettingsError: as in `load`.
    """

    def __init__(
        self,
        settings: Settings,
        counters: CertificateCounters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._clock = clock
        paths = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        self._paths = [path for path in paths if path is not None]
        # Guards all below. Files are read while it is held: other handshakes wait for them.
        self._lock = threading.Lock()
        self._known = self._signature()
        self._certificate = load(settings)
        self._refused: _Refused | None = None
        self._looked = clock()
        self.on_change: Callable[[Certificate], None] | None = None
        """Called with each new certificate, while other looks wait. It raises ValueError for
        one that can't be used."""
        self._count(taken=True)
        _in_use.add(self)

    @property
    def certificate(self) -> Certificate:
        """The certificate in use."""
        return self._certificate

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one listener. Each listener needs its own."""
        given = self._certificate
        # Guards `given`, so that of two handshakes one installs a new certificate.
        lock = threading.Lock()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if self._counters is not None:
                self._counters.handshake()
            if self._settings.watch and self._clock() - self._looked >= self._settings.watch:
                self.look()
            with lock:
                if given is self._certificate:
                    return None
                given = self._certificate
                return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given),
            fetch,  # type: ignore[arg-type]  # None is "as before", which the stubs don't know
            require_client_authentication=given.client_authorities is not None,
        )

    def look(self) -> bool:
        """Look at the files now, and return whether a new certificate was taken."""
        with self._lock:
            self._looked = self._clock()
            signature = self._signature()
            if signature == self._known:
                self._refused = None
                return False
            try:
                certificate = load(self._settings)
                if self.on_change is not None and self._signature() == signature:
                    self.on_change(certificate)
            except Exception as error:
                # gRPC, which asks, would lose any other one, and nobody would be told.
                self._refuse(signature, error)
                return False
            # Written to while they were read: what was read may be of two certificates
            # of the same key, or of two sets of authorities.
            if self._signature() != signature:
                return False
            self._known, self._refused = signature, None
            self._certificate = certificate
            self._count(taken=True)
            log.event("certificate", outcome="taken", not_after=self._end_of_use())
            return True

    def _refuse(self, signature: _Signature, error: Exception) -> None:
        """Count and log files that are not sound, once, when they have settled.

        They are read again with each look: what was missing may be time (the certificate
        is not valid yet) or a file descriptor.
        """
        if self._refused is None or self._refused.signature != signature:
            self._refused = _Refused(signature, self._clock())
        if not self._refused.told and self._clock() - self._refused.since >= _SETTLED:
            self._refused.told = True
            self._count(taken=False)
            told = isinstance(error, SettingsError)
            why = str(error) if told else log.describe(error)
            log.event(
                "certificate", "error", outcome="refused", reason=why, not_after=self._end_of_use()
            )

    def _end_of_use(self) -> str:
        """Return when the certificate in use ends, RFC 3339."""
        end = datetime.fromtimestamp(self._certificate.not_after, UTC)
        return end.isoformat().replace("+00:00", "Z")

    def _count(self, *, taken: bool) -> None:
        if self._counters is not None:
            self._counters.certificate(taken, self._certificate.not_after)

    def _signature(self) -> _Signature:
        return tuple(map(file_state, self._paths))


def credentials(
    settings: Settings, counters: CertificateCounters | None = None
) -> grpc.ServerCredentials | None:
    """Return credentials for one listener, or None where the settings say plaintext.

    Raises:
        SettingsError: as in `load`.
    """
    if settings.tls_certificate is None:
        return None
    return Certificates(settings, counters).credentials()


def reload_changed() -> None:
    """Look at the files of all certificates in use now, as when a service is told to reload."""
    for certificates in list(_in_use):
        certificates.look()


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.client_authorities
    )


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


def _trusting(setting: str, path: Path, content: bytes) -> ssl.SSLContext:
    """Return a client's context that trusts the certificates in *content*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The service's own certificate is to be trusted for itself, whoever issued it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Between certificates a file may hold remarks in any language.
    text = content.decode("ascii", "replace").replace("\ufffd", "?")
    try:
        context.load_verify_locations(cadata=text)
    except ssl.SSLError:
        _fail(setting, path, "not certificates in PEM, or not whole ones")
    return context


def _check_authorities(path: Path, content: bytes) -> None:
    authorities = _trusting("tls_client_ca", path, content).get_ca_certs()
    if not authorities:
        _fail("tls_client_ca", path, "no certificate in it is an authority's")
    if max(map(_end, authorities)) <= time.time():
        _fail("tls_client_ca", path, "all authorities have ended")


def _try(chain_path: Path, chain: bytes, key_path: Path, key: bytes) -> int:
    """Shake hands with a certificate, and return when it ends.

    That shows at once that it can be read, is in its time, may be a server's, and that
    the key is its key.
    """
    client = _trusting("tls_certificate", chain_path, chain)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked: list[None] = []

    def no_password() -> str:
        asked.append(None)
        return ""

    with _as_file(chain) as chain_file, _as_file(key) as key_file:
        try:
            server.load_cert_chain(chain_file, key_file, no_password)
        except ssl.SSLError as error:
            if asked:
                _fail("tls_key", key_path, "the key is encrypted, and nobody is there to ask")
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
    return int(min(map(_end, (found, *client.get_ca_certs()))))


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes a path, without a file: `ssl` reads keys from paths alone."""
    descriptor = os.memfd_create("geolookup-pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    """Connect two contexts in memory, and return what the client saw of the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_server = server.wrap_bio(to_server, to_client, server_side=True)
    at_client = client.wrap_bio(to_client, to_server)
    # Each side speaks at most three times.
    for _ in range(8):
        waiting = False
        for side in (at_client, at_server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting = True
        if not waiting:
            return at_client.getpeercert() or {}
    raise ssl.SSLError("no end")


def _end(certificate: Mapping[str, object]) -> float:
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


# Who may call what.


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_NAMES: Final[Mapping[str, Callable[[str], bool]]] = {
    "peer_uri": lambda name: "://" in name,
    "peer_email": lambda name: "@" in name and "://" not in name,
    "peer_ip": _is_ip,
    "peer_dns": lambda name: not (set(":/@") & set(name)) and not _is_ip(name),
}
"""Kinds of alternative names in gRPC's auth context, and what a name of each looks like. A
name that looks like one of another kind is left out: an authority that may issue
DNS names must not thereby issue URIs."""


def identities(auth_context: Mapping[str, Iterable[bytes]] | None) -> frozenset[str]:
    """Return who a caller is: the alternative names of its certificate.

    Args:
        auth_context: of ``ServicerContext.auth_context()`` or ``cygrpc.auth_context``;
            None and an empty one are a caller without a certificate.
    """
    found: set[str] = set()
    for kind, fits in _NAMES.items():
        for value in (auth_context or {}).get(kind, ()):
            try:
                name = value.decode("ascii")
            except UnicodeDecodeError:
                continue
            if name.isprintable() and fits(name):
                found.add(name)
    return frozenset(found)


def permitted(settings: Settings, method: str, callers: frozenset[str]) -> bool:
    """Return whether a caller may call an rpc.

    Args:
        settings: what the service was told.
        method: the rpc's name without its service, or "admin" for all of the admin listener.
        callers: the caller's `identities`.
    """
    names = allowed(settings, method)
    return names is None or not names.isdisjoint(callers)


def allowed(settings: Settings, method: str) -> frozenset[str] | None:
    """Return whose calls of an rpc are let through; None: everybody's. See `permitted`."""
    names = settings.allow.get(method)
    # Health says nothing but whether the service answers, and balancers must hear it.
    if names is None and method != ADMIN and method not in HEALTH:
        names = settings.allow.get(OTHERS)
    return names


def refusal(method: str) -> str:
    """Return the text of PERMISSION_DENIED: which rpc, and not who was refused."""
    return f"{method}: this client may not call it"
