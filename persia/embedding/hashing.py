"""Hashes of keys: where a row lies in the index and in which shard, what it starts as, whether it is admitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from persia.embedding.machine import store_value
from persia.embedding.spec import TableSpec

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: the increment of splitmix64
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
# Placement on servers mixes the bare key: without a salt, the keys of one server would crowd into a part of its index.
PROBE_SALT = np.uint64(0xD1B54A32D192ED03)
ADMISSION_SALT = np.uint64(0x8CB92BA72F3D8DD7)
S27, S30, S31, S32, S40 = (np.uint64(shift) for shift in (27, 30, 31, 32, 40))
LOW_HALF = np.uint64(2**32 - 1)
UNIT_24 = np.float32(2.0**-23)  # 24 random bits become a number in [0, 2)
ONE = np.float32(1.0)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def mix(bits: Any) -> Any:
    """Return the finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit."""
    bits = (bits ^ (bits >> S30)) * MIX_1
    bits = (bits ^ (bits >> S27)) * MIX_2
    return bits ^ (bits >> S31)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def probe_hash(key: Any) -> Any:
    """Return the hash of a key within its server: the upper half picks the bucket, the lower half the shard."""
    return mix(key ^ PROBE_SALT)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def shard_of(key: Any, shards: Any) -> Any:
    """Return which of `shards` shards (u64) holds a key."""
    return np.int64(((probe_hash(key) & LOW_HALF) * shards) >> S32)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def admitted(seed: Any, key: Any, draw: Any, admission: Any) -> Any:
    """Return whether the `draw`-th (u64) draw of a table lets a key in."""
    return mix(mix(seed ^ ADMISSION_SALT) ^ mix(key + draw * GOLDEN)) < admission


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def write_initial(seed: Any, key: Any, bound: Any, dim: Any, values: Any, at: Any) -> None:
    """Write a key's first values to `values[at : at + dim]`: uniform in [-bound, bound), from the seed and the key alone."""
    origin = mix(mix(seed + GOLDEN) ^ key)
    for column in range(dim):
        bits = mix(origin + np.uint64(column) * GOLDEN)
        store_value(values, at + column, (np.float32(np.int64(bits >> S40)) * UNIT_24 - ONE) * bound)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def write_initial_rows(seed: Any, keys: Any, bound: Any, dim: Any, values: Any) -> None:
    """Write the first values of many keys, row after row."""
    for row in range(keys.shape[0]):
        write_initial(seed, keys[row], bound, dim, values, row * dim)


def initial_rows(keys: npt.NDArray[np.uint64], spec: TableSpec) -> npt.NDArray[np.float32]:
    """Return the values with which rows start, f32[n, D] of `keys` u64[n]; what an fp16 table stores is rounded to fp16."""
    half = spec.bytes_per_parameter == 2
    values = np.empty(len(keys) * spec.dim, np.uint16 if half else np.float32)
    wanted = np.ascontiguousarray(keys, np.uint64)
    write_initial_rows(np.uint64(spec.seed), wanted, np.float32(spec.init_bound), spec.dim, values)
    exact: npt.NDArray[np.float32] = values.view(np.float16).astype(np.float32) if half else values.view(np.float32)
    return exact.reshape(len(keys), spec.dim)
