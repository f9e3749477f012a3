"""Small C loops to compare with, built like the core and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.mmdb import cache_folder

_EXT = Path(__file__).resolve().parents[2] / "ext"
FLAGS = ("-O3", "-std=c11", "-Wall", "-Wextra", "-fPIC", "-shared")
"""The optimisation level is setup.py's."""


class UnavailableError(Exception):
    """A contender can't take part here; the text is the reason."""


def load(name: str, *libraries: str, core: Sequence[str] = ()) -> ctypes.CDLL:
    """Build ``<name>.c`` of this folder unless it was built before, and load it.

    Args:
        name: the loop's.
        libraries: what it is linked with.
        core: compiler flags for the core's headers, which it includes; empty: it does not.

    Raises:
        UnavailableError: there is no compiler, or a header or library is missing.
    """
    source = Path(__file__).with_name(f"{name}.c")
    compiler = shutil.which("cc")
    if compiler is None:
        raise UnavailableError("no C compiler (cc)")
    flags = [*FLAGS, *core, f"-I{_EXT}"] if core else list(FLAGS)
    headers = [path.read_bytes() for path in sorted(_EXT.glob("*.h"))] if core else []
    recipe = repr((source.read_bytes(), headers, flags, libraries)).encode()
    built = cache_folder() / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}.so"
    if not built.exists():
        # Several processes may build it at once, as workers of a test run do.
        partial = built.with_suffix(f".{os.getpid()}.partial")
        links = [f"-l{library}" for library in libraries]
        done = subprocess.run(  # noqa: S603 - our own source, the machine's compiler
            [compiler, *flags, str(source), "-o", str(partial), *links],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise UnavailableError(f"does not build: {(errors or ['cc failed'])[0]}")
        partial.rename(built)
    try:
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise UnavailableError(f"does not load: {error}") from error
