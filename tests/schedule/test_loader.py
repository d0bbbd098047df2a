"""Each rule of LoaderSchedule by itself."""

from __future__ import annotations

import pytest

from persia.schedule.loader import LoaderSchedule
from persia.schedule.messages import (
    BatchCommitted,
    BatchExpired,
    BatchRead,
    CommitOffset,
    CreditGranted,
    Pushed,
    ReadBatch,
    Restarted,
    SendBatch,
    Timer,
)
from tests.schedule.telling import small_loader_limits, tell


def loader_with(**limits: int | None) -> LoaderSchedule:
    return LoaderSchedule(small_loader_limits(**limits))


def test_a_batch_is_read_sent_taken_and_committed() -> None:
    loader = loader_with()
    assert tell(loader, Timer()) == [ReadBatch(0), ReadBatch(1)]
    assert tell(loader, BatchRead(0)) == [SendBatch(0, 0, 0), ReadBatch(2)]
    assert tell(loader, CreditGranted(0)) == []
    assert tell(loader, BatchCommitted(0)) == [CommitOffset(1)]
    assert loader.next_timer_s() is None


def test_a_loader_reads_its_own_batches_and_addresses_them_by_their_number() -> None:
    loader = loader_with(loader=1, loaders=2, world_size=3, workers=2, first_batch=4, stop_batch=12)
    assert tell(loader, Restarted(4)) == [ReadBatch(5), ReadBatch(7)]
    assert tell(loader, BatchRead(7), BatchRead(5)) == [SendBatch(7, 1, 1), ReadBatch(9), SendBatch(5, 1, 2), ReadBatch(11)]


def test_reading_stops_at_the_end_of_the_data() -> None:
    loader = loader_with(stop_batch=2, read_ahead_max=9)
    assert tell(loader, Timer()) == [ReadBatch(0), ReadBatch(1)]
    assert tell(loader, BatchRead(0)) == [SendBatch(0, 0, 0)]


def test_a_full_queue_holds_back_its_own_rank_only() -> None:
    loader = loader_with(read_ahead_max=4)
    tell(loader, Timer())
    assert tell(loader, BatchRead(0), BatchRead(2)) == [SendBatch(0, 0, 0), ReadBatch(4)]
    assert tell(loader, BatchRead(1)) == [SendBatch(1, 0, 1), ReadBatch(5)]
    assert tell(loader, CreditGranted(0)) == [SendBatch(2, 0, 0), ReadBatch(6)]


def test_the_batches_of_a_rank_leave_in_order_in_whatever_order_they_are_read() -> None:
    loader = loader_with(read_ahead_max=4, input_queue_max=2)
    tell(loader, Timer())
    assert tell(loader, BatchRead(2), BatchRead(3)) == [], "its rank could not take it before batch 0"
    assert tell(loader, BatchRead(0)) == [SendBatch(0, 0, 0), SendBatch(2, 0, 0), ReadBatch(4), ReadBatch(5)]


def test_what_waits_for_room_counts_as_read_ahead() -> None:
    loader = loader_with(read_ahead_max=2)
    tell(loader, Timer(), BatchRead(0), BatchRead(1))  # reading 2 and 3
    assert tell(loader, BatchRead(2), BatchRead(3)) == []
    assert tell(loader, CreditGranted(0)) == [SendBatch(2, 0, 0), ReadBatch(4)]


def test_a_credit_granted_twice_makes_room_once() -> None:
    loader = loader_with(read_ahead_max=6)
    tell(loader, Timer(), *map(BatchRead, (0, 2, 4)))
    assert SendBatch(2, 0, 0) in tell(loader, CreditGranted(0))
    assert tell(loader, CreditGranted(0)) == []
    assert loader.ignored == 1


def test_a_commit_makes_room_where_the_credit_was_lost() -> None:
    loader = loader_with(read_ahead_max=4)
    tell(loader, Timer(), BatchRead(0), BatchRead(2))
    assert tell(loader, BatchCommitted(0)) == [SendBatch(2, 0, 0), ReadBatch(5), CommitOffset(1)]
    assert tell(loader, CreditGranted(0)) == []


def test_the_offset_passes_batches_in_order_only() -> None:
    loader = loader_with(read_ahead_max=9, input_queue_max=9)
    tell(loader, Timer(), *map(BatchRead, range(4)))
    assert tell(loader, BatchCommitted(1), BatchCommitted(2), BatchCommitted(2)) == []
    assert tell(loader, BatchCommitted(0)) == [CommitOffset(3)]


def test_the_offset_is_reported_every_so_many_batches() -> None:
    loader = loader_with(read_ahead_max=9, input_queue_max=9, commit_every=2)
    tell(loader, Timer(), *map(BatchRead, range(4)))
    assert tell(loader, BatchCommitted(0)) == []
    assert tell(loader, BatchCommitted(1)) == [CommitOffset(2)]


def test_a_batch_that_a_worker_forgot_is_read_and_sent_again_whatever_waits() -> None:
    loader = loader_with(read_ahead_max=2)
    tell(loader, Timer(), *map(BatchRead, range(4)))  # 0 and 1 are sent, 2 and 3 wait for room: nothing is read ahead
    assert tell(loader, BatchExpired(0)) == [ReadBatch(0)]
    assert tell(loader, BatchExpired(0)) == []
    assert tell(loader, BatchRead(0)) == [SendBatch(0, 0, 0)]
    assert tell(loader, BatchExpired(7)) == [], "never sent"


def test_a_batch_that_is_committed_while_it_is_read_again_is_not_sent_again() -> None:
    loader = loader_with()
    tell(loader, Timer(), BatchRead(0))
    tell(loader, BatchExpired(0))
    assert tell(loader, BatchCommitted(0)) == [CommitOffset(1)]
    assert tell(loader, BatchRead(0), BatchRead(0), BatchExpired(0)) == []


def test_a_restarted_loader_sends_what_is_not_committed_again() -> None:
    loader = loader_with(first_batch=3)
    assert tell(loader, Restarted(3)) == [ReadBatch(3), ReadBatch(4)]
    assert tell(loader, BatchCommitted(4), CreditGranted(3)) == [], "it has not sent them yet"
    assert tell(loader, BatchRead(3)) == [SendBatch(3, 0, 1), ReadBatch(5)]
    assert tell(loader, BatchCommitted(3)) == [CommitOffset(4)]


def test_an_event_of_another_role_is_refused() -> None:
    with pytest.raises(KeyError):
        loader_with().handle(Pushed(0), 0.0)
