"""Overrides of a file act in a running service: swapped in, counted, traced, and gone in time."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import small_dataset
from servers import PATIENCE, Service, serving

from geolookup.answer import age as ages
from geolookup.answer.dataset import encode
from geolookup.client import Client
from geolookup.errors import SourceError
from geolookup.service.admin.client import RemoteControl
from geolookup.service.admin.control import Outcome
from geolookup.service.processes.dataset_loading import load, renew
from geolookup.service.processes.rollback import Hold, RollbackFolder
from geolookup.service.settings import Settings

IMAGE = encode(small_dataset.content())
BASE = IMAGE[4064:4096].hex()
OFFICE = '[[override]]\nprefix = "1.0.1.0/24"\ncode = "FR"\ncomment = "office"\n'
LAB = '[[override]]\nprefix = "2.0.0.0/8"\ncode = "GB"\n'


def expiring(text: str, moment: datetime) -> str:
    return f"{text}expires = {moment.isoformat()}\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    dataset, overrides = tmp_path / "d.geolookup", tmp_path / "o.toml"
    dataset.write_bytes(IMAGE)
    overrides.write_text(OFFICE + LAB, encoding="utf-8")
    return dataset, overrides


def put(text: str, path: Path) -> None:
    new = path.with_name("new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def put_expiring(path: Path, control: RemoteControl) -> datetime:
    """Have a service take an override that expires soon, and return when that will be.

    Soon is longer on a machine that is too busy for a short time.
    """
    for seconds in (2, 8, 32):
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        put(expiring(OFFICE, end) + LAB, path)
        assert control.reload().outcome is not Outcome.REFUSED
        over = control.status().overrides
        if over is not None and over.active == 2 and datetime.now(UTC) < end - timedelta(seconds=1):
            assert over.until == end
            return end
    pytest.fail("no reload was done within half a minute")


@contextlib.contextmanager
def controlled(
    files: tuple[Path, Path],
) -> Iterator[tuple[Service, RemoteControl, Client]]:
    dataset, overrides = map(str, files)
    chosen = {
        "--dataset": dataset,
        "--overrides": overrides,
        "--admin": "127.0.0.1:0",
        "--metrics": "127.0.0.1:0",
        "--watch": "0.1",
        "--workers": "2",
    }
    with (
        serving(*(part for pair in chosen.items() for part in pair)) as running,
        RemoteControl(running.announced["admin"][0], timeout=PATIENCE) as control,
        Client(running.target) as client,
    ):
        yield running, control, client


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def metrics(running: Service) -> dict[str, str]:
    with urllib.request.urlopen(running.announced["metrics"][0], timeout=PATIENCE) as page:  # noqa: S310
        lines = page.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith("geolookup_overrides"))


@pytest.mark.usefixtures("transport")
def test_service_answers_by_the_overrides_of_its_file(files: tuple[Path, Path]) -> None:
    with controlled(files) as (running, control, client):
        first = client.lookup("1.0.1.1", region_set="FR")
        assert (first.country, first.verdict, first.status) == ("FR", "INSIDE", "OVERRIDE")
        roster = client.classify(["1.0.1.1", "2.0.0.1", "3.0.0.1"], region_set="FR", record=True)
        assert roster.inside.to_array().tolist() == [0]
        status = control.status()
        assert status.overrides is not None
        over = status.overrides
        assert (over.base, over.active, over.expired, over.until) == (BASE, 2, 0, None)
        assert {first.dataset, roster.dataset, status.dataset} == {client.info()["id"]} != {BASE}
        assert client.info()["runtime_overrides"] == over.as_json()
        assert roster.record is not None
        assert (roster.record.overrides, roster.record.base_dataset) == (over.file, BASE)
        why = client.explain("1.0.1.1")
        assert why.override is not None
        assert (why.override.number, why.override.comment) == (1, "office")
        assert (why.override.file, why.dataset) == (over.file, first.dataset)
        shown = metrics(running)
        assert shown['geolookup_overrides{state="active"}'] == "2.0"
        assert f'geolookup_overrides_file_info{{base_dataset="{BASE}",file="{over.file}"}}' in shown

        # Others come in, and are refused as a whole where one of them makes no sense.
        put(LAB, files[1])
        until(lambda: client.lookup("1.0.1.1").country == "CN")
        assert client.lookup("2.0.0.1").country == "GB"
        before = control.status()
        put(OFFICE + LAB.replace("GB", "UK"), files[1])
        until(lambda: control.status().reloads.get(Outcome.REFUSED) == 1)
        after = control.status()
        assert after.last_reload is not None
        assert after.last_reload.reason.startswith(
            f"{files[1]}:7: override 2: code: the code is a country's"
        )
        assert (after.dataset, after.overrides) == (before.dataset, before.overrides)
        assert client.lookup("1.0.1.1").country == "CN"
        assert f"{files[1]}:7: override 2: code" in running.log()

        put("", files[1])
        until(lambda: client.lookup("2.0.0.1").country == "DE")
        assert client.info()["id"] == control.status().dataset == BASE
        assert "runtime_overrides" not in client.info()


@pytest.mark.usefixtures("transport")
def test_override_stops_acting_at_its_instant_in_a_running_service(
    files: tuple[Path, Path],
) -> None:
    with controlled(files) as (running, control, client):
        end = put_expiring(files[1], control)
        before = client.lookup("1.0.1.1", region_set="FR")
        reloads = control.status().reloads
        fresh, answer = 0, before
        while answer.country == "FR":
            fresh += 1
            answer = client.lookup("1.0.1.1", region_set="FR")
        assert datetime.now(UTC) >= end
        assert fresh > 1
        assert (answer.country, answer.verdict) == ("CN", "OUTSIDE")
        until(lambda: "geolookup.service: expiry " in running.log())
        after = control.status()
        assert after.overrides is not None
        over = after.overrides
        assert (over.active, over.expired, over.until) == (1, 1, None)
        assert {worker.dataset for worker in after.workers} == {after.dataset}
        assert after.dataset not in {before.dataset, BASE}
        # It is no reload, and a rollback does not return to it.
        assert after.reloads == reloads
        assert after.previous != before.dataset
        assert metrics(running)['geolookup_overrides{state="expired"}'] == "1.0"
        assert client.lookup("2.0.0.1").country == "GB"


def test_rollback_does_not_bring_back_what_has_expired(files: tuple[Path, Path]) -> None:
    with controlled(files) as (_, control, client):
        end = put_expiring(files[1], control)
        first = control.status()
        put(LAB, files[1])
        control.reload()
        until(lambda: control.status().previous != "" and datetime.now(UTC) >= end)
        rolled_back = control.rollback()
        assert rolled_back.outcome is Outcome.SWAPPED
        assert rolled_back.dataset != first.dataset
        assert client.lookup("1.0.1.1").country == "CN"
        after = control.status()
        assert first.overrides is not None
        assert after.overrides is not None
        assert (after.overrides.file, after.overrides.active) == (first.overrides.file, 1)
        assert after.held_back.keys() == {"overrides"}


def settings_of(files: tuple[Path, Path], **more: object) -> Settings:
    return Settings(dataset=files[0], overrides=files[1], **more)


def test_malformed_overrides_stop_a_start(files: tuple[Path, Path]) -> None:
    put("[[override]]\n", files[1])
    with pytest.raises(SourceError, match=r"o\.toml:1: override 1: range: missing"):
        load(settings_of(files))


def test_canaries_are_held_against_what_the_overrides_make(files: tuple[Path, Path]) -> None:
    canaries = files[0].with_name("canaries.csv")
    canaries.write_text("2.0.0.1,DE\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"canaries\.csv:1"):
        load(settings_of(files, canaries=canaries))
    put(OFFICE, files[1])
    with closing(load(settings_of(files, canaries=canaries))) as loaded:
        assert loaded.dataset.country("1.0.1.1") == "FR"


def test_expiry_needs_no_file(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever became of the files: what workers answer from is made of the sealed copies."""
    end = datetime(2026, 12, 1, tzinfo=UTC)
    put(expiring(OFFICE, end) + LAB, files[1])
    monkeypatch.setattr(ages, "clock", lambda: end.timestamp() - 1)
    settings = settings_of(files)
    descriptors = len(os.listdir("/proc/self/fd"))
    with closing(load(settings)) as loaded:
        for path in files:
            path.write_bytes(b"damaged")
        with closing(renew(loaded, settings, end.timestamp())) as renewed:
            assert renewed.dataset.country("1.0.1.1") == "CN"
            assert renewed.dataset.country("2.0.0.1") == "GB"
            assert renewed.identity == loaded.identity
            assert renewed.until is None
        assert loaded.until == end.timestamp()
        assert loaded.dataset.country("1.0.1.1") == "FR"
        with closing(renew(loaded, settings, end.timestamp())) as renewed:
            assert renewed.runtime_overrides is not None
            assert renewed.file is not renewed.base
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_rollback_keeps_the_overrides_for_a_restart(files: tuple[Path, Path]) -> None:
    settings = settings_of(files)
    folder = RollbackFolder(settings)
    with closing(load(settings)) as loaded:
        put(LAB, files[1])
        with closing(load(settings, loaded)) as later:
            hold = Hold().after_rollback(later.identity, loaded.identity)
            contents = [b"" if part is None else part.map() for part in loaded.parts]
            folder.write(hold, contents, b"")
    with closing(load(settings, hold=folder.read())) as restarted:
        assert restarted.dataset.country("1.0.1.1") == "FR"
    # What a service wrote that knew no overrides.
    state = folder.path / "rollback.json" if folder.path else Path()
    known = json.loads(state.read_text())
    state.write_text(json.dumps({name: digests[:3] for name, digests in known.items()}))
    assert folder.read() == Hold()
