"""A rollback holds until it is lifted or another dataset comes."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import keys
import pytest
import small_dataset
from cryptography.hazmat.primitives.asymmetric import ed25519
from servers import PATIENCE, ROOT, Service, serving

from geolookup.answer import signature
from geolookup.answer.dataset import encode
from geolookup.client import Client
from geolookup.errors import DatasetError, GeoLookupError
from geolookup.service.admin.client import RemoteControl
from geolookup.service.admin.control import Outcome
from geolookup.service.processes.dataset_loading import LoadedDataset, load
from geolookup.service.processes.rollback import Hold, RollbackFolder
from geolookup.service.settings import Settings

A, B, C, SETS, OTHER_SETS = (letter * 64 for letter in "abcde")


def dataset(day: int) -> bytes:
    content = small_dataset.content()
    return encode(
        replace(content, metadata=content.metadata | {"built": f"2026-06-0{day}T00:00:00Z"})
    )


IMAGES = [dataset(day) for day in (1, 2, 3)]
IDS = [image[4064:4096].hex() for image in IMAGES]
SET_TEXT = '[region_sets.ALPS]\ncodes = ["AT", "CH"]\nversion = "1"\nsource = "us"\n'


# what is held back


def held(*withdrawn: str, kept: tuple[str, str, str, str] = (A, "", "", "")) -> Hold:
    first, second, third, fourth = (*withdrawn, "", "", "")[:4]
    return Hold((first, second, third, fourth), kept)


@pytest.mark.parametrize(
    ("before", "left", "returned_to", "expected"),
    [
        (Hold(), (B, SETS, "", ""), (A, SETS, "", ""), held(B)),
        (
            Hold(),
            (B, OTHER_SETS, "", ""),
            (A, SETS, "", ""),
            Hold((B, OTHER_SETS, "", ""), (A, SETS, "", "")),
        ),
        (
            Hold(),
            (A, OTHER_SETS, "", ""),
            (A, SETS, "", ""),
            Hold(("", OTHER_SETS, "", ""), ("", SETS, "", "")),
        ),
        # Rolling back from a rollback lifts it.
        (held(B), (A, SETS, "", ""), (B, SETS, "", ""), Hold()),
        # Region sets are rolled back while a dataset is held back.
        (
            held(B),
            (A, OTHER_SETS, "", ""),
            (A, SETS, "", ""),
            Hold((B, OTHER_SETS, "", ""), (A, SETS, "", "")),
        ),
        (held(B), (C, SETS, "", ""), (A, SETS, "", ""), held(C)),
    ],
)
def test_rollback_withdraws_the_parts_that_differ(
    before: Hold,
    left: tuple[str, str, str, str],
    returned_to: tuple[str, str, str, str],
    expected: Hold,
) -> None:
    assert before.after_rollback(left, returned_to) == expected


@pytest.mark.parametrize(
    ("found", "stays"),
    [
        ((B, SETS, "", ""), True),
        ((B, OTHER_SETS, "", ""), True),
        ((A, SETS, "", ""), True),
        ((C, SETS, "", ""), False),
    ],
)
def test_hold_ends_with_a_third(found: tuple[str, str, str, str], stays: bool) -> None:
    assert held(B).after_load(found) == (held(B) if stays else Hold())


def test_parts_end_their_holds_alone() -> None:
    both = Hold((B, OTHER_SETS, "", ""), (A, SETS, "", ""))
    assert both.after_load((B, C, "", "")) == held(B)
    assert both.held_back() == {"dataset": B, "region_sets": OTHER_SETS}
    assert not Hold()


# loading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "served.geolookup"
    path.write_bytes(IMAGES[0])
    return path


def closing(loaded: LoadedDataset) -> contextlib.closing[LoadedDataset]:
    return contextlib.closing(loaded)


def test_withdrawn_dataset_is_not_used_and_no_descriptor_is_left(path: Path) -> None:
    sets = path.with_name("sets.toml")
    sets.write_text(SET_TEXT)
    settings = Settings(dataset=path, region_sets=sets)
    before = set(os.listdir("/proc/self/fd"))
    with closing(load(settings)) as first:
        hold = Hold((IDS[1], "", "", ""), (IDS[0], "", "", ""))
        path.write_bytes(IMAGES[1])
        sets.write_text(SET_TEXT + "# a comment\n")
        with closing(load(settings, first, hold)) as again:
            assert again.dataset.id == IDS[0]
            assert again.identity[1] != first.identity[1]
            assert again.hold == hold
        path.write_bytes(IMAGES[2])
        with closing(load(settings, first, hold)) as third:
            assert (third.dataset.id, third.hold) == (IDS[2], Hold())
    assert set(os.listdir("/proc/self/fd")) <= before


def test_hold_of_a_folder_is_used_at_the_start(path: Path) -> None:
    settings = Settings(dataset=path)
    folder = RollbackFolder(settings)
    hold = Hold((IDS[1], "", "", ""), (IDS[0], "", "", ""))
    folder.write(hold, [IMAGES[0], b"", b"", b""], b"")
    assert folder.path == path.with_name("served.geolookup.rollback")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    path.write_bytes(IMAGES[1])
    assert folder.read() == hold
    with closing(load(settings, hold=folder.read())) as loaded:
        assert (loaded.dataset.id, loaded.hold) == (IDS[0], hold)
    # Another kept file than the state says is an error, not an answer.
    folder.file(0, hold).write_bytes(IMAGES[2])
    with pytest.raises(DatasetError, match="not the file that the rollback kept"):
        load(settings, hold=folder.read())
    folder.write(Hold(), [], b"")
    assert not folder.path.exists()
    assert folder.read() == Hold()


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{}",
        b"[]",
        b'{"withdrawn": ["x", "", ""], "kept": ["", "", ""]}',
        b'{"withdrawn": ["", ""], "kept": ["", "", ""]}',
        b'{"withdrawn": "abc", "kept": ["", "", ""]}',
        b'{"withdrawn": [1, "", ""], "kept": ["", "", ""]}',
        b'{"withdrawn": ["../../../etc/passwd", "", ""], "kept": ["", "", ""]}',
    ],
)
def test_damaged_state_is_an_error_that_names_it(path: Path, state: bytes) -> None:
    folder = RollbackFolder(Settings(dataset=path))
    assert folder.path is not None
    folder.path.mkdir()
    (folder.path / "rollback.json").write_bytes(state)
    with pytest.raises(GeoLookupError, match=r"rollback\.json: damaged; remove it to end"):
        folder.read()


def test_state_that_is_replaced_leaves_no_file_behind(path: Path) -> None:
    folder = RollbackFolder(Settings(dataset=path))
    assert folder.path is not None
    folder.write(
        Hold((IDS[1], "", "", ""), (IDS[0], "", "", "")), [IMAGES[0], b"", b"", b""], b"signed"
    )
    (folder.path / "note").touch()  # somebody else's
    folder.write(Hold((IDS[2], "", "", ""), (IDS[1], "", "", "")), [IMAGES[1], b"", b"", b""], b"")
    assert sorted(os.listdir(folder.path)) == [f"{IDS[1]}.dataset", "note", "rollback.json"]


def test_signature_of_what_is_kept_is_kept(path: Path, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(keys.pem(key))
    public.write_bytes(keys.public_pem(key))

    def sign(identity: str) -> None:
        path.with_name(path.name + ".sig").write_bytes(signature.sign(identity, private))

    settings = Settings(dataset=path, public_key=public)
    sign(IDS[0])
    hold = Hold((IDS[1], "", "", ""), (IDS[0], "", "", ""))
    folder = RollbackFolder(settings)
    with closing(load(settings)) as first:
        path.write_bytes(IMAGES[1])
        sign(IDS[1])
        with closing(load(settings, first, hold)) as again:
            assert again.dataset.id == IDS[0]
            folder.write(hold, [again.file.map(), b"", b"", b""], again.signature)
    with closing(load(settings, hold=folder.read())) as restarted:
        assert restarted.dataset.id == IDS[0]
    Path(f"{folder.file(0, hold)}.sig").unlink()
    with pytest.raises(DatasetError, match="not signed"):
        load(settings, hold=folder.read())


# the service


@contextlib.contextmanager
def controlled(path: Path, *options: str) -> Iterator[tuple[Service, RemoteControl]]:
    with (
        serving("--dataset", str(path), "--admin", "127.0.0.1:0", *options) as running,
        RemoteControl(running.announced["admin"][0], timeout=PATIENCE) as control,
    ):
        yield running, control


def put(content: bytes, path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def answered_from(running: Service) -> str:
    with Client(running.target) as client:
        return client.lookup("1.0.1.1").dataset


def metric(running: Service, name: str) -> str:
    with urllib.request.urlopen(running.announced["metrics"][0], timeout=PATIENCE) as page:  # noqa: S310
        lines = page.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return str(line.split()[1])


@pytest.mark.usefixtures("transport")
@pytest.mark.transports("threads")
def test_rollback_holds_until_it_is_lifted(path: Path) -> None:
    sets = path.with_name("sets.toml")
    sets.write_text(SET_TEXT)
    options = ("--region-sets", str(sets), "--metrics", "127.0.0.1:0", "--watch", "0.1")
    with controlled(path, *options) as (running, control):
        put(IMAGES[1], path)
        until(lambda: control.status().dataset == IDS[1])
        assert control.rollback().dataset == IDS[0]
        assert control.status().held_back == {"dataset": IDS[1]}
        assert metric(running, "geolookup_rollback_holds") == "1.0"

        refused = control.reload()
        assert refused.outcome is Outcome.UNCHANGED
        assert refused.reason.startswith(f"rolled back from dataset {IDS[1]}")

        def reloads() -> int:
            return sum(control.status().reloads.values())

        before = reloads()
        running.process.send_signal(signal.SIGHUP)
        until(lambda: reloads() > before)
        before = reloads()
        put(SET_TEXT.encode() + b"# a comment\n", sets)
        until(lambda: reloads() > before)
        assert answered_from(running) == control.status().dataset == IDS[0]
        assert running.stop() == 0

    # A restart.
    with controlled(path, *options) as (running, control):
        status = control.status()
        assert (status.dataset, status.held_back) == (IDS[0], {"dataset": IDS[1]})
        assert answered_from(running) == IDS[0]
        assert f"rollback dataset={IDS[0]}" in running.log()
        shown = subprocess.run(
            [
                *(sys.executable, "-m", "geolookup", "admin"),
                *("status", "--admin", running.announced["admin"][0]),
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        assert f"held back  dataset {IDS[1]}, by a rollback" in shown
        assert control.reload(lift_rollback=True).dataset == IDS[1] == answered_from(running)
        assert control.status().held_back == {}
        assert metric(running, "geolookup_rollback_holds") == "0.0"
        assert not path.with_name(f"{path.name}.rollback").exists()


@pytest.mark.usefixtures("transport")
@pytest.mark.transports("threads")
def test_rollback_ends_with_a_third_dataset_and_where_it_can_not_be_kept(path: Path) -> None:
    with controlled(path, "--watch", "0") as (running, control):
        # A file in the folder's place: it can't be made, whoever runs the tests.
        path.with_name(f"{path.name}.rollback").touch()
        put(IMAGES[1], path)
        assert control.reload().dataset == IDS[1]
        rolled_back = control.rollback()
        assert (rolled_back.outcome, rolled_back.dataset) == (Outcome.SWAPPED, IDS[0])
        assert rolled_back.reason.startswith("a restart ends the rollback: ")
        assert '"a restart ends the rollback' in running.log()
        assert control.reload().dataset == IDS[0]
        # What its publisher takes back and brings again is still withdrawn.
        put(IMAGES[0], path)
        assert control.reload().dataset == IDS[0]
        put(IMAGES[1], path)
        assert control.reload().dataset == IDS[0]
        put(IMAGES[2], path)
        assert control.reload().dataset == IDS[2] == answered_from(running)
        assert control.status().held_back == {}
        put(IMAGES[1], path)
        assert control.reload().dataset == IDS[1]
