"""Compiles a dataset again and again, killed at one step after the other.

A step is each call to the operating system by which `geolookup.atomic` changes the disk;
a write is cut into pieces of which each is a step. The process is killed before step k,
and k grows until a compilation ends by itself. Run by test_crash_safety.py:

    python crashing.py MANIFEST TARGET

After each run a line of JSON: the step, whether it was killed, the SHA-256 of the target
(null: there is none), and the steps that were taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from geolookup import atomic
from geolookup.cli import main

PIECES = 7


class Steps:
    """The operating system as `geolookup.atomic` sees it, counting, and killing in time.

    Args:
        last: the step before which the process is killed, from 1.
        log: a file descriptor to which the name of each step is written before it is taken.
    """

    def __init__(self, last: int, log: int) -> None:
        self._left = last
        self._log = log

    def step(self, name: str) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self._log, f"{name}\n".encode())

    def counted(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def counting(*arguments: Any) -> Any:
            self.step(name)
            return call(*arguments)

        return counting

    def fdopen(self, descriptor: int, _mode: str) -> contextlib.AbstractContextManager[Any]:
        return Pieces(descriptor, self)

    def __getattr__(self, name: str) -> Any:
        changing = (
            "open",
            "fsync",
            "close",
            "replace",
            "rename",
            "unlink",
            "link",
            "truncate",
            "chmod",
            "chown",
        )
        return self.counted(name) if name in changing else getattr(os, name)


class Pieces:
    """A file without a buffer, in whose writes the process can be killed half-way."""

    def __init__(self, descriptor: int, steps: Steps) -> None:
        self._descriptor = descriptor
        self._steps = steps

    def write(self, content: bytes) -> int:
        size = -(-len(content) // PIECES)
        for start in range(0, len(content), size):
            self._steps.step("write")
            piece = content[start : start + size]
            assert os.write(self._descriptor, piece) == len(piece)
        return len(content)

    def flush(self) -> None:
        """There is no buffer."""

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.step("close")
        os.close(self._descriptor)


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def compile_until(step: int, manifest: str, target: str) -> tuple[int, list[str]]:
    """Compile in a process of its own; return how it ended, and its steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        vars(atomic)["os"] = Steps(step, writing)
        try:
            main(["compile", manifest, "-o", target])
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 99)
        os._exit(99)
    os.close(writing)
    with os.fdopen(reading, "rb") as log:
        steps = log.read().decode().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), steps


def run(manifest: str, target: str, out: BinaryIO) -> None:
    before = Path(target).read_bytes() if Path(target).exists() else None
    for step in range(1, 1000):
        if before is None:
            Path(target).unlink(missing_ok=True)
        else:
            Path(target).write_bytes(before)
        code, steps = compile_until(step, manifest, target)
        found = {"step": step, "code": code, "steps": steps, "digest": digest(Path(target))}
        out.write(json.dumps(found).encode() + b"\n")
        out.flush()
        if code != -signal.SIGKILL:
            return


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.stdout.buffer)
