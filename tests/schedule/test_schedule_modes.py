"""The four published schedules are values: what each allows, and that nothing else differs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from persia.schedule.messages import BatchArrived, Lookup
from persia.schedule.modes import Limits, Mode, Reduction, rank_limits, server_gather
from persia.schedule.rank import RankSchedule
from tests.schedule.telling import small_loader_limits, small_rank_limits, small_server_limits, small_worker_limits


def limits_of(mode: Mode) -> Limits:
    return rank_limits(mode, world_size=4, staleness_permits=7, lookups_max=3, prefetch_max=5, pushes_max=2)


def test_the_names_are_the_published_ones() -> None:
    assert [mode.value for mode in Mode] == ["sync", "async", "naive-hybrid", "hybrid"]


@pytest.mark.parametrize(
    ("mode", "reduction"),
    [
        (Mode.SYNC, Reduction.AFTER_BACKWARD),
        (Mode.ASYNC, Reduction.NONE),
        (Mode.NAIVE_HYBRID, Reduction.AFTER_BACKWARD),
        (Mode.HYBRID, Reduction.OVERLAPPED),
    ],
)
def test_only_hybrid_overlaps_the_reduction_with_backward_and_only_async_has_none(mode: Mode, reduction: Reduction) -> None:
    assert limits_of(mode).reduction is reduction


def test_sync_has_one_permit_and_a_barrier_every_step() -> None:
    limits = limits_of(Mode.SYNC)
    assert (limits.staleness_permits, limits.barrier_every_steps) == (1, 1)
    others = [limits_of(mode) for mode in Mode if mode is not Mode.SYNC]
    assert {(limits.staleness_permits, limits.barrier_every_steps) for limits in others} == {(7, 0)}


def test_modes_without_a_barrier_differ_in_the_reduction_alone() -> None:
    hybrid = limits_of(Mode.HYBRID)
    assert replace(limits_of(Mode.NAIVE_HYBRID), reduction=Reduction.OVERLAPPED) == hybrid
    assert replace(limits_of(Mode.ASYNC), reduction=Reduction.OVERLAPPED) == hybrid


def test_servers_gather_a_whole_step_in_sync_mode_only() -> None:
    assert [server_gather(mode, 64) for mode in Mode] == [64, 1, 1, 1]


def test_a_mode_is_data_alone() -> None:
    with pytest.raises(FrozenInstanceError):
        limits_of(Mode.SYNC).staleness_permits = 2  # type: ignore[misc]
    rank = RankSchedule(limits_of(Mode.HYBRID), 1)
    assert rank.handle(BatchArrived(1), 0.0) == [Lookup(1)]


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        *[(small_rank_limits, name, 0) for name in ("world_size", "staleness_permits", "lookups_max", "prefetch_max", "pushes_max")],
        (small_rank_limits, "checkpoint_every_steps", -1),
        (small_rank_limits, "retry_s", 0.0),
        *[(small_worker_limits, name, 0) for name in ("servers", "buffer_max", "fan_outs_max", "remember_max", "expiry_s", "retry_s")],
        *[(small_server_limits, name, 0) for name in ("world_size", "service_slots", "gather", "remember_max")],
        (small_server_limits, "gather", 3),
        *[(small_loader_limits, name, 0) for name in ("loaders", "world_size", "workers", "read_ahead_max", "input_queue_max")],
        (small_loader_limits, "commit_every", 0),
        (small_loader_limits, "loader", 1),
        (small_loader_limits, "first_batch", -1),
        (small_loader_limits, "stop_batch", 7),
    ],
)
def test_limits_that_could_never_work_are_refused(build: object, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        build(**{field: value})  # type: ignore[operator]
