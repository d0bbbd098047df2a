"""Write a report's files, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from reports.facts import CatalogLike, ScenarioLike, read_facts
from reports.figures import draw_all
from reports.page import page
from reports.tables import to_csv
from simulator.result import SimulationResult

Progress = Callable[[str], None]


def write_report(
    results: Sequence[SimulationResult],
    scenario: ScenarioLike | None,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    catalog: CatalogLike | None = None,
    command: str | None = None,
) -> Path:
    """Write report.html, result.json, result.csv and figures/*.svg into `out_dir`; return the page's path.

    The first result is the answer; the others are the same scenario in other modes and may be missing. `catalog` lets the page
    name the accelerators, `command` is the line that made these results; `progress` hears the name of each piece before it is
    made. The folder is created where missing; each file appears under its name only when it is complete.

    Raises:
        ValueError: `results` is empty.
    """
    if not results:
        raise ValueError("a report needs at least one result")
    facts = read_facts(scenario, catalog)
    drawings = draw_all(results, facts, progress)
    if progress is not None:
        progress("page")
    figures = out_dir / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for drawing in drawings.values():
        write_text(figures / f"{drawing.name}.svg", drawing.file_text)
    write_text(out_dir / "result.json", json.dumps(result_json(results), indent=1, ensure_ascii=False) + "\n")
    write_text(out_dir / "result.csv", to_csv(results[0]))
    target = out_dir / "report.html"
    write_text(target, page(results, facts, drawings, command=command))
    return target


def result_json(results: Sequence[SimulationResult]) -> dict[str, object]:
    """Return the main result's JSON object with the other modes' objects under `modes`."""
    return {**results[0].to_json(), "modes": {result.mode: result.to_json() for result in results[1:]}}


def write_text(path: Path, text: str) -> None:
    """Write a file beside its final name and then rename it, so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
