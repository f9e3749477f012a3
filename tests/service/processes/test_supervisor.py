"""The service as a whole: workers that share a port, reloads, rollback, drain, and how it ends."""

from __future__ import annotations

import contextlib
import operator
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import http2
import pytest
import small_dataset
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import COMMAND, PATIENCE, ROOT, SPARE, Service, serving, stub_of

import geolookup.answer.dataset
from geolookup.answer.dataset import EMBEDDED
from geolookup.client import Client
from geolookup.client.retry import Retry
from geolookup.errors import GeoLookupError, ServiceUnavailableError
from geolookup.service.admin.client import RemoteControl
from geolookup.service.admin.control import Outcome, ServiceStatus
from geolookup.service.methods import GEOLOOKUP
from geolookup.v1 import geolookup_pb2 as v1

pytestmark = pytest.mark.usefixtures("transport")
any_transport = pytest.mark.transports("threads")
"""What the supervisor does by itself is the same over each."""

CHINA = "1.0.1.1"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def until(reached: Callable[[], bool]) -> None:
    """Ask again and again, of what nobody is told when it happens."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def controlled(*options: str, **environment: str) -> Iterator[tuple[Service, RemoteControl]]:
    """Run a service with two workers and an admin listener."""
    usual = ("--workers", "2") if "--workers" not in options else ()
    with (
        serving("--admin", "127.0.0.1:0", *usual, *options, **environment) as running,
        RemoteControl(running.announced["admin"][0], timeout=PATIENCE) as control,
    ):
        yield running, control


def dataset_id(running: Service) -> str:
    """Return the dataset that answers on a connection of its own, and so from any worker."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(running.target, options) as channel:
        request = v1.LookupRequest(text=CHINA)
        return str(stub_of(channel).Lookup(request, timeout=PATIENCE, wait_for_ready=True).dataset)


def health_of(target: str) -> int:
    with grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        return int(stub.Check(request, timeout=PATIENCE, wait_for_ready=True).status)


def spare_of(running: Service, control: RemoteControl) -> int:
    """Wait until all workers serve and a spare one is there, and return its process id."""

    def newest() -> int:
        started = re.findall(r"spare_start pid=(\d+)", running.log())
        return int(started[-1]) if started else 0

    def there() -> bool:
        status = control.status()
        return all_serve(status) and newest() in set(running.workers) - set(pids(status))

    until(there)
    return newest()


def pids(status: ServiceStatus) -> list[int]:
    return [worker.pid for worker in status.workers]


def all_serve(status: ServiceStatus) -> bool:
    return all(worker.state == "serving" for worker in status.workers)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another dataset than the embedded one."""
    path = tmp_path_factory.mktemp("small") / "small.geolookup"
    geolookup.answer.dataset.write(small_dataset.content(), path)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A file to serve, that the test may change."""
    path = tmp_path / "served.geolookup"
    shutil.copy(EMBEDDED, path)
    return path


def put(content: Path | bytes, path: Path) -> None:
    """Put a file in another's place, as whoever publishes one should."""
    new = path.with_name("new")
    new.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    new.replace(path)


# workers


def test_workers_share_a_port_and_one_copy_of_the_dataset() -> None:
    with controlled() as (running, control):
        status = control.status()
        assert status.serving
        assert len(set(pids(status))) == 2
        assert {worker.dataset for worker in status.workers} == {status.dataset}
        until(lambda: set(in_flight_places(running, 20)) == {0, 1})
        sealed = [mapped(pid) for pid in pids(status)]
        assert sealed[0] & sealed[1], "both map the same memory"


def test_worker_that_is_stopped_is_replaced_and_shown_meanwhile() -> None:
    with controlled(SPARE, "--worker-timeout", "3", "--metrics", "127.0.0.1:0") as (
        running,
        control,
    ):
        spare_of(running, control)
        stopped, other = pids(control.status())
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: control.status().workers[0].state == "unresponsive")
        assert control.status().serving, "the other worker answers"
        assert "worker 0: unresponsive" in healthz(running)
        until(lambda: control.status().workers[0].pid not in {0, stopped})
        until(lambda: all_serve(control.status()))
        assert pids(control.status())[1] == other
        assert re.search(r"worker_stalled worker=0 pid=\d+", running.log())
        until(lambda: set(in_flight_places(running, 20)) == {0, 1})


