"""What the embedding store does: `python tests/benchmarks/bench_store.py [--dims 16 64 128] [--peer-python VENV/bin/python]`.

One thread, one table of ten million rows in a memory-mapped file, Adagrad; requests of 20,000 unique keys, Zipf 1.05, as an
embedding worker sends them.  Prints million rows/s of lookups, of updates, and of both (a row looked up and updated), and
beside them, in turn in the same run:

* a bare gather: the same rows copied out of the same memory, their slots known beforehand (no hash, no recency);
* with `--peer-python`, fbgemm's fused step (forward and backward), in a process of its own before and after ours, since both
  tables together need more memory than a small machine has.  An interpreter without fbgemm is skipped, and the output says so.

`--folder` says where the file goes: by default /dev/shm, where a parameter server has it.  `--memory private` takes private
memory instead.  Targets are the combined rates that a prototype reached on a 2-core EPYC machine.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persia.embedding.hashing import probe_hash
from persia.embedding.index_kernels import find
from persia.embedding.lookup_kernels import prefetch_row
from persia.embedding.rows import copy_row
from persia.embedding.spec import TableSpec
from persia.embedding.table import EmbeddingTable
from tests.benchmarks.real_runs import markdown
from tests.benchmarks.zipf_requests import zipf_requests

TARGETS = {16: 2.85, 64: 2.70, 128: 1.85}  # M rows/s looked up and updated
FILL_KEYS = 1 << 16
AHEAD = 16  # rows that a bare gather asks for before it copies them

Array = npt.NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def known_slots(hashes: Any, slots: Any, keys: Any) -> Any:
    """Return the slot of every key."""
    found = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        found[i] = find(hashes, slots, probe_hash(keys[i]) >> np.uint64(32), keys[i])
    return found


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def gather(values: Any, found: Any, width: Any, dim: Any, out: Any) -> None:
    """Copy the values of known slots, asking for rows some iterations ahead."""
    for i in range(found.shape[0]):
        if i + AHEAD < found.shape[0]:
            prefetch_row(values, found[i + AHEAD] * width, dim)
        copy_row(values, found[i] * width, out, i * dim, dim)


def filled(table: EmbeddingTable, rows: int, dim: int, seed: int) -> None:
    """Insert all keys, in no order."""
    keys = np.random.default_rng(seed).permutation(rows).astype(np.uint64)
    out = np.empty((FILL_KEYS, dim), np.float32)
    for start in range(0, rows, FILL_KEYS):
        part = keys[start : start + FILL_KEYS]
        table.lookup(part, out[: len(part)])


def timed(work: Callable[[int], None], requests: list[Array]) -> float:
    """Return million rows/s of a piece of work on every request."""
    began_s = time.perf_counter()
    for place in range(len(requests)):
        work(place)
    return sum(map(len, requests)) / (time.perf_counter() - began_s) / 1e6


def measure(options: argparse.Namespace, dim: int, requests: list[Array], folder: Path | None) -> tuple[dict[str, list[float]], float]:
    """Return million rows/s of each kind of work, repeat by repeat; and the table's resident bytes per row."""
    spec = TableSpec(name="bench", dim=dim, optimizer="adagrad", learning_rate=0.01, capacity_rows=options.rows, seed=1)
    with EmbeddingTable.create(spec, folder) as table:
        filled(table, options.rows, dim, options.seed)
        size = options.size
        out, gradients = np.empty((size, dim), np.float32), np.full((size, dim), 1e-3, np.float32)
        memory, shape = table._memory, table._shape
        slots = [known_slots(memory.hashes, memory.slots, keys) for keys in requests]

        def look_up(place: int) -> None:
            table.lookup(requests[place], out)

        def update(place: int) -> None:
            table.update(requests[place], gradients, number=place)
            table.forget(place)

        def both(place: int) -> None:
            look_up(place)
            update(place)

        works = {
            "lookup": look_up,
            "update": update,
            "both": both,
            "bare gather": lambda place: gather(memory.state, slots[place], shape.row_floats, dim, out.reshape(-1)),
        }
        rates: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(options.repeats + 1):
            for name, work in works.items():
                rate = timed(work, requests)
                if turn:  # the first warms up
                    rates[name].append(rate)
        return rates, table.resident_bytes_per_row


def fused(options: argparse.Namespace, dim: int, requests: list[Array], folder: Path) -> list[float]:
    """Return fbgemm's million rows/s, repeat by repeat; nothing where it cannot run, and why on the output."""
    if options.peer_python is None:
        return []
    path = folder / "requests.npy"
    np.save(path, np.stack(requests).astype(np.int64))
    script = str(Path(__file__).with_name("peer_store.py"))
    command = [options.peer_python, script, "--requests", str(path), "--rows", str(options.rows), "--dim", str(dim)]
    try:
        ended = subprocess.run([*command, "--repeats", str(options.repeats)], capture_output=True, text=True)
    except OSError as error:
        print(f"fbgemm is skipped: {error}")
        return []
    if ended.returncode:
        print(f"fbgemm is skipped: {options.peer_python} ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}")
        return []
    rates: list[float] = json.loads(ended.stdout.strip().splitlines()[-1])
    return rates


def row_of(options: argparse.Namespace, dim: int) -> list[str]:
    """Measure one dim and return its line of the table."""
    law = {"rows": options.rows, "exponent": options.zipf, "seed": options.seed, "unique": not options.repeated}
    requests = zipf_requests(**law, size=options.size, count=options.requests)
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=options.folder) as name, tempfile.TemporaryDirectory() as other:
        theirs = fused(options, dim, requests, Path(other))
        rates, row_bytes = measure(options, dim, requests, None if options.memory == "private" else Path(name) / "table")
        if theirs:
            theirs += fused(options, dim, requests, Path(other))
    lookup, update, both, bare = (statistics.median(rates[work]) for work in ("lookup", "update", "both", "bare gather"))
    best = max(rates["both"])
    target = TARGETS.get(dim)
    verdict = "" if target is None else f"{target} {'met' if both >= target else 'MISSED'}"
    line = [str(dim), f"{lookup:.2f}", f"{update:.2f}", f"{both:.2f}", f"{best:.2f}", verdict, f"{bare:.1f}", f"{both / bare:.2f}"]
    fbgemm = statistics.median(theirs) if theirs else None
    line += ["", ""] if fbgemm is None else [f"{fbgemm:.2f}", f"{both / fbgemm:.2f}"]
    return [*line, f"{row_bytes:.0f}"]


def main() -> None:
    """Measure every dim and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dims", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--zipf", type=float, default=1.05)
    parser.add_argument("--size", type=int, default=20_000, help="keys of a request")
    parser.add_argument("--repeated", action="store_true", help="keys as Zipf's law draws them, popular ones many times in a request")
    parser.add_argument("--requests", type=int, default=100, help="distinct requests")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", choices=["mapped", "private"], default="mapped")
    parser.add_argument("--folder", default="/dev/shm", help="where the mapped file goes")
    parser.add_argument("--peer-python", help="interpreter that can import fbgemm_gpu")
    options = parser.parse_args()
    place = f"a file in {options.folder}" if options.memory == "mapped" else "private memory"
    kind = "drawn" if options.repeated else "unique"
    print(f"{options.rows:,} rows in {place}, {options.size:,} {kind} keys a request, Zipf {options.zipf}, one thread; M rows/s")
    header = ["dim", "lookup", "update", "both", "best", "target", "bare gather", "both / gather", "fbgemm", "both / fbgemm", "bytes a row"]
    print(markdown(header, [row_of(options, dim) for dim in options.dims]))


if __name__ == "__main__":
    main()
