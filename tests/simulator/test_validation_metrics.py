"""Distances, rankings and cases of a validation, against scipy and by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.validation.cases import IDS_PER_BATCH_MAX, draw, grid
from simulator.validation.metrics import coverage, kendall_tau, kolmogorov_smirnov, regret_pct, signed_error_pct, wasserstein_1

HISTOGRAMS = st.dictionaries(st.integers(0, 40), st.floats(0.1, 100.0), min_size=1, max_size=12)


@given(HISTOGRAMS, HISTOGRAMS)
def test_wasserstein_distance_is_scipys(one: dict[int, float], other: dict[int, float]) -> None:
    wanted = stats.wasserstein_distance(list(one), list(other), list(one.values()), list(other.values()))
    assert wasserstein_1(one, other) == pytest.approx(wanted, abs=1e-9)


@given(HISTOGRAMS)
def test_a_histogram_is_at_no_distance_from_itself(one: dict[int, float]) -> None:
    doubled = {value: 2.0 * weight for value, weight in one.items()}
    assert wasserstein_1(one, doubled) == pytest.approx(0.0, abs=1e-9)
    assert kolmogorov_smirnov(one, doubled) == pytest.approx(0.0, abs=1e-9)


def test_kolmogorov_smirnov_by_hand() -> None:
    assert kolmogorov_smirnov({0: 1.0, 1: 3.0}, {1: 1.0, 2: 1.0}) == pytest.approx(0.5)
    assert kolmogorov_smirnov({0: 1.0}, {5: 1.0}) == 1.0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=20))
def test_kendalls_tau_is_scipys(pairs: list[tuple[int, int]]) -> None:
    one, other = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert kendall_tau(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)


def test_errors_regret_and_coverage_by_hand() -> None:
    assert signed_error_pct(110.0, 100.0) == pytest.approx(10.0)
    assert regret_pct([1.0, 3.0, 2.0], [10.0, 8.0, 9.0]) == pytest.approx(20.0)
    assert coverage([(0.0, 1.0), (2.0, 3.0)], [0.5, 5.0]) == 0.5


@pytest.mark.parametrize("empty", [{}, {3: 0.0}])
def test_an_empty_histogram_is_refused(empty: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="empty"):
        wasserstein_1(empty, {0: 1.0})


def test_the_grid_has_every_mode_and_loads() -> None:
    cases = grid()
    assert len(cases) >= 24
    assert {case.scenario().schedule.mode for case in cases} == {"sync", "async", "naive-hybrid", "hybrid"}
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("seed", [0, 1, 99])
def test_draws_are_new_repeatable_and_not_too_large(seed: int) -> None:
    cases = draw(12, seed)
    assert cases == draw(12, seed)
    assert cases != draw(12, seed + 1)
    for case in cases:
        scenario = case.scenario()
        ids = scenario.workload.batch_size * sum(f.count * f.ids_per_sample for f in scenario.model.features)
        assert ids <= IDS_PER_BATCH_MAX
        assert math.isfinite(ids)
