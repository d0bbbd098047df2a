"""LoaderSchedule against a model of readers, workers and ranks: credits lost and repeated, workers that forget, restarts."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from persia.schedule.loader import LoaderSchedule
from persia.schedule.messages import (
    BatchCommitted,
    BatchExpired,
    BatchRead,
    Command,
    CommitOffset,
    CreditGranted,
    Event,
    ReadBatch,
    Restarted,
    SendBatch,
    Timer,
)
from persia.schedule.modes import LoaderLimits
from tests.schedule.telling import MACHINE, tell

STOP = 24
SMALL = st.integers(1, 3)


class LoaderMachine(RuleBasedStateMachine):
    """One loader; `finished` is what its ranks have trained, `taken` what they have out of their queues."""

    @initialize(loaders=st.integers(1, 2), loader=st.integers(0, 1), world=SMALL, workers=SMALL, read_ahead=SMALL, queue=SMALL, every=SMALL)
    def begin(self, loaders: int, loader: int, world: int, workers: int, read_ahead: int, queue: int, every: int) -> None:
        self.limits = {
            "loader": loader % loaders,
            "loaders": loaders,
            "world_size": world,
            "workers": workers,
            "read_ahead_max": read_ahead,
            "input_queue_max": queue,
            "stop_batch": STOP,
            "commit_every": every,
        }
        self.own = list(range(loader % loaders, STOP, loaders))
        self.at_rank: set[int] = set()  # every batch that its rank has had
        self.finished: set[int] = set()
        self.offset = self.own[0]
        self.start_empty(Timer())

    def start_empty(self, event: Event) -> None:
        self.schedule = LoaderSchedule(LoaderLimits(**self.limits, first_batch=self.offset))
        self.reading: list[int] = []
        self.ready: list[int] = []  # read, not sent
        self.started_at = self.offset
        self.sent: list[int] = []  # by this incarnation, in order, each once
        self.forgotten: set[int] = set()  # by a worker, and not sent again yet
        self.in_queue: set[int] = set()
        self.committed: set[int] = set()  # as this incarnation has heard
        self.tell(event)

    def tell(self, *events: Event) -> None:
        for event in events:
            for command in tell(self.schedule, event):
                self.check(command)
        assert self.forgotten <= set(self.reading), "what a worker forgot is read again at once"
        new = [batch for batch in self.reading if batch not in self.sent]
        assert len(new) + len(self.ready) <= self.limits["read_ahead_max"]
        assert not any(self.has_room(batch) and self.is_next(batch) for batch in self.ready), "what may leave has left"

    def same_rank(self, batch: int, other: int) -> bool:
        return batch % self.limits["world_size"] == other % self.limits["world_size"]

    def is_next(self, batch: int) -> bool:
        unsent = [b for b in self.own if b >= self.started_at and self.same_rank(b, batch) and b not in self.sent]
        return unsent[0] == batch

    def has_room(self, batch: int) -> bool:
        return sum(self.same_rank(other, batch) for other in self.in_queue) < self.limits["input_queue_max"]

    def check(self, command: Command) -> None:
        match command:
            case ReadBatch(batch):
                assert batch in self.own
                assert batch not in self.reading
                assert batch not in self.sent or batch in self.forgotten, "read again only for a worker that forgot"
                self.reading.append(batch)
            case SendBatch(batch, worker, rank):
                assert (worker, rank) == (batch % self.limits["workers"], batch % self.limits["world_size"])
                self.check_send(batch)
            case CommitOffset(batch):
                assert self.offset < batch
                assert all(other in self.finished for other in self.own if other < batch), "all before is trained"
                self.offset = batch
            case _:
                raise AssertionError(command)

    def check_send(self, batch: int) -> None:
        assert batch not in self.committed
        if batch in self.forgotten:
            self.forgotten.remove(batch)
        else:
            assert batch not in self.sent, "once, unless a worker forgot it"
            assert self.has_room(batch)
            before = [b for b in self.own if self.started_at <= b < batch and self.same_rank(b, batch)]
            assert all(b in self.sent for b in before), "a rank's batches leave in order"
            self.ready.remove(batch)
            self.sent.append(batch)
            self.in_queue.add(batch)
        self.at_rank.add(batch)

    @rule(picks=st.lists(st.integers(0, 99), max_size=6))
    def work(self, picks: list[int]) -> None:
        """Batches are read, taken and trained, as on a good day."""
        for pick in picks:
            if self.reading:
                self.read(pick, False)
            if self.in_queue:
                self.take(pick, False)
            if self.at_rank - self.finished:
                self.finish(sorted(self.at_rank).index(min(self.at_rank - self.finished)), False)

    @precondition(lambda self: self.reading)
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def read(self, pick: int, twice: bool) -> None:
        batch = self.reading.pop(pick % len(self.reading))
        if batch not in self.sent:
            self.ready.append(batch)
        self.tell(*[BatchRead(batch)] * (1 + twice))

    @precondition(lambda self: self.in_queue)
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def take(self, pick: int, twice: bool) -> None:
        batch = sorted(self.in_queue)[pick % len(self.in_queue)]
        self.in_queue.remove(batch)
        self.tell(*[CreditGranted(batch)] * (1 + twice))

    @precondition(lambda self: self.at_rank)
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def finish(self, pick: int, twice: bool) -> None:
        """A rank has finished a batch, or says so again because it was sent again; its credit may have been lost."""
        batch = sorted(self.at_rank)[pick % len(self.at_rank)]
        self.finished.add(batch)
        if batch in self.sent:
            self.in_queue.discard(batch)
            self.committed.add(batch)
            self.forgotten.discard(batch)
        self.tell(*[BatchCommitted(batch)] * (1 + twice))

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def forget(self, pick: int, twice: bool) -> None:
        """A worker forgets a batch, or tells so late."""
        batch = self.sent[pick % len(self.sent)]
        if batch not in self.committed:
            self.forgotten.add(batch)
        self.tell(*[BatchExpired(batch)] * (1 + twice))

    @rule(batch=st.integers(0, STOP - 1))
    def hear_of_a_batch_not_sent(self, batch: int) -> None:
        if batch not in self.sent:
            self.tell(BatchExpired(batch), CreditGranted(batch))

    @rule()
    def restart(self) -> None:
        """The loader dies and reads again from the last offset that it committed."""
        self.start_empty(Restarted(self.offset))

    def teardown(self) -> None:
        """From now on nothing is lost: every batch is sent, trained and committed, every credit is back."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(20 * STOP):
            if self.reading:
                self.read(0, False)
            elif left := [batch for batch in self.sent if batch not in self.committed]:
                self.finish(sorted(self.at_rank).index(left[0]), False)
            else:
                break
        own = set(self.own)
        assert self.finished == own
        assert self.schedule.committed >= STOP
        assert not self.schedule.sent
        assert not any(self.schedule.in_queue.values()), "every credit is back"
        assert not self.forgotten
        assert STOP - self.offset < self.limits["loaders"] * self.limits["commit_every"] + self.limits["loaders"]


TestLoaderMachine = LoaderMachine.TestCase
TestLoaderMachine.settings = MACHINE
