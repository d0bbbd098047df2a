"""How good predictions are: AUC and log-loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: the share of (positive, negative) pairs in which the positive scores higher.

    Exact: a pair of equal scores counts half (Mann and Whitney, 1947). Labels are 0 or 1, one a score.

    Raises:
        ValueError: Another label, sizes that differ, a score that is NaN, or only one class.
    """
    truth, values = _checked(labels, scores)
    _, rank_of, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[rank_of]  # equal scores share the mean of their ranks, which start at 1
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs both classes; got {positives} positives and {negatives} negatives")
    return float((ranks[truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def logloss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the mean binary cross-entropy in nats of probabilities of label 1, kept away from 0 and 1 by an fp64 epsilon.

    Raises:
        ValueError: A label other than 0 and 1, sizes that differ, no sample, or a value outside 0 to 1.
    """
    truth, values = _checked(labels, probabilities)
    if not len(truth) or values.min() < 0.0 or values.max() > 1.0:
        raise ValueError("log-loss needs at least one sample, and probabilities from 0 to 1")
    epsilon = np.finfo(np.float64).eps
    right = np.where(truth, values, 1.0 - values)
    return float(-np.log(np.clip(right, epsilon, 1.0)).mean())


def _checked(labels: npt.ArrayLike, values: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    truth, numbers = np.asarray(labels), np.asarray(values, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != numbers.shape:
        raise ValueError(f"labels {truth.shape} and values {numbers.shape}: one value a label, in one dimension")
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError("labels must be 0 or 1")
    if np.isnan(numbers).any():
        raise ValueError("a value is NaN")
    return truth == 1, numbers
