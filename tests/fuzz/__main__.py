"""Runs fuzz targets: ``python -m tests.fuzz [TARGET ...] [--seconds N]``; see README.md.

Exit code: 0 nothing was found in what could run, 1 something was found, 2 wrong use or a
build that failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # where tests find each other

from fuzz import building  # noqa: E402 - needs the path above
from fuzz.targets import TARGETS  # noqa: E402

CORPUS = HERE / "corpus"
NAMES = (*building.PROGRAMS, *TARGETS)
LONGEST = {"connection": 4096, "parse": 120, "table": 4096, "wire": 4300}
"""As `Target.longest`, for the targets in C."""

ASAN_OPTIONS = (
    "detect_leaks=0:"  # CPython frees not all
    "allocator_may_return_null=1:"
    # To note for every object whence it was allocated took up to two fifths of all time. A
    # finding says so if it is run again without these two.
    "malloc_context_size=0:quarantine_size_mb=32"
)

OPTIONS = {"ASAN_OPTIONS": ASAN_OPTIONS, "UBSAN_OPTIONS": "print_stacktrace=1"}

STATUS = re.compile(r"#\d+\s.*?cov: (\d+) ft: (\d+)")
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
BEGINS = re.compile(r"Uncaught Python exception|runtime error:|ERROR: |\.c:\d+: ")
FRAME = re.compile(r"\s+#\d+ ")
GRACE = 120
"""Seconds that a target may take beyond those it was given: to start, and for its last input."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target."""

    name: str
    seconds: float = 0
    executions: int = 0
    coverage: int = 0
    corpus: int = 0
    skipped: str = ""
    found: tuple[Path, ...] = ()
    failed: bool = False

    def line(self) -> str:
        """Return it for people."""
        if self.skipped:
            return f"{self.name:20} skipped: {self.skipped}"
        what = f"FOUND {', '.join(map(str, self.found))}" if self.failed else "nothing found"
        return (
            f"{self.name:20} {self.seconds:7.0f} s {self.executions:12,} executions "
            f"{self.coverage:6,} edges {self.corpus:6,} inputs  {what}"
        )


def main() -> int:
    arguments = read_arguments()
    if arguments.list:
        print("\n".join(NAMES))
        return 0
    out = Path(arguments.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    built = None
    try:
        clang = building.find_clang()
        print(f"builds with {clang} in {out / 'build'}", flush=True)
        levels = building.LASTING if arguments.seconds >= 60 else building.QUICK
        built = building.build_all(clang, out / "build", levels)
    except building.MissingToolError as missing:
        print(f"{missing}: the targets in C are skipped, and the modules have no sanitizers")
    except subprocess.CalledProcessError as error:
        print(error, file=sys.stderr)
        return 2
    names = arguments.target or NAMES
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(fuzz, name, arguments.seconds, out, built) for name in names]
        outcomes = []
        for run in runs:
            outcomes.append(run.result())
            print(outcomes[-1].line(), flush=True)
    for outcome in outcomes:
        if outcome.failed:
            print(f"\n--- {outcome.name}: from {out / 'logs' / outcome.name}")
            print("\n".join(telling(log_of(out, outcome.name))))
    return int(any(outcome.failed for outcome in outcomes))


def read_arguments() -> argparse.Namespace:
    default = Path(tempfile.gettempdir(), f"geolookup-fuzz-{os.getuid()}")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes geolookup.")
    parser.add_argument("target", nargs="*", choices=[[], *NAMES], help="which; all if none")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at the same time (1)")
    parser.add_argument(
        "--out", default=default, help=f"builds, inputs, logs, findings ({default})"
    )
    parser.add_argument("--list", action="store_true", help="print the names of all targets")
    return parser.parse_args()


