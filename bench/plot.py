"""The table of `bench.peers` as a picture: one panel a work, one bar a contender.

Needs matplotlib, which the extra `map` has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.contenders import GeoLookup, MemoryLoop
from geolookup.pictures.charts import BLUE, FAINT, GREY, INK, YELLOW, add_title, frame, saved

# The sizes that say most: many where a caller has many, as many as a meeting has for text.
PANELS: Final = (
    ("packed IPv4", 100_000),
    ("packed IPv6", 100_000),
    ("text IPv4", 1_000),
    ("text IPv6", 1_000),
    ("single IPv4", 1_000),
    ("single IPv6", 1_000),
)


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a report of `bench.peers`, as PNG or SVG by the path's ending."""
    rows = {(row["work"], row["size"], row["draw"]): row for row in report["rows"]}
    panels = [one for one in PANELS if (*one, "assigned") in rows]
    if not panels:
        raise ValueError("the report has no row that the picture shows")
    bars = [len(rows[*one, "assigned"]["ratio"]) for one in panels]
    inches = (9, 0.9 + sum(0.23 * count + 0.5 for count in bars))
    with saved(path, path.suffix.lower().removeprefix("."), inches) as figure:
        add_title(
            figure,
            "Nanoseconds an address: bars for addresses of the assigned space, dots for those next"
            " to boundaries",
            9,
        )
        axes = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": bars}
        )[:, 0]
        for axis, (work, size) in zip(axes, panels, strict=True):
            _draw(
                axis,
                work,
                size,
                [rows.get((work, size, kind)) for kind in ("assigned", "boundary")],
            )
        machine = report["machine"]
        # Not `figure.text`, for which constrained layout leaves no room.
        figure.supxlabel(
            f"{machine['processor']}, {machine['system']}, Python {machine['python']},"
            f" {machine['date']}; dataset {report['dataset'][:12]}",
            x=0.99,
            ha="right",
            fontsize=6,
            color=FAINT,
        )


def _draw(axis: Axes, work: str, size: int, rows: Sequence[Mapping[str, Any] | None]) -> None:
    assigned, boundary = (
        {} if row is None else {n: t["median"] for n, t in row["nanoseconds_per_address"].items()}
        for row in rows
    )
    names = sorted(assigned, key=assigned.__getitem__, reverse=True)
    colours = {GeoLookup.name: BLUE, MemoryLoop.name: GREY}
    axis.set_xscale("log")
    axis.barh(
        names,
        [assigned[name] for name in names],
        height=0.7,
        color=[colours.get(name, YELLOW) for name in names],
    )
    for place, name in enumerate(names):
        if name in boundary:
            axis.plot(boundary[name], place, "o", markersize=2.5, color=INK)
        ratio = assigned[name] / assigned[GeoLookup.name]
        text = f"{assigned[name]:,.1f} ns"
        if name != GeoLookup.name:
            text += f"  {ratio:,.1f}x"
        end = max(assigned[name], boundary.get(name, 0))
        axis.annotate(
            text,
            (end, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
            color=INK,
        )
    calls = f"{size:,} a call" if not work.startswith("single") else "one a call"
    frame(axis, f"{work}, {calls}", grid="x", size=8)
    axis.set_xlim(1, 200_000)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=6.5, colors=INK)
