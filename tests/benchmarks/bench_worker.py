"""What the embedding worker's kernels cost: `python tests/benchmarks/bench_worker.py [--dims 16 64] [--repeats 15]`.

One thread works on one batch of 26 features x ten ids, Zipf 1.05 over 100,000 rows a feature (all can be changed), and
prints for every kernel the least and the median time in ms, and millions of ids a second (for pooling and planning) or
GB of float32 a second (for wire precision) at the least:
(a) checking and planning, beside numpy's own `unique` with its inverse, feature by feature;
(b) pooling and its reverse, beside torch's `embedding_bag` forward and backward on one thread where torch is installed;
(c) encoding and decoding the pooled vectors, beside numpy's `astype` and a plain copy.
The kernels of a part are timed in turn, so that all meet the same neighbours.

Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.embedding import plan, pooling, precision  # noqa: E402 (the checkout need not be installed)
from persia.embedding.plan import check_bags, plan_group  # noqa: E402
from persia.embedding.pooling import gather_raw, pool, scatter_raw, unpool  # noqa: E402
from persia.embedding.precision import decode, encode  # noqa: E402

Work = Callable[[], object]


def zipf_ids(chosen: argparse.Namespace) -> npt.NDArray[np.int64]:
    """Return ids of one batch, feature-major; each feature has popular ids of its own."""
    generator = np.random.default_rng(chosen.seed)
    weights = np.arange(1, chosen.rows + 1) ** -chosen.alpha
    weights /= weights.sum()
    drawn = [generator.choice(chosen.rows, chosen.batch * chosen.ids, p=weights) for _ in range(chosen.features)]
    return np.concatenate([generator.permutation(chosen.rows)[ranks] for ranks in drawn])


def take_turns(title: str, works: Mapping[str, Work], repeats: int, amount: float, unit: str) -> None:
    """Time the works in turn and print a line for each.

    Args:
        title: What is printed above.
        works: What to time, by name.
        repeats: Rounds.
        amount: What one run works through, in millions of `unit`.
        unit: "ids" or "bytes".
    """
    taken_s: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            began_s = time.perf_counter()
            work()
            taken_s[name].append(time.perf_counter() - began_s)
    print(title)
    for name, times_s in taken_s.items():
        least_s, median_s = min(times_s), statistics.median(times_s)
        rate = f"{amount / least_s:8.1f} M ids/s" if unit == "ids" else f"{amount / least_s / 1000:8.2f} GB/s"
        print(f"    {name:<34} {1000 * least_s:8.2f} ms   (median {1000 * median_s:8.2f})  {rate}")


def planning(ids: npt.NDArray[np.int64], offsets: npt.NDArray[np.int32], chosen: argparse.Namespace) -> None:
    """Time part (a)."""
    features, batch = chosen.features, chosen.batch
    by_feature = ids.reshape(features, -1)
    works: dict[str, Work] = {"check_bags": lambda: check_bags(ids, offsets, features, batch)}
    for servers in chosen.servers:
        works[f"plan_group, {servers} servers"] = lambda servers=servers: plan_group(  # type: ignore[misc]
            ids, offsets, first_feature=0, features=features, servers=servers
        )
    works["numpy.unique, no servers"] = lambda: [np.unique(row, return_inverse=True) for row in by_feature]
    take_turns("(a) planning", works, chosen.repeats, ids.size / 1e6, "ids")


def torch_works(
    rows: npt.NDArray[np.float32], inverse: npt.NDArray[np.int32], offsets: npt.NDArray[np.int32], gradients: npt.NDArray[np.float32]
) -> dict[str, Work]:
    """Return torch's pooling of the same bags, on the unique rows as one dense table, with one thread."""
    if importlib.util.find_spec("torch") is None:
        return {}
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    weight = torch.tensor(rows, requires_grad=True)
    where, starts = torch.tensor(inverse.astype(np.int64)), torch.tensor(offsets[:-1].astype(np.int64))
    incoming = torch.tensor(gradients.transpose(1, 0, 2).reshape(-1, rows.shape[1]))

    def forward() -> Any:
        return torch.nn.functional.embedding_bag(where, weight, starts, mode="mean")

    def both() -> None:
        weight.grad = None
        forward().backward(incoming)

    return {"torch embedding_bag forward": forward, "torch forward and backward": both}


