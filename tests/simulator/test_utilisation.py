"""Utilisation: inside [0, 1], and equal to throughput times the work of a sample over the capacity (flow balance)."""

from __future__ import annotations

import pytest

from persia.scenario import load_catalog, load_profile
from simulator import SimulationResult
from simulator.costs import batch_costs, dense_costs
from tests.simulator.small_clusters import TIERS, rate, run_small, small

CATALOG, PROFILE = load_catalog(), load_profile("persia-original")
MODES = ("sync", "async", "naive-hybrid", "hybrid")
FIDELITIES = ("phase", "message")
SHORT_QUEUES = ("schedule.staleness_permits=2", "schedule.input_queue_batches=2")  # little is done ahead of the window's first step
TOLERANCE = 0.03  # two batches looked up ahead of 119 trained, and noise


def balanced(mode: str, fidelity: str) -> tuple[SimulationResult, float]:
    """A run, and its batches a second."""
    result = run_small((f"schedule.mode={mode}", f"simulation.fidelity={fidelity}", *SHORT_QUEUES), 120)
    return result, rate(result) / result.batch_size


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("mode", MODES)
def test_every_fraction_lies_between_nothing_and_all(mode: str, fidelity: str) -> None:
    result, _ = balanced(mode, fidelity)
    fractions = {f"{tier}.{resource}": used for tier, resources in result.utilisation.items() for resource, used in resources.items()}
    assert {name: used for name, used in fractions.items() if not 0.0 <= used <= 1.0} == {}
    assert set(result.utilisation) == {"loader", "embedding_worker", "parameter_server", "nn_worker"}
    assert set(result.utilisation["nn_worker"]) == {"training_lane", "accelerator", "host_link", "nic_tx", "nic_rx"}


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("mode", MODES)
def test_processors_are_as_busy_as_the_work_that_passes(mode: str, fidelity: str) -> None:
    result, batches_per_s = balanced(mode, fidelity)
    costs, used = batch_costs(small(), PROFILE), result.utilisation
    dense = dense_costs(small(), CATALOG, PROFILE)
    servers = workers = loaders = 2
    messages_s = 4 * servers * PROFILE["worker.s_per_message"]
    worker_s = costs.worker_dedup_s + costs.worker_pool_s + costs.worker_unpool_s + messages_s
    server_s = costs.server_lookup_s + costs.server_update_s + 2 * servers * costs.server_request_s
    accelerator_s = dense.forward_s + dense.backward_s + dense.optimizer_s
    assert used["loader"]["cpu"] == pytest.approx(batches_per_s * costs.loader_read_s / (loaders * 4), rel=2 * TOLERANCE)
    assert used["embedding_worker"]["cpu"] == pytest.approx(batches_per_s * worker_s / (workers * 4), rel=TOLERANCE)
    assert used["parameter_server"]["cpu"] == pytest.approx(batches_per_s * server_s / (servers * 8), rel=TOLERANCE)
    assert used["nn_worker"]["accelerator"] == pytest.approx(batches_per_s * accelerator_s / result.ranks, rel=TOLERANCE)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_network_cards_are_as_busy_as_the_bytes_that_pass(fidelity: str) -> None:
    result, batches_per_s = balanced("hybrid", fidelity)
    costs, dense, used = batch_costs(small(), PROFILE), dense_costs(small(), CATALOG, PROFILE), result.utilisation
    payload = PROFILE["wire.nic_efficiency"] / 8
    servers, workers, ranks = (machines * gbps * 1e9 * payload for machines, gbps in ((2, 32), (2, 32), (4, 100)))
    out_of_worker = costs.lookup_request_bytes + costs.update_bytes + costs.worker_rank_bytes
    into_rank = costs.worker_rank_bytes + costs.loader_rank_bytes + dense.nic_bytes
    assert used["parameter_server"]["nic_tx"] == pytest.approx(batches_per_s * costs.lookup_reply_bytes / servers, rel=TOLERANCE)
    into_server = costs.lookup_request_bytes + costs.update_bytes
    assert used["parameter_server"]["nic_rx"] == pytest.approx(batches_per_s * into_server / servers, rel=TOLERANCE)
    assert used["embedding_worker"]["nic_tx"] == pytest.approx(batches_per_s * out_of_worker / workers, rel=TOLERANCE)
    assert used["nn_worker"]["nic_rx"] == pytest.approx(batches_per_s * into_rank / ranks, rel=TOLERANCE)


def test_memory_traffic_is_rows_over_the_machines_bandwidth() -> None:
    result, batches_per_s = balanced("hybrid", "phase")
    dram = 2 * 8 * PROFILE["wire.dram_bytes_per_s_per_vcpu"]
    expected = batches_per_s * batch_costs(small(), PROFILE).server_row_bytes / dram
    assert result.utilisation["parameter_server"]["dram"] == pytest.approx(expected, rel=TOLERANCE)


def test_more_of_a_resource_is_less_used() -> None:
    few, many = run_small(), run_small((f"{TIERS}.parameter_server.count=4",))
    halved = few.utilisation["parameter_server"]["cpu"] / 2
    assert many.utilisation["parameter_server"]["cpu"] == pytest.approx(halved, rel=TOLERANCE)


def test_hosted_tiers_are_counted_at_their_host() -> None:
    hosted = run_small((f"{TIERS}.embedding_worker={{hosted_on: parameter_server, count: 2}}",))
    assert set(hosted.utilisation["embedding_worker"]) == {"cpu"}
    assert hosted.utilisation["parameter_server"]["nic_tx"] > run_small().utilisation["parameter_server"]["nic_tx"]
    assert [link.source for link in hosted.links] == ["loader", "parameter_server", "nn_worker"]
