"""A dataset that is old says so, once, and with the way out."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from servers import serving

from geolookup.answer.age import WARN_DAYS, age_warning


@pytest.mark.parametrize(
    ("days", "limit", "warns"),
    [(WARN_DAYS, WARN_DAYS, False), (WARN_DAYS + 1, WARN_DAYS, True), (9_999, 0, False),
     (2, 1, True), (-1, 1, False)],
)  # fmt: skip
def test_old_dataset_warns_beyond_the_limit(days: int, limit: int, warns: bool) -> None:
    built = datetime.now(UTC) - timedelta(days=days, minutes=1)
    warning = age_warning(built, limit)
    assert (warning is not None) is warns
    if warning is not None:
        assert f"built {days:,} days ago" in warning
        assert "geolookup update --dataset" in warning


@pytest.mark.parametrize("arguments", [("lookup", "1.0.1.1"), ("info",)])
@pytest.mark.parametrize(("days", "warns"), [("", True), ("0", False), ("99999", False)])
def test_old_dataset_warns_once_on_a_terminal(
    arguments: tuple[str, ...], days: str, warns: bool
) -> None:
    """The embedded dataset is older than the limit, and gets no younger."""
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "geolookup", *arguments],
        env={**os.environ, "GEOLOOKUP_WARN_AGE": days},
        stdout=subprocess.DEVNULL,
        stderr=slave,
        check=True,
    )
    os.write(slave, b"end")
    written = os.read(master, 10_000).decode()
    os.close(master)
    os.close(slave)
    assert done.returncode == 0
    assert written.count("days ago") == warns


@pytest.mark.parametrize(("options", "warns"), [((), True), (("--warn-age", "0"), False)])
def test_old_dataset_is_logged_by_the_service(options: tuple[str, ...], warns: bool) -> None:
    with serving(*options) as service:
        log = service.log()
    assert ("old_dataset" in log) is warns
