"""A table against a plain dictionary model, eviction order included, over any sequence of requests."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from hypothesis import given, settings
from hypothesis import strategies as st

from persia.embedding.hashing import initial_rows
from persia.embedding.spec import TableSpec
from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import check, spec_of, u64

DIM = 3
RATE, EPSILON = np.float32(0.5), np.float32(1e-10)

Request = tuple[str, list[int]]

keys = st.lists(st.integers(0, 9), max_size=12)
requests = st.lists(st.tuples(st.sampled_from(["lookup", "peek", "update", "repeat", "forget", "reload", "attach"]), keys), max_size=30)


class Model:
    """Rows in a dictionary, oldest first; updates that were seen, by number."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.rows: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self.counters = {"hits": 0, "misses": 0, "evictions": 0, "gradient_id_misses": 0, "not_admitted": 0}

    def lookup(self, keys: list[int]) -> Any:
        found = []
        for key in keys:
            self.counters["hits" if key in self.rows else "misses"] += 1
            if key not in self.rows:
                if len(self.rows) == self.spec.capacity_rows:
                    self.rows.popitem(last=False)
                    self.counters["evictions"] += 1
                self.rows[key] = (initial_rows(u64(key), self.spec)[0], np.zeros(DIM, np.float32))
            self.rows.move_to_end(key)
            found.append(self.rows[key][0])
        return np.array(found, np.float32).reshape(len(keys), DIM)

    def peek(self, keys: list[int]) -> Any:
        zeros = np.zeros(DIM, np.float32)
        return np.array([self.rows[key][0] if key in self.rows else zeros for key in keys], np.float32).reshape(len(keys), DIM)

    def update(self, keys: list[int], gradients: Any) -> None:
        for key, gradient in zip(keys, gradients, strict=True):
            if key not in self.rows:
                self.counters["gradient_id_misses"] += 1
                continue
            row, total = self.rows[key]
            total = total + gradient * gradient
            self.rows[key] = (row - RATE * (gradient / (np.sqrt(total) + EPSILON)), total)


def gradients_of(number: int, keys: list[int]) -> Any:
    return np.random.default_rng(number).normal(size=(len(keys), DIM)).astype(np.float32)


def carry_out(table: EmbeddingTable, model: Model, kind: str, keys: list[int], seen: list[list[int]]) -> None:
    out = np.empty((len(keys), DIM), np.float32)
    if kind == "lookup":
        table.lookup(u64(*keys), out)
        assert (out == model.lookup(keys)).all()
    elif kind == "peek":
        table.peek(u64(*keys), out)
        assert (out == model.peek(keys)).all()
    elif kind == "update":
        model.update(keys, gradients_of(len(seen), keys))
        table.update(u64(*keys), gradients_of(len(seen), keys), number=len(seen))
        seen.append(keys)
    elif kind == "repeat" and table.pending():
        number = table.pending()[-1]
        table.update(u64(*seen[number]), gradients_of(number, seen[number]), number=number)
    elif kind == "forget" and table.pending():
        table.forget(table.pending()[0])
    elif kind == "reload":
        table.load(table.export())


def same(table: EmbeddingTable, model: Model) -> None:
    rows = table.export()
    assert rows.keys.tolist() == list(model.rows)
    assert (rows.values == np.array([row for row, _ in model.rows.values()], np.float32).reshape(-1, DIM)).all()
    assert (rows.state == np.array([total for _, total in model.rows.values()], np.float32).reshape(-1, DIM)).all()
    assert table.counters == model.counters
    assert table.rows == len(model.rows)
    check(table)


def run(capacity_rows: int, steps: list[Request], folder: Path | None) -> None:
    spec = spec_of(dim=DIM, capacity_rows=capacity_rows, learning_rate=0.5, init_bound=1.0)
    table, model, seen = EmbeddingTable.create(spec, folder), Model(spec), list[list[int]]()
    try:
        for kind, keys in steps:
            if kind == "attach" and folder is not None:
                pending = table.pending()
                table.close()
                table = EmbeddingTable.attach(folder)
                assert table.pending() == pending
            else:
                carry_out(table, model, kind, keys, seen)
        same(table, model)
    finally:
        table.close()


@given(capacity_rows=st.integers(1, 6), steps=requests)
@settings(max_examples=150, deadline=None)
def test_private_table_is_its_model(capacity_rows: int, steps: list[Request]) -> None:
    run(capacity_rows, steps, None)


@given(capacity_rows=st.integers(1, 6), steps=requests)
@settings(max_examples=60, deadline=None)
def test_mapped_table_is_its_model(capacity_rows: int, steps: list[Request]) -> None:
    with TemporaryDirectory() as folder:
        run(capacity_rows, steps, Path(folder))


def test_large_requests_with_repeats_missing_and_evicted_keys() -> None:
    """Chunks of kernels are longer than the requests that hypothesis draws."""
    spec = spec_of(dim=DIM, capacity_rows=300, learning_rate=0.5, init_bound=1.0)
    table, model, draws = EmbeddingTable.create(spec, None), Model(spec), np.random.default_rng(5)
    seen: list[list[int]] = []
    for _ in range(12):
        carry_out(table, model, "lookup", draws.integers(0, 600, 700).tolist(), seen)
        carry_out(table, model, "update", draws.integers(0, 600, 700).tolist(), seen)
    same(table, model)
    table.close()