def pooled(ids: npt.NDArray[np.int64], offsets: npt.NDArray[np.int32], dim: int, chosen: argparse.Namespace) -> None:
    """Time parts (b) and (c) for one width."""
    features, batch = chosen.features, chosen.batch
    made = plan_group(ids, offsets, first_feature=0, features=features, servers=2)
    inverse, unique = made.inverse, made.keys.size
    generator = np.random.default_rng(chosen.seed)
    rows = generator.standard_normal((unique, dim), np.float32)
    gradients = generator.standard_normal((batch, features, dim), np.float32)
    out, sums = np.empty_like(gradients), np.empty_like(rows)
    works: dict[str, Work] = {
        "pool": lambda: pool(rows, inverse, offsets, features=features, batch=batch, pooling="mean", out=out),
        "unpool": lambda: unpool(gradients, inverse, offsets, pooling="mean", scale=0.5, unique=unique, out=sums),
        "unpool into a new array": lambda: unpool(gradients, inverse, offsets, pooling="mean", scale=0.5, unique=unique),
        **torch_works(rows, inverse, offsets, gradients),
    }
    if ids.size * dim * 4 <= chosen.raw_bytes_max:
        raw, single = gather_raw(rows, inverse), np.empty((ids.size, dim), np.float32)
        works["gather_raw"] = lambda: gather_raw(rows, inverse, single)
        works["scatter_raw"] = lambda: scatter_raw(raw, inverse, 0.5, unique, sums)
    take_turns(f"(b) pooling, {unique:,} unique rows, dim {dim}", works, chosen.repeats, ids.size / 1e6, "ids")
    halves, scaled = encode(gradients, "fp16"), encode(gradients, "fp16-scaled")
    conversions: dict[str, Work] = {
        "encode fp16": lambda: encode(gradients, "fp16"),
        "decode fp16": lambda: decode(halves, "fp16", out),
        "encode fp16-scaled": lambda: encode(gradients, "fp16-scaled"),
        "decode fp16-scaled": lambda: decode(scaled, "fp16-scaled", out),
        "numpy astype float16": lambda: gradients.astype(np.float16),
        "numpy astype float32": lambda: halves[0].astype(np.float32),
        "numpy copy of the float32": lambda: np.copyto(out, gradients),
    }
    take_turns(
        f"(c) wire precision, {gradients.nbytes / 1e6:.1f} MB of float32", conversions, chosen.repeats, gradients.nbytes / 1e6, "bytes"
    )


def main(arguments: Sequence[str]) -> None:
    """Run all three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--features", type=int, default=26)
    parser.add_argument("--ids", type=int, default=10, help="ids per feature and sample")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of a feature's table")
    parser.add_argument("--alpha", type=float, default=1.05, help="exponent of Zipf's law")
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 30])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--raw-bytes-max", type=int, default=2**28, help="raw sequences larger than this are left out")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    began_s = time.perf_counter()
    for module in (plan, pooling, precision):
        module.warm_up()
    print(f"warm-up, compiled or from numba's cache: {time.perf_counter() - began_s:.1f} s")
    ids = zipf_ids(chosen)
    offsets = (np.arange(chosen.features * chosen.batch + 1) * chosen.ids).astype(np.int32)
    print(f"{ids.size:,} ids: {chosen.features} features x {chosen.ids} x batch {chosen.batch:,}, one thread")
    planning(ids, offsets, chosen)
    for dim in chosen.dims:
        pooled(ids, offsets, dim, chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
