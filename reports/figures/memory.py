"""Whether everything fits: memory needed, by part, against what a tier's machines can give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, rectangle, text_width_in, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import CATEGORIES, LIGHT
from reports.words import label, percent, size, size_pair, tier_rank
from simulator.result import SimulationResult, TierMemory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_IN = 0.66
BAR_IN = 0.27
LEFT_IN = 2.6
RIGHT_IN = 2.3
Part = tuple[str, str, float]  # name, colour role, GiB


def draw_memory(result: SimulationResult) -> Drawing:
    """Return a bar per tier, scaled to what the tier can give (= 100 %); its parts are named below it."""
    tiers = sorted(result.memory, key=tier_rank)
    said = "; ".join(f"{label(tier)} {size_pair(result.memory[tier].needed_gib, result.memory[tier].available_gib)}" for tier in tiers)
    return draw(
        name="memory",
        title=f"Memory needed of available: {said}",
        height_in=ROW_IN * len(tiers) + 0.62,
        paint=lambda sheet: _paint(sheet, result, tiers),
    )


def parts_of(memory: TierMemory) -> list[Part]:
    """Return the parts from the largest to the smallest, each with a colour; one part where none is told."""
    known = [(part, gib) for part, gib in memory.parts_gib.items() if gib > 0] or [("needed", memory.needed_gib)]
    ordered = sorted(known, key=lambda item: (-item[1], item[0]))
    return [(part, CATEGORIES[min(index, len(CATEGORIES) - 1)], gib) for index, (part, gib) in enumerate(ordered)]


def _paint(sheet: Sheet, result: SimulationResult, tiers: Sequence[str]) -> None:
    axes = sheet.axes(left=LEFT_IN, bottom=0.52, right=RIGHT_IN, top=0.1)
    fullest = max(memory.needed_gib / memory.available_gib if memory.available_gib else 1.0 for memory in result.memory.values())
    end = max(1.0, 1.02 * fullest)
    axes.set_xlim(0, end)
    axes.set_ylim(ROW_IN * len(tiers), 0)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    value_axis(axes, "share of the memory that the tier's machines can give")
    axes.grid(visible=False)  # it would run through the words below the bars
    near: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    for row, tier in enumerate(tiers):
        memory, top = result.memory[tier], ROW_IN * row
        middle = top + BAR_IN / 2
        _bar(sheet, axes, top, tier, memory, inch_per_share=(sheet.width_in - LEFT_IN - RIGHT_IN) / end)
        axes.annotate(label(tier), (0, middle), (-10, 0), ha="right", **near)
        words = size_pair(memory.needed_gib, memory.available_gib)
        verdict = "fits" if memory.fits else f"{size(memory.needed_gib - memory.available_gib)} short"
        role = "ink" if memory.fits else "warn"
        text = f"{words} · {verdict}"
        axes.annotate(text, (1, middle), (10, 0), xycoords=("axes fraction", "data"), color=LIGHT[role], fontweight="bold", **near)
        axes.plot([1, 1], [top - 0.05, top + BAR_IN + 0.05], color=LIGHT["ink"], linewidth=1.8, clip_on=False)


def _bar(sheet: Sheet, axes: Axes, top: float, tier: str, memory: TierMemory, *, inch_per_share: float) -> None:
    rectangle(axes, 0, top, 1.0, BAR_IN, "soft")
    whole = memory.available_gib or memory.needed_gib or 1.0
    start = named_in = 0.0
    parts = parts_of(memory)
    room_in = sheet.width_in - LEFT_IN - 0.1
    for index, (part, role, gib) in enumerate(parts):
        bar = rectangle(axes, start, top, gib / whole, BAR_IN, role)
        sheet.tip(bar, f"{label(tier)}: {label(part)} {size(gib)}, {percent(gib / whole)} of the available memory")
        start += gib / whole
        words = f"{label(part)} {size(gib)}"
        width_in = 0.15 + text_width_in(words, SMALL_PT) + 0.2
        if index and named_in + width_in > room_in - 0.3:
            continue
        y = top + BAR_IN + 0.16
        rectangle(axes, named_in / inch_per_share, y - 0.045, 0.09 / inch_per_share, 0.09, role, clip_on=False)
        axes.text((named_in + 0.15) / inch_per_share, y, words, va="center", fontsize=SMALL_PT, color=LIGHT["muted"])
        named_in += width_in
