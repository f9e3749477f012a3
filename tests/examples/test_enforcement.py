"""The reference enforcement component: whom a measure reaches, and that nobody else notices."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from malformed_measures import MALFORMED
from malformed_measures import measure as written_measure
from servers import PATIENCE, ROOT, Service, serving

from geolookup import Dataset, Policy, Verdict
from geolookup.answer import decision_record
from geolookup.client import Client
from geolookup.errors import ServiceUnavailableError

EXAMPLE = ROOT / "examples" / "enforcement"
sys.path.insert(0, str(EXAMPLE))

from dry_run import DryRun, Preview  # noqa: E402 - the example is no package
from enforcement import Enforcement  # noqa: E402
from measures import Measure, Mode, read  # noqa: E402
from meetings import Meeting, Participant  # noqa: E402

CHINA, AMERICA, GERMANY, PRIVATE = "1.0.1.1", "8.8.8.8", "2a00:1450:4001::1", "10.0.0.1"
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.target) as connected:
        yield connected


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


@pytest.fixture
def enforcement(client: Client, records: Path, clock: Clock) -> Enforcement:
    return Enforcement(client, records, clock)


def measure(mode: Mode = Mode.DENY_INSIDE, region_set: str = "CN") -> Measure:
    return Measure("order 17/2026", region_set, mode, NOW, NOW + timedelta(days=30))


def meeting_of(enforcement: Enforcement, **people: str) -> Meeting:
    meeting = Meeting("monday")
    enforcement.open(meeting)
    for name, address in people.items():
        person = Participant(name, address, may_host=name.startswith("host"))
        assert enforcement.join(meeting, person) is None
    return meeting


def names(meeting: Meeting) -> list[str]:
    return [person.id for person in meeting.participants]


def test_measure_removes_exactly_participants_inside(enforcement: Enforcement) -> None:
    meeting = meeting_of(
        enforcement, host=AMERICA, anna=CHINA, ben=PRIVATE, carla=GERMANY, dong=CHINA
    )
    assert [person.id for person in enforcement.impose(measure())] == ["anna", "dong"]
    assert names(meeting) == ["host", "ben", "carla"]
    assert meeting.host is not None
    assert meeting.host.id == "host"


def test_removed_host_is_succeeded_by_the_next_participant(enforcement: Enforcement) -> None:
    meeting = meeting_of(enforcement, host=CHINA, anna=AMERICA, host_two=AMERICA)
    enforcement.impose(measure())
    assert meeting.host is not None
    assert meeting.host.id == "host_two"


@pytest.mark.parametrize(
    ("mode", "region_set", "stay"),
    [(Mode.DENY_INSIDE, "CN", ["b", "c", "d"]), (Mode.ADMIT_INSIDE, "EEA", ["c", "d"])],
)
def test_undetermined_participants_stay(
    enforcement: Enforcement, mode: Mode, region_set: str, stay: list[str]
) -> None:
    meeting = meeting_of(enforcement, a=CHINA, b=AMERICA, c=GERMANY, d=PRIVATE)
    enforcement.impose(measure(mode, region_set))
    assert names(meeting) == stay


@pytest.mark.parametrize(
    ("mode", "address", "joins"),
    [
        (Mode.DENY_INSIDE, CHINA, False),
        (Mode.DENY_INSIDE, AMERICA, True),
        (Mode.DENY_INSIDE, PRIVATE, True),
        (Mode.ADMIT_INSIDE, CHINA, True),
        (Mode.ADMIT_INSIDE, AMERICA, False),
        (Mode.ADMIT_INSIDE, PRIVATE, False),
    ],
)
def test_later_join_is_checked(
    enforcement: Enforcement, mode: Mode, address: str, joins: bool
) -> None:
    meeting = meeting_of(enforcement)
    enforcement.impose(measure(mode))
    refused = enforcement.join(meeting, Participant("late", address))
    assert (refused is None) is joins
    assert names(meeting) == ["late"] * joins


def test_a_measure_acts_from_its_start_to_its_expiry(
    enforcement: Enforcement, clock: Clock
) -> None:
    meeting = meeting_of(enforcement, anna=CHINA)
    clock.now = NOW - timedelta(seconds=1)
    assert enforcement.impose(measure()) == []
    clock.now = NOW
    assert [person.id for person in enforcement.review()] == ["anna"]
    clock.now = NOW + timedelta(days=30)
    assert enforcement.join(meeting, Participant("anna", CHINA)) is None
    assert enforcement.review() == []


def test_file_of_measures_is_read(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"
    each = [
        written_measure(),
        written_measure("admit_inside", policy="MAJORITY", when_unavailable="admit"),
    ]
    path.write_text(json.dumps({"measures": each}))
    first, second = read(path)
    assert (first.reference, first.region_set) == ("order 17/2026", "CN")
    assert (first.mode, first.policy) == (Mode.DENY_INSIDE, Policy.UNANIMOUS)
    assert first.start == datetime(2026, 1, 1, tzinfo=UTC)
    assert first.expiry == datetime(2099, 1, 1, tzinfo=UTC)
    assert first.refuses(Verdict.INSIDE)
    assert (second.mode, second.policy) == (Mode.ADMIT_INSIDE, Policy.MAJORITY)
    assert first.admits_unchecked
    assert second.admits_unchecked


def test_measures_on_the_page_about_prosody_are_valid(tmp_path: Path) -> None:
    page = (EXAMPLE.parent / "prosody" / "README.md").read_text()
    (text,) = re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)
    path = tmp_path / "measures.json"
    path.write_text(text)
    assert [one.region_set for one in read(path)] == ["CN"]


@pytest.mark.parametrize(("text", "problem"), MALFORMED, ids=range(len(MALFORMED)))
def test_file_of_measures_that_is_not_valid_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "measures.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="measures") as caught:
        read(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_decision_records_have_counts_and_no_participants(
    enforcement: Enforcement, records: Path, dataset: Dataset
) -> None:
    meeting_of(enforcement, anna=CHINA, ben=AMERICA, carla=PRIVATE)
    enforcement.impose(measure())
    enforcement.review()  # nobody leaves: no second decision
    (kept,) = decision_record.read(records)
    assert (kept.size, kept.inside, kept.outside, kept.undetermined) == (3, 1, 1, 1)
    assert (kept.reference, kept.region_set, kept.dataset) == ("order 17/2026", "CN", dataset.id)
    written = records.read_text()
    for secret in ("anna", "ben", "carla", CHINA, AMERICA, PRIVATE):
        assert secret not in written


def test_unavailable_service_removes_no_participant_and_the_mode_decides_joins(
    records: Path, clock: Clock
) -> None:
    with serving() as service, Client(service.target, timeout=5) as client:
        enforcement = Enforcement(client, records, clock)
        meeting = meeting_of(enforcement, ben=AMERICA)
        enforcement.impose(measure())
        service.stop()
        assert enforcement.join(meeting, Participant("anna", CHINA)) is None
        with pytest.raises(ServiceUnavailableError):
            enforcement.review()
        assert names(meeting) == ["ben", "anna"]
        with pytest.raises(ServiceUnavailableError):
            enforcement.impose(measure(Mode.ADMIT_INSIDE))
        assert enforcement.join(meeting, Participant("dong", CHINA)) is not None


def test_new_dataset_classifies_again(tmp_path: Path, records: Path, clock: Clock) -> None:
    served, changed = tmp_path / "served.geolookup", tmp_path / "changed.geolookup"
    shutil.copy(ROOT / "geolookup" / "data" / "embedded.geolookup", served)
    manifest = tmp_path / "changed.toml"
    manifest.write_text(
        re.sub(
            r'"(?=sources/)',
            f'"{ROOT}/data/',
            (ROOT / "data/geolookup.toml").read_text(),
        )
        + f'\n[[override]]\nprefix = "{AMERICA}/32"\ncode = "CN"\ncomment = "moved"\n'
    )
    subprocess.run(
        [sys.executable, "-m", "geolookup", "compile", str(manifest), "-o", str(changed)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with serving("--dataset", str(served)) as service, Client(service.target) as client:
        enforcement = Enforcement(client, records, clock)
        meeting = meeting_of(enforcement, ben=AMERICA, carla=GERMANY)
        assert enforcement.impose(measure()) == []
        before = client.info()["id"]
        changed.replace(served)
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        # The service tells nobody but those who ask, and its workers change within a moment.
        asked_of_new = 0
        while asked_of_new < 50:
            assert time.monotonic() < end
            asked_of_new += 1
            for answer in (client.lookup(GERMANY), client.classify([GERMANY])):
                if answer.dataset == before:
                    asked_of_new = 0
                    time.sleep(0.02)
        # The next join meets the new dataset, and everybody is looked at again.
        assert enforcement.join(meeting, Participant("dora", GERMANY)) is None
        assert names(meeting) == ["carla", "dora"]
    assert [(kept.size, kept.inside) for kept in decision_record.read(records)] == [(2, 0), (3, 1)]


@pytest.mark.parametrize(
    ("mode", "region_set", "leave", "refused"),
    # Afterwards an American, a Chinese and a private address join.
    [(Mode.DENY_INSIDE, "CN", 2, 1), (Mode.ADMIT_INSIDE, "EEA", 3, 3)],
)
def test_dry_run_counts_what_enforcement_does_and_acts_on_nothing(
    *,
    client: Client,
    records: Path,
    clock: Clock,
    mode: Mode,
    region_set: str,
    leave: int,
    refused: int,
) -> None:
    dry, real = DryRun(client, clock), Enforcement(client, records, clock)
    people = {"host": AMERICA, "anna": CHINA, "ben": PRIVATE, "carla": GERMANY, "dong": CHINA}
    tried, acted = meeting_of(dry, **people), meeting_of(real, **people)
    empty = Meeting("tuesday")
    dry.open(empty)
    of_measure = measure(mode, region_set)
    assert dry.impose(of_measure) == []
    removed = real.impose(of_measure)
    assert names(tried) == list(people)
    before = Preview(of_measure.reference, 1, 1, 5, leave, 1, 0)
    assert dry.previews() == [before]
    assert len(removed) == leave

    late = {"late-1": AMERICA, "late-2": CHINA, "late-3": PRIVATE}
    joins = [
        (dry.join(tried, Participant(name, at)), real.join(acted, Participant(name, at)))
        for name, at in late.items()
    ]
    assert [one for one, _ in joins] == [None] * 3
    assert sum(other is not None for _, other in joins) == refused
    assert names(tried) == [*people, *late]
    # Who would have been refused is no one who would have to leave.
    dry.review()
    (after,) = dry.previews()
    joined = 3 - refused
    assert after == before._replace(
        people=5 + joined,
        refused=refused,
        undetermined=1 + (mode is Mode.DENY_INSIDE),
    )
    assert len(acted.participants) == after.people - after.leave


def test_dry_run_keeps_and_prints_counts_alone(
    client: Client, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    dry = DryRun(client, clock)
    meeting_of(dry, anna=CHINA, ben=AMERICA)
    with caplog.at_level("INFO"):
        dry.impose(measure())
        printed = f"{dry.previews()[0]} {dry.previews()!r} {caplog.text}"
    assert "order 17/2026 would remove 1 of 2 people, from 1 of 1 meetings" in printed
    for secret in ("anna", "ben", CHINA, AMERICA):
        assert secret not in printed
    assert list(tmp_path.iterdir()) == []


def test_dry_run_outlasts_an_unavailable_service(clock: Clock) -> None:
    with serving() as service, Client(service.target, timeout=5) as client:
        dry = DryRun(client, clock)
        meeting = meeting_of(dry, ben=AMERICA)
        dry.impose(measure(Mode.ADMIT_INSIDE))
        service.stop()
        assert dry.join(meeting, Participant("anna", CHINA)) is None
        with pytest.raises(ServiceUnavailableError):
            dry.review()
        assert names(meeting) == ["ben", "anna"]
        assert dry.previews()[0].refused == 1


def test_dry_run_of_the_example_runs_as_its_readme_says(service: Service, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--dry-run", service.target],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout in (EXAMPLE / "README.md").read_text()
    assert list(tmp_path.iterdir()) == []


def test_example_runs_as_its_readme_says(service: Service, tmp_path: Path) -> None:
    kept = tmp_path / "records.jsonl"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), service.target, str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    told = (EXAMPLE / "README.md").read_text()
    for line in done.stdout.splitlines()[:-1]:
        assert line in told
    assert decision_record.read(kept)[0].inside == 2
