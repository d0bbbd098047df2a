"""What a machine gives to the processes on it: memory and CPU after Kubernetes and the system took theirs, and its NIC."""

from __future__ import annotations

from persia.scenario import Catalog, MachineType, Scenario
from simulator.excuse import Excuse, Infeasible

MIB_PER_GIB = 1024.0
EVICTION_MIB = 100.0
SYSTEM_GIB = 1.0  # kernel and services of a machine without Kubernetes; from memory, unverified
# (up to this many GiB, or cores, reserved share), cumulative; GKE "Plan node sizes": percentages from memory, unverified.
MEMORY_STEPS = ((4.0, 0.25), (8.0, 0.20), (16.0, 0.10), (128.0, 0.06), (float("inf"), 0.02))
CPU_STEPS = ((1.0, 0.06), (2.0, 0.01), (4.0, 0.005), (float("inf"), 0.0025))


def _reserved(amount: float, steps: tuple[tuple[float, float], ...]) -> float:
    """Return the part of `amount` that falls to a tax with rising steps."""
    total, below = 0.0, 0.0
    for upper, share in steps:
        total += share * max(0.0, min(amount, upper) - below)
        below = upper
    return total


def reserved_gib(ram_gib: float) -> float:
    """Return the memory that a GKE node keeps for itself.

    25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next 112, 2 % above 128, and 100 MiB for
    eviction (cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes).
    """
    return _reserved(ram_gib, MEMORY_STEPS) + EVICTION_MIB / MIB_PER_GIB


def allocatable_gib(machine: MachineType) -> float:
    """Return the memory in GiB that processes of one machine can have."""
    if machine.kubernetes:
        return max(0.0, machine.ram_gib - reserved_gib(machine.ram_gib))
    return max(0.0, machine.ram_gib - SYSTEM_GIB)


def allocatable_vcpus(machine: MachineType) -> float:
    """Return the vCPUs that processes of one machine can have.

    A GKE node keeps 6 % of the first core, 1 % of the second, 0.5 % of the third and fourth, 0.25 % of the others.
    """
    if not machine.kubernetes:
        return float(machine.vcpus)
    return machine.vcpus - _reserved(machine.vcpus, CPU_STEPS)


def nic_bytes_per_s(scenario: Scenario, catalog: Catalog, tier: str) -> float:
    """Return the rate of the NIC of each machine that a tier runs on, in bytes per second and direction.

    Raises:
        ScenarioError: the machine type is in neither the scenario nor the catalogue.
        Infeasible: nobody states the rate.
    """
    machine = catalog.machine(scenario.host_machine_type(tier), scenario)
    tier1 = scenario.tier(scenario.host_tier(tier)).nic_tier1
    gbps = machine.nic_gbps_tier1 if tier1 else machine.nic_gbps
    if gbps is None:
        remedy = f"define a machine type of your own, with its nic, under cluster.machine_types and use it for {tier}"
        raise Infeasible([Excuse(reason=f"no network rate of {machine.name} is known", bottleneck=f"{tier} network", remedies=(remedy,))])
    return gbps * 1e9 / 8.0
