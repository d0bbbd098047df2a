"""Each rule of RankSchedule by itself."""

from __future__ import annotations

import pytest

from persia.schedule.messages import (
    BarrierPassed,
    BatchArrived,
    BatchRead,
    CheckpointSaved,
    CommitBatch,
    DenseDone,
    DenseExchanged,
    EnterBarrier,
    ExchangeDense,
    LookedUp,
    Lookup,
    LookupFailed,
    Push,
    Pushed,
    PushFailed,
    Restarted,
    SaveCheckpoint,
    Timer,
    TrainDense,
)
from persia.schedule.modes import Mode
from persia.schedule.rank import RankSchedule
from tests.schedule.telling import small_rank_limits, tell


def rank_with(mode: Mode = Mode.HYBRID, *, rank: int = 0, first_step: int = 0, **limits: int | float) -> RankSchedule:
    return RankSchedule(small_rank_limits(mode, **limits), rank, first_step)


def arrive(schedule: RankSchedule, *batches: int) -> list:
    return tell(schedule, *map(BatchArrived, batches))


def test_a_batch_is_looked_up_trained_and_pushed() -> None:
    rank = rank_with()
    assert arrive(rank, 0) == [Lookup(0)]
    assert tell(rank, LookedUp(0)) == [TrainDense(0)]
    assert tell(rank, DenseDone(0)) == [Push(0)]
    assert tell(rank, Pushed(0)) == []
    assert not rank.permits


def test_a_rank_takes_its_own_batches_in_order_whatever_order_they_arrive_in() -> None:
    rank = rank_with(world_size=2, rank=1, staleness_permits=9)
    assert arrive(rank, 3, 5) == []
    assert arrive(rank, 1) == [Lookup(1), Lookup(3), Lookup(5)]


def test_a_permit_is_taken_before_the_lookup_and_comes_back_with_the_acknowledgement_only() -> None:
    rank = rank_with(staleness_permits=2)
    assert arrive(rank, 0, 1, 2) == [Lookup(0), Lookup(1)]
    assert tell(rank, LookedUp(0), DenseDone(0)) == [TrainDense(0), Push(0)]
    assert rank.permits == {0, 1}
    assert tell(rank, Pushed(0)) == [Lookup(2)]


def test_lookup_slots_bound_the_lookups_under_way() -> None:
    rank = rank_with(staleness_permits=9, lookups_max=1)
    assert arrive(rank, 0, 1) == [Lookup(0)]
    assert tell(rank, LookedUp(0)) == [TrainDense(0), Lookup(1)]


def test_the_prefetch_window_bounds_the_batches_that_wait_for_the_dense_part() -> None:
    rank = rank_with(staleness_permits=9, prefetch_max=2)
    assert arrive(rank, 0, 1, 2, 3) == [Lookup(0), Lookup(1)]
    assert tell(rank, LookedUp(1)) == []
    assert tell(rank, LookedUp(0)) == [TrainDense(0), Lookup(2)]


def test_a_lookup_that_waits_for_its_retry_takes_its_place_in_the_prefetch_window() -> None:
    rank = rank_with(staleness_permits=9, prefetch_max=1)
    assert arrive(rank, 0, 1) == [Lookup(0)]
    assert tell(rank, LookupFailed(0)) == []


def test_batches_enter_the_dense_part_in_training_order_one_at_a_time() -> None:
    rank = rank_with(staleness_permits=9)
    arrive(rank, 0, 1, 2)
    assert tell(rank, LookedUp(2), LookedUp(1)) == []
    assert tell(rank, LookedUp(0)) == [TrainDense(0)]
    assert tell(rank, DenseDone(0)) == [Push(0), TrainDense(1)]


def test_push_slots_bound_the_pushes_under_way() -> None:
    rank = rank_with(staleness_permits=9, pushes_max=1)
    arrive(rank, 0, 1)
    assert tell(rank, LookedUp(0), LookedUp(1), DenseDone(0)) == [TrainDense(0), Push(0), TrainDense(1)]
    assert tell(rank, DenseDone(1)) == []
    assert tell(rank, Pushed(0)) == [Push(1)]


