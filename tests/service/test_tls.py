"""TLS over real connections: certificates good and bad, changed while in use, and who may call."""

from __future__ import annotations

import contextlib
import datetime
import gc
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from servers import PATIENCE, serving_here, stub_of

import geolookup
from geolookup.service import tls
from geolookup.service.certificate_files import Certificate
from geolookup.service.monitoring.counters import Counters
from geolookup.service.rpc.grpc_options import channel_options
from geolookup.service.settings import Settings, SettingsError
from geolookup.v1 import geolookup_pb2 as v1

METHOD = "/test.Service/Who"
DAY = datetime.timedelta(days=1)
TODAY = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Files:
    """Where a service finds its certificate, and the authority that issues them."""

    folder: Path
    authority: trustme.CA

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_certificate": self.folder / "chain", "tls_key": self.folder / "key"}

    @property
    def mutual(self) -> dict[str, Any]:
        return {**self.settings, "tls_client_ca": self.folder / "clients"}

    def write(self, certificate: trustme.LeafCert) -> None:
        """Put a certificate in place, as a careful administrator would: each file at once."""
        self.replace("key", certificate.private_key_pem.bytes())
        self.replace("chain", chain(certificate))

    def replace(self, name: str, content: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(content)
        new.replace(self.folder / name)


def chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    made = Files(tmp_path, authority)
    made.write(authority.issue_cert("localhost"))
    made.replace("clients", authority.cert_pem.bytes())
    return made


@dataclass
class Clock:
    """Time that passes when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def listening(credentials: grpc.ServerCredentials, settings: Settings) -> Iterator[str]:
    """Serve one rpc, which answers with the caller's identities."""

    def who(_: bytes, context: grpc.ServicerContext) -> bytes:
        return "\n".join(sorted(tls.identities(context.auth_context()))).encode()

    server = grpc.server(ThreadPoolExecutor(4), options=channel_options(settings, share_port=False))
    handler = grpc.unary_unary_rpc_method_handler(who)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", {"Who": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0).wait(PATIENCE)


@contextlib.contextmanager
def serving(files: Files, **settings: Any) -> Iterator[str]:
    chosen = Settings(**(settings or files.settings))
    credentials = tls.credentials(chosen)
    assert credentials is not None
    with listening(credentials, chosen) as target:
        yield target


@contextlib.contextmanager
def connected(
    target: str, authority: trustme.CA, certificate: trustme.LeafCert | None = None
) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        certificate and certificate.private_key_pem.bytes(),
        certificate and chain(certificate),
    )
    # Channels of one process share connections unless told not to.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(target, credentials, options) as channel:
        yield channel


def ask(channel: grpc.Channel) -> set[str]:
    answer: bytes = channel.unary_unary(METHOD)(b"", timeout=PATIENCE)
    return set(answer.decode().split("\n")) - {""}


def refused(channel: grpc.Channel) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        ask(channel)
    return error.value.code()


def serial(target: str) -> int:
    """Return the serial number of the certificate that a new connection is shown."""
    host, port = target.split(":")
    return x509.load_pem_x509_certificate(
        ssl.get_server_certificate((host, int(port)), timeout=PATIENCE).encode()
    ).serial_number


