"""A checkpoint's rows and dense slices onto the servers of a new run, whose number may be another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from persia.embedding.placement import server_of
from persia.embedding.spec import Rows
from persia.runtime.checkpoint import Checkpoint, read_dense_shards, read_rows
from persia.runtime.dense_exchange import slices
from persia.runtime.plan import Plan
from persia.runtime.tables import Tables


def restore_tables(tables: Tables, checkpoint: Checkpoint, plan: Plan) -> None:
    """Load every row that belongs on this server now, and its slice of the dense vector."""
    for group in range(len(plan.groups)):
        parts = [_own(rows, tables.server, plan.servers) for rows in read_rows(checkpoint, group)]
        tables.load(group, merged(parts))
    shards = read_dense_shards(checkpoint)
    if all(shard for shard in shards):
        total = sum(len(shard["values"]) for shard in shards)
        own = slices(total, plan.servers)[tables.server]
        tables.dense.restore({name: np.concatenate([shard[name] for shard in shards])[own] for name in shards[0] if shards[0][name].ndim})


def _own(rows: Rows, server: int, servers: int) -> Rows:
    mine = server_of(rows.keys, servers) == server
    return replace(rows, keys=rows.keys[mine], values=rows.values[mine], state=rows.state[mine])


def merged(parts: list[Rows]) -> Rows:
    """Return the rows of several servers as of one: each part's order of use is kept, the parts are interleaved evenly."""
    age = np.concatenate([np.arange(len(part.keys)) / max(1, len(part.keys)) for part in parts])
    order = np.argsort(age, kind="stable")
    return Rows(
        keys=np.concatenate([part.keys for part in parts])[order],
        values=np.concatenate([part.values for part in parts])[order],
        state=np.concatenate([part.state for part in parts])[order],
        step=max(part.step for part in parts),
    )
