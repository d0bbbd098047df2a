"""A validation's figures: predicted against measured, errors by case, distributions of staleness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, legend
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT
from reports.words import mode_rank, rate
from simulator.validation.result import ERROR_MOST_PCT, MEAN_ERROR_MOST_PCT, CaseResult, World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Done = Sequence[tuple[CaseResult, World, World]]

MODE_ROLES = {"sync": "c3", "naive-hybrid": "c2", "hybrid": "accent", "async": "c4"}
SCATTER_IN = 5.6
ROW_IN = 0.27
COLUMNS = 6
PANEL_IN = 1.5
_WIDE_PCT = 40.0  # errors beyond are drawn at the edge and say their number


def done(cases: Sequence[CaseResult]) -> Done:
    """Return the cases that ran in both worlds, with both."""
    return [(case, *both) for case in cases if (both := case.worlds) is not None]


def draw_accuracy(ran: Done) -> Drawing:
    """Return simulated over measured samples/s on logarithmic axes, with the bands of both bounds and measured intervals."""
    close = sum(abs(case.error_pct or 0.0) <= ERROR_MOST_PCT for case, _, _ in ran)
    return draw(
        name="accuracy",
        title=f"Simulated against measured throughput of {len(ran)} cases; {close} lie within {ERROR_MOST_PCT:.0f} %",
        height_in=SCATTER_IN,
        paint=lambda sheet: _accuracy(sheet, ran),
    )


def _accuracy(sheet: Sheet, ran: Done) -> None:
    modes = sorted({case.mode for case, _, _ in ran}, key=mode_rank)
    used_in = legend(sheet, [(MODE_ROLES.get(mode, "c6"), mode) for mode in modes], left=0.8, top=0.05)
    axes = sheet.axes(left=0.8, bottom=0.6, right=0.9, top=used_in + 0.2)
    speeds = [world.samples_per_s.mean for _, *both in ran for world in both]
    low, high = min(speeds) / 1.4, max(speeds) * 1.4
    for bound, role in ((ERROR_MOST_PCT, "soft"), (MEAN_ERROR_MOST_PCT, "rule")):
        factor = 1.0 + bound / 100.0
        axes.fill_between([low, high], [low / factor, high / factor], [low * factor, high * factor], color=LIGHT[role], linewidth=0)
        words = f"\u00b1 {bound:.0f} %"
        nudge_pt = 5 if bound == MEAN_ERROR_MOST_PCT else -5
        axes.annotate(
            words, (high, high / factor), (8, nudge_pt), textcoords="offset points", va="center", fontsize=SMALL_PT, color=LIGHT["muted"],
            annotation_clip=False,
        )  # fmt: skip
    axes.plot([low, high], [low, high], color=LIGHT["muted"], linewidth=1)
    for case, measured, simulated in ran:
        x, y = measured.samples_per_s, simulated.samples_per_s
        role = MODE_ROLES.get(case.mode, "c6")
        missed = any(miss.startswith("throughput") for miss in case.misses)
        axes.plot([x.low, x.high], [y.mean, y.mean], color=LIGHT[role], linewidth=1)
        face = LIGHT["paper"] if missed else LIGHT[role]
        dot = axes.plot([x.mean], [y.mean], marker="o", markersize=7, markerfacecolor=face, markeredgecolor=LIGHT[role])[0]
        sheet.tip(dot, f"{case.name}, {case.mode}: measured {rate(x.mean)}, simulated {rate(y.mean)}, {case.error_pct:+.1f} %")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color=LIGHT["rule"], linewidth=0.7)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    _plain_ticks(axes, low, high)
    axes.set_xlabel("measured, samples/s, logarithmic", labelpad=6)
    axes.set_ylabel("simulated, samples/s, logarithmic", labelpad=6)


def _plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Write 1, 2 and 5 times powers of ten as numbers, on both axes."""
    ticks = [digit * 10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    words = [f"{tick:,.0f}" for tick in shown]
    axes.minorticks_off()
    axes.set_xticks(shown, words)
    axes.set_yticks(shown, words)


def draw_errors(cases: Sequence[CaseResult]) -> Drawing:
    """Return a bar for each case's signed error, with both bounds; a case that did not run says so."""
    missed = sum(bool(case.misses) for case in cases)
    return draw(
        name="errors",
        title=f"Signed error of the throughput of {len(cases)} cases; {missed} of them are misses",
        height_in=ROW_IN * len(cases) + 0.75,
        paint=lambda sheet: _errors(sheet, cases),
    )


def _errors(sheet: Sheet, cases: Sequence[CaseResult]) -> None:
    axes = sheet.axes(left=2.6, bottom=0.55, right=1.6, top=0.1)
    errors = [case.error_pct for case in cases if case.error_pct is not None]
    reach = min(_WIDE_PCT, max([1.3 * ERROR_MOST_PCT, *(1.1 * abs(error) for error in errors)]))
    axes.axvspan(-ERROR_MOST_PCT, ERROR_MOST_PCT, color=LIGHT["soft"], linewidth=0)
    near: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center", "fontsize": SMALL_PT}
    for y, case in enumerate(cases):
        axes.annotate(f"{case.name}  {case.mode}", (0, y), (-10, 0), ha="right", color=LIGHT["ink"], **near)
        if case.error_pct is None:
            axes.annotate("not run", (0.5, y), (0, 0), ha="center", color=LIGHT["warn"], **near)
            continue
        beyond = abs(case.error_pct) > ERROR_MOST_PCT
        bar = axes.barh([y], [max(-reach, min(reach, case.error_pct))], height=0.62, color=LIGHT["warn" if beyond else "accent"])
        sheet.tip(bar.patches[0], f"{case.name}, {case.mode}: {case.error_pct:+.1f} %")
        words = f"{case.error_pct:+.1f} %" + (" miss" if case.misses else "")
        axes.annotate(words, (1, y), (12, 0), color=LIGHT["warn" if case.misses else "ink"], **near)
    axes.axvline(0, color=LIGHT["muted"], linewidth=1)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x", color=LIGHT["rule"], linewidth=0.7)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g} %")
    axes.set_xlabel(f"simulated over measured; shaded: within {ERROR_MOST_PCT:.0f} %", labelpad=6)


