"""Kernels that apply gradients exactly once, whichever instruction the process is killed at.

Rows change a chunk at a time.  Before, their bytes are copied aside and the chunk is marked; after, the journal entry's
progress moves on, which is one store and the moment from which the chunk counts as done.  Whoever attaches to the memory
next puts the bytes of a marked chunk back unless its progress moved.

Shapes: n keys, D dimensions; `positions` i64[m] picks the keys that concern this table, all of them where it is empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from persia.embedding.hashing import mix
from persia.embedding.index_kernels import find
from persia.embedding.layout import CHUNK_ROWS, GRADIENT_ID_MISSES, UNDO_DONE, UNDO_ENTRY, UNDO_ROWS
from persia.embedding.lookup_kernels import find_chunk, prefetch_row
from persia.embedding.machine import fence
from persia.embedding.optimizers import apply_chunk
from persia.embedding.rows import copy_row


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def digest_of(keys: Any, positions: Any) -> Any:
    """Return a checksum of keys and their order, by which a resumed update is recognised."""
    count = positions.shape[0] if positions.shape[0] else keys.shape[0]
    digest = np.uint64(count)
    for i in range(count):
        digest = (digest ^ keys[positions[i] if positions.shape[0] else i]) * np.uint64(0x9E3779B97F4A7C15)
    return mix(digest)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def settle(hashes: Any, slots: Any, keys: Any, positions: Any, start: Any, tags: Any, found: Any) -> Any:
    """Correct likely slots to true ones (-1: no such row) and return how many keys have no row."""
    missing = 0
    for i in range(found.shape[0]):
        key = keys[positions[start + i] if positions.shape[0] else start + i]
        slot = found[i]
        if slot >= 0 and slots[2 * slot] != key:
            slot = find(hashes, slots, tags[i], key)
            found[i] = slot
        if slot < 0:
            missing += 1
    return missing


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def save_rows(state: Any, width: Any, found: Any, undo_slots: Any, undo_rows: Any) -> Any:
    """Copy the rows of a chunk, `width` words each, aside; return how many there are."""
    rows = 0
    for i in range(found.shape[0]):
        slot = found[i]
        if slot >= 0:
            undo_slots[rows] = slot
            copy_row(state, slot * width, undo_rows, rows * width, width)
            rows += 1
    return rows


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def undo(memory: Any, shape: Any) -> None:
    """Put back the rows of a chunk that was marked but not done; carrying it out twice does no harm."""
    header, width = memory.header, shape.row_floats
    entry = header[UNDO_ENTRY] - 1
    if entry >= 0 and memory.entry_done[entry] == header[UNDO_DONE]:
        # The last copy first: of a row that is there twice, the first copy is the oldest.
        for row in range(header[UNDO_ROWS] - 1, -1, -1):
            copy_row(memory.undo_rows, row * width, memory.state, memory.undo_slots[row] * width, width)
    fence()
    header[UNDO_ENTRY] = 0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def update(memory: Any, shape: Any, rate: Any, entry: Any, keys: Any, positions: Any, gradients: Any) -> None:
    """Apply gradients f32[n D] to the rows of keys u64[n], from where the journal entry's progress stands."""
    header, hashes, slots, values, state = memory.header, memory.hashes, memory.slots, memory.values, memory.state
    done, undo_slots, undo_rows, width = memory.entry_done, memory.undo_slots, memory.undo_rows, shape.row_floats
    tags, found = np.empty(CHUNK_ROWS, np.uint64), np.empty(CHUNK_ROWS, np.int64)
    count = positions.shape[0] if positions.shape[0] else keys.shape[0]
    for start in range(done[entry], count, CHUNK_ROWS):
        size = min(CHUNK_ROWS, count - start)
        find_chunk(hashes, slots, keys, positions, start, tags[:size], found[:size])
        for i in range(size):
            if found[i] >= 0:
                prefetch_row(state, found[i] * width, width)
        missing = settle(hashes, slots, keys, positions, start, tags[:size], found[:size])
        if shape.journaled:
            header[UNDO_ROWS] = save_rows(state, width, found[:size], undo_slots, undo_rows)
            header[UNDO_DONE] = done[entry]
            fence()
            header[UNDO_ENTRY] = entry + 1
            fence()
        apply_chunk(values, state, shape, rate, found[:size], positions, start, gradients)
        header[GRADIENT_ID_MISSES] += missing
        fence()
        done[entry] += size
        fence()
        header[UNDO_ENTRY] = 0
