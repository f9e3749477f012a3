"""TLS for the listeners: reloading of certificates, and authorization of clients by them.

A new certificate is tested by a handshake in memory before gRPC gets it. A certificate that
fails the test changes nothing.
"""

from __future__ import annotations

import ipaddress
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from geolookup.service import log
from geolookup.service.file_watch import FileState, file_state
from geolookup.service.settings import Settings, SettingsError
from geolookup.service.settings.model import ADMIN, HEALTH, OTHERS

if TYPE_CHECKING:
    import grpc  # its credentials' functions import it: the native transport has no use for it

    from geolookup.service.certificate_files import Certificate

_SETTLED: Final = 2.0
"""Seconds for which files that don't match must stay unchanged before they are an error, since
certificate and key are written one after the other."""

_ENDING: Final = 7 * 86_400
"""Seconds before a certificate's end from which its end is logged; as the alert has it."""

_in_use: weakref.WeakSet[Certificates] = weakref.WeakSet()
"""All certificates of this process; gRPC's credentials keep them alive."""

_States = tuple[FileState, ...]


class CertificateCounters(Protocol):
    """The part of `geolookup.service.monitoring.counters.Counters` that is used here."""

    def handshake(self) -> None:
        """Count a TLS handshake that a client began."""

    def certificate(self, taken: bool, not_after: int, /) -> None:
        """Count a reading of the certificate, and set the expiry (Unix time) of the one in use."""


def load(settings: Settings) -> Certificate:
    """Read the files and test them.

    Raises:
        SettingsError: as in `certificate_files.load`.
    """
    from geolookup.service import certificate_files  # noqa: PLC0415 - with TLS alone

    return certificate_files.load(settings)


@dataclass(slots=True)
class _Rejected:
    """Files that failed the test: their state, since when, and whether that was reported."""

    states: _States
    since: float
    reported: bool = False


