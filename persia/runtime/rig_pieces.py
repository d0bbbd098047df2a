"""Pieces of a run that the rig cannot show alone: the all-reduce, summing a step in a server, and drawing IDs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from persia.data.zipf import make_zipf
from persia.embedding.pooling import scatter_raw
from persia.runtime.processes import child_environment
from persia.runtime.rendezvous import host_store

_GATHER_RANKS = 3


def reduce_seconds(ranks: int, paths: Sequence[str], folder: str) -> list[dict[str, Any]]:
    """Return what rank 0 of `ranks` has measured of each scenario file: see `rig_reduce`; complaints go to a file in `folder`."""
    command = [sys.executable, "-m", "persia.runtime.rig_reduce"]
    with ExitStack() as cleanup:
        store = cleanup.enter_context(host_store())
        errors = cleanup.enter_context((Path(folder) / "host.reduce.err").open("ab"))
        started = []
        for rank in range(ranks):
            words = [*command, str(rank), str(ranks), store, *paths]
            output = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
            process = cleanup.enter_context(subprocess.Popen(words, stdout=output, stderr=errors, env=child_environment()))
            cleanup.callback(process.kill)
            started.append(process)
        printed, _ = started[0].communicate(timeout=120)
        for process in started[1:]:
            process.wait(30)
    return [json.loads(line) for line in printed.decode().splitlines()]


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
