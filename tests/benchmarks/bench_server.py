"""What one parameter server does over its real socket: `python tests/benchmarks/bench_server.py [--dims 16 64 128]`.

A server's process as a run starts it (forked), one table of ten million rows in a memory-mapped file, Adagrad,
one thread; this process plays the embedding worker.  Requests of 20,000 unique keys, Zipf 1.05, are looked up and then
updated.  Prints, beside the figures of the original's server:

* rows per second of the server's CPU time (all its threads, sockets too), looked up and updated; with it microseconds a row;
* rows per second of wall time of lookups, of updates and of both, one request at a time and with two requests under way;
* resident bytes per row: growth of the server's resident memory per row while it was filled, and all of it per row.

The original's figures were measured on a 2-core EPYC box, ten million rows, the same requests over its own RPC, with 100
internal shards.  Two caveats belong to the ratio.  Its build does not inline its AVX calls, so its update is slower than it
need be.  And the machine here may be another, or another day's: only the original measured side by side would make the ratio
exact.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persia.runtime.plan import make_plan
from persia.runtime.processes import Processes
from persia.runtime.session import Session, socket_endpoints
from persia.runtime.transport import Kind, Mailbox, Message
from persia.scenario import Scenario, load_scenario
from tests.benchmarks.real_runs import markdown
from tests.benchmarks.zipf_requests import zipf_requests

Array = npt.NDArray[Any]

FILL_KEYS = 1 << 17
FILL_NUMBER = 1 << 40  # numbers of the requests that fill the table: far from those of batches
PATIENCE_S = 120.0
CPU_BAR = 4.0  # times the original's rows per CPU second


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The original's server, measured on a 2-core EPYC box; its build does not inline AVX calls.

    `cpu_us` of the server for a row looked up and updated; `bytes_per_row` resident, as growth, and with the tables that it
    allocates at its start; `both_m` million rows/s looked up and updated over one connection, and over two.
    """

    cpu_us: float
    bytes_per_row: float
    all_bytes_per_row: float
    both_m: tuple[float, float]


ORIGINAL = {
    16: Original(cpu_us=4.2, bytes_per_row=166, all_bytes_per_row=222, both_m=(0.23, 0.44)),
    64: Original(cpu_us=5.3, bytes_per_row=552, all_bytes_per_row=609, both_m=(0.18, 0.36)),
    128: Original(cpu_us=6.4, bytes_per_row=1077, all_bytes_per_row=1133, both_m=(0.15, 0.28)),
}


def scenario_of(options: argparse.Namespace, dim: int) -> Scenario:
    """Return a run of one server, one worker and one rank; only its server is started."""
    changes = [
        f"model.features=[{{name: rows, rows: {options.rows}, dim: {dim}, optimizer: adagrad}}]",
        f"schedule.precision={{server_worker: {options.wire}, worker_rank: fp32}}",
        "cluster.machine_types.small.ram_gib=64",
    ]
    changes += [f"cluster.tiers.{tier}.processes_per_machine=1" for tier in ("parameter_server", "embedding_worker", "nn_worker")]
    return load_scenario("planted-small", changes)


