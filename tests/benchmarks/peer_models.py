"""Trains a DLRM with TorchRec or with plain PyTorch and prints samples/s: the side of `peer.py` that is not ours.

It runs in an interpreter of its own (`peer.py --peer-python`), imports nothing of this project, and trains batches that
`peer.py` has drawn and saved: the same samples that our side trains.

    backend    embeddings                                              over two processes
    torchrec   EmbeddingBagCollection, its optimizer in the backward   DistributedModelParallel, whole tables on a process
               (fbgemm's fused kernels)
    torch      an nn.EmbeddingBag(sparse=True) a feature,              whole tables on a process, exchanged by all-to-all;
               torch.optim.Adagrad on sparse gradients                 dense part in DistributedDataParallel

Shapes: B samples of a process, W processes, F features, n of them on this process, D dim, k IDs of a sample and feature.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

WARM_UP_STEPS = 8
TOP = (512, 256)
BOTTOM = (512, 256, 64)
Batch = tuple[Tensor, Tensor, Tensor]  # labels [B], dense [B, 13], ids [F, B, k]
Step = Callable[[Batch], Tensor]


def tower(widths: tuple[int, ...], *, last_relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


class Dense(nn.Module):
    """Bottom network, dot products of all pairs of vectors, top network."""

    def __init__(self, dense_features: int, features: int, dim: int) -> None:
        super().__init__()
        hidden = BOTTOM if BOTTOM[-1] != dim else BOTTOM[:-1]
        self.bottom = tower((dense_features, *hidden, dim), last_relu=True)
        self.top = tower((dim + (features + 1) * features // 2, *TOP, 1), last_relu=False)
        self.register_buffer("pairs", torch.tril_indices(features + 1, features + 1, -1))

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        bottom = self.bottom(dense)
        vectors = torch.cat([bottom.unsqueeze(1), embeddings], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([bottom, dots], 1)).squeeze(1)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels)


def torchrec_step(options: argparse.Namespace, dense: Dense) -> Step:
    """The model as TorchRec's users write it."""
    torchrec = importlib.import_module("torchrec")
    parallel = importlib.import_module("torchrec.distributed.model_parallel")
    sharding = importlib.import_module("torchrec.distributed.embeddingbag")
    planner = importlib.import_module("torchrec.distributed.planner")
    types = importlib.import_module("torchrec.distributed.planner.types")
    environment = importlib.import_module("torchrec.distributed.types").ShardingEnv.from_process_group(dist.group.WORLD)
    optimizers = importlib.import_module("fbgemm_gpu.split_embedding_configs").EmbOptimType
    keys = [f"feature{index}" for index in range(options.features)]
    configs = [
        torchrec.EmbeddingBagConfig(name=f"table_{key}", embedding_dim=options.dim, num_embeddings=options.rows, feature_names=[key])
        for key in keys
    ]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = torchrec.EmbeddingBagCollection(device=torch.device("meta"), tables=configs)
            self.dense = dense

        def forward(self, values: Tensor, bags: Any) -> Tensor:
            logits: Tensor = self.dense(values, self.tables(bags).values().view(len(values), options.features, options.dim))
            return logits

    fused = {"optimizer": optimizers.EXACT_ADAGRAD, "learning_rate": options.learning_rate, "eps": 1e-10}
    sharder = sharding.EmbeddingBagCollectionSharder(fused_params=fused)
    constraint = types.ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"])
    topology = planner.Topology(world_size=dist.get_world_size(), compute_device="cpu")
    model = Model()
    plan = planner.EmbeddingShardingPlanner(topology=topology, constraints={config.name: constraint for config in configs}).collective_plan(
        model, [sharder], dist.group.WORLD
    )
    wrapped = parallel.DistributedModelParallel(model, env=environment, device=torch.device("cpu"), plan=plan, sharders=[sharder])
    optimizer = torch.optim.Adam([p for name, p in wrapped.named_parameters() if "dense" in name], options.dense_learning_rate)
    lengths: dict[int, Tensor] = {}
    made: dict[int, Any] = {}

    def bags_of(ids: Tensor) -> Any:
        """Made once for each of the distinct batches, as by an input pipeline that costs nothing."""
        if id(ids) not in made:
            k = ids.shape[2]
            lengths[k] = lengths.get(k, torch.full((ids.shape[0] * ids.shape[1],), k, dtype=torch.int32))
            made[id(ids)] = torchrec.sparse.jagged_tensor.KeyedJaggedTensor(keys=keys, values=ids.reshape(-1), lengths=lengths[k])
        return made[id(ids)]

    def step(batch: Batch) -> Tensor:
        labels, values, ids = batch
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(wrapped(values, bags_of(ids)), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


class Tables(nn.Module):
    """Some features' tables as plain PyTorch has them: ids [n, B, k] -> [B, n, D]."""

    def __init__(self, count: int, rows: int, dim: int) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for _ in range(count))
        for bag in self.bags:
            nn.init.uniform_(bag.weight, -0.01, 0.01)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.stack([bag(part) for bag, part in zip(self.bags, ids, strict=True)], 1)


