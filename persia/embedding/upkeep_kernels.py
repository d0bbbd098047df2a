"""Kernels for what is rare: repair after a kill, copying all rows out, taking rows in.

Shapes: M rows, D dimensions, K floats of state, S slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from persia.embedding.hashing import S32, probe_hash
from persia.embedding.index_kernels import FREE, find, insert, link_before, touch
from persia.embedding.layout import DIRTY, EMPTY, HOLES, USED
from persia.embedding.lookup_kernels import LOOKUP_CHUNK, add_row, find_chunk, prefetch_row
from persia.embedding.machine import fence

NEXT, PREVIOUS = 3, 2  # words of a slot's links


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def clear(memory: Any, shape: Any) -> None:
    """Make the list of a new table empty: its sentinel is its own neighbour."""
    memory.links[4 * shape.capacity + PREVIOUS] = shape.capacity
    memory.links[4 * shape.capacity + NEXT] = shape.capacity


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def walk(links: Any, direction: Any, sentinel: Any, used: Any, seen: Any, order: Any) -> Any:
    """Write the slots met from the sentinel on, until one is met again or cannot be; mark them seen and return their number."""
    count = 0
    slot = np.int64(links[4 * sentinel + direction])
    while slot < used and not seen[slot]:
        seen[slot] = True
        order[count] = slot
        count += 1
        slot = np.int64(links[4 * slot + direction])
    return count


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def ages(memory: Any, shape: Any) -> Any:
    """Return all used slots, oldest first, from a list that may be broken in one place.

    What can be walked to from the old end and from the new end keeps its order; slots that neither end leads to are the
    oldest, slots without a row older still.
    """
    links, slots = memory.links, memory.slots
    used, sentinel = memory.header[USED], shape.capacity
    seen = np.zeros(used, np.bool_)
    ahead, behind, order = np.empty(used, np.int64), np.empty(used, np.int64), np.empty(used, np.int64)
    place = 0
    for slot in range(used):
        if slots[2 * slot] == EMPTY:
            order[place] = slot
            place += 1
    holes = place
    from_old = walk(links, NEXT, sentinel, used, seen, ahead)
    from_new = walk(links, PREVIOUS, sentinel, used, seen, behind)
    for slot in range(used):
        if not seen[slot] and slots[2 * slot] != EMPTY:
            order[place] = slot
            place += 1
    for i in range(from_old):
        if slots[2 * ahead[i]] != EMPTY:
            order[place] = ahead[i]
            place += 1
    for i in range(from_new - 1, -1, -1):
        if slots[2 * behind[i]] != EMPTY:
            order[place] = behind[i]
            place += 1
    return holes, order


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def repair(memory: Any, shape: Any) -> None:
    """Make index and list agree with the keys in the slots again; carrying it out twice does no harm."""
    header, slots, links = memory.header, memory.slots, memory.links
    header[DIRTY] = 1
    fence()
    holes, order = ages(memory, shape)
    clear(memory, shape)
    memory.hashes[:] = FREE
    for i in range(order.shape[0]):
        slot = order[i]
        key = slots[2 * slot]
        link_before(links, slot, np.int64(shape.capacity))
        if key != EMPTY:
            insert(memory.hashes, probe_hash(key) >> S32, slot)
    header[HOLES] = holes
    fence()
    header[DIRTY] = 0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def row_order(memory: Any, shape: Any) -> Any:
    """Return the slots that hold rows, oldest first, i64[M]."""
    links, sentinel = memory.links, np.int64(shape.capacity)
    order = np.empty(memory.header[USED] - memory.header[HOLES], np.int64)
    slot = np.int64(links[4 * sentinel + NEXT])
    count = 0
    while slot != sentinel:
        if memory.slots[2 * slot] != EMPTY:
            order[count] = slot
            count += 1
        slot = np.int64(links[4 * slot + NEXT])
    return order


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def copy_rows(memory: Any, shape: Any, order: Any, keys: Any, values: Any, state: Any) -> None:
    """Copy the rows in slots `order` i64[M] to keys u64[M], values [M D] (as stored) and state f32[M K]."""
    ahead = LOOKUP_CHUNK // 4
    for row in range(order.shape[0]):
        if row + ahead < order.shape[0]:
            prefetch_row(memory.state, order[row + ahead] * shape.row_floats, shape.row_floats)
        slot = order[row]
        keys[row] = memory.slots[2 * slot]
        for column in range(shape.dim):
            values[row * shape.dim + column] = memory.values[slot * shape.row_values + column]
        own = slot * shape.row_floats + shape.state_start
        for column in range(shape.state_dim):
            state[row * shape.state_dim + column] = memory.state[own + column]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def insert_rows(memory: Any, shape: Any, keys: Any, positions: Any, values: Any, state: Any) -> None:
    """Take rows in, in their order: each becomes the newest; a known key's row is overwritten, the oldest are evicted."""
    header, slots = memory.header, memory.slots
    header[DIRTY] = 1
    fence()
    tags, found = np.empty(LOOKUP_CHUNK, np.uint64), np.empty(LOOKUP_CHUNK, np.int64)
    count = positions.shape[0] if positions.shape[0] else keys.shape[0]
    for start in range(0, count, LOOKUP_CHUNK):
        size = min(LOOKUP_CHUNK, count - start)
        find_chunk(memory.hashes, slots, keys, positions, start, tags[:size], found[:size])
        for i in range(size):
            row = positions[start + i] if positions.shape[0] else start + i
            key = keys[row]
            if key == EMPTY:
                continue
            slot = find(memory.hashes, slots, tags[i], key)
            if slot >= 0:
                touch(memory.links, slot, np.int64(shape.capacity))
            else:
                slot = add_row(memory, shape, key, tags[i])
            for column in range(shape.dim):
                memory.values[slot * shape.row_values + column] = values[row * shape.dim + column]
            own = slot * shape.row_floats + shape.state_start
            for column in range(shape.state_dim):
                memory.state[own + column] = state[row * shape.state_dim + column]
            fence()
            slots[2 * slot] = key
    fence()
    header[DIRTY] = 0