def test_a_lost_lookup_is_asked_for_again_after_a_back_off_that_doubles_and_keeps_its_permit() -> None:
    rank = rank_with(staleness_permits=1)
    arrive(rank, 0, 1)
    assert tell(rank, LookupFailed(0), now_s=10.0) == []
    assert rank.next_timer_s() == 11.0
    assert rank.permits == {0}
    assert tell(rank, Timer(), now_s=10.5) == []
    assert tell(rank, Timer(), now_s=11.0) == [Lookup(0)]
    assert tell(rank, LookupFailed(0), now_s=12.0) == []
    assert rank.next_timer_s() == 14.0


def test_a_lost_push_is_pushed_again_and_keeps_its_permit() -> None:
    rank = rank_with(staleness_permits=1)
    arrive(rank, 0, 1)
    tell(rank, LookedUp(0), DenseDone(0))
    assert tell(rank, PushFailed(0)) == []
    assert rank.permits == {0}
    assert tell(rank, Timer(), now_s=1.0) == [Push(0)]
    assert tell(rank, Pushed(0), now_s=2.0) == [Lookup(1)]


@pytest.mark.parametrize("answer", [LookedUp, Pushed])
def test_an_answer_after_its_declared_loss_counts_once(answer: type) -> None:
    rank = rank_with()
    arrive(rank, 0)
    failed = LookupFailed if answer is LookedUp else PushFailed
    if answer is Pushed:
        tell(rank, LookedUp(0), DenseDone(0))
    tell(rank, failed(0))
    late = tell(rank, answer(0))
    assert late == ([TrainDense(0)] if answer is LookedUp else [])
    assert rank.next_timer_s() is None
    assert tell(rank, answer(0), failed(0), Timer(), now_s=99.0) == []
    assert rank.ignored == 2


def test_a_retry_that_waits_for_a_slot_wants_no_timer() -> None:
    rank = rank_with(staleness_permits=9, lookups_max=1)
    arrive(rank, 0, 1)
    assert tell(rank, LookupFailed(0)) == [Lookup(1)]
    assert rank.next_timer_s() is None
    assert tell(rank, LookedUp(1), now_s=5.0) == [Lookup(0)]


def test_a_push_acknowledged_twice_gives_one_permit_back() -> None:
    rank = rank_with(staleness_permits=2)
    arrive(rank, 0, 1, 2, 3)
    tell(rank, LookedUp(0), LookedUp(1), DenseDone(0), DenseDone(1))
    assert tell(rank, Pushed(0), Pushed(0)) == [Lookup(2)]
    assert rank.pushed_steps == 1


def test_dense_gradients_are_exchanged_one_at_a_time_and_accumulate_meanwhile() -> None:
    rank = rank_with(Mode.ASYNC, staleness_permits=9)
    arrive(rank, 0, 1, 2)
    tell(rank, LookedUp(0), LookedUp(1), LookedUp(2))
    assert tell(rank, DenseDone(0)) == [Push(0), ExchangeDense(0), TrainDense(1)]
    assert tell(rank, DenseDone(1)) == [Push(1), TrainDense(2)]
    assert tell(rank, DenseDone(2)) == [Push(2)]
    assert tell(rank, DenseExchanged(0)) == [ExchangeDense(2)]
    assert tell(rank, DenseExchanged(0)) == [], "an exchange answered twice does not end the next one"
    assert rank.exchanging
    assert tell(rank, DenseExchanged(2)) == []
    assert not rank.exchanging


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.NAIVE_HYBRID, Mode.HYBRID])
def test_with_an_all_reduce_there_is_no_exchange(mode: Mode) -> None:
    rank = rank_with(mode)
    arrive(rank, 0)
    assert tell(rank, LookedUp(0), DenseDone(0)) == [TrainDense(0), Push(0)]


