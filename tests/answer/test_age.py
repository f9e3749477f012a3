"""A dataset that is old says so, once, and with the way out."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import small_dataset
from servers import serving

from geolookup import Dataset
from geolookup.answer.age import (
    MAX_DAYS,
    WARN_DAYS,
    Age,
    AgeLimit,
    age_of,
    age_warning,
    kept_too_long,
    stale_from,
)
from geolookup.answer.dataset import encode
from geolookup.answer.file_format import SourceInfo
from geolookup.errors import DatasetError


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


# --- limits

BUILT = datetime(2026, 6, 17, tzinfo=UTC)
SOURCE = SourceInfo("one", "CC0-1.0", "2026-06-01", "full", "One", "", "", 7)


def limited(max_age: int = 0, own: int = 0) -> tuple[datetime, AgeLimit, tuple[SourceInfo, ...]]:
    return BUILT, AgeLimit(max_age, "undetermined"), (replace(SOURCE, max_age=own), SOURCE)


@pytest.mark.parametrize(
    ("max_age", "own", "ends"),
    [
        (0, 0, None),
        (30, 0, datetime(2026, 7, 18, tzinfo=UTC)),
        (0, 30, datetime(2026, 7, 2, tzinfo=UTC)),
        (30, 30, datetime(2026, 7, 2, tzinfo=UTC)),
        (1, 300, datetime(2026, 6, 19, tzinfo=UTC)),
    ],
)
def test_dataset_is_stale_from_the_first_whole_day_beyond_a_limit(
    max_age: int, own: int, ends: datetime | None
) -> None:
    dataset = limited(max_age, own)
    moment = stale_from(*dataset)
    assert moment == (None if ends is None else int(ends.timestamp()))
    if moment is None:
        assert not age_of(*dataset).is_stale
        return
    for second, stale in ((moment - 1, False), (moment, True), (moment + 1, True)):
        assert age_of(*dataset, second).is_stale is stale
        assert age_of(*dataset, second).withholds_verdicts is stale


def test_age_counts_whole_days_and_none_before_the_build() -> None:
    for hours, days in ((-30, 0), (0, 0), (23, 0), (24, 1), (49, 2)):
        now = BUILT + timedelta(hours=hours)
        assert age_of(*limited(), now.timestamp()).days == days


def test_largest_limit_does_not_pass_the_calendar() -> None:
    late = datetime(9990, 1, 1, tzinfo=UTC)
    moment = stale_from(late, AgeLimit(MAX_DAYS), ())
    assert moment is not None
    assert moment > late.timestamp()


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (Age(3, 0, "warn", False), "3 days"),
        (Age(3, 60, "undetermined", False), "3 days"),
        (Age(1_000, 60, "warn", True), "1,000 days, at most 60 are allowed"),
        (Age(9, 60, "warn", True, ("a", "b")), "9 days; too old: a, b"),
        (Age(61, 60, "undetermined", True),
         "61 days, at most 60 are allowed; verdicts are UNDETERMINED"),
    ],
)  # fmt: skip
def test_age_says_what_is_too_old(age: Age, text: str) -> None:
    assert str(age) == text


@pytest.mark.parametrize(("days", "kept"), [(29, False), (30, False), (31, True)])
def test_data_is_kept_too_long_after_the_days_of_its_licence(days: int, kept: bool) -> None:
    sources = (replace(SOURCE, name="lite", keep_days=30), SOURCE)
    found = kept_too_long(sources, date(2026, 6, 1) + timedelta(days=days))
    assert [one.name for one in found] == ["lite"] * kept


@pytest.mark.parametrize(
    ("described", "refused"),
    [
        ({"max_age": 30}, False),
        ({"max_age": 30, "stale": "undetermined"}, False),
        ({"max_age": -1}, True),
        ({"max_age": True}, True),
        ({"max_age": "30"}, True),
        ({"max_age": MAX_DAYS + 1}, True),
        ({"stale": "inside"}, True),
        ({"stale": ["warn"]}, True),
    ],
)
def test_metadata_of_a_wrong_form_is_refused(described: dict[str, object], refused: bool) -> None:
    plain = small_dataset.content()
    content = replace(plain, metadata=plain.metadata | described)
    if refused:
        with pytest.raises(DatasetError, match="max_age or stale of the wrong form"):
            encode(content)
    else:
        with Dataset.from_buffer(encode(content)) as dataset:
            assert dataset.info()["max_age"] == 30


@pytest.mark.parametrize(
    ("arguments", "what"),
    [({"max_age": -1}, "max_age"), ({"max_age": MAX_DAYS + 1}, "max_age"),
     ({"max_age": True}, "max_age"), ({"stale": "inside"}, "stale")],
)  # fmt: skip
def test_limit_out_of_bounds_is_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=f"{what}: expected"):
        Dataset.from_buffer(encode(small_dataset.content()), **arguments)


@pytest.mark.parametrize("max_age", [0, 30])
def test_age_in_force_is_the_callers_where_given(max_age: int) -> None:
    plain = small_dataset.content()
    image = encode(replace(plain, metadata=plain.metadata | {"max_age": 1}))
    with Dataset.from_buffer(image) as dataset:
        assert dataset.age.max_age == 1
    with Dataset.from_buffer(image, max_age=max_age) as dataset:
        assert dataset.age.max_age == max_age
        assert dataset.age.is_stale is (max_age > 0)
