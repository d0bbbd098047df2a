"""Each rule of WorkerSchedule by itself."""

from __future__ import annotations

import pytest

from persia.schedule.messages import (
    EVERY_SERVER,
    Expire,
    FanOutLookup,
    FanOutUpdate,
    FeaturesArrived,
    GradientsArrived,
    GrantCredit,
    LookedUp,
    LookupAsked,
    ReplyAck,
    ReplyRows,
    RetryLookup,
    RetryUpdate,
    RowsArrived,
    ServerFailed,
    Timer,
    UpdateAcked,
)
from persia.schedule.worker import WorkerSchedule
from tests.schedule.telling import small_worker_limits, tell


def worker_with(**limits: int | float) -> WorkerSchedule:
    return WorkerSchedule(small_worker_limits(**limits))


def looked_up(worker: WorkerSchedule, batch: int) -> None:
    """Bring a batch to where its rank has its rows."""
    tell(worker, FeaturesArrived(batch), LookupAsked(batch), RowsArrived(batch, EVERY_SERVER))


def test_a_batch_is_looked_up_updated_and_forgotten() -> None:
    worker = worker_with()
    assert tell(worker, FeaturesArrived(0)) == []
    assert tell(worker, LookupAsked(0)) == [FanOutLookup(0), GrantCredit(0)]
    assert tell(worker, RowsArrived(0, 1)) == []
    assert tell(worker, RowsArrived(0, 0)) == [ReplyRows(0)]
    assert tell(worker, GradientsArrived(0)) == [FanOutUpdate(0)]
    assert tell(worker, UpdateAcked(0, 0)) == []
    assert tell(worker, UpdateAcked(0, 1)) == [ReplyAck(0)]
    assert worker.next_timer_s() is None
    assert not worker.buffer


def test_every_server_can_answer_as_one() -> None:
    worker = worker_with(servers=480)
    tell(worker, FeaturesArrived(0), LookupAsked(0))
    assert tell(worker, RowsArrived(0, EVERY_SERVER)) == [ReplyRows(0)]
    tell(worker, GradientsArrived(0))
    assert tell(worker, UpdateAcked(0, EVERY_SERVER)) == [ReplyAck(0)]


def test_one_server_that_answers_twice_does_not_answer_for_the_other() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0), LookupAsked(0))
    assert tell(worker, RowsArrived(0, 1), RowsArrived(0, 1)) == []
    looked_up(worker, 1)
    tell(worker, GradientsArrived(1))
    assert tell(worker, UpdateAcked(1, 0), UpdateAcked(1, 0)) == []


def test_work_starts_when_the_features_are_here_whichever_comes_first() -> None:
    worker = worker_with()
    assert tell(worker, LookupAsked(0)) == [GrantCredit(0)]
    assert tell(worker, FeaturesArrived(0)) == [FanOutLookup(0)]
    assert tell(worker, GradientsArrived(1)) == []
    assert tell(worker, LookupAsked(1)) == [], "its rank has trained it: the lookup is an old one"
    assert tell(worker, FeaturesArrived(1)) == [FanOutUpdate(1)]


def test_gradients_that_wait_replace_the_lookup_that_waits() -> None:
    worker = worker_with()
    tell(worker, LookupAsked(0), GradientsArrived(0))
    assert tell(worker, FeaturesArrived(0)) == [FanOutUpdate(0)]


def test_lookup_slots_hold_lookups_back_but_no_update() -> None:
    worker = worker_with(fan_outs_max=1)
    looked_up(worker, 0)
    assert tell(worker, FeaturesArrived(1), LookupAsked(1), FeaturesArrived(2), LookupAsked(2)) == [
        FanOutLookup(1),
        GrantCredit(1),
        GrantCredit(2),
    ]
    assert tell(worker, GradientsArrived(0)) == [FanOutUpdate(0)]
    assert tell(worker, RowsArrived(1, EVERY_SERVER)) == [ReplyRows(1), FanOutLookup(2)]


def test_a_repeated_lookup_is_ignored_under_way_and_fanned_out_again_once_answered() -> None:
    worker = worker_with(fan_outs_max=1)
    tell(worker, FeaturesArrived(0), FeaturesArrived(1), LookupAsked(0), LookupAsked(1))
    assert tell(worker, LookupAsked(0), LookupAsked(1)) == []
    assert tell(worker, RowsArrived(0, EVERY_SERVER)) == [ReplyRows(0), FanOutLookup(1)]
    tell(worker, RowsArrived(1, EVERY_SERVER))
    assert tell(worker, LookupAsked(0)) == [FanOutLookup(0)], "and its credit is not granted again"


def test_gradients_end_a_repeated_lookup_wherever_it_is() -> None:
    worker = worker_with(fan_outs_max=1)
    looked_up(worker, 0)
    looked_up(worker, 1)
    tell(worker, LookupAsked(0), LookupAsked(1))  # 0 is fanned out, 1 waits for the slot
    assert tell(worker, GradientsArrived(1)) == [FanOutUpdate(1)]
    assert tell(worker, GradientsArrived(0)) == [FanOutUpdate(0)]
    assert tell(worker, RowsArrived(0, EVERY_SERVER), LookupAsked(0)) == []
    assert tell(worker, UpdateAcked(0, EVERY_SERVER), UpdateAcked(1, EVERY_SERVER)) == [ReplyAck(0), ReplyAck(1)]


