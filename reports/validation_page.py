"""A validation as one self-contained HTML page, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from reports import words
from reports.figures.svg import Drawing
from reports.figures.theme import css_variables
from reports.figures.two_timelines import draw_two_timelines
from reports.figures.validation import done, draw_accuracy, draw_errors, draw_staleness_shapes
from reports.page import Tile, environment
from reports.validation_terminal import STAGES, summary_lines
from reports.write import write_text
from simulator.validation.result import (
    ERROR_MOST_PCT,
    MEAN_ERROR_MOST_PCT,
    QUANTILES,
    STALENESS_MOST_FRACTION,
    STALENESS_MOST_VERSIONS,
    TAU_LEAST,
    CaseResult,
    Validation,
)
from simulator.validation.serial import to_json

SECTIONS = (
    ("accuracy", "Predicted against measured"),
    ("errors", "Error by case"),
    ("staleness", "Staleness"),
    ("timelines", "Both worlds at work"),
    ("ablation", "What each piece of physics is worth"),
    ("cases", "All cases"),
    ("machine", "What it ran on"),
    ("definitions", "How to read this"),
)
_CSV = (
    "case", "mode", "measured_samples_per_s", "measured_low", "measured_high", "simulated_samples_per_s", "predicted_90_low",
    "predicted_90_high", "error_pct", "step_p50_error_pct", "step_p95_error_pct", "step_p99_error_pct", "measured_staleness",
    "simulated_staleness", "staleness_w1", "staleness_w1_most", "staleness_ks", "measured_in_flight", "simulated_in_flight", "covered",
    "disturbed", "misses",
)  # fmt: skip


def write_validation(validation: Validation, out_dir: Path, progress: Callable[[str], None] | None = None) -> Path:
    """Write report.html, report.md, result.json, cases.csv and figures/*.svg; return the page's path.

    The folder is created where missing; each file appears under its name only when it is complete.
    """
    tell = progress or (lambda name: None)
    drawings = draw_figures(validation, tell)
    tell("page")
    figures = out_dir / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for drawing in drawings.values():
        write_text(figures / f"{drawing.name}.svg", drawing.file_text)
    write_text(out_dir / "result.json", json.dumps(to_json(validation), ensure_ascii=False, separators=(",", ":")) + "\n")
    write_text(out_dir / "cases.csv", to_csv(validation))
    write_text(out_dir / "report.md", to_markdown(validation))
    target = out_dir / "report.html"
    write_text(target, validation_page(validation, drawings))
    return target


def draw_figures(validation: Validation, tell: Callable[[str], None] = lambda name: None) -> dict[str, Drawing]:
    """Return every figure that the cases can fill, by name."""
    ran = done(validation.cases)
    drawings: dict[str, Drawing] = {}
    if validation.cases:
        tell("errors")
        drawings["errors"] = draw_errors(validation.cases)
    if ran:
        tell("accuracy")
        drawings["accuracy"] = draw_accuracy(ran)
        tell("staleness")
        drawings["staleness"] = draw_staleness_shapes(ran)
    for number, case in enumerate(validation.shown, start=1):
        tell(f"timeline {number}")
        drawing = draw_two_timelines(case, case.ranks, name=f"timeline-{number}")
        if drawing is not None:
            drawings[f"timeline-{number}"] = drawing
    return drawings


def validation_page(validation: Validation, drawings: dict[str, Drawing]) -> str:
    """Return the page; the same input gives the same bytes."""
    light, dark = css_variables()
    return (
        environment()
        .get_template("validation.html.j2")
        .render(
            validation=validation,
            summary=validation.summary,
            verdict=verdict(validation),
            lead=lead(validation),
            tiles=tiles(validation),
            figures={name: Markup(drawing.inline_text) for name, drawing in drawings.items()},
            findings=findings(validation),
            sections=SECTIONS,
            stages=STAGES,
            quantiles=QUANTILES,
            shown=validation.shown,
            palette_light=Markup(light),
            palette_dark=Markup(dark),
            bounds={
                "mean": MEAN_ERROR_MOST_PCT,
                "error": ERROR_MOST_PCT,
                "versions": STALENESS_MOST_VERSIONS,
                "fraction": STALENESS_MOST_FRACTION,
                "tau": TAU_LEAST,
            },
            w=words,
        )
    )


def verdict(validation: Validation) -> tuple[str, str]:
    """Return the headline in two parts, the second stressed: how far predictions are off, and whether that is close enough."""
    summary = validation.summary
    if summary.mape_pct is None or summary.max_error_pct is None:
        return "No case could be run:", "nothing is validated"
    said = f"Predicted throughput is off by {summary.mape_pct:.1f} % on average and {summary.max_error_pct:.1f} % at most:"
    return said, "within the bounds" if validation.passed else "not within the bounds"


def lead(validation: Validation) -> str:
    """Return a few sentences below the headline."""
    ran = sum(case.worlds is not None for case in validation.cases)
    missed = [case for case in validation.cases if case.misses]
    said = [f"{words.plural(ran, 'case')} of {len(validation.cases)} ran for real and in the simulator, from the same scenario."]
    if missed:
        said.append(f"{words.plural(len(missed), 'case')} missed a bound: {', '.join(case.name for case in missed)}.")
    else:
        said.append("Every case keeps its bounds in throughput and in staleness.")
    noisy = sum(case.disturbed for case in validation.cases)
    if noisy:
        said.append(f"In {words.plural(noisy, 'case')} other work disturbed every run; the figures are as measured.")
    return " ".join(said)


def tiles(validation: Validation) -> list[Tile]:
    """Return the headline numbers."""
    summary = validation.summary
    if summary.mape_pct is None or summary.max_error_pct is None or summary.median_error_pct is None:
        return []
    ran = done(validation.cases)
    near = sum(not any(miss.startswith("staleness") for miss in case.misses) for case, _, _ in ran)
    coverage = summary.coverage_90 or 0.0
    return [
        Tile(
            name="Mean error",
            value=f"{summary.mape_pct:.1f} %",
            unit="of the throughput",
            context=f"median {summary.median_error_pct:.1f} %; at most {MEAN_ERROR_MOST_PCT:.0f} % is allowed",
        ),
        Tile(name="Largest error", value=f"{summary.max_error_pct:.1f} %", unit="", context=f"at most {ERROR_MOST_PCT:.0f} % is allowed"),
        Tile(
            name="Staleness",
            value=f"{near} of {len(ran)}",
            unit="cases close",
            context=f"within {STALENESS_MOST_VERSIONS} versions or {100 * STALENESS_MOST_FRACTION:.0f} % of the mean",
        ),
        Tile(
            name="Ranking",
            value=f"{summary.kendall_tau:.2f}",
            unit="Kendall's tau",
            context=f"choosing by simulation loses {summary.regret_pct:.1f} %",
        ),
        Tile(
            name="90 % intervals", value=f"{100 * coverage:.0f} %", unit="", context="of the measured means lie in their predicted interval"
        ),
    ]


def findings(validation: Validation) -> dict[str, str]:
    """Return a sentence for each figure, decided by the numbers."""
    ran = done(validation.cases)
    if not ran:
        return {}
    errors = [case.error_pct or 0.0 for case, _, _ in ran]
    far = max(ran, key=lambda row: abs(row[0].error_pct or 0.0))[0]
    fast = sum(error > 0 for error in errors)
    stale = max(ran, key=lambda row: (row[0].staleness_w1 or 0.0) / (row[0].staleness_most or 1.0))[0]
    found = {
        "accuracy": f"{sum(abs(error) <= MEAN_ERROR_MOST_PCT for error in errors)} of {len(ran)} predictions lie within "
        f"{MEAN_ERROR_MOST_PCT:.0f} %, {sum(abs(error) <= ERROR_MOST_PCT for error in errors)} within {ERROR_MOST_PCT:.0f} %.",
        "errors": f"{fast} of {len(ran)} predictions are too fast, {len(ran) - fast} too slow; {far.name} is furthest off "
        f"({far.error_pct:+.1f} %).",
        "staleness": f"The distributions are furthest apart, for what is allowed, in {stale.name}: {stale.staleness_w1:.2f} of "
        f"{stale.staleness_most:.2f} versions.",
    }
    if validation.ablation:
        worst = max(validation.ablation, key=lambda row: row.mape_pct)
        found["ablation"] = f"Most is lost with {worst.name}: a mean error of {worst.mape_pct:.1f} %."
    return found


def case_row(case: CaseResult) -> list[object]:
    """Return the fields of cases.csv; empty where the case did not run."""
    both = case.worlds
    if both is None:
        return [case.name, case.mode, *[""] * 18, case.disturbed, "; ".join(case.misses)]
    measured, simulated = both
    predicted = case.predicted or simulated.samples_per_s
    speed = measured.samples_per_s
    return [
        case.name, case.mode, speed.mean, speed.low, speed.high, simulated.samples_per_s.mean, predicted.low, predicted.high,
        case.error_pct, *(case.step_time_error_pct[name] for name in QUANTILES), measured.version.mean, simulated.version.mean,
        case.staleness_w1, case.staleness_most, case.staleness_ks, measured.in_flight.mean, simulated.in_flight.mean, case.covered,
        case.disturbed, "; ".join(case.misses),
    ]  # fmt: skip


def to_csv(validation: Validation) -> str:
    """Return a row a case; numbers keep all their digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CSV)
    writer.writerows(case_row(case) for case in validation.cases)
    return buffer.getvalue()


def to_markdown(validation: Validation) -> str:
    """Return the verdict, the numbers of every case, the ablation and the machine as Markdown."""
    said, stressed = verdict(validation)
    lines = [f"# {said} {stressed}", "", lead(validation), "", *(f"- {line}" for line in summary_lines(validation)), ""]
    lines += ["| case | mode | measured | simulated | error | staleness | simulated | W1 | allowed | misses |", "|---" * 10 + "|"]
    lines += [_markdown_row(case) for case in validation.cases]
    if validation.ablation:
        lines += ["", "| left out | mean error | largest error |", "|---|---|---|"]
        lines += [f"| {row.name} | {row.mape_pct:.1f} % | {row.max_error_pct:.1f} % |" for row in validation.ablation]
    lines += ["", f"Measured {validation.date} with the profile `{validation.profile}` on:", ""]
    lines += [f"- {words.label(name)}: {machine_value(value)}" for name, value in validation.machine.items()]
    return "\n".join(lines) + "\n"


def _markdown_row(case: CaseResult) -> str:
    both, missed = case.worlds, "; ".join(case.misses)
    if both is None:
        return f"| {case.name} | {case.mode} | | | | | | | | MISS: {missed} |"
    measured, simulated = both
    cells = (
        f"{measured.samples_per_s.mean:,.0f} \u00b1 {100 * words.half_width(measured.samples_per_s):.1f} %",
        f"{simulated.samples_per_s.mean:,.0f}", f"{case.error_pct:+.1f} %", f"{measured.version.mean:.2f}", f"{simulated.version.mean:.2f}",
        f"{case.staleness_w1:.2f}", f"{case.staleness_most:.2f}", f"MISS: {missed}" if missed else "",
    )  # fmt: skip
    return f"| {case.name} | {case.mode} | " + " | ".join(cells) + " |"


def machine_value(value: object) -> str:
    """Return one fact of the machine as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items() if version)
    return "unknown" if value is None else str(value)
