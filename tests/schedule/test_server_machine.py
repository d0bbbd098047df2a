"""ServerSchedule against a model of its queue: repeated requests, gathered steps, snapshots, deaths with the table kept."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from persia.schedule.messages import (
    Acknowledge,
    ApplyStep,
    ApplyUpdate,
    Command,
    CutSnapshot,
    Event,
    LookupQueued,
    LookupServed,
    Restarted,
    ServeLookup,
    SnapshotAsked,
    SnapshotCut,
    UpdateApplied,
    UpdateQueued,
)
from persia.schedule.modes import ServerLimits
from persia.schedule.server import ServerSchedule
from tests.schedule.telling import MACHINE, tell

BATCHES = 12
BATCH = st.integers(0, BATCHES - 1)


class ServerMachine(RuleBasedStateMachine):
    """One server; `queue` is what it must serve, in this order; `in_service` what it was told to do and has not done."""

    @initialize(world=st.integers(1, 3), slots=st.integers(1, 3), sync=st.booleans())
    def begin(self, world: int, slots: int, sync: bool) -> None:
        self.limits = ServerLimits(world_size=world, service_slots=slots, gather=world if sync else 1, remember_max=BATCHES)
        self.schedule = ServerSchedule(self.limits)
        self.applied: Counter[int] = Counter()
        self.runs = 0  # of the optimizer, since the server came up
        self.acknowledged: set[int] = set()
        self.served: set[int] = set()
        self.start_empty()

    def start_empty(self) -> None:
        self.queue: list[Command] = []
        self.gathered: dict[int, list[int]] = {}
        self.in_service: list[Command] = []
        self.cut_asked: list[int] = []
        self.cutting: int | None = None
        self.last_cut = -1

    def tell(self, *events: Event) -> None:
        for event in events:
            commands = tell(self.schedule, event)
            for command in commands:
                self.check(command)
            repeated = isinstance(event, UpdateQueued) and self.applied[event.batch]
            assert not repeated or Acknowledge(event.batch) in commands, "a repeated update is acknowledged again"
        assert not self.queue or self.cut_asked or self.cutting is not None or len(self.in_service) == self.limits.service_slots

    def check(self, command: Command) -> None:
        if isinstance(command, Acknowledge):
            assert self.applied[command.batch] == 1, "acknowledged once applied"
            self.acknowledged.add(command.batch)
            return
        assert self.cutting is None, "nothing starts while a snapshot is cut"
        if isinstance(command, CutSnapshot):
            assert not self.in_service, "nothing is in service when it is cut"
            assert command.step == self.cut_asked.pop(0)
            self.cutting = command.step
            return
        assert not self.cut_asked, "nothing starts before the snapshot"
        assert command == self.queue.pop(0), "first come, first served"
        assert len(self.in_service) < self.limits.service_slots
        self.in_service.append(command)

    def batches_of(self, command: Command) -> list[int]:
        if isinstance(command, ApplyStep):
            return [command.step * self.limits.world_size + rank for rank in range(self.limits.world_size)]
        return [command.batch] if isinstance(command, ApplyUpdate) else []

    @rule(batch=BATCH, picks=st.lists(st.integers(0, 99), max_size=4))
    def work(self, batch: int, picks: list[int]) -> None:
        """A worker looks up and updates, and some of what is in service is done, as on a good day."""
        self.ask_lookup(batch)
        self.send_update(batch, 1)
        for pick in picks:
            if self.in_service:
                self.finish_service(pick, False)
            elif self.cutting is not None:
                self.finish_snapshot(False)

    @rule(batch=BATCH)
    def ask_lookup(self, batch: int) -> None:
        if ServeLookup(batch) not in self.queue and ServeLookup(batch) not in self.in_service:
            self.queue.append(ServeLookup(batch))
        self.tell(LookupQueued(batch))

    @rule(batch=BATCH, times=st.integers(1, 2))
    def send_update(self, batch: int, times: int) -> None:
        known = [b for command in [*self.queue, *self.in_service] for b in self.batches_of(command)]
        if not self.applied[batch] and batch not in known:
            self.expect_update(batch)
        self.tell(*[UpdateQueued(batch)] * times)

    def expect_update(self, batch: int) -> None:
        if self.limits.gather == 1:
            self.queue.append(ApplyUpdate(batch))
            return
        step = batch // self.limits.world_size
        group = self.gathered.setdefault(step, [])
        if batch not in group:
            group.append(batch)
        if len(group) == self.limits.world_size:
            del self.gathered[step]
            self.queue.append(ApplyStep(step))

    @precondition(lambda self: self.in_service)
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def finish_service(self, pick: int, twice: bool) -> None:
        command = self.in_service.pop(pick % len(self.in_service))
        if isinstance(command, ServeLookup):
            self.served.add(command.batch)
            self.tell(*[LookupServed(command.batch)] * (1 + (twice and ServeLookup(command.batch) not in self.queue)))
            return
        self.runs += 1
        batches = self.batches_of(command)
        self.applied.update(batches)
        *first, last = reversed(batches) if twice else batches
        self.in_service.append(command)  # a gathered step holds its slot until the last of its batches is reported
        for batch in first:
            self.tell(UpdateApplied(batch))
        self.in_service.remove(command)
        self.tell(*[UpdateApplied(last)] * (1 + twice))
        assert self.schedule.version == self.runs

    @rule(step=st.integers(0, 6))
    def ask_snapshot(self, step: int) -> None:
        if step > self.last_cut:
            self.last_cut = step
            self.cut_asked.append(step)
        self.tell(SnapshotAsked(step))

    @precondition(lambda self: self.cutting is not None)
    @rule(twice=st.booleans())
    def finish_snapshot(self, twice: bool) -> None:
        step, self.cutting = self.cutting, None
        assert step is not None
        self.tell(SnapshotCut(step))
        if twice and self.cutting != step:
            self.tell(SnapshotCut(step))

    @rule(again=BATCH)
    def die(self, again: int) -> None:
        """The process dies with its queue and comes back with its table; a worker sends an update again."""
        self.schedule = ServerSchedule(self.limits, self.schedule.applied)
        self.start_empty()
        self.runs = 0
        self.tell(Restarted(0))
        self.send_update(again, 1)

    def teardown(self) -> None:
        """From now on nothing is lost: every lookup is served, every update applied once and acknowledged."""
        if not hasattr(self, "schedule"):
            return
        self.acknowledged.clear()
        self.served.clear()
        for batch in range(BATCHES):
            self.ask_lookup(batch)
            self.send_update(batch, 1)
        for _ in range(4 * BATCHES):
            if self.in_service:
                self.finish_service(0, False)
            elif self.cutting is not None:
                self.finish_snapshot(False)
        everything = set(range(BATCHES))
        assert self.served == everything
        assert self.acknowledged == everything
        assert self.applied == dict.fromkeys(everything, 1), "applied exactly once"
        assert self.schedule.busy == 0
        assert not self.schedule.queue
        assert self.schedule.applied.held == 0, "nothing is remembered one by one"


TestServerMachine = ServerMachine.TestCase
TestServerMachine.settings = MACHINE
