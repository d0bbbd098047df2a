"""The points at which a machine is measured: batches of many shapes, none of them a validation case.

Sizes are drawn log-uniformly, so that the cheap and the dear stages of a batch vary independently; the points do not
depend on what will be simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.host_costs import WIRES

IDS_PER_BATCH_MAX = 400_000
_LAYERS = ("[256, 128]", "[128, 64]", "[512, 256]", "[64]", "[256, 128, 64]")
_REDUCING = ("sync", "hybrid", "naive-hybrid")
_SEED = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point: overrides of the rig's scenario."""

    overrides: tuple[str, ...]


_CORNERS = ((100, 4, 1, 8), (4200, 27, 1, 128), (4200, 26, 6, 8))  # samples, features, IDs, dim: the ends of what is covered


def points(count: int, batch_sizes: Sequence[int] | None = None) -> list[Point]:
    """Return `count` points at which one batch after another passes; with `batch_sizes` only these are used."""
    made = _shapes(count, batch_sizes, _SEED, _CORNERS, IDS_PER_BATCH_MAX)
    for number, shape in enumerate(made):
        shape += [f"schedule.mode={'async' if number % 3 == 2 else 'sync'}", "schedule.staleness_permits=1"]
    return [Point(overrides=tuple(shape)) for shape in made]


def crowds(count: int, batch_sizes: Sequence[int] | None = None) -> list[Point]:
    """Return `count` points at which the machine is crowded, of several kinds in turn.

    Several ranks that never wait for another (mode async); one rank with many permits; several ranks that reduce their dense
    gradients, in each mode that does so.
    """
    made = _shapes(count, batch_sizes, _SEED + 1, (), IDS_PER_BATCH_MAX // 2)
    for number, shape in enumerate(made):
        turn = number // 4
        reducing = (_REDUCING[number // 2 % 3], 2 + (number // 2 + number // 6) % 3, (1, 4)[turn % 2])
        mode, ranks, permits = (("async", 2 + turn % 3, (2, 4, 8)[turn % 3]), reducing, ("naive-hybrid", 1, 16), reducing)[number % 4]
        shape += [
            f"schedule.mode={mode}",
            f"schedule.staleness_permits={permits}",
            f"cluster.tiers.nn_worker.processes_per_machine={ranks}",
            f"cluster.tiers.embedding_worker.processes_per_machine={1 + turn % 3}",
        ]
    return [Point(overrides=tuple(shape)) for shape in made]


def _shapes(
    count: int, batch_sizes: Sequence[int] | None, seed: int, corners: Sequence[tuple[int, int, int, int]], ids_most: int
) -> list[list[str]]:
    """Return the overrides that say how large a batch is, in each part of it."""
    generator = np.random.default_rng(seed)
    made: list[list[str]] = []
    while len(made) < count:
        samples = int(generator.choice(batch_sizes)) if batch_sizes else _log_uniform(generator, 100, 4200)
        features, ids, dim = int(generator.integers(4, 28)), _log_uniform(generator, 1, 41), 4 * _log_uniform(generator, 2, 33)
        if not batch_sizes and len(made) < len(corners):
            samples, features, ids, dim = corners[len(made)]
        elif samples * features * ids > ids_most:
            continue
        number = len(made)
        made.append(
            [
                f"workload.batch_size={samples}",
                f"model.features[0].count={features}",
                f"model.features[0].ids_per_sample={ids}",
                f"model.features[0].dim={dim}",
                f"model.features[0].rows={_log_uniform(generator, 8_000, 40_000)}",
                f"model.dense.layers={_LAYERS[number % len(_LAYERS)]}",
                f"cluster.tiers.parameter_server.processes_per_machine={1 + number % 3}",
                f"schedule.precision.server_worker={WIRES[int(generator.integers(3))]}",
                f"schedule.precision.worker_rank={WIRES[int(generator.integers(3))]}",
            ]
        )
    return made


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> int:
    return int(np.exp(generator.uniform(np.log(low), np.log(high))))
