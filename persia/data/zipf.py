"""Draws IDs whose popularity follows Zipf's law: P(id) is proportional to 1 / (id + 1)^exponent, id in 0..rows-1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD_ROWS = 1 << 15  # tables of this size stay in a processor's cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zipf:
    """A sampler: the most popular IDs by Walker's alias method, exactly; the others by inversion of the integral.

    Inside the tail an ID's probability is the integral of x^-exponent over id + 1 ± 1/2, which differs from the sum's
    term by the fraction exponent * (exponent + 1) / (24 * HEAD_ROWS^2), below 1e-10 for the exponents of click logs.
    Shapes: threshold f64[H], other int64[H] are the alias tables, popularity f64[H] the probabilities of the first
    IDs; the last place stands for all IDs of the tail where there is one.
    """

    rows: int
    exponent: float
    threshold: NDArray[np.float64]
    other: NDArray[np.int64]
    popularity: NDArray[np.float64]

    @property
    def head(self) -> int:
        """The number of IDs that have a place of their own in the tables."""
        return min(self.rows, HEAD_ROWS)

    @property
    def tail_popularity(self) -> float:
        """The probability of all IDs without a place of their own."""
        return float(self.popularity[-1]) if self.rows > self.head else 0.0

    def draw(self, generator: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Return independent IDs; int64[size]."""
        if self.exponent == 0:
            return generator.integers(0, self.rows, size, dtype=np.int64)
        place = generator.random(size)
        place *= len(self.threshold)
        ids = place.astype(np.int64)
        place -= ids
        np.copyto(ids, self.other[ids], where=place >= self.threshold[ids])
        if self.rows > self.head:
            (in_tail,) = np.nonzero(ids == self.head)
            ids[in_tail] = self._draw_tail(generator, len(in_tail))
        return ids

    def _draw_tail(self, generator: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Return IDs from head to rows - 1; the ratio to the tail's lower end is inverted, which stays exact for any exponent."""
        low = self.head + 0.5
        log_ratio = math.log((self.rows + 0.5) / low)
        power = 1.0 - self.exponent
        uniform = generator.random(size)
        if abs(power) < 1e-12:
            uniform *= log_ratio
        else:
            uniform *= math.expm1(power * log_ratio)
            np.log1p(uniform, out=uniform)
            uniform /= power
        np.exp(uniform, out=uniform)
        uniform *= low
        ids = np.rint(uniform).astype(np.int64)
        ids -= 1
        return np.clip(ids, self.head, self.rows - 1, out=ids)


def make_zipf(rows: int, exponent: float) -> Zipf:
    """Return a sampler of `rows` IDs; takes some hundredths of a second."""
    head = min(rows, HEAD_ROWS)
    weights = np.arange(1, head + 1, dtype=np.float64) ** -exponent
    if rows > head:
        weights = np.append(weights, _tail_weight(head, rows, exponent))
    popularity = weights / weights.sum()
    threshold, other = _alias_tables(popularity)
    return Zipf(rows=rows, exponent=exponent, threshold=threshold, other=other, popularity=popularity)


def _tail_weight(head: int, rows: int, exponent: float) -> float:
    """Return the integral of x^-exponent from head + 1/2 to rows + 1/2."""
    low = head + 0.5
    log_ratio = math.log((rows + 0.5) / low)
    power = 1.0 - exponent
    return log_ratio if abs(power) < 1e-12 else low**power * math.expm1(power * log_ratio) / power


def _alias_tables(popularity: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return Walker's tables by Vose's method: place i stands for i below its threshold, and for another ID above."""
    size = len(popularity)
    share = (popularity * size).tolist()
    other = list(range(size))
    poor = [index for index in range(size) if share[index] < 1.0]
    rich = [index for index in range(size) if share[index] >= 1.0]
    threshold = [1.0] * size
    while poor and rich:
        small, large = poor.pop(), rich[-1]
        threshold[small] = share[small]
        other[small] = large
        share[large] -= 1.0 - share[small]
        if share[large] < 1.0:
            poor.append(rich.pop())
    return np.array(threshold), np.array(other, dtype=np.int64)
