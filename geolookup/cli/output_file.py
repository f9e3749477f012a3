"""Where a command writes to: a file that is no input of the command, or standard output."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from geolookup.atomic import replacing

STANDARD_OUTPUT = "-"


def check_output(
    output: str | Path,
    inputs: Iterable[str | Path | None] = (),
    *,
    option: str = "--output",
    binary: bool = False,
) -> None:
    """Check that a command can write to *output* and loses nothing that it reads.

    Args:
        output: a file's path, or "-".
        inputs: files that the command reads, and folders whose files it reads. None:
            an input that was not given.
        option: the option that names the output.
        binary: whether a terminal can't show what is written.

    Raises:
        click.UsageError: the output is one of the inputs, lies in a folder that is one,
            or there is no folder to write it in.
    """
    if str(output) == STANDARD_OUTPUT:
        if binary and sys.stdout is not None and sys.stdout.isatty():
            raise click.UsageError(f"{option}: this is not for terminals; name a file")
        return
    # Of a symbolic link, what it leads to is replaced.
    path = Path(os.path.realpath(output))
    if not path.parent.is_dir():
        raise click.UsageError(f"there is no folder {Path(output).absolute().parent}")
    for source in inputs:
        if source is None:
            continue
        in_folder = _is_same(path.parent, source)
        if _is_same(path, source) or (in_folder and path.exists()):
            raise click.UsageError(
                f"{option}: {output} is read by this command and would be lost; name another file"
            )
        if in_folder:
            raise click.UsageError(
                f"{option}: {output} lies in {source}, whose files are all read as sources;"
                " name a file elsewhere"
            )


def open_output(output: str | Path) -> AbstractContextManager[BinaryIO]:
    """Open what `check_output` accepted; a file is replaced as a whole or not at all."""
    if str(output) == STANDARD_OUTPUT:
        return nullcontext(sys.stdout.buffer)
    return replacing(output)


def written(output: str | Path) -> str:
    """Return what a command says of a file that it wrote."""
    return f"{output}: {Path(output).stat().st_size:,} bytes"


def _is_same(path: Path, other: str | Path) -> bool:
    try:
        one, two = path.stat(), Path(other).stat()
    except (OSError, ValueError):  # what can't be read is for another error to say
        return False
    # Devices such as /dev/null keep what they are.
    replaceable = stat.S_ISREG(one.st_mode) or stat.S_ISDIR(one.st_mode)
    return replaceable and os.path.samestat(one, two)