def draw_staleness_shapes(ran: Done) -> Drawing:
    """Return for each case both worlds' distribution function of version staleness."""
    rows = math.ceil(len(ran) / COLUMNS)
    worst = max((case.staleness_w1 or 0.0 for case, _, _ in ran), default=0.0)
    return draw(
        name="staleness-shapes",
        title=f"Distributions of version staleness of {len(ran)} cases, both worlds; the largest distance is {worst:.2f} versions",
        height_in=rows * PANEL_IN + 0.35,
        paint=lambda sheet: _shapes(sheet, ran),
    )


def _shapes(sheet: Sheet, ran: Done) -> None:
    legend(sheet, [("accent", "measured"), ("warn", "simulated")], left=0.1, top=0.0)
    panel_in = sheet.width_in / COLUMNS
    for number, (case, measured, simulated) in enumerate(ran):
        row, column = divmod(number, COLUMNS)
        top = 0.35 + row * PANEL_IN
        axes = sheet.axes(
            left=column * panel_in + 0.12,
            right=sheet.width_in - (column + 1) * panel_in + 0.14,
            top=top + 0.36,
            bottom=sheet.height_in - top - PANEL_IN + 0.3,
        )
        missed = any(miss.startswith("staleness") for miss in case.misses)
        axes.set_title(f"{case.name} {case.mode}", loc="left", fontsize=7, color=LIGHT["ink"], pad=12)
        axes.annotate(
            f"W1 {case.staleness_w1:.2f} of {case.staleness_most:.2f}{' miss' if missed else ''}", (0, 1), (0, 3), xycoords="axes fraction",
            textcoords="offset points", fontsize=6.5, color=LIGHT["warn" if missed else "muted"],
        )  # fmt: skip
        high = max(measured.version.max, simulated.version.max) + 1.0
        for world, role, width in ((measured, "accent", 2.4), (simulated, "warn", 1.2)):
            values, below = distribution(world.version.histogram)
            axes.step([-1.0, *values, high], [0.0, *below, 1.0], where="post", color=LIGHT[role], linewidth=width)
        axes.set_xlim(-1.0, high)
        axes.set_ylim(0, 1.05)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=3, integer=True)
        axes.tick_params(labelsize=6.5, pad=2)


def distribution(histogram: Mapping[int, float]) -> tuple[list[int], list[float]]:
    """Return the values in order and the share of records at or below each."""
    values, total, so_far = sorted(histogram), sum(histogram.values()), 0.0
    below = []
    for value in values:
        so_far += histogram[value]
        below.append(so_far / total)
    return values, below
