"""A few successive batches of one rank on their way through loader, worker, server and accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from persia.trace import Span
from reports.figures.canvas import SMALL_PT, Sheet, draw, rectangle, text_width_in, value_axis
from reports.figures.folds import Stretch, fold, place, ticks, width
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT, text_role
from reports.words import label, seconds, tier_rank
from simulator.result import SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHES = 5
ROW_IN = 0.2
NUMBER_PT = 7.5
GAP_IN = 0.06
TIER_GAP_IN = 0.16
LEFT_IN = 2.75
RIGHT_IN = 0.25
MAX_ROWS_PER_LANE = 8
BESIDE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
BATCH_ROLES = ("accent", "c2", "c3", "c4", "c5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One kind of work on one tier; `rows` are spans packed so that none overlaps its neighbour."""

    tier: str
    name: str
    rows: tuple[tuple[Span, ...], ...]
    hidden: int


def chosen_batches(result: SimulationResult) -> list[int]:
    """Return up to five successive batches of one rank, those that the spans follow furthest."""
    ranks = max(result.ranks, 1)
    kinds = Counter(span.batch for span in result.spans)
    by_rank: dict[int, list[int]] = {}
    for batch in sorted(kinds):
        by_rank.setdefault(batch % ranks, []).append(batch)
    if not by_rank:
        return []
    fullest = max(by_rank.values(), key=lambda batches: (sum(kinds[batch] for batch in batches), -batches[0]))
    complete = max(kinds[batch] for batch in fullest)
    whole = [batch for batch in fullest if kinds[batch] == complete]
    return (whole if len(whole) >= 3 else fullest)[:BATCHES]


def lanes(result: SimulationResult, batches: Sequence[int]) -> list[Lane]:
    """Return the lanes in the order in which a batch meets them: by tier, then by the first start."""
    groups: dict[tuple[str, str], list[Span]] = {}
    wanted = set(batches)
    for span in sorted(result.spans, key=lambda span: (span.start_s, span.batch)):
        if span.batch in wanted:
            groups.setdefault((span.tier, span.name), []).append(span)
    found = []
    for (tier, name), spans in sorted(groups.items(), key=lambda item: (tier_rank(item[0][0]), item[1][0].start_s)):
        rows = _pack(spans)
        hidden = sum(len(row) for row in rows[MAX_ROWS_PER_LANE:])
        found.append(Lane(tier=tier, name=name, rows=tuple(tuple(row) for row in rows[:MAX_ROWS_PER_LANE]), hidden=hidden))
    return found


