"""What a rank wants of its dense part, computed on torch (`trainer.py`) or only waited for (`emulation.py`); imports neither.

Shapes: B samples, P dense parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from persia.runtime.driver import Listener
from persia.runtime.transport import Kind, Message

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What one batch gave: its loss, the gradients for the embedding worker, in mode async the dense gradient [P] too."""

    batch: int
    loss: float
    gradients: list[Array]
    dense_gradient: Array | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedDense:
    """The time that a rank waits for instead of computing, and the number of dense parameters it does not have.

    `step_s` lasts from the beginning of a step's last rank to the step's end, its all-reduce included; `source` is a
    sentence that says what the figure is made of.
    """

    accelerator: str
    step_s: float
    parameters: int
    source: str


class DensePart(Protocol):
    """Trains batches one after the other on a thread of its own; `begin` and the listeners run on the driver's."""

    @property
    def span(self) -> str:
        """Return what a trace calls the training of a batch."""
        ...

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message of the dense part's own."""
        ...

    def begin(self, batch: int) -> None:
        """Hear that `train` is about to be called for a batch."""
        ...

    def train(self, batch: int, labels: Array, dense: Array, pooled: Sequence[Array]) -> Trained:
        """Train one batch: labels [B], dense [B, dense features], pooled embeddings as they came from the wire."""
        ...

    def predict(self, dense: Array, pooled: Sequence[Array]) -> Array:
        """Return the probabilities of a click [B]."""
        ...

    def vector(self) -> Array:
        """Return all dense parameters [P]."""
        ...

    def set_vector(self, vector: Array) -> None:
        """Replace all dense parameters [P]."""
        ...

    def state(self) -> dict[str, Array]:
        """Return what a checkpoint keeps, by name."""
        ...


class Judge(Protocol):
    """Rank 0's evaluations: of held-out samples (`evaluation.py`), or none."""

    def start(self, step: int) -> None:
        """Begin to evaluate the model of a step; the coordinator hears how good it is."""
        ...

    def tick(self, now_s: float) -> None:
        """Ask again for what was lost."""
        ...

    def repeat(self) -> None:
        """Ask again for all that is not here."""
        ...

    def pooled_here(self, message: Message) -> tuple[Array, Array] | None:
        """Return labels and dense features of the batch whose embeddings are here; None if nobody waits for them."""
        ...

    def predicted(self, number: int, labels: Array, probabilities: Array) -> None:
        """Note the predictions of one batch."""
        ...
