"""No schedule breaks under events in any order, however senseless; and none remembers more the longer it runs."""

from __future__ import annotations

from collections.abc import Sized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persia.schedule.log import Header, Schedule, new_schedule
from persia.schedule.messages import BarrierPassed as Passed
from persia.schedule.messages import (
    BatchArrived,
    BatchCommitted,
    BatchExpired,
    BatchRead,
    Command,
    CreditGranted,
    DenseDone,
    Event,
    FeaturesArrived,
    GradientsArrived,
    LookedUp,
    LookupAsked,
    LookupFailed,
    LookupQueued,
    LookupServed,
    Pushed,
    PushFailed,
    RowsArrived,
    ServerFailed,
    SnapshotAsked,
    SnapshotCut,
    Timer,
    UpdateAcked,
    UpdateApplied,
    UpdateQueued,
)
from persia.schedule.messages import CheckpointSaved as Saved
from persia.schedule.messages import DenseExchanged as Exchanged
from persia.schedule.modes import Mode
from tests.schedule.telling import small_loader_limits, small_rank_limits, small_server_limits, small_worker_limits, tell

BATCH = st.integers(0, 7)
SERVER = st.integers(-1, 1)
HEARD: dict[str, st.SearchStrategy[Event]] = {
    "nn_worker": st.one_of(
        st.builds(Timer),
        *[st.builds(k, BATCH) for k in (BatchArrived, LookedUp, LookupFailed, DenseDone, Exchanged, Pushed, PushFailed, Passed, Saved)],
    ),
    "embedding_worker": st.one_of(
        st.builds(Timer),
        *[st.builds(kind, BATCH) for kind in (FeaturesArrived, LookupAsked, GradientsArrived)],
        *[st.builds(kind, BATCH, SERVER) for kind in (RowsArrived, UpdateAcked, ServerFailed)],
    ),
    "parameter_server": st.one_of(
        *[st.builds(kind, BATCH) for kind in (LookupQueued, UpdateQueued, LookupServed, UpdateApplied, SnapshotAsked, SnapshotCut)]
    ),
    "loader": st.one_of(st.builds(Timer), *[st.builds(kind, BATCH) for kind in (BatchRead, CreditGranted, BatchCommitted, BatchExpired)]),
}


def header(mode: Mode) -> Header:
    return Header(
        rank=small_rank_limits(mode, checkpoint_every_steps=2),
        worker=small_worker_limits(fan_outs_max=1, buffer_max=2),
        server=small_server_limits(gather=2 if mode is Mode.SYNC else 1),
        loader=small_loader_limits(),
    )


@pytest.mark.parametrize("role", HEARD)
@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data(), mode=st.sampled_from(Mode))
def test_senseless_events_change_nothing_that_matters(role: str, data: st.DataObject, mode: Mode) -> None:
    events = data.draw(st.lists(st.tuples(HEARD[role], st.sampled_from([0.0, 0.5, 1.0, 200.0])), max_size=60))
    schedules = [new_schedule(header(mode), role, 0) for _ in range(2)]
    now_s = 0.0
    for event, wait_s in events:
        now_s += wait_s
        first, second = [tell(schedule, event, now_s=now_s) for schedule in schedules]
        assert first == second, "the same events give the same commands"
        assert all(isinstance(command, Command) for command in first)


# --- memory ---------------------------------------------------------------------------------------------------------


def facts(thing: object) -> int:
    """Count everything that a schedule holds, its helpers included."""
    if isinstance(thing, dict):
        return len(thing) + sum(facts(value) for value in thing.values())
    names = getattr(type(thing), "__slots__", ())
    if isinstance(thing, Sized) and not names:
        return len(thing)
    return sum(facts(getattr(thing, name)) for name in names if name not in ("_notes", "limits"))


def life(role: str, batch: int) -> list[Event]:
    """What a role hears of one batch: lost once, answered late, repeated."""
    if role == "nn_worker":
        first = [BatchArrived(batch), LookupFailed(batch), LookedUp(batch), LookedUp(batch), DenseDone(batch)]
        return [*first, PushFailed(batch), Pushed(batch), Pushed(batch), BatchArrived(batch)]
    if role == "embedding_worker":
        lookup = [FeaturesArrived(batch), LookupAsked(batch), ServerFailed(batch, 0), RowsArrived(batch, 1), RowsArrived(batch, 0)]
        update = [GradientsArrived(batch), ServerFailed(batch, 1), UpdateAcked(batch, 0), Timer(), UpdateAcked(batch, 1)]
        return [*lookup, *update, GradientsArrived(batch), FeaturesArrived(batch), LookupAsked(batch)]
    if role == "parameter_server":
        other = batch ^ 1  # the other rank's batch of the step comes first
        return [LookupQueued(batch), LookupServed(batch), *[UpdateQueued(other)] * 2, UpdateApplied(other), UpdateQueued(other)]
    return [BatchRead(batch), CreditGranted(batch), BatchExpired(batch), BatchRead(batch), BatchCommitted(batch), BatchCommitted(batch)]


@pytest.mark.parametrize("role", HEARD)
def test_a_long_run_remembers_no_more_than_a_short_one(role: str) -> None:
    limits = Header(
        rank=small_rank_limits(),
        worker=small_worker_limits(),
        server=small_server_limits(),
        loader=small_loader_limits(stop_batch=None),
    )
    schedule: Schedule = new_schedule(limits, role, 0)
    if role == "loader":
        schedule.handle(Timer(), 0.0)
    sizes = []
    for batch in range(2000):
        for event in life(role, batch):
            schedule.handle(event, 1.0 * batch)
        sizes.append(facts(schedule))
    assert max(sizes[1000:]) <= max(sizes[200:1000]), "it grows with the run"
    assert max(sizes) < 400
