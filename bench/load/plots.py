"""Draws what was found: latency over the offered load, and by percentile. PNG or SVG."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.load.report import Study, name
from bench.load.session import Run
from geolookup.pictures.charts import FAINT, INK, frame, saved

# Told apart by those who see few colours: from Okabe and Ito, https://jfly.uni-koeln.de/color/
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_CURVES = ((50.0, "p50"), (99.0, "p99"), (99.9, "p99.9"))
_MOST = 12
"""Runs whose percentiles are drawn; more can't be told apart."""


def write(study: Study, path: Path) -> None:
    """Write a picture to a file, in the format that its name ends in."""
    with path.open("wb") as file:
        _figure(study, file, path.suffix.lower().removeprefix("."))


def svg(study: Study) -> str:
    """Return the picture as an SVG element, to stand in a page."""
    file = io.BytesIO()
    _figure(study, file, "svg")
    text = file.getvalue().decode()
    return text[text.index("<svg") :]


def _figure(study: Study, file: BinaryIO, image_format: str) -> None:
    ladders = [runs for runs in _by_work(study.runs).values() if len(runs) > 1]
    rows = len(ladders) + 1
    with saved(file, image_format, (8, 4.2 * rows)) as figure:
        panels = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
        for panel, runs in zip(panels, ladders, strict=False):
            _draw_load(panel, study, runs)
        _draw_percentiles(panels[-1], study.runs)


def _by_work(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of open loops by what they did, each by rising load."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda one: one.plan.rate or 0.0):
        if run.plan.rate is not None and run.result.answered:
            found.setdefault(name(run), []).append(run)
    return found


def _draw_load(panel: Axes, study: Study, runs: Sequence[Run]) -> None:
    rates = [run.plan.rate or 0.0 for run in runs]
    for (percent, label), colour in zip(_CURVES, _COLOURS, strict=False):
        found = [run.result.latencies.percentiles((percent,))[label] for run in runs]
        times = [math.nan if took is None else took / 1e3 for took in found]
        panel.plot(rates, times, color=colour, label=label, linewidth=1.5)
        for rate, took, run in zip(rates, times, runs, strict=True):
            # Hollow: the service did not keep up, or calls failed.
            whole = run.keeps_up and not run.result.failed
            panel.plot(rate, took, "o", color=colour, mfc=colour if whole else "white", ms=5)
    knee = study.knee
    if knee is not None:
        panel.axhline(knee.limit / 1e3, color=FAINT, linestyle=":", linewidth=1)
        panel.annotate(
            "limit of p99", (rates[0], knee.limit / 1e3), fontsize=7, color=FAINT, va="bottom"
        )
        if knee.held is not None:
            panel.axvline(knee.held, color=FAINT, linestyle="--", linewidth=1)
            panel.annotate(
                f" knee: {knee.held:,.0f}/s",
                (knee.held, 0.97),
                fontsize=8,
                color=INK,
                xycoords=("data", "axes fraction"),
                va="top",
            )
    panel.set_xlim(left=0)
    panel.set_xlabel("offered load, calls/s", fontsize=8, color=INK)
    _dress(panel, f"Latency over offered load: {name(runs[0])} (hollow: not borne)")


def _draw_percentiles(panel: Axes, runs: Sequence[Run]) -> None:
    shown = [run for run in runs if run.result.answered][:_MOST]
    for run, colour in zip(shown, itertools.cycle(_COLOURS)):
        points = run.result.latencies.curve()
        ends = [1 / max(1 - percent / 100, 1 / (2 * run.result.answered)) for percent, _ in points]
        panel.plot(
            ends,
            [took / 1e3 for _, took in points],
            color=colour,
            linewidth=1.3,
            label=f"{name(run)}, {run.load}",
        )
    panel.set_xscale("log")
    panel.set_xticks([1, 2, 10, 100, 1_000, 10_000])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda end, _: f"p{100 * (1 - 1 / end):g}"))
    panel.set_xlabel("percentile", fontsize=8, color=INK)
    _dress(panel, "Latency by percentile")


def _dress(panel: Axes, title: str) -> None:
    panel.set_yscale("log")
    panel.set_ylabel("latency, ms", fontsize=8, color=INK)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda took, _: f"{took:g}"))
    frame(panel, title)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=7, labelcolor=INK)