class Exchange:
    """All-to-all of ids and embeddings between processes that hold whole tables."""

    def __init__(self, options: argparse.Namespace, rank: int, world: int) -> None:
        owned = [list(range(peer, options.features, world)) for peer in range(world)]
        self.order = list(itertools.chain(*owned))
        self.counts = [len(features) for features in owned]
        self.back = torch.argsort(torch.tensor(self.order))
        self.own, self.world, self.dim = self.counts[rank], world, options.dim

    def ids(self, ids: Tensor) -> Tensor:
        """Return the own tables' ids of all processes' samples, [n, W B, k], of this process's ids [F, B, k]."""
        _, samples, k = ids.shape
        received = ids.new_empty(self.world, self.own, samples, k)
        sent = ids[self.order].reshape(-1)
        dist.all_to_all_single(received.view(-1), sent, self._sizes(self.own * samples * k), self._of_all(samples * k))
        return received.transpose(0, 1).reshape(self.own, self.world * samples, k)

    def embeddings(self, pooled: Tensor) -> Tensor:
        """Return this process's samples [B, F, D] of the own tables' [W B, n, D]."""
        samples = len(pooled) // self.world
        received = pooled.new_empty(samples * len(self.order) * self.dim)
        each = self._of_all(samples * self.dim)
        dist.all_to_all_single(received, pooled.reshape(-1), each, self._sizes(samples * self.own * self.dim))
        parts = [part.view(samples, count, self.dim) for part, count in zip(received.split(each), self.counts, strict=True)]
        return torch.cat(parts, 1)[:, self.back]

    def gradients(self, gradient: Tensor) -> Tensor:
        """Return the own tables' gradients [W B, n, D] of this process's [B, F, D], as means over the processes."""
        samples = len(gradient)
        parts = gradient[:, self.order].split(self.counts, 1)
        sent = torch.cat([part.reshape(-1) for part in parts]) / self.world
        received = sent.new_empty(self.world * samples * self.own * self.dim)
        dist.all_to_all_single(received, sent, self._sizes(samples * self.own * self.dim), self._of_all(samples * self.dim))
        return received.view(self.world * samples, self.own, self.dim)

    def _sizes(self, size: int) -> list[int]:
        return [size] * self.world

    def _of_all(self, size: int) -> list[int]:
        return [count * size for count in self.counts]


def torch_step(options: argparse.Namespace, dense: Dense) -> Step:
    """The model in plain PyTorch."""
    world, rank = dist.get_world_size(), dist.get_rank()
    exchange = Exchange(options, rank, world)
    tables = Tables(exchange.own, options.rows, options.dim)
    wrapped = DistributedDataParallel(dense) if world > 1 else dense
    optimizer = torch.optim.Adam(dense.parameters(), options.dense_learning_rate)
    sparse_optimizer = torch.optim.Adagrad(tables.parameters(), options.learning_rate)

    def step(batch: Batch) -> Tensor:
        labels, values, ids = batch
        optimizer.zero_grad(set_to_none=True)
        sparse_optimizer.zero_grad(set_to_none=True)
        if world == 1:
            loss = loss_of(wrapped(values, tables(ids)), labels)
            loss.backward()
        else:
            pooled = tables(exchange.ids(ids))
            leaf = exchange.embeddings(pooled.detach()).requires_grad_(True)
            loss = loss_of(wrapped(values, leaf), labels)
            loss.backward()
            assert leaf.grad is not None
            pooled.backward(exchange.gradients(leaf.grad))
        optimizer.step()
        sparse_optimizer.step()
        return loss

    return step


def read_batches(path: str, rank: int, world: int) -> list[Batch]:
    with np.load(path) as arrays:
        labels, dense, ids = (torch.from_numpy(arrays[name]) for name in ("labels", "dense", "ids"))
    return [(labels[place], dense[place], ids[place]) for place in range(rank, len(labels), world)]


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Train until `--seconds` have passed since the end of the warm-up; all processes do the same number of steps."""
    rank, world = dist.get_rank(), dist.get_world_size()
    batches = read_batches(options.batches, rank, world)
    torch.manual_seed(0)
    dense = Dense(batches[0][1].shape[1], options.features, options.dim)
    step = {"torchrec": torchrec_step, "torch": torch_step}[options.backend](options, dense)
    turn = itertools.cycle(batches)
    losses: list[Tensor] = []

    def run(steps: int) -> float:
        dist.barrier()
        began_s = time.perf_counter()
        for _ in range(steps):
            losses.append(step(next(turn)).detach())
        dist.barrier()
        return time.perf_counter() - began_s

    run(WARM_UP_STEPS)
    guess = torch.tensor([max(1, round(options.seconds / (run(WARM_UP_STEPS) / WARM_UP_STEPS)))])
    dist.broadcast(guess, 0)
    steps, cpu_s = int(guess), time.process_time()
    taken_s = run(steps)
    cpu_s = time.process_time() - cpu_s
    return {
        "samples_per_s": world * len(batches[0][0]) * steps / taken_s,
        "step_s": taken_s / steps,
        "cpu_s_per_batch": cpu_s / steps,
        "steps": steps,
        "loss": float(torch.stack(losses[-50:]).mean()),
        "peak_resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Run one process; process 0 prints the result as JSON."""
    parser = argparse.ArgumentParser(description="One process of a peer; peer.py starts them.")
    parser.add_argument("--backend", choices=["torchrec", "torch"], required=True)
    parser.add_argument("--batches", required=True, help="labels [N,B], dense [N,B,13], ids [N,F,B,k] of N batches, a .npz file")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", type=int, default=26)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--dense-learning-rate", type=float, default=1e-3)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(options.port), RANK=str(options.rank), WORLD_SIZE=str(options.world))
    os.environ.update(LOCAL_RANK=str(options.rank), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=options.rank, world_size=options.world)
    result = measure(options)
    if options.rank == 0:
        print(json.dumps(result))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # the libraries' threads need not be waited for


if __name__ == "__main__":
    main()
