"""What a process asks of the system: no core dumps, no life after its parent, signals to read."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from geolookup.service.processes import operating_system
from geolookup.service.processes.operating_system import Signals, blocked_signals

PATIENCE = 30
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        **options,
    )


# descriptors

DESCRIPTORS = """
import resource, sys
from geolookup.service import Settings, log
from geolookup.service.processes import supervisor
soft, hard = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
log.install("text", "info")
supervisor._check_descriptors(Settings(max_connections=100))
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


@pytest.mark.parametrize(("hard", "warns"), [(164, False), (163, True)])
def test_limit_on_open_files_is_raised_and_too_few_are_logged(hard: int, warns: bool) -> None:
    done = run(DESCRIPTORS, "64", str(hard))
    assert done.returncode == 0, done.stderr
    reason = "max_connections needs 164 open files in each worker"
    assert (reason in done.stderr) is warns


# core dumps

CRASH = """
import ctypes, os, resource, signal, sys
from geolookup.service.processes import operating_system
soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if sys.argv[1] == "forbidden":
    operating_system.forbid_core_dumps()
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGSEGV)
"""


def crash(how: str, folder: Path) -> int:
    """Return the wait status of a process that crashes."""
    with subprocess.Popen([sys.executable, "-c", CRASH, how], cwd=folder) as crashing:
        _, status = os.waitpid(crashing.pid, 0)
        crashing.returncode = os.waitstatus_to_exitcode(status)
    return status


def test_a_crash_leaves_no_core_dump(tmp_path: Path) -> None:
    status = crash("forbidden", tmp_path)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_would_leave_one(tmp_path: Path) -> None:
    """Or the test above shows nothing."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core dumps are forbidden here anyhow")
    if CORE_PATTERN.read_text().startswith("|"):
        pytest.skip("core dumps are piped to a program here")
    assert os.WCOREDUMP(crash("allowed", tmp_path))


def test_neither_limit_nor_switch_allow_a_dump_any_more() -> None:
    before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    done = run(
        "import ctypes, resource; from geolookup.service.processes import operating_system\n"
        "operating_system.forbid_core_dumps()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert done.stdout == "0 (0, 0)\n", done.stderr
    # This process is as it was.
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == before


READ_ANOTHER = """
import ctypes, os, signal
from geolookup.service.processes import operating_system
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for how in ("allowed", "forbidden"):
    reading, writing = os.pipe()
    other = os.fork()
    if not other:
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # which setuid has taken away
        if how == "forbidden":
            operating_system.forbid_core_dumps()
        os.write(writing, b"ready")
        signal.pause()
    os.read(reading, 5)
    try:
        os.close(os.open(f"/proc/{other}/mem", os.O_RDONLY))
        print(how, "readable", flush=True)
    except OSError as error:
        print(how, error.strerror, flush=True)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
"""


def test_other_processes_of_the_user_can_not_read_its_memory() -> None:
    done = run(READ_ANOTHER)
    assert done.returncode == 0, done.stderr
    allowed, forbidden = done.stdout.splitlines()
    assert forbidden == "forbidden Permission denied"
    if allowed != "allowed readable":
        pytest.skip("this system lets nobody read another's memory (yama)")


# the parent

PARENT = """
import os, subprocess, sys
code = ("import os, signal, sys; from geolookup.service.processes import operating_system\\n"
        "operating_system.end_with_parent(int(sys.argv[1]))\\n"
        "print('ready', flush=True); signal.pause()")
child = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
os._exit(0)
"""


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_child_ends_with_its_parent(how: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        ended = os.pidfd_open(child)
        try:
            readable, _, _ = select.select([ended], [], [], PATIENCE)
        finally:
            os.close(ended)
        assert readable
        parent.wait(PATIENCE)


def test_a_child_whose_parent_was_quicker_ends_at_once() -> None:
    done = run(
        "import signal; from geolookup.service.processes import operating_system\n"
        "operating_system.end_with_parent(1 << 22)\n"  # no process has this number
        "signal.pause()"
    )
    assert done.returncode == -signal.SIGTERM


def test_a_child_whose_parent_lives_goes_on() -> None:
    done = run(
        "import os; from geolookup.service.processes import operating_system\n"
        "operating_system.end_with_parent(os.getppid()); print('alive')"
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_what_the_system_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        operating_system._prctl(operating_system._PR_SET_DUMPABLE, 77)


# an end in any case


@pytest.mark.parametrize("seconds", ["0.05", "0", "-1"])
def test_a_process_that_is_stuck_ends_in_time(seconds: str) -> None:
    done = run(
        "import signal, sys; from geolookup.service.processes import operating_system\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "operating_system.end_within(float(sys.argv[1]))\n"
        "while True: pass",
        seconds,
    )
    assert done.returncode == -signal.SIGALRM


def test_a_process_that_is_quicker_ends_by_itself() -> None:
    done = run(
        "from geolookup.service.processes import operating_system; operating_system.end_within(600)"
    )
    assert done.returncode == 0


# signals


def blocked() -> set[signal.Signals]:
    return {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_signals_are_held_back_while_the_block_runs() -> None:
    before = blocked()
    with pytest.raises(ZeroDivisionError), blocked_signals(signal.SIGUSR1):  # noqa: PT012
        assert blocked() == before | {signal.SIGUSR1}
        raise ZeroDivisionError
    assert blocked() == before


def test_a_process_started_meanwhile_holds_them_for_good() -> None:
    code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    with blocked_signals(signal.SIGHUP, signal.SIGTERM):
        held = run(code).stdout
    assert "SIGHUP" in held
    assert "SIGTERM" in held
    assert "SIGHUP" not in run(code).stdout


@pytest.fixture
def own_process() -> None:
    """Signals belong to the main thread; where tests run in another one, there are none."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("not in the main thread")


@pytest.mark.usefixtures("own_process")
def test_signals_can_be_waited_for_and_read() -> None:
    with Signals(signal.SIGUSR1, signal.SIGUSR2) as signals:
        assert signals.read() == ()
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            signal.raise_signal(number)
        assert select.select([signals], [], [], PATIENCE)[0] == [signals]
        assert signals.read() == (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1)
        assert signals.read() == ()


@pytest.mark.usefixtures("own_process")
def test_signals_of_others_are_not_among_them() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: seen.append(number))
    try:
        with Signals(signal.SIGUSR1) as signals:
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
            assert signals.read() == (signal.SIGUSR1,)
        assert seen == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.usefixtures("own_process")
def test_more_signals_than_fit_do_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    with Signals(signal.SIGUSR1) as signals:
        for _ in range(20_000):
            signal.raise_signal(signal.SIGUSR1)
        read = 0
        while some := signals.read():
            read += len(some)
            assert set(some) == {signal.SIGUSR1}
        assert 0 < read <= 20_000
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("own_process")
def test_afterwards_all_is_as_it_was() -> None:
    def handler(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGUSR1, handler)
    descriptors = set(os.listdir("/proc/self/fd"))
    try:
        with ExitStack() as stack:
            outer = stack.enter_context(Signals(signal.SIGUSR1))
            with Signals(signal.SIGUSR1) as inner:
                signal.raise_signal(signal.SIGUSR1)
                assert (inner.read(), outer.read()) == ((signal.SIGUSR1,), ())
            signal.raise_signal(signal.SIGUSR1)
            assert outer.read() == (signal.SIGUSR1,)
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert set(os.listdir("/proc/self/fd")) == descriptors
    finally:
        signal.signal(signal.SIGUSR1, before)
