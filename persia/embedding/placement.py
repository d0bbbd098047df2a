"""Which parameter server holds a row: the key of a row and the hash that spreads keys over servers.

Only numpy is needed here, so that the simulator can place rows exactly as a real run does.

Shapes: n keys or ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FEATURE_SHIFT = 48
"""A row's key is `feature << FEATURE_SHIFT | id`."""

FEATURES_MAX = 2**16 - 1
"""Features are numbered below this, so that no row has the key 2**64 - 1, by which tables mark a free slot."""

SERVERS_MAX = 2**16
"""More servers than that would not fit the 32 x 32 bit product that picks one."""

# The finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).  Every bit of
# the key moves every bit of the hash.  Where rows are already stored depends on it, so it never changes.
MIX_SHIFTS = (30, 27, 31)
MIX_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def row_keys(feature: int, ids: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Return the keys of one feature's ids.

    Args:
        feature: Index of the feature over all groups of the model.
        ids: int[n], each in [0, 2**48).

    Returns:
        uint64[n].

    Raises:
        ValueError: The feature or an id is out of range.
    """
    if not 0 <= feature < FEATURES_MAX:
        raise ValueError(f"feature {feature} is not in [0, {FEATURES_MAX})")
    array = np.asarray(ids)
    if array.size and not (array.min() >= 0 and array.max() < 2**FEATURE_SHIFT):
        raise ValueError(f"an id of feature {feature} is not in [0, 2**{FEATURE_SHIFT})")
    return array.astype(np.uint64) | np.uint64(feature << FEATURE_SHIFT)


def mixed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a well mixed 64-bit hash of each key; shape kept."""
    first, second, third = (np.uint64(shift) for shift in MIX_SHIFTS)
    hashes = (keys ^ (keys >> first)) * np.uint64(MIX_FACTORS[0])
    hashes = (hashes ^ (hashes >> second)) * np.uint64(MIX_FACTORS[1])
    return hashes ^ (hashes >> third)


def server_of(keys: npt.NDArray[np.uint64], servers: int) -> npt.NDArray[np.int32]:
    """Return the parameter server that holds each row.

    The upper half of the hash, a fraction of 2**32, is scaled to the number of servers; its lower half is free for others.

    Args:
        keys: uint64[n].
        servers: Number of parameter servers, in [1, SERVERS_MAX].

    Returns:
        int32[n] in [0, servers).

    Raises:
        ValueError: The number of servers is out of range.
    """
    check_servers(servers)
    fractions = mixed(np.asarray(keys, dtype=np.uint64)) >> np.uint64(32)
    return ((fractions * np.uint64(servers)) >> np.uint64(32)).astype(np.int32)


def check_servers(servers: int) -> None:
    """Raise ValueError unless the number of servers is in [1, SERVERS_MAX]."""
    if not 1 <= servers <= SERVERS_MAX:
        raise ValueError(f"{servers} parameter servers; between 1 and {SERVERS_MAX} can be told apart")
