"""The alpha-beta time of a ring all-reduce, against a ring whose every message passes a link of our own."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.allreduce import ring_all_reduce_s
from simulator.queues import Link, LinkVector


def ring_by_messages(payload_bytes: float, ranks: int, bytes_per_s: float, latency_s: float) -> float:
    """Pass every chunk around: in each of 2 (n - 1) steps a rank sends its chunk on once it has the previous one."""
    links = [Link(bytes_per_s) for _ in range(ranks)]
    has_from_s = [0.0] * ranks
    for _ in range(2 * (ranks - 1)):
        sent_s = [links[rank].send(has_from_s[rank], payload_bytes / ranks) for rank in range(ranks)]
        has_from_s = [sent_s[rank - 1] + latency_s for rank in range(ranks)]
    return max(has_from_s)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("payload_bytes", [0.0, 4e3, 51.6e6])
def test_ring_time_is_alpha_beta(ranks: int, payload_bytes: float) -> None:
    expected = ring_by_messages(payload_bytes, ranks, 12.5e9, 36e-6)
    assert ring_all_reduce_s(payload_bytes, ranks, 12.5e9, 36e-6) == pytest.approx(expected, rel=1e-9)


def test_ring_of_noisy_latencies_is_never_faster_than_its_mean_predicts() -> None:
    """Waiting for neighbours makes a ring with random latencies slower than alpha-beta at the mean latency, by little when
    transmission dominates."""
    rng = np.random.default_rng(11)
    ranks, payload_bytes, rate, mean_s = 8, 50e6, 12.5e9, 36e-6
    ends = []
    for _ in range(200):
        links, has_from_s = LinkVector(ranks, rate), np.zeros(ranks)
        for _ in range(2 * (ranks - 1)):
            sent_s = links.send(has_from_s, payload_bytes / ranks)
            has_from_s = np.roll(sent_s + rng.exponential(mean_s, ranks), 1)
        ends.append(has_from_s.max())
    predicted = ring_all_reduce_s(payload_bytes, ranks, rate, mean_s)
    assert predicted < np.mean(ends) < 1.25 * predicted