class Certificates:
    """The certificate in use, read again when its files change.

    gRPC fetches the certificate before each handshake, in its own threads. At most once in
    `Settings.watch` seconds this checks the files. If they have changed and pass the test, the
    handshake is the first with the new certificate; open connections keep the old one. If they
    fail, the certificate in use stays, which is counted and logged once per change.

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
        # Guards all below. Files are read while it is held, so other handshakes wait.
        self._lock = threading.Lock()
        self._known = self._file_states()
        self._certificate = load(settings)
        self._rejected: _Rejected | None = None
        self._reported_end = ""
        self._checked = clock()
        self.on_change: Callable[[Certificate], None] | None = None
        """Called with each new certificate, while other checks wait. It raises ValueError for
        one that can't be used."""
        self._count(taken=True)
        _in_use.add(self)

    @property
    def certificate(self) -> Certificate:
        """The certificate in use."""
        return self._certificate

    def hand_to(self, take: Callable[[Certificate], None]) -> None:
        """Give a listener the certificate in use, and each one after it (`on_change`).

        Raises:
            SettingsError: the listener can't use it.
        """
        self.on_change = take
        try:
            take(self._certificate)
        except ValueError as error:
            raise SettingsError("tls_certificate", str(error)) from None

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one listener. Each listener needs its own."""
        import grpc  # noqa: PLC0415 - see above

        given = self._certificate
        # Guards `given`, so that only one of two handshakes installs a new certificate.
        lock = threading.Lock()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if self._counters is not None:
                self._counters.handshake()
            if self._settings.watch and self._clock() - self._checked >= self._settings.watch:
                self.reload()
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

    def reload(self) -> bool:
        """Read the files if they have changed; return whether there is a new certificate."""
        with self._lock:
            self._checked = self._clock()
            states = self._file_states()
            if states == self._known:
                self._rejected = None
                self._report_end()
                return False
            try:
                certificate = load(self._settings)
                if self.on_change is not None and self._file_states() == states:
                    self.on_change(certificate)
            except Exception as error:
                # Any exception: gRPC, which calls this, would drop it.
                self._reject(states, error)
                return False
            # The files changed while they were read: the content may be mixed from two
            # certificates of one key, or from two sets of authorities.
            if self._file_states() != states:
                return False
            self._known, self._rejected = states, None
            self._certificate = certificate
            self._reported_end = ""
            self._count(taken=True)
            log.event("certificate", outcome="taken", not_after=self._expiry())
            return True

    def _reject(self, states: _States, error: Exception) -> None:
        """Count and log files that failed the test, once, when they have settled.

        They are read again at each check, since the reason may be the time (a certificate
        that is not valid yet) or a missing file descriptor.
        """
        if self._rejected is None or self._rejected.states != states:
            self._rejected = _Rejected(states, self._clock())
        if not self._rejected.reported and self._clock() - self._rejected.since >= _SETTLED:
            self._rejected.reported = True
            self._count(taken=False)
            reason = str(error) if isinstance(error, SettingsError) else log.describe(error)
            log.event(
                "certificate", "error", outcome="refused", reason=reason, not_after=self._expiry()
            )

    def _report_end(self) -> None:
        """Log that the certificate in use ends soon, or has ended; each once."""
        left = self._certificate.not_after - time.time()
        outcome = "ended" if left <= 0 else "ending" if left <= _ENDING else ""
        if outcome == self._reported_end:
            return
        self._reported_end = outcome
        if outcome:
            level: log.Level = "error" if outcome == "ended" else "warning"
            log.event("certificate", level, outcome=outcome, not_after=self._expiry())

    def _expiry(self) -> str:
        """Return when the certificate in use expires, by RFC 3339."""
        end = datetime.fromtimestamp(self._certificate.not_after, UTC)
        return end.isoformat().replace("+00:00", "Z")

    def _count(self, *, taken: bool) -> None:
        if self._counters is not None:
            self._counters.certificate(taken, self._certificate.not_after)

    def _file_states(self) -> _States:
        return tuple(map(file_state, self._paths))


def credentials(
    settings: Settings, counters: CertificateCounters | None = None
) -> grpc.ServerCredentials | None:
    """Return credentials for one listener; None: the settings have no certificate.

    The files are checked at handshakes, and also while no client connects: the metrics and the
    log must not say that a certificate is about to expire which has been replaced.

    Raises:
        SettingsError: as in `load`.
    """
    if settings.tls_certificate is None:
        return None
    certificates = Certificates(settings, counters)
    if settings.watch:
        threading.Thread(
            target=_check_files,
            args=(weakref.ref(certificates), settings.watch),
            name="geolookup-certificates",
            daemon=True,
        ).start()
    return certificates.credentials()


def _check_files(reference: weakref.ref[Certificates], interval: float) -> None:
    pause = threading.Event()
    # gRPC gives no notice of when it frees the credentials, and with them the certificates.
    while not pause.wait(interval) and (certificates := reference()) is not None:
        certificates.reload()
        del certificates


def reload_changed() -> None:
    """Read all certificates in use again, if their files have changed."""
    for certificates in list(_in_use):
        certificates.reload()


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    import grpc  # noqa: PLC0415 - see above

    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.client_authorities
    )


# --- authorization


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
"""Kinds of alternative names in gRPC's auth context, and the form of each. A name in the form
of another kind is ignored: an authority that may issue DNS names must not issue URIs
thereby."""


def identities(auth_context: Mapping[str, Iterable[bytes]] | None) -> frozenset[str]:
    """Return a client's identities: the alternative names of its certificate.

    Args:
        auth_context: of ``ServicerContext.auth_context()`` or ``cygrpc.auth_context``;
            None or empty: the client has no certificate.
    """
    found: set[str] = set()
    for kind, has_form in _NAMES.items():
        for value in (auth_context or {}).get(kind, ()):
            try:
                name = value.decode("ascii")
            except UnicodeDecodeError:
                continue
            if name.isprintable() and has_form(name):
                found.add(name)
    return frozenset(found)


def permitted(settings: Settings, method: str, client: frozenset[str]) -> bool:
    """Return whether a client may call an rpc.

    Args:
        settings: of the service.
        method: the label of the rpc, or "admin" for all rpcs of the admin listener.
        client: the client's `identities`.
    """
    names = allowed(settings, method)
    return names is None or not names.isdisjoint(client)


def allowed(settings: Settings, method: str) -> frozenset[str] | None:
    """Return the identities that may call an rpc; None: all clients. See `permitted`."""
    names = settings.allow.get(method)
    # Load balancers need health, which reveals only whether the service answers.
    if names is None and method != ADMIN and method not in HEALTH:
        names = settings.allow.get(OTHERS)
    return names


def refusal(method: str) -> str:
    """Return the text of PERMISSION_DENIED. It names the rpc, and not the client."""
    return f"{method}: this client may not call it"
