"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from geolookup.atomic import replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader, replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("existing", [b"old", None])
def test_an_exception_leaves_what_was_there(tmp_path: Path, existing: bytes | None) -> None:
    path = tmp_path / "file"
    if existing is not None:
        path.write_bytes(existing)

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == ([] if existing is None else ["file"])
    assert existing is None or path.read_bytes() == existing


def test_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_new_content_keeps_mode_of_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for mode in (0o600, 0o664, 0o444):
        path.chmod(mode)
        with replacing(path) as file:
            (temporary,) = set(names(tmp_path)) - {"file"}
            assert stat.S_IMODE((tmp_path / temporary).stat().st_mode) == 0o600
            file.write(b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_new_content_keeps_owner_and_group_of_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 54321)
    with replacing(path) as file:
        file.write(b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_owner_that_may_not_be_set_is_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    status = path.stat()
    asked = []

    def chown(_: str, owner: int, group: int) -> None:
        asked.append((owner, group))
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def of_another(name: str, **_: bool) -> os.stat_result:
        found = stat_of(name)
        other = (*found[:4], found.st_uid + 1, found.st_gid + 1, *found[6:])
        return os.stat_result(other) if name == str(path) else found

    stat_of = os.stat
    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "stat", of_another)
    with replacing(path) as file:
        file.write(b"new")
    monkeypatch.undo()
    assert sorted(asked) == [(-1, status.st_gid + 1), (status.st_uid + 1, -1)]
    assert (path.read_bytes(), path.stat().st_uid) == (b"new", status.st_uid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("existing", [b"old", None], ids=["a file", "nothing"])
@pytest.mark.parametrize("relative", [True, False])
def test_symbolic_link_stays_and_its_target_is_replaced(
    tmp_path: Path, existing: bytes | None, relative: bool
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link, first = folder / "2026.file", tmp_path / "middle", tmp_path / "current"
    if existing is not None:
        target.write_bytes(existing)
    link.symlink_to("elsewhere/2026.file" if relative else target)
    first.symlink_to("middle")
    with replacing(first) as file:
        file.write(b"new")
    assert first.is_symlink()
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(folder) == ["2026.file"]


def test_circular_links_are_the_operating_systems_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"), replacing(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a", "b"]


def test_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space") as caught, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert names(tmp_path) == ["file"]


def test_folder_that_cannot_be_written_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object) -> int:  # root may write in any folder
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as caught, replacing(tmp_path / "file"):
        pass
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "file")
    assert caught.value.strerror == "can't be written in its folder: Permission denied"


def test_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_device_is_written_to_and_stays_a_device() -> None:
    with replacing(os.devnull) as file:
        file.write(b"gone")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_missing_folder_is_the_operating_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "file"):
        pass


def test_new_file_is_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replace(old: str, new: str) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert steps == ["file", "rename", "folder"]
