"""`persia check`: is a scenario valid, does it fit, what does it cost, and what could its machines reach at most?"""

from __future__ import annotations

from collections.abc import Sequence

from persia.commands.exits import ExitCode
from persia.commands.failures import refuse
from persia.commands.output import print_json, print_text
from persia.scenario import Scenario, load_scenario
from reports.words import dollars, label, percent, rate, sentence, size
from simulator.check import FitReport, check
from simulator.excuse import Infeasible
from simulator.result import TierMemory

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
    """Return the report as plain text: rich would take longer to import than the whole check takes."""
    lines = [f"{report.scenario}: the scenario is valid{' and fits' if report.fits else ', but cannot run'}.", ""]
    lines += [_memory_line(tier, memory) for tier, memory in report.memory.items()]
    lines.append("")
    for excuse in report.excuses:
        lines += [sentence(excuse.reason), *(f"  would make it fit: {remedy}" for remedy in excuse.remedies)]
    if report.fits:
        lines.append(f"Bill: {dollars(report.cost.usd_per_hour)} an hour ({report.cost.pricing_model}).")
        lines.append(f"At most, in mode {scenario.schedule.mode}, each resource alone and never waiting:")
        lines += [f"  {rate(bound):>18}  {resource}" for resource, bound in list(report.bounds.items())[:BOUNDS_SHOWN]]
    return "\n".join(lines)


def _memory_line(tier: str, memory: TierMemory) -> str:
    share = percent(memory.needed_gib / memory.available_gib) if memory.available_gib else "-"
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    return f"  {label(tier):<18} {size(memory.needed_gib):>8} of {size(memory.available_gib):>8}  {share:>6}  {verdict}"
