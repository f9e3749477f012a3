"""What people read: aligned tables, safe text, a progress bar for what takes long."""

from __future__ import annotations

import os
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


_COLOURS = {"INSIDE": "cyan", "UNDETERMINED": "yellow"}
"""Of verdicts: what a measure reaches, and what nothing is known of."""


def table(
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int] = (),
    widths: Sequence[int] | None = None,
    verdicts: bool = False,
) -> str:
    """Return rows as lines of aligned columns.

    Args:
        rows: of the same number of cells.
        right: the columns that are right-aligned.
        widths: the least characters of each column, for tables in pieces.
        verdicts: whether verdicts have colours, on terminals that may have some. A reason
            may follow after a colon.
    """
    widest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if widths is not None:
        widest = list(map(max, widest, widths))
    aligned = set(right)
    colours = _COLOURS if verdicts and "NO_COLOR" not in os.environ else {}

    def shown(index: int, cell: str) -> str:
        width = widest[index]
        text = cell.rjust(width) if index in aligned else cell.ljust(width)
        if index == len(widest) - 1:
            text = text.rstrip()
        # Removed by click.echo where the output is no terminal.
        colour = colours.get(cell.partition(":")[0])
        return click.style(text, fg=colour) if colour else text

    lines = ("  ".join(shown(index, cell) for index, cell in enumerate(row)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


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
        total: how much there is to do; None where that is not known, as of a pipe, and a
            count is shown.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self._label = label
        self._total = total
        self._shown_from = time.monotonic() + _PATIENCE
        self._bar: ProgressBar[int] | None = None
        self._counts = False

    def __enter__(self) -> Self:
        return self

    def update(self, done: int, total: int | None = None, label: str | None = None) -> None:
        """Say how much is done of the total, both counted from the beginning."""
        self._total = self._total if total is None else total
        self._label = label or self._label
        if not done or time.monotonic() < self._shown_from or not sys.stderr.isatty():
            return
        if not self._total:
            self._counts = True
            click.echo(f"\r{self._label}  {done:,}", err=True, nl=False)
            return
        if self._bar is None:
            self._bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.label = self._label
        self._bar.length = self._total
        self._bar.update(min(done, self._total) - self._bar.pos)

    def finish(self) -> None:
        """End the line of the bar, so that other lines may follow. An update begins a new one."""
        if self._bar is not None:
            self._bar.render_finish()
        elif self._counts:
            click.echo(err=True)
        self._bar, self._counts = None, False

    def __exit__(self, *_: object) -> None:
        self.finish()
