"""The NN worker: prefetches embeddings, trains the dense part on a thread of its own, pushes gradients back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persia.runtime.checkpoint import write_dense
from persia.runtime.dense_exchange import DenseExchange
from persia.runtime.dense_part import DensePart, Judge, Trained
from persia.runtime.driver import Action, Deadlines, Driver, Listener, Taken
from persia.runtime.plan import RANK_TIMEOUT_FACTOR, Plan
from persia.runtime.records import Records
from persia.runtime.transport import Kind, Message
from persia.schedule.messages import (
    BarrierPassed,
    BatchArrived,
    CheckpointSaved,
    Command,
    CommitBatch,
    DenseDone,
    DenseExchanged,
    EnterBarrier,
    ExchangeDense,
    LookedUp,
    Lookup,
    LookupFailed,
    Push,
    Pushed,
    PushFailed,
    SaveCheckpoint,
    TrainDense,
)
from persia.schedule.rank import RankSchedule

Array = np.ndarray[Any, Any]

_PROGRESS_S = 0.25
_LOOKUP, _PUSH, _SNAPSHOT = "lookup", "push", "snapshot"


@dataclass(frozen=True, slots=True)
class _Done:
    """Work of another thread that is done; `report` runs on the driver's thread."""

    report: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Failed:
    """Work of another thread that raised."""

    error: BaseException


