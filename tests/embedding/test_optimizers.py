"""Optimizers against PyTorch's, on sequences of updates of random rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("torch")

import torch

from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import peeked, spec_of

ROWS, STEPS = 40, 25


def trained(optimizer: Any, dim: int, gradients: list[tuple[Any, Any]], **changes: Any) -> tuple[Any, Any]:
    """Rows before and after updates, by the table."""
    with EmbeddingTable.create(spec_of(optimizer=optimizer, dim=dim, capacity_rows=ROWS, learning_rate=0.05, **changes), None) as table:
        before = np.empty((ROWS, dim), np.float32)
        table.lookup(np.arange(ROWS, dtype=np.uint64), before)
        for number, (keys, gradient) in enumerate(gradients):
            table.update(keys, gradient, number=number)
        return before, peeked(table, *range(ROWS))


def sequence(dim: int) -> list[tuple[Any, Any]]:
    draws = np.random.default_rng(dim)
    keys = [draws.permutation(ROWS)[: draws.integers(1, ROWS)].astype(np.uint64) for _ in range(STEPS)]
    return [(key, draws.normal(size=(len(key), dim)).astype(np.float32)) for key in keys]


@pytest.mark.parametrize("dim", [1, 7, 16, 40])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_same_as_torch(optimizer: str, dim: int) -> None:
    gradients = sequence(dim)
    before, after = trained(optimizer, dim, gradients)
    weight = torch.nn.Parameter(torch.from_numpy(before.copy()))
    kinds = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.SparseAdam}
    peer = kinds[optimizer]([weight], lr=0.05)
    for keys, gradient in gradients:
        rows = torch.from_numpy(keys.astype(np.int64))[None]
        with torch.sparse.check_sparse_tensor_invariants():
            weight.grad = torch.sparse_coo_tensor(rows, torch.from_numpy(gradient), weight.shape)
            peer.step()
    assert after == pytest.approx(weight.detach().numpy(), rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("dim", [1, 7, 16, 40])
def test_row_wise_adagrad_is_the_mean_square(dim: int) -> None:
    gradients = sequence(dim)
    before, after = trained("rowwise-adagrad", dim, gradients)
    rows, total = before.astype(np.float64), np.zeros(ROWS)
    for keys, gradient in gradients:
        total[keys] += np.square(gradient, dtype=np.float64).mean(axis=1)
        rows[keys] -= 0.05 * gradient / (np.sqrt(total[keys]) + 1e-10)[:, None]
    assert after == pytest.approx(rows, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise-adagrad", "adam"])
def test_half_precision_rows_stay_near(optimizer: str) -> None:
    gradients = sequence(7)
    _, whole = trained(optimizer, 7, gradients)
    _, half = trained(optimizer, 7, gradients, bytes_per_parameter=2)
    assert half == pytest.approx(whole, abs=STEPS * 2.0**-11)
    assert (half == half.astype(np.float16)).all()
