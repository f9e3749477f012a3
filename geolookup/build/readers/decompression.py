"""Decompresses source files and archives, as blocks of plain bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal, Protocol, cast

from geolookup.build.readers import tar
from geolookup.errors import MissingExtraError, SourceError

BLOCK_SIZE = 1 << 18
"""Bytes a block: larger ones fall out of the cache between decompressor and parser."""

_ZIP = (b"PK\3\4", b"PK\5\6")
_NO_DATA = re.compile(
    r"([a-z0-9]+[_-])?(readme|licen[cs]es?|copyrights?|eula|changelog|notice)([._-].*)?"
    r"|package(-lock)?\.json|(md5|sha\d+)sums?([._-].*)?|checksums?([._-].*)?"
    r"|.+\.(md5|sha\d+|asc|sig)",
    re.IGNORECASE,
)
"""Names of the files that are beside the data in publishers' archives and packages."""


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Peekable(Protocol):
    """A file whose first bytes can be looked at without being read."""

    def peek(self, size: int, /) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


def _zstd(raw: IO[bytes], name: str) -> _Stream:
    module = _zstd_module()
    if module is None:
        raise MissingExtraError(f"{name}: compressed with zstd", "backports.zstd", "zstd")
    stream: _Stream = module.ZstdFile(raw)
    return stream


def _zstd_module() -> ModuleType | None:
    # The backport is the standard library's own module, so both are used alike.
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return __import__(name, fromlist=["ZstdFile"])
        except ImportError:
            continue
    return None


_DECOMPRESSORS: tuple[tuple[bytes, Callable[[Any, str], _Stream]], ...] = (
    (b"\xfd7zXZ\0", lambda raw, _: lzma.LZMAFile(raw)),  # noqa: SIM115 - ends with raw
    (b"\x1f\x8b", lambda raw, _: gzip.GzipFile(fileobj=raw)),
    (b"BZh", lambda raw, _: bz2.BZ2File(raw)),
    (b"\x28\xb5\x2f\xfd", _zstd),
)
"""By a file's first bytes, since its name may be wrong."""

