"""Checks of a download, before it replaces a file in the cache.

A published checksum comes from the same server as the file: it shows that the transfer
was complete, not who made the file. So a file is also checked against its format, its
size limits, and the version that it would replace.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BufferedRandom
from typing import Final

from geolookup.build.readers import FORMATS, network_list
from geolookup.update.cache import Version
from geolookup.update.catalogue import EXPORTED, LIST, PublishedFile
from geolookup.update.problems import UpdateError
from geolookup.update.transfer import Validators

SHRUNK: Final = 0.5
"""A file with less than this share of the earlier version's bytes is refused as incomplete."""
CLOCKS: Final = timedelta(days=2)
"""Tolerance for time zones and wrong clocks. A later date would block all later versions."""

_BLOCK: Final = 1 << 18
_XZ_MEMORY: Final = 256 << 20
"""Bytes. The file chooses how much its decompression takes; xz -9 takes 65 MiB."""
_IPFIRE: Final = b"LOCDBXX\x01"
"""What an IPFire database begins with, up to the version of its format."""
_MD5: Final = re.compile(r"(?:MD5 ?\([^)]*\) ?= ?)?([0-9a-fA-F]{32})(?:[ \t].*)?", re.ASCII)
"""``MD5 (name) = digest`` as four registries write it, ``digest  name`` as ARIN does."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a download holds.

    Attributes:
        sha256: of the file, in hexadecimal.
        unpacked: bytes, decompressed.
        date: date of its data.
    """

    sha256: str
    unpacked: int
    date: date


def inspect(
    content: BufferedRandom,
    file: PublishedFile,
    format_name: str,
    *,
    validators: Validators,
    month: date,
    before: Version | None,
    today: date,
) -> Content:
    """Return what a download holds.

    Args:
        content: the download, read from its beginning.
        file: what it should be.
        format_name: the format of its source.
        validators: the server's, for its date.
        month: the month that its URL names, if it does.
        before: the version that it would replace.
        today: the present day.

    Raises:
        UpdateError: it is not plausible. The text is a phrase that says why.
    """
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256").hexdigest()
    if content.tell() == 0:
        raise UpdateError("empty")
    unpacked = 0
    head = b""
    for block in blocks(content, file.name):
        head = head or block
        unpacked += len(block)
        if unpacked > file.largest_unpacked:
            raise UpdateError(f"more than {file.largest_unpacked:,} bytes when decompressed")
    _check_format(head, format_name)
    _check_size(unpacked, file, before)
    day = _DATES[file.date](head, validators, month, today)
    if day is None:
        raise UpdateError("the date of its data can't be read")
    if day > today + CLOCKS:
        raise UpdateError(f"dated {day}, which is yet to come")
    if before is not None and day < before.date:
        raise UpdateError(
            f"dated {day}, older than the one at hand of {before.date}; "
            "remove that one to accept this one"
        )
    return Content(digest, unpacked, day)


def check_md5(content: BufferedRandom, published: bytes) -> None:
    """Check a download against the checksum file beside it.

    Raises:
        UpdateError: they don't match, or the checksum file holds none.
    """
    first, _, _ = published.decode("ascii", "replace").strip().partition("\n")
    found = _MD5.fullmatch(first.rstrip())
    if found is None:
        raise UpdateError("its published checksum can't be read")
    content.seek(0)
    digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
    if digest.hexdigest() != found[1].lower():
        raise UpdateError("does not match its published checksum; one of them may be newer")


def blocks(content: BufferedRandom, name: str) -> Iterator[bytes]:
    """Yield a file's decompressed content; the end of its name says what compressed it.

    Raises:
        UpdateError: it is damaged, truncated, or not compressed so.
    """
    content.seek(0)
    head = content.read(512)
    content.seek(0)
    if _is_web_page(head):
        raise UpdateError("a web page instead of data")
    try:
        if name.endswith(".gz"):
            yield from _gunzip(content)
        elif name.endswith(".xz"):
            yield from _unxz(content)
        else:
            yield from iter(lambda: content.read(_BLOCK), b"")
    except EOFError as error:
        raise UpdateError("truncated: the compressed data does not end") from error
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UpdateError("can't be decompressed") from error


def _gunzip(content: BufferedRandom) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=content) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _unxz(content: BufferedRandom) -> Iterator[bytes]:
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    while not stream.eof:
        data = content.read(_BLOCK) if stream.needs_input else b""
        if not data and stream.needs_input:
            raise EOFError
        if block := stream.decompress(data, _BLOCK):
            yield block
    if stream.unused_data or content.read(1):
        raise lzma.LZMAError("data after the end")


def _is_web_page(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))


def _check_format(head: bytes, format_name: str) -> None:
    if _is_web_page(head):
        raise UpdateError("a web page instead of data")
    if format_name == EXPORTED:
        recognised = head.startswith(_IPFIRE)
    elif format_name == LIST:
        recognised = network_list.recognises(head)
    else:
        recognised = FORMATS[format_name].recognises(head)
    if not recognised:
        raise UpdateError(f"not in the format {format_name}")


def _check_size(unpacked: int, file: PublishedFile, before: Version | None) -> None:
    if unpacked < file.smallest:
        raise UpdateError(f"implausibly small: {unpacked:,} bytes, at least {file.smallest:,}")
    if before is not None and unpacked < SHRUNK * before.unpacked:
        raise UpdateError(
            f"implausibly small: {unpacked:,} bytes, where the one at hand has "
            f"{before.unpacked:,}; remove that one to accept this one"
        )


def _of_url(_head: bytes, _validators: Validators, month: date, _today: date) -> date | None:
    return month


def _of_registry(head: bytes, _validators: Validators, _month: date, _today: date) -> date | None:
    """Return the last day that statistics cover: ``2|apnic|20260919|190000|19830613|20260918|...``.

    The third field is a serial number, which each registry counts in its own way.
    """
    lines = (line.strip() for line in head.decode("ascii", "replace").splitlines())
    header = next((line for line in lines if line and not line.startswith("#")), "")
    day = "".join(header.split("|")[5:6])
    try:
        return date.fromisoformat(day) if re.fullmatch("[0-9]{8}", day) else None
    except ValueError:
        return None


def _of_ipfire(head: bytes, _validators: Validators, _month: date, _today: date) -> date | None:
    seconds = int.from_bytes(head[len(_IPFIRE) : len(_IPFIRE) + 8])
    try:
        return datetime.fromtimestamp(seconds, UTC).date()
    except (OverflowError, OSError, ValueError):
        return None


def _of_server(_head: bytes, validators: Validators, _month: date, today: date) -> date | None:
    if not validators.modified:
        return today
    try:
        return parsedate_to_datetime(validators.modified).date()
    except ValueError:
        return None


_DATES: Final[dict[str, Callable[[bytes, Validators, date, date], date | None]]] = {
    "url": _of_url,
    "registry": _of_registry,
    "ipfire": _of_ipfire,
    "modified": _of_server,
}
