"""The admin listener: what operators ask, who may, and what they are told."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import grpc
import http2
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from servers import no_thread_starts

from geolookup.admin.v1 import admin_pb2 as admin_v1
from geolookup.admin.v1 import admin_pb2_grpc as admin_v1_grpc
from geolookup.answer.age import Age, KeptSource
from geolookup.answer.file_format import ExpiringOverride, RuntimeOverrides
from geolookup.client import tls_credentials
from geolookup.errors import MissingExtraError, ServiceError, ServiceUnavailableError
from geolookup.service import Settings, log
from geolookup.service.admin.client import RemoteControl
from geolookup.service.admin.control import Outcome, Reload, ServiceStatus, WorkerStatus
from geolookup.service.admin.messages import (
    reload_message,
    reload_of,
    status_message,
    status_of,
)
from geolookup.service.admin.server import SERVICE, AdminServer
from geolookup.service.methods import GEOLOOKUP
from geolookup.service.settings import ListenError

PATIENCE = 60
OLD, NEW = "a" * 64, "b" * 64
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STARTED = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@dataclass
class MemoryControl:
    """A `Control` without a service behind it."""

    outcome: Reload = field(default_factory=lambda: Reload(Outcome.SWAPPED, NEW, OLD))
    serving: bool = True
    before: Callable[[], object] = lambda: None
    """Called by `reload` first."""
    asked: list[str] = field(default_factory=list)

    def reload(self, *, lift_rollback: bool = False) -> Reload:
        self.before()
        self.asked.append("reload, lifting" if lift_rollback else "reload")
        return self.outcome

    def rollback(self) -> Reload:
        self.asked.append("rollback")
        return Reload(Outcome.SWAPPED, OLD, NEW)

    def status(self) -> ServiceStatus:
        return ServiceStatus(
            serving=self.serving,
            dataset=NEW,
            previous=OLD,
            started=STARTED,
            last_reload=self.outcome,
            last_reload_time=STARTED,
            workers=[
                WorkerStatus(0, 4711, "serving", NEW, STARTED, 0, 3),
                WorkerStatus(1, 0, "waiting", "", STARTED, 7, 0),
            ],
            reloads={Outcome.SWAPPED: 3, Outcome.REFUSED: 1},
            expired_overrides=[ExpiringOverride(2, date(2026, 6, 1), "office")],
            age=Age(90, 60, "undetermined", True, ("lite",)),
            kept_too_long=[KeptSource("lite", "2026-06-01", 30)],
            held_back={"dataset": OLD, "region_sets": NEW},
            overrides=RuntimeOverrides(OLD, NEW, 2, 1, datetime(2026, 12, 1, tzinfo=UTC)),
        )

    def drain(self) -> None:
        self.serving = False

    def resume(self) -> None:
        self.serving = True


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl()


@pytest.fixture
def admin(control: MemoryControl) -> Iterator[AdminServer]:
    with_server = AdminServer(Settings(admin="127.0.0.1:0"), control)
    yield with_server
    with_server.stop(0).wait(PATIENCE)


@pytest.fixture
def channel(admin: AdminServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(admin.address)) as opened:
        yield opened


@pytest.fixture
def remote(admin: AdminServer) -> Iterator[RemoteControl]:
    with RemoteControl(str(admin.address), timeout=PATIENCE) as connected:
        yield connected


def health_of(channel: grpc.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return int(stub.Check(request, timeout=PATIENCE, wait_for_ready=True).status)


def admin_stub(channel: grpc.Channel) -> Any:
    return admin_v1_grpc.AdminServiceStub(channel)


# --- what is asked and answered


def test_what_the_control_says_arrives_whole(control: MemoryControl, remote: RemoteControl) -> None:
    assert remote.status() == control.status()
    assert remote.reload() == control.outcome
    assert remote.rollback() == Reload(Outcome.SWAPPED, OLD, NEW)
    assert remote.reload(lift_rollback=True) == control.outcome
    assert control.asked == ["reload", "rollback", "reload, lifting"]


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_has_a_message(outcome: Outcome) -> None:
    reload = Reload(outcome, NEW, OLD, "why")
    assert reload_of(reload_message(reload)) == reload


@pytest.mark.parametrize("state", ["starting", "serving", "draining", "waiting"])
def test_each_state_of_a_worker_has_a_message(control: MemoryControl, state: str) -> None:
    status = control.status()
    status = replace(status, workers=[replace(status.workers[0], state=state)])
    assert status_of(status_message(status)) == status


def test_a_service_that_was_never_reloaded(control: MemoryControl) -> None:
    status = replace(control.status(), last_reload=None, last_reload_time=None, previous="")
    assert status_of(status_message(status)) == status


def test_an_answer_of_another_version_is_not_understood() -> None:
    with pytest.raises(ValueError, match="outcome"):
        reload_of(admin_v1.Reload())


# --- health


def test_health_says_what_the_service_is(channel: grpc.Channel, remote: RemoteControl) -> None:
    names = ("", GEOLOOKUP, SERVICE)
    assert [health_of(channel, name) for name in names] == [SERVING] * 3
    remote.drain()
    # The admin service itself goes on answering.
    assert [health_of(channel, name) for name in names] == [NOT_SERVING, NOT_SERVING, SERVING]
    remote.resume()
    assert [health_of(channel, name) for name in names] == [SERVING] * 3


def test_health_follows_what_happens_without_a_call(
    control: MemoryControl, channel: grpc.Channel
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == SERVING
    for serving, status in ((False, NOT_SERVING), (True, SERVING)) * 2:
        health_of(channel)  # what is no news is not told
        control.serving = serving
        assert next(watch).status == status
        assert health_of(channel) == status


def test_health_is_answered_while_reloads_take_long(
    control: MemoryControl, channel: grpc.Channel
) -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        begun.release()
        assert release.wait(PATIENCE)

    control.before = hold
    stub = admin_stub(channel)
    with ThreadPoolExecutor() as pool:
        reloads = [pool.submit(stub.Reload, admin_v1.ReloadRequest()) for _ in range(2)]
        try:
            for _ in reloads:
                assert begun.acquire(timeout=PATIENCE)
            assert health_of(channel) == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                stub.Reload(admin_v1.ReloadRequest(), timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        finally:
            release.set()
        assert all(reload.result(PATIENCE).reload.dataset == NEW for reload in reloads)


def test_stop_notifies_health_watches_and_does_not_wait_for_them(control: MemoryControl) -> None:
    admin = AdminServer(Settings(admin="127.0.0.1:0"), control)
    try:
        with grpc.insecure_channel(str(admin.address)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert next(watch).status == SERVING
            with ThreadPoolExecutor() as pool:
                told = pool.submit(next, watch)  # gRPC reads a message when it is asked for
                assert admin.stop(PATIENCE).wait(PATIENCE / 2)
                assert told.result(PATIENCE).status == NOT_SERVING
            with pytest.raises(grpc.RpcError):
                next(watch)
    finally:
        admin.stop(0).wait(PATIENCE)


# --- what is told of failures


def test_unexpected_error_shows_no_text(
    control: MemoryControl, channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("100.99.98.97")

    control.before = fail
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        admin_stub(channel).Reload(admin_v1.ReloadRequest(), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"
    lines = [log.Formatter().format(record) for record in caplog.records]
    assert any("call_failed method=Reload error=" in line for line in lines)
    assert not any("100.99" in line for line in lines)


def test_client_of_the_wrong_listener_gets_a_clear_error() -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with (
            RemoteControl(f"127.0.0.1:{port}", timeout=PATIENCE) as remote,
            pytest.raises(ServiceError, match="no admin listener"),
        ):
            remote.status()
    finally:
        other.stop(0).wait()


def test_absent_service_gives_a_clear_error(tmp_path: Path) -> None:
    with (
        RemoteControl(f"unix:{tmp_path}/nobody", timeout=PATIENCE) as remote,
        pytest.raises(ServiceUnavailableError, match="can't be reached: there is no such socket"),
    ):
        remote.status()


# --- listening


def test_it_answers_where_no_thread_can_be_started(
    admin: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory is short, and nobody could ask why any more."""
    paths = [f"/{SERVICE}/{name}" for name in ("GetStatus", "Reload", "Rollback")]
    paths += [f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")]
    with http2.Connection(admin.address.port) as connection, no_thread_starts(monkeypatch):
        for number, path in enumerate(3 * paths):
            connection.call(2 * number + 1, path, b"")
            assert connection.expect(http2.HEADERS, 2 * number + 1).data


def test_a_port_in_use_is_an_error(control: MemoryControl, admin: AdminServer) -> None:
    expected = f"^admin: can't listen on {admin.address}: .* another port with --admin$"
    with pytest.raises(ListenError, match=expected):
        AdminServer(Settings(admin=str(admin.address)), control)


def test_a_unix_socket_is_its_owners_alone(control: MemoryControl, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    before = os.umask(0o022)
    try:
        admin = AdminServer(Settings(admin=f"unix:{path}"), control)
        after = os.umask(0o022)
    finally:
        os.umask(before)
    try:
        assert after == 0o022
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with RemoteControl(f"unix:{path}", timeout=PATIENCE) as remote:
            assert remote.status().dataset == NEW
    finally:
        admin.stop(0).wait(PATIENCE)


# --- TLS


@dataclass(frozen=True)
class Files:
    """Certificates on disk."""

    folder: Path
    authority: trustme.CA

    def issued(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for *name*, and of its key."""
        issued = self.authority.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    @property
    def ca(self) -> Path:
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, trustme.CA())


@pytest.fixture
def secured(control: MemoryControl, files: Files) -> Iterator[AdminServer]:
    certificate, key = files.issued("127.0.0.1")
    settings = Settings(
        admin="127.0.0.1:0",
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=files.ca,
        allow={"admin": frozenset({"ops.example"})},
    )
    server = AdminServer(settings, control)
    yield server
    server.stop(0).wait(PATIENCE)


def identified(server: AdminServer, files: Files, name: str) -> RemoteControl:
    certificate, key = files.issued(name)
    return RemoteControl(
        str(server.address),
        timeout=PATIENCE,
        credentials=tls_credentials(ca=files.ca, certificate=certificate, key=key),
    )


def test_clients_in_allow_may_call(secured: AdminServer, files: Files) -> None:
    with identified(secured, files, "ops.example") as remote:
        assert remote.reload().dataset == NEW
    assert secured.denied == 0


def test_others_may_not(secured: AdminServer, files: Files, control: MemoryControl) -> None:
    with identified(secured, files, "join.example") as remote:
        for ask in (remote.reload, remote.rollback, remote.status, remote.drain, remote.resume):
            with pytest.raises(ServiceError, match="PERMISSION_DENIED"):
                ask()
    assert control.asked == []
    assert control.serving
    assert secured.denied == 5


def test_health_and_reflection_are_for_clients_in_allow_too(
    secured: AdminServer, files: Files
) -> None:
    def codes(name: str) -> list[grpc.StatusCode]:
        certificate, key = files.issued(name)
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), key.read_bytes(), certificate.read_bytes()
        )
        with grpc.secure_channel(str(secured.address), credentials) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            check = health.Check.future(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            stream = stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE)
            with contextlib.suppress(grpc.RpcError):
                list(stream)
            return [check.code(), stream.code()]

    assert codes("ops.example") == [grpc.StatusCode.OK] * 2
    assert codes("join.example") == [grpc.StatusCode.PERMISSION_DENIED] * 2


def test_without_a_certificate_there_is_no_call(secured: AdminServer, files: Files) -> None:
    with (
        RemoteControl(
            str(secured.address), timeout=PATIENCE, credentials=tls_credentials(ca=files.ca)
        ) as remote,
        pytest.raises(ServiceUnavailableError),
    ):
        remote.status()


# --- reflection and channelz


def listed(channel: grpc.Channel) -> set[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE)
    return {service.name for service in answer.list_services_response.service}


def test_reflection_names_the_services(channel: grpc.Channel) -> None:
    old, new = (f"grpc.reflection.{version}.ServerReflection" for version in ("v1alpha", "v1"))
    assert listed(channel) == {SERVICE, "grpc.health.v1.Health", old, new}
    any_channel: Any = channel
    answers = any_channel.stream_stream(f"/{new}/ServerReflectionInfo")(
        iter([reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()])
    )
    (answer,) = map(reflection_pb2.ServerReflectionResponse.FromString, answers)
    assert new in {service.name for service in answer.list_services_response.service}


def test_channelz_is_there_when_it_is_asked_for(control: MemoryControl) -> None:
    channelz_pb2 = pytest.importorskip("grpc_channelz.v1.channelz_pb2")
    channelz_pb2_grpc = pytest.importorskip("grpc_channelz.v1.channelz_pb2_grpc")
    admin = AdminServer(Settings(admin="127.0.0.1:0", channelz=True), control)
    try:
        with grpc.insecure_channel(str(admin.address)) as channel:
            assert "grpc.channelz.v1.Channelz" in listed(channel)
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            servers = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE)
            assert servers.server
    finally:
        admin.stop(0).wait(PATIENCE)


def test_channelz_without_its_package_is_an_error_that_says_which(
    control: MemoryControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc_channelz.v1", None)
    with pytest.raises(MissingExtraError, match="grpcio-channelz"):
        AdminServer(Settings(admin="127.0.0.1:0", channelz=True), control)


# --- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geolookup", "admin", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_the_command_shows_the_status(admin: AdminServer) -> None:
    done = command("status", "--admin", str(admin.address))
    assert done.returncode == 0, done.stderr
    assert "SERVING" in done.stdout
    assert NEW in done.stdout
    assert "override 2 (office): expired after 2026-06-01" in done.stdout
    assert "90 days, at most 60 are allowed; too old: lite; verdicts are" in done.stdout
    assert "source lite: its data of 2026-06-01 is older than the 30 days" in done.stdout
    done = command("status", "--admin", str(admin.address), "--json")
    told = json.loads(done.stdout)
    assert told["dataset"] == NEW
    assert told["started"] == "2026-11-24T09:00:00Z"
    assert told["expired_overrides"] == [
        {"number": 2, "expires": "2026-06-01", "comment": "office"}
    ]
    assert [worker["state"] for worker in told["workers"]] == ["serving", "waiting"]


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.SWAPPED, 0), (Outcome.UNCHANGED, 0), (Outcome.REFUSED, 1)]
)
def test_a_reload_ends_with_what_came_of_it(
    admin: AdminServer, control: MemoryControl, outcome: Outcome, code: int
) -> None:
    control.outcome = Reload(outcome, NEW, OLD, "new.geolookup: damaged" if code else "")
    done = command("reload", "--admin", str(admin.address))
    assert done.returncode == code
    assert ("refused: new.geolookup: damaged" in done.stderr) == bool(code)
    done = command("reload", "--admin", str(admin.address), "--json")
    assert done.returncode == code
    assert json.loads(done.stdout)["outcome"] == outcome


def test_drain_resume_and_rollback(admin: AdminServer, control: MemoryControl) -> None:
    assert command("drain", "--admin", str(admin.address)).returncode == 0
    assert not control.serving
    done = command("resume", "--admin", str(admin.address), "--json")
    assert json.loads(done.stdout) == {"serving": True}
    assert control.serving
    done = command("rollback", "--admin", str(admin.address))
    assert (done.returncode, OLD in done.stdout) == (0, True)


def test_the_command_over_tls(secured: AdminServer, files: Files) -> None:
    certificate, key = files.issued("ops.example")
    shown = ("--ca", str(files.ca), "--certificate", str(certificate), "--key", str(key))
    done = command("status", "--admin", str(secured.address), *shown)
    assert done.returncode == 0, done.stderr
    _, port = str(secured.address).split(":")
    by_another_name = ("--admin", f"localhost:{port}", "--server-name", "127.0.0.1")
    assert command("status", *by_another_name, *shown).returncode == 0


def test_unreachable_service_is_exit_code_4(tmp_path: Path) -> None:
    done = command("status", "--admin", f"unix:{tmp_path}/nobody")
    assert (done.returncode, "can't be reached" in done.stderr) == (4, True)


@pytest.mark.parametrize("given", [("--certificate",), ("--key",)])
def test_half_of_tls_is_a_usage_error(files: Files, given: tuple[str, ...]) -> None:
    certificate, key = files.issued("ops.example")
    paths = {"--certificate": certificate, "--key": key}
    arguments = [text for name in given for text in (name, str(paths[name]))]
    assert command("status", *arguments).returncode == 2
