"""The points at which a machine is measured: batches of many shapes, none of them a validation case.

Sizes are log-uniform and fill the space evenly (Halton, "On the efficiency of certain quasi-random sequences of points",
Numerische Mathematik 2, 1960), so that the cheap and the dear stages of a batch vary independently; the points do not depend on
what will be simulated.  Each round of a calibration has other ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from scipy.stats import qmc

from simulator.host_costs import WIRES

IDS_PER_BATCH_MAX = 400_000
_IDS_MOST, _IDS_UNDER_WAY_MOST = 700_000, 2_800_000  # of a batch, and of all batches at once, on a crowded machine
_CANDIDATES = 4  # shapes for each point, of which it takes the first that is not too large
_LAYERS = ("[256, 128]", "[128, 64]", "[512, 256]", "[64]", "[256, 128, 64]")
_REDUCING = ("sync", "hybrid", "naive-hybrid")
_SEED = 20_260_101

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point: overrides of the rig's scenario."""

    overrides: tuple[str, ...]


_CORNERS = ((100, 4, 1, 8), (2400, 27, 1, 128), (4200, 26, 6, 8))  # samples, features, IDs, dim: the ends of what is covered


def points(count: int, batch_sizes: Sequence[int] | None = None, turn: int = 0) -> list[Point]:
    """Return `count` points of the round after `turn` others, at which one batch after another passes; with `batch_sizes` only these."""
    modes = _shuffled(["async" if number % 3 == 2 else "sync" for number in range(count)], turn)
    made = _shapes([IDS_PER_BATCH_MAX] * (count * (turn + 1)), batch_sizes, _SEED, _CORNERS)
    return [
        Point(overrides=(*shape, f"schedule.mode={mode}", "schedule.staleness_permits=1"))
        for shape, mode in zip(made[-count:], modes, strict=True)
    ]


def crowds(count: int, batch_sizes: Sequence[int] | None = None, turn: int = 0) -> list[Point]:
    """Return `count` points of the round after `turn` others at which the machine is crowded, of several kinds.

    Several ranks that never wait for another (mode async); one rank with several permits; several ranks that reduce their dense
    gradients, in each mode that does so.
    """
    kinds = [kind for each in range(turn + 1) for kind in _shuffled([_crowd(each * count + number) for number in range(count)], each)]
    most = [min(_IDS_MOST, _IDS_UNDER_WAY_MOST // (ranks * permits)) for _, ranks, permits, _ in kinds]
    made = []
    for shape, (mode, ranks, permits, workers) in zip(_shapes(most, batch_sizes, _SEED + 1), kinds, strict=True):
        kind = (
            f"schedule.mode={mode}",
            f"schedule.staleness_permits={permits}",
            f"cluster.tiers.nn_worker.processes_per_machine={ranks}",
            f"cluster.tiers.embedding_worker.processes_per_machine={workers}",
        )
        made.append(Point(overrides=(*shape, *kind)))
    return made[-count:]


def _shuffled(kinds: Sequence[T], turn: int) -> list[T]:
    """Return kinds in an order that has nothing to do with the one in which sizes alternate."""
    return [kinds[number] for number in np.random.default_rng(_SEED + turn).permutation(len(kinds))]


def _crowd(number: int) -> tuple[str, int, int, int]:
    """Return a crowded point's mode, ranks, permits and workers."""
    pair, four = number // 2, number // 4
    workers = 1 + four % 3
    if number % 2:
        return _REDUCING[(pair + pair // 3) % 3], 2 + (pair + 2 * (pair // 3)) % 3, (1, 4)[four % 2], workers
    if number % 4:
        return "naive-hybrid", 1, (16, 4, 8)[four % 3], workers
    return "async", 2 + four % 3, (2, 4, 8)[(four + four // 3) % 3], workers


def _shapes(
    most: Sequence[int], batch_sizes: Sequence[int] | None, seed: int, corners: Sequence[tuple[int, int, int, int]] = ()
) -> list[list[str]]:
    """Return the overrides that say how large a batch is, in each part of it; `most` are the IDs that each may hold."""
    left = qmc.Halton(d=9, seed=seed).random(_CANDIDATES * len(most)).tolist()
    made: list[list[str]] = []
    for number, of_batch in enumerate(most):
        drawn = next((each for each in left if prod(_shape(each, batch_sizes)[:3]) <= of_batch), left[0])
        left.remove(drawn)
        samples, features, ids, dim = _shape(drawn, batch_sizes) if batch_sizes or number >= len(corners) else corners[number]
        rows, servers, layers, server_wire, rank_wire = drawn[4:]
        made.append(
            [
                f"workload.batch_size={samples}",
                f"model.features[0].count={features}",
                f"model.features[0].ids_per_sample={ids}",
                f"model.features[0].dim={dim}",
                f"model.features[0].rows={_log_uniform(rows, 8_000, 40_000)}",
                f"model.dense.layers={_LAYERS[int(len(_LAYERS) * layers)]}",
                f"cluster.tiers.parameter_server.processes_per_machine={1 + int(3 * servers)}",
                f"schedule.precision.server_worker={WIRES[int(3 * server_wire)]}",
                f"schedule.precision.worker_rank={WIRES[int(3 * rank_wire)]}",
            ]
        )
    return made


def _shape(drawn: Sequence[float], batch_sizes: Sequence[int] | None) -> tuple[int, int, int, int]:
    """Return samples, features, IDs of each, and dim."""
    samples = batch_sizes[int(drawn[0] * len(batch_sizes))] if batch_sizes else _log_uniform(drawn[0], 100, 4200)
    return samples, 4 + int(24 * drawn[1]), _log_uniform(drawn[2], 1, 41), 4 * _log_uniform(drawn[3], 2, 33)


def _log_uniform(drawn: float, low: float, high: float) -> int:
    return int(low * (high / low) ** drawn)
