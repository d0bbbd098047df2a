"""What every process of a run derives from the scenario: the same numbers, worked out from the same file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from persia.data import FeatureGroup
from persia.embedding.spec import TableSpec
from persia.scenario import Scenario
from persia.scenario.limits import run_header
from persia.schedule.log import Header

RANK_TIMEOUT_FACTOR = 5.0  # a rank's request waits for its worker's, which may be tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One feature group: features [first, first + features), one table on every server."""

    name: str
    first: int
    features: int
    rows: int
    dim: int
    pooling: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The run: its schedules' limits, its feature groups, sizes and wire formats."""

    scenario: Scenario
    header: Header
    groups: tuple[Group, ...]
    stop_batch: int

    @property
    def batch_size(self) -> int:
        """Return the samples that one rank trains at once."""
        return self.scenario.workload.batch_size

    @property
    def ranks(self) -> int:
        """Return the number of ranks."""
        return self.header.rank.world_size

    @property
    def servers(self) -> int:
        """Return the number of parameter servers."""
        return self.header.worker.servers

    @property
    def workers(self) -> int:
        """Return the number of embedding workers."""
        return self.header.loader.workers

    @property
    def loaders(self) -> int:
        """Return the number of loaders."""
        return self.header.loader.loaders

    @property
    def seed(self) -> int:
        """Return the seed of parameters and synthetic data."""
        return self.scenario.simulation.seed

    @property
    def gradient_scale(self) -> float:
        """Return the factor of every gradient that a rank sends to a server: 1 / ranks for `mean`, 1 for `sum`."""
        return 1.0 / self.ranks if self.scenario.schedule.gradient_scaling == "mean" else 1.0

    def processes(self) -> dict[str, int]:
        """Return how many processes each role has."""
        return {
            "loader": self.loaders,
            "embedding_worker": self.workers,
            "parameter_server": self.servers,
            "nn_worker": self.ranks,
        }

    def table_specs(self) -> list[TableSpec]:
        """Return the tables of one server, a feature group each.

        A server's share of the rows is random (IDs are spread by a hash): it gets room for six deviations more.
        """
        learning_rate = self.scenario.model.embedding_learning_rate
        specs = []
        for group, feature in zip(self.groups, self.scenario.model.features, strict=True):
            share = feature.count * feature.kept_rows / self.servers
            room = share if self.servers == 1 else min(feature.count * feature.kept_rows, share + 6.0 * math.sqrt(share) + 1.0)
            specs.append(
                TableSpec(
                    name=group.name,
                    dim=group.dim,
                    optimizer=feature.optimizer,
                    learning_rate=learning_rate,
                    capacity_rows=math.ceil(room),
                    bytes_per_parameter=feature.bytes_per_parameter,
                    seed=self.seed,
                )
            )
        return specs

    def data_groups(self) -> list[FeatureGroup]:
        """Return the feature groups as a data set wants them."""
        return [
            FeatureGroup(features=f.count, rows=f.rows, ids_per_sample=f.ids_per_sample, zipf=f.zipf) for f in self.scenario.model.features
        ]


def make_plan(scenario: Scenario, *, first_step: int = 0) -> Plan:
    """Return the plan of a run that begins before `first_step`: it trains whole steps, as many as the samples allow, at least one."""
    ranks = scenario.ranks
    steps = max(1, scenario.workload.samples // (scenario.workload.batch_size * ranks))
    groups = []
    first = 0
    for feature in scenario.model.features:
        groups.append(
            Group(name=feature.name, first=first, features=feature.count, rows=feature.rows, dim=feature.dim, pooling=feature.pooling)
        )
        first += feature.count
    header = run_header(
        scenario,
        server_threads=threads(scenario, "parameter_server"),
        worker_threads=threads(scenario, "embedding_worker"),
        first_step=first_step,
        stop_batch=steps * ranks,
    )
    return Plan(scenario=scenario, header=header, groups=tuple(groups), stop_batch=steps * ranks)


def threads(scenario: Scenario, tier: str) -> int:
    """Return the threads of one process of a tier on this machine: what the scenario says, else 1, ranks sharing the cores."""
    given = scenario.tier(tier).threads_per_process
    if given is not None:
        return given
    return max(1, (os.cpu_count() or 1) // scenario.ranks) if tier == "nn_worker" else 1
