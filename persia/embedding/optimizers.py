"""Sparse optimizers: how one row and its state change by one gradient, as PyTorch's and fbgemm's optimizers do it.

Shapes: D dimensions; `gradients` is flat, a row's gradient begins at `at`; a row's values begin at `start`, its state at `own`.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from persia.embedding.machine import store_value, value_at
from persia.embedding.spec import OPTIMIZERS

SGD: Final = OPTIMIZERS.index("sgd")
ADAGRAD: Final = OPTIMIZERS.index("adagrad")
ROWWISE_ADAGRAD: Final = OPTIMIZERS.index("rowwise-adagrad")
ADAM: Final = OPTIMIZERS.index("adam")

ADAGRAD_EPSILON = np.float32(1e-10)
ADAM_EPSILON = np.float32(1e-8)
ADAM_BETA_1, ADAM_BETA_2 = 0.9, 0.999
MOMENTUM_GAIN = np.float32(1.0 - ADAM_BETA_1)
SQUARE_GAIN = np.float32(1.0 - ADAM_BETA_2)


class Rates(NamedTuple):
    """What an optimizer multiplies by in one update: the learning rate, and Adam's with its bias corrected."""

    learning_rate: np.float32
    adam_rate: np.float32


def rates(learning_rate: float, step: int) -> Rates:
    """Return the rates of a table's `step`-th update, counted from 1 (torch.optim.SparseAdam: lr sqrt(1 - b2^t) / (1 - b1^t))."""
    corrected = learning_rate * sqrt(1.0 - ADAM_BETA_2**step) / (1.0 - ADAM_BETA_1**step)
    return Rates(np.float32(learning_rate), np.float32(corrected))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_sgd(values: Any, start: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
    """Take one step of stochastic gradient descent."""
    for column in range(dim):
        store_value(values, start + column, value_at(values, start + column) - rate * gradients[at + column])


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_adagrad(values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
    """Take one step of Adagrad: each element's squares are summed first (Duchi et al. 2011; torch.optim.Adagrad)."""
    for column in range(dim):
        gradient = gradients[at + column]
        total = state[own + column] + gradient * gradient
        state[own + column] = total
        step = rate * (gradient / (np.sqrt(total) + ADAGRAD_EPSILON))
        store_value(values, start + column, value_at(values, start + column) - step)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_rowwise_adagrad(values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
    """Take one step of row-wise Adagrad: one sum a row, of the mean squared gradient (fbgemm's EXACT_ROWWISE_ADAGRAD)."""
    squares = np.float32(0.0)
    for column in range(dim):
        squares += gradients[at + column] * gradients[at + column]
    total = state[own] + squares / np.float32(dim)
    state[own] = total
    scaled = rate / (np.sqrt(total) + ADAGRAD_EPSILON)
    for column in range(dim):
        store_value(values, start + column, value_at(values, start + column) - scaled * gradients[at + column])


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_adam(values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
    """Take one step of Adam on this row alone, its moments first in the state, its squares behind (torch.optim.SparseAdam)."""
    for column in range(dim):
        gradient = gradients[at + column]
        moment = state[own + column]
        square = state[own + dim + column]
        moment += (gradient - moment) * MOMENTUM_GAIN
        square += (gradient * gradient - square) * SQUARE_GAIN
        state[own + column] = moment
        state[own + dim + column] = square
        step = rate * (moment / (np.sqrt(square) + ADAM_EPSILON))
        store_value(values, start + column, value_at(values, start + column) - step)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def apply_row(memory: Any, shape: Any, rate: Any, slot: Any, gradients: Any, at: Any) -> None:
    """Change the row in a slot by the gradient at `gradients[at : at + D]`, by the table's optimizer."""
    values, state = memory.values, memory.state
    start = slot * shape.row_values
    own = slot * shape.row_floats + shape.state_start
    if shape.optimizer == ADAGRAD:
        apply_adagrad(values, start, state, own, gradients, at, shape.dim, rate.learning_rate)
    elif shape.optimizer == SGD:
        apply_sgd(values, start, gradients, at, shape.dim, rate.learning_rate)
    elif shape.optimizer == ROWWISE_ADAGRAD:
        apply_rowwise_adagrad(values, start, state, own, gradients, at, shape.dim, rate.learning_rate)
    else:
        apply_adam(values, start, state, own, gradients, at, shape.dim, rate.adam_rate)
