"""Zipf sums against all ranks one by one, row staleness against drawn batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.popularity import HEAD, Popularity, mixed_row_staleness


def all_probabilities(rows: int, zipf: float) -> np.ndarray:
    """Every rank's probability."""
    mass = np.arange(1.0, rows + 1.0) ** -zipf
    probabilities: np.ndarray = mass / mass.sum()
    return probabilities


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300_000), zipf=st.floats(0.0, 2.5), draws=st.floats(0.0, 1e6))
def test_unique_ids_equal_the_sum_over_all_ranks(rows: int, zipf: float, draws: float) -> None:
    probabilities = all_probabilities(rows, zipf)
    if rows == 1:
        expected = float(draws > 0)
    else:
        expected = float(np.sum(-np.expm1(draws * np.log1p(-probabilities))))
    assert Popularity(rows=rows, zipf=zipf).expected_unique(draws) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("zipf", [0.0, 0.8, 1.0, 1.05, 1.2, 2.0])
def test_the_tail_is_continuous_at_a_trillion_rows(zipf: float) -> None:
    popularity = Popularity(rows=10**12, zipf=zipf)
    rows, touched = popularity.touch_probability(1.0)
    assert rows.sum() == pytest.approx(1e12, rel=1e-12)
    assert rows @ touched == pytest.approx(1.0, rel=1e-9)
    assert touched[HEAD] == pytest.approx(touched[HEAD - 1], rel=0.02)
    assert popularity.expected_unique(2048.0) + popularity.duplicates(2048.0) == pytest.approx(2048.0)


def test_unique_ids_equal_a_drawn_batch() -> None:
    rng = np.random.default_rng(0)
    probabilities = all_probabilities(50_000, 1.05)
    counts = [len(np.unique(rng.choice(50_000, size=4096, p=probabilities))) for _ in range(60)]
    mean, error = np.mean(counts), np.std(counts) / np.sqrt(60)
    assert abs(mean - Popularity(rows=50_000, zipf=1.05).expected_unique(4096.0)) < 3 * error


def test_uniform_rows_have_the_coupon_collectors_count() -> None:
    assert Popularity(rows=1000, zipf=0.0).expected_unique(1000.0) == pytest.approx(1000 * (1 - 0.999**1000))


@pytest.mark.parametrize(("rows", "zipf"), [(0, 1.0), (10, -0.1), (10, float("nan")), (10, float("inf"))])
def test_impossible_laws_are_refused(rows: int, zipf: float) -> None:
    with pytest.raises(ValueError, match="Zipf law needs"):
        Popularity(rows=rows, zipf=zipf)


def drawn_row_staleness(rows: int, zipf: float, draws: int, versions: list[int], rounds: int) -> dict[int, float]:
    """Draw a batch and V others, count for each of its rows how many of the others hold it."""
    rng = np.random.default_rng(1)
    probabilities = all_probabilities(rows, zipf)
    counts = np.zeros(max(versions) + 1)
    for _ in range(rounds):
        for version in versions:
            own = np.unique(rng.choice(rows, size=draws, p=probabilities))
            touched = np.zeros(rows, dtype=np.int64)
            for _ in range(version):
                touched[np.unique(rng.choice(rows, size=draws, p=probabilities))] += 1
            counts += np.bincount(touched[own], minlength=len(counts))
    return {value: count / counts.sum() for value, count in enumerate(counts)}


@pytest.mark.parametrize(("rows", "zipf", "draws"), [(300, 0.0, 40), (2000, 1.05, 200), (500, 1.5, 100)])
def test_row_staleness_equals_drawn_batches(rows: int, zipf: float, draws: int) -> None:
    versions = [0, 3, 7, 7, 30]
    drawn = drawn_row_staleness(rows, zipf, draws, versions, rounds=250)
    histogram = {version: float(versions.count(version)) for version in set(versions)}
    predicted = Popularity(rows=rows, zipf=zipf).row_staleness(histogram, float(draws))
    distance = sum(abs(mass - predicted.get(value, 0.0)) for value, mass in drawn.items()) / 2
    assert distance < 0.012
    mean = sum(value * mass for value, mass in drawn.items())
    assert sum(value * mass for value, mass in predicted.items()) == pytest.approx(mean, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 10**11),
    zipf=st.floats(0.0, 1.6),
    draws=st.floats(1.0, 1e5),
    histogram=st.dictionaries(st.integers(0, 200), st.floats(0.1, 10.0), min_size=1, max_size=12),
)
def test_row_staleness_has_its_exact_mean_and_all_its_mass(rows: int, zipf: float, draws: float, histogram: dict[int, float]) -> None:
    popularity = Popularity(rows=rows, zipf=zipf)
    predicted = popularity.row_staleness(histogram, draws)
    count, touched = popularity.touch_probability(draws)
    version_mean = sum(v * w for v, w in histogram.items()) / sum(histogram.values())
    expected = version_mean * float(count @ touched**2) / float(count @ touched)
    assert sum(predicted.values()) == pytest.approx(1.0, abs=1e-8)
    assert sum(value * mass for value, mass in predicted.items()) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_row_that_every_batch_touches_is_as_stale_as_the_batch() -> None:
    assert Popularity(rows=1, zipf=1.0).row_staleness({4: 3.0, 9: 1.0}, 8.0) == pytest.approx({4: 0.75, 9: 0.25})


def test_features_mix_by_the_rows_they_touch() -> None:
    """One hot row beside a multitude of cold ones of which a batch touches 32: 1 of 33 records is fully stale."""
    cold = Popularity(rows=10**9, zipf=0.0)
    mixed = mixed_row_staleness({5: 1.0}, [(Popularity(rows=1, zipf=0.0), 4.0, 1.0), (cold, 16.0, 2.0)])
    assert (mixed[0], mixed[5]) == pytest.approx((32 / 33, 1 / 33), abs=1e-5)


@pytest.mark.parametrize("histogram", [{}, {-1: 1.0}, {3: 0.0}])
def test_staleness_that_says_nothing_is_refused(histogram: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Popularity(rows=10, zipf=1.0).row_staleness(histogram, 4.0)
