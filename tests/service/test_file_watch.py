"""Changes of files are reported when they have settled, and until they were read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geolookup.service.file_watch import FileWatch

IMAGE = bytes(1_000)
OTHER = bytes(900)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(IMAGE)
    return path


def replace(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def test_unchanged_file_is_no_change(path: Path) -> None:
    watch = FileWatch((path,))
    path.read_bytes()
    assert [watch.poll() for _ in range(3)] == [False] * 3


def test_change_is_reported_once_settled_and_until_read(path: Path) -> None:
    watch = FileWatch((path,))
    replace(path, OTHER)
    assert [watch.poll() for _ in range(3)] == [False, True, True]
    watch.mark_read()
    assert not watch.poll()


def test_file_that_is_being_written_is_not_reported(path: Path) -> None:
    watch = FileWatch((path,))
    for size in range(1, 6):
        path.write_bytes(IMAGE[: size * 100])
        assert not watch.poll()
    assert watch.poll()


def test_the_same_content_in_a_new_file_is_a_change(path: Path) -> None:
    """Whether the dataset is another is not for the watch to say."""
    watch = FileWatch((path,))
    replace(path, IMAGE)
    watch.poll()
    assert watch.poll()


def test_content_of_the_same_size_in_the_same_file_is_a_change(path: Path) -> None:
    watch = FileWatch((path,))
    path.write_bytes(OTHER[: len(IMAGE)])
    # Clocks of file systems are slower than this test.
    os.utime(path, ns=(0, 12_345))
    watch.poll()
    assert watch.poll()


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path, path: Path) -> None:
    """As Kubernetes replaces the files of a volume."""
    other = tmp_path / "other"
    other.write_bytes(OTHER)
    link = tmp_path / "link"
    link.symlink_to(path)
    watch = FileWatch((link,))
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other)
    fresh.replace(link)
    watch.poll()
    assert watch.poll()


def test_removed_or_created_file_is_a_change(path: Path) -> None:
    watch = FileWatch((path,))
    path.unlink()
    assert [watch.poll(), watch.poll()] == [False, True]
    watch.mark_read()
    assert not watch.poll()
    path.write_bytes(IMAGE)
    assert [watch.poll(), watch.poll()] == [False, True]


def test_a_change_that_is_taken_back_is_none(path: Path) -> None:
    watch = FileWatch((path,))
    saved = path.with_name("saved")
    path.rename(saved)
    assert not watch.poll()
    saved.rename(path)
    watch.mark_read()
    assert [watch.poll(), watch.poll()] == [False, False]


def test_one_changed_file_of_several_is_a_change(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "sets.toml"
    other.touch()
    watch = FileWatch((path, other))
    replace(other, b"x")
    assert [watch.poll(), watch.poll()] == [False, True]


def test_what_could_not_be_read_is_taken_for_changed(path: Path) -> None:
    watch = FileWatch((path,))
    watch.poll()
    watch.mark_changed()
    assert watch.poll()
    watch.mark_read()
    assert not watch.poll()


def test_a_change_while_it_is_read_is_a_change(path: Path) -> None:
    watch = FileWatch((path,))
    replace(path, OTHER)
    watch.poll()
    assert watch.poll()
    watch.mark_read()  # before reading
    replace(path, IMAGE)  # and while
    assert [watch.poll(), watch.poll()] == [False, True]


def test_no_files_never_change() -> None:
    watch = FileWatch(())
    watch.mark_changed()
    assert not watch.poll()
