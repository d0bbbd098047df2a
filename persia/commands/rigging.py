"""The points of the rig on which a machine is measured: their scenario, and how each is run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from persia.commands.exits import ExitCode, Failure
from persia.commands.settling import SETTLING_S, settling_steps
from persia.commands.simulate import resolved_yaml
from persia.runtime.attempt import RunFailed
from persia.runtime.rig import Measured, Rig
from persia.scenario import Scenario, load_scenario
from simulator.calibration.design import Point

POINTS, CROWDS = 30, 20  # of a calibration
_DISTINCT_BATCHES = 8


def rig_scenario(overrides: Sequence[str]) -> Scenario:
    """Return the rig's scenario: the validation cases' base, one process of each role."""
    base = str(files("scenarios") / "validation" / "base.yaml")
    common = ("workload.evaluate_every_steps=0", "workload.data.held_out_samples=64", "workload.samples=1 billion")
    return load_scenario(base, [*common, f"workload.data.distinct_batches={_DISTINCT_BATCHES}", *overrides])


def measure_point(rig: Rig, point: Point, *, crowded: bool, batches: int, seconds: float) -> tuple[Scenario, Measured]:
    """Return a point's scenario and what its batches cost, once it has settled; raises Failure where that cannot be run."""
    scenario = rig_scenario(point.overrides)
    try:
        measured = rig.measure(
            scenario,
            resolved_yaml(scenario),
            warm_batches=settling_steps(scenario) * scenario.ranks,
            warm_seconds=SETTLING_S if crowded else 0.0,
            batches=batches,
            seconds=seconds,
        )
    except RunFailed as error:
        raise Failure(ExitCode.ENVIRONMENT, f"this machine could not be measured: {error}") from error
    return scenario, measured
