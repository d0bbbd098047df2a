"""A table in shards: same rows as one shard, safe for threads, found again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding.placement import server_of
from persia.embedding.sharded import MANIFEST_NAME, ShardedTable, partition
from persia.embedding.storage import StorageError
from tests.embedding.table_checks import check, looked_up, ones, peeked, spec_of, u64

KEYS = np.arange(1000, dtype=np.uint64) * np.uint64(7919)


def test_partition_is_complete_and_even() -> None:
    positions, starts = partition(KEYS, 4)
    assert sorted(positions.tolist()) == list(range(1000))
    assert starts[0] == 0
    assert starts[-1] == 1000
    assert (np.abs(np.diff(starts) - 250) < 80).all()
    for shard in range(4):
        assert (np.diff(positions[starts[shard] : starts[shard + 1]]) > 0).all()


def test_keys_of_one_server_spread_over_its_shards() -> None:
    keys = np.arange(40_000, dtype=np.uint64)
    mine = keys[server_of(keys, 8) == 3]
    _, starts = partition(mine, 8)
    assert (np.abs(np.diff(starts) / (len(mine) / 8) - 1) < 0.2).all()


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_shards_hold_the_rows_that_one_table_holds(optimizer: str) -> None:
    results = []
    for shards in (1, 3):
        with ShardedTable.create(spec_of(optimizer=optimizer, capacity_rows=5000), None, shards=shards) as table:
            before = looked_up(table, *KEYS.tolist())
            for number in range(4):
                table.update(KEYS[number * 10 :], ones(table, 1000 - number * 10) * np.float32(number + 1), number=number)
            table.update(u64(123456789), ones(table, 1), number=9)
            results.append((before, peeked(table, *KEYS.tolist(), 4), table.counters, table.rows, table.pending(), table.step))
    assert (results[0][0] == results[1][0]).all()
    assert (results[0][1] == results[1][1]).all()
    assert results[0][2:] == results[1][2:]


def test_rows_travel_between_numbers_of_shards() -> None:
    with ShardedTable.create(spec_of(capacity_rows=2000), None, shards=3) as table:
        values = looked_up(table, *KEYS.tolist())
        rows = table.export()
    assert sorted(rows.keys.tolist()) == sorted(KEYS.tolist())
    # Shards are interleaved, so whatever comes late in the export is young.
    place = {key: i for i, key in enumerate(rows.keys.tolist())}
    assert np.corrcoef([place[key] for key in KEYS.tolist()], np.arange(1000))[0, 1] > 0.99
    with ShardedTable.create(spec_of(capacity_rows=3000), None, shards=2) as table:
        table.load(rows)
        assert (peeked(table, *KEYS.tolist()) == values).all()


def test_threads_share_a_table() -> None:
    with ShardedTable.create(spec_of(optimizer="sgd", learning_rate=1.0, capacity_rows=4000), None, shards=4) as table:
        before = looked_up(table, *KEYS.tolist())

        def work(thread: int) -> None:
            out = np.empty((1000, 4), np.float32)
            for number in range(20):
                table.lookup(KEYS, out)
                table.update(KEYS, ones(table, 1000), number=thread * 100 + number)
                table.forget(thread * 100 + number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert peeked(table, *KEYS.tolist()) == pytest.approx(before - 80, abs=1e-3)
        assert table.pending() == []
        assert table.rows == 1000
        for shard in table._shards:
            check(shard)


def test_a_sharded_table_is_found_again(tmp_path: Path) -> None:
    with ShardedTable.create(spec_of(capacity_rows=2000), tmp_path, shards=2) as table:
        left = looked_up(table, *KEYS.tolist())
        table.update(KEYS[:1], ones(table, 1), number=3)
    with ShardedTable.attach(tmp_path) as table:
        assert table.pending() == [3]
        assert (peeked(table, *KEYS[1:].tolist()) == left[1:]).all()
        table.forget(3)
        assert table.pending() == []


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no table"):
        ShardedTable.attach(tmp_path)
    with pytest.raises(ValueError, match="shards"):
        ShardedTable.create(spec_of(), None, shards=9)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"shards": 2}), encoding="utf-8")
    with pytest.raises(StorageError, match="damaged"):
        ShardedTable.attach(tmp_path)
