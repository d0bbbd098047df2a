"""AUC and log-loss on held-out samples, while training goes on or after it; nothing is inserted, nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from persia.data import Batch, DataSet
from persia.dense.quality import auc, logloss
from persia.runtime.driver import Deadlines, Driver
from persia.runtime.plan import RANK_TIMEOUT_FACTOR, Plan
from persia.runtime.transport import Kind, Message

Array = np.ndarray[Any, Any]

_BATCH_SIZE = 2048
_IN_FLIGHT = 4


class Evaluation:
    """Rank 0's walk over the held-out samples: a few batches are looked up at once, each is predicted when it is here.

    Request numbers count through all evaluations, so that late answers of an earlier one are known.
    """

    def __init__(self, driver: Driver, plan: Plan, open_data: Callable[[], DataSet]) -> None:
        self._driver = driver
        self._workers = plan.workers
        self._open_data = open_data
        self._best_auc: float | None = None
        self._held_out: list[Batch] | None = None  # read when first wanted
        self._next: Iterator[Batch] = iter(())
        self._asked: Deadlines[int] = Deadlines(plan.scenario.schedule.request_timeout * RANK_TIMEOUT_FACTOR)
        self._batches: dict[int, Batch] = {}  # request -> batch looked up
        self._predicting: set[int] = set()
        self._number = 0
        self._step: int | None = None
        self._results: list[tuple[Array, Array]] = []  # labels, probabilities

    def start(self, step: int) -> None:
        """Begin to evaluate the model of this step; one that is still being evaluated is given up."""
        if self._held_out is None:
            data = self._open_data()
            self._held_out = list(data.held_out(_BATCH_SIZE))
            self._best_auc = data.best_auc()
        for number in self._batches:
            self._asked.stop(number)
        self._batches.clear()
        self._predicting.clear()
        self._results = []
        self._step = step
        self._next = iter(self._held_out)
        self._fill()

    def _fill(self) -> None:
        while len(self._batches) < _IN_FLIGHT:
            batch = next(self._next, None)
            if batch is None:
                break
            self._number += 1
            self._batches[self._number] = batch
            self._ask(self._number)
        if not self._batches and not self._predicting and self._step is not None:
            self._report(self._step)
            self._step = None

    def _ask(self, number: int) -> None:
        batch = self._batches[number]
        arrays = [array for bags in batch.groups for array in (bags.ids, bags.offsets)]
        self._asked.start(number, self._driver.clock.now_s())
        worker = number % self._workers
        self._driver.mailbox.send("embedding_worker", worker, Kind.PEEK_POOLED, number, arrays, extra=len(batch.labels))

    def tick(self, now_s: float) -> None:
        """Ask again for what was lost."""
        for number in self._asked.expired(now_s):
            self._ask(number)

    def repeat(self) -> None:
        """Ask again for all that is not here: a process has come back that may have been asked."""
        for number in list(self._batches):
            self._ask(number)

    def pooled_here(self, message: Message) -> tuple[Array, Array] | None:
        """Return labels and dense features of the batch whose embeddings are here; None if nobody waits for them."""
        batch = self._batches.pop(message.number, None)
        if batch is None:
            return None
        self._asked.stop(message.number)
        self._predicting.add(message.number)
        return batch.labels, batch.dense

    def predicted(self, number: int, labels: Array, probabilities: Array) -> None:
        """Note the predictions of one batch."""
        if number in self._predicting:
            self._predicting.remove(number)
            self._results.append((labels, probabilities))
            self._fill()

    def _report(self, step: int) -> None:
        """Tell the coordinator; with one class only there is no AUC."""
        labels = np.concatenate([labels for labels, _ in self._results]) if self._results else np.zeros(0, np.float32)
        payload: dict[str, Any] = {"step": step, "samples": len(labels), "auc": None, "logloss": None, "best_auc": self._best_auc}
        if len(labels):
            probabilities = np.concatenate([probabilities for _, probabilities in self._results])
            payload["logloss"] = logloss(labels, probabilities)
            if 0 < labels.sum() < len(labels):
                payload["auc"] = auc(labels, probabilities)
        self._driver.mailbox.send("coordinator", 0, Kind.EVALUATED, step, payload=payload)