def serial_of(certificate: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(chain(certificate)).serial_number


# handshakes


def test_a_client_that_trusts_the_authority_is_answered(files: Files) -> None:
    with serving(files) as target, connected(target, files.authority) as channel:
        assert ask(channel) == set()


def test_a_client_that_does_not_trust_it_is_not(files: Files) -> None:
    with serving(files) as target, connected(target, trustme.CA()) as channel:
        assert refused(channel) is grpc.StatusCode.UNAVAILABLE


def test_plaintext_is_not_answered(files: Files) -> None:
    with serving(files) as target, grpc.insecure_channel(target) as channel:
        assert refused(channel) is grpc.StatusCode.UNAVAILABLE


def test_without_a_certificate_there_are_no_credentials() -> None:
    assert tls.credentials(Settings()) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_refused(files: Files, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=files.authority.cert_pem.bytes().decode())
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    with serving(files) as target:
        host, port = target.split(":")
        with (
            socket.create_connection((host, int(port)), PATIENCE) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(raw, server_hostname="localhost")


def test_the_identities_are_the_certificate_s_alternative_names(files: Files) -> None:
    names = ("meet.example", "ops@example.org", "192.0.2.7", "2001:db8::7", "*.w.example")
    certificate = files.authority.issue_cert(*names, common_name="no identity")
    with (
        serving(files, **files.mutual) as target,
        connected(target, files.authority, certificate) as channel,
    ):
        assert ask(channel) == set(names)


@pytest.mark.parametrize("who", ["nobody", "another authority", "ended", "a server"])
def test_a_wrong_client_certificate_is_refused_before_any_handler(files: Files, who: str) -> None:
    certificate = {
        "nobody": lambda: None,
        "another authority": lambda: trustme.CA().issue_cert("meet.example"),
        "ended": lambda: files.authority.issue_cert("meet.example", not_after=TODAY - DAY),
        "a server": lambda: certificate_for_servers(files),
    }[who]()
    with (
        serving(files, **files.mutual) as target,
        connected(target, files.authority, certificate) as channel,
    ):
        assert refused(channel) is grpc.StatusCode.UNAVAILABLE


def certificate_for_servers(files: Files) -> Any:
    """Return a certificate that says it is for servers alone, which trustme can't make."""
    issuer = x509.load_pem_x509_certificate(files.authority.cert_pem.bytes())
    issuer_key: Any = serialization.load_pem_private_key(
        files.authority.private_key_pem.bytes(), None
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(TODAY - DAY)
        .not_valid_after(TODAY + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("meet.example")]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    return trustme.LeafCert(
        key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(encoding),
        [],
    )


def test_an_intermediate_authority_is_sent_along(files: Files) -> None:
    files.write(files.authority.create_child_ca().issue_cert("localhost"))
    with serving(files) as target, connected(target, files.authority) as channel:
        assert ask(channel) == set()


# what is refused at the start


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


BAD: Mapping[str, tuple[Callable[[Files], None], str]] = {
    "no chain": (lambda f: (f.folder / "chain").unlink(), "tls_certificate: .*chain: No such"),
    "no key": (lambda f: (f.folder / "key").unlink(), "tls_key: .*key: No such file"),
    "no authorities": (lambda f: (f.folder / "clients").unlink(), "tls_client_ca: .*: No such"),
    "a folder": (
        lambda f: ((f.folder / "key").unlink(), (f.folder / "key").mkdir())[0],
        "tls_key: .*key: Is a directory",
    ),
    "empty chain": (lambda f: f.replace("chain", b""), "tls_certificate: .*: the file is empty"),
    "empty key": (lambda f: f.replace("key", b" \n"), "tls_key: .*key: the file is empty"),
    "too large": (lambda f: f.replace("key", b"x" * 1_048_577), "tls_key: .*: larger than 1,048"),
    "garbage": (lambda f: f.replace("chain", b"\x00\xff" * 99), "tls_certificate: .*: not certif"),
    "truncated chain": (
        lambda f: f.replace("chain", truncated((f.folder / "chain").read_bytes())),
        "tls_certificate: .*chain: not certificates in PEM, or not whole ones",
    ),
    "truncated key": (
        lambda f: f.replace("key", truncated((f.folder / "key").read_bytes())),
        "tls_key: .*key: not a private key in PEM, or not a whole one",
    ),
    "swapped": (
        lambda f: f.replace("chain", (f.folder / "key").read_bytes()),
        "tls_certificate: .*chain: not certificates in PEM",
    ),
    "another's key": (
        lambda f: f.replace("key", f.authority.issue_cert("x").private_key_pem.bytes()),
        "tls_key: .*key: the key is not that of .*chain",
    ),
    "another kind of key": (
        lambda f: f.replace(
            "key", f.authority.issue_cert("x", key_type=trustme.KeyType.RSA).private_key_pem.bytes()
        ),
        "tls_key: .*key: the key is not that of .*chain",
    ),
    "encrypted key": (lambda f: f.replace("key", encrypted(f)), "tls_key: .*: the key is encryp"),
    "ended": (
        lambda f: f.write(f.authority.issue_cert("localhost", not_after=TODAY - DAY)),
        "tls_certificate: .*chain: certificate has expired",
    ),
    "not begun": (
        lambda f: f.write(f.authority.issue_cert("localhost", not_before=TODAY + DAY)),
        "tls_certificate: .*chain: certificate is not yet valid",
    ),
    "no authority": (
        lambda f: f.replace("clients", chain(f.authority.issue_cert("x"))),
        "tls_client_ca: .*clients: no certificate in it is an authority's",
    ),
    "truncated authorities": (
        lambda f: f.replace("clients", truncated(f.authority.cert_pem.bytes())),
        "tls_client_ca: .*clients: not certificates in PEM",
    ),
}


def encrypted(files: Files) -> bytes:
    key: Any = serialization.load_pem_private_key((files.folder / "key").read_bytes(), None)
    made: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return made


@pytest.mark.parametrize("name", BAD)
def test_a_bad_certificate_at_the_start_says_what_is_wrong_and_where(
    files: Files, name: str
) -> None:
    spoil, said = BAD[name]
    spoil(files)
    key = files.folder / "key"
    secret = key.read_bytes() if key.is_file() else b""
    with pytest.raises(SettingsError, match=f"^{said}") as error:
        tls.credentials(Settings(**files.mutual))
    assert not any(
        line in str(error.value) for line in secret.decode("latin-1").split() if len(line) > 20
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_a_file_that_may_not_be_read_says_so(files: Files) -> None:
    (files.folder / "key").chmod(0)
    with pytest.raises(SettingsError, match=r"^tls_key: .*key: Permission denied"):
        tls.load(Settings(**files.settings))


def test_a_process_that_others_may_not_look_into_can_try_a_key(files: Files) -> None:
    """PR_SET_DUMPABLE takes /proc/self from a process that is not root's; not what we use of it."""
    code = (
        # All modules first: the interpreter's own files may be root's alone.
        "import _strptime, ctypes, os, sys\n"
        "from pathlib import Path\n"
        "from geolookup.service import certificate_files\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0\n"
        "chain, key = sys.stdin.buffer.read().split(b'---split---')\n"
        "print(certificate_files._test(Path('chain'), chain, Path('key'), key))\n"
    )
    content = b"---split---".join((files.folder / name).read_bytes() for name in ("chain", "key"))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=content,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    assert int(ended.stdout) > TODAY.timestamp()


def test_the_key_is_never_shown(files: Files) -> None:
    shown = repr(tls.load(Settings(**files.settings)))
    assert "PRIVATE" not in shown
    assert "not_after" in shown


def test_the_end_is_that_of_the_first_certificate_to_end(files: Files) -> None:
    end = (TODAY + 3 * DAY).replace(microsecond=0)
    files.write(files.authority.issue_cert("localhost", not_after=end))
    assert tls.load(Settings(**files.settings)).not_after == int(end.timestamp())


# changed while in use


@dataclass
class Watched:
    """A certificate in use, with a clock of the test's."""

    certificates: tls.Certificates
    counters: Counters
    clock: Clock
    target: str

    def reads(self) -> tuple[int, int]:
        """Return how many readings were refused, and how many taken."""
        return self.counters.read()["certificate_reads"]

    @property
    def stale(self) -> int:
        return self.counters.read()["certificate_stale"]


@pytest.fixture
def watched(files: Files) -> Iterator[Watched]:
    settings = Settings(**files.mutual, watch=10)
    counters, clock = Counters(), Clock()
    certificates = tls.Certificates(settings, counters, clock)
    with listening(certificates.credentials(), settings) as target:
        yield Watched(certificates, counters, clock, target)


@pytest.fixture
def caller(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("meet.example")


def test_a_new_certificate_is_used_without_a_restart(
    files: Files, watched: Watched, caller: trustme.LeafCert, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geolookup")
    first = serial(watched.target)
    with connected(watched.target, files.authority, caller) as channel:
        assert ask(channel) == {"meet.example"}
        new = files.authority.issue_cert("localhost")
        files.write(new)
        assert serial(watched.target) == first  # not looked at before its time
        watched.clock.now += 10
        assert serial(watched.target) == serial_of(new)
        assert ask(channel) == {"meet.example"}  # over the old connection
    with connected(watched.target, files.authority, caller) as channel:
        assert ask(channel) == {"meet.example"}
    assert watched.reads() == (0, 2)
    assert watched.counters.read()["handshakes"] == 5
    (record,) = caplog.records
    assert record.getMessage() == "certificate"
    assert vars(record)["fields"]["outcome"] == "taken"


def test_end_of_a_certificate_is_logged_before_and_after_each_once(
    files: Files, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "geolookup")
    files.write(files.authority.issue_cert("localhost", not_after=TODAY + 30 * DAY))
    certificates = tls.Certificates(Settings(**files.settings))
    end = certificates.certificate.not_after

    def outcomes_at(now: float) -> list[str]:
        caplog.clear()
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: now)
            certificates.reload()
            certificates.reload()
        return [vars(record)["fields"]["outcome"] for record in caplog.records]

    assert outcomes_at(end - 7 * 86_400 - 1) == []
    assert outcomes_at(end - 7 * 86_400) == ["ending"]
    assert outcomes_at(end - 1) == []
    assert outcomes_at(end) == ["ended"]
    files.write(files.authority.issue_cert("localhost", not_after=TODAY + 30 * DAY))
    assert outcomes_at(time.time()) == ["taken"]


def test_new_authorities_count_for_new_connections(
    files: Files, watched: Watched, caller: trustme.LeafCert
) -> None:
    others = trustme.CA()
    files.replace("clients", others.cert_pem.bytes())
    watched.clock.now += 10
    with connected(watched.target, files.authority, caller) as channel:
        assert refused(channel) is grpc.StatusCode.UNAVAILABLE
    with connected(watched.target, files.authority, others.issue_cert("other.example")) as channel:
        assert ask(channel) == {"other.example"}


@pytest.mark.usefixtures("transport")
def test_connection_of_a_withdrawn_authority_ends_with_its_age(
    files: Files, caller: trustme.LeafCert
) -> None:
    others = trustme.CA()
    request = v1.LookupRequest(text="1.0.1.1")
    # The time for a handshake is long, so that nothing but the age can end the connection.
    limits = {"max_connection_age": 1, "handshake_timeout": 2 * PATIENCE}
    with (
        geolookup.open() as dataset,
        serving_here(dataset, **files.mutual, **limits, watch=0.1) as server,
        connected(f"localhost:{server.address.port}", files.authority, caller) as channel,
    ):
        lookup = stub_of(channel).Lookup
        assert lookup(request, timeout=PATIENCE).country == "CN"
        files.replace("clients", others.cert_pem.bytes())
        codes = set()
        end = time.monotonic() + PATIENCE
        while not codes:
            assert time.monotonic() < end
            try:
                lookup(request, timeout=PATIENCE)
                time.sleep(0.05)
            except grpc.RpcError as error:
                codes.add(error.code())
        # For good: the next handshake is refused.
        with pytest.raises(grpc.RpcError) as ended:
            lookup(request, timeout=PATIENCE)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", BAD)
def test_a_bad_new_certificate_keeps_the_old_one_and_raises_the_alarm(
    files: Files, watched: Watched, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = serial(watched.target)
    BAD[name][0](files)
    watched.clock.now += 10
    assert serial(watched.target) == first
    assert (watched.reads(), watched.stale) == ((0, 1), 0)  # it may be half of a change
    for _ in range(3):
        watched.clock.now += 10
        assert serial(watched.target) == first
        assert (watched.reads(), watched.stale) == ((1, 1), 1)  # told once
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in told] == ["certificate"]
    fields = vars(told[0])["fields"]
    assert fields["outcome"] == "refused"
    assert fields["reason"]
    in_use = datetime.datetime.fromtimestamp(
        watched.certificates.certificate.not_after, datetime.UTC
    )
    assert datetime.datetime.fromisoformat(fields["not_after"]) == in_use
    key = files.folder / "key"
    if key.is_dir():
        key.rmdir()
    new = files.authority.issue_cert("localhost")
    files.write(new)
    files.replace("clients", files.authority.cert_pem.bytes())
    watched.clock.now += 10
    assert serial(watched.target) == serial_of(new)
    assert (watched.reads(), watched.stale) == ((1, 2), 0)


def test_a_change_in_two_steps_is_no_alarm(files: Files, watched: Watched) -> None:
    new = files.authority.issue_cert("localhost")
    files.replace("chain", chain(new))
    watched.clock.now += 10
    assert watched.certificates.reload() is False
    files.replace("key", new.private_key_pem.bytes())
    watched.clock.now += 10
    assert watched.certificates.reload() is True
    assert watched.reads() == (0, 2)
    assert serial(watched.target) == serial_of(new)


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path, authority: trustme.CA) -> None:
    """As an orchestrator puts secrets in place: all files at once, by one link."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Files(tmp_path / name, authority).write(authority.issue_cert("localhost"))
    link = tmp_path / "data"
    link.symlink_to("one")
    certificates = tls.Certificates(Settings(**Files(link, authority).settings))
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(link)
    assert certificates.reload() is True
    assert certificates.certificate.chain == (tmp_path / "two" / "chain").read_bytes()


def test_without_a_watch_files_are_read_on_reload(files: Files) -> None:
    settings = Settings(**files.settings, watch=0)
    clock = Clock()
    certificates = tls.Certificates(settings, clock=clock)
    with listening(certificates.credentials(), settings) as target:
        first = serial(target)
        new = files.authority.issue_cert("localhost")
        files.write(new)
        clock.now += 1_000_000
        assert serial(target) == first
        tls.reload_changed()
        assert serial(target) == serial_of(new)


def test_new_certificate_is_noticed_while_no_client_connects(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the clients' listener, whichever transport it has, and the admin listener."""
    caplog.set_level(logging.INFO, "geolookup")
    counters = Counters()
    credentials = tls.credentials(Settings(**files.settings, watch=1), counters)
    assert counters.read()["certificate_reads"] == (0, 1)
    files.write(files.authority.issue_cert("localhost"))
    end = time.monotonic() + PATIENCE
    while counters.read()["certificate_reads"] != (0, 2):
        assert time.monotonic() < end
        threading.Event().wait(0.05)
    assert counters.read()["handshakes"] == 0
    assert [vars(record)["fields"]["outcome"] for record in caplog.records] == ["taken"]
    del credentials


def test_files_are_no_longer_checked_when_the_credentials_are_gone(files: Files) -> None:
    def checking() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "geolookup-certificates"]

    before = len(checking())
    credentials = tls.credentials(Settings(**files.settings, watch=1))
    assert len(checking()) == before + 1
    del credentials
    end = time.monotonic() + PATIENCE
    while len(checking()) > before:
        gc.collect()
        assert time.monotonic() < end
        threading.Event().wait(0.05)


def test_a_certificate_that_is_not_valid_yet_is_taken_when_it_is(
    files: Files, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing about the files changes between the two looks."""
    new = files.authority.issue_cert("localhost")
    files.write(new)
    sound = tls.load

    def early(_: Settings) -> Certificate:
        raise SettingsError("tls_certificate", "certificate is not yet valid")

    monkeypatch.setattr(tls, "load", early)
    for _ in range(2):
        watched.clock.now += 10
        assert watched.certificates.reload() is False
    assert watched.stale == 1
    monkeypatch.setattr(tls, "load", sound)
    assert watched.certificates.reload() is True
    assert watched.stale == 0


def test_no_descriptor_stays_open(files: Files) -> None:
    settings = Settings(**files.mutual)
    tls.load(settings)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        tls.load(settings)
    BAD["another's key"][0](files)
    with pytest.raises(SettingsError):
        tls.load(settings)
    # What tests before left open may be closed meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before


# who may call what


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (None, set()),
        ({}, set()),
        ({"x509_common_name": [b"a.example"]}, set()),
        ({"peer_dns": [b"a.example", b"b.example"]}, {"a.example", "b.example"}),
        ({"peer_uri": [b"spiffe://a/b"]}, {"spiffe://a/b"}),
        ({"peer_email": [b"a@b.example"]}, {"a@b.example"}),
        ({"peer_ip": [b"192.0.2.1", b"2001:db8::1"]}, {"192.0.2.1", "2001:db8::1"}),
        # An authority that may issue names of one kind can't forge those of another.
        ({"peer_dns": [b"spiffe://a/b", b"a@b.example", b"192.0.2.1", b"::1"]}, set()),
        ({"peer_email": [b"spiffe://a@b/c", b"a.example"]}, set()),
        ({"peer_uri": [b"a.example"], "peer_ip": [b"a.example"]}, set()),
        ({"peer_dns": [b"\xff", b"a.example\0.evil.example"]}, set()),
    ],
)
def test_identities_are_alternative_names_of_their_kind(
    context: Mapping[str, list[bytes]] | None, expected: set[str]
) -> None:
    assert tls.identities(context) == expected


@pytest.mark.parametrize(
    ("allow", "method", "caller", "expected"),
    [
        ({}, "Lookup", "", True),
        ({}, "admin", "", True),
        ({"Lookup": "a"}, "Lookup", "a", True),
        ({"Lookup": "a"}, "Lookup", "b", False),
        ({"Lookup": "a"}, "Lookup", "A", False),
        ({"Lookup": "a"}, "Lookup", "", False),
        ({"Lookup": "a"}, "Explain", "b", True),
        ({"Lookup": "a", "*": "b"}, "Explain", "b", True),
        ({"Lookup": "a", "*": "b"}, "Explain", "a", False),
        ({"Lookup": "a", "*": "b"}, "Lookup", "b", False),
        ({"*": "b"}, "ServerReflectionInfo", "a", False),
        ({"*": "b"}, "Check", "", True),
        ({"*": "b"}, "Watch", "", True),
        ({"*": "b", "Check": "c"}, "Check", "b", False),
        ({"*": "b"}, "admin", "a", True),
        ({"admin": "b"}, "admin", "a", False),
        ({"admin": "b"}, "admin", "b", True),
        ({"admin": "b"}, "Lookup", "a", True),
    ],
)
def test_an_rpc_is_open_to_whom_the_list_names(
    allow: dict[str, str], method: str, caller: str, expected: bool
) -> None:
    settings = Settings(
        tls_certificate=Path("c"),
        tls_key=Path("k"),
        tls_client_ca=Path("a"),
        allow={rpc: frozenset({name}) for rpc, name in allow.items()},
    )
    callers = frozenset({caller} - {""})
    assert tls.permitted(settings, method, callers) is expected


def test_refusal_names_the_rpc_and_not_the_client() -> None:
    assert tls.refusal("Explain") == "Explain: this client may not call it"
