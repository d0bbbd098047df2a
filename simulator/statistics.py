"""Output analysis: where the warm-up ends, and what a mean is worth.

All intervals are two-sided with Student's t. A series that does not vary has an interval of no width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from simulator.arrays import FloatArray
from simulator.result import Interval, Staleness

MSER_BATCH = 5
MOST_BATCHES = 30
FEWEST_BATCHES = 8
EXACT_DEGREES = 400
VON_NEUMANN_Z = NormalDist().inv_cdf(0.9)

Series = Sequence[float] | FloatArray


def warmup_length(series: Series) -> int:
    """Return how many leading observations to drop, by MSER-5.

    MSER (White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69, 1997) drops the
    d observations that minimise the squared standard error of what is left, var(d) / (n - d); MSER-5 does so on means of
    five. Truncation beyond half of the series is not considered: then the run is too short.
    """
    batches = _batch_means(np.asarray(series, dtype=np.float64), MSER_BATCH)
    count = len(batches)
    if count < 4:
        return 0
    centred = batches - batches.mean()  # keeps the sums of squares well conditioned
    left = np.arange(count, 0, -1)
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred * centred)[::-1])[::-1]
    error = (squares - sums * sums / left) / (left * left)
    considered = count // 2 + 1
    return int(np.argmin(error[:considered])) * MSER_BATCH


def _batch_means(values: FloatArray, size: int) -> FloatArray:
    """Return the means of consecutive batches of `size` values; the incomplete first batch is dropped."""
    count = len(values) // size
    means: FloatArray = values[len(values) - count * size :].reshape(count, size).mean(axis=1)
    return means


def batch_means_interval(samples: Series, confidence: float = 0.95) -> Interval:
    """Return the mean of a stationary series with its confidence interval, by non-overlapping batch means.

    Starts at 30 batches and halves the number (twice the length) until von Neumann's ratio no longer shows positive
    correlation between neighbouring batches at the 10 % level, or eight batches are left (Fishman, "Grouping observations
    in digital simulation", Management Science 24, 1978); what correlation is left then widens the interval by the lag-1
    factor (1 + r) / (1 - r).

    Raises:
        ValueError: fewer than two samples, or a sample that is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two samples, not {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError("a sample is not finite")
    count = min(MOST_BATCHES, len(values))
    means = _batch_means(values, len(values) // count)
    while _positively_correlated(means) and len(means) // 2 >= FEWEST_BATCHES:
        count = len(means) // 2
        means = _batch_means(values, len(values) // count)
    variance = float(means.var(ddof=1)) / len(means)
    if _positively_correlated(means):
        correlation = min(0.9, max(0.0, _lag_one_correlation(means)))
        variance *= (1.0 + correlation) / (1.0 - correlation)
    half = student_t_quantile(0.5 + confidence / 2.0, len(means) - 1) * math.sqrt(variance)
    mean = float(values.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _lag_one_correlation(means: FloatArray) -> float:
    """Return the lag-1 autocorrelation with the end correction that makes it linear in von Neumann's ratio."""
    centred = means - means.mean()
    squares = float(centred @ centred)
    if squares <= 0.0:
        return 0.0
    ends = float(centred[0] ** 2 + centred[-1] ** 2)
    return (float(centred[:-1] @ centred[1:]) + ends / 2.0) / squares


def _positively_correlated(means: FloatArray) -> bool:
    """Return whether von Neumann's test rejects independence against positive correlation at the 10 % level.

    For k independent normal values the corrected lag-1 correlation has mean 0 and variance (k - 2) / (k^2 - 1).
    """
    count = len(means)
    if count < 4:
        return False
    return _lag_one_correlation(means) > VON_NEUMANN_Z * math.sqrt((count - 2) / (count**2 - 1))


def throughput_interval(step_end_times_s: Series, samples_per_step: float, confidence: float = 0.95) -> Interval:
    """Return samples per second with its interval, from the times (at least three) at which steps end.

    The mean time between steps is estimated by batch means, mean and half-width turned into a factor: the interval is
    rate / (1 + half / mean) ... rate (1 + half / mean), which stays finite and positive however short the run.

    Raises:
        ValueError: fewer than three ends, or no time between the first and the last.
    """
    ends_s = np.asarray(step_end_times_s, dtype=np.float64)
    if len(ends_s) < 3 or not ends_s[-1] > ends_s[0]:
        raise ValueError("a throughput needs at least three step ends that move forward")
    gap_s = batch_means_interval(np.diff(ends_s), confidence)
    rate, factor = samples_per_step / gap_s.mean, gap_s.high / gap_s.mean
    return Interval(mean=rate, low=rate / factor, high=rate * factor)


def replication_interval(means: Series, confidence: float = 0.95) -> Interval:
    """Return the mean of independent replications with its interval.

    Raises:
        ValueError: fewer than two replications.
    """
    values = np.asarray(means, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two replications, not {len(values)}")
    half = student_t_quantile(0.5 + confidence / 2.0, len(values) - 1) * math.sqrt(float(values.var(ddof=1)) / len(values))
    mean = float(values.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half)


@lru_cache(maxsize=1024)
def student_t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t with a whole number of degrees of freedom.

    Bisects the exact finite series of the distribution (Abramowitz and Stegun 26.7.3 and 26.7.4) up to 400 degrees; beyond
    that the Cornish-Fisher expansion 26.7.5 is exact to 1e-9.

    Raises:
        ValueError: the probability is not inside (0, 1), or there is no degree of freedom.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"no t quantile for probability {probability} and {degrees} degrees of freedom")
    if probability < 0.5:
        return -student_t_quantile(1.0 - probability, degrees)
    if degrees > EXACT_DEGREES:
        return _student_t_cornish_fisher(NormalDist().inv_cdf(probability), degrees)
    low, high = 0.0, 1.0
    while _student_t_cdf(high, degrees) < probability:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if _student_t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _student_t_cornish_fisher(normal: float, degrees: int) -> float:
    """Return Abramowitz and Stegun 26.7.5 for a normal quantile."""
    x, n = normal, float(degrees)
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return x + g1 / n + g2 / n**2 + g3 / n**3


def _student_t_cdf(t: float, degrees: int) -> float:
    """Return P(T <= t), t >= 0, by Abramowitz and Stegun 26.7.3 (odd) and 26.7.4 (even)."""
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2 == 1
    if degrees == 1:
        return 0.5 + theta / math.pi
    term = cosine if odd else 1.0
    total = term
    for k in range(2 if odd else 1, degrees - 2, 2):
        term *= cosine * cosine * k / (k + 1)
        total += term
    middle = 2.0 / math.pi * (theta + sine * total) if odd else sine * total
    return 0.5 + middle / 2.0


def weighted_quantiles(histogram: Mapping[int, float], probabilities: Sequence[float]) -> list[float]:
    """Return for each probability the smallest value whose cumulative weight reaches it.

    Raises:
        ValueError: the histogram is empty or weighs nothing.
    """
    values, weights = _sorted_histogram(histogram)
    cumulative = np.cumsum(weights)
    reached = np.asarray(probabilities) * cumulative[-1] * (1.0 - 1e-12)  # a sum of many fractions may miss 1 by rounding
    places = np.minimum(np.searchsorted(cumulative, reached, side="left"), len(values) - 1)
    return [float(value) for value in values[places]]


def _sorted_histogram(histogram: Mapping[int, float]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the values with positive weight in order, and their weights."""
    kept = sorted((value, weight) for value, weight in histogram.items() if weight > 0)
    if not kept:
        raise ValueError("an empty histogram has no quantiles")
    return np.array([value for value, _ in kept], dtype=np.int64), np.array([weight for _, weight in kept], dtype=np.float64)


def staleness_from_histogram(histogram: Mapping[int, float]) -> Staleness:
    """Return the moments and quantiles of a staleness histogram (value -> number of records, or mass).

    Raises:
        ValueError: the histogram is empty or weighs nothing.
    """
    values, weights = _sorted_histogram(histogram)
    p50, p90, p99 = weighted_quantiles(histogram, (0.5, 0.9, 0.99))
    return Staleness(
        mean=float(values @ weights / weights.sum()),
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(values[-1]),
        histogram={int(value): float(weight) for value, weight in zip(values, weights, strict=True)},
    )
