"""The times of an emulated accelerator: the simulator's, handed to the runtime as plain data, so that both worlds wait as long."""

from __future__ import annotations

from persia.runtime.dense_part import EmulatedDense
from persia.runtime.plan import make_plan
from persia.scenario import Scenario, load_catalog, load_profile
from simulator.costs import dense_costs


def emulated_dense(scenario: Scenario) -> EmulatedDense | None:
    """Return what ranks wait for instead of computing, or None where they compute; raises ScenarioError on an incomplete profile."""
    name = scenario.simulation.emulated_accelerator
    if name is None:
        return None
    costs = dense_costs(scenario, load_catalog(), load_profile(scenario.simulation.profile))
    plan = make_plan(scenario)
    reduction = plan.header.rank.reduction
    parts_s = {
        "host": costs.host_s,
        "forward and backward": costs.forward_s + costs.backward_s,
        "exposed all-reduce": costs.exposed_all_reduce_s(reduction, plan.ranks),
        "optimizer": costs.optimizer_s,
    }
    said = ", ".join(f"{part} {seconds * 1e3:.3f} ms" for part, seconds in parts_s.items() if seconds)
    return EmulatedDense(
        accelerator=name,
        step_s=costs.step_s(reduction, plan.ranks),
        parameters=round(costs.parameters),
        source=f"{said}: predicted for {name} by the profile {scenario.simulation.profile}",
    )
