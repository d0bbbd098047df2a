"""An emulated accelerator: a rank waits for the time that its dense part would take, everything else is real.

Embedding gradients are zeros in the wire's precision, so servers do all their work and change nothing.  With a reduction
the ranks meet as in a collective: each tells rank 0 when it began, rank 0 tells all when the last one did, and the step
ends for all at one and the same time after that.  What is emulated is the kernels alone: no copies to a device, no
framework, no noise.  In mode async the dense exchange with the servers is real, of a vector of zeros as long as the model.

Never imports torch or numba.  Shapes: B samples, F features of a group, D its dim, N ID occurrences of a raw group, P dense parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

from persia.runtime.dense_part import EmulatedDense, Trained
from persia.runtime.driver import Driver, Listener
from persia.runtime.plan import Plan
from persia.runtime.transport import Kind, Message
from persia.schedule.modes import Reduction

Array = np.ndarray[Any, Any]

_BLOCK_VALUES, _SCALE_OF_ZEROS = 256, 2.0**-100  # as persia.embedding.precision, which would import a compiler
_NANOSECONDS = 1_000_000_000


class EmulatedTrainer:
    """The dense part of one rank as a wait: the interface of `Trainer`, without parameters."""

    span = "train (emulated)"

    def __init__(self, driver: Driver, plan: Plan, rank: int, dense: EmulatedDense) -> None:
        self._driver = driver
        self._plan = plan
        self._rank = rank
        self._step_s = dense.step_s
        self._wire = plan.scenario.schedule.precision.worker_rank
        alone = plan.header.rank.reduction is Reduction.NONE
        self._meets = plan.ranks > 1 and not alone
        self._began: SimpleQueue[float] = SimpleQueue()  # when the step's last rank began
        self._joined: dict[int, dict[int, float]] = {}  # rank 0: step -> rank -> when it began
        self._vector = np.zeros(dense.parameters if alone else 0, np.float32)
        self._dense_gradient = self._vector if alone else None
        self._pooled: dict[tuple[int, ...], tuple[Array, ...]] = {}  # gradients of pooled groups by shape, made once

    # --- the driver's thread ----------------------------------------------------------------------------------

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears of the other ranks."""
        return {
            Kind.DENSE_JOINED: lambda message: self._join(message.number, message.index, message.extra / _NANOSECONDS),
            Kind.DENSE_BEGAN: lambda message: self._began.put(message.extra / _NANOSECONDS),
        }

    def begin(self, batch: int) -> None:
        """Begin the dense part of a batch: join the step's collective, if there is one."""
        now_s = self._driver.clock.now_s()
        step = batch // self._plan.ranks
        if not self._meets:
            self._began.put(now_s)
        elif self._rank == 0:
            self._join(step, 0, now_s)
        else:
            self._send(0, Kind.DENSE_JOINED, step, now_s)

    def _join(self, step: int, rank: int, start_s: float) -> None:
        """Rank 0 counts; when the last one has joined it tells all when that one began."""
        joined = self._joined.setdefault(step, {})
        joined[rank] = start_s
        if len(joined) < self._plan.ranks:
            return
        del self._joined[step]
        last_s = max(joined.values())
        for other in range(1, self._plan.ranks):
            self._send(other, Kind.DENSE_BEGAN, step, last_s)
        self._began.put(last_s)

    def _send(self, rank: int, kind: Kind, step: int, time_s: float) -> None:
        if not self._driver.mailbox.send("nn_worker", rank, kind, step, extra=round(time_s * _NANOSECONDS)):
            raise OSError(f"rank {rank} cannot be told of step {step}: a collective without it would never end")

    # --- the dense thread -------------------------------------------------------------------------------------

    def train(self, batch: int, labels: Array, dense: Array, pooled: Sequence[Array]) -> Trained:
        """Wait until the batch would be trained; return gradients of zeros, shaped as the real ones, and no loss."""
        gradients = self._gradients(pooled, len(labels))
        began_s = min(self._began.get(), self._driver.clock.now_s())  # another host's clock may be ahead
        self._sleep_until(began_s + self._step_s)
        return Trained(batch=batch, loss=math.nan, gradients=gradients, dense_gradient=self._dense_gradient)

    def _sleep_until(self, end_s: float) -> None:
        while (left_s := end_s - self._driver.clock.now_s()) > 0.0:
            time.sleep(left_s)

    def _gradients(self, pooled: Sequence[Array], samples: int) -> list[Array]:
        """Return each group's gradient as it travels: of [B, F, D], or of its raw rows [N, D]."""
        arrays: list[Array] = []
        rest = list(pooled)
        for group in self._plan.groups:
            rows = rest.pop(0)
            if self._wire == "fp16-scaled":
                rest.pop(0)  # scales
            if group.pooling == "raw":
                rest.pop(0)  # offsets
                arrays += zeros_on_wire(rows.shape, self._wire)
                continue
            shape = (samples, group.features, group.dim)
            if shape not in self._pooled:
                self._pooled[shape] = zeros_on_wire(shape, self._wire)
            arrays += self._pooled[shape]
        return arrays

    def predict(self, dense: Array, pooled: Sequence[Array]) -> Array:
        """An emulated dense part predicts nothing; raises NotImplementedError."""
        raise NotImplementedError("an emulated dense part has no parameters to predict with")

    # --- the dense vector (mode async) and checkpoints --------------------------------------------------------

    def vector(self) -> Array:
        """Return the zeros [P] that stand for the parameters in mode async; elsewhere nobody exchanges any: [0]."""
        return self._vector

    def set_vector(self, vector: Array) -> None:
        """Forget the parameters that the servers have sent."""

    def state(self) -> dict[str, Array]:
        """Return nothing: a checkpoint holds the servers' tables alone."""
        return {}


class NoEvaluation:
    """Says at once that nobody knows how good an emulated model is."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def start(self, step: int) -> None:
        """Tell the coordinator that no quality is known."""
        payload = {"step": step, "samples": 0, "auc": None, "logloss": None, "best_auc": None}
        self._driver.mailbox.send("coordinator", 0, Kind.EVALUATED, step, payload=payload)

    def tick(self, now_s: float) -> None:
        """Nothing is ever late."""

    def repeat(self) -> None:
        """Nothing was asked."""

    def pooled_here(self, message: Message) -> tuple[Array, Array] | None:
        """Nobody waits for held-out samples."""
        return None

    def predicted(self, number: int, labels: Array, probabilities: Array) -> None:
        """Nothing is predicted."""


def zeros_on_wire(shape: tuple[int, ...], wire: str) -> tuple[Array, ...]:
    """Return what `persia.embedding.precision.encode` returns for zeros of a shape, without its compiler."""
    if wire == "fp32":
        return (np.zeros(shape, np.float32),)
    halves = np.zeros(shape, np.float16)
    if wire == "fp16":
        return (halves,)
    return halves, np.full(math.ceil(halves.size / _BLOCK_VALUES), _SCALE_OF_ZEROS, np.float32)
