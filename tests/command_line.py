"""The command, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from geolookup.cli import main


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it wrote, as the one JSON object that it is."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def lines(self) -> list[dict[str, object]]:
        """What it wrote, as the JSON lines that it is."""
        return [json.loads(line) for line in self.out.splitlines()]


def exit_code(*arguments: object) -> int:
    """Run ``geolookup`` with these arguments, as text; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Do so, and return what it wrote, too."""
    capsys.readouterr()
    code = exit_code(*arguments)
    return Ended(code, *capsys.readouterr())


class EndedWithBytes(NamedTuple):
    """How a command ended that writes bytes; see `Ended`."""

    code: int
    out: bytes
    err: str


Run = Callable[..., EndedWithBytes]


def runner_for_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return a function that runs the command with its arguments."""

    def run(*arguments: object) -> EndedWithBytes:
        capfdbinary.readouterr()
        code = exit_code(*arguments)
        written = capfdbinary.readouterr()
        return EndedWithBytes(code, written.out, written.err.decode())

    return run