def test_a_repeated_push_is_ignored_under_way_and_acknowledged_again_once_applied() -> None:
    worker = worker_with()
    looked_up(worker, 0)
    assert tell(worker, GradientsArrived(0), GradientsArrived(0)) == [FanOutUpdate(0)]
    assert tell(worker, UpdateAcked(0, EVERY_SERVER)) == [ReplyAck(0)]
    assert tell(worker, UpdateAcked(0, EVERY_SERVER)) == []
    assert tell(worker, GradientsArrived(0)) == [ReplyAck(0)]
    assert tell(worker, FeaturesArrived(0), LookupAsked(0)) == [], "it is over"


def test_a_server_that_fails_is_asked_again_alone_after_a_back_off_that_doubles() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0), LookupAsked(0))
    assert tell(worker, ServerFailed(0, 1), ServerFailed(0, 1)) == []
    assert worker.next_timer_s() == 1.0
    assert tell(worker, Timer(), now_s=1.0) == [RetryLookup(0, 1)]
    assert tell(worker, ServerFailed(0, 1), now_s=1.0) == []
    assert tell(worker, Timer(), now_s=3.0) == [RetryLookup(0, 1)]
    assert tell(worker, RowsArrived(0, 0), RowsArrived(0, 1), now_s=3.0) == [ReplyRows(0)]
    tell(worker, GradientsArrived(0), ServerFailed(0, 0), now_s=4.0)
    assert tell(worker, Timer(), now_s=5.0) == [RetryUpdate(0, 0)], "an update has its own back-off"


def test_a_server_that_answers_after_its_declared_loss_is_not_asked_again() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0), LookupAsked(0), ServerFailed(0, 1), RowsArrived(0, 1))
    assert tell(worker, ServerFailed(0, 1), Timer(), now_s=50.0) == []
    assert tell(worker, RowsArrived(0, 0), now_s=50.0) == [ReplyRows(0)]


def test_losses_are_forgotten_with_their_fan_out() -> None:
    worker = worker_with()
    for batch in range(20):
        tell(worker, FeaturesArrived(batch), LookupAsked(batch), ServerFailed(batch, EVERY_SERVER))
        assert tell(worker, Timer(), now_s=1.0) == [RetryLookup(batch, EVERY_SERVER)]
        tell(worker, RowsArrived(batch, EVERY_SERVER), GradientsArrived(batch), UpdateAcked(batch, EVERY_SERVER))
    assert worker.retries.remembered == 0


def test_credits_wait_while_the_buffer_is_full() -> None:
    worker = worker_with(buffer_max=1)
    assert tell(worker, FeaturesArrived(0), FeaturesArrived(1), LookupAsked(0)) == [FanOutLookup(0)]
    tell(worker, RowsArrived(0, EVERY_SERVER), GradientsArrived(0))
    assert tell(worker, UpdateAcked(0, EVERY_SERVER)) == [ReplyAck(0)]
    assert tell(worker, LookupAsked(1), RowsArrived(1, EVERY_SERVER), GradientsArrived(1)) == [
        FanOutLookup(1),
        ReplyRows(1),
        FanOutUpdate(1),
    ]
    assert tell(worker, UpdateAcked(1, EVERY_SERVER)) == [ReplyAck(1), GrantCredit(0), GrantCredit(1)]


def test_a_batch_that_nobody_comes_for_expires_and_may_come_again() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0))
    tell(worker, FeaturesArrived(1), now_s=30.0)
    assert worker.next_timer_s() == 100.0
    assert tell(worker, Timer(), now_s=100.0) == [Expire(0)]
    assert worker.next_timer_s() == 130.0
    assert tell(worker, FeaturesArrived(0), LookupAsked(0), now_s=101.0) == [FanOutLookup(0), GrantCredit(0)]


def test_a_batch_with_work_under_way_does_not_expire_nor_hide_the_next() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0), LookupAsked(0))
    tell(worker, FeaturesArrived(1))
    assert tell(worker, Timer(), now_s=100.0) == [Expire(1)]
    assert tell(worker, RowsArrived(0, EVERY_SERVER), now_s=101.0) == [ReplyRows(0)]
    assert tell(worker, Timer(), now_s=200.0) == [Expire(0)]


@pytest.mark.parametrize("ask", [LookupAsked, GradientsArrived])
def test_a_batch_whose_features_never_come_is_reported_and_forgotten(ask: type) -> None:
    worker = worker_with()
    tell(worker, ask(0))
    assert tell(worker, Timer(), now_s=100.0) == [Expire(0)]
    assert worker.next_timer_s() is None
    assert not worker.waiting


def test_late_answers_are_ignored() -> None:
    worker = worker_with()
    tell(worker, FeaturesArrived(0))
    assert tell(worker, RowsArrived(0, 0), UpdateAcked(0, 0), ServerFailed(0, 0), RowsArrived(7, 1)) == []
    assert worker.ignored == 4


def test_an_event_of_another_role_is_refused() -> None:
    with pytest.raises(KeyError):
        worker_with().handle(LookedUp(0), 0.0)
