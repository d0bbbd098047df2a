"""An embedding table: rows found by key, kept by recency, trained row by row, and safe against the death of its process.

Shapes: n keys of a request, M rows of the table, D dimensions, K floats of optimizer state in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from persia.embedding import layout, lookup_kernels, update_kernels, upkeep_kernels
from persia.embedding.layout import shape_of
from persia.embedding.operands import readable, writable
from persia.embedding.optimizers import rates
from persia.embedding.spec import Rows, TableSpec
from persia.embedding.storage import Storage

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]

ALL: Final = np.empty(0, np.int64)  # positions: every key
ALL.flags.writeable = False


class EmbeddingTable:
    """One shard of a table, for one thread at a time.

    A lookup for training inserts unknown keys and makes known ones the newest; beyond the capacity the oldest row leaves.
    Keys may repeat within a request.  `create` makes a table, `attach` continues one that a process left in a folder,
    however that process ended.
    """

    def __init__(self, spec: TableSpec, storage: Storage) -> None:
        """Wrap memory that holds a table; use `create` or `attach`."""
        self.spec = spec
        self._storage = storage
        self._memory = storage.memory
        self._shape = shape_of(spec, journaled=storage.mapped)
        used = np.flatnonzero(self._memory.entry_used)
        self._entries = {int(self._memory.entry_number[entry]): int(entry) for entry in used}
        self._free_entries = sorted(set(range(layout.JOURNAL_ENTRIES)) - set(self._entries.values()), reverse=True)

    @classmethod
    def create(cls, spec: TableSpec, folder: Path | None) -> Self:
        """Return a new, empty table, in private memory or mapped from a file in `folder`.

        Raises:
            StorageError: The folder already holds a table.
            OSError: No space, no right to write.
        """
        storage = Storage.create(spec, folder)
        upkeep_kernels.clear(storage.memory, shape_of(spec, journaled=storage.mapped))
        if folder is not None:
            storage.publish(spec, folder)
        return cls(spec, storage)

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return the table in a folder as its last process left it; nothing is loaded.

        If that process died in the middle of an update, the rows it was changing are as before the last chunk of up to
        128 keys, and the same update goes on from there.  If it died in the middle of a lookup, index and list are rebuilt.

        Raises:
            StorageError: No table there, one of another format, or one that a living process has mapped.
        """
        table = cls(*Storage.attach(folder))
        table.recover()
        return table

    def recover(self) -> None:
        """Put right what a killed process left half done; `attach` does it.  Killed itself, it is simply done again."""
        memory = self._memory
        if memory.header[layout.UNDO_ENTRY]:
            update_kernels.undo(memory, self._shape)
        if memory.header[layout.DIRTY]:
            upkeep_kernels.repair(memory, self._shape)
        # A process that died between opening an entry and counting its step.
        memory.header[layout.STEP] = max([self.step, *(int(memory.entry_step[entry]) for entry in self._entries.values())])

    def lookup(self, keys: Keys, out: Floats, positions: Array | None = None) -> None:
        """Write the rows of `keys` u64[n] to `out` f32[n, D], for training: inserts, evicts, refreshes recency.

        A key that is not admitted gets its initial row and is not inserted.  `positions` i64[m] picks keys; others stay
        as they are in `out`.  Raises ValueError for wrong types or shapes, OSError where the file system is full.
        """
        out = writable("out", out, np.float32, (len(keys), self.spec.dim))
        keys, chosen = _operands(keys, positions)
        if len(keys):
            wanted = int(self._memory.header[layout.USED]) + (len(chosen) or len(keys))
            self._storage.reserve(min(wanted, self.spec.capacity_rows))
            lookup_kernels.lookup(self._memory, self._shape, keys, chosen, out.reshape(-1))

    def peek(self, keys: Keys, out: Floats, positions: Array | None = None) -> None:
        """Write the rows of `keys` u64[n] to `out` f32[n, D], for evaluation: nothing changes, unknown keys get zeros."""
        out = writable("out", out, np.float32, (len(keys), self.spec.dim))
        keys, chosen = _operands(keys, positions)
        lookup_kernels.peek(self._memory, self._shape, keys, chosen, out.reshape(-1))

    def update(self, keys: Keys, gradients: Floats, *, number: int, positions: Array | None = None) -> None:
        """Apply `gradients` f32[n, D] to the rows of `keys` u64[n], one after another and each exactly once.

        `number` names the update until `forget`: asked for again with the same keys, it goes on where the process was
        killed, or does nothing.  Keys without a row are counted and skipped.  Recency does not change.

        Raises:
            ValueError: Wrong types or shapes; a number that is pending with other keys.
            RuntimeError: Too many numbers are pending.
        """
        gradients = readable("gradients", gradients, (np.float32,), (len(keys), self.spec.dim))
        keys, chosen = _operands(keys, positions)
        entry = self._entry(number, keys, chosen)
        if self._memory.entry_done[entry] < self._memory.entry_rows[entry]:
            rate = rates(self.spec.learning_rate, int(self._memory.entry_step[entry]))
            update_kernels.update(self._memory, self._shape, rate, entry, keys, chosen, gradients.reshape(-1))

    def forget(self, number: int) -> None:
        """Drop an update from the journal: it will not be asked for again.  Nothing happens if it is not there."""
        entry = self._entries.pop(number, None)
        if entry is not None:
            self._memory.entry_used[entry] = 0
            self._free_entries.append(entry)

    def pending(self) -> list[int]:
        """Return the numbers of the updates begun and not forgotten, in the order in which they began."""
        return sorted(self._entries, key=lambda number: int(self._memory.entry_step[self._entries[number]]))

    def export(self) -> Rows:
        """Return copies of all rows, oldest first: keys u64[M], values f32 or f16[M, D], state f32[M, K]."""
        order = upkeep_kernels.row_order(self._memory, self._shape)
        keys = np.empty(len(order), np.uint64)
        values = np.empty((len(order), self.spec.dim), self._memory.values.dtype)
        state = np.empty((len(order), self.spec.state_dim), np.float32)
        upkeep_kernels.copy_rows(self._memory, self._shape, order, keys, values.reshape(-1), state.reshape(-1))
        stored = values.view(np.float16) if self.spec.bytes_per_parameter == 2 else values
        return Rows(keys=keys, values=stored, state=state, step=self.step)

    def load(self, rows: Rows, positions: Array | None = None) -> None:
        """Insert rows in their order, the last becoming the newest; of more than fit the newest stay.

        A known key's row is overwritten.  If the process dies meanwhile, load again.

        Raises:
            ValueError: Wrong types or shapes.
            OSError: The file system is full.
        """
        count = len(rows.keys)
        values = readable("values", rows.values, (np.float32, np.float16), (count, self.spec.dim))
        state = readable("state", rows.state, (np.float32,), (count, self.spec.state_dim))
        half = self.spec.bytes_per_parameter == 2
        keys, chosen = _operands(rows.keys, positions)
        stored = values.astype(np.float16 if half else np.float32, copy=False)
        wanted = int(self._memory.header[layout.USED]) + (len(chosen) or count)
        self._storage.reserve(min(wanted, self.spec.capacity_rows))
        flat = stored.view(np.uint16).reshape(-1) if half else stored.reshape(-1)
        upkeep_kernels.insert_rows(self._memory, self._shape, keys, chosen, flat, state.reshape(-1))
        self._memory.header[layout.STEP] = max(self.step, rows.step)

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts since the table was made: hits, misses, evictions, gradient_id_misses, not_admitted."""
        names = ("hits", "misses", "evictions", "gradient_id_misses", "not_admitted")
        words = (layout.HITS, layout.MISSES, layout.EVICTIONS, layout.GRADIENT_ID_MISSES, layout.NOT_ADMITTED)
        return {name: int(self._memory.header[word]) for name, word in zip(names, words, strict=True)}

    @property
    def rows(self) -> int:
        """The rows in the table."""
        return int(self._memory.header[layout.USED] - self._memory.header[layout.HOLES])

    @property
    def step(self) -> int:
        """The updates begun so far: Adam's step."""
        return int(self._memory.header[layout.STEP])

    @property
    def resident_bytes(self) -> int:
        """The bytes of memory that the table takes: rows, index, journal."""
        return self._storage.resident_bytes(int(self._memory.header[layout.USED]))

    @property
    def resident_bytes_per_row(self) -> float:
        """The bytes of memory that the table takes, for each of its rows."""
        return self.resident_bytes / max(self.rows, 1)

    def close(self) -> None:
        """Let go of the memory; a table in a folder can be attached to again."""
        if hasattr(self, "_memory"):
            del self._memory
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _entry(self, number: int, keys: Array, chosen: Array) -> int:
        """Return the journal's entry of an update, opened if it is not there."""
        memory = self._memory
        count, digest = len(chosen) or len(keys), update_kernels.digest_of(keys, chosen)
        if number in self._entries:
            entry = self._entries[number]
            if int(memory.entry_rows[entry]) != count or int(memory.entry_digest[entry]) != digest:
                raise ValueError(f"table {self.spec.name!r}: update {number} is pending with other keys")
            return entry
        if not self._free_entries:
            raise RuntimeError(f"table {self.spec.name!r}: {layout.JOURNAL_ENTRIES} updates are pending: forget() those that are done")
        entry = self._free_entries.pop()
        memory.entry_number[entry] = number
        memory.entry_rows[entry] = count
        memory.entry_digest[entry] = digest
        memory.entry_done[entry] = 0
        memory.entry_step[entry] = self.step + 1
        # Each of these stores happens when the interpreter comes to it: the entry counts from here on.
        memory.entry_used[entry] = 1
        memory.header[layout.STEP] = memory.entry_step[entry]
        self._entries[number] = entry
        return entry


def _operands(keys: Keys, positions: Array | None) -> tuple[Array, Array]:
    """Return keys and positions as kernels take them: no positions for all keys, no keys for none."""
    keys = readable("keys", keys, (np.uint64,), (None,))
    if positions is None:
        return keys, ALL
    if not len(positions):
        return keys[:0], ALL
    return keys, readable("positions", positions, (np.int64,), (None,))
