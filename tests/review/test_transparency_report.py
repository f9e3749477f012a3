"""Decision records added up: the table, its JSON, its picture, and what is refused."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner

from geolookup import Policy, Status
from geolookup.answer import decision_record
from geolookup.answer.decision_record import DecisionRecord
from geolookup.cli import command
from geolookup.review.transparency_report import ReportRow, tabulate


def decision(
    month: int, region_set: str = "CN", inside: int = 2, *, dataset: str = "a", reference: str = ""
) -> DecisionRecord:
    return DecisionRecord(
        time=datetime(2026, month, 28, 23, 59, 59, tzinfo=UTC),
        dataset=dataset * 64,
        dataset_built=datetime(2026, 1, 1, tzinfo=UTC),
        region_set=region_set,
        region_set_version="",
        codes=("CN",),
        policy=Policy.UNANIMOUS,
        size=inside + 400 + 1,
        inside=inside,
        outside=400,
        undetermined=1,
        statuses={Status.ASSIGNED: inside + 400, Status.SPECIAL_PURPOSE: 1},
        reference=reference,
    )


RECORDS = [
    decision(3, reference="order 1"),
    decision(1, inside=0),
    decision(3, reference="order 1", dataset="b"),
    decision(3, "CN+HK", 5, reference="order 2"),
    decision(3, reference="order 3"),
]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    decision_record.write(path, RECORDS)
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["report", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_row_is_a_month_and_a_region_set() -> None:
    assert tabulate(RECORDS) == [
        ReportRow("2026-01", "CN", 1, 0, 1, 401, 0, 400, 1),
        ReportRow("2026-03", "CN", 3, 2, 2, 1209, 6, 1200, 3),
        ReportRow("2026-03", "CN+HK", 1, 1, 1, 406, 5, 400, 1),
    ]
    assert tabulate([]) == []


def test_files_are_added_together(kept: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    decision_record.write(more, [decision(1)])
    code, printed = run(kept, more, "--json")
    assert code == 0
    rows = json.loads(printed)["rows"]
    assert [row["decisions"] for row in rows] == [2, 3, 1]
    assert rows[0]["addresses"] == rows[0]["inside"] + rows[0]["outside"] + rows[0]["undetermined"]


def test_table_lists_each_month(kept: Path) -> None:
    code, printed = run(kept)
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].split() == [
        "MONTH",
        "REGION",
        "SET",
        "DECISIONS",
        "DEMANDS",
        "DATASETS",
        "ADDRESSES",
        "INSIDE",
        "OUTSIDE",
        "UNDETERMINED",
    ]
    assert lines[2].split() == ["2026-03", "CN", "3", "2", "2", "1,209", "6", "1,200", "3"]


def test_a_record_that_was_altered_fails_the_report_and_is_named(kept: Path) -> None:
    kept.write_text(kept.read_text().replace('"inside":5', '"inside":4'))
    with pytest.raises(decision_record.RecordError, match=r"records\.jsonl:4: inside, outside"):
        run(kept)


@pytest.mark.parametrize("months", [1, 2, 12])
@pytest.mark.parametrize("names", [1, 3])
def test_legend_and_title_lie_apart(months: int, names: int) -> None:
    charts = pytest.importorskip("geolookup.pictures.charts", reason="needs the extra map")
    bars = pytest.importorskip("geolookup.pictures.bars")
    rows = [
        ReportRow(f"2026-{month:02}", f"SET_{name}", 3, 2, 1, 402, 2, 399, 1)
        for month in range(1, months + 1)
        for name in range(names)
    ]
    with charts.saved(io.BytesIO(), "svg", bars.size_of(rows)) as figure:
        bars.fill(figure, rows)
    (legend,) = figure.legends
    boxes = [legend.get_window_extent(), figure._suptitle.get_window_extent()]
    boxes += [panel.get_tightbbox() for panel in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_file_without_a_record_is_wrong_usage(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for arguments in ((empty,), (empty, "--json"), (empty, "--plot", tmp_path / "out.png")):
        code, output = run(*arguments)
        assert code == 2
        assert "there is no record in the files" in output
    assert not (tmp_path / "out.png").exists()


def test_the_plot_shows_every_month_and_region_set(kept: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra map is not installed")
    out = tmp_path / "report.svg"
    assert run(kept, "--plot", out)[0] == 0
    comments = out.read_text()
    ET.fromstring(comments)  # noqa: S314 - our own
    # Text is drawn as shapes, with the text itself in a comment beside it.
    for text in ("2026-01", "2026-02", "2026-03", "CN+HK", "1,200", "INSIDE", "UNDETERMINED"):
        assert f"<!-- {text} -->" in comments
    again = tmp_path / "again.svg"
    run(kept, "--plot", again)
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--plot", "report.jpeg"), ".svg"), (("--plot", "missing/report.png"), "folder")],
)
def test_plot_that_cannot_be_written_is_an_error(
    kept: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(kept.parent)
    code, printed = run(kept, *options)
    assert code == 2
    assert told in printed
