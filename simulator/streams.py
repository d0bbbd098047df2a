"""Named random streams, all spawned from one seed: no part of a simulation disturbs another's numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from simulator.arrays import FloatArray

_POOL = 4096


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator called `name`; the same for the same seed and name on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


class Noise:
    """Lognormal factors of mean 1 and a given coefficient of variation.

    `factor()` returns the next one; it is a generator's `__next__` over pooled draws, since single draws are slow and it is
    asked several times for every batch.
    """

    __slots__ = ("_generator", "_sigma", "factor")

    def __init__(self, generator: np.random.Generator, cv: float) -> None:
        self._generator = generator
        self._sigma = math.sqrt(math.log1p(cv * cv))
        self.factor: Callable[[], float] = self._pooled().__next__

    def _pooled(self) -> Iterator[float]:
        while True:
            yield from self.factors(_POOL).tolist()

    def factors(self, count: int) -> FloatArray:
        """Return `count` factors [count]."""
        sigma = self._sigma
        if sigma == 0.0:
            return np.ones(count)
        return np.exp(sigma * self._generator.standard_normal(count) - 0.5 * sigma * sigma)
