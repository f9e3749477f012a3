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
from chaos.faults import FAULTS, Fault, Outcome

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_the_outcome_that_is_required(fault: Fault) -> None:
    outcome = fault.run(SECONDS)
    assert outcome.met, (outcome.broken, outcome.measured)


def test_each_attack_is_made_by_a_fault_and_each_fault_has_a_name_of_its_own() -> None:
    text = (ROOT / "tests/chaos/faults.py").read_text()
    assert [name for name in ATTACKS if f'"{name}"' not in text] == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_requirement_that_is_not_met_shows() -> None:
    outcome = Outcome()
    outcome.require(True, "this")
    assert outcome.met
    outcome.require(False, "that")
    assert not outcome.met
    assert outcome.broken == ["that"]


def test_the_command_runs_what_it_is_told_to() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.chaos", "window flood", "ping flood"),
            *("--json", "--seconds", "0.3"),
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
