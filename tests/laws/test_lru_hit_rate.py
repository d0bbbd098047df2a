"""Che's approximation against an exact LRU, within the 99 % interval of the exact one."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from simulator.popularity import Popularity
from simulator.statistics import batch_means_interval

ACCESSES = 400_000


def exact_hits(rows: int, zipf: float, capacity: int, seed: int) -> np.ndarray:
    """One 0 or 1 per access after the cache has filled and settled."""
    mass = np.arange(1.0, rows + 1.0) ** -zipf
    drawn = np.random.default_rng(seed).choice(rows, size=ACCESSES, p=mass / mass.sum())
    cached: OrderedDict[int, None] = OrderedDict()
    hits = np.zeros(ACCESSES)
    for place, row in enumerate(drawn.tolist()):
        if row in cached:
            cached.move_to_end(row)
            hits[place] = 1.0
            continue
        cached[row] = None
        if len(cached) > capacity:
            cached.popitem(last=False)
    return hits[ACCESSES // 4 :]


@pytest.mark.parametrize(
    ("rows", "zipf", "capacity"), [(20_000, 0.0, 5_000), (20_000, 0.8, 1_000), (50_000, 1.05, 2_000), (10_000, 1.2, 100)]
)
def test_hit_rate_is_that_of_an_exact_lru(rows: int, zipf: float, capacity: int) -> None:
    predicted = Popularity(rows=rows, zipf=zipf).lru_hit_rate(capacity)
    interval = batch_means_interval(exact_hits(rows, zipf, capacity, seed=capacity), confidence=0.99)
    assert interval.low <= predicted <= interval.high, (interval, predicted)
    assert interval.high - interval.low < 0.012


def test_hit_rate_at_its_ends_and_in_between() -> None:
    popularity = Popularity(rows=10**11, zipf=1.05)
    rates = [popularity.lru_hit_rate(capacity) for capacity in (0, 1e2, 1e5, 1e8, 9.9e10, 1e11)]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.0, 1.0)
    assert Popularity(rows=10**10, zipf=0.0).lru_hit_rate(1e9) == pytest.approx(0.1, rel=1e-6)
