"""A few successive batches of one rank in both worlds, side by side on one scale of time."""

from __future__ import annotations

from collections.abc import Sequence

from persia.trace import Span
from reports.figures.canvas import SMALL_PT, Sheet, draw, rectangle, text_width_in
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT, text_role
from reports.figures.timeline import BATCH_ROLES
from reports.words import label, seconds, tier_rank
from simulator.validation.predict import stage_of
from simulator.validation.result import CaseResult

BATCHES = 4
SLOT_IN = 0.085
LANE_GAP_IN = 0.09
LEFT_IN = 2.3
MIDDLE_IN = 0.25
BOTTOM_IN = 0.5
TOP_IN = 0.3
_STAGES = ("read", "dedup", "pool", "un-pool", "lookup", "train", "push", "update")

Lane = tuple[str, str]


def chosen(spans: Sequence[Span], ranks: int) -> list[Span]:
    """Return the spans of the first successive batches of one rank that went through most stages; reading runs far ahead of them."""
    spans = [span for span in spans if span.tier != "loader"]
    by_batch: dict[int, list[Span]] = {}
    for span in spans:
        if span.batch % max(1, ranks) == min(each.batch % max(1, ranks) for each in spans):
            by_batch.setdefault(span.batch, []).append(span)
    most = max((len({(s.tier, s.name) for s in found}) for found in by_batch.values()), default=0)
    whole = [batch for batch in sorted(by_batch) if len({(s.tier, s.name) for s in by_batch[batch]}) == most]
    return [span for batch in whole[:BATCHES] for span in by_batch[batch]]


def draw_two_timelines(case: CaseResult, ranks: int, *, name: str) -> Drawing | None:
    """Return both Gantt charts, measured left and simulated right; None where a world left no spans."""
    both = case.worlds
    if both is None or not both[0].spans or not both[1].spans:
        return None
    worlds = [chosen(world.spans, ranks) for world in both]
    if not all(worlds):
        return None
    lanes = sorted({stage_of(span) for spans in worlds for span in spans}, key=_order)
    height_in = len(lanes) * (BATCHES * SLOT_IN + LANE_GAP_IN)
    return draw(
        name=name,
        title=f"{case.name}: successive batches of one rank, measured beside simulated",
        height_in=height_in + BOTTOM_IN + TOP_IN,
        paint=lambda sheet: _paint(sheet, worlds, lanes, ranks),
    )


def _order(lane: Lane) -> tuple[tuple[int, str], int]:
    tier, stage = lane
    return tier_rank(tier), _STAGES.index(stage) if stage in _STAGES else len(_STAGES)


def _paint(sheet: Sheet, worlds: Sequence[Sequence[Span]], lanes: Sequence[Lane], ranks: int) -> None:
    length_ms = 1.02 * max(1e3 * (max(span.end_s for span in spans) - min(span.start_s for span in spans)) for spans in worlds)
    panel_in = (sheet.width_in - LEFT_IN - MIDDLE_IN - 0.15) / 2
    lane_in = BATCHES * SLOT_IN + LANE_GAP_IN
    for column, (name, spans) in enumerate(zip(("measured", "simulated"), worlds, strict=True)):
        left = LEFT_IN + column * (panel_in + MIDDLE_IN)
        axes = sheet.axes(left=left, right=sheet.width_in - left - panel_in, bottom=BOTTOM_IN, top=TOP_IN)
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold", color=LIGHT["ink"], pad=6)
        axes.set_xlim(0, length_ms)
        axes.set_ylim(len(lanes) * lane_in, 0)
        axes.set_yticks([])
        axes.grid(axis="x", color=LIGHT["rule"], linewidth=0.7)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel("ms from the first span; colour and number tell the batch", labelpad=5)
        axes.locator_params(axis="x", nbins=6)
        origin_s, batches = min(span.start_s for span in spans), sorted({span.batch for span in spans})
        for number, lane in enumerate(lanes):
            if column == 0:
                words = f"{label(lane[0])}: {label(lane[1])}"
                axes.annotate(
                    words, (0, (number + 0.45) * lane_in), (-8, 0), textcoords="offset points", ha="right", va="center",
                    fontsize=SMALL_PT, color=LIGHT["muted"], annotation_clip=False,
                )  # fmt: skip
        for span in spans:
            slot = batches.index(span.batch)
            top = lanes.index(stage_of(span)) * lane_in + slot * SLOT_IN
            start_ms, width_ms = 1e3 * (span.start_s - origin_s), 1e3 * (span.end_s - span.start_s)
            role = BATCH_ROLES[slot % len(BATCH_ROLES)]
            bar = rectangle(axes, start_ms, top, max(width_ms, 0.004 * length_ms), SLOT_IN * 0.9, role)
            step = str(span.batch // max(1, ranks))
            sheet.tip(bar, f"step {step}: {label(span.tier)} {span.index}, {label(span.name)}, {seconds(span.end_s - span.start_s)}")
            if width_ms / length_ms * panel_in > text_width_in(step, 5.5) + 0.03:
                axes.text(
                    start_ms + width_ms / 2, top + SLOT_IN * 0.45, step, ha="center", va="center_baseline", fontsize=5.5,
                    color=LIGHT[text_role(role)],
                )  # fmt: skip
