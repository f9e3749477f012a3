"""Tar archives as streams: which files they hold, and the content of one.

Headers are decoded by the standard library. Its own `tarfile.open` reads the extended
headers of an archive into memory, however long they claim to be; here they have a bound.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK: Final = 512
_MAGIC = b"ustar"
_MAGIC_AT = 257
_LONGEST_EXTENSION = 1 << 16
"""Bytes of an extended header; a path has 4,096 at most."""
_MOST_ENTRIES = 2_000
"""Entries of an archive. Each file is found anew from the archive's beginning."""
_SKIPPED = 1 << 18
_PAX_PATH = re.compile(rb"(?:^|\n)\d+ path=([^\n]*)\n")


class Stream(Protocol):
    """What is read."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        ...


class TarError(ValueError):
    """A tar archive is damaged, or has more than it may have."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path in the archive.
        size: its bytes.
    """

    name: str
    size: int


def is_tar(head: bytes) -> bool:
    """Return whether content that begins like this, decompressed, is a tar archive."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def members(stream: Stream) -> Iterator[Member]:
    """Yield the regular files of an archive.

    Raises:
        TarError: see there.
    """
    return _members(_Reader(stream))


def content(stream: Stream, name: str, size: int) -> Iterator[bytes]:
    """Yield the archive's file of this name in blocks of up to *size* bytes.

    Raises:
        TarError: see there; or there is no such file.
    """
    reader = _Reader(stream)
    for member in _members(reader):
        if member.name == name:
            while reader.left:
                yield reader.read(size)
            return
    raise TarError("the file is not in the tar archive")


def _members(reader: _Reader) -> Iterator[Member]:
    name = ""
    for _ in range(_MOST_ENTRIES):
        header = reader.exactly(BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.HeaderError as error:
            raise TarError(f"a header of the tar archive can't be read: {error}") from error
        reader.left = found.size
        if found.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            if found.size > _LONGEST_EXTENSION:
                raise TarError("an extended header of the tar archive is too long")
            name = _long_name(found.type, reader.exactly(found.size)) or name
            reader.left = 0
        elif found.type != tarfile.XGLTYPE:
            if found.isreg():
                yield Member(name or found.name, found.size)
            name = ""
        while reader.left:
            reader.read(_SKIPPED)
        reader.exactly(-found.size % BLOCK)
    raise TarError("the tar archive has too many entries")


def _long_name(kind: bytes, content: bytes) -> str:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode("utf-8", "replace")
    found = _PAX_PATH.search(content)
    return found[1].decode("utf-8", "replace") if found else ""


class _Reader:
    """Reads a stream to the byte.

    Attributes:
        left: bytes of the current entry that were not read.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.left = 0

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes of the current entry."""
        block = self._stream.read(min(size, self.left))
        if not block:
            raise TarError("the tar archive is cut short")
        self.left -= len(block)
        return block

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            block = self._stream.read(size)
            if not block:
                raise TarError("the tar archive is cut short")
            parts.append(block)
            size -= len(block)
        return b"".join(parts)
