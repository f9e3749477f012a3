"""Downloads the files of sources into the cache: those that are new, if they are plausible."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from geolookup.atomic import naming
from geolookup.update import ipfire
from geolookup.update.cache import Cache, Version, remove
from geolookup.update.catalogue import (
    EXPORTED,
    PublishedFile,
    Publisher,
    is_monthly,
    months,
    url_of,
)
from geolookup.update.plausibility import check_md5, inspect
from geolookup.update.problems import MissingError, UpdateError
from geolookup.update.transfer import Reply, Validators, fetch

_LONGEST_CHECKSUM: Final = 4096

Fetch = Callable[..., Reply]
"""`transfer.fetch`, or what takes its arguments."""

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, the bytes received and, where it is known, the bytes in all."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file of a source in the cache, after a refresh.

    Attributes:
        file: its entry in the catalogue.
        version: the version in the cache.
        new: whether this refresh brought its content.
        path: what a manifest names: the file, or the folder of what was exported from it.
    """

    file: PublishedFile
    version: Version
    new: bool
    path: Path


@dataclass(frozen=True, slots=True)
class RefreshedSource:
    """A source in the cache, after a refresh."""

    publisher: Publisher
    downloads: tuple[Download, ...]

    @property
    def date(self) -> date:
        """Date of its data: that of its oldest file."""
        return min(download.version.date for download in self.downloads)


def refresh(
    publishers: Sequence[Publisher],
    cache: Cache,
    *,
    today: date,
    fetch: Fetch = fetch,
    on_progress: Progress | None = None,
) -> tuple[RefreshedSource, ...]:
    """Download the files of some sources, and keep those that are new and plausible.

    If one file fails, the others are still downloaded, so that the next attempt has
    less to do.

    Args:
        publishers: the sources.
        cache: where their files are; entered.
        today: the present day, UTC.
        fetch: gets a file, as `transfer.fetch` does.
        on_progress: called as bytes arrive.

    Raises:
        UpdateError: files could not be downloaded. The text names each, and why.
    """
    # Before the downloads, which would be useless without it.
    program = ipfire.tool() if any(one.format == EXPORTED for one in publishers) else ""
    refreshed: list[RefreshedSource] = []
    failures: list[str] = []
    for publisher in publishers:
        downloads: list[Download] = []
        for file in publisher.file:
            try:
                getter = _Getter(publisher, file, cache, today, fetch, on_progress, program)
                downloads.append(getter.get())
            except UpdateError as error:
                failures.append(f"{publisher.name}: {file.name}: {error}")
        refreshed.append(RefreshedSource(publisher, tuple(downloads)))
    if failures:
        raise UpdateError("; ".join(failures))
    return tuple(refreshed)


@dataclass(frozen=True, slots=True)
class _Getter:
    """Gets one file."""

    publisher: Publisher
    file: PublishedFile
    cache: Cache
    today: date
    fetch: Fetch
    on_progress: Progress | None
    program: str

    def get(self) -> Download:
        at_hand = self.cache.version(self.file.name)
        candidates = months(self.publisher, self.today) if is_monthly(self.file) else (self.today,)
        for month in candidates[:-1]:
            try:
                return self._get(month, at_hand)
            except MissingError:
                continue  # not published yet
        return self._get(candidates[-1], at_hand)

    def _get(self, month: date, at_hand: Version | None) -> Download:
        url = url_of(self.file.url, month)
        known = None
        if at_hand is not None and at_hand.url == url and self._is_exported(at_hand):
            known = at_hand.validators if at_hand.validators != Validators() else None
        path = self.cache.path(self.file.name)
        with naming(path), tempfile.TemporaryFile(dir=self.cache.folder) as content:
            reply = self.fetch(
                url,
                content,
                largest=self.file.largest,
                known=known,
                insecure=self.publisher.insecure,
                on_progress=self._on_progress,
            )
            if reply.unchanged and at_hand is not None:
                return Download(self.file, at_hand, False, self._path(at_hand))
            return self._keep(content, url, reply.validators, month, at_hand)

    def _on_progress(self, done: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(self.file.name, done, total)

    def _keep(
        self,
        content: io.BufferedRandom,
        url: str,
        validators: Validators,
        month: date,
        at_hand: Version | None,
    ) -> Download:
        found = inspect(
            content,
            self.file,
            self.publisher.format,
            validators=validators,
            month=month,
            before=at_hand,
            today=self.today,
        )
        if self.file.checksum:
            self._check_md5(content, month)
        version = Version(url, validators, found.sha256, found.unpacked, found.date)
        if self.publisher.format == EXPORTED and not self._is_exported(version):
            ipfire.export(self.program, content, self.file.name, self._exported(version))
        new = at_hand is None or at_hand.sha256 != version.sha256
        if new:
            self.cache.put(self.file.name, content, version)
        else:
            self.cache.record(self.file.name, version)
        if self.publisher.format == EXPORTED:
            for folder in self.cache.folder.glob(f"{self.file.name}.*"):
                if folder.is_dir() and folder != self._exported(version):
                    remove(folder)
        return Download(self.file, version, new, self._path(version))

    def _check_md5(self, content: io.BufferedRandom, month: date) -> None:
        published = io.BytesIO()
        try:
            self.fetch(
                url_of(self.file.checksum, month),
                published,
                largest=_LONGEST_CHECKSUM,
                insecure=self.publisher.insecure,
            )
        except UpdateError as error:
            # Not as MissingError: the file itself is there.
            raise UpdateError(f"its published checksum: {error}") from error
        check_md5(content, published.getvalue())

    def _exported(self, version: Version) -> Path:
        # Named after the version, so that each has lists of its own.
        return self.cache.path(f"{self.file.name}.{version.sha256[:16]}")

    def _is_exported(self, version: Version) -> bool:
        return self.publisher.format != EXPORTED or self._exported(version).is_dir()

    def _path(self, version: Version) -> Path:
        if self.publisher.format == EXPORTED:
            return self._exported(version)
        return self.cache.path(self.file.name)
