"""RankSchedule against a model of everything around it: answers lost, late and repeated, in every mode."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from persia.schedule.messages import (
    BarrierPassed,
    BatchArrived,
    CheckpointSaved,
    Command,
    CommitBatch,
    DenseDone,
    DenseExchanged,
    EnterBarrier,
    Event,
    ExchangeDense,
    LookedUp,
    Lookup,
    LookupFailed,
    Push,
    Pushed,
    PushFailed,
    SaveCheckpoint,
    Timer,
    TrainDense,
)
from persia.schedule.modes import Mode, Reduction, rank_limits
from persia.schedule.rank import RankSchedule
from tests.schedule.telling import MACHINE, tell

STEPS = 12
SMALL = st.integers(1, 4)


class RankMachine(RuleBasedStateMachine):
    """One rank; what it was told to do is `asked`, and what it may do next follows from `looked_up`, `trained`, `applied`."""

    @initialize(
        mode=st.sampled_from(Mode),
        world=st.integers(1, 3),
        rank=st.integers(0, 2),
        permits=SMALL,
        lookups=SMALL,
        prefetch=SMALL,
        pushes=SMALL,
        every=st.integers(0, 3),
        first_step=st.sampled_from([0, 0, 5]),
    )
    def begin(
        self, mode: Mode, world: int, rank: int, permits: int, lookups: int, prefetch: int, pushes: int, every: int, first_step: int
    ) -> None:
        self.limits = rank_limits(
            mode,
            world_size=world,
            staleness_permits=permits,
            lookups_max=lookups,
            prefetch_max=prefetch,
            pushes_max=pushes,
            checkpoint_every_steps=every,
            retry_s=1.0,
        )
        self.sync = mode is Mode.SYNC
        self.every = every
        self.rank = rank % world
        self.first_step = first_step
        self.last_step = first_step + STEPS
        self.schedule = RankSchedule(self.limits, self.rank, first_step)
        self.now_s = 0.0
        self.arrived_steps = first_step
        self.asked: list[Command] = []  # not answered yet
        self.lost: list[Command] = []  # declared lost: their answers may still come
        self.wanted_again: set[Command] = set()  # declared lost and not asked for again yet
        self.started: list[int] = []  # batches whose lookup was asked for, in order
        self.looked_up: set[int] = set()
        self.trained: list[int] = []
        self.training: int | None = None
        self.applied: set[int] = set()
        self.exchanged = -1
        self.passed = first_step  # steps behind the last barrier
        self.entered: list[int] = []
        self.saved: list[int] = []
        self.saving: int | None = None
        self.arrive(3, again=False)

    def batch(self, step: int) -> int:
        return self.rank + step * self.limits.world_size

    def tell(self, *events: Event) -> None:
        for event in events:
            commands = tell(self.schedule, event, now_s=self.now_s)
            for command in commands:
                self.check(command)
            finished = isinstance(event, BatchArrived) and (event.batch in self.applied or event.batch < self.batch(self.first_step))
            assert finished == any(isinstance(command, CommitBatch) for command in commands), "a finished batch is reported"

    # --- what each command must respect ---------------------------------------------------------------------------

    def check(self, command: Command) -> None:
        match command:
            case Lookup(batch):
                self.check_lookup(batch)
            case TrainDense(batch):
                assert self.training is None, "one batch at a time"
                assert batch == self.batch(self.first_step + len(self.trained)), "in training order"
                assert batch in self.looked_up
                self.training = batch
            case Push(batch):
                assert batch in self.trained
                assert batch not in self.applied
                self.check_asked_once_more(command)
                assert sum(isinstance(other, Push) for other in self.asked) < self.limits.pushes_max
            case ExchangeDense(batch):
                assert self.limits.reduction is Reduction.NONE
                assert not any(isinstance(other, ExchangeDense) for other in self.asked), "one exchange at a time"
                assert self.exchanged < batch == self.trained[-1]
            case EnterBarrier(step):
                assert step not in self.entered
                assert self.applied == {self.batch(before) for before in range(self.first_step, step + 1)}, "all before is applied"
                self.entered.append(step)
            case SaveCheckpoint(step):
                assert step in self.entered
                assert self.passed == step + 1, "behind its barrier"
                self.saving = step
            case CommitBatch(batch):
                return
            case _:
                raise AssertionError(command)
        self.asked.append(command)

    def check_lookup(self, batch: int) -> None:
        under_way = sum(isinstance(other, Lookup) for other in self.asked)
        assert under_way < self.limits.lookups_max
        if batch in self.started:
            self.check_asked_once_more(Lookup(batch))
            return
        self.started.append(batch)
        assert batch == self.batch(self.first_step + len(self.started) - 1), "lookups begin in training order"
        assert len(self.started) - len(self.applied) <= self.limits.staleness_permits
        entered = len(self.trained) + (self.training is not None)
        assert len(self.started) - entered <= self.limits.prefetch_max
        assert self.saving is None, "none while a checkpoint is cut"
        for barrier in range(self.passed, batch // self.limits.world_size):
            assert not self.is_barrier(barrier), "none beyond a barrier"

    def check_asked_once_more(self, command: Command) -> None:
        assert command not in self.asked
        if command in self.lost:
            assert command in self.wanted_again, "asked for again only after a loss"
        self.wanted_again.discard(command)

    def is_barrier(self, step: int) -> bool:
        return self.sync or bool(self.every and (step + 1) % self.every == 0)

    # --- what happens around it -----------------------------------------------------------------------------------

    @rule(ahead=st.integers(0, 3), again=st.booleans())
    def arrive(self, ahead: int, again: bool) -> None:
        """The next batches arrive, out of order; an old one arrives again."""
        steps = [step for step in range(self.arrived_steps, self.arrived_steps + ahead) if step < self.last_step]
        self.arrived_steps += len(steps)
        if again and self.arrived_steps > self.first_step:
            steps.append(self.arrived_steps - 4)
        self.tell(*(BatchArrived(self.batch(step)) for step in reversed(steps) if step >= 0))

    @rule(picks=st.lists(st.integers(0, 99), min_size=1, max_size=6))
    def work(self, picks: list[int]) -> None:
        """A batch arrives and some answers come, as on a good day."""
        self.arrive(1, again=False)
        self.answer(picks, twice=False)

    @precondition(lambda self: self.asked)
    @rule(picks=st.lists(st.integers(0, 99), min_size=1, max_size=4), twice=st.booleans())
    def answer(self, picks: list[int], twice: bool) -> None:
        """What was asked for is answered, in any order, once or twice."""
        for pick in picks:
            if self.asked:
                self.answer_one(self.asked[pick % len(self.asked)], twice)

    def answer_one(self, command: Command, twice: bool = False) -> None:
        self.asked.remove(command)
        event: Event
        match command:
            case Lookup(batch):
                event = LookedUp(batch)
                self.looked_up.add(batch)
            case TrainDense(batch):
                event = DenseDone(batch)
                self.trained.append(batch)
                self.training = None
            case Push(batch):
                event = Pushed(batch)
                self.applied.add(batch)
            case ExchangeDense(batch):
                event = DenseExchanged(batch)
                self.exchanged = batch
            case EnterBarrier(step):
                event = BarrierPassed(step)
                self.passed = step + 1
            case SaveCheckpoint(step):
                event = CheckpointSaved(step)
                self.saved.append(step)
                self.saving = None
            case _:
                raise AssertionError(command)
        self.wanted_again.discard(command)
        self.tell(event)
        if twice:
            self.tell(event)

    def losable(self) -> list[Command]:
        return [command for command in self.asked if isinstance(command, Lookup | Push)]

    @precondition(lambda self: self.losable())
    @rule(pick=st.integers(0, 99), twice=st.booleans())
    def lose(self, pick: int, twice: bool) -> None:
        """A lookup or push is declared lost; it must be asked for again though its answer may still come."""
        command = self.losable()[pick % len(self.losable())]
        self.asked.remove(command)
        self.lost.append(command)
        self.wanted_again.add(command)
        failed = LookupFailed(command.batch) if isinstance(command, Lookup) else PushFailed(command.batch)
        self.tell(*[failed] * (1 + twice))

    @precondition(lambda self: self.lost)
    @rule(pick=st.integers(0, 99))
    def answer_late(self, pick: int) -> None:
        command = self.lost[pick % len(self.lost)]
        done = self.looked_up if isinstance(command, Lookup) else self.applied
        done.add(command.batch)
        self.wanted_again.discard(command)
        if command in self.asked:  # the later try has its answer too: it changes nothing any more
            self.asked.remove(command)
        self.tell(LookedUp(command.batch) if isinstance(command, Lookup) else Pushed(command.batch))

    @rule(wait_s=st.sampled_from([0.5, 1.0, 70.0]))
    def wait(self, wait_s: float) -> None:
        self.now_s += wait_s
        self.tell(Timer())

    @rule(batch=st.integers(0, 40), kind=st.sampled_from([DenseExchanged, BarrierPassed, CheckpointSaved, LookedUp, Pushed]))
    def hear_what_was_not_asked(self, batch: int, kind: type[Event]) -> None:
        """An answer to nothing that is asked or lost changes nothing."""
        event = kind(batch)  # type: ignore[call-arg]
        asked_for = {
            DenseExchanged: ExchangeDense,
            BarrierPassed: EnterBarrier,
            CheckpointSaved: SaveCheckpoint,
            LookedUp: Lookup,
            Pushed: Push,
        }
        command = asked_for[kind](batch)  # type: ignore[abstract]
        if command not in self.asked and command not in self.lost:
            self.tell(event)

    @invariant()
    def idle_only_for_a_reason(self) -> None:
        """Whatever is due has been asked for: retries once their time has come, pushes, training, barriers."""
        if not hasattr(self, "schedule"):
            return
        pushes = sum(isinstance(other, Push) for other in self.asked)
        waiting = [b for b in self.trained if b not in self.applied and Push(b) not in self.asked and Push(b) not in self.wanted_again]
        assert not waiting or pushes == self.limits.pushes_max
        following = self.batch(self.first_step + len(self.trained))
        assert self.training is not None or following not in self.looked_up

    def teardown(self) -> None:
        """From now on nothing is lost: everything finishes."""
        if not hasattr(self, "schedule"):
            return
        self.tell(*(BatchArrived(self.batch(step)) for step in range(self.arrived_steps, self.last_step)))
        for _ in range(50 * STEPS):
            if self.asked:
                self.answer_one(self.asked[0])
            elif (due_s := self.schedule.next_timer_s()) is not None:
                self.now_s = due_s
                self.tell(Timer())
            else:
                break
        own = [self.batch(step) for step in range(self.first_step, self.last_step)]
        steps = range(self.first_step, self.last_step)
        assert self.trained == own
        assert self.applied == set(own)
        assert not self.schedule.permits
        assert self.entered == [step for step in steps if self.is_barrier(step)]
        assert self.saved == [step for step in steps if self.every and (step + 1) % self.every == 0]
        assert self.exchanged == (own[-1] if self.limits.reduction is Reduction.NONE else -1)
        assert self.schedule.next_timer_s() is None


TestRankMachine = RankMachine.TestCase
TestRankMachine.settings = MACHINE
