"""How a table lies in memory: the arrays that kernels work on, the header's words, and the numbers that stay the same.

Shapes: S slots (the capacity), W 4-byte words of a row, D dimensions, B buckets, J journal entries, C rows that are undone
together.  Slot S, one beyond the last, is the sentinel of the circular list of slots: its next slot holds the least
recently used row, its previous slot the most recently used one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from persia.embedding.spec import OPTIMIZERS, TableSpec

Array = npt.NDArray[Any]

EMPTY: Final = np.uint64(2**64 - 1)  # the key of a slot that holds no row

# Words of the header.
FORMAT: Final = 0
USED: Final = 1  # slots that have ever held a row; those beyond are not looked at
HOLES: Final = 2  # slots below USED without a row, all at the old end of the list
DIRTY: Final = 3  # not 0 while a kernel changes keys, list or index
HITS: Final = 4
MISSES: Final = 5
EVICTIONS: Final = 6
GRADIENT_ID_MISSES: Final = 7
NOT_ADMITTED: Final = 8
DRAWS: Final = 9  # admissions drawn so far
STEP: Final = 10
UNDO_ENTRY: Final = 11  # 1 + the journal entry whose rows are being changed; 0: none
UNDO_DONE: Final = 12  # that entry's progress before the change
UNDO_ROWS: Final = 13
HEADER_WORDS: Final = 512

JOURNAL_ENTRIES: Final = 4096
CHUNK_ROWS: Final = 128  # rows changed between two marks of the journal
PAGE_BYTES: Final = 4096
HUGE_PAGE_BYTES: Final = 2**21


class Memory(NamedTuple):
    """The arrays of a table, all one-dimensional: kernels compute their own positions."""

    header: Array  # i64[HEADER_WORDS]
    hashes: Array  # u64[B]: upper half of the key's hash, slot + 1; 0: empty
    slots: Array  # u64[2 (S + 1)]: key, links
    links: Array  # u32[4 (S + 1)]: the same bytes; words 2 and 3 of a slot are the previous and the next slot
    values: Array  # f32[S W], or fp16 as u16[2 S W]: a row's values begin it
    state: Array  # f32[S W]: the same bytes; a row's state follows its values
    undo_slots: Array  # i64[C]
    undo_rows: Array  # f32[C W]
    entry_number: Array  # i64[J]
    entry_used: Array  # i64[J]
    entry_rows: Array  # i64[J]
    entry_digest: Array  # u64[J]
    entry_step: Array  # i64[J]
    entry_done: Array  # i64[J]: the progress: keys dealt with


class Shape(NamedTuple):
    """The numbers of a table that never change while it lives."""

    dim: int
    state_dim: int
    row_values: int  # from one row's first value to the next row's, in elements of `values`
    row_floats: int  # the same in 4-byte words
    state_start: int  # words from a row's start to its state
    capacity: int
    optimizer: int
    learning_rate: np.float32
    init_bound: np.float32
    seed: np.uint64
    admission: np.uint64  # a draw at or above this is not admitted
    always_admit: bool
    journaled: bool


def shape_of(spec: TableSpec, *, journaled: bool) -> Shape:
    """Return the constants of a table; without a journal nothing is undone, since nothing outlives the process."""
    return Shape(
        dim=spec.dim,
        state_dim=spec.state_dim,
        row_values=spec.row_floats * (4 // spec.bytes_per_parameter),
        row_floats=spec.row_floats,
        state_start=spec.value_floats,
        capacity=spec.capacity_rows,
        optimizer=OPTIMIZERS.index(spec.optimizer),
        learning_rate=np.float32(spec.learning_rate),
        init_bound=np.float32(spec.init_bound),
        seed=np.uint64(spec.seed),
        admission=np.uint64(min(int(spec.admission_probability * 2**64), 2**64 - 1)),
        always_admit=spec.admission_probability >= 1.0,
        journaled=journaled,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A stretch of the table's memory: `count` elements of a type from byte `start`; `per_slot_bytes` where it grows with rows."""

    name: str
    dtype: npt.DTypeLike
    count: int
    start: int
    per_slot_bytes: int

    @property
    def size_bytes(self) -> int:
        """The bytes of the section."""
        return self.count * np.dtype(self.dtype).itemsize


def sections(spec: TableSpec) -> tuple[Section, ...]:
    """Return where each array of a table lies; those that grow with the rows come last, each on a page of its own.

    They are packed: where the page cache works in huge pages, touching an array fills all of the huge page around it, a
    gap before the next array too.  An array need not begin a huge page to lie in one.
    """
    slots, words = spec.capacity_rows + 1, spec.row_floats
    wanted: list[tuple[str, npt.DTypeLike, int, int]] = [
        ("header", np.int64, HEADER_WORDS, 0),
        *((f"entry_{name}", np.int64, JOURNAL_ENTRIES, 0) for name in ("number", "used", "rows", "step", "done")),
        ("entry_digest", np.uint64, JOURNAL_ENTRIES, 0),
        ("undo_slots", np.int64, CHUNK_ROWS, 0),
        ("undo_rows", np.float32, CHUNK_ROWS * words, 0),
        ("hashes", np.uint64, spec.buckets, 0),
        ("slots", np.uint64, 2 * slots, 16),
        ("state", np.float32, spec.capacity_rows * words, 4 * words),
    ]
    return tuple(_placed(wanted))


def _placed(wanted: list[tuple[str, npt.DTypeLike, int, int]]) -> Iterator[Section]:
    end = 0
    for name, dtype, count, per_slot_bytes in wanted:
        size_bytes = count * np.dtype(dtype).itemsize
        start = -(-end // PAGE_BYTES) * PAGE_BYTES
        end = start + size_bytes
        yield Section(name=name, dtype=dtype, count=count, start=start, per_slot_bytes=per_slot_bytes)
