"""Files that are there as a whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

TEMPORARY: Final = ".geolookup-"
"""How the name of a file begins that is being written."""

_WRITING_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a write, which the operating system reports without the file's name."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of *path* when all went well.

    It is written under a hidden temporary name in the same folder, synced and renamed,
    so a crash at any point leaves the old file, the new one, or none, but never a part
    of one. Only a killed process leaves a temporary file behind. Devices and pipes are
    written to as they are, since nothing can take their place. What else is kept of an
    old file is in `take_place`.

    Raises:
        OSError: as the operating system has it, such as a full disk. It names *path*.
    """
    target = target_of(path)
    with naming(path):
        if _is_no_place(target):
            with open(target, "wb") as file:
                yield file
            return
        temporary = temporary_name(target)
        # What replaces a file that few may read is not for more to read, at no time.
        mode = 0o600 if os.path.exists(target) else 0o666
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            take_place(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def target_of(path: str | os.PathLike[str]) -> str:
    """Return the file that a path means, all symbolic links followed: what is to be replaced.

    Replacing the path itself would put a file in the place of the link.
    """
    return os.path.realpath(path)


def temporary_name(target: str) -> str:
    """Return a hidden name in the folder of a file, for what is to replace it."""
    return os.path.join(os.path.dirname(target), f"{TEMPORARY}{os.urandom(6).hex()}.tmp")


def take_place(temporary: str | os.PathLike[str], target: str) -> None:
    """Put a written and synced file in the place of another in the same folder.

    It gets the old file's mode, and its owner and group as far as this process may give
    files away. Where there is none yet, it keeps the mode that the umask left it.

    Raises:
        OSError: as the operating system has it.
    """
    with suppress(FileNotFoundError):
        old = os.stat(target)
        new = os.stat(temporary)
        if old.st_gid != new.st_gid:
            with suppress(PermissionError):
                os.chown(temporary, -1, old.st_gid)
        if old.st_uid != new.st_uid:
            with suppress(PermissionError):
                os.chown(temporary, old.st_uid, -1)
        os.chmod(temporary, stat.S_IMODE(old.st_mode))
    os.replace(temporary, target)
    _sync_folder(os.path.dirname(target))


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have the operating system's errors of writing name the file that a user knows.

    By themselves they name none, or a temporary file that is gone by then.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _WRITING_FAILED:
            what = error.strerror
        elif os.path.basename(os.fsdecode(error.filename or "")).startswith(TEMPORARY):
            # Permission is refused by the folder, whatever the file's own mode.
            what = f"can't be written in its folder: {error.strerror}"
        else:
            raise
        raise OSError(error.errno, what, os.fspath(path)) from error


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
