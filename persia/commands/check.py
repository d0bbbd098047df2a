"""`persia check`: is a scenario valid, does it fit, what does it cost, and what could its machines reach at most?"""

from __future__ import annotations

from collections.abc import Sequence

from persia.commands.exits import ExitCode
from persia.commands.failures import refuse
from persia.commands.output import print_json, print_text
from persia.scenario import Scenario, load_scenario
from reports.terminal import excuse_panel, fit_table
from reports.words import dollars, rate
from simulator.check import FitReport, check
from simulator.excuse import Infeasible

BOUNDS_SHOWN = 3


def run(*, source: str, overrides: Sequence[str], as_json: bool) -> ExitCode:
    """Print what a look without a simulation tells; exit 3 where the scenario cannot run."""
    scenario = load_scenario(source, overrides)
    try:
        report = check(scenario)
    except Infeasible as refusal:
        return refuse(refusal, as_json=as_json)
    if as_json:
        print_json(report.to_json())
    else:
        print_text(text_of(report, scenario))
    return ExitCode.OK if report.fits else ExitCode.INFEASIBLE


def text_of(report: FitReport, scenario: Scenario) -> str:
    """Return the report as text for a terminal."""
    parts = [f"{report.scenario}: {'the scenario is valid and fits' if report.fits else 'the scenario is valid, but cannot run'}"]
    parts.append(fit_table(report.memory))
    if report.fits:
        parts += [f"Bill: {dollars(report.cost.usd_per_hour)} an hour ({report.cost.pricing_model}).", _bounds(report, scenario.ranks)]
    else:
        parts.append(excuse_panel(report.excuses))
    return "\n".join(parts)


def _bounds(report: FitReport, ranks: int) -> str:
    lines = [f"At most, without any queueing or waiting ({ranks} ranks, mode as given):"]
    lines += [f"  {rate(bound):>20}  {resource}" for resource, bound in list(report.bounds.items())[:BOUNDS_SHOWN]]
    return "\n".join(lines)
