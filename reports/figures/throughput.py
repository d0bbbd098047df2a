"""Throughput by mode, each with its 95 % interval, on an axis that starts at zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT
from reports.words import interval, mode_rank, rate, spread
from simulator.result import SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_IN = 0.46


def draw_throughput(results: Sequence[SimulationResult]) -> Drawing:
    """Return bars of samples/s; the first result is the main one and stands out."""
    rows = sorted(results, key=lambda result: mode_rank(result.mode))
    said = "; ".join(f"{result.mode} {interval(result.throughput.samples_per_s)}" for result in rows)
    return draw(
        name="throughput",
        title=f"Throughput by mode in samples per second, 95 % intervals: {said}",
        height_in=ROW_IN * len(rows) + 0.62,
        paint=lambda sheet: _paint(sheet, rows, results[0]),
    )


def _paint(sheet: Sheet, rows: Sequence[SimulationResult], main: SimulationResult) -> None:
    axes = sheet.axes(left=1.3, bottom=0.52, right=2.4, top=0.1)
    top = max(_end(result) for result in rows)
    scale, unit = (1e6, "million ") if top >= 1e6 else (1e3, "thousand ") if top >= 1e3 else (1.0, "")
    for row, result in enumerate(rows):
        _bar(sheet, axes, row, result, scale=scale, chosen=result is main)
    axes.set_xlim(0, 1.02 * top / scale or 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    value_axis(axes, f"{unit}samples/s; the thin line across a bar's end spans the 95 % interval")


def _end(result: SimulationResult) -> float:
    value = result.throughput.samples_per_s
    return value.high if math.isfinite(value.high) else value.mean


def _bar(sheet: Sheet, axes: Axes, row: int, result: SimulationResult, *, scale: float, chosen: bool) -> None:
    value = result.throughput.samples_per_s
    weight = "bold" if chosen else "normal"
    bar = axes.barh(row, value.mean / scale, height=0.62, color=LIGHT["accent" if chosen else "pale"]).patches[0]
    sheet.tip(bar, f"{result.mode}: {rate(value.mean)}, 95 % interval {interval(value)} samples/s")
    if math.isfinite(value.high):
        axes.plot(
            [value.low / scale, value.high / scale], [row, row], color=LIGHT["ink"], linewidth=1.4, solid_capstyle="butt", clip_on=False
        )
        for end in (value.low / scale, value.high / scale):
            axes.plot([end, end], [row - 0.12, row + 0.12], color=LIGHT["ink"], linewidth=1.0, clip_on=False)
    near: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    axes.annotate(rate(value.mean), (_end(result) / scale, row), (8, 0), fontweight=weight, **near)
    axes.annotate(result.mode, (0, row), (-10, 0), ha="right", fontweight=weight, **near)
    words = spread(value)
    axes.annotate(
        words, (1, row), (162, 0), xycoords=("axes fraction", "data"), ha="right", fontsize=SMALL_PT, color=LIGHT["muted"], **near
    )
