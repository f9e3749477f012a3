"""Draws a subject: the map, its legend, totals and origin. PNG or SVG."""

from __future__ import annotations

import textwrap
from typing import BinaryIO, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from geolookup.pictures.cells import SPACE, curve, tally
from geolookup.pictures.charts import FAINT, INK, ImageFormat, saved
from geolookup.pictures.subjects import Category, Subject

# In units of 1/100 inch; a PNG has two pixels per unit.
_MAP: Final = 1024
_MARGIN: Final = 28
_PANEL: Final = 470
_HEAD: Final = 64
_DPI: Final = 200

_LEAST_BLEND: Final = 0.35
"""Opacity in a cell of the smallest part of what a picture is about."""


def draw(
    subject: Subject, file: BinaryIO, image_format: ImageFormat, *, prefix_length: int = 16
) -> None:
    """Write the picture of a subject to an open file.

    Args:
        subject: what to show.
        file: open for writing bytes.
        image_format: "png" or "svg"; in an SVG the map itself is an image inside.
        prefix_length: a cell of the map is a prefix of this length, 16 or 20.
    """
    width, height = _MARGIN * 3 + _MAP + _PANEL, _HEAD + _MAP + _MARGIN
    size = width / 100, height / 100
    with saved(file, image_format, size, dpi=_DPI, layout=None) as figure:
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        page.set_xlim(0, width)
        page.set_ylim(height, 0)
        area = figure.add_axes((_MARGIN / width, _MARGIN / height, _MAP / width, _MAP / height))
        image = _image(subject, prefix_length)
        _draw_map(area, image)
        _draw_heading(page, subject, prefix_length)
        _draw_panel(page, subject)


def _image(subject: Subject, prefix_length: int) -> NDArray[np.uint8]:
    """Return the map as rows of RGB pixels, one a cell."""
    counts = tally(subject.intervals, len(subject.categories), prefix_length).astype(np.float32)
    share = counts / (SPACE >> prefix_length)
    colours = np.array([_rgb(category.colour) for category in subject.categories])
    focus = np.array([category.focus for category in subject.categories])

    base = np.where(focus[:, None], 0.0, share).argmax(axis=0)
    pixels = colours[base]
    column, row = curve(prefix_length // 2)
    striped = np.array([category.striped for category in subject.categories])[base]
    # The same stripes at each resolution.
    period = 1 << prefix_length // 2 - 5
    dark = striped & ((column + row) % period < period // 2)
    pixels[dark] -= 16

    if focus.any():
        part = np.where(focus[:, None], share, 0.0)
        strongest = part.argmax(axis=0)
        amount = part.sum(axis=0)
        blend = np.where(amount > 0, _LEAST_BLEND + (1 - _LEAST_BLEND) * amount, 0.0)[:, None]
        pixels = pixels * (1 - blend) + colours[strongest] * blend
    side = 1 << prefix_length // 2
    image = np.empty((side, side, 3), dtype=np.uint8)
    image[row, column] = np.clip(np.rint(pixels), 0, 255)
    return image


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _draw_map(area: Axes, image: NDArray[np.uint8]) -> None:
    area.imshow(image, extent=(0, 16, 16, 0), interpolation="nearest", aspect="auto")
    area.set_xticks([])
    area.set_yticks([])
    for spine in area.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    for at in range(1, 16):
        area.axhline(at, color="#000000", alpha=0.13, linewidth=0.35)
        area.axvline(at, color="#000000", alpha=0.13, linewidth=0.35)
    block = image.shape[0] // 16
    for number, (column, row) in enumerate(zip(*curve(4), strict=True)):
        corner = image[row * block : row * block + block // 3, column * block :][:, : block // 2]
        dark = corner.reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114) < 128
        area.text(
            column + 0.06,
            row + 0.07,
            str(number),
            fontsize=6,
            va="top",
            ha="left",
            color="#ffffff" if dark else INK,
            alpha=0.8,
            path_effects=[
                withStroke(linewidth=1.2, foreground="#00000066" if dark else "#ffffffaa")
            ],
        )


def _draw_heading(page: Axes, subject: Subject, prefix_length: int) -> None:
    page.text(_MARGIN, 34, subject.title, fontsize=15, weight="bold", color=INK, va="baseline")
    page.text(
        _MARGIN,
        54,
        "The IPv4 address space along a Hilbert curve: each square with a number is a /8, "
        f"the smallest squares are /{prefix_length}.",
        fontsize=8,
        color=FAINT,
        va="baseline",
    )


def _draw_panel(page: Axes, subject: Subject) -> None:
    left = _MARGIN * 2 + _MAP
    right = left + _PANEL
    y = _HEAD + 12.0
    y = _draw_headings(page, y, left, right, "Legend")
    for category, total in zip(subject.categories, subject.totals(), strict=True):
        _draw_swatch(page, left, y, category)
        _draw_row(page, y, (left + 30, right), category.label, total)
        y += 23
    page.plot([left, right], [y - 11, y - 11], color="#c8ccd0", linewidth=0.6)
    _draw_row(page, y + 3, (left + 30, right), "all IPv4 addresses", SPACE)
    y += 36
    if any(category.focus for category in subject.categories):
        note = (
            "What the picture is about shows in each smallest square that holds any of it: pale "
            "where it is a small part, in full colour where it is all."
        )
        y = _draw_lines(page, y, left, textwrap.wrap(note, 78), FAINT)
    title, rows = subject.pairs
    y = _draw_headings(page, y + 14, left, right, title)
    for text, total in rows or (("none", 0),):
        _draw_row(page, y, (left, right), text, total)
        y += 20
    lines = [line for text in subject.attributions for line in textwrap.wrap(text, 78)]
    lines = [*(f"dataset {text}" for text in subject.datasets), *lines, "drawn by geolookup"]
    _draw_lines(page, _HEAD + _MAP - 15 * len(lines) + 9, left, lines, FAINT)


def _draw_headings(page: Axes, y: float, left: float, right: float, title: str) -> float:
    page.text(left, y, title, fontsize=9, weight="bold", color=INK, va="center")
    page.text(right - 76, y, "addresses", fontsize=7.5, color=FAINT, va="center", ha="right")
    page.text(right, y, "share", fontsize=7.5, color=FAINT, va="center", ha="right")
    page.plot([left, right], [y + 12, y + 12], color="#c8ccd0", linewidth=0.6)
    return y + 27


def _draw_swatch(page: Axes, left: float, y: float, category: Category) -> None:
    page.add_patch(
        Rectangle(
            (left, y - 7.5),
            20,
            15,
            facecolor=category.colour,
            edgecolor="#8a9096",
            linewidth=0.5,
            hatch="////" if category.striped else None,
        )
    )


def _draw_row(page: Axes, y: float, sides: tuple[float, float], text: str, total: int) -> None:
    left, right = sides
    shown = textwrap.shorten(text, 42, placeholder="…")
    share = f"{100 * total / SPACE:.2f} %"
    if total and share == "0.00 %":
        share = "< 0.01 %"  # which is not nothing
    page.text(left, y, shown, fontsize=8.5, color=INK, va="center")
    page.text(right - 76, y, f"{total:,}", fontsize=8.5, color=INK, va="center", ha="right")
    page.text(right, y, share, fontsize=8.5, color=INK, va="center", ha="right")


def _draw_lines(page: Axes, y: float, left: float, lines: list[str], colour: str) -> float:
    for line in lines:
        page.text(left, y, line, fontsize=7.5, color=colour, va="center")
        y += 15
    return y
