"""Popularity of rows: unique IDs in a batch, LRU hit rate and row staleness under a Zipf law.

Row of rank k is drawn with probability p_k proportional to k^-s. The first `HEAD` ranks are kept one by one; the rest, up to
1e12 rows, in bins of ranks so narrow (1 % for 1e12 rows) that p is as good as constant inside: every sum over rows costs
about ten thousand terms. s = 0 is the uniform distribution.

Shapes: G groups of rows (a head rank is a group of one row), K values of staleness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simulator.arrays import FloatArray

HEAD = 8192
BINS = 2048
GROUPS_PER_E_FOLD = 4  # rows whose odds of being touched are within a factor of 1.28 share one binomial
COLD_MEAN = 20.0  # rows touched less often than this while a batch is in flight need few columns
COLD_COLUMNS = 96  # P(Binomial of mean 20 >= 96) < 1e-30
LEAST_MASS = 1e-12
MOST_VERSIONS = 64  # parts of equal mass by which a wide version staleness is told apart
FAR_VERSIONS = 2048  # beyond, a binomial has thousands of values, and fewer of them will do
MOST_FAR_VERSIONS = 8
LONGEST_WALK = 8  # versions; further apart, a binomial is cheaper computed anew than walked to


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows of nearly equal probability: how many, and the probability of each of them."""

    rows: FloatArray
    probability: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """Zipf popularity of `rows` rows with exponent `zipf` >= 0; equal values share their cached sums.

    Raises:
        ValueError: no rows, or a negative or non-finite exponent.
    """

    rows: int
    zipf: float

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0.0 <= self.zipf < np.inf:
            raise ValueError(f"a Zipf law needs rows >= 1 and an exponent >= 0, not {self.rows} and {self.zipf}")

    def expected_unique(self, draws: float) -> float:
        """Return the expected number of different rows among `draws` independent draws: sum of 1 - (1 - p)^draws."""
        return _expected_unique(self, draws)

    def duplicates(self, draws: float) -> float:
        """Return the expected number of draws that repeat a row already drawn."""
        return draws - self.expected_unique(draws)

    def touch_probability(self, draws: float) -> tuple[FloatArray, FloatArray]:
        """Return for each group [G] the number of rows, and the probability that `draws` draws touch a given one."""
        groups = _groups(self)
        return groups.rows, _touch(groups.probability, draws)

    def lru_hit_rate(self, capacity_rows: float) -> float:
        """Return the hit rate of an LRU cache of `capacity_rows` rows under independent draws, by Che's approximation.

        A row stays cached for the characteristic time t after each use, where t solves sum(1 - exp(-p t)) = capacity
        (Che, Tung and Wang, "Hierarchical web caching systems", IEEE JSAC 20, 2002; its accuracy for Zipf laws: Fricker,
        Robert and Roberts, "A versatile and accurate approximation for LRU cache performance", ITC 2012).
        """
        return _lru_hit_rate(self, capacity_rows)

    def row_staleness(self, version_histogram: Mapping[int, float], draws_per_batch: float) -> dict[int, float]:
        """Return the distribution of row staleness for one feature (see `mixed_row_staleness`)."""
        return mixed_row_staleness(version_histogram, [(self, draws_per_batch, 1.0)])


@lru_cache(maxsize=256)
def _groups(popularity: Popularity) -> _Groups:
    """Return the head ranks and tail bins of a Zipf law.

    The mass of a bin is the integral of x^-s between its half-integer ends (Euler-Maclaurin: relative error s^2 / 24 k^2,
    below 1e-9 beyond the head).
    """
    rows, s = popularity.rows, popularity.zipf
    head = np.arange(1.0, min(rows, HEAD) + 1.0)
    counts, mass = np.ones(len(head)), head**-s
    if rows > HEAD:
        edges = np.round(np.geomspace(HEAD + 1, rows + 1, BINS + 1))
        edges = edges[np.append(True, np.diff(edges) > 0.0)]  # np.unique would import numpy.ma, a tenth of a check's time
        low, high = edges[:-1] - 0.5, edges[1:] - 0.5
        length = np.log1p((high - low) / low)
        exponent = (1.0 - s) * length
        stretched = np.divide(np.expm1(exponent), exponent, out=np.ones_like(exponent), where=exponent != 0.0)
        counts = np.concatenate((counts, np.diff(edges)))
        mass = np.concatenate((mass, low ** (1.0 - s) * length * stretched))
    return _Groups(counts, mass / mass.sum() / counts)


