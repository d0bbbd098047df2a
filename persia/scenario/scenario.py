"""A scenario: everything a simulation or a real run needs to know, validated as a whole."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from persia.scenario.base import TIER_NAMES, Many, Name, Part, Text
from persia.scenario.cluster import Cluster, Pricing, Tier
from persia.scenario.model import Assumption, Feature, RecommenderModel, Workload, expanded
from persia.scenario.rules import broken_rules
from persia.scenario.schedule import Schedule, Simulation

DEFAULT_PERMITS = 10


class Scenario(Part):
    """Model, workload, cluster, schedule, prices and simulation; quantities are in base units (bytes, bit/s, seconds)."""

    name: Name = Field(description="Name of the scenario.", examples=["my-scenario"])
    description: Text = Field(default="", description="What it stands for.", examples=["Our cluster in spring"])
    assumptions: Many[Assumption] = Field(
        default=(), max_length=1000, description="Every value that no published source states, with its argument.", examples=[[]]
    )
    model: RecommenderModel = Field(description="What is trained.")
    workload: Workload = Field(description="How much is trained at once, and in all.")
    cluster: Cluster = Field(description="What it runs on.")
    schedule: Schedule = Field(default_factory=Schedule, description="How batches are scheduled.")
    pricing: Pricing = Field(default_factory=Pricing, description="How the bill is made.")
    simulation: Simulation = Field(default_factory=Simulation, description="How long and how exactly to simulate.")

    def tier(self, name: str) -> Tier:
        """Return a tier by its name; raises KeyError."""
        if name not in type(self.cluster.tiers).model_fields:
            raise KeyError(name)
        tier: Tier = getattr(self.cluster.tiers, name)
        return tier

    def tiers(self) -> tuple[tuple[str, Tier], ...]:
        """Return every tier with its name, in the order of TIER_NAMES."""
        return tuple((name, self.tier(name)) for name in TIER_NAMES)

    def processes(self, name: str) -> int:
        """Return the number of processes of a tier; raises KeyError."""
        tier = self.tier(name)
        return tier.count * tier.processes_per_machine

    @property
    def ranks(self) -> int:
        """Return the number of NN-worker processes."""
        return self.processes("nn_worker")

    @property
    def features(self) -> tuple[Feature, ...]:
        """Return every feature, those of a group one by one."""
        return expanded(self.model.features)

    @property
    def staleness_permits(self) -> int:
        """Return the permits of a rank: one in sync mode, which means just that; the default where none are set."""
        return 1 if self.schedule.mode == "sync" else self.schedule.staleness_permits or DEFAULT_PERMITS

    def host_tier(self, name: str) -> str:
        """Return the tier whose machines a tier runs on: itself, or the end of its hosted_on chain."""
        while (host := self.tier(name).hosted_on) is not None:
            name = host
        return name

    def host_machine_type(self, name: str) -> str:
        """Return the machine type that a tier runs on."""
        machine_type = self.tier(self.host_tier(name)).machine_type
        assert machine_type is not None  # rules.machines_or_host
        return machine_type

    def zone(self, name: str) -> str:
        """Return the zone of a tier's machines."""
        return self.tier(self.host_tier(name)).zone or self.cluster.network.zone

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        """Ask every rule, and report all that are broken at once."""
        broken = broken_rules(self)
        if broken:
            context: dict[str, Any] = {"text": "; ".join(rule.message for rule in broken), "broken": broken}
            raise PydanticCustomError("rules", "{text}", context)
        return self
