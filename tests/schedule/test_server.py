"""Each rule of ServerSchedule by itself."""

from __future__ import annotations

import pytest

from persia.schedule.memory import Done
from persia.schedule.messages import (
    Acknowledge,
    ApplyStep,
    ApplyUpdate,
    CutSnapshot,
    LookupQueued,
    LookupServed,
    Restarted,
    ServeLookup,
    SnapshotAsked,
    SnapshotCut,
    Timer,
    UpdateApplied,
    UpdateQueued,
)
from persia.schedule.server import ServerSchedule
from tests.schedule.telling import small_server_limits, tell


def server_with(**limits: int) -> ServerSchedule:
    return ServerSchedule(small_server_limits(**limits))


def test_requests_are_served_in_the_order_of_arrival_one_per_slot() -> None:
    server = server_with()
    assert tell(server, LookupQueued(0), UpdateQueued(1), LookupQueued(2)) == [ServeLookup(0)]
    assert tell(server, LookupServed(0)) == [ApplyUpdate(1)]
    assert tell(server, UpdateApplied(1)) == [Acknowledge(1), ServeLookup(2)]


def test_slots_serve_side_by_side() -> None:
    server = server_with(service_slots=2)
    assert tell(server, LookupQueued(0), UpdateQueued(1), UpdateQueued(2)) == [ServeLookup(0), ApplyUpdate(1)]
    assert tell(server, LookupServed(0)) == [ApplyUpdate(2)]


def test_a_repeated_lookup_is_served_once_while_queued_or_in_service_and_again_afterwards() -> None:
    server = server_with()
    assert tell(server, LookupQueued(0), LookupQueued(0), LookupQueued(1), LookupQueued(1)) == [ServeLookup(0)]
    assert tell(server, LookupServed(0), LookupServed(0)) == [ServeLookup(1)]
    assert tell(server, LookupServed(1)) == []
    assert tell(server, LookupQueued(0)) == [ServeLookup(0)]


def test_a_repeated_update_is_applied_once_and_acknowledged_again() -> None:
    server = server_with()
    assert tell(server, UpdateQueued(0), UpdateQueued(0)) == [ApplyUpdate(0)]
    assert tell(server, UpdateApplied(0), UpdateApplied(0)) == [Acknowledge(0)]
    assert tell(server, UpdateQueued(0)) == [Acknowledge(0)]
    assert server.version == 1


def test_an_update_is_known_however_many_others_came_in_between() -> None:
    server = server_with(remember_max=2000)
    for batch in range(2, 2000):
        tell(server, UpdateQueued(batch), UpdateApplied(batch))
    assert tell(server, UpdateQueued(2)) == [Acknowledge(2)]
    assert tell(server, UpdateQueued(0), UpdateApplied(0)) == [ApplyUpdate(0), Acknowledge(0)]


def test_the_updates_of_a_step_wait_for_every_rank_and_are_applied_as_one() -> None:
    server = server_with(gather=2)
    assert tell(server, UpdateQueued(1), UpdateQueued(1), UpdateQueued(2)) == []
    assert tell(server, UpdateQueued(0)) == [ApplyStep(0)]
    assert tell(server, LookupQueued(4), UpdateApplied(1)) == [Acknowledge(1)], "the step holds its slot to its end"
    assert server.version == 0
    assert tell(server, UpdateApplied(0)) == [Acknowledge(0), ServeLookup(4)]
    assert server.version == 1


def test_a_snapshot_waits_for_what_is_in_service_and_nothing_starts_before_it_is_cut() -> None:
    server = server_with(service_slots=2)
    tell(server, UpdateQueued(0), LookupQueued(1))
    assert tell(server, SnapshotAsked(4), LookupQueued(2)) == []
    assert tell(server, UpdateApplied(0)) == [Acknowledge(0)]
    assert tell(server, LookupServed(1)) == [CutSnapshot(4)]
    assert tell(server, UpdateQueued(3), SnapshotCut(3)) == []
    assert tell(server, SnapshotCut(4)) == [ServeLookup(2), ApplyUpdate(3)]


def test_a_snapshot_that_every_rank_asks_for_is_cut_once() -> None:
    server = server_with()
    assert tell(server, SnapshotAsked(4), SnapshotAsked(4), SnapshotCut(4)) == [CutSnapshot(4)]
    assert tell(server, SnapshotAsked(4)) == []
    assert tell(server, UpdateQueued(0), SnapshotAsked(9), UpdateApplied(0)) == [ApplyUpdate(0), Acknowledge(0), CutSnapshot(9)]


def test_a_server_that_comes_back_with_its_table_knows_what_is_applied() -> None:
    server = server_with()
    tell(server, UpdateQueued(0), UpdateApplied(0), UpdateQueued(1))
    again = ServerSchedule(server.limits, server.applied)
    assert tell(again, Restarted(0), UpdateQueued(0), UpdateQueued(1)) == [Acknowledge(0), ApplyUpdate(1)]


def test_a_server_that_continues_behind_a_checkpoint_knows_what_came_before() -> None:
    server = ServerSchedule(small_server_limits(), Done(2, first_step=3))
    assert tell(server, UpdateQueued(5), UpdateQueued(6)) == [Acknowledge(5), ApplyUpdate(6)]
    assert server.next_timer_s() is None


def test_an_event_of_another_role_is_refused() -> None:
    with pytest.raises(KeyError):
        server_with().handle(Timer(), 0.0)
