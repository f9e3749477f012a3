"""Draws a report: for each region set, what was decided in each month. PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from geolookup.pictures.charts import (
    BLUE,
    GREY,
    INK,
    YELLOW,
    ImageFormat,
    add_title,
    frame,
    saved,
    shortened,
)
from geolookup.review.transparency_report import ReportRow

_KINDS: Final = (("inside", BLUE), ("undetermined", YELLOW), ("outside", GREY))
_BAR: Final = 0.27
_PANEL_INCHES: Final = 2.1


def draw(rows: Sequence[ReportRow], file: BinaryIO, image_format: ImageFormat) -> None:
    """Write the picture of a report to an open file.

    Args:
        rows: at least one.
        file: open for writing bytes.
        image_format: "png" or "svg".
    """
    with saved(file, image_format, size_of(rows)) as figure:
        fill(figure, rows)


def size_of(rows: Sequence[ReportRow]) -> tuple[float, float]:
    """Return the width and height of the picture, in inches."""
    width = min(24.0, max(6.0, 2.0 + 0.9 * len(_months(rows))))
    return width, 1.0 + _PANEL_INCHES * len(_names(rows))


def fill(figure: Figure, rows: Sequence[ReportRow]) -> None:
    """Draw the report into a figure of this size."""
    months = _months(rows)
    names = _names(rows)
    add_title(figure, "Addresses classified, by verdict")
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
    frame(panel, shortened(name), grid="y")
    panel.set_xticks(range(len(months)), months)
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))


def _names(rows: Sequence[ReportRow]) -> list[str]:
    return sorted({row.region_set for row in rows})


def _months(rows: Sequence[ReportRow]) -> list[str]:
    """Return all months from the first to the last, those without decisions too."""
    numbers = [int(row.month[:4]) * 12 + int(row.month[5:]) - 1 for row in rows]
    return [
        f"{number // 12}-{number % 12 + 1:02}" for number in range(min(numbers), max(numbers) + 1)
    ]
