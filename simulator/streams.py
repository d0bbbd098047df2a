"""Named random streams, all spawned from one seed: no part of a simulation disturbs another's numbers."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from simulator.arrays import FloatArray

_POOL = 4096


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator called `name`; the same for the same seed and name on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


class Noise:
    """Lognormal factors of mean 1 and a given coefficient of variation, drawn in pools because single draws are slow."""

    __slots__ = ("_generator", "_next", "_pool", "_sigma")

    def __init__(self, generator: np.random.Generator, cv: float) -> None:
        self._generator = generator
        self._sigma = math.sqrt(math.log1p(cv * cv))
        self._pool: list[float] = []
        self._next = 0

    def factor(self) -> float:
        """Return the next factor."""
        if self._sigma == 0.0:
            return 1.0
        if self._next == len(self._pool):
            self._pool = self.factors(_POOL).tolist()
            self._next = 0
        self._next += 1
        return self._pool[self._next - 1]

    def factors(self, count: int) -> FloatArray:
        """Return `count` factors [count]."""
        sigma = self._sigma
        return np.exp(sigma * self._generator.standard_normal(count) - 0.5 * sigma * sigma)