def test_service_whose_only_worker_is_stopped_is_not_serving() -> None:
    options = ("--workers", "1", "--worker-timeout", "0", "--metrics", "127.0.0.1:0")
    with controlled(*options) as (running, control):
        (worker,) = pids(control.status())
        until(lambda: control.status().workers[0].answered is not None)
        os.kill(worker, signal.SIGSTOP)
        until(lambda: not control.status().serving)
        assert health_of(running.announced["admin"][0]) == NOT_SERVING
        assert healthz(running).startswith("not serving")
        os.kill(worker, signal.SIGCONT)
        until(lambda: control.status().serving)
        assert pids(control.status()) == [worker], "0 replaces none"


def test_service_that_stops_answers_for_its_lame_duck_and_says_so(transport: str) -> None:
    options = ("--lame-duck", "3600", "--metrics", "127.0.0.1:0")
    with controlled(*options) as (running, control):
        port = int(running.target.rpartition(":")[2])
        with http2.Connection(port) as before:
            path = f"/{GEOLOOKUP}/Lookup"
            before.call(1, path, v1.LookupRequest(text=CHINA).SerializeToString())
            before.body(1)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: "lame_duck signal=SIGTERM" in running.log())
            assert not control.status().serving
            assert health_of(running.announced["admin"][0]) == NOT_SERVING
            assert healthz(running).startswith("not serving")
            until(lambda: {health_of(running.target) for _ in range(8)} == {NOT_SERVING})
            assert dataset_id(running), "a new connection is answered"
            if transport == "native":
                assert before.expect(http2.GOAWAY).error_code == 0
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE) == 0


def test_lame_duck_that_is_over_ends_the_service() -> None:
    with serving("--lame-duck", "0.1", "--grace", "3600") as running:
        assert running.stop() == 0
        log = running.log()
        assert log.index(" lame_duck ") < log.index(" stop ") < log.index(" exit")


