"""The simulated side of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from persia.readings import Readings
from persia.scenario import Scenario, load_profile
from persia.trace import Span
from simulator.host_conditions import READING_EXPONENTS, told_pace
from simulator.host_costs import is_crowded
from simulator.parallel import parallel_map
from simulator.result import Interval, SimulationResult
from simulator.run import simulate
from simulator.uncertainty import widened
from simulator.validation.result import CaseResult, World

SHARED_KEYS = ("scenario", "digest", "seed", "mode", "utilisation", "bottleneck", "memory", "cost", "events", "wall_s")
_TRAIN = frozenset({"host work", "forward + backward", "all-reduce", "optimizer"})  # what a real rank does as one command


class Slower(NamedTuple):
    """How many times longer work took than at the calibration, beside what a probe tells; the standard error of its logarithm."""

    times: float = 1.0
    error: float = 0.0


def predict(scenario: Scenario) -> tuple[World, Interval]:
    """Simulate a scenario; return it as a world, and the 90 % interval that should hold the measured throughput, in samples/s.

    Raises:
        Infeasible: the scenario cannot run.
    """
    result = simulate(scenario)
    return simulated_world(result), result.throughput.samples_per_s if result.prediction is None else result.prediction.interval


def predict_at_pace(
    cases: Sequence[CaseResult], scenario_of: Callable[[CaseResult], Scenario], slower: Callable[[CaseResult, Scenario], Slower]
) -> list[CaseResult]:
    """Return the cases, those that have been measured predicted at the pace that the machine had meanwhile.

    `slower` tells how many times longer work took than at the calibration, beside what the probe tells; an interval is wider
    as far as that is not known.

    Raises:
        Infeasible: one of them cannot run.
    """
    measured = [case for case in cases if case.measured is not None]
    usual = [scenario_of(case) for case in measured]
    paces = [slower(case, scenario) for case, scenario in zip(measured, usual, strict=True)]
    scenarios = [at_pace(scenario, case.readings, pace.times) for scenario, case, pace in zip(usual, measured, paces, strict=True)]
    predicted = {
        case.name: replace(case, simulated=world, predicted=widened(interval, pace.error), pace=scenario.simulation.pace)
        for case, pace, scenario, (world, interval) in zip(measured, paces, scenarios, parallel_map(predict, scenarios), strict=True)
    }
    return [predicted.get(case.name, case) for case in cases]


def at_pace(scenario: Scenario, readings: Readings | None, slower: float = 1.0) -> Scenario:
    """Return the scenario at the pace that the probe tells of, and so many times slower.

    Nothing is known of it where the profile was not calibrated.
    """
    profile = load_profile(scenario.simulation.profile)
    if readings is None or READING_EXPONENTS[0] not in profile:
        return scenario
    pace = told_pace(profile, readings, crowded=is_crowded(scenario)) * slower
    return scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update={"pace": pace})})


def simulated_world(result: SimulationResult) -> World:
    """Return a simulation's result as one world of a case."""
    facts = result.to_json()
    stages_s = {**stages(result.spans), **{f"nn_worker.{name}": seconds for name, seconds in result.latency_s.items()}}
    return World(
        samples_per_s=result.throughput.samples_per_s,
        step_time_s=result.step_time_s,
        version=result.staleness.version,
        in_flight=result.staleness.in_flight,
        stages_s=stages_s,
        spans=result.spans,
        facts=shared_facts(facts) | {"step_parts": facts["step_parts"]},
    )


def shared_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a result's JSON the keys that both worlds have, beside throughput, step time and staleness."""
    return {key: facts[key] for key in SHARED_KEYS}


def stage_of(span: Span) -> tuple[str, str]:
    """Return the tier and the stage that a span belongs to in both worlds."""
    return span.tier, "train" if span.tier == "nn_worker" and span.name in _TRAIN else span.name


def stages(spans: Iterable[Span]) -> dict[str, float]:
    """Return by `tier.stage` the mean seconds of a batch from the stage's first start to its last end on any process.

    What a rank does with a batch between its lookup and its push is one stage, `nn_worker.train`.
    """
    extents: dict[str, dict[int, tuple[float, float]]] = {}
    for span in spans:
        batches = extents.setdefault(".".join(stage_of(span)), {})
        start_s, end_s = batches.get(span.batch, (span.start_s, span.end_s))
        batches[span.batch] = (min(start_s, span.start_s), max(end_s, span.end_s))
    return {stage: sum(end_s - start_s for start_s, end_s in batches.values()) / len(batches) for stage, batches in extents.items()}
