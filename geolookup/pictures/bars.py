"""Draws a report: for each region set, what was decided in each month. PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from geolookup.pictures.drawing import FAINT, INK, ImageFormat
from geolookup.review.transparency_report import ReportRow

# Told apart by those who see few colours, and in print: blue, yellow and grey of different
# lightness, from Okabe and Ito, https://jfly.uni-koeln.de/color/
_KINDS: Final = (("inside", "#0072b2"), ("undetermined", "#e69f00"), ("outside", "#c8ced3"))
_BAR: Final = 0.27
_PANEL_INCHES: Final = 2.1
_DPI: Final = 150


def draw(rows: Sequence[ReportRow], file: BinaryIO, image_format: ImageFormat) -> None:
    """Write the picture of a report to an open file.

    Args:
        rows: at least one.
        file: open for writing bytes.
        image_format: "png" or "svg".
    """
    with mpl.rc_context({"font.family": "DejaVu Sans", "svg.hashsalt": "geolookup"}):
        metadata = {"Date": None} if image_format == "svg" else {"Software": None}
        figure_of(rows).savefig(file, format=image_format, dpi=_DPI, metadata=metadata)


def figure_of(rows: Sequence[ReportRow]) -> Figure:
    """Return the figure that `draw` writes."""
    months = _months(rows)
    names = sorted({row.region_set for row in rows})
    width = min(24.0, max(6.0, 2.0 + 0.9 * len(months)))
    height = 1.0 + _PANEL_INCHES * len(names)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Addresses classified, by verdict", x=0.01, ha="left", color=INK, weight="bold")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    most = max(row.addresses for row in rows)
    for panel, name in zip(panels, names, strict=True):
        _draw_panel(panel, name, [row for row in rows if row.region_set == name], months, most)
    handles, labels = panels[0].get_legend_handles_labels()
    # Outside of the panels, and away from the title, which is as wide as a picture of one month.
    figure.legend(
        handles,
        labels,
        loc="outside lower right",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    return figure


def _draw_panel(
    panel: Axes, name: str, rows: Sequence[ReportRow], months: Sequence[str], most: int
) -> None:
    by_month = {row.month: row for row in rows}
    # Two inside and four hundred outside are both to be seen; zero has a place of its own.
    panel.set_yscale("symlog", linthresh=1)
    panel.set_ylim(0, max(10, most * 4))
    for position, (kind, colour) in enumerate(_KINDS):
        heights = [getattr(by_month[month], kind) if month in by_month else 0 for month in months]
        places = [at + (position - 1) * _BAR for at in range(len(months))]
        panel.bar(places, heights, width=_BAR, color=colour, label=kind.upper())
        for place, count, month in zip(places, heights, months, strict=True):
            if month in by_month:
                panel.text(
                    place, count, f"{count:,}", ha="center", va="bottom", fontsize=6, color=INK
                )
    panel.set_title(_shortened(name), loc="left", fontsize=9, color=INK)
    panel.set_xticks(range(len(months)), months)
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    panel.tick_params(labelsize=7, colors=FAINT, length=2)
    panel.grid(axis="y", color="#000000", alpha=0.08, linewidth=0.5)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _months(rows: Sequence[ReportRow]) -> list[str]:
    """Return all months from the first to the last, those without decisions too."""
    numbers = [int(row.month[:4]) * 12 + int(row.month[5:]) - 1 for row in rows]
    return [
        f"{number // 12}-{number % 12 + 1:02}" for number in range(min(numbers), max(numbers) + 1)
    ]


def _shortened(name: str, limit: int = 60) -> str:
    return name if len(name) <= limit else f"{name[: limit - 3]}..."
