"""Pooling of rows into one vector per bag, and its reverse for gradients; kernels of the embedding worker.

Shapes: U unique rows, D columns, F features, B samples, N occurrences of ids; `inverse` int32[N] and `offsets`
int32[F * B + 1] are those of a plan and its batch, already checked.

    pooling   a bag of n ids gives      an empty bag
    sum       the sum of its rows       zeros
    mean      the sum / n               zeros
    sqrtn     the sum / sqrt(n)         zeros
    raw       its rows, one by one      nothing

An id that occurs twice in a bag counts twice.  Sums are taken in the order of occurrence, so that results do not change
from run to run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from persia.embedding import vectors
from persia.embedding.operands import Array, readable, writable

_CODES = {"sum": 0, "mean": 1, "sqrtn": 2}
_MEAN, _SQRTN = 1, 2

_WIDE, _NARROW, _TINY = vectors.WIDE, vectors.NARROW, vectors.TINY
_sum_wide, _sum_narrow, _sum_tiny = vectors.sum_wide, vectors.sum_narrow, vectors.sum_tiny
_add_wide, _add_narrow, _add_tiny = vectors.add_wide, vectors.add_narrow, vectors.add_tiny


def pool(
    rows: Array, inverse: Array, offsets: Array, *, features: int, batch: int, pooling: str, out: Array | None = None
) -> npt.NDArray[np.float32]:
    """Pool each bag's rows into one vector.

    Args:
        rows: float32[U, D], the unique rows in the order of the plan's keys.
        inverse: int32[N], occurrence -> row.
        offsets: int32[F * B + 1].
        features: F.
        batch: B.
        pooling: "sum", "mean" or "sqrtn".
        out: float32[B, F, D] to write to; by default a new array.

    Returns:
        The output.

    Raises:
        ValueError: Unknown pooling, or a wrong type or shape.
    """
    code = _code(pooling)
    bags, places = _bags(offsets, inverse, features * batch)
    values = readable("rows", rows, (np.float32,), (None, None))
    pooled = writable("out", out, np.float32, (batch, features, values.shape[1]))
    _pool(values.reshape(-1), places, bags, code, pooled)
    return pooled


def unpool(
    gradients: Array, inverse: Array, offsets: Array, *, pooling: str, scale: float, unique: int, out: Array | None = None
) -> npt.NDArray[np.float32]:
    """Sum the gradients of pooled vectors into gradients of unique rows.

    Args:
        gradients: float32[B, F, D].
        inverse: int32[N], occurrence -> row.
        offsets: int32[F * B + 1].
        pooling: "sum", "mean" or "sqrtn".
        scale: Factor on everything, such as 1 / ranks.
        unique: U, the number of rows.
        out: float32[U, D] to overwrite; by default a new array.

    Returns:
        The output.

    Raises:
        ValueError: Unknown pooling, or a wrong type or shape.
    """
    code = _code(pooling)
    values = readable("gradients", gradients, (np.float32,), (None, None, None))
    bags, places = _bags(offsets, inverse, values.shape[0] * values.shape[1])
    sums = writable("out", out, np.float32, (unique, values.shape[2]))
    _unpool(values, places, bags, code, np.float32(scale), sums)
    return sums


def gather_raw(rows: Array, inverse: Array, out: Array | None = None) -> npt.NDArray[np.float32]:
    """Return every occurrence's row: pooling "raw".

    Args:
        rows: float32[U, D].
        inverse: int32[N].
        out: float32[N, D] to write to; by default a new array.

    Raises:
        ValueError: A wrong type or shape.
    """
    values = readable("rows", rows, (np.float32,), (None, None))
    places = readable("inverse", inverse, (np.int32,), (None,))
    gathered = writable("out", out, np.float32, (places.size, values.shape[1]))
    _gather(values, places, gathered)
    return gathered


def scatter_raw(gradients: Array, inverse: Array, scale: float, unique: int, out: Array | None = None) -> npt.NDArray[np.float32]:
    """Sum the gradients of occurrences into gradients of unique rows: the reverse of `gather_raw`.

    Args:
        gradients: float32[N, D].
        inverse: int32[N].
        scale: Factor on everything.
        unique: U, the number of rows.
        out: float32[U, D] to overwrite; by default a new array.

    Raises:
        ValueError: A wrong type or shape.
    """
    places = readable("inverse", inverse, (np.int32,), (None,))
    values = readable("gradients", gradients, (np.float32,), (places.size, None))
    sums = writable("out", out, np.float32, (unique, values.shape[1]))
    _scatter(values, places, np.float32(scale), sums)
    return sums


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache."""
    inverse, offsets = np.array([0, 0, 1], np.int32), np.array([0, 2, 3], np.int32)
    rows = np.zeros((2, 4), np.float32)
    pooled = pool(rows, inverse, offsets, features=2, batch=1, pooling="mean")
    unpool(pooled, inverse, offsets, pooling="mean", scale=1.0, unique=2)
    scatter_raw(gather_raw(rows, inverse), inverse, 1.0, 2)


