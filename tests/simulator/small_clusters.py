"""Small clusters whose every figure is known, for tests that need many runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from persia.scenario import Scenario, load_scenario
from simulator import SimulationResult
from simulator.run import simulate

SMALL: Mapping[str, Any] = {
    "name": "small",
    "model": {
        "features": [{"name": "categorical", "count": 8, "rows": 100_000, "dim": 16, "zipf": 1.05}],
        "dense": {"dense_features": 4, "layers": [256, 64], "optimizer": "adam", "precision": "tf32"},
    },
    "workload": {"batch_size": 256, "samples": 1_000_000},
    "cluster": {
        "machine_types": {
            "trainer": {"vcpus": 8, "ram_gib": 64, "accelerator": "a100", "accelerator_count": 8, "nic": "100Gbps", "usd_per_hour": 3.0},
            "processor": {"vcpus": 4, "ram_gib": 16, "nic": "32Gbps", "usd_per_hour": 0.2},
            "memory": {"vcpus": 8, "ram_gib": 64, "nic": "32Gbps", "usd_per_hour": 0.5},
        },
        "tiers": {
            "loader": {"machine_type": "processor", "count": 2},
            "embedding_worker": {"machine_type": "processor", "count": 2},
            "parameter_server": {"machine_type": "memory", "count": 2},
            "nn_worker": {"machine_type": "trainer", "count": 4},
        },
    },
    "schedule": {"mode": "hybrid"},
}

TIERS = "cluster.tiers"


def small(*overrides: str) -> Scenario:
    """Four ranks on four machines, two loaders, two embedding workers and two servers of eight cores each."""
    return load_scenario(SMALL, overrides)


def sizes(ranks: int, workers: int, servers: int) -> tuple[str, ...]:
    """The overrides that set the machines of each tier, one process on each."""
    return (
        f"{TIERS}.nn_worker.count={ranks}",
        f"{TIERS}.embedding_worker.count={workers}",
        f"{TIERS}.parameter_server.count={servers}",
    )


@cache
def run_small(overrides: tuple[str, ...] = (), steps: int = 200, seed: int = 1) -> SimulationResult:
    """The result of a run of the small cluster; each is simulated once in a test process."""
    return simulate(SMALL, overrides=overrides, steps=steps, seed=seed)


def rate(result: SimulationResult) -> float:
    """Mean throughput in samples a second."""
    return result.throughput.samples_per_s.mean
