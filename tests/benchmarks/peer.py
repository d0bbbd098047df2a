"""This runtime beside TorchRec and plain PyTorch: `python tests/benchmarks/peer.py --peer-python VENV/bin/python [--dims 16 64]`.

All train the same DLRM (13 dense features through 512-256-64; 26 features of ten IDs each; top 512-256-1) on the same
samples: batches that this project's synthetic data set draws (Zipf 1.05 over 100,000 rows a feature), kept in memory and
repeated, so that drawing costs nobody anything.  Dense part fp32 with Adam, rows fp32 with element-wise Adagrad, batch
2,048 a process, both cores.  Prints samples/s of every turn, medians, the ratios turn by turn, and the time of each stage of
our side; and samples per CPU second of all processes of a side, which a busy machine disturbs less (a process that waits in a
loop pays for it).  In every turn all sides run one after another; which begins changes from turn to turn.

Our side is a real run, all its processes and sockets included: loader, embedding worker, parameter server, ranks.
`--layout 2x1` means two ranks of one thread; the other processes have one thread each, and share the cores with them.  On two
cores that layout is the fastest of 1x1 (one core waits for the rank), 1x2 (both threads of the rank wait whenever another
process takes one core) and 2x1; more servers or workers add processes but no cores.
The peers' side is `peer_models.py` as N processes of T threads (`--peer-layouts 2x1 1x2`), where a peer's best layout counts.

The peers have an interpreter of their own, `--peer-python`.  In a new virtual environment: `pip install torch==2.13.0
torchrec==1.8.0 numpy`, then `pip uninstall fbgemm-gpu` (torchrec brings the CUDA build, which lies in the same folder), then
`pip install --force-reinstall --no-deps fbgemm-gpu-cpu==1.8.0`.  A peer that it cannot import is skipped, and the output says so.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persia.runtime.node import open_run_data
from persia.runtime.plan import make_plan
from persia.scenario import Scenario, load_scenario
from tests.benchmarks.real_runs import Trained, markdown, train

FEATURES, IDS, DENSE_FEATURES, ZIPF = 26, 10, 13, 1.05
TOP = (512, 256)
LEARNING_RATE, DENSE_LEARNING_RATE = 0.01, 1e-3
BARS = {"torchrec": 1.2, "torch": 1.8}  # least ratios of samples/s
AIMS = {"torchrec": 1.5, "torch": 2.5}
MODULES = {"torchrec": "torchrec, fbgemm_gpu", "torch": "torch"}
PEER_TIMEOUT_S = 300.0
STAGES = (
    ("loader", "read"),
    ("embedding_worker", "dedup"),
    ("embedding_worker", "pool"),
    ("embedding_worker", "un-pool"),
    ("parameter_server", "lookup"),
    ("parameter_server", "update"),
    ("nn_worker", "train"),
    ("nn_worker", "lookup"),
    ("nn_worker", "push"),
)


def bottom_layers(dim: int) -> list[int]:
    """Return the hidden widths below the dot products, as `peer_models.py` has them: 512-256-64, and then the dim."""
    return [512, 256] if dim == 64 else [512, 256, 64]


def scenario_of(options: argparse.Namespace, dim: int) -> Scenario:
    """Return our side's scenario: one process of each tier, ranks and threads as asked."""
    ranks, threads = map(int, options.layout.split("x"))
    steps = max(options.skip_steps + 20, round(options.seconds * options.expected / (options.batch * ranks)))
    feature = f"name: categorical, count: {FEATURES}, rows: {options.rows}, dim: {dim}, ids_per_sample: {IDS}, zipf: {ZIPF}"
    dense = f"architecture: dlrm, dense_features: {DENSE_FEATURES}, bottom_layers: {bottom_layers(dim)}, layers: {list(TOP)}"
    return load_scenario(
        "planted-small",
        [
            f"model.features=[{{{feature}, optimizer: adagrad}}]",
            f"model.dense={{{dense}, optimizer: adam, learning_rate: {DENSE_LEARNING_RATE}, precision: {options.precision}}}",
            f"model.embedding_learning_rate={LEARNING_RATE}",
            f"workload.batch_size={options.batch}",
            f"workload.samples={steps * ranks * options.batch}",
            "workload.evaluate_every_steps=0",
            "workload.data.held_out_samples=2048",
            f"workload.data.distinct_batches={options.batches}",
            f"schedule.staleness_permits={options.permits}",
            f"schedule.precision={{server_worker: fp32, worker_rank: {options.wire}}}",
            "schedule.request_timeout=60s",
            f"cluster.tiers.nn_worker.processes_per_machine={ranks}",
            f"cluster.tiers.nn_worker.threads_per_process={threads}",
            f"cluster.tiers.embedding_worker.processes_per_machine={options.workers}",
            f"cluster.tiers.parameter_server.processes_per_machine={options.servers}",
            *options.set,
        ],
    )


