"""Measures what the reduction of dense gradients costs: `python -m persia.runtime.rig_reduce RANK RANKS HOST:PORT SCENARIO...`.

Each rank trains very small batches of each scenario twice: alone, and with the reduction of the scenario's mode.  What the
second takes more of the processor is the reduction's, and what an all-reduce of one number takes beyond its work is waiting
for messages; rank 0 prints a JSON line for each scenario.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from persia.embedding.precision import encode
from persia.runtime.plan import Plan, make_plan
from persia.runtime.rendezvous import open_store
from persia.runtime.trainer import Trainer
from persia.scenario import load_scenario

_WARM_STEPS, _STEPS = 5, 30


def _batch(plan: Plan) -> tuple[Any, Any, list[Any]]:
    generator = np.random.default_rng(0)
    samples, wire = plan.batch_size, plan.scenario.schedule.precision.worker_rank
    pooled = [
        array
        for group in plan.groups
        for array in encode(generator.standard_normal((samples, group.features, group.dim), dtype=np.float32), wire)
    ]
    dense = generator.standard_normal((samples, plan.scenario.model.dense.dense_features), dtype=np.float32)
    return np.zeros(samples, np.float32), dense, pooled


def _seconds(trainer: Trainer, plan: Plan) -> tuple[float, float]:
    """Return processor and wall seconds of a step."""
    labels, dense, pooled = _batch(plan)
    for step in range(_WARM_STEPS):
        trainer.train(step, labels, dense, pooled)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for step in range(_STEPS):
        trainer.train(step, labels, dense, pooled)
    return (time.process_time() - cpu_s) / _STEPS, (time.perf_counter() - wall_s) / _STEPS


def _idle_seconds() -> float:
    """Return how long a rank does nothing in an all-reduce of one number, all ranks entering it at once."""
    one = torch.zeros(1)
    for _ in range(_WARM_STEPS):
        dist.all_reduce(one)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in range(_STEPS):
        dist.all_reduce(one)
    return max(0.0, (time.perf_counter() - wall_s) - (time.process_time() - cpu_s)) / _STEPS


def main(rank: int, ranks: int, store: str, scenarios: list[str]) -> None:
    """Measure each scenario."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    opened = open_store(store)
    for number, path in enumerate(scenarios):
        alone, plan = (make_plan(load_scenario(path, [f"cluster.tiers.nn_worker.processes_per_machine={count}"])) for count in (1, ranks))
        alone_cpu_s, _ = _seconds(Trainer(alone, rank, "cpu"), alone)
        trainer = Trainer(plan, rank, "cpu")
        trainer.join(PrefixStore(f"reduce-{number}", opened), rank)
        dist.barrier()
        cpu_s, _ = _seconds(trainer, plan)
        dist.barrier()
        idle_s = _idle_seconds()
        dist.destroy_process_group()
        if rank == 0:
            measured = {"cpu_s": cpu_s - alone_cpu_s, "idle_s": idle_s, "ranks": ranks, "scenario": Path(path).name}
            sys.stdout.write(json.dumps(measured) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
