"""`persia demo`: the published 100-trillion-parameter cluster in its four modes, and the page about it."""

from __future__ import annotations

from pathlib import Path

from persia.commands.exits import ExitCode
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.commands.run_directory import RunDirectory
from persia.commands.simulate import command_line, simulate_into, write_pages
from persia.scenario import load_catalog, load_scenario
from reports.terminal import answer_box
from simulator import simulate

SCENARIO = "persia-100t"
# The first is the answer.  sync has nothing to overlap, so the scenario's own permits mean nothing there.
MODES = {
    "hybrid": ("schedule.mode=hybrid",),
    "sync": ("schedule.mode=sync", "schedule.staleness_permits=null"),
    "naive-hybrid": ("schedule.mode=naive-hybrid",),
    "async": ("schedule.mode=async",),
}


def run(*, seed: int | None, steps: int | None, out: Path | None, as_json: bool) -> ExitCode:
    """Simulate every mode, write the report into a new run directory, print the answer and where the page is."""
    overrides = [f"simulation.{name}={value}" for name, value in (("seed", seed), ("steps", steps)) if value is not None]
    scenario, *others = [load_scenario(SCENARIO, [*overrides, *MODES[mode]]) for mode in MODES]
    catalog = load_catalog()
    with RunDirectory.create(out, name="demo", command=command_line()) as directory:
        with progress_bar(scenario.schedule.mode) as progress:
            results = [simulate_into(directory, scenario, progress=progress)]
        for other in others:
            with progress_bar(other.schedule.mode) as progress:
                results.append(simulate(other, progress=progress))
        page = write_pages(directory, results, scenario)
        if as_json:
            print_json({**results[0].to_json(), "modes": {result.mode: result.to_json() for result in results[1:]}, "page": str(page)})
        else:
            print_text(answer_box(results, scenario, catalog=catalog))
            print_text(f"The page with all pictures: {page}")
    return ExitCode.OK
