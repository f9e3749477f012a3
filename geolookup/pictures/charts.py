"""What all pictures have in common: colours, type, and files that state no date."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ImageFormat = Literal["png", "svg"]

INK: Final = "#22262a"
"""Colour of text and frames."""
FAINT: Final = "#6b7278"
"""Colour of text of less weight."""
BLUE: Final = "#0072b2"
YELLOW: Final = "#e69f00"
"""With blue from Okabe and Ito, https://jfly.uni-koeln.de/color/: told apart by those who see
few colours, and in print by their lightness."""
GREY: Final = "#c8ced3"


@contextlib.contextmanager
def saved(
    file: BinaryIO | Path,
    image_format: str,
    size: tuple[float, float],
    *,
    dpi: int = 150,
    layout: Literal["constrained"] | None = "constrained",
) -> Iterator[Figure]:
    """Give a figure to draw into; write it when the block ends.

    The same drawing has the same bytes: what would change from one day or version to the next
    stays out, and the font is the one that comes with matplotlib.

    Args:
        file: open for writing bytes, or a path.
        image_format: "png" or "svg".
        size: width and height in inches.
        dpi: pixels per inch.
        layout: who places the panels; None: the caller does.
    """
    with mpl.rc_context({"font.family": "DejaVu Sans", "svg.hashsalt": "geolookup"}):
        figure = Figure(figsize=size, dpi=dpi, facecolor="white", layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        metadata = {"Date": None} if image_format == "svg" else {"Software": None}
        figure.savefig(file, format=image_format, dpi=dpi, metadata=metadata)


def add_title(figure: Figure, title: str, size: float | str = "large") -> None:
    """Write a title above all panels."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=size, color=INK, weight="bold")


def frame(
    panel: Axes, title: str, *, grid: Literal["x", "y", "both"] = "both", size: float = 9
) -> None:
    """Give a panel its title, its grid, and lines at the left and below alone."""
    panel.set_title(title, loc="left", fontsize=size, color=INK)
    panel.tick_params(labelsize=7, colors=FAINT, length=2)
    panel.grid(axis=grid, color="#000000", alpha=0.08, linewidth=0.5)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def shortened(text: str, limit: int = 60) -> str:
    """Return a label of at most so many characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
