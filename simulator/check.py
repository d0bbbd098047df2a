"""The look before a simulation: does the model fit, what does an hour cost, what would first-order physics allow?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from persia.scenario import Catalog, Profile, Scenario, load_catalog, load_profile
from persia.scenario.limits import run_header
from simulator.costs import DenseCosts, batch_costs, dense_costs
from simulator.excuse import Excuse, Infeasible
from simulator.hardware import Cluster
from simulator.memory import memory_fit
from simulator.price import cost
from simulator.result import SCHEMA_VERSION, Assumption, Cost, TierMemory
from simulator.utilisation import capacity_bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What `persia check` prints: memory, bill, and the throughput bound of each resource in samples a second.

    `bounds` are first-order: each resource alone, saturated, with no queueing and no latency; the simulation stays below.
    """

    scenario: str
    memory: Mapping[str, TierMemory]
    excuses: tuple[Excuse, ...]
    cost: Cost
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Return whether the scenario can run."""
        return not self.excuses

    def raise_if_infeasible(self) -> None:
        """Raise Infeasible where the scenario cannot run."""
        if self.excuses:
            raise Infeasible(self.excuses)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of `persia check --json`."""
        return {"schema_version": SCHEMA_VERSION, "fits": self.fits, **asdict(self)}


def check(scenario: Scenario) -> FitReport:
    """Return whether and how well the model fits, what the cluster costs and what bounds its throughput; no simulation.

    Raises:
        Infeasible: a machine type has no known network rate.
    """
    catalog, profile = load_catalog(), load_profile(scenario.simulation.profile)
    cluster = Cluster(scenario, catalog, profile)
    memory, excuses = memory_fit(scenario, catalog, profile)
    batch = batch_costs(scenario, profile)
    dense = dense_costs(scenario, catalog, profile)
    ranks = cluster.tiers["nn_worker"].processes
    bounds = dict(capacity_bounds(scenario, catalog, profile, cluster, batch))
    bounds["nn_worker.training_lane"] = ranks * batch.samples / lane_floor_s(scenario, dense)
    bounds = dict(sorted(bounds.items(), key=lambda bound: bound[1]))
    return FitReport(
        scenario=scenario.name,
        memory=memory,
        excuses=tuple(excuses),
        cost=cost(scenario, catalog, next(iter(bounds.values()))),
        bounds=bounds,
    )


def lane_floor_s(scenario: Scenario, dense: DenseCosts) -> float:
    """Return the least time of one batch on a rank: host, forward, backward, what of the all-reduce cannot overlap, optimizer."""
    return dense.step_s(run_header(scenario, server_threads=1, worker_threads=1).rank.reduction, scenario.ranks)


def assumptions(scenario: Scenario, catalog: Catalog, profile: Profile) -> list[Assumption]:
    """Return every input with its source: the scenario's argued values, the machines' figures, the profile's constants."""
    values = scenario.model_dump(mode="json")
    listed = [
        Assumption(path=each.path, value=_value_at(values, each.path), why=each.why, source=each.source, evidence=each.evidence)
        for each in scenario.assumptions
    ]
    for name, tier in scenario.tiers():
        if tier.machine_type is not None:
            machine = catalog.machine(tier.machine_type, scenario)
            nic = machine.nic_gbps_tier1 if tier.nic_tier1 else machine.nic_gbps
            path = f"catalog.{machine.name}"
            listed.append(
                Assumption(
                    path=f"{path}.nic_gbps",
                    value=f"{nic} Gbit/s",
                    why=f"network card of tier {name}",
                    source=machine.source,
                    evidence=machine.nic_evidence or machine.evidence,
                )
            )
    for key, constant in profile.constants.items():
        why = f"fitted to {', '.join(constant.fitted_to)}" if constant.fitted_to else f"constant of profile {profile.name}"
        listed.append(
            Assumption(
                path=f"profile.{key}",
                value=f"{constant.value:g} {constant.unit}",
                why=why,
                source=constant.source,
                evidence=constant.evidence,
            )
        )
    return listed


def _value_at(values: Any, path: str) -> str:
    """Return the value at a dotted path as text; a path that names nothing any more says so."""
    for step in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(values, list) and step.isdecimal() and int(step) < len(values):
            values = values[int(step)]
        elif isinstance(values, dict) and step in values:
            values = values[step]
        else:
            return "(not set)"
    return str(values)
