"""The bottleneck: shrink one thing, and it is named, with the figures that show it."""

from __future__ import annotations

import re

import pytest

from simulator.bottleneck import Evidence, find_bottleneck
from simulator.result import StepPart
from tests.simulator.small_clusters import TIERS, rate, run_small

# What is shrunk, and what must be named for it: the tier, the resources of which one is named, words of the sentence.
CASES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...], str]] = {
    "loader processors": ((f"{TIERS}.loader.count=1", f"{TIERS}.loader.threads_per_process=1"), "loader", ("cpu",), "data loaders"),
    "worker processors": (
        (
            f"{TIERS}.embedding_worker.count=1",
            f"{TIERS}.embedding_worker.threads_per_process=1",
            "model.features[0].ids_per_sample=4",
        ),
        "embedding_worker",
        ("cpu",),
        "processors of the embedding workers",
    ),
    "worker network": (
        ("cluster.machine_types.processor.nic=400Mbps",),
        "embedding_worker",
        ("nic_tx", "nic_rx"),
        "network of the embedding workers",
    ),
    "server processors": (
        (f"{TIERS}.parameter_server.threads_per_process=1",),
        "parameter_server",
        ("cpu",),
        "processors of the parameter servers",
    ),
    "server network": (
        ("cluster.machine_types.memory.nic=300Mbps",),
        "parameter_server",
        ("nic_tx", "nic_rx"),
        "network of the parameter servers",
    ),
    "permits": (
        ("schedule.staleness_permits=1", "cluster.network.latency_same_zone=2ms"),
        "nn_worker",
        ("staleness_permits",),
        "more than 1 permit",
    ),
    "host work": ((), "nn_worker", ("host",), "main thread"),
    "all-reduce": (("cluster.machine_types.trainer.nic=1Gbps",), "nn_worker", ("all-reduce",), "NN workers' network cards"),
    "noise of the ranks": (("simulation.step_noise_cv=1.5",), "nn_worker", ("stragglers",), "for the slowest of them"),
    "one slow rank": (
        ("simulation.slow_machines=[{tier: nn_worker, index: 0, factor: 5}]",),
        "nn_worker",
        ("stragglers",),
        "for the slowest of them",
    ),
    "accelerators": (
        ("model.dense.layers=[8192, 8192]", "model.dense.precision=fp32", "cluster.machine_types.trainer.nic=1000Gbps"),
        "nn_worker",
        ("accelerator",),
        "Forward and backward take",
    ),
    "nothing overlaps": (
        ("schedule.mode=sync", "cluster.network.latency_same_zone=2ms", "cluster.machine_types.trainer.nic=1000Gbps"),
        "embedding_worker",
        ("latency",),
        "Nothing overlaps",
    ),
}


@pytest.mark.parametrize("shrunk", CASES)
def test_what_is_shrunk_is_named(shrunk: str) -> None:
    overrides, tier, resources, words = CASES[shrunk]
    result = run_small(overrides, 100)
    found = result.bottleneck
    assert (found.tier, found.resource in resources) == (tier, True), found
    assert words in found.sentence
    assert re.search(r"\d+\.\d ms of each \d+\.\d ms step \(\d+%\)", found.sentence), found.sentence
    assert 0.0 < found.share <= 1.0
    assert found.next is not None
    assert (found.next.tier, found.next.resource) != (found.tier, found.resource)


@pytest.mark.parametrize("shrunk", [name for name, case in CASES.items() if case[2] not in (("host",), ("accelerator",), ("latency",))])
def test_what_is_named_does_hold_the_cluster_back(shrunk: str) -> None:
    assert rate(run_small(CASES[shrunk][0], 100)) < 0.8 * rate(run_small((), 100))


def evidence(waiting_s: float, used: float, *, overlapped: bool = True) -> Evidence:
    """Ten milliseconds of host work behind a wait for embeddings, and a server's processors so busy."""
    step_s = waiting_s + 0.010
    parts = [("waiting for embeddings", waiting_s), ("host work", 0.010)]
    return Evidence(
        parts=[StepPart(part=part, seconds=seconds, share=seconds / step_s) for part, seconds in parts],
        utilisation={"parameter_server": {"cpu": used, "nic_tx": 0.1}, "nn_worker": {"training_lane": 0.99}},
        lookup_s=0.05,
        push_s=0.04,
        permits=3,
        overlapped=overlapped,
        accelerator=True,
        machines=2,
    )


def test_a_saturated_resource_comes_before_a_longer_part_that_it_paces() -> None:
    found = find_bottleneck(evidence(0.002, 0.99))
    assert (found.tier, found.resource) == ("parameter_server", "cpu")
    assert found.sentence == (
        "Ranks wait 2.0 ms of each 12.0 ms step (17%) for embeddings: the processors of the parameter servers, 99% busy, set the pace."
    )
    assert found.next is not None
    assert found.next.resource == "host"


def test_a_wait_too_short_to_matter_is_not_the_bottleneck() -> None:
    assert find_bottleneck(evidence(0.0001, 0.99)).resource == "host"


def test_latency_that_permits_do_not_hide_must_outweigh_the_work() -> None:
    assert find_bottleneck(evidence(0.002, 0.3)).resource == "host"
    long = find_bottleneck(evidence(0.020, 0.3))
    assert long.resource == "staleness_permits"
    assert "a lookup takes 50.0 ms and a push 40.0 ms, more than 3 permits hide" in long.sentence