def fuzz(name: str, seconds: int, out: Path, built: building.Built | None) -> Outcome:
    """Run one target for some seconds."""
    inputs, findings = out / "inputs" / name, out / "findings" / name
    for folder in (inputs, findings, out / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    common = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
        "-timeout=20",
        "-rss_limit_mb=2560",
        str(inputs),  # grows
        str(CORPUS / name),
    ]
    begun = time.monotonic()
    before = set(findings.iterdir())
    log = out / "logs" / name
    if name in building.PROGRAMS:
        if built is None:
            return Outcome(name, skipped="needs clang")
        command = [str(built.programs[name]), f"-max_len={LONGEST[name]}", *common]
        ended = running(command, log, out)
    else:
        if importlib.util.find_spec("atheris") is None:
            return Outcome(name, skipped="needs atheris: pip install -e '.[fuzz]'")
        target = TARGETS[name]
        arguments = [f"-max_len={target.longest}", *common]
        if target.words:
            words = out / "logs" / f"{name}.words"
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
            arguments.insert(-2, f"-dict={words}")
        ended = forked([str(log), name, *arguments], built, out)
    with ended as code_within:
        failed = wait(code_within, name, begun, seconds, out) != 0
    lines = log_of(out, name)
    statuses = [found for line in lines if (found := STATUS.search(line))]
    executed = [int(found[1]) for line in lines if (found := EXECUTED.search(line))]
    return Outcome(
        name,
        time.monotonic() - begun,
        sum(executed),
        int(statuses[-1][1]) if statuses else 0,
        len(list(inputs.iterdir())),
        found=tuple(sorted(set(findings.iterdir()) - before)),
        failed=failed,
    )


CodeWithin = Callable[[float], int | None]
"""The exit code, if the process ends within these seconds."""


@contextmanager
def running(command: list[str], log: Path, out: Path) -> Iterator[CodeWithin]:
    """Run a program."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | OPTIONS, cwd=out
        )

    def code_within(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    try:
        yield code_within
    finally:
        process.kill()
        process.wait()


HARNESSES = threading.local()
"""One for each thread, which uses it for one target after the other."""


@contextmanager
def forked(request: list[str], built: building.Built | None, out: Path) -> Iterator[CodeWithin]:
    """Run a target in Python in a fork of this thread's harness."""
    harness = getattr(HARNESSES, "process", None)
    if harness is None or harness.poll() is not None:
        path = [str(HERE.parent)]
        environment = os.environ | OPTIONS
        if built is not None:
            path.insert(0, str(built.site))
            environment["LD_PRELOAD"] = str(built.runtime)
            # Python's own allocator would hide reads beyond the end of what it hands out.
            environment["PYTHONMALLOC"] = "malloc"
        environment["PYTHONPATH"] = os.pathsep.join(path)
        command = [sys.executable, "-P", "-m", "fuzz.harness"]
        with (out / "logs" / "harness").open("ab") as log:
            harness = HARNESSES.process = subprocess.Popen(
                command,
                bufsize=0,  # `select` sees what was not read
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=out,
            )
    requests, answers = harness.stdin, harness.stdout
    assert requests is not None
    assert answers is not None
    requests.write(json.dumps(request).encode() + b"\n")
    pid = answers.readline()
    if not pid:
        raise RuntimeError(f"the harness ended: see {out / 'logs' / 'harness'}")
    code: int | None = None

    def code_within(seconds: float) -> int | None:
        nonlocal code
        if select.select([answers], [], [], seconds)[0]:
            code = int(answers.readline())
        return code

    try:
        yield code_within
    finally:
        if code is None:
            os.kill(int(pid), signal.SIGKILL)
            answers.readline()


def wait(code_within: CodeWithin, name: str, begun: float, seconds: int, out: Path) -> int:
    """Return how the process ended, showing meanwhile on a terminal how it gets on."""
    while (code := code_within(1)) is None:
        gone = time.monotonic() - begun
        if gone > seconds + GRACE:
            return -1
        if sys.stdout.isatty():
            last = next((one for one in reversed(log_of(out, name)) if "cov:" in one), "")
            print(f"{name} {gone:.0f}/{seconds} s  {last[:90]:90}", end="\r", flush=True)
    return code


def log_of(out: Path, name: str) -> list[str]:
    return (out / "logs" / name).read_text(errors="replace").splitlines()


def telling(log: list[str]) -> list[str]:
    """Return the lines of a log that say what was found, without the interpreter's own frames."""
    begin = next((at for at, line in enumerate(log) if BEGINS.search(line)), len(log) - 30)
    own = [line for line in log[begin:] if not FRAME.match(line) or "geolookup" in line]
    return [line[:200] for line in own if not line.startswith(("0x", "stat::"))][:60]


def _escaped(word: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}"
        for byte in word
    )


if __name__ == "__main__":
    sys.exit(main())
