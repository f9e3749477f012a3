"""Shell scripts in a network namespace of their own, where a firewall's rules are none of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

Run = Callable[[str], str]


def namespace(program: str, trial: str) -> Run:
    """Return a way to run shell scripts; skip the test where *program* can't be used.

    Args:
        program: what the scripts run.
        trial: a script that fails where it can't be used.
    """
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    unshare = shutil.which("unshare")
    if shutil.which(program, path=path) is None or unshare is None:
        pytest.skip(f"{program} or unshare is not installed")

    def run(script: str) -> str:
        done = subprocess.run(
            [unshare, "--map-root-user", "--net", "/bin/sh", "-euc", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": path},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run(trial)
    except AssertionError as error:
        pytest.skip(f"{program} can't be used here: {error}")
    return run