def _touch(probability: FloatArray, draws: float) -> FloatArray:
    """Return 1 - (1 - p)^draws without cancellation."""
    if draws <= 0.0:
        return np.zeros_like(probability)
    with np.errstate(divide="ignore"):  # p = 1: log1p(-1) = -inf gives the right 1
        touched: FloatArray = -np.expm1(draws * np.log1p(-probability))
    return touched


@lru_cache(maxsize=4096)
def _expected_unique(popularity: Popularity, draws: float) -> float:
    """Return the cached sum behind `Popularity.expected_unique`."""
    rows, touched = popularity.touch_probability(draws)
    return _dot(rows, touched)


@lru_cache(maxsize=1024)
def _lru_hit_rate(popularity: Popularity, capacity_rows: float) -> float:
    """Return the cached solution behind `Popularity.lru_hit_rate`."""
    if capacity_rows <= 0:
        return 0.0
    if capacity_rows >= popularity.rows:
        return 1.0
    groups = _groups(popularity)
    low = high = float(capacity_rows)  # t >= capacity, because 1 - exp(-x) <= x
    while _dot(groups.rows, -np.expm1(-groups.probability * high)) < capacity_rows:
        high *= 4.0
    for _ in range(60):
        middle = np.sqrt(low * high)
        if _dot(groups.rows, -np.expm1(-groups.probability * middle)) < capacity_rows:
            low = middle
        else:
            high = middle
        if high <= low * (1.0 + 1e-12):
            break
    return _dot(groups.rows * groups.probability, -np.expm1(-groups.probability * low))


def _dot(a: FloatArray, b: FloatArray) -> float:
    """Return sum(a b) without BLAS, whose last bit depends on its number of threads, and with it a simulation's digest."""
    return float(np.sum(a * b))


def mixed_row_staleness(
    version_histogram: Mapping[int, float],
    features: Sequence[tuple[Popularity, float, float]],
) -> dict[int, float]:
    """Return the distribution over (batch, row) of the updates that touched the row while the batch was in flight.

    A batch touches a row of touch probability q = 1 - (1 - p)^draws with that probability, so rows weigh q; of the V updates
    of other batches between its lookup and its update (the batch's version staleness) Binomial(V, q) touch it too, batches
    being drawn independently. The mean is E[V] sum(q^2) / sum(q).

    Args:
        version_histogram: version staleness -> weight (records or mass).
        features: (popularity, draws per batch, number of features like this).

    Returns:
        value -> probability; values of less than 1e-12 are left out.

    Raises:
        ValueError: the histogram is empty, a staleness is negative, or no draws are made.
    """
    versions = sorted((v, weight) for v, weight in version_histogram.items() if weight > 0)
    if not versions or versions[0][0] < 0:
        raise ValueError("row staleness needs a histogram of version staleness >= 0")
    total = sum(mass for _, mass in versions)
    mass_of = _thinned({v: mass / total for v, mass in versions})
    most = versions[-1][0]
    touch, weight = _touch_groups(features, most)
    cold = touch * most <= COLD_MEAN
    masses = np.zeros(most + 1)
    for chosen, columns in ((cold, min(most + 1, COLD_COLUMNS)), (~cold, most + 1)):
        if chosen.any():
            masses[:columns] += _binomial_mixture(touch[chosen], weight[chosen], mass_of, columns)
    return {int(value): float(masses[value]) for value in np.nonzero(masses > LEAST_MASS)[0]}


