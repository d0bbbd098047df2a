"""Three histograms, one per meaning of staleness, each with its mean and 99th percentile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import SMALL_PT, Sheet, draw
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT
from reports.words import percent, updates
from simulator.result import SimulationResult, Staleness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN = 2.9
BOTTOM_IN = 0.72
BARS = 40
NICE = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000)
PANELS = (
    ("version", "version staleness", "updates by other batches, per batch and server"),
    ("in_flight", "in-flight staleness", "lookups without an applied update, at each lookup"),
    ("row", "row staleness", "updates that touched the same row"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bars of a histogram: `edges` (one more than shares) and the share of all records in each, 0..1."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    names: tuple[str, ...]


def even_bins(histogram: Mapping[int, float]) -> Bins:
    """Return at most forty bins of one nice width over the values that occur."""
    low, high = min(histogram), max(histogram)
    width = next((nice for nice in NICE if (high - low + 1) / nice <= BARS), 10 ** math.ceil(math.log10((high - low + 1) / BARS)))
    first = low // width * width
    number = (high - first) // width + 1
    weights = [0.0] * number
    for value, weight in histogram.items():
        weights[(value - first) // width] += weight
    total = sum(weights) or 1.0
    starts = [first + index * width for index in range(number)]
    names = tuple(str(start) if width == 1 else f"{start} to {start + width - 1}" for start in starts)
    return Bins(
        edges=tuple(float(start) for start in [*starts, starts[-1] + width]),
        shares=tuple(weight / total for weight in weights),
        names=names,
    )


def quadrupling_bins(histogram: Mapping[int, float]) -> Bins:
    """Return bins 0, 1-3, 4-15, 16-63, ... for a long tail; the edges number the bins."""
    number = max(_quads(value) for value in histogram) + 1
    weights = [0.0] * number
    for value, weight in histogram.items():
        weights[_quads(value)] += weight
    total = sum(weights) or 1.0
    names = ["0", *(f"{4 ** (index - 1)}\u2013{4**index - 1}" for index in range(1, number))]
    edges = tuple(float(index) for index in range(number + 1))
    return Bins(edges=edges, shares=tuple(weight / total for weight in weights), names=tuple(names))


def _quads(value: int) -> int:
    return (value.bit_length() + 1) // 2


def draw_staleness(result: SimulationResult) -> Drawing:
    """Return the three panels side by side; heights are shares of all records."""
    said = ", ".join(f"{words} mean {updates(_measure(result, key).mean)}" for key, words, _ in PANELS)
    return draw(name="staleness", title=f"Staleness histograms: {said}", height_in=HEIGHT_IN, paint=lambda sheet: _paint(sheet, result))


def _measure(result: SimulationResult, key: str) -> Staleness:
    return {"version": result.staleness.version, "in_flight": result.staleness.in_flight, "row": result.staleness.row}[key]


def _paint(sheet: Sheet, result: SimulationResult) -> None:
    panel_in = sheet.width_in / len(PANELS)
    for column, (key, words, unit) in enumerate(PANELS):
        axes = sheet.axes(left=column * panel_in + 0.52, bottom=BOTTOM_IN, right=sheet.width_in - (column + 1) * panel_in + 0.12, top=0.62)
        measure = _measure(result, key)
        axes.set_title(words, loc="left", fontsize=10, fontweight="bold", color=LIGHT["ink"], pad=20, x=-0.02)
        summary = f"mean {updates(measure.mean)}, p99 {updates(measure.p99)}, max {updates(measure.max)}"
        axes.annotate(
            summary, (-0.02, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL_PT, color=LIGHT["muted"]
        )
        if not measure.histogram:
            axes.text(0.5, 0.5, "no records", transform=axes.transAxes, ha="center", color=LIGHT["muted"])
        elif key == "row":
            _quadrupling(sheet, axes, measure)
        else:
            _even(sheet, axes, measure)
        axes.grid(axis="y", color=LIGHT["rule"], linewidth=0.7)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.locator_params(axis="y", nbins=4)
        axes.set_xlabel(unit, labelpad=5)


def _even(sheet: Sheet, axes: Axes, measure: Staleness) -> None:
    bins = even_bins(measure.histogram)
    width = bins.edges[1] - bins.edges[0]
    bars = axes.bar([edge + width / 2 - 0.5 for edge in bins.edges[:-1]], bins.shares, width=0.9 * width, color=LIGHT["accent"])
    for bar, name, share in zip(bars.patches, bins.names, bins.shares, strict=True):
        sheet.tip(bar, f"{name} updates: {percent(share)} of the records")
    if len(bins.shares) == 1:
        axes.set_xlim(bins.edges[0] - 5.5, bins.edges[0] + 5.5)
        axes.set_xticks([bins.edges[0]])
    else:
        axes.axvline(measure.mean, color=LIGHT["warn"], linewidth=1.3)
        # The word stands on the emptier side of its line.
        near_right = measure.mean > 0.6 * bins.edges[-1] + 0.4 * bins.edges[0]
        near: dict[str, Any] = {
            "xycoords": ("data", "axes fraction"),
            "textcoords": "offset points",
            "va": "top",
            "ha": "right" if near_right else "left",
        }
        axes.annotate("mean", (measure.mean, 1), (-4 if near_right else 4, -3), fontsize=SMALL_PT, color=LIGHT["warn"], **near)
        axes.locator_params(axis="x", nbins=6, integer=True)
    axes.set_ylim(0, 1.15 * max(bins.shares))


def _quadrupling(sheet: Sheet, axes: Axes, measure: Staleness) -> None:
    bins = quadrupling_bins(measure.histogram)
    bars = axes.bar(range(len(bins.shares)), bins.shares, width=0.86, color=LIGHT["accent"])
    for index, (bar, name, share) in enumerate(zip(bars.patches, bins.names, bins.shares, strict=True)):
        sheet.tip(bar, f"{name} updates: {percent(share)} of the records")
        axes.annotate(percent(share), (index, share), (0, 3), textcoords="offset points", ha="center", fontsize=7, color=LIGHT["muted"])
    crowded = len(bins.names) > 5
    axes.set_xticks(range(len(bins.names)), bins.names, fontsize=7, rotation=25 if crowded else 0)
    axes.set_ylim(0, 1.15 * max(bins.shares))
