"""Mode async: a rank's dense gradients go to the parameter servers, each holding a slice; fresh parameters come back.

Shapes: P dense parameters, cut into one contiguous slice a server.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from persia.runtime.dense_part import DensePart
from persia.runtime.driver import Deadlines, Driver
from persia.runtime.plan import Plan
from persia.runtime.transport import Kind, Message

Array = np.ndarray[Any, Any]


def slices(parameters: int, servers: int) -> list[slice]:
    """Return each server's slice of the dense vector; they differ by one at most."""
    bounds = [parameters * server // servers for server in range(servers + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds)]


class DenseExchange:
    """Accumulates a rank's dense gradients and exchanges them, one exchange at a time, repeated until every server has answered."""

    def __init__(self, driver: Driver, plan: Plan, trainer: DensePart, timeout_s: float) -> None:
        self._driver = driver
        self._scale = np.float32(plan.gradient_scale)
        vector = trainer.vector()
        self._slices = slices(len(vector), plan.servers)
        self._gradient = np.zeros_like(vector)
        self._sent: Array | None = None  # the gradient under way
        self._batch = -1
        self._fresh = np.zeros_like(vector)
        self._missing: set[int] = set()  # servers still to answer
        self._asked: Deadlines[int] = Deadlines(timeout_s)

    def accumulate(self, gradient: Array) -> None:
        """Add a batch's dense gradient [P]."""
        self._gradient += gradient * self._scale

    def begin(self, vector: Array) -> None:
        """Offer the first parameters [P]; servers that have some already keep theirs, and answer with them."""
        self._send(-1, vector)

    def send(self, batch: int) -> None:
        """Send what was accumulated up to this batch."""
        gradient, self._gradient = self._gradient, np.zeros_like(self._gradient)
        self._send(batch, gradient)

    def _send(self, batch: int, vector: Array) -> None:
        self._sent = vector
        self._batch = batch
        self._missing = set(range(len(self._slices)))
        self.repeat()

    def repeat(self) -> None:
        """Send the exchange under way to the servers that have not answered; each knows a repetition by its batch."""
        if self._sent is None:
            return
        self._asked.start(self._batch, self._driver.clock.now_s())
        for server in sorted(self._missing):
            part = self._sent[self._slices[server]]
            kind = Kind.DENSE_INIT if self._batch < 0 else Kind.DENSE_GRADIENT
            self._driver.mailbox.send("parameter_server", server, kind, self._batch, (part,))

    def tick(self, now_s: float) -> None:
        """Send again what was not answered in time."""
        if self._asked.expired(now_s):
            self.repeat()

    def next_due_s(self) -> float | None:
        """Return when the exchange under way is late, or None."""
        return self._asked.next_due_s()

    def parameters_here(self, message: Message) -> Array | None:
        """Take one server's fresh slice; return the whole vector [P] when it was the last one missing."""
        if message.number != self._batch or message.index not in self._missing:
            return None
        self._fresh[self._slices[message.index]] = message.arrays[0]
        self._missing.remove(message.index)
        if self._missing:
            return None
        self._asked.stop(self._batch)
        self._sent = None
        return self._fresh.copy()
