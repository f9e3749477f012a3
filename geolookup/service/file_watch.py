"""Notices that files have changed."""

from __future__ import annotations

from pathlib import Path

FileState = tuple[int, ...] | None


def file_state(path: Path) -> FileState:
    """Return what changes with each write to a file or replacement of it; None: no such file.

    Links are followed: certificates and datasets are often put in place by one.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class FileWatch:
    """Tells whether files have changed since they were read, and are no longer being written.

    Args:
        files: the files to watch.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        self._when_read: tuple[FileState, ...] = ()
        self._at_last_poll: tuple[FileState, ...] = ()
        self.mark_read()

    def mark_read(self) -> None:
        """Note that the files are read as they are now. Call this before reading them."""
        self._when_read = self._at_last_poll = tuple(map(file_state, self._files))

    def mark_changed(self) -> None:
        """Count the files as changed, whatever their state is."""
        self._when_read = ()

    def poll(self) -> bool:
        """Return whether the files differ from those read, and have settled since the last poll."""
        before, self._at_last_poll = self._at_last_poll, tuple(map(file_state, self._files))
        return before == self._at_last_poll != self._when_read
