"""Standard output and standard error: what does not take a line stops nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any

import pytest
import small_dataset
from servers import COMMAND, PATIENCE, ROOT

import geolookup.answer.dataset
from geolookup.client import Client
from geolookup.service.admin.client import RemoteControl
from geolookup.service.admin.control import ServiceStatus
from geolookup.service.unblocked_stream import UnblockedStream

LINE = b"x" * 99 + b"\n"
MOST = 1_000
"""Lines that wait."""


Pipe = tuple[FileIO, FileIO]
"""The end to read, and that to write."""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that takes 4 KiB."""
    reading, writing = os.pipe()
    with FileIO(reading, "rb") as reader, FileIO(writing, "wb") as writer:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4_096)
        yield reader, writer


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


# a stream


def test_pipe_that_is_read_gets_every_line_in_order(pipe: Pipe) -> None:
    stream = UnblockedStream(pipe[1].fileno())
    for number in range(20):
        stream.write(f"{number}\n".encode())
    assert stream.flush(PATIENCE)
    assert os.read(pipe[0].fileno(), 4_096).split() == [
        str(number).encode() for number in range(20)
    ]
    assert stream.dropped == 0


def test_pipe_that_is_not_read_blocks_nothing_and_is_counted(pipe: Pipe) -> None:
    stream = UnblockedStream(pipe[1].fileno())
    seen: list[int] = []
    resumed = threading.Event()
    counted: list[None] = []

    def on_resumed(count: int) -> None:
        seen.append(count)
        resumed.set()

    stream.on_resumed = on_resumed
    stream.on_dropped = lambda: counted.append(None)
    for _ in range(MOST + 500):
        stream.write(LINE)
    assert not stream.flush(0.01)
    # What the pipe took, one line that is being written, and those that wait.
    dropped = stream.dropped
    assert 500 - 4_096 // len(LINE) - 1 <= dropped <= 500
    assert len(counted) == dropped

    read = 0
    while not resumed.is_set() or read < MOST + 500 - dropped:
        read += os.read(pipe[0].fileno(), 4_096).count(b"\n")
    assert stream.flush(PATIENCE)
    assert (read, seen) == (MOST + 500 - dropped, [dropped])


def test_pipe_whose_reader_is_gone_is_counted(pipe: Pipe) -> None:
    stream = UnblockedStream(pipe[1].fileno())
    pipe[0].close()
    for _ in range(3):
        stream.write(LINE)
    assert stream.flush(PATIENCE)
    assert stream.dropped == 3


def test_file_has_a_line_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        stream = UnblockedStream(file.fileno())
        stream.write(LINE)
        assert (tmp_path / "log").read_bytes() == LINE
        assert stream.flush(0)