_DAMAGED = (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)
# What zipfile raises, besides, for archives that are encrypted, damaged or made to harm.
_DAMAGED_ZIP = (*_DAMAGED, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a source; of a folder or an archive, one of the files in it.

    Attributes:
        name: its name in error texts.
        path: the file on disk that holds it.
        member: its name in the archive *path*, or empty.
        size: bytes that it takes on disk.
        archive: what *path* is, if it is one.
    """

    name: str
    path: Path
    member: str
    size: int
    archive: Literal["", "zip", "tar"] = ""

    @property
    def file_name(self) -> str:
        """Its last name, without those of folders and of its compression."""
        last = (self.member or self.path.name).rpartition("/")[2]
        return re.sub(r"\.(gz|xz|bz2|zst)$", "", last)

    def blocks(self, on_read: Callable[[int], None] | None = None) -> Iterator[bytes]:
        """Yield the decompressed content, as `blocks` does.

        Args:
            on_read: called with the number of bytes read so far, of `size`.
        """
        if self.archive == "tar":
            return _tar_blocks(self, on_read)
        return _member_blocks(self, on_read) if self.member else blocks(self.path, on_read)


def parts(path: Path) -> tuple[Part, ...]:
    """Return the files that a path of a source means.

    That is the file itself; of a folder, a zip archive or a tar archive, compressed or
    not, the files in it that may hold data, sorted by name.

    Raises:
        SourceError: it can't be read, or holds no files.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            found = [Part(str(file), file, "", size(file)) for file in files if _is_data(file.name)]
        elif not path.is_file():
            path.stat()  # there may be nothing of this name
            raise SourceError(
                f"{path}: is a pipe or a device, and sources are read more than once; save it"
                " as a file"
            )
        else:
            with path.open("rb") as raw:
                if raw.peek(4).startswith(_ZIP):
                    found = _members(path, raw)
                elif tar.is_tar(_Plain(raw, str(path)).read(tar.BLOCK)):
                    found = _tar_members(path, raw)
                else:
                    return (Part(str(path), path, "", size(path)),)
    except OSError as error:
        raise SourceError(f"{path}: {_what_failed(error)}") from error
    if not found:
        raise SourceError(f"{path}: holds no files")
    return tuple(found)


def _members(path: Path, raw: io.BufferedReader) -> list[Part]:
    try:
        with zipfile.ZipFile(raw) as archive:
            return [
                Part(
                    f"{path}/{_shown(info.filename)}",
                    path,
                    info.filename,
                    info.compress_size,
                    "zip",
                )
                for info in sorted(archive.infolist(), key=lambda info: info.filename)
                # zipfile can't decide whether an entry without a name is a folder.
                if info.filename
                and not info.is_dir()
                and _is_data(info.filename.rpartition("/")[2])
            ]
    except _DAMAGED_ZIP as error:
        raise SourceError(f"{path}: can't be decompressed: {error}") from error


def _tar_members(path: Path, raw: io.BufferedReader) -> list[Part]:
    try:
        found = sorted(
            (member for member in tar.members(_Plain(raw, str(path)))
             if _is_data(member.name.rpartition("/")[2])),
            key=lambda member: member.name,
        )  # fmt: skip
    except tar.TarError as error:
        raise SourceError(f"{path}: {error}") from error
    whole = sum(member.size for member in found) or 1
    on_disk = size(path)
    return [
        Part(f"{path}/{_shown(one.name)}", path, one.name, on_disk * one.size // whole, "tar")
        for one in found
    ]


def _tar_blocks(part: Part, on_read: Callable[[int], None] | None) -> Iterator[bytes]:
    try:
        with part.path.open("rb") as raw:
            content = tar.content(_Plain(raw, part.name), part.member, BLOCK_SIZE)
            stream = _decompressed(io.BufferedReader(_Joined(content), BLOCK_SIZE), part.name)
            while block := _read(stream, part.name):
                yield block
                if on_read is not None:
                    on_read(part.size)
    except OSError as error:
        raise SourceError(f"{part.name}: {_what_failed(error)}") from error
    except tar.TarError as error:
        raise SourceError(f"{part.name}: {error}") from error


def opened(raw: Any, name: str) -> io.BufferedReader:
    """Return a file's decompressed content as a file to be read once, from its beginning.

    Args:
        raw: the file, which has ``peek``; closing the returned file leaves it open.
        name: its name in error texts.
    """
    stream = _decompressed(raw, name)
    return io.BufferedReader(_Joined(iter(lambda: _read(stream, name), b"")), BLOCK_SIZE)


class _Plain:
    """A file's decompressed content, as a stream whose errors name the file."""

    def __init__(self, raw: io.BufferedReader, name: str) -> None:
        raw.seek(0)
        self._stream = _decompressed(raw, name)
        self._name = name

    def read(self, size: int, /) -> bytes:
        return _read(self._stream, self._name, size)


class _Joined(io.RawIOBase):
    """Blocks as a file, which can be read once and from its beginning."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._content, b""))
        view = memoryview(target)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _is_data(name: str) -> bool:
    return not name.startswith(".") and _NO_DATA.fullmatch(name) is None


def _shown(name: str) -> str:
    # Names in an archive may hold anything, and error texts end up on terminals.
    return "".join(character if character.isprintable() else "?" for character in name)


def blocks(path: Path, on_read: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Yield the decompressed content of a file (xz, gzip, bzip2, zstd or plain) in blocks.

    Args:
        path: the file.
        on_read: called with the number of the file's own bytes read so far,
            after each block.

    Raises:
        SourceError: the file can't be read or decompressed.
    """
    try:
        with path.open("rb") as raw:
            stream = _decompressed(raw, str(path))
            while block := _read(stream, str(path)):
                yield block
                if on_read is not None:
                    on_read(raw.tell())
    except OSError as error:
        raise SourceError(f"{path}: {_what_failed(error)}") from error


def _member_blocks(part: Part, on_read: Callable[[int], None] | None) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(part.path) as archive:
            packed = archive.getinfo(part.member)
            with archive.open(packed) as raw:
                stream = _decompressed(cast("zipfile.ZipExtFile", raw), part.name)
                while block := _read(stream, part.name):
                    yield block
                    if on_read is not None:
                        done = raw.tell() / max(packed.file_size, 1)
                        on_read(min(int(done * part.size), part.size))
    except OSError as error:
        raise SourceError(f"{part.name}: {_what_failed(error)}") from error
    except (*_DAMAGED_ZIP, KeyError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{part.name}: can't be decompressed: {error}") from error


def _decompressed(raw: _Peekable, name: str) -> _Stream:
    head = raw.peek(6)
    for magic, decompressor in _DECOMPRESSORS:
        if head.startswith(magic):
            return decompressor(raw, name)
    return raw


def _read(stream: _Stream, name: str, size: int = BLOCK_SIZE) -> bytes:
    try:
        return stream.read(size)
    except _DAMAGED as error:
        raise SourceError(f"{name}: can't be decompressed: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # zstd has an error of its own, in a module that need not be there.
        if type(error).__name__ != "ZstdError":
            raise
        raise SourceError(f"{name}: can't be decompressed: {error}") from error


_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def text(content: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield text as blocks of UTF-8 without a byte order mark.

    Text that begins with UTF-16's byte order mark is converted; all other bytes are
    yielded unchanged.

    Raises:
        SourceError: text that begins as UTF-16 goes on as something else. What comes before
            that has been yielded then.
    """
    head = next(content, b"")
    encoding = _UTF16.get(head[:2])
    if encoding is None:
        yield head.removeprefix(codecs.BOM_UTF8)
        yield from content
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        yield decoder.decode(head[2:]).encode()
        for block in content:
            yield decoder.decode(block).encode()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        yield error.object[: error.start].decode(encoding).encode()
        # The error would show what it stumbled over.
        raise SourceError(f"{name}: begins as UTF-16 text, but is none") from error


def size(path: Path) -> int:
    """Return the number of bytes a file, or all files in a folder, have on disk.

    Raises:
        SourceError: there is no such file.
    """
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        return path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: {_what_failed(error)}") from error


def _what_failed(error: OSError) -> str:
    # bz2 raises OSError without an error number for damaged data.
    if error.errno is None:
        return f"can't be decompressed: {error}"
    return os.strerror(error.errno)
