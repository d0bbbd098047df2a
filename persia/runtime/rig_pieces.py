"""Pieces of a run that the rig cannot show alone: summing a step in a server, and drawing IDs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import numpy as np

from persia.data.zipf import make_zipf
from persia.embedding.pooling import scatter_raw

_GATHER_RANKS = 3


def gather_seconds() -> Iterator[tuple[int, int, float]]:
    """Give rows, dim and processor seconds a batch of summing the gradients of a step, as a server of mode sync does it."""
    generator = np.random.default_rng(0)
    for rows, dim in ((2_000, 8), (2_000, 128), (20_000, 16), (20_000, 64), (60_000, 8), (8_000, 32)):
        keys = [generator.choice(2 * rows, rows, replace=False).astype(np.uint64) for _ in range(_GATHER_RANKS)]
        gradients = [np.ones((rows, dim), np.float32) for _ in range(_GATHER_RANKS)]
        taken = []
        for _ in range(5):
            began_s = time.thread_time()
            distinct, inverse = np.unique(np.concatenate(keys), return_inverse=True)
            scatter_raw(np.concatenate(gradients), inverse.astype(np.int32), 1.0, len(distinct))
            taken.append((time.thread_time() - began_s) / _GATHER_RANKS)
        yield rows, dim, median(taken)


def draw_seconds_per_id() -> float:
    """Return what drawing one synthetic ID costs, its hidden effect included (twice the draw alone)."""
    generator, zipf, count = np.random.default_rng(0), make_zipf(20_000, 1.05), 200_000
    began_s = time.thread_time()
    zipf.draw(generator, count)
    return 2.0 * (time.thread_time() - began_s) / count
