"""Files that are there as a whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of *path* when all went well.

    It is written under a hidden temporary name in the same folder, synced and renamed,
    so a crash at any point leaves the old file, the new one, or none, but never a part
    of one. Only a killed process leaves a temporary file behind. Devices and pipes are
    written to as they are, since nothing can take their place.

    Raises:
        OSError: as the operating system has it, such as a full disk.
    """
    path = os.path.abspath(path)
    if _is_no_place(path):
        with open(path, "wb") as file:
            yield file
        return
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".geolookup-{os.urandom(6).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _is_no_place(path: str) -> bool:
    """Say whether something other than a file stands there, or a folder, which is an error."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode)


def _sync_folder(folder: str) -> None:
    """Bring the new name to the disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
