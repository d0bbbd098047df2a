"""AUC and log-loss against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from persia.dense.quality import auc, logloss


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
def test_auc_is_the_share_of_pairs_in_order(samples: list[tuple[bool, int]]) -> None:
    positives = [score for label, score in samples if label]
    negatives = [score for label, score in samples if not label]
    labels, scores = np.array([label for label, _ in samples], np.float32), np.array([score / 7 for _, score in samples], np.float32)
    if not positives or not negatives:
        with pytest.raises(ValueError, match="both classes"):
            auc(labels, scores)
        return
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert auc(labels, scores) == pytest.approx(won / (len(positives) * len(negatives)), abs=1e-12)


def test_auc_of_many_samples() -> None:
    labels = np.repeat([0, 1], 500_000)
    assert auc(labels, labels) == 1.0
    assert auc(labels, -labels) == 0.0
    assert auc(labels, np.zeros(1_000_000)) == 0.5


def test_logloss_of_known_probabilities() -> None:
    assert logloss([1, 0], [0.8, 0.4]) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert logloss([1, 0], [1.0, 0.0]) == 0.0
    assert math.isfinite(logloss([1, 0], [0.0, 1.0]))


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0], [0.1, 0.2], "one value a label"),
        ([0, 1], [0.1, math.nan], "NaN"),
        ([[0]], [[0.1]], "dimension"),
    ],
)
def test_what_has_no_quality_is_refused(labels: list[int], values: list[float], message: str) -> None:
    for measure in (auc, logloss):
        with pytest.raises(ValueError, match=message):
            measure(labels, values)


def test_logloss_wants_probabilities() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        logloss([1], [1.5])
    with pytest.raises(ValueError, match="at least one sample"):
        logloss([], [])
