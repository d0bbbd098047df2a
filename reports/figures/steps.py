"""Where a step's time goes: one stacked bar per mode, the parts of a rank's critical lane in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reports.figures.canvas import SMALL_PT, Sheet, draw, legend, legend_height_in, text_width_in, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import CATEGORIES, LIGHT, text_role
from reports.words import label, mode_rank, percent, seconds
from simulator.result import SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_IN = 0.52
LEFT_IN = 1.3
KINDS = (
    ("slowest", "warn"),
    ("wait", "c2"),
    ("reduce", "c3"),
    ("exchange", "c3"),
    ("forward", "accent"),
    ("lookup", "c5"),
    ("push", "c4"),
    ("barrier", "c7"),
    ("host", "c6"),
    ("optimizer", "muted"),
)


def draw_steps(results: Sequence[SimulationResult]) -> Drawing:
    """Return stacked bars of the mean step, in milliseconds, one per mode; parts keep their colour across modes."""
    rows = sorted(results, key=lambda result: mode_rank(result.mode))
    roles = part_roles(results)
    items = [(role, label(part)) for part, role in roles.items()]
    key_in = legend_height_in(items, left=LEFT_IN)

    def paint(sheet: Sheet) -> None:
        legend(sheet, items, left=LEFT_IN, top=0.02)
        _paint(sheet, rows, results[0], roles, top=key_in + 0.12)

    main = results[0]
    said = "; ".join(f"{label(part.part)} {seconds(part.seconds)}" for part in main.step_parts)
    title = f"Parts of a step, {main.mode}: {said}"
    return draw(name="step", title=title, height_in=ROW_IN * len(rows) + key_in + 0.72, paint=paint)


def part_roles(results: Sequence[SimulationResult]) -> dict[str, str]:
    """Return a colour role for every part, in the order in which parts first appear.

    Known kinds of work keep their colour on every page: computing is blue, waiting is warm, the host is grey.
    """
    parts = list(dict.fromkeys(part.part for result in results for part in result.step_parts if part.seconds > 0))
    roles: dict[str, str] = {}
    for part in parts:
        kind = next((role for word, role in KINDS if word in part), None)
        if kind is not None and kind not in roles.values():
            roles[part] = kind
    free = [role for role in CATEGORIES if role not in roles.values()]
    others = [part for part in parts if part not in roles]
    roles.update({part: free[index % len(free)] if free else CATEGORIES[-1] for index, part in enumerate(others)})
    return {part: roles[part] for part in parts}


def _paint(sheet: Sheet, rows: Sequence[SimulationResult], main: SimulationResult, roles: Mapping[str, str], *, top: float) -> None:
    axes = sheet.axes(left=LEFT_IN, bottom=0.52, right=1.1, top=top)
    longest_ms = 1e3 * max(sum(part.seconds for part in result.step_parts) for result in rows) or 1.0
    inch_per_ms = (sheet.width_in - LEFT_IN - 1.1) / (1.01 * longest_ms)
    axes.set_xlim(0, 1.01 * longest_ms)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    for row, result in enumerate(rows):
        total_ms = _stack(sheet, axes, row, result, roles, inch_per_ms)
        weight = "bold" if result is main else "normal"
        axes.annotate(result.mode, (0, row), (-10, 0), textcoords="offset points", va="center", ha="right", fontweight=weight)
        axes.annotate(seconds(total_ms / 1e3), (total_ms, row), (8, 0), textcoords="offset points", va="center", fontweight=weight)
    value_axis(axes, "mean time of a step, ms")


def _stack(sheet: Sheet, axes: Axes, row: int, result: SimulationResult, roles: Mapping[str, str], inch_per_ms: float) -> float:
    start_ms = 0.0
    for part in result.step_parts:
        if part.seconds <= 0:
            continue
        width_ms = 1e3 * part.seconds
        edge = LIGHT["paper"]
        bar = axes.barh(row, width_ms, left=start_ms, height=0.66, color=LIGHT[roles[part.part]], edgecolor=edge, linewidth=0.8).patches[0]
        sheet.tip(bar, f"{result.mode}: {label(part.part)} {seconds(part.seconds)}, {percent(part.share)} of the step")
        words = seconds(part.seconds)
        if width_ms * inch_per_ms > text_width_in(words, SMALL_PT) + 0.08:
            axes.text(
                start_ms + width_ms / 2, row, words, ha="center", va="center", fontsize=SMALL_PT, color=LIGHT[text_role(roles[part.part])]
            )
        start_ms += width_ms
    return start_ms