class Rank:
    """What a RankSchedule asks for, and what it hears."""

    def __init__(
        self,
        driver: Driver,
        schedule: RankSchedule,
        plan: Plan,
        records: Records,
        trainer: DensePart,
        checkpoints: Path,
        evaluation: Judge,
    ) -> None:
        self._driver = driver
        self._schedule = schedule
        self._plan = plan
        self._records = records
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._evaluation = evaluation
        self._rank = schedule.rank
        self._samples: dict[int, tuple[Array, Array]] = {}  # batch -> labels, dense
        self._pooled: dict[int, tuple[Array, ...]] = {}
        self._gradients: dict[int, list[Array]] = {}
        self._since_s: dict[tuple[str, int], float] = {}
        timeout_s = plan.scenario.schedule.request_timeout * RANK_TIMEOUT_FACTOR
        self._asked: Deadlines[tuple[str, int]] = Deadlines(timeout_s)
        self._exchange = DenseExchange(driver, plan, trainer, timeout_s)
        self._entered: dict[int, set[int]] = {}  # rank 0: step -> ranks in its barrier
        self._cut: dict[int, set[int]] = {}  # step -> servers whose snapshot is cut
        self._trained_s: list[float] = []  # not reported yet
        self._losses: list[float] = []
        self._progress_s = 0.0
        self._finished = False
        self._jobs: queue.SimpleQueue[Callable[[], Callable[[], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._train_for_ever, name="dense", daemon=True).start()

    def actions(self) -> Mapping[type[Command], Action]:
        """Return what carries out each command."""
        return {
            Lookup: self._look_up,
            TrainDense: self._train,
            Push: self._push,
            ExchangeDense: lambda command: self._exchange.send(command.batch),
            EnterBarrier: self._enter_barrier,
            SaveCheckpoint: self._save_checkpoint,
            CommitBatch: lambda command: self._tell_loader(command.batch),
        }

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message."""
        return {
            **self._trainer.listeners(),
            Kind.SAMPLES: self._samples_here,
            Kind.POOLED: self._pooled_here,
            Kind.PUSHED: self._pushed,
            Kind.LOST: self._lost,
            Kind.BARRIER_ENTERED: lambda message: self._barrier_entered(message.number, message.index),
            Kind.BARRIER_PASSED: lambda message: self._driver.tell(BarrierPassed(message.number)),
            Kind.SNAPSHOT_CUT: self._snapshot_cut,
            Kind.DENSE_PARAMETERS: self._parameters_here,
            Kind.HELLO: self._hello,
            Kind.EVALUATE: self._finish,
            Kind.POOLED_PEEK: self._peeked,
        }

    # --- the training thread ----------------------------------------------------------------------------------

    def _train_for_ever(self) -> None:
        post = self._driver.mailbox.post
        while True:
            job = self._jobs.get()
            try:
                post(_Done(job()))
            except BaseException as error:  # handed to the driver's thread, which ends the process
                post(_Failed(error))
                return

    def posted(self, item: object) -> None:
        """Hear what another thread has done.

        Raises:
            Whatever that thread raised.
        """
        if isinstance(item, _Failed):
            raise item.error
        assert isinstance(item, _Done)
        item.report()

    # --- messages ---------------------------------------------------------------------------------------------

    def _samples_here(self, message: Message) -> None:
        labels, dense = message.arrays
        batch = message.number
        if batch >= self._schedule.lookup_batch:
            self._samples[batch] = (labels, dense)
        self._driver.tell(BatchArrived(batch))

    def _pooled_here(self, message: Message) -> None:
        batch = message.number
        self._asked.stop((_LOOKUP, batch))
        if batch in self._schedule.looking_up or batch in self._schedule.lookup_retries:
            self._pooled[batch] = message.arrays
            self._end_span(_LOOKUP, batch)
        self._driver.tell(LookedUp(batch))

    def _pushed(self, message: Message) -> None:
        batch = message.number
        self._asked.stop((_PUSH, batch))
        self._end_span(_PUSH, batch)
        self._gradients.pop(batch, None)
        self._driver.tell(Pushed(batch))
        self._tell_loader(batch)

    def _lost(self, message: Message) -> None:
        """An embedding worker has forgotten the batch."""
        for kind in (_LOOKUP, _PUSH):
            self._asked.stop((kind, message.number))
        self._driver.tell(LookupFailed(message.number))
        self._driver.tell(PushFailed(message.number))

    def _hello(self, message: Message) -> None:
        """A process came back: what it was asked is lost."""
        self._evaluation.repeat()
        if message.role == "embedding_worker":
            for kind, batch in self._asked.waiting():
                if kind != _SNAPSHOT and batch % self._plan.workers == message.index:
                    self._fail(kind, batch)
        elif message.role == "parameter_server":
            self._exchange.repeat()
            for kind, step in self._asked.waiting():
                if kind == _SNAPSHOT:
                    self._ask_snapshots(step)

    def _fail(self, kind: str, batch: int) -> None:
        self._asked.stop((kind, batch))
        self._driver.tell(LookupFailed(batch) if kind == _LOOKUP else PushFailed(batch))

    def _tell_loader(self, batch: int) -> None:
        self._driver.mailbox.send("loader", batch % self._plan.loaders, Kind.COMMITTED, batch)

    def tick(self, now_s: float) -> float | None:
        """Report what is late, and progress."""
        for kind, batch in self._asked.expired(now_s):
            self._records.counts["requests_timed_out"] += 1
            if kind == _SNAPSHOT:
                self._ask_snapshots(batch)
            else:
                self._fail(kind, batch)
        self._exchange.tick(now_s)
        self._evaluation.tick(now_s)
        if now_s >= self._progress_s:
            self._report_progress(now_s)
        steps = self._plan.stop_batch // self._plan.ranks
        if not self._finished and self._schedule.pushed_steps >= steps and not self._schedule.exchanging:
            self._finished = True
            self._report_progress(now_s)
            self._driver.mailbox.send("coordinator", 0, Kind.FINISHED)
        dues = (self._progress_s, self._asked.next_due_s(), self._exchange.next_due_s())
        return min(due for due in dues if due is not None)

    def _report_progress(self, now_s: float) -> None:
        """Tell the coordinator when batches were trained since the last report, and their losses."""
        self._progress_s = now_s + _PROGRESS_S
        if self._trained_s:
            arrays = (np.array(self._trained_s), np.array(self._losses))
            self._driver.mailbox.send("coordinator", 0, Kind.PROGRESS, self._schedule.pushed_steps, arrays)
            self._trained_s, self._losses = [], []

    # --- commands ---------------------------------------------------------------------------------------------

    def _look_up(self, command: Lookup) -> None:
        self._records.in_flight[len(self._schedule.permits)] += 1
        self._ask(_LOOKUP, command.batch, Kind.LOOKUP, ())

    def _push(self, command: Push) -> None:
        self._ask(_PUSH, command.batch, Kind.GRADIENTS, self._gradients[command.batch])

    def _ask(self, name: str, batch: int, kind: Kind, arrays: list[Array] | tuple[()]) -> None:
        now_s = self._driver.clock.now_s()
        self._since_s.setdefault((name, batch), now_s)
        self._asked.start((name, batch), now_s)
        if not self._driver.mailbox.send("embedding_worker", batch % self._plan.workers, kind, batch, arrays):
            self._fail(name, batch)

    def _end_span(self, name: str, batch: int) -> None:
        since_s = self._since_s.pop((name, batch), None)
        if since_s is not None:
            self._records.add_span(name, batch, Taken(since_s, self._driver.clock.now_s()))

    def _train(self, command: TrainDense) -> None:
        batch = command.batch
        labels, dense = self._samples.pop(batch)
        pooled = self._pooled.pop(batch)
        self._trainer.begin(batch)

        def train() -> Callable[[], None]:
            watch = self._driver.clock.watch()
            trained = self._trainer.train(batch, labels, dense, pooled)
            taken = watch.stop()
            return lambda: self._trained(trained, taken)

        self._jobs.put(train)

    def _trained(self, trained: Trained, taken: Taken) -> None:
        self._records.add_span(self._trainer.span, trained.batch, taken)
        self._trained_s.append(taken.end_s)
        self._losses.append(trained.loss)
        self._gradients[trained.batch] = trained.gradients
        if trained.dense_gradient is not None:
            self._exchange.accumulate(trained.dense_gradient)
        self._driver.tell(DenseDone(trained.batch))
        every = self._plan.scenario.workload.evaluate_every_steps
        step = trained.batch // self._plan.ranks + 1
        if self._rank == 0 and every and step % every == 0 and trained.batch + self._plan.ranks < self._plan.stop_batch:
            self._evaluation.start(step)

    # --- dense exchange (mode async) --------------------------------------------------------------------------

    def fetch_parameters(self) -> None:
        """Give the servers the first dense parameters, or learn theirs; then this rank is ready."""
        self._exchange.begin(self._trainer.vector())

    def _parameters_here(self, message: Message) -> None:
        vector = self._exchange.parameters_here(message)
        if vector is None:
            return

        def install() -> Callable[[], None]:
            self._trainer.set_vector(vector)
            return lambda: None

        self._jobs.put(install)
        if message.number < 0:
            self._driver.mailbox.send("coordinator", 0, Kind.READY)
        else:
            self._driver.tell(DenseExchanged(message.number))

    # --- barriers and checkpoints -----------------------------------------------------------------------------

    def _enter_barrier(self, command: EnterBarrier) -> None:
        if self._rank == 0:
            self._barrier_entered(command.step, 0)
        else:
            self._driver.mailbox.send("nn_worker", 0, Kind.BARRIER_ENTERED, command.step)

    def _barrier_entered(self, step: int, rank: int) -> None:
        """Rank 0 counts; the last one lets all go on."""
        entered = self._entered.setdefault(step, set())
        entered.add(rank)
        if len(entered) == self._plan.ranks:
            del self._entered[step]
            for other in range(1, self._plan.ranks):
                self._driver.mailbox.send("nn_worker", other, Kind.BARRIER_PASSED, step)
            self._driver.tell(BarrierPassed(step))

    def _save_checkpoint(self, command: SaveCheckpoint) -> None:
        """Nothing is in flight: copy the dense part, ask the servers to copy theirs; writing goes on in the background."""
        self._cut[command.step] = set()
        if self._rank == 0:
            self._write_dense(command.step)
        self._ask_snapshots(command.step)

    def _ask_snapshots(self, step: int) -> None:
        self._asked.start((_SNAPSHOT, step), self._driver.clock.now_s())
        for server in range(self._plan.servers):
            self._driver.mailbox.send("parameter_server", server, Kind.ASK_SNAPSHOT, step)

    def _snapshot_cut(self, message: Message) -> None:
        cut = self._cut.get(message.number)
        if cut is None:
            return
        cut.add(message.index)
        if len(cut) == self._plan.servers:
            del self._cut[message.number]
            self._asked.stop((_SNAPSHOT, message.number))
            self._driver.tell(CheckpointSaved(message.number))

    def _write_dense(self, step: int) -> None:
        arrays = self._trainer.state()

        def write() -> None:
            try:
                write_dense(self._checkpoints, step, arrays)
            except BaseException as error:  # handed to the driver's thread: nobody waits for a checkpoint that cannot be
                self._driver.mailbox.post(_Failed(error))
            else:
                self._driver.mailbox.post(_Done(lambda: self._written(step)))

        threading.Thread(target=write, name="checkpoint").start()

    def _written(self, step: int) -> None:
        self._driver.mailbox.send("coordinator", 0, Kind.SNAPSHOT_WRITTEN, step)

    # --- evaluation -------------------------------------------------------------------------------------------

    def _finish(self, message: Message) -> None:
        """All ranks are done: write the trained model where it is wanted (`extra`), evaluate it."""
        step = self._plan.stop_batch // self._plan.ranks
        if message.extra:
            self._write_dense(step - 1)
        self._evaluation.start(step)

    def _peeked(self, message: Message) -> None:
        held_out = self._evaluation.pooled_here(message)
        if held_out is None:
            return
        labels, dense = held_out

        def predict() -> Callable[[], None]:
            probabilities = self._trainer.predict(dense, message.arrays)
            return lambda: self._evaluation.predicted(message.number, labels, probabilities)

        self._jobs.put(predict)
