"""The hash index and the list of slots by age: kernels that find, insert, remove and move one row.

The index is open addressing with linear probing.  A bucket holds the upper half of the key's hash beside the slot, so a
probe reads no key that is not the right one (but for one in four billion), and removal knows every entry's home bucket.
The list is circular and doubly linked; oldest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from persia.embedding.hashing import LOW_HALF, S32

FREE = np.uint64(0)  # a bucket without an entry
ONE = np.uint64(1)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def home_bucket(tag: Any, buckets: Any) -> Any:
    """Return the bucket where the probe for a key begins, from the upper half of its hash."""
    return np.int64((tag * np.uint64(buckets)) >> S32)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def candidate(index: Any, tag: Any) -> Any:
    """Return the first slot whose entry has the key's tag, or -1: almost surely the key's slot, but its key is not looked at."""
    buckets = index.shape[0]
    bucket = home_bucket(tag, buckets)
    while True:
        entry = index[bucket]
        if entry == FREE:
            return np.int64(-1)
        if entry >> S32 == tag:
            return np.int64(entry & LOW_HALF) - 1
        bucket += 1
        if bucket == buckets:
            bucket = 0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def find(index: Any, slots: Any, tag: Any, key: Any) -> Any:
    """Return the slot of a key, or -1."""
    buckets = index.shape[0]
    bucket = home_bucket(tag, buckets)
    while True:
        entry = index[bucket]
        if entry == FREE:
            return np.int64(-1)
        if entry >> S32 == tag:
            slot = np.int64(entry & LOW_HALF) - 1
            if slots[2 * slot] == key:
                return slot
        bucket += 1
        if bucket == buckets:
            bucket = 0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def insert(index: Any, tag: Any, slot: Any) -> None:
    """Enter a slot whose key is not in the index."""
    buckets = index.shape[0]
    bucket = home_bucket(tag, buckets)
    while index[bucket] != FREE:
        bucket += 1
        if bucket == buckets:
            bucket = 0
    index[bucket] = (tag << S32) | (np.uint64(slot) + ONE)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def remove(index: Any, tag: Any, slot: Any) -> None:
    """Take out a slot's entry and close the gap: no later probe meets a grave.

    An entry behind the gap moves into it unless its home lies between the gap and itself (Knuth, vol. 3, 6.4, algorithm R).
    """
    buckets = index.shape[0]
    wanted = (tag << S32) | (np.uint64(slot) + ONE)
    gap = home_bucket(tag, buckets)
    while index[gap] != wanted:
        gap += 1
        if gap == buckets:
            gap = 0
    bucket = gap
    while True:
        bucket += 1
        if bucket == buckets:
            bucket = 0
        entry = index[bucket]
        if entry == FREE:
            break
        home = home_bucket(entry >> S32, buckets)
        from_home = bucket - home if bucket >= home else bucket - home + buckets
        from_gap = bucket - gap if bucket >= gap else bucket - gap + buckets
        if from_home >= from_gap:
            index[gap] = entry
            gap = bucket
    index[gap] = FREE


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def unlink(links: Any, slot: Any) -> None:
    """Take a slot out of the list; its own links keep what they were."""
    before = np.int64(links[4 * slot + 2])
    after = np.int64(links[4 * slot + 3])
    links[4 * before + 3] = after
    links[4 * after + 2] = before


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def link_before(links: Any, slot: Any, after: Any) -> None:
    """Put a slot into the list before another: before the sentinel is the newest place."""
    before = np.int64(links[4 * after + 2])
    links[4 * slot + 2] = before
    links[4 * slot + 3] = after
    links[4 * before + 3] = slot
    links[4 * after + 2] = slot


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def touch(links: Any, slot: Any, sentinel: Any) -> None:
    """Make a slot the newest of the list."""
    if np.int64(links[4 * slot + 3]) != sentinel:
        unlink(links, slot)
        link_before(links, slot, sentinel)
