"""What one batch costs on each resource: bytes per hop, core-seconds per phase, seconds of the dense part.

Pure functions of scenario, catalogue and profile, evaluated once before a simulation. Bytes per hop follow the original's
messages (README of the scenario package tells which). Sizes in bytes, times in seconds, per batch of one rank.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import ceil, log2

from persia.scenario import Catalog, Profile, Scenario
from persia.schedule.modes import Reduction
from simulator.allreduce import Bucket, ddp_buckets, hierarchical_all_reduce_s
from simulator.machines import TierHardware, tier_hardware
from simulator.popularity import Popularity

_BYTES_PER_VALUE = {"fp32": 4.0, "fp16": 2.0, "fp16-scaled": 2.0}
_SCALE_BYTES = 4.0  # one fp32 scale per block, a block being one row (fp16-scaled)
_OPTIMIZER_PASSES = {"sgd": 3, "adagrad": 5, "adam": 7}  # reads and writes of one fp32 value per parameter
_OPTIMIZER_KERNELS = {"sgd": 1, "adagrad": 3, "adam": 4}  # per layer, un-fused over its two tensors
_GRADIENTS_LABELS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCosts:
    """One batch: counts, bytes on each hop (all servers together), and core-seconds of each phase."""

    samples: int
    ids: float  # occurrences
    unique: float  # unique IDs, summed over features
    hit_rate: float  # of the servers' LRU
    loader_read_s: float
    loader_worker_bytes: float
    loader_rank_bytes: float
    worker_dedup_s: float
    lookup_request_bytes: float
    lookup_reply_bytes: float
    server_lookup_s: float  # core-seconds, all rows of the batch
    server_update_s: float
    server_request_s: float  # core-seconds per request
    server_row_bytes: float  # DRAM traffic of one lookup plus one update of all rows
    worker_pool_s: float
    worker_rank_bytes: float  # each way
    worker_unpool_s: float
    update_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseCosts:
    """The dense part of one batch on one rank, and the all-reduce of its gradients."""

    parameters: float
    flops: float
    host_s: float
    command_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    buckets: tuple[Bucket, ...]
    bucket_s: tuple[float, ...]  # each bucket's all-reduce alone
    nic_bytes: float  # per machine, step and direction
    barrier_s: float
    exchange_bytes: float  # one way (async mode)
    host_link_s_per_byte: float  # copy between host and device; 0 on a CPU rank and where the device is emulated
    emulated: str | None = None  # the accelerator whose time a rank only waits for

    @property
    def all_reduce_s(self) -> float:
        """Return the all-reduce of the whole gradient, bucket after bucket."""
        return sum(self.bucket_s)

    def exposed_all_reduce_s(self, reduction: Reduction, ranks: int) -> float:
        """Return how much longer the all-reduce makes a step whose ranks begin together."""
        if ranks == 1 or reduction is Reduction.NONE:
            return 0.0
        if reduction is Reduction.AFTER_BACKWARD:
            return self.all_reduce_s
        end_s = 0.0
        for bucket, reduce_s in zip(self.buckets, self.bucket_s, strict=True):
            end_s = max(end_s, bucket.ready_fraction * self.backward_s) + reduce_s
        return max(0.0, end_s - self.backward_s)

    def step_s(self, reduction: Reduction, ranks: int) -> float:
        """Return the time from the last rank's beginning to the step's end, without noise: what an emulated rank waits for."""
        return self.host_s + self.forward_s + self.backward_s + self.exposed_all_reduce_s(reduction, ranks) + self.optimizer_s


def batch_costs(scenario: Scenario, profile: Profile) -> BatchCosts:
    """Return what one batch costs on loader, worker, server and wire."""
    samples = scenario.workload.batch_size
    precision = scenario.schedule.precision
    ids = unique = unique_dim = ids_dim = pooled = raw_blocks = missed = request = 0.0
    for feature in scenario.model.features:
        drawn = samples * feature.ids_per_sample * feature.count
        popularity = Popularity(rows=feature.rows, zipf=feature.zipf)
        distinct = feature.count * popularity.expected_unique(samples * feature.ids_per_sample)
        rows_out = drawn if feature.pooling == "raw" else samples * feature.count
        ids += drawn
        unique += distinct
        ids_dim += drawn * feature.dim
        unique_dim += distinct * feature.dim
        pooled += rows_out * feature.dim
        raw_blocks += rows_out
        request += 8.0 * feature.count + 4.0 * drawn + 16.0 * distinct
        if feature.kept_rows < feature.rows:
            missed += distinct * (1.0 - popularity.lru_hit_rate(feature.kept_rows))
    wire_bytes = _wire_bytes(precision.server_worker, unique_dim, unique)
    rank_bytes = _wire_bytes(precision.worker_rank, pooled, raw_blocks)
    worker_s = profile["worker.s_per_id"] * ids + profile["worker.s_per_id_dim"] * ids_dim
    forward_s = profile["worker.forward_share"] * worker_s
    lookup_s = profile["server.lookup_s_per_row"] * unique + profile["server.lookup_s_per_row_dim"] * unique_dim
    return BatchCosts(
        samples=samples,
        ids=ids,
        unique=unique,
        hit_rate=1.0 - missed / unique,
        loader_read_s=profile["loader.s_per_sample"] * samples,
        loader_worker_bytes=request + 4.0 * samples,
        loader_rank_bytes=4.0 * samples * (scenario.model.dense.dense_features + _GRADIENTS_LABELS),
        worker_dedup_s=0.5 * forward_s,
        lookup_request_bytes=profile["wire.lookup_bytes_per_id"] * unique,
        lookup_reply_bytes=wire_bytes,
        server_lookup_s=lookup_s + profile["server.insert_s_per_row"] * missed,
        server_update_s=profile["server.update_s_per_row"] * unique + profile["server.update_s_per_row_dim"] * unique_dim,
        server_request_s=profile["server.s_per_request"],
        server_row_bytes=_dram_bytes(scenario),
        worker_pool_s=0.5 * forward_s,
        worker_rank_bytes=rank_bytes,
        worker_unpool_s=worker_s - forward_s,
        update_bytes=8.0 * unique + wire_bytes,
    )


def _wire_bytes(precision: str, values: float, blocks: float) -> float:
    scales = _SCALE_BYTES * blocks if precision == "fp16-scaled" else 0.0
    return _BYTES_PER_VALUE[precision] * values + scales


def _dram_bytes(scenario: Scenario) -> float:
    """Return the DRAM bytes that one batch's lookup and update move: a row read, then row and state read and written."""
    total = 0.0
    for feature in scenario.model.features:
        drawn = scenario.workload.batch_size * feature.ids_per_sample
        distinct = feature.count * Popularity(rows=feature.rows, zipf=feature.zipf).expected_unique(drawn)
        row = feature.dim * feature.bytes_per_parameter
        state = {"sgd": 0.0, "adagrad": row, "rowwise-adagrad": 4.0, "adam": 2.0 * row}[feature.optimizer]
        total += distinct * (3.0 * row + 2.0 * state + 3.0 * 64.0)  # three cache lines of hash slot and links
    return total


