"""Pieces of a run that the rig cannot show alone: summing a step in a server, drawing IDs, where threads go that wake."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from statistics import median

import numpy as np

from persia.data.zipf import make_zipf
from persia.embedding.pooling import scatter_raw

_GATHER_RANKS = 3
_WAKES, _REST_S, _BUSY_S, _STILL_BUSY_S = 100, 0.003, 0.0015, 0.0002


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


def share_of_wakes_that_move() -> float:
    """Return how often a thread that wakes goes to an idle core where its own is busy, 0..1; 1 where there is one core only.

    A process sleeps on the core on which this one works when it wakes the other.
    """
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        return 1.0
    here = min(every)
    context = multiprocessing.get_context("spawn")
    (woken, wakes), (told, tells) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    sleeper = context.Process(target=_count_moves, args=(woken, tells, here, every), daemon=True)
    sleeper.start()
    for its_end in (woken, tells):
        its_end.close()
    try:
        told.recv()
        os.sched_setaffinity(0, {here})
        for _ in range(_WAKES):
            time.sleep(_REST_S)
            _work(_BUSY_S)
            wakes.send_bytes(b".")
            _work(_STILL_BUSY_S)
        return float(told.recv()) / _WAKES
    finally:
        os.sched_setaffinity(0, every)
        sleeper.terminate()
        sleeper.join()
        wakes.close()
        told.close()


def _count_moves(woken: Connection, tells: Connection, here: int, every: set[int]) -> None:
    """Sleep on a core until woken, again and again; send how often this process then found itself on another."""
    which_core = ctypes.CDLL(None).sched_getcpu
    moved = 0
    tells.send("ready")
    for _ in range(_WAKES):
        os.sched_setaffinity(0, {here})
        os.sched_setaffinity(0, every)
        woken.recv_bytes()
        moved += which_core() != here
    tells.send(moved)


def _work(seconds: float) -> None:
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass
