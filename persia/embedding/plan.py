"""From the ids of a batch to the rows that must be looked up: each row once, grouped by parameter server.

Shapes: F features of one group, B samples, N occurrences of ids, U unique rows, S parameter servers.

Features have disjoint keys, so a row can repeat inside a feature only: every feature gets a hash table of its own, small
enough for a core's cache.  A slot is two words, `stamp << 48 | id` and the row's number; a new feature takes a new stamp,
by which all older slots are free, and so nothing is ever cleared.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from persia.embedding.operands import Array, readable
from persia.embedding.placement import FEATURE_SHIFT, FEATURES_MAX, MIX_FACTORS, MIX_SHIFTS, check_servers

OCCURRENCES_MAX = 2**31 - 1
"""Positions of occurrences are 32-bit integers."""

_SHIFT = np.uint64(FEATURE_SHIFT)
_STAMP_MAX = 2 ** (64 - FEATURE_SHIFT) - 1
_MIX_0, _MIX_1, _MIX_2 = (np.uint64(shift) for shift in MIX_SHIFTS)
_FACTOR_0, _FACTOR_1 = (np.uint64(factor) for factor in MIX_FACTORS)
_HALF = np.uint64(32)
# 2**64 over the golden ratio spreads consecutive ids evenly (Knuth, volume 3, 6.4).  Alone it piles up ids whose distance is a
# Fibonacci number: 158 ms for 20,000 ids that are 196,418 apart; with a second factor no distance that was tried is bad.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BITS_MIN = 6
_LAST_STAMP, _BITS = 0, 1  # fields of a workspace's state


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """The rows that one batch needs of one group.

    Attributes:
        keys: uint64[U], each once; ordered by server and, inside a server, by first occurrence.
        starts: int32[S + 1]; server s holds keys[starts[s]:starts[s + 1]].
        inverse: int32[N], occurrence -> position in keys.
    """

    keys: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int32]
    inverse: npt.NDArray[np.int32]


class PlanWorkspace:
    """Memory that `plan_group` uses again and again; for one thread at a time."""

    __slots__ = ("found", "ranks", "servers", "state", "table")

    def __init__(self) -> None:
        self.state = np.array([0, _BITS_MIN], np.int64)
        self.table = np.zeros(0, np.uint64)
        self.found = np.empty(0, np.uint64)
        self.servers = np.empty(0, np.int32)
        self.ranks = np.empty(0, np.int32)

    def reserve(self, occurrences: int, occurrences_of_a_feature: int) -> None:
        """Grow to what a batch may need at most, were no id repeated."""
        slots = 2 ** max(_BITS_MIN, (2 * occurrences_of_a_feature - 1).bit_length())
        if self.table.size < 2 * slots:
            self.table = np.zeros(2 * slots, np.uint64)
            self.state[_LAST_STAMP] = 0
        if self.found.size < occurrences:
            self.found = np.empty(occurrences, np.uint64)
            self.servers = np.empty(occurrences, np.int32)
            self.ranks = np.empty(occurrences, np.int32)


class _Local(threading.local):
    def __init__(self) -> None:
        self.workspace = PlanWorkspace()


_local = _Local()


def plan_group(
    ids: Array, offsets: Array, *, first_feature: int, features: int, servers: int, workspace: PlanWorkspace | None = None
) -> GroupPlan:
    """Find the unique rows of a batch, their servers, and where each occurrence finds its row.

    The same batch gives the same plan in every process.  Ids are taken as valid: ask `check_bags` first where a stranger sent
    them.

    Args:
        ids: int64[N] or int32[N], feature-major, each in [0, 2**48).
        offsets: int32[F * B + 1]; ids[offsets[f * B + s]:offsets[f * B + s + 1]] is the bag of feature f and sample s.
        first_feature: Index, over all groups, of the group's first feature.
        features: F, at least 1.
        servers: S, the number of parameter servers.
        workspace: Memory to work in; by default one that belongs to the calling thread.

    Raises:
        ValueError: A wrong type or shape, or features or servers out of range.
    """
    check_servers(servers)
    if not (features >= 1 and 0 <= first_feature <= FEATURES_MAX - features):
        raise ValueError(f"{features} features from {first_feature} on are not between 0 and {FEATURES_MAX}")
    bags = readable("offsets", offsets, (np.int32,), (None,))
    if bags.size % features != 1 % features:
        raise ValueError(f"{bags.size} offsets are not one more than a multiple of {features} features")
    bounds = bags[:: (bags.size - 1) // features].astype(np.int64) if bags.size > 1 else np.zeros(features + 1, np.int64)
    occurrences = readable("ids", ids, (np.int64, np.int32), (int(bounds[-1]),))
    per_feature = np.diff(bounds)
    if bounds[0] != 0 or per_feature.min() < 0:
        raise ValueError("offsets must rise from 0")
    memory = _local.workspace if workspace is None else workspace
    memory.reserve(occurrences.size, int(per_feature.max()))
    inverse = np.empty(occurrences.size, np.int32)
    unique = _find_rows(occurrences, bounds, first_feature, memory.state, memory.table, memory.found, inverse)
    starts = np.zeros(servers + 1, np.int32)
    starts[servers] = unique
    if servers == 1:
        return GroupPlan(keys=memory.found[:unique].copy(), starts=starts, inverse=inverse)
    keys = np.empty(unique, np.uint64)
    _sort_by_server(memory.found, servers, memory.servers, memory.ranks, starts, keys)
    _renumber(inverse, memory.ranks)
    return GroupPlan(keys=keys, starts=starts, inverse=inverse)


def check_bags(ids: Array, offsets: Array, features: int, batch: int) -> None:
    """Raise ValueError, with a sentence that says where, unless the bags of a batch are sound.

    Args:
        ids: int64[N] or int32[N] that should lie in [0, 2**48).
        offsets: int32[features * batch + 1] that should rise from 0 to N.
        features: F.
        batch: B.
    """
    if features < 1 or batch < 0:
        raise ValueError(f"a batch of {batch} samples of {features} features cannot be")
    occurrences = readable("ids", ids, (np.int64, np.int32), (None,))
    if occurrences.size > OCCURRENCES_MAX:
        raise ValueError(f"{occurrences.size} ids are more than {OCCURRENCES_MAX}")
    bags = readable("offsets", offsets, (np.int32,), (features * batch + 1,))
    if bags[0] != 0 or bags[-1] != occurrences.size:
        raise ValueError(f"offsets run from {bags[0]} to {bags[-1]}, not from 0 to the number of ids, {occurrences.size}")
    if not _rises(bags):
        where = int(np.argmax(bags[1:] < bags[:-1]))
        raise ValueError(f"offset {where + 1} is {bags[where + 1]}, less than {bags[where]} before it")
    if _any_bits(occurrences) >> FEATURE_SHIFT:
        where = int(np.argmax((occurrences < 0) | (occurrences >= 2**FEATURE_SHIFT)))
        raise ValueError(f"id {where} is {occurrences[where]}, not in [0, 2**{FEATURE_SHIFT})")


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache, for both types of ids."""
    offsets = np.array([0, 1, 2, 3, 3], np.int32)
    for dtype in (np.int32, np.int64):
        ids = np.array([1, 1, 2], dtype)
        check_bags(ids, offsets, 2, 2)
        plan_group(ids, offsets, first_feature=0, features=2, servers=2)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def server_of_key(key: np.uint64, servers: int) -> int:
    """Return the parameter server of one row: `placement.server_of` for kernels."""
    mixed = (key ^ (key >> _MIX_0)) * _FACTOR_0
    mixed = (mixed ^ (mixed >> _MIX_1)) * _FACTOR_1
    mixed ^= mixed >> _MIX_2
    return int(np.int64(((mixed >> _HALF) * np.uint64(servers)) >> _HALF))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _next_stamp(state: Array, table: Array) -> np.uint64:
    """Free all slots by taking a new stamp; once in 65,535 times by really clearing them."""
    state[_LAST_STAMP] += 1
    if state[_LAST_STAMP] > _STAMP_MAX:
        table[:] = np.uint64(0)
        state[_LAST_STAMP] = 1
    return np.uint64(state[_LAST_STAMP])


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _slot(table: Array, bits: int, entry: np.uint64, stamp: np.uint64) -> int:
    """Return the slot that holds the entry, or the free one where it belongs."""
    last = (1 << bits) - 1
    spread = (entry ^ (stamp << _SHIFT)) * _GOLDEN
    slot = np.int64(((spread ^ (spread >> _HALF)) * _FACTOR_0) >> np.uint64(64 - bits))
    while table[2 * slot] != entry and table[2 * slot] >> _SHIFT == stamp:
        slot = (slot + 1) & last
    return int(slot)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _find_rows(ids: Array, bounds: Array, first_feature: int, state: Array, table: Array, found: Array, inverse: Array) -> int:
    """Number the unique rows by first occurrence: found[row] is its key, inverse[occurrence] its row; return how many."""
    bits = state[_BITS]
    rows = 0
    for feature in range(bounds.size - 1):
        first = rows
        prefix = np.uint64(first_feature + feature) << _SHIFT
        stamp = _next_stamp(state, table)
        for occurrence in range(bounds[feature], bounds[feature + 1]):
            identity = np.uint64(ids[occurrence])
            entry = (stamp << _SHIFT) | identity
            slot = _slot(table, bits, entry, stamp)
            if table[2 * slot] == entry:
                inverse[occurrence] = np.int32(table[2 * slot + 1])
                continue
            table[2 * slot] = entry
            table[2 * slot + 1] = np.uint64(rows)
            found[rows] = prefix | identity
            inverse[occurrence] = np.int32(rows)
            rows += 1
            if 2 * (rows - first) > 1 << bits:
                bits += 1
                stamp = _next_stamp(state, table)
                _insert_again(found, first, rows, bits, stamp, table)
        if bits > _BITS_MIN and 8 * (rows - first) < 1 << bits:
            bits -= 1
    state[_BITS] = bits
    return int(rows)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _insert_again(found: Array, first: int, rows: int, bits: int, stamp: np.uint64, table: Array) -> None:
    """Enter a feature's rows into a table that has just been doubled."""
    for row in range(first, rows):
        entry = (stamp << _SHIFT) | (found[row] & ((np.uint64(1) << _SHIFT) - np.uint64(1)))
        slot = _slot(table, bits, entry, stamp)
        table[2 * slot] = entry
        table[2 * slot + 1] = np.uint64(row)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _sort_by_server(found: Array, servers: int, server: Array, ranks: Array, starts: Array, keys: Array) -> None:
    """Sort by counting, which keeps the order of first occurrence inside a server; ranks[row] is the new place of a row."""
    starts[:] = 0
    for row in range(keys.size):
        server[row] = server_of_key(found[row], servers)
    for row in range(keys.size):
        starts[server[row] + 1] += 1
    for index in range(servers):
        starts[index + 1] += starts[index]
    free = starts[:-1].copy()
    for row in range(keys.size):
        rank = free[server[row]]
        free[server[row]] = rank + 1
        ranks[row] = rank
        keys[rank] = found[row]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _renumber(inverse: Array, ranks: Array) -> None:
    for occurrence in range(inverse.size):
        inverse[occurrence] = ranks[inverse[occurrence]]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _rises(offsets: Array) -> bool:
    falls = False
    for index in range(1, offsets.size):
        falls |= offsets[index] < offsets[index - 1]
    return not falls


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _any_bits(ids: Array) -> np.uint64:
    """Return the bits that any id has; a negative one has the highest."""
    bits = np.uint64(0)
    for index in range(ids.size):
        bits |= np.uint64(np.int64(ids[index]))
    return bits
