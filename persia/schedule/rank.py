"""The schedule of one NN worker (rank): when it looks up, trains, exchanges, pushes, meets the others, checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

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
    Restarted,
    SaveCheckpoint,
    Timer,
    TrainDense,
)
from persia.schedule.modes import Limits, Reduction
from persia.schedule.retries import Retries


class RankSchedule:
    """Facts about one rank's batches, and the rules that decide what it does next.

    A rank trains batches rank, rank + world_size, ... in that order, the batch of step s being rank + s * world_size.
    A batch takes a staleness permit just before its lookup and gives it back when its push is acknowledged; lost
    lookups and pushes are tried again and keep their permit.  Answers that come late or twice change nothing.  A rank
    tells a loader that sends a finished batch once more that it is finished.
    """

    __slots__ = (
        "_notes",
        "arrived",
        "barrier_entered",
        "barrier_step",
        "checkpointing",
        "dense_batch",
        "exchanged",
        "exchanging",
        "ignored",
        "limits",
        "looked_up",
        "looking_up",
        "lookup_batch",
        "lookup_retries",
        "pending_save",
        "permits",
        "push_retries",
        "pushed_steps",
        "pushing",
        "rank",
        "to_commit",
        "to_push",
        "trained",
        "training",
    )

    def __init__(self, limits: Limits, rank: int, first_step: int = 0) -> None:
        """Start before step `first_step` (0, or where a checkpoint was cut) with nothing under way."""
        first_batch = rank + first_step * limits.world_size
        self.limits = limits
        self.rank = rank
        self.arrived: set[int] = set()  # in the input queue
        self.lookup_batch = first_batch  # the next to be looked up
        self.looking_up: set[int] = set()
        self.lookup_retries: Retries[int] = Retries(limits.retry_s)
        self.looked_up: set[int] = set()
        self.permits: set[int] = set()  # batches between lookup and acknowledged push
        self.dense_batch = first_batch  # the next to be trained
        self.training: int | None = None
        self.trained = -1  # the last batch whose dense part is done
        self.exchanging = False
        self.exchanged = -1  # dense gradients up to this batch are sent
        self.to_commit: list[int] = []
        self.to_push: deque[int] = deque()
        self.pushing: set[int] = set()
        self.push_retries: Retries[int] = Retries(limits.retry_s)
        self.pushed_steps = first_step  # steps whose push is acknowledged, since no push overtakes a barrier
        self.barrier_step = self._barrier_after(first_step)
        self.barrier_entered = False
        self.pending_save: int | None = None  # a checkpoint step whose barrier has passed
        self.checkpointing: int | None = None  # the step of a checkpoint that is being cut
        self.ignored = 0  # late or repeated answers
        self._notes: dict[type[Event], Callable[[Any, float], None]] = {
            BatchArrived: self._note_arrived,
            LookedUp: self._note_looked_up,
            LookupFailed: self._note_lookup_failed,
            DenseDone: self._note_dense_done,
            DenseExchanged: self._note_exchanged,
            Pushed: self._note_pushed,
            PushFailed: self._note_push_failed,
            BarrierPassed: self._note_barrier_passed,
            CheckpointSaved: self._note_saved,
            Restarted: self._note_nothing,
            Timer: self._note_nothing,
        }

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Note one fact, then take every decision it allows, the most urgent first.

        A rule is asked only where there is something to decide: this is the hottest loop of a simulation.

        Raises:
            KeyError: the event is not one that a rank can hear.
        """
        self._notes[type(event)](event, now_s)
        commands: list[Command] = []
        if self.to_push or self.push_retries:
            self._push(commands, now_s)
        if self.trained > self.exchanged:
            self._exchange(commands)
        if self.training is None:
            self._dense(commands)
        if self.barrier_step >= 0:
            self._barrier(commands)
        if self.pending_save is not None:
            self._checkpoint(commands)
        if self.arrived or self.lookup_retries:
            self._look_up(commands, now_s)
        if self.to_commit:
            self._commit(commands)
        return commands

    def next_timer_s(self) -> float | None:
        """Return when a Timer event is wanted for the next retry, or None.

        A retry that waits for a slot as well needs no timer: the answer that frees the slot lets it go.
        """
        if not self.lookup_retries and not self.push_retries:
            return None
        lookup_due_s = self.lookup_retries.next_due_s() if len(self.looking_up) < self.limits.lookups_max else None
        push_due_s = self.push_retries.next_due_s() if len(self.pushing) < self.limits.pushes_max else None
        return min((due_s for due_s in (lookup_due_s, push_due_s) if due_s is not None), default=None)

    # --- facts ------------------------------------------------------------------------------------------------

    def _note_arrived(self, event: BatchArrived, now_s: float) -> None:
        batch = event.batch
        if batch >= self.lookup_batch:
            self.arrived.add(batch)
            return
        self.ignored += 1  # sent again by a loader that restarted, or whose worker did
        if batch not in self.permits:
            self.to_commit.append(batch)

    def _note_looked_up(self, event: LookedUp, now_s: float) -> None:
        batch = event.batch
        if batch in self.looking_up:
            self.looking_up.remove(batch)
        elif batch not in self.lookup_retries:
            self.ignored += 1
            return
        self.lookup_retries.forget(batch)
        self.looked_up.add(batch)

    def _note_lookup_failed(self, event: LookupFailed, now_s: float) -> None:
        if event.batch in self.looking_up:
            self.looking_up.remove(event.batch)
            self.lookup_retries.lost(event.batch, now_s)
        else:
            self.ignored += 1

    def _note_dense_done(self, event: DenseDone, now_s: float) -> None:
        if event.batch != self.training:
            self.ignored += 1
            return
        self.training = None
        self.trained = event.batch
        self.to_push.append(event.batch)

    def _note_exchanged(self, event: DenseExchanged, now_s: float) -> None:
        if self.exchanging and event.batch == self.exchanged:
            self.exchanging = False
        else:
            self.ignored += 1

    def _note_pushed(self, event: Pushed, now_s: float) -> None:
        batch = event.batch
        if batch in self.pushing:
            self.pushing.remove(batch)
        elif batch not in self.push_retries:
            self.ignored += 1
            return
        self.push_retries.forget(batch)
        self.permits.remove(batch)
        self.pushed_steps += 1

    def _note_push_failed(self, event: PushFailed, now_s: float) -> None:
        if event.batch in self.pushing:
            self.pushing.remove(event.batch)
            self.push_retries.lost(event.batch, now_s)
        else:
            self.ignored += 1

    def _note_barrier_passed(self, event: BarrierPassed, now_s: float) -> None:
        if not self.barrier_entered or event.step != self.barrier_step:
            self.ignored += 1
            return
        every = self.limits.checkpoint_every_steps
        if every and (event.step + 1) % every == 0:
            self.pending_save = event.step
        self.barrier_entered = False
        self.barrier_step = self._barrier_after(event.step + 1)

    def _note_saved(self, event: CheckpointSaved, now_s: float) -> None:
        if event.step == self.checkpointing:
            self.checkpointing = None
        else:
            self.ignored += 1

    def _note_nothing(self, event: Event, now_s: float) -> None:
        pass  # that time has passed is all the news

    # --- rules, in the order in which they are asked ----------------------------------------------------------

    def _push(self, commands: list[Command], now_s: float) -> None:
        """Embedding gradients leave as soon as a push slot is free: they hold the permits."""
        while len(self.pushing) < self.limits.pushes_max:
            batch = self.push_retries.take_due(now_s) if self.push_retries else None
            if batch is None:
                if not self.to_push:
                    return
                batch = self.to_push.popleft()
            self.pushing.add(batch)
            commands.append(Push(batch))

    def _exchange(self, commands: list[Command]) -> None:
        """Without an all-reduce, accumulated dense gradients go to the servers, one exchange at a time."""
        if self.limits.reduction is Reduction.NONE and not self.exchanging and self.trained > self.exchanged:
            self.exchanging = True
            self.exchanged = self.trained
            commands.append(ExchangeDense(self.trained))

    def _dense(self, commands: list[Command]) -> None:
        """One batch at a time enters the dense part, in training order, once its embeddings are here."""
        if self.dense_batch in self.looked_up:
            batch = self.dense_batch
            self.looked_up.remove(batch)
            self.training = batch
            self.dense_batch = batch + self.limits.world_size
            commands.append(TrainDense(batch))

    def _barrier(self, commands: list[Command]) -> None:
        """A rank meets the others when all its batches up to the barrier's step are applied, their dense gradients too."""
        if self.pushed_steps == self.barrier_step + 1 and not self.barrier_entered and not self.exchanging:
            self.barrier_entered = True
            commands.append(EnterBarrier(self.barrier_step))

    def _checkpoint(self, commands: list[Command]) -> None:
        """A checkpoint is cut behind its barrier, when no rank has anything in flight."""
        assert self.pending_save is not None
        self.checkpointing = self.pending_save
        commands.append(SaveCheckpoint(self.pending_save))
        self.pending_save = None

    def _look_up(self, commands: list[Command], now_s: float) -> None:
        """Prefetch while there is a lookup slot, window space, a staleness permit and no barrier ahead."""
        limits = self.limits
        while len(self.looking_up) < limits.lookups_max:
            batch = self.lookup_retries.take_due(now_s) if self.lookup_retries else None
            if batch is None:
                batch = self.lookup_batch
                waiting = len(self.looking_up) + len(self.looked_up) + len(self.lookup_retries)
                if (
                    batch not in self.arrived
                    or len(self.permits) >= limits.staleness_permits
                    or waiting >= limits.prefetch_max
                    or self.checkpointing is not None
                    or 0 <= self.barrier_step < batch // limits.world_size
                ):
                    return
                self.arrived.remove(batch)
                self.permits.add(batch)
                self.lookup_batch = batch + limits.world_size
            self.looking_up.add(batch)
            commands.append(Lookup(batch))

    def _commit(self, commands: list[Command]) -> None:
        """A loader that sends a finished batch again, for it or a worker has restarted, need not wait for it."""
        commands.extend(map(CommitBatch, self.to_commit))
        self.to_commit.clear()

    def _barrier_after(self, step: int) -> int:
        """Return the first step at or after `step` that ends in a barrier; -2 where none ever does."""
        periods = [every for every in (self.limits.barrier_every_steps, self.limits.checkpoint_every_steps) if every]
        return min((step // every * every + every - 1 for every in periods), default=-2)
