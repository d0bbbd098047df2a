"""The area under the ROC curve, for the best that a planted model allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def auc(labels: NDArray[np.float32], scores: NDArray[np.float64]) -> float:
    """Return the probability that a positive sample scores higher than a negative one, a tie counting half.

    Shapes: labels f32[n], 0 or 1; scores f64[n]. NaN where one of the two classes is missing.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    mean_ranks = last_ranks - (counts - 1) / 2
    rank_sum = float(mean_ranks[places[labels > 0.5]].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
