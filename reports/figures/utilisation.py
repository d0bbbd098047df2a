"""How busy every resource of every tier is, as bars from 0 to 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, rectangle, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import load_role
from reports.words import label, percent, tier_rank
from simulator.result import SimulationResult

ROW_IN = 0.29
TIER_GAP_IN = 0.16
LANE = "training_lane"  # the share of time in which a rank does not wait: no hardware, so it has no load colour


def draw_utilisation(result: SimulationResult) -> Drawing:
    """Return one bar per tier and resource; the bottleneck is named in bold."""
    tiers = sorted((tier for tier in result.utilisation if result.utilisation[tier]), key=tier_rank)
    rows = sum(len(result.utilisation[tier]) for tier in tiers)
    busiest = result.bottleneck
    return draw(
        name="utilisation",
        title=f"Utilisation of every resource; the bottleneck is {label(busiest.tier)}, {label(busiest.resource)}",
        height_in=ROW_IN * rows + TIER_GAP_IN * len(tiers) + 0.62,
        paint=lambda sheet: _paint(sheet, result, tiers),
    )


def _paint(sheet: Sheet, result: SimulationResult, tiers: Sequence[str]) -> None:
    axes = sheet.axes(left=3.6, bottom=0.52, right=0.8, top=0.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(sheet.height_in - 0.52, 0)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    value_axis(axes, "share of the measured time (processors, accelerators) or of the capacity (networks) in use, mean over the tier")
    near: dict[str, Any] = {"textcoords": "offset points", "va": "center", "xycoords": ("axes fraction", "data")}
    y = 0.0
    for tier in tiers:
        y += TIER_GAP_IN
        axes.annotate(label(tier), (0, y + ROW_IN / 2), (-250, 0), fontweight="bold", **near)
        resources = sorted(result.utilisation[tier].items(), key=lambda item: (-item[1], item[0]))
        for resource, share in resources:
            held = (tier, resource) == (result.bottleneck.tier, result.bottleneck.resource)
            rectangle(axes, 0, y + 0.05, 1, ROW_IN - 0.1, "soft")
            bar = rectangle(axes, 0, y + 0.05, min(share, 1.0), ROW_IN - 0.1, "c6" if resource == LANE else load_role(share))
            sheet.tip(bar, f"{label(tier)}, {label(resource)}: {percent(share)}")
            weight, words = ("bold", f"{label(resource)} (bottleneck)") if held else ("normal", label(resource))
            axes.annotate(words, (0, y + ROW_IN / 2), (-10, 0), ha="right", fontsize=SMALL_PT, fontweight=weight, **near)
            axes.annotate(percent(share), (1, y + ROW_IN / 2), (44, 0), ha="right", fontweight=weight, fontsize=SMALL_PT, **near)
            y += ROW_IN
