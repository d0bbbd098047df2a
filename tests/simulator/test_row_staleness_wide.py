"""Row staleness of a thousand ranks: few parts stand for thousands of versions, and the distribution stays what it is."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.popularity import Popularity, mixed_row_staleness

POPULARITY = Popularity(rows=50_000, zipf=1.05)
DRAWS = 40.0


def exact(version_histogram: dict[int, float]) -> dict[int, float]:
    """The same mixture, one version at a time: a histogram of one value is not thinned."""
    total = sum(version_histogram.values())
    mixed: dict[int, float] = {}
    for version, weight in version_histogram.items():
        for value, mass in mixed_row_staleness({version: 1.0}, [(POPULARITY, DRAWS, 1.0)]).items():
            mixed[value] = mixed.get(value, 0.0) + mass * weight / total
    return mixed


def quantile(distribution: dict[int, float], probability: float) -> int:
    values = sorted(distribution)
    cumulative = np.cumsum([distribution[value] for value in values])
    return values[int(np.searchsorted(cumulative, probability * cumulative[-1]))]


@pytest.mark.parametrize(
    "histogram",
    [
        dict.fromkeys(range(400), 1.0),
        {version: (60.0 if version > 900 else 1.0) for version in range(600, 1000)},
        {version: np.exp(-(((version - 700) / 90.0) ** 2)) for version in range(300, 1100, 2)},
    ],
)
def test_few_parts_stand_for_many_versions(histogram: dict[int, float]) -> None:
    thin, whole = mixed_row_staleness(histogram, [(POPULARITY, DRAWS, 1.0)]), exact(histogram)
    assert sum(thin.values()) == pytest.approx(1.0, abs=1e-6)
    mean = sum(value * mass for value, mass in thin.items())
    assert mean == pytest.approx(sum(value * mass for value, mass in whole.items()), rel=1e-6)
    for probability in (0.25, 0.5, 0.9, 0.99):
        assert quantile(thin, probability) == pytest.approx(quantile(whole, probability), rel=0.02, abs=1)
