"""Kills a process that hammers a table, again and again, and compares what it leaves with a model; a program of its own.

`python -m tests.embedding.kill_rounds FOLDER ROUNDS KEYS CAPACITY BYTES_PER_PARAMETER` prints how often a kill fell into a
lookup and into a marked chunk.  It forks, which is safe only in a program without threads.

Request i looks up keys and updates them, both drawn from i alone; the last two updates stay in the journal.  After a kill
during request i all of lookup i or a part of it happened, and any number of chunks of update i.  The update is then asked for
again, as a client would, and every row must be what the model says, or what lookup i + 1 can have made of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from persia.embedding.hashing import initial_rows
from persia.embedding.layout import DIRTY, UNDO_ENTRY
from persia.embedding.spec import TableSpec
from persia.embedding.storage import Storage
from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import check, spec_of

DIM = 8
REQUEST_KEYS = 700


class Model:
    """Rows and state in a dictionary, oldest first, after the lookup and the update of `done` requests."""

    def __init__(self, spec: TableSpec, keys: int) -> None:
        self.spec, self.keys, self.done = spec, keys, 0
        self.rows: OrderedDict[int, Any] = OrderedDict()

    def request(self, number: int) -> tuple[Any, Any]:
        draws = np.random.default_rng(number)
        return draws.integers(0, self.keys, REQUEST_KEYS).astype(np.uint64), draws.normal(size=(REQUEST_KEYS, DIM)).astype(np.float32)

    def advance(self, requests: int) -> None:
        while self.done < requests:
            keys, gradients = self.request(self.done)
            self.lookup(keys)
            for key, gradient in zip(keys.tolist(), gradients, strict=True):
                if key in self.rows:
                    row, total = self.rows[key]
                    total = total + gradient * gradient
                    row = row - np.float32(0.1) * (gradient / (np.sqrt(total) + np.float32(1e-10)))
                    half = self.spec.bytes_per_parameter == 2
                    self.rows[key] = row.astype(np.float16).astype(np.float32) if half else row, total
            self.done += 1

    def lookup(self, keys: Any) -> None:
        initial = initial_rows(keys, self.spec)
        for key, row in zip(keys.tolist(), initial, strict=True):
            if key not in self.rows:
                if len(self.rows) == self.spec.capacity_rows:
                    self.rows.popitem(last=False)
                self.rows[key] = row, np.zeros(DIM, np.float32)
            self.rows.move_to_end(key)


def hammer(folder: Path, model: Model, start: int) -> None:
    """Carry out requests from `start` on, for ever."""
    table = EmbeddingTable.attach(folder)
    out = np.empty((REQUEST_KEYS, DIM), np.float32)
    number = start
    while True:
        keys, gradients = model.request(number)
        table.lookup(keys, out)
        table.update(keys, gradients, number=number)
        table.forget(number - 2)
        number += 1


def killed_while_hammering(folder: Path, model: Model, start: int, after_s: float) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            hammer(folder, model, start)
        os._exit(1)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child failed before it was killed"


def marks(folder: Path) -> tuple[bool, bool]:
    """Return whether the kill fell into a lookup, and into a marked chunk."""
    _, storage = Storage.attach(folder)
    found = bool(storage.memory.header[DIRTY]), bool(storage.memory.header[UNDO_ENTRY])
    storage.close()
    return found


def compare(table: EmbeddingTable, model: Model) -> None:
    """Assert that each row is the model's, or as the next request's lookup starts it, and that nothing else is missing."""
    rows = table.export()
    before = dict(model.rows)
    coming, _ = model.request(model.done)
    after = Model(model.spec, model.keys)
    after.rows = OrderedDict(model.rows)
    after.lookup(coming)
    assert len(set(rows.keys.tolist())) == len(rows.keys)
    fresh = dict(zip(coming.tolist(), initial_rows(coming, model.spec), strict=True))
    for key, row, total in zip(rows.keys.tolist(), rows.values.astype(np.float32), rows.state, strict=True):
        is_old = key in before and bool((row == before[key][0]).all()) and bool((total == before[key][1]).all())
        is_new = key in fresh and bool((row == fresh[key]).all()) and not total.any()
        assert is_old or is_new, f"row {key} is neither what its updates make of it nor new"
    present = set(rows.keys.tolist())
    lost = [key for key in before if key in after.rows and key not in present and key not in fresh]
    assert len(lost) <= 1, f"{len(lost)} rows are lost that no lookup evicted"
    assert len(rows.keys) >= min(len(before), model.spec.capacity_rows - 1)


def recover(folder: Path, model: Model) -> None:
    """Attach, ask for the last update again, compare, and go on to where the model is."""
    with EmbeddingTable.attach(folder) as table:
        check(table)
        pending = table.pending()
        model.advance(max(pending) + 1 if pending else 0)
        for number in pending:
            table.update(*model.request(number), number=number)
        compare(table, model)
        # The coming lookup may have happened in part: from here on the table itself is the model's past.
        rows = table.export()
        values = rows.values.astype(np.float32)
        model.rows = OrderedDict(zip(rows.keys.tolist(), zip(values, rows.state, strict=True), strict=True))


def warm_up(spec: TableSpec) -> None:
    """Load the compiled kernels before the first fork, so that children begin at once."""
    with EmbeddingTable.create(spec, None) as table:
        out = np.empty((1, DIM), np.float32)
        table.lookup(np.zeros(1, np.uint64), out)
        table.update(np.zeros(1, np.uint64), out, number=0)


def main() -> None:
    folder, (rounds, keys, capacity, bytes_per_parameter) = Path(sys.argv[1]), map(int, sys.argv[2:6])
    spec = spec_of(dim=DIM, capacity_rows=capacity, bytes_per_parameter=bytes_per_parameter)
    warm_up(spec)
    EmbeddingTable.create(spec, folder).close()
    model, draws = Model(spec, keys), np.random.default_rng(keys)
    in_lookup = in_chunk = 0
    for _ in range(rounds):
        killed_while_hammering(folder, model, model.done, float(draws.uniform(0.002, 0.015)))
        dirty, marked = marks(folder)
        in_lookup, in_chunk = in_lookup + dirty, in_chunk + marked
        recover(folder, model)
    print(f"{rounds} kills, {in_lookup} in a lookup, {in_chunk} in a marked chunk, {model.done} requests")


if __name__ == "__main__":
    main()
