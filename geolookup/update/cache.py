"""The folder of downloads: the files as published, and the version of each.

``state.json`` has the version of each file. An entry counts only while the file has the
recorded digest, so a lost or stale entry costs a download and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO, Final, Self

from geolookup.atomic import replacing
from geolookup.update.problems import UpdateError
from geolookup.update.transfer import Validators

STATE: Final = "state.json"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a file.

    Attributes:
        url: the file's URL.
        validators: the server's, for conditional requests.
        sha256: of the file, in hexadecimal.
        unpacked: bytes, decompressed.
        date: date of its data.
    """

    url: str
    validators: Validators
    sha256: str
    unpacked: int
    date: date


class Cache:
    """A folder of downloads. Used inside of a with statement, by one process at a time.

    Args:
        folder: created if it does not exist.

    Raises:
        UpdateError: on entering: another process uses the folder, or it can't be used at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: BinaryIO | None = None
        self._versions: dict[str, Version] = {}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / _LOCK).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise UpdateError(f"{self.folder}: another update is under way") from None
        except OSError as error:
            self._close()
            raise UpdateError(f"{self.folder}: {error.strerror}") from error
        for left in self.folder.glob(".geolookup-*"):  # by a process that was killed
            remove(left)
        self._versions = _read_state(self.folder / STATE)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def path(self, name: str) -> Path:
        """Return where a file is, or would be."""
        return self.folder / name

    def version(self, name: str) -> Version | None:
        """Return which version of a file is there; None: none, or one that is not known."""
        known = self._versions.get(name)
        if known is None:
            return None
        try:
            with self.path(name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        return known if digest == known.sha256 else None

    def put(self, name: str, content: BinaryIO, version: Version) -> None:
        """Replace a file, as a whole or not at all, and record its version."""
        content.seek(0)
        with replacing(self.path(name)) as file:
            shutil.copyfileobj(content, file)
        self.record(name, version)

    def record(self, name: str, version: Version) -> None:
        """Record the version of a file that is there."""
        self._versions[name] = version
        content = {name: asdict(entry) for name, entry in sorted(self._versions.items())}
        with replacing(self.folder / STATE) as file:
            file.write(json.dumps(content, indent=1, default=date.isoformat).encode() + b"\n")


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _read_state(path: Path) -> dict[str, Version]:
    """Return the versions that a state file records, without those that make no sense."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: version for name, entry in entries if (version := _version(entry)) is not None}


def _version(entry: object) -> Version | None:
    match entry:
        case {
            "url": str(url),
            "validators": {"etag": str(etag), "modified": str(modified)},
            "sha256": str(sha256),
            "unpacked": int(unpacked),
            "date": str(day),
        }:
            try:
                return Version(
                    url, Validators(etag, modified), sha256, unpacked, date.fromisoformat(day)
                )
            except ValueError:
                return None
        case _:
            return None