def _thinned(mass_of: Mapping[int, float]) -> Mapping[int, float]:
    """Return a distribution over few values: parts of about equal mass, each on the two integers around its mean, which stays exact.

    Version staleness of a thousand ranks has thousands of values; binomials of neighbours hardly differ.
    """
    parts = MOST_VERSIONS if max(mass_of) <= FAR_VERSIONS else MOST_FAR_VERSIONS
    if len(mass_of) <= 2 * parts:
        return mass_of
    values, masses = np.array(list(mass_of), dtype=np.float64), np.array(list(mass_of.values()))
    part = np.minimum((np.cumsum(masses) - 0.5 * masses) * parts, parts - 1).astype(np.int64)
    mass = np.bincount(part, weights=masses, minlength=parts)
    held = mass > 0
    mean = np.bincount(part, weights=masses * values, minlength=parts)[held] / mass[held]
    thinned: dict[int, float] = {}
    for centre, weight in zip(mean.tolist(), mass[held].tolist(), strict=True):
        low = int(centre)
        thinned[low] = thinned.get(low, 0.0) + weight * (low + 1 - centre)
        thinned[low + 1] = thinned.get(low + 1, 0.0) + weight * (centre - low)
    return {value: thinned[value] for value in sorted(thinned) if thinned[value] > 0.0}


def _touch_groups(features: Sequence[tuple[Popularity, float, float]], most: int) -> tuple[FloatArray, FloatArray]:
    """Return touch probabilities [G] and normalised weights [G] of rows over all features, merged into few groups.

    A group's probability is the weighted mean of its members', which leaves the mean staleness exact. Groups are equal
    steps of log-odds: fine near 0, where a binomial is a Poisson, and near 1, where it is V minus a Poisson. Rows that
    among the `most` updates are touched (or spared) a hundredth of a time need no finer distinction.
    """
    touch_parts, weight_parts = [], []
    for popularity, draws, copies in features:
        rows, touched = popularity.touch_probability(draws)
        touch_parts.append(touched)
        weight_parts.append(copies * rows * touched)
    touch, weight = np.concatenate(touch_parts), np.concatenate(weight_parts)
    drawn = weight > 0
    if not drawn.any():
        raise ValueError("row staleness needs draws")
    touch, weight = touch[drawn], weight[drawn] / weight[drawn].sum()
    furthest = np.log(100.0 * max(most, 1))
    with np.errstate(divide="ignore"):
        log_odds = np.clip(np.log(touch) - np.log1p(-touch), -furthest, furthest)
    group = np.floor(log_odds * GROUPS_PER_E_FOLD).astype(np.int64)
    _, place = np.unique(group, return_inverse=True)
    merged: FloatArray = np.bincount(place, weights=weight).astype(np.float64)
    return np.bincount(place, weights=weight * touch) / merged, merged


def _binomial_mixture(touch: FloatArray, weight: FloatArray, mass_of: Mapping[int, float], columns: int) -> FloatArray:
    """Return sum over groups and V of weight * mass_of[V] * Binomial(V, touch), first `columns` values [K].

    Walks V up from one value to the next: Binomial(V + 1, q) is Binomial(V, q) shifted by one with probability q.
    """
    q = touch[:, None]
    masses = np.zeros(columns)
    trials = -1
    for versions, mass in sorted(mass_of.items()):
        if trials < 0 or versions - trials > LONGEST_WALK:
            trials, pmf = versions, _binomial(versions, touch, columns)
        while trials < versions:
            trials += 1
            reached = pmf[:, : trials + 1]  # no more successes than trials
            shifted = reached * q
            reached -= shifted
            reached[:, 1:] += shifted[:, : reached.shape[1] - 1]
        masses += mass * (weight @ pmf)
    return masses


def _binomial(trials: int, probability: FloatArray, columns: int) -> FloatArray:
    """Return the probabilities of 0 .. columns - 1 successes [G, K]."""
    pmf = np.zeros((len(probability), columns))
    if trials == 0:
        pmf[:, 0] = 1.0
        return pmf
    values = np.arange(min(trials + 1, columns))
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1.0, trials + 1.0)))))
    choose = log_factorial[trials] - log_factorial[values] - log_factorial[trials - values]
    p = np.clip(probability, 1e-300, 1.0 - 1e-16)[:, None]
    pmf[:, : len(values)] = np.exp(choose + values * np.log(p) + (trials - values) * np.log1p(-p))
    return pmf
