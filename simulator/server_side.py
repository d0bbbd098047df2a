"""What both fidelities of the parameter servers share: their interface, and how a batch's rows spread over servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from persia.schedule.messages import Event
from simulator.arrays import FloatArray

DRAWS = 64  # how often the spread of rows over servers is drawn; batches take the draws in turn

Tell = Callable[[int, Event], None]


class ServerSide(Protocol):
    """What carries out a worker's fan-outs."""

    @property
    def lookups(self) -> float:
        """Return the batches looked up so far."""
        ...

    @property
    def updates(self) -> float:
        """Return the batches applied so far."""
        ...

    @property
    def busy_s(self) -> float:
        """Return the core-seconds used by all servers so far."""
        ...

    def lookup(self, worker: int, batch: int) -> None:
        """Ask every server for its part of the batch's rows."""
        ...

    def update(self, worker: int, batch: int) -> None:
        """Send every server its part of the batch's gradients."""
        ...


def spread(generator: np.random.Generator, unique: float, servers: int, draws: int) -> FloatArray:
    """Return `draws` multinomial draws of the share of a batch's unique IDs that each server gets [draws, servers]."""
    count = max(1, round(unique))
    return generator.multinomial(count, np.full(servers, 1.0 / servers), size=draws) / count
