"""Intervals that cover as often as they say, warm-ups found, quantiles exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from simulator.statistics import (
    batch_means_interval,
    replication_interval,
    staleness_from_histogram,
    student_t_quantile,
    throughput_interval,
    warmup_length,
    weighted_quantiles,
)


def autoregressive(seed: int, count: int, phi: float, mean: float) -> np.ndarray:
    """A stationary AR(1) series."""
    noise = np.random.default_rng(seed).normal(size=count + 300)
    series: np.ndarray = lfilter([1.0], [1.0, -phi], noise)[300:] + mean
    return series


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 29, 30, 100, 400, 401, 10_000])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.6, 0.9, 0.975, 0.995, 0.9999])
def test_t_quantile_equals_scipys(probability: float, degrees: int) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 5), (1.0, 5), (math.nan, 5), (0.9, 0)])
def test_impossible_t_quantiles_are_refused(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no t quantile"):
        student_t_quantile(probability, degrees)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
def test_the_interval_covers_as_often_as_it_says(phi: float) -> None:
    covered = 0
    for seed in range(300):
        interval = batch_means_interval(autoregressive(seed, 1500, phi, 3.0))
        covered += interval.low <= 3.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


def test_the_interval_is_no_wider_than_correlation_asks_for() -> None:
    """Its width is near the asymptotic 2 * 1.96 sigma / ((1 - phi) sqrt(n)) of an AR(1) series."""
    widths = [interval.high - interval.low for interval in (batch_means_interval(autoregressive(s, 2000, 0.8, 0.0)) for s in range(200))]
    assert np.mean(widths) == pytest.approx(2 * 1.96 / (1 - 0.8) / math.sqrt(2000), rel=0.2)


def test_a_constant_series_is_certain() -> None:
    interval = batch_means_interval([2.5] * 100)
    assert (interval.low, interval.mean, interval.high) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan, 2.0], [1.0, math.inf]])
def test_series_that_say_nothing_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"sample"):
        batch_means_interval(bad)


def test_warmup_is_found_and_not_invented() -> None:
    noise = np.random.default_rng(0).normal(scale=0.05, size=1000)
    ramp = np.concatenate((np.linspace(5.0, 1.0, 120), np.ones(880)))
    assert 95 <= warmup_length(ramp + noise) <= 160
    assert warmup_length(1.0 + noise) <= 150
    assert warmup_length([3.0] * 100) == 0
    assert warmup_length([9.0, 1.0, 1.0]) == 0


def test_truncating_the_warmup_removes_the_bias() -> None:
    rng = np.random.default_rng(1)
    series = 1.0 + 4.0 * np.exp(-np.arange(2000) / 60.0) + rng.normal(scale=0.1, size=2000)
    kept = series[warmup_length(series) :]
    assert abs(kept.mean() - 1.0) < 0.01 < abs(series.mean() - 1.0)


def test_throughput_is_samples_over_mean_gap() -> None:
    gaps = np.random.default_rng(2).gamma(100.0, 1e-4, size=600)
    interval = throughput_interval(np.cumsum(gaps), 512.0)
    assert interval.mean == pytest.approx(512.0 / gaps[1:].mean())
    assert interval.low < 512.0 / 1e-2 < interval.high
    assert interval.high - interval.low < 0.05 * interval.mean


@pytest.mark.parametrize("ends", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_a_throughput_without_time_is_refused(ends: list[float]) -> None:
    with pytest.raises(ValueError, match="step ends"):
        throughput_interval(ends, 1.0)


def test_replications_give_the_textbook_interval() -> None:
    interval = replication_interval([9.0, 10.0, 11.0])
    assert (interval.low, interval.high) == pytest.approx(stats.t.interval(0.95, 2, loc=10.0, scale=1 / math.sqrt(3)))
    with pytest.raises(ValueError, match="two replications"):
        replication_interval([1.0])


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 9), min_size=1), st.floats(0.001, 1.0))
def test_weighted_quantiles_equal_those_of_the_expanded_list(histogram: dict[int, int], probability: float) -> None:
    expanded = sorted(value for value, weight in histogram.items() for _ in range(weight))
    place = max(0, math.ceil(probability * len(expanded) * (1.0 - 1e-12)) - 1)
    assert weighted_quantiles({k: float(v) for k, v in histogram.items()}, [probability]) == [expanded[place]]


def test_staleness_summarises_its_histogram() -> None:
    staleness = staleness_from_histogram({3: 1.0, 0: 98.0, 7: 1.0, 9: 0.0})
    assert (staleness.mean, staleness.p50, staleness.p99, staleness.max) == (0.1, 0.0, 3.0, 7.0)
    assert list(staleness.histogram) == [0, 3, 7]
    with pytest.raises(ValueError, match="empty histogram"):
        staleness_from_histogram({1: 0.0})
