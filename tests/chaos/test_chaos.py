"""The short form of the chaos suite: each fault is done to a real service for a moment.

``python -m tests.chaos --long`` is the long form.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.attacks import ATTACKS
from chaos.datasets import damaged, versions
from chaos.faults import FAULTS
from chaos.outcome import GROWTH, LASTING, Fault, Outcome, growth
from chaos.subject import ADDRESS
from geolookup import Dataset, DatasetError

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 0.5


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_the_outcome_that_is_required(fault: Fault) -> None:
    outcome = fault.run(SECONDS)
    assert outcome.met, (outcome.broken, outcome.measured)


def test_each_attack_is_made_by_a_fault_and_each_fault_has_a_name_of_its_own() -> None:
    text = (ROOT / "tests/chaos/network.py").read_text()
    assert [name for name in ATTACKS if f'"{name}"' not in text] == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_requirement_that_is_not_met_shows() -> None:
    outcome = Outcome()
    outcome.require(True, "this")
    assert outcome.met
    outcome.require(False, "that")
    assert not outcome.met
    assert outcome.broken == ["that"]


@pytest.mark.parametrize(("seconds", "broken"), [(1.0, []), (LASTING, ["start: within 1 s"])])
def test_times_are_required_of_long_runs_alone(seconds: float, broken: list[str]) -> None:
    outcome = Outcome()
    outcome.require_time("start", [0.1, 2.0, 3.0], 1.0, seconds)
    assert outcome.broken == broken
    assert outcome.measured["start"].startswith("3: p50 2,000 ms")


ONE, OTHER = versions(small=True)
DAMAGED = dict(damaged(ONE.content, seed=1))


def test_datasets_that_are_reloaded_differ_in_the_answer() -> None:
    for version in (ONE, OTHER):
        dataset = Dataset.from_buffer(version.content)
        assert (dataset.id, dataset.country(ADDRESS)) == (version.id, version.country)
    assert ONE.id != OTHER.id
    assert ONE.country != OTHER.country


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_no_dataset(content: bytes) -> None:
    with pytest.raises(DatasetError):
        Dataset.from_buffer(content).check_sections()


def megabytes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


MEASURED = {
    # After each round of gzip bombs, as it was measured.
    "our service": megabytes(
        "127 131 143 158 193 176 177 206 237 199 199 199 201 267 217 217 217 254 224 224 225 225"
        " 225 225 225 225 225 225 225 225 225 225 225 227 218 218 273 248 267 245 271 289 294 290"
        " 243 242 242 242 242 236"
    ),
    "gRPC's server alone": megabytes(
        "42 69 69 69 126 133 128 128 128 128 128 128 128 128 128 137 138 137 137 139 139 139 139"
        " 139 139 139 137 137 143 144 155 152 147 145 145 145 145 145 145 159"
    ),
}


@pytest.mark.parametrize("memory", MEASURED.values(), ids=MEASURED)
def test_what_the_allocator_keeps_for_a_while_is_no_growth(memory: tuple[int, ...]) -> None:
    assert growth(memory) <= GROWTH


@pytest.mark.parametrize("memory", MEASURED.values(), ids=MEASURED)
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_leak_beneath_it_shows(memory: tuple[int, ...], rounds: int) -> None:
    """Of 1,500 bytes for each of the 4,000 calls of a round, within the rounds of the long form."""
    leaking = [used + 6 * number for number, used in enumerate(memory * rounds)]
    assert growth(leaking) > GROWTH


@pytest.mark.parametrize("memory", [(), (1,), (1, 2, 3)])
def test_of_few_rounds_nothing_is_said(memory: tuple[int, ...]) -> None:
    assert growth(memory) == 0


def test_the_command_runs_what_it_is_told_to() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.chaos",
            "window flood",
            "ping flood",
            "--json",
            "--seconds",
            "0.3",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["fault"] for line in lines] == ["window flood", "ping flood"], done.stderr
    assert done.returncode == (0 if all(line["met"] for line in lines) else 1)


def test_a_fault_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "flood of frogs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "there is no fault 'flood of frogs'" in done.stderr