def _code(pooling: str) -> int:
    if pooling not in _CODES:
        raise ValueError(f"pooling {pooling!r} is none of {', '.join(_CODES)}")
    return _CODES[pooling]


def _bags(offsets: Array, inverse: Array, bags: int) -> tuple[Array, Array]:
    bounds = readable("offsets", offsets, (np.int32,), (bags + 1,))
    return bounds, readable("inverse", inverse, (np.int32,), (int(bounds[-1]),))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _factor(pooling: int, count: np.int64) -> np.float32:
    if pooling == _MEAN:
        return np.float32(1.0) / np.float32(count)
    if pooling == _SQRTN:
        return np.float32(np.float32(1.0) / np.sqrt(np.float32(count)))
    return np.float32(1.0)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _pool(rows: Array, inverse: Array, offsets: Array, pooling: int, out: Array) -> None:
    """Feature by feature, because a feature's rows fit in a core's cache."""
    batch, features, columns = out.shape
    flat = out.reshape(-1)
    for feature in range(features):
        for sample in range(batch):
            bag = feature * batch + sample
            start, stop = np.int64(offsets[bag]), np.int64(offsets[bag + 1])
            base = (sample * features + feature) * columns
            if start == stop:
                flat[base : base + columns] = np.float32(0.0)
                continue
            factor = _factor(pooling, stop - start)
            column = 0
            while column + _WIDE <= columns:
                _sum_wide(rows, inverse, start, stop, columns, column, factor, flat, base + column)
                column += _WIDE
            while column + _NARROW <= columns:
                _sum_narrow(rows, inverse, start, stop, columns, column, factor, flat, base + column)
                column += _NARROW
            while column + _TINY <= columns:
                _sum_tiny(rows, inverse, start, stop, columns, column, factor, flat, base + column)
                column += _TINY
            while column < columns:
                total = np.float32(0.0)
                for occurrence in range(start, stop):
                    total += rows[inverse[occurrence] * columns + column]
                flat[base + column] = total * factor
                column += 1


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _unpool(gradients: Array, inverse: Array, offsets: Array, pooling: int, scale: np.float32, out: Array) -> None:
    batch, features, columns = gradients.shape
    source, flat = gradients.reshape(-1), out.reshape(-1)
    flat[:] = np.float32(0.0)
    for feature in range(features):
        for sample in range(batch):
            bag = feature * batch + sample
            start, stop = np.int64(offsets[bag]), np.int64(offsets[bag + 1])
            if start == stop:
                continue
            base = (sample * features + feature) * columns
            factor = scale * _factor(pooling, stop - start)
            column = 0
            while column + _WIDE <= columns:
                _add_wide(source, base + column, factor, inverse, start, stop, columns, column, flat)
                column += _WIDE
            while column + _NARROW <= columns:
                _add_narrow(source, base + column, factor, inverse, start, stop, columns, column, flat)
                column += _NARROW
            while column + _TINY <= columns:
                _add_tiny(source, base + column, factor, inverse, start, stop, columns, column, flat)
                column += _TINY
            while column < columns:
                value = source[base + column] * factor
                for occurrence in range(start, stop):
                    flat[inverse[occurrence] * columns + column] += value
                column += 1


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _gather(rows: Array, inverse: Array, out: Array) -> None:
    for occurrence in range(inverse.size):
        row = inverse[occurrence]
        for column in range(rows.shape[1]):
            out[occurrence, column] = rows[row, column]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _scatter(gradients: Array, inverse: Array, scale: np.float32, out: Array) -> None:
    out[:, :] = np.float32(0.0)
    for occurrence in range(inverse.size):
        row = inverse[occurrence]
        for column in range(gradients.shape[1]):
            out[row, column] += scale * gradients[occurrence, column]