class Served:
    """A server's process, and this process's inboxes as its coordinator and its embedding worker."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        """Start the server in a folder that holds its sockets and its table, and wait until it is ready."""
        plan = make_plan(scenario)
        (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False))
        session = Session(
            scenario=str(folder / "scenario.yaml"),
            attempt=str(folder / "attempt"),
            state=str(folder),
            checkpoints=str(folder / "checkpoints"),
            restore=None,
            first_step=0,
            began_at_s=time.time(),
            token=secrets.token_hex(16),
            endpoints=socket_endpoints(folder, plan.processes()),
            store=None,
        )
        session.write(folder / "session.json")
        self._coordinator = self._mailbox(session, "coordinator")
        self._worker = self._mailbox(session, "embedding_worker")
        self._worker.connect("parameter_server", 0, session.endpoints["parameter_server"][0])
        self._processes = Processes(folder / "session.json", folder / "errors")
        self.pid = self._processes.start("parameter_server", 0).child.pid
        ready = self._coordinator.receive(PATIENCE_S)
        while isinstance(ready, Message) and ready.kind is not Kind.READY:
            ready = self._coordinator.receive(PATIENCE_S)
        if not isinstance(ready, Message):
            raise RuntimeError("the server did not become ready")

    @staticmethod
    def _mailbox(session: Session, role: str) -> Mailbox:
        return Mailbox(endpoint=session.endpoints[role][0], role=role, index=0, token=bytes.fromhex(session.token))

    def send(self, kind: Kind, number: int, arrays: Sequence[Array]) -> None:
        """Queue a request."""
        if not self._worker.send("parameter_server", 0, kind, number, arrays):
            raise RuntimeError("a request could not be queued")

    def answer(self) -> Message:
        """Wait for the next answer; what the server tells its coordinator is dropped."""
        while isinstance(self._coordinator.receive(0.0), Message):
            pass
        message = self._worker.receive(PATIENCE_S)
        if not isinstance(message, Message):
            raise RuntimeError("the server does not answer")
        return message

    def cpu_s(self) -> float:
        """Return the CPU seconds of the server's process so far, user and system, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> float:
        """Return the resident memory of the server's process, its mapped table included."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmRSS:"))

    def close(self) -> None:
        """End the process."""
        self._processes.kill()
        for mailbox in (self._worker, self._coordinator):
            with suppress(OSError):
                mailbox.close()


def fill(served: Served, rows: int, seed: int) -> None:
    """Let the server insert all rows, in no order."""
    keys = np.random.default_rng(seed).permutation(rows).astype(np.uint64)
    for place, start in enumerate(range(0, rows, FILL_KEYS)):
        served.send(Kind.ASK_ROWS, FILL_NUMBER + place, (keys[start : start + FILL_KEYS],))
        served.answer()


def drive(served: Served, requests: list[Array], gradients: Array, kinds: Sequence[Kind], first: int, under_way: int) -> float:
    """Send every request in each of the kinds, the next kind when the one before is answered; return the seconds it took.

    `under_way` requests are sent before the first answer is waited for; `first` is the number of the first one.
    """
    began_s = time.perf_counter()

    def send(place: int, kind: Kind) -> None:
        served.send(kind, first + place, (requests[place],) if kind is Kind.ASK_ROWS else (requests[place], gradients))

    sent = min(under_way, len(requests))
    for place in range(sent):
        send(place, kinds[0])
    done = 0
    while done < len(requests):
        message = served.answer()
        kind = Kind.ASK_ROWS if message.kind is Kind.ROWS else Kind.UPDATE
        step = kinds.index(kind) + 1
        if step < len(kinds):
            send(message.number - first, kinds[step])
            continue
        done += 1
        if sent < len(requests):
            send(sent, kinds[0])
            sent += 1
    return time.perf_counter() - began_s


def measure(options: argparse.Namespace, dim: int, served: Served) -> dict[str, float]:
    """Return medians over the repeats: million rows/s of wall time, and the server's CPU microseconds a row."""
    requests = zipf_requests(rows=options.rows, exponent=options.zipf, size=options.size, count=options.requests, seed=options.seed)
    gradients = np.full((options.size, dim), 1e-3, np.float16 if options.wire == "fp16" else np.float32)
    rows = float(options.size * len(requests))
    both = (Kind.ASK_ROWS, Kind.UPDATE)
    ways = {"lookup": (both[:1], 1), "update": (both[1:], 1), "both": (both, 1), "both, two under way": (both, 2)}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    first = 0
    for turn in range(options.repeats + 1):
        for name, (kinds, under_way) in ways.items():
            cpu_s = served.cpu_s()
            took_s = drive(served, requests, gradients, kinds, first, under_way)
            first += len(requests)
            if turn:  # the first warms up
                wall[name].append(rows / took_s / 1e6)
                cpu[name].append(1e6 * (served.cpu_s() - cpu_s) / rows)
    return {
        **{f"{name} wall": statistics.median(values) for name, values in wall.items()},
        **{f"{name} cpu": statistics.median(values) for name, values in cpu.items()},
    }


def lines_of(options: argparse.Namespace, dim: int) -> tuple[list[str], list[str]]:
    """Measure one dim; return its lines of the two tables."""
    with tempfile.TemporaryDirectory(prefix="bench-server-", dir=options.folder) as name:
        served = Served(scenario_of(options, dim), Path(name))
        try:
            before = served.resident_bytes()
            fill(served, options.rows, options.seed)
            resident = served.resident_bytes()
            found = measure(options, dim, served)
        finally:
            served.close()
    growth, whole = (resident - before) / options.rows, resident / options.rows
    cpu_us = found["both cpu"]
    speed = [f"{found[way + ' wall']:.2f}" for way in ("lookup", "update", "both", "both, two under way")]
    parts = [f"{found['lookup cpu']:.2f} + {found['update cpu']:.2f}", f"{cpu_us:.2f}", f"{1 / cpu_us:.2f}"]
    original = ORIGINAL.get(dim)
    if original is None:
        return [str(dim), *parts, "", "", f"{growth:.0f}", f"{whole:.0f}", "", ""], [str(dim), *speed, ""]
    ratio = original.cpu_us / cpu_us
    verdict = f"{ratio:.1f} {'met' if ratio >= CPU_BAR else 'MISSED'}"
    fewer = "met" if growth < original.bytes_per_row else "MISSED"
    theirs = [f"{original.bytes_per_row:.0f} ({original.all_bytes_per_row:.0f})", fewer]
    table = [str(dim), *parts, f"{original.cpu_us}", verdict, f"{growth:.0f}", f"{whole:.0f}", *theirs]
    return table, [str(dim), *speed, f"{original.both_m[0]} ({original.both_m[1]})"]


def main() -> None:
    """Measure every dim and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dims", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--zipf", type=float, default=1.05)
    parser.add_argument("--size", type=int, default=20_000, help="keys of a request")
    parser.add_argument("--requests", type=int, default=100, help="distinct requests")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wire", choices=["fp32", "fp16"], default="fp32", help="rows and gradients on the wire")
    parser.add_argument("--folder", default="/dev/shm", help="where sockets and table go: in memory, as in a run")
    options = parser.parse_args()
    lines = [lines_of(options, dim) for dim in options.dims]
    print(f"One server, {options.rows:,} rows, Adagrad, {options.size:,} unique keys a request, Zipf {options.zipf}, {options.wire} wire\n")
    header = ["dim", "lookup + update alone, CPU us a row", "both, CPU us a row", "M rows per CPU second", "original, CPU us a row"]
    header += [f"times the original's (bar {CPU_BAR:.0f})", "bytes a row (growth)", "(all)", "original (all)", "fewer"]
    print(markdown(header, [table for table, _ in lines]))
    print("\nThe original's figures: measured on a 2-core EPYC box; its build does not inline AVX calls, so its update could be faster.\n")
    header = ["dim", "lookup, M rows/s", "update", "both", "both, two under way", "original, both (two connections)"]
    print(markdown(header, [speed for _, speed in lines]))


if __name__ == "__main__":
    main()
