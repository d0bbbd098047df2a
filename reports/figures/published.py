"""Predicted against published throughput, row by row, on one logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures.canvas import SMALL_PT, Sheet, draw, value_axis
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT
from reports.published import PublishedRow
from reports.words import rate

ROW_IN = 0.34


def draw_published(rows: Sequence[PublishedRow]) -> Drawing:
    """Return a dot plot: hollow = published, filled = predicted, the signed error at the right."""
    worst = max((abs(row.error_pct) for row in rows), default=0.0)
    return draw(
        name="published",
        title=f"Predicted against published throughput of {len(rows)} rows; the largest error is {worst:.1f} %",
        height_in=ROW_IN * len(rows) + 0.7,
        paint=lambda sheet: _paint(sheet, rows),
    )


def _paint(sheet: Sheet, rows: Sequence[PublishedRow]) -> None:
    axes = sheet.axes(left=3.7, bottom=0.52, right=1.5, top=0.1)
    near: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    for y, row in enumerate(rows):
        role = "c6" if row.fitted else "accent"
        axes.plot([row.published, row.predicted], [y, y], color=LIGHT[role], linewidth=2)
        axes.plot([row.published], [y], marker="o", markersize=8, markerfacecolor=LIGHT["paper"], markeredgecolor=LIGHT["ink"])
        dot = axes.plot([row.predicted], [y], marker="o", markersize=5, color=LIGHT[role])[0]
        sheet.tip(dot, f"published {rate(row.published)}, predicted {rate(row.predicted)}, {row.error_pct:+.1f} %")
        words = f"{row.dataset}, {row.accelerators} accelerators, {row.params_trillion:g} T, {row.mode}"
        axes.annotate(words, (0, y), (-10, 0), xycoords=("axes fraction", "data"), ha="right", fontsize=SMALL_PT, **near)
        error = f"{row.error_pct:+.1f} %" + (" fitted" if row.fitted else "")
        axes.annotate(
            error,
            (1, y),
            (12, 0),
            xycoords=("axes fraction", "data"),
            color=LIGHT["muted" if row.fitted else "ink"],
            fontsize=SMALL_PT,
            **near,
        )
    axes.set_xscale("log")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    value_axis(axes, "samples/s, logarithmic; ring = published, dot = predicted")
