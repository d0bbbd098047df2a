"""What tests of tables share: a spec in one line, and whether index, list and keys of a table agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from persia.embedding.hashing import S32, probe_hash
from persia.embedding.index_kernels import find
from persia.embedding.layout import DIRTY, EMPTY, HOLES, UNDO_ENTRY, USED
from persia.embedding.spec import TableSpec
from persia.embedding.table import EmbeddingTable


def spec_of(**changes: Any) -> TableSpec:
    values: dict[str, Any] = {"name": "t", "dim": 4, "optimizer": "adagrad", "learning_rate": 0.1, "capacity_rows": 8, "seed": 1}
    return TableSpec(**values | changes)


def u64(*keys: int) -> npt.NDArray[np.uint64]:
    return np.array(keys, np.uint64)


def looked_up(table: Any, *keys: int) -> npt.NDArray[np.float32]:
    out = np.full((len(keys), table.spec.dim), np.nan, np.float32)
    table.lookup(u64(*keys), out)
    return out


def peeked(table: Any, *keys: int) -> npt.NDArray[np.float32]:
    out = np.full((len(keys), table.spec.dim), np.nan, np.float32)
    table.peek(u64(*keys), out)
    return out


def ones(table: Any, count: int) -> npt.NDArray[np.float32]:
    return np.ones((count, table.spec.dim), np.float32)


def check(table: EmbeddingTable) -> None:
    """Assert that every row is in the index once and in the list once, and that nothing else is."""
    memory, capacity = table._memory, table.spec.capacity_rows
    used = int(memory.header[USED])
    assert memory.header[DIRTY] == 0
    assert memory.header[UNDO_ENTRY] == 0
    links = memory.links.reshape(-1, 4)
    walked, slot = [], int(links[capacity, 3])
    while slot != capacity:
        assert len(walked) < used
        assert links[links[slot, 3], 2] == slot
        walked.append(slot)
        slot = int(links[slot, 3])
    assert sorted(walked) == list(range(used))
    keys = memory.slots.reshape(-1, 2)[walked, 0]
    holes = int(memory.header[HOLES])
    assert (keys[:holes] == EMPTY).all()
    assert (keys[holes:] != EMPTY).all()
    assert len(set(keys[holes:].tolist())) == used - holes
    assert np.count_nonzero(memory.hashes) == used - holes
    for slot, key in zip(walked[holes:], keys[holes:], strict=True):
        assert find(memory.hashes, memory.slots, np.uint64(probe_hash(key)) >> S32, key) == slot