def _pack(spans: Sequence[Span]) -> list[list[Span]]:
    rows: list[list[Span]] = []
    for span in spans:
        row = next((row for row in rows if row[-1].end_s <= span.start_s), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def draw_timeline(result: SimulationResult) -> Drawing | None:
    """Return the Gantt chart, time in milliseconds from the first span; None where the result carries no spans."""
    batches = chosen_batches(result)
    drawn = lanes(result, batches)
    if not drawn:
        return None
    tiers = len({lane.tier for lane in drawn})
    body_in = sum(ROW_IN * len(lane.rows) + GAP_IN for lane in drawn) + TIER_GAP_IN * (tiers + 1)
    return draw(
        name="timeline",
        title=f"Timeline of {len(batches)} successive batches of one rank through "
        + ", ".join(dict.fromkeys(label(lane.tier) for lane in drawn)),
        height_in=body_in + 0.52,
        paint=lambda sheet: _paint(sheet, result, batches, drawn),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """What places a span: the time at the left edge, the folded axis, its scale, and which batches of how many ranks are shown."""

    origin_s: float
    stretches: Sequence[Stretch]
    inch_per_ms: float
    batches: Sequence[int]
    ranks: int


def _frame(sheet: Sheet, result: SimulationResult, batches: Sequence[int], drawn: Sequence[Lane]) -> _Frame:
    spans = [span for lane in drawn for row in lane.rows for span in row]
    origin_s = min(span.start_s for span in spans)
    stretches = fold([(1e3 * (span.start_s - origin_s), 1e3 * (span.end_s - origin_s)) for span in spans])
    inch_per_ms = (sheet.width_in - LEFT_IN - RIGHT_IN) / (1.008 * width(stretches) or 1.0)
    return _Frame(origin_s=origin_s, stretches=stretches, inch_per_ms=inch_per_ms, batches=batches, ranks=max(result.ranks, 1))


def _paint(sheet: Sheet, result: SimulationResult, batches: Sequence[int], drawn: Sequence[Lane]) -> None:
    axes = sheet.axes(left=LEFT_IN, bottom=0.52, right=RIGHT_IN, top=0.0)
    frame = _frame(sheet, result, batches, drawn)
    length_ms, body_in = width(frame.stretches), sheet.height_in - 0.52
    axes.set_xlim(-0.004 * length_ms, 1.004 * length_ms)
    axes.set_ylim(body_in, 0)
    axes.set_yticks([])
    value_axis(axes, f"simulated time, ms; colour and number tell the batch: the rank's step {batches[0] // frame.ranks} and after")
    times = ticks(frame.stretches)
    axes.set_xticks([place(frame.stretches, time) for time in times], [f"{time:g}" for time in times])
    y, tier = 0.0, ""
    for lane in drawn:
        if lane.tier != tier:
            y, tier = y + TIER_GAP_IN, lane.tier
            axes.annotate(label(tier), (0, y + 0.1), (-190, 0), fontweight="bold", **BESIDE)
            axes.axhline(y - TIER_GAP_IN / 2, xmin=-0.38, color=LIGHT["rule"], linewidth=0.7, clip_on=False)
        y = _lane(sheet, axes, lane, y, frame)
    for stretch, following in pairwise(frame.stretches):
        left = stretch.at + stretch.end - stretch.start
        strip = rectangle(axes, left, 0, following.at - left, body_in, "soft", zorder=3)
        sheet.tip(strip, f"{seconds(stretch.idle_after / 1e3)} in which nothing happens to these batches")
        words = f"{seconds(stretch.idle_after / 1e3)} later"
        middle = (left + following.at) / 2
        axes.text(middle, body_in / 2, words, rotation=90, ha="center", va="center", fontsize=NUMBER_PT, color=LIGHT["muted"], zorder=4)


def _lane(sheet: Sheet, axes: Axes, lane: Lane, y: float, frame: _Frame) -> float:
    words = label(lane.name) + (f" (+{lane.hidden})" if lane.hidden else "")
    axes.annotate(words, (0, y + 0.1), (-10, 0), ha="right", fontsize=SMALL_PT, color=LIGHT["muted"], **BESIDE)
    for row in lane.rows:
        for span in row:
            _span(sheet, axes, span, y, frame)
        y += ROW_IN
    return y + GAP_IN


def _span(sheet: Sheet, axes: Axes, span: Span, y: float, frame: _Frame) -> None:
    start_ms = place(frame.stretches, 1e3 * (span.start_s - frame.origin_s))
    width_ms = 1e3 * (span.end_s - span.start_s)  # no fold lies inside a span
    role = BATCH_ROLES[frame.batches.index(span.batch) % len(BATCH_ROLES)]
    bar = rectangle(axes, start_ms, y + 0.02, max(width_ms, 0.015 / frame.inch_per_ms), ROW_IN - 0.04, role)
    step = str(span.batch // frame.ranks)
    where = f"{label(span.tier)} {span.index}, {seconds(span.end_s - span.start_s)}"
    sheet.tip(bar, f"step {step} (batch {span.batch}): {label(span.name)}, {where}")
    if width_ms * frame.inch_per_ms > text_width_in(step, NUMBER_PT) + 0.04:
        middle_ms, role = start_ms + width_ms / 2, text_role(role)
        axes.text(middle_ms, y + ROW_IN / 2, step, ha="center", va="center_baseline", fontsize=NUMBER_PT, color=LIGHT[role])