def dense_layer_parameters(scenario: Scenario) -> list[float]:
    """Return the parameters of each dense layer in forward order, weights and biases."""
    dense = scenario.model.dense
    width = dense.projection_dim
    inputs = dense.dense_features
    projections: list[float] = []
    for dim in dict.fromkeys(feature.dim for feature in scenario.model.features) if width else ():
        projections.append(float(dim * width))  # type: ignore[operator]
    fields = 0
    for feature in scenario.model.features:
        slots = feature.count * (round(feature.ids_per_sample) if feature.pooling == "raw" else 1)
        inputs += slots * (width or feature.dim)
        fields += slots
    if dense.architecture == "dlrm":
        projections, inputs = _dlrm_bottom(scenario, projections, fields)
    widths = [inputs, *dense.layers, 1]
    return [*projections, *(float(a * b + b) for a, b in itertools.pairwise(widths))]


def dense_layer_widths(scenario: Scenario) -> list[int]:
    """Return how many values each dense layer puts out, in forward order; projections of embeddings are none of these."""
    dense = scenario.model.dense
    return [*(_bottom_widths(scenario) if dense.architecture == "dlrm" else ()), *dense.layers, 1]


def _bottom_widths(scenario: Scenario) -> list[int]:
    """Return those of the layers below DLRM's dot interaction."""
    dense = scenario.model.dense
    return [*(dense.bottom_layers or dense.layers[:1]), dense.projection_dim or scenario.model.features[0].dim]


