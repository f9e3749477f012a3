"""Draws an evaluation: for each recipe and policy, what is wrong and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from geolookup.answer.claims import Policy
from geolookup.pictures.charts import (
    BLUE,
    INK,
    YELLOW,
    ImageFormat,
    add_title,
    frame,
    saved,
    shortened,
)
from geolookup.review.evaluation import Outcome, Recipe, Score

# The shapes tell them apart in print.
_POLICIES: Final = (
    (Policy.UNANIMOUS, BLUE, "o"),
    (Policy.MAJORITY, YELLOW, "s"),
    (Policy.PRIMARY, "#8a9096", "^"),
)
_LEAST: Final = 0.01
"""The smallest share, in per cent, that has a place of its own on the axis."""
_ROW_INCHES: Final = 0.24


def draw(scores: Sequence[Score], file: BinaryIO, image_format: ImageFormat) -> None:
    """Write the picture of an evaluation to an open file.

    Args:
        scores: at least one.
        file: open for writing bytes.
        image_format: "png" or "svg".
    """
    recipes = list(dict.fromkeys(score.recipe for score in scores))
    families = sorted({score.family for score in scores})
    height = 1.6 + _ROW_INCHES * len(recipes) * len(families)
    with saved(file, image_format, (12, height)) as figure:
        add_title(figure, "Shares of known prefixes, by recipe")
        rows = figure.subplots(len(families), 2, sharey="row", squeeze=False)
        for (left, right), family in zip(rows, families, strict=True):
            own = [score for score in scores if score.family == family]
            _draw_panel(left, own, recipes, "wrong")
            _draw_panel(right, own, recipes, "right")
            frame(left, f"IPv{family}: wrong", grid="x")
            frame(right, f"IPv{family}: right", grid="x")
            left.set_xscale("symlog", linthresh=_LEAST)
            left.set_xlim(0, 100)
            right.set_xlim(0, 100)
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper right", ncols=3, frameon=False, fontsize=8, labelcolor=INK
        )


def _draw_panel(
    panel: Axes, scores: Sequence[Score], recipes: Sequence[Recipe], outcome: Outcome
) -> None:
    for number, (policy, colour, marker) in enumerate(_POLICIES):
        for score in scores:
            if score.policy is not policy:
                continue
            at = recipes.index(score.recipe) + (number - 1) * 0.25
            share = 100 * score.share(outcome)
            interval = score.interval(outcome)
            if interval is not None:
                panel.plot(
                    [100 * interval.low, 100 * interval.high], [at, at], color=colour, linewidth=1
                )
            label = policy.name if score.recipe == recipes[0] else None
            panel.plot([share], [at], marker, color=colour, markersize=4, label=label)
    panel.set_yticks(range(len(recipes)), [shortened(recipe.label) for recipe in recipes])
    panel.set_ylim(len(recipes) - 0.5, -0.5)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
