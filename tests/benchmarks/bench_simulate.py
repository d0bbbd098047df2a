"""What a simulation costs: `python tests/benchmarks/bench_simulate.py [--steps 1000] [--repeats 3]`.

Prints
(a) wall time and peak memory of `persia simulate scenarios/persia-100t.yaml --steps 1000 --json` as a process of its own
    (the promise: at most 10 s and 1 GiB on a machine of two cores);
(b) processor time per rank-batch with 64 and with 1,024 accelerators, all other tiers in proportion (the promise: at most
    1.3 times as long), the two sizes in turn, medians over the repeats and their ratio;
(c) where the time goes: events a second on either engine, and the functions that took most of one run.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from simulator.run import simulate  # noqa: E402 (the checkout need not be installed)

SCENARIO = ROOT / "scenarios" / "persia-100t.yaml"
TIMES_LARGER = 16
COUNTS = {"loader": 8, "embedding_worker": 100, "parameter_server": 30, "nn_worker": 8}
GIB = 2**30


def command_line(steps: int) -> None:
    """Run the command as a user does; print its wall time, its peak memory and its own account of events."""
    command = [sys.executable, "-m", "persia", "simulate", str(SCENARIO), "--steps", str(steps), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read() if process.stdout else ""))
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    result = json.loads("".join(output))
    peak_gib = usage.ru_maxrss * 1024 / GIB
    print(f"(a) {steps:,} steps of 64 ranks as a process: {wall_s:.2f} s of wall time, {peak_gib:.3f} GiB at most")
    print(f"    {result['events']:,} events; {result['throughput']['samples_per_s']['mean']:,.0f} samples/s simulated")


def larger(times: int) -> list[str]:
    """Return the overrides that multiply every tier."""
    return [f"cluster.tiers.{tier}.count={count * times}" for tier, count in COUNTS.items()]


def seconds_per_rank_batch(times: int, steps: int) -> float:
    """Return processor seconds per batch of one rank, of which a run has steps x ranks; set-up and report included."""
    began_s = time.process_time()
    result = simulate(SCENARIO, overrides=larger(times), steps=steps)
    return (time.process_time() - began_s) / (result.steps * result.ranks)


def growth(steps: int, repeats: int) -> None:
    """Print the time per rank-batch of both sizes, taken in turn so that both meet the same neighbours.

    Both simulate the same number of steps: with fewer, the larger would be charged a larger share of its warm-up.
    """
    sizes = {64: 1, 64 * TIMES_LARGER: TIMES_LARGER}
    for times in sizes.values():
        seconds_per_rank_batch(times, 10)  # caches of popularity and catalogue
    taken_s: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size, times in sizes.items():
            taken_s[size].append(seconds_per_rank_batch(times, steps))
    medians_s = {size: statistics.median(values) for size, values in taken_s.items()}
    for size, values in taken_s.items():
        listed = ", ".join(f"{1e6 * value:.1f}" for value in values)
        print(f"(b) {size:>5,} accelerators, {steps} steps: {1e6 * medians_s[size]:6.1f} us a rank-batch (median of {listed})")
    first, second = medians_s.values()
    print(f"    ratio {second / first:.2f}")


def profile(steps: int) -> None:
    """Print events a second on both engines, and the functions in which one run spends most."""
    for engine in ("simpy", "heapq"):
        began_s = time.process_time()
        result = simulate(SCENARIO, overrides=[f"simulation.engine={engine}"], steps=steps)
        taken_s = time.process_time() - began_s
        print(f"(c) {engine}: {result.events:,} events in {taken_s:.2f} s, {result.events / taken_s:,.0f} a second")
    profiler = cProfile.Profile()
    profiler.enable()
    simulate(SCENARIO, steps=steps)
    profiler.disable()
    statistics_of = pstats.Stats(profiler)
    statistics_of.strip_dirs().sort_stats("tottime").print_stats(18)


def main(arguments: Sequence[str]) -> None:
    """Run all three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=1000, help="steps of part (a)")
    parser.add_argument("--growth-steps", type=int, default=60, help="steps of part (b)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of part (b)")
    chosen = parser.parse_args(arguments)
    command_line(chosen.steps)
    growth(chosen.growth_steps, chosen.repeats)
    profile(min(chosen.steps, 150))


if __name__ == "__main__":
    main(sys.argv[1:])
