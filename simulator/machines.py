"""Which machines each tier runs on, and what one process of it gets of them."""

from __future__ import annotations

from dataclasses import dataclass

from persia.scenario import Catalog, MachineType, Profile, Scenario
from simulator.allocatable import nic_bytes_per_s

TIERS = ("loader", "embedding_worker", "parameter_server", "nn_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class TierHardware:
    """One tier's processes: `host` is the tier that owns the machines (the tier itself, unless it is hosted)."""

    name: str
    host: str
    zone: str
    machine: MachineType
    machines: int
    processes_per_machine: int
    threads_per_process: int
    nic_bytes_per_s: float
    cpu_factor: float  # time of the profile's CPU-bound work on this machine over its reference core

    @property
    def processes(self) -> int:
        """Return how many processes the tier has."""
        return self.machines * self.processes_per_machine

    def machine_of(self, process: int) -> int:
        """Return the index of the machine that runs process `process`."""
        return process // self.processes_per_machine


def tier_hardware(scenario: Scenario, catalog: Catalog, profile: Profile, name: str) -> TierHardware:
    """Return what the tier `name` runs on.

    Threads default to the machine's vCPUs shared out equally among the tier's processes; the NIC is the host's.

    Raises:
        ScenarioError: the machine type is in neither the scenario nor the catalogue.
        Infeasible: the machine type has no known network rate.
    """
    tier, host = scenario.tier(name), scenario.host_tier(name)
    machine = catalog.machine(scenario.host_machine_type(name), scenario)
    return TierHardware(
        name=name,
        host=host,
        zone=scenario.zone(name),
        machine=machine,
        machines=tier.count,
        processes_per_machine=tier.processes_per_machine,
        threads_per_process=tier.threads_per_process or max(1, machine.vcpus // tier.processes_per_machine),
        nic_bytes_per_s=nic_bytes_per_s(scenario, catalog, name),
        cpu_factor=profile.cpu_factor(machine.family),
    )
