"""Sparse optimizers: how rows and their state change by gradients, as PyTorch's and fbgemm's optimizers do it.

Shapes: n keys of a request, C rows of a chunk of them, D dimensions.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from persia.embedding.rows import ADAGRAD_EPSILON, ADAM_BETA_1, ADAM_BETA_2, adagrad_row, adam_row, sgd_row, sum_of_squares
from persia.embedding.spec import OPTIMIZERS

SGD: Final = OPTIMIZERS.index("sgd")
ADAGRAD: Final = OPTIMIZERS.index("adagrad")
ROWWISE_ADAGRAD: Final = OPTIMIZERS.index("rowwise-adagrad")


class Rates(NamedTuple):
    """What an optimizer multiplies by in one update: the learning rate, and Adam's with its bias corrected."""

    learning_rate: np.float32
    adam_rate: np.float32


def rates(learning_rate: float, step: int) -> Rates:
    """Return the rates of a table's `step`-th update, counted from 1 (torch.optim.SparseAdam: lr sqrt(1 - b2^t) / (1 - b1^t))."""
    corrected = learning_rate * sqrt(1.0 - ADAM_BETA_2**step) / (1.0 - ADAM_BETA_1**step)
    return Rates(np.float32(learning_rate), np.float32(corrected))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def rowwise_rate(state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> Any:
    """Add a gradient's mean square to a row's sum and return the row's own rate (fbgemm's EXACT_ROWWISE_ADAGRAD)."""
    total = state[own] + sum_of_squares(gradients, at, dim) / np.float32(dim)
    state[own] = total
    return rate / (np.sqrt(total) + np.float32(ADAGRAD_EPSILON))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_chunk(values: Any, state: Any, shape: Any, rate: Any, found: Any, positions: Any, first: Any, gradients: Any) -> None:
    """Change the rows in slots `found` i64[C] (-1: none) by the gradients of the request's keys from `first` on."""
    dim, optimizer = shape.dim, shape.optimizer
    row_values, row_floats, state_start = shape.row_values, shape.row_floats, shape.state_start
    learning_rate, adam_rate = rate.learning_rate, rate.adam_rate
    for i in range(found.shape[0]):
        slot = found[i]
        if slot < 0:
            continue
        at = (positions[first + i] if positions.shape[0] else first + i) * dim
        start, own = slot * row_values, slot * row_floats + state_start
        if optimizer == ADAGRAD:
            adagrad_row(values, start, state, own, gradients, at, dim, learning_rate)
        elif optimizer == SGD:
            sgd_row(values, start, gradients, at, dim, learning_rate)
        elif optimizer == ROWWISE_ADAGRAD:
            sgd_row(values, start, gradients, at, dim, rowwise_rate(state, own, gradients, at, dim, learning_rate))
        else:
            adam_row(values, start, state, own, gradients, at, dim, adam_rate)
