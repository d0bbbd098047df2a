"""All-reduce formulas against a message-by-message ring, and DDP's buckets against torch's rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.allreduce import Bucket, ddp_buckets, hierarchical_all_reduce_s, overlapped_end_s, ring_all_reduce_s

MLP = [429 * 4096, 4096 * 2048, 2048 * 1024, 1024 * 512, 512 * 256, 256]
MB = 1e6


def test_one_rank_and_one_machine_need_no_time() -> None:
    assert ring_all_reduce_s(50 * MB, 1, 1e9, 1e-5) == 0.0
    assert hierarchical_all_reduce_s(50 * MB, 1, 1, 1e9, 1e9, 1e-5, 1e-5) == 0.0


def test_the_reference_gradient_between_eight_hosts() -> None:
    """51.6 MB over 8 hosts at 100 Gbit/s: each NIC carries 2 * 7/8 of it, 7.2 ms, next to which NVLink is nothing."""
    seconds = hierarchical_all_reduce_s(51.6 * MB, 8, 8, 270e9, 12.5e9, 5e-6, 36e-6)
    between = 2 * 7 / 8 * 51.6 * MB / 12.5e9 + 14 * 36e-6
    assert seconds == pytest.approx(between + 2 * 7 * (5e-6 + 51.6 * MB / 8 / 270e9))
    assert 7.2e-3 < seconds < 8.6e-3


def test_hierarchy_sends_the_least_bytes_a_nic_can() -> None:
    """A flat ring across all 64 ranks sends as much per NIC, but pays 126 latencies instead of 14."""
    flat = ring_all_reduce_s(1 * MB, 64, 12.5e9, 36e-6)
    layered = hierarchical_all_reduce_s(1 * MB, 8, 8, 270e9, 12.5e9, 5e-6, 36e-6)
    assert layered < flat


@pytest.mark.parametrize(("ranks", "rate"), [(0, 1.0), (2, 0.0), (2, -1.0)])
def test_an_impossible_ring_is_refused(ranks: int, rate: float) -> None:
    with pytest.raises(ValueError, match="all-reduce needs"):
        ring_all_reduce_s(1.0, ranks, rate, 0.0)


def test_reference_mlp_gives_three_buckets() -> None:
    """Worked by hand: head + 512x256 + 1024x512 pass 1 MB; 2048x1024 + 4096x2048 pass 25 MB; the first layer is left."""
    sizes = [4.0 * count for count in MLP]
    buckets = ddp_buckets(sizes, 25 * MB, 1 * MB)
    assert [bucket.size_bytes for bucket in buckets] == [sum(sizes[3:]), sizes[1] + sizes[2], sizes[0]]
    whole = sum(sizes)
    assert [bucket.ready_fraction for bucket in buckets] == pytest.approx([sum(sizes[3:]) / whole, sum(sizes[1:]) / whole, 1.0])


def test_ready_fractions_follow_the_flops_where_given() -> None:
    buckets = ddp_buckets([10.0, 10.0], 10.0, 10.0, layer_flops=[3.0, 1.0])
    assert buckets == [Bucket(size_bytes=10.0, ready_fraction=0.25), Bucket(size_bytes=10.0, ready_fraction=1.0)]
    with pytest.raises(ValueError, match="flop counts"):
        ddp_buckets([10.0, 10.0], 10.0, 10.0, layer_flops=[3.0])


@given(
    sizes=st.lists(st.floats(1, 1e8), min_size=1, max_size=20),
    limit=st.floats(1, 1e8),
    first=st.floats(1, 1e8),
)
def test_buckets_hold_every_byte_once_in_order(sizes: list[float], limit: float, first: float) -> None:
    buckets = ddp_buckets(sizes, limit, first)
    assert sum(bucket.size_bytes for bucket in buckets) == pytest.approx(sum(sizes))
    fractions = [bucket.ready_fraction for bucket in buckets]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert all(bucket.size_bytes >= (limit if k else first) for k, bucket in enumerate(buckets[:-1]))


def test_overlap_hides_all_but_the_last_bucket() -> None:
    start = np.array([0.0, 1.0])  # the second rank is one second late: every collective waits for it
    assert overlapped_end_s(start, 10.0, [0.5, 1.0], [2.0, 3.0]) == 14.0
    assert overlapped_end_s(start, np.array([12.0, 10.0]), [0.5, 1.0], [2.0, 3.0]) == 15.0


def test_a_long_all_reduce_is_a_chain() -> None:
    assert overlapped_end_s(np.array([0.0]), 1.0, [0.5, 1.0], [4.0, 4.0]) == 8.5


@given(
    start=st.lists(st.floats(0, 10), min_size=1, max_size=8),
    backward=st.floats(0.01, 10),
    parts=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 5)), min_size=1, max_size=8),
)
def test_overlap_never_beats_its_bounds(start: list[float], backward: float, parts: list[tuple[float, float]]) -> None:
    fractions = [*sorted(fraction for fraction, _ in parts[:-1]), 1.0]
    each = [seconds for _, seconds in parts]
    starts = np.array(start)
    end = overlapped_end_s(starts, backward, fractions, each)
    assert end >= starts.max() + backward + each[-1] - 1e-9
    assert end <= starts.max() + backward + sum(each) + 1e-9
    assert end == pytest.approx(overlapped_end_s(starts, np.full(len(start), backward), fractions, each))
