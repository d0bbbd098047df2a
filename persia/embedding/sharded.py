"""A table in several shards, for several threads: one lock a shard, so that threads wait for each other only there.

Shapes: n keys of a request, M rows of the table, D dimensions; k shards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from persia.embedding.hashing import shard_of
from persia.embedding.operands import readable
from persia.embedding.spec import Rows, TableSpec
from persia.embedding.storage import StorageError
from persia.embedding.table import EmbeddingTable

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]

MANIFEST_NAME: Final = "shards.json"
SHARDS_MAX: Final = 4096


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def partition(keys: Any, shards: Any) -> Any:
    """Return the positions of keys u64[n] ordered by shard, i64[n], and where each shard's begin, i64[k + 1]."""
    starts = np.zeros(shards + 1, np.int64)
    owner = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        owner[i] = shard_of(keys[i], np.uint64(shards))
        starts[owner[i] + 1] += 1
    for shard in range(shards):
        starts[shard + 1] += starts[shard]
    places, positions = starts[:shards].copy(), np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        positions[places[owner[i]]] = i
        places[owner[i]] += 1
    return positions, starts


class ShardedTable:
    """An embedding table that threads may share; see EmbeddingTable for what its methods do.

    Keys are spread over shards by hash bits that neither placement nor probing uses.  Each shard keeps its part of the
    capacity, its own recency and, for Adam, its own step, so every update goes to every shard.
    """

    def __init__(self, spec: TableSpec, shards: list[EmbeddingTable]) -> None:
        """Join shards that belong together; use `create` or `attach`."""
        self.spec = spec
        self._shards = shards
        self._locks = [Lock() for _ in shards]

    @classmethod
    def create(cls, spec: TableSpec, folder: Path | None, *, shards: int = 1) -> Self:
        """Return a new, empty table in `shards` shards, in private memory or below `folder`.

        Raises:
            ValueError: A number of shards that cannot be.
            StorageError: The folder already holds a table.
            OSError: No space, no right to write.
        """
        if not 1 <= shards <= min(SHARDS_MAX, spec.capacity_rows):
            raise ValueError(f"table {spec.name!r}: 1 to {min(SHARDS_MAX, spec.capacity_rows)} shards, not {shards}")
        part = replace(spec, capacity_rows=-(-spec.capacity_rows // shards))
        tables = [EmbeddingTable.create(part, None if folder is None else folder / f"shard-{i}") for i in range(shards)]
        if folder is not None:
            new = folder / (MANIFEST_NAME + ".new")
            new.write_text(json.dumps({"shards": shards, "spec": spec.to_json()}, indent=1) + "\n", encoding="utf-8")
            new.replace(folder / MANIFEST_NAME)
        return cls(spec, tables)

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return the table below a folder as its last process left it.

        Raises:
            StorageError: No table there, one of another format, or one that a living process has mapped.
        """
        try:
            manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
            spec, shards = TableSpec.from_json(manifest["spec"]), int(manifest["shards"])
        except FileNotFoundError:
            raise StorageError(f"{folder} holds no table: it has no {MANIFEST_NAME}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{folder / MANIFEST_NAME} is damaged: {error}") from error
        return cls(spec, [EmbeddingTable.attach(folder / f"shard-{i}") for i in range(shards)])

    def lookup(self, keys: Keys, out: Floats) -> None:
        """Write the rows of `keys` u64[n] to `out` f32[n, D], for training: inserts, evicts, refreshes recency."""
        self._each(keys, lambda shard, positions: shard.lookup(keys, out, positions))

    def peek(self, keys: Keys, out: Floats) -> None:
        """Write the rows of `keys` u64[n] to `out` f32[n, D], for evaluation: nothing changes, unknown keys get zeros."""
        self._each(keys, lambda shard, positions: shard.peek(keys, out, positions))

    def update(self, keys: Keys, gradients: Floats, *, number: int) -> None:
        """Apply `gradients` f32[n, D] to the rows of `keys` u64[n], each exactly once."""
        self._each(keys, lambda shard, positions: shard.update(keys, gradients, number=number, positions=positions))

    def forget(self, number: int) -> None:
        """Drop an update from the journals of all shards."""
        for shard, lock in zip(self._shards, self._locks, strict=True):
            with lock:
                shard.forget(number)

    def pending(self) -> list[int]:
        """Return the numbers of the updates begun in some shard and not forgotten there, oldest first."""
        numbers: dict[int, None] = {}
        for shard, lock in zip(self._shards, self._locks, strict=True):
            with lock:
                numbers.update(dict.fromkeys(shard.pending()))
        return list(numbers)

    def export(self) -> Rows:
        """Return copies of all rows, shards interleaved so that older rows come first; consistent if nobody writes."""
        parts = []
        for shard, lock in zip(self._shards, self._locks, strict=True):
            with lock:
                parts.append(shard.export())
        if len(parts) == 1:
            return parts[0]
        age = np.concatenate([np.arange(len(part.keys)) / max(len(part.keys), 1) for part in parts])
        order = np.argsort(age, kind="stable")
        return Rows(
            keys=np.concatenate([part.keys for part in parts])[order],
            values=np.concatenate([part.values for part in parts])[order],
            state=np.concatenate([part.state for part in parts])[order],
            step=max(part.step for part in parts),
        )

    def load(self, rows: Rows) -> None:
        """Insert rows in their order, the last becoming the newest of its shard; of more than fit the newest stay."""
        self._each(rows.keys, lambda shard, positions: shard.load(rows, positions))

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts since the table was made: hits, misses, evictions, gradient_id_misses, not_admitted."""
        total: Counter[str] = Counter()
        for shard in self._shards:
            total.update(shard.counters)
        return dict(total)

    @property
    def rows(self) -> int:
        """The rows in the table."""
        return sum(shard.rows for shard in self._shards)

    @property
    def step(self) -> int:
        """The updates begun so far: Adam's step."""
        return max(shard.step for shard in self._shards)

    @property
    def resident_bytes(self) -> int:
        """The bytes of memory that the table takes."""
        return sum(shard.resident_bytes for shard in self._shards)

    @property
    def resident_bytes_per_row(self) -> float:
        """The bytes of memory that the table takes, for each of its rows."""
        return self.resident_bytes / max(self.rows, 1)

    def close(self) -> None:
        """Let go of the memory; a table in a folder can be attached to again."""
        for shard, lock in zip(self._shards, self._locks, strict=True):
            with lock:
                shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _each(self, keys: Keys, work: Callable[[EmbeddingTable, Array | None], None]) -> None:
        """Let every shard work on its positions: first those that no other thread works on, then the others in turn."""
        if len(self._shards) == 1:
            with self._locks[0]:
                work(self._shards[0], None)
            return
        positions, starts = partition(readable("keys", keys, (np.uint64,), (None,)), len(self._shards))
        busy = []
        for i, lock in enumerate(self._locks):
            if lock.acquire(blocking=False):
                self._work(i, positions[starts[i] : starts[i + 1]], work)
            else:
                busy.append(i)
        for i in busy:
            self._locks[i].acquire()
            self._work(i, positions[starts[i] : starts[i + 1]], work)

    def _work(self, i: int, positions: Array, work: Callable[[EmbeddingTable, Array | None], None]) -> None:
        """Work on one shard, whose lock is held, and release it."""
        try:
            work(self._shards[i], positions)
        finally:
            self._locks[i].release()
