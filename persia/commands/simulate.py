"""`persia simulate`: one scenario through the simulator, to the terminal and, where asked for, into a run directory."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from persia.commands.exits import ExitCode, note
from persia.commands.failures import refuse
from persia.commands.output import print_json, print_text
from persia.commands.progress import Report, progress_bar
from persia.commands.run_directory import RunDirectory
from persia.scenario import Scenario, load_catalog, load_scenario
from persia.trace import to_chrome, write_trace
from reports import write_report
from reports.terminal import answer_box
from simulator import Infeasible, check, simulate
from simulator.result import SimulationResult


def run(
    *, source: str, overrides: Sequence[str], report: bool, out: Path | None, trace: bool, check_invariants: bool, as_json: bool
) -> ExitCode:
    """Simulate and print; `out`, `report` or `trace` make a run directory."""
    scenario = load_scenario(source, overrides)
    try:
        check(scenario).raise_if_infeasible()  # before a folder is made for a run that cannot be
    except Infeasible as refusal:
        return refuse(refusal, as_json=as_json)
    if not (out or report or trace):
        with progress_bar(scenario.name) as progress:
            result = simulate(scenario, check_invariants=check_invariants, progress=progress)
        _print(result, scenario, as_json=as_json)
        return ExitCode.OK
    with RunDirectory.create(out, name=scenario.name, command=command_line()) as directory:
        with progress_bar(scenario.name) as progress:
            result = simulate_into(directory, scenario, check_invariants=check_invariants, progress=progress)
        if report:
            write_pages(directory, [result], scenario)
        if trace:
            directory.write_json("perfetto.json", to_chrome(result.spans))
        _print(result, scenario, as_json=as_json)
    note(f"The run is in {directory.path}{'/report.html' if report else ''}")
    return ExitCode.OK


def simulate_into(
    directory: RunDirectory, scenario: Scenario, *, progress: Report | None = None, check_invariants: bool = False
) -> SimulationResult:
    """Simulate, and leave the resolved scenario, the event log, the result and the trace in the directory."""
    directory.write_text("scenario.yaml", resolved_yaml(scenario))
    result = simulate(scenario, log=directory.open_lines("events.jsonl"), check_invariants=check_invariants, progress=progress)
    directory.write_json("result.json", result.to_json())
    with directory.staged() as stage:
        write_trace(stage / "trace.jsonl", result.spans, clock="simulated", scenario=result.scenario)
    return result


def write_pages(directory: RunDirectory, results: Sequence[SimulationResult], scenario: Scenario) -> Path:
    """Write the report of the results into the directory, the first being the answer; return the page's path."""
    with directory.staged() as stage:
        page = write_report(results, scenario, stage, catalog=load_catalog(), command=command_line())
    return directory.path / page.name


def resolved_yaml(scenario: Scenario) -> str:
    """Return the scenario with every default and override written out, as a file that loads to the same scenario."""
    return yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=120)


def command_line() -> str:
    """Return the command as it may be typed again."""
    return shlex.join(["persia", *sys.argv[1:]])


def _print(result: SimulationResult, scenario: Scenario, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        print_text(answer_box(result, scenario, catalog=load_catalog()))
