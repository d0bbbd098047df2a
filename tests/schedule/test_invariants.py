"""Every law can be broken, and CollectiveOrder sees ranks that part ways."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from persia.schedule.invariants import CollectiveOrder, broken_laws
from persia.schedule.loader import LoaderSchedule
from persia.schedule.messages import (
    BatchArrived,
    BatchRead,
    FeaturesArrived,
    LookedUp,
    LookupAsked,
    LookupQueued,
    Push,
    Timer,
    TrainDense,
    UpdateQueued,
)
from persia.schedule.rank import RankSchedule
from persia.schedule.server import ServerSchedule
from persia.schedule.worker import WorkerSchedule
from tests.schedule.telling import small_loader_limits, small_rank_limits, small_server_limits, small_worker_limits, tell


def busy_rank() -> RankSchedule:
    rank = RankSchedule(small_rank_limits(world_size=2, checkpoint_every_steps=4, lookups_max=1, pushes_max=1), 0)
    tell(rank, BatchArrived(0), BatchArrived(2), LookedUp(0))
    return rank


def busy_worker() -> WorkerSchedule:
    worker = WorkerSchedule(small_worker_limits(fan_outs_max=1, remember_max=1))
    tell(worker, FeaturesArrived(0), FeaturesArrived(1), LookupAsked(0), LookupAsked(1), LookupAsked(2))
    return worker


def busy_server() -> ServerSchedule:
    server = ServerSchedule(small_server_limits(remember_max=1))
    tell(server, LookupQueued(0), UpdateQueued(1))
    return server


def busy_loader() -> LoaderSchedule:
    loader = LoaderSchedule(small_loader_limits())
    tell(loader, Timer(), BatchRead(0))
    return loader


BREAKS: list[tuple[Callable[[], Any], Callable[[Any], object], str]] = [
    (busy_rank, lambda rank: rank.looked_up.add(0), "in exactly one place"),
    (busy_rank, lambda rank: rank.permits.remove(2), "holds a permit exactly while"),
    (busy_rank, lambda rank: rank.permits.update({4, 6}), "than there are permits"),
    (busy_rank, lambda rank: rank.looking_up.add(6), "lookups are under way than there are slots"),
    (busy_rank, lambda rank: rank.pushing.update({6, 8}), "pushes are under way than there are slots"),
    (busy_rank, lambda rank: rank.looking_up.add(3), "batches of its own only"),
    (busy_rank, lambda rank: setattr(rank, "lookup_batch", 0), "before its lookup"),
    (busy_rank, lambda rank: setattr(rank, "barrier_step", 0), "before the barrier has passed"),
    (busy_worker, lambda worker: setattr(worker, "lookups", 0), "are counted"),
    (busy_worker, lambda worker: setattr(worker, "lookups", 2), "fanned out than there are slots"),
    (busy_worker, lambda worker: worker.buffer.remove(0), "only while it is in the buffer"),
    (busy_worker, lambda worker: worker.applied.add(1), "an applied batch has left the buffer"),
    (busy_worker, lambda worker: setattr(worker, "applied", {7, 8}), "are remembered than agreed"),
    (busy_worker, lambda worker: worker.to_reply_ack.append(0), "has been sent"),
    (busy_worker, lambda worker: worker.to_look_up.append(0), "in exactly one place"),
    (busy_worker, lambda worker: worker.waiting.update({0: False}), "only until they are here"),
    (busy_worker, lambda worker: worker.buffer.add(9), "forgotten some day"),
    (busy_server, lambda server: setattr(server, "busy", 2), "in service than there are slots"),
    (busy_server, lambda server: server.applied.add(1), "not applied again"),
    (busy_server, lambda server: server.applying.add(5), "was asked for"),
    (busy_server, lambda server: server.serving.add(5), "a slot is taken by each"),
    (busy_server, lambda server: server.to_acknowledge.append(5), "has been sent"),
    (busy_server, lambda server: [server.applied.add(batch) for batch in (4, 6)], "ahead of a missing one"),
    (busy_server, lambda server: server.gathering.update({0: [0, 0]}), "gathers each rank once"),
    (busy_server, lambda server: setattr(server, "cutting", 3), "while a snapshot is cut"),
    (busy_loader, lambda loader: loader.in_queue[0].add(4), "input queue overflows"),
    (busy_loader, lambda loader: setattr(loader, "ahead_count", 9), "read ahead than agreed"),
    (busy_loader, lambda loader: loader.ahead.update({0: deque([2, 1])}), "wait in order"),
    (busy_loader, lambda loader: loader.read.add(1), "being read or ready"),
    (busy_loader, lambda loader: loader.sent.add(1), "sent, to be sent again or read ahead"),
    (busy_loader, lambda loader: loader.committed_ahead.add(0), "not sent again"),
    (busy_loader, lambda loader: loader.to_send.append(1), "has been told to"),
]


@pytest.mark.parametrize(("build", "spoil", "law"), BREAKS, ids=[law for _, _, law in BREAKS])
def test_a_broken_fact_breaks_its_law(build: Callable[[], Any], spoil: Callable[[Any], object], law: str) -> None:
    schedule = build()
    assert broken_laws(schedule) == []
    spoil(schedule)
    assert any(law in sentence for sentence in broken_laws(schedule)), broken_laws(schedule)


def test_a_loader_holds_its_own_batches_only() -> None:
    loader = LoaderSchedule(small_loader_limits(loaders=2))
    loader.sent.add(1)
    assert any("of its own only" in sentence for sentence in broken_laws(loader))


def test_laws_of_something_else_are_not_known() -> None:
    with pytest.raises(TypeError, match="object"):
        broken_laws(object())  # type: ignore[arg-type]


def test_every_rank_trains_step_after_step() -> None:
    order = CollectiveOrder(2)
    assert order.broken_laws(0, [TrainDense(4), Push(2)]) == [], "a run may begin at any step"
    assert order.broken_laws(1, [TrainDense(5)]) == []
    assert order.broken_laws(0, [TrainDense(6)]) == []
    assert order.broken_laws(1, [TrainDense(9)]) == ["rank 1 trains step 4 where step 3 is due"]
    assert order.broken_laws(0, [TrainDense(6)]) == ["rank 0 trains step 3 where step 4 is due"]
