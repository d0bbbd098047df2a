"""Everything that a parameter server keeps: a table a feature group, a slice of the dense vector, in files that outlive it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from persia.embedding.sharded import ShardedTable
from persia.embedding.spec import Rows
from persia.runtime.dense_shard import DenseShard
from persia.runtime.plan import Plan
from persia.schedule.modes import Reduction

Array = np.ndarray[Any, Any]

WARM_UP_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A consistent copy of one server's part: the rows of every table, and the dense slice where there is one."""

    tables: tuple[Rows, ...]
    dense: dict[str, Array]


class Tables:
    """The tables of server `server` in `folder`; made anew, or attached to where a predecessor has left them."""

    def __init__(self, plan: Plan, server: int, folder: Path) -> None:
        self.server = server
        specs = plan.table_specs()
        folders = [folder / f"group-{place}" for place in range(len(specs))]
        threads = plan.header.server.service_slots
        self._ready = folder / "ready"
        self.fresh = not self._ready.exists()
        has_dense = plan.header.rank.reduction is Reduction.NONE
        if not self.fresh:
            self._tables = [ShardedTable.attach(path) for path in folders]
            self._dense = DenseShard.attach(folder / "dense") if has_dense else None
        else:  # what a predecessor may have begun is of no use
            for path in (*folders, folder / "dense"):
                shutil.rmtree(path, ignore_errors=True)
            self._tables = [ShardedTable.create(spec, path, shards=threads) for spec, path in zip(specs, folders, strict=True)]
            self._dense = _dense_shard(plan, folder / "dense") if has_dense else None
        self._dims = [spec.dim for spec in specs]

    @property
    def dense(self) -> DenseShard:
        """Return this server's slice of the dense vector, which mode async alone keeps on the servers."""
        if self._dense is None:
            raise ValueError("only mode async keeps dense parameters on the servers")
        return self._dense

    def mark_ready(self) -> None:
        """From now on a successor attaches to these tables; before, it makes them anew."""
        self._ready.touch()

    def lookup(self, keys: Sequence[Array]) -> list[Array]:
        """Return rows [U, D] of every group for training: unknown ones are made."""
        outs = [np.empty((len(k), dim), np.float32) for k, dim in zip(keys, self._dims, strict=True)]
        for table, k, out in zip(self._tables, keys, outs, strict=True):
            table.lookup(k, out)
        return outs

    def peek(self, keys: Sequence[Array]) -> list[Array]:
        """Return rows [U, D] of every group for evaluation: zeros for unknown ones, nothing changes."""
        outs = [np.empty((len(k), dim), np.float32) for k, dim in zip(keys, self._dims, strict=True)]
        for table, k, out in zip(self._tables, keys, outs, strict=True):
            table.peek(k, out)
        return outs

    def update(self, number: int, updates: Sequence[tuple[Array, Array]]) -> None:
        """Apply (keys [U], gradients [U, D]) of every group; goes on where a predecessor was killed in update `number`."""
        for table, (keys, gradients) in zip(self._tables, updates, strict=True):
            table.update(keys, gradients, number=number)

    def forget(self, number: int) -> None:
        """Update `number` is applied everywhere and noted: it will not come again."""
        for table in self._tables:
            table.forget(number)

    def pending(self) -> list[int]:
        """Return the updates that were begun and not forgotten."""
        return sorted({number for table in self._tables for number in table.pending()})

    def export(self) -> Shard:
        """Return a copy of everything."""
        return Shard(tables=tuple(table.export() for table in self._tables), dense={} if self._dense is None else self._dense.export())

    def load(self, group: int, rows: Rows) -> None:
        """Take a group's rows from a checkpoint."""
        self._tables[group].load(rows)

    def counts(self) -> Counter[str]:
        """Return the counters of all tables together, rows and resident bytes among them."""
        counts: Counter[str] = Counter()
        for table in self._tables:
            counts.update(table.counters)
            counts.update({"rows": table.rows, "resident_bytes": table.resident_bytes})
        return counts

    def close(self) -> None:
        """Unmap the files."""
        for table in self._tables:
            table.close()
        if self._dense is not None:
            self._dense.close()


def _dense_shard(plan: Plan, folder: Path) -> DenseShard:
    dense = plan.scenario.model.dense
    return DenseShard.create(folder, optimizer=dense.optimizer, learning_rate=dense.learning_rate, ranks=plan.ranks)


def room_for_tables(plan: Plan) -> tuple[float, float]:
    """Return the bytes to which all servers' tables may grow, and the bytes of memory that are free on this machine."""
    needed = plan.servers * sum(spec.capacity_rows * spec.bytes_per_row for spec in plan.table_specs())
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return needed, next(float(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:"))


def warm_up(plan: Plan) -> None:
    """Compile (or load) every kernel that a server uses, on small tables in private memory."""
    keys = np.arange(WARM_UP_ROWS, dtype=np.uint64)
    for spec in plan.table_specs():
        table = ShardedTable.create(replace(spec, capacity_rows=WARM_UP_ROWS), None, shards=plan.header.server.service_slots)
        out = np.empty((WARM_UP_ROWS, spec.dim), np.float32)
        table.lookup(keys, out)
        table.peek(keys, out)
        table.update(keys, out, number=0)
        table.forget(0)
        table.close()
