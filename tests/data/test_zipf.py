"""IDs by Zipf's law: the right frequencies in head and tail, up to 30 billion rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from persia.data.zipf import HEAD_ROWS, make_zipf

DRAWS = 400_000


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def probabilities(rows: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, rows + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.05, 2.0, 10.0])
@pytest.mark.parametrize("rows", [1, 2, 7, 1000, 3 * HEAD_ROWS])
def test_frequencies_follow_the_law(rows: int, exponent: float) -> None:
    ids = make_zipf(rows, exponent).draw(generator(), DRAWS)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < rows
    # Classes of IDs, finer where more is drawn, with a class border at the end of the head.
    edges = np.unique([0, 1, 2, 3, 5, 10, 30, 100, 1000, HEAD_ROWS - 1, HEAD_ROWS, HEAD_ROWS + 1, 2 * HEAD_ROWS, rows])
    edges = edges[edges <= rows]
    expected = np.add.reduceat(probabilities(rows, exponent), edges[:-1])
    found = np.histogram(ids, edges)[0] / DRAWS
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(found - expected) <= 5 * deviation + 1e-12).all()


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.05])
def test_thirty_billion_rows(exponent: float) -> None:
    rows = 30_000_000_000
    ids = make_zipf(rows, exponent).draw(generator(), DRAWS)
    assert ids.min() >= 0
    assert ids.max() < rows
    # P(id < n) from the integral of the law, exact enough from a thousand on.
    for bound in (10**3, 10**6, 10**9):
        head = (np.arange(1, 1001, dtype=np.float64) ** -exponent).sum()
        tail = [_integral(1000.5, end + 0.5, exponent) for end in (bound, rows)]
        expected = (head + tail[0]) / (head + tail[1])
        assert (ids < bound).mean() == pytest.approx(expected, abs=5 * np.sqrt(0.25 / DRAWS))


def _integral(low: float, high: float, exponent: float) -> float:
    return float(np.log(high / low)) if exponent == 1 else (high ** (1 - exponent) - low ** (1 - exponent)) / (1 - exponent)


def test_the_same_numbers_give_the_same_ids() -> None:
    first, second = (make_zipf(10**6, 1.05).draw(generator(7), 1000) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(make_zipf(10**6, 1.05).draw(generator(), 0)) == 0
