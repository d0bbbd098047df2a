"""Several measurements of one speed as one interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simulator.result import Interval

_T = 2.05  # Student's t of 95 % with about thirty batch means, by which an interval becomes a standard error and back


def combine(repeats: Sequence[tuple[Interval, int]]) -> Interval:
    """Return one throughput from repeats, each an interval in samples/s and the number of its steps, all of one size.

    The mean is all samples over all seconds.  Its variance is that of the repeats' own intervals, plus, where their means
    differ by more than those allow, the variance between repeats (random effects: DerSimonian and Laird, "Meta-analysis in
    clinical trials", Controlled Clinical Trials 7, 1986, here weighted by steps).

    Raises:
        ValueError: there is no repeat.
    """
    if not repeats:
        raise ValueError("no repeat to combine")
    if len(repeats) == 1:
        return repeats[0][0]
    weights = np.array([steps for _, steps in repeats], dtype=np.float64)
    weights /= weights.sum()
    gaps = np.array([1.0 / interval.mean for interval, _ in repeats])
    errors = np.array([(interval.high / interval.mean - 1.0) / interval.mean / _T for interval, _ in repeats])
    between = max(0.0, float(gaps.var(ddof=1)) - float(np.mean(errors**2)))
    variance = float(np.sum(weights**2 * errors**2) + between * np.sum(weights**2))
    gap = float(weights @ gaps)
    factor = 1.0 + _T * math.sqrt(variance) / gap
    return Interval(mean=1.0 / gap, low=1.0 / (gap * factor), high=factor / gap)


def relative_half_width(interval: Interval) -> float:
    """Return half of an interval over its mean."""
    return (interval.high - interval.low) / (2.0 * interval.mean)
