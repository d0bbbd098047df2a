"""One seed, one digest: twice, in two processes that hash differently, on both engines; another seed, another digest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from simulator import SimulationResult
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL
from tests.support import ROOT, persia_environment

MODES = ("sync", "async", "naive-hybrid", "hybrid")
FIDELITIES = ("phase", "message")
HASHED = (("hybrid", "phase"), ("hybrid", "message"), ("async", "phase"), ("sync", "message"))
PROGRAM = f"""
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL
for mode, fidelity in {HASHED}:
    print(simulate(SMALL, overrides=[f"schedule.mode={{mode}}", f"simulation.fidelity={{fidelity}}"], steps=12).digest)
"""


def run(mode: str, fidelity: str, *more: str, seed: int | None = None) -> SimulationResult:
    return simulate(SMALL, overrides=(f"schedule.mode={mode}", f"simulation.fidelity={fidelity}", *more), steps=12, seed=seed)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("mode", MODES)
def test_both_engines_give_one_digest_and_one_result(mode: str, fidelity: str) -> None:
    with_simpy, with_heapq = run(mode, fidelity), run(mode, fidelity, "simulation.engine=heapq")
    assert with_simpy.digest == with_heapq.digest
    assert with_simpy.throughput == with_heapq.throughput
    assert with_simpy.staleness == with_heapq.staleness
    assert with_simpy.utilisation == with_heapq.utilisation
    assert with_simpy.events == with_heapq.events
    assert (with_simpy.engine, with_heapq.engine) == ("simpy", "heapq")


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("mode", MODES)
def test_a_seed_is_one_run_and_another_seed_another(mode: str, fidelity: str) -> None:
    digests = [run(mode, fidelity, seed=seed).digest for seed in (3, 3, 4)]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
    assert digests[0] == run(mode, fidelity, "simulation.seed=3").digest


def test_modes_and_fidelities_do_not_share_a_digest() -> None:
    digests = [run(mode, fidelity).digest for mode in ("sync", "async", "hybrid") for fidelity in FIDELITIES]
    assert len(set(digests)) == len(digests)


def test_the_digest_depends_neither_on_how_python_hashes_nor_on_the_threads_of_blas() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=persia_environment({"PYTHONHASHSEED": hash_seed, "OPENBLAS_NUM_THREADS": threads}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed, threads in (("0", "1"), ("4242", "2"))
    ]
    outputs = [process.communicate(timeout=100)[0].split() for process in started]
    assert outputs[0] == outputs[1] == [run(mode, fidelity).digest for mode, fidelity in HASHED]
