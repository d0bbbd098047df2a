"""How far a prediction is from a measurement: errors, distances of histograms, agreement of rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Histogram = Mapping[int, float]


def signed_error_pct(predicted: float, measured: float) -> float:
    """Return how far the prediction is above the measurement, in per cent of the measurement."""
    return 100.0 * (predicted / measured - 1.0)


def wasserstein_1(one: Histogram, other: Histogram) -> float:
    """Return the 1-Wasserstein distance of two histograms (value -> weight), in the unit of the values.

    It is the area between the two distribution functions (Vallender, 1974).

    Raises:
        ValueError: a histogram is empty.
    """
    values, below_one, below_other = _cumulative(one, other)
    return float(np.sum(np.abs(below_one - below_other)[:-1] * np.diff(values)))


def kolmogorov_smirnov(one: Histogram, other: Histogram) -> float:
    """Return the largest difference of two distribution functions, 0..1.

    Raises:
        ValueError: a histogram is empty.
    """
    _, below_one, below_other = _cumulative(one, other)
    return float(np.max(np.abs(below_one - below_other)))


def _cumulative(
    one: Histogram, other: Histogram
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    """Return all values in order, and both distribution functions at them."""
    if not sum(one.values()) > 0.0 or not sum(other.values()) > 0.0:
        raise ValueError("an empty histogram has no distribution")
    values = sorted({*one, *other})
    below = [np.cumsum([histogram.get(value, 0.0) for value in values]) / sum(histogram.values()) for histogram in (one, other)]
    return np.array(values, dtype=np.float64), below[0], below[1]


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b of two rankings of the same cases, -1..1; 1 where there are fewer than two cases.

    Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    if len(one) < 2:
        return 1.0
    first = np.sign(np.subtract.outer(one, one))
    second = np.sign(np.subtract.outer(other, other))
    upper = np.triu_indices(len(one), 1)
    a, b = first[upper], second[upper]
    ties = np.sqrt(np.count_nonzero(a) * np.count_nonzero(b))
    return float(np.sum(a * b) / ties) if ties else 1.0


def regret_pct(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Return what is lost by running the case that is predicted fastest instead of the fastest, in per cent of the fastest."""
    chosen = measured[int(np.argmax(predicted))]
    return 100.0 * (1.0 - chosen / max(measured))


def coverage(intervals: Sequence[tuple[float, float]], values: Sequence[float]) -> float:
    """Return the share of values that lie in their intervals, 0..1."""
    inside = [low <= value <= high for (low, high), value in zip(intervals, values, strict=True)]
    return sum(inside) / max(1, len(inside))
