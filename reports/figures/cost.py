"""The bill by the hour, tier by tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT
from reports.words import dollars, label, percent, tier_rank
from simulator.result import SimulationResult

ROW_IN = 0.5


def draw_cost(result: SimulationResult) -> Drawing | None:
    """Return a bar per tier in US dollars an hour; None where no price is known."""
    tiers = sorted((tier for tier, bill in result.cost.tiers.items() if bill.machines), key=tier_rank)
    if not tiers or not result.cost.usd_per_hour:
        return None
    said = "; ".join(f"{label(tier)} {dollars(result.cost.tiers[tier].usd_per_hour)}" for tier in tiers)
    return draw(
        name="bill",
        title=f"Cost in US dollars an hour by tier: {said}",
        height_in=ROW_IN * len(tiers) + 0.62,
        paint=lambda sheet: _paint(sheet, result, tiers),
    )


def _paint(sheet: Sheet, result: SimulationResult, tiers: Sequence[str]) -> None:
    axes = sheet.axes(left=2.6, bottom=0.52, right=2.3, top=0.1)
    bills = [result.cost.tiers[tier] for tier in tiers]
    total = sum(bill.usd_per_hour for bill in bills) or 1.0
    top = max(bill.usd_per_hour for bill in bills) or 1.0
    near: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    for row, (tier, bill) in enumerate(zip(tiers, bills, strict=True)):
        most = bill.usd_per_hour == top
        bar = axes.barh(row, bill.usd_per_hour, height=0.6, color=LIGHT["accent" if most else "pale"]).patches[0]
        machines = f"{bill.machines:,} \u00d7 {bill.machine_type}"
        sheet.tip(bar, f"{label(tier)}: {machines}, {dollars(bill.usd_per_hour)} an hour; {bill.source}")
        axes.annotate(label(tier), (0, row), (-10, 6), ha="right", fontweight="bold" if most else "normal", **near)
        axes.annotate(machines, (0, row), (-10, -7), ha="right", fontsize=SMALL_PT, color=LIGHT["muted"], **near)
        words = f"{dollars(bill.usd_per_hour)} an hour · {percent(bill.usd_per_hour / total)}"
        axes.annotate(words, (bill.usd_per_hour, row), (8, 0), fontweight="bold" if most else "normal", **near)
    axes.set_xlim(0, 1.01 * top)
    axes.set_ylim(len(tiers) - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"${value:,.0f}")
    value_axis(axes, f"US dollars an hour, {result.cost.pricing_model} prices")
