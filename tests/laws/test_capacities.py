"""More of anything is never worse: doubling one capacity lowers throughput by no more than noise, whatever binds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import check
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL, TIERS, rate, run_small, small

STEPS = 100
NOISE = 0.01

Overrides = Mapping[str, object]

BASES: dict[str, Overrides] = {
    "ranks bind": {},
    "servers bind": {f"{TIERS}.parameter_server.threads_per_process": 1},
    "networks bind": {
        "cluster.machine_types.processor.nic": "400Mbps",
        "cluster.machine_types.memory.nic": "400Mbps",
        "cluster.machine_types.trainer.nic": "2Gbps",
        "schedule.staleness_permits": 3,  # what is looked up ahead of the first step costs a saturated card its time
    },
    "latency binds": {"schedule.staleness_permits": 2, "cluster.network.latency_same_zone": "2ms", "schedule.mode": "async"},
    "nothing overlaps": {"schedule.mode": "sync"},
    "loaders bind": {f"{TIERS}.loader.count": 1, f"{TIERS}.loader.threads_per_process": 1, "schedule.mode": "async"},
}
# What is doubled, from what it is in the small cluster unless the base says otherwise.
CAPACITIES: dict[str, object] = {
    f"{TIERS}.loader.count": 2,
    f"{TIERS}.embedding_worker.count": 2,
    f"{TIERS}.parameter_server.count": 2,
    f"{TIERS}.nn_worker.count": 4,
    f"{TIERS}.loader.threads_per_process": 4,
    f"{TIERS}.embedding_worker.threads_per_process": 4,
    f"{TIERS}.parameter_server.threads_per_process": 8,
    "cluster.machine_types.trainer.nic": "100Gbps",
    "cluster.machine_types.processor.nic": "32Gbps",
    "cluster.machine_types.memory.nic": "32Gbps",
    "schedule.staleness_permits": 10,
    "schedule.lookups_in_flight": 10,
    "schedule.prefetch_batches": 20,
    "schedule.pushes_in_flight": 8,
    "schedule.input_queue_batches": 10,
    "schedule.buffered_batches_per_loader": 1000,
}
MAY_BIND = {
    "servers bind": f"{TIERS}.parameter_server.threads_per_process",
    "loaders bind": f"{TIERS}.loader.threads_per_process",
    "latency binds": "schedule.staleness_permits",
}


def doubled(value: object) -> object:
    """Twice a number, or twice a number with a unit."""
    if isinstance(value, int):
        return 2 * value
    text = str(value)
    digits = text.rstrip("GMbps")
    return f"{2 * int(digits)}{text[len(digits) :]}"


def settings_of(values: Overrides) -> tuple[str, ...]:
    return tuple(f"{path}={value}" for path, value in values.items())


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("base", BASES)
def test_doubling_a_capacity_never_slows_a_cluster_down(base: str, capacity: str) -> None:
    values = BASES[base]
    before = rate(run_small(settings_of(values), STEPS))
    more = {**values, capacity: doubled(values.get(capacity, CAPACITIES[capacity]))}
    assert rate(run_small(settings_of(more), STEPS)) >= (1.0 - NOISE) * before


@pytest.mark.parametrize(("base", "capacity"), MAY_BIND.items())
def test_doubling_what_binds_speeds_a_cluster_up(base: str, capacity: str) -> None:
    values = BASES[base]
    more = {**values, capacity: doubled(values[capacity])}
    assert rate(run_small(settings_of(more), STEPS)) >= 1.3 * rate(run_small(settings_of(values), STEPS))


def test_four_ranks_on_one_machine_are_no_slower_than_on_four() -> None:
    """Accelerators of one machine average gradients over their own links, not over the network."""
    together = (f"{TIERS}.nn_worker.count=1", f"{TIERS}.nn_worker.processes_per_machine=4")
    for more in ((), settings_of(BASES["networks bind"])):
        assert rate(run_small((*more, *together), STEPS)) >= (1.0 - NOISE) * rate(run_small(more, STEPS))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["sync", "async", "naive-hybrid", "hybrid"]),
    counts=st.tuples(*[st.integers(1, 4)] * 4),
    threads=st.tuples(*[st.integers(1, 3)] * 3),
    permits=st.integers(1, 4),
    nic=st.sampled_from(["500Mbps", "2Gbps", "32Gbps"]),
    batch_size=st.sampled_from([16, 256]),
)
def test_throughput_is_below_every_bound(
    mode: str, counts: tuple[int, ...], threads: tuple[int, ...], permits: int, nic: str, batch_size: int
) -> None:
    tiers = ("loader", "embedding_worker", "parameter_server", "nn_worker")
    overrides = [f"{TIERS}.{tier}.count={count}" for tier, count in zip(tiers, counts, strict=True)]
    overrides += [f"{TIERS}.{tier}.threads_per_process={count}" for tier, count in zip(tiers, threads, strict=False)]
    overrides += [f"cluster.machine_types.{name}.nic={nic}" for name in ("processor", "memory")]
    overrides += [f"schedule.mode={mode}", f"schedule.staleness_permits={permits}", f"workload.batch_size={batch_size}"]
    measured = rate(simulate(SMALL, overrides=overrides, steps=80))
    ahead = 1.0 + permits / 80  # what was looked up before the first step need not be looked up any more
    bounds = check(small(*overrides)).bounds
    assert {resource: bound for resource, bound in bounds.items() if measured > (ahead + NOISE) * bound} == {}
