"""Files copied into memory that no process can change.

Workers answer from a sealed copy and not from the file. A write to a mapped file would change
the answers of each process that maps it, and a truncation would end it (SIGBUS); neither reaches
the copy. All workers map the same copy, so it is in memory once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from geolookup import machine
from geolookup.errors import DatasetError
from geolookup.service import log

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHECKED: Final = 4_096
_PIECE: Final = 1 << 20

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL: Final = 0x8  # of Linux 6.3; Python has no name for it yet
TRANSIENT_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Errors of opening a file that say nothing about the file."""
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_MEMFD: Final = {errno.ENOSYS, errno.EPERM, errno.EACCES}
"""Errors of kernels and sandboxes without memfd_create."""


@dataclass(frozen=True, slots=True)
class SealedCopy:
    """The content of a file in sealed memory.

    Attributes:
        descriptor: of the memory. The owner of this object closes it, once.
        name: of the file, for error texts.
        size: in bytes.
    """

    descriptor: int
    name: str
    size: int

    def map(self) -> mmap.mmap | bytes:
        """Return the content in place. The mapping outlives the descriptor."""
        if not self.size:
            return b""  # an empty file can't be mapped
        # Private, since kernels before 6.7 refuse shared mappings of memory that is sealed
        # against writing. The pages of a read-only private mapping are shared all the same.
        return mmap.mmap(self.descriptor, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

    def close(self) -> None:
        """Close the descriptor. Mappings keep the memory."""
        os.close(self.descriptor)


def seal(content: bytes, name: str) -> SealedCopy:
    """Return a sealed copy of bytes.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    return seal_pieces([content], name)


def seal_pieces(pieces: Sequence[Buffer], name: str) -> SealedCopy:
    """Return a sealed copy of bytes that lie in several pieces.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    size = sum(memoryview(piece).nbytes for piece in pieces)
    _check_memory(size)
    descriptor = _memory()
    try:
        for piece in pieces:
            _write(descriptor, memoryview(piece).cast("B"))
        _close_for_writing(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return SealedCopy(descriptor, name, size)


def _check_memory(size: int) -> None:
    left = machine.memory_left()
    if size > left:
        # Copying would make the system end this process, or another.
        raise OSError(errno.ENOMEM, f"it takes {size:,} bytes of memory, and {left:,.0f} are left")


def make_shared_memory(size: int) -> int:
    """Return the descriptor of *size* zero bytes that processes can share and write to.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    descriptor = _memory()
    try:
        os.truncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal_file(
    path: str, largest: int, check: Callable[[bytes, int], object] | None = None
) -> SealedCopy:
    """Copy a file into sealed memory.

    Args:
        path: of the file.
        largest: the most bytes that it may have.
        check: called with the first `CHECKED` bytes and the file's size, before anything is
            copied. It may raise `DatasetError`.

    Raises:
        DatasetError: it can't be read, is no regular file or is too large; or as *check*.
        OSError: there is no memory or no descriptor for it.
    """
    try:
        # Without O_NONBLOCK a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in TRANSIENT_ERRORS:
            raise
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError:  # a NUL
        raise DatasetError(f"{path}: can't be read: not a path") from None
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path}: not a regular file")
        if status.st_size > largest:
            raise DatasetError(f"{path}: larger than {largest:,} bytes")
        if check is not None:
            check(os.pread(descriptor, CHECKED, 0), status.st_size)
        _check_memory(status.st_size)
        memory = _memory()
        try:
            size = _copy(descriptor, memory, path, status.st_size)
            _close_for_writing(memory)
        except BaseException:
            os.close(memory)
            raise
    return SealedCopy(memory, path, size)


def _copy(source: int, memory: int, path: str, expected: int) -> int:
    size = 0
    while piece := os.read(source, _PIECE):
        size += len(piece)
        if size > expected:
            raise DatasetError(f"{path}: it grew while it was read")
        _write(memory, piece)
    return size


def _write(descriptor: int, content: Buffer) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        # Memory has no such error: it is a file in place of it, see `_memory`.
        import tempfile  # noqa: PLC0415 - as below

        folder = tempfile.gettempdir()
        raise OSError(error.errno, f"{error.strerror} in {folder}", folder) from None


def _memory() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create("geolookup", flags | _MFD_NOEXEC_SEAL)
        except OSError:  # a kernel that does not know the flag
            return os.memfd_create("geolookup", flags)
    except OSError as error:
        if error.errno not in _NO_MEMFD:
            raise
    # Not sealed, but without a name: other processes can't open it.
    log.event(
        "start", "warning", reason="no sealed memory here; datasets are copied to unnamed files"
    )
    import tempfile  # noqa: PLC0415 - half a megabyte, and workers never copy a file

    with tempfile.TemporaryFile(prefix="geolookup-") as file:
        return os.dup(file.fileno())


def _close_for_writing(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file in place of sealed memory
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
