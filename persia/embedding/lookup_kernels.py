"""Kernels that read rows: lookups for training, which insert and evict, and for evaluation, which change nothing.

A lookup goes over its keys a chunk at a time, and over each chunk four times: ask for the buckets, ask for the keys and
links, ask for the neighbours and values, and only then work.  So most cache misses of a chunk are waited for together.

Shapes: n keys, D dimensions; `positions` i64[m] picks the keys that concern this table, all of them where it is empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from persia.embedding.hashing import S32, admitted, probe_hash, write_initial
from persia.embedding.index_kernels import candidate, find, home_bucket, insert, link_before, remove, touch, unlink
from persia.embedding.layout import (
    DIRTY,
    DRAWS,
    EMPTY,
    EVICTIONS,
    HITS,
    HOLES,
    MISSES,
    NOT_ADMITTED,
    USED,
)
from persia.embedding.machine import fence, prefetch
from persia.embedding.rows import copy_row

LOOKUP_CHUNK = 64
LINE_FLOATS = 16  # a cache line's


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def prefetch_row(state: Any, start: Any, floats: Any) -> None:
    """Ask for `floats` 4-byte words of a row from `start`."""
    for word in range(0, floats, LINE_FLOATS):
        prefetch(state, start + word)
    prefetch(state, start + floats - 1)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def find_chunk(hashes: Any, slots: Any, keys: Any, positions: Any, start: Any, tags: Any, found: Any) -> None:
    """Write the tags and the likely slots (-1: none) of as many keys as `tags` holds, and ask for the slots' keys and links."""
    buckets = hashes.shape[0]
    for i in range(tags.shape[0]):
        position = positions[start + i] if positions.shape[0] else start + i
        tag = probe_hash(keys[position]) >> S32
        tags[i] = tag
        prefetch(hashes, home_bucket(tag, buckets))
    for i in range(tags.shape[0]):
        slot = candidate(hashes, tags[i])
        found[i] = slot
        if slot >= 0:
            prefetch(slots, 2 * slot)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def vacate(memory: Any, shape: Any) -> Any:
    """Return a slot without a row, off the list: a hole, else one never used, else the oldest row's, which is evicted."""
    header, slots, links = memory.header, memory.slots, memory.links
    sentinel = shape.capacity
    if header[HOLES] > 0:
        slot = np.int64(links[4 * sentinel + 3])
        unlink(links, slot)
        header[HOLES] -= 1
        return slot
    slot = header[USED]
    if slot < shape.capacity:
        slots[2 * slot] = EMPTY
        fence()
        header[USED] = slot + 1
        return slot
    slot = np.int64(links[4 * sentinel + 3])
    unlink(links, slot)
    remove(memory.hashes, probe_hash(slots[2 * slot]) >> S32, slot)
    header[EVICTIONS] += 1
    return slot


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def add_row(memory: Any, shape: Any, key: Any, tag: Any) -> Any:
    """Return the slot of a new, newest row for a key that has none; values and state are what the slot held before.

    The slot has no key yet: write the row, a fence, and then `slots[2 * slot] = key`.  So a row is never torn.
    """
    slot = vacate(memory, shape)
    memory.slots[2 * slot] = EMPTY
    insert(memory.hashes, tag, slot)
    link_before(memory.links, slot, np.int64(shape.capacity))
    fence()
    return slot


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def insert_initial(memory: Any, shape: Any, key: Any, tag: Any) -> Any:
    """Insert a key with its initial values and zero state and return its slot."""
    slot = add_row(memory, shape, key, tag)
    write_initial(shape.seed, key, shape.init_bound, shape.dim, memory.values, slot * shape.row_values)
    start = slot * shape.row_floats + shape.state_start
    for column in range(shape.state_dim):
        memory.state[start + column] = np.float32(0.0)
    fence()
    memory.slots[2 * slot] = key
    return slot


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def admit(memory: Any, shape: Any, key: Any) -> Any:
    """Return whether an unknown key may be inserted; counts the draw."""
    header = memory.header
    header[MISSES] += 1
    if key == EMPTY:  # nobody's key: it must not be entered
        header[NOT_ADMITTED] += 1
        return False
    if shape.always_admit:
        return True
    draw = header[DRAWS]
    header[DRAWS] = draw + 1
    if admitted(shape.seed, key, np.uint64(draw), shape.admission):
        return True
    header[NOT_ADMITTED] += 1
    return False


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def prefetch_neighbours(links: Any, state: Any, row_floats: Any, value_floats: Any, found: Any) -> None:
    """Ask for what moving the found slots in the list will touch, and for their values."""
    for i in range(found.shape[0]):
        slot = found[i]
        if slot >= 0:
            prefetch(links, 4 * np.int64(links[4 * slot + 2]))
            prefetch(links, 4 * np.int64(links[4 * slot + 3]))
            prefetch_row(state, slot * row_floats, value_floats)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def lookup(memory: Any, shape: Any, keys: Any, positions: Any, out: Any) -> None:
    """Write the values of keys u64[n] to `out` f32[n D]; unknown ones are inserted, known ones become the newest."""
    header, hashes, slots, links = memory.header, memory.hashes, memory.slots, memory.links
    values, dim, row_values, sentinel = memory.values, shape.dim, shape.row_values, np.int64(shape.capacity)
    header[DIRTY] = 1
    fence()
    tags, found = np.empty(LOOKUP_CHUNK, np.uint64), np.empty(LOOKUP_CHUNK, np.int64)
    refused = np.empty(shape.dim, memory.values.dtype)
    count = positions.shape[0] if positions.shape[0] else keys.shape[0]
    hits = 0
    for start in range(0, count, LOOKUP_CHUNK):
        size = min(LOOKUP_CHUNK, count - start)
        find_chunk(hashes, slots, keys, positions, start, tags[:size], found[:size])
        prefetch_neighbours(links, memory.state, shape.row_floats, shape.state_start, found[:size])
        for i in range(size):
            position = positions[start + i] if positions.shape[0] else start + i
            key, slot = keys[position], found[i]
            # Rows inserted and evicted since the chunk was probed: look again wherever the key is not in its place.
            if slot < 0 or slots[2 * slot] != key:
                slot = find(hashes, slots, tags[i], key)
            if slot >= 0:
                hits += 1
                touch(links, slot, sentinel)
            elif admit(memory, shape, key):
                slot = insert_initial(memory, shape, key, tags[i])
            if slot >= 0:
                copy_row(values, slot * row_values, out, position * dim, dim)
            else:
                write_initial(shape.seed, key, shape.init_bound, shape.dim, refused, 0)
                copy_row(refused, 0, out, position * dim, dim)
    header[HITS] += hits
    fence()
    header[DIRTY] = 0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def peek(memory: Any, shape: Any, keys: Any, positions: Any, out: Any) -> None:
    """Write the values of keys u64[n] to `out` f32[n D], zeros for unknown ones; the table does not change."""
    hashes, slots, values, state = memory.hashes, memory.slots, memory.values, memory.state
    dim, row_values = shape.dim, shape.row_values
    tags, found = np.empty(LOOKUP_CHUNK, np.uint64), np.empty(LOOKUP_CHUNK, np.int64)
    count = positions.shape[0] if positions.shape[0] else keys.shape[0]
    for start in range(0, count, LOOKUP_CHUNK):
        size = min(LOOKUP_CHUNK, count - start)
        find_chunk(hashes, slots, keys, positions, start, tags[:size], found[:size])
        for i in range(size):
            if found[i] >= 0:
                prefetch_row(state, found[i] * shape.row_floats, shape.state_start)
        for i in range(size):
            position = positions[start + i] if positions.shape[0] else start + i
            key, slot = keys[position], found[i]
            if slot >= 0 and slots[2 * slot] != key:
                slot = find(hashes, slots, tags[i], key)
            if slot >= 0:
                copy_row(values, slot * row_values, out, position * dim, dim)
            else:
                for column in range(dim):
                    out[position * dim + column] = np.float32(0.0)
