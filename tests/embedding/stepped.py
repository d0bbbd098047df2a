"""Stops a process after every single instruction and attaches to a copy of what a kill there would leave; a program of its own.

`python -m tests.embedding.stepped FOLDER` prints for each case how many different states there were.  The bytes of a mapped
file at an instruction are what a successor finds if the process is killed there, so nothing needs to be killed: a debugger's
single steps (ptrace) make the process visit every state, and each new one is recovered from.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from persia.embedding import layout, lookup_kernels
from persia.embedding.operands import readable
from persia.embedding.spec import Rows, TableSpec
from persia.embedding.storage import DATA_NAME, MANIFEST_NAME, Storage
from persia.embedding.table import ALL, EmbeddingTable
from tests.embedding.table_checks import check, spec_of, u64

PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
NOT_ALLOWED = 77

LOOKUP = u64(3, 6, 6, 1, 20, 4, 21)  # with room for 6 rows: hits in the middle, the newest and the oldest; rows 2 and 5 leave
REPEATED = np.concatenate([np.arange(130, dtype=np.uint64) % np.uint64(7), u64(99, 2)])  # more than a chunk, repeats, unknown keys

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long

# What is stepped through is what a preparation returns: kernels, and of the interpreter as little as can be.
Prepare = Callable[[EmbeddingTable], Callable[[], object]]


def lookup(table: EmbeddingTable) -> Callable[[], object]:
    out = np.empty(len(LOOKUP) * table.spec.dim, np.float32)
    keys = readable("keys", LOOKUP, (np.uint64,), (None,))
    return partial(lookup_kernels.lookup, table._memory, table._shape, keys, ALL, out)


def update(table: EmbeddingTable) -> Callable[[], object]:
    gradients = np.random.default_rng(3).normal(size=(len(REPEATED), table.spec.dim)).astype(np.float32)
    return partial(table.update, REPEATED, gradients, number=12)


def recover(table: EmbeddingTable) -> Callable[[], object]:
    return table.recover


def start(spec: TableSpec, folder: Path) -> None:
    """Make a table with rows 1 to 6, the first the oldest, of which some were trained by an update that is still pending."""
    with EmbeddingTable.create(spec, folder) as table:
        keys = np.arange(1, 7, dtype=np.uint64)
        table.lookup(keys, np.empty((6, spec.dim), np.float32))
        table.update(keys[::2], np.ones((3, spec.dim), np.float32), number=11)


def visited(folder: Path, prepare: Prepare) -> list[bytes]:
    """Return the different contents of the table's file while a process attaches to it and works on it, in their order."""
    child = os.fork()
    if child == 0:
        traced = libc.ptrace(PTRACE_TRACEME, 0, None, None)
        if traced != 0:
            os._exit(NOT_ALLOWED)
        try:
            table = EmbeddingTable(*Storage.attach(folder))
            work = prepare(table)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status) or 1)
    return list(dict.fromkeys(single_steps(child, folder)))


def single_steps(child: int, folder: Path) -> list[bytes]:
    """Step a stopped child to its end and return the file's contents after each instruction that changed it."""
    with (folder / DATA_NAME).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    seen = [data[:]]
    while True:
        libc.ptrace(PTRACE_SINGLESTEP, child, None, None)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the stepped process failed"
            return seen
        if data[:] != seen[-1]:
            seen.append(data[:])


def copied(state: bytes, folder: Path, into: Path) -> Path:
    """Write one visited state as a table of its own."""
    into.mkdir(exist_ok=True)
    (into / DATA_NAME).write_bytes(state)
    (into / MANIFEST_NAME).write_bytes((folder / MANIFEST_NAME).read_bytes())
    return into


def same(one: Rows, other: Rows) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("keys", "values", "state"))


def by_key(rows: Rows) -> dict[int, Any]:
    return {key: (row.tolist(), state.tolist()) for key, row, state in zip(rows.keys.tolist(), rows.values, rows.state, strict=True)}


def same_rows(one: Rows, other: Rows) -> bool:
    return len(one.keys) == len(other.keys) and by_key(one) == by_key(other)


def no_row_is_lost_or_torn(found: Rows, before: Rows, after: Rows) -> None:
    old, new, now = by_key(before), by_key(after), by_key(found)
    assert len(now) == len(found.keys)
    assert old.keys() & new.keys() <= now.keys(), "a row is lost"
    for key, row in now.items():
        assert row in (old.get(key), new.get(key)), f"row {key} is torn"


def try_case(name: str, folder: Path, prepare: Prepare) -> list[bytes]:
    """Recover from every state of one case and return the states."""
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch, "first")
        copied((folder / DATA_NAME).read_bytes(), folder, first)
        with EmbeddingTable.attach(first) as table:
            before = table.export()
            prepare(table)()
            after, pending, step = table.export(), table.pending(), table.step
        states = visited(folder, prepare)
        for number, state in enumerate(states):
            with EmbeddingTable.attach(copied(state, folder, Path(scratch, "state"))) as table:
                check(table)
                if prepare is lookup:
                    no_row_is_lost_or_torn(table.export(), before, after)
                prepare(table)()
                check(table)
                # Whoever is killed while putting the list right may lose the order of its rows, but no row.
                right = same if prepare is not recover else same_rows
                assert right(table.export(), after), f"{name}, state {number}: another result than without a kill"
                assert table.pending() == pending
                assert table.step == step
    print(f"{name}: {len(states)} states")
    return states


def main() -> None:
    layout.JOURNAL_ENTRIES = 8  # type: ignore[misc] # smaller files are compared faster
    folder = Path(sys.argv[1])
    for prepare, bytes_per_parameter in ((lookup, 4), (update, 2)):
        spec = spec_of(dim=2, capacity_rows=6, optimizer="adagrad", bytes_per_parameter=bytes_per_parameter)
        place = folder / prepare.__name__
        start(spec, place)
        states = try_case(prepare.__name__, place, prepare)
        # Killed, and killed again while putting that right.
        again = copied(states[len(states) // 2], place, folder / f"recover-{prepare.__name__}")
        try_case(f"recover from {prepare.__name__}", again, recover)


if __name__ == "__main__":
    main()