def test_sync_meets_the_other_ranks_after_every_step_before_the_next_lookup() -> None:
    rank = rank_with(Mode.SYNC)
    arrive(rank, 0, 1)
    assert tell(rank, LookedUp(0), DenseDone(0)) == [TrainDense(0), Push(0)]
    assert tell(rank, Pushed(0)) == [EnterBarrier(0)]
    assert tell(rank, BarrierPassed(1)) == [], "not this barrier"
    assert tell(rank, BarrierPassed(0)) == [Lookup(1)]
    assert tell(rank, BarrierPassed(0)) == [], "a barrier passes once"


def test_a_barrier_waits_for_pushes_in_any_order() -> None:
    rank = rank_with(checkpoint_every_steps=2, staleness_permits=9)
    assert arrive(rank, 0, 1, 2) == [Lookup(0), Lookup(1)]
    tell(rank, LookedUp(0), LookedUp(1), DenseDone(0), DenseDone(1))
    assert tell(rank, Pushed(1)) == []
    assert tell(rank, Pushed(0)) == [EnterBarrier(1)]


def test_a_barrier_waits_for_the_dense_exchange_too() -> None:
    rank = rank_with(Mode.ASYNC, checkpoint_every_steps=1)
    arrive(rank, 0)
    tell(rank, LookedUp(0), DenseDone(0))
    assert tell(rank, Pushed(0)) == []
    assert tell(rank, DenseExchanged(0)) == [EnterBarrier(0)]


def test_a_checkpoint_is_cut_behind_its_barrier_and_lookups_wait_for_it() -> None:
    rank = rank_with(checkpoint_every_steps=1)
    arrive(rank, 0, 1)
    assert tell(rank, LookedUp(0), DenseDone(0), Pushed(0)) == [TrainDense(0), Push(0), EnterBarrier(0)]
    assert tell(rank, BarrierPassed(0)) == [SaveCheckpoint(0)]
    assert tell(rank, CheckpointSaved(0)) == [Lookup(1)]
    tell(rank, LookedUp(1), DenseDone(1), Pushed(1), BarrierPassed(1))
    assert arrive(rank, 2) == []
    assert tell(rank, CheckpointSaved(0)) == [], "an old answer does not end this checkpoint"
    assert tell(rank, CheckpointSaved(1)) == [Lookup(2)]


def test_sync_with_checkpoints_saves_at_their_steps_only() -> None:
    rank = rank_with(Mode.SYNC, checkpoint_every_steps=2)
    arrive(rank, 0, 1, 2)
    tell(rank, LookedUp(0), DenseDone(0), Pushed(0))
    assert tell(rank, BarrierPassed(0)) == [Lookup(1)]
    tell(rank, LookedUp(1), DenseDone(1), Pushed(1))
    assert tell(rank, BarrierPassed(1)) == [SaveCheckpoint(1)]


def test_a_rank_continues_behind_a_checkpoint() -> None:
    rank = rank_with(world_size=2, rank=1, first_step=4, checkpoint_every_steps=3)
    assert tell(rank, Restarted(0)) == []
    assert arrive(rank, 9) == [Lookup(9)]
    tell(rank, LookedUp(9), DenseDone(9), Pushed(9))
    arrive(rank, 11)
    assert tell(rank, LookedUp(11), DenseDone(11), Pushed(11))[-1] == EnterBarrier(5)


def test_a_finished_batch_that_is_sent_again_is_reported_and_not_trained_again() -> None:
    rank = rank_with()
    arrive(rank, 0)
    assert arrive(rank, 0) == [], "it is in flight"
    tell(rank, LookedUp(0), DenseDone(0), Pushed(0))
    assert arrive(rank, 0) == [CommitBatch(0)]
    assert arrive(rank, 1) == [Lookup(1)]
    assert arrive(rank_with(first_step=3), 2) == [CommitBatch(2)], "trained before the checkpoint"


def test_an_event_of_another_role_is_refused() -> None:
    with pytest.raises(KeyError):
        rank_with().handle(BatchRead(0), 0.0)
