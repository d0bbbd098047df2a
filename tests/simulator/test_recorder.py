"""The recorder: what a window holds is what happened after the warm-up, and nothing else."""

from __future__ import annotations

import pytest

from simulator.recorder import PARTS, Recorder

RANKS = 3


def recorded(steps: int) -> Recorder:
    """A recorder that has seen `steps` steps: step s lasts s + 1 seconds and leaves values that name it."""
    busy = [0.0, 0.0]
    recorder = Recorder(RANKS, lambda: list(busy), range(2, 4), 2)
    now_s = 0.0
    for step in range(steps):
        now_s += step + 1
        for rank in range(RANKS):
            recorder.in_flight.append(step)
            recorder.version.append(10 * step + rank)
            recorder.latency_sums[0] += 1.0
            recorder.latency_sums[1] += 1.0
            recorder.parts[1] += float(step)
            busy[0] += 0.5
            busy[1] += step
            assert recorder.batch_trained(now_s) is (rank == RANKS - 1)
    return recorder


def test_a_step_ends_when_every_rank_has_trained_a_batch() -> None:
    recorder = recorded(4)
    assert recorder.step_end_s == [1.0, 3.0, 6.0, 10.0]
    assert recorder.trained == 4 * RANKS


@pytest.mark.parametrize("warmup", [1, 6, 11])
def test_a_window_is_the_difference_of_two_moments(warmup: int) -> None:
    steps = 14
    window = recorded(steps).since(warmup)
    counted = range(warmup, steps)
    assert window.steps == len(counted)
    assert window.seconds == sum(step + 1 for step in counted)
    assert window.in_flight == dict.fromkeys(counted, RANKS)
    assert window.version == {10 * step + rank: 1 for step in counted for rank in range(RANKS)}
    assert window.latency[:2] == [RANKS * len(counted)] * 2
    assert window.parts["host work"] == RANKS * sum(counted)
    assert sum(window.parts.values()) == window.parts["host work"]
    assert window.busy == [0.5 * RANKS * len(counted), RANKS * sum(counted)]
    assert tuple(window.parts) == PARTS


def test_a_window_may_only_begin_where_the_recorder_cut() -> None:
    with pytest.raises(KeyError):
        recorded(14).since(3)


def test_spans_are_kept_of_the_first_ranks_in_the_chosen_steps() -> None:
    assert recorded(1).span_batches == {6, 7, 9, 10}
