"""A server that comes back: wherever its predecessor died between a table's update and the last note of it, it counts once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.runtime.applied import AppliedLog
from persia.runtime.make_server import reconcile
from persia.runtime.plan import Plan, make_plan
from persia.runtime.records import open_log
from persia.runtime.tables import Tables
from persia.schedule.log import read_log, replay
from persia.schedule.messages import Acknowledge, ApplyStep, Command, Event, Restarted, UpdateApplied, UpdateQueued
from persia.schedule.server import ServerSchedule
from tests.runtime.faults import small

KEYS = np.arange(20, dtype=np.uint64)
STEPS = 3  # the first ones ended well


class Server:
    """What a server's process does with one step's update, act by act."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.log_path = folder / "log.jsonl"
        self.applied = AppliedLog(folder / "applied")
        self.tables = Tables(plan, 0, folder)
        if self.tables.fresh:
            self.tables.lookup([KEYS, KEYS])
        self.tables.mark_ready()

    def open(self) -> None:
        """Go on with the log that `reconcile` has left."""
        self.schedule = ServerSchedule(self.plan.header.server, self.applied.done(self.plan.ranks, 0))
        self.log, self.log_file = open_log(self.log_path, self.plan.header)

    def acts(self, step: int) -> list[Callable[[], object]]:
        """What happens one after another; the process may die between any two."""
        batches = (2 * step, 2 * step + 1)
        gradients = [np.full((len(KEYS), group.dim), 0.1 * (step + 1), np.float32) for group in self.plan.groups]
        tables = self.tables._tables
        return [
            lambda: self.hear(*map(UpdateQueued, batches)),
            *(lambda t=t, g=g: t.update(KEYS, g, number=step) for t, g in zip(tables, gradients, strict=True)),  # type: ignore[misc]
            *(lambda b=b: self.hear(UpdateApplied(b)) for b in batches),  # type: ignore[misc]
            *(lambda b=b: self.applied.append(b) for b in batches),  # type: ignore[misc]
            *(lambda t=t: t.forget(step) for t in tables),  # type: ignore[misc]
        ]

    def hear(self, *events: Event) -> list[Command]:
        commands = []
        for event in events:
            given = self.schedule.handle(event, 0.0)
            self.log.record(0.0, "parameter_server", 0, event, given)
            commands += given
        self.log_file.flush()
        return commands

    def repeat(self, step: int) -> None:
        """Do what a worker asks for again, where it is not applied."""
        self.open()
        batches = (2 * step, 2 * step + 1)
        commands = self.hear(Restarted(0), *map(UpdateQueued, batches))
        if commands == [ApplyStep(step)]:
            for act in self.acts(step)[1:]:
                act()
        else:
            assert commands == list(map(Acknowledge, batches))

    def die(self) -> None:
        """Leave the files as they are."""
        self.log_file.close()
        self.applied.close()
        self.tables.close()


@pytest.mark.parametrize("acts", range(10))
def test_step_counts_once_wherever_the_server_dies(tmp_path: Path, acts: int) -> None:
    plan = make_plan(small("schedule.mode=sync", steps=10))
    server = Server(plan, tmp_path)
    server.open()
    for step in range(STEPS):
        for act in server.acts(step)[: None if step < STEPS - 1 else acts]:
            act()
    server.die()

    successor = Server(plan, tmp_path)
    reconcile(successor.tables, successor.applied, plan, successor.log_path)
    successor.repeat(STEPS - 1)
    assert sorted(successor.applied.batches()) == list(range(2 * STEPS))
    assert successor.tables.pending() == []
    with successor.log_path.open(encoding="utf-8") as lines:
        header, entries = read_log(lines)
        assert replay(header, entries) is None

    (tmp_path / "undisturbed").mkdir()
    undisturbed = Server(plan, tmp_path / "undisturbed")
    undisturbed.open()
    for step in range(STEPS):
        for act in undisturbed.acts(step):
            act()
    for found, wanted in zip(successor.tables.export().tables, undisturbed.tables.export().tables, strict=True):
        np.testing.assert_array_equal(found.values, wanted.values)
        np.testing.assert_array_equal(found.state, wanted.state)
        assert found.step == wanted.step == STEPS
    for each in (successor, undisturbed):
        each.die()