def _dlrm_bottom(scenario: Scenario, projections: list[float], fields: int) -> tuple[list[float], int]:
    """Return the layers below DLRM's dot interaction and the width it hands to the top network."""
    bottom = [scenario.model.dense.dense_features, *_bottom_widths(scenario)]
    layers = [float(a * b + b) for a, b in itertools.pairwise(bottom)]
    vectors = fields + 1
    return [*projections, *layers], bottom[-1] + vectors * (vectors - 1) // 2


def dense_flops_per_sample(scenario: Scenario) -> float:
    """Return flops of forward and backward of one sample: two per weight forward, four backward (Kaplan et al., 2020)."""
    layers = dense_layer_parameters(scenario)
    slots = sum(feature.count for feature in scenario.model.features)
    dims = len(dict.fromkeys(feature.dim for feature in scenario.model.features))
    shared = sum(layers[:dims]) * slots / dims if scenario.model.dense.projection_dim else 0.0
    rest = sum(layers[dims:]) if scenario.model.dense.projection_dim else sum(layers)
    return 6.0 * (shared + rest)


def dense_costs(scenario: Scenario, catalog: Catalog, profile: Profile) -> DenseCosts:
    """Return the dense part's costs: max(roofline / efficiency, launch floor), DDP buckets, hierarchical all-reduce."""
    dense = scenario.model.dense
    layers = dense_layer_parameters(scenario)
    samples = scenario.workload.batch_size
    flops = dense_flops_per_sample(scenario) * samples
    slots = sum(feature.count for feature in scenario.model.features)
    hardware = tier_hardware(scenario, catalog, profile, "nn_worker")
    gradient_bytes = [_BYTES_PER_VALUE[scenario.schedule.precision.dense] * layer for layer in layers]
    buckets = ddp_buckets(gradient_bytes, scenario.schedule.bucket_size, scenario.schedule.first_bucket_size)
    timing = _AllReduce(scenario, catalog, profile, hardware)
    emulated = scenario.simulation.emulated_accelerator
    accelerator = emulated or hardware.machine.accelerator
    if accelerator is None:
        rate = profile["cpu.gemm_flops_per_s"] * hardware.threads_per_process
        compute_s, optimizer_s, link = flops / rate, 4.0 * sum(layers) * _OPTIMIZER_PASSES[dense.optimizer] / 5.0e9, 0.0
    else:
        compute_s, optimizer_s, link = _accelerator_s(scenario, catalog, profile, accelerator, flops, layers)
    host_share = 1.0 if emulated is None else _emulated_host_share(profile)
    machines = hardware.machines
    barrier_hops = 2 * ceil(log2(max(2, scenario.ranks)))
    return DenseCosts(
        parameters=sum(layers),
        flops=flops,
        host_s=host_share * (profile["rank.host_s_per_sample"] * samples + profile["rank.host_s_per_feature"] * slots),
        command_s=profile["rank.s_per_command"],
        forward_s=compute_s / 3.0,
        backward_s=compute_s * 2.0 / 3.0,
        optimizer_s=optimizer_s,
        buckets=tuple(buckets),
        bucket_s=tuple(timing.seconds(bucket.size_bytes) for bucket in buckets),
        nic_bytes=2.0 * (machines - 1) / machines * sum(gradient_bytes),
        barrier_s=barrier_hops * (timing.nic_latency_s if machines > 1 else timing.barrier_hop_s),
        exchange_bytes=sum(gradient_bytes),
        host_link_s_per_byte=link if emulated is None else 0.0,
        emulated=emulated,
    )