def save_batches(scenario: Scenario, count: int, path: Path) -> None:
    """Write the batches that our side will train as the peers read them: labels [N,B], dense [N,B,13], ids [N,F,B,k]."""
    data = open_run_data(make_plan(scenario))
    batches = [data.batch(number) for number in range(count)]
    samples = len(batches[0].labels)
    ids = np.stack([batch.groups[0].ids.reshape(FEATURES, samples, IDS) for batch in batches])
    np.savez(path, labels=np.stack([batch.labels for batch in batches]), dense=np.stack([batch.dense for batch in batches]), ids=ids)


def importable(python: str, modules: str) -> bool:
    """Return whether an interpreter is there and can import the modules."""
    try:
        return subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode == 0
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_peer(options: argparse.Namespace, backend: str, layout: str, dim: int, batches: Path) -> dict[str, float]:
    """Return what one run of a peer says of itself; raises CalledProcessError where a process of it fails."""
    world, threads = map(int, layout.split("x"))
    port = free_port()
    common = [options.peer_python, str(Path(__file__).with_name("peer_models.py")), "--backend", backend, "--batches", str(batches)]
    common += ["--world", str(world), "--port", str(port), "--threads", str(threads), "--features", str(FEATURES)]
    common += ["--rows", str(options.rows), "--dim", str(dim), "--seconds", str(options.seconds)]
    common += ["--learning-rate", str(LEARNING_RATE), "--dense-learning-rate", str(DENSE_LEARNING_RATE)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes = [
        subprocess.Popen([*common, "--rank", str(rank)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        for rank in range(world)
    ]
    try:
        text, _ = processes[0].communicate(timeout=PEER_TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    lines = text.strip().splitlines()
    if not lines:
        raise subprocess.CalledProcessError(1, common)
    said: dict[str, float] = json.loads(lines[-1])
    return said


def stage_lines(trained: Trained, cpu_s: dict[str, float]) -> list[str]:
    """Return a line for each stage: its milliseconds a batch; a rank's lookup and push are its waits for the others."""
    batches = max(1, len(trained.outcome.trained_s))
    batch_size, stages = trained.outcome.plan.batch_size, trained.result["stages_s"]
    lines = [f"    {tier:17} {name:8} {1e3 * stages[tier].get(name, 0.0) / batches:8.1f} ms a batch" for tier, name in STAGES]
    lines.append("    CPU ms a batch: " + ", ".join(f"{role} {1e3 * batch_size * used:.1f}" for role, used in cpu_s.items()))
    lines.append(f"    version staleness {trained.staleness:.1f} updates")
    return lines


@dataclass(slots=True)
class Side:
    """One side's turns: samples/s, and samples per CPU second of all its processes."""

    per_s: list[float] = field(default_factory=list)
    per_cpu_s: list[float] = field(default_factory=list)

    def add(self, name: str, per_s: float, per_cpu_s: float, loss: float) -> None:
        self.per_s.append(per_s)
        self.per_cpu_s.append(per_cpu_s)
        print(f"  turn {len(self.per_s)}: {name:16} {per_s:8,.0f} samples/s, {per_cpu_s:8,.0f} per CPU second, loss {loss:.4f}", flush=True)


def measure(options: argparse.Namespace, dim: int, peers: list[str]) -> dict[str, Side]:
    """Return every side's turns; `ours` and PEER LAYOUT for each layout of each peer."""
    sides: dict[str, Side] = {"ours": Side(), **{f"{peer} {layout}": Side() for peer in peers for layout in options.peer_layouts}}
    scenario = scenario_of(options, dim)
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        batches = Path(folder) / "batches.npz"
        save_batches(scenario, options.batches, batches)
        for turn in range(options.turns):
            names = list(sides)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name == "ours":
                    trained = train(scenario)
                    cpu_s = trained.cpu_s_per_sample(options.skip_steps)
                    speed = trained.samples_per_s(options.skip_steps)
                    sides[name].add(f"ours {options.layout}", speed, 1 / sum(cpu_s.values()), trained.loss)
                    print("\n".join(stage_lines(trained, cpu_s)), flush=True)
                else:
                    said = run_peer(options, *name.split(), dim, batches)
                    sides[name].add(name, said["samples_per_s"], options.batch / said["cpu_s_per_batch"], said["loss"])
    return sides


def table(sides: dict[str, Side], options: argparse.Namespace, peers: list[str]) -> str:
    """Return medians, and the median of the ratios turn by turn to each peer's better layout."""
    rows = [
        [name, f"{median(side.per_s):,.0f}", f"{min(side.per_s):,.0f} to {max(side.per_s):,.0f}", f"{median(side.per_cpu_s):,.0f}", ""]
        for name, side in sides.items()
    ]
    for peer in peers:
        layouts = [sides[f"{peer} {layout}"] for layout in options.peer_layouts]
        ratios = [ours / max(side.per_s[turn] for side in layouts) for turn, ours in enumerate(sides["ours"].per_s)]
        cpu_ratio = median(sides["ours"].per_cpu_s) / max(median(side.per_cpu_s) for side in layouts)
        ratio = median(ratios)
        verdict = "MISSED" if ratio < BARS[peer] else "met" if ratio < AIMS[peer] else "met, the aim too"
        turns = ", ".join(f"{value:.2f}" for value in ratios)
        rows.append([f"ours / {peer}, its better layout", f"{ratio:.2f}", turns, f"{cpu_ratio:.2f}", f"{BARS[peer]} {verdict}"])
    return markdown(["side", "samples/s, median", "turns", "per CPU second", "bar"], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    say: Any = parser.add_argument
    say("--peer-python", help="interpreter of the peers' virtual environment; without it our side runs alone")
    say("--peers", nargs="+", choices=list(MODULES), default=list(MODULES))
    say("--peer-layouts", nargs="+", default=["2x1", "1x2"], help="processes x threads of each peer")
    say("--dims", nargs="+", type=int, default=[16, 64])
    say("--turns", type=int, default=3)
    say("--seconds", type=float, default=15.0, help="about how long each side is measured in a turn")
    say("--batch", type=int, default=2048, help="samples of a process")
    say("--rows", type=int, default=100_000, help="rows of a feature's table")
    say("--batches", type=int, default=16, help="distinct batches")
    say("--layout", default="2x1", help="our ranks x threads of each")
    say("--workers", type=int, default=1, help="our embedding workers")
    say("--servers", type=int, default=1, help="our parameter servers")
    say("--permits", type=int, default=3, help="our staleness permits of a rank")
    say("--wire", default="fp32", help="our precision between embedding worker and rank")
    say("--precision", default="fp32", help="our dense arithmetic; other than fp32 it is no like-for-like comparison")
    say("--skip-steps", type=int, default=24, help="our first steps, which insert most rows, are left out of its measurement")
    say("--expected", type=float, default=20_000.0, help="samples/s from which our number of steps is worked out")
    say("--set", nargs="*", default=[], help="further overrides of our scenario, PATH=VALUE")
    return parser.parse_args()


def main() -> None:
    """Run all sides in turn, dim by dim, and print."""
    options = parse()
    peers = []
    for peer in options.peers:
        if options.peer_python and importable(options.peer_python, MODULES[peer]):
            peers.append(peer)
        else:
            print(f"{peer} is skipped: {options.peer_python or 'no --peer-python'} cannot import {MODULES[peer]}")
    for dim in options.dims:
        print(f"dim {dim}, {IDS} IDs of each of {FEATURES} features, batch {options.batch:,}, {os.cpu_count()} cores", flush=True)
        sides = measure(options, dim, peers)
        print(f"\nDim {dim}\n\n{table(sides, options, peers)}\n", flush=True)


if __name__ == "__main__":
    main()
