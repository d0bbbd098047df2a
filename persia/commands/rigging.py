"""The scenario of the rig on which a machine is measured."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from persia.scenario import Scenario, load_scenario

DISTINCT_BATCHES = 8


def rig_scenario(overrides: Sequence[str]) -> Scenario:
    """Return the rig's scenario: the validation cases' base, one process of each role."""
    base = str(files("scenarios") / "validation" / "base.yaml")
    common = ("workload.evaluate_every_steps=0", "workload.data.held_out_samples=64", "workload.samples=1 billion")
    return load_scenario(base, [*common, f"workload.data.distinct_batches={DISTINCT_BATCHES}", *overrides])
