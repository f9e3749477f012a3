"""What people read: aligned tables, safe text, a progress bar for what takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_PATIENCE = 2.0
"""Seconds before a progress bar appears: sooner it would only flicker."""


def table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return rows as lines of aligned columns; the columns *right* are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = set(right)
    lines = (
        "  ".join(
            cell.rjust(width) if index in aligned else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def printable(text: str) -> str:
    """Return a text without what could steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def share(part: int, whole: int) -> str:
    """Return a share in per cent, such as "2.9 %".

    What is not nothing is never "0.0 %", and what is not all is never "100.0 %".
    """
    return per_cent(Fraction(part, whole), 1) if whole else "-"


def per_cent(share: Fraction, decimals: int) -> str:
    """Return a share of any size in per cent, with so many decimals; see `share`."""
    step = Fraction(1, 10**decimals)
    if 0 < 100 * share < step:
        return f"< {float(step):.{decimals}f} %"
    if 100 - step < 100 * share < 100:
        return f"> {float(100 - step):.{decimals}f} %"
    return f"{float(100 * share):.{decimals}f} %"


class Progress:
    """A progress bar on standard error, for terminals, after two seconds.

    Args:
        label: what is being done; `update` may change it.
        total: how much there is to do; None where that is not known, and no bar is shown.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self._label = label
        self._total = total
        self._shown_from = time.monotonic() + _PATIENCE
        self._bar: ProgressBar[int] | None = None

    def __enter__(self) -> Self:
        return self

    def update(self, done: int, total: int | None = None, label: str | None = None) -> None:
        """Say how much is done of the total, both counted from the beginning."""
        self._total = self._total if total is None else total
        self._label = label or self._label
        if not self._total or time.monotonic() < self._shown_from or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.label = self._label
        self._bar.length = self._total
        self._bar.update(min(done, self._total) - self._bar.pos)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()
