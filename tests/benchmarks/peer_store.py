"""fbgemm's fused step on one table: the side of `bench_store.py` that is not ours; it imports nothing of this project.

One SplitTableBatchedEmbeddingBagsCodegen on the host with exact element-wise Adagrad, a bag for every key of a request, no
hash and no recency.  Prints one JSON object: M rows/s (each looked up and updated) of every repeat.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import time
import warnings

import numpy as np
import torch


def main() -> None:
    """Time forward and backward over all requests, repeat by repeat."""
    parser = argparse.ArgumentParser(description="bench_store.py starts it.")
    parser.add_argument("--requests", required=True, help="a .npy file of keys int64[count, size]")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    training = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_training")
    common = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_common")
    optimizers = importlib.import_module("fbgemm_gpu.split_embedding_configs").EmbOptimType
    table = training.SplitTableBatchedEmbeddingBagsCodegen(
        [(options.rows, options.dim, common.EmbeddingLocation.HOST, training.ComputeDevice.CPU)],
        optimizer=optimizers.EXACT_ADAGRAD,
        learning_rate=0.01,
        eps=1e-10,
        pooling_mode=common.PoolingMode.SUM,
    )
    table.split_embedding_weights()[0].uniform_(-0.01, 0.01)
    requests = torch.from_numpy(np.load(options.requests))
    offsets = torch.arange(requests.shape[1] + 1)
    gradients = torch.full((requests.shape[1], options.dim), 1e-3)

    def run() -> float:
        began_s = time.perf_counter()
        for keys in requests:
            table(keys, offsets).backward(gradients)
        return requests.numel() / (time.perf_counter() - began_s) / 1e6

    run()
    print(json.dumps([run() for _ in range(options.repeats)]))


if __name__ == "__main__":
    main()
