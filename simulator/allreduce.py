"""All-reduce time: rings, a ring of machines around rings of accelerators, and DDP's buckets.

Cost model: alpha-beta (Hockney), latency plus bytes over rate per message; the ring is Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", JPDC 69 (2009). Latencies are one way, rates in bytes per second.

Shapes: R ranks, B buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.arrays import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One gradient bucket: its size, and the fraction (0..1] of backward after which all its gradients are there."""

    size_bytes: float
    ready_fraction: float


def ring_all_reduce_s(payload_bytes: float, ranks: int, bytes_per_s: float, latency_s: float) -> float:
    """Return the time of a ring all-reduce: reduce-scatter, then all-gather, each n - 1 steps of payload / n.

    T = 2 (n - 1) (latency + payload / (n rate)). One rank needs no time.

    Raises:
        ValueError: fewer than one rank, or a rate that is not positive.
    """
    return 2.0 * _ring_pass_s(payload_bytes, ranks, bytes_per_s, latency_s)


def _ring_pass_s(payload_bytes: float, ranks: int, bytes_per_s: float, latency_s: float) -> float:
    """Return the time of one reduce-scatter or all-gather around a ring."""
    if ranks < 1:
        raise ValueError(f"an all-reduce needs at least one rank, not {ranks}")
    if not bytes_per_s > 0:
        raise ValueError(f"an all-reduce needs a positive rate, not {bytes_per_s}")
    return (ranks - 1) * (latency_s + payload_bytes / ranks / bytes_per_s)


def hierarchical_all_reduce_s(
    payload_bytes: float,
    ranks_per_machine: int,
    machines: int,
    peer_bytes_per_s: float,
    nic_bytes_per_s: float,
    peer_latency_s: float,
    nic_latency_s: float,
) -> float:
    """Return the time of reduce-scatter inside each machine, rings between machines, all-gather inside.

    After the reduce-scatter each of the r ranks of a machine holds payload / r and rings it with its m - 1 namesakes; the
    r rings run at once and share the machine's NIC, which so carries 2 (m - 1) / m of the payload in each direction
    (NCCL's intra-node/inter-node decomposition; the bytes between machines are the least possible).
    """
    inside_s = 2.0 * _ring_pass_s(payload_bytes, ranks_per_machine, peer_bytes_per_s, peer_latency_s)
    return inside_s + ring_all_reduce_s(payload_bytes, machines, nic_bytes_per_s, nic_latency_s)


def ddp_buckets(
    layer_parameter_bytes: Sequence[float],
    bucket_bytes: float,
    first_bucket_bytes: float,
    layer_flops: Sequence[float] | None = None,
) -> list[Bucket]:
    """Return the buckets in the order in which they are reduced, for layers given in forward order.

    DistributedDataParallel walks the parameters backwards and closes a bucket once it holds at least the limit (so one
    large layer makes one large bucket); the first bucket has a limit of its own (torch/csrc/distributed/c10d/reducer.cpp,
    `compute_bucket_assignment_by_size`). A bucket is ready when the last of its layers is through backward; backward time
    is shared out by `layer_flops`, by default in proportion to the parameters, as in a plain MLP.

    Raises:
        ValueError: no layers, or a layer without a flop count.
    """
    flops = list(layer_parameter_bytes if layer_flops is None else layer_flops)
    if not flops or len(flops) != len(layer_parameter_bytes):
        raise ValueError(f"{len(layer_parameter_bytes)} layers, {len(flops)} flop counts")
    whole = sum(flops)
    buckets: list[Bucket] = []
    limit_bytes, filled_bytes, done = first_bucket_bytes, 0.0, 0.0
    for size_bytes, work in zip(reversed(layer_parameter_bytes), reversed(flops), strict=True):
        filled_bytes += size_bytes
        done += work
        if filled_bytes >= limit_bytes:
            buckets.append(Bucket(size_bytes=filled_bytes, ready_fraction=min(1.0, done / whole)))
            limit_bytes, filled_bytes = bucket_bytes, 0.0
    if filled_bytes > 0.0:
        buckets.append(Bucket(size_bytes=filled_bytes, ready_fraction=1.0))
    return buckets


def overlapped_end_s(
    backward_start_s: FloatArray,
    backward_s: FloatArray | float,
    ready_fraction: Sequence[float],
    bucket_s: Sequence[float],
) -> float:
    """Return when the last bucket's all-reduce ends, buckets reduced in order as soon as every rank has them.

    end_k = max(end_{k-1}, max_r(start_r + fraction_k backward_r)) + t_k; a collective begins when its last rank arrives,
    and one communication stream runs them in issue order.

    Args:
        backward_start_s: when each rank's backward begins [R].
        backward_s: how long each rank's backward lasts, [R] or one for all.
        ready_fraction: fraction of backward after which bucket k is ready [B].
        bucket_s: all-reduce time of bucket k alone [B].
    """
    end_s = -np.inf
    if isinstance(backward_s, float):
        last_s = float(backward_start_s.max())
        for fraction, each_s in zip(ready_fraction, bucket_s, strict=True):
            end_s = max(end_s, last_s + fraction * backward_s) + each_s
        return float(end_s)
    for fraction, each_s in zip(ready_fraction, bucket_s, strict=True):
        end_s = max(end_s, float((backward_start_s + fraction * backward_s).max())) + each_s
    return float(end_s)
