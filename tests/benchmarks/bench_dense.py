"""What the dense part of a batch costs: `python tests/benchmarks/bench_dense.py [--batch 2048] [--rounds 12] [--dims 16 64]`.

Prints samples/s of forward + backward + Adam of a DLRM (26 features, 13 dense features, bottom 512-256-64, top 512-256-1) on
the CPU, with one and with two threads:

* ours: this project's model and training step in fp32, freed memory kept as in an NN worker;
* plain: the same network as plain PyTorch writes it (nn.Linear, one batched product, its lower triangle by index,
  torch.optim.Adam), which is also what runs as the dense part under TorchRec;
* bf16: ours with `precision: bf16`, where the processor multiplies it. It is no like-for-like comparison.

Each runs in a process of its own, all from the same weights and over the same data, in turn, a few steps at a time, so that a
noisy machine is noisy for all: medians, fastest steps, their ratios to plain.  `--profile` adds where our time goes.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.dense import (  # noqa: E402
    DenseModel,
    DenseSpec,
    accept_gradients,
    build,
    keep_freed_memory,
    make_optimizer,
    train_batch,
)
from persia.dense.kernels import MULTIPLIES_BF16  # noqa: E402

FEATURES, DENSE_FEATURES, TOP, BOTTOM = 26, 13, (512, 256), (512, 256, 64)
LEARNING_RATE = 1e-3
WARM_UP_STEPS, STEPS_A_TURN = 5, 5

Step = Callable[[], Tensor]
Batch = tuple[Tensor, Tensor, Tensor]


class PlainDlrm(nn.Module):
    """The same network in plain PyTorch; it takes its first weights from ours."""

    def __init__(self, ours: DenseModel) -> None:
        super().__init__()
        vectors = FEATURES + 1
        self.bottom = plain_tower(ours.spec.bottom_widths, last_relu=True)
        self.top = plain_tower(ours.spec.top_widths, last_relu=False)
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1))
        own = (tensor for tower in (ours.bottom, ours.top) for pair in zip(tower.weights, tower.biases, strict=True) for tensor in pair)
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), own, strict=True):
                parameter.copy_(value)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        bottom = self.bottom(dense)
        vectors = torch.cat([bottom.unsqueeze(1), embeddings], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([bottom, dots], 1)).squeeze(1)


def plain_tower(widths: tuple[int, ...], *, last_relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


def our_step(model: DenseModel, batch: Batch) -> Step:
    optimizer = make_optimizer("adam", model.parameters(), LEARNING_RATE)
    dense, embeddings, labels = batch

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = train_batch(model, dense, [embeddings], labels)
        if accept_gradients(model):
            optimizer.step()
        return loss

    return step


def plain_step(model: PlainDlrm, batch: Batch) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    dense, embeddings, labels = batch

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.binary_cross_entropy_with_logits(model(dense, embeddings.detach().requires_grad_(True)), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def step_of(side: str, dim: int, samples: int) -> Step:
    """Return one training step of `ours`, `plain` or `bf16`."""
    spec = DenseSpec(
        dense_features=DENSE_FEATURES,
        groups=((FEATURES, dim, "sum"),),
        layers=TOP,
        architecture="dlrm",
        precision="bf16" if side == "bf16" else "fp32",
        bottom_layers=BOTTOM if dim != BOTTOM[-1] else BOTTOM[:-1],
        seed=1,
    )
    torch.manual_seed(0)
    batch = torch.randn(samples, DENSE_FEATURES), torch.randn(samples, FEATURES, dim), (torch.rand(samples) < 0.25).float()
    model = build(spec)
    if side == "plain":
        return plain_step(PlainDlrm(model), batch)
    keep_freed_memory()
    return our_step(model, batch)


def serve(side: str, dim: int, samples: int, threads: int, pipe: Connection) -> None:
    """Take numbers of steps from the pipe until 0, and answer each with the last loss and the seconds of every step."""
    torch.set_num_threads(threads)
    step = step_of(side, dim, samples)
    while count := pipe.recv():
        times_s = []
        for _ in range(count):
            began_s = time.perf_counter()
            loss = step()
            times_s.append(time.perf_counter() - began_s)
        pipe.send((float(loss), times_s))


def measure(dim: int, samples: int, threads: int, rounds: int) -> None:
    """Run all sides in turn and print a line each."""
    context = multiprocessing.get_context("spawn")
    sides = ["plain", "ours", *(["bf16"] if MULTIPLIES_BF16 else [])]
    pipes, processes = {}, []
    for side in sides:
        pipes[side], far = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, dim, samples, threads, far)))
        processes[-1].start()

    def turn(side: str, count: int) -> tuple[float, list[float]]:
        pipes[side].send(count)
        return pipes[side].recv()

    first_loss = {side: turn(side, 1)[0] for side in sides}
    assert abs(first_loss["ours"] - first_loss["plain"]) < 1e-5, first_loss
    times_s: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        turn(side, WARM_UP_STEPS)
    for _ in range(rounds):
        for side in sides:
            times_s[side] += turn(side, STEPS_A_TURN)[1]
    for side, process in zip(sides, processes, strict=True):
        pipes[side].send(0)
        process.join()
    medians = {side: statistics.median(times_s[side]) for side in sides}
    best = {side: min(times_s[side]) for side in sides}
    for side in sides:
        print(
            f"dim {dim:>3}, threads {threads}, {side:<5}: {samples / medians[side]:>7,.0f} samples/s, "
            f"{medians['plain'] / medians[side]:.2f} of plain; fastest step {1e3 * best[side]:>6.1f} ms, "
            f"{best['plain'] / best[side]:.2f} of plain's",
            flush=True,
        )


def profile(dim: int, samples: int) -> None:
    """Print where one thread's time goes in our step."""
    torch.set_num_threads(1)
    step = step_of("ours", dim, samples)
    for _ in range(WARM_UP_STEPS):
        step()
    with torch.profiler.profile() as profiler:
        for _ in range(WARM_UP_STEPS):
            step()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=40))


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for dim, threads in itertools.product(options.dims, options.threads):
        measure(dim, options.batch, threads, options.rounds)
    if options.profile:
        for dim in options.dims:
            profile(dim, options.batch)


if __name__ == "__main__":
    main()
