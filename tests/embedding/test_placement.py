"""Keys of rows and the servers that hold them."""

from __future__ import annotations

import numpy as np
import pytest

from persia.embedding.placement import FEATURES_MAX, SERVERS_MAX, row_keys, server_of


def test_key_is_feature_above_id() -> None:
    keys = row_keys(3, [0, 1, 2**48 - 1])
    assert keys.dtype == np.uint64
    assert keys.tolist() == [3 << 48, 3 << 48 | 1, 4 * 2**48 - 1]


def test_last_feature_never_has_the_key_of_a_free_slot() -> None:
    assert row_keys(FEATURES_MAX - 1, [2**48 - 1])[0] < np.iinfo(np.uint64).max


@pytest.mark.parametrize(("feature", "ids"), [(-1, [0]), (FEATURES_MAX, [0]), (0, [-1]), (0, [2**48])])
def test_out_of_range_is_refused(feature: int, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="not in"):
        row_keys(feature, ids)


def test_no_ids_have_no_keys() -> None:
    assert row_keys(0, np.zeros(0, np.int64)).size == 0


def mixed_plainly(key: int) -> int:
    """The finaliser of splitmix64 with Python's integers."""
    word = 2**64 - 1
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & word
    key = (key ^ key >> 27) * 0x94D049BB133111EB & word
    return key ^ key >> 31


@pytest.mark.parametrize("servers", [1, 2, 3, 30, SERVERS_MAX])
def test_server_is_the_upper_half_of_the_hash_scaled(servers: int) -> None:
    keys = [0, 1, 2, 2**48, 2**63 + 5, 2**64 - 1]
    found = server_of(np.array(keys, np.uint64), servers)
    assert found.dtype == np.int32
    assert found.tolist() == [(mixed_plainly(key) >> 32) * servers >> 32 for key in keys]


def test_hash_is_the_published_one() -> None:
    # The first output of splitmix64 seeded with 0 is the hash of its first increment (java.util.SplittableRandom).
    assert mixed_plainly(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("stride", [1, 2**10, 2**20, 2**32])
@pytest.mark.parametrize("servers", [3, 30])
def test_rows_spread_evenly(stride: int, servers: int) -> None:
    count = 30_000
    keys = row_keys(7, np.arange(count, dtype=np.int64) * stride % 2**48)
    rows = np.bincount(server_of(keys, servers), minlength=servers)
    assert rows.size == servers
    assert abs(rows - count / servers).max() < 5 * np.sqrt(count / servers)


@pytest.mark.parametrize("servers", [0, -1, SERVERS_MAX + 1])
def test_impossible_number_of_servers_is_refused(servers: int) -> None:
    with pytest.raises(ValueError, match="servers"):
        server_of(np.zeros(1, np.uint64), servers)
