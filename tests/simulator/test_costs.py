"""What a batch costs: bytes on each hop and the dense network against a calculation by hand."""

from __future__ import annotations

import pytest

from persia.scenario import load_catalog, load_profile, load_scenario
from simulator.costs import BatchCosts, DenseCosts, batch_costs, dense_costs, dense_flops_per_sample, dense_layer_parameters
from tests.simulator.small_clusters import small

CATALOG, PROFILE = load_catalog(), load_profile("persia-original")
SAMPLES, FEATURES, DIM = 256, 8, 16
CRITEO = "in-house-v100-criteo"


def batch(*overrides: str) -> BatchCosts:
    return batch_costs(small(*overrides), PROFILE)


def dense(*overrides: str) -> DenseCosts:
    return dense_costs(small(*overrides), CATALOG, PROFILE)


def test_bytes_per_hop_are_the_originals_messages() -> None:
    costs = batch()
    ids = SAMPLES * FEATURES
    assert costs.ids == ids
    assert FEATURES < costs.unique < ids
    assert costs.loader_worker_bytes == pytest.approx(8 * FEATURES + 4 * ids + 16 * costs.unique + 4 * SAMPLES)
    assert costs.loader_rank_bytes == 4 * (4 + 1) * SAMPLES  # four dense features and a label
    assert costs.lookup_request_bytes == pytest.approx(16 * costs.unique)
    assert costs.lookup_reply_bytes == pytest.approx(4 * DIM * costs.unique)
    assert costs.worker_rank_bytes == 2 * DIM * FEATURES * SAMPLES
    assert costs.update_bytes == pytest.approx((8 + 4 * DIM) * costs.unique)


def test_every_id_is_its_own_row_where_rows_are_without_number_and_equally_popular() -> None:
    costs = batch("model.features[0].rows=1000000000000", "model.features[0].zipf=0")
    assert costs.unique == pytest.approx(SAMPLES * FEATURES, rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "rows", "pooled"),
    [
        ("fp32", lambda unique: 4 * DIM * unique, 4 * DIM * FEATURES * SAMPLES),
        ("fp16", lambda unique: 2 * DIM * unique, 2 * DIM * FEATURES * SAMPLES),
        ("fp16-scaled", lambda unique: (2 * DIM + 4) * unique, (2 * DIM + 4) * FEATURES * SAMPLES),
    ],
)
def test_precision_sets_the_bytes_of_each_hop(precision: str, rows, pooled: float) -> None:  # type: ignore[no-untyped-def]
    costs = batch(f"schedule.precision.server_worker={precision}", f"schedule.precision.worker_rank={precision}")
    assert costs.lookup_reply_bytes == pytest.approx(rows(costs.unique))
    assert costs.update_bytes == pytest.approx(8 * costs.unique + rows(costs.unique))
    assert costs.worker_rank_bytes == pooled


def test_raw_rows_reach_the_rank_unpooled() -> None:
    bags = "model.features[0].ids_per_sample=10"
    pooled, raw = batch(bags), batch(bags, "model.features[0].pooling=raw")
    assert pooled.worker_rank_bytes == 2 * DIM * FEATURES * SAMPLES
    assert raw.worker_rank_bytes == 10 * pooled.worker_rank_bytes
    assert raw.lookup_reply_bytes == pooled.lookup_reply_bytes


def test_core_seconds_are_counts_times_the_profiles_constants() -> None:
    costs = batch()
    per_row, per_element = PROFILE["server.lookup_s_per_row"], PROFILE["server.lookup_s_per_row_dim"]
    assert costs.server_lookup_s == pytest.approx(costs.unique * (per_row + DIM * per_element))
    per_row, per_element = PROFILE["server.update_s_per_row"], PROFILE["server.update_s_per_row_dim"]
    assert costs.server_update_s == pytest.approx(costs.unique * (per_row + DIM * per_element))
    worker_s = costs.ids * (PROFILE["worker.s_per_id"] + DIM * PROFILE["worker.s_per_id_dim"])
    assert costs.worker_dedup_s + costs.worker_pool_s + costs.worker_unpool_s == pytest.approx(worker_s)
    assert costs.worker_dedup_s == costs.worker_pool_s
    assert costs.loader_read_s == pytest.approx(SAMPLES * PROFILE["loader.s_per_sample"])
    assert costs.hit_rate == 1.0


def test_the_published_dense_network() -> None:
    scenario = load_scenario(CRITEO)
    layers = dense_layer_parameters(scenario)
    assert layers[0] == (26 * 16 + 13) * 4096 + 4096
    assert sum(layers) == pytest.approx(12.9e6, rel=0.01)
    assert dense_flops_per_sample(scenario) == pytest.approx(77e6, rel=0.01)
    costs = dense_costs(scenario, CATALOG, PROFILE)
    assert costs.exchange_bytes == pytest.approx(51.6e6, rel=0.01)
    assert sum(bucket.size_bytes for bucket in costs.buckets) == pytest.approx(costs.exchange_bytes)
    assert costs.flops == pytest.approx(512 * 77e6, rel=0.01)


def test_rows_of_128_reach_the_same_network_through_a_shared_projection() -> None:
    narrow, wide = load_scenario(CRITEO), load_scenario("persia-100t")
    assert sum(dense_layer_parameters(wide)) - sum(dense_layer_parameters(narrow)) == 128 * 16
    extra = dense_flops_per_sample(wide) - dense_flops_per_sample(narrow)
    assert extra == pytest.approx(6 * 26 * 128 * 16)


def test_forward_and_backward_take_the_flops_over_the_rate_or_the_launches() -> None:
    scenario = load_scenario(CRITEO)
    costs = dense_costs(scenario, CATALOG, PROFILE)
    peak = CATALOG.accelerators["v100"].fp32_tflops * 1e12 * PROFILE["accelerator.v100.matmul_efficiency"]
    assert costs.forward_s + costs.backward_s == pytest.approx(costs.flops / peak)
    assert costs.backward_s == pytest.approx(2.0 * costs.forward_s)
    tiny = dense("workload.batch_size=1")
    assert tiny.forward_s + tiny.backward_s == pytest.approx(6 * 3 * PROFILE["accelerator.kernel_s"])  # three layers


def test_a_ring_over_four_machines_carries_twice_three_quarters_of_the_gradient() -> None:
    costs = dense()
    parameters = (FEATURES * DIM + 4 + 1) * 256 + (256 + 1) * 64 + (64 + 1)
    assert costs.parameters == parameters
    assert costs.nic_bytes == pytest.approx(2 * 3 / 4 * 4 * parameters)
    rate = 100e9 / 8 * PROFILE["wire.all_reduce_nic_efficiency"]
    by_hand_s = 2 * 3 * (len(costs.buckets) * 36e-6 + 4 * parameters / 4 / rate)
    assert costs.all_reduce_s == pytest.approx(by_hand_s, rel=1e-6)


def test_half_precision_halves_the_gradient() -> None:
    assert dense("schedule.precision.dense=fp16").exchange_bytes == dense().exchange_bytes / 2