def test_descriptor_that_is_closed_is_counted(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        descriptor = file.fileno()
    stream = UnblockedStream(descriptor)
    stream.write(LINE)
    assert stream.dropped == 1


def test_full_disk_is_counted_and_reported_once_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with (tmp_path / "log").open("wb") as file:
        stream = UnblockedStream(file.fileno())
        stream.on_resumed = seen.append

        def refuse(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(os, "write", refuse)
            stream.write(LINE)
            stream.write(LINE)
        assert seen == []
        stream.write(LINE)
        stream.write(LINE)
    assert seen == [2]


def test_thread_that_can_not_start_leaves_a_log(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    UnblockedStream(pipe[1].fileno()).write(LINE)
    assert os.read(pipe[0].fileno(), 4_096) == LINE


# the service


over_each_transport = pytest.mark.usefixtures("transport")


class Running:
    """A service with two workers whose standard error is a pipe of 4 KiB that is not read."""

    def __init__(self, process: subprocess.Popen[bytes], log: FileIO) -> None:
        assert process.stdout is not None
        text = os.read(process.stdout.fileno(), 65_536).decode()
        values = dict(line.split(": ", 1) for line in text.splitlines())
        self.process, self.log = process, log
        self.target, self.metrics = values["address"], values["metrics"]
        self.control = RemoteControl(values["admin"], timeout=PATIENCE)

    def dropped(self) -> int:
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE) as page:  # noqa: S310 - its own
            (line,) = [
                line
                for line in page.read().decode().splitlines()
                if line.startswith("geolookup_log_lines_dropped_total ")
            ]
        return int(float(line.split()[1]))


OPTIONS = (
    *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
    *("--workers", "2", "--no-spare-worker", "--log-format", "json"),
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "small.geolookup"
    geolookup.answer.dataset.write(small_dataset.content(), path)
    return path


@pytest.fixture
def running(pipe: Pipe, dataset: Path) -> Iterator[Running]:
    with subprocess.Popen(
        [*COMMAND, *OPTIONS, "--dataset", str(dataset)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=pipe[1],
    ) as process:
        pipe[1].close()
        try:
            running = Running(process, pipe[0])
            with running.control:
                yield running
        finally:
            process.kill()


def replaced(pid: int) -> Callable[[ServiceStatus], bool]:
    """Return whether another process serves in the slot of this one."""
    return lambda status: all(
        worker.state == "serving" and worker.pid != pid for worker in status.workers
    )


def lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@over_each_transport
def test_service_whose_log_is_not_read_goes_on_and_reports_it(running: Running) -> None:
    control = running.control
    while not running.dropped():
        for _ in range(50):
            control.drain()
            control.resume()
    # It supervises, reloads, answers and reports.
    worker = control.status().workers[0].pid
    os.kill(worker, signal.SIGKILL)
    until(lambda: replaced(worker)(control.status()))
    assert control.reload().outcome == "unchanged"
    with Client(running.target) as client:
        assert client.lookup("1.0.1.1").country == "CN"
    before = running.dropped()
    assert before

    text = b""
    while b"log_dropped" not in text or not text.endswith(b"\n"):
        text += os.read(running.log.fileno(), 4_096)
    (said,) = [line for line in lines(text) if line["event"] == "log_dropped"]
    assert (said["level"], said["lines"]) == ("warning", before)
    assert running.dropped() == before
    # All lines have been read, so the next ones come.
    control.drain()
    while b'"drain"' not in text[-4_096:]:
        text = os.read(running.log.fileno(), 4_096)
    running.process.terminate()
    while os.read(running.log.fileno(), 4_096):
        continue
    assert running.process.wait(PATIENCE) == 0


def test_service_whose_log_was_closed_stops_cleanly(running: Running) -> None:
    running.log.close()
    running.control.drain()
    until(lambda: running.dropped() > 0)
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("closed", ["2", "1", "012"])
def test_service_started_with_closed_streams_serves(
    dataset: Path, tmp_path: Path, closed: str
) -> None:
    path = tmp_path / "socket"
    redirections = " ".join(f"{descriptor}>&-" for descriptor in closed)
    with subprocess.Popen(
        [
            *("sh", "-c", f'exec "$@" {redirections}', "sh"),
            *(*COMMAND, "--listen", f"unix:{path}", "--admin", "none", "--metrics", "none"),
            *("--workers", "1", "--no-spare-worker", "--dataset", str(dataset)),
        ],
        cwd=ROOT,
    ) as process:
        try:
            with Client(f"unix:{path}", timeout=PATIENCE) as client:
                until(path.exists)
                assert client.lookup("1.0.1.1").country == "CN"
            (worker,) = children(process.pid)
            for pid in (process.pid, worker):
                for descriptor in closed:
                    assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == os.devnull
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_error_at_the_start_is_the_last_line_of_the_log(dataset: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [
                *(*COMMAND, "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--admin", "none"),
                *("--metrics", "none", "--workers", "1", "--dataset", str(dataset)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    first, *_, last = ended.stderr.splitlines()
    assert ": start " in first
    assert last.startswith("geolookup: listen: ")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_service_whose_standard_output_is_not_read_serves(
    pipe: Pipe, dataset: Path, tmp_path: Path
) -> None:
    pipe[1].write(b"x" * 4_096)
    address = tmp_path / "socket"
    with subprocess.Popen(
        [
            *(*COMMAND, "--listen", f"unix:{address}", "--admin", "none", "--metrics", "none"),
            *("--workers", "1", "--no-spare-worker", "--dataset", str(dataset)),
        ],
        cwd=ROOT,
        stdout=pipe[1],
        stderr=subprocess.PIPE,
    ) as process:
        try:
            log: IO[bytes] | None = process.stderr
            assert log is not None
            while b": ready " not in log.readline():
                assert process.poll() is None
            # Reloading is the supervisor's.
            process.send_signal(signal.SIGHUP)
            while b": reload " not in log.readline():
                assert process.poll() is None
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