def _emulated_host_share(profile: Profile) -> float:
    """Return the share of `rank.host_s_*` that an emulated rank waits for: none, unless the profile says so, for its own is real."""
    share = profile.constants.get("rank.emulated_host_share")
    return 0.0 if share is None else share.value


def _accelerator_s(
    scenario: Scenario, catalog: Catalog, profile: Profile, name: str, flops: float, layers: list[float]
) -> tuple[float, float, float]:
    """Return seconds of forward + backward, of the optimizer step, and seconds per byte of the host link."""
    accelerator = catalog.accelerators[name]
    peak = {
        "fp32": accelerator.fp32_tflops,
        "tf32": accelerator.tf32_tflops or accelerator.fp32_tflops,
        "fp16": accelerator.fp16_tflops,
        "bf16": accelerator.fp16_tflops,
    }[scenario.model.dense.precision]
    key = f"accelerator.{name}.matmul_efficiency"
    efficiency = profile[key if key in profile.constants else "accelerator.default.matmul_efficiency"]
    hbm = accelerator.hbm_gb_per_s * 1e9 * profile["accelerator.hbm_efficiency"]
    widths = sum(scenario.model.dense.layers)
    traffic = 3.0 * 4.0 * sum(layers) + 3.0 * 4.0 * widths * scenario.workload.batch_size
    kernels = 6 * (len(scenario.model.dense.layers) + 1)  # two forward (matmul with bias, activation), four backward
    launch_s = profile["accelerator.kernel_s"]
    compute_s = max(flops / (peak * 1e12 * efficiency), traffic / hbm, kernels * launch_s)
    optimizer = scenario.model.dense.optimizer
    passes_s = 4.0 * sum(layers) * _OPTIMIZER_PASSES[optimizer] / hbm
    optimizer_s = max(passes_s, _OPTIMIZER_KERNELS[optimizer] * len(layers) * launch_s)
    return compute_s, optimizer_s, 1.0 / (accelerator.host_link_gb_per_s * 1e9)


class _AllReduce:
    """The all-reduce of a payload over this scenario's ranks: accelerator links inside a machine, NICs between machines."""

    def __init__(self, scenario: Scenario, catalog: Catalog, profile: Profile, hardware: TierHardware) -> None:
        network = scenario.cluster.network
        self._ranks, self._machines = hardware.processes_per_machine, hardware.machines
        self.nic_latency_s = network.latency_same_zone
        accelerator = scenario.simulation.emulated_accelerator or hardware.machine.accelerator
        if accelerator is None:
            self.peer_latency_s = profile["wire.gloo_hop_s"]
            self._peer = profile["wire.gloo_bytes_per_s"]
        else:
            self.peer_latency_s = profile["wire.all_reduce_hop_s"]
            peer = catalog.accelerators[accelerator].peer_gb_per_s * 1e9
            efficiency = profile["wire.all_reduce_peer_efficiency"]
            through_host = profile["wire.all_reduce_p2p_off_bytes_per_s"]
            self._peer = peer * efficiency if network.accelerator_peer_to_peer and peer else through_host
        real = scenario.simulation.emulated_accelerator is None  # ranks that emulate enter a barrier as processes do
        self.barrier_hop_s = self.peer_latency_s if real else profile["wire.gloo_hop_s"]
        self._nic = hardware.nic_bytes_per_s * profile["wire.all_reduce_nic_efficiency"]

    def seconds(self, payload_bytes: float) -> float:
        """Return the all-reduce time of `payload_bytes`."""
        return hierarchical_all_reduce_s(
            payload_bytes, self._ranks, self._machines, self._peer, self._nic, self.peer_latency_s, self.nic_latency_s
        )
