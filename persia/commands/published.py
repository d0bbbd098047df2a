"""`persia validate --published`: predictions beside the throughputs that the original system's authors published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from persia.commands.exits import ExitCode
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from reports.terminal import published_table
from simulator.published import FITTED_TOLERANCE_PCT, PREDICTED_TOLERANCE_PCT, PublishedRow, validate_published

SCHEMA_VERSION = 1


def run(*, as_json: bool) -> ExitCode:
    """Print every row with its signed error; exit 1 where one is beyond its bound."""
    with progress_bar("published clusters") as progress:
        rows = validate_published(progress=progress)
    summary = summarise(rows)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "rows": [asdict(row) for row in rows], "summary": summary})
    else:
        print_text(published_table(rows))
        print_text(verdict(summary))
    return ExitCode.OK if summary["passed"] else ExitCode.GATE_FAILED


def summarise(rows: Sequence[PublishedRow]) -> dict[str, Any]:
    """Return the largest absolute error of the fitted and of the predicted rows in per cent, and whether all are in bounds."""
    fitted = [abs(row.error_pct) for row in rows if row.fitted]
    predicted = [abs(row.error_pct) for row in rows if not row.fitted]
    return {
        "fitted": _errors(fitted, FITTED_TOLERANCE_PCT),
        "predicted": _errors(predicted, PREDICTED_TOLERANCE_PCT),
        "passed": all(row.within_tolerance for row in rows),
    }


def _errors(errors_pct: Sequence[float], tolerance_pct: float) -> dict[str, Any]:
    return {
        "rows": len(errors_pct),
        "mape_pct": sum(errors_pct) / max(1, len(errors_pct)),
        "max_error_pct": max(errors_pct, default=0.0),
        "tolerance_pct": tolerance_pct,
    }


def verdict(summary: dict[str, Any]) -> str:
    """Return a sentence for each kind of row."""
    return "\n".join(
        f"{kind.capitalize()}: {part['rows']} rows, mean error {part['mape_pct']:.1f} %, largest {part['max_error_pct']:.1f} %"
        f" (at most {part['tolerance_pct']:.0f} % is allowed)."
        for kind, part in ((kind, summary[kind]) for kind in ("fitted", "predicted"))
    )
