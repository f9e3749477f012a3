"""The command, run in this process."""

from __future__ import annotations

from typing import NamedTuple

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