def test_stream_between_two_rosters_is_ended_by_a_stop(transport: str) -> None:
    release = threading.Event()

    def held() -> Iterator[v1.StreamRostersRequest]:
        yield v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=b"\1\0\1\1"))
        release.wait(PATIENCE)

    with (
        serving("--grace", "3600") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        call = stub_of(channel).StreamRosters(held(), timeout=PATIENCE)
        next(call)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        release.set()
        codes = {grpc.StatusCode.UNAVAILABLE}
        if transport == "threads":  # gRPC's server closes the connection with the last stream
            codes.add(grpc.StatusCode.CANCELLED)
        assert ended.value.code() in codes
        assert running.process.wait(PATIENCE) == 0


HANGING = """
import threading
from geolookup.service.processes import supervisor
supervisor._STALLED = 0.5
supervisor.Supervisor.on_signals = lambda *_: threading.Event().wait()
from geolookup_command import main
main()
"""


@any_transport
def test_supervisor_whose_loop_hangs_is_not_serving() -> None:
    command = (sys.executable, "-c", HANGING, "serve")
    with serving("--metrics", "127.0.0.1:0", command=command) as running:
        assert healthz(running) == "serving\n"
        running.process.send_signal(signal.SIGHUP)
        until(lambda: healthz(running).startswith("not serving\nthe supervisor has done nothing"))
        for worker in running.workers:
            os.kill(worker, signal.SIGKILL)


def healthz(running: Service) -> str:
    url = running.announced["metrics"][0].replace("/metrics", "/healthz")
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def mapped(pid: int) -> set[str]:
    """Return the inodes of the sealed memory that a process maps."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:geolookup" in line}


def in_flight_places(running: Service, connections: int) -> Iterator[int]:
    """Open streams until both workers have one, and yield which have."""
    with contextlib.ExitStack() as stack:
        release = threading.Event()
        stack.callback(release.set)

        def held() -> Iterator[v1.StreamRostersRequest]:
            yield v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=b"\1\0\1\1"))
            release.wait(PATIENCE)

        calls = []  # one that nobody refers to is cancelled
        for _ in range(connections):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(running.target, options))
            calls.append(stub_of(channel).StreamRosters(held(), timeout=PATIENCE))
            next(calls[-1])
        with RemoteControl(running.announced["admin"][0], timeout=PATIENCE) as control:
            for worker in control.status().workers:
                if worker.in_flight:
                    yield worker.number


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_worker_that_ends_is_replaced_and_others_go_on(number: signal.Signals) -> None:
    with controlled() as (running, control):
        before = control.status()
        os.kill(before.workers[1].pid, number)
        until(lambda: control.status().workers[1].pid not in {0, before.workers[1].pid})
        until(lambda: all_serve(control.status()))
        after = control.status()
        assert after.workers[0].pid == before.workers[0].pid
        assert [worker.restarts for worker in after.workers] == [0, 1]
        assert dataset_id(running) == before.dataset
        # A worker's log has no line of its own about how it was killed. One that was told to
        # end does so when another has taken its place.
        until(lambda: "worker_exit" in running.log())
        assert running.stop() == 0


@any_transport
@pytest.mark.parametrize("options", [(), (SPARE,)], ids=["no spare", "a spare"])
def test_worker_that_ends_repeatedly_waits_and_is_reported(
    options: tuple[str, ...],
) -> None:
    with controlled(*options) as (running, control):
        for _ in range(3):
            before = control.status().workers[0].pid
            os.kill(before, signal.SIGKILL)
            until(lambda before=before: control.status().workers[0].pid not in {0, before})  # type: ignore[misc]
        assert "worker_wait worker=0" in running.log()
        assert control.status().workers[0].restarts == 3
        assert dataset_id(running) == control.status().dataset


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_standby_replaces_a_worker_that_ends(number: signal.Signals) -> None:
    with controlled(SPARE) as (running, control):
        before, spare = control.status(), spare_of(running, control)
        os.kill(before.workers[1].pid, number)
        until(lambda: pids(control.status()) == [before.workers[0].pid, spare])
        until(lambda: all_serve(control.status()))
        assert [worker.restarts for worker in control.status().workers] == [0, 1]
        assert dataset_id(running) == before.dataset
        # There is another, which takes the other's place.
        another = spare_of(running, control)
        os.kill(before.workers[0].pid, number)
        until(lambda: pids(control.status()) == [another, spare])
        until(lambda: all_serve(control.status()))
        assert dataset_id(running) == before.dataset


@any_transport
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_standby_that_ends_is_replaced_and_no_worker_is_touched(number: signal.Signals) -> None:
    with controlled(SPARE) as (running, control):
        before, spare = control.status(), spare_of(running, control)
        os.kill(spare, number)
        until(lambda: spare not in running.workers)
        assert spare_of(running, control) != spare
        assert pids(control.status()) == pids(before)
        assert [worker.restarts for worker in control.status().workers] == [0, 0]
        assert "worker_exit" not in running.log()


def test_standby_has_opened_the_dataset_in_service_and_nothing_else(
    served: Path, small: Path
) -> None:
    with controlled(SPARE, "--dataset", str(served), "--watch", "0") as (running, control):
        spare = spare_of(running, control)

        def same_as_the_workers() -> bool:
            first, second = map(datasets, pids(control.status()))
            return bool(first) and first == second == datasets(spare)

        until(same_as_the_workers)
        before = datasets(spare)
        put(small, served)
        assert control.reload().outcome is Outcome.SWAPPED
        until(same_as_the_workers)
        assert not datasets(spare) & before


def datasets(pid: int) -> set[str]:
    """Return the inodes of the datasets that a process maps."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    # Its meter is memory of the same kind, which it writes to.
    return {line.split()[4] for line in lines if "memfd:geolookup" in line and " r--p " in line}


def test_standby_listens_on_no_address(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/geo.sock"
    with controlled(SPARE, "--listen", listen) as (running, control):
        spare_of(running, control)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["geo.sock", "geo.sock.1"]
        os.kill(control.status().workers[1].pid, signal.SIGKILL)
        until(lambda: control.status().workers[1].restarts == 1 and all_serve(control.status()))
        with grpc.insecure_channel(f"{listen}.1") as channel:
            request = v1.LookupRequest(text=CHINA)
            answer = stub_of(channel).Lookup(request, timeout=PATIENCE, wait_for_ready=True)
            assert answer.country == "CN"


@pytest.mark.parametrize("moment", ["while it waits", "while it is started"])
def test_a_service_that_stops_leaves_no_process_behind(moment: str) -> None:
    with controlled(SPARE) as (running, control):
        if moment == "while it waits":
            spare_of(running, control)
        else:
            until(lambda: len(running.workers) == 3)
        processes = running.workers
        assert running.stop() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


@pytest.mark.parametrize("options", [(), (SPARE,)], ids=["no spare", "a spare"])
def test_workers_end_when_their_supervisor_is_killed(options: tuple[str, ...]) -> None:
    with controlled(*options) as (running, control):
        if options:
            spare_of(running, control)
        workers = running.workers
        running.process.kill()
        running.process.wait(PATIENCE)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_a_port_in_use_is_an_error_at_once(service: Service) -> None:
    for listen in (service.target, service.target.replace("127.0.0.1", "localhost")):
        ended = subprocess.run(
            [*COMMAND, "--listen", listen, "--admin", "none", "--metrics", "none"],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert ended.returncode == 1
        assert "Address already in use" in ended.stderr  # beside the line of the log
        assert ended.stdout == ""


@any_transport
def test_an_admin_port_in_use_is_an_error_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = subprocess.run(
            [*COMMAND, "--listen", "127.0.0.1:0", "--admin", admin, "--metrics", "none"],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("geolookup: admin: ")


def test_each_worker_has_a_unix_socket_of_its_own(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/geo.sock"
    with controlled("--listen", listen) as (running, _):
        assert running.announced["address"] == [listen, f"{listen}.1"]
        for address in running.announced["address"]:
            with grpc.insecure_channel(address) as channel:
                answer = stub_of(channel).Lookup(v1.LookupRequest(text=CHINA), timeout=PATIENCE)
                assert answer.country == "CN"
        assert running.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_log_says_where_it_listens(served: Path) -> None:
    with controlled("--dataset", str(served), "--metrics", "127.0.0.1:0") as (running, _):
        # The line may come after what was announced; when it has stopped, it is there.
        assert running.stop() == 0
        (line,) = [line for line in running.log().splitlines() if " ready " in line]
        metrics = running.announced["metrics"][0].removeprefix("http://").removesuffix("/metrics")
        assert f" listen={running.target} " in line
        assert line.endswith(f" admin={running.announced['admin'][0]} metrics={metrics}")


@any_transport
def test_status_names_overrides_that_have_expired(tmp_path: Path) -> None:
    content = small_dataset.content()
    content.metadata["expiring_overrides"] = [
        {"number": 3, "expires": "2001-01-01", "comment": "office"},
        {"number": 4, "expires": "9999-12-31", "comment": "lab"},
    ]
    path = tmp_path / "ours.geolookup"
    path.write_bytes(geolookup.answer.dataset.encode(content))
    with controlled("--dataset", str(path)) as (_, control):
        (expired,) = control.status().expired_overrides
        assert (expired.number, expired.expires.isoformat()) == (3, "2001-01-01")


# reload


def by_rename_alone(_running: Service, _control: RemoteControl) -> None:
    """Nobody says anything: the file is watched."""


def by_signal(running: Service, _control: RemoteControl) -> None:
    running.process.send_signal(signal.SIGHUP)


def by_rpc(_running: Service, control: RemoteControl) -> None:
    assert control.reload().outcome is Outcome.SWAPPED


@pytest.mark.parametrize(
    ("ask", "watch"), [(by_rename_alone, "0.1"), (by_signal, "0"), (by_rpc, "0")]
)
def test_a_new_file_is_answered_from_by_every_worker(
    served: Path, small: Path, ask: Callable[[Service, RemoteControl], None], watch: str
) -> None:
    with controlled("--dataset", str(served), "--watch", watch) as (running, control):
        before = control.status()
        put(small, served)
        ask(running, control)
        until(lambda: control.status().dataset != before.dataset)
        until(lambda: control.status().last_reload is not None)
        status = control.status()
        assert status.previous == before.dataset
        assert {worker.dataset for worker in status.workers} == {status.dataset}
        assert {dataset_id(running) for _ in range(8)} == {status.dataset}
        assert pids(status) == pids(before), "no worker was restarted for it"
        line = next(line for line in running.log().splitlines() if " reload " in line)
        assert re.search(rf"outcome=swapped dataset={status.dataset} .* seconds=\d+\.\d\d\d$", line)


def test_rolling_back_is_one_call_and_so_is_rolling_back_from_that(
    served: Path, small: Path
) -> None:
    with controlled("--dataset", str(served), "--watch", "0") as (running, control):
        first = control.status().dataset
        assert control.rollback().outcome is Outcome.REFUSED
        put(small, served)
        second = control.reload().dataset
        assert control.rollback().dataset == first == dataset_id(running)
        assert control.rollback().dataset == second == dataset_id(running)
        assert control.reload().outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("options", [(), (SPARE,)], ids=["no spare", "a spare"])
def test_a_worker_that_is_replaced_after_a_reload_answers_from_the_new_dataset(
    served: Path, small: Path, options: tuple[str, ...]
) -> None:
    with controlled("--dataset", str(served), "--watch", "0", *options) as (running, control):
        if options:  # which was there before the reload
            spare_of(running, control)
        put(small, served)
        new = control.reload().dataset
        os.kill(control.status().workers[0].pid, signal.SIGKILL)
        until(lambda: control.status().workers[0].restarts == 1 and all_serve(control.status()))
        assert {worker.dataset for worker in control.status().workers} == {new}


def damaged(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


BAD_FILES = {
    "empty": (lambda _: b"", "is empty"),
    "something else": (lambda _: b"no dataset\n" * 100, "it does not begin like one"),
    "cut off": (lambda path: path.read_bytes()[:-1], "served.geolookup: "),
    "a flipped bit": (damaged, "served.geolookup: "),
    "gone": (None, "No such file or directory"),
}


@any_transport
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_changes_nothing_and_says_what_is_wrong(served: Path, name: str) -> None:
    make, said = BAD_FILES[name]
    with controlled("--dataset", str(served), "--watch", "0") as (running, control):
        before = control.status()
        if make is None:
            served.unlink()
        else:
            put(make(served), served)
        refused = control.reload()
        assert refused.outcome is Outcome.REFUSED
        assert said in refused.reason
        after = control.status()
        assert (after.dataset, pids(after)) == (before.dataset, pids(before))
        assert dataset_id(running) == before.dataset
        assert after.last_reload == refused
        assert "outcome=refused" in running.log()


@any_transport
def test_a_sparse_file_behind_a_good_header_is_refused_everywhere(served: Path) -> None:
    size = served.stat().st_size
    said = f"bytes were added: 2147483648 bytes, and the header says {size}"
    with controlled("--dataset", str(served), "--watch", "0") as (running, control):
        before = control.status()
        sparse = served.with_name("sparse")
        shutil.copy(served, sparse)
        os.truncate(sparse, 2**31)
        sparse.replace(served)
        assert said in control.reload().reason
        assert dataset_id(running) == before.dataset
    for command in (COMMAND, (*COMMAND[:-1], "info")):
        ended = subprocess.run(
            [*command, "--dataset", str(served)], capture_output=True, check=False, cwd=ROOT
        )
        assert ended.returncode == 3
        assert said in ended.stderr.decode()


@any_transport
def test_a_file_that_is_overwritten_in_place_ends_no_worker(served: Path) -> None:
    """Of a file that is mapped, whoever cuts it ends the process that reads it (SIGBUS)."""
    with controlled("--dataset", str(served), "--watch", "0") as (running, control):
        before = control.status()
        with served.open("r+b") as file:
            file.write(bytes(1_000_000))
            file.truncate(0)
        roster = v1.ClassifyRosterRequest(ipv4=bytes(range(256)) * 400, region_set="CN")
        for _ in range(4):
            with grpc.insecure_channel(running.target) as channel:
                answer = stub_of(channel).ClassifyRoster(roster, timeout=PATIENCE)
                assert answer.dataset == before.dataset
        assert pids(control.status()) == pids(before)
        assert control.reload().outcome is Outcome.REFUSED


@any_transport
def test_a_dataset_that_does_not_give_the_expected_answers_is_refused(
    served: Path, small: Path, tmp_path: Path
) -> None:
    canaries = tmp_path / "canaries.csv"
    canaries.write_text("43.102.0.1,HK\n")
    options = ("--dataset", str(served), "--canaries", str(canaries), "--watch", "0")
    with controlled(*options) as (_, control):
        before = control.status().dataset
        put(small, served)
        refused = control.reload()
        assert refused.outcome is Outcome.REFUSED
        assert control.status().dataset == before


def test_a_stream_that_is_open_during_a_reload_keeps_its_dataset(served: Path, small: Path) -> None:
    with (
        controlled("--dataset", str(served), "--watch", "0", "--workers", "1") as (
            running,
            control,
        ),
        grpc.insecure_channel(running.target) as channel,
    ):
        go_on = threading.Event()

        def rosters() -> Iterator[v1.StreamRostersRequest]:
            request = v1.StreamRostersRequest(roster=v1.ClassifyRosterRequest(ipv4=b"\1\0\1\1"))
            yield request
            go_on.wait(PATIENCE)
            yield request

        before = control.status().dataset
        answers = stub_of(channel).StreamRosters(rosters(), timeout=PATIENCE)
        assert next(answers).roster.dataset == before
        put(small, served)
        after = control.reload().dataset
        assert stub_of(channel).Lookup(v1.LookupRequest(text=CHINA)).dataset == after != before
        go_on.set()
        assert next(answers).roster.dataset == before


RULES = """
[[rule]]
name = "measure"
region_set = "{}"
mode = "deny_inside"
"""


@any_transport
def test_new_rules_are_read_with_a_reload_and_bad_ones_are_refused(tmp_path: Path) -> None:
    from envoy.service.auth.v3 import external_auth_pb2  # noqa: PLC0415

    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format("CN"))
    request = external_auth_pb2.CheckRequest()
    request.attributes.source.address.socket_address.address = CHINA
    with (
        controlled("--authz-rules", str(rules), "--watch", "0") as (running, control),
        grpc.insecure_channel(running.target) as channel,
    ):
        ask: Any = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")

        def status() -> int:
            body = ask(request.SerializeToString(), timeout=PATIENCE)
            return int(external_auth_pb2.CheckResponse.FromString(body).denied_response.status.code)

        assert status() == 451
        put(RULES.format("NOWHERE").encode(), rules)
        assert "rule 1: region_set: unknown region set" in control.reload().reason
        assert status() == 451
        put(RULES.format("DE").encode(), rules)
        assert control.reload().outcome is Outcome.SWAPPED
        assert status() == 0


# drain and end


def test_drain_shows_in_every_health_check_and_is_taken_back() -> None:
    with controlled() as (running, control):
        admin = running.announced["admin"][0]
        assert health_of(running.target) == health_of(admin) == SERVING
        control.drain()
        assert {health_of(running.target) for _ in range(6)} == {NOT_SERVING}
        assert health_of(admin) == NOT_SERVING
        assert not control.status().serving
        assert dataset_id(running), "calls are answered"
        os.kill(control.status().workers[0].pid, signal.SIGKILL)
        until(lambda: control.status().workers[0].restarts == 1)
        until(lambda: control.status().workers[0].state == "draining")
        assert {health_of(running.target) for _ in range(6)} == {NOT_SERVING}
        control.resume()
        assert health_of(running.target) == health_of(admin) == SERVING


def test_a_service_can_be_stopped_while_it_starts() -> None:
    with subprocess.Popen(
        [*COMMAND, "--listen", "127.0.0.1:0", "--admin", "none", "--metrics", "none"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while "worker_start" not in process.stderr.readline():
            pass
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output == ""


@any_transport
def test_reload_while_the_service_stops_is_refused() -> None:
    with controlled() as (running, control):
        running.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ServiceUnavailableError):
            assert control.reload().outcome is not Outcome.SWAPPED
        assert running.process.wait(PATIENCE) == 0


class Load:
    """Lookups without pause, from several threads, by clients that try once more."""

    def __init__(self, target: str, threads: int = 3) -> None:
        self._answered = [0] * threads
        self.lost: list[str] = []
        self._done = threading.Event()
        # A connection that reaches a listener in the moment in which it closes is lost, and
        # gRPC fails calls from then on until it has another: on a busy machine for a while.
        self._client = Client(
            target, timeout=PATIENCE, retry=Retry(attempts=2, first_wait=1, budget=1_000)
        )
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def _run(self, number: int) -> None:
        while not self._done.is_set():
            try:
                assert self._client.lookup(CHINA, "CN").country == "CN"
                self._answered[number] += 1
            except GeoLookupError as error:
                self.lost.append(repr(error))

    def goes_on(self) -> None:
        """Wait until each thread got more answers, so that none is about to try once more."""
        wanted = [answered + 20 for answered in self._answered]
        until(lambda: all(map(operator.ge, self._answered, wanted)))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._client.close()


@pytest.mark.parametrize("options", [(), (SPARE,)], ids=["no spare", "a spare"])
def test_replacing_worker_after_worker_loses_no_call(options: tuple[str, ...]) -> None:
    with controlled(*options) as (running, control), Load(running.target) as load:
        for number in (0, 1, 0, 1):
            load.goes_on()
            before = control.status().workers[number].pid
            os.kill(before, signal.SIGTERM)
            until(lambda: control.status().workers[number].pid not in {0, before})  # noqa: B023
            until(lambda: all_serve(control.status()))
        load.goes_on()
    assert load.lost == []


def test_a_rolling_restart_of_services_loses_no_call() -> None:
    """Two services that one name resolves to are stopped and started in turns."""
    scraped = ("--metrics", "127.0.0.1:0")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(serving(*scraped)) for _ in range(2)]
        targets = [one.target for one in running]
        with Load(f"ipv4:{','.join(targets)}") as load:  # which ends before the services do
            for place in (0, 1, 0):
                load.goes_on()
                assert running[place].stop() == 0
                load.goes_on()
                again = serving("--listen", targets[place], *scraped)
                running[place] = stack.enter_context(again)
                # Only when the client has seen that it is back may the other one end.
                until(lambda: answered(running[place]) > 50)  # noqa: B023
    assert load.lost == []


def answered(running: Service) -> float:
    """Return how many lookups a service says that it has answered."""
    page = running.announced["metrics"][0]
    with urllib.request.urlopen(page, timeout=PATIENCE) as response:  # noqa: S310 - our own
        text = response.read().decode()
    found = re.search(
        r'^geolookup_calls_total{code="OK",method="Lookup"} (.+)$', text, re.MULTILINE
    )
    assert found
    return float(found[1])
