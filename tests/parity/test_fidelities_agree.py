"""Phase and message fidelity tell the same story: throughput within 1 %, version staleness within 0.2.

The grid keeps to what phase fidelity promises: nothing fails, and no fan-out queues behind more others than a server has
cores, for there the order differs from server to server and a batch waits for the worst of them.
"""

from __future__ import annotations

import pytest

from persia.scenario import load_scenario
from simulator import SimulationResult
from simulator.run import simulate
from tests.simulator.small_clusters import TIERS, rate, run_small, sizes

GRID = [
    *[((2, 2, 2), mode, permits) for mode in ("async", "naive-hybrid", "hybrid") for permits in (1, 4, 10)],
    *[((4, 3, 2), mode, permits) for mode in ("async", "naive-hybrid", "hybrid") for permits in (1, 10)],
    *[((8, 6, 4), "async", 4), ((8, 6, 4), "hybrid", 1), ((8, 6, 4), "hybrid", 10), ((6, 4, 3), "naive-hybrid", 4)],
    *[(counts, "sync", 1) for counts in ((2, 2, 2), (4, 3, 2), (8, 6, 4))],
]
# What else a scenario may hold, each where it is felt.
SPECIAL: dict[str, tuple[str, ...]] = {
    "workers on the servers' machines": (f"{TIERS}.embedding_worker={{hosted_on: parameter_server, count: 2}}",),
    "two processes on each machine": (
        f"{TIERS}.parameter_server.processes_per_machine=2",
        f"{TIERS}.embedding_worker.processes_per_machine=2",
        f"{TIERS}.nn_worker.count=2",
        f"{TIERS}.nn_worker.processes_per_machine=2",
    ),
    "servers in another zone": (f"{TIERS}.parameter_server.zone=us-central1-b", "cluster.network.latency_cross_zone=1ms"),
    "a slow server": ("simulation.slow_machines=[{tier: parameter_server, index: 0, factor: 2}]",),
    "a slow rank": ("simulation.slow_machines=[{tier: nn_worker, index: 0, factor: 2}]",),
    "checkpoints": ("schedule.checkpoint_every_steps=20",),
    "bags of ids": ("model.features[0].ids_per_sample=5", "workload.batch_size=64"),
}


def both(overrides: tuple[str, ...], steps: int) -> tuple[SimulationResult, SimulationResult]:
    phase, message = (run_small((*overrides, f"simulation.fidelity={fidelity}"), steps) for fidelity in ("phase", "message"))
    return phase, message


def assert_agreement(phase: SimulationResult, message: SimulationResult) -> None:
    assert rate(phase) == pytest.approx(rate(message), rel=0.01)
    assert phase.staleness.version.mean == pytest.approx(message.staleness.version.mean, abs=0.2)


@pytest.mark.parametrize(("counts", "mode", "permits"), GRID)
def test_the_fidelities_agree(counts: tuple[int, int, int], mode: str, permits: int) -> None:
    steps = 30 if counts[0] > 4 else 50
    assert_agreement(*both((*sizes(*counts), f"schedule.mode={mode}", f"schedule.staleness_permits={permits}"), steps))


@pytest.mark.parametrize("mode", ["sync", "hybrid"])
@pytest.mark.parametrize("special", SPECIAL)
def test_the_fidelities_agree_on_special_clusters(special: str, mode: str) -> None:
    assert_agreement(*both((*SPECIAL[special], f"schedule.mode={mode}", "schedule.staleness_permits=3"), 50))


@pytest.mark.parametrize("mode", ["sync", "async", "hybrid"])
def test_the_fidelities_agree_on_one_machine(mode: str) -> None:
    phase, message = (
        simulate(load_scenario("laptop", (f"schedule.mode={mode}", f"simulation.fidelity={fidelity}")), steps=100)
        for fidelity in ("phase", "message")
    )
    assert_agreement(phase, message)


@pytest.mark.parametrize("mode", ["async", "hybrid"])
def test_saturated_servers_are_shared_out_alike(mode: str) -> None:
    one_core = (f"{TIERS}.parameter_server.threads_per_process=1", f"schedule.mode={mode}", "schedule.staleness_permits=3")
    phase, message = both(one_core, 60)
    assert rate(phase) == pytest.approx(rate(message), rel=0.01)
    assert phase.staleness.version.mean == pytest.approx(message.staleness.version.mean, abs=0.5)


def test_where_fan_outs_outnumber_the_cores_they_agree_within_five_per_cent() -> None:
    crowded = (*sizes(8, 6, 4), f"{TIERS}.parameter_server.threads_per_process=4", "schedule.staleness_permits=1")
    phase, message = both(crowded, 40)
    assert rate(phase) == pytest.approx(rate(message), rel=0.05)
    assert phase.staleness.version.mean == pytest.approx(message.staleness.version.mean, abs=0.5)
